//! How one stream is doing: what readiness and metrics show of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
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
use crate::process::api_error;

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
    /// Whether it has been listed completely at least once, or was found absent; of an optional kind also: or cannot be listed.
    pub synced: bool,
}

/// Who listens where, by the path that is asked for.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<RwLock<BTreeMap<String, Arc<Health>>>>);

impl Listeners {
    pub(super) fn add(&self, path: &str, health: Arc<Health>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), health);
    }

    fn at(&self, path: &str) -> Option<Arc<Health>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// A client that notes when the API server was heard. Nothing else shows it: `kube`'s watcher keeps bookmarks and
    /// reconnects to itself, so on a quiet kind a dead connection would look like a live one. One client for all streams: each
    /// has a queue and a task of its own, which is more than the rest of a stream.
    pub(super) fn client(&self, client: Client) -> Client {
        let (listeners, namespace) = (self.clone(), client.default_namespace().to_owned());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (health, inner) = (listeners.at(request.uri().path()), client.clone());
            async move {
                let response: Response<Body> = inner.send(request).await?;
                let health = health.filter(|_| response.status().is_success());
                if let Some(health) = &health {
                    health.answered();
                }
                Ok::<_, kube::Error>(response.map(|body| {
                    body.map_frame(move |frame| {
                        if let Some(health) = &health {
                            health.heard();
                        }
                        frame
                    })
                }))
            }
        });
        Client::new(service, namespace)
    }
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
            synced: inner.is_synced(self.required, self.watched.is_optional),
        }
    }

    pub(super) fn is_synced(&self) -> bool {
        self.inner().is_synced(self.required, self.watched.is_optional)
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

impl Inner {
    fn is_synced(&self, required: bool, is_optional: bool) -> bool {
        self.ever_listed
            || match self.phase {
                Phase::Absent => !required,
                Phase::Failing(_) => is_optional,
                Phase::Waiting | Phase::Ok => false,
            }
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
        other => Trouble::Other(format!("can't {verb} {} {scope}: {}", watched.plural, api_error::explain(other))),
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
        _ => Trouble::Other(format!("can't {verb} {} {scope}: {}", watched.plural, api_error::refused(status))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Watched;
    use super::*;

    const PLANTED: &str = "hunter2-planted";

    fn words(error: kube::Error) -> String {
        let watched = Watched::kind_of::<k8s_openapi::api::core::v1::Secret>();
        match explain(&watcher::Error::WatchStartFailed(error), &watched, &Scope::All) {
            Trouble::Other(words) => words,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_credential_plugin_said_is_not_shown() {
        let out = std::process::Output {
            status: std::process::ExitStatus::default(),
            stdout: PLANTED.as_bytes().to_vec(),
            stderr: PLANTED.as_bytes().to_vec(),
        };
        let failed = kube::client::AuthError::AuthExecRun { cmd: PLANTED.to_owned(), out: Box::new(out) };
        let words = words(kube::Error::Service(Box::new(failed)));
        assert!(words.starts_with("can't watch secrets in all namespaces: the kubeconfig's credential plugin failed"));
        assert!(!words.contains(PLANTED), "{words}");
    }

    #[test]
    fn a_proxys_page_is_not_shown() {
        let page = format!("<html>{PLANTED}{}</html>", "x".repeat(9_000));
        let no_status = kube::core::Status::failure(&page, "Failed to parse error data").with_code(502);
        let words = words(kube::Error::Api(no_status.boxed()));
        assert!(words.contains("502") && words.len() < 300 && !words.contains(PLANTED), "{words}");
    }
}
