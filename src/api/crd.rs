//! The CustomResourceDefinition as it is installed: what kube derives, made smaller and stricter.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::PrivateRegistry;

/// Fields that embed a type of Kubernetes' own. Their inner descriptions would make the definition five times as large, and
/// `kubectl explain pod.spec` has them.
const FOREIGN: [&str; 7] = [
    "/spec/pod/tolerations",
    "/spec/pod/affinity",
    "/spec/pod/topologySpreadConstraints",
    "/spec/pod/env",
    "/spec/pod/securityContext",
    "/spec/pod/imagePullSecrets",
    "/status/conditions",
];

/// Sections that mean something although they are empty. Server-side apply owns them as a whole: field by field, it would turn one into
/// null, and so into nothing, when the last field that its manager wrote goes (structured-merge-diff). Who shortens `emptyDir: {sizeLimit:
/// 5Gi}` to `emptyDir: {}` would be told that no storage is given.
const ATOMIC: [&str; 9] = [
    "/spec/tls/selfSigned",
    "/spec/tls/secret",
    "/spec/tls/none",
    "/spec/storage/persistentVolumeClaim",
    "/spec/storage/emptyDir",
    "/spec/auth/none",
    "/spec/pod/affinity",
    "/spec/pod/resources",
    "/spec/pod/securityContext",
];

/// Annotation with the SHA-256 of the schema, so that the operator can say that an installed definition is older than itself.
pub const SCHEMA_ANNOTATION: &str = "privateregistry.dev/schema";

/// The definition of `privateregistries.privateregistry.dev`.
///
/// # Panics
/// If the derived schema is not the one this file was written for; a test keeps it so.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(PrivateRegistry::crd()).expect("a definition is JSON");
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for path in FOREIGN {
        let pointer =
            path.split('/').skip(1).fold(String::new(), |pointer, field| format!("{pointer}/properties/{field}"));
        let field = schema.pointer_mut(&pointer).unwrap_or_else(|| panic!("{path} is in the schema"));
        for inner in ["items", "properties"] {
            if let Some(inner) = field.get_mut(inner) {
                strip_descriptions(inner);
            }
        }
    }
    // Without bounds the API server must assume that every name is as long as a request may be, and refuses the rule as too costly.
    let name = schema.pointer_mut("/properties/spec/properties/pod/properties/env/items/properties/name");
    name.expect("env has names")["maxLength"] = json!(253);
    for path in ATOMIC {
        field(schema, path)["x-kubernetes-map-type"] = json!("atomic");
    }
    // The same for the spec, which several managers may want to share: a null becomes the default.
    schema["properties"]["spec"]["default"] = json!({});
    strip_formats(schema);
    let digest = Sha256::digest(schema.to_string());
    let digest = digest.iter().take(16).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    definition["metadata"]["annotations"] = json!({SCHEMA_ANNOTATION: digest});
    serde_json::from_value(definition).expect("still a definition")
}

/// The definition as YAML, the form that is committed under `crds/`.
///
/// # Panics
/// Never: a definition is always YAML.
#[must_use]
pub fn crd_yaml() -> String {
    serde_saphyr::to_string(&crd()).expect("a definition is YAML")
}

fn field<'a>(schema: &'a mut Value, path: &str) -> &'a mut Value {
    let pointer = path.split('/').skip(1).fold(String::new(), |pointer, field| format!("{pointer}/properties/{field}"));
    schema.pointer_mut(&pointer).unwrap_or_else(|| panic!("{path} is in the schema"))
}

fn strip_descriptions(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            // A property may itself be called "description": only a text is documentation.
            if fields.get("description").is_some_and(Value::is_string) {
                fields.remove("description");
            }
            fields.values_mut().for_each(strip_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_descriptions),
        _ => {}
    }
}

/// Formats that Kubernetes does not know are warned about at every installation.
fn strip_formats(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                fields.remove("format");
            }
            fields.values_mut().for_each(strip_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_formats),
        _ => {}
    }
}
