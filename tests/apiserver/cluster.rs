//! The one control plane of this test process, and a namespace in it for each test.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Weak};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{Event, Namespace as KubeNamespace, Secret, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use private_registry_operator::api;
use serde_json::{Value, json};
use testbed::control_plane::{Audit, Entry, Mark};
use testbed::fake_kubelet::{Behaviour, FakeKubelet};
use testbed::{ControlPlane, Family, Options, Progress, Tools, provisioner};
use tokio::sync::{Mutex, OnceCell};

use crate::object::{Object, resource};
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually};

/// Cluster addresses that this machine answers on: who connects to one is refused at once, or finds what a test let listen there, just as
/// behind a kube-proxy.
const SERVICE_ADDRESSES: &str = "127.96.0.0/16";

/// Not about registries: the election, and the question which rights there are.
const ASIDE: [&str; 3] = ["leases", "selfsubjectaccessreviews", "selfsubjectrulesreviews"];

/// Plurals of the kinds of the Gateway API that the operator writes.
pub const GATEWAY_KINDS: [&str; 3] = ["httproutes", "tlsroutes", "backendtlspolicies"];

/// Chart, rendered for the namespace of this name.
const RENDERED_FOR: &str = "rendered-for";

static CLUSTER: OnceCell<Arc<Cluster>> = OnceCell::const_new();

/// A control plane in which everything works except running a container. It ends when the last namespace of it is dropped; the common one with this process.
pub struct Cluster {
    // Who works with it ends before it does.
    pub kubelet: FakeKubelet,
    _provisioner: testbed::background::Background,
    pub plane: ControlPlane,
    helm: std::path::PathBuf,
    chart: OnceCell<Vec<Value>>,
    start_of_log: Mark,
}

/// The control plane, started by whoever asks first.
pub async fn cluster() -> Arc<Cluster> {
    Arc::clone(CLUSTER.get_or_init(async || Arc::new(Cluster::start().await.unwrap())).await)
}

/// A namespace of its own in it, called `purpose`. `None`: there can be no control plane here, and the test has been named as skipped.
pub async fn namespace(purpose: &str) -> Option<Namespace> {
    if testbed::skip(testbed::Mode::ControlPlane) {
        return None;
    }
    Some(cluster().await.namespace(purpose).await)
}

/// The same in a cluster that no other test uses, which this one may change as a whole. It ends with the test.
pub async fn namespace_of_its_own_cluster(purpose: &str) -> Option<Namespace> {
    if testbed::skip(testbed::Mode::ControlPlane) {
        return None;
    }
    Some(Arc::new(Cluster::start().await.unwrap()).namespace(purpose).await)
}

/// What several tests share: made by whoever comes first, dropped with the last of those that have it.
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub const fn new() -> Self {
        Self(Mutex::const_new(Weak::new()))
    }

    /// `None`: `make` gives none.
    pub async fn get(&self, make: impl AsyncFnOnce() -> Option<Arc<T>>) -> Option<Arc<T>> {
        let mut made = self.0.lock().await;
        if let Some(there) = made.upgrade() {
            return Some(there);
        }
        let new = make().await?;
        *made = Arc::downgrade(&new);
        Some(new)
    }
}

impl Cluster {
    async fn start() -> anyhow::Result<Self> {
        let mut options = Options::audited();
        options.apiserver.push(format!("--service-cluster-ip-range={SERVICE_ADDRESSES}"));
        let plane = ControlPlane::start(options).await?;
        let tools = tokio::task::spawn_blocking(|| Tools::ensure(&[Family::Helm], &Progress::auto())).await??;
        let kubelet = FakeKubelet::start(plane.kubeconfig(), "node-1").await?;
        let provisioner = provisioner::start(plane.kubeconfig(), provisioner::Settings::ApiOnly).await?;
        let client = plane.client().await?;
        let definitions = [vec![api::crd()], gateway_definitions().await].concat();
        Self::install(&client, &definitions).await;
        let start_of_log = plane.audit().await?.mark().await?;
        Ok(Self {
            kubelet,
            _provisioner: provisioner,
            plane,
            helm: tools.path("helm")?.to_owned(),
            chart: OnceCell::new(),
            start_of_log,
        })
    }

    /// Installs the operator's definition and waits until it is served.
    pub async fn install_definition(client: &Client) {
        Self::install(client, &[api::crd()]).await;
    }

    /// The kinds of the Gateway API, which most clusters have.
    pub async fn install_gateway_definitions(client: &Client) {
        Self::install(client, &gateway_definitions().await).await;
    }

    /// All before the first is waited for: what the API server makes anew with each definition it then makes once.
    async fn install(client: &Client, new: &[CustomResourceDefinition]) {
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        for definition in new {
            definitions.create(&PostParams::default(), definition).await.unwrap();
        }
        for name in new.iter().filter_map(|definition| definition.metadata.name.as_deref()) {
            eventually(PATIENCE, &format!("{name} is established"), async || {
                let live = definitions.get(name).await.map_err(|error| error.to_string())?;
                let conditions = live.status.and_then(|status| status.conditions).unwrap_or_default();
                let established =
                    conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True");
                if established { Ok(()) } else { Err(format!("{conditions:?}")) }
            })
            .await;
        }
    }

    /// Makes a namespace.
    pub async fn namespace(self: &Arc<Self>, purpose: &str) -> Namespace {
        let client = self.plane.client().await.unwrap();
        let mut namespace = KubeNamespace::default();
        namespace.metadata.name = Some(purpose.to_owned());
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        Namespace {
            cluster: Arc::clone(self),
            name: purpose.to_owned(),
            client,
            credentials: OnceCell::new(),
            credentials_for_the_cluster: OnceCell::new(),
        }
    }

    /// How the pods of the registry of this name behave, in every namespace.
    pub fn pods_of(&self, registry: &str, behaviour: Behaviour) {
        self.kubelet.behave([("privateregistry.dev/registry", registry)], behaviour);
    }

    /// Everything that was asked of the API server since the operator's definition was installed.
    pub async fn whole_log(&self) -> Vec<Entry> {
        self.plane.audit().await.unwrap().since(self.start_of_log).await.unwrap()
    }

    /// Objects that the chart makes with these values, for the release `operator` in `namespace`.
    pub fn chart(&self, namespace: &str, values: &[&str]) -> Vec<Value> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/private-registry-operator");
        let mut command = Command::new(&self.helm);
        command.arg("template").arg("operator").arg(folder).args([
            "--namespace",
            namespace,
            "--set",
            "image.repository=operator",
        ]);
        for value in values {
            command.args(["--set", value]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        documents(&String::from_utf8(output.stdout).unwrap())
    }

    /// What the chart makes for an operator that watches `namespace` and lives there.
    async fn chart_for(&self, namespace: &str) -> Vec<Value> {
        let rendered = self
            .chart
            .get_or_init(async || self.chart(RENDERED_FOR, &[&format!("watch.namespaces={{{RENDERED_FOR}}}")]));
        let text = serde_json::to_string(rendered.await).unwrap();
        serde_json::from_str(&text.replace(RENDERED_FOR, namespace)).unwrap()
    }
}

async fn gateway_definitions() -> Vec<CustomResourceDefinition> {
    let read = || testbed::tools::gateway_definitions(&GATEWAY_KINDS, &Progress::auto());
    let texts = tokio::task::spawn_blocking(read).await.unwrap().unwrap();
    texts.iter().map(|text| serde_saphyr::from_str(text).unwrap()).collect()
}

/// Objects of a text with several YAML documents.
pub fn documents(text: &str) -> Vec<Value> {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

/// One test's namespace.
pub struct Namespace {
    pub cluster: Arc<Cluster>,
    pub name: String,
    /// Has all rights; belongs to the test's runtime.
    pub client: Client,
    credentials: OnceCell<std::path::PathBuf>,
    credentials_for_the_cluster: OnceCell<std::path::PathBuf>,
}

impl Namespace {
    /// Applies a registry, as `kubectl apply --server-side` does.
    pub async fn registry(&self, name: &str, spec: Value) -> Registry<'_> {
        let registry = Registry::named(self, name);
        registry.apply(spec).await.unwrap();
        registry
    }

    /// An object of any kind that has entries in [`resource`].
    pub fn object(&self, kind: &str, name: &str) -> Object {
        Object::new(self.client.clone(), &self.name, kind, name)
    }

    /// Creates an object of any kind.
    pub async fn create(&self, mut object: Value) -> Object {
        object["metadata"]["namespace"] = json!(self.name);
        let kind = object["kind"].as_str().unwrap().to_owned();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.name, &resource(&kind));
        let made = api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        self.object(&kind, &made.metadata.name.unwrap())
    }

    /// Writes a Secret: created, or its data replaced.
    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) -> Object {
        let data: serde_json::Map<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.name);
        api.delete(name, &kube::api::DeleteParams::default()).await.ok();
        self.create(secret).await
    }

    /// Names of the objects of a kind.
    pub async fn names(&self, kind: &str) -> BTreeSet<String> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.name, &resource(kind));
        api.list(&kube::api::ListParams::default())
            .await
            .unwrap()
            .into_iter()
            .filter_map(|object| object.metadata.name)
            .collect()
    }

    /// Events about objects of this namespace, as text.
    pub async fn events(&self) -> String {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.name);
        serde_json::to_string(&api.list(&kube::api::ListParams::default()).await.unwrap().items).unwrap()
    }

    /// The operator's kubeconfig: the chart's ServiceAccount with the chart's roles, for this namespace alone.
    pub async fn credentials(&self) -> &Path {
        self.credentials
            .get_or_init(async || {
                for object in self.cluster.chart_for(&self.name).await {
                    if ["ServiceAccount", "Role", "RoleBinding"].contains(&object["kind"].as_str().unwrap()) {
                        self.create(object).await;
                    }
                }
                self.credentials_of("operator-private-registry-operator", 3600).await
            })
            .await
    }

    /// A kubeconfig of the chart's ServiceAccount, with the chart's roles for the whole cluster. Of its own cluster: there may be one such operator.
    pub async fn credentials_for_the_cluster(&self) -> &Path {
        self.credentials_for_the_cluster
            .get_or_init(async || {
                for object in self.cluster.chart(&self.name, &[]) {
                    let kind = object["kind"].as_str().unwrap();
                    match kind {
                        "ServiceAccount" | "Role" | "RoleBinding" => drop(self.create(object).await),
                        "ClusterRole" | "ClusterRoleBinding" => {
                            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(kind));
                            let object = serde_json::from_value(object).unwrap();
                            api.create(&PostParams::default(), &object).await.unwrap();
                        }
                        _ => {}
                    }
                }
                self.credentials_of("operator-private-registry-operator", 3600).await
            })
            .await
    }

    /// Another ServiceAccount with the operator's roles.
    pub async fn second_account(&self, name: &str) {
        self.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})).await;
        for mut object in self.cluster.chart_for(&self.name).await {
            if object["kind"] == "RoleBinding" {
                object["metadata"]["name"] = json!(format!("{}-{name}", object["metadata"]["name"].as_str().unwrap()));
                object["subjects"][0]["name"] = json!(name);
                self.create(object).await;
            }
        }
    }

    /// Waits until the API server knows of the roles of this ServiceAccount: it hears of them a moment after they were written.
    async fn roles_count(&self, account: &str) {
        let user = format!("system:serviceaccount:{}:{account}", self.name);
        let question = json!({"spec": {"user": user, "resourceAttributes": {"namespace": self.name, "verb": "list", "resource": "configmaps"}}});
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        eventually(PATIENCE, &format!("{user} has its rights"), async || {
            let question = serde_json::from_value(question.clone()).unwrap();
            let answer = reviews.create(&PostParams::default(), &question).await.map_err(|error| error.to_string())?;
            if answer.status.as_ref().is_some_and(|status| status.allowed) {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        })
        .await;
    }

    /// A kubeconfig with a token of this ServiceAccount. `seconds`: how long the token is valid, at least 600.
    pub async fn credentials_of(&self, account: &str, seconds: i64) -> std::path::PathBuf {
        self.roles_count(account).await;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.name);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
        let token = answer.status.unwrap().token.unwrap();
        self.cluster.plane.kubeconfig_with_token(&format!("{}-{account}", self.name), &token).unwrap()
    }

    /// The operator as the API server knows it.
    pub fn operators_name(&self) -> String {
        format!("system:serviceaccount:{}:operator-private-registry-operator", self.name)
    }

    /// A place in the API server's log.
    pub async fn mark(&self) -> Mark {
        self.audit().await.mark().await.unwrap()
    }

    /// What this namespace's operator asked of the API server since `mark`.
    pub async fn asked_since(&self, mark: Mark) -> Vec<Entry> {
        let operator = self.operators_name();
        let all = self.audit().await.since(mark).await.unwrap();
        // Nor is the question which kinds the cluster has, which names none.
        let is_aside = |entry: &Entry| entry.resource.is_empty() || ASIDE.contains(&entry.resource.as_str());
        let counts = |entry: &Entry| entry.user == operator && !is_aside(entry);
        all.into_iter().filter(counts).collect()
    }

    /// The part of [`Namespace::asked_since`] that may have changed something.
    pub async fn written_since(&self, mark: Mark) -> Vec<Entry> {
        self.asked_since(mark).await.into_iter().filter(Entry::is_write).collect()
    }

    async fn audit(&self) -> Audit {
        self.cluster.plane.audit().await.unwrap()
    }

    /// A client that applies as kubectl does.
    pub async fn apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        let kind = object["kind"].as_str().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.name, &resource(kind));
        api.patch(name, &PatchParams::apply("kubectl"), &Patch::Apply(object)).await
    }
}
