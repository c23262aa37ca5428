//! What `kubectl describe` tells about an object: one Kubernetes event for each turn that it takes.
//!
//! [`transitions`] is pure and decides what is worth an event: a condition flipped, or its reason changed. Nothing is
//! said about a state that lasts. [`Events`] publishes; it never fails a pass, it only takes so long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::metrics::Metrics;
use crate::process::api_error;

/// Reason of a condition whose state merely goes on: another message under it is no event.
pub const PROGRESSING: &str = "Progressing";

/// How loud an event is. Warnings are what people filter for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tone {
    /// It went as it should, or is being worked on.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Something worth an event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Happening {
    /// How loud.
    pub tone: Tone,
    /// CamelCase, at most 128 characters, never empty.
    pub reason: String,
    /// What it is about: the type of the condition. At most 128 characters, never empty.
    pub action: String,
    /// For people. At most 1 kB is published.
    pub note: String,
}

/// What became of an object between two reports of its conditions.
///
/// | condition | event |
/// |---|---|
/// | flipped to the worse | `Warning`; `Normal` if intended (below) |
/// | flipped to the better, or to `Unknown` | `Normal` |
/// | same status, other reason | `Normal`; `Warning` for `Stalled`; none for `Progressing`: it goes on |
/// | new | only `Ready=True` and `Stalled=True`: an object that starts is not one that broke |
///
/// Intended: while the operator is at work (`Reconciling`) and not stalled; `Available` while `Ready` holds, too
/// (suspended). `Reconciling` and the end of `Stalled` say nothing that `Ready` doesn't say, nor does what gets better together with it; two
/// conditions with one reason make one event.
pub fn transitions(old: &[Condition], new: &[Condition]) -> Vec<Happening> {
    let is_true = |type_: &str| new.iter().any(|condition| condition.type_ == type_ && condition.status == "True");
    let at_work = is_true("Reconciling") && !is_true("Stalled");
    let as_wanted = is_true("Ready");
    let was_as_wanted = old.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let says_it_all = as_wanted && !was_as_wanted;

    let mut happenings: Vec<Happening> = Vec::new();
    for condition in new.iter().filter(|condition| condition.type_ != "Reconciling") {
        let before = old.iter().find(|before| before.type_ == condition.type_);
        let intended = at_work || (as_wanted && condition.type_ == "Available");
        let Some(tone) = tone_of(before, condition, intended) else { continue };
        if says_it_all && condition.type_ != "Ready" && state(condition) == State::Good {
            continue;
        }
        match happenings.iter_mut().find(|known| known.reason == condition.reason) {
            Some(known) => known.tone = known.tone.max(tone),
            None => happenings.push(Happening {
                tone,
                reason: condition.reason.clone(),
                action: condition.type_.clone(),
                note: condition.message.clone(),
            }),
        }
    }
    happenings
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Bad,
    Unknown,
}

fn state(condition: &Condition) -> State {
    match (condition.type_.as_str(), condition.status.as_str()) {
        ("Stalled", "True") => State::Bad,
        ("Stalled", "False") => State::Good,
        (_, "True") => State::Good,
        (_, "False") => State::Bad,
        _ => State::Unknown,
    }
}

/// `None`: not worth an event.
fn tone_of(before: Option<&Condition>, now: &Condition, intended: bool) -> Option<Tone> {
    let stalled = now.type_ == "Stalled";
    let Some(before) = before else {
        return match (now.type_.as_str(), state(now)) {
            ("Ready", State::Good) => Some(Tone::Normal),
            ("Stalled", State::Bad) => Some(Tone::Warning),
            _ => None,
        };
    };
    let lasts = before.status == now.status;
    if lasts && (before.reason == now.reason || now.reason == PROGRESSING) {
        return None;
    }
    match state(now) {
        State::Good if stalled => None,
        State::Bad if stalled => Some(Tone::Warning),
        State::Bad if !lasts && !intended => Some(Tone::Warning),
        State::Good | State::Bad | State::Unknown => Some(Tone::Normal),
    }
}

/// Time for all events of one pass together.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a recorder is kept: as long as it counts repetitions.
const MEMORY: Duration = Duration::from_secs(6 * 60);

/// How many recorders are kept: an object that flaps comes back within seconds, a thousand that start have nothing to repeat.
const MOST: usize = 100;

/// The API's limits, in bytes: `events.k8s.io/v1` refuses more.
const LONGEST_NOTE: usize = 1024;
const LONGEST_WORD: usize = 128;

/// Publishes events. One for the whole process.
pub struct Events {
    client: Client,
    reporter: Reporter,
    metrics: Arc<Metrics>,
    /// `kube`'s recorder takes an event of the same reason for a repetition even if the note differs, and keeps the
    /// first note (kube-rs/kube#1606). So there is one for each text; it still counts true repetitions.
    recorders: Mutex<BTreeMap<(String, Happening), (Instant, Recorder)>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("reporter", &self.reporter).finish_non_exhaustive()
    }
}

impl Events {
    /// Reports as `controller`, from the process `instance` (the pod's name).
    pub fn new(client: Client, controller: &str, instance: &str, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: controller.into(), instance: Some(instance.into()) };
        Self { client, reporter, metrics, recorders: Mutex::default() }
    }

    /// Publishes what happened to the object `about`. Best effort: what can't be published within 3 s is dropped, with
    /// a line in the debug log.
    pub async fn publish(&self, about: &ObjectReference, happenings: &[Happening]) {
        let all = futures::future::join_all(happenings.iter().map(|happening| self.publish_one(about, happening)));
        if timeout(PATIENCE, all).await.is_err() {
            debug!(object = about.name, "events were not accepted in time");
        }
    }

    async fn publish_one(&self, about: &ObjectReference, happening: &Happening) {
        let event = Event {
            type_: match happening.tone {
                Tone::Normal => EventType::Normal,
                Tone::Warning => EventType::Warning,
            },
            reason: word(&happening.reason),
            action: word(&happening.action),
            note: Some(shortened(&happening.note, LONGEST_NOTE)),
            secondary: None,
        };
        let slot = (about.uid.clone().unwrap_or_default(), happening.clone());
        let mut published = self.recorder(&slot).publish(&event, about).await;
        if let Err(error) = &published {
            self.forget(&slot);
            // The event that would have been counted up may have expired.
            if matches!(error, kube::Error::Api(status) if status.is_not_found()) {
                published = self.recorder(&slot).publish(&event, about).await;
            }
        }
        match published {
            Ok(()) => self.metrics.event_published(),
            Err(error) => {
                let why = api_error::explain(&error);
                debug!(object = about.name, reason = event.reason, why, "event not published");
            }
        }
    }

    fn recorder(&self, slot: &(String, Happening)) -> Recorder {
        let now = Instant::now();
        let mut recorders = self.recorders.lock().unwrap_or_else(PoisonError::into_inner);
        recorders.retain(|_, (used, _)| now.duration_since(*used) < MEMORY);
        if recorders.len() >= MOST
            && !recorders.contains_key(slot)
            && let Some(oldest) = recorders.iter().min_by_key(|(_, (used, _))| *used).map(|(slot, _)| slot.clone())
        {
            recorders.remove(&oldest);
        }
        let fresh = || (now, Recorder::new(self.client.clone(), self.reporter.clone()));
        let (used, recorder) = recorders.entry(slot.clone()).or_insert_with(fresh);
        *used = now;
        recorder.clone()
    }

    fn forget(&self, slot: &(String, Happening)) {
        self.recorders.lock().unwrap_or_else(PoisonError::into_inner).remove(slot);
    }
}

/// The API refuses an empty reason or action.
fn word(text: &str) -> String {
    if text.is_empty() { "Unknown".into() } else { shortened(text, LONGEST_WORD) }
}

/// At most `longest` bytes of `text`, whole characters, with a sign that something is missing.
fn shortened(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let room = longest.saturating_sub('…'.len_utf8());
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last().unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
