//! Who is told which authorities to trust.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is told which authorities to trust, beside the ConfigMap NAME-ca-bundle in the registry's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TrustSpec {
    /// Other namespaces that get a copy of the bundle, as NAMESPACE.NAME-ca-bundle with the registry's namespace and name. Only those
    /// that accept it: their label privateregistry.dev/accept-bundles-from says `Any`, or the registry's namespace. `{}` is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<TrustedNamespaces>,
    /// The bundle as a ClusterTrustBundle, privateregistry.dev:registry:NAMESPACE.NAME with the registry's namespace and name, which pods of every namespace can
    /// mount without a copy. Needs Kubernetes 1.37 or newer, and an operator that serves all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_trust_bundle: Option<ClusterTrustBundle>,
    /// Nodes whose container runtimes trust the registry, without a restart, under the names of its Service that end in svc, the Service's
    /// addresses, and those of spec.addresses that an administrator allows. Needs the node agents of the operator's chart. `{}` is every
    /// node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<TrustedNodes>,
}

/// A ClusterTrustBundle. Has no fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ClusterTrustBundle {}

/// Which nodes trust the registry.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TrustedNodes {
    /// Which nodes, by their labels. Absent: every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Which runtimes on them. Absent: those that a node has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub runtimes: Vec<NodeRuntime>,
}

/// What pulls images on a node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeRuntime {
    /// containerd, and with it most kubelets.
    Containerd,
    /// Docker's daemon.
    Docker,
    /// podman, buildah, skopeo and CRI-O.
    Podman,
}

/// Which namespaces get a copy of the bundle, and as what.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TrustedNamespaces {
    /// Which of the namespaces that accept bundles, by their labels. Absent: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// As what the bundle is copied, with the key ca.crt; default ConfigMap. A Secret is for programs that read nothing else, such
    /// as Flux's certSecretRef; its content is public all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub kinds: Vec<BundleKind>,
}

/// What holds a copy of the bundle.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BundleKind {
    /// For pods that mount it.
    ConfigMap,
    /// For programs that read a Secret.
    Secret,
}
