//! A user who was removed is out, and where that cannot be, it is told: while others hold a deleted registry, while the table cannot be changed, while pods
//! cannot be told.

use serde_json::json;

use crate::cluster::{Namespace, namespace};
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually};

/// A registry that lets in ann and bob.
async fn two_users(team: &Namespace) -> Registry<'_> {
    team.secret("ann", &[("password", "correct horse")]).await;
    team.secret("bob", &[("password", "battery staple")]).await;
    let registry = team.registry("team-a", json!({"auth": {"users": users(&["ann", "bob"])}})).await.ready().await;
    registry.lets_in("bob", "battery staple").await;
    registry
}

fn users(names: &[&str]) -> Vec<serde_json::Value> {
    names.iter().map(|name| json!({"name": name, "passwordSecretRef": {"name": name}})).collect()
}

async fn is_out(registry: &Registry<'_>, user: &str, password: &str) {
    eventually(PATIENCE, &format!("{user} is out of the table"), async || {
        if registry.knows(user, password).await { Err("still in it".to_owned()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_user_is_removed_from_a_registry_that_was_deleted_and_is_held_by_others() {
    let Some(team) = namespace("revoking-deleted").await else { return };
    let _operator = team.operator().await;
    let registry = two_users(&team).await;
    registry.object.edit(json!({"metadata": {"finalizers": ["example.com/backup"]}})).await;
    registry.object.delete().await;
    let words = registry.says("Ready", "False", "BeingDeleted").await;
    assert!(words.contains("example.com/backup"), "{words}");

    registry.object.edit(json!({"spec": {"auth": {"users": users(&["ann"])}}})).await;
    is_out(&registry, "bob", "battery staple").await;
    assert!(registry.knows("ann", "correct horse").await);
    registry.says("Ready", "False", "BeingDeleted").await;

    registry.htpasswd().delete().await;
    registry.htpasswd().stays_away(std::time::Duration::from_secs(2)).await;
    registry.object.edit(json!({"metadata": {"finalizers": []}})).await;
    registry.object.disappears(PATIENCE).await;
}

#[tokio::test]
async fn a_table_that_was_immutable_is_told_until_no_pod_has_it_any_more() {
    let Some(team) = namespace("revoking-immutable").await else { return };
    let _operator = team.operator().await;
    let registry = two_users(&team).await;
    registry.htpasswd().edit(json!({"immutable": true})).await;
    let words = registry.says("UsersReady", "False", "Immutable").await;
    assert!(words.contains("Secret team-a-htpasswd") && words.contains("spec.suspend"), "{words}");
    registry.apply(json!({"auth": {"users": users(&["ann"])}})).await.unwrap();
    registry.says("UsersReady", "False", "Immutable").await;

    registry.htpasswd().delete().await;
    let words = registry.says("UsersReady", "False", "PodsKeepOldTable").await;
    assert!(words.contains("team-a-"), "{words}");
    is_out(&registry, "bob", "battery staple").await;

    registry.deletes_its_pods().await;
    registry.says("Ready", "False", "PodsKeepOldTable").await;
    registry.object.edit(json!({"spec": {"suspend": true}})).await;
    registry.has_no_pod().await;
    registry.says("UsersReady", "True", "Written").await;
    registry.object.edit(json!({"spec": {"suspend": false}})).await;
    registry.says("UsersReady", "True", "Written").await;
    registry.ready().await;
}

#[tokio::test]
async fn pods_that_may_not_be_patched_are_told_to_be_late() {
    let Some(team) = namespace("revoking-untold").await else { return };
    let _operator = team.operator().await;
    let registry = two_users(&team).await;
    let words = registry.says("UsersReady", "True", "Written").await;
    assert!(words.contains("kubelets are told"), "{words}");
    let role = team.object("Role", "operator-private-registry-operator");
    let rules = role.at("/rules").await;
    let mut fewer = rules.clone();
    for rule in fewer.as_array_mut().unwrap().iter_mut().filter(|rule| rule["resources"] == json!(["pods"])) {
        rule["verbs"] = json!(["list", "watch"]);
    }
    assert_ne!(fewer, rules);
    role.edit(json!({"rules": fewer})).await;

    registry.apply(json!({"auth": {"users": users(&["ann"])}})).await.unwrap();
    is_out(&registry, "bob", "battery staple").await;
    eventually(PATIENCE, "it is told that pods follow later", async || {
        let words = registry.condition("UsersReady").await["message"].as_str().unwrap_or_default().to_owned();
        if words.contains("within two minutes") { Ok(()) } else { Err(words) }
    })
    .await;
    role.edit(json!({"rules": rules})).await;
    eventually(PATIENCE, "it is told that pods have been told", async || {
        let words = registry.condition("UsersReady").await["message"].as_str().unwrap_or_default().to_owned();
        if words.contains("kubelets are told") { Ok(()) } else { Err(words) }
    })
    .await;
}
