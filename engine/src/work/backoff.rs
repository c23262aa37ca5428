//! How long an object waits for its next pass: after a failure, after a success, for the slow sweep.
//!
//! Pure and repeatable. The spread that keeps a thousand objects from coming back in the same second is taken from a
//! hash of what they are, never from a random source, so that a delay seen in a log can be worked out again.

use std::time::Duration;

use sha2::{Digest, Sha256};

/// Wait after the first failure; doubled with each further one up to [`LONGEST`].
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait after a failure, before the spread is applied. With it, five minutes.
pub const LONGEST: Duration = Duration::from_secs(250);
/// Wait after a failure that trying again can't mend.
pub const AFTER_BUG: Duration = Duration::from_secs(5 * 60);
/// Wait while something stands in the way of which no event tells.
pub const WHILE_IN_THE_WAY: Duration = Duration::from_secs(60);
/// How often an object is looked at although nothing has happened.
pub const RESYNC: Duration = Duration::from_secs(10 * 60);
/// How far a delay may lie from its nominal value, in percent, to both sides.
pub const SPREAD_PERCENT: u32 = 20;

/// What a failed pass means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
pub enum Class {
    /// Trying again can help: exponential wait for each object.
    Transient,
    /// Only a change by the user can help: looked at again on the slow resync, or when something that it refers to
    /// changes.
    Blocked,
    /// An obstacle outside the manifest, a taken name or port or a quota, whose end no event tells: tried again every minute.
    InTheWay,
    /// A fault of the operator: a long wait, so that it neither spins nor is forgotten.
    Bug,
}

/// The wait before the pass that follows the `failures`-th failure in a row (1 for the first).
///
/// `identity` is what the spread is taken from: the object's key for failures, so that one created again does
/// not inherit a place in the row.
pub fn after_failure(class: Class, failures: u32, identity: &str) -> Duration {
    match class {
        Class::Transient => {
            let doublings = failures.saturating_sub(1).min(31);
            let nominal = FIRST.saturating_mul(1 << doublings).min(LONGEST);
            spread(nominal, &format!("{identity}#{failures}"))
        }
        Class::Blocked => resync(identity),
        Class::InTheWay => spread(WHILE_IN_THE_WAY, identity),
        Class::Bug => spread(AFTER_BUG, &format!("{identity}#{failures}")),
    }
}

/// The wait of an object that is as wanted until it is looked at without a reason. Always the same for one `uid`.
pub fn resync(uid: &str) -> Duration {
    spread(RESYNC, uid)
}

/// The wait before sweep number `round` of the process called `instance`, where one comes about `every` so long.
pub fn sweep(every: Duration, instance: &str, round: u64) -> Duration {
    spread(every, &format!("{instance}#{round}"))
}

/// `nominal`, moved by at most [`SPREAD_PERCENT`] to either side, always by the same for one `seed`.
fn spread(nominal: Duration, seed: &str) -> Duration {
    let digest = Sha256::digest(seed.as_bytes());
    let position = f64::from(u16::from_be_bytes([digest[0], digest[1]])) / f64::from(u16::MAX);
    let width = f64::from(SPREAD_PERCENT) / 100.0;
    nominal.mul_f64(1.0 - width + 2.0 * width * position)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn within(actual: Duration, nominal_seconds: u64) -> bool {
        let nominal = Duration::from_secs(nominal_seconds);
        actual >= nominal.mul_f64(0.799) && actual <= nominal.mul_f64(1.201)
    }

    #[test]
    fn the_wait_doubles_from_one_second_to_five_minutes_at_most() {
        let nominal = [
            (1, 1),
            (2, 2),
            (3, 4),
            (4, 8),
            (5, 16),
            (6, 32),
            (7, 64),
            (8, 128),
            (9, 250),
            (10, 250),
            (40, 250),
            (u32::MAX, 250),
        ];
        for (failures, seconds) in nominal {
            let wait = after_failure(Class::Transient, failures, "registries/team-a");
            assert!(within(wait, seconds), "failure {failures}: {wait:?}, expected about {seconds} s");
        }
        let longest = (9..1_000).map(|failures| after_failure(Class::Transient, failures, "registries/team-a")).max();
        assert!(longest <= Some(Duration::from_secs(300)), "{longest:?}");
    }

    #[test]
    fn a_bug_waits_long_at_once_and_a_blocked_registry_waits_for_the_resync() {
        assert!(within(after_failure(Class::Bug, 1, "a/b"), 300));
        assert!(within(after_failure(Class::Bug, 9, "a/b"), 300));
        assert!(within(after_failure(Class::Blocked, 1, "a/b"), 600));
        assert!(within(after_failure(Class::InTheWay, 9, "a/b"), 60));
    }

    #[test]
    fn the_slow_rounds_are_near_their_nominal_length() {
        assert!(within(resync("9b1c"), 600));
        let every = Duration::from_secs(6 * 3600);
        assert!(within(sweep(every, "operator-0", 0), 6 * 3600));
        assert_ne!(sweep(every, "operator-0", 0), sweep(every, "operator-0", 1));
    }

    #[test]
    fn a_thousand_registries_are_spread_over_the_whole_width() {
        let waits: Vec<u64> = (0..1000).map(|n| resync(&format!("uid-{n}")).as_secs()).collect();
        for slice in 0..8 {
            let (from, to) = (480 + slice * 30, 480 + (slice + 1) * 30);
            let share = waits.iter().filter(|wait| (from..to).contains(*wait)).count();
            assert!((70..=180).contains(&share), "{share} of 1000 between {from} s and {to} s");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_repeatable_and_grows_until_the_longest(identity in "[a-z/]{1,20}", failures in 1_u32..8) {
            let wait = after_failure(Class::Transient, failures, &identity);
            prop_assert_eq!(wait, after_failure(Class::Transient, failures, &identity));
            prop_assert!(wait < after_failure(Class::Transient, failures + 1, &identity));
        }
    }
}
