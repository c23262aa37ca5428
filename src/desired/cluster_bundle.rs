//! The bundle for pods of every namespace: a ClusterTrustBundle, which they mount without a copy in their own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::{Hold, Object, kinds};
use crate::model::{Resolved, labels};

/// Whose authorities it says it holds. Kubernetes lets nobody write one in this name without the right to attest for it.
pub const SIGNER: &str = "privateregistry.dev/registry";

/// The object.
#[must_use]
pub fn build(registry: &Resolved, bundle: &str) -> Object {
    let name = name(&registry.namespace, registry.name.as_str());
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        labels: Some(registry.labels(labels::copied())),
        ..ObjectMeta::default()
    };
    let spec = json!({"signerName": SIGNER, "trustBundle": bundle});
    let body = json!({"metadata": metadata, "spec": spec});
    Object { kind: kinds::CLUSTER_TRUST_BUNDLE, namespace: None, name, hold: Hold::Kept, body }
}

/// What it is called. Neither namespaces nor registries have dots, so no two are alike; Kubernetes asks for the signer's name in front.
#[must_use]
pub fn name(namespace: &str, registry: &str) -> String {
    format!("{}:{namespace}.{registry}", SIGNER.replace('/', ":"))
}
