//! The cluster that a command is about: found as kubectl finds it, and asked one thing at a time.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use operator_engine::process::api_error;
use operator_engine::process::client::{ClientSettings, locate};
use operator_engine::process::flag_values;
use private_registry_operator::api::PrivateRegistry;
use private_registry_operator::desired::secrets::{BUNDLE_KEY, REQUEST_KEY};
use private_registry_operator::model::{Child, RegistryName, answer_secret};
use serde_json::Value;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// As whom we write.
const MANAGER: &str = "kubectl-registry";

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
    client: Client,
    pub(crate) namespace: String,
    pub(crate) name: RegistryName,
}

impl Place {
    /// The registry of this name. Sends nothing yet.
    pub(crate) async fn registry(&self, name: &RegistryName) -> Result<Registry> {
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
        let client = Client::try_from(config).map_err(explained).context("connect to the cluster")?;
        Ok(Registry { client, namespace, name: name.clone() })
    }
}

impl Registry {
    /// What a user calls it.
    pub(crate) fn title(&self) -> String {
        format!("PrivateRegistry {}/{}", self.namespace, self.name)
    }

    pub(crate) async fn read(&self) -> Result<PrivateRegistry> {
        let found = self.api().get_opt(self.name.as_str()).await;
        match found.map_err(explained).with_context(|| format!("read {}", self.title()))? {
            Some(registry) => Ok(registry),
            None => bail!(
                "there is no {}: give its namespace with -n; kubectl get privateregistries --all-namespaces shows all",
                self.title()
            ),
        }
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

    fn api(&self) -> Api<PrivateRegistry> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Runs what waits for answers.
pub(crate) fn wait<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?.block_on(work)
}

/// A name of a registry on the command line.
pub(crate) fn name(text: &str) -> Result<RegistryName, String> {
    // kubectl's own way of naming things.
    let name = ["privateregistry/", "privateregistries/", "preg/"].iter().find_map(|kind| text.strip_prefix(kind));
    RegistryName::parse(name.unwrap_or(text)).map_err(|rule| format!("a registry's name {rule}"))
}

#[allow(clippy::needless_pass_by_value, reason = "shorter where it is used")]
fn explained(error: kube::Error) -> anyhow::Error {
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
