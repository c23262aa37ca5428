//! Who refers to what, both ways: whose pass must come when an object changes that somebody names. Reads nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::queue::Key;

/// An object that somebody refers to: kind, namespace, name.
pub type Reference = (&'static str, String, String);

/// Who refers to what.
#[derive(Debug, Default)]
pub struct References(Mutex<Both>);

#[derive(Debug, Default)]
struct Both {
    // Lists, because a set of one has room for eleven. In order.
    of: BTreeMap<Key, Box<[Reference]>>,
    to: BTreeMap<Reference, Box<[Key]>>,
}

impl References {
    /// Everything that `key` refers to from now on. Returns what it no longer refers to and nobody else does.
    pub fn refer(&self, key: &Key, names: BTreeSet<Reference>) -> Vec<Reference> {
        let mut both = self.lock();
        let Both { of, to } = &mut *both;
        if of.get(key).map_or(names.is_empty(), |known| known.iter().eq(&names)) {
            return Vec::new();
        }
        let before = of.get(key).map(|known| BTreeSet::from_iter(known.iter().cloned())).unwrap_or_default();
        for name in before.difference(&names) {
            let left =
                to.remove(name).unwrap_or_default().into_iter().filter(|other| other != key).collect::<Box<[_]>>();
            if !left.is_empty() {
                to.insert(name.clone(), left);
            }
        }
        for name in names.difference(&before) {
            let with_us: BTreeSet<_> = to.remove(name).unwrap_or_default().into_iter().chain([key.clone()]).collect();
            to.insert(name.clone(), with_us.into_iter().collect());
        }
        let dropped = before.difference(&names).filter(|name| !to.contains_key(*name)).cloned().collect();
        if names.is_empty() {
            of.remove(key);
        } else {
            of.insert(key.clone(), names.into_iter().collect());
        }
        dropped
    }

    /// What `key` refers to.
    #[must_use]
    pub fn of(&self, key: &Key) -> BTreeSet<Reference> {
        self.lock().of.get(key).into_iter().flatten().cloned().collect()
    }

    /// Who refers to an object.
    #[must_use]
    pub fn to(&self, kind: &'static str, namespace: &str, name: &str) -> BTreeSet<Key> {
        self.lock().to.get(&(kind, namespace.to_owned(), name.to_owned())).into_iter().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Both> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str) -> Reference {
        ("Secret", "n".to_owned(), name.to_owned())
    }

    #[test]
    fn a_reference_is_known_until_it_is_dropped() {
        let (references, a, b) = (References::default(), Key::new("n", "a"), Key::new("n", "b"));
        references.refer(&a, BTreeSet::from([secret("mine"), secret("shared")]));
        references.refer(&b, BTreeSet::from([secret("shared")]));
        assert_eq!(references.to("Secret", "n", "shared"), BTreeSet::from([a.clone(), b.clone()]));
        assert!(references.to("Secret", "other", "mine").is_empty());

        assert_eq!(references.refer(&a, BTreeSet::new()), [secret("mine")], "b still refers to the other");
        assert!(references.to("Secret", "n", "mine").is_empty());
        assert_eq!(references.to("Secret", "n", "shared"), BTreeSet::from([b]));
        assert!(references.of(&a).is_empty());
    }
}
