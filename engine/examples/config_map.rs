//! The least that a pass does: one child of one owner, brought to what is wanted. Against the cluster of the current kubeconfig:
//!
//! ```sh
//! kubectl create configmap demo
//! cargo run --package operator-engine --example config_map
//! kubectl get configmap demo-settings --output yaml
//! ```

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use operator_engine::apply::{Child, Engine, Hold, Marks, Memory, Outcome, Owner, kinds};
use serde_json::json;

const MARKS: Marks = Marks {
    field_manager: "example",
    owner_label: "example.dev/owner",
    owner_namespace_label: "example.dev/owner-namespace",
    managed_by_label: "app.kubernetes.io/managed-by",
    managed_by: "example",
    adopt: "example.dev/adopt",
    applied: "example.dev/applied",
    owner_kind: "ConfigMap",
    owner_plural: "configmaps",
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::try_default().await?;
    let namespace = client.default_namespace().to_owned();
    let demo = Api::<ConfigMap>::namespaced(client.clone(), &namespace).get("demo").await?;
    let owner = Owner {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace,
        name: "demo".to_owned(),
        uid: demo.metadata.uid.ok_or("an object has a uid")?,
        generation: None,
    };
    let child = Child {
        kind: kinds::CONFIG_MAP,
        namespace: None,
        name: "demo-settings".to_owned(),
        hold: Hold::Disposable,
        body: json!({"data": {"greeting": "hello"}}),
    };

    let engine = Engine::new(client, Arc::new(Memory::new(MARKS)), MARKS, Arc::new(()));
    let first = engine.apply(&owner, &child).await?;
    // Without a request: it is as wanted, and no watch has told of a change.
    let again = engine.apply(&owner, &child).await?;
    assert_eq!(again.outcome, Outcome::Unchanged);
    tracing_subscriber::fmt::init();
    tracing::info!(outcome = ?first.outcome, version = first.live.resource_version(), "applied");
    Ok(())
}
