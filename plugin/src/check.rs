//! `check`: what admission and `resolve` would say, without a cluster.

use std::path::PathBuf;
use std::sync::LazyLock;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::cel::Validator;
use private_registry_operator::api::{self, PrivateRegistry};
use private_registry_operator::model::{self, Observed, ObservedClaim, Resolved, Settings};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::manifests::{self, Document, Manifests};
use crate::{render, shell, structure};

/// Made of the types, so once is enough for any number of manifests.
static SCHEMA: LazyLock<Value> = LazyLock::new(api::schema);

/// What the API server asks of every object's metadata, which no definition can say.
static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<ObjectMeta>().to_value();
    schema["required"] = json!(["name"]);
    let fields = &mut schema["properties"];
    fields["namespace"]["pattern"] = json!("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$");
    fields["labels"]["additionalProperties"]["pattern"] = json!("^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$");
    schema
});

/// Options of `check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    manifests: Manifests,
}

/// What is wrong with manifests.
#[derive(Debug)]
pub struct Checked {
    /// How many registries were found.
    pub registries: usize,
    /// How many of them are invalid.
    pub invalid: usize,
    /// A line for everything that is wrong, files that cannot be read first.
    pub faults: Vec<String>,
}

/// Prints a line for each fault, then one that counts. Whether there is none.
pub(crate) fn run(options: &Options) -> bool {
    let checked = check(&options.manifests.files);
    checked.faults.iter().for_each(|fault| shell::complain(fault));
    let noun = if checked.registries == 1 { "PrivateRegistry" } else { "PrivateRegistries" };
    shell::print(&format!("{} {noun}, {} invalid\n", checked.registries, checked.invalid));
    checked.faults.is_empty()
}

/// Looks at every registry of files, folders and (as `-`) standard input.
#[must_use]
pub fn check(paths: &[PathBuf]) -> Checked {
    let manifests::Found { registries, unreadable: mut faults } = manifests::find(paths);
    let mut invalid = 0;
    for document in &registries {
        if let Err(found) = resolve(document) {
            invalid += 1;
            faults.extend(found.iter().map(|fault| document.fault(fault)));
        }
    }
    Checked { registries: registries.len(), invalid, faults }
}

/// The registry that a manifest asks for, as far as that can be said without a cluster; or everything that is wrong with it, each
/// naming the field.
pub(crate) fn resolve(document: &Document) -> Result<Resolved, Vec<String>> {
    let registry = admit(document)?;
    // An existing claim is not here to be looked at: it is taken for what the manifest needs.
    let mode =
        if registry.spec.replicas.is_some_and(|replicas| replicas > 1) { "ReadWriteMany" } else { "ReadWriteOnce" };
    let claim = ObservedClaim { modes: vec![mode.to_owned()] };
    let observed = Observed { claim: Some(claim), ..Observed::default() };
    let mut resolved =
        model::resolve(&registry, &observed, &Settings::default()).map_err(|blocked| vec![blocked.message])?;
    if registry.spec.tls.is_some_and(|tls| tls.client_ca_secret_ref.is_some()) {
        resolved.protocol.client_authorities = Some(render::PLACEHOLDER.to_owned());
    }
    // Nor are Secrets.
    let faults = resolved.faults.all().filter(|blocked| !blocked.waiting);
    let told = faults.map(|blocked| blocked.message.clone()).collect::<Vec<_>>();
    if told.is_empty() { Ok(resolved) } else { Err(told) }
}

/// What the API server's admission would say.
fn admit(document: &Document) -> Result<PrivateRegistry, Vec<String>> {
    let mut object = document.object.clone();
    let mut faults = Vec::new();
    match object["apiVersion"].as_str() {
        Some("privateregistry.dev/v1alpha1") => {}
        Some(other) => faults.push(format!("apiVersion: {other} is not served; write privateregistry.dev/v1alpha1")),
        None => faults.push("apiVersion: is missing; write privateregistry.dev/v1alpha1".to_owned()),
    }
    let fields = object.as_object_mut();
    let allowed = ["apiVersion", "kind", "metadata", "spec", "status"];
    if let Some(stray) = fields.and_then(|fields| fields.keys().find(|field| !allowed.contains(&field.as_str()))) {
        faults.push(format!("{stray}: is no field of this object"));
    }
    faults.extend(structure::violations(&METADATA, &object["metadata"], "metadata"));
    if object["metadata"].is_null() {
        faults.push("metadata.name: is missing".to_owned());
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
            (json!({"tls": {"certificate": {"duration": "1d"}}}), "spec.tls.certificate.duration"),
            (json!({"tls": {"privateCA": {"duration": "59m"}}}), "spec.tls.privateCA.duration"),
            (
                json!({"auth": {"users": [{"name": "a:b", "passwordSecretRef": {"name": "s"}}]}}),
                "spec.auth.users[0].name",
            ),
            (
                json!({"auth": {"users": [{"name": "a"}]}}),
                "spec.auth.users[0]: a user needs exactly one of passwordSecretRef",
            ),
            (
                json!({"auth": {"users": [{"name": "A", "rotation": {"every": "720h"}}]}}),
                "spec.auth.users[0]: the name of a user with rotation",
            ),
            (
                json!({"auth": {"users": [{"name": "a", "rotation": {"every": "1h", "overlap": "51m"}}]}}),
                "spec.auth.users[0].rotation: overlap",
            ),
            (
                json!({"auth": {"users": [
                    {"name": "a", "rotation": {"every": "1h"}}, {"name": "a.2", "passwordSecretRef": {"name": "s"}},
                ]}}),
                "spec.auth: a user with rotation logs in as NAME and as NAME.2",
            ),
            (
                json!({"storage": {"persistentVolumeClaim": {"size": "huge"}}}),
                "spec.storage.persistentVolumeClaim.size",
            ),
            (json!({"image": "registry:2.8.3"}), "spec.image"),
            (json!({"addresses": ["a.example", "a.example"]}), "spec.addresses[1]"),
            (json!({"addresses": ["https://a.example"]}), "spec.addresses[0]"),
            (json!({"commonLabels": {"team": "a b"}}), "spec.commonLabels.team"),
            (json!({"commonLabels": {"a b": "team"}}), "spec.commonLabels"),
            (
                json!({"auth": {"users": [
                    {"name": "a", "passwordSecretRef": {"name": "s"}}, {"name": "a", "passwordSecretRef": {"name": "t"}},
                ]}}),
                "spec.auth.users[1]",
            ),
            // What admission cannot check.
            (json!({"extraConfig": {"htp": {}}}), "spec.extraConfig"),
            (json!({"tls": {"certificate": {"ipAddresses": ["1.2.3.444"]}}}), "spec.tls.certificate.ipAddresses"),
            (json!({"addresses": ["1.2.3.444"]}), "spec.addresses"),
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
    fn what_stands_around_the_spec_is_checked_too() {
        let of = |version: Value, metadata: Value| {
            let object = json!({"apiVersion": version, "kind": "PrivateRegistry", "metadata": metadata});
            resolve(&Document { file: String::new(), object }).err().unwrap_or_default().join("; ")
        };
        let served = || json!("privateregistry.dev/v1alpha1");
        assert_eq!(of(served(), json!({"name": "a", "namespace": "b", "labels": {"a/b": "c"}})), "");
        for (version, metadata, words) in [
            (json!(null), json!({"name": "a"}), "apiVersion: is missing"),
            (
                json!("privateregistries.dev/v1"),
                json!({"name": "a"}),
                "apiVersion: privateregistries.dev/v1 is not served",
            ),
            (served(), json!(null), "metadata.name: is missing"),
            (served(), json!({}), "metadata.name: is missing"),
            (served(), json!("a"), "metadata: must be of type object"),
            (served(), json!({"name": true}), "metadata.name: must be of type string: put true in quotes"),
            (served(), json!({"name": "A"}), "metadata.name must begin"),
            (served(), json!({"name": "a", "namespace": "B_c"}), "metadata.namespace: "),
            (served(), json!({"name": "a", "lables": {}}), "metadata.lables: is no field"),
            (served(), json!({"name": "a", "labels": {"b": 1}}), "metadata.labels.b: must be of type string"),
            (served(), json!({"name": "a", "labels": {"b": "c d"}}), "metadata.labels.b: "),
        ] {
            let said = of(version, metadata.clone());
            assert!(said.contains(words), "{metadata}: {said}");
        }
    }

    #[test]
    fn a_claim_that_cannot_be_looked_at_is_no_fault() {
        let spec = json!({"replicas": 2, "storage": {"existingClaim": {"name": "mine"}}});
        assert_eq!(faults_of(&spec), Vec::<String>::new());
    }
}
