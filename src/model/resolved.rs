//! A registry in which nothing is open any more: defaults filled, rules checked, references looked up. Whoever holds one can
//! build every child without failing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use serde_json::{Map, Value};

use super::image::Version;
use super::resolve::answer_secret;
use super::{Blocked, Host, HostPort, RegistryName, Route};
use crate::access::cluster::ClusterLogins;
use crate::access::{self, Policy};
use crate::api::{
    AccessMode, BundleKind, CipherSuite, ConfigSpec, ExternalTrafficPolicy, GenerateAdmin, IpFamilyPolicy,
    KeyAlgorithm, NodeRuntime, PodSpec, Resources, RestartType, ServiceType, TlsVersion,
};
use crate::credentials::Wanted;

/// A registry in which nothing is open any more.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// Its name.
    pub name: RegistryName,
    /// Its namespace.
    pub namespace: String,
    /// Its uid: seed of everything that must differ from registry to registry and stay the same from pass to pass.
    pub uid: String,
    /// Generation of the manifest.
    pub generation: i64,
    /// Image of the registry.
    pub image: String,
    /// What the image's name tells about its version.
    pub image_version: Version,
    /// Image of the init container.
    pub operator_image: String,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Pods that run unless stopped, at least 1.
    pub replicas: i32,
    /// What clients write in image names, beside the Service's own addresses: the hosts of the route, and those of `spec.addresses`.
    pub addresses: Vec<HostPort>,
    /// The Service.
    pub service: Service,
    /// What leads clients outside of the cluster to it.
    pub route: Option<Route>,
    /// What stands before it in its pod.
    pub frontend: Option<Frontend>,
    /// Where images are kept.
    pub storage: Storage,
    /// Who signs the certificate.
    pub tls: Tls,
    /// How TLS is spoken.
    pub protocol: Protocol,
    /// Which other namespaces get a copy of the bundle.
    pub trusted_namespaces: Option<TrustedNamespaces>,
    /// Whether pods of every namespace may mount the bundle.
    pub is_trusted_by_the_cluster: bool,
    /// Which nodes are told.
    pub trusted_nodes: Option<TrustedNodes>,
    /// Who may log in.
    pub users: Users,
    /// Logins for pods of the namespace. Empty: the generated admin's, if there is one.
    pub pull_secrets: Vec<PullSecret>,
    /// Logins for pods of others. The first that selects a namespace counts there.
    pub login_copies: Vec<LoginCopy>,
    /// What is wrong with others of them.
    pub pull_faults: Vec<Fault>,
    /// What happens when the process ends.
    pub restart: RestartType,
    /// With `OnFailure`: restarts in a row before it stays stopped.
    pub max_retries: Option<i32>,
    /// Whether it is stopped by its manifest.
    pub suspend: bool,
    /// Whether claim, authority and admin outlive it.
    pub retain: bool,
    /// Knobs of the configuration.
    pub config: ConfigSpec,
    /// More sections of the configuration.
    pub extra_config: Map<String, Value>,
    /// How pods run.
    pub pod: PodSpec,
    /// Labels for every child.
    pub common_labels: BTreeMap<String, String>,
    /// Value of the annotation that asks for a new certificate.
    pub renew_request: Option<String>,
    /// What could not be followed of the manifest.
    pub faults: Faults,
}

/// What could not be followed of a manifest, by the part that hangs on it. Where one is named, the values that it is about are defaults, and the part
/// keeps what it has instead of building anything from them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Addresses.
    pub address: Option<Blocked>,
    /// The Ingress, or the route of a Gateway.
    pub route: Option<Blocked>,
    /// The claim.
    pub storage: Option<Blocked>,
    /// The certificate.
    pub certificate: Option<Blocked>,
    /// What runs.
    pub workload: Option<Blocked>,
    /// Which other namespaces get a login.
    pub login_copies: Option<Blocked>,
    /// Which other namespaces are told.
    pub trusted_namespaces: Option<Blocked>,
    /// Which nodes are told.
    pub trusted_nodes: Option<Blocked>,
}

impl Faults {
    /// Every one, for those who need a manifest that can be followed as a whole.
    pub fn all(&self) -> impl Iterator<Item = &Blocked> {
        let others = [&self.login_copies, &self.trusted_namespaces, &self.trusted_nodes];
        [&self.address, &self.route, &self.storage, &self.certificate, &self.workload]
            .into_iter()
            .chain(others)
            .flatten()
    }
}

/// The Service.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its type.
    pub kind: ServiceType,
    /// Port that clients use.
    pub port: i32,
    /// Port on the nodes, if chosen.
    pub node_port: Option<i32>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Class of the load balancer.
    pub load_balancer_class: Option<String>,
    /// Networks that may use the load balancer.
    pub source_ranges: Vec<String>,
    /// Which IP families it has addresses of.
    pub ip_family_policy: IpFamilyPolicy,
    /// Which nodes pass traffic from outside on, if chosen.
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
}

/// nginx in the registry's pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Frontend {
    /// Its image.
    pub image: String,
    /// CPU and memory of each container that comes with it, if chosen.
    pub resources: Option<Resources>,
    /// Who answers when something is pulled.
    pub pulls: Pulls,
}

/// Who answers, behind a front end, when something is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulls {
    /// The registry.
    Registry,
    /// nginx sends a blob from the volume after the registry said yes.
    AskingRegistry,
    /// nginx sends a blob after the gate said yes, and the gate answers for manifests.
    AskingGate,
}

/// Where images are kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Storage {
    /// A claim that the operator makes.
    Claim {
        /// Quantity.
        size: String,
        /// Class, absent for the cluster's default.
        class: Option<String>,
        /// Access modes, at least one, in a fixed order.
        modes: Vec<AccessMode>,
    },
    /// A claim that somebody else made.
    Existing {
        /// Its name.
        name: String,
        /// Whether pods of several nodes may mount it.
        shared: bool,
    },
    /// A folder that is lost with the pod.
    EmptyDir {
        /// Quantity.
        limit: Option<String>,
    },
}

impl Storage {
    /// Whether an old and a new pod may have it at the same time.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        match self {
            Self::Claim { modes, .. } => modes.contains(&AccessMode::ReadWriteMany),
            Self::Existing { shared, .. } => *shared,
            Self::EmptyDir { .. } => false,
        }
    }
}

/// Who signs the certificate.
#[derive(Debug, Clone, PartialEq)]
pub enum Tls {
    /// The registry's own authority.
    PrivateCa {
        /// Life of the leaf.
        duration: Duration,
        /// Life of the authority.
        ca_duration: Duration,
        /// The Secret with the authority, if that is not the registry's own.
        shared: Option<Shared>,
        /// How long clients have to learn of the next authority.
        grace: Duration,
        /// Kind of key.
        key_algorithm: KeyAlgorithm,
        /// Which of these the manifest names: only then does a user wait for an authority that is so.
        named: Named,
        /// Names beside those that the operator knows.
        dns_names: BTreeSet<String>,
        /// Addresses beside those that the operator knows.
        ip_addresses: BTreeSet<IpAddr>,
    },
    /// Somebody else, what the operator asks for.
    Request(Requested),
    /// The user.
    Own {
        /// Name of the Secret.
        secret: String,
        /// Name and key of the Secret with its key's passphrase.
        passphrase: Option<(String, String)>,
    },
    /// Nobody: plain HTTP.
    None,
    /// Somebody, but the manifest does not say it so that it can be followed: see [`Faults::certificate`].
    Unreadable,
}

/// A Secret with an authority that is not the registry's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Its namespace, if it is another one than the registry's.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A certificate that somebody else signs.
#[derive(Debug, Clone, PartialEq)]
pub struct Requested {
    /// Who is asked.
    pub signer: Signer,
    /// Name of the Secret with the authorities that clients must trust.
    pub bundle: Option<String>,
    /// Life of the certificate that is asked for.
    pub duration: Duration,
    /// Kind of key.
    pub key_algorithm: KeyAlgorithm,
    /// Names beside those that the operator knows.
    pub dns_names: BTreeSet<String>,
    /// Addresses beside those that the operator knows.
    pub ip_addresses: BTreeSet<IpAddr>,
}

/// Who signs what the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// A person, somewhere else.
    Person,
    /// A signer of Kubernetes' own requests: its name.
    Cluster(String),
    /// An issuer of cert-manager.
    Issuer(Issuer),
}

impl Signer {
    /// What is remembered of it beside a certificate that it signed: no two have the same.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            // No signer has a name without a slash, and none has two.
            Self::Person => "person".to_owned(),
            Self::Cluster(name) => name.clone(),
            Self::Issuer(Issuer { name, kind, group }) => format!("{group}/{kind}/{name}"),
        }
    }

    /// The field of the manifest that names it.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::Person | Self::Cluster(_) => "spec.tls.certificateSigningRequest",
            Self::Issuer(_) => "spec.tls.certManager",
        }
    }
}

/// An issuer of cert-manager, or of a program that signs for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its API group.
    pub group: String,
}

impl Issuer {
    /// The group of cert-manager's own.
    pub const GROUP: &str = "cert-manager.io";
    /// The kind of those that belong to a namespace.
    pub const KIND: &str = "Issuer";
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, group } = self;
        if group == Self::GROUP { write!(f, "{kind} {name}") } else { write!(f, "{kind}.{group} {name}") }
    }
}

/// How TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protocol {
    /// Oldest version that clients may speak.
    pub minimum_version: TlsVersion,
    /// Ciphers of TLS 1.2 that clients may choose from; empty: the server's own choice.
    pub cipher_suites: BTreeSet<CipherSuite>,
    /// Who signs the certificates that clients must show, PEM; `None`: they show none.
    pub client_authorities: Option<String>,
}

/// What a manifest names of an authority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Named {
    /// Its life.
    pub duration: bool,
    /// Its kind of key.
    pub key_algorithm: bool,
}

/// Who may log in.
#[derive(Debug, Clone)]
pub enum Users {
    /// Everybody.
    Everybody,
    /// The users of a table.
    Table {
        /// Who may do what; `None`: everybody everything. The generated admin is added when it is known.
        policy: Option<Box<Policy>>,
        /// Whom the cluster's tokens must be for; `None`: they do not count.
        cluster_audience: Option<String>,
        /// Who else says who somebody is.
        issuers: Vec<TrustedIssuer>,
        /// In the order of precedence: users, then usersFrom.
        candidates: Vec<Wanted>,
        /// Those whose passwords the operator makes itself.
        rotated: Vec<RotatedUser>,
        /// References that lead nowhere, in words a user can act on.
        missing: Vec<String>,
        /// Secrets that could not be read this time: their users stay as they are.
        unread: Vec<String>,
        /// What is there and cannot be used.
        faults: Vec<Fault>,
        /// The user that the operator makes itself.
        admin: Box<Admin>,
        /// Work factor of the hashes.
        cost: u32,
    },
}

/// A user whose password the operator makes, and another one again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedUser {
    /// Its name: what the Secret with its login is called by.
    pub name: String,
    /// How long a login is shown.
    pub every: SignedDuration,
    /// How long the former one counts beside the one that is shown.
    pub overlap: SignedDuration,
}

/// An issuer of tokens that are logins.
#[derive(Debug, Clone)]
pub struct TrustedIssuer {
    /// Its place in the manifest's list.
    pub number: usize,
    /// As the sidecar is told.
    pub login: access::issuer::Issuer,
    /// The ConfigMap with its keys, and the key there, if they are not asked for.
    pub keys: Option<(String, String)>,
}

/// Which other namespaces get a copy of the bundle, and as what.
#[derive(Debug, Clone)]
pub struct TrustedNamespaces {
    /// By their labels.
    pub selector: Selector,
    /// Without repetition, at least one.
    pub kinds: BTreeSet<BundleKind>,
}

impl TrustedNamespaces {
    /// Whether a namespace with these labels is among them.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.matches(labels)
    }
}

/// Which nodes are told, and for which of their runtimes.
#[derive(Debug, Clone)]
pub struct TrustedNodes {
    /// By their labels, proved to be readable; `None`: all.
    pub selector: Option<LabelSelector>,
    /// None: those that the node has.
    pub runtimes: BTreeSet<NodeRuntime>,
}

/// A login for pods of the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// Name of the Secret.
    pub name: String,
    /// Whom pods pull as.
    pub whom: PullAs,
}

/// Whom pods pull as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullAs {
    /// A user of the registry's.
    User(String),
    /// The ServiceAccount of this name in their own namespace.
    ServiceAccount(String),
}

/// A login for pods of other namespaces.
#[derive(Debug, Clone)]
pub struct LoginCopy {
    /// Which of those that accept it, by their labels.
    pub selector: Selector,
    /// Whom pods pull as.
    pub whom: PullAs,
}

impl LoginCopy {
    /// Whether a namespace with these labels is meant.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.matches(labels)
    }
}

/// The user that the operator makes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// When it is made.
    pub generate: GenerateAdmin,
    /// Its name.
    pub username: String,
}

/// Something that only its user can put right, and that stops nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// One CamelCase word, documented in docs/conditions.md.
    pub reason: &'static str,
    /// Names the object and the next action.
    pub message: String,
}

impl Resolved {
    /// Who may do what, if clients get tokens.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        match &self.users {
            Users::Table { policy, .. } => policy.as_deref(),
            Users::Everybody => None,
        }
    }

    /// How the cluster's tokens count, if they do.
    #[must_use]
    pub fn cluster_logins(&self) -> Option<ClusterLogins> {
        let Users::Table { cluster_audience: Some(audience), .. } = &self.users else { return None };
        Some(ClusterLogins { audience: audience.clone(), namespace: self.namespace.clone() })
    }

    /// Who else says who somebody is.
    #[must_use]
    pub fn issuers(&self) -> &[TrustedIssuer] {
        match &self.users {
            Users::Table { issuers, .. } => issuers,
            Users::Everybody => &[],
        }
    }

    /// Whom a registry's tokens are for, and who gives them: no other registry has the same.
    #[must_use]
    pub fn token_service(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether the registry speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls != Tls::None
    }

    /// Names and addresses of the certificate that the manifest itself names: the hosts of `spec.addresses` and `spec.route`, and those of `spec.tls.certificate`.
    #[must_use]
    pub fn written_hosts(&self) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
        let (mut names, mut addresses) = match &self.tls {
            Tls::PrivateCa { dns_names, ip_addresses, .. }
            | Tls::Request(Requested { dns_names, ip_addresses, .. }) => (dns_names.clone(), ip_addresses.clone()),
            Tls::Own { .. } | Tls::None | Tls::Unreadable => Default::default(),
        };
        for address in &self.addresses {
            match address.host() {
                Host::Name(name) => _ = names.insert(name.clone()),
                Host::Ip(ip) => _ = addresses.insert(*ip),
            }
        }
        (names, addresses)
    }

    /// Name of the Secret in which a person leaves what was signed, if one is asked.
    #[must_use]
    pub fn answer_secret(&self) -> Option<String> {
        matches!(&self.tls, Tls::Request(Requested { signer: Signer::Person, .. }))
            .then(|| answer_secret(self.name.as_str()))
    }

    /// The users whose passwords the operator makes itself.
    #[must_use]
    pub fn rotated_users(&self) -> &[RotatedUser] {
        match &self.users {
            Users::Table { rotated, .. } => rotated,
            Users::Everybody => &[],
        }
    }

    /// Name of the generated user.
    #[must_use]
    pub fn admin_name(&self) -> &str {
        match &self.users {
            Users::Table { admin, .. } => &admin.username,
            Users::Everybody => "admin",
        }
    }

    /// A host with the Service's port, which clients leave out if it is the standard one.
    #[must_use]
    pub fn at_the_services_port(&self, host: &str) -> String {
        let standard = if self.has_tls() { 443 } else { 80 };
        let port = u16::try_from(self.service.port).ok().filter(|port| *port != standard);
        let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip);
        HostPort::at(host, port).to_string()
    }

    /// Names of the Service, from the shortest to the one with the cluster's domain.
    #[must_use]
    pub fn service_names(&self) -> [String; 4] {
        let (name, namespace, domain) = (&self.name, &self.namespace, &self.cluster_domain);
        [
            name.to_string(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.{domain}"),
        ]
    }
}
