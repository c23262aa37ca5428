//! Fights: somebody else changes a field back each time it was repaired. They are noticed, told with a name, and damped, field by field. Pure: the time
//! is passed in.
//!
//! ```text
//!            3 repairs within 10 minutes             changed back: repaired once the wait is over, then the wait doubles
//!  watched ─────────────────────────────▶ contested ◀───────┐ (1, 2, 4, 8, 10 minutes)
//!     │                                       │  └──────────┘
//!     └──── 10 minutes without a repair ──────┴──▶ forgotten
//! ```
//!
//! Only repairs count: what is written because something else is wanted than before is never held up, and ends the fights over fields of which
//! something else is wanted now. A repair writes the whole object; what waits is written with it, without being counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::ObjectRef;
use super::diff::Divergence;
use super::hash::Hash;

/// So many repairs of a field within [`WINDOW`] are a fight.
const NOTICED_AFTER: usize = 3;

/// A field that stays ours for so long is no longer fought over.
const WINDOW: Duration = Duration::from_secs(600);

/// How long the next repair waits once a fight is noticed; it doubles with each repair.
const FIRST_WAIT: Duration = Duration::from_secs(60);

/// The wait doubles up to this.
const LONGEST_WAIT: Duration = WINDOW;

/// Who changes a field back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rival {
    /// Whoever wrote it under this name, as `metadata.managedFields` says.
    Manager(String),
    /// Nobody wrote it but us, so it is changed on its way in.
    Admission,
    /// It was taken away, which leaves no name behind.
    Somebody,
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manager(name) => f.write_str(name),
            Self::Admission => f.write_str("an admission webhook or policy"),
            Self::Somebody => f.write_str("somebody"),
        }
    }
}

/// A fight over fields of one object. Its text is fit for a condition: it changes only when there was another repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contest {
    /// Over which object.
    pub object: ObjectRef,
    /// Over which field; of several the one that is as the other wants it, or that was repaired most often.
    pub path: String,
    /// Who changes it back.
    pub rival: Rival,
    /// How often it was repaired since the fight began.
    pub times: u32,
    /// How many more fields of this object are fought over.
    pub others: usize,
    /// Whether the object is now as the other wants it, and waits for its next repair.
    pub is_lost: bool,
    /// When the object should be applied again, for the next repair or to see that the fight is over. Zero: it is due.
    pub look_again: Duration,
}

impl Contest {
    /// Whether the object may be repaired again now.
    pub fn is_due(&self) -> bool {
        self.is_lost && self.look_again.is_zero()
    }
}

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, path, rival, times, others, .. } = self;
        write!(f, "{path} of {object} is changed back by {rival}, {times} times")?;
        match others {
            0 => {}
            1 => f.write_str(", and so is another field")?,
            others => write!(f, ", and so are {others} other fields")?,
        }
        f.write_str("; stop it, or let it leave this field alone; until then, repairs wait up to 10 minutes")
    }
}

/// The fields of one object that were repaired lately.
#[derive(Debug, Default)]
pub(super) struct Disputes(BTreeMap<String, Dispute>);

#[derive(Debug)]
struct Dispute {
    /// What is wanted of the field. When that changes, it is another field.
    wanted: Hash,
    /// When it was repaired: the latest, at most [`NOTICED_AFTER`].
    repairs: Vec<Instant>,
    /// How often it was repaired.
    times: u32,
    /// How long the next repair waits. Zero until the fight is noticed.
    wait: Duration,
    /// It isn't as wanted now.
    is_lost: bool,
    rival: Rival,
}

impl Dispute {
    fn is_contested(&self) -> bool {
        !self.wait.is_zero()
    }

    fn due(&self) -> Option<Instant> {
        self.repairs.last().map(|last| *last + self.wait)
    }

    fn over(&self) -> Option<Instant> {
        self.repairs.last().map(|last| *last + WINDOW)
    }

    fn repaired(&mut self, now: Instant) {
        self.times = self.times.saturating_add(1);
        if self.is_contested() {
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        } else {
            self.repairs.retain(|repair| *repair + WINDOW > now);
            self.times = u32::try_from(self.repairs.len() + 1).unwrap_or(u32::MAX);
            if self.repairs.len() + 1 >= NOTICED_AFTER {
                self.wait = FIRST_WAIT;
            }
        }
        if self.repairs.len() == NOTICED_AFTER {
            self.repairs.remove(0);
        }
        self.repairs.push(now);
    }
}

impl Disputes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the repair of this field has to wait.
    pub(super) fn is_waiting(&self, place: &Divergence, now: Instant) -> bool {
        self.0.get(&place.path).is_some_and(|dispute| {
            dispute.wanted == place.wanted && dispute.is_contested() && dispute.due().is_some_and(|due| now < due)
        })
    }

    /// Whether every one of these fields has to wait, so that there is nothing to write.
    pub(super) fn are_waiting(&self, places: &[Divergence], now: Instant) -> bool {
        places.iter().all(|place| self.is_waiting(place, now))
    }

    /// The object was compared: these fields, all of which wait, aren't as wanted; every other is.
    pub(super) fn compared(&mut self, lost: &[Divergence], rival: impl Fn(&str) -> Rival) {
        for (path, dispute) in &mut self.0 {
            dispute.is_lost = lost.iter().any(|place| place.path == *path);
            if dispute.is_lost {
                dispute.rival = rival(path);
            }
        }
    }

    /// The object was written, because these fields weren't as wanted although they had been. Now all are.
    pub(super) fn repaired(&mut self, places: &[Divergence], rival: impl Fn(&str) -> Rival, now: Instant) {
        self.0.values_mut().for_each(|dispute| dispute.is_lost = false);
        for place in places.iter().filter(|place| !self.is_waiting(place, now)).collect::<Vec<_>>() {
            let (wanted, rival) = (place.wanted, rival(&place.path));
            let new = Dispute { wanted, repairs: Vec::new(), times: 0, wait: Duration::ZERO, is_lost: false, rival };
            let dispute = match self.0.remove(&place.path) {
                Some(known) if known.wanted == wanted => Dispute { rival: new.rival, ..known },
                _ => new,
            };
            self.0.entry(place.path.clone()).or_insert(dispute).repaired(now);
        }
    }

    /// The object was written, because something else is wanted than before; `wanted` is what is wanted at a path. Now all fields are as wanted.
    pub(super) fn rewritten(&mut self, wanted: impl Fn(&str) -> Hash) {
        self.0.retain(|path, dispute| dispute.wanted == wanted(path));
        self.0.values_mut().for_each(|dispute| dispute.is_lost = false);
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|_, dispute| dispute.is_lost || dispute.over().is_some_and(|over| now < over));
    }

    /// The fight over `object`, if there is one.
    pub(super) fn contest(&self, object: &ObjectRef, now: Instant) -> Option<Contest> {
        let contested = || self.0.iter().filter(|(_, dispute)| dispute.is_contested());
        let (path, dispute) = contested().max_by_key(|(_, dispute)| (dispute.is_lost, dispute.times))?;
        let ends = contested().filter_map(|(_, dispute)| if dispute.is_lost { dispute.due() } else { dispute.over() });
        Some(Contest {
            object: object.clone(),
            path: path.clone(),
            rival: dispute.rival.clone(),
            times: dispute.times,
            others: contested().count() - 1,
            is_lost: dispute.is_lost,
            look_again: ends.min().map_or(Duration::ZERO, |end| end.saturating_duration_since(now)),
        })
    }
}

#[cfg(test)]
mod tests;
