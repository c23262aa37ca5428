//! One status write, only when it differs.

use kube::api::{Api, Patch, PatchParams, ValidationDirective};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::api::{PrivateRegistry, PrivateRegistryStatus};

/// Field manager of the status: apart from the one of children, so that neither takes fields from the other.
const MANAGER: &str = "private-registry-operator-status";

/// Writes `status` if it differs from what `registry` shows. Returns the registry as the server answered, or `None` if there was
/// nothing to write.
///
/// # Errors
/// What the API server answered. A registry that is gone is no error.
pub async fn write(
    client: &Client,
    registry: &PrivateRegistry,
    status: &PrivateRegistryStatus,
) -> Result<Option<PrivateRegistry>, kube::Error> {
    if registry.status.as_ref() == Some(status) {
        return Ok(None);
    }
    let api: Api<PrivateRegistry> = Api::namespaced(client.clone(), &registry.namespace().unwrap_or_default());
    let body = json!({
        "apiVersion": "privateregistry.dev/v1alpha1",
        "kind": "PrivateRegistry",
        // The uid keeps the status of a deleted registry from reaching another one of the same name.
        "metadata": {"name": registry.name_any(), "uid": registry.metadata.uid},
        "status": status,
    });
    // Unknown fields are refused in any case; more validation would only look for keys that stand there twice.
    let parameters =
        PatchParams { field_validation: Some(ValidationDirective::Ignore), ..PatchParams::apply(MANAGER).force() };
    match api.patch_status(&registry.name_any(), &parameters, &Patch::Apply(&body)).await {
        Ok(answer) => Ok(Some(answer)),
        Err(kube::Error::Api(refusal)) if refusal.is_not_found() => Ok(None),
        // With a uid, an apply to a registry that is gone is a conflict, and to its successor an invalid change.
        Err(kube::Error::Api(refusal))
            if refusal.is_conflict() || refusal.is_invalid() && refusal.message.contains("metadata.uid") =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
