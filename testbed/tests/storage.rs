//! Claims on a real node: who owns a volume, how it grows, how it fills up, what is left of it. Needs root on Linux.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::DeleteParams;
use kube::{Api, Client};
use serde_json::json;
use support::{capacity, claim, claim_is, create, grow, has, pod, wait};
use testbed::provisioner::{CAPPED, FIXED, HOST_PATH};
use testbed::{Mode, Node, image, node};

#[tokio::test]
async fn volumes_honour_fs_group_grow_fill_up_and_go_away_with_their_claim() {
    if testbed::skip(Mode::Node) {
        return;
    }
    let node = Node::start(node::Options::default()).await.unwrap();
    let client = node.client().await.unwrap();
    tokio::join!(
        a_volume_belongs_to_the_pods_group_and_grows_while_it_is_used(&node, &client),
        a_volume_grows_while_no_pod_uses_it(&client),
        a_claim_of_a_fixed_class_cannot_grow(&client),
        a_capped_volume_is_full_when_it_is_full_and_takes_more_when_grown(&node, &client),
        a_host_path_volume_ignores_the_pods_group(&node, &client),
        a_deleted_claim_leaves_nothing(&node, &client),
    );
    node.stop().unwrap();
}

async fn run(client: &Client, name: &str) {
    let spec = json!({
        "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "image": image::PAUSE, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
    });
    create::<Pod>(client, json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})).await;
    pod(client, &format!("app={name}"), "is ready", |pod| has(pod, "Ready")).await;
}

async fn end(client: &Client, name: &str) {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    pods.delete(name, &DeleteParams::default()).await.unwrap();
    wait(Duration::from_secs(30), &format!("pod {name} is gone"), async || match pods.get_opt(name).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

async fn volume_of(client: &Client, name: &str) -> String {
    let claim = Api::<PersistentVolumeClaim>::default_namespaced(client.clone()).get(name).await.unwrap();
    claim.spec.unwrap().volume_name.unwrap()
}

async fn folder_of(node: &Node, client: &Client, name: &str) -> PathBuf {
    node.sandbox().dir().join("volumes").join(volume_of(client, name).await)
}

async fn group_of(node: &Node, client: &Client, name: &str) -> String {
    let folder = folder_of(node, client, name).await;
    let output = node.exec_in_node("stat", ["-c", "%g", folder.to_str().unwrap()]).await.unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn a_volume_belongs_to_the_pods_group_and_grows_while_it_is_used(node: &Node, client: &Client) {
    claim(client, "used", None, "1Gi").await;
    run(client, "used").await;
    assert_eq!(group_of(node, client, "used").await, "65532");

    grow(client, "used", "2Gi").await.unwrap();
    claim_is(client, "used", "has grown while it was used", |claim| capacity(claim) == Some("2Gi")).await;
}

async fn a_volume_grows_while_no_pod_uses_it(client: &Client) {
    claim(client, "unused", None, "1Gi").await;
    run(client, "unused").await;
    end(client, "unused").await;

    grow(client, "unused", "3Gi").await.unwrap();
    let volumes = Api::<PersistentVolume>::all(client.clone());
    let name = volume_of(client, "unused").await;
    wait(Duration::from_secs(20), "the volume has grown", async || {
        let volume = volumes.get(&name).await.map_err(|error| error.to_string())?;
        let size = volume.spec.and_then(|spec| spec.capacity?.remove("storage")).map(|size| size.0);
        if size.as_deref() == Some("3Gi") { Ok(()) } else { Err(format!("{size:?}")) }
    })
    .await;
    claim_is(client, "unused", "waits for a pod", |claim| {
        let waits = json!(claim.status)["allocatedResourceStatuses"]["storage"] == "NodeResizePending";
        waits && capacity(claim) == Some("1Gi")
    })
    .await;

    run(client, "unused").await;
    claim_is(client, "unused", "has grown with the next pod", |claim| capacity(claim) == Some("3Gi")).await;
}

async fn a_claim_of_a_fixed_class_cannot_grow(client: &Client) {
    claim(client, "fixed", Some(FIXED), "1Gi").await;
    run(client, "fixed").await;
    let refusal = grow(client, "fixed", "2Gi").await.unwrap_err().to_string();
    assert!(refusal.contains("only dynamically provisioned pvc can be resized"), "{refusal}");
}

async fn a_capped_volume_is_full_when_it_is_full_and_takes_more_when_grown(node: &Node, client: &Client) {
    claim(client, "capped", Some(CAPPED), "16Mi").await;
    run(client, "capped").await;
    let file = format!("of={}/file", folder_of(node, client, "capped").await.display());
    let write = async || node.exec_in_node("dd", ["if=/dev/zero", &file, "bs=1M", "count=24"]).await.unwrap();
    assert_eq!(group_of(node, client, "capped").await, "65532");

    let full = write().await;
    assert!(String::from_utf8_lossy(&full.stderr).contains("No space left on device"), "{full:?}");

    grow(client, "capped", "32Mi").await.unwrap();
    claim_is(client, "capped", "has grown", |claim| capacity(claim) == Some("32Mi")).await;
    let fits = write().await;
    assert!(fits.status.success(), "{fits:?}");
}

async fn a_host_path_volume_ignores_the_pods_group(node: &Node, client: &Client) {
    claim(client, "host", Some(HOST_PATH), "1Gi").await;
    run(client, "host").await;
    assert_eq!(group_of(node, client, "host").await, "0");
}

async fn a_deleted_claim_leaves_nothing(node: &Node, client: &Client) {
    for (name, class) in [("gone", None), ("gone-capped", Some(CAPPED))] {
        claim(client, name, class, "16Mi").await;
        run(client, name).await;
        let folder = folder_of(node, client, name).await;
        let volume = volume_of(client, name).await;
        assert!(folder.exists());

        end(client, name).await;
        let claims = Api::<PersistentVolumeClaim>::default_namespaced(client.clone());
        claims.delete(name, &DeleteParams::default()).await.unwrap();
        let volumes = Api::<PersistentVolume>::all(client.clone());
        wait(Duration::from_secs(30), &format!("the volume of {name} is gone"), async || {
            let left = (volumes.get_opt(&volume).await.map_err(|error| error.to_string())?.is_some(), folder.exists());
            if left == (false, false) { Ok(()) } else { Err(format!("object, folder: {left:?}")) }
        })
        .await;
    }
}
