//! How one stream is doing: what readiness and metrics show of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::runtime::watcher;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Scope, Watched};

/// The state of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The first list is under way.
    Waiting,
    /// It delivers.
    Ok,
    /// It doesn't, and this is why, in words for an administrator. It is tried again.
    Failing(String),
    /// The API server doesn't know the kind. It is tried again.
    Absent,
}

/// One stream, as of now.
#[derive(Debug, Clone)]
pub struct StreamState {
    /// What it watches.
    pub watched: Arc<Watched>,
    /// Where.
    pub scope: Scope,
    /// How it is doing.
    pub phase: Phase,
    /// For how long it has been so.
    pub since: Duration,
    /// How long ago it delivered anything: an event, a bookmark (about once a minute), a page of a list, a watch begun anew. A refusal
    /// is nothing.
    pub heard: Duration,
    /// Whether it has been listed completely at least once (for an optional kind: or found absent).
    pub synced: bool,
}

/// The changing part, shared by the stream, the wire below it, and those who ask.
pub(super) struct Health {
    pub(super) watched: Arc<Watched>,
    pub(super) scope: Scope,
    /// Whether the operator is useless without it.
    pub(super) required: bool,
    inner: Mutex<Inner>,
    changed: Arc<Notify>,
}

struct Inner {
    phase: Phase,
    since: Instant,
    heard: Instant,
    listing: bool,
    ever_listed: bool,
}

impl Health {
    pub(super) fn new(watched: Arc<Watched>, scope: Scope, required: bool, changed: Arc<Notify>) -> Self {
        let now = Instant::now();
        let inner = Inner { phase: Phase::Waiting, since: now, heard: now, listing: true, ever_listed: false };
        Self { watched, scope, required, inner: Mutex::new(inner), changed }
    }

    pub(super) fn state(&self) -> StreamState {
        let inner = self.inner();
        StreamState {
            watched: self.watched.clone(),
            scope: self.scope.clone(),
            phase: inner.phase.clone(),
            since: inner.since.elapsed(),
            heard: inner.heard.elapsed(),
            synced: inner.ever_listed || (inner.phase == Phase::Absent && !self.required),
        }
    }

    pub(super) fn heard_ago(&self) -> Duration {
        self.inner().heard.elapsed()
    }

    /// A list begins; until it is complete, no answer proves that the stream is well.
    pub(super) fn listing(&self) {
        self.inner().listing = true;
    }

    /// The list has arrived completely.
    pub(super) fn listed(&self) {
        let mut inner = self.inner();
        (inner.listing, inner.ever_listed) = (false, true);
        drop(inner);
        self.delivers();
    }

    /// Returns whether this is news.
    pub(super) fn failing(&self, phase: Phase) -> bool {
        let is_news = self.enter(phase.clone());
        let (watched, scope) = (&self.watched, &self.scope);
        match phase {
            Phase::Failing(reason) if is_news => warn!(%watched, %scope, reason, "watch fails"),
            Phase::Failing(reason) => debug!(%watched, %scope, reason, "watch still fails"),
            Phase::Absent if is_news => info!(%watched, %scope, "the API server does not know this kind"),
            Phase::Absent | Phase::Waiting | Phase::Ok => {}
        }
        is_news
    }

    /// A client that notes when the API server was heard. Nothing else shows it: `kube`'s watcher keeps bookmarks and
    /// reconnects to itself, so on a quiet kind a dead connection would look like a live one.
    pub(super) fn client(self: &Arc<Self>, client: &Client) -> Client {
        let (health, inner) = (self.clone(), client.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (health, inner) = (health.clone(), inner.clone());
            async move {
                let response: Response<Body> = inner.send(request).await?;
                let success = response.status().is_success();
                if success {
                    health.answered();
                }
                Ok::<_, kube::Error>(response.map(|body| {
                    body.map_frame(move |frame| {
                        if success {
                            health.heard();
                        }
                        frame
                    })
                }))
            }
        });
        Client::new(service, client.default_namespace())
    }

    fn heard(&self) {
        self.inner().heard = Instant::now();
    }

    /// A watch that failed is well again as soon as it is answered; if there is nothing to tell, no event will come.
    fn answered(&self) {
        self.heard();
        let listing = self.inner().listing;
        if !listing {
            self.delivers();
        }
    }

    fn delivers(&self) {
        let before = self.inner().phase.clone();
        if self.enter(Phase::Ok) && before != Phase::Waiting {
            info!(watched = %self.watched, scope = %self.scope, "watch works again");
        }
    }

    fn enter(&self, phase: Phase) -> bool {
        let mut inner = self.inner();
        if inner.phase == phase {
            return false;
        }
        inner.phase = phase;
        inner.since = Instant::now();
        drop(inner);
        self.changed.notify_waiters();
        true
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an error of a watch means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The history between our last event and now is lost: list again. Belongs to normal operation.
    Expired,
    /// The kind isn't there.
    Absent,
    /// Anything else, in words.
    Other(String),
}

/// Puts an error into words that say what to do. No text of an object gets in: a decoding error would quote it.
pub(super) fn explain(error: &watcher::Error, watched: &Watched, scope: &Scope) -> Trouble {
    let (verb, source) = match error {
        watcher::Error::InitialListFailed(source) => ("list", source),
        watcher::Error::WatchStartFailed(source) | watcher::Error::WatchFailed(source) => ("watch", source),
        watcher::Error::WatchError(status) => return explain_status("watch", status, watched, scope),
        watcher::Error::NoResourceVersion => {
            return Trouble::Other(format!("the API server's answer for {watched} has no resource version"));
        }
    };
    match source {
        kube::Error::Api(status) => explain_status(verb, status, watched, scope),
        kube::Error::SerdeError(decoding) => Trouble::Other(format!(
            "the API server's answer for {watched} can't be decoded ({:?} error in line {}, column {})",
            decoding.classify(),
            decoding.line(),
            decoding.column()
        )),
        other => Trouble::Other(format!("can't {verb} {} {scope}: {}", watched.plural, chain(other))),
    }
}

fn explain_status(verb: &str, status: &kube::core::Status, watched: &Watched, scope: &Scope) -> Trouble {
    match status.code {
        404 => Trouble::Absent,
        410 => Trouble::Expired,
        401 => Trouble::Other("the API server does not accept the operator's credentials (401)".into()),
        403 => Trouble::Other(format!(
            "403 forbidden: the operator has no right to {verb} {} {scope}; its service account needs list and watch",
            watched.resource()
        )),
        code => Trouble::Other(format!(
            "can't {verb} {} {scope}: the API server answers {code} {}: {}",
            watched.plural, status.reason, status.message
        )),
    }
}

/// The messages of an error and of its causes, without repetition.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}
