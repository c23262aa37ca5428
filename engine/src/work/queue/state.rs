//! The rules of the work queue, as a state machine: every step is given the time and says what follows from it.
//!
//! No clock, no task, no lock in here: [`super::Queue`] adds those. What must hold is stated as laws in the tests
//! below.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use strum::{EnumCount as _, IntoEnumIterator as _};
use tokio::time::Instant;

use super::{End, Key, Urgency};
use crate::work::backoff::{self, Class};

/// How the queue spaces passes.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Rest of an object after a pass, so that the events which the pass itself caused make one further pass and not
    /// ten. The first event after a quiet time is not delayed at all.
    pub debounce: Duration,
    /// The same rest after a pass that failed: a child that flaps can't turn a failing object into a busy loop.
    /// Longer waits (the backoff) are cut short by a change, this one is not.
    pub rest_after_failure: Duration,
    /// How many passes in a row may overtake what is due and less urgent. Then it has its turn, so that a flood can't
    /// starve it.
    pub overtakes_in_a_row: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { debounce: Duration::from_millis(30), rest_after_failure: Duration::from_secs(1), overtakes_in_a_row: 19 }
    }
}

/// What to do at a given moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This pass may run now. The key isn't handed out again until [`QueueState::finish`].
    Run(Grant),
    /// Nothing is due before this moment, unless something is added.
    Until(Instant),
    /// Nothing is waiting.
    Idle,
}

/// The right to run one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose pass it is.
    pub key: Key,
    /// Why it runs: of several reasons the most urgent one.
    pub urgency: Urgency,
    /// Failures in a row before this pass.
    pub failures: u32,
    /// How long it was due before it could run.
    pub waited: Duration,
}

/// How full the queue is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Keys that are due and wait for a free worker.
    pub due: usize,
    /// Keys whose time has not come yet: resync, backoff, rest after a pass.
    pub later: usize,
    /// Passes that are running.
    pub running: usize,
    /// Keys whose last pass failed.
    pub failing: usize,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    due: Instant,
    urgency: Urgency,
    ticket: u64,
}

#[derive(Debug)]
struct Entry {
    waiting: Option<Wait>,
    running: Option<Urgency>,
    failures: u32,
    not_before: Instant,
}

/// Which key waits, which runs, and until when.
#[derive(Debug)]
pub struct QueueState {
    settings: Settings,
    entries: BTreeMap<Key, Entry>,
    lines: [Line; Urgency::COUNT],
    tickets: u64,
    running: usize,
    /// When a pass last began or ended, or was first asked for: before that there is nobody to run one.
    moved: Option<Instant>,
}

/// Keys of one urgency that wait and don't run.
#[derive(Debug, Default)]
struct Line {
    /// By due time and then by order of arrival.
    keys: BTreeMap<(Instant, u64), Key>,
    /// How many passes in a row have overtaken it while it was due.
    overtaken: u32,
}

impl Line {
    fn head(&self) -> Option<Instant> {
        self.keys.first_key_value().map(|(&(due, _), _)| due)
    }
}

impl QueueState {
    /// An empty queue.
    pub fn new(settings: Settings) -> Self {
        Self { settings, entries: BTreeMap::new(), lines: Default::default(), tickets: 0, running: 0, moved: None }
    }

    /// Asks for a pass of `key` at `due` (in the past: at once). Of several wishes the earliest time and the highest
    /// urgency win; a wish during a pass means one more pass after it.
    pub fn add(&mut self, key: &Key, urgency: Urgency, due: Instant, now: Instant) {
        let due = due.max(now);
        let entry = self.entries.entry(key.clone()).or_insert(Entry {
            waiting: None,
            running: None,
            failures: 0,
            not_before: now,
        });
        let due = due.max(entry.not_before);
        let wish = match entry.waiting {
            Some(wait) if wait.due <= due && wait.urgency >= urgency => return,
            Some(wait) => Wait { due: wait.due.min(due), urgency: wait.urgency.max(urgency), ..wait },
            None => {
                self.tickets += 1;
                Wait { due, urgency, ticket: self.tickets }
            }
        };
        let (before, idle) = (entry.waiting.replace(wish), entry.running.is_none());
        if idle {
            if let Some(before) = before {
                self.line_mut(before.urgency).keys.remove(&(before.due, before.ticket));
            }
            self.line_mut(wish.urgency).keys.insert((wish.due, wish.ticket), key.clone());
        }
    }

    /// What may run at `now`: the most urgent of what is due, but see [`Settings::overtakes_in_a_row`].
    pub fn next(&mut self, now: Instant) -> Next {
        self.moved.get_or_insert(now);
        let is_due = |line: &Line| line.head().is_some_and(|due| due <= now);
        let due = || Urgency::iter().rev().filter(|urgency| is_due(self.line(*urgency)));
        let starved = due().find(|urgency| self.line(*urgency).overtaken >= self.settings.overtakes_in_a_row);
        let Some(urgency) = starved.or_else(|| due().next()) else {
            return self.lines.iter().filter_map(Line::head).min().map_or(Next::Idle, Next::Until);
        };
        for (line, of) in self.lines.iter_mut().zip(Urgency::iter()) {
            match of.cmp(&urgency) {
                Ordering::Less if is_due(line) => line.overtaken += 1,
                Ordering::Less | Ordering::Equal => line.overtaken = 0,
                Ordering::Greater => {}
            }
        }

        let Some(((due, _), key)) = self.line_mut(urgency).keys.pop_first() else { return Next::Idle };
        let Some(entry) = self.entries.get_mut(&key) else { return Next::Idle };
        entry.waiting = None;
        entry.running = Some(urgency);
        (self.running, self.moved) = (self.running + 1, Some(now));
        Next::Run(Grant { urgency, failures: entry.failures, waited: now.saturating_duration_since(due), key })
    }

    /// Ends the pass of `key` that [`QueueState::next`] had allowed. Returns when the next pass comes if nothing
    /// happens, `None` for never.
    pub fn finish(&mut self, key: &Key, end: End, now: Instant) -> Option<Duration> {
        let entry = self.entries.get_mut(key)?;
        let urgency = entry.running.take()?;
        (self.running, self.moved) = (self.running - 1, Some(now));
        let (rest, again) = match end {
            End::Done { after } => {
                entry.failures = 0;
                (self.settings.debounce, after.map(|after| (Urgency::Upkeep, after)))
            }
            End::Failed(class @ (Class::Blocked | Class::InTheWay)) => {
                entry.failures = 0;
                let after = backoff::after_failure(class, 0, &key.to_string());
                (self.settings.debounce, Some((Urgency::Upkeep, after)))
            }
            End::Failed(class) => {
                entry.failures = entry.failures.saturating_add(1);
                let after = backoff::after_failure(class, entry.failures, &key.to_string());
                (self.settings.rest_after_failure, Some((urgency, after)))
            }
        };
        entry.not_before = now + rest;
        let asked_meanwhile = entry.waiting.take().map(|wait| (wait.urgency, wait.due));
        let planned = again.map(|(urgency, after)| (urgency, now + after));
        if asked_meanwhile.is_none() && planned.is_none() {
            self.entries.remove(key);
            return None;
        }
        for (urgency, due) in asked_meanwhile.into_iter().chain(planned) {
            self.add(key, urgency, due, now);
        }
        self.entries.get(key)?.waiting.map(|wait| wait.due.saturating_duration_since(now))
    }

    /// Until when nothing was amiss: `now`, unless something is due or runs. Then the moment at which a pass last began or ended, or at which
    /// something became due while none ran. Every pass has a time limit, so that this is never long ago while passes are run.
    pub fn well_until(&self, now: Instant) -> Instant {
        let due = self.lines.iter().filter_map(Line::head).filter(|due| *due <= now).min();
        match (self.moved, due) {
            (Some(moved), _) if self.running > 0 => moved,
            (Some(moved), Some(due)) => moved.max(due),
            (Some(_), None) | (None, _) => now,
        }
    }

    /// How full the queue is at `now`.
    pub fn depth(&self, now: Instant) -> Depth {
        let waiting: usize = self.lines.iter().map(|line| line.keys.len()).sum();
        let due = self.lines.iter().map(|line| line.keys.range(..=(now, u64::MAX)).count()).sum();
        Depth {
            due,
            later: waiting - due,
            running: self.running,
            failing: self.entries.values().filter(|entry| entry.failures > 0).count(),
        }
    }

    fn line(&self, urgency: Urgency) -> &Line {
        &self.lines[urgency as usize]
    }

    fn line_mut(&mut self, urgency: Urgency) -> &mut Line {
        &mut self.lines[urgency as usize]
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
