//! A node that has done real work ends at once and leaves the machine as it was. Needs root on Linux.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use support::{claim, create, has, pod};
use testbed::provisioner::{CAPPED, STANDARD};
use testbed::traces::Traces;
use testbed::{Mode, Node, image, node};

#[tokio::test]
async fn a_node_with_ten_pods_stops_within_a_second_and_leaves_nothing() {
    if testbed::skip(Mode::Node) {
        return;
    }
    let before = Traces::of_machine("none");
    let node = Node::start(node::Options::default()).await.unwrap();
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
    println!("stopped in {took:?}");
    assert!(!folder.exists());
    let left = Traces::of_machine(&id).difference(&before);
    assert!(left.is_empty(), "{left:#?}");
    let limit = Duration::from_secs(1).mul_f64(busyness());
    assert!(took < limit, "{took:?}, limit {limit:?}");
}

/// How many programs want each core, at least 1: what a promise made for an idle machine must be multiplied by.
fn busyness() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = text.split(' ').next().unwrap().parse().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    (load / cores as f64).max(1.0)
}
