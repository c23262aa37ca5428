//! The life of the process: what runs beside what, and in which order it ends.
//!
//! Stopping goes: no new work, what is under way ends, the fence closes, the lease is given back. A lost lease skips all of that: the process ends at
//! once, because only its end is a sure way to end what was under way.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::sleep;

use super::client::Clients;
use super::fence::Fence;
use super::health::{Health, State};
use super::leader::lease::{KubeLease, LeaseStore};
use super::leader::{Elector, Lost, Standing, Timing, identity};
use super::preflight::{Preflight, Served};
use super::shutdown::{Signals, Stop};
use crate::metrics::Metrics;

/// Latch: how the election stands.
pub const ELECTION: &str = "leader election";

/// How long work under way may take to end. With the release of the lease it stays below the 20 s that a stop may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(15);

/// How the process ended; each has its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: asked to stop, and nothing was left undone.
    Stopped,
    /// 1: the work ended by itself or failed.
    Failed,
    /// 3: the lease was lost; another copy leads, or will.
    LeaseLost,
    /// 4: asked to stop, but work was cut off, by the time limit or a second signal.
    CutOff,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Stopped => 0,
            Exit::Failed => 1,
            Exit::LeaseLost => 3,
            Exit::CutOff => 4,
        })
    }
}

/// Whether this process leads. It never stops leading while it lives.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<bool>);

impl Leadership {
    /// Returns once this process leads; never, if that never happens.
    pub async fn acquired(&self) {
        let mut leads = self.0.clone();
        if leads.wait_for(|leads| *leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether it leads now.
    pub fn leads(&self) -> bool {
        *self.0.borrow()
    }
}

/// What the work is given.
#[derive(Clone, Debug)]
pub struct Process {
    /// The ways to the cluster; `work` is fenced.
    pub clients: Clients,
    /// Latches and heartbeats.
    pub health: Health,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// When to stop taking new work.
    pub stop: Stop,
    /// When to begin writing.
    pub leadership: Leadership,
    /// The Lease of this installation, whose place is its name: the same for all copies and after a restart. Final once this process leads.
    pub lease: KubeLease,
}

/// Why the work could not go on.
pub type WorkError = Box<dyn std::error::Error + Send + Sync>;

/// Tells everybody how the election stands.
#[derive(Debug)]
pub(super) struct Announcer {
    health: Health,
    metrics: Arc<Metrics>,
    leads: watch::Sender<bool>,
}

impl Announcer {
    pub(super) fn new(health: Health, metrics: Arc<Metrics>) -> (Self, Leadership) {
        let (leads, leadership) = watch::channel(false);
        (Self { health, metrics, leads }, Leadership(leadership))
    }

    fn announce(&self, standing: &Standing) {
        if matches!(standing, Standing::Unreachable(_)) {
            tracing::warn!("leader election: {standing}");
            self.health.set(ELECTION, State::Failed(standing.to_string()));
        } else {
            tracing::info!("leader election: {standing}");
            self.health.set(ELECTION, State::Noted(standing.to_string()));
        }
        self.metrics.set_leader(*standing == Standing::Leading);
        self.leads.send_if_modified(|leads| *standing == Standing::Leading && !std::mem::replace(leads, true));
    }
}

/// Whether this process must be elected before it may write.
pub(super) enum Election<S: LeaseStore> {
    /// It leads from the start.
    Off(Announcer),
    /// It takes part.
    On(Box<Elector<S>>),
}

impl<S: LeaseStore> Election<S> {
    pub(super) fn on(store: S, timing: Timing, fence: Fence, announcer: Announcer) -> Self {
        announcer.health.set(ELECTION, State::Waiting("not asked yet".to_owned()));
        let announce = move |standing: &Standing| announcer.announce(standing);
        Self::On(Box::new(Elector::new(store, identity(), timing, fence, announce)))
    }

    /// Takes part until the lease is lost (that is returned), or gives it back once `resign` is requested.
    async fn run(self, resign: Stop) -> Option<Lost> {
        let mut elector = match self {
            Self::Off(announcer) => {
                announcer.announce(&Standing::Leading);
                resign.requested().await;
                return None;
            }
            Self::On(elector) => *elector,
        };
        let reign = async {
            elector.acquire().await;
            elector.keep().await
        };
        let lost = tokio::select! {
            lost = reign => Some(lost),
            () = resign.requested() => None,
        };
        if lost.is_none() {
            elector.release().await;
        }
        lost
    }
}

/// Where signals come from; a test sends its own.
pub(super) trait SignalSource {
    fn next(&mut self) -> impl Future<Output = &'static str>;
}

impl SignalSource for Signals {
    async fn next(&mut self) -> &'static str {
        Self::next(self).await
    }
}

/// Runs election, preflight and `work` until one of them ends or a signal comes.
pub(super) async fn supervise<S, W, F>(
    process: Process,
    preflight: Preflight,
    election: Election<S>,
    fence: Fence,
    signals: &mut impl SignalSource,
    work: W,
) -> Exit
where
    S: LeaseStore + 'static,
    W: FnOnce(Process) -> F + Send + 'static,
    F: Future<Output = Result<(), WorkError>> + Send + 'static,
{
    let (stop, health) = (process.stop.clone(), process.health.clone());
    let resign = Stop::default();
    // Tasks of their own, so that neither holds up the other; renewals go on while work drains.
    let mut election = tokio::spawn(election.run(resign.clone()));
    let mut working = tokio::spawn(once_served(preflight, process, work));

    let early = tokio::select! {
        ended = &mut working => Some(unexpected(ended)),
        lost = &mut election => Some(lost_lease(lost)),
        signal = signals.next() => {
            tracing::info!(signal, "stopping");
            None
        }
    };
    stop.request();
    health.stopping();
    let exit = match early {
        Some(exit) => exit,
        None => tokio::select! {
            ended = &mut working => drained(ended),
            lost = &mut election => lost_lease(lost),
            () = sleep(DRAIN_LIMIT) => {
                tracing::error!("work did not end within {} s; it is cut off", DRAIN_LIMIT.as_secs());
                Exit::CutOff
            }
            signal = signals.next() => {
                tracing::warn!(signal, "stopping at once");
                Exit::CutOff
            }
        },
    };
    fence.close();
    working.abort();
    // Work that did not end in order may have a write on the wire: then the lease has to run out.
    if exit == Exit::Stopped {
        resign.request();
        let _ = election.await;
    }
    exit
}

async fn once_served<W, F>(preflight: Preflight, process: Process, work: W) -> Result<(), WorkError>
where
    W: FnOnce(Process) -> F,
    F: Future<Output = Result<(), WorkError>>,
{
    let (rights, stop) = (preflight.clone(), process.stop.clone());
    tokio::spawn(async move { rights.until_entitled(&stop).await });
    if preflight.until_served(&process.stop).await == Served::Stopping {
        return Ok(());
    }
    let stop = process.stop.clone();
    tokio::spawn(async move { preflight.until_current(&stop).await });
    work(process).await
}

fn unexpected(ended: Result<Result<(), WorkError>, JoinError>) -> Exit {
    match ended {
        Ok(Ok(())) => tracing::error!("the work ended without being asked to"),
        Ok(Err(error)) => tracing::error!(%error, "the work failed"),
        Err(_) => tracing::error!("the work ended in a panic"),
    }
    Exit::Failed
}

fn drained(ended: Result<Result<(), WorkError>, JoinError>) -> Exit {
    match ended {
        Ok(Ok(())) => Exit::Stopped,
        other => unexpected(other),
    }
}

fn lost_lease(lost: Result<Option<Lost>, JoinError>) -> Exit {
    match lost {
        Ok(Some(lost)) => tracing::error!("{lost}; this process ends, so that no write of it can come late"),
        _ => tracing::error!("the election ended in a panic"),
    }
    Exit::LeaseLost
}

#[cfg(test)]
mod tests;
