//! What the process knows about its own state: named checks for readiness, heartbeats for liveness.
//!
//! Ready means "does its part", which for a standby is waiting. Live means "restarting it would not help": a cluster that is down, a missing right or a
//! missing CRD are never reasons to fail liveness.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The state of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// As it should be, and this is worth saying ("standby; …").
    Noted(String),
    /// Not there yet, and what it waits for.
    Waiting(String),
    /// Wrong, and what to do.
    Failed(String),
}

impl State {
    /// Whether this state lets the process be ready.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Ok | Self::Noted(_))
    }
}

#[derive(Debug, Default)]
struct Inner {
    checks: BTreeMap<&'static str, State>,
    beats: BTreeMap<&'static str, Beat>,
    stopping: bool,
}

#[derive(Debug)]
struct Beat {
    last: Instant,
    limit: Duration,
    ended: bool,
}

/// The process's health. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Inner>>);

/// An answer of [`Health`]: whether all is well, and a text for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether all is well.
    pub ok: bool,
    /// One line per check or heartbeat.
    pub text: String,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets a check. The process is ready once it has checks and all of them are well, so set those that count before the first wait.
    pub fn set(&self, check: &'static str, state: State) {
        self.lock().checks.insert(check, state);
    }

    /// The state of a check, if it was ever set.
    pub fn get(&self, check: &'static str) -> Option<State> {
        self.lock().checks.get(check).cloned()
    }

    /// Starts a heartbeat: from now on the process is alive only if it ticks within each `limit` and is not dropped.
    pub fn heartbeat(&self, name: &'static str, limit: Duration) -> Heartbeat {
        self.lock().beats.insert(name, Beat { last: Instant::now(), limit, ended: false });
        Heartbeat { health: self.clone(), name }
    }

    /// The process is ending on purpose: heartbeats may stop, and it takes no new work.
    pub fn stopping(&self) {
        self.lock().stopping = true;
    }

    /// Whether the process does its part; the text names everything that is missing.
    pub fn readiness(&self) -> Answer {
        let inner = self.lock();
        if inner.stopping {
            return Answer { ok: false, text: "stopping\n".to_owned() };
        }
        if inner.checks.is_empty() {
            return Answer { ok: false, text: "starting\n".to_owned() };
        }
        let mut text = String::new();
        for (name, state) in &inner.checks {
            let _ = match state {
                State::Ok => writeln!(text, "ok       {name}"),
                State::Noted(note) => writeln!(text, "ok       {name}: {note}"),
                State::Waiting(what) => writeln!(text, "waiting  {name}: {what}"),
                State::Failed(why) => writeln!(text, "failed   {name}: {why}"),
            };
        }
        Answer { ok: inner.checks.values().all(State::is_ok), text }
    }

    /// Whether the process still works, as far as it can tell.
    pub fn liveness(&self) -> Answer {
        let inner = self.lock();
        let mut answer = Answer { ok: true, text: String::new() };
        for (name, beat) in &inner.beats {
            let age = beat.last.elapsed();
            let trouble = match beat {
                _ if inner.stopping => None,
                Beat { ended: true, .. } => Some("has ended".to_owned()),
                Beat { limit, .. } if age > *limit => {
                    Some(format!("stuck for {} s (limit {} s)", age.as_secs(), limit.as_secs()))
                }
                Beat { .. } => None,
            };
            answer.ok &= trouble.is_none();
            let _ = match trouble {
                None => writeln!(answer.text, "ok       {name}"),
                Some(trouble) => writeln!(answer.text, "failed   {name}: {trouble}"),
            };
        }
        if answer.text.is_empty() {
            answer.text.push_str("ok\n");
        }
        answer
    }
}

/// A sign of life. Dropping it says that what it stood for has ended.
#[derive(Debug)]
pub struct Heartbeat {
    health: Health,
    name: &'static str,
}

impl Heartbeat {
    /// Still alive.
    pub fn tick(&self) {
        self.alive_at(Instant::now());
    }

    /// Alive at that moment, for all that is known.
    pub fn alive_at(&self, moment: Instant) {
        if let Some(beat) = self.health.lock().beats.get_mut(self.name) {
            beat.last = moment;
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if let Some(beat) = self.health.lock().beats.get_mut(self.name) {
            beat.ended = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_line_by_line_what_is_missing() {
        let health = Health::default();
        assert_eq!(health.readiness(), Answer { ok: false, text: "starting\n".into() });

        health.set("rights", State::Failed("cannot list secrets".into()));
        health.set("watch Secret", State::Waiting("first list".into()));
        health.set("cluster", State::Ok);
        let answer = health.readiness();
        assert!(!answer.ok);
        assert_eq!(
            answer.text,
            "ok       cluster\nfailed   rights: cannot list secrets\nwaiting  watch Secret: first list\n"
        );

        health.set("rights", State::Ok);
        health.set("watch Secret", State::Ok);
        assert!(health.readiness().ok);
    }

    #[test]
    fn a_standby_is_ready_and_says_so() {
        let health = Health::default();
        health.set("leader election", State::Noted("standby; other-pod leads".into()));
        assert_eq!(
            health.readiness(),
            Answer { ok: true, text: "ok       leader election: standby; other-pod leads\n".into() }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_loop_fails_liveness_until_it_moves_again() {
        let health = Health::default();
        assert!(health.liveness().ok);
        let beat = health.heartbeat("loop", Duration::from_secs(60));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(
            health.liveness(),
            Answer { ok: false, text: "failed   loop: stuck for 61 s (limit 60 s)\n".into() }
        );
        beat.tick();
        assert!(health.liveness().ok);
    }

    #[test]
    fn a_loop_that_ended_fails_liveness_unless_the_process_is_stopping() {
        let health = Health::default();
        drop(health.heartbeat("loop", Duration::from_secs(60)));
        assert_eq!(health.liveness(), Answer { ok: false, text: "failed   loop: has ended\n".into() });
        health.stopping();
        assert!(health.liveness().ok);
        assert!(!health.readiness().ok);
    }

    #[test]
    fn liveness_does_not_care_for_what_a_restart_would_not_mend() {
        let health = Health::default();
        health.set("resource definition", State::Failed("not installed".into()));
        assert!(health.liveness().ok);
    }
}
