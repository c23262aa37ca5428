//! When keys that sign tokens are exchanged. Decides only: the clock is in the input.
//!
//! A registry learns which keys there are when it starts. So the next key is published long before it signs, and the former one as long after:
//!
//! ```text
//!             signs      published before it signs     published after it signed
//! first year  A          B                             –
//! second      B          C                             A
//! ```

use jiff::{SignedDuration, Timestamp};

/// How long a key signs.
pub const PERIOD: SignedDuration = SignedDuration::from_hours(365 * 24);

/// What is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Since when the key signs; `None` if that cannot be read.
    pub since: Option<Timestamp>,
    /// Whether the key that signs, the one that is to sign next and the one for refresh tokens can be read.
    pub is_whole: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Keep,
    /// All keys are made.
    Make,
    /// The next key signs from now on, and another is made to follow it.
    Exchange,
}

/// What to do with what is stored. `is_rolling`: pods are being replaced, and some may not know the next key yet.
#[must_use]
pub fn step(stored: Option<Stored>, is_rolling: bool, now: Timestamp) -> Step {
    match stored {
        Some(Stored { is_whole: true, since: Some(since) }) => {
            // A clock that was wrong when it was written must not keep a key for ever.
            let age = now.duration_since(since);
            let is_due = age >= PERIOD || age < -SignedDuration::from_hours(24);
            if is_due && !is_rolling { Step::Exchange } else { Step::Keep }
        }
        Some(_) | None => Step::Make,
    }
}

/// When it is due.
#[must_use]
pub fn due(since: Timestamp) -> Timestamp {
    since.saturating_add(PERIOD).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_for_a_year() {
        let now: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        let hour = SignedDuration::from_hours(1);
        let stored = |age: SignedDuration| Some(Stored { since: Some(now - age), is_whole: true });
        for (stored, is_rolling, taken) in [
            (None, false, Step::Make),
            (None, true, Step::Make),
            (Some(Stored { since: Some(now), is_whole: false }), false, Step::Make),
            (Some(Stored { since: None, is_whole: true }), false, Step::Make),
            (stored(SignedDuration::ZERO), false, Step::Keep),
            (stored(PERIOD - hour), false, Step::Keep),
            (stored(PERIOD), false, Step::Exchange),
            (stored(PERIOD), true, Step::Keep),
            (stored(-hour), false, Step::Keep),
            (stored(-PERIOD), false, Step::Exchange),
        ] {
            assert_eq!(step(stored, is_rolling, now), taken, "{stored:?}");
        }
        assert_eq!(due(now), now + PERIOD);
    }
}
