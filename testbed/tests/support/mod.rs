//! What the tests on real clusters share: writing objects, and waiting for what they become.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What was promised for an idle machine, on this one: longer by as many programs as want each core.
pub(crate) fn limit_here(promised: Duration) -> Duration {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = text.split(' ').next().unwrap().parse().unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    promised.mul_f64((load / cores as f64).max(1.0))
}

/// Creates an object in the namespace `default`.
pub(crate) async fn create<K>(client: &Client, object: Value) -> K
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let typed: K = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{object:#}: {error}"));
    let created = Api::default_namespaced(client.clone()).create(&PostParams::default(), &typed).await;
    created.unwrap_or_else(|error| panic!("create {object:#}: {error}"))
}

/// Creates a claim.
pub(crate) async fn claim(client: &Client, name: &str, class: Option<&str>, size: &str) {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": size}}});
    create::<PersistentVolumeClaim>(client, json!({"metadata": {"name": name}, "spec": spec})).await;
}

/// Asks for more storage.
pub(crate) async fn grow(client: &Client, name: &str, size: &str) -> kube::Result<PersistentVolumeClaim> {
    let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    Api::default_namespaced(client.clone()).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Waits until `look` gives something; says what it was waiting for, and what was seen last, when it takes too long.
pub(crate) async fn wait<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > limit => panic!("{what}: not after {limit:?}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Waits until the only pod with these labels is as `wanted`, and gives it.
pub(crate) async fn pod(client: &Client, labels: &str, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    wait(Duration::from_secs(60), &format!("pod {labels} {what}"), async || {
        let list = pods.list(&ListParams::default().labels(labels)).await.map_err(|error| error.to_string())?.items;
        match list.as_slice() {
            [only] if wanted(only) => Ok(only.clone()),
            all => Err(all.iter().map(|pod| format!("{:#}", json!(pod.status))).collect()),
        }
    })
    .await
}

/// Waits until a claim is as `wanted`.
pub(crate) async fn claim_is(client: &Client, name: &str, what: &str, wanted: impl Fn(&PersistentVolumeClaim) -> bool) {
    let claims = Api::<PersistentVolumeClaim>::default_namespaced(client.clone());
    wait(Duration::from_secs(60), &format!("claim {name} {what}"), async || {
        let claim = claims.get(name).await.map_err(|error| error.to_string())?;
        if wanted(&claim) { Ok(()) } else { Err(json!(claim.status).to_string()) }
    })
    .await;
}

/// The claim's capacity as its status says.
pub(crate) fn capacity(claim: &PersistentVolumeClaim) -> Option<&str> {
    Some(claim.status.as_ref()?.capacity.as_ref()?.get("storage")?.0.as_str())
}

/// Whether the pod has this condition with status True.
pub(crate) fn has(pod: &Pod, condition: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|known| known.type_ == condition && known.status == "True")
}
