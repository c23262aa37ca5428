//! Labels and annotations of children.

use std::collections::BTreeMap;

use super::RegistryName;

/// Label that names the registry a child belongs to.
pub const REGISTRY: &str = "privateregistry.dev/registry";
/// Label that names the registry's namespace, on what is copied to other namespaces or belongs to none.
pub const REGISTRY_NAMESPACE: &str = "privateregistry.dev/registry-namespace";
/// Label that says who writes an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`], and the field manager of every write.
pub const MANAGER: &str = "private-registry-operator";
/// Annotation of a Deployment: how many replicas the operator wants, so that a zero by the user can be told from its own.
pub const REPLICAS: &str = "privateregistry.dev/replicas";
/// Annotation of a workload and of its pod template: SHA-256 of the certificate, so that a new one rolls the pods. Behind a front end, of a running pod
/// alone: of the certificate that its kubelet was told of.
pub const TLS_CHECKSUM: &str = "privateregistry.dev/tls-checksum";
/// Annotation of a pod template: SHA-256 of the configuration.
pub const CONFIG_CHECKSUM: &str = "privateregistry.dev/config-checksum";
/// Annotation of a Deployment or Job: SHA-256 of its pod template without certificate and operator.
pub const TEMPLATE: &str = "privateregistry.dev/template";
/// Annotation of a Deployment or Job: the operator's image that its pods probe their volume with.
pub const PROBE_IMAGE: &str = "privateregistry.dev/probe-image";
/// Annotation on the Job: restarts that do not count against `maxRetries`, because a long good run came after them.
pub const FORGIVEN_RESTARTS: &str = "privateregistry.dev/forgiven-restarts";
/// Annotation of a running pod: SHA-256 of the table of users that its kubelet was told of.
pub const USERS_CHECKSUM: &str = "privateregistry.dev/users-checksum";
/// Annotation of the TLS Secret: why its certificate was issued, in one word; absent on a copy of the user's own. Of the Secret with a request: why it was
/// made.
pub const ISSUED: &str = "privateregistry.dev/issued";
/// Annotation of the TLS Secret: the request for renewal that was served last.
pub const SERVED_REQUEST: &str = "privateregistry.dev/served-request";
/// Annotation of the TLS Secret, while one authority takes over from another: since when each has been published, or signs; JSON, by fingerprint.
pub const AUTHORITIES_SINCE: &str = "privateregistry.dev/authorities-since";
/// Annotation of the TLS Secret: the Secret with the authority that signed, where that is not the registry's own.
pub const SHARED_AUTHORITY: &str = "privateregistry.dev/shared-authority";
/// Annotation of a Secret with an authority: for registries of which other namespaces it signs, with commas between, or [`ANY`].
pub const SIGNS_FOR: &str = "privateregistry.dev/signs-for";
/// All of them. No namespace can be called so.
pub const ANY: &str = "Any";
/// Annotation of the TLS Secret: who signed its certificate on request ([`super::Signer::id`]); absent if nobody did.
pub const SIGNER: &str = "privateregistry.dev/signer";
/// Annotation of the CA's Secret: fingerprint of the authority that the next one in it was made to succeed.
pub const SUCCEEDS: &str = "privateregistry.dev/succeeds";

/// Label by which GitOps tools find what belongs to a release.
pub const INSTANCE: &str = "app.kubernetes.io/instance";

const NAME: &str = "app.kubernetes.io/name";
const NAME_VALUE: &str = "private-registry";

/// Whether Kubernetes takes this as the key of a label: a name of up to 63 characters, perhaps behind a DNS name and a slash.
#[must_use]
pub fn is_key(key: &str) -> bool {
    let is_name = |name: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric();
        name.len() <= 63
            && name.bytes().all(|byte| inner(byte) || matches!(byte, b'-' | b'_' | b'.'))
            && name.bytes().next().is_some_and(inner)
            && name.bytes().last().is_some_and(inner)
    };
    let is_prefix = |prefix: &str| {
        let is_lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        prefix.len() <= 253 && prefix.bytes().all(is_lower) && prefix.split('.').all(is_name)
    };
    match key.split_once('/') {
        Some((prefix, name)) => is_prefix(prefix) && is_name(name),
        None => is_name(key),
    }
}

/// The selector of a registry's pods. Selectors are immutable in Kubernetes: these two are frozen for ever.
#[must_use]
pub fn selector(name: &RegistryName) -> BTreeMap<String, String> {
    BTreeMap::from([(NAME.to_owned(), NAME_VALUE.to_owned()), (REGISTRY.to_owned(), name.to_string())])
}

/// Labels of a child that goes with the registry.
#[must_use]
pub fn disposable(name: &RegistryName) -> BTreeMap<String, String> {
    let mut labels = kept(name);
    labels.insert(INSTANCE.to_owned(), name.to_string());
    labels
}

/// Labels of a child that may outlive the registry: without `instance`, by which GitOps tools prune.
#[must_use]
pub fn kept(name: &RegistryName) -> BTreeMap<String, String> {
    let mut labels = selector(name);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels.insert("app.kubernetes.io/component".to_owned(), "registry".to_owned());
    labels.insert("app.kubernetes.io/part-of".to_owned(), "private-registry".to_owned());
    labels
}

/// Labels of a copy in another namespace, beside those that say whose it is: no selector of a registry's pods may fit it.
#[must_use]
pub fn copied() -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "private-registry".to_owned())])
}

/// Annotations that keep Argo CD and Helm from deleting a kept child.
#[must_use]
pub fn keep_annotations() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("argocd.argoproj.io/sync-options".to_owned(), "Delete=false,Prune=false".to_owned()),
        ("helm.sh/resource-policy".to_owned(), "keep".to_owned()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_kubernetes_takes() {
        for key in ["a", "cost-center", "A_b.c", "example.com/team", &"a".repeat(63)] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", "-a", "a b", "a/", "/a", "A.example/a", "a..b/c", "a/b/c", &"a".repeat(64)] {
            assert!(!is_key(key), "{key}");
        }
    }
}
