//! Who signs the certificate that the registry serves.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GoDuration, SecretKeyRef, SecretRef, rules};

/// Who signs the serving certificate, and what it is like: at most one of privateCA, secret, certManager, certificateSigningRequest and none; without
/// any, privateCA.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::ONE_SIGNER,
    validation = rules::CERTIFICATE_NEEDS_A_SIGNER,
    validation = rules::AUTHORITY_OUTLIVES_CERTIFICATE,
    validation = rules::VERSION_NEEDS_TLS,
    validation = rules::CIPHERS_ARE_OF_TLS_1_2,
    validation = rules::CIPHERS_INCLUDE_THAT_OF_HTTP_2
)]
pub struct TlsSpec {
    /// The operator makes an authority for this registry alone and renews the certificate by itself. The default.
    #[serde(rename = "privateCA", default, skip_serializing_if = "Option::is_none")]
    pub private_ca: Option<PrivateCa>,
    /// Your own certificate. It is checked and copied, so that a broken new version is never served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretTls>,
    /// An issuer of cert-manager signs what the operator asks for. The operator makes the key and renews the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManagerTls>,
    /// Somebody else signs what the operator asks for: a signer of the cluster, or a person. The key never leaves the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_signing_request: Option<CertificateSigningRequestTls>,
    /// Plain HTTP, for registries behind something else that terminates TLS. Logins cross the network readable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoTls>,
    /// What the certificate is like, where the operator has it signed: with privateCA, certManager and certificateSigningRequest. Absent: an
    /// ECDSA certificate of a year for every name and address that the operator knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateSpec>,
    /// Oldest version of TLS that clients may speak, default VersionTLS12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<TlsVersion>,
    /// Ciphers of TLS 1.2 that clients may choose from, by their names in Go; absent: those that the registry takes for safe. Those of TLS 1.3 cannot
    /// be chosen. HTTP/2 needs one with AES_128_GCM_SHA256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub cipher_suites: Vec<CipherSuite>,
    /// A Secret of the namespace whose key ca.crt holds the authorities, PEM, that clients' certificates are signed by, each with all that stand above it. Every client must
    /// then show such a certificate, beside its login. Needs spec.frontend.nginx.
    #[serde(rename = "clientCASecretRef", default, skip_serializing_if = "Option::is_none")]
    pub client_ca_secret_ref: Option<SecretRef>,
}

/// A version of TLS.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    VersionTLS12,
    /// TLS 1.3.
    VersionTLS13,
}

/// A cipher of TLS 1.2 with forward secrecy: by the kind of the certificate's key (Ed25519 counts as ECDSA).
#[derive(
    JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr,
)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum CipherSuite {
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]
    #[strum(serialize = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")]
    EcdsaAes128,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")]
    #[strum(serialize = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")]
    EcdsaAes256,
    #[serde(rename = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")]
    #[strum(serialize = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256")]
    EcdsaChacha20,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")]
    #[strum(serialize = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")]
    RsaAes128,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")]
    #[strum(serialize = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")]
    RsaAes256,
    #[serde(rename = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")]
    #[strum(serialize = "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256")]
    RsaChacha20,
}

/// An authority for this registry alone. Its key is in the Secret NAME-ca, its certificate in the ConfigMap NAME-ca-bundle.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::LIFE_OF_A_SHARED_AUTHORITY)]
pub struct PrivateCa {
    /// Life of the authority, default 87600h (ten years), at least 1h and at least as long as the certificate's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::AT_LEAST_AN_HOUR)]
    pub duration: Option<GoDuration>,
    /// The authority of another Secret (tls.crt, tls.key) signs, for instance one for many registries: a company's, or the NAME-ca of another
    /// registry. The operator only reads it; what becomes of it is decided there.
    #[serde(rename = "caSecretRef", default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<CaSecretRef>,
    /// How one authority takes over from another: when two thirds of its life are over, or when the annotation privateregistry.dev/renew asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// A Secret with an authority.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CaSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Its namespace, if it is another one than the registry's. There the Secret's annotation privateregistry.dev/signs-for must name the registry's
    /// namespace (several: with commas), or `Any`. Needs an operator that serves all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::LABEL))]
    pub namespace: Option<String>,
}

/// How one authority takes over from another. The next one is published in NAME-ca-bundle first and signs later, so that clients can learn of it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// How long the next authority is published before it signs, and how long the former one stays in the bundle afterwards; default 24h. It is cut
    /// to half of the time that the former one has left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<GoDuration>,
}

/// What the serving certificate is like.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSpec {
    /// Life of the certificate, default 8760h (a year), at least 1h. It is renewed after two thirds of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::AT_LEAST_AN_HOUR)]
    pub duration: Option<GoDuration>,
    /// Kind of key, default ECDSAP256, which every client of the last ten years understands. RSA is not among them: elliptic
    /// curves are faster and smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<KeyAlgorithm>,
    /// More DNS names for the certificate, beside the Service's names and those in spec.addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253), regex(pattern = rules::DNS_NAME_OR_WILDCARD)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub dns_names: Vec<String>,
    /// More IP addresses for the certificate, beside the Service's and those in spec.addresses.
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
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Where the passphrase is that tls.key is encrypted with, if it is: PKCS #8, or OpenSSL's older form with AES or triple DES.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase_secret_ref: Option<SecretKeyRef>,
}

/// A certificate that an issuer of cert-manager signs, for a key of the operator's. Key and request are in the Secret NAME-csr; while an answer is waited
/// for, the request is the CertificateRequest NAME-csr. The certificate that is served goes on until the answer is there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertManagerTls {
    /// The issuer that signs, as in a Certificate of cert-manager.
    pub issuer_ref: IssuerRef,
    /// A Secret of the namespace whose key ca.crt holds the authorities that clients must trust, PEM: they are published at once, so that clients know
    /// them before they sign. Absent: the one that comes with the certificate, if there is one; else one that clients know already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_secret_ref: Option<SecretRef>,
}

/// An issuer, as cert-manager itself has it named.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Name of the issuer. One of kind Issuer is in the registry's namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Its kind, default Issuer; ClusterIssuer, or a kind of another program that signs for cert-manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::KIND_NAME))]
    pub kind: Option<String>,
    /// Its API group, default cert-manager.io.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub group: Option<String>,
}

/// A certificate that somebody else signs for a key of the operator's. Key and request are in the Secret NAME-csr, the request alone in the
/// ConfigMap NAME-csr. The certificate that is served goes on until the answer is there.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSigningRequestTls {
    /// The signer of a CertificateSigningRequest of Kubernetes, for instance example.com/registries; somebody has to approve the request (kubectl
    /// certificate approve). Needs an operator that serves all namespaces. Absent: a person has it signed (kubectl registry csr,
    /// kubectl registry set-certificate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 571), regex(pattern = rules::SIGNER_NAME))]
    #[x_kube(validation = rules::SIGNER_IS_OF_NO_NODE)]
    pub signer_name: Option<String>,
    /// A Secret of the namespace whose key ca.crt holds the authorities that clients must trust, PEM: they are published at once, so that clients know
    /// them before they sign. Absent: the root at the end of the chain, if it is there; else one that clients know already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_secret_ref: Option<SecretRef>,
}

/// Plain HTTP. Has no fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct NoTls {}
