//! The CustomResourceDefinition as it is installed: what kube derives, made smaller and stricter.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use kube::core::schema::{OptionalEnum, OptionalIntOrString, StructuralSchemaRewriter};
use operator_engine::work::followed::outline;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{AddNullable, RecursiveTransform};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::PrivateRegistry;

/// Fields that embed a type of Kubernetes' own. Their inner descriptions would make the definition five times as large, and
/// `kubectl explain pod.spec` has them.
const FOREIGN: [&str; 11] = [
    "/spec/pullSecrets/namespaces/selector",
    "/spec/trust/nodes/selector",
    "/spec/trust/namespaces/selector",
    "/spec/pod/tolerations",
    "/spec/pod/affinity",
    "/spec/pod/topologySpreadConstraints",
    "/spec/pod/env",
    "/spec/pod/securityContext",
    "/spec/pod/containerSecurityContext",
    "/spec/pod/imagePullSecrets",
    "/status/conditions",
];

/// Sections that mean something although they are empty. Server-side apply owns them as a whole: field by field, it would turn one into
/// null, and so into nothing, when the last field that its manager wrote goes (structured-merge-diff). Who shortens `emptyDir: {sizeLimit:
/// 5Gi}` to `emptyDir: {}` would be told that no storage is given.
const ATOMIC: [&str; 21] = [
    "/spec/trust/clusterTrustBundle",
    "/spec/trust/nodes",
    "/spec/trust/nodes/selector",
    "/spec/trust/namespaces",
    "/spec/trust/namespaces/selector",
    "/spec/tls/privateCA",
    "/spec/tls/secret",
    "/spec/tls/certManager",
    "/spec/tls/certificateSigningRequest",
    "/spec/tls/none",
    "/spec/storage/persistentVolumeClaim",
    "/spec/storage/existingClaim",
    "/spec/storage/emptyDir",
    "/spec/frontend/nginx",
    "/spec/frontend/nginx/resources",
    "/spec/auth/htpasswd",
    "/spec/auth/none",
    "/spec/pod/affinity",
    "/spec/pod/resources",
    "/spec/pod/securityContext",
    "/spec/pod/containerSecurityContext",
];

/// Fields of a pod that Kubernetes itself owns as a whole. Owned key by key, a selector that an apply empties would become null, and be refused.
const ATOMIC_IN_PODS: [&str; 7] = [
    "labelSelector",
    "namespaceSelector",
    "configMapKeyRef",
    "secretKeyRef",
    "fieldRef",
    "resourceFieldRef",
    "fileKeyRef",
];

/// Annotation with the SHA-256 of the schema, so that the operator can say that an installed definition is older than itself.
pub const SCHEMA_ANNOTATION: &str = "privateregistry.dev/schema";

/// [`crd_yaml`] as it is committed. The operator's program carries it instead of what derives it; a test compares the two.
pub const DEFINITION: &str = include_str!("../../crds/privateregistries.privateregistry.dev.yaml");

/// The definition of `privateregistries.privateregistry.dev`.
///
/// # Panics
/// If the derived schema is not the one this file was written for; a test keeps it so.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(PrivateRegistry::crd()).expect("a definition is JSON");
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    *schema = derived_schema();
    for path in FOREIGN {
        let field = field(schema, path);
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
    make_atomic(field(schema, "/spec/pod"));
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
    serde_saphyr::to_string(&definition()).expect("a definition is YAML")
}

/// What of the resource's schema names fields and values. Read from a file, so that what derives schemas is no part of the operator's program.
///
/// # Panics
/// Never: the file is JSON; a test compares it with what the types give.
#[must_use]
pub fn schema_outline() -> &'static Value {
    static OUTLINE: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("outline.json")).expect("the outline is JSON"));
    &OUTLINE
}

/// The same as the types give it now, as JSON: the form that is committed.
///
/// # Panics
/// Never: a definition is always JSON.
#[must_use]
pub fn outline_json() -> String {
    serde_json::to_string_pretty(&outline(&schema())).expect("an outline is JSON") + "\n"
}

/// The schema of the resource, as the definition has it.
///
/// # Panics
/// Never: a definition is always JSON.
#[must_use]
pub fn schema() -> Value {
    definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

fn definition() -> Value {
    let mut definition = serde_json::to_value(crd()).expect("a definition is JSON");
    write_whole_numbers(&mut definition);
    definition
}

/// What kube's derive makes of the types, with two steps of our own about the descriptions.
fn derived_schema() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let generator = settings
        .with_transform(AddNullable::default())
        .with_transform(StructuralSchemaRewriter)
        .with_transform(RecursiveTransform(prefer_the_words_of_the_field))
        .with_transform(OptionalEnum)
        .with_transform(OptionalIntOrString)
        .with_transform(RecursiveTransform(unwrap_lines))
        .into_generator();
    generator.into_root_schema_for::<PrivateRegistry>().to_value()
}

/// `OptionalEnum` would put the description of an enum over that of the field, which alone knows the default and what each value does.
fn prefer_the_words_of_the_field(schema: &mut Schema) {
    if schema.get("description").is_none() {
        return;
    }
    for alternative in schema.get_mut("anyOf").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(alternative) = alternative.as_object_mut() {
            alternative.remove("description");
        }
    }
}

/// Where a comment's line ends in the source means nothing in `kubectl explain`, which breaks lines itself.
fn unwrap_lines(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
}

/// Bounds of integers are floating-point numbers in Kubernetes' types, and would be written as `1000.0`.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && let Ok(whole) = format!("{float}").parse::<i64>()
            {
                *value = json!(whole);
            }
        }
        _ => {}
    }
}

/// A field by its path, which leads through the items of lists without a word.
fn field<'a>(schema: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('/').skip(1).fold(schema, |schema, name| {
        let holder = if schema["type"] == "array" { &mut schema["items"] } else { schema };
        holder.pointer_mut(&format!("/properties/{name}")).unwrap_or_else(|| panic!("{path} is in the schema"))
    })
}

fn make_atomic(schema: &mut Value) {
    for (name, field) in schema["properties"].as_object_mut().into_iter().flatten() {
        if ATOMIC_IN_PODS.contains(&name.as_str()) {
            field["x-kubernetes-map-type"] = json!("atomic");
        }
        make_atomic(field);
    }
    if schema.get("items").is_some() {
        make_atomic(&mut schema["items"]);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optional_choice_says_its_default_and_what_each_value_does() {
        let mut schema = schema();
        for path in [
            "/spec/auth/admin/generate",
            "/spec/config/logLevel",
            "/spec/deletionPolicy",
            "/spec/restartPolicy/type",
            "/spec/service/type",
            "/spec/tls/certificate/keyAlgorithm",
            "/spec/service/ipFamilyPolicy",
            "/spec/service/externalTrafficPolicy",
        ] {
            let field = field(&mut schema, path);
            assert!(field["enum"].is_array(), "{path}: {field}");
            assert!(field["description"].as_str().unwrap_or_default().contains("default"), "{path}: {field}");
        }
    }

    /// Every field of ours below `field`, with its path. What Kubernetes defines is described there.
    fn fields<'a>(schema: &'a Value, path: &str, found: &mut Vec<(String, &'a Value)>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            found.push((path.clone(), field));
            if !FOREIGN.contains(&path.as_str()) {
                fields(field, &path, found);
                fields(&field["items"], &path, found);
            }
        }
    }

    #[test]
    fn every_field_is_described_and_bounded() {
        let schema = schema();
        let mut found = Vec::new();
        fields(&schema, "", &mut found);
        assert!(found.len() > 80, "{}", found.len());
        for (path, field) in found {
            let kinds = ["/apiVersion", "/kind", "/metadata", "/spec/pod/resources/claims/name"];
            let words = field["description"].as_str().unwrap_or_default();
            assert!(words.len() > 15 || kinds.contains(&path.as_str()), "{path} has no description: {field}");
            let has = |keys: &[&str]| keys.iter().any(|key| !field[*key].is_null());
            let is_bounded = match field["type"].as_str() {
                Some("array") => has(&["x-kubernetes-list-type"]) && has(&["maxItems"]),
                Some("string") => has(&["maxLength", "enum", "format"]),
                Some("integer") => has(&["minimum"]),
                _ => true,
            };
            assert!(is_bounded || !path.starts_with("/spec/"), "{path} has no bounds: {field}");
        }
    }

    #[test]
    fn what_kubernetes_owns_as_a_whole_in_pods_is_owned_as_a_whole_here() {
        let mut schema = schema();
        let spread = field(&mut schema, "/spec/pod/topologySpreadConstraints")["items"].clone();
        assert_eq!(spread["properties"]["labelSelector"]["x-kubernetes-map-type"], "atomic");
        let env = field(&mut schema, "/spec/pod/env")["items"].clone();
        assert_eq!(env["properties"]["valueFrom"]["properties"]["secretKeyRef"]["x-kubernetes-map-type"], "atomic");
        assert!(env["properties"]["valueFrom"]["x-kubernetes-map-type"].is_null());
    }

    #[test]
    fn whole_numbers_are_written_as_such() {
        let text = crd_yaml();
        assert!(text.contains("maximum: 65535\n"), "{text}");
        let mut mixed = json!([1.0, 0.5, -3.0, 7, "1.0"]);
        write_whole_numbers(&mut mixed);
        assert_eq!(mixed, json!([1, 0.5, -3, 7, "1.0"]));
    }
}
