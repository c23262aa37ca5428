//! The objects that are worked on, as the API server last showed them.
//!
//! One map for all scopes, fed by one watch per scope. It says what changed about an object, so that the operator's
//! own status writes don't cause passes, and keeps an object that can't be decoded from hiding the others: what is known
//! of it from before is kept, so that what runs is still looked after. It never talks to the API server.
//!
//! Objects are held as packed text ([`packed`]): a pass reads one at a time, and all of them are in memory.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource as _;
use kube::core::ObjectMeta;
use kube::runtime::watcher::Event;
use serde_json::json;

use self::packed::Packed;
use super::followed::{Followed, Guarded, Unfollowed};
use super::queue::Key;
use super::watches::{Scope, compare_versions};
use crate::alike::Sample;
use crate::apply::{Hash, LAST_APPLIED};

mod packed;

/// Something happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which object.
    pub key: Key,
    /// What happened to it.
    pub what: What,
}

/// What happened to an object. Several things at once are named by the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
pub enum What {
    /// It is new to us, or can be decoded for the first time.
    Added,
    /// The user changed the spec.
    SpecChanged,
    /// Labels, annotations, finalizers, owners, or the beginning of its deletion.
    MetadataChanged,
    /// Only the status: our own write, as a rule. No reason for a pass.
    StatusOnly,
    /// It is there, but can't be decoded any more (see [`Objects::undecodable`]), or for another reason than before.
    Undecodable,
    /// It is gone, or another object has taken its name (an `Added` follows).
    Removed,
}

impl What {
    /// Whether it is a reason for a pass.
    pub fn wants_a_pass(self) -> bool {
        self != Self::StatusOnly
    }
}

/// All objects of all scopes.
#[derive(Debug)]
pub struct Objects<K> {
    inner: RwLock<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    objects: BTreeMap<Key, Box<Held<K>>>,
    /// What they resemble.
    sample: Sample,
    undecodable: BTreeMap<Key, String>,
    listings: BTreeMap<Scope, Listing>,
}

/// An object, and what tells one state of it from the next.
#[derive(Debug)]
struct Held<K> {
    tells: Tells,
    object: Packed<K>,
}

#[derive(Debug)]
struct Tells {
    uid: Option<String>,
    version: String,
    generation: Option<i64>,
    deleted: Option<Time>,
    /// The labels, annotations, finalizers and owners.
    others: Hash,
}

impl Tells {
    fn of(meta: &ObjectMeta) -> Self {
        Self {
            uid: meta.uid.clone(),
            version: meta.resource_version.clone().unwrap_or_default(),
            generation: meta.generation,
            deleted: meta.deletion_timestamp.clone(),
            others: Hash::of(&json!([meta.labels, meta.annotations, meta.finalizers, meta.owner_references])),
        }
    }
}

/// The running list of a scope.
#[derive(Debug, Default)]
struct Listing {
    /// What it has shown so far.
    shown: BTreeSet<Key>,
    /// What answers have shown since it began: the list may be older than those.
    learned: BTreeSet<Key>,
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        let (objects, undecodable, listings) = Default::default();
        Self { inner: RwLock::new(Inner { objects, sample: Sample::default(), undecodable, listings }) }
    }
}

impl<K: Followed> Objects<K> {
    /// Takes in one event of the watch of `scope`; scopes must not overlap. Returns what it means, in order.
    pub fn apply(&self, scope: &Scope, event: Event<Guarded<K>>) -> Vec<Change> {
        let mut inner = self.write();
        match event {
            Event::Init => {
                inner.listings.insert(scope.clone(), Listing::default());
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = key_of(object.meta());
                let may_go_back = inner.listings.get_mut(scope).is_some_and(|listing| {
                    listing.shown.insert(key.clone());
                    !listing.learned.contains(&key)
                });
                inner.take(key, object, may_go_back)
            }
            Event::InitDone => {
                let listed = inner.listings.remove(scope).unwrap_or_default().shown;
                let known = inner.objects.keys().chain(inner.undecodable.keys());
                let gone: Vec<Key> =
                    known.filter(|key| scope.covers(&key.namespace) && !listed.contains(*key)).cloned().collect();
                gone.into_iter().filter_map(|key| inner.remove(key)).collect()
            }
            Event::Apply(object) => inner.take(key_of(object.meta()), object, false),
            Event::Delete(object) => inner.remove(key_of(object.meta())).into_iter().collect(),
        }
    }

    /// Takes in the answer to a write, so that the next pass sees it even if its event has not arrived yet. An answer
    /// that is older than what is known, or whose object is gone, changes nothing. Tell the queue about what is
    /// returned: the answer may show a user's change before its own event does, and that event is then no news.
    pub fn learn(&self, object: K) -> Option<Change> {
        let key = key_of(object.meta());
        let mut inner = self.write();
        let known = inner.objects.get(&key)?;
        if known.tells.uid != object.meta().uid {
            return None;
        }
        let running = inner.listings.iter_mut().filter(|(scope, _)| scope.covers(&key.namespace));
        running.for_each(|(_, listing)| {
            listing.learned.insert(key.clone());
        });
        inner.take(key, Guarded::Known(object), false).pop()
    }

    /// The object of this name, if it is there and could ever be decoded. One that can't be any more has the generation, spec and
    /// status of the last time that it could, and the other metadata of now.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read().objects.get(key).and_then(|held| held.object.unpack())
    }

    /// Whether [`Objects::get`] knows it.
    pub fn contains(&self, key: &Key) -> bool {
        self.read().objects.contains_key(key)
    }

    /// The keys of all objects that [`Objects::get`] knows, in order.
    pub fn keys(&self) -> Vec<Key> {
        self.read().objects.keys().cloned().collect()
    }

    /// How many objects [`Objects::get`] knows.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why this object can't be decoded, if it can't.
    pub fn why_undecodable(&self, key: &Key) -> Option<String> {
        self.read().undecodable.get(key).cloned()
    }

    /// The objects that can't be decoded, each with the reason.
    pub fn undecodable(&self) -> BTreeMap<Key, String> {
        self.read().undecodable.clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner<K>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<K>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Followed> Inner<K> {
    /// `may_go_back`: after a restored backup a list shows what was before, with lower versions. A watch never does.
    fn take(&mut self, key: Key, object: Guarded<K>, may_go_back: bool) -> Vec<Change> {
        match object {
            Guarded::Known(object) => {
                let changes = self.know(&key, object, may_go_back);
                // What is older than what is known tells nothing of the present.
                if !changes.is_empty() {
                    self.undecodable.remove(&key);
                }
                changes
            }
            Guarded::Unfollowed(broken) => {
                let error = broken.error.clone();
                let mut changes = self.know_in_part(&key, *broken, may_go_back);
                let before = self.undecodable.insert(key.clone(), error.clone());
                if before.is_none_or(|before| before != error) {
                    changes.push(Change { key, what: What::Undecodable });
                }
                changes
            }
        }
    }

    /// Metadata can always be read, and may say that the object is paused or goes; so can what counts whatever else is wrong. The generation stays that
    /// of the spec.
    fn know_in_part(&mut self, key: &Key, broken: Unfollowed, may_go_back: bool) -> Vec<Change> {
        match self.objects.get(key) {
            Some(known) if known.tells.uid == broken.metadata.uid => {
                let Some(mut object) = known.object.unpack().map(Arc::unwrap_or_clone) else { return Vec::new() };
                *object.meta_mut() = ObjectMeta { generation: known.tells.generation, ..broken.metadata };
                let is_news = object.salvage(&broken.object);
                let changes = self.know(key, object, may_go_back);
                let told = |change: Change| {
                    if is_news && change.what == What::StatusOnly {
                        Change { what: What::SpecChanged, ..change }
                    } else {
                        change
                    }
                };
                changes.into_iter().map(told).collect()
            }
            Some(_) => self.remove(key.clone()).into_iter().collect(),
            None => Vec::new(),
        }
    }

    fn know(&mut self, key: &Key, mut object: K, may_go_back: bool) -> Vec<Change> {
        prune(object.meta_mut());
        let tells = Tells::of(object.meta());
        let known = self.objects.get(key).map(|known| &known.tells);
        let happened = known.map_or(Happened::New, |known| compare(known, &tells, may_go_back));
        if matches!(happened, Happened::Nothing) {
            return Vec::new();
        }
        let object = Packed::of(object, &mut self.sample);
        self.objects.insert(key.clone(), Box::new(Held { tells, object }));
        let changes: &[What] = match happened {
            Happened::Nothing => &[],
            Happened::New => &[What::Added],
            Happened::Replaced => &[What::Removed, What::Added],
            Happened::Changed(what) => &[what],
        };
        changes.iter().map(|&what| Change { key: key.clone(), what }).collect()
    }

    fn remove(&mut self, key: Key) -> Option<Change> {
        let known = self.objects.remove(&key).is_some() | self.undecodable.remove(&key).is_some();
        known.then_some(Change { key, what: What::Removed })
    }
}

enum Happened {
    Nothing,
    New,
    Replaced,
    Changed(What),
}

fn compare(known: &Tells, now: &Tells, may_go_back: bool) -> Happened {
    if known.uid != now.uid {
        return Happened::Replaced;
    }
    match compare_versions(&now.version, &known.version) {
        // Generations were counted anew, too: the same one may stand for another spec.
        Some(Ordering::Less) if may_go_back => return Happened::Changed(What::SpecChanged),
        Some(Ordering::Less | Ordering::Equal) => return Happened::Nothing,
        Some(Ordering::Greater) | None => {}
    }
    Happened::Changed(match (known.generation != now.generation, known.others != now.others) {
        // The beginning of a deletion raises the generation, too.
        _ if known.deleted != now.deleted => What::MetadataChanged,
        (true, _) => What::SpecChanged,
        (false, true) => What::MetadataChanged,
        (false, false) => What::StatusOnly,
    })
}

/// Drops what is large and never read: for a small object more than half of it.
fn prune(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

fn key_of(meta: &ObjectMeta) -> Key {
    Key::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
