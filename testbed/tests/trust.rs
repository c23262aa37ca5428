//! Where a containerd that nobody has configured looks for the authorities of registries, found out by real pulls of the kubelet. Needs root on Linux.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::json;
use support::{create, has, pod, wait};
use testbed::node::{self, Trust};
use testbed::{Family, Mode, Node, Progress, Tools, image};

/// The folder that containerd's documentation names.
const DOCUMENTED: &str = "/etc/containerd/certs.d";

/// What containerd 2.2 and newer have as the default: a list, which is taken for the name of one folder.
const LITERAL: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";

const PORT: u16 = 5443;

/// Runs a registry with TLS on the node's address, beside the cluster, with an image in it. Gives its host, and the certificate that clients must trust.
async fn serve(node: &Node) -> (String, String) {
    let address = node.sandbox().node_address().unwrap().to_string();
    let signed = rcgen::generate_simple_self_signed([address.clone()]).unwrap();
    let certificate = signed.cert.pem();
    let folder = node.sandbox().dir().join("registry");
    fs::create_dir(&folder).unwrap();
    let (crt, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    fs::write(&crt, &certificate).unwrap();
    fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    let configuration = json!({
        "version": "0.1", "storage": {"filesystem": {"rootdirectory": folder.join("data")}},
        "http": {"addr": format!("{address}:{PORT}"), "tls": {"certificate": crt, "key": key}},
    });
    fs::write(folder.join("config.yml"), configuration.to_string()).unwrap();
    let mut registry = node.command("registry");
    registry.arg("serve").arg(folder.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
    node.sandbox().start("registry", registry).unwrap();

    let tools = Tools::ensure(&[Family::Pause], &Progress::silent()).unwrap();
    let pushed = image::test_client(tools.path("pause").unwrap(), "unused/name:1", "trust").build().unwrap();
    pushed.write_layout(&folder.join("layout")).unwrap();
    let host = format!("{address}:{PORT}");
    let layout = folder.join("layout").display().to_string();
    wait(Duration::from_secs(20), "push", async || {
        let name = format!("{host}/team/app:1");
        let output = node.exec_in_node("crane", ["push", "--insecure", &layout, &name]).await.unwrap();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    })
    .await;
    (host, certificate)
}

/// Tells the node whom to trust, as docs/clients.md says, below the folder `certs_d`.
fn trust(certs_d: &Path, host: &str, certificate: &str) {
    let folder = certs_d.join(host);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("ca.crt"), certificate).unwrap();
    let text = format!(
        "server = \"https://{host}\"\n\n[host.\"https://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"ca.crt\"\n"
    );
    fs::write(folder.join("hosts.toml"), text).unwrap();
}

/// Makes a pod whose image the kubelet must pull.
async fn pull(client: &Client, name: &str, host: &str) {
    let container = json!({"name": "main", "image": format!("{host}/team/app:1"), "imagePullPolicy": "Always"});
    create::<Pod>(
        client,
        json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [container]}}),
    )
    .await;
}

/// What the kubelet says about the pull, once it is refused for want of trust.
fn is_not_trusted(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let waiting = statuses.and_then(|all| all.first()?.state.as_ref()?.waiting.as_ref());
    waiting.and_then(|waiting| waiting.message.as_ref()).is_some_and(|message| message.contains("x509"))
}

#[tokio::test]
async fn an_unconfigured_containerd_ignores_the_documented_folder_and_takes_a_list_of_two_for_one_name() {
    if testbed::skip(Mode::Node) {
        return;
    }
    let outside = [DOCUMENTED, LITERAL].map(|folder| fs::exists(folder).unwrap());
    let node = Node::start(node::Options { trust: Trust::Unconfigured, ..node::Options::default() }).await.unwrap();
    let client = node.client().await.unwrap();
    let (host, certificate) = serve(&node).await;
    assert_eq!(node.certs_d(), node.file(DOCUMENTED));

    trust(&node.file(DOCUMENTED), &host, &certificate);
    trust(&node.file("/etc/docker/certs.d"), &host, &certificate);
    pull(&client, "documented", &host).await;
    pod(&client, "app=documented", "is refused", is_not_trusted).await;

    trust(&node.file(LITERAL), &host, &certificate);
    pull(&client, "literal", &host).await;
    pod(&client, "app=literal", "runs an image that the kubelet pulled", |pod| has(pod, "Ready")).await;

    assert_eq!([DOCUMENTED, LITERAL].map(|folder| fs::exists(folder).unwrap()), outside, "it stays in the node");
    node.stop().unwrap();
}

#[tokio::test]
async fn a_containerd_that_is_told_one_folder_looks_there() {
    if testbed::skip(Mode::Node) {
        return;
    }
    let node = Node::start(node::Options::default()).await.unwrap();
    let client = node.client().await.unwrap();
    let (host, certificate) = serve(&node).await;
    for elsewhere in [DOCUMENTED, LITERAL] {
        trust(&node.file(elsewhere), &host, &certificate);
    }
    pull(&client, "elsewhere", &host).await;
    pod(&client, "app=elsewhere", "is refused", is_not_trusted).await;

    trust(&node.certs_d(), &host, &certificate);
    pull(&client, "told", &host).await;
    pod(&client, "app=told", "runs an image that the kubelet pulled", |pod| has(pod, "Ready")).await;
    node.stop().unwrap();
}
