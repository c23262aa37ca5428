//! Looks at every owner once: after a start, and in the slow sweep. In batches, so that the children of many owners are read together
//! ([`Engine::read_ahead`]) and yet few of them are in memory at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::queue::{Key, Queue, Urgency};
use super::watches::Scope;
use crate::apply::Engine;

/// Owners of a batch.
const BATCH: usize = 32;
/// A selector chooses by name. Of a name that more namespaces share than this, children are read one by one instead: a batch would hold them all.
const NAMESAKES: usize = 4 * BATCH;
/// The next batch is read while so many of the last ones are left.
const LEFT: usize = BATCH / 2;
/// A pass has a time limit; whatever else may keep one from ending must not end the round.
const PATIENCE: Duration = Duration::from_secs(60);

/// The rounds, and which owners wait for their turn in one.
#[derive(Debug, Default)]
pub struct Rounds {
    begun: AtomicBool,
    waiting: Mutex<BTreeSet<Key>>,
    passed: Notify,
}

impl Rounds {
    /// Whether the first round has begun. It comes to every owner that was known by then.
    pub fn have_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// A pass of this owner is over.
    pub fn passed(&self, key: &Key) {
        if self.waiting().remove(key) {
            self.passed.notify_one();
        }
    }

    /// One round. Ends when each of `keys` had its pass.
    pub async fn run(&self, keys: &[Key], scopes: &[Scope], queue: &Queue, engine: &Engine) {
        self.begun.store(true, Ordering::Release);
        let started = Instant::now();
        for scope in scopes {
            let own = keys.iter().filter(|key| scope.covers(&key.namespace)).cloned().collect();
            for batch in batches(own) {
                read_ahead(engine, scope, &batch).await;
                self.waiting().extend(batch.iter().cloned());
                for key in &batch {
                    queue.add(key, Urgency::Upkeep);
                }
                self.until_left(LEFT).await;
            }
        }
        self.until_left(0).await;
        info!(owners = keys.len(), took = ?started.elapsed(), "looked at all");
    }

    async fn until_left(&self, left: usize) {
        while self.waiting().len() > left {
            if timeout(PATIENCE, self.passed.notified()).await.is_err() {
                self.waiting().clear();
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_ahead(engine: &Engine, scope: &Scope, batch: &[Key]) {
    if batch.len() > NAMESAKES {
        return;
    }
    let owners = batch.iter().map(|key| (key.namespace.as_str(), key.name.as_str())).collect();
    if let Err(error) = engine.read_ahead(scope.namespace(), &owners).await {
        debug!(%error, %scope, "children could not be listed; they are read one by one");
    }
}

/// Owners of one name are in one batch, since a list for that name shows the children of all of them.
fn batches(mut keys: Vec<Key>) -> Vec<Vec<Key>> {
    keys.sort_by(|a, b| (&a.name, &a.namespace).cmp(&(&b.name, &b.namespace)));
    let mut batches: Vec<Vec<Key>> = Vec::new();
    for namesakes in keys.chunk_by(|a, b| a.name == b.name) {
        match batches.last_mut() {
            Some(last) if last.len() + namesakes.len() <= BATCH => last.extend_from_slice(namesakes),
            _ => batches.push(namesakes.to_vec()),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: impl IntoIterator<Item = (usize, usize)>) -> Vec<Key> {
        names.into_iter().map(|(namespace, name)| Key::new(format!("ns-{namespace}"), format!("r-{name:04}"))).collect()
    }

    #[test]
    fn every_registry_is_in_one_batch_and_no_batch_is_large() {
        let all = keys((0..200).map(|name| (name % 7, name)));
        let batches = batches(all.clone());
        assert!(batches.iter().all(|batch| batch.len() <= BATCH));
        assert_eq!(batches.len(), 7);
        let batched: BTreeSet<_> = batches.into_iter().flatten().collect();
        assert_eq!(batched, all.into_iter().collect());
    }

    #[test]
    fn registries_of_one_name_stay_together() {
        let batches = batches(keys((0..BATCH + 1).map(|namespace| (namespace, 1)).chain([(0, 2)])));
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [BATCH + 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_never_ends_does_not_hold_up_the_round() {
        let rounds = Rounds::default();
        rounds.waiting().extend(keys([(0, 0)]));
        rounds.until_left(0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_batch_comes_when_passes_have_ended() {
        let rounds = Rounds::default();
        rounds.waiting().extend(keys([(0, 0), (0, 1)]));
        let started = Instant::now();
        let passes = async {
            for key in keys([(0, 0), (0, 7), (0, 1)]) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                rounds.passed(&key);
            }
        };
        tokio::join!(rounds.until_left(0), passes);
        assert_eq!(started.elapsed(), Duration::from_secs(3));
    }
}
