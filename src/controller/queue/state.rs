//! The rules of the work queue, as a state machine: every step is given the time and says what follows from it.
//!
//! No clock, no task, no lock in here: [`super::Queue`] adds those. What must hold is stated as laws in the tests
//! below.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{End, Key, Urgency};
use crate::controller::backoff::{self, Class};

/// How the queue spaces passes.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Rest of a registry after a pass, so that the events which the pass itself caused make one further pass and not
    /// ten. The first event after a quiet time is not delayed at all.
    pub debounce: Duration,
    /// The same rest after a pass that failed: a child that flaps can't turn a failing registry into a busy loop.
    /// Longer waits (the backoff) are cut short by a change, this one is not.
    pub rest_after_failure: Duration,
    /// How many passes for changes may run one after the other while upkeep is due. The next one is then upkeep, so at
    /// least one in `changes_in_a_row + 1` goes to it and a flood of changes can't starve it.
    pub changes_in_a_row: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { debounce: Duration::from_millis(30), rest_after_failure: Duration::from_secs(1), changes_in_a_row: 4 }
    }
}

/// What to do at a given moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This pass may run now. The key isn't handed out again until [`QueueState::finish`].
    Run(Grant),
    /// Nothing is due before this moment, unless something is added.
    Until(Instant),
    /// Nothing is waiting.
    Idle,
}

/// The right to run one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose pass it is.
    pub key: Key,
    /// Why it runs: of several reasons the most urgent one.
    pub urgency: Urgency,
    /// Failures in a row before this pass.
    pub failures: u32,
    /// How long it was due before it could run.
    pub waited: Duration,
}

/// How full the queue is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Keys that are due and wait for a free worker.
    pub due: usize,
    /// Keys whose time has not come yet: resync, backoff, rest after a pass.
    pub later: usize,
    /// Passes that are running.
    pub running: usize,
    /// Keys whose last pass failed.
    pub failing: usize,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    due: Instant,
    urgency: Urgency,
    ticket: u64,
}

#[derive(Debug)]
struct Entry {
    waiting: Option<Wait>,
    running: Option<Urgency>,
    failures: u32,
    not_before: Instant,
}

/// Which key waits, which runs, and until when.
#[derive(Debug)]
pub struct QueueState {
    settings: Settings,
    entries: BTreeMap<Key, Entry>,
    /// Keys that wait and don't run, by due time and then by order of arrival.
    changes: BTreeMap<(Instant, u64), Key>,
    upkeep: BTreeMap<(Instant, u64), Key>,
    tickets: u64,
    changes_in_a_row: u32,
}

impl QueueState {
    /// An empty queue.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            entries: BTreeMap::new(),
            changes: BTreeMap::new(),
            upkeep: BTreeMap::new(),
            tickets: 0,
            changes_in_a_row: 0,
        }
    }

    /// Asks for a pass of `key` at `due` (in the past: at once). Of several wishes the earliest time and the highest
    /// urgency win; a wish during a pass means one more pass after it.
    pub fn add(&mut self, key: &Key, urgency: Urgency, due: Instant, now: Instant) {
        let due = due.max(now);
        let entry = self.entries.entry(key.clone()).or_insert(Entry {
            waiting: None,
            running: None,
            failures: 0,
            not_before: now,
        });
        let due = due.max(entry.not_before);
        let wish = match entry.waiting {
            Some(wait) if wait.due <= due && wait.urgency >= urgency => return,
            Some(wait) => Wait { due: wait.due.min(due), urgency: wait.urgency.max(urgency), ..wait },
            None => {
                self.tickets += 1;
                Wait { due, urgency, ticket: self.tickets }
            }
        };
        let (before, idle) = (entry.waiting.replace(wish), entry.running.is_none());
        if idle {
            if let Some(before) = before {
                self.line(before.urgency).remove(&(before.due, before.ticket));
            }
            self.line(wish.urgency).insert((wish.due, wish.ticket), key.clone());
        }
    }

    /// What may run at `now`. Changes come first, but see [`Settings::changes_in_a_row`].
    pub fn next(&mut self, now: Instant) -> Next {
        let head = |line: &BTreeMap<(Instant, u64), Key>| line.first_key_value().map(|(&(due, _), _)| due);
        let (change, upkeep) = (head(&self.changes), head(&self.upkeep));
        let due = |head: Option<Instant>| head.is_some_and(|due| due <= now);
        let urgency = match (due(change), due(upkeep)) {
            (true, true) if self.changes_in_a_row >= self.settings.changes_in_a_row => Urgency::Upkeep,
            (true, _) => Urgency::Change,
            (false, true) => Urgency::Upkeep,
            (false, false) => {
                return change.into_iter().chain(upkeep).min().map_or(Next::Idle, Next::Until);
            }
        };
        let overtakes = urgency == Urgency::Change && due(upkeep);
        self.changes_in_a_row = if overtakes { self.changes_in_a_row + 1 } else { 0 };

        let Some(((due, _), key)) = self.line(urgency).pop_first() else { return Next::Idle };
        let Some(entry) = self.entries.get_mut(&key) else { return Next::Idle };
        entry.waiting = None;
        entry.running = Some(urgency);
        Next::Run(Grant { urgency, failures: entry.failures, waited: now.saturating_duration_since(due), key })
    }

    /// Ends the pass of `key` that [`QueueState::next`] had allowed. Returns when the next pass comes if nothing
    /// happens, `None` for never.
    pub fn finish(&mut self, key: &Key, end: End, now: Instant) -> Option<Duration> {
        let entry = self.entries.get_mut(key)?;
        let urgency = entry.running.take()?;
        let (rest, again) = match end {
            End::Done { after } => {
                entry.failures = 0;
                (self.settings.debounce, after.map(|after| (Urgency::Upkeep, after)))
            }
            End::Failed(class @ (Class::Blocked | Class::InTheWay)) => {
                entry.failures = 0;
                let after = backoff::after_failure(class, 0, &key.to_string());
                (self.settings.debounce, Some((Urgency::Upkeep, after)))
            }
            End::Failed(class) => {
                entry.failures = entry.failures.saturating_add(1);
                let after = backoff::after_failure(class, entry.failures, &key.to_string());
                (self.settings.rest_after_failure, Some((urgency, after)))
            }
        };
        entry.not_before = now + rest;
        let asked_meanwhile = entry.waiting.take().map(|wait| (wait.urgency, wait.due));
        let planned = again.map(|(urgency, after)| (urgency, now + after));
        if asked_meanwhile.is_none() && planned.is_none() {
            self.entries.remove(key);
            return None;
        }
        for (urgency, due) in asked_meanwhile.into_iter().chain(planned) {
            self.add(key, urgency, due, now);
        }
        self.entries.get(key)?.waiting.map(|wait| wait.due.saturating_duration_since(now))
    }

    /// How full the queue is at `now`.
    pub fn depth(&self, now: Instant) -> Depth {
        let waiting = self.changes.len() + self.upkeep.len();
        let due = [&self.changes, &self.upkeep].iter().map(|line| line.range(..=(now, u64::MAX)).count()).sum();
        Depth {
            due,
            later: waiting - due,
            running: self.entries.values().filter(|entry| entry.running.is_some()).count(),
            failing: self.entries.values().filter(|entry| entry.failures > 0).count(),
        }
    }

    fn line(&mut self, urgency: Urgency) -> &mut BTreeMap<(Instant, u64), Key> {
        match urgency {
            Urgency::Change => &mut self.changes,
            Urgency::Upkeep => &mut self.upkeep,
        }
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
