//! An image's archive is taken by those who will be handed it: containerd's importer, as kind and k3d call it, and what reads archives of `docker save`.
//! Needs root on Linux.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Output;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use support::{create, has, pod, wait};
use testbed::image::{self, Compression, Image};
use testbed::{Family, Mode, Node, Progress, Tools, node};

const NAME: &str = "localhost/team/app:0.1.0";

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn an_archive_is_imported_under_its_own_name_runs_without_a_registry_and_is_pushed_as_a_docker_archive() {
    if testbed::skip(Mode::Node) {
        return;
    }
    let node = Node::start(node::Options::default()).await.unwrap();
    let client = node.client().await.unwrap();
    let tools = Tools::ensure(&[Family::Pause], &Progress::silent()).unwrap();
    let image = image::test_client(tools.path("pause").unwrap(), NAME, "archive");
    let built = Image { compression: Compression::Gzip, ..image }.build().unwrap();
    let archive = node.sandbox().dir().join("image.tar");
    built.write_archive(&archive).unwrap();
    let file = archive.to_str().unwrap();

    // The command of kind; k3d leaves out --digests.
    let socket = node.sandbox().dir().join("containerd/containerd.sock").display().to_string();
    let ctr = ["--address", &socket, "--namespace", "k8s.io", "images"];
    said(&node.exec_in_node("ctr", ctr.iter().chain(&["import", "--all-platforms", "--digests", file])).await.unwrap());
    let known = said(&node.exec_in_node("ctr", ctr.iter().chain(&["list"])).await.unwrap());
    let ours: Vec<_> = known.lines().filter(|line| line.starts_with(&format!("{NAME} "))).collect();
    assert!(ours.len() == 1 && ours[0].contains(built.digest()), "{known}");

    let container = json!({"name": "main", "image": NAME, "imagePullPolicy": "Never"});
    create::<Pod>(
        &client,
        json!({"metadata": {"name": "app", "labels": {"app": "app"}}, "spec": {"containers": [container]}}),
    )
    .await;
    pod(&client, "app=app", "runs an image that nobody pulled", |pod| has(pod, "Ready")).await;

    let mut registry = node.command("registry");
    let configuration = node.sandbox().dir().join("config.yml");
    let storage = json!({"inmemory": {}});
    let text = json!({"version": "0.1", "storage": storage, "http": {"addr": "127.0.0.1:5000"}}).to_string();
    std::fs::write(&configuration, text).unwrap();
    registry.arg("serve").arg(&configuration).env("OTEL_TRACES_EXPORTER", "none");
    node.sandbox().start("registry", registry).unwrap();
    wait(Duration::from_secs(20), "push the archive", async || {
        let output = node.exec_in_node("crane", ["push", file, "127.0.0.1:5000/team/app:1"]).await.unwrap();
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
    let config = said(&node.exec_in_node("crane", ["config", "127.0.0.1:5000/team/app:1"]).await.unwrap());
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["Entrypoint"], json!(["/wait"]));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    node.stop().unwrap();
}
