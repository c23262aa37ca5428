use serde_json::json;

use super::super::kinds::{CONFIG_MAP, DEPLOYMENT, JOB, PERSISTENT_VOLUME_CLAIM, SECRET, SERVICE};
use super::super::testing::{Cluster, child, config, deployment, job, owner, reference, secret, service, set};
use super::super::{Child, Class, Hold, Outcome};
use super::*;

fn named(children: &[(&'static Kind, &str)]) -> BTreeSet<(&'static Kind, String)> {
    children.iter().map(|(kind, name)| (*kind, (*name).to_owned())).collect()
}

#[tokio::test]
async fn only_what_the_owner_controls_is_pruned() {
    let mut cluster = Cluster::new();
    let children = [service(), config("x"), secret(Hold::Kept), deployment("r:1")];
    cluster.engine.apply_all(&owner(), &children).await.unwrap();
    let labels = json!({"test.dev/owner": "team-a", "app.kubernetes.io/managed-by": "test-operator"});
    cluster.put(CONFIG_MAP, "forged", json!({"metadata": {"labels": labels}}));
    cluster.restart_operator();
    cluster.requests();

    let removed = cluster.engine.prune(&owner(), &named(&[(SERVICE, "team-a")])).await.unwrap();
    assert_eq!(removed, [reference(DEPLOYMENT, "team-a"), reference(CONFIG_MAP, "team-a-ca")]);
    assert!(cluster.get(CONFIG_MAP, "forged").is_some());
    assert!(cluster.get(SECRET, "team-a-ca").is_some());
    assert!(cluster.get(SERVICE, "team-a").is_some());

    cluster.delete(DEPLOYMENT, "team-a");
    cluster.requests();
    assert_eq!(cluster.engine.prune(&owner(), &named(&[(SERVICE, "team-a")])).await.unwrap(), []);
    assert_eq!(cluster.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_asked_while_there_is_nothing_to_prune() {
    let cluster = Cluster::new();
    cluster.engine.apply(&owner(), &service()).await.unwrap();
    cluster.requests();
    assert_eq!(cluster.engine.prune(&owner(), &named(&[(SERVICE, "team-a")])).await.unwrap(), []);
    assert_eq!(cluster.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn data_is_neither_pruned_nor_removed_even_under_deletion_policy_delete() {
    let cluster = Cluster::new();
    let claim = child(PERSISTENT_VOLUME_CLAIM, "team-a-data", Hold::KeptUntilOwnerGoes, json!({"spec": {}}));
    cluster.engine.apply(&owner(), &claim).await.unwrap();
    cluster.requests();

    assert_eq!(cluster.engine.prune(&owner(), &BTreeSet::new()).await.unwrap(), []);
    let removal = cluster.engine.remove(&owner(), PERSISTENT_VOLUME_CLAIM, "team-a-data").await.unwrap();
    assert_eq!(removal, Removal::Kept);
    assert_eq!(cluster.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_kept_child_goes_when_it_is_named_and_then_costs_nothing() {
    let cluster = Cluster::new();
    let remove = async || cluster.engine.remove(&owner(), SECRET, "team-a-ca").await.unwrap();
    cluster.engine.apply(&owner(), &secret(Hold::Kept)).await.unwrap();
    cluster.requests();
    assert_eq!(remove().await, Removal::Removed);
    assert_eq!(remove().await, Removal::Absent);
    assert_eq!(cluster.requests(), ["delete Secret/team-a-ca 200"]);
}

#[tokio::test]
async fn what_changed_since_we_looked_is_not_deleted() {
    let cluster = Cluster::new();
    cluster.engine.apply(&owner(), &config("x")).await.unwrap();
    cluster.interrupt(0, |store| store.edit(CONFIG_MAP, "team-a-ca", |object| set(object, "data", json!({}))));

    let error = cluster.engine.remove(&owner(), CONFIG_MAP, "team-a-ca").await.unwrap_err();
    assert_eq!(error.reason(), "Conflict");
    assert!(cluster.get(CONFIG_MAP, "team-a-ca").is_some());
    assert_eq!(cluster.engine.remove(&owner(), CONFIG_MAP, "team-a-ca").await.unwrap(), Removal::Removed);
}

/// A watch that was started anew may show the past.
#[tokio::test]
async fn nothing_is_deleted_for_an_owner_that_is_not_as_it_was_seen() {
    let seen = Owner { generation: Some(2), ..owner() };
    for (uid, generation, goes) in [("uid-a", 2, true), ("uid-a", 3, false), ("uid-b", 2, false)] {
        let cluster = Cluster::new();
        cluster.owner_has(uid, generation);
        cluster.engine.apply(&seen, &config("x")).await.unwrap();
        cluster.engine.apply(&seen, &job("r:1")).await.unwrap();
        cluster.requests();

        let pruned = cluster.engine.prune(&seen, &named(&[(JOB, "team-a")])).await;
        let replaced = cluster.engine.apply(&seen, &job("r:2")).await;
        let removed = cluster.engine.remove(&seen, JOB, "team-a").await;
        if goes {
            assert_eq!(pruned.unwrap(), [reference(CONFIG_MAP, "team-a-ca")]);
            assert_eq!(replaced.unwrap().outcome, Outcome::Replacing);
            assert_eq!(removed.unwrap(), Removal::Leaving);
        } else {
            for error in [pruned.unwrap_err(), replaced.unwrap_err(), removed.unwrap_err()] {
                assert!(matches!(error, Error::Outdated { .. }), "{error}");
                assert_eq!(error.class(), Class::Transient);
            }
            let asked = cluster.requests();
            assert!(asked.iter().all(|request| request.starts_with("read ")), "{asked:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_deleted_for_an_owner_that_is_gone() {
    let cluster = Cluster::new();
    let seen = Owner { generation: Some(2), ..owner() };
    cluster.engine.apply(&seen, &config("x")).await.unwrap();
    assert!(matches!(cluster.engine.prune(&seen, &BTreeSet::new()).await, Err(Error::Outdated { .. })));
    assert!(cluster.get(CONFIG_MAP, "team-a-ca").is_some());
}

#[tokio::test]
async fn a_foreign_object_is_not_removed() {
    let cluster = Cluster::new();
    cluster.put(SECRET, "team-a-ca", json!({}));
    assert_eq!(cluster.engine.remove(&owner(), SECRET, "team-a-ca").await.unwrap(), Removal::Absent);
    cluster.engine.read(SECRET, "registries", "team-a-ca").await.unwrap();
    assert_eq!(cluster.engine.remove(&owner(), SECRET, "team-a-ca").await.unwrap(), Removal::Kept);
    assert!(cluster.get(SECRET, "team-a-ca").is_some());
}

/// A copy of public material in another namespace.
fn copy() -> Child {
    Child { namespace: Some("apps".to_owned()), hold: Hold::Kept, ..config("a certificate") }
}

const COPY: &str = "apps/team-a-ca";

const MARKED: [(&str, &str); 3] = [
    ("test.dev/owner", "team-a"),
    ("test.dev/owner-namespace", "registries"),
    ("app.kubernetes.io/managed-by", "test-operator"),
];

#[tokio::test]
async fn a_child_in_another_namespace_is_known_by_its_labels_after_a_restart_and_removed_on_demand_only() {
    let mut cluster = Cluster::new();
    let applied = cluster.engine.apply(&owner(), &copy()).await.unwrap();
    assert_eq!(applied.live.namespace(), "apps");
    assert!(applied.live.at("metadata.ownerReferences").is_none());
    for (label, value) in MARKED {
        assert_eq!(applied.live.label(label), Some(value));
    }
    cluster.restart_operator();
    cluster.requests();

    assert_eq!(cluster.engine.prune(&owner(), &BTreeSet::new()).await.unwrap(), [], "a pass prunes at home");
    let elsewhere = cluster.engine.elsewhere(&owner());
    assert_eq!(elsewhere, [ObjectRef::new(CONFIG_MAP, "apps", "team-a-ca")]);
    assert_eq!(cluster.requests(), Vec::<String>::new());
    assert_eq!(cluster.engine.remove_elsewhere(&owner(), &elsewhere[0]).await.unwrap(), Removal::Removed);
    assert_eq!(cluster.engine.elsewhere(&owner()), []);
}

#[tokio::test]
async fn what_a_namesake_in_the_other_namespace_has_is_not_the_owners() {
    let mut cluster = Cluster::new();
    let theirs = Owner { namespace: "apps".to_owned(), uid: "uid-theirs".to_owned(), ..owner() };
    cluster.engine.apply(&theirs, &config("theirs")).await.unwrap();
    cluster.engine.apply(&theirs, &secret(Hold::Kept)).await.unwrap();
    cluster.restart_operator();

    assert_eq!(cluster.engine.elsewhere(&owner()), []);
    let refused = cluster.engine.apply(&owner(), &copy()).await.unwrap_err();
    assert_eq!(refused.reason(), "NotOurs");
    let kept = ObjectRef::new(SECRET, "apps", "team-a-ca");
    assert_eq!(cluster.engine.remove_elsewhere(&owner(), &kept).await.unwrap(), Removal::Kept);
}

#[tokio::test]
async fn a_copy_that_lost_its_labels_is_put_right_and_one_that_got_an_owner_is_not_touched() {
    let cluster = Cluster::new();
    cluster.engine.apply(&owner(), &copy()).await.unwrap();
    cluster.edit(CONFIG_MAP, COPY, |live| live["metadata"]["labels"] = json!({}));
    assert_eq!(cluster.engine.apply(&owner(), &copy()).await.unwrap().outcome, Outcome::Changed);

    let reference = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
    cluster.edit(CONFIG_MAP, COPY, |live| live["metadata"]["ownerReferences"] = reference.clone());
    assert_eq!(cluster.engine.apply(&owner(), &copy()).await.unwrap_err().reason(), "NotOurs");
    let found = cluster.engine.elsewhere(&owner());
    assert_eq!(cluster.engine.remove_elsewhere(&owner(), &found[0]).await.unwrap(), Removal::Kept);
}
