//! Who signs the certificate that the registry serves.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GoDuration, rules};

/// Who signs the serving certificate: at most one of its fields; none of them means selfSigned.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_TLS)]
pub struct TlsSpec {
    /// The operator makes an authority for this registry and renews the certificate by itself. The default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,
    /// Your own certificate. It is checked and copied, so that a broken new version is never served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretTls>,
    /// Plain HTTP, for registries behind something else that terminates TLS. Logins cross the network readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoTls>,
}

/// A certificate from the registry's own authority.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::AUTHORITY_OUTLIVES_LEAF, validation = rules::LEAF_AT_MOST_DEFAULT_AUTHORITY)]
pub struct SelfSigned {
    /// Life of the serving certificate, default 8760h (a year), at least 1m. It is renewed after two thirds of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::AT_LEAST_A_MINUTE)]
    pub duration: Option<GoDuration>,
    /// Life of the authority, default 87600h (ten years), at least as long as the certificate's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::AT_LEAST_A_MINUTE)]
    pub ca_duration: Option<GoDuration>,
    /// Kind of key, default ECDSAP256, which every client of the last ten years understands. RSA is not among them: elliptic
    /// curves are faster and smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<KeyAlgorithm>,
    /// More DNS names for the certificate, beside the Service's names and spec.hostnames.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253), regex(pattern = rules::DNS_NAME_OR_WILDCARD)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub dns_names: Vec<String>,
    /// More IP addresses for the certificate, for instance those of the nodes when the Service is a NodePort.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 45), regex(pattern = rules::IP_ADDRESS)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ip_addresses: Vec<String>,
}

/// Kind of key. RSA is not among them: keys are made by the operator, and elliptic curves are faster and smaller.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
pub enum KeyAlgorithm {
    /// ECDSA on the curve P-256.
    #[default]
    #[serde(rename = "ECDSAP256")]
    EcdsaP256,
    /// ECDSA on the curve P-384.
    #[serde(rename = "ECDSAP384")]
    EcdsaP384,
    /// Ed25519; Go clients understand it, some older ones do not.
    Ed25519,
}

/// A certificate of your own.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretTls {
    /// Secret of type kubernetes.io/tls in the registry's namespace: tls.crt (certificate and chain), tls.key, and ca.crt if
    /// clients must trust an authority that their systems do not know.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Plain HTTP. Has no fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct NoTls {}
