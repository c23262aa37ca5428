//! Deletes what is no longer wanted: only what the owner controls, only kinds that the table allows, and only the very object that was looked at.

use std::collections::BTreeSet;

use super::engine::Engine;
use super::error::Error;
use super::kinds::Kind;
use super::live::{Depth, Live};
use super::memory::{Known, Recall};
use super::ownership::{Verdict, is_controlled, is_marked, judge};
use super::request::Deleted;
use super::wanted::Hold;
use super::{ObjectRef, Owner};

/// What became of an object that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// There is none.
    Absent,
    /// It was deleted and is gone.
    Removed,
    /// It was deleted and something still holds it; the watch tells when it is gone.
    Leaving,
    /// It isn't ours, or its kind is never deleted.
    Kept,
}

impl Engine {
    /// Deletes one child, disposable or kept, if it is ours. No request if no watch has told of it.
    pub async fn remove(&self, owner: &Owner, kind: &'static Kind, name: &str) -> Result<Removal, Error> {
        let target = ObjectRef::new(kind, &owner.namespace, name);
        if !kind.is_deletable() {
            return Ok(Removal::Kept);
        }
        let Some(live) = self.find(&target, owner).await? else { return Ok(Removal::Absent) };
        match judge(&live, owner, Hold::Kept, &self.marks) {
            Verdict::Ours => self.take_away(owner, &target, &live).await,
            Verdict::Leaving => Ok(Removal::Leaving),
            Verdict::Adoptable | Verdict::Foreign(_) => {
                self.memory.reduce(&target, &live, Depth::Metadata, None);
                Ok(Removal::Kept)
            }
        }
    }

    /// Deletes the children that the owner controls and `wanted` doesn't name; the last applied go first. Returns what was deleted.
    ///
    /// Children are known from the watches and from our own writes, so nothing is read while there is nothing to prune. Kept children have no owner
    /// reference and stay; so does everything in `wanted`, whether it was applied in this pass or not. Those in other namespaces are left to
    /// [`Engine::remove_elsewhere`].
    pub async fn prune(
        &self,
        owner: &Owner,
        wanted: &BTreeSet<(&'static Kind, String)>,
    ) -> Result<Vec<ObjectRef>, Error> {
        let mut removed = Vec::new();
        let children = self.memory.children(&owner.namespace, &owner.name);
        for child in children.into_iter().rev() {
            let is_elsewhere = *child.namespace != *owner.namespace;
            if is_elsewhere || !child.kind.may_be_pruned() || wanted.contains(&(child.kind, child.name.to_string())) {
                continue;
            }
            let Some(live) = self.find(&child, owner).await? else { continue };
            if live.is_leaving() {
                continue;
            }
            if is_controlled(&live, owner) {
                self.take_away(owner, &child, &live).await?;
                removed.push(child);
            } else {
                self.memory.reduce(&child, &live, Depth::Unread, None);
            }
        }
        Ok(removed)
    }

    /// The children that are in other namespaces than the owner.
    #[must_use]
    pub fn elsewhere(&self, owner: &Owner) -> Vec<ObjectRef> {
        let mut children = self.memory.children(&owner.namespace, &owner.name);
        children.retain(|child| *child.namespace != *owner.namespace);
        children
    }

    /// Deletes one child in another namespace, if its labels say that it is the owner's. Whoever put them there meant it.
    ///
    /// # Errors
    /// It could not be read or deleted.
    pub async fn remove_elsewhere(&self, owner: &Owner, child: &ObjectRef) -> Result<Removal, Error> {
        if !child.kind.may_be_pruned() {
            return Ok(Removal::Kept);
        }
        let Some(live) = self.find(child, owner).await? else { return Ok(Removal::Absent) };
        if live.is_leaving() {
            return Ok(Removal::Leaving);
        }
        if live.controller().is_none() && is_marked(&live, owner, &self.marks) {
            return self.take_away(owner, child, &live).await;
        }
        self.memory.forget_child(child);
        Ok(Removal::Kept)
    }

    async fn find(&self, target: &ObjectRef, owner: &Owner) -> Result<Option<Live>, Error> {
        match self.memory.recall(target) {
            Recall::Unknown | Recall::Absent => Ok(None),
            Recall::Known(Known { live, .. }) => Ok(Some(live)),
            Recall::Stale => self.look(target, Some(owner)).await,
        }
    }

    async fn take_away(&self, owner: &Owner, target: &ObjectRef, live: &Live) -> Result<Removal, Error> {
        let deleted = self.delete(owner, target, live).await?;
        tracing::info!(object = %target, "deleted, because it is no longer wanted");
        Ok(match deleted {
            Deleted::Gone => Removal::Removed,
            Deleted::Leaving(_) => Removal::Leaving,
        })
    }
}

#[cfg(test)]
mod tests;
