//! When an operator has nothing left to do.

use std::time::Duration;

use kube::api::ListParams;
use serde_json::{Value, json};

use crate::cluster::Namespace;
use crate::wait::eventually;

/// For many registries on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(240);

/// What ends by itself here, by condition and reason.
const WAITING: [(&str, &str); 4] = [
    ("Ready", "WaitingForLoadBalancer"),
    ("CertificateReady", "Progressing"),
    ("StorageReady", "Pending"),
    ("StorageReady", "Resizing"),
];

impl Namespace {
    /// Waits until the operator has looked at every manifest as it is now, and then wrote no child for a while. Pods may still come and go.
    pub async fn is_settled(&self) {
        eventually(LIMIT, "the operator has seen every manifest, and writes nothing more", async || {
            self.balances().await;
            let mark = self.mark().await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            let written = self.written_since(mark).await;
            let children =
                written.iter().filter(|entry| !["privateregistries", "events"].contains(&entry.resource.as_str()));
            let (children, behind) = (children.count(), self.behind().await);
            if children == 0 && behind.is_empty() {
                Ok(())
            } else {
                Err(format!("{children} writes, behind: {behind:?}"))
            }
        })
        .await;
    }

    /// Lets no pod come up here: hundreds of registries whose children are compared need none, and pods are what costs time.
    pub async fn without_pods(&self) {
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}});
        let quota = self.create(quota).await;
        quota.becomes(LIMIT, "is counted", |live| live["status"]["hard"]["pods"] == "0").await;
    }

    /// Gives load balancers that have none their address.
    async fn balances(&self) {
        let services = self.object("Service", "").api.list(&ListParams::default()).await.unwrap();
        for service in services {
            let live = serde_json::to_value(service).unwrap();
            if live["spec"]["type"] == "LoadBalancer" && live["status"]["loadBalancer"]["ingress"].is_null() {
                let name = live["metadata"]["name"].as_str().unwrap();
                testbed::fake_kubelet::load_balancer(&self.client, &self.name, name, "192.0.2.77").await.unwrap();
            }
        }
    }

    /// Registries whose conditions speak of an older manifest, or of something on which the operator waits before it goes on.
    async fn behind(&self) -> Vec<String> {
        let registries = self.object("PrivateRegistry", "").api.list(&ListParams::default()).await.unwrap();
        let is_behind = |live: &Value| {
            let waits = |(kind, reason): &(&str, &str)| condition(&live["status"], kind)["reason"] == *reason;
            let ready = condition(&live["status"], "Ready");
            ready["observedGeneration"] != live["metadata"]["generation"] || WAITING.iter().any(waits)
        };
        let all = registries.into_iter().map(|registry| serde_json::to_value(registry).unwrap());
        all.filter(is_behind).map(|live| live["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

/// A condition of a registry's status.
pub fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}
