//! The operator's own settings, the same for every registry.

use std::collections::BTreeSet;
use std::time::Duration;

use super::NodeAgents;

/// Registry image of manifests that name none: the version this operator was tested with, by digest.
pub const REGISTRY_IMAGE: &str =
    "docker.io/library/registry:3.1.2@sha256:ddf754342cfc8acc51a56d5d0ab6af06826461864460636d8bd5c546dab2a7b8";

/// Image of the front end: an nginx that is made for another user than root, by digest.
pub const FRONTEND_IMAGE: &str = "docker.io/nginxinc/nginx-unprivileged:1.30.4-alpine@sha256:45ce1e2e699234253d1def7baa96218a5d00b498d1ba0cbb1a17b6bdf73d1351";

/// Kubelets are told of a new table at once, and look by themselves within two minutes.
pub const LOGIN_LEAD: Duration = Duration::from_secs(180);
/// Between the end of one login and the beginning of the next there must be room for it.
pub const LONGEST_LOGIN_LEAD: Duration = Duration::from_secs(600);

/// What an administrator decides once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Image of the registry where a manifest names none.
    pub registry_image: String,
    /// Image of the front end.
    pub frontend_image: String,
    /// The operator's own image: the init container that probes the volume runs it, and the sidecar of the front end.
    pub operator_image: String,
    /// DNS domain of the cluster, without dots at its ends.
    pub cluster_domain: String,
    /// Whether the operator watches the whole cluster, and so may see what belongs to no namespace: which namespaces accept bundles, and requests to signers.
    pub sees_namespaces: bool,
    /// Kinds of objects that the operator may write beside those that it always does. One that the cluster lacks may be among them.
    pub optional_kinds: BTreeSet<String>,
    /// The agents on nodes, if there are any.
    pub node_agents: Option<NodeAgents>,
    /// How long another installation of the operator may leave the question unanswered whether it is still there.
    pub takeover_wait: Duration,
    /// How long a next login stands in the table of users before it is shown to anybody: longer than kubelets take to show pods what changed.
    pub login_lead: Duration,
    /// For tests of renewal.
    pub short_certificates: Option<ShortCertificates>,
}

/// For tests of renewal: certificates that live shorter than a manifest may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortCertificates {
    /// Whose registries get them, whatever their manifests say.
    pub namespace: String,
    /// Life of serving certificates.
    pub certificate: Duration,
    /// Life of authorities, if it is another than usual.
    pub authority: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            registry_image: REGISTRY_IMAGE.to_owned(),
            frontend_image: FRONTEND_IMAGE.to_owned(),
            // Nobody can own this host: an image that an administrator has not named is never pulled from a stranger.
            operator_image: format!("registry.example.com/private-registry-operator:{}", env!("CARGO_PKG_VERSION")),
            cluster_domain: "cluster.local".to_owned(),
            sees_namespaces: true,
            optional_kinds: BTreeSet::new(),
            node_agents: None,
            // Twice what a pass may take.
            takeover_wait: Duration::from_secs(60),
            login_lead: LOGIN_LEAD,
            short_certificates: None,
        }
    }
}
