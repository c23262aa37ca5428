//! Proof that nodes trust a registry: the pod that pulls, and what is kept of what it told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::{Hold, Object, object};
use crate::model::{Resolved, labels};
use crate::node::proof::{REPOSITORY, Verdict};

/// Label of a pod: which order it is a proof of, the beginning of its name.
pub const ORDER: &str = "privateregistry.dev/order";
/// Label of a pod: of which registry of the namespace in [`labels::REGISTRY_NAMESPACE`]. Not [`labels::REGISTRY`]: it is no pod of the registry.
pub const OF: &str = "privateregistry.dev/proof-of";
/// How much of an order's name is in labels and what is kept.
const SHORT: usize = 16;
/// Longest message that is kept, in characters.
const LONGEST: usize = 300;

/// What is known of nodes.
pub type Proofs = BTreeMap<String, Proof>;

/// What a pull on one node has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    order: String,
    /// What it was.
    pub verdict: Verdict,
    /// What the kubelet said, if it was not good.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

impl Proof {
    /// What a pull for this order has told.
    #[must_use]
    pub fn new(order: &str, verdict: Verdict, message: &str, at: Timestamp) -> Self {
        let message = if verdict == Verdict::Trusted { "" } else { message };
        let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
        let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
        Self { order: short(order).to_owned(), verdict, message, at }
    }

    /// Whether it is of this order.
    #[must_use]
    pub fn is_of(&self, order: &str) -> bool {
        self.order == short(order)
    }

    /// Reads [`Proof::render`]; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let (order, verdict, at) = (parts.next()?, parts.next()?, parts.next()?);
        let verdict = [Verdict::Trusted, Verdict::Refused, Verdict::Unclear, Verdict::Asked]
            .into_iter()
            .find(|known| format!("{known:?}") == verdict)?;
        let message = parts.next().unwrap_or_default().to_owned();
        Some(Self { order: order.to_owned(), verdict, message, at: at.parse().ok()? })
    }

    fn render(&self) -> String {
        format!("{} {:?} {} {}", self.order, self.verdict, self.at, self.message).trim_end().to_owned()
    }
}

/// What is kept is called so, beside the order.
#[must_use]
pub fn name(namespace: &str, registry: &str) -> String {
    format!("proofs.{namespace}.{registry}")
}

/// What is kept, in the operator's namespace `home`: it takes a pod on each node to find it out again.
#[must_use]
pub fn build(registry: &Resolved, home: &str, proofs: &Proofs) -> Object {
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(&registry.namespace, registry.name.as_str())),
            labels: Some(registry.labels(labels::copied())),
            ..ObjectMeta::default()
        },
        data: super::some(proofs.iter().map(|(node, proof)| (node.clone(), proof.render())).collect()),
        ..ConfigMap::default()
    };
    if home == registry.namespace {
        return object(&map, Hold::Disposable);
    }
    Object { namespace: Some(home.to_owned()), ..object(&map, Hold::Kept) }
}

/// An image that nobody can push, so that nothing is ever pulled, or run.
#[must_use]
pub fn image(host: &str) -> String {
    format!("{host}/{REPOSITORY}@sha256:{}", "0".repeat(64))
}

/// By which the pods of a registry are found.
#[must_use]
pub fn selector(namespace: &str, registry: &str) -> String {
    format!("{OF}={registry},{}={namespace}", labels::REGISTRY_NAMESPACE)
}

/// The pod that asks on a node for an image which the registry does not have.
///
/// # Panics
/// Never: it is a pod.
#[must_use]
pub fn pod(registry: &Resolved, name: &str, node: &str, host: &str, order: &str) -> Pod {
    // None of the user's: a controller might take the pod for its own.
    let labels = BTreeMap::from([
        (labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned()),
        (labels::REGISTRY_NAMESPACE.to_owned(), registry.namespace.clone()),
        (OF.to_owned(), registry.name.to_string()),
        (ORDER.to_owned(), short(order).to_owned()),
    ]);
    let pod = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {
            // Not by way of a scheduler: this node it must be, whatever taints it has.
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "restartPolicy": "Never",
            // If no operator comes back to take it away, it does not pull for ever.
            "activeDeadlineSeconds": 300,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "proof",
                "image": image(host),
                "imagePullPolicy": "Always",
                "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "16Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    });
    serde_json::from_value(pod).expect("it is a pod")
}

fn short(order: &str) -> &str {
    order.get(..SHORT).unwrap_or(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Observed, Settings, resolve};

    #[test]
    fn what_is_kept_is_read_again() {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        let order = "0123456789abcdef0123456789abcdef";
        for (verdict, message, kept) in [
            (Verdict::Asked, "", ""),
            (Verdict::Trusted, "401 Unauthorized", ""),
            (Verdict::Refused, "x509: unknown\nauthority", "x509: unknown authority"),
            (Verdict::Unclear, &"a".repeat(1000), &"a".repeat(300)),
        ] {
            let proof = Proof::new(order, verdict, message, at);
            let read = Proof::parse(&proof.render()).unwrap();
            assert_eq!(read, proof);
            assert_eq!(read.message, kept);
            assert!(read.is_of(order));
            assert!(!read.is_of("fedc456789abcdef"));
        }
        for text in ["", "a b c", "a Trusted yesterday", "a Perhaps 2026-01-01T00:00:00Z"] {
            assert_eq!(Proof::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_pod_asks_for_what_nobody_can_push_and_has_no_label_of_the_users() {
        let registry = serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a", "namespace": "registries", "uid": "u"},
            "spec": {"commonLabels": {"app.kubernetes.io/name": "private-registry-operator-node-agent"}},
        }));
        let registry = resolve(&registry.unwrap(), &Observed::default(), &Settings::default()).unwrap();
        let pod = pod(&registry, "proof-1", "node-1", "team-a.registries.svc:5000", "0123456789abcdef0123");
        let labels = pod.metadata.labels.unwrap();
        assert!(!labels.contains_key("app.kubernetes.io/name"), "{labels:?}");
        assert!(!labels.contains_key(labels::REGISTRY), "it is no pod of the registry");
        let image = pod.spec.unwrap().containers[0].image.clone().unwrap();
        assert!(image.ends_with(&format!("@sha256:{}", "0".repeat(64))), "{image}");
    }
}
