//! Who keeps a child alive: how it stands to its owner before anything is derived from it, and letting it go so that it outlives its owner.

use super::engine::Engine;
use super::error::Error;
use super::kinds::Kind;
use super::live::{Depth, Live};
use super::memory::{Known, Recall};
use super::ownership::{Claim, Verdict, is_controlled, judge};
use super::request::Verb;
use super::wanted::Hold;
use super::{ObjectRef, Owner};

/// How an object that has the name of a child stands to the owner.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// There is none.
    Absent,
    /// It is the owner's.
    Ours(Live),
    /// Somebody else's, who allows us to take it by the annotation of [`super::Marks::adopt`].
    Offered(Live),
    /// It has been deleted, and something still holds it: whose it is matters no more.
    Leaving(Live),
    /// Somebody else's.
    Foreign(Claim),
}

impl Engine {
    /// How what has the name of a child stands to the owner. Costs what [`Engine::read`] costs.
    ///
    /// # Errors
    /// It could not be read.
    pub async fn standing(
        &self,
        owner: &Owner,
        kind: &'static Kind,
        name: &str,
        hold: Hold,
    ) -> Result<Standing, Error> {
        let Some(live) = self.read(kind, &owner.namespace, name).await? else { return Ok(Standing::Absent) };
        Ok(match judge(&live, owner, hold, &self.marks) {
            Verdict::Ours => Standing::Ours(live),
            Verdict::Adoptable if live.is_leaving() => Standing::Leaving(live),
            Verdict::Adoptable => Standing::Offered(live),
            Verdict::Leaving => Standing::Leaving(live),
            Verdict::Foreign(claim) => Standing::Foreign(claim),
        })
    }

    /// The same, but what no watch has told of is taken for absent without a read. Only for a child that is applied when it is absent:
    /// [`Engine::apply`] finds out if it is there after all, and the next pass knows it.
    ///
    /// # Errors
    /// It could not be read.
    pub async fn known_standing(
        &self,
        owner: &Owner,
        kind: &'static Kind,
        name: &str,
        hold: Hold,
    ) -> Result<Standing, Error> {
        let target = ObjectRef::new(kind, &owner.namespace, name);
        if self.memory.is_unknown(&target) {
            self.memory.mark_read(&target);
            return Ok(Standing::Absent);
        }
        self.standing(owner, kind, name, hold).await
    }

    /// Takes our owner reference off a child, so that it outlives the owner. Nothing else of it changes, and nothing needs to be known of what it is
    /// to contain. Returns whether there was one to take off. No request if no watch has told of the child, or if it is free already.
    ///
    /// # Errors
    /// [`Error::Conflict`]: it changed meanwhile; try again.
    pub async fn release(&self, owner: &Owner, kind: &'static Kind, name: &str) -> Result<bool, Error> {
        let target = ObjectRef::new(kind, &owner.namespace, name);
        let live = match self.memory.recall(&target) {
            Recall::Unknown | Recall::Absent => return Ok(false),
            Recall::Known(Known { live, .. }) => live,
            Recall::Stale => match self.look(&target, Some(owner)).await? {
                Some(live) => live,
                None => return Ok(false),
            },
        };
        let references = live.at("metadata.ownerReferences").and_then(|references| references.as_array());
        let ours = references.into_iter().flatten().position(|reference| reference["uid"] == owner.uid.as_str());
        let Some(index) = ours.filter(|_| is_controlled(&live, owner)) else { return Ok(false) };

        let since = self.memory.begin(&target, None);
        let freed = self.requests.replace(&target, &live, &format!("/metadata/ownerReferences/{index}"), None).await;
        match freed {
            Ok(freed) => {
                self.memory.remember(&target, since, &freed, Depth::Whole, None);
                Ok(true)
            }
            Err(source) => {
                self.memory.doubt(&target);
                Err(Error::failed(Verb::Update, target, source))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds::SECRET;
    use super::super::testing::{Cluster, owner, secret};
    use super::*;

    const NAME: &str = "team-a-ca";

    async fn held() -> Cluster {
        let cluster = Cluster::new();
        cluster.engine.apply(&owner(), &secret(Hold::KeptUntilOwnerGoes)).await.unwrap();
        cluster.requests();
        cluster
    }

    #[tokio::test]
    async fn a_released_child_keeps_everything_but_its_owner() {
        let mut cluster = held().await;
        let before = cluster.get(SECRET, NAME).unwrap();
        for restarted in [false, true] {
            if restarted {
                cluster.restart_operator();
            }
            let was_held = cluster.get(SECRET, NAME).unwrap()["metadata"]["ownerReferences"] != json!([]);
            assert_eq!(cluster.engine.release(&owner(), SECRET, NAME).await.unwrap(), was_held);
        }
        let after = cluster.get(SECRET, NAME).unwrap();
        assert_eq!(after["metadata"]["ownerReferences"], json!([]));
        assert_eq!((&after["data"], &after["metadata"]["labels"]), (&before["data"], &before["metadata"]["labels"]));
    }

    #[tokio::test]
    async fn what_is_free_already_costs_no_request() {
        let cluster = held().await;
        cluster.engine.release(&owner(), SECRET, NAME).await.unwrap();
        cluster.requests();
        assert!(!cluster.engine.release(&owner(), SECRET, NAME).await.unwrap());
        assert!(!cluster.engine.release(&owner(), SECRET, "team-a-admin").await.unwrap());
        assert_eq!(cluster.requests(), [""; 0]);
    }

    #[tokio::test]
    async fn the_reference_of_somebody_else_stays() {
        let cluster = Cluster::new();
        let theirs = json!([{"apiVersion": "v1", "kind": "Thing", "name": "b", "uid": "uid-b", "controller": true}]);
        cluster.put(
            SECRET,
            NAME,
            json!({"metadata": {"ownerReferences": theirs, "labels": {"test.dev/owner": "team-a"}}}),
        );
        assert!(!cluster.engine.release(&owner(), SECRET, NAME).await.unwrap());
        assert_eq!(cluster.get(SECRET, NAME).unwrap()["metadata"]["ownerReferences"], theirs);
    }

    #[tokio::test]
    async fn what_is_being_deleted_is_told_whoever_made_it() {
        let cluster = Cluster::new();
        let offered = json!({"test.dev/adopt": "true"});
        cluster.put(SECRET, NAME, json!({"metadata": {"annotations": offered}}));
        let standing = async || cluster.engine.standing(&owner(), SECRET, NAME, Hold::Kept).await.unwrap();
        assert!(matches!(standing().await, Standing::Offered(_)));
        cluster.edit(SECRET, NAME, |secret| secret["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"));
        assert!(matches!(standing().await, Standing::Leaving(_)));
    }
}
