//! A request to a signer of the cluster. It is no child: it belongs to no namespace, so no registry can own it. Its labels say whose it is.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};

use crate::model::{Requested, Resolved, labels};

/// Kubernetes takes no shorter life.
const SHORTEST: u64 = 600;

/// What the names of the requests of a registry begin with. A dot is in the name of no namespace and of no registry, so nobody else's begin so.
#[must_use]
pub fn prefix(namespace: &str, name: &str) -> String {
    format!("private-registry.{namespace}.{name}.")
}

/// Name of the request: another one for each key, names, signer and life, so that none is ever taken for another; always the same for the same.
#[must_use]
pub fn name(registry: &Resolved, signer: &str, wanted: &Requested, pem: &str) -> String {
    let mut hash = Sha256::new();
    let life = seconds(wanted.duration).to_string();
    for part in [signer, life.as_str(), pem] {
        // The length keeps ("ab", "c") apart from ("a", "bc").
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: String = hash.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    prefix(&registry.namespace, registry.name.as_str()) + &digest
}

/// The object.
#[must_use]
pub fn build(registry: &Resolved, signer: &str, wanted: &Requested, pem: &str) -> CertificateSigningRequest {
    let mut all = registry.labels(labels::disposable(&registry.name));
    all.insert(labels::REGISTRY_NAMESPACE.to_owned(), registry.namespace.clone());
    CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some(name(registry, signer, wanted, pem)),
            labels: Some(all),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.as_bytes().to_vec()),
            signer_name: signer.to_owned(),
            expiration_seconds: Some(seconds(wanted.duration)),
            usages: Some(vec!["digital signature".to_owned(), "server auth".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

fn seconds(life: Duration) -> i32 {
    i32::try_from(life.as_secs().max(SHORTEST)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::model::{Observed, Settings, Tls, resolve};

    fn named(namespace: &str, name: &str, signer: &str, hours: u32, pem: &str) -> String {
        let spec = json!({"tls": {"certificateSigningRequest": {"signerName": signer}, "certificate": {"duration": format!("{hours}h")}}});
        let registry = json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": name, "namespace": namespace}, "spec": spec,
        });
        let registry = serde_json::from_value(registry).unwrap();
        let registry = resolve(&registry, &Observed::default(), &Settings::default()).unwrap();
        let Tls::Request(wanted) = &registry.tls else { panic!("another signer") };
        let object = build(&registry, signer, wanted, pem);
        assert_eq!(object.spec.expiration_seconds, Some(i32::try_from(hours * 3600).unwrap()));
        object.metadata.name.unwrap()
    }

    #[test]
    fn a_thousand_namesakes_and_each_other_request_have_names_of_their_own() {
        let longest = "a".repeat(63);
        let mut names: BTreeSet<_> = (0..1000).map(|n| named(&format!("team-{n}"), "r", "a.b/c", 24, "x")).collect();
        // A border that moves, another key, signer and life.
        for (namespace, name, signer, hours, pem) in [
            ("a-b", "c", "a.b/c", 24, "x"),
            ("a", "b-c", "a.b/c", 24, "x"),
            ("a", "c", "a.b/c", 24, "x"),
            ("a", "c", "a.b/c", 24, "y"),
            ("a", "c", "a.b/d", 24, "x"),
            ("a", "c", "a.b/c", 25, "x"),
            (longest.as_str(), &longest[..48], "a.b/c", 24, "x"),
        ] {
            let name = named(namespace, name, signer, hours, pem);
            assert!(
                name.len() <= 253 && name.starts_with(&prefix(namespace, name.split('.').nth(2).unwrap())),
                "{name}"
            );
            assert!(names.insert(name.clone()), "{name} is there twice");
        }
        assert_eq!(named("a", "c", "a.b/c", 24, "x"), named("a", "c", "a.b/c", 24, "x"));
    }
}
