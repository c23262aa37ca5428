//! Volumes that grow, cannot grow, are full, or cannot be written.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use testbed::image::{Compression, Image, Layer};
use testbed::provisioner::{CAPPED, FIXED, HOST_PATH};

use crate::cluster::{Cluster, brief, cluster, node, wait};
use crate::place;
use crate::registry::Registry;

fn claim(class: &str, size: &str) -> Value {
    json!({"storage": {"persistentVolumeClaim": {"storageClassName": class, "size": size}}})
}

fn grown(size: &str) -> Value {
    json!({"storage": {"persistentVolumeClaim": {"size": size}}})
}

#[tokio::test]
async fn a_claim_grows_while_the_registry_runs_and_while_it_is_stopped() {
    let Some(cluster) = cluster().await else { return };
    if place::is_given() && !lets_claims_grow(&cluster).await {
        testbed::skip_because("the default class of the cluster that was given does not let claims grow");
        return;
    }
    let registry = cluster.registry("growing", "team-a", grown("1Gi")).await.ready().await;
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "kept").await;
    let pod = registry.pod().await;

    registry.change(grown("2Gi")).await;
    has_capacity(&registry, "2Gi").await;
    registry.is("Settled").await;
    assert_eq!(registry.pod().await.metadata.uid, pod.metadata.uid, "grown while it was used");

    registry.change(json!({"suspend": true})).await;
    registry.stopped().await;
    registry.change(grown("3Gi")).await;
    registry.is("Suspended").await;
    wait("the claim asks for more", async || match registry.claim().await {
        claim if json!(claim.spec)["resources"]["requests"]["storage"] == "3Gi" => Ok(()),
        claim => Err(json!(claim).to_string()),
    })
    .await;
    registry.change(json!({"suspend": false})).await;
    has_capacity(&registry, "3Gi").await;
    registry.is("Settled").await;
    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

#[tokio::test]
async fn a_class_without_growth_is_told_and_everything_else_goes_on() {
    let Some(cluster) = node("needs a class that the test bed provides").await else { return };
    let registry = cluster.registry("fixed", "team-a", claim(FIXED, "1Gi")).await.ready().await;
    let pod = registry.pod().await;

    registry.change(grown("2Gi")).await;
    let refused = registry.condition("StorageReady", "ClaimRefused").await;
    assert_eq!(refused.status, "False");
    assert!(refused.message.contains("team-a-data") && refused.message.contains("resize"), "{}", refused.message);

    registry.change(json!({"config": {"logLevel": "debug"}})).await;
    registry.successor_of(&pod).await;
    registry.condition("Available", "Answering").await;
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "all the same").await;
    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

#[tokio::test]
async fn a_full_volume_refuses_pushes_serves_what_it_has_and_takes_more_once_it_has_grown() {
    let Some(cluster) = node("caps a volume").await else { return };
    let registry = cluster.registry("full", "team-a", claim(CAPPED, "16Mi")).await.ready().await;
    let admin = registry.admin().await;
    let small = admin.pushes("team/small:1", "fits").await;

    let refusal = admin.tries_to_push("team/large:1", &image_of(24)).await.unwrap_err();
    assert!(refusal.contains("no space left on device") || refusal.contains("500"), "{refusal}");
    assert_eq!(admin.pulls("team/small:1").await, small);

    let before = registry.delete_pod().await;
    registry.successor_of(&before).await;
    assert_eq!(admin.pulls("team/small:1").await, small, "a full volume does not keep the registry from starting");

    registry.change(grown("64Mi")).await;
    has_capacity(&registry, "64Mi").await;
    let large = admin.tries_to_push("team/large:1", &image_of(24)).await.unwrap();
    assert_eq!(admin.pulls("team/large:1").await, large);
}

#[tokio::test]
async fn a_folder_over_its_limit_costs_its_images_and_the_registry_comes_back_empty() {
    let Some(cluster) = cluster().await else { return };
    let limited = json!({"storage": {"emptyDir": {"sizeLimit": "8Mi"}}});
    let registry = cluster.registry("limited", "team-a", limited).await.ready().await;
    let (admin, before) = (registry.admin().await, registry.pod().await);
    let _ = admin.tries_to_push("team/large:1", &image_of(24)).await;

    wait("another pod takes its place", async || {
        let pods = registry.pods().await;
        let another = pods.iter().any(|pod| pod.metadata.uid != before.metadata.uid);
        if another { Ok(()) } else { Err(brief(&pods)) }
    })
    .await;
    wait("another pod serves", async || {
        let seen = admin.sees("/v2/team/large/tags/list").await;
        if seen == "404" { Ok(()) } else { Err(seen) }
    })
    .await;
    registry.is("Settled").await;
    let small = admin.pushes("team/small:1", "fits").await;
    assert_eq!(admin.pulls("team/small:1").await, small);
}

#[tokio::test]
async fn storage_that_ignores_the_pods_group_is_told_before_anybody_pushes() {
    let Some(cluster) = node("changes a folder of the node").await else { return };
    let registry = cluster.registry("unwritable", "team-a", claim(HOST_PATH, "1Gi")).await;

    let told = registry.is("StorageNotWritable").await;
    assert_eq!(told.status, "False");
    assert!(told.message.contains("fsGroup") && told.message.contains("65532"), "{}", told.message);

    let volume = registry.claim().await.spec.unwrap().volume_name.unwrap();
    let volume = Api::<PersistentVolume>::all(cluster.client.clone()).get(&volume).await.unwrap();
    let folder = volume.spec.unwrap().host_path.unwrap().path;
    std::fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    registry.is("Settled").await;
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "after it was put right").await;
    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

async fn lets_claims_grow(cluster: &Cluster) -> bool {
    let classes = Api::<StorageClass>::all(cluster.client.clone()).list(&Default::default()).await.unwrap();
    let is_default = |class: &StorageClass| {
        class.annotations().get("storageclass.kubernetes.io/is-default-class").is_some_and(|is| is == "true")
    };
    classes.iter().any(|class| is_default(class) && class.allow_volume_expansion == Some(true))
}

async fn has_capacity(registry: &Registry, wanted: &str) {
    wait(format!("{} reports {wanted}", registry.name), async || {
        let seen = registry.status().await.storage.and_then(|storage| storage.capacity);
        if seen.as_deref() == Some(wanted) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

/// An image of so many MiB that packing does not make smaller (xorshift64).
fn image_of(mebibytes: usize) -> Image {
    let mut state = 1_u64;
    let filler = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    let filler: Vec<u8> = filler.take(mebibytes << 20).collect();
    let layers = vec![Layer::new().file("filler", 0o644, filler)];
    Image { reference: "unused/name:1".to_owned(), layers, compression: Compression::Gzip, ..Image::default() }
}
