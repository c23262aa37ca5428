//! Whether this process may still write.
//!
//! A lease alone can't stop a process that was frozen and woke up after somebody else took over; this check before each write does. It never asks
//! the network: it compares the clock with a deadline that only a successful renewal moves.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use tokio::time::Instant;

const NOT_YET: u64 = 0;
const CLOSED: u64 = u64::MAX - 1;
const OPEN: u64 = u64::MAX;

/// A shared answer to "may I write now?". Clones share one state.
///
/// The clock is the monotonic one, which runs on while a process is stopped by a signal. A machine that is suspended as a whole stops this clock too;
/// then the API server's own checks (uid, resourceVersion) are what is left.
#[derive(Clone, Debug)]
pub struct Fence {
    epoch: Instant,
    /// Nanoseconds from `epoch` to the deadline, or one of the constants.
    deadline: Arc<AtomicU64>,
}

impl Fence {
    /// Nobody may write until the first [`Fence::extend`].
    pub fn shut() -> Self {
        Self::new(NOT_YET)
    }

    /// Everybody may write, always: for a process without leader election.
    pub fn open() -> Self {
        Self::new(OPEN)
    }

    fn new(state: u64) -> Self {
        Self { epoch: Instant::now(), deadline: Arc::new(AtomicU64::new(state)) }
    }

    /// Writes are allowed before `deadline`. Neither a fence that was made open nor a closed one changes.
    pub fn extend(&self, deadline: Instant) {
        let nanos = u64::try_from(deadline.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(CLOSED - 1);
        let moved = |now| (now < CLOSED).then_some(nanos.min(CLOSED - 1));
        let _ = self.deadline.fetch_update(Ordering::SeqCst, Ordering::SeqCst, moved);
    }

    /// No write from now on, for good: a renewal that was still under way must not open it again.
    pub fn close(&self) {
        self.deadline.store(CLOSED, Ordering::SeqCst);
    }

    /// Whether a write may start, or go on, now.
    pub fn allows(&self) -> bool {
        match self.deadline.load(Ordering::SeqCst) {
            NOT_YET | CLOSED => false,
            OPEN => true,
            nanos => self.epoch.elapsed().as_nanos() < u128::from(nanos),
        }
    }
}

/// What `sending` gives; `None` if the fence was shut before that, and a write is not, or not wholly, sent. Looks at the fence before *every* step: between
/// the start of a request and its first byte on the wire may lie a connect, a TLS handshake, or a time in which this process was frozen.
pub(super) async fn guard<T>(fence: Option<&Fence>, sending: impl Future<Output = T>) -> Option<T> {
    let mut sending = pin!(sending);
    std::future::poll_fn(|context| {
        if fence.is_some_and(|fence| !fence.allows()) {
            return Poll::Ready(None);
        }
        sending.as_mut().poll(context).map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_opens_until_the_deadline_and_not_a_moment_longer() {
        let fence = Fence::shut();
        assert!(!fence.allows());
        fence.extend(Instant::now() + Duration::from_secs(10));
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert!(fence.allows());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!fence.allows());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_in_the_past_opens_nothing() {
        tokio::time::advance(Duration::from_secs(60)).await;
        let past = Instant::now() - Duration::from_secs(30);
        let fence = Fence::shut();
        fence.extend(past);
        assert!(!fence.allows());
    }

    #[tokio::test(start_paused = true)]
    async fn without_election_it_stays_open_until_closed() {
        let fence = Fence::open();
        fence.extend(Instant::now());
        tokio::time::advance(Duration::from_secs(86_400)).await;
        assert!(fence.allows());
        fence.clone().close();
        assert!(!fence.allows());
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_renewal_does_not_open_a_closed_fence() {
        let fence = Fence::shut();
        fence.close();
        fence.extend(Instant::now() + Duration::from_secs(10));
        assert!(!fence.allows());
    }
}
