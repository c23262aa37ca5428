//! One registry as its owner sees it: the manifest, what the status says, its pods and what belongs to it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use nix::sys::signal::Signal;
use private_registry_operator::api::{PrivateRegistry, PrivateRegistryStatus};
use serde_json::{Value, json};

use crate::client::Person;
use crate::cluster::{Cluster, brief, has, wait, words};

/// One registry.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) cluster: Cluster,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Port of its Service.
    pub(crate) port: u16,
}

impl Registry {
    /// Applies the manifest, as `kubectl apply --server-side` does.
    pub(crate) async fn apply(&self, mut spec: Value) {
        // The registries of all tests share a node of as many processors as this machine has.
        if spec["pod"]["resources"].is_null() {
            spec["pod"]["resources"] = json!({"requests": {"cpu": "1m", "memory": "16Mi"}});
        }
        let object = json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": self.name}, "spec": spec,
        });
        let applied = self.api().patch(&self.name, &PatchParams::apply("user").force(), &Patch::Apply(&object)).await;
        applied.unwrap_or_else(|error| panic!("apply {object:#}: {error}"));
    }

    /// Changes the manifest by a merge patch of its spec.
    pub(crate) async fn change(&self, spec: Value) {
        self.cluster.patch::<PrivateRegistry>(&self.namespace, &self.name, json!({"spec": spec})).await;
    }

    /// Annotates the registry.
    pub(crate) async fn annotate(&self, annotation: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.cluster.patch::<PrivateRegistry>(&self.namespace, &self.name, patch).await;
    }

    /// Deletes the manifest and waits until the workload and everything that goes with it are gone.
    pub(crate) async fn delete(&self) {
        self.api().delete(&self.name, &DeleteParams::foreground()).await.unwrap();
        wait(format!("{} and its pods are gone", self.name), async || {
            let object = self.api().get_opt(&self.name).await.map_err(words)?;
            let service = self.own::<Service>().get_opt(&self.name).await.map_err(words)?;
            let pods = self.pods().await;
            if object.is_none() && service.is_none() && pods.is_empty() { Ok(()) } else { Err(brief(&pods)) }
        })
        .await;
    }

    /// Waits until it is as its manifest says, and serving.
    pub(crate) async fn ready(self) -> Self {
        self.is("Settled").await;
        self
    }

    /// Waits until `Ready`, true or false, has this reason, for the manifest as it is now.
    pub(crate) async fn is(&self, reason: &str) -> Condition {
        self.condition("Ready", reason).await
    }

    /// Waits until a condition has this reason, for the manifest as it is now.
    pub(crate) async fn condition(&self, kind: &str, reason: &str) -> Condition {
        wait(format!("{}/{} has {kind} {reason}", self.namespace, self.name), async || {
            let object = self.api().get(&self.name).await.map_err(words)?;
            let status = object.status.unwrap_or_default();
            let found = status.conditions.iter().find(|found| found.type_ == kind && found.reason == reason);
            match found.filter(|_| status.observed_generation == object.metadata.generation) {
                Some(found) => Ok(found.clone()),
                None => Err(self.seen(&status).await),
            }
        })
        .await
    }

    async fn seen(&self, status: &PrivateRegistryStatus) -> String {
        let said =
            |found: &Condition| format!("\n  {}={}/{}: {}", found.type_, found.status, found.reason, found.message);
        status.conditions.iter().map(said).collect::<String>() + &brief(&self.pods().await)
    }

    /// What its status says now.
    pub(crate) async fn status(&self) -> PrivateRegistryStatus {
        self.api().get(&self.name).await.unwrap().status.unwrap_or_default()
    }

    /// Its object.
    pub(crate) fn api(&self) -> Api<PrivateRegistry> {
        self.own()
    }

    /// Objects of its namespace.
    pub(crate) fn own<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        self.cluster.api(&self.namespace)
    }

    /// Its pods.
    pub(crate) async fn pods(&self) -> Vec<Pod> {
        self.cluster.pods(&self.namespace, &format!("privateregistry.dev/registry={}", self.name)).await
    }

    /// Waits for its only pod to be ready.
    pub(crate) async fn pod(&self) -> Pod {
        self.pod_that("is ready", |pod| has(pod, "Ready")).await
    }

    /// Waits until its only pod is as wanted.
    pub(crate) async fn pod_that(&self, what: &str, wanted: impl Fn(&Pod) -> bool) -> Pod {
        wait(format!("the pod of {}/{} {what}", self.namespace, self.name), async || {
            match self.pods().await.as_slice() {
                [only] if only.metadata.deletion_timestamp.is_none() && wanted(only) => Ok(only.clone()),
                pods => Err(self.seen(&self.status().await).await + if pods.is_empty() { "no pod" } else { "" }),
            }
        })
        .await
    }

    /// Waits until another pod than this one is ready.
    pub(crate) async fn successor_of(&self, pod: &Pod) -> Pod {
        self.pod_that("was replaced", |now| now.metadata.uid != pod.metadata.uid && has(now, "Ready")).await
    }

    /// Waits until the pod's process has been started so often again.
    pub(crate) async fn restarted(&self, times: i32) -> Pod {
        self.pod_that(&format!("was restarted {times} times"), |pod| restarts(pod) == times && has(pod, "Ready")).await
    }

    /// Waits until it has no pod.
    pub(crate) async fn stopped(&self) {
        wait(format!("{}/{} has no pod", self.namespace, self.name), async || self.has_no_pod().await).await;
    }

    /// Whether it has no pod.
    pub(crate) async fn has_no_pod(&self) -> Result<(), String> {
        let pods = self.pods().await;
        if pods.is_empty() { Ok(()) } else { Err(brief(&pods)) }
    }

    /// Ends its process by a signal, and gives the pod as it was before.
    pub(crate) async fn kill(&self, signal: Signal) -> Pod {
        let pod = self.pod().await;
        let name = pod.metadata.name.as_deref().unwrap();
        self.cluster.place.kill(&self.namespace, name, signal).await;
        pod
    }

    /// Deletes its pod, as a user would, and gives it as it was before.
    pub(crate) async fn delete_pod(&self) -> Pod {
        let pod = self.pod().await;
        self.own::<Pod>().delete(pod.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
        pod
    }

    /// What a container of its pod has said.
    pub(crate) async fn log_of(&self, pod: &str, container: &str) -> String {
        let of = kube::api::LogParams { container: Some(container.to_owned()), ..Default::default() };
        self.own::<Pod>().logs(pod, &of).await.unwrap()
    }

    /// `kubectl scale`.
    pub(crate) async fn scale(&self, replicas: i32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.own::<Deployment>().patch_scale(&self.name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Its Deployment.
    pub(crate) async fn deployment(&self) -> Deployment {
        self.own::<Deployment>().get(&self.name).await.unwrap()
    }

    /// Its claim.
    pub(crate) async fn claim(&self) -> PersistentVolumeClaim {
        self.own::<PersistentVolumeClaim>().get(&format!("{}-data", self.name)).await.unwrap()
    }

    /// A Secret of its namespace, as text.
    pub(crate) async fn secret(&self, name: &str) -> BTreeMap<String, String> {
        let data = self.own::<Secret>().get(name).await.unwrap().data.unwrap_or_default();
        data.into_iter().map(|(key, value)| (key, String::from_utf8(value.0).unwrap())).collect()
    }

    /// Host and port as they stand in image names inside the cluster.
    pub(crate) fn host(&self) -> String {
        let host = format!("{}.{}.svc", self.name, self.namespace);
        if self.port == 443 { host } else { format!("{host}:{}", self.port) }
    }

    /// The authorities that its clients must trust.
    pub(crate) async fn bundle(&self) -> String {
        let maps = self.own::<k8s_openapi::api::core::v1::ConfigMap>();
        let map = maps.get(&format!("{}-ca-bundle", self.name)).await.unwrap();
        map.data.unwrap_or_default().remove("ca.crt").unwrap()
    }

    /// Somebody who trusts it and has the generated login.
    pub(crate) async fn admin(&self) -> Person {
        let login = self.secret(&format!("{}-admin", self.name)).await;
        self.user(&login["username"], &login["password"]).await
    }

    /// Somebody who trusts it and logs in like this.
    pub(crate) async fn user(&self, name: &str, password: &str) -> Person {
        Person::new(self).trusting(&self.bundle().await).logged_in(name, password)
    }

    /// Somebody who trusts it and has no login.
    pub(crate) async fn stranger(&self) -> Person {
        Person::new(self).trusting(&self.bundle().await)
    }
}

/// How often the registry's process was started again.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    status.into_iter().flatten().map(|container| container.restart_count).sum()
}
