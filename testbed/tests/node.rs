//! A real node runs a real registry on a kept volume, with real clients. Needs root on Linux.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::LogParams;
use kube::{Api, Client};
use nix::sys::signal::Signal;
use serde_json::json;
use support::{claim, create, has, pod, wait};
use testbed::image::{Compression, Image, Layer};
use testbed::{Mode, Node, image, node};

const READY: &str = "is ready";

async fn run_registry(client: &Client) {
    claim(client, "data", None, "1Gi").await;
    let labels = json!({"app": "registry"});
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "enableServiceLinks": false,
            "containers": [{
                "name": "registry", "image": image::REGISTRY, "ports": [{"containerPort": 5000}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 5000}, "periodSeconds": 1},
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "data", "mountPath": "/var/lib/registry"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    });
    let spec = json!({"selector": {"matchLabels": labels}, "strategy": {"type": "Recreate"}, "template": template});
    create::<Deployment>(client, json!({"metadata": {"name": "registry"}, "spec": spec})).await;
    create::<Service>(
        client,
        json!({"metadata": {"name": "registry"}, "spec": {"selector": labels, "ports": [{"port": 5000}]}}),
    )
    .await;
}

/// Runs crane in the node. A Service refuses connections until its rules follow its pods, so that alone is tried again.
async fn crane(node: &Node, arguments: &[&str]) -> String {
    let output = wait(Duration::from_secs(20), &format!("crane {arguments:?}"), async || {
        let output = node.exec_in_node("crane", arguments).await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if errors.contains("connection refused") { Err(errors) } else { Ok(output) }
    })
    .await;
    assert!(output.status.success(), "crane {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The moment that a node has started.
async fn services_are_reached_by_name(node: &Node) {
    let connect = node.exec_in_node("bash", ["-c", "exec 3<>/dev/tcp/kubernetes.default.svc/443"]).await.unwrap();
    assert!(connect.status.success(), "{}", String::from_utf8_lossy(&connect.stderr));
}

/// Runs a pod to its end and gives what it wrote.
async fn output_of(client: &Client, name: &str, image: &str, arguments: &[&str]) -> String {
    let spec = json!({
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532},
        "containers": [{"name": "main", "image": image, "args": arguments, "securityContext": {"readOnlyRootFilesystem": true}}],
    });
    create::<Pod>(client, json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})).await;
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
    let ended =
        pod(client, &format!("app={name}"), "has ended", |pod| ["Succeeded", "Failed"].contains(&phase(pod).as_str()))
            .await;
    let log = Api::<Pod>::default_namespaced(client.clone()).logs(name, &LogParams::default()).await.unwrap();
    assert_eq!(phase(&ended), "Succeeded", "{log}");
    log
}

/// Pushes an image to the registry by the cluster's own name, and runs a pod for which the kubelet pulls it. Gives its digest.
async fn push_and_run(node: &Node, client: &Client, name: &str) -> String {
    let folder = node.sandbox().dir().join("layout");
    let tools = testbed::Tools::ensure(&[testbed::Family::Pause], &testbed::Progress::silent()).unwrap();
    let pushed = image::test_client(tools.path("pause").unwrap(), "unused/name:1", "first").build().unwrap();
    pushed.write_layout(&folder).unwrap();
    crane(node, &["push", "--insecure", folder.to_str().unwrap(), name]).await;
    assert_eq!(crane(node, &["digest", "--insecure", name]).await, pushed.digest());

    let (host, _) = name.split_once('/').unwrap();
    let trusted = node.certs_d().join(host);
    std::fs::create_dir_all(&trusted).unwrap();
    std::fs::write(trusted.join("hosts.toml"), format!("server = \"http://{host}\"\n[host.\"http://{host}\"]\n"))
        .unwrap();
    create::<Pod>(client, json!({"metadata": {"name": "puller", "labels": {"app": "puller"}}, "spec": {"containers": [{"name": "main", "image": name}]}})).await;
    pod(client, "app=puller", "runs an image that the kubelet pulled", |pod| has(pod, "Ready")).await;
    pushed.digest().to_owned()
}

async fn a_pod_reaches_a_service_by_name(node: &Node, client: &Client, image_name: &str) {
    let crane = testbed::Tools::ensure(&[testbed::Family::Crane], &testbed::Progress::silent()).unwrap();
    let image = Image {
        reference: "example.test/crane:1".into(),
        layers: vec![Layer::new().file_from("crane", 0o755, crane.path("crane").unwrap())],
        entrypoint: vec!["/crane".into()],
        compression: Compression::Gzip,
        ..Image::default()
    };
    node.import(image).await.unwrap();
    let tags = output_of(client, "crane", "example.test/crane:1", &["digest", "--insecure", image_name]).await;
    assert!(tags.starts_with("sha256:"), "{tags}");
}

async fn a_dynamically_linked_program_runs_from_its_own_image(node: &Node, client: &Client) {
    let program = std::env::current_exe().unwrap();
    node.import(image::operator(&program, "example.test/program:1").unwrap()).await.unwrap();
    let log = output_of(client, "program", "example.test/program:1", &["--list"]).await;
    assert!(log.contains("survives_its_own_death: test"), "{log}");
}

#[tokio::test]
async fn a_registry_on_a_kept_volume_takes_and_gives_images_and_survives_its_own_death() {
    if testbed::skip(Mode::Node) {
        return;
    }
    let started = Instant::now();
    let node = Node::start(node::Options::default()).await.unwrap();
    println!("node started in {:?}", started.elapsed());
    let client = node.client().await.unwrap();
    services_are_reached_by_name(&node).await;

    let applied = Instant::now();
    run_registry(&client).await;
    let first = pod(&client, "app=registry", READY, |pod| has(pod, "Ready")).await;
    println!("registry ready {:?} after it was applied", applied.elapsed());

    let name = "registry.default.svc:5000/team/app:1";
    let digest = push_and_run(&node, &client, name).await;
    a_pod_reaches_a_service_by_name(&node, &client, name).await;
    a_dynamically_linked_program_runs_from_its_own_image(&node, &client).await;

    let killed = Instant::now();
    node.kill_container_process("default", first.metadata.name.as_deref().unwrap(), Signal::SIGKILL).await.unwrap();
    let restarted = pod(&client, "app=registry", "is back", |pod| {
        let count = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref())
            .map_or(0, |all| all[0].restart_count);
        count == 1 && has(pod, "Ready")
    })
    .await;
    println!("back {:?} after it was killed", killed.elapsed());
    assert_eq!(restarted.metadata.uid, first.metadata.uid, "the same pod, started again in place");
    assert_eq!(crane(&node, &["digest", "--insecure", name]).await, digest, "the data is still there");

    let stopping = Instant::now();
    let instance = node.sandbox().dir().to_owned();
    node.stop().unwrap();
    println!("stopped in {:?}", stopping.elapsed());
    assert!(stopping.elapsed() < Duration::from_secs(3));
    assert!(!instance.exists());
}

#[tokio::test]
async fn debians_containerd_serves_where_ours_cannot_be_built() {
    if testbed::skip(Mode::Node) {
        return;
    }
    let node = Node::start(node::Options { debian_containerd: true, ..node::Options::default() }).await.unwrap();
    let client = node.client().await.unwrap();
    let version = node.exec_in_node("ctr", ["--version"]).await.unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).contains(" 1."), "{version:?}");
    run_registry(&client).await;
    pod(&client, "app=registry", READY, |pod| has(pod, "Ready")).await;
    push_and_run(&node, &client, "registry.default.svc:5000/team/app:1").await;
    node.stop().unwrap();
}
