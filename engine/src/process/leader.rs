//! Leader election over a Lease, after client-go: at most one process writes.
//!
//! A foreign lease has run out when *we* have not seen it change for its duration; the times written in it are never compared with our clock. Our own
//! lease counts from the *start* of the request that renewed it, and the [`Fence`] closes a good while before anybody else may take over. The loop never
//! resigns and goes on: a lost lease ends the process, because whatever was still under way can't be called back one by one.
//!
//! Source of the protocol: k8s.io/client-go/tools/leaderelection.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::fence::Fence;
use super::flag_values::{duration, name};

pub mod lease;

use lease::{LeaseStore, StoreError};

/// How long the release of a lease may take at the end.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// Whether and how a leader is elected.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct LeaderSettings {
    /// Elect a leader among all running copies; without it nothing keeps two copies from writing at once
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Name of the Lease; all copies must use the same [default: the program's name]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub lease_name: Option<String>,
    /// Namespace of the Lease [default: the pod's, else the one in which another copy holds it, else the one of the kubeconfig's context]
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE", value_parser = name)]
    pub lease_namespace: Option<String>,
    /// How long a silent leader keeps the others waiting
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub lease_duration: Duration,
    /// After how long without a renewal a leader stops writing; must be shorter than the lease
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub lease_renew_deadline: Duration,
    /// Time between two tries; must be well below the renew deadline
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub lease_retry: Duration,
}

impl Default for LeaderSettings {
    fn default() -> Self {
        Self {
            leader_elect: true,
            lease_name: None,
            lease_namespace: None,
            lease_duration: Duration::from_secs(15),
            lease_renew_deadline: Duration::from_secs(10),
            lease_retry: Duration::from_secs(2),
        }
    }
}

/// Times that can't work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A Lease holds whole seconds only.
    #[error("--lease-duration must be a whole number of seconds")]
    NotWholeSeconds,
    /// Nobody may take over while the old leader may still write.
    #[error(
        "--lease-renew-deadline must be at least 1s shorter than --lease-duration, so that a leader stops writing before another one starts"
    )]
    NoMargin,
    /// One failed try must not cost the lease.
    #[error(
        "--lease-retry must be at most a third of --lease-renew-deadline, so that one failed try does not cost the lease"
    )]
    TooFewTries,
}

/// The times of the protocol, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    lease: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

impl LeaderSettings {
    /// The times, if they can work together.
    ///
    /// # Errors
    /// Which of them contradict each other.
    pub fn timing(&self) -> Result<Timing, TimingError> {
        let timing =
            Timing { lease: self.lease_duration, renew_deadline: self.lease_renew_deadline, retry: self.lease_retry };
        if timing.lease.subsec_nanos() != 0 || timing.lease.as_secs() > i32::MAX as u64 {
            return Err(TimingError::NotWholeSeconds);
        }
        if timing.renew_deadline + Duration::from_secs(1) > timing.lease {
            return Err(TimingError::NoMargin);
        }
        if timing.retry * 3 > timing.renew_deadline {
            return Err(TimingError::TooFewTries);
        }
        Ok(timing)
    }
}

/// What the lease says. Its times are for people; no decision depends on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty after a release.
    pub holder: String,
    /// How long its holder may be silent.
    pub duration: Duration,
    /// When its holder got it.
    pub acquired: Option<Timestamp>,
    /// When its holder last renewed it.
    pub renewed: Option<Timestamp>,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What to do about the lease as it was seen.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write ourselves into it: it is ours, free, or has run out.
    Claim,
    /// Somebody else holds it until `expires` at least.
    Wait {
        /// Who.
        leader: String,
        /// When it runs out if it does not change.
        expires: Instant,
    },
}

/// What one candidate knows: who it is, and since when the lease has looked as it does. Pure: time comes in, a decision goes out.
#[derive(Debug)]
pub struct Candidate {
    identity: String,
    seen: Option<(Record, Instant)>,
    /// Since when there is none, although there was one.
    missing: Option<Instant>,
}

impl Candidate {
    /// `identity` must be one that no other process ever has; see [`identity`].
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None, missing: None }
    }

    /// Judges the lease as read at `now`; `None` if there is none.
    pub fn observe(&mut self, record: Option<&Record>, now: Instant) -> Action {
        let Some(record) = record else { return self.observe_none(now) };
        self.missing = None;
        let since = match &self.seen {
            Some((seen, since)) if seen == record => *since,
            _ => now,
        };
        self.seen = Some((record.clone(), since));
        let expires = since + record.duration;
        if record.holder.is_empty() || record.holder == self.identity || now >= expires {
            return Action::Claim;
        }
        Action::Wait { leader: record.holder.clone(), expires }
    }

    /// Whoever held it may have renewed it a moment before somebody deleted it, and goes on until its next renewal fails.
    fn observe_none(&mut self, now: Instant) -> Action {
        let Some((last, _)) = &self.seen else { return Action::Claim };
        let expires = *self.missing.get_or_insert(now) + last.duration;
        if last.holder.is_empty() || last.holder == self.identity || now >= expires {
            return Action::Claim;
        }
        Action::Wait { leader: last.holder.clone(), expires }
    }

    /// What to write to claim the lease, or to renew it. `wall` is only for people to read.
    pub fn claim(&self, previous: Option<&Record>, duration: Duration, wall: Timestamp) -> Record {
        let ours = previous.filter(|record| record.holder == self.identity);
        Record {
            holder: self.identity.clone(),
            duration,
            acquired: ours.and_then(|record| record.acquired).or(Some(wall)),
            renewed: Some(wall),
            transitions: match (previous, ours) {
                (None, _) => 0,
                (Some(record), Some(_)) => record.transitions,
                (Some(record), None) => record.transitions.saturating_add(1),
            },
        }
    }
}

/// How the election stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Somebody else leads.
    Standby {
        /// Who.
        leader: String,
    },
    /// The lease can't be read or written; why, and what to do.
    Unreachable(String),
    /// We lead.
    Leading,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Standby { leader } => write!(formatter, "standby; {leader} leads"),
            Self::Unreachable(why) => formatter.write_str(why),
            Self::Leading => formatter.write_str("leading"),
        }
    }
}

/// How the lease was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// No renewal succeeded in time.
    #[error("the lease could not be renewed within the renew deadline: {0}")]
    NotRenewed(String),
    /// Somebody else holds it.
    #[error("the lease was taken by {0}")]
    Taken(String),
    /// Somebody deleted it.
    #[error("the lease was deleted")]
    Deleted,
}

/// A name that no other process has: where it runs, for people, and a random part, so that two processes of one host or pod never pass for one.
pub fn identity() -> String {
    let host =
        ["POD_NAME", "HOSTNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let host = host.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = host.as_deref().map_or("unknown", str::trim);
    format!("{host}_{:08x}", random())
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness jitter is lost, and an identity falls back to the process's number.
    match ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        Err(_) => std::process::id(),
    }
}

/// `period`, give or take a fifth, so that candidates don't march in step.
fn jittered(period: Duration) -> Duration {
    period.mul_f64(0.8 + 0.4 * f64::from(random()) / f64::from(u32::MAX))
}

/// The effect around a [`Candidate`]: reads and writes the lease, moves the [`Fence`].
pub struct Elector<S: LeaseStore> {
    store: S,
    candidate: Candidate,
    timing: Timing,
    fence: Fence,
    on_standing: Box<dyn Fn(&Standing) + Send + Sync>,
    standing: Option<Standing>,
    held: Option<Held<S::Version>>,
}

/// The lease as we last wrote it.
struct Held<V> {
    record: Record,
    version: V,
    /// Start of the write plus the renew deadline.
    until: Instant,
}

impl<S: LeaseStore> Elector<S> {
    /// An elector that has not asked yet. `on_standing` is called whenever the standing changes.
    pub fn new(
        store: S,
        identity: String,
        timing: Timing,
        fence: Fence,
        on_standing: impl Fn(&Standing) + Send + Sync + 'static,
    ) -> Self {
        let candidate = Candidate::new(identity);
        Self { store, candidate, timing, fence, on_standing: Box::new(on_standing), standing: None, held: None }
    }

    /// Returns once we lead. May be dropped at any time.
    pub async fn acquire(&mut self) {
        loop {
            let pause = match self.attempt().await {
                Ok(None) => return self.stands(Standing::Leading),
                Ok(Some((leader, expires))) => {
                    self.stands(Standing::Standby { leader });
                    // Not all candidates at the same moment, and not a whole retry too late.
                    let after_expiry =
                        expires.saturating_duration_since(Instant::now()) + jittered(self.timing.retry / 8);
                    jittered(self.timing.retry).min(after_expiry)
                }
                // Somebody was faster; the next look shows who.
                Err(StoreError::Conflict) => jittered(self.timing.retry),
                Err(StoreError::Failed(why)) => {
                    self.stands(Standing::Unreachable(why));
                    jittered(self.timing.retry)
                }
            };
            sleep(pause).await;
        }
    }

    /// Renews until that fails for good, and says why. Only after [`Elector::acquire`]. The fence has closed, or is about to, when it returns.
    pub async fn keep(&mut self) -> Lost {
        loop {
            sleep(jittered(self.timing.retry)).await;
            if let Err(lost) = self.renew().await {
                return lost;
            }
        }
    }

    /// Gives the lease back if it is ours, so that the next leader need not wait. Closes the fence first. Call it only when no write is under way
    /// any more.
    pub async fn release(self) {
        self.fence.close();
        match timeout(RELEASE_LIMIT, self.give_back()).await {
            Ok(Ok(true)) => tracing::info!("released the lease"),
            Ok(Ok(false)) => {}
            // A standby that was never let near the lease has nothing to give back.
            _ if self.held.is_none() => {}
            _ => tracing::warn!("could not release the lease; the next leader waits for it to run out"),
        }
    }

    /// Reads first: a renewal may have been cut off when its answer was on the way.
    async fn give_back(&self) -> Result<bool, StoreError> {
        loop {
            let ours = |(record, _): &(Record, S::Version)| record.holder == self.candidate.identity;
            let Some((record, version)) = self.store.read().await?.filter(ours) else { return Ok(false) };
            // A second is the shortest the API accepts; that nobody is named is what counts.
            let vacant = Record { holder: String::new(), duration: Duration::from_secs(1), ..record };
            match self.store.replace(&vacant, &version).await {
                Ok(_) => return Ok(true),
                Err(StoreError::Conflict) => {}
                Err(failed) => return Err(failed),
            }
        }
    }

    /// One look, and one write if the lease can be had. `None`: it is ours now. Otherwise who holds it and until when.
    async fn attempt(&mut self) -> Result<Option<(String, Instant)>, StoreError> {
        let stored = limited(self.timing.one_try(), self.store.read()).await?;
        let started = Instant::now();
        let (previous, version) = stored.unzip();
        if let Action::Wait { leader, expires } = self.candidate.observe(previous.as_ref(), started) {
            return Ok(Some((leader, expires)));
        }
        let record = self.candidate.claim(previous.as_ref(), self.timing.lease, Timestamp::now());
        self.write(record, version, started).await?;
        Ok(None)
    }

    async fn write(&mut self, record: Record, version: Option<S::Version>, started: Instant) -> Result<(), StoreError> {
        let limit = self.timing.one_try();
        let version = match version {
            Some(version) => limited(limit, self.store.replace(&record, &version)).await?,
            None => limited(limit, self.store.create(&record)).await?,
        };
        let until = started + self.timing.renew_deadline;
        self.fence.extend(until);
        self.held = Some(Held { record, version, until });
        Ok(())
    }

    /// Tries until a renewal succeeds or the deadline passes.
    async fn renew(&mut self) -> Result<(), Lost> {
        let Some(until) = self.held.as_ref().map(|held| held.until) else {
            return Err(Lost::NotRenewed("it was never held".to_owned()));
        };
        let mut trouble = "this process was not running".to_owned();
        // A process that was frozen past its deadline must not renew, even if nobody took over: its work may have been overtaken meanwhile.
        while Instant::now() < until {
            match timeout_at(until, self.try_to_renew()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(Trouble::Lost(lost))) => return Err(lost),
                Ok(Err(Trouble::Passing(why))) => trouble = why,
                Err(_) => trouble = "no answer".to_owned(),
            }
            tracing::warn!(why = trouble, "could not renew the lease yet");
            sleep(jittered(self.timing.retry).min(until.saturating_duration_since(Instant::now()))).await;
        }
        Err(Lost::NotRenewed(trouble))
    }

    async fn try_to_renew(&mut self) -> Result<(), Trouble> {
        if let Some(held) = &self.held {
            let record = self.candidate.claim(Some(&held.record), self.timing.lease, Timestamp::now());
            let version = held.version.clone();
            match self.write(record, Some(version), Instant::now()).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Failed(why)) => return Err(Trouble::Passing(why)),
                Err(StoreError::Conflict) => {}
            }
        }
        // Somebody wrote: perhaps ourselves, in a request whose answer was lost.
        let stored = limited(self.timing.one_try(), self.store.read()).await?;
        let Some((record, version)) = stored else { return Err(Trouble::Lost(Lost::Deleted)) };
        if record.holder != self.candidate.identity {
            return Err(Trouble::Lost(Lost::Taken(record.holder)));
        }
        let renewed = self.candidate.claim(Some(&record), self.timing.lease, Timestamp::now());
        Ok(self.write(renewed, Some(version), Instant::now()).await?)
    }

    fn stands(&mut self, standing: Standing) {
        if self.standing.as_ref() != Some(&standing) {
            (self.on_standing)(&standing);
            self.standing = Some(standing);
        }
    }
}

impl Timing {
    /// How long one request may take: a hanging one must leave time for another.
    fn one_try(&self) -> Duration {
        self.renew_deadline / 2
    }
}

enum Trouble {
    Passing(String),
    Lost(Lost),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Passing("somebody else writes to the lease".to_owned()),
            StoreError::Failed(why) => Self::Passing(why),
        }
    }
}

async fn limited<T>(limit: Duration, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(StoreError::Failed(format!("no answer within {} s", limit.as_secs()))))
}

#[cfg(test)]
mod tests;
