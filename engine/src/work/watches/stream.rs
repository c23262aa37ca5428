//! Follows one stream for ever: its own backoff, its own trouble, nothing shared with other streams.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use kube::core::Resource;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::{Api, runtime};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use tracing::{debug, error};

use super::health::{Health, Phase, Trouble, explain};
use super::presence::{self, Presence};
use crate::process::{api_error, gate};

/// How long the API server may be silent in the middle of a list.
const LIST_SILENCE: Duration = Duration::from_secs(60);

/// The server ends a watch after this time, and the client takes a connection for dead 5 s later, if no ping has told before. Below the 240 s after
/// which the strictest of the usual load balancers drops an idle connection without a word: where HTTP/2 is not spoken, there are no pings.
const WATCH_SECONDS: u32 = 200;

/// Objects per page of a list: what is in memory at once.
const PAGE: u32 = 100;
/// By how much a page shrinks when it was too large to be taken in: whoever may make objects decides how large they are.
const SHRINK: u32 = 4;

/// What to ask of the API server.
pub(super) fn config(selector: Option<&str>) -> watcher::Config {
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    match selector {
        Some(selector) => config.labels(selector),
        None => config,
    }
}

/// Who hears one stream.
pub(super) trait Consumer<K>: Send + 'static {
    fn event(&mut self, event: Event<K>);

    /// The kind has just turned out to be unknown to the API server.
    fn absent(&mut self) {}
}

/// Counts the wishes for a complete list.
pub(super) type Rounds = tokio::sync::watch::Receiver<u64>;

/// Never returns. Each change of `rounds` asks for a complete list.
pub(super) async fn follow<K, C>(
    api: Api<K>,
    config: watcher::Config,
    health: Arc<Health>,
    mut rounds: Rounds,
    presence: Arc<Presence>,
    mut consumer: C,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    C: Consumer<K>,
{
    let mut backoff = DefaultBackoff::default();
    let mut page = PAGE;
    loop {
        if health.watched.is_optional {
            until_served(&presence, &health, &mut consumer, &mut backoff).await;
        }
        let config = config.clone().page_size(page);
        let once = follow_once(&api, config, &health, &mut rounds, &mut consumer, &mut backoff, &mut page);
        // Whatever a consumer does to itself, the stream begins again with a full list.
        if AssertUnwindSafe(once).catch_unwind().await.is_err() {
            error!(watched = %health.watched, scope = %health.scope, "handling an event panicked; listing again");
            health.failing(Phase::Failing("the operator failed while handling an event".into()));
            pause(&mut backoff).await;
        }
    }
}

/// Waits for a kind that the cluster may lack.
async fn until_served<K, C: Consumer<K>>(
    presence: &Presence,
    health: &Health,
    consumer: &mut C,
    backoff: &mut DefaultBackoff,
) {
    loop {
        match presence.is_served(&health.watched).await {
            Ok(true) => return,
            Ok(false) => {
                if health.failing(Phase::Absent) {
                    consumer.absent();
                }
                sleep(presence::BETWEEN_LOOKS).await;
            }
            Err(error) => {
                let words = api_error::explain(&error);
                health.failing(Phase::Failing(format!("can't ask whether there is {}: {words}", health.watched)));
                pause(backoff).await;
            }
        }
    }
}

/// Lists and watches until only a new list can help, and says in `page` how large that one's pages may be.
async fn follow_once<K, C>(
    api: &Api<K>,
    config: watcher::Config,
    health: &Health,
    rounds: &mut Rounds,
    consumer: &mut C,
    backoff: &mut DefaultBackoff,
    page: &mut u32,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    C: Consumer<K>,
{
    let mut stream = pin!(runtime::watcher(api.clone(), config));
    let mut listing = true;
    loop {
        let next = tokio::select! {
            next = timeout(if listing { LIST_SILENCE } else { Duration::MAX }, stream.next()) => next,
            Ok(()) = rounds.changed() => return,
        };
        let next = match next {
            Ok(next) => next,
            Err(_) if health.heard_ago() < LIST_SILENCE => continue,
            Err(_) => {
                let silence = LIST_SILENCE.as_secs();
                let reason = format!("the API server was silent for {silence} s in a list of {}", health.watched);
                health.failing(Phase::Failing(reason));
                return;
            }
        };
        match next {
            None => return,
            Some(Ok(event)) => {
                let complete = matches!(event, Event::InitDone);
                listing = matches!(event, Event::Init | Event::InitApply(_));
                if matches!(event, Event::Init) {
                    health.listing();
                }
                if matches!(event, Event::Apply(_) | Event::Delete(_)) {
                    // Not after a list: list, refusal, list, refusal … must slow down, too. Quiet streams are forgiven
                    // after 120 s.
                    backoff.reset();
                }
                consumer.event(event);
                if complete {
                    *page = PAGE;
                    health.listed();
                }
            }
            Some(Err(watcher::Error::InitialListFailed(error))) if *page > 1 && gate::is_too_large(&error) => {
                *page = (*page / SHRINK).max(1);
                debug!(watched = %health.watched, scope = %health.scope, page, "a page was too large; listing in smaller ones");
                return;
            }
            Some(Err(error)) => {
                let trouble = explain(&error, &health.watched, &health.scope);
                let list_again = matches!(trouble, Trouble::Expired | Trouble::Absent) || was_away(&error);
                match trouble {
                    Trouble::Expired => {}
                    Trouble::Absent if health.required => {
                        let reason = format!("the API server does not know {}: is its CRD installed?", health.watched);
                        health.failing(Phase::Failing(reason));
                    }
                    Trouble::Absent => {
                        if health.failing(Phase::Absent) {
                            consumer.absent();
                        }
                    }
                    Trouble::Other(reason) => {
                        health.failing(Phase::Failing(reason));
                    }
                }
                pause(backoff).await;
                if list_again {
                    // The watcher would ask for the same expired version again if the refusal came as an HTTP status.
                    return;
                }
            }
        }
    }
}

/// Whether no API server was there when a watch was to go on. It may come back from a backup, with versions lower than those that we know: to a watch
/// from a version that is still to come it would show nothing until then.
fn was_away(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(error @ kube::Error::Service(_)) if gate::cause(error).is_none())
}

async fn pause(backoff: &mut DefaultBackoff) {
    sleep(backoff.next().unwrap_or(Duration::from_secs(30))).await;
}
