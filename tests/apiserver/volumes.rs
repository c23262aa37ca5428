//! The volume that holds the images: another one never takes its place without a word, and an empty registry never passes for a full one.

use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::namespace;
use crate::object::Object;
use crate::registry::Registry;
use crate::wait::{GARBAGE, PATIENCE};

const NOTHING_HAPPENS: Duration = Duration::from_secs(2);

fn is_stopped(deployment: &Value) -> bool {
    deployment["spec"]["replicas"] == 0
}

/// Ends all pods and then the claim, which nothing protects any more. Gives the volume's name.
async fn loses_its_claim(registry: &Registry<'_>, claim: &Object) -> String {
    let volume = claim.at("/spec/volumeName").await.as_str().unwrap().to_owned();
    registry
        .object
        .becomes(PATIENCE, "knows its volume", |live| live["status"]["storage"]["volumeName"] == *volume)
        .await;
    registry.object.edit(json!({"spec": {"suspend": true}})).await;
    registry.has_no_pod().await;
    claim.delete().await;
    claim.disappears(GARBAGE).await;
    volume
}

#[tokio::test]
async fn a_claim_that_held_images_is_not_made_again_until_the_volume_is_given_up() {
    let Some(team) = namespace("volume-gone").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let claim = registry.claim();
    let volume = loses_its_claim(&registry, &claim).await;

    let words = registry.says("StorageReady", "False", "VolumeGone").await;
    assert!(words.contains(&volume) && words.contains("privateregistry.dev/given-up-volume"), "{words}");
    registry.object.edit(json!({"spec": {"suspend": false}})).await;
    registry.says("Ready", "False", "VolumeGone").await;
    registry.says("Stalled", "True", "VolumeGone").await;
    claim.stays_away(NOTHING_HAPPENS).await;
    assert!(is_stopped(&registry.deployment().get().await));
    assert_eq!(registry.object.at("/status/storage/volumeName").await, volume.as_str());

    registry.object.annotate("privateregistry.dev/given-up-volume", "another").await;
    claim.stays_away(NOTHING_HAPPENS).await;
    registry.object.annotate("privateregistry.dev/given-up-volume", volume.as_str()).await;
    let registry = registry.ready().await;
    let now = claim.at("/spec/volumeName").await;
    assert_ne!(now, volume.as_str());
    registry
        .object
        .becomes(PATIENCE, "knows its new volume", |live| live["status"]["storage"]["volumeName"] == now)
        .await;
}

#[tokio::test]
async fn a_claim_that_goes_while_its_registry_is_paused_is_missed_when_it_goes_on() {
    let Some(team) = namespace("volume-paused").await else { return };
    let operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let claim = registry.claim();
    let volume = claim.at("/spec/volumeName").await;
    registry
        .object
        .becomes(PATIENCE, "knows its volume", |live| live["status"]["storage"]["volumeName"] == volume)
        .await;
    registry.object.annotate("privateregistry.dev/paused", "true").await;
    registry.says("Ready", "False", "Paused").await;
    registry.deployment().edit(json!({"spec": {"replicas": 0}})).await;
    registry.has_no_pod().await;
    claim.delete().await;
    claim.disappears(GARBAGE).await;
    // Nor does it help that nobody saw it.
    operator.stop().await;
    let _operator = team.operator().await;

    registry.object.annotate("privateregistry.dev/paused", Value::Null).await;

    registry.says("StorageReady", "False", "VolumeGone").await;
    claim.stays_away(NOTHING_HAPPENS).await;
    assert!(is_stopped(&registry.deployment().get().await));
}

#[tokio::test]
async fn a_claim_that_went_and_came_back_while_the_operator_was_down_serves_nothing_until_its_volume_is_back() {
    let Some(team) = namespace("volume-replaced").await else { return };
    let operator = team.operator().await;
    let claim = |volume: Option<&str>| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "images"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": volume},
        })
    };
    team.create(claim(None)).await;
    let spec = json!({"storage": {"existingClaim": {"name": "images"}}});
    let registry = team.registry("team-a", spec).await.ready().await;
    let images = team.object("PersistentVolumeClaim", "images");
    let volume = images.at("/spec/volumeName").await.as_str().unwrap().to_owned();
    let volumes: Api<PersistentVolume> = Api::all(team.client.clone());
    let edit = async |patch: Value| {
        volumes.patch(&volume, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    };
    edit(json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})).await;
    let before = loses_its_claim(&registry, &images).await;
    assert_eq!(before, volume);
    registry.says("StorageReady", "False", "VolumeGone").await;
    operator.stop().await;

    registry.object.edit(json!({"spec": {"suspend": false}})).await;
    team.create(claim(None)).await;
    images.becomes(PATIENCE, "has a volume", |live| live["status"]["phase"] == "Bound").await;
    let operator = team.operator().await;
    let words = registry.says("StorageReady", "False", "VolumeReplaced").await;
    assert!(words.contains(&volume), "{words}");
    registry.says("Ready", "False", "VolumeReplaced").await;
    assert!(is_stopped(&registry.deployment().get().await));

    images.delete().await;
    images.disappears(GARBAGE).await;
    edit(json!({"spec": {"claimRef": null}})).await;
    team.create(claim(Some(&volume))).await;
    registry.ready().await;
    drop(operator);
}

/// Pods go on serving the old leaf as long as nothing may be rolled, whatever becomes of its Secret.
#[tokio::test]
async fn the_authority_of_the_leaf_that_pods_still_serve_stays_in_the_bundle() {
    let Some(team) = namespace("volume-trust").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let served = registry.bundle().at("/data/ca.crt").await.as_str().unwrap().trim().to_owned();
    registry.claim().edit(json!({"metadata": {"finalizers": ["test.dev/held"]}})).await;
    registry.claim().delete().await;
    registry.says("StorageReady", "False", "BeingDeleted").await;

    registry.ca().delete().await;
    registry.object.annotate("privateregistry.dev/renew", "ca").await;
    let certificates = |live: &Value| live["data"]["ca.crt"].as_str().unwrap().matches("BEGIN CERTIFICATE").count();
    registry.bundle().becomes(PATIENCE, "has both authorities", |live| certificates(live) == 2).await;
    let foreign = team.registry("donor", json!({})).await.ready().await.bundle().at("/data/ca.crt").await;
    let uid = registry.tls().uid().await;
    registry.bundle().edit(json!({"data": {"ca.crt": format!("{served}\n{}", foreign.as_str().unwrap())}})).await;
    registry.tls().delete().await;
    registry.tls().is_made_again(&uid, PATIENCE).await;
    let theirs = foreign.as_str().unwrap().trim();
    let is_ours = |live: &Value| {
        let bundle = live["data"]["ca.crt"].as_str().unwrap();
        certificates(live) == 2 && bundle.contains(&served) && !bundle.contains(theirs)
    };
    registry.bundle().becomes(PATIENCE, "has both authorities and nobody else's", is_ours).await;
    registry.claim().edit(json!({"metadata": {"finalizers": null}})).await;
}
