//! `check`: what admission and `resolve` would say, without a cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use kube::core::cel::Validator;
use serde_json::Value;

use super::manifests::{self, Document};
use super::structure;
use crate::api::{self, PrivateRegistry};

/// Prints a line for each fault, then one that counts.
pub(super) fn check(files: &[PathBuf]) -> ExitCode {
    let documents = match manifests::read(files) {
        Ok(documents) => documents,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let registries: Vec<_> = documents.iter().filter(|document| document.is_registry()).collect();
    let mut faulty = 0;
    for document in &registries {
        let faults = faults(document);
        faulty += usize::from(!faults.is_empty());
        for fault in faults {
            eprintln!("{}: {}: {fault}", document.file, document.title());
        }
    }
    if registries.is_empty() {
        eprintln!(
            "no PrivateRegistry in {}",
            files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
        );
        return ExitCode::FAILURE;
    }
    println!("{} PrivateRegistry objects, {faulty} invalid", registries.len());
    if faulty == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything that is wrong with one registry, each naming the field.
pub(super) fn faults(document: &Document) -> Vec<String> {
    let schema = schema();
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
    match object.get("spec") {
        Some(spec) => faults.extend(structure::violations(&schema["properties"]["spec"], spec, "spec")),
        None => faults.push("spec: is missing; spec: {} is a complete registry".to_owned()),
    }
    // A rule that meets a wrong type says nothing useful.
    if !faults.is_empty() {
        return faults;
    }
    if let Err(errors) = Validator::new().validate(&schema, &object, None) {
        faults.extend(errors.into_vec().into_iter().map(|error| {
            let field = error.field_path.trim_start_matches('.').to_owned();
            if field.is_empty() { error.message } else { format!("{field}: {}", error.message) }
        }));
    }
    if faults.is_empty()
        && let Err(error) = serde_json::from_value::<PrivateRegistry>(object)
    {
        faults.push(error.to_string());
    }
    faults
}

/// The schema of the resource, as the definition has it.
pub(super) fn schema() -> Value {
    let definition = serde_json::to_value(api::crd()).expect("a definition is JSON");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
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
        faults(&Document { file: String::new(), object })
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
        ] {
            let faults = faults_of(&spec);
            assert!(faults.iter().any(|fault| fault.contains(field)), "{field}: {faults:?}");
        }
        assert_eq!(faults_of(&json!({})), Vec::<String>::new());
    }
}
