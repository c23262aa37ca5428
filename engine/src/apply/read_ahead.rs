//! Reads the children of many owners with one list a kind, where one read for each child would be needed otherwise.

use std::collections::{BTreeMap, BTreeSet};

use super::ObjectRef;
use super::engine::Engine;
use super::live::Live;
use super::request::Failure;

impl Engine {
    /// What is stale of these owners' children, (namespace, name), is remembered in full until it has been compared. All owners are in `namespace`;
    /// `None`: anywhere. Nothing relies on it: a child that isn't listed, or not as the watch last showed it, is read when its turn comes. So are
    /// those of a kind whose list is too large to be taken in: whoever puts our label on objects of his own makes it as large as he likes.
    ///
    /// # Errors
    /// The first list that failed; the other kinds aren't listed then.
    pub async fn read_ahead(&self, namespace: Option<&str>, owners: &BTreeSet<(&str, &str)>) -> Result<(), Failure> {
        let mut names: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
        for (namespace, owner) in owners {
            for kind in self.memory.stale_kinds(namespace, owner) {
                names.entry(kind).or_default().insert(owner);
            }
        }
        // One after the other: a list is the largest thing that this program ever holds in memory.
        for (kind, names) in names {
            let names: Vec<_> = names.into_iter().collect();
            let selector = format!("{} in ({})", self.marks.owner_label, names.join(","));
            let remember = |live: Live| {
                let owner = live.label(self.marks.owner_label).unwrap_or_default();
                if owners.contains(&(live.namespace(), owner)) {
                    self.memory.remember_listed(&ObjectRef::new(kind, live.namespace(), live.name()), &live);
                }
            };
            match self.requests.list(kind, namespace, &selector, remember).await {
                Err(failure) if failure.is_too_large() => {
                    tracing::info!(kind = kind.kind, "too large to be listed; children are read one by one");
                }
                done => done?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds::{CONFIG_MAP, SECRET};
    use super::super::testing::{Cluster, config, owner, secret, service};
    use super::super::wanted::Hold;
    use super::super::{Child, Outcome};
    use super::*;

    fn owners() -> BTreeSet<(&'static str, &'static str)> {
        BTreeSet::from([("registries", "team-a"), ("registries", "team-b")])
    }

    fn children() -> [Child; 3] {
        [service(), secret(Hold::Disposable), config("a certificate")]
    }

    async fn restarted() -> Cluster {
        let mut cluster = Cluster::new();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        cluster.restart_operator();
        cluster.requests();
        cluster
    }

    #[tokio::test]
    async fn one_list_a_kind_replaces_the_reads_of_all_children() {
        let cluster = restarted().await;
        cluster.engine.read_ahead(None, &owners()).await.unwrap();
        let lists = ["list Service/services 200", "list ConfigMap/configmaps 200", "list Secret/secrets 200"];
        assert_eq!(cluster.requests(), lists);
        for done in cluster.engine.apply_all(&owner(), &children()).await.unwrap() {
            assert_eq!(done.outcome, Outcome::Unchanged);
        }
        assert!(cluster.requests().is_empty());
    }

    #[tokio::test]
    async fn what_is_known_is_not_listed() {
        let cluster = restarted().await;
        cluster.engine.read_ahead(Some("registries"), &owners()).await.unwrap();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        cluster.requests();
        cluster.engine.read_ahead(Some("registries"), &owners()).await.unwrap();
        assert!(cluster.requests().is_empty());
    }

    #[tokio::test]
    async fn a_list_that_is_older_than_what_the_watch_told_does_not_count() {
        let cluster = restarted().await;
        let mut newer = cluster.get(CONFIG_MAP, "team-a-ca").unwrap();
        newer["metadata"]["resourceVersion"] = json!("999999");
        cluster.memory.seen(CONFIG_MAP, &serde_json::from_value(newer["metadata"].clone()).unwrap());
        cluster.engine.read_ahead(None, &owners()).await.unwrap();
        cluster.requests();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert_eq!(cluster.requests(), ["read ConfigMap/team-a-ca 200"]);
    }

    #[tokio::test]
    async fn what_differs_is_written() {
        let mut cluster = restarted().await;
        cluster.edit(SECRET, "team-a-ca", |secret| secret["data"]["tls.key"] = json!("Y2hhbmdlZA=="));
        cluster.restart_operator();
        cluster.engine.read_ahead(None, &owners()).await.unwrap();
        cluster.requests();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert_eq!(cluster.requests(), ["replace Secret/team-a-ca 200", "update Secret/team-a-ca 200"]);
    }

    #[tokio::test]
    async fn a_failed_list_leaves_everything_to_be_read() {
        let cluster = restarted().await;
        cluster.fail_next(403);
        assert!(cluster.engine.read_ahead(None, &owners()).await.is_err());
        cluster.requests();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert_eq!(cluster.requests().len(), 3);
    }

    #[tokio::test]
    async fn a_list_that_somebody_else_made_huge_costs_reads_by_name_of_its_kind_alone() {
        let mut cluster = restarted().await;
        cluster.guard();
        let labels = json!({"test.dev/owner": "team-a"});
        let content = "x".repeat(1 << 20);
        for n in 0..9 {
            let theirs = json!({"metadata": {"labels": labels}, "data": {"content": content}});
            cluster.put(SECRET, &format!("theirs-{n}"), theirs);
        }
        cluster.engine.read_ahead(None, &owners()).await.unwrap();
        let lists = ["list Service/services 200", "list ConfigMap/configmaps 200", "list Secret/secrets 200"];
        assert_eq!(cluster.requests(), lists);
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert_eq!(cluster.requests(), ["read Secret/team-a-ca 200"]);
    }

    #[tokio::test]
    async fn children_of_others_are_not_remembered() {
        let cluster = restarted().await;
        cluster
            .engine
            .read_ahead(None, &BTreeSet::from([("elsewhere", "team-a"), ("registries", "team-b")]))
            .await
            .unwrap();
        cluster.requests();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert_eq!(cluster.requests().len(), 3);
    }
}
