//! What is known without asking the API server: per object its version, the hash of the desired state that it last had, and as much of it as its kind
//! remembers.
//!
//! It is fed by answers to our own requests and by metadata events of the watches, in any order: an event may overtake the answer to the request
//! that caused it, and an answer may be older than an event. The rule is simple: when it isn't certain that nothing has changed, the object is stale,
//! which costs one read. The lock is never held across an await. Nothing here prints content.
//!
//! Of ten thousand owners, only those are remembered with content that were looked at lately ([`CONTENT`]); of the others it is known that they have not
//! changed, and what a pass needs of them is read again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::body::Bytes;
use kube::core::ObjectMeta;
use serde_json::Value;
use tokio::time::Instant;

use self::text::Text;
use self::version::Version;
use super::amendment::Past;
use super::contest::Contest;
use super::hash::Hash;
use super::kinds::Kind;
use super::live::{Depth, KNOWN_BESIDES, Live};
use super::{Marks, ObjectRef};
use crate::alike::Sample;

mod text;
mod version;

/// Bytes of content that are held at most: enough for a thousand owners and more.
const CONTENT: usize = 2 << 20;
/// Bytes of one object that are held at most. What is larger is read each time: it would push out what is known of many others.
const LARGEST: usize = 512 << 10;

/// What is known, shared by the engine and the watches.
pub struct Memory {
    marks: Marks,
    state: Mutex<State>,
}

/// What an event means to those who wait for changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether it says something that wasn't known: somebody should look. Our own writes come back as events that change nothing.
    pub changed: bool,
    /// Namespace and name of the owner, if it is or was a child, or has the name of one.
    pub owner: Option<(String, String)>,
}

/// An object that is no longer there, as a relist found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which object.
    pub object: ObjectRef,
    /// Namespace and name of its owner, if it was a child.
    pub owner: Option<(String, String)>,
}

/// What is known of one object.
pub(super) enum Recall {
    /// Nothing, not even whether it exists; a labelled one would have been noticed by the watches.
    Unknown,
    /// It doesn't exist.
    Absent,
    /// It was there, and may have changed since.
    Stale,
    /// It is as it was when we last saw it.
    Known(Known),
}

/// What is remembered of an object that hasn't changed since we saw it.
pub(super) struct Known {
    pub(super) live: Live,
    pub(super) depth: Depth,
    /// What it was found or made to be as wanted as.
    pub(super) wanted: Option<Hash>,
}

/// When a request began. Events that came later may be newer than its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since(u64);

/// Namespace and name of an owner, in memory once for all its children.
type Owner = Arc<(Arc<str>, Arc<str>)>;

#[derive(Default)]
struct State {
    /// Boxed, because a map's nodes are half empty.
    entries: BTreeMap<Arc<ObjectRef>, Box<Entry>>,
    /// The children of each owner, in order.
    children: BTreeMap<Owner, Vec<Arc<ObjectRef>>>,
    /// What the contents of each kind resemble.
    samples: BTreeMap<&'static Kind, Sample>,
    /// Bytes of content that are held, and that may be.
    held: usize,
    room: usize,
    /// Where content was last let go.
    hand: Option<Arc<ObjectRef>>,
    /// Relists that are under way: when each began.
    relists: BTreeMap<(&'static Kind, Option<String>), u64>,
    /// Counts up with every event and every request.
    clock: u64,
}

struct Entry {
    content: Content,
    owner: Option<Owner>,
    /// Somebody reads it by name.
    is_read: bool,
    /// A request was sent about it, whose answer may still come.
    is_asked: bool,
    news: News,
    /// What it was last found or made to be as wanted as, whatever has become of it since.
    settled: Option<Hash>,
    /// What others made of our writes; of most objects nothing.
    past: Option<Box<Past>>,
}

enum Content {
    /// Nobody has shown it yet.
    Unknown,
    Absent,
    Stale,
    Known {
        /// `None`: it was let go.
        text: Option<Text>,
        /// Whether it was asked for since content was last let go.
        is_used: bool,
        version: Version,
        depth: Depth,
        /// It is as [`Entry::settled`] says.
        is_settled: bool,
    },
}

/// What was last heard of an object other than by an answer, and when.
struct News {
    at: u64,
    what: Heard,
}

/// In little space: of nearly all objects, what was last heard is what is known.
enum Heard {
    /// It was made or changed, and became what is known ([`Content::Known`]).
    AsKnown,
    /// It was made or changed.
    Seen(Box<Version>),
    /// It was deleted.
    Gone(Box<Version>),
    /// Something may have happened that nobody told us.
    Uncertain,
}

/// What was last heard of an object, to be read.
enum Told<'a> {
    Seen(&'a Version),
    Gone(&'a Version),
    Uncertain,
}

// What the watches tell.
impl Memory {
    /// Knows nothing yet.
    pub fn new(marks: Marks) -> Self {
        Self::with_room(marks, CONTENT)
    }

    fn with_room(marks: Marks, room: usize) -> Self {
        Self { marks, state: Mutex::new(State { room, ..State::default() }) }
    }

    /// An object was added or changed, or listed in a relist. Foreign objects that nobody has asked for cost nothing.
    pub fn seen(&self, kind: &'static Kind, metadata: &ObjectMeta) -> Notice {
        let Some(object) = name_of(kind, metadata) else { return Notice::nothing() };
        let mut state = self.lock();
        let owner = self.owner_in(metadata);
        let is_relist = state.is_relisting(kind, &object.namespace);
        let at = state.tick();
        if owner.is_none() && !state.entries.contains_key(&object) {
            return Notice::nothing();
        }

        let entry = state.entry(&object, owner.as_ref().map(named));
        let seen = Version::of_event(metadata);
        let changed = match &entry.content {
            Content::Known { version, .. } if *version == seen => false,
            // A relist may go back in time, after a restored backup; a watch never does.
            Content::Known { version, .. } => is_relist || !seen.is_older_than(version),
            // Whoever made it stale has it looked at.
            Content::Stale => !matches!(entry.told(), Told::Seen(heard) if *heard == seen),
            Content::Unknown | Content::Absent => true,
        };
        entry.hear(at, Heard::Seen(Box::new(seen)));
        let owner = entry.owner_name();
        if changed {
            state.put(&object, Content::Stale);
        }
        Notice { changed, owner }
    }

    /// An object was deleted. The event of an earlier object of the same name changes nothing.
    pub fn gone(&self, kind: &'static Kind, metadata: &ObjectMeta) -> Notice {
        let Some(object) = name_of(kind, metadata) else { return Notice::nothing() };
        let mut state = self.lock();
        let at = state.tick();
        let Some(entry) = state.entries.get_mut(&object) else {
            return Notice { changed: self.owner_in(metadata).is_some(), owner: self.owner_in(metadata) };
        };
        let deleted = Version::of_event(metadata);
        let changed = match &entry.content {
            Content::Known { version, .. } => version.is_of_the_object_of(&deleted),
            Content::Unknown | Content::Stale => true,
            Content::Absent => false,
        };
        let notice = Notice { changed, owner: entry.owner_name() };
        // Nobody here has asked for it: whoever makes and deletes objects with our label must not fill the memory.
        if !entry.is_asked && !entry.is_read {
            state.remove(&object);
            return notice;
        }
        entry.hear(at, Heard::Gone(Box::new(deleted)));
        if changed {
            state.put(&object, Content::Absent);
        }
        notice
    }

    /// A watch begins to list anew; `scope` is its namespace, `None` for all. Everything listed is to be given to [`Memory::seen`].
    pub fn relist_started(&self, kind: &'static Kind, scope: Option<&str>) {
        let mut state = self.lock();
        let at = state.tick();
        state.relists.insert((kind, scope.map(str::to_owned)), at);
    }

    /// The list is complete. What was there before and wasn't listed is returned, once: no event will ever tell of it. It counts as stale, not as
    /// deleted, because it may have been made while the list was under way.
    pub fn relisted(&self, kind: &'static Kind, scope: Option<&str>) -> Vec<Missing> {
        let mut state = self.lock();
        let Some(started) = state.relists.remove(&(kind, scope.map(str::to_owned))) else { return Vec::new() };
        let at = state.tick();
        let mut missing = Vec::new();
        let first = ObjectRef::new(kind, scope.unwrap_or_default(), "");
        let in_scope =
            |object: &ObjectRef| object.kind == kind && scope.is_none_or(|scope| *scope == *object.namespace);
        let from_there = state.entries.range_mut::<ObjectRef, _>(&first..);
        for (object, entry) in from_there.take_while(|(object, _)| in_scope(object)) {
            if entry.news.at > started && matches!(entry.told(), Told::Seen(_)) {
                continue;
            }
            entry.hear(at, Heard::Uncertain);
            if entry.may_exist() {
                missing.push(Missing { object: ObjectRef::clone(object), owner: entry.owner_name() });
            }
        }
        for Missing { object, .. } in &missing {
            state.put(object, Content::Stale);
        }
        missing
    }

    /// Trusts nothing any more: everything will be read once.
    pub fn sweep(&self) {
        let mut state = self.lock();
        state.entries.retain(|_, entry| entry.may_exist());
        for entry in state.entries.values_mut() {
            entry.set(Content::Stale);
        }
        state.held = 0;
        let State { entries, children, .. } = &mut *state;
        children.retain(|_, children| {
            children.retain(|child| entries.contains_key(child));
            !children.is_empty()
        });
    }

    /// Nobody refers to this object any more. A child stays known.
    pub fn forget(&self, object: &ObjectRef) {
        let mut state = self.lock();
        if state.entries.get(object).is_some_and(|entry| entry.owner.is_none()) {
            state.remove(object);
        }
    }

    /// What was taken for a child is none.
    pub(super) fn forget_child(&self, object: &ObjectRef) {
        self.lock().remove(object);
    }

    /// The owner is gone, and with it the interest in its children.
    pub fn forget_owner(&self, namespace: &str, owner: &str) {
        let mut state = self.lock();
        for child in state.children.remove(&(namespace.into(), owner.into())).unwrap_or_default() {
            state.remove(&child);
        }
    }

    /// A pass of this owner is over. What was read ahead for it and nobody asked for is let go: it waits for no other pass. What was asked for and not
    /// compared lets go of its page.
    pub fn pass_is_over(&self, namespace: &str, owner: &str) {
        let mut state = self.lock();
        let State { entries, children, samples, held, .. } = &mut *state;
        for child in children.get(&(namespace.into(), owner.into())).into_iter().flatten() {
            match entries.get_mut(child).map(|entry| &mut entry.content) {
                Some(Content::Known { text, is_used: false, depth: Depth::Whole, .. }) => {
                    *held -= text.take().map_or(0, |text| text.len());
                }
                Some(Content::Known { text: Some(text), .. }) => {
                    *held -= text.len();
                    text.leave_page(samples.entry(child.kind).or_default());
                    *held += text.len();
                }
                _ => {}
            }
        }
    }

    /// How many objects are remembered, absent ones too.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// What the engine asks and answers.
impl Memory {
    /// Whether [`Memory::recall`] would say [`Recall::Unknown`], without taking the content out.
    pub(super) fn is_unknown(&self, object: &ObjectRef) -> bool {
        self.lock().entries.get(object).is_none_or(|entry| matches!(entry.content, Content::Unknown))
    }

    /// Whether [`Memory::recall`] would say neither that nor [`Recall::Absent`], likewise.
    pub(super) fn may_exist(&self, object: &ObjectRef) -> bool {
        self.lock().entries.get(object).is_some_and(|entry| entry.may_exist())
    }

    pub(super) fn recall(&self, object: &ObjectRef) -> Recall {
        let (text, version, depth, wanted) = match self.lock().entries.get_mut(object) {
            None => return Recall::Unknown,
            Some(entry) => match &mut entry.content {
                Content::Unknown => return Recall::Unknown,
                Content::Absent => return Recall::Absent,
                Content::Stale | Content::Known { text: None, .. } => return Recall::Stale,
                Content::Known { text: Some(text), version, depth, is_settled, is_used } => {
                    *is_used = true;
                    (text.clone(), version.clone(), *depth, entry.settled.filter(|_| *is_settled))
                }
            },
        };
        match text.parse() {
            Some(value) => Recall::Known(Known { live: completed(object, &version, value), depth, wanted }),
            None => Recall::Stale,
        }
    }

    /// The objects that belong to an owner by their marks or by having been asked for in its name. Not proved to be its own.
    pub(super) fn children(&self, namespace: &str, owner: &str) -> Vec<ObjectRef> {
        self.children_that(namespace, owner, Entry::may_exist)
    }

    /// A request about this object is about to be sent. From now on its events count, even if it was unknown.
    /// `owner`: namespace and name.
    pub(super) fn begin(&self, object: &ObjectRef, owner: Option<(&str, &str)>) -> Since {
        let mut state = self.lock();
        let entry = state.entry(object, owner);
        entry.is_asked = true;
        if matches!(entry.content, Content::Unknown) {
            entry.set(Content::Stale);
        }
        Since(state.tick())
    }

    /// Somebody reads this object by name, so it is worth being remembered in full.
    pub(super) fn mark_read(&self, object: &ObjectRef) {
        self.lock().entry(object, None).is_read = true;
    }

    /// The object as an answer showed it. `wanted`: it was found or made to be as wanted.
    pub(super) fn remember(&self, object: &ObjectRef, since: Since, live: &Live, depth: Depth, wanted: Option<Hash>) {
        let mut state = self.lock();
        let State { entries, samples, .. } = &mut *state;
        let Some(entry) = entries.get_mut(object) else { return };
        let version = Version::of(live);
        let depth = match depth {
            Depth::Unread if entry.is_read => Depth::Read,
            // What belongs to nobody here is never compared.
            Depth::Whole if entry.owner.is_none() => Depth::Read,
            depth => depth,
        };
        entry.settled = wanted.or(entry.settled);
        let content = match entry.news_after(since) {
            Some(Told::Gone(deleted)) if deleted.is_of_the_object_of(&version) => Content::Absent,
            Some(Told::Seen(seen)) if *seen != version && !seen.is_older_than(&version) => Content::Stale,
            Some(Told::Gone(_) | Told::Uncertain) => Content::Stale,
            None | Some(Told::Seen(_)) => {
                let is_held = depth != Depth::Read || !live.is_larger_than(LARGEST);
                let like = samples.entry(object.kind).or_default();
                let text = is_held.then(|| Text::of(&live.trimmed(depth, &self.marks), like));
                Content::Known { text, is_used: false, version, depth, is_settled: wanted.is_some() }
            }
        };
        state.put(object, content);
    }

    /// The object as a list showed it, as JSON. A list may be older than what the watches have told, so it counts only if it is what they last showed.
    pub(super) fn remember_listed(&self, object: &ObjectRef, uid: &str, version: &str, text: Bytes) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(object) else { return };
        let version = Version::new(uid, version);
        if matches!(entry.content, Content::Stale) && matches!(entry.told(), Told::Seen(seen) if *seen == version) {
            let text = Some(Text::listed(text));
            let content = Content::Known { text, is_used: false, version, depth: Depth::Whole, is_settled: false };
            state.put(object, content);
        }
    }

    /// The children of an owner, in its own namespace, that would have to be read.
    pub(super) fn stale_children(&self, namespace: &str, owner: &str) -> Vec<ObjectRef> {
        let mut stale = self.children_that(namespace, owner, |entry| matches!(entry.content, Content::Stale));
        stale.retain(|child| *child.namespace == *namespace);
        stale
    }

    /// `live`, remembered in full, was compared: keep only as much of it as `depth` says. Does nothing if there was news of it meanwhile.
    pub(super) fn reduce(&self, object: &ObjectRef, live: &Live, depth: Depth, wanted: Option<Hash>) {
        let mut state = self.lock();
        let State { entries, samples, .. } = &mut *state;
        let Some(entry) = entries.get_mut(object) else { return };
        let depth = if depth == Depth::Unread && entry.is_read { Depth::Read } else { depth };
        let reduced = match &entry.content {
            Content::Known { version, depth: kept, .. } => {
                let version = version.clone();
                if *kept != Depth::Whole || version != Version::of(live) {
                    return;
                }
                let like = samples.entry(object.kind).or_default();
                let text = Some(Text::of(&live.trimmed(depth, &self.marks), like));
                Some(Content::Known { text, is_used: false, version, depth, is_settled: wanted.is_some() })
            }
            Content::Unknown | Content::Absent | Content::Stale => None,
        };
        entry.settled = wanted.or(entry.settled);
        if let Some(reduced) = reduced {
            state.put(object, reduced);
        }
    }

    /// What this object was last found or made to be as wanted as. What differs from it now, others have changed.
    pub(super) fn settled(&self, object: &ObjectRef) -> Option<Hash> {
        self.lock().entries.get(object)?.settled
    }

    /// Whether it was repaired lately.
    pub(super) fn is_disputed(&self, object: &ObjectRef) -> bool {
        let state = self.lock();
        let past = state.entries.get(object).and_then(|entry| entry.past.as_deref());
        past.is_some_and(|past| !past.disputes.is_empty())
    }

    /// Hands out what is remembered of our writes to this object. Costs nothing that lasts while there is nothing to remember.
    pub(super) fn past<R>(&self, object: &ObjectRef, attend: impl FnOnce(&mut Past) -> R) -> R {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(object) else { return attend(&mut Past::default()) };
        let mut past = entry.past.take().unwrap_or_default();
        let answer = attend(&mut past);
        entry.past = Some(past).filter(|past| !past.is_empty());
        answer
    }

    /// The fight over this object, if there is one, and the paths at which it is as the server has changed it on its way in.
    pub(super) fn troubles(&self, object: &ObjectRef, now: Instant) -> (Option<Contest>, Vec<String>) {
        let mut state = self.lock();
        let Some(past) = state.entries.get_mut(object).and_then(|entry| entry.past.as_deref_mut()) else {
            return (None, Vec::new());
        };
        past.disputes.expire(now);
        let amended = past.amended.iter().map(|place| place.path.clone()).collect();
        (past.disputes.contest(object, now), amended)
    }

    /// An answer said that there is no such object.
    pub(super) fn remember_absence(&self, object: &ObjectRef, since: Since) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(object) else { return };
        let content = match entry.news_after(since) {
            Some(Told::Seen(_) | Told::Uncertain) => Content::Stale,
            None | Some(Told::Gone(_)) => Content::Absent,
        };
        state.put(object, content);
    }

    /// An answer said that what is remembered is wrong.
    pub(super) fn doubt(&self, object: &ObjectRef) {
        self.lock().put(object, Content::Stale);
    }

    fn children_that(&self, namespace: &str, owner: &str, holds: impl Fn(&Entry) -> bool) -> Vec<ObjectRef> {
        let state = self.lock();
        let children = state.children.get(&(namespace.into(), owner.into())).into_iter().flatten();
        let children = children.filter(|child| state.entries.get(*child).is_some_and(|entry| holds(entry)));
        children.map(|child| ObjectRef::clone(child)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves at worst an entry that is stale.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose child an object says it is, by namespace and name: by its labels, or by its controller.
    fn owner_in(&self, metadata: &ObjectMeta) -> Option<(String, String)> {
        let label = |label: &str| metadata.labels.as_ref()?.get(label).cloned();
        let controller = || {
            let mut references = metadata.owner_references.iter().flatten();
            references.find(|r| r.controller == Some(true) && r.kind == self.marks.owner_kind).map(|r| r.name.clone())
        };
        let name = label(self.marks.owner_label).or_else(controller)?;
        let namespace = label(self.marks.owner_namespace_label).or_else(|| metadata.namespace.clone())?;
        Some((namespace, name))
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The entry, made if need be. Once an owner is known it stays: an event without the label may be the one that took the label away.
    fn entry(&mut self, object: &ObjectRef, owner: Option<(&str, &str)>) -> &mut Entry {
        let at = self.tick();
        let is_owned = self.entries.get(object).is_some_and(|entry| entry.owner.is_some());
        let owner = owner.filter(|_| !is_owned).map(|owner| self.known(owner));
        // The texts of all children of an owner are in memory once.
        let namespace = owner.as_deref().map(|(namespace, _)| namespace).filter(|own| ***own == *object.namespace);
        let known = self.entries.get_key_value(object).map(|(known, _)| Arc::clone(known));
        let object = known.unwrap_or_else(|| {
            Arc::new(ObjectRef { namespace: namespace.unwrap_or(&object.namespace).clone(), ..object.clone() })
        });
        if let Some(owner) = &owner {
            let children = self.children.entry(owner.clone()).or_default();
            if let Err(place) = children.binary_search(&object) {
                // There are ten or so, and of each owner.
                children.reserve_exact(1);
                children.insert(place, Arc::clone(&object));
            }
        }
        let entry = self.entries.entry(object).or_insert_with(|| Box::new(Entry::unknown(at)));
        if owner.is_some() {
            entry.owner = owner;
        }
        entry
    }

    /// An owner as it is in memory already, if it is.
    fn known(&self, (namespace, name): (&str, &str)) -> Owner {
        let owner = (namespace.into(), name.into());
        let known = self.children.get_key_value(&owner).map(|(known, _)| Arc::clone(known));
        known.unwrap_or_else(|| Arc::new(owner))
    }

    /// Puts content in the place of what was known of an object. If that makes too much of it, some that was not asked for lately is let go.
    fn put(&mut self, object: &ObjectRef, content: Content) {
        let Some(entry) = self.entries.get_mut(object) else { return };
        self.held += content.size();
        self.held -= entry.set(content).size();
        // Each entry has its turn twice at most: once to lose its mark, once to lose its content.
        for _ in 0..2 * self.entries.len() {
            if self.held <= self.room {
                return;
            }
            self.let_one_go();
        }
    }

    /// Moves the hand to the next entry. If that was not asked for since the hand was last there, its content is let go.
    fn let_one_go(&mut self) {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.hand.as_ref().map_or(Unbounded, Excluded);
        let next = self.entries.range_mut::<Arc<ObjectRef>, _>((from, Unbounded)).next();
        let Some((object, entry)) = next else {
            self.hand = None;
            return;
        };
        self.hand = Some(object.clone());
        if let Content::Known { text, is_used, depth, .. } = &mut entry.content {
            // What was read ahead waits for its pass.
            if !std::mem::take(is_used) && *depth != Depth::Whole {
                self.held -= text.take().map_or(0, |text| text.len());
            }
        }
    }

    fn remove(&mut self, object: &ObjectRef) {
        let Some(entry) = self.entries.remove(object) else { return };
        self.held -= entry.content.size();
        let Some(owner) = entry.owner else { return };
        if let Some(children) = self.children.get_mut(&owner) {
            if let Ok(place) = children.binary_search_by(|child| (**child).cmp(object)) {
                children.remove(place);
            }
            if children.is_empty() {
                self.children.remove(&owner);
            }
        }
    }

    fn is_relisting(&self, kind: &'static Kind, namespace: &str) -> bool {
        self.relists.contains_key(&(kind, None)) || self.relists.contains_key(&(kind, Some(namespace.to_owned())))
    }
}

impl Entry {
    /// What happened before is unknown; an answer to a request that began before can't be trusted.
    fn unknown(at: u64) -> Self {
        let news = News { at, what: Heard::Uncertain };
        Self {
            content: Content::Unknown,
            owner: None,
            is_read: false,
            is_asked: false,
            news,
            settled: None,
            past: None,
        }
    }

    fn owner_name(&self) -> Option<(String, String)> {
        self.owner.as_deref().map(|(namespace, name)| (namespace.to_string(), name.to_string()))
    }

    fn may_exist(&self) -> bool {
        !matches!(self.content, Content::Unknown | Content::Absent)
    }

    /// What was heard after a request began.
    fn news_after(&self, since: Since) -> Option<Told<'_>> {
        (self.news.at > since.0).then(|| self.told())
    }

    fn told(&self) -> Told<'_> {
        match (&self.news.what, &self.content) {
            (Heard::AsKnown, Content::Known { version, .. }) => Told::Seen(version),
            (Heard::Seen(version), _) => Told::Seen(version),
            (Heard::Gone(version), _) => Told::Gone(version),
            // The former is ruled out: what is heard and what is known change together.
            (Heard::AsKnown | Heard::Uncertain, _) => Told::Uncertain,
        }
    }

    fn hear(&mut self, at: u64, what: Heard) {
        self.news = News { at, what };
        self.shorten();
    }

    /// Puts other content in the place of what was known, which is returned.
    fn set(&mut self, content: Content) -> Content {
        if let (Heard::AsKnown, Content::Known { version, .. }) = (&self.news.what, &self.content) {
            self.news.what = Heard::Seen(Box::new(version.clone()));
        }
        let before = std::mem::replace(&mut self.content, content);
        self.shorten();
        before
    }

    fn shorten(&mut self) {
        if matches!((&self.news.what, &self.content), (Heard::Seen(seen), Content::Known { version, .. }) if **seen == *version)
        {
            self.news.what = Heard::AsKnown;
        }
    }
}

impl Content {
    /// Bytes.
    fn size(&self) -> usize {
        match self {
            Self::Known { text: Some(text), .. } => text.len(),
            Self::Known { text: None, .. } | Self::Unknown | Self::Absent | Self::Stale => 0,
        }
    }
}

impl Notice {
    fn nothing() -> Self {
        Self { changed: false, owner: None }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} objects)", self.len())
    }
}

/// What was trimmed, with what is known besides.
fn completed(object: &ObjectRef, version: &Version, mut value: Value) -> Live {
    let known = [object.name.to_string(), object.namespace.to_string(), version.uid(), version.resource_version()];
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for (field, text) in KNOWN_BESIDES.into_iter().zip(known) {
            metadata.entry(field).or_insert_with(|| text.into());
        }
    }
    Live::named(object.kind, value)
}

fn named((namespace, name): &(String, String)) -> (&str, &str) {
    (namespace, name)
}

fn name_of(kind: &'static Kind, metadata: &ObjectMeta) -> Option<ObjectRef> {
    let namespace = metadata.namespace.as_deref().or(kind.is_cluster_wide.then_some(""))?;
    Some(ObjectRef::new(kind, namespace, metadata.name.as_ref()?))
}

#[cfg(test)]
mod tests;
