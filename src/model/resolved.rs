//! A registry in which nothing is open any more: defaults filled, rules checked, references looked up. Whoever holds one can
//! build every child without failing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::RegistryName;
use super::image::Version;
use crate::api::{AccessMode, ConfigSpec, GeneratedAdmin, KeyAlgorithm, PodSpec, RestartType, ServiceType};
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
    /// Names that clients use, without port.
    pub hostnames: Vec<String>,
    /// The Service.
    pub service: Service,
    /// Where images are kept.
    pub storage: Storage,
    /// Who signs the certificate.
    pub tls: Tls,
    /// Who may log in.
    pub users: Users,
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
    /// Value of the annotation that asks for a new certificate.
    pub renew_request: Option<String>,
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
        /// Access modes, at least one.
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
    SelfSigned {
        /// Life of the leaf.
        duration: Duration,
        /// Life of the authority.
        ca_duration: Duration,
        /// Kind of key.
        key_algorithm: KeyAlgorithm,
        /// Names beside those that the operator knows.
        dns_names: BTreeSet<String>,
        /// Addresses beside those that the operator knows.
        ip_addresses: BTreeSet<IpAddr>,
    },
    /// The user.
    Own {
        /// Name of the Secret.
        secret: String,
    },
    /// Nobody: plain HTTP.
    None,
}

/// Who may log in.
#[derive(Debug, Clone)]
pub enum Users {
    /// Everybody.
    Everybody,
    /// The users of a table.
    Table {
        /// In the order of precedence: users, then usersFrom.
        candidates: Vec<Wanted>,
        /// References that lead nowhere, in words a user can act on.
        missing: Vec<String>,
        /// When an admin is generated.
        generated: GeneratedAdmin,
        /// Work factor of the hashes.
        cost: u32,
    },
}

impl Resolved {
    /// Whether the registry speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls != Tls::None
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
