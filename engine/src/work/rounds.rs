//! Looks at every owner once: after a start, and in the slow sweep. In batches, so that the children of many owners are read together
//! ([`ReadAhead`]) and yet few of them are in memory at once.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use super::queue::{Key, Queue, Urgency};
use super::watches::Scope;
use crate::apply::{Engine, ReadAhead};

/// Owners of a batch.
const BATCH: usize = 32;
/// Scopes whose children are listed at once: more than passes ask at once would only wait.
const SCOPES_AT_ONCE: usize = 8;
/// The next batch gets its turn when so many of the last one are left.
const LEFT: usize = BATCH / 2;
/// A pass has a time limit; whatever else may keep one from ending must not end the round.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time for all lists of a batch. What has not come by then is read one by one: reading ahead saves requests, it is no condition of anything.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Time that lists which fail may cost a round. After that the rest of it is read one by one: a thousand owners must not wait for each other's.
const LOST_AT_MOST: Duration = Duration::from_secs(60);

/// The rounds, and which owners wait for their turn in one.
#[derive(Debug, Default)]
pub struct Rounds {
    open: Mutex<BTreeSet<Scope>>,
    waiting: Mutex<BTreeSet<Key>>,
    passed: Notify,
}

impl Rounds {
    /// All of this scope is known now, so that passes may judge by what they see. Its first round, which must follow, comes to every owner that was
    /// known before; what happens from now on is a reason for a pass.
    fn open(&self, scope: &Scope) {
        self.opened().insert(scope.clone());
    }

    /// Whether passes may run in this namespace. What happens before is no reason for one: the first round comes to all.
    pub fn is_open(&self, namespace: &str) -> bool {
        let opened = self.opened();
        opened.contains(&Scope::All) || opened.contains(&Scope::Namespace(namespace.to_owned()))
    }

    /// The scopes in which passes may run.
    pub fn open_scopes(&self) -> Vec<Scope> {
        self.opened().iter().cloned().collect()
    }

    /// A pass of this owner is over.
    pub fn passed(&self, key: &Key) {
        if self.waiting().remove(key) {
            self.passed.notify_one();
        }
    }

    /// The first round, scope by scope as `known` says that all of one is known: one that can't be listed keeps no other one waiting. `keys`: all
    /// owners as of now. Returns after the last scope's round, which may be never.
    pub async fn first<Known: Future<Output = ()>>(
        &self,
        scopes: &[Scope],
        known: impl Fn(Scope) -> Known,
        keys: impl Fn() -> Vec<Key>,
        queue: &Queue,
        engine: &Engine,
    ) {
        let waited = |scope: &Scope| {
            known(scope.clone()).map({
                let scope = scope.clone();
                move |()| scope
            })
        };
        let mut ready = scopes.iter().map(waited).collect::<FuturesUnordered<_>>().ready_chunks(scopes.len().max(1));
        while let Some(scopes) = ready.next().await {
            scopes.iter().for_each(|scope| self.open(scope));
            self.run(&keys(), &scopes, queue, engine).await;
        }
    }

    /// One round. Ends when each of `keys` had its pass.
    pub async fn run(&self, keys: &[Key], scopes: &[Scope], queue: &Queue, engine: &Engine) {
        let (started, mut lost) = (Instant::now(), Duration::ZERO);
        let mut lists: Vec<_> = scopes.iter().map(|scope| List::new(scope, keys, engine)).collect();
        loop {
            let mut batch = next_batch(&mut lists);
            if batch.is_empty() {
                break;
            }
            // While the passes of the last batch run.
            let began = Instant::now();
            if lost < LOST_AT_MOST && !read(&mut batch).await {
                lost += began.elapsed();
            }
            self.until_left(LEFT).await;
            let keys = || batch.iter().flat_map(|(_, keys)| keys.iter().copied());
            self.waiting().extend(keys().cloned());
            keys().for_each(|key| queue.add(key, Urgency::Upkeep));
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

    fn opened(&self) -> MutexGuard<'_, BTreeSet<Scope>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A scope, its lists of children, and which owners in it are still to come, in reverse.
struct List<'a> {
    scope: &'a Scope,
    ahead: ReadAhead<'a>,
    left: Vec<&'a Key>,
}

impl<'a> List<'a> {
    fn new(scope: &'a Scope, keys: &'a [Key], engine: &'a Engine) -> Self {
        let ahead = engine.read_ahead(scope.namespace());
        let mut left: Vec<_> = keys.iter().filter(|key| scope.covers(&key.namespace)).collect();
        left.sort_by_cached_key(|key| std::cmp::Reverse(ahead.place(&key.namespace, &key.name)));
        Self { scope, ahead, left }
    }

    /// Whether the children of these were listed.
    async fn read(&mut self, keys: &[&Key]) -> bool {
        let owners: Vec<_> = keys.iter().map(|key| (&*key.namespace, &*key.name)).collect();
        let read = self.ahead.reach(owners).await;
        if let Err(error) = &read {
            debug!(%error, scope = %self.scope, "children could not be listed; they are read one by one");
        }
        read.is_ok()
    }
}

/// The next owners, of as many scopes as it takes: hundreds of namespaces with one each must not wait for each other's lists.
fn next_batch<'l, 'a>(lists: &'l mut [List<'a>]) -> Vec<(&'l mut List<'a>, Vec<&'a Key>)> {
    let mut room = BATCH;
    let mut batch = Vec::new();
    for list in lists.iter_mut().filter(|list| !list.left.is_empty()) {
        let rest = list.left.len().saturating_sub(room);
        let keys: Vec<_> = list.left.split_off(rest).into_iter().rev().collect();
        room -= keys.len();
        batch.push((list, keys));
        if room == 0 {
            break;
        }
    }
    batch
}

/// Whether all was listed.
async fn read(batch: &mut [(&mut List<'_>, Vec<&Key>)]) -> bool {
    // Boxed one by one: the compiler cannot see that they may go to another thread if they stay a closure's.
    let lists: Vec<_> = batch.iter_mut().map(|(list, keys)| list.read(keys).boxed()).collect();
    let read = timeout(READ_LIMIT, stream::iter(lists).buffer_unordered(SCOPES_AT_ONCE).collect::<Vec<_>>()).await;
    if read.is_err() {
        debug!("children were not listed in time; they are read one by one");
    }
    read.is_ok_and(|read| read.iter().all(|is_read| *is_read))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use kube::Client;
    use kube::core::ObjectMeta;

    use super::super::queue::End;
    use super::*;
    use crate::apply::{Memory, kinds};
    use crate::testing::MARKS;

    fn keys(names: impl IntoIterator<Item = (usize, usize)>) -> Vec<Key> {
        names.into_iter().map(|(namespace, name)| Key::new(format!("ns-{namespace}"), format!("r-{name:04}"))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_never_ends_does_not_hold_up_the_round() {
        let rounds = Rounds::default();
        rounds.waiting().extend(keys([(0, 0)]));
        rounds.until_left(0).await;
    }

    #[test]
    fn a_scope_is_open_by_itself() {
        let (rounds, a) = (Rounds::default(), Scope::Namespace("a".to_owned()));
        assert!(!rounds.is_open("a"));
        rounds.open(&a);
        assert!(rounds.is_open("a") && !rounds.is_open("b"));
        assert_eq!(rounds.open_scopes(), [a]);
        rounds.open(&Scope::All);
        assert!(rounds.is_open("b"));
    }

    /// Children that are remembered as stale, and an API server that answers no list of them.
    fn engine_of_silence(keys: &[Key]) -> Engine {
        let silence = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, kube::Error>>()
        });
        let memory = Arc::new(Memory::new(MARKS));
        for key in keys {
            let labels = BTreeMap::from([("test.dev/owner".to_owned(), key.name.to_string())]);
            let metadata = ObjectMeta {
                name: Some(key.name.to_string()),
                namespace: Some(key.namespace.to_string()),
                uid: Some("u".to_owned()),
                resource_version: Some("7".to_owned()),
                labels: Some(labels),
                ..ObjectMeta::default()
            };
            assert!(memory.seen(kinds::SECRET, &metadata).changed);
        }
        Engine::new(Client::new(silence, "default"), memory, MARKS, Arc::new(()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_that_is_never_known_keeps_no_other_one_waiting() {
        let keys = vec![Key::new("a", "one"), Key::new("b", "two"), Key::new("c", "three")];
        let scopes = Scope::of(&["a", "b", "c"].map(str::to_owned));
        let (rounds, queue, engine) = (Rounds::default(), Queue::default(), engine_of_silence(&[]));
        let known = async |scope: Scope| match scope.namespace() {
            Some("a") => {}
            Some("b") => std::future::pending().await,
            _ => tokio::time::sleep(Duration::from_secs(100)).await,
        };
        let passed = Mutex::new(Vec::new());
        let passes = async {
            loop {
                let lease = queue.next().await;
                assert!(rounds.is_open(&lease.key().namespace));
                passed.lock().unwrap().push(lease.key().to_string());
                rounds.passed(lease.key());
                lease.end(End::Done { after: None });
            }
        };
        let first = rounds.first(&scopes, known, || keys.clone(), &queue, &engine);
        let later = async {
            tokio::time::sleep(Duration::from_secs(99)).await;
            assert_eq!(*passed.lock().unwrap(), ["a/one"]);
            tokio::time::sleep(Duration::from_secs(2)).await;
        };
        tokio::select! {
            () = first => panic!("b is never known"),
            () = passes => {}
            () = later => {}
        }
        assert_eq!(*passed.lock().unwrap(), ["a/one", "c/three"]);
    }

    #[tokio::test(start_paused = true)]
    async fn lists_that_never_come_hold_up_a_round_for_a_minute_however_many_batches_it_has() {
        let keys = keys((0..8 * BATCH).map(|name| (0, name)));
        let (rounds, queue, engine) = (Rounds::default(), Queue::default(), engine_of_silence(&keys));
        let passes = async {
            loop {
                let lease = queue.next().await;
                rounds.passed(lease.key());
                lease.end(End::Done { after: None });
            }
        };
        let started = Instant::now();
        tokio::select! {
            () = rounds.run(&keys, &[Scope::All], &queue, &engine) => {}
            () = passes => {}
        }
        assert_eq!(started.elapsed(), LOST_AT_MOST);
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
