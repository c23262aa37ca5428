//! The decisions about each child, in the order in which they are made. What is read and written is decided here and nowhere else.

use std::sync::Arc;

use kube::Client;
use serde_json::Value;
use tokio::time::Instant;

use super::amendment::{is_vouched, keep_fixed};
use super::contest::{Contest, Rival};
use super::diff::{self, Difference};
use super::error::Error;
use super::fields::{Owned, writer, written_entry};
use super::hash::Hash;
use super::immutable::{Change, compare, concede, remedy};
use super::kinds::{Kind, Stage};
use super::live::{Depth, Live};
use super::memory::{Known, Memory, Recall};
use super::ownership::{Verdict, is_proved, judge};
use super::request::{Deleted, Failure, Observer, Requests, Verb};
use super::wanted::{Child, Hold, Wanted};
use super::{Marks, ObjectRef, Owner};

/// Compares and writes. Cheap to share; never asks for what [`Memory`] knows.
pub struct Engine {
    pub(super) requests: Requests,
    pub(super) memory: Arc<Memory>,
    pub(super) marks: Marks,
}

/// What became of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was as wanted.
    Unchanged,
    /// It didn't exist.
    Created,
    /// It existed and was changed in place.
    Changed,
    /// It was deleted and made again.
    Recreated,
    /// The old one is still on its way out. When it is gone the watch says so, and the next pass makes the new one.
    Replacing,
    /// Somebody has changed it back again, and the next repair waits: [`Applied::contested`].
    Damped,
}

/// A child after it was applied.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What became of it.
    pub outcome: Outcome,
    /// As the server answered it, or as it is remembered ([`Kind::remember`]). With [`Outcome::Replacing`] the old one.
    pub live: Live,
    /// Others change fields of it back each time. Apply the child again after [`Contest::look_again`]: to repair it, or to see that the fight is over.
    pub contested: Option<Contest>,
    /// Where a webhook or policy has changed what was sent on its way in. That is taken as it is.
    pub amended: Vec<String>,
}

impl Engine {
    /// `memory` is also fed by the watches: without their events, what others change is never noticed.
    pub fn new(client: Client, memory: Arc<Memory>, marks: Marks, observer: Arc<dyn Observer>) -> Self {
        Self { requests: Requests::new(client, marks.field_manager, observer), memory, marks }
    }

    /// An object by name, anybody's: `None` if there is none. From memory, absence too, unless something has changed since; otherwise one read.
    pub async fn read(&self, kind: &'static Kind, namespace: &str, name: &str) -> Result<Option<Live>, Error> {
        let target = ObjectRef::new(kind, namespace, name);
        let recalled = self.memory.recall(&target);
        self.memory.mark_read(&target);
        match recalled {
            Recall::Absent => Ok(None),
            Recall::Known(Known { live, depth: Depth::Whole | Depth::Read, .. }) => Ok(Some(live)),
            _ => self.look(&target, None).await,
        }
    }

    /// A child of the owner by name; `None` if there is none, or if what has its name is not proved to be the owner's, so that nothing of it may be used.
    /// Labels that somebody took away don't matter as long as there is other proof.
    pub async fn read_child(&self, owner: &Owner, kind: &'static Kind, name: &str) -> Result<Option<Live>, Error> {
        let found = self.read(kind, &owner.namespace, name).await?;
        Ok(found.filter(|live| is_proved(live, owner, &self.marks)))
    }

    /// The same for a child in another namespace than the owner's.
    pub async fn read_in(
        &self,
        owner: &Owner,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Live>, Error> {
        let found = self.read(kind, namespace, name).await?;
        Ok(found.filter(|live| is_proved(live, owner, &self.marks)))
    }

    /// The same, but what no watch has told of is taken for absent without a read. Only for a child that is applied when it is absent:
    /// [`Engine::apply`] finds out if it is there after all, without its labels.
    pub async fn read_known_child(
        &self,
        owner: &Owner,
        kind: &'static Kind,
        name: &str,
    ) -> Result<Option<Live>, Error> {
        let target = ObjectRef::new(kind, &owner.namespace, name);
        if self.memory.is_unknown(&target) {
            self.memory.mark_read(&target);
            return Ok(None);
        }
        self.read_child(owner, kind, name).await
    }

    /// Whether an object is there, as far as is known without a read.
    #[must_use]
    pub fn is_known(&self, object: &ObjectRef) -> bool {
        self.memory.may_exist(object)
    }

    /// Brings one child to what is wanted.
    ///
    /// # Errors
    /// [`Error::NotOurs`] and [`Error::Immutable`] leave the object untouched. [`Error::Conflict`]: what is wanted was decided without knowing the object as
    /// it is; decide anew. After any other error the object is looked at anew.
    pub async fn apply(&self, owner: &Owner, child: &Child) -> Result<Applied, Error> {
        let wanted = Wanted::new(owner, child, &self.marks);
        let target = &wanted.target;
        let live = match self.memory.recall(target) {
            Recall::Known(known) if known.wanted == Some(wanted.hash) && !known.live.is_leaving() => {
                let settled = self.applied(target, Outcome::Unchanged, known.live);
                if !settled.contested.as_ref().is_some_and(Contest::is_due) {
                    return Ok(settled);
                }
                match self.look(target, Some(owner)).await? {
                    Some(live) => live,
                    None => return self.create(owner, child, &wanted).await,
                }
            }
            // Who has written what others have changed is not remembered.
            Recall::Known(Known { live, depth: Depth::Whole, .. }) if !self.memory.is_disputed(target) => live,
            Recall::Known(_) | Recall::Stale => match self.look(&wanted.target, Some(owner)).await? {
                Some(live) => live,
                None => return self.create(owner, child, &wanted).await,
            },
            Recall::Unknown | Recall::Absent => return self.create(owner, child, &wanted).await,
        };
        self.settle(owner, child, &wanted, live).await
    }

    /// Whether a child is known to be as wanted, so that [`Engine::apply`] would ask nothing.
    #[must_use]
    pub fn is_as_wanted(&self, owner: &Owner, child: &Child) -> bool {
        let wanted = Wanted::new(owner, child, &self.marks);
        let known = self.memory.recall(&wanted.target);
        matches!(known, Recall::Known(known) if known.wanted == Some(wanted.hash) && !known.live.is_leaving())
    }

    /// One read. What it says is remembered in full, until it has been compared.
    pub(super) async fn look(&self, target: &ObjectRef, owner: Option<&Owner>) -> Result<Option<Live>, Error> {
        let since = self.memory.begin(target, owner.map(Owner::key));
        let found = self.requests.read(target).await;
        let found = found.map_err(|source| Error::failed(Verb::Read, target.clone(), source))?;
        match &found {
            Some(live) => self.memory.remember(target, since, live, Depth::Whole, None),
            None => self.memory.remember_absence(target, since),
        }
        Ok(found)
    }

    /// There is none, as far as we know. If there is one after all, and not somebody else's, then it was not considered in what is wanted: it may hold
    /// what cannot be made again.
    async fn create(&self, owner: &Owner, child: &Child, wanted: &Wanted) -> Result<Applied, Error> {
        if let Some(live) = self.try_create(owner, wanted).await? {
            return Ok(self.applied(&wanted.target, Outcome::Created, live));
        }
        match self.look(&wanted.target, Some(owner)).await? {
            Some(live)
                if matches!(judge(&live, owner, child.hold, &self.marks), Verdict::Foreign(_) | Verdict::Leaving) =>
            {
                self.settle(owner, child, wanted, live).await
            }
            _ => Err(Error::Conflict { verb: Verb::Create, object: wanted.target.clone() }),
        }
    }

    async fn try_create(&self, owner: &Owner, wanted: &Wanted) -> Result<Option<Live>, Error> {
        let since = self.memory.begin(&wanted.target, Some(owner.key()));
        let created = self.requests.create(&wanted.target, wanted.body.clone()).await;
        let created = created.map_err(|source| self.failed(Verb::Create, &wanted.target, source))?;
        match &created {
            Some(live) => {
                self.memory.remember(&wanted.target, since, live, Depth::Unread, Some(wanted.hash));
                self.answered(wanted, &wanted.body, live);
            }
            None => self.memory.doubt(&wanted.target),
        }
        Ok(created)
    }

    /// There is one: judge it, compare it, and write what differs.
    async fn settle(&self, owner: &Owner, child: &Child, wanted: &Wanted, live: Live) -> Result<Applied, Error> {
        let target = &wanted.target;
        match judge(&live, owner, child.hold, &self.marks) {
            Verdict::Ours | Verdict::Adoptable => {}
            Verdict::Leaving => {
                self.memory.doubt(target);
                return Ok(self.applied(target, Outcome::Replacing, live));
            }
            Verdict::Foreign(claim) => {
                // Watches that select by label don't show what becomes of it: whether it was handed over meanwhile, the next pass asks.
                self.memory.doubt(target);
                return Err(Error::NotOurs { object: target.clone(), claim });
            }
        }
        let manager = self.marks.field_manager;
        let body = concede(child.kind, live.value(), &wanted.body, manager);
        let found = self.differences(wanted, &live, &body);
        let change = remedy(child.kind, live.value(), &found);
        if change == Change::Nothing {
            self.memory.reduce(target, &live, Depth::Unread, Some(wanted.hash));
            self.memory.past(target, |past| past.disputes.compared(&[], |_| Rival::Somebody));
            return Ok(self.applied(target, Outcome::Unchanged, live));
        }

        let (is_repair, now) = (self.memory.settled(target) == Some(wanted.hash), Instant::now());
        let rival = |path: &str| self.rival(&live, path);
        if is_repair && self.memory.past(target, |past| past.disputes.are_waiting(&found.places, now)) {
            self.memory.reduce(target, &live, Depth::Unread, Some(wanted.hash));
            self.memory.past(target, |past| past.disputes.compared(&found.places, rival));
            return Ok(self.applied(target, Outcome::Unchanged, live));
        }
        if wanted.version.as_deref().is_some_and(|version| version != live.resource_version()) {
            return Err(Error::Conflict { verb: Verb::Update, object: target.clone() });
        }
        let done = self.put_right(owner, child, wanted, body.into_owned(), &live, change).await?;
        self.memory.past(target, |past| {
            if is_repair {
                past.disputes.repaired(&found.places, rival, now);
            } else {
                past.disputes.rewritten(|path| Hash::of(diff::at(&wanted.body, path).unwrap_or(&Value::Null)));
            }
        });
        Ok(self.applied(target, done.outcome, done.live))
    }

    /// Where an object isn't as wanted, but for what the server itself has made of it.
    pub(super) fn differences(&self, wanted: &Wanted, live: &Live, body: &Value) -> Difference {
        let (kind, manager) = (wanted.target.kind, self.marks.field_manager);
        let mut found = compare(kind, live.value(), body, manager);
        let owned = Owned::of(kind, live.value(), manager).unwrap_or_default();
        let is_vouched = |path: &str| {
            let stamp = wanted.stamp.as_deref();
            stamp.is_some_and(|stamp| is_vouched(kind, live.annotation(self.marks.applied), stamp, &owned, path))
        };
        self.memory.past(&wanted.target, |past| past.accept(&mut found, is_vouched));
        found
    }

    /// Who has made an object, as it was before we wrote it, other than wanted.
    fn rival(&self, live: &Live, path: &str) -> Rival {
        let manager = self.marks.field_manager;
        match writer(live.value(), manager, path) {
            Some(name) => Rival::Manager(name.to_owned()),
            None if Owned::of(live.kind(), live.value(), manager).is_some_and(|owned| owned.contains(path)) => {
                Rival::Admission
            }
            None => Rival::Somebody,
        }
    }

    /// What became of a child, with what is remembered of it.
    fn applied(&self, target: &ObjectRef, outcome: Outcome, live: Live) -> Applied {
        let (contested, amended) = self.memory.troubles(target, Instant::now());
        let is_lost = contested.as_ref().is_some_and(|contest| contest.is_lost);
        let outcome = if is_lost && outcome == Outcome::Unchanged { Outcome::Damped } else { outcome };
        Applied { outcome, live, contested, amended }
    }

    async fn put_right(
        &self,
        owner: &Owner,
        child: &Child,
        wanted: &Wanted,
        body: Value,
        live: &Live,
        change: Change,
    ) -> Result<Applied, Error> {
        let target = &wanted.target;
        match change {
            Change::Nothing => Ok(self.applied(target, Outcome::Unchanged, live.clone())),
            Change::Never(path) => Err(Error::Immutable { object: target.clone(), path }),
            Change::Sealed(path) => {
                Err(Error::Sealed { object: target.clone(), path, is_kept: child.hold != Hold::Disposable })
            }
            Change::Recreate(path) => {
                // What people reach it by goes only when the next one would be taken.
                if target.kind.stage == Stage::Exposure {
                    self.rehearse_another(wanted).await?;
                }
                tracing::info!(object = %target, path, "replacing, because this field cannot change in place");
                self.recreate(owner, wanted, live).await
            }
            Change::Replace(path) => {
                tracing::info!(object = %target, path, "replacing the spec, because merging would leave a renamed copy");
                self.replace_spec(wanted, body, live).await
            }
            Change::InPlace(paths) => {
                tracing::debug!(object = %target, ?paths, "writing what differs");
                match self.update(wanted, body.clone(), live).await {
                    Err(Error::Refused { code: 422, .. }) if target.kind.is_replaceable => {
                        tracing::info!(object = %target, ?paths, "replacing the spec, because what others added contradicts it");
                        self.replace_spec(wanted, body, live).await
                    }
                    done => done,
                }
            }
        }
    }

    /// Takes everything out of the spec that isn't wanted. An ordinary update follows, so that every field is ours by apply and by nothing else.
    async fn replace_spec(&self, wanted: &Wanted, body: Value, live: &Live) -> Result<Applied, Error> {
        let target = &wanted.target;
        let replaced = self.requests.replace(target, live, "/spec", body.get("spec")).await;
        let replaced = replaced.map_err(|source| self.failed(Verb::Update, target, source))?;
        let done = self.update(wanted, body, &replaced).await?;
        Ok(Applied { outcome: Outcome::Changed, ..done })
    }

    /// What we hold otherwise than by apply would stay in the object when an apply drops it. What was posted becomes as if it had been applied;
    /// anything else is given up, for the apply that follows to take it again.
    async fn hold_by_apply(&self, target: &ObjectRef, live: &Live) -> Result<Option<Live>, Error> {
        let Some(entry) = written_entry(live.value(), self.marks.field_manager) else { return Ok(None) };
        let entry = format!("/metadata/managedFields/{entry}");
        let held = if target.kind.is_verbatim {
            self.requests.replace(target, live, &format!("{entry}/operation"), Some(&"Apply".into())).await
        } else {
            self.requests.replace(target, live, &entry, None).await
        };
        held.map(Some).map_err(|source| self.failed(Verb::Update, target, source))
    }

    async fn update(&self, wanted: &Wanted, body: Value, live: &Live) -> Result<Applied, Error> {
        let target = &wanted.target;
        let held = self.hold_by_apply(target, live).await?;
        let since = self.memory.begin(target, None);
        let version = wanted.version.as_ref().map(|_| held.as_ref().unwrap_or(live).resource_version());
        let sent = self.memory.past(target, |past| keep_fixed(target.kind, live.value(), body.clone(), &past.amended));
        let answer = self.requests.update(target, sent, live.uid(), version).await;
        let now = answer.map_err(|source| self.failed(Verb::Update, target, source))?;
        self.memory.remember(target, since, &now, Depth::Unread, Some(wanted.hash));
        self.answered(wanted, &body, &now);

        let is_same = held.is_none() && now.resource_version() == live.resource_version();
        Ok(self.applied(target, if is_same { Outcome::Unchanged } else { Outcome::Changed }, now))
    }

    /// The answer may differ from what was sent, if a webhook or the server itself changes it. That is the server's word, and not worth a fight.
    fn answered(&self, wanted: &Wanted, body: &Value, answer: &Live) {
        let owned = Owned::of(answer.kind(), answer.value(), self.marks.field_manager);
        let found = diff::diff(answer.value(), body, owned.as_ref());
        self.memory.past(&wanted.target, |past| {
            if found.places != past.amended && !found.places.is_empty() {
                let paths = found.paths();
                tracing::info!(object = %wanted.target, ?paths, "a webhook or policy has changed what was sent; it is taken as it is");
            }
            past.amended = found.places;
        });
    }

    async fn recreate(&self, owner: &Owner, wanted: &Wanted, live: &Live) -> Result<Applied, Error> {
        let target = &wanted.target;
        if let Deleted::Leaving(live) = self.delete(owner, target, live).await? {
            return Ok(self.applied(target, Outcome::Replacing, live));
        }
        match self.try_create(owner, wanted).await? {
            Some(live) => Ok(self.applied(target, Outcome::Recreated, live)),
            None => Err(Error::Conflict { verb: Verb::Create, object: target.clone() }),
        }
    }

    /// Deletes exactly this object, which was proved ours, unless its owner is another one by now.
    pub(super) async fn delete(&self, owner: &Owner, target: &ObjectRef, live: &Live) -> Result<Deleted, Error> {
        self.confirm(owner, target).await?;
        let since = self.memory.begin(target, None);
        let deleted = self.requests.delete(target, live).await;
        let deleted = deleted.map_err(|source| self.failed(Verb::Delete, target, source))?;
        match &deleted {
            Deleted::Gone => self.memory.remember_absence(target, since),
            // What was handed over to us carries no label yet, so the watch may not show its end.
            Deleted::Leaving(_) => self.memory.doubt(target),
        }
        Ok(deleted)
    }

    /// Asks whether the owner is still as it was seen, before something is done with `target` that is not easily undone. What a watch shows after a start
    /// may be old; a read by name never is. Deletions ask by themselves.
    ///
    /// # Errors
    /// [`Error::Outdated`]: it is not.
    pub async fn confirm(&self, owner: &Owner, target: &ObjectRef) -> Result<(), Error> {
        let Some(generation) = owner.generation else { return Ok(()) };
        let now = self.requests.generation(owner, self.marks.owner_plural).await;
        let now = now.map_err(|source| Error::Read { object: target.clone(), source })?;
        if now == Some((owner.uid.clone(), generation)) {
            Ok(())
        } else {
            Err(Error::Outdated { object: target.clone() })
        }
    }

    /// A write that failed may have happened all the same, so the object is looked at before the next one.
    fn failed(&self, verb: Verb, target: &ObjectRef, source: Failure) -> Error {
        self.memory.doubt(target);
        Error::failed(verb, target.clone(), source)
    }
}

#[cfg(test)]
mod fights_tests;
#[cfg(test)]
mod tests;
