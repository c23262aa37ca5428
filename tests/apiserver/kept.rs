//! What outlives a registry, and what goes with it, while the cluster's garbage collector is at work.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::namespace;
use crate::object::Object;
use crate::registry::Registry;
use crate::wait::{GARBAGE, PATIENCE};

fn kept(registry: &Registry<'_>) -> [Object; 3] {
    [registry.claim(), registry.ca(), registry.admin()]
}

/// Everything that is not kept.
async fn disposable(registry: &Registry<'_>) -> Vec<Object> {
    let kept = kept(registry).map(|object| (object.kind, object.name));
    registry
        .children()
        .await
        .into_iter()
        .filter(|child| !kept.contains(&(child.kind.clone(), child.name.clone())))
        .collect()
}

fn is_owned(object: &Value) -> bool {
    object["metadata"]["ownerReferences"].as_array().is_some_and(|references| !references.is_empty())
}

#[tokio::test]
async fn under_retain_data_authority_and_admin_survive_and_a_new_registry_takes_them_back() {
    let Some(team) = namespace("retain").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let mut before = Vec::new();
    for object in kept(&registry) {
        before.push((object.uid().await, object.at("/data").await));
    }
    let trusted = registry.bundle().at("/data").await;
    let others = disposable(&registry).await;
    assert!(others.len() >= 6);

    registry.delete().await;

    for other in others {
        other.disappears(GARBAGE).await;
    }
    for object in kept(&registry) {
        object.survives(Duration::from_millis(300)).await;
        let live = object.get().await;
        assert!(live["metadata"]["labels"]["app.kubernetes.io/instance"].is_null(), "GitOps tools would prune it");
        let annotations = &live["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/resource-policy"], "keep");
        assert_eq!(annotations["argocd.argoproj.io/sync-options"], "Delete=false,Prune=false");
    }

    let again = team.registry("team-a", json!({})).await.ready().await;
    let mut after = Vec::new();
    for object in kept(&again) {
        after.push((object.uid().await, object.at("/data").await));
    }
    assert!(before == after, "the same volume, the same authority, the same password");
    assert_eq!(again.bundle().at("/data").await, trusted);
    let password = again.admin().decoded("password").await;
    again.lets_in("admin", &password).await;
}

#[tokio::test]
async fn under_delete_everything_goes_with_the_registry() {
    let Some(team) = namespace("delete").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({"deletionPolicy": "Delete"})).await.ready().await;
    let all = registry.children().await;
    assert!(all.len() >= 10);

    registry.delete().await;

    for child in all {
        child.disappears(GARBAGE).await;
    }
}

#[tokio::test]
async fn a_switch_to_retain_counts_for_a_registry_that_is_paused_deleted_and_held_by_somebody_else() {
    let Some(team) = namespace("paused-deleted").await else { return };
    let operator = team.operator().await;
    let registry = team.registry("team-a", json!({"deletionPolicy": "Delete"})).await.ready().await;
    for object in kept(&registry) {
        object.becomes(PATIENCE, "goes with its owner", is_owned).await;
    }
    let held = json!({"metadata": {"finalizers": ["example.com/backup", "privateregistry.dev/holds"]}});
    registry.object.edit(held).await;
    registry.object.annotate("privateregistry.dev/paused", "true").await;
    registry.object.delete().await;
    registry
        .object
        .becomes(PATIENCE, "is held by one alone", |live| {
            live["metadata"]["finalizers"] == json!(["example.com/backup"])
        })
        .await;

    operator.stop().await;
    registry.object.edit(json!({"spec": {"deletionPolicy": "Retain"}})).await;
    let _operator = team.operator().await;
    for object in kept(&registry) {
        object.becomes(PATIENCE, "outlives its owner", |live| !is_owned(live)).await;
    }
    registry.object.edit(json!({"metadata": {"finalizers": []}})).await;
    registry.object.disappears(GARBAGE).await;
    registry.deployment().disappears(GARBAGE).await;
    for object in kept(&registry) {
        object.survives(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn the_deletion_policy_can_be_switched_both_ways() {
    let Some(team) = namespace("policy").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;

    registry.apply(json!({"deletionPolicy": "Delete"})).await.unwrap();
    for object in kept(&registry) {
        object.becomes(PATIENCE, "goes with its owner", is_owned).await;
    }
    registry.apply(json!({"deletionPolicy": "Retain"})).await.unwrap();
    for object in kept(&registry) {
        object.becomes(PATIENCE, "outlives its owner", |live| !is_owned(live)).await;
    }
    let registry = registry.ready().await;
    registry.delete().await;
    registry.deployment().disappears(GARBAGE).await;
    registry.claim().survives(Duration::from_secs(1)).await;
}
