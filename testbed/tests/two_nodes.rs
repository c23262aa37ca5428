//! Two nodes at once. Needs root on Linux.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use support::{create, has, limit_here, pod};
use testbed::{Mode, Node, image, node};

async fn run(node: &Node) -> Pod {
    let client = node.client().await.unwrap();
    let spec = json!({"containers": [{"name": "main", "image": image::PAUSE}]});
    create::<Pod>(&client, json!({"metadata": {"name": "same", "labels": {"app": "same"}}, "spec": spec})).await;
    pod(&client, "app=same", "is ready", |pod| has(pod, "Ready")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_started_at_once_are_there_within_fifteen_seconds_and_do_not_know_of_each_other() {
    if testbed::skip(Mode::Node) {
        return;
    }
    let started = Instant::now();
    let (one, two) =
        tokio::try_join!(Node::start(node::Options::default()), Node::start(node::Options::default())).unwrap();
    let (took, limit) = (started.elapsed(), limit_here(Duration::from_secs(15)));
    assert!(took < limit, "started in {took:?}, limit {limit:?}");
    assert_ne!(one.sandbox().node_address(), two.sandbox().node_address());

    let (pod_one, pod_two) = tokio::join!(run(&one), run(&two));
    let address = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap();
    assert_ne!(
        address(&pod_one).rsplit_once('.').unwrap().0,
        address(&pod_two).rsplit_once('.').unwrap().0,
        "pods have addresses of their node"
    );

    one.stop().unwrap();
    let client = two.client().await.unwrap();
    pod(&client, "app=same", "runs on when the other node is gone", |pod| has(pod, "Ready")).await;
    two.stop().unwrap();
}
