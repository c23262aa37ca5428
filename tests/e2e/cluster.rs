//! The cluster that all tests share, on which Helm installed the operator from its charts: for all namespaces, or with Roles only for those of
//! the tests. It starts with the first test and ends with the process. What is waited for, and what is printed when it does not come, is
//! decided here.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::Mode;
use tokio::sync::{Mutex, OnceCell};

use crate::place::{self, Place};
use crate::registry::Registry;

/// How long anything may take. The machine is shared and slow; only failures ever wait this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Name of the operator's release and of its Deployment.
pub(crate) const OPERATOR: &str = "private-registry-operator";
/// Namespace of the operator.
pub(crate) const SYSTEM: &str = "private-registry-system";
/// A second name of the registry's program, for changing the image.
pub(crate) const NEWER_REGISTRY: &str = "docker.io/library/registry:3.1.9";

/// `cluster`: install the operator for all namespaces. Otherwise it has Roles only, for the namespaces of the tests: whatever works with fewer
/// rights works with more.
const INSTALL: &str = "E2E_INSTALL";

/// The namespaces of the tests. An install that serves only what it was given must be given them beforehand.
const NAMESPACES: [&str; 79] = [
    "admins",
    "again",
    "always",
    "balanced",
    "certified",
    "chain",
    "completed",
    "configured",
    "conforming",
    "content",
    "content-files",
    "doctor",
    "doctor-report",
    "down-always",
    "down-completed",
    "down-deleted",
    "down-never",
    "down-stopped",
    "dying",
    "ended",
    "everybody",
    "failed",
    "files",
    "fixed",
    "foreign",
    "fronted",
    "fronted-alone",
    "fronted-broken",
    "fronted-gate",
    "fronted-job",
    "fronted-large",
    "fronted-renewed",
    "full",
    "gated",
    "growing",
    "identities",
    "issuers",
    "leaving",
    "limited",
    "long",
    "once",
    "own",
    "pulling",
    "pushing",
    "renewals",
    "renewed",
    "replaced",
    "requests",
    "retries",
    "rotating",
    "rotating-tokens",
    "routed",
    "scaled-always",
    "scaled-unless",
    "served",
    "shared",
    "slow-drain",
    "standard",
    "strangers",
    "suspend-a",
    "suspend-n",
    "suspend-o",
    "suspend-u",
    "terminal",
    "terminal-logins",
    "terminal-open",
    "terminal-status",
    "tokens",
    "tokens-removed",
    "trusted",
    "trusted-cri-o",
    "trusted-older",
    "trusted-unconfigured",
    "types",
    "unless-stopped",
    "untouched",
    "unwritable",
    "upgrades",
    "users",
];
/// The namespace of which the operator is told that certificates live [`SHORT_LIFE`], so that a renewal can be waited for.
pub(crate) const SHORT_LIVES: &str = "renewals";
const SHORT_LIFE: &str = "3m";
/// A namespace that no such install serves.
pub(crate) const UNSERVED: &str = "not-served";
/// The label of namespaces that tests made. They take no other.
const MADE_BY_TESTS: &str = "privateregistry.dev/e2e";

/// Whether the operator has Roles only.
pub(crate) fn has_roles_only() -> bool {
    std::env::var_os(INSTALL).is_none_or(|install| install != "cluster")
}

/// One test's view of a cluster: clients belong to the runtime of the test that made them.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) place: Arc<Place>,
    pub(crate) client: Client,
}

/// The shared cluster, with the operator; `None`, said aloud, where there can be none.
pub(crate) async fn cluster() -> Option<Cluster> {
    static SHARED: OnceCell<Result<Arc<Place>, String>> = OnceCell::const_new();
    if !place::is_given() && testbed::skip(Mode::Node) {
        return None;
    }
    let start = async || {
        let started = Instant::now();
        let place = Arc::new(Place::find().await.map_err(|error| format!("{error:#}"))?);
        let up = started.elapsed();
        let cluster = Cluster { client: place.client().await, place };
        cluster.begin().await?;
        println!("cluster there after {up:?}, operator installed after {:?}", started.elapsed());
        Ok(cluster.place)
    };
    let place = SHARED.get_or_init(start).await.clone().unwrap_or_else(|error| panic!("no cluster: {error}"));
    Some(Cluster { client: place.client().await, place })
}

/// The same for a test that needs a node's inside, and says what for: where only a kubeconfig was given, it is skipped.
pub(crate) async fn node(what_for: &str) -> Option<Cluster> {
    if place::is_given() && testbed::skip_because(&format!("only a kubeconfig was given, and this test {what_for}")) {
        return None;
    }
    cluster().await
}

impl Cluster {
    /// Clears what an earlier run left and installs the operator.
    async fn begin(&self) -> Result<(), String> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let made = ListParams::default().labels(MADE_BY_TESTS);
        for namespace in namespaces.list(&made).await.unwrap() {
            namespaces.delete(&namespace.metadata.name.unwrap(), &DeleteParams::default()).await.unwrap();
        }
        wait("the namespaces of an earlier run are gone", async || {
            let left = namespaces.list(&made).await.map_err(words)?.items;
            if left.is_empty() { Ok(()) } else { Err(format!("{} namespaces", left.len())) }
        })
        .await;
        if has_roles_only() {
            // One after the other into the list: as an array they have no room on a test's stack.
            futures::future::join_all(NAMESPACES.iter().map(|name| self.namespace(name))).await;
        }
        self.install(&[]).await
    }

    /// Installs both charts, or upgrades them: the operator's with these `--set` arguments beside those that every test needs.
    async fn install(&self, values: &[&str]) -> Result<(), String> {
        self.helm("private-registry-crds", "private-registry-crds", &[]).await?;
        let mut all = self.place.values();
        if has_roles_only() {
            all.push(format!("watch.namespaces={{{}}}", NAMESPACES.join(",")));
            all.push("nodeTrust.enabled=false".to_owned());
        } else {
            all.push("nodeTrust.paths.podman=/etc/containers".to_owned());
        }
        all.push(format!("extraArgs[0]=--short-certificates-for-tests={SHORT_LIVES}={SHORT_LIFE}"));
        // Kubelets are told of a new table at once.
        all.push("extraArgs[1]=--login-lead=10s".to_owned());
        all.extend(["logLevel=debug"].iter().chain(values).map(ToString::to_string));
        self.helm(OPERATOR, OPERATOR, &all).await
    }

    /// Installs the operator for all namespaces on a cluster of one's own, or upgrades it.
    pub(crate) async fn install_for_all(&self, values: &[&str]) -> Result<(), String> {
        self.helm("private-registry-crds", "private-registry-crds", &[]).await?;
        let all: Vec<_> = self.place.values().into_iter().chain(values.iter().map(ToString::to_string)).collect();
        self.helm(OPERATOR, OPERATOR, &all).await
    }

    async fn helm(&self, release: &str, chart: &str, values: &[String]) -> Result<(), String> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts").join(chart);
        let home = tempfile::tempdir().unwrap();
        let mut command = tokio::process::Command::new(place::program("helm"));
        command.args(["upgrade", "--install", release]).arg(chart);
        command.args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "5m"]);
        command.args(values.iter().flat_map(|value| ["--set", value]));
        command.arg("--kubeconfig").arg(self.place.kubeconfig());
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, home.path());
        }
        let output = command.output().await.unwrap();
        if output.status.success() {
            return Ok(());
        }
        let pods = self.pods(SYSTEM, "").await.iter().map(|pod| json!(pod.status).to_string()).collect::<String>();
        Err(format!("helm: {}\n{pods}", said(&output)))
    }

    /// A new namespace, in which Kubernetes refuses every pod that is not `restricted`.
    pub(crate) async fn namespace(&self, name: &str) {
        assert!(
            name == UNSERVED || NAMESPACES.contains(&name),
            "{name} is not in NAMESPACES, which lists what is served"
        );
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let labels = json!({MADE_BY_TESTS: "true", "pod-security.kubernetes.io/enforce": "restricted"});
        let object = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
        if let Err(error) = namespaces.create(&PostParams::default(), &object).await {
            let found = namespaces.get(name).await.unwrap_or_else(|_| panic!("create namespace {name}: {error}"));
            let ours = found.metadata.labels.is_some_and(|labels| labels.contains_key(MADE_BY_TESTS));
            assert!(ours, "namespace {name} exists and was not made by these tests: they do not touch it");
        }
        let accounts = self.api::<k8s_openapi::api::core::v1::ServiceAccount>(name);
        wait(format!("namespace {name} can run pods"), async || accounts.get("default").await.map_err(words)).await;
    }

    /// Applies a manifest as a user, in a namespace of its own. See [`Registry::ready`].
    pub(crate) async fn registry(&self, namespace: &str, name: &str, spec: Value) -> Registry {
        self.namespace(namespace).await;
        self.another(namespace, name, spec).await
    }

    /// The same in a namespace that exists.
    pub(crate) async fn another(&self, namespace: &str, name: &str, spec: Value) -> Registry {
        let registry =
            Registry { cluster: self.clone(), namespace: namespace.to_owned(), name: name.to_owned(), port: 5000 };
        registry.apply(spec).await;
        registry
    }

    /// Objects of a namespace.
    pub(crate) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates an object.
    pub(crate) async fn create<K>(&self, namespace: &str, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let typed: K = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{object:#}: {error}"));
        let created = self.api(namespace).create(&PostParams::default(), &typed).await;
        created.unwrap_or_else(|error| panic!("create {object:#}: {error}"))
    }

    /// Changes an object.
    pub(crate) async fn patch<K>(&self, namespace: &str, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let patched = self.api(namespace).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.unwrap_or_else(|error| panic!("change {name} by {patch}: {error}"))
    }

    /// Writes a Secret, new or not, with exactly these texts. (Server-side apply never removes a key that came as `stringData`.)
    pub(crate) async fn secret(&self, namespace: &str, name: &str, content: &[(&str, &str)]) {
        let data: BTreeMap<_, _> = content.iter().map(|(key, text)| (*key, STANDARD.encode(text))).collect();
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
        let secrets = self.api::<k8s_openapi::api::core::v1::Secret>(namespace);
        secrets.patch(name, &PatchParams::apply("user").force(), &Patch::Apply(object)).await.unwrap();
    }

    /// Pods with these labels.
    pub(crate) async fn pods(&self, namespace: &str, labels: &str) -> Vec<Pod> {
        let chosen = ListParams::default().labels(labels);
        self.api::<Pod>(namespace).list(&chosen).await.map(|list| list.items).unwrap_or_default()
    }

    /// Ends the operator's pod and waits for the next one.
    pub(crate) async fn restart_operator(&self) {
        let _alone = DISRUPTION.lock().await;
        let all = ListParams::default();
        self.api::<Pod>(SYSTEM).delete_collection(&DeleteParams::default(), &all).await.unwrap();
        self.operator_runs(1).await;
    }

    /// Does something while no operator runs.
    pub(crate) async fn without_operator<T>(&self, work: impl Future<Output = T>) -> T {
        let _alone = DISRUPTION.lock().await;
        self.patch::<Deployment>(SYSTEM, OPERATOR, json!({"spec": {"replicas": 0}})).await;
        self.operator_runs(0).await;
        let done = work.await;
        self.patch::<Deployment>(SYSTEM, OPERATOR, json!({"spec": {"replicas": 1}})).await;
        self.operator_runs(1).await;
        done
    }

    /// Upgrades the release with other values and waits until the new operator works.
    pub(crate) async fn upgrade(&self, values: &[&str]) {
        let _alone = DISRUPTION.lock().await;
        self.install(values).await.unwrap();
        self.operator_runs(1).await;
    }

    /// The operator's pods.
    pub(crate) async fn operator_pods(&self) -> Vec<Pod> {
        self.pods(SYSTEM, "app.kubernetes.io/name=private-registry-operator").await
    }

    async fn operator_runs(&self, count: usize) {
        wait(format!("{count} operator pods"), async || {
            let pods = self.operator_pods().await;
            let good = pods.iter().filter(|pod| has(pod, "Ready") && pod.metadata.deletion_timestamp.is_none()).count();
            if pods.len() == count && good == count { Ok(()) } else { Err(brief(&pods)) }
        })
        .await;
    }
}

/// What ends the operator for a while must not overlap.
static DISRUPTION: Mutex<()> = Mutex::const_new(());

/// Waits until `look` gives something; says what it waited for, and what was seen last, when it takes too long.
pub(crate) async fn wait<T>(what: impl Display, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    wait_for(PATIENCE, what, look).await
}

/// [`wait`] with another limit.
pub(crate) async fn wait_for<T>(
    limit: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > limit => panic!("{what}: not after {limit:?}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Looks for a while whether it stays so.
pub(crate) async fn stays(what: impl Display, mut look: impl AsyncFnMut() -> Result<(), String>) {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        if let Err(seen) = look().await {
            panic!("{what}: no more after {:?}: {seen}", started.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether the pod has this condition with status True.
pub(crate) fn has(pod: &Pod, condition: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|known| known.type_ == condition && known.status == "True")
}

/// Pods in a line each.
pub(crate) fn brief(pods: &[Pod]) -> String {
    let one = |pod: &Pod| {
        let status = json!(pod.status);
        let containers = [&status["initContainerStatuses"], &status["containerStatuses"]];
        let states: Vec<_> = containers
            .iter()
            .filter_map(|all| all.as_array())
            .flatten()
            .map(|container| format!("{} #{} {}", container["name"], container["restartCount"], container["state"]))
            .collect();
        let going = if pod.metadata.deletion_timestamp.is_some() { " (going)" } else { "" };
        format!(
            "\n  pod {}{going}: {} {}",
            pod.metadata.name.as_deref().unwrap_or_default(),
            status["phase"],
            states.join(", ")
        )
    };
    pods.iter().map(one).collect()
}

/// An error for the last line of a wait.
pub(crate) fn words(error: impl Display) -> String {
    error.to_string()
}

/// All that a program said.
pub(crate) fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}
