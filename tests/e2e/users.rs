//! Who may log in, while the registry runs.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Person;
use crate::cluster::{cluster, wait};
use crate::registry::{Registry, restarts};

#[tokio::test]
async fn users_come_change_their_password_and_go_without_a_restart() {
    let Some(cluster) = cluster().await else { return };
    cluster.namespace("users").await;
    cluster.secret("users", "alice", &[("password", "alice's first")]).await;
    cluster.secret("users", "many", &[("bob", "bob's password")]).await;
    let alice = json!({"name": "alice", "passwordSecretRef": {"name": "alice"}});
    let many = json!([{"secretRef": {"name": "many"}}]);
    let registry =
        cluster.another("users", "team-a", json!({"auth": {"users": [alice], "usersFrom": many}})).await.ready().await;
    let pod = registry.pod().await;
    let first = registry.user("alice", "alice's first").await;
    let bob = registry.user("bob", "bob's password").await;
    for user in [&first, &bob] {
        assert_eq!(user.sees("/v2/").await, "200");
    }
    assert_eq!(registry.user("admin", "whatever it is").await.sees("/v2/").await, "401");

    cluster.secret("users", "alice", &[("password", "alice's second")]).await;
    cluster.secret("users", "many", &[("carol", "carol's password")]).await;
    sees(&registry.user("alice", "alice's second").await, "200").await;
    sees(&registry.user("carol", "carol's password").await, "200").await;
    assert_eq!(first.sees("/v2/").await, "401", "the old password is refused");
    assert_eq!(bob.sees("/v2/").await, "401", "a revoked user is refused");
    let refusal = bob.tries_to_pull("team/app:1").await.unwrap_err();
    assert!(refusal.contains("UNAUTHORIZED") || refusal.contains("401"), "{refusal}");

    let alice = registry.user("alice", "alice's second").await;
    registry.change(json!({"auth": {"users": []}})).await;
    let removed = Instant::now();
    sees(&alice, "401").await;
    // Untold, the kubelet comes to the Secret at its next sync only. Other tests share this machine, so the limit is wide.
    let took = removed.elapsed();
    assert!(took < Duration::from_secs(5), "a removed user was let in for {took:?}");
    eprintln!("a removed user was refused after {took:?}");
    registry.is("Settled").await;
    assert_eq!(names(&registry).await, ["carol"]);
    let now = registry.pod().await;
    assert_eq!((now.metadata.uid.clone(), restarts(&now)), (pod.metadata.uid, 0), "nothing was restarted");
}

#[tokio::test]
async fn the_generated_admin_ends_with_the_first_user_and_comes_back_with_another_password() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("admins", "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    let before = registry.secret("team-a-admin").await;
    cluster.secret("admins", "alice", &[("password", "alice's first")]).await;

    let alice = json!({"name": "alice", "passwordSecretRef": {"name": "alice"}});
    registry.change(json!({"auth": {"users": [alice]}})).await;
    registry.is("Settled").await;
    sees(&registry.user("alice", "alice's first").await, "200").await;
    assert_eq!(admin.sees("/v2/").await, "401");

    registry.change(json!({"auth": null})).await;
    registry.is("Settled").await;
    assert_ne!(registry.secret("team-a-admin").await["password"], before["password"]);
    sees(&registry.admin().await, "200").await;
}

/// Waits for the kubelet to bring the table to the registry.
async fn sees(person: &Person, wanted: &str) {
    wait(format!("a login is answered with {wanted}"), async || match person.sees("/v2/").await {
        answer if answer == wanted => Ok(()),
        answer => Err(answer),
    })
    .await;
}

async fn names(registry: &Registry) -> Vec<String> {
    registry.status().await.users.into_iter().map(|user| user.name).collect()
}
