//! What the demo reads of the cluster, and waits for: always with a limit, and with what was seen last when it runs out.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::progress::Step;

use super::{NAMESPACE, REGISTRY};

const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is in the namespace of the registry.
pub(super) struct Objects(Client);

impl Objects {
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    fn all<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.0.clone(), NAMESPACE)
    }

    pub(super) async fn get<K>(&self, name: &str) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.all().get(name).await.with_context(|| format!("read {} {NAMESPACE}/{name}", K::kind(&())))
    }

    /// Waits until the registry is ready, and shows what it says of itself meanwhile. Gives its address.
    pub(super) async fn ready_registry(&self, step: &Step) -> Result<String> {
        let kind = ApiResource {
            group: "privateregistry.dev".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "privateregistry.dev/v1alpha1".to_owned(),
            kind: "PrivateRegistry".to_owned(),
            plural: "privateregistries".to_owned(),
        };
        let registries: Api<DynamicObject> = Api::namespaced_with(self.0.clone(), NAMESPACE, &kind);
        wait("the registry is ready", async || {
            let registry = registries.get(REGISTRY).await?;
            let status = &registry.data["status"];
            let is_current = status["observedGeneration"].as_i64() == registry.metadata.generation;
            let conditions = status["conditions"].as_array();
            let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
            match ready.filter(|_| is_current) {
                Some(ready) if ready["status"] == "True" => {
                    Ok(Ok(status["address"].as_str().unwrap_or_default().to_owned()))
                }
                ready => {
                    let words = ready.and_then(|ready| ready["message"].as_str()).unwrap_or("not looked at yet");
                    step.note(words);
                    Ok(Err(words.to_owned()))
                }
            }
        })
        .await
    }

    /// Starts a pod with an image of the registry, and waits until it runs. One that an earlier demo left is replaced.
    pub(super) async fn run_pod(&self, name: &str, image: &str) -> Result<()> {
        let pods = self.all::<Pod>();
        if pods.get_opt(name).await?.is_some() {
            pods.delete(name, &DeleteParams::default().grace_period(0)).await?;
        }
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "imagePullSecrets": [{"name": format!("{REGISTRY}-pull")}],
                "containers": [{"name": name, "image": image, "imagePullPolicy": "Always"}],
            },
        }))?;
        pods.create(&PostParams::default(), &pod).await.with_context(|| format!("create Pod {NAMESPACE}/{name}"))?;
        wait(&format!("pod {name} runs"), async || {
            let pod: Pod = self.get(name).await?;
            Ok(if is_ready(&pod) { Ok(()) } else { Err(container(&pod)["state"].to_string()) })
        })
        .await
    }

    pub(super) async fn registry_pod(&self) -> Result<Pod> {
        let chosen = ListParams::default().labels(&format!("privateregistry.dev/registry={REGISTRY}"));
        let pods = self.all::<Pod>().list(&chosen).await?;
        let alive = pods.items.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
        alive.context("the registry has no pod")
    }

    /// Waits until the registry serves again: the process in the same pod, or another pod. Says which.
    pub(super) async fn is_back(&self, before: &Pod) -> Result<String> {
        let restarts = |pod: &Pod| container(pod)["restartCount"].as_i64().unwrap_or_default();
        wait("the registry is back", async || {
            let Ok(pod) = self.registry_pod().await else { return Ok(Err("no pod".to_owned())) };
            let (is_another, again) = (pod.uid() != before.uid(), restarts(&pod) - restarts(before));
            Ok(match is_another {
                true if is_ready(&pod) => Ok("another pod serves".to_owned()),
                false if is_ready(&pod) && again > 0 => Ok("its process was started again".to_owned()),
                _ => Err(format!("pod {}: {}", pod.name_any(), container(&pod))),
            })
        })
        .await
    }
}

fn container(pod: &Pod) -> Value {
    json!(pod.status)["containerStatuses"][0].clone()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn wait<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Result<T, String>>) -> Result<T> {
    let started = Instant::now();
    loop {
        match look().await? {
            Ok(found) => return Ok(found),
            Err(seen) if started.elapsed() > PATIENCE => bail!("{what}: not after {PATIENCE:?}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
