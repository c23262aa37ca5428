//! The node agent as a process of its own, with the chart's rights and no more, on a node whose disk is a folder.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client};
use nix::sys::signal::Signal;
use private_registry_operator::pki::Bundle;
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::control_plane::{Entry, Mark};
use testbed::sandbox::{Place, Process};

use crate::cluster::{Namespace, namespace, namespace_of_its_own_cluster};
use crate::operator::{PROGRAM, free_address};
use crate::wait::{PATIENCE, always, eventually, within};

const HOST: &str = "team-a.registries.svc:5000";
const CERTS: &str = "etc/containerd/certs.d";

/// A node, its agent's rights and its disk.
struct Site<'a> {
    orders: &'a Namespace,
    /// Namespace of the agents, and name of what the chart made for them.
    agents: String,
    node: String,
    disk: TempDir,
}

struct Agent {
    process: Process,
    address: SocketAddr,
}

fn authority() -> String {
    rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem()
}

fn order(registry: &str, host: &str) -> Value {
    json!({"registry": registry, "bundle": "ab12", "hosts": [{"host": host, "endpoint": "10.96.0.9:5000"}]})
}

/// How an object of the chart is addressed.
fn cluster_resource(object: &Value) -> ApiResource {
    let (kind, api) = (object["kind"].as_str().unwrap(), object["apiVersion"].as_str().unwrap());
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let plural = format!("{}s", kind.to_lowercase()).replace("policys", "policies");
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
}

async fn create(client: &Client, object: &Value) {
    let resource = cluster_resource(object);
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let made = api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await;
    made.unwrap_or_else(|error| panic!("create {object:#}: {error}"));
}

impl Namespace {
    /// A node with what the chart makes for the agents whose orders lie in this namespace, but no agent yet.
    async fn site(&self) -> Site<'_> {
        let agents = format!("{}-nodes", self.name);
        let values = [
            "nodeTrust.enabled=true".to_owned(),
            format!("nodeTrust.namespace={agents}"),
            format!("nodeTrust.proofNamespace={}-proofs", self.name),
            format!("fullnameOverride={}", self.name),
        ];
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        let is_of_agents = |object: &&Value| {
            let labels = &object["metadata"]["labels"];
            labels["app.kubernetes.io/name"].as_str().is_some_and(|name| name.ends_with("-node-agent"))
        };
        let mut objects: Vec<_> =
            self.cluster.chart(&self.name, &values).iter().filter(is_of_agents).cloned().collect();
        objects.retain(|object| object["kind"] != "DaemonSet");
        objects.sort_by_key(|object| object["kind"] != "Namespace");
        for object in &objects {
            create(&self.client, object).await;
        }
        let site =
            Site { orders: self, agents, node: format!("{}-node", self.name), disk: tempfile::tempdir().unwrap() };
        site.is_a_node(&site.node).await;
        let text =
            "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";
        site.put("etc/containerd/config.toml", text);
        site
    }
}

impl Site<'_> {
    async fn is_a_node(&self, name: &str) {
        let nodes: Api<Node> = Api::all(self.orders.client.clone());
        let object = json!({"metadata": {"name": name, "labels": {"pool": "web"}}});
        nodes.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        let info = json!({
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "containerd://2.3.4", "kernelVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": "v1.37.1", "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
        });
        let patch = Patch::Merge(json!({"status": {"nodeInfo": info}}));
        nodes.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// A kubeconfig as a pod of the agents on a node has it.
    async fn credentials_on(&self, node: &str) -> PathBuf {
        let account = format!("{}-nodes", self.orders.name);
        let token = self.token(&account, Some(node)).await;
        self.orders.cluster.plane.kubeconfig_with_token(&format!("{}-{node}", self.agents), &token).unwrap()
    }

    async fn token(&self, account: &str, node: Option<&str>) -> String {
        use k8s_openapi::api::authentication::v1::TokenRequest;
        use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
        let accounts: Api<ServiceAccount> = Api::namespaced(self.orders.client.clone(), &self.agents);
        let mut request = json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 3600}});
        if let Some(node) = node {
            let pods: Api<Pod> = Api::namespaced(self.orders.client.clone(), &self.agents);
            let spec = json!({"nodeName": node, "serviceAccountName": account, "containers": [{"name": "agent", "image": "agent"}]});
            let pod = serde_json::from_value(json!({"metadata": {"generateName": "agent-"}, "spec": spec})).unwrap();
            let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
            request["spec"]["boundObjectRef"] =
                json!({"kind": "Pod", "apiVersion": "v1", "name": pod.metadata.name, "uid": pod.metadata.uid});
        }
        let request: TokenRequest = serde_json::from_value(request).unwrap();
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token.unwrap()
    }

    async fn agent(&self, more: &[&str]) -> Agent {
        let agent = self.started(more).await;
        agent.says("/readyz", 200, "").await;
        agent
    }

    async fn started(&self, more: &[&str]) -> Agent {
        let credentials = self.credentials_on(&self.node).await;
        let address = free_address();
        let sandbox = self.orders.cluster.plane.sandbox();
        let mut command = sandbox.command(Place::Host, PROGRAM);
        command.env_remove("RUST_LOG").env("KUBECONFIG", credentials);
        command.args(["node-agent", "--node", &self.node, "--namespace", &self.agents, "--orders", &self.orders.name]);
        command.arg("--root").arg(self.disk.path()).args(["--containerd", "/etc/containerd", "--look-every", "1s"]);
        command.args(["--listen", &address.to_string(), "--log-format", "text"]).args(more);
        let process = sandbox.start(&format!("agent-{}-{}", self.orders.name, address.port()), command).unwrap();
        Agent { process, address }
    }

    /// Writes an order, as the operator does.
    async fn orders(&self, name: &str, ca: &str, order: &Value) {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("trust.registries.{name}"), "labels": {"privateregistry.dev/trust": "order"}},
            "data": {"ca.crt": ca, "order.json": order.to_string()},
        });
        let params = PatchParams::apply("operator").force();
        self.maps(&self.orders.name)
            .patch(&format!("trust.registries.{name}"), &params, &Patch::Apply(object))
            .await
            .unwrap();
    }

    async fn takes_back(&self, name: &str) {
        self.maps(&self.orders.name)
            .delete(&format!("trust.registries.{name}"), &DeleteParams::default())
            .await
            .unwrap();
    }

    fn maps(&self, namespace: &str) -> Api<ConfigMap> {
        Api::namespaced(self.orders.client.clone(), namespace)
    }

    async fn report(&self) -> BTreeMap<String, Value> {
        let found = self.maps(&self.agents).get_opt(&format!("node.{}", self.node)).await.unwrap();
        let data = found.and_then(|map| map.data).unwrap_or_default();
        data.into_iter().map(|(key, text)| (key, serde_json::from_str(&text).unwrap())).collect()
    }

    /// What its agents asked of the API server; a watch that goes on is not ended, and so not in there.
    async fn asked_since(&self, mark: Mark) -> Vec<Entry> {
        let user = format!("system:serviceaccount:{}:{}-nodes", self.agents, self.orders.name);
        let all = self.orders.cluster.plane.audit().await.unwrap().since(mark).await.unwrap();
        all.into_iter().filter(|entry| entry.user == user).collect()
    }

    /// Waits until the node says this of a registry.
    async fn reports(&self, name: &str, state: &str, words: &str) {
        eventually(PATIENCE, &format!("{name} is {state}: {words}"), async || {
            let report = self.report().await;
            let entry = &report.get(&format!("registries.{name}")).cloned().unwrap_or_default();
            let is_so =
                entry["state"] == state && entry["message"].as_str().is_some_and(|message| message.contains(words));
            if is_so { Ok(()) } else { Err(format!("{report:?}")) }
        })
        .await;
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.disk.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.disk.path().join(path)).ok()
    }

    /// Waits until the certificates for a host are these; an empty text: until its folder is gone.
    async fn trusts(&self, host: &str, ca: &str) {
        let path = format!("{CERTS}/{host}");
        eventually(PATIENCE, &format!("{host} is trusted as it should be"), async || {
            let found = self.text(&format!("{path}/ca.crt")).unwrap_or_default();
            let is_gone = !self.disk.path().join(&path).exists();
            if Bundle::read(&found) == Bundle::read(ca) && is_gone == ca.is_empty() { Ok(()) } else { Err(found) }
        })
        .await;
    }
}

impl Agent {
    async fn says(&self, path: &str, code: u16, words: &str) -> String {
        eventually(PATIENCE, &format!("{path} says {code} {words}"), async || {
            self.process.check().map_err(|error| format!("{error:#}"))?;
            match testbed::http::get(self.address, path).await {
                Ok((found, body)) if found == code && body.contains(words) => Ok(body),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    async fn stops(&self) {
        self.process.signal(Signal::SIGTERM).unwrap();
        let ended =
            eventually(Duration::from_secs(10), "it ends", async || self.process.exited().ok_or("it runs".to_owned()));
        assert!(ended.await.success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- last words of the node agent\n{}", self.process.last_words(40));
        }
        self.process.kill().ok();
    }
}

#[tokio::test]
async fn what_is_ordered_is_written_and_reported_with_the_rights_of_the_chart_and_no_others() {
    let Some(space) = namespace("nodes-ordered").await else { return };
    let site = space.site().await;
    let mark = space.mark().await;
    let agent = site.agent(&[]).await;
    let (first, second) = (authority(), authority());

    site.orders("team-a", &first, &order("registries/team-a", HOST)).await;
    site.trusts(HOST, &first).await;
    site.reports("team-a", "Written", "").await;
    assert!(site.text(&format!("{CERTS}/{HOST}/hosts.toml")).unwrap().contains("https://10.96.0.9:5000"));
    let report = site.maps(&site.agents).get(&format!("node.{}", site.node)).await.unwrap();
    let owner = &report.metadata.owner_references.unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", site.node.as_str()));
    assert_eq!(report.metadata.labels.unwrap()["privateregistry.dev/trust"], "report");

    // One authority takes over from another: both, then the new one.
    site.orders("team-a", &format!("{second}{first}"), &order("registries/team-a", HOST)).await;
    site.trusts(HOST, &format!("{second}{first}")).await;
    site.orders("team-a", &second, &order("registries/team-a", HOST)).await;
    site.trusts(HOST, &second).await;

    // Where nothing changes, nothing is asked; and what is there is not written again after a restart.
    let quiet = space.mark().await;
    always(Duration::from_secs(3), "it is trusted", async || {
        site.text(&format!("{CERTS}/{HOST}/ca.crt")).map(|_| ()).ok_or("it is gone".to_owned())
    })
    .await;
    assert_eq!(site.asked_since(quiet).await, []);
    agent.stops().await;
    let agent = site.agent(&[]).await;
    assert!(site.asked_since(quiet).await.iter().all(|entry| !entry.is_write()));

    site.takes_back("team-a").await;
    site.trusts(HOST, "").await;
    eventually(PATIENCE, "the report forgets it", async || {
        let report = site.report().await;
        if report.is_empty() { Ok(()) } else { Err(format!("{report:?}")) }
    })
    .await;
    agent.stops().await;

    let asked = site.asked_since(mark).await;
    assert!(asked.iter().all(|entry| entry.code < 300 || entry.code == 404), "{asked:?}");
}

#[tokio::test]
async fn what_is_taken_back_while_the_agent_is_down_is_removed_when_it_comes() {
    let Some(space) = namespace("nodes-down").await else { return };
    let site = space.site().await;
    let ca = authority();
    site.orders("team-a", &ca, &order("registries/team-a", HOST)).await;
    site.orders("team-b", &ca, &order("registries/team-b", "team-b.registries.svc:5000")).await;
    let agent = site.agent(&[]).await;
    site.reports("team-b", "Written", "").await;
    agent.stops().await;

    site.takes_back("team-a").await;
    site.trusts(HOST, &ca).await;
    let _again = site.agent(&[]).await;
    site.trusts(HOST, "").await;
    site.trusts("team-b.registries.svc:5000", &ca).await;
}

#[tokio::test]
async fn a_node_follows_the_orders_that_its_labels_are_meant_by() {
    let Some(space) = namespace("nodes-selected").await else { return };
    let site = space.site().await;
    let _agent = site.agent(&[]).await;
    let ca = authority();
    let mut text = order("registries/team-a", HOST);
    text["nodes"] = json!({"matchLabels": {"pool": "build"}});
    site.orders("team-a", &ca, &text).await;
    site.reports("team-a", "NotSelected", "").await;
    site.trusts(HOST, "").await;

    let nodes: Api<Node> = Api::all(space.client.clone());
    let label = |pool: &str| Patch::Merge(json!({"metadata": {"labels": {"pool": pool}}}));
    nodes.patch(&site.node, &PatchParams::default(), &label("build")).await.unwrap();
    // Labels are read again when orders change.
    site.orders("team-b", &ca, &order("registries/team-b", "b.example")).await;
    site.reports("team-a", "Written", "").await;
    site.trusts(HOST, &ca).await;

    nodes.patch(&site.node, &PatchParams::default(), &label("web")).await.unwrap();
    site.takes_back("team-b").await;
    site.reports("team-a", "NotSelected", "").await;
    site.trusts(HOST, "").await;
}

#[tokio::test]
async fn what_stands_in_the_way_is_reported_with_its_path_stops_no_other_and_heals() {
    let Some(space) = namespace("nodes-foreign").await else { return };
    let site = space.site().await;
    let (ca, theirs) = (authority(), authority());
    let foreign = format!("{CERTS}/{HOST}/ca.crt");
    site.put(&foreign, &theirs);
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), site.disk.path().join(CERTS).join("linked.example")).unwrap();
    site.put(
        &format!("{CERTS}/.private-registry-agent.full.example.draft"),
        "root may write anywhere, but not a folder into a file",
    );
    let _agent = site.agent(&[]).await;
    for (name, host) in
        [("team-a", HOST), ("linked", "linked.example"), ("full", "full.example"), ("well", "well.example")]
    {
        site.orders(name, &ca, &order(&format!("registries/{name}"), host)).await;
    }

    site.reports("well", "Written", "").await;
    site.reports("team-a", "Refused", &format!("/{foreign} was not written by the node agent")).await;
    site.reports("linked", "Refused", &format!("/{CERTS}/linked.example is a link: move it away")).await;
    site.reports("full", "Refused", &format!("cannot write /{CERTS}/full.example")).await;
    assert_eq!(site.text(&foreign), Some(theirs));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);

    fs::remove_dir_all(site.disk.path().join(CERTS).join(HOST)).unwrap();
    fs::remove_file(site.disk.path().join(CERTS).join(".private-registry-agent.full.example.draft")).unwrap();
    fs::remove_file(site.disk.path().join(CERTS).join("linked.example")).unwrap();
    for name in ["team-a", "linked", "full"] {
        site.reports(name, "Written", "").await;
    }
    site.trusts(HOST, &ca).await;

    // What is spoilt later is put right, too.
    fs::remove_dir_all(site.disk.path().join(CERTS)).unwrap();
    site.trusts(HOST, &ca).await;
}

#[tokio::test]
async fn a_containerd_without_config_path_is_reported_until_it_has_one() {
    let Some(space) = namespace("nodes-config").await else { return };
    let site = space.site().await;
    let config = site.text("etc/containerd/config.toml").unwrap();
    site.put(
        "etc/containerd/config.toml",
        "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/elsewhere'\n",
    );
    let _agent = site.agent(&[]).await;
    let ca = authority();
    site.orders("team-a", &ca, &order("registries/team-a", HOST)).await;
    site.reports("team-a", "Refused", "containerd looks for hosts in /elsewhere").await;
    site.put("etc/containerd/config.toml", &config);
    site.reports("team-a", "Written", "").await;
    site.trusts(HOST, &ca).await;
}

#[tokio::test]
async fn a_host_is_the_first_registrys_until_it_lets_go() {
    let Some(space) = namespace("nodes-shared").await else { return };
    let site = space.site().await;
    let _agent = site.agent(&[]).await;
    let (first, second) = (authority(), authority());
    site.orders("team-b", &first, &order("registries/team-b", "shared.example")).await;
    site.reports("team-b", "Written", "").await;
    site.orders("team-a", &second, &order("registries/team-a", "shared.example")).await;
    site.reports("team-a", "Refused", "is for the registry registries/team-b").await;
    site.trusts("shared.example", &first).await;

    site.takes_back("team-b").await;
    site.reports("team-a", "Written", "").await;
    site.trusts("shared.example", &second).await;
}

#[tokio::test]
async fn a_tampered_order_changes_nothing_and_is_followed_again_once_it_is_right() {
    let Some(space) = namespace("nodes-tampered").await else { return };
    let site = space.site().await;
    let _agent = site.agent(&[]).await;
    let (ca, newer) = (authority(), authority());
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    site.orders("team-a", &ca, &order("registries/team-a", HOST)).await;
    site.reports("team-a", "Written", "").await;

    let escape = order("registries/team-a", "../../../cron.d/x");
    let stranger = order("registries/team-b", HOST);
    let good = order("registries/team-a", HOST);
    for (ca, order, words) in [
        (&newer, &escape, "a host that is none"),
        (&newer, &stranger, "another registry"),
        (&"rubbish".to_owned(), &good, "no certificate"),
        (&format!("{newer}{key}"), &good, "private key"),
        (&newer, &json!({"registry": "registries/team-a"}), "upgrade the chart"),
    ] {
        site.orders("team-a", ca, order).await;
        site.reports("team-a", "Refused", words).await;
    }
    site.trusts(HOST, &ca).await;
    let report = serde_json::to_string(&site.report().await).unwrap();
    assert!(!report.contains("PRIVATE KEY-----") && !report.contains("cron.d"), "{report}");
    assert!(!site.disk.path().join("etc/cron.d").exists());

    site.orders("team-b", &ca, &order("registries/team-b", "b.example")).await;
    site.reports("team-b", "Written", "").await;
    site.orders("team-a", &newer, &good).await;
    site.reports("team-a", "Written", "").await;
    site.trusts(HOST, &newer).await;
}

#[tokio::test]
async fn while_orders_cannot_be_read_nothing_is_taken_away_and_it_is_said() {
    let Some(space) = namespace("nodes-away").await else { return };
    let site = space.site().await;
    let ca = authority();
    site.orders("team-a", &ca, &order("registries/team-a", HOST)).await;
    let agent = site.agent(&[]).await;
    site.reports("team-a", "Written", "").await;
    agent.stops().await;

    let name = format!("{}-nodes", space.name);
    space.object("RoleBinding", &name).delete().await;
    let blind = site.started(&[]).await;
    blind.says("/readyz", 503, &format!("failed   orders: orders in {} cannot be watched", space.name)).await;
    always(Duration::from_secs(3), "what is there stays", async || {
        site.text(&format!("{CERTS}/{HOST}/ca.crt")).map(|_| ()).ok_or("it is gone".to_owned())
    })
    .await;
    let live = testbed::http::get(blind.address, "/healthz").await.unwrap();
    assert_eq!(live.0, 200, "a restart would not help");
}

#[tokio::test]
async fn an_agent_writes_the_report_of_its_own_node_and_of_no_other() {
    let Some(space) = namespace("nodes-policy").await else { return };
    let site = space.site().await;
    let other = format!("{}-other", site.node);
    site.is_a_node(&other).await;
    let account = format!("{}-nodes", space.name);
    let by = async |token: String, label: &str| {
        let path = space.cluster.plane.kubeconfig_with_token(&format!("{}-{label}", site.agents), &token).unwrap();
        testbed::control_plane::client(&path).await.unwrap()
    };
    let on_node = by(site.token(&account, Some(&site.node)).await, "bound").await;
    let anywhere = by(site.token(&account, None).await, "free").await;
    let write = async |client: &Client, name: &str| {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &site.agents);
        let map = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        maps.create(&PostParams::default(), &map).await.map(|_| ()).map_err(|error| error.to_string())
    };
    let own = format!("node.{}", site.node);
    // A policy counts a moment after it was written.
    eventually(PATIENCE, "the policy counts", async || match write(&on_node, &format!("node.{other}")).await {
        Err(error) if error.contains("the report of its own node and no other") => Ok(()),
        other => {
            site.maps(&site.agents).delete(&format!("node.{}-other", site.node), &DeleteParams::default()).await.ok();
            Err(format!("{other:?}"))
        }
    })
    .await;
    for (client, name) in [(&anywhere, own.as_str()), (&on_node, "kube-root-ca.crt.2")] {
        let error = write(client, name).await.unwrap_err();
        assert!(error.contains("the report of its own node and no other"), "{error}");
    }
    write(&on_node, &own).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(on_node.clone(), &site.agents);
    let patch = Patch::Merge(json!({"data": {"a": "b"}}));
    let foreign = maps.patch("kube-root-ca.crt", &PatchParams::default(), &patch).await.unwrap_err();
    assert!(foreign.to_string().contains("the report of its own node and no other"), "{foreign}");
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(on_node, &space.name);
    assert!(secrets.list(&Default::default()).await.unwrap_err().to_string().contains("forbidden"));
}

#[tokio::test]
async fn cleaning_up_leaves_the_node_as_it_was_and_is_ready_when_it_is_done() {
    let Some(space) = namespace("nodes-clean").await else { return };
    let site = space.site().await;
    let ca = authority();
    site.put(&format!("{CERTS}/foreign.example/ca.crt"), &ca);
    site.orders("team-a", &ca, &order("registries/team-a", HOST)).await;
    let agent = site.agent(&[]).await;
    site.reports("team-a", "Written", "").await;
    agent.stops().await;

    // Something that cannot be removed: a folder where a draft is made.
    let stuck = format!("{CERTS}/.private-registry-agent.{HOST}.draft");
    site.put(&stuck, "in the way");
    let cleaner = site.started(&["--clean-up"]).await;
    cleaner.says("/readyz", 503, &format!("failed   clean-up: cannot clear /{CERTS}/{HOST}")).await;
    // What cannot be looked into may hold something.
    let link = site.disk.path().join("etc/containerd/certs.d:");
    symlink("/nowhere", &link).unwrap();
    fs::remove_file(site.disk.path().join(&stuck)).unwrap();
    cleaner
        .says("/readyz", 503, "failed   clean-up: cannot look into /etc/containerd/certs.d:/etc/docker/certs.d")
        .await;
    fs::remove_file(link).unwrap();
    cleaner.says("/readyz", 200, "nothing of ours is left on this node").await;

    site.trusts(HOST, "").await;
    site.trusts("foreign.example", &ca).await;
    site.reports("team-a", "NotSelected", "nodeTrust.cleanUp").await;
    let left: Vec<_> =
        fs::read_dir(site.disk.path().join(CERTS)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["foreign.example"]);
}

/// A registry of which nothing runs: that matters to no node.
fn told(more: Value) -> Value {
    let mut spec = json!({"restartPolicy": {"type": "Never"}, "suspend": true, "trust": {"nodes": {}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[tokio::test]
async fn from_the_manifest_to_the_node_and_back_and_the_status_says_who_lacks_it() {
    let Some(system) = namespace_of_its_own_cluster("system").await else { return };
    let site = system.site().await;
    let apps = system.cluster.namespace("apps").await;
    let agents = format!("--node-agent-namespace={}", site.agents);

    // Without agents the registry says what is missing, and is ready all the same.
    let operator = system.operator_of_the_cluster(&[]).await;
    let registry = apps.registry("team-a", told(json!({}))).await;
    let words = registry.says("NodesTrusted", "False", "NoNodeAgents").await;
    assert!(words.contains("nodeTrust.enabled"), "{words}");
    registry.says("Ready", "True", "Suspended").await;
    operator.stop().await;

    let operator = system.operator_of_the_cluster(&[&agents]).await;
    registry.says("NodesTrusted", "False", "NoReports").await;
    let agent = site.agent(&[]).await;
    let words = registry.says("NodesTrusted", "True", "Told").await;
    assert_eq!(words, "1 of 1 nodes have the bundle");
    assert_eq!(registry.object.at("/status/trust/nodes").await, json!({"wanted": 1, "trusting": 1}));
    let bundle = registry.bundle().at("/data/ca.crt").await.as_str().unwrap().to_owned();
    site.trusts("team-a.apps.svc:5000", &bundle).await;
    let address = registry.service().at("/spec/clusterIP").await;
    site.trusts(&format!("{}:5000", address.as_str().unwrap()), &bundle).await;
    assert!(site.text(&format!("{CERTS}/team-a.apps:5000/ca.crt")).is_none(), "a short name may be somebody else's");

    // A spoilt order is put right; a new authority is on the node as soon as it is published.
    let order = system.object("ConfigMap", "trust.apps.team-a");
    order.edit(json!({"data": {"ca.crt": authority()}})).await;
    site.trusts("team-a.apps.svc:5000", &bundle).await;
    registry.object.annotate("privateregistry.dev/renew", "ca-1").await;
    registry.bundle().becomes(PATIENCE, "has two authorities", |live| live["data"]["ca.crt"] != bundle.as_str()).await;
    let both = registry.bundle().at("/data/ca.crt").await.as_str().unwrap().to_owned();
    site.trusts("team-a.apps.svc:5000", &both).await;

    // A node that is behind, and one that refuses, are named with the reason.
    let said = |bundle: &str, state: &str, message: &str| json!({"apps.team-a": json!({"bundle": bundle, "state": state, "message": message}).to_string()});
    for (node, data) in [
        ("late", said("00ff", "Written", "")),
        ("bare", said("00ff", "Refused", "containerd has no config_path: set it")),
        ("mad", json!({"apps.team-a": "{", "x": "y"})),
    ] {
        let labels =
            json!({"privateregistry.dev/trust": "report", "app.kubernetes.io/managed-by": "private-registry-operator"});
        let name = format!("node.{node}");
        let report = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": site.agents, "labels": labels}, "data": data});
        create(&system.client, &report).await;
    }
    eventually(PATIENCE, "both are named", async || {
        let words = registry.says("NodesTrusted", "False", "NotAllTold").await;
        let is_so = words.starts_with("1 of 4 nodes; ")
            && words.contains("bare: containerd has no config_path: set it")
            && words.contains("late: has not reported what is ordered now yet")
            && words.contains("other nodes: have not reported it yet");
        if is_so { Ok(()) } else { Err(words) }
    })
    .await;
    for node in ["late", "bare", "mad"] {
        site.maps(&site.agents).delete(&format!("node.{node}"), &DeleteParams::default()).await.unwrap();
    }
    registry.says("NodesTrusted", "True", "Told").await;

    // Only what an administrator allows, and only once.
    registry.apply(told(json!({"addresses": ["registry.example.com"]}))).await.unwrap();
    let words = registry.says("NodesTrusted", "False", "HostNotAllowed").await;
    assert!(words.contains("apps=registry.example.com"), "{words}");
    operator.stop().await;
    let operator = system.operator_of_the_cluster(&[&agents, "--node-trust-host=*=*.example.com"]).await;
    registry.says("NodesTrusted", "True", "Told").await;
    site.trusts("registry.example.com", &both).await;
    let second = system.registry("team-b", told(json!({"addresses": ["registry.example.com"]}))).await;
    let words = second.says("NodesTrusted", "False", "HostTaken").await;
    assert!(words.contains("registry.example.com"), "{words}");
    let theirs = second.bundle().at("/data/ca.crt").await.as_str().unwrap().to_owned();
    site.trusts("team-b.system.svc:5000", &theirs).await;
    site.trusts("registry.example.com", &both).await;

    // Taken out of the one, the other has it; and what is gone leaves nothing on a node.
    registry.apply(told(json!({}))).await.unwrap();
    second.says("NodesTrusted", "True", "Told").await;
    site.trusts("registry.example.com", &theirs).await;
    // Whoever has a host keeps it, although the other one is older.
    registry.apply(told(json!({"addresses": ["registry.example.com"]}))).await.unwrap();
    registry.says("NodesTrusted", "False", "HostTaken").await;
    always(within(2), "the host stays whose it is", async || {
        let found = site.text(&format!("{CERTS}/registry.example.com/ca.crt")).unwrap_or_default();
        if Bundle::read(&found) == Bundle::read(&theirs) { Ok(()) } else { Err(found) }
    })
    .await;
    second.says("NodesTrusted", "True", "Told").await;
    registry.apply(told(json!({"trust": {"nodes": {"selector": {"matchLabels": {"pool": "none"}}}}}))).await.unwrap();
    site.trusts("team-a.apps.svc:5000", "").await;
    eventually(PATIENCE, "no node is meant", async || {
        let words = registry.says("NodesTrusted", "True", "Told").await;
        if words == "none of the nodes is meant" { Ok(()) } else { Err(words) }
    })
    .await;
    registry.apply(told(json!({}))).await.unwrap();
    site.trusts("team-a.apps.svc:5000", &both).await;
    operator.stop().await;
    registry.object.delete().await;
    let _operator = system.operator_of_the_cluster(&[&agents]).await;
    registry.object.disappears(PATIENCE).await;
    order.disappears(PATIENCE).await;
    site.trusts("team-a.apps.svc:5000", "").await;
    second.apply(told(json!({"trust": null}))).await.unwrap();
    site.trusts("team-b.system.svc:5000", "").await;
    agent.stops().await;
}

#[tokio::test]
async fn a_thousand_registries_are_followed_within_the_charts_memory_and_reported_in_one_object() {
    let Some(space) = namespace("nodes-thousand").await else { return };
    let site = space.site().await;
    let agent = site.agent(&[]).await;
    let ca = authority();
    let order = |n: usize| {
        let (site, ca) = (&site, &ca);
        async move {
            let name = format!("r{n:04}");
            site.orders(&name, ca, &order(&format!("registries/{name}"), &format!("{name}.registries.svc:5000"))).await;
        }
    };
    futures::stream::iter(0..1001).for_each_concurrent(32, order).await;

    let (many, limit) = (Duration::from_secs(120), 64 << 10);
    eventually(many, "all but one are written", async || {
        let report = site.report().await;
        let written = report.values().filter(|entry| entry["state"] == "Written").count();
        let last = report.get("registries.r1000").map_or(Value::Null, |entry| entry["state"].clone());
        if (written, last) == (1000, json!("Refused")) { Ok(()) } else { Err(format!("{written} are written")) }
    })
    .await;
    assert_eq!(fs::read_dir(site.disk.path().join(CERTS)).unwrap().count(), 1000);
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process.pid())).unwrap();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    eprintln!("a node agent with 1,000 registries: {peak:?} KiB at most, not optimised");
    assert!(peak.is_some_and(|peak| peak < limit), "{peak:?} KiB");

    let all = ListParams::default().labels("privateregistry.dev/trust=order");
    site.maps(&space.name).delete_collection(&DeleteParams::default(), &all).await.unwrap();
    eventually(many, "nothing is left", async || {
        let left = fs::read_dir(site.disk.path().join(CERTS)).unwrap().count();
        if left == 0 && site.report().await.is_empty() { Ok(()) } else { Err(format!("{left} folders")) }
    })
    .await;
}

/// What a kubelet says of a pod whose image cannot be pulled.
async fn kubelet_says(pods: &Api<Pod>, node: &str, message: &str) {
    let pod = eventually(PATIENCE, &format!("a pod is there that proves trust on {node}"), async || {
        let all = pods.list(&ListParams::default().labels(PROOF)).await.unwrap().items;
        let found = all.into_iter().find(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node));
        found.filter(|pod| pod.metadata.deletion_timestamp.is_none()).ok_or_else(|| "none".to_owned())
    })
    .await;
    let state = json!({"waiting": {"reason": "ErrImagePull", "message": message}});
    let container =
        json!({"name": "proof", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    let patch = Patch::Merge(json!({"status": {"phase": "Pending", "containerStatuses": [container]}}));
    pods.patch_status(&pod.metadata.name.unwrap(), &PatchParams::default(), &patch).await.unwrap();
}

async fn no_proof_is_left(pods: &Api<Pod>) {
    eventually(PATIENCE, "no pod is left that proves trust", async || {
        let all = pods.list(&ListParams::default().labels(PROOF)).await.unwrap().items;
        if all.is_empty() { Ok(()) } else { Err(format!("{} pods", all.len())) }
    })
    .await;
}

const PROOF: &str = "privateregistry.dev/proof-of=team-a";

#[tokio::test]
async fn what_a_pull_tells_is_told_once_and_no_pod_of_it_is_left() {
    let Some(system) = namespace_of_its_own_cluster("system").await else { return };
    let site = system.site().await;
    let apps = system.cluster.namespace("apps").await;
    let agents = format!("--node-agent-namespace={}", site.agents);
    let agents = [&*agents, "--node-proof-namespace=system-proofs", "--prove-node-trust"];
    let pods: Api<Pod> = Api::namespaced(system.client.clone(), "system-proofs");
    // The chart's role for it; the operator of the tests has another name than the chart gives it here.
    let subject =
        json!({"kind": "ServiceAccount", "name": "operator-private-registry-operator", "namespace": "system"});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "system-nodes-proofs"});
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "proofs", "namespace": "system-proofs"},
        "roleRef": role, "subjects": [subject],
    });
    create(&system.client, &binding).await;
    let operator = system.operator_of_the_cluster(&agents).await;
    let _agent = site.agent(&[]).await;
    let registry = apps.registry("team-a", json!({"trust": {"nodes": {}}})).await;
    registry.tls().appears(PATIENCE).await;
    let _server = registry.serving("401 Unauthorized").await;
    registry.says_within(within(40), "Available", "True", "Answering").await;

    // It asks this registry for an image that nobody has, on this node and nowhere else, with no login and no token.
    let words = |words: &'static str| {
        let registry = &registry;
        async move {
            eventually(PATIENCE, words, async || {
                let told = registry.says("NodesTrusted", "False", "NotAllTold").await;
                if told.contains(words) { Ok(()) } else { Err(told) }
            })
            .await;
        }
    };
    words("system-node: is being proved by a pull").await;
    eventually(PATIENCE, "a pod is there", async || {
        let pods = pods.list(&ListParams::default().labels(PROOF)).await.unwrap().items;
        if pods.is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    let pod = pods.list(&ListParams::default().labels(PROOF)).await.unwrap().items.remove(0).spec.unwrap();
    let image = pod.containers[0].image.clone().unwrap();
    let nobodys = format!("team-a.apps.svc:5000/privateregistry.dev/trust-proof@sha256:{}", "0".repeat(64));
    assert_eq!(image, nobodys, "what somebody could push would run on every node");
    assert_eq!((pod.automount_service_account_token, pod.image_pull_secrets), (Some(false), None));

    kubelet_says(&pods, &site.node, "tls: failed to verify certificate: x509: certificate signed by unknown authority")
        .await;
    words("its runtime refuses the certificate although the files are there: tls: failed to verify").await;
    no_proof_is_left(&pods).await;
    registry.says("Ready", "True", "Settled").await;

    // What is ordered anew is proved anew; the operator may go in between.
    registry.apply(json!({"trust": {"nodes": {"runtimes": ["Containerd"]}}})).await.unwrap();
    words("is being proved by a pull").await;
    operator.stop().await;
    let operator = system.operator_of_the_cluster(&agents).await;
    kubelet_says(&pods, &site.node, "authorization failed: no basic auth credentials").await;
    let told = registry.says("NodesTrusted", "True", "Told").await;
    assert_eq!(told, "1 of 1 nodes have the bundle; each is proved by a pull");
    no_proof_is_left(&pods).await;

    // Known after a restart, and quiet.
    operator.stop().await;
    let operator = system.operator_of_the_cluster(&agents).await;
    registry.says("NodesTrusted", "True", "Told").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let quiet = system.mark().await;
    registry.object.annotate("example.com/nudge", "1").await;
    always(within(2), "nothing is asked", async || {
        let asked = system.asked_since(quiet).await;
        if asked.is_empty() { Ok(()) } else { Err(format!("{asked:?}")) }
    })
    .await;

    // Taken back while a pod is there, by the manifest and by deletion.
    registry.apply(json!({"trust": {"nodes": {}}})).await.unwrap();
    words("is being proved by a pull").await;
    registry.apply(json!({})).await.unwrap();
    no_proof_is_left(&pods).await;
    system.object("ConfigMap", "proofs.apps.team-a").disappears(PATIENCE).await;
    registry.apply(json!({"trust": {"nodes": {}}})).await.unwrap();
    words("is being proved by a pull").await;
    operator.stop().await;
    registry.object.delete().await;
    let _operator = system.operator_of_the_cluster(&agents).await;
    registry.object.disappears(PATIENCE).await;
    no_proof_is_left(&pods).await;
}
