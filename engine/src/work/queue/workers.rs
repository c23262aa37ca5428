//! The workers that empty the queue: so many passes at once, each with a time limit, none able to take others down with
//! it.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{End, Grant, Permit, Queue};
use crate::work::backoff::Class;

/// What the workers may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Passes at once.
    pub concurrency: usize,
    /// Time for one pass. It ends at its next await point after that.
    pub pass: Duration,
    /// Time for running passes to end after shutdown was asked for; then they are dropped.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { concurrency: 8, pass: Duration::from_secs(30), drain: Duration::from_secs(10) }
    }
}

/// How a pass ended, as its surroundings see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It worked.
    Done,
    /// It said why it didn't.
    Failed(Class),
    /// It exceeded [`Limits::pass`]; treated as [`Class::Transient`].
    TimedOut,
    /// It panicked; treated as [`Class::Bug`].
    Panicked,
}

/// One pass, over. For metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Whose pass it was, why it ran, how long it had been due.
    pub grant: Grant,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// The wait until the next pass, if one is planned.
    pub next: Option<Duration>,
}

/// What was left when the workers stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Passes that ended by themselves after shutdown was asked for.
    pub finished: usize,
    /// Passes that were dropped because the time was up.
    pub dropped: usize,
}

/// Runs `handler` for each key that the queue hands out until `shutdown` resolves; then takes no more, and waits for
/// the running passes, at most [`Limits::drain`].
///
/// `observe` is called once per pass, after it; it must be quick.
pub async fn run_workers<Handler, Pass, Observe>(
    queue: &Queue,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
    handler: Handler,
    observe: Observe,
) -> Drained
where
    Handler: Fn(Grant) -> Pass + Send + Sync + 'static,
    Pass: Future<Output = End> + Send + 'static,
    Observe: Fn(&Finished) + Send + Sync + 'static,
{
    let (handler, observe) = (Arc::new(handler), Arc::new(observe));
    let mut shutdown = pin!(shutdown);
    let mut passes = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = passes.join_next(), if !passes.is_empty() => {}
            permit = queue.next(), if passes.len() < limits.concurrency.max(1) => {
                let (handler, observe) = (handler.clone(), observe.clone());
                passes.spawn(async move {
                    let finished = run(permit, limits.pass, &*handler).await;
                    observe(&finished);
                });
            }
        }
    }

    let mut finished = 0;
    let until = Instant::now() + limits.drain;
    while let Ok(Some(_)) = tokio::time::timeout_at(until, passes.join_next()).await {
        finished += 1;
    }
    let dropped = passes.len();
    passes.shutdown().await;
    Drained { finished, dropped }
}

async fn run<Handler, Pass>(permit: Permit, limit: Duration, handler: &Handler) -> Finished
where
    Handler: Fn(Grant) -> Pass,
    Pass: Future<Output = End>,
{
    let grant = permit.grant().clone();
    let started = Instant::now();
    // The call itself is inside, too: a handler may panic before its first await.
    let pass = AssertUnwindSafe(async { handler(grant.clone()).await }).catch_unwind();
    let (outcome, end) = match tokio::time::timeout(limit, pass).await {
        Ok(Ok(end @ End::Done { .. })) => (Outcome::Done, end),
        Ok(Ok(end @ End::Failed(class))) => (Outcome::Failed(class), end),
        // The text of a panic may hold anything, so it isn't repeated: the panic hook decides what of it is shown.
        Ok(Err(_)) => (Outcome::Panicked, End::Failed(Class::Bug)),
        Err(_) => (Outcome::TimedOut, End::Failed(Class::Transient)),
    };
    let took = started.elapsed();
    let next = permit.end(end);
    match outcome {
        Outcome::Panicked => error!(object = %grant.key, "the pass panicked; others go on"),
        Outcome::TimedOut => warn!(object = %grant.key, ?limit, "the pass exceeded its time limit"),
        Outcome::Done | Outcome::Failed(_) => debug!(object = %grant.key, ?outcome, ?took, ?next, "pass over"),
    }
    Finished { grant, outcome, took, next }
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
