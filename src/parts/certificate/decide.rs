//! The certificate of one registry: what `pki` decides, carried out on what lies in the cluster. The only step of a pass, beside
//! [`super::logins`], in which something random is made; it is stored before anything uses it.

mod own;
mod private_ca;
mod signed;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use operator_engine::apply::Live;
use serde_json::Value;

use crate::api::{self, AuthorityStage, AuthorityStatus, CertificateStatus};
use crate::desired;
use crate::model::{Child, Observed, Resolved, SecretContent, Shared, Tls, labels};
use crate::parts::Error;
use crate::parts::context::KUBELETS_OWN_TIME;
use crate::pki::bundle::Bundle;
use crate::pki::facts::CertificateFacts;
use crate::pki::policy::{self, Renew};
use crate::pki::{KeyAlgorithm, Leaf, LeafProfile, checksum};
use crate::status::{Certificate, Problem};

/// What the cluster holds of a registry's certificate.
pub struct Stored<'a> {
    /// `NAME-tls`.
    pub leaf: Option<&'a Live>,
    /// What clients were told to trust, where `NAME-tls` does not say it any more.
    pub published: Option<String>,
    /// `NAME-ca`.
    pub authority: Authority,
    /// `NAME-csr`.
    pub request: Option<&'a Live>,
    /// What the signer says to the request that lies there; [`Answer::Nothing`], too, if a person is asked.
    pub answer: Answer,
    /// From when on a signer may be asked, if it was asked a short while ago.
    pub asks_at: Option<Timestamp>,
}

/// What a signer of the cluster says to a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Answer {
    /// It has not been asked, or Kubernetes or somebody has removed the request.
    #[default]
    Nothing,
    /// Nobody has said yet whether it may sign.
    Pending,
    /// It may, but has not signed yet: why, as far as that was said.
    Approved(String),
    /// It must not: why, as far as that was said.
    Denied(String),
    /// It could not.
    Failed {
        /// Why, as far as that was said.
        why: String,
        /// When it is asked again without anybody's doing, if it is.
        again_at: Option<Timestamp>,
    },
    /// What it signed.
    Signed {
        /// The certificate and what belongs to its chain, PEM.
        chain: Vec<u8>,
        /// The authority that clients must trust, PEM, if that was said.
        authority: Option<Vec<u8>>,
        /// When it is asked again without anybody's doing, if this cannot be served.
        again_at: Option<Timestamp>,
    },
    /// Another object has the request's name.
    Foreign,
}

impl Answer {
    /// When it is asked again without anybody's doing, if this answer is of no use.
    fn again_at(&self) -> Option<Timestamp> {
        match self {
            Self::Failed { again_at, .. } | Self::Signed { again_at, .. } => *again_at,
            Self::Nothing | Self::Pending | Self::Approved(_) | Self::Denied(_) | Self::Foreign => None,
        }
    }
}

/// A request that waits for a signer of the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Its object.
    pub object: Question,
    /// Whether it has to be made.
    pub is_missing: bool,
}

/// The object by which a signer of the cluster is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// A request of Kubernetes.
    Cluster(Box<CertificateSigningRequest>),
    /// A request of cert-manager.
    Issuer(desired::Object),
}

impl Question {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Cluster(object) => object.metadata.name.as_deref().unwrap_or_default(),
            Self::Issuer(object) => &object.name,
        }
    }
}

pub use signed::asked_already;

/// `NAME-ca`, as it stands to the registry.
pub enum Authority {
    /// There is none.
    Absent,
    /// The registry's own: of now, or kept from a former one of the same name.
    Stored(Live),
    /// Somebody made it and hands it over.
    Offered(Live),
    /// It lies in another Secret, which is only read.
    Shared {
        /// Which one.
        secret: Shared,
        /// What it holds; `None`: it does not exist, or could not be read.
        content: Option<SecretContent>,
        /// Whether it could not be read this time.
        is_unread: bool,
    },
}

impl Authority {
    fn live(&self) -> Option<&Live> {
        match self {
            Self::Absent | Self::Shared { .. } => None,
            Self::Stored(live) | Self::Offered(live) => Some(live),
        }
    }

    /// What lies under this key of the Secret.
    fn data(&self, key: &str) -> Option<Vec<u8>> {
        match self {
            Self::Absent => None,
            Self::Stored(live) | Self::Offered(live) => live.data(key),
            Self::Shared { content, .. } => content.as_ref()?.data.get(key).map(|value| value.expose().clone()),
        }
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.live().and_then(|live| live.annotation(key))
    }

    fn is_there(&self) -> bool {
        self.live().is_some() || matches!(self, Self::Shared { content: Some(_), .. })
    }

    fn is_shared(&self) -> bool {
        matches!(self, Self::Shared { .. })
    }

    /// Name of its Secret.
    fn name(&self, registry: &Resolved) -> String {
        match self {
            Self::Shared { secret, .. } => secret.to_string(),
            _ => registry.name.child(Child::Ca),
        }
    }

    /// Type of its Secret.
    fn kind(&self) -> &str {
        self.live().and_then(|live| live.at("type")?.as_str()).unwrap_or(desired::Authority::KIND)
    }
}

/// When and in what state of affairs it is decided.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The present moment.
    pub now: Timestamp,
    /// What pods do meanwhile.
    pub rollout: Rollout,
    /// The request for renewal that was handled last, as the status remembers it.
    pub handled: Option<&'a str>,
}

/// What pods do while the certificate is decided about.
#[derive(Debug, Default, Clone)]
pub struct Rollout {
    /// Whether they are replaced in any case.
    pub is_pending: bool,
    /// What all of them serve.
    pub serves: Serves,
}

/// What all pods of a registry serve.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Serves {
    /// That is not known, or some serve another certificate than the rest.
    #[default]
    Unknown,
    /// Nothing: there is none.
    Nothing,
    /// The certificate with this checksum.
    Only(String),
    /// What their kubelets have brought them: behind a front end, each new one after a while.
    Brought,
}

/// What a pass goes on with.
#[derive(Debug, Default)]
pub struct Settled {
    /// What is served; `None` without TLS, or while there is none.
    pub serving: Option<desired::ServingCertificate>,
    /// The registry's own authority, if it signs.
    pub authority: Option<desired::Authority>,
    /// What somebody else is asked to sign, if anybody is.
    pub request: Option<desired::SigningRequest>,
    /// The request that waits for a signer of the cluster. All others of the registry have done their service.
    pub asked: Option<Asked>,
    /// What clients must trust.
    pub bundle: Option<String>,
    /// What the status says.
    pub report: Certificate,
    /// When time alone can change the decision.
    pub look_again: Option<Timestamp>,
    /// Why a leaf was issued in this pass.
    pub issued: Option<Renew>,
    /// Whether this is all that is to be there, although a problem is told.
    pub is_complete: bool,
}

/// Keeps, makes or takes over the certificate.
///
/// # Errors
/// When a key cannot be made.
pub fn settle(
    registry: &Resolved,
    stored: &Stored<'_>,
    observed: &Observed,
    service: Option<&Value>,
    moment: &Moment<'_>,
) -> Result<Settled, Error> {
    match &registry.tls {
        Tls::None | Tls::Unreadable => Ok(Settled::default()),
        Tls::Own { secret, passphrase } => {
            Ok(own::settle(registry, secret, passphrase.as_ref(), stored, observed, moment))
        }
        Tls::PrivateCa { .. } => private_ca::settle(registry, stored, service, moment),
        Tls::Request(wanted) => signed::settle(registry, wanted, stored, observed, service, moment),
    }
}

/// What a certificate must be that is signed for the operator.
fn profile(
    registry: &Resolved,
    duration: std::time::Duration,
    key_algorithm: api::KeyAlgorithm,
    service: Option<&Value>,
    leaf: Option<&Live>,
) -> LeafProfile {
    let (dns_names, ip_addresses) = hosts(registry, service, leaf);
    LeafProfile {
        common_name: registry.name.to_string(),
        dns_names,
        ip_addresses,
        duration: signed(duration),
        key_algorithm: algorithm(key_algorithm),
    }
}

/// Names and addresses that clients of a registry use. Nodes are never read: whoever uses node ports lists their addresses.
fn hosts(registry: &Resolved, service: Option<&Value>, leaf: Option<&Live>) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let (mut names, mut addresses) = registry.written_hosts();
    names.extend(registry.service_names());
    names.insert("localhost".to_owned());
    addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
    // Without the Service, the names that the certificate has are the best that is known of it.
    let Some(service) = service else {
        if let Some(facts) = leaf.and_then(leaf_of).and_then(|leaf| CertificateFacts::of_pem(&leaf.chain_pem).ok()) {
            names.extend(facts.dns_names);
            addresses.extend(facts.ip_addresses);
        }
        return (names, addresses);
    };
    let list = |pointer: &str| service.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
    addresses.extend(list("/spec/clusterIPs").filter_map(Value::as_str).filter_map(|ip| ip.parse::<IpAddr>().ok()));
    for ingress in list("/status/loadBalancer/ingress") {
        addresses.extend(ingress["ip"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok()));
        names.extend(ingress["hostname"].as_str().map(str::to_lowercase));
    }
    (names, addresses)
}

fn node_port_note(registry: &Resolved) -> Option<String> {
    (registry.service.kind == api::ServiceType::NodePort && registry.addresses.is_empty()).then(|| {
        "the nodes' addresses are not in the certificate: list those that clients use, with the node port, in spec.addresses"
            .to_owned()
    })
}

/// Whether the last pod serves what is served now, and when the kubelets of all have brought it, if they serve what they are brought.
fn is_everywhere(moment: &Moment<'_>, leaf: Option<&Leaf>) -> (bool, Option<Timestamp>) {
    let brought = leaf.filter(|_| moment.rollout.serves == Serves::Brought).and_then(|leaf| {
        let issued = CertificateFacts::of_pem(&leaf.chain_pem).ok()?.issued_at();
        issued.checked_add(KUBELETS_OWN_TIME).ok()
    });
    let is_everywhere = match &moment.rollout.serves {
        Serves::Unknown => false,
        Serves::Nothing => true,
        Serves::Brought => brought.is_some_and(|at| at <= moment.now),
        Serves::Only(served) => leaf.is_some_and(|leaf| *served == checksum(leaf)),
    };
    (is_everywhere, brought)
}

fn certificate_status(facts: &CertificateFacts, bundle: &Bundle, leaf: Option<&Leaf>) -> CertificateStatus {
    let authorities = bundle.signing(leaf.map(|leaf| leaf.chain_pem.as_str()).unwrap_or_default());
    let active = authorities.iter().position(|(_, signs)| *signs);
    // New ones come in front.
    let stage = |place: usize, signs: bool| match active {
        _ if signs => AuthorityStage::Active,
        Some(active) if place < active => AuthorityStage::Next,
        _ => AuthorityStage::Former,
    };
    CertificateStatus {
        not_before: facts.not_before.to_string(),
        not_after: facts.not_after.to_string(),
        serial: facts.serial.clone(),
        authorities: authorities
            .into_iter()
            .enumerate()
            .map(|(place, (facts, signs))| AuthorityStatus {
                fingerprint: facts.fingerprint,
                not_after: facts.not_after.to_string(),
                stage: stage(place, signs),
            })
            .collect(),
        ..CertificateStatus::default()
    }
}

/// The request that was handled last, as long as the manifest still utters one. One that is taken back is forgotten, so that it can be uttered again.
pub fn still_asked(registry: &Resolved, handled: Option<String>) -> Option<String> {
    handled.filter(|_| registry.renew_request.is_some())
}

/// What is stored, when nothing is decided: certificate, what the status says of it, and when it ends.
pub fn as_stored(
    registry: &Resolved,
    stored: Option<&Live>,
) -> (Option<desired::ServingCertificate>, Option<CertificateStatus>, Option<Timestamp>) {
    let Some((live, leaf)) = stored.and_then(|live| Some((live, leaf_of(live)?))) else { return (None, None, None) };
    let ca = text(live, "ca.crt");
    let bundle = Bundle::read(ca.as_deref().unwrap_or_default());
    let facts = CertificateFacts::of_pem(&leaf.chain_pem).ok();
    let reason = live.annotation(labels::ISSUED).map(str::to_owned);
    let renew_at = facts.as_ref().filter(|_| reason.is_some()).map(|facts| policy::renew_at(facts, &registry.uid));
    let served = facts.as_ref().map(|facts| CertificateStatus {
        renew_at: renew_at.map(|at| at.to_string()),
        reason: reason.clone(),
        ..certificate_status(facts, &bundle, Some(&leaf))
    });
    let serving = desired::ServingCertificate {
        checksum: checksum(&leaf),
        chain: leaf.chain_pem,
        key: leaf.key_pem,
        ca,
        served_request: live.annotation(labels::SERVED_REQUEST).map(str::to_owned),
        issued: reason,
        authorities_since: live.annotation(labels::AUTHORITIES_SINCE).map(str::to_owned),
        shared_authority: live.annotation(labels::SHARED_AUTHORITY).map(str::to_owned),
        signer: live.annotation(labels::SIGNER).map(str::to_owned),
    };
    (Some(serving), served, renew_at)
}

/// The certificate beside the bundle that is stored already, because another one could not be published; `None` if clients that have the stored one refuse it.
pub fn unpublished(serving: &desired::ServingCertificate, stored: &Live) -> Option<desired::ServingCertificate> {
    let ca = text(stored, "ca.crt")?;
    is_signed(&Bundle::read(&ca), &serving.chain).then(|| desired::ServingCertificate {
        ca: Some(ca),
        authorities_since: stored.annotation(labels::AUTHORITIES_SINCE).map(str::to_owned),
        ..serving.clone()
    })
}

fn is_signed(by: &Bundle, chain: &str) -> bool {
    by.signing(chain).iter().any(|(_, signs)| *signs)
}

/// What is stored goes on being served, and the CA stays as it is.
fn refused(registry: &Resolved, stored: &Stored<'_>, moment: &Moment<'_>, problem: Problem) -> Settled {
    let (serving, served, look_again) = as_stored(registry, stored.leaf);
    let bundle = serving.as_ref().and_then(|serving| serving.ca.clone());
    let handled_request = still_asked(registry, moment.handled.map(str::to_owned));
    let report = Certificate { served, handled_request, problem: Some(problem), note: None };
    // What is overdue already is looked at again when what stands in its way has changed.
    let look_again = look_again.filter(|at| *at > moment.now);
    Settled { serving, bundle, report, look_again, ..Settled::default() }
}

fn join(notes: impl IntoIterator<Item = String>) -> Option<String> {
    notes.into_iter().reduce(|all, note| format!("{all}; {note}"))
}

fn leaf_of(live: &Live) -> Option<Leaf> {
    Leaf::stored(live.data("tls.crt").as_deref(), live.data("tls.key").as_deref())
}

fn text(live: &Live, key: &str) -> Option<String> {
    live.data(key).and_then(|bytes| String::from_utf8(bytes).ok())
}

fn algorithm(given: api::KeyAlgorithm) -> KeyAlgorithm {
    match given {
        api::KeyAlgorithm::EcdsaP256 => KeyAlgorithm::EcdsaP256,
        api::KeyAlgorithm::EcdsaP384 => KeyAlgorithm::EcdsaP384,
        api::KeyAlgorithm::Ed25519 => KeyAlgorithm::Ed25519,
    }
}

fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
