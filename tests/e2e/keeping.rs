//! Data outlives everything that happens to a registry.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::ResourceExt;
use kube::api::ListParams;
use nix::sys::signal::Signal;
use private_registry_operator::api::PrivateRegistryStatus;
use serde_json::json;

use crate::cluster::{Cluster, NEWER_REGISTRY, cluster, node, wait};
use crate::registry::{Registry, restarts};

#[tokio::test]
async fn images_survive_the_death_of_the_process_and_of_the_pod() {
    let Some(cluster) = node("kills a registry's process").await else { return };
    let registry = cluster.registry("dying", "team-a", json!({})).await.ready().await;

    survives(&registry).await;
}

/// What every registry does when its process or its pod dies.
pub(crate) async fn survives(registry: &Registry) {
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "kept").await;

    let before = registry.kill(Signal::SIGKILL).await;
    let after = registry.restarted(1).await;
    assert_eq!(after.metadata.uid, before.metadata.uid, "the same pod, started again in place");
    assert_eq!(admin.pulls("team/app:1").await, pushed);

    let before = registry.delete_pod().await;
    registry.successor_of(&before).await;
    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

#[tokio::test]
async fn images_survive_another_image_of_the_registry() {
    let Some(cluster) = node("has a second image at hand").await else { return };
    let registry = cluster.registry("renewed", "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "kept").await;
    let before = registry.pod().await;

    registry.change(json!({"image": NEWER_REGISTRY})).await;

    let after = registry.successor_of(&before).await;
    assert_eq!(after.spec.unwrap().containers[0].image.as_deref(), Some(NEWER_REGISTRY));
    assert_eq!(registry.is("Settled").await.status, "True");
    assert_eq!(registry.status().await.image.as_deref(), Some(NEWER_REGISTRY));
    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

#[tokio::test]
async fn a_restart_of_the_operator_does_not_touch_registries() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("untouched", "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "kept").await;
    let (pod, deployment) = (registry.pod().await, registry.deployment().await);

    cluster.restart_operator().await;
    registry.change(json!({"pod": {"annotations": {}}, "auth": {"htpasswd": {"bcryptCost": 6}}})).await;
    registry.is("Settled").await;

    assert_eq!(registry.pod().await.metadata.uid, pod.metadata.uid, "the new operator worked, and no pod was replaced");
    assert_eq!(restarts(&registry.pod().await), 0);
    assert_eq!(registry.deployment().await.metadata.generation, deployment.metadata.generation);
    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

#[tokio::test]
async fn a_registry_made_again_takes_back_its_images_its_authority_and_its_login() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("again", "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "kept").await;
    let (claim, status, login) =
        (registry.claim().await, registry.status().await, registry.secret("team-a-admin").await);

    registry.delete().await;
    assert_eq!(registry.claim().await.uid(), claim.uid(), "the claim outlives the registry");
    let left = registry.own::<Secret>().list(&ListParams::default()).await.unwrap();
    let left: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
    assert_eq!(left, ["team-a-admin", "team-a-ca"], "what cannot be made again is kept, everything else is gone");

    let registry = cluster.another("again", "team-a", json!({})).await.ready().await;
    assert_eq!(registry.claim().await.uid(), claim.uid());
    assert_eq!(registry.secret("team-a-admin").await, login);
    assert_eq!(fingerprints(&registry.status().await), fingerprints(&status));
    assert_eq!(admin.pulls("team/app:1").await, pushed, "by the same client, who trusts the same authority");
}

#[tokio::test]
async fn the_deletion_policy_decides_what_is_left_and_can_be_switched() {
    let Some(cluster) = cluster().await else { return };
    let gone = json!({"deletionPolicy": "Delete"});
    let deletes = cluster.registry("leaving", "deletes", gone.clone()).await;
    let to_delete = cluster.another("leaving", "to-delete", json!({})).await;
    let to_retain = cluster.another("leaving", "to-retain", gone).await;
    for registry in [&deletes, &to_delete, &to_retain] {
        registry.is("Settled").await;
    }

    to_delete.change(json!({"deletionPolicy": "Delete"})).await;
    to_retain.change(json!({"deletionPolicy": "Retain"})).await;
    for registry in [&to_delete, &to_retain] {
        registry.is("Settled").await;
    }
    for registry in [&deletes, &to_delete, &to_retain] {
        registry.delete().await;
    }

    for name in ["deletes", "to-delete"] {
        wait(format!("nothing is left of {name}"), async || nothing_left(&cluster, name).await).await;
    }
    assert_eq!(kept(&cluster, "to-retain").await, ["to-retain-data", "to-retain-admin", "to-retain-ca"]);
}

async fn nothing_left(cluster: &Cluster, name: &str) -> Result<(), String> {
    let kept = kept(cluster, name).await;
    if kept.is_empty() { Ok(()) } else { Err(kept.join(", ")) }
}

async fn kept(cluster: &Cluster, name: &str) -> Vec<String> {
    let chosen = ListParams::default().labels(&format!("privateregistry.dev/registry={name}"));
    let claims = cluster.api::<PersistentVolumeClaim>("leaving").list(&chosen).await.unwrap();
    let secrets = cluster.api::<Secret>("leaving").list(&chosen).await.unwrap();
    claims.iter().map(ResourceExt::name_any).chain(secrets.iter().map(ResourceExt::name_any)).collect()
}

fn fingerprints(status: &PrivateRegistryStatus) -> Vec<&str> {
    let authorities = &status.certificate.as_ref().unwrap().authorities;
    authorities.iter().map(|authority| authority.fingerprint.as_str()).collect()
}
