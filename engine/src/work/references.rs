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
    of: BTreeMap<Key, BTreeSet<Reference>>,
    to: BTreeMap<Reference, BTreeSet<Key>>,
}

impl References {
    /// Everything that `key` refers to from now on. Returns what it no longer refers to and nobody else does.
    pub fn refer(&self, key: &Key, names: BTreeSet<Reference>) -> Vec<Reference> {
        let mut both = self.lock();
        let Both { of, to } = &mut *both;
        if of.get(key).map_or(names.is_empty(), |known| *known == names) {
            return Vec::new();
        }
        let mut dropped = of.remove(key).unwrap_or_default();
        for name in &dropped {
            if let Some(keys) = to.get_mut(name) {
                keys.remove(key);
            }
        }
        for name in &names {
            to.entry(name.clone()).or_default().insert(key.clone());
        }
        if !names.is_empty() {
            of.insert(key.clone(), names);
        }
        dropped.retain(|name| to.get(name).is_some_and(BTreeSet::is_empty));
        for name in &dropped {
            to.remove(name);
        }
        dropped.into_iter().collect()
    }

    /// What `key` refers to.
    #[must_use]
    pub fn of(&self, key: &Key) -> BTreeSet<Reference> {
        self.lock().of.get(key).cloned().unwrap_or_default()
    }

    /// Who refers to an object.
    #[must_use]
    pub fn to(&self, kind: &'static str, namespace: &str, name: &str) -> BTreeSet<Key> {
        self.lock().to.get(&(kind, namespace.to_owned(), name.to_owned())).cloned().unwrap_or_default()
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
