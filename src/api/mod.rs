//! What a user writes: the `PrivateRegistry` resource, one file per concern, and the status that answers.
//!
//! Nothing here decides: defaults and meaning live in [`crate::model`]. No field has a schema default, because a defaulted
//! member of a union would stay in the live object and make the switch to another member impossible.

mod auth;
mod config;
mod crd;
mod frontend;
mod pod;
mod registry;
mod restart;
mod route;
pub mod rules;
mod scalar;
mod service;
mod status;
mod storage;
mod tls;
mod trust;

pub use auth::{
    AdminSpec, AuthSpec, ClaimMapping, GenerateAdmin, HtpasswdSecretRef, HtpasswdSpec, IssuerSpec, JwksConfigMapRef,
    KubernetesLogins, NoAuth, RuleAction, RuleSpec, SecretKeyRef, SecretRef, TeamSpec, TokenSpec, UserRotation,
    UserSpec, UsersFrom,
};
pub use config::{ConfigSpec, LogLevel, UploadPurging};
pub use crd::{DEFINITION, crd, crd_yaml, outline_json, schema, schema_outline};
pub use frontend::{FrontendSpec, NginxSpec};
pub use pod::{PodSpec, Resources};
pub use registry::{DeletionPolicy, PrivateRegistry, PrivateRegistrySpec, PullSecretNamespaces, PullSecretSpec};
pub use restart::{RestartPolicySpec, RestartType};
pub use route::{GatewayMode, GatewayRef, GatewaySpec, IngressController, IngressSpec, RouteSpec};
pub use scalar::{GoDuration, Quantity};
pub use service::{ExternalTrafficPolicy, IpFamilyPolicy, ServiceSpec, ServiceType};
pub use status::{
    Address, AddressScope, AuthorityStage, AuthorityStatus, CertificateStatus, CopiesStatus, PrivateRegistryStatus,
    ReachStatus, StorageStatus, TrustStatus, UserRotationStatus, UserSource, UserSourceKind, UserStatus, condition,
    reason,
};
pub use storage::{AccessMode, ClaimSpec, DEFAULT_SIZE, EmptyDirSpec, ExistingClaim, StorageSpec};
pub use tls::{
    CaSecretRef, CertManagerTls, CertificateSigningRequestTls, CertificateSpec, CipherSuite, IssuerRef, KeyAlgorithm,
    NoTls, PrivateCa, Rotation, SecretTls, TlsSpec, TlsVersion,
};
pub use trust::{BundleKind, NodeRuntime, TrustSpec, TrustedNamespaces, TrustedNodes};

/// API group of every kind, label and annotation of this operator.
pub const GROUP: &str = "privateregistry.dev";

/// Annotations that a user may put on a registry, or on what belongs to it.
pub mod annotation {
    /// `"true"`: the operator looks at this registry, reports, and writes nothing.
    pub const PAUSED: &str = "privateregistry.dev/paused";
    /// `leaf`: issue the serving certificate again now; `ca`: issue a lost authority again. A value that was served is not
    /// served twice; write it anew (for instance `leaf-2`) to ask again.
    pub const RENEW: &str = "privateregistry.dev/renew";
    /// On the Secret with the login of a user with `rotation`: anything that was not there before asks for the next login now; `now-` and anything: the
    /// present one ends at once. What was handled is the key `handled` of the same Secret.
    pub const ROTATE: &str = "privateregistry.dev/rotate";
    /// Name of a volume that held images and is gone, as the status tells: the registry may begin anew without it.
    pub const GIVEN_UP_VOLUME: &str = "privateregistry.dev/given-up-volume";
}
