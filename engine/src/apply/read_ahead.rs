//! Reads the children of many owners, in the order in which the API server lists them: one list a kind, page by page, instead of one read for each
//! child. It does not matter whether the owners share a namespace or a name.

use std::collections::BTreeMap;

use tracing::{debug, info};

use super::ObjectRef;
use super::engine::Engine;
use super::kinds::Kind;
use super::request::{Failure, Listed, Page};

/// A page that is too large to be taken in is asked for again with a quarter of its objects.
const SMALLER: usize = 4;

/// Where the lists of a round stand. Nothing relies on what it reads: a child that isn't listed, or not as the watch last showed it, is read when its
/// turn comes.
pub struct ReadAhead<'a> {
    engine: &'a Engine,
    /// `None`: all namespaces.
    namespace: Option<&'a str>,
    lists: BTreeMap<&'static Kind, Cursor>,
}

/// How far a list has come.
#[derive(Default)]
struct Cursor {
    /// The place of the last object that was listed.
    at: Option<String>,
    /// What the API server asks for to go on.
    next: Option<String>,
    /// Nothing more is to be had from it.
    is_over: bool,
}

impl Engine {
    /// Begins to read what is stale in a namespace; `None`: in all.
    pub fn read_ahead<'a>(&'a self, namespace: Option<&'a str>) -> ReadAhead<'a> {
        ReadAhead { engine: self, namespace, lists: BTreeMap::new() }
    }
}

impl ReadAhead<'_> {
    /// The last place at which a stale child of this owner is listed. Owners that are given to [`ReadAhead::reach`] in this order need few objects in
    /// memory at once.
    pub fn place(&self, namespace: &str, owner: &str) -> Option<String> {
        self.engine.memory.stale_children(namespace, owner).iter().map(place).max()
    }

    /// What is stale of the children of these owners, (namespace, name), is remembered in full until it has been compared.
    ///
    /// # Errors
    /// The first list that failed; the other kinds aren't listed then. The next call goes on where this one stopped.
    pub async fn reach<'b>(&mut self, owners: impl IntoIterator<Item = (&'b str, &'b str)>) -> Result<(), Failure> {
        let mut places: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (namespace, owner) in owners {
            for child in self.engine.memory.stale_children(namespace, owner) {
                places.entry(child.kind).or_default().push(place(&child));
            }
        }
        // One after the other: a list is the largest thing that this program ever holds in memory.
        for (kind, mut places) in places {
            places.sort();
            let cursor = self.lists.entry(kind).or_default();
            cursor.reach(&places, kind, self.namespace, self.engine).await?;
        }
        Ok(())
    }
}

impl Cursor {
    /// Lists on until the last of these places, which are in order.
    async fn reach(
        &mut self,
        places: &[String],
        kind: &'static Kind,
        namespace: Option<&str>,
        engine: &Engine,
    ) -> Result<(), Failure> {
        // The label alone: whoever puts it on objects of his own makes the list longer, and nothing of it stays.
        let selector = engine.marks.owner_label;
        let mut share = 1;
        loop {
            let ahead = places.iter().filter(|place| self.at.as_ref().is_none_or(|at| *place > at)).count();
            if ahead == 0 || self.is_over {
                return Ok(());
            }
            let limit = ahead.div_ceil(share);
            let mut at = None;
            let remember = |Listed { metadata, text }: Listed<'_>| {
                let object = ObjectRef::new(kind, &metadata.namespace, &metadata.name);
                at = Some(place(&object));
                engine.memory.remember_listed(&object, &metadata.uid, &metadata.resource_version, text);
            };
            let page = Page { limit, after: self.next.as_deref() };
            match engine.requests.list(kind, namespace, selector, page, remember).await {
                Ok(next) => {
                    self.is_over = next.is_none();
                    (self.at, self.next, share) = (at.or(self.at.take()), next, 1);
                }
                Err(failure) if failure.is_too_large() && limit > 1 => {
                    debug!(kind = kind.kind, limit, "a page is too large to be taken in; a smaller one is asked for");
                    share *= SMALLER;
                }
                Err(failure) if failure.is_too_large() => {
                    info!(kind = kind.kind, "too large to be listed; children are read one by one");
                    self.is_over = true;
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// Objects are listed in the order of their keys in the store, which is this one.
fn place(object: &ObjectRef) -> String {
    format!("{}/{}", object.namespace, object.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds::{CONFIG_MAP, SECRET};
    use super::super::testing::{Cluster, config, owner, secret, service};
    use super::super::wanted::Hold;
    use super::super::{Child, Outcome};

    const OWNER: (&str, &str) = ("registries", "team-a");

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
        cluster.engine.read_ahead(None).reach([OWNER]).await.unwrap();
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
        cluster.engine.read_ahead(Some("registries")).reach([OWNER]).await.unwrap();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        cluster.requests();
        cluster.engine.read_ahead(Some("registries")).reach([OWNER]).await.unwrap();
        assert!(cluster.requests().is_empty());
    }

    /// ConfigMaps of nine owners, `owner-0` to `owner-8`, two each.
    fn many() -> Cluster {
        let mut cluster = Cluster::new();
        for (n, part) in (0..9).flat_map(|n| [(n, "a"), (n, "b")]) {
            let labels = json!({"test.dev/owner": format!("owner-{n}")});
            cluster.put(CONFIG_MAP, &format!("owner-{n}-{part}"), json!({"metadata": {"labels": labels}}));
        }
        cluster.restart_operator();
        cluster
    }

    #[tokio::test]
    async fn a_list_goes_on_where_the_last_owners_ended() {
        let cluster = many();
        let mut ahead = cluster.engine.read_ahead(None);
        let mut names: Vec<_> = (0..9).rev().map(|n| format!("owner-{n}")).collect();
        names.sort_by_cached_key(|name| ahead.place("registries", name));
        let listed = || {
            let state = cluster.listed();
            assert_eq!(cluster.requests(), ["list ConfigMap/configmaps 200"]);
            state
        };
        for owners in names.chunks(3) {
            ahead.reach(owners.iter().map(|name| ("registries", name.as_str()))).await.unwrap();
            assert_eq!(listed(), 6);
        }
        assert!(names.iter().all(|name| cluster.memory.stale_children("registries", name).is_empty()));
    }

    #[tokio::test]
    async fn what_is_listed_in_between_makes_one_more_page() {
        let cluster = many();
        let mut ahead = cluster.engine.read_ahead(None);
        ahead.reach([("registries", "owner-0"), ("registries", "owner-8")]).await.unwrap();
        assert!(cluster.memory.stale_children("registries", "owner-8").is_empty());
        assert_eq!(cluster.listed(), 18);
    }

    #[tokio::test]
    async fn a_list_whose_beginning_is_no_longer_kept_goes_on_with_the_present() {
        let cluster = many();
        let mut ahead = cluster.engine.read_ahead(None);
        ahead.reach([("registries", "owner-0")]).await.unwrap();
        cluster.compact();
        cluster.requests();
        ahead.reach([("registries", "owner-1")]).await.unwrap();
        assert_eq!(cluster.requests(), ["list ConfigMap/configmaps 410", "list ConfigMap/configmaps 200"]);
        assert!(cluster.memory.stale_children("registries", "owner-1").is_empty());
    }

    #[tokio::test]
    async fn a_list_that_is_older_than_what_the_watch_told_does_not_count() {
        let cluster = restarted().await;
        let mut newer = cluster.get(CONFIG_MAP, "team-a-ca").unwrap();
        newer["metadata"]["resourceVersion"] = json!("999999");
        cluster.memory.seen(CONFIG_MAP, &serde_json::from_value(newer["metadata"].clone()).unwrap());
        cluster.engine.read_ahead(None).reach([OWNER]).await.unwrap();
        cluster.requests();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert_eq!(cluster.requests(), ["read ConfigMap/team-a-ca 200"]);
    }

    #[tokio::test]
    async fn what_differs_is_written() {
        let mut cluster = restarted().await;
        cluster.edit(SECRET, "team-a-ca", |secret| secret["data"]["tls.key"] = json!("Y2hhbmdlZA=="));
        cluster.restart_operator();
        cluster.engine.read_ahead(None).reach([OWNER]).await.unwrap();
        cluster.requests();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert_eq!(cluster.requests(), ["replace Secret/team-a-ca 200", "update Secret/team-a-ca 200"]);
    }

    #[tokio::test]
    async fn a_failed_list_leaves_everything_to_be_read() {
        let cluster = restarted().await;
        cluster.fail_next(403);
        assert!(cluster.engine.read_ahead(None).reach([OWNER]).await.is_err());
        cluster.requests();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert_eq!(cluster.requests().len(), 3);
    }

    #[tokio::test]
    async fn a_list_that_somebody_else_made_huge_is_read_in_smaller_pages() {
        let mut cluster = restarted().await;
        cluster.guard();
        let labels = json!({"test.dev/owner": "team-a"});
        let content = "x".repeat(1 << 20);
        for n in 0..9 {
            let theirs = json!({"metadata": {"labels": labels}, "data": {"content": content}});
            cluster.put(SECRET, &format!("a-{n}"), theirs.clone());
            cluster.tell(SECRET, &format!("a-{n}"));
        }
        cluster.engine.read_ahead(None).reach([OWNER]).await.unwrap();
        let lists = cluster.requests();
        assert!(lists.iter().filter(|list| list.starts_with("list Secret")).count() > 2, "{lists:?}");
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert!(cluster.requests().is_empty());
    }

    #[tokio::test]
    async fn an_object_that_is_too_large_by_itself_costs_reads_by_name_of_its_kind_alone() {
        let mut cluster = restarted().await;
        cluster.guard();
        let theirs =
            json!({"metadata": {"labels": {"test.dev/owner": "team-a"}}, "data": {"content": "x".repeat(9 << 20)}});
        cluster.put(SECRET, "a", theirs);
        cluster.engine.read_ahead(None).reach([OWNER]).await.unwrap();
        cluster.requests();
        cluster.engine.apply_all(&owner(), &children()).await.unwrap();
        assert_eq!(cluster.requests(), ["read Secret/team-a-ca 200"]);
    }
}
