//! When a rotated login takes over from another. Decides only: the clock is in the input, and what was decided is carried out with one write.
//!
//! Whoever holds a login must be let in with it, so a login is accepted before anybody is shown it, and for a while after others are:
//!
//! ```text
//!                    Secret and pull Secrets show   the table accepts
//! settled            A                              A
//! due: Make          A                              A, B     B is stored first, then it goes into the table
//! in force: Show     B                              B, A     when running pods have had that table for long enough
//! all told: Count    B                              B, A     from here on the overlap counts: every pull Secret shows B
//! over: End          B                              B
//! ```
//!
//! A leak is another matter: [`Step::Replace`] makes a login that nobody can know yet, and ends every other one at once.

use jiff::{SignedDuration, Timestamp};

/// Times that lie further ahead were written by a clock that was wrong: they must not keep a login for ever.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// How often it is looked whether pods follow, when they should have for a while.
const MEANWHILE: SignedDuration = SignedDuration::from_secs(30);

/// What is known of a user's logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Since when the present login has been shown; `None` if that cannot be read.
    pub since: Option<Timestamp>,
    /// The login that is to follow.
    pub next: Next,
    /// The login that was shown before.
    pub former: Former,
    /// What somebody asks for.
    pub asked: Asked,
    /// Whether running pods follow the table, and none is about to be replaced by one of another kind.
    pub is_followed: bool,
    /// How long a login is shown.
    pub every: SignedDuration,
    /// How long a former login counts.
    pub overlap: SignedDuration,
    /// How long a login is in the table before it is shown.
    pub lead: SignedDuration,
}

/// The login that is to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There is none.
    None,
    /// It is stored, and not in the table yet.
    Stored,
    /// It has been in the table since then.
    InTable(Timestamp),
}

/// The login that was shown before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Former {
    /// There is none, or it has ended.
    None,
    /// Not every pull Secret is known to show the present one.
    Needed,
    /// Every pull Secret has shown the present one since then.
    Counting(Timestamp),
}

/// What somebody asks for by the annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nothing that was not handled.
    Nothing,
    /// The next login.
    Next,
    /// That every login ends which anybody may know.
    Now,
}

impl Asked {
    /// What the annotation says, beside what was handled last.
    #[must_use]
    pub fn of(annotation: Option<&str>, handled: Option<&str>) -> Self {
        match annotation {
            None | Some("") => Self::Nothing,
            said if said == handled => Self::Nothing,
            Some(said) if said == "now" || said.starts_with("now-") => Self::Now,
            Some(_) => Self::Next,
        }
    }
}

/// What is to be done: one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// The next login is made.
    Make,
    /// The next login is shown, and the one that was becomes the former.
    Show,
    /// The former login ends.
    End,
    /// Another login is made and shown, and every other one ends.
    Replace,
}

/// What to do now.
#[must_use]
pub fn step(facts: &Facts, now: Timestamp) -> Step {
    if facts.asked == Asked::Now {
        return Step::Replace;
    }
    match (facts.former, facts.next) {
        (Former::Counting(since), _) if is_over(since, facts.overlap, now) => Step::End,
        // Of three logins at once two would have one name.
        (Former::Needed | Former::Counting(_), _) | (Former::None, Next::Stored) => Step::Keep,
        (Former::None, Next::InTable(since)) => {
            let is_in_force = has_passed(since, facts.lead, now);
            if is_in_force && facts.is_followed { Step::Show } else { Step::Keep }
        }
        (Former::None, Next::None) => {
            let is_due = facts.since.is_none_or(|since| has_passed(since, facts.until_due(), now));
            let is_wanted = is_due || facts.asked == Asked::Next;
            if is_wanted && facts.is_followed { Step::Make } else { Step::Keep }
        }
    }
}

/// Whether the overlap is to be counted from now on, if every pull Secret shows the present login.
#[must_use]
pub fn counts_from_now(former: Former, now: Timestamp) -> bool {
    match former {
        Former::None => false,
        Former::Needed => true,
        Former::Counting(since) => is_ahead(since, now),
    }
}

/// When it is due to look again, although nothing has changed.
#[must_use]
pub fn look_again(facts: &Facts, now: Timestamp) -> Option<Timestamp> {
    let after = |since: Timestamp, long: SignedDuration| since.saturating_add(long).unwrap_or(Timestamp::MAX);
    match (facts.former, facts.next) {
        (Former::Counting(since), _) => Some(after(since, facts.overlap)),
        (Former::Needed, _) | (Former::None, Next::Stored) => None,
        (Former::None, Next::InTable(since)) if facts.is_followed => Some(after(since, facts.lead)),
        // Not everything that keeps pods from following is heard of when it ends.
        (Former::None, Next::InTable(since)) => Some(after(since, facts.lead).max(after(now, MEANWHILE))),
        (Former::None, Next::None) => {
            let due = facts.since.map(|since| after(since, facts.until_due()));
            match (facts.is_followed, facts.asked) {
                (true, _) => due,
                (false, Asked::Nothing) => Some(due.unwrap_or(now).max(after(now, MEANWHILE))),
                (false, _) => Some(after(now, MEANWHILE)),
            }
        }
    }
}

impl Facts {
    /// How long after a login was first shown the next one is made, so that it is shown when it should be.
    fn until_due(&self) -> SignedDuration {
        self.every.saturating_sub(self.lead)
    }
}

fn has_passed(since: Timestamp, long: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(since) >= long || is_ahead(since, now)
}

/// A former login that began to count in the future counts anew from now on: it must not end early because a clock was wrong.
fn is_over(since: Timestamp, long: SignedDuration, now: Timestamp) -> bool {
    now.duration_since(since) >= long
}

fn is_ahead(since: Timestamp, now: Timestamp) -> bool {
    since.duration_since(now) > SKEW
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: SignedDuration = SignedDuration::from_hours(720);
    const OVERLAP: SignedDuration = SignedDuration::from_hours(24);
    const LEAD: SignedDuration = SignedDuration::from_mins(3);
    const SECOND: SignedDuration = SignedDuration::from_secs(1);

    fn now() -> Timestamp {
        "2026-12-01T00:00:00Z".parse().unwrap()
    }

    /// A login that has been shown for so long.
    fn shown(age: SignedDuration) -> Facts {
        Facts {
            since: Some(now() - age),
            next: Next::None,
            former: Former::None,
            asked: Asked::Nothing,
            is_followed: true,
            every: EVERY,
            overlap: OVERLAP,
            lead: LEAD,
        }
    }

    #[test]
    fn each_step_is_taken_at_its_second_and_not_before() {
        let fresh = shown(SignedDuration::ZERO);
        let in_table = |age: SignedDuration| Facts { next: Next::InTable(now() - age), ..shown(EVERY) };
        let counting = |age: SignedDuration| Facts { former: Former::Counting(now() - age), ..fresh };
        let due = EVERY - LEAD;
        for (facts, taken) in [
            (fresh, Step::Keep),
            (shown(due - SECOND), Step::Keep),
            (shown(due), Step::Make),
            (Facts { is_followed: false, ..shown(due) }, Step::Keep),
            (shown(due + SECOND), Step::Make),
            (Facts { since: None, ..fresh }, Step::Make),
            (Facts { next: Next::Stored, ..shown(EVERY * 2) }, Step::Keep),
            (in_table(LEAD - SECOND), Step::Keep),
            (in_table(LEAD), Step::Show),
            (in_table(LEAD + SECOND), Step::Show),
            (Facts { is_followed: false, ..in_table(EVERY) }, Step::Keep),
            (Facts { former: Former::Needed, ..shown(EVERY * 2) }, Step::Keep),
            (counting(OVERLAP - SECOND), Step::Keep),
            (counting(OVERLAP), Step::End),
            (counting(OVERLAP + SECOND), Step::End),
            // The operator was away for long: one thing after the other.
            (Facts { former: Former::Counting(now() - EVERY), ..shown(EVERY) }, Step::End),
            (Facts { former: Former::Needed, ..in_table(EVERY) }, Step::Keep),
            (Facts { former: Former::Counting(now() - EVERY), ..in_table(EVERY) }, Step::End),
        ] {
            assert_eq!(step(&facts, now()), taken, "{facts:?}");
        }
    }

    #[test]
    fn who_asks_gets_the_next_login_and_with_now_no_other_stays() {
        let asking = |asked: Asked, facts: Facts| step(&Facts { asked, ..facts }, now());
        let fresh = shown(SECOND);
        for (facts, by_next, by_now) in [
            (fresh, Step::Make, Step::Replace),
            (Facts { next: Next::Stored, ..fresh }, Step::Keep, Step::Replace),
            (Facts { next: Next::InTable(now()), ..fresh }, Step::Keep, Step::Replace),
            (Facts { former: Former::Needed, ..fresh }, Step::Keep, Step::Replace),
            (Facts { former: Former::Counting(now()), ..fresh }, Step::Keep, Step::Replace),
            (Facts { is_followed: false, ..fresh }, Step::Keep, Step::Replace),
        ] {
            assert_eq!((asking(Asked::Next, facts), asking(Asked::Now, facts)), (by_next, by_now), "{facts:?}");
        }
        for (said, handled, asked) in [
            (None, None, Asked::Nothing),
            (Some(""), None, Asked::Nothing),
            (Some("1"), None, Asked::Next),
            (Some("1"), Some("1"), Asked::Nothing),
            (Some("2"), Some("1"), Asked::Next),
            (Some("nowhere"), None, Asked::Next),
            (Some("now"), None, Asked::Now),
            (Some("now-1"), Some("now"), Asked::Now),
            (Some("now-1"), Some("now-1"), Asked::Nothing),
            (None, Some("now-1"), Asked::Nothing),
        ] {
            assert_eq!(Asked::of(said, handled), asked, "{said:?} {handled:?}");
        }
    }

    #[test]
    fn a_clock_that_was_wrong_keeps_no_login_for_ever_and_ends_none_early() {
        let ahead = now() + SKEW;
        let fresh = shown(SignedDuration::ZERO);
        for (facts, taken) in [
            (Facts { since: Some(ahead), ..fresh }, Step::Keep),
            (Facts { since: Some(ahead + SECOND), ..fresh }, Step::Make),
            (Facts { next: Next::InTable(ahead), ..fresh }, Step::Keep),
            (Facts { next: Next::InTable(ahead + SECOND), ..fresh }, Step::Show),
            (Facts { former: Former::Counting(ahead + EVERY), ..fresh }, Step::Keep),
        ] {
            assert_eq!(step(&facts, now()), taken, "{facts:?}");
        }
        for (former, anew) in [
            (Former::None, false),
            (Former::Needed, true),
            (Former::Counting(now() - EVERY), false),
            (Former::Counting(ahead), false),
            (Former::Counting(ahead + SECOND), true),
        ] {
            assert_eq!(counts_from_now(former, now()), anew, "{former:?}");
        }
    }

    #[test]
    fn it_is_looked_again_when_the_next_step_is_due() {
        let fresh = shown(SignedDuration::ZERO);
        for (facts, at) in [
            (fresh, Some(now() + EVERY - LEAD)),
            (Facts { since: None, ..fresh }, None),
            (Facts { next: Next::Stored, ..fresh }, None),
            (Facts { next: Next::InTable(now()), ..fresh }, Some(now() + LEAD)),
            (Facts { former: Former::Needed, ..fresh }, None),
            (Facts { former: Former::Counting(now()), ..fresh }, Some(now() + OVERLAP)),
        ] {
            assert_eq!(look_again(&facts, now()), at, "{facts:?}");
            let step = at.map(|at| [step(&facts, at - SECOND), step(&facts, at)]);
            assert!(step.is_none_or(|[before, then]| before == Step::Keep && then != Step::Keep), "{facts:?}");
        }
        let waiting = |since| Facts { next: Next::InTable(since), is_followed: false, ..fresh };
        assert_eq!(look_again(&waiting(now()), now()), Some(now() + LEAD));
        assert_eq!(look_again(&waiting(now() - LEAD), now()), Some(now() + MEANWHILE));
        // Nor is a next login made while pods follow nothing.
        let waiting = Facts { is_followed: false, ..shown(EVERY) };
        assert_eq!(look_again(&waiting, now()), Some(now() + MEANWHILE));
        assert_eq!(
            look_again(&Facts { asked: Asked::Next, ..Facts { is_followed: false, ..fresh } }, now()),
            Some(now() + MEANWHILE)
        );
        assert_eq!(look_again(&Facts { is_followed: false, ..fresh }, now()), Some(now() + EVERY - LEAD));
    }
}
