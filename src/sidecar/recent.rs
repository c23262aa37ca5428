//! What was found out a short while ago: kept for a time, as much of it as there is room for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a thing hashes to, so that nothing that is kept can be read.
pub(super) type Key = [u8; 32];

/// At most twice `room` things; of those that are too many the older half goes at once.
pub(super) struct Recent<T> {
    life: Duration,
    room: usize,
    now: BTreeMap<Key, (T, Instant)>,
    before: BTreeMap<Key, (T, Instant)>,
}

impl<T: Clone> Recent<T> {
    pub(super) fn new(life: Duration, room: usize) -> Self {
        Self { life, room, now: BTreeMap::new(), before: BTreeMap::new() }
    }

    /// What was found out less than its life ago.
    pub(super) fn find(&self, key: &Key, now: Instant) -> Option<T> {
        let (found, since) = self.now.get(key).or_else(|| self.before.get(key))?;
        (now.duration_since(*since) < self.life).then(|| found.clone())
    }

    pub(super) fn remember(&mut self, key: Key, found: T, now: Instant) {
        if self.now.len() >= self.room {
            self.before = std::mem::take(&mut self.now);
        }
        self.now.insert(key, (found, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        std::array::from_fn(|place| number.to_le_bytes().get(place).copied().unwrap_or_default())
    }

    #[test]
    fn things_are_forgotten_in_time_and_the_newest_have_room() {
        let (mut recent, begin) = (Recent::new(Duration::from_secs(10), 3), Instant::now());
        recent.remember(key(0), "a", begin);
        recent.remember(key(0), "b", begin + Duration::from_secs(4));
        for (after, found) in [(5, Some("b")), (13, Some("b")), (14, None)] {
            assert_eq!(recent.find(&key(0), begin + Duration::from_secs(after)), found, "{after}");
        }
        for number in 0..100 {
            recent.remember(key(number), "c", begin);
            assert!(recent.now.len() + recent.before.len() <= 6);
        }
        let kept: Vec<_> = (0..100).filter(|number| recent.find(&key(*number), begin).is_some()).collect();
        assert_eq!(kept, [96, 97, 98, 99]);
    }
}
