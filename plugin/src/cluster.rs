//! The cluster that a command is about: found as kubectl finds it, and asked one thing at a time.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, Config};
use operator_engine::process::api_error;
use operator_engine::process::client::{ClientSettings, locate};
use operator_engine::process::flag_values;
use private_registry_operator::api::PrivateRegistry;
use private_registry_operator::credentials::UserName;
use private_registry_operator::desired::secrets::{BUNDLE_KEY, REQUEST_KEY};
use private_registry_operator::model::{Child, RegistryName, answer_secret, labels};
use serde_json::Value;

use crate::registry_client::Login;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long threads may take to notice that nobody waits for them.
const LEAVING: Duration = Duration::from_secs(2);
/// Objects in an answer.
pub(crate) const PAGE: u32 = 500;
/// More than any cluster has.
const MOST_REGISTRIES: usize = 100_000;
/// As whom we write.
pub(crate) const MANAGER: &str = "kubectl-registry";

/// Which cluster and namespace, with kubectl's own flags.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// Namespace of the registry [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME", value_parser = flag_values::name)]
    pub(crate) namespace: Option<String>,
    /// Context of the kubeconfig to use instead of its current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Kubeconfig file [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// One registry of a cluster.
pub(crate) struct Registry {
    pub(crate) client: Client,
    config: Config,
    pub(crate) namespace: String,
    pub(crate) name: RegistryName,
}

/// The registries of a namespace, or of all.
pub(crate) struct Registries {
    /// `None` stands for all.
    pub(crate) namespace: Option<String>,
    /// As they came, without what nobody reads.
    pub(crate) objects: Vec<Value>,
}

impl Place {
    /// The same cluster, or another context of the same file.
    pub(crate) fn another(&self, namespace: Option<String>, context: Option<String>) -> Self {
        Self {
            // Another context has a namespace of its own.
            namespace: namespace.or_else(|| self.namespace.clone().filter(|_| context.is_none())),
            context: context.or_else(|| self.context.clone()),
            kubeconfig: self.kubeconfig.clone(),
        }
    }

    /// The registry of this name. Sends nothing yet.
    pub(crate) async fn registry(&self, name: &RegistryName) -> Result<Registry> {
        Ok(self.connect().await?.registry(name))
    }

    /// Every registry of the namespace, or of all namespaces.
    pub(crate) async fn registries(&self, all: bool) -> Result<Registries> {
        self.connect().await?.registries(all).await
    }

    /// The cluster and namespace. Sends nothing yet.
    pub(crate) async fn connect(&self) -> Result<Connected> {
        let settings = ClientSettings {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            ..ClientSettings::default()
        };
        let mut config = locate(&settings).await?;
        config.connect_timeout = Some(PATIENCE);
        config.read_timeout = Some(PATIENCE);
        config.default_retry = false;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.trim().to_owned());
        let client = Client::try_from(config.clone()).map_err(explained).context("connect to the cluster")?;
        Ok(Connected { client, config, namespace })
    }
}

/// A namespace of a cluster.
pub(crate) struct Connected {
    pub(crate) client: Client,
    config: Config,
    pub(crate) namespace: String,
}

impl Connected {
    pub(crate) fn registry(&self, name: &RegistryName) -> Registry {
        let (client, config) = (self.client.clone(), self.config.clone());
        Registry { client, config, namespace: self.namespace.clone(), name: name.clone() }
    }

    /// Every registry of the namespace, or of all namespaces.
    pub(crate) async fn registries(&self, all: bool) -> Result<Registries> {
        let (client, namespace) = (self.client.clone(), self.namespace.clone());
        let resource = ApiResource::erase::<PrivateRegistry>(&());
        let api: Api<DynamicObject> =
            if all { Api::all_with(client, &resource) } else { Api::namespaced_with(client, &namespace, &resource) };
        let namespace = (!all).then_some(namespace);
        let mut objects = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let listed = api.list(&page).await;
            if matches!(&listed, Err(kube::Error::Api(status)) if status.code == 404) {
                bail!(
                    "this cluster has no PrivateRegistries: the chart private-registry-crds installs their definition"
                );
            }
            let listed = listed.map_err(explained).context("list PrivateRegistries")?;
            for mut object in listed.items {
                object.metadata.managed_fields = None;
                objects.push(serde_json::to_value(object).context("read a PrivateRegistry")?);
            }
            if objects.len() > MOST_REGISTRIES {
                bail!("there are more than {MOST_REGISTRIES} PrivateRegistries: list them by namespace");
            }
            match listed.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) => page = page.continue_token(&more),
                None => return Ok(Registries { namespace, objects }),
            }
        }
    }
}

impl Registry {
    /// What a user calls it.
    pub(crate) fn title(&self) -> String {
        format!("PrivateRegistry {}/{}", self.namespace, self.name)
    }

    /// Whether it is the same one, as far as names say.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.config.cluster_url == other.config.cluster_url
            && (&self.namespace, &self.name) == (&other.namespace, &other.name)
    }

    pub(crate) async fn read(&self) -> Result<PrivateRegistry> {
        let found = self.api().get_opt(self.name.as_str()).await;
        match found.map_err(explained).with_context(|| format!("read {}", self.title()))? {
            Some(registry) => Ok(registry),
            None => bail!(
                "there is no {}: give its namespace with -n; kubectl registry list --all-namespaces shows all",
                self.title()
            ),
        }
    }

    /// What has been said of it, the last first.
    pub(crate) async fn events(&self, found: &PrivateRegistry) -> Result<Vec<Event>> {
        let uid = found.metadata.uid.clone().unwrap_or_default();
        let of = ListParams::default().fields(&format!("involvedObject.uid={uid}")).limit(PAGE);
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let listed = api.list(&of).await.map_err(explained);
        Ok(listed.with_context(|| format!("list the events of {}", self.title()))?.items)
    }

    /// A client for what may be silent for as long as the registry is.
    pub(crate) fn patient_client(&self) -> Result<Client> {
        let mut config = self.config.clone();
        config.read_timeout = None;
        Client::try_from(config).map_err(explained).context("connect to the cluster")
    }

    /// A pod of it that answers, to be asked for a way there.
    pub(crate) async fn ready_pod(&self) -> Result<(Api<Pod>, String)> {
        let labels = labels::selector(&self.name).into_iter().map(|(key, value)| format!("{key}={value}"));
        let of = ListParams::default().labels(&labels.collect::<Vec<_>>().join(",")).limit(PAGE);
        let api: Api<Pod> = Api::namespaced(self.patient_client()?, &self.namespace);
        let listed = api.list(&of).await.map_err(explained);
        let pods = listed.with_context(|| format!("list the pods of {}", self.title()))?.items;
        match pods.into_iter().find(is_ready).and_then(|pod| pod.metadata.name) {
            Some(name) => Ok((api, name)),
            None => bail!(
                "no pod of {} is ready: kubectl registry status {} --namespace {} says why",
                self.title(),
                self.name,
                self.namespace
            ),
        }
    }

    /// The login that the operator made, if it made one.
    pub(crate) async fn admin(&self) -> Result<Option<Login>> {
        let name = self.name.child(Child::Admin);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(&name).await.map_err(explained);
        let found = found.with_context(|| {
            format!("read Secret {}/{name}, where the generated login is (or give another with --user)", self.namespace)
        })?;
        let Some(mut data) = found.and_then(|secret| secret.data) else { return Ok(None) };
        let mut text = |key: &str| {
            let value = data.remove(key).map(|value| String::from_utf8(value.0)).and_then(Result::ok);
            value.with_context(|| format!("Secret {}/{name} has no text under {key}", self.namespace))
        };
        let password = text("password")?.into();
        let user = UserName::new(&text("username")?).with_context(|| format!("Secret {}/{name}", self.namespace))?;
        Ok(Some(Login { user, password }))
    }

    /// Sets one of its annotations.
    pub(crate) async fn annotate(&self, key: &str, value: &str) -> Result<()> {
        let patch = serde_json::json!({"metadata": {"annotations": {key: value}}});
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patched = self.api().patch_metadata(self.name.as_str(), &parameters, &Patch::Merge::<Value>(patch)).await;
        patched.map_err(explained).with_context(|| format!("annotate {}", self.title()))?;
        Ok(())
    }

    /// Its request for a certificate, as text; `None` if there is none.
    pub(crate) async fn request(&self) -> Result<Option<String>> {
        self.text_of_config_map(&self.name.child(Child::Csr), REQUEST_KEY).await
    }

    /// The authorities in a Secret of the registry's namespace: what lies under `ca.crt`.
    pub(crate) async fn authorities(&self, secret: &str) -> Result<String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(secret).await.map_err(explained);
        let found = found.with_context(|| format!("read Secret {}/{secret}", self.namespace))?;
        let Some(found) = found else { bail!("there is no Secret {}/{secret}", self.namespace) };
        let text = found.data.unwrap_or_default().remove("ca.crt").unwrap_or_default();
        String::from_utf8(text.0).with_context(|| format!("Secret {}/{secret}: ca.crt is no text", self.namespace))
    }

    /// Stores a certificate chain where the operator looks for it. It goes with the registry.
    pub(crate) async fn hand_over(&self, found: &PrivateRegistry, chain: &str) -> Result<String> {
        let name = answer_secret(self.name.as_str());
        let owner = serde_json::json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "name": self.name.as_str(),
            "uid": found.metadata.uid,
        });
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": name, "ownerReferences": [owner]}, "stringData": {"tls.crt": chain},
        });
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let stored = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&secret)).await;
        stored.map_err(explained).with_context(|| format!("store Secret {}/{name}", self.namespace))?;
        Ok(name)
    }

    /// The public bundle of authorities, as text; `None` if there is no such ConfigMap.
    pub(crate) async fn bundle(&self) -> Result<Option<String>> {
        self.text_of_config_map(&self.name.child(Child::CaBundle), BUNDLE_KEY).await
    }

    async fn text_of_config_map(&self, name: &str, key: &str) -> Result<Option<String>> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await.map_err(explained);
        let found = found.with_context(|| format!("read ConfigMap {}/{name}", self.namespace))?;
        Ok(found.map(|map| map.data.unwrap_or_default().remove(key).unwrap_or_default()))
    }

    pub(crate) fn api(&self) -> Api<PrivateRegistry> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let is_ready = conditions.into_iter().flatten().any(|known| known.type_ == "Ready" && known.status == "True");
    is_ready && pod.metadata.deletion_timestamp.is_none()
}

/// Runs what waits for answers.
pub(crate) fn wait<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?.block_on(work)
}

/// Runs what has a limit for everything that it waits for. What the system still does then, such as looking for a name, is not waited for.
pub(crate) fn within_limits<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}

/// Runs what moves much: connections encrypt on threads of their own. Whoever ends it leaves nothing half done under a final name.
pub(crate) fn transfer<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("start")?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted; what is there already is not transferred again"),
        }
    });
    // Who reads standard input may wait for ever.
    runtime.shutdown_timeout(LEAVING);
    done
}

/// A name of a registry on the command line.
pub(crate) fn name(text: &str) -> Result<RegistryName, String> {
    // kubectl's own way of naming things.
    let name = ["privateregistry/", "privateregistries/", "preg/"].iter().find_map(|kind| text.strip_prefix(kind));
    RegistryName::parse(name.unwrap_or(text)).map_err(|rule| format!("a registry's name {rule}"))
}

#[allow(clippy::needless_pass_by_value, reason = "shorter where it is used")]
pub(crate) fn explained(error: kube::Error) -> anyhow::Error {
    anyhow::Error::msg(api_error::explain(&error))
}

/// `one`, `one and two`, `one, two and three`.
pub(crate) fn listed(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    match items.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}
