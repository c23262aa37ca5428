//! Nodes that trust registries because the node agent, as the chart's DaemonSet runs it, has written so. No runtime is ever restarted.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::Mode;
use testbed::node::Trust;

use crate::cluster::{Cluster, OPERATOR, SYSTEM, node, said, wait, words};
use crate::place::{Place, program};
use crate::registry::Registry;

const AGENTS: &str = "private-registry-nodes";
const UNTRUSTED: &str = "x509: certificate signed by unknown authority";

impl Registry {
    /// Orders trust in it, as the operator does.
    async fn order(&self, authorities: &str) {
        let service = self.own::<Service>().get(&self.name).await.unwrap();
        let address = service.spec.unwrap().cluster_ip.unwrap();
        let hosts = json!([{"host": self.host(), "endpoint": format!("{address}:{}", self.port)}]);
        let order = json!({"registry": format!("{}/{}", self.namespace, self.name), "bundle": "ab12", "hosts": hosts});
        let name = self.order_name();
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"privateregistry.dev/trust": "order"}},
            "data": {"ca.crt": authorities, "order.json": order.to_string()},
        });
        let maps = self.cluster.api::<ConfigMap>(SYSTEM);
        maps.patch(&name, &PatchParams::apply("operator").force(), &Patch::Apply(object)).await.unwrap();
    }

    fn order_name(&self) -> String {
        format!("trust.{}.{}", self.namespace, self.name)
    }

    /// Waits until the only node says this of it; `Null`: nothing.
    async fn node_says(&self, state: &Value) -> Value {
        wait(format!("the node says {state}"), async || {
            let reports = self.cluster.api::<ConfigMap>(AGENTS);
            let selector = kube::api::ListParams::default().labels("privateregistry.dev/trust=report");
            let found = reports.list(&selector).await.map_err(words)?.items;
            let data = found.into_iter().next().and_then(|report| report.data).unwrap_or_default();
            let entry = data.get(&format!("{}.{}", self.namespace, self.name));
            let said: Value = entry.map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
            if said["state"] == *state { Ok(said) } else { Err(format!("{data:?}")) }
        })
        .await
    }
}

/// Three images of one registry, so that none is at hand when its turn comes.
async fn with_images(cluster: &Cluster, namespace: &str) -> Registry {
    let registry = cluster.registry(namespace, "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    for (tag, content) in [("1", "before"), ("2", "trusted"), ("3", "after")] {
        admin.pushes(&format!("team/app:{tag}"), content).await;
    }
    registry
}

#[tokio::test]
async fn a_node_pulls_by_the_services_name_while_it_is_ordered_to_trust_and_neither_before_nor_after() {
    let Some(cluster) = node("makes the node trust a registry").await else { return };
    let registry = with_images(&cluster, "trusted").await;
    let pull = Some("team-a-pull");
    registry.runs("before", "team/app:1", pull).await;
    registry.is_refused("before", UNTRUSTED).await;

    // An agent is root without a root's privileges: it asks for leave like anybody else.
    let folder = cluster.place.node().certs_d();
    let allow = |mode| fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    registry.order(&registry.bundle().await).await;
    let refused = registry.node_says(&json!("Refused")).await;
    assert!(refused["message"].as_str().unwrap().contains("Permission denied; on nodes with SELinux"), "{refused}");
    allow(0o755);
    registry.node_says(&json!("Written")).await;
    registry.runs("trusted", "team/app:2", pull).await;
    registry.started("trusted").await;
    // Also the one that was refused, at its next try.
    registry.started("before").await;

    cluster.api::<ConfigMap>(SYSTEM).delete(&registry.order_name(), &DeleteParams::default()).await.unwrap();
    registry.node_says(&Value::Null).await;
    registry.runs("after", "team/app:3", pull).await;
    registry.is_refused("after", UNTRUSTED).await;
}

#[tokio::test]
async fn a_containerd_that_nobody_has_configured_trusts_as_ordered_and_is_left_clean_by_the_documented_commands() {
    if crate::place::is_given() && testbed::skip_because("only a kubeconfig was given, and this test looks into a node")
    {
        return;
    }
    if testbed::skip(Mode::Node) {
        return;
    }
    let place = Arc::new(Place::own(Trust::Unconfigured).await.unwrap());
    let cluster = Cluster { client: place.client().await, place };
    let home = cluster.place.node().file("/etc/containerd");
    let before = listed(&home);
    cluster.install_for_all(&[]).await.unwrap();
    let registry = with_images(&cluster, "trusted-unconfigured").await;
    let pull = Some("team-a-pull");
    registry.runs("before", "team/app:1", pull).await;
    registry.is_refused("before", UNTRUSTED).await;

    registry.order(&registry.bundle().await).await;
    registry.node_says(&json!("Written")).await;
    registry.runs("trusted", "team/app:2", pull).await;
    registry.started("trusted").await;
    assert!(listed(&home).len() > before.len() + 4, "{:?}", listed(&home));

    cluster.install_for_all(&["nodeTrust.cleanUp=true"]).await.unwrap();
    let name = format!("daemonset/{OPERATOR}-nodes");
    kubectl(&cluster, &["--namespace", AGENTS, "rollout", "status", &name, "--timeout=2m"]);
    registry.node_says(&json!("NotSelected")).await;
    registry.runs("after", "team/app:3", pull).await;
    registry.is_refused("after", UNTRUSTED).await;
    cluster.install_for_all(&["nodeTrust.enabled=false"]).await.unwrap();

    let mut expected = before;
    // The runtime's own folders: an agent does not know who made them.
    expected.extend(["".to_owned(), "certs.d".to_owned()]);
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
