//! `NAME-csr`, the CertificateRequest: what an issuer of cert-manager is asked to sign, while its answer is waited for.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::{Hold, Object, kinds};
use crate::model::{Child, Issuer, Requested, Resolved};

/// Annotation by which an issuer that lets each key sign for itself finds the key: `NAME-csr`, the Secret.
const KEY: &str = "cert-manager.io/private-key-secret-name";

/// The object.
#[must_use]
pub fn build(registry: &Resolved, issuer: &Issuer, wanted: &Requested, pem: &str) -> Object {
    let name = registry.name.child(Child::Csr);
    let metadata =
        ObjectMeta { annotations: Some([(KEY.to_owned(), name.clone())].into()), ..registry.metadata(Child::Csr) };
    let Issuer { name: issuer, kind, group } = issuer;
    let body = json!({
        "metadata": metadata,
        "spec": {
            "issuerRef": {"name": issuer, "kind": kind, "group": group},
            "request": STANDARD.encode(pem),
            "duration": as_go_writes_it(wanted.duration),
            "usages": ["digital signature", "server auth"],
        },
    });
    Object { kind: kinds::CERTIFICATE_REQUEST, namespace: None, name, hold: Hold::Disposable, body }
}

/// cert-manager writes it so when it writes the object: another form would look like a change.
fn as_go_writes_it(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::model::{Observed, Settings, Signer, Tls, resolve};

    fn asked(spec: &Value) -> Object {
        let registry = json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a", "namespace": "registries"}, "spec": spec,
        });
        let registry = serde_json::from_value(registry).unwrap();
        // Requests of cert-manager belong to a namespace: who sees only some can make them, too.
        let settings = Settings { sees_namespaces: false, ..Settings::default() };
        let registry = resolve(&registry, &Observed::default(), &settings).unwrap();
        let Tls::Request(wanted) = &registry.tls else { panic!("{:?}", registry.faults) };
        let Signer::Issuer(issuer) = &wanted.signer else { panic!("{wanted:?}") };
        build(&registry, issuer, wanted, "pem")
    }

    #[test]
    fn an_issuer_is_asked_as_the_manifest_says() {
        let object = asked(&json!({"tls": {
            "certManager": {"issuerRef": {"name": "company", "kind": "StepIssuer", "group": "certmanager.step.sm"}},
            "certificate": {"duration": "90m30s"},
        }}));
        assert_eq!((object.name.as_str(), object.hold), ("team-a-csr", Hold::Disposable));
        assert_eq!(object.body["metadata"]["annotations"], json!({KEY: "team-a-csr"}));
        assert_eq!(
            object.body["spec"],
            json!({
                "issuerRef": {"name": "company", "kind": "StepIssuer", "group": "certmanager.step.sm"},
                "request": "cGVt", "duration": "1h30m30s", "usages": ["digital signature", "server auth"],
            })
        );
    }

    #[test]
    fn an_issuer_of_the_namespace_is_meant_unless_the_manifest_says_otherwise() {
        let object = asked(&json!({"tls": {"certManager": {"issuerRef": {"name": "company"}}}}));
        let issuer = json!({"name": "company", "kind": "Issuer", "group": "cert-manager.io"});
        assert_eq!(
            (&object.body["spec"]["issuerRef"], &object.body["spec"]["duration"]),
            (&issuer, &json!("8760h0m0s"))
        );
    }

    #[test]
    fn durations_have_the_form_that_go_gives_them() {
        for (seconds, text) in [(40, "40s"), (60, "1m0s"), (3599, "59m59s"), (3600, "1h0m0s"), (86_461, "24h1m1s")] {
            assert_eq!(as_go_writes_it(Duration::from_secs(seconds)), text);
        }
    }
}
