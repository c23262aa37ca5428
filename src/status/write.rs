//! The writes of a status.

use kube::api::{Api, Patch, PatchParams, ValidationDirective};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::api::{PrivateRegistry, PrivateRegistryStatus};

/// Field manager of the status: apart from the one of children, so that neither takes fields from the other.
const MANAGER: &str = "private-registry-operator-status";

/// What became of a status.
#[derive(Debug)]
pub enum Written {
    /// The registry is gone.
    Nothing,
    /// The registry as the server answered.
    Registry(Box<PrivateRegistry>),
    /// Refused as a conflict: the registry is not as it was thought to be.
    Overtaken,
}

/// Writes `status`; the question of another operator is not ours to write. `expected`: the version that the
/// registry must have.
///
/// # Errors
/// What the API server answered. A registry that is gone is no error.
pub async fn write(
    client: &Client,
    registry: &PrivateRegistry,
    status: &PrivateRegistryStatus,
    expected: Option<&str>,
) -> Result<Written, kube::Error> {
    let api: Api<PrivateRegistry> = Api::namespaced(client.clone(), &registry.namespace().unwrap_or_default());
    let mut body = json!({
        "apiVersion": "privateregistry.dev/v1alpha1",
        "kind": "PrivateRegistry",
        // The uid keeps the status of a deleted registry from reaching another one of the same name.
        "metadata": {"name": registry.name_any(), "uid": registry.metadata.uid},
        "status": PrivateRegistryStatus { operator_asked: None, ..status.clone() },
    });
    if let Some(version) = expected {
        body["metadata"]["resourceVersion"] = json!(version);
    }
    // Unknown fields are refused in any case; more validation would only look for keys that stand there twice.
    let parameters =
        PatchParams { field_validation: Some(ValidationDirective::Ignore), ..PatchParams::apply(MANAGER).force() };
    match api.patch_status(&registry.name_any(), &parameters, &Patch::Apply(&body)).await {
        Ok(answer) => Ok(Written::Registry(Box::new(answer))),
        Err(kube::Error::Api(refusal)) if refusal.is_not_found() => Ok(Written::Nothing),
        // Another version, another writer, or no such registry any more: the next pass sees which.
        Err(kube::Error::Api(refusal)) if refusal.is_conflict() => Ok(Written::Overtaken),
        // With a uid, an apply to the successor of a registry is an invalid change.
        Err(kube::Error::Api(refusal)) if refusal.is_invalid() && refusal.message.contains("metadata.uid") => {
            Ok(Written::Nothing)
        }
        Err(error) => Err(error),
    }
}

/// Changes some fields of the status of a registry and leaves the others as they are: nulls take a field away.
///
/// # Errors
/// What the API server answered, also when the registry is gone or not of this version.
pub async fn change(
    client: &Client,
    registry: &PrivateRegistry,
    fields: &Value,
    is_this_version: bool,
) -> Result<PrivateRegistry, kube::Error> {
    let api: Api<PrivateRegistry> = Api::namespaced(client.clone(), &registry.namespace().unwrap_or_default());
    let mut patch = json!({"metadata": {"uid": registry.metadata.uid}, "status": fields});
    if is_this_version {
        patch["metadata"]["resourceVersion"] = json!(registry.metadata.resource_version);
    }
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(&registry.name_any(), &parameters, &Patch::Merge(&patch)).await
}
