//! How wrong logins are slowed, for each user and address: counted before anything is hashed, so that who hangs up has had his guess, and whether there is
//! such a user or not. Decides only: time is given.
//!
//! ```text
//!              wrong                    wrong, the fifth and each after it
//!   (unknown) ──────▶ counting 1 … 4 ──────────────────────────────────────▶ locked
//!       ▲                   │   ▲                                              │
//!       │ right, or nothing │   │                                              │ 1 s, 2 s, 4 s … 30 s later
//!       │ wrong for 15 min  │   ╰──────────────────────────────────────────────╯
//!       ╰───────────────────╯
//! ```
//!
//! A lock is short, so that whoever shares an address with a client that has an old password gets in between its tries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::logins::Mark;

/// Wrong logins that cost nothing: somebody mistypes.
const FREE: u32 = 4;
/// The longest lock.
const LONGEST: Duration = Duration::from_secs(30);
/// After this time without a wrong login nothing is held against anybody.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Users and addresses that are remembered. When there are more, those go first that were wrong longest ago.
const MOST: usize = 5_000;
/// Passwords that are remembered of each, as marks.
const REMEMBERED: usize = 6;

/// Whose tries are counted together: a user's from one address. Of IPv6, whose hosts have as many addresses as they like, from one network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who(String, Option<IpAddr>);

impl Who {
    pub(super) fn new(user: &str, address: Option<IpAddr>) -> Self {
        let network = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        };
        Self(user.to_owned(), address.map(network))
    }
}

#[derive(Debug)]
struct Tries {
    wrong: u32,
    last: Instant,
    /// The last passwords that were tried, and whether they are known to be wrong.
    tried: Vec<(Mark, bool)>,
}

impl Tries {
    fn until(&self) -> Instant {
        let doublings = self.wrong.saturating_sub(FREE + 1).min(16);
        let lock = if self.wrong > FREE { Duration::from_secs(1 << doublings).min(LONGEST) } else { Duration::ZERO };
        self.last + lock
    }
}

/// What is to be done about a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is looked at, and counts as wrong until [`Softlock::was_right`].
    Look,
    /// This very password was wrong a short while ago. A client that has an old one tries it for ever, and guesses nothing.
    Wrong,
    /// Nobody is let in for so long.
    Locked(Duration),
}

/// What is held against whom.
#[derive(Debug, Default)]
pub(super) struct Softlock(BTreeMap<Who, Tries>);

impl Softlock {
    /// What to do about a login. `mark` stands for the password, and changes when the user gets another.
    pub(super) fn begin(&mut self, who: &Who, mark: Mark, now: Instant) -> Verdict {
        if self.0.get(who).is_some_and(|tries| now.duration_since(tries.last) >= FORGOTTEN) {
            self.0.remove(who);
        }
        if let Some(tries) = self.0.get(who) {
            // One that is being looked at just now is the same guess, however many come with it.
            if let Some((_, is_wrong)) = tries.tried.iter().find(|(tried, _)| *tried == mark) {
                return if *is_wrong { Verdict::Wrong } else { Verdict::Look };
            }
            let wait = tries.until().saturating_duration_since(now);
            if !wait.is_zero() {
                return Verdict::Locked(wait);
            }
        } else if self.0.len() >= MOST {
            self.forget();
        }
        let tries = self.0.entry(who.clone()).or_insert(Tries { wrong: 0, last: now, tried: Vec::new() });
        tries.wrong = tries.wrong.saturating_add(1);
        tries.last = now;
        if tries.tried.len() == REMEMBERED {
            tries.tried.remove(0);
        }
        tries.tried.push((mark, false));
        Verdict::Look
    }

    /// The login was right: nothing is held against `who` any more.
    pub(super) fn was_right(&mut self, who: &Who) {
        self.0.remove(who);
    }

    /// The login was wrong.
    pub(super) fn was_wrong(&mut self, who: &Who, mark: Mark) {
        let tried = self.0.get_mut(who).and_then(|tries| tries.tried.iter_mut().find(|(tried, _)| *tried == mark));
        if let Some((_, is_wrong)) = tried {
            *is_wrong = true;
        }
    }

    /// Makes room: a tenth goes.
    fn forget(&mut self) {
        let mut times: Vec<_> = self.0.values().map(|tries| tries.last).collect();
        times.sort();
        if let Some(oldest) = times.get(MOST / 10) {
            self.0.retain(|_, tries| tries.last > *oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(user: &str, address: &str) -> Who {
        Who::new(user, address.parse().ok())
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn mark(number: u32) -> Mark {
        let mut mark = [0; 32];
        mark[..4].copy_from_slice(&number.to_le_bytes());
        mark
    }

    /// Comes with as many passwords, all of them wrong.
    fn fails(locks: &mut Softlock, who: &Who, passwords: std::ops::Range<u32>, now: Instant) {
        for number in passwords {
            assert_eq!(locks.begin(who, mark(number), now), Verdict::Look, "{number}");
            locks.was_wrong(who, mark(number));
        }
    }

    #[test]
    fn the_fifth_wrong_login_locks_and_each_later_one_twice_as_long() {
        let (mut locks, mut now, ann) = (Softlock::default(), Instant::now(), who("ann", "192.0.2.1"));
        fails(&mut locks, &ann, 0..5, now);
        for (number, seconds) in (5..).zip([1, 2, 4, 8, 16, 30, 30]) {
            let locked = Verdict::Locked(after(seconds));
            assert_eq!(locks.begin(&ann, mark(number), now), locked);
            assert_eq!(locks.begin(&ann, mark(number), now), locked, "what is not looked at is not counted");
            now += after(seconds);
            fails(&mut locks, &ann, number..number + 1, now);
        }
    }

    #[test]
    fn who_hangs_up_has_had_his_guess() {
        let (mut locks, now, ann) = (Softlock::default(), Instant::now(), who("ann", "192.0.2.1"));
        for number in 0..5 {
            assert_eq!(locks.begin(&ann, mark(number), now), Verdict::Look);
        }
        assert_eq!(locks.begin(&ann, mark(5), now), Verdict::Locked(after(1)));
    }

    #[test]
    fn many_with_one_password_are_one_guess_and_an_old_password_locks_nobody_out() {
        let (mut locks, now, ann) = (Softlock::default(), Instant::now(), who("ann", "192.0.2.1"));
        for _ in 0..100 {
            assert_eq!(locks.begin(&ann, mark(1), now), Verdict::Look, "it is being looked at");
        }
        locks.was_wrong(&ann, mark(1));
        for _ in 0..100 {
            assert_eq!(locks.begin(&ann, mark(1), now), Verdict::Wrong);
        }
        assert_eq!(locks.begin(&ann, mark(2), now), Verdict::Look);
        locks.was_right(&ann);
        fails(&mut locks, &ann, 1..6, now);
        assert_eq!(locks.begin(&ann, mark(1), now), Verdict::Wrong, "while it is locked, too");
    }

    #[test]
    fn another_user_and_another_address_are_not_locked() {
        let (mut locks, now) = (Softlock::default(), Instant::now());
        fails(&mut locks, &who("ann", "192.0.2.1"), 0..5, now);
        fails(&mut locks, &who("ann", "2001:db8::1"), 0..5, now);
        for (user, address, is_locked) in [
            ("ann", "192.0.2.1", true),
            ("ann", "::ffff:192.0.2.1", true),
            ("ann", "2001:db8::ffff:2", true),
            ("ann", "2001:db8:0:1::1", false),
            ("ann", "192.0.2.2", false),
            ("ben", "192.0.2.1", false),
            ("ann", "", false),
        ] {
            let verdict = locks.begin(&who(user, address), mark(9), now);
            assert_eq!(matches!(verdict, Verdict::Locked(_)), is_locked, "{user} {address}");
        }
    }

    #[test]
    fn a_right_login_and_a_quarter_of_an_hour_end_it() {
        let (mut locks, now, ann) = (Softlock::default(), Instant::now(), who("ann", "192.0.2.1"));
        fails(&mut locks, &ann, 0..5, now);
        locks.was_right(&ann);
        fails(&mut locks, &ann, 0..5, now);
        assert!(matches!(locks.begin(&ann, mark(9), now), Verdict::Locked(_)));
        fails(&mut locks, &ann, 0..5, now + FORGOTTEN);
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let (mut locks, now) = (Softlock::default(), Instant::now());
        for number in 0..3 * MOST as u64 {
            locks.begin(&who(&number.to_string(), "192.0.2.1"), mark(0), now + Duration::from_millis(number));
        }
        assert!(locks.0.len() <= MOST && locks.0.len() > MOST / 2, "{}", locks.0.len());
        let last = who(&(3 * MOST - 1).to_string(), "192.0.2.1");
        assert!(locks.0.contains_key(&last));
    }
}
