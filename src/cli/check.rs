//! `check`: what admission and `resolve` would say, without a cluster.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use kube::core::cel::Validator;
use serde_json::Value;

use super::manifests::{self, Document};
use super::structure;
use crate::api::{self, PrivateRegistry};
use crate::model::{self, Observed, ObservedClaim, Resolved, Settings};

/// Made of the types, so once is enough for any number of manifests.
static SCHEMA: LazyLock<Value> = LazyLock::new(api::schema);

/// Prints a line for each fault, then one that counts.
pub(super) fn check(files: &[PathBuf]) -> ExitCode {
    let registries = match manifests::registries(files) {
        Ok(registries) => registries,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let faulty = registries.iter().filter(|document| tell_faults(document, resolve(document)).is_none()).count();
    let noun = if registries.len() == 1 { "PrivateRegistry" } else { "PrivateRegistries" };
    super::print(&format!("{} {noun}, {faulty} invalid\n", registries.len()));
    if faulty == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints what is wrong with a manifest; otherwise gives the registry.
pub(super) fn tell_faults(document: &Document, resolved: Result<Resolved, Vec<String>>) -> Option<Resolved> {
    let faults = match resolved {
        Ok(resolved) => return Some(resolved),
        Err(faults) => faults,
    };
    for fault in faults {
        eprintln!("{}: {}: {fault}", document.file, document.title());
    }
    None
}

/// The registry that a manifest asks for, as far as that can be said without a cluster; or everything that is wrong with it, each
/// naming the field.
pub(super) fn resolve(document: &Document) -> Result<Resolved, Vec<String>> {
    let registry = admit(document)?;
    // An existing claim is not here to be looked at: it is taken for what the manifest needs.
    let mode =
        if registry.spec.replicas.is_some_and(|replicas| replicas > 1) { "ReadWriteMany" } else { "ReadWriteOnce" };
    let claim = ObservedClaim { modes: vec![mode.to_owned()] };
    let observed = Observed { claim: Some(claim), ..Observed::default() };
    model::resolve(&registry, &observed, &Settings::default()).map_err(|blocked| vec![blocked.message])
}

/// What the API server's admission would say.
fn admit(document: &Document) -> Result<PrivateRegistry, Vec<String>> {
    let mut object = document.object.clone();
    let mut faults = Vec::new();
    if object["apiVersion"] != "privateregistry.dev/v1alpha1" {
        faults.push(format!("apiVersion: {} is not served; write privateregistry.dev/v1alpha1", object["apiVersion"]));
    }
    let fields = object.as_object_mut();
    let allowed = ["apiVersion", "kind", "metadata", "spec", "status"];
    if let Some(stray) = fields.and_then(|fields| fields.keys().find(|field| !allowed.contains(&field.as_str()))) {
        faults.push(format!("{stray}: is no field of this object"));
    }
    if !object["metadata"]["name"].is_string() {
        faults.push(format!(
            "metadata.name: {} is no text; quote it if it is a number or a word like true",
            object["metadata"]["name"]
        ));
    }
    // What the schema's default says.
    if object["spec"].is_null() {
        object["spec"] = SCHEMA["properties"]["spec"]["default"].clone();
    }
    faults.extend(structure::violations(&SCHEMA["properties"]["spec"], &object["spec"], "spec"));
    // A rule that meets a wrong type says nothing useful.
    if !faults.is_empty() {
        return Err(faults);
    }
    if let Err(errors) = Validator::new().validate(&SCHEMA, &object, None) {
        faults.extend(errors.into_vec().into_iter().map(|error| {
            let field = error.field_path.trim_start_matches('.').to_owned();
            if field.is_empty() { error.message } else { format!("{field}: {}", error.message) }
        }));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    serde_json::from_value(object).map_err(|error| vec![error.to_string()])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults_of(spec: &Value) -> Vec<String> {
        let object = json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a"}, "spec": spec,
        });
        resolve(&Document { file: String::new(), object }).err().unwrap_or_default()
    }

    #[test]
    fn a_fault_names_its_field() {
        for (spec, field) in [
            (json!({"replica": 2}), "spec.replica"),
            (json!({"replicas": "2"}), "spec.replicas"),
            (json!({"replicas": 0}), "spec.replicas"),
            (json!({"service": {"type": "Ingress"}}), "spec.service.type"),
            (json!({"tls": {"selfSigned": {"duration": "1d"}}}), "spec.tls.selfSigned.duration"),
            (json!({"tls": {"selfSigned": {"duration": "10s"}}}), "spec.tls.selfSigned.duration"),
            (
                json!({"auth": {"users": [{"name": "a:b", "passwordSecretRef": {"name": "s"}}]}}),
                "spec.auth.users[0].name",
            ),
            (json!({"auth": {"users": [{"name": "a"}]}}), "spec.auth.users[0].passwordSecretRef"),
            (
                json!({"storage": {"persistentVolumeClaim": {"size": "huge"}}}),
                "spec.storage.persistentVolumeClaim.size",
            ),
            (json!({"image": "registry:2.8.3"}), "spec.image"),
            (json!({"hostnames": ["a.example", "a.example"]}), "spec.hostnames[1]"),
            (
                json!({"auth": {"users": [
                    {"name": "a", "passwordSecretRef": {"name": "s"}}, {"name": "a", "passwordSecretRef": {"name": "t"}},
                ]}}),
                "spec.auth.users[1]",
            ),
            // What admission cannot check.
            (json!({"extraConfig": {"htp": {}}}), "spec.extraConfig"),
            (json!({"tls": {"selfSigned": {"ipAddresses": ["1.2.3.444"]}}}), "spec.tls.selfSigned.ipAddresses"),
        ] {
            let faults = faults_of(&spec);
            assert!(faults.iter().any(|fault| fault.contains(field)), "{field}: {faults:?}");
        }
        assert_eq!(faults_of(&json!({})), Vec::<String>::new());
    }

    #[test]
    fn bounds_are_told_as_whole_numbers() {
        assert_eq!(faults_of(&json!({"replicas": 0})), ["spec.replicas: must be at least 1"]);
    }

    #[test]
    fn a_name_that_yaml_takes_for_something_else_is_told() {
        let object = json!({"apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": true}});
        let faults = resolve(&Document { file: String::new(), object }).err().unwrap_or_default();
        assert!(faults[0].contains("metadata.name") && faults[0].contains("quote it"), "{faults:?}");
    }

    #[test]
    fn a_claim_that_cannot_be_looked_at_is_no_fault() {
        let spec = json!({"replicas": 2, "storage": {"persistentVolumeClaim": {"claimName": "mine"}}});
        assert_eq!(faults_of(&spec), Vec::<String>::new());
    }
}
