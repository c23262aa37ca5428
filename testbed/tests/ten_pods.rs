//! A node starts soon, and one that has done real work ends at once and leaves the machine as it was. Needs root on Linux.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use support::{claim, create, has, limit_here, pod};
use testbed::provisioner::{CAPPED, STANDARD};
use testbed::traces::Traces;
use testbed::{Mode, Node, image, node};

#[tokio::test]
async fn a_node_starts_within_ten_seconds_and_with_ten_pods_stops_within_one_and_leaves_nothing() {
    if testbed::skip(Mode::Node) {
        return;
    }
    let before = Traces::of_machine("none");
    let starting = Instant::now();
    let node = Node::start(node::Options::default()).await.unwrap();
    let (took, limit) = (starting.elapsed(), limit_here(Duration::from_secs(10)));
    assert!(took < limit, "started in {took:?}, limit {limit:?}");
    let (id, folder) = (node.sandbox().id().to_owned(), node.sandbox().dir().to_owned());
    let client = node.client().await.unwrap();
    for number in 0..10 {
        let name = format!("pod-{number}");
        claim(&client, &name, Some(if number < 5 { STANDARD } else { CAPPED }), "16Mi").await;
        let spec = json!({
            "containers": [{
                "name": "main", "image": image::PAUSE, "ports": [{"containerPort": 80, "hostPort": 30000 + number}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
        });
        create::<Pod>(&client, json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})).await;
    }
    for number in 0..10 {
        pod(&client, &format!("app=pod-{number}"), "is ready", |pod| has(pod, "Ready")).await;
    }

    let stopping = Instant::now();
    node.stop().unwrap();
    let took = stopping.elapsed();
    assert!(!folder.exists());
    let left = Traces::of_machine(&id).difference(&before);
    assert!(left.is_empty(), "{left:#?}");
    let limit = limit_here(Duration::from_secs(1));
    assert!(took < limit, "stopped in {took:?}, limit {limit:?}");
}
