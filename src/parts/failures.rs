//! What went wrong in a pass, and what follows: nothing that was refused is left until the next sweep. Whoever finds that something failed says so here,
//! whether a user is told of it or not. When it is tried again is decided once, after the pass, and by nobody else.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use operator_engine::apply::Contest;
use operator_engine::work::backoff::Class;
use operator_engine::work::queue::Key;
use tracing::{debug, error, warn};

use super::{Error, locked, words};
use crate::status::Problem;

/// So many passes in a row may be overtaken before that counts as a failure: an API server or a webhook may call a conflict what never ends.
const OVERTAKEN_AT_MOST: u32 = 10;

/// What went wrong in a pass: most of it is a condition already. What is left is when the registry is looked at again, and the counters.
#[derive(Debug, Default)]
pub struct Failures {
    all: Mutex<Vec<(&'static str, Class)>>,
    /// Fields of children that others change back each time.
    contests: Mutex<Vec<Contest>>,
    /// Somebody was faster than this pass: what it found is not of the present.
    is_overtaken: AtomicBool,
    /// How many passes before this one were overtaken, in a row.
    overtaken_before: u32,
}

impl Failures {
    /// Of a pass that follows so many in a row that were overtaken.
    #[must_use]
    pub fn after_overtaken(overtaken_before: u32) -> Self {
        Self { overtaken_before, ..Self::default() }
    }

    /// This failed, and is tried again with the backoff of its class. What it was, for whoever is told of it.
    pub fn failed(&self, key: &Key, error: &Error) -> (&'static str, Class) {
        let (reason, class, text) = (error.reason(), error.class(), words(error));
        match class {
            Class::Bug => error!(registry = %key, reason, "{text}"),
            Class::Transient => warn!(registry = %key, reason, "{text}"),
            // Logged when it became the state of the registry, which may last.
            Class::Blocked | Class::InTheWay => debug!(registry = %key, reason, "{text}"),
        }
        self.note(reason, class);
        (reason, class)
    }

    /// The same for what is told otherwise.
    pub(super) fn note(&self, reason: &'static str, class: Class) {
        locked(&self.all).push((reason, class));
    }

    pub(super) fn contested(&self, contest: Option<&Contest>) {
        locked(&self.contests).extend(contest.cloned());
    }

    /// What is fought over, as the user is told, and when the next repair is due.
    pub fn contests(&self) -> (Option<Problem>, Option<Duration>) {
        let contests = locked(&self.contests);
        let words: Vec<_> = contests.iter().map(ToString::to_string).collect();
        let problem = (!words.is_empty()).then(|| Problem::stuck("Contested", words.join("; ")));
        (problem, contests.iter().map(|contest| contest.look_again).min())
    }

    /// Somebody was faster: what was decided is not of the present any more.
    pub fn overtaken(&self) {
        self.is_overtaken.store(true, Ordering::Relaxed);
    }

    /// Whether the world changed under this pass, so that it is to be decided anew and nothing is to be said of it. Not for ever: what is a conflict
    /// each time is a failure like others.
    pub fn decides_anew(&self) -> bool {
        self.is_overtaken.load(Ordering::Relaxed) && self.overtaken_before < OVERTAKEN_AT_MOST
    }

    /// How many passes in a row were overtaken, with this one.
    pub fn overtaken_in_a_row(&self) -> u32 {
        if self.is_overtaken.load(Ordering::Relaxed) { self.overtaken_before.saturating_add(1) } else { 0 }
    }

    /// Every reason, and how soon trying again can help: the soonest of all.
    pub fn take(&self) -> (Vec<&'static str>, Option<Class>) {
        if self.is_overtaken.load(Ordering::Relaxed) && !self.decides_anew() && locked(&self.all).is_empty() {
            self.note("Conflict", Class::Transient);
        }
        let failures = std::mem::take(&mut *locked(&self.all));
        (
            failures.iter().map(|(reason, _)| *reason).collect(),
            failures.iter().map(|(_, class)| *class).min_by_key(soon),
        )
    }
}

/// The less it is, the sooner trying again can help.
pub fn soon(class: &Class) -> u8 {
    match class {
        Class::Transient => 0,
        Class::InTheWay => 1,
        Class::Bug => 2,
        Class::Blocked => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_that_can_be_mended_soonest_decides_when_to_look_again() {
        let failures = Failures::default();
        assert_eq!(failures.take(), (Vec::new(), None));
        for (reason, class) in
            [("NotOurs", Class::InTheWay), ("ReadFailed", Class::Transient), ("Immutable", Class::Blocked)]
        {
            failures.note(reason, class);
        }
        assert_eq!(failures.take().1, Some(Class::Transient));
        assert_eq!(failures.take().1, None);
    }

    #[test]
    fn who_is_overtaken_decides_anew_until_it_looks_as_if_that_would_never_end() {
        let mut before = 0;
        for pass in 1..=OVERTAKEN_AT_MOST + 2 {
            let failures = Failures::after_overtaken(before);
            failures.overtaken();
            let is_patient = pass <= OVERTAKEN_AT_MOST;
            assert_eq!(failures.decides_anew(), is_patient, "pass {pass}");
            let told = if is_patient { (Vec::new(), None) } else { (vec!["Conflict"], Some(Class::Transient)) };
            assert_eq!(failures.take(), told, "pass {pass}");
            before = failures.overtaken_in_a_row();
        }
        assert_eq!(Failures::after_overtaken(before).overtaken_in_a_row(), 0, "this one was not");
    }
}
