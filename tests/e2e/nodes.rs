//! Nodes that trust registries because the node agent, as the chart's DaemonSet runs it, has written so. No runtime is ever restarted.
//! CRI-O is also told as a person tells it, where there is no agent.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use kube::Api;
use kube::api::ListParams;
use private_registry_operator::node::trust_files::Runtime;
use serde_json::{Value, json};
use testbed::Mode;
use testbed::node::{Options, Trust};

use crate::cluster::{Cluster, OPERATOR, has_roles_only, node, said, wait, words};
use crate::place::{Place, program};
use crate::registry::Registry;

const AGENTS: &str = "private-registry-nodes";
const UNTRUSTED: &str = "x509: certificate signed by unknown authority";

impl Registry {
    /// Asks for trust on every node, and waits until the operator says that it is there.
    async fn is_trusted_by_nodes(&self) {
        self.change(json!({"trust": {"nodes": {}}})).await;
        self.is_proved().await;
    }

    /// Has the files written that CRI-O reads: by the node agent, or where there is none by somebody who has asked for the bundle.
    async fn is_trusted_by_cri_o(&self, host: &str) {
        if has_roles_only() {
            let folder = self.cluster.place.node().file("/etc/containers/certs.d");
            self.trusted_by(Runtime::Podman, &folder, host, &self.bundle().await);
        } else {
            self.change(json!({"trust": {"nodes": {"runtimes": ["Containerd", "Podman"]}}})).await;
            self.is_proved().await;
        }
    }

    /// The address of its Service.
    async fn address(&self) -> String {
        let service = self.own::<Service>().get(&self.name).await.unwrap();
        service.spec.unwrap().cluster_ip.unwrap()
    }

    /// Waits until it is trusted on every node, which a pull has proved, and no pod of that is left.
    async fn is_proved(&self) {
        // While its pod is replaced, there is nothing that a pull could prove.
        wait("each node is proved", async || {
            let told = self.condition("NodesTrusted", "Told").await.message;
            if told == "1 of 1 nodes have the bundle; each is proved by a pull" { Ok(()) } else { Err(told) }
        })
        .await;
        wait("no pod of the proof is left", async || {
            let selector = format!("privateregistry.dev/proof-of={}", self.name);
            let pods =
                self.cluster.api::<Pod>("private-registry-proofs").list(&ListParams::default().labels(&selector)).await;
            let pods = pods.map_err(words)?.items;
            if pods.is_empty() { Ok(()) } else { Err(format!("{} pods", pods.len())) }
        })
        .await;
    }

    /// Waits until the only node says this of it; `Null`: nothing.
    async fn node_says(&self, state: &Value) -> Value {
        wait(format!("the node says {state}"), async || {
            let reports = self.cluster.api::<ConfigMap>(AGENTS);
            let selector = ListParams::default().labels("privateregistry.dev/trust=report");
            let found = reports.list(&selector).await.map_err(words)?.items;
            let data = found.into_iter().next().and_then(|report| report.data).unwrap_or_default();
            let entry = data.get(&format!("{}.{}", self.namespace, self.name));
            let said: Value = entry.map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
            if said["state"] == *state { Ok(said) } else { Err(format!("{data:?}")) }
        })
        .await
    }
}

/// Images of one registry, so that none is at hand when its turn comes.
async fn with_images(cluster: &Cluster, namespace: &str) -> Registry {
    let registry = cluster.registry(namespace, "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    for (tag, content) in [("1", "before"), ("2", "trusted"), ("3", "after"), ("4", "rotated")] {
        admin.pushes(&format!("team/app:{tag}"), content).await;
    }
    registry
}

#[tokio::test]
async fn a_node_pulls_by_the_services_name_while_it_is_ordered_to_trust_and_neither_before_nor_after() {
    let Some(cluster) = node("makes the node trust a registry").await else { return };
    if has_roles_only() {
        // Nodes belong to no namespace: an operator that serves some of them says that it cannot.
        let registry = cluster.registry("trusted", "team-a", json!({"trust": {"nodes": {}}})).await;
        let why = registry.condition("NodesTrusted", "NoNodeAgents").await.message;
        assert!(why.contains("for an operator of the whole cluster"), "{why}");
        return;
    }
    let registry = with_images(&cluster, "trusted").await;
    let pull = Some("team-a-pull");
    registry.runs("before", "team/app:1", pull).await;
    registry.is_refused("before", UNTRUSTED).await;

    // An agent is root without a root's privileges: it asks for leave like anybody else.
    let folder = cluster.place.node().certs_d();
    let allow = |mode| fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    registry.change(json!({"trust": {"nodes": {}}})).await;
    wait("the reason is told", async || {
        let told = registry.condition("NodesTrusted", "NotAllTold").await.message;
        if told.contains("Permission denied; on nodes with SELinux") { Ok(()) } else { Err(told) }
    })
    .await;
    allow(0o755);
    registry.is_proved().await;
    registry.runs("trusted", "team/app:2", pull).await;
    registry.started("trusted").await;
    // Also the one that was refused, at its next try.
    registry.started("before").await;

    // A new authority is on the node before anything that it signed, and no runtime is restarted for it.
    registry.annotate("privateregistry.dev/renew", "ca-now-1").await;
    registry.runs("rotated", "team/app:4", pull).await;
    registry.started("rotated").await;
    registry.is_proved().await;

    registry.change(json!({"trust": null})).await;
    registry.node_says(&Value::Null).await;
    registry.runs("after", "team/app:3", pull).await;
    registry.is_refused("after", UNTRUSTED).await;
}

#[tokio::test]
async fn cri_o_pulls_once_it_is_told_whom_to_trust_and_follows_a_new_authority_without_a_restart() {
    let Some(cluster) = node("runs CRI-O on the node").await else { return };
    let registry = cluster.registry("trusted-cri-o", "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    let pushed = [admin.pushes("team/app:1", "trusted").await, admin.pushes("team/app:2", "rotated").await];
    let login = json!(registry.secret("team-a-admin").await);
    // The only name that both it and the node agent take: it cannot be led from a Service's name to the address.
    let host = format!("{}:{}", registry.address().await, registry.port);
    let crio = cluster.place.node().crio().await.unwrap();
    let pull = async |tag| crio.pull(&format!("{host}/team/app:{tag}"), &login).await.unwrap();
    let refused = pull("1").await.unwrap_err();
    assert!(refused.contains(UNTRUSTED), "{refused}");

    registry.is_trusted_by_cri_o(&host).await;
    assert_eq!(pull("1").await, Ok(format!("{host}/team/app@{}", pushed[0])));

    let before = (registry.pod().await, registry.bundle().await);
    registry.annotate("privateregistry.dev/renew", "ca-now-1").await;
    registry.successor_of(&before.0).await;
    assert_ne!(registry.bundle().await, before.1);
    registry.is_trusted_by_cri_o(&host).await;
    assert_eq!(pull("2").await, Ok(format!("{host}/team/app@{}", pushed[1])));
}

/// A cluster of this test's own, for a node that is like this; `None`, said aloud, where there can be none.
async fn own(options: Options) -> Option<Cluster> {
    if crate::place::is_given()
        && testbed::skip_because("only a kubeconfig was given, and this test needs another node")
    {
        return None;
    }
    if testbed::skip(Mode::Node) {
        return None;
    }
    let place = Arc::new(Place::own(options).await.unwrap());
    Some(Cluster { client: place.client().await, place })
}

#[tokio::test]
async fn a_containerd_that_nobody_has_configured_trusts_as_ordered_and_is_left_clean_by_the_documented_commands() {
    let Some(cluster) = own(Options { trust: Trust::Unconfigured, ..Options::default() }).await else { return };
    let home = cluster.place.node().file("/etc/containerd");
    let before = listed(&home);
    let by_port = format!("{}:30443", address_of_the_node(&cluster).await);
    let hosts = ["nodeTrust.hosts[0]=*=registry.example.com", &format!("nodeTrust.hosts[1]=*={by_port}")];
    cluster.install_for_all(&hosts).await.unwrap();
    let registry = with_images(&cluster, "trusted-unconfigured").await;
    let pull = Some("team-a-pull");
    registry.runs("before", "team/app:1", pull).await;
    registry.is_refused("before", UNTRUSTED).await;

    registry.is_trusted_by_nodes().await;
    registry.runs("trusted", "team/app:2", pull).await;
    registry.started("trusted").await;
    assert!(listed(&home).len() > before.len() + 4, "{:?}", listed(&home));

    // By every other name that an image may have: a host without a port, the Service's address, and a port of the node's.
    let names = json!(["registry.example.com", by_port]);
    let on_443 = json!({"type": "NodePort", "port": 443, "nodePort": 30443});
    registry.change(json!({"addresses": names, "service": on_443})).await;
    registry.is("Settled").await;
    let address = registry.address().await;
    let known = format!("127.0.0.1 localhost\n{address} registry.example.com\n");
    fs::write(cluster.place.node().file("/etc/hosts"), known).unwrap();
    for (pod, host) in [("by-host", "registry.example.com"), ("by-address", &address), ("by-port", &by_port)] {
        registry.runs_from(pod, host, "team/app:4", pull).await;
        registry.started(pod).await;
    }
    registry.change(json!({"addresses": null, "service": null})).await;
    registry.is_proved().await;

    cluster.install_for_all(&["nodeTrust.cleanUp=true"]).await.unwrap();
    let name = format!("daemonset/{OPERATOR}-nodes");
    kubectl(&cluster, &["--namespace", AGENTS, "rollout", "status", &name, "--timeout=2m"]);
    registry.node_says(&json!("NotSelected")).await;
    registry.runs("after", "team/app:3", pull).await;
    registry.is_refused("after", UNTRUSTED).await;
    cluster.install_for_all(&["nodeTrust.enabled=false"]).await.unwrap();

    let mut expected = before;
    // The runtime's own folders: an agent does not know who made them.
    expected.extend([String::new(), "certs.d".to_owned()]);
    expected.sort();
    expected.dedup();
    assert_eq!(listed(&home), expected);
    wait("nothing of the agents is left", async || {
        let agents = cluster.api::<DaemonSet>(AGENTS).list(&Default::default()).await.map_err(words)?.items;
        let space = Api::<Namespace>::all(cluster.client.clone()).get_opt(AGENTS).await.map_err(words)?;
        if agents.is_empty() && space.is_none() { Ok(()) } else { Err(format!("{} agents", agents.len())) }
    })
    .await;
}

#[tokio::test]
async fn an_older_containerd_is_served_where_its_configuration_says_and_told_what_to_do_where_it_says_nothing() {
    let Some(cluster) = own(Options { debian_containerd: true, ..Options::default() }).await else { return };
    // There is no configuration.
    cluster.install_for_all(&["nodeTrust.paths.containerd=/etc/containerd"]).await.unwrap();
    let registry = with_images(&cluster, "trusted-older").await;
    registry.change(json!({"trust": {"nodes": {}}})).await;
    let refused = registry.node_says(&json!("Refused")).await;
    let words = "containerd has no config_path: set it to /etc/containerd/certs.d in /etc/containerd/config.toml and restart containerd";
    assert_eq!(refused["message"], words);
    registry.runs("before", "team/app:1", Some("team-a-pull")).await;
    registry.is_refused("before", UNTRUSTED).await;

    // The folder of the configuration that it has.
    cluster.install_for_all(&[]).await.unwrap();
    registry.is_proved().await;
    registry.runs("trusted", "team/app:2", Some("team-a-pull")).await;
    registry.started("trusted").await;
}

async fn address_of_the_node(cluster: &Cluster) -> String {
    let nodes = Api::<Node>::all(cluster.client.clone()).list(&Default::default()).await.unwrap().items;
    let addresses = nodes.into_iter().next().and_then(|node| node.status?.addresses).unwrap_or_default();
    addresses.into_iter().find(|found| found.type_ == "InternalIP").expect("an address").address
}

/// Everything below a folder, and the folder itself as an empty path; nothing, if it is not there.
fn listed(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop().filter(|path| path.exists()) {
        found.push(path.strip_prefix(folder).unwrap().display().to_string());
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) {
    let mut command = Command::new(program("kubectl"));
    let output = command.arg("--kubeconfig").arg(cluster.place.kubeconfig()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
}
