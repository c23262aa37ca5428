//! Which object is looked at next.
//!
//! A queue of names, not of events: however many things happen to an object, one pass brings it to where it should be.
//! The rules are in [`QueueState`], pure; this file adds the clock, the waiting, and the workers. It knows nothing of
//! what a pass does.
//!
//! Why not the controller of `kube-runtime`: its error policy gets no attempt count, all its streams wait together when
//! one fails, and a panic in one pass ends it for all (kube-rs/kube#1916, #297).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::backoff::Class;

mod state;
mod workers;

pub use state::{Depth, Grant, Next, QueueState, Settings};
pub use workers::{Drained, Finished, Limits, Outcome, run_workers};

/// Namespace and name of an object. Clones share the text: each object's stands in a dozen places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `metadata.namespace`
    pub namespace: Arc<str>,
    /// `metadata.name`
    pub name: Arc<str>,
}

impl Key {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a pass is for, from the least urgent. The more urgent goes first, without starving the others.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::EnumCount, strum::EnumIter, strum::IntoStaticStr,
)]
pub enum Urgency {
    /// Resync, start-up, sweep: nobody waits for it.
    Upkeep,
    /// A child or a referenced object changed. Mostly this is what comes of a former pass, and only to be told: when a
    /// hundred objects are new, that must not hold up the making of the last one.
    Change,
    /// An object is new, or its manifest changed: somebody waits.
    Manifest,
}

/// How a pass ended, as its author sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It worked. `after`: when to look again without a reason; `None`: never (the object is gone).
    Done {
        /// The wait until then.
        after: Option<Duration>,
    },
    /// It didn't; the class and the failures in a row say how long to wait.
    Failed(Class),
}

/// The queue. Clones share it.
#[derive(Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<QueueState>,
    added: Notify,
}

impl Default for Queue {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("depth", &self.depth()).finish_non_exhaustive()
    }
}

impl Queue {
    /// An empty queue.
    pub fn new(settings: Settings) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(QueueState::new(settings)), added: Notify::new() }) }
    }

    /// A pass of `key` now, or right after the one that is running.
    pub fn add(&self, key: &Key, urgency: Urgency) {
        self.add_after(key, urgency, Duration::ZERO);
    }

    /// A pass of `key` after `delay`. If one is already waiting, the earlier time and the higher urgency win.
    pub fn add_after(&self, key: &Key, urgency: Urgency, delay: Duration) {
        let now = Instant::now();
        self.state().add(key, urgency, now + delay, now);
        self.shared.added.notify_one();
    }

    /// Waits for a pass that may run. Cancel safe: a future that is dropped has taken nothing.
    pub async fn next(&self) -> Permit {
        loop {
            let next = self.state().next(Instant::now());
            match next {
                Next::Run(grant) => {
                    // One notification wakes one waiter; whoever takes a key passes the word on.
                    self.shared.added.notify_one();
                    return Permit { grant, queue: Some(self.clone()) };
                }
                Next::Until(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = self.shared.added.notified() => {}
                },
                Next::Idle => self.shared.added.notified().await,
            }
        }
    }

    /// How full the queue is now.
    pub fn depth(&self) -> Depth {
        self.state().depth(Instant::now())
    }

    /// Until when nothing was amiss with the passes; see [`QueueState::well_until`].
    pub fn well_until(&self) -> Instant {
        self.state().well_until(Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        // Each step leaves the state whole, so a panic elsewhere in the holder's thread has broken nothing.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to run one pass of one object; nobody else gets it meanwhile. One that is dropped without a word
/// counts as failed with [`Class::Bug`].
#[derive(Debug)]
pub struct Permit {
    grant: Grant,
    queue: Option<Queue>,
}

impl Permit {
    /// Whose pass it is, why, and after how many failures.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The object.
    pub fn key(&self) -> &Key {
        &self.grant.key
    }

    /// Ends the pass. Returns the wait until the next one, if there will be one without a further event.
    pub fn end(mut self, end: End) -> Option<Duration> {
        self.give_back(end)
    }

    fn give_back(&mut self, end: End) -> Option<Duration> {
        let queue = self.queue.take()?;
        let next = queue.state().finish(&self.grant.key, end, Instant::now());
        queue.shared.added.notify_one();
        next
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(End::Failed(Class::Bug));
    }
}
