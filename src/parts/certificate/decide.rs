//! The certificate of one registry: what `pki` decides, carried out on what lies in the cluster. The only step of a pass, beside
//! [`super::logins`], in which something random is made; it is stored before anything uses it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::{SignedDuration, Timestamp};
use operator_engine::apply::Live;
use serde_json::Value;

use crate::api::{self, AuthorityStage, AuthorityStatus, CertificateStatus};
use crate::desired;
use crate::model::{Child, Host, Observed, Resolved, Tls, labels};
use crate::parts::Error;
use crate::pki::acceptance::{Flaw, Refusal};
use crate::pki::bundle::Bundle;
use crate::pki::facts::{CertificateFacts, PublicKeyKind};
use crate::pki::import::{self, ImportError};
use crate::pki::policy::{self, AuthorityVerdict, LeafVerdict, Renew, Request};
use crate::pki::reading::{AuthorityReading, LeafReading};
use crate::pki::{self, AuthorityProfile, KeyAlgorithm, Leaf, LeafProfile, checksum, issue};
use crate::status::{Certificate, Problem};

/// What the cluster holds of a registry's certificate.
pub struct Stored<'a> {
    /// `NAME-tls`.
    pub leaf: Option<&'a Live>,
    /// What clients were told to trust, where `NAME-tls` does not say it any more.
    pub published: Option<String>,
    /// `NAME-ca`.
    pub authority: Authority,
}

/// `NAME-ca`, as it stands to the registry.
pub enum Authority {
    /// There is none.
    Absent,
    /// The registry's own: of now, or kept from a former one of the same name.
    Stored(Live),
    /// Somebody made it and hands it over.
    Offered(Live),
}

impl Authority {
    fn live(&self) -> Option<&Live> {
        match self {
            Self::Absent => None,
            Self::Stored(live) | Self::Offered(live) => Some(live),
        }
    }

    /// Type of its Secret.
    fn kind(&self) -> &str {
        self.live().and_then(|live| live.at("type")?.as_str()).unwrap_or(desired::Authority::KIND)
    }
}

/// When and in what state of affairs it is decided.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The present moment.
    pub now: Timestamp,
    /// Whether pods are replaced in any case.
    pub rollout_pending: bool,
    /// The request for renewal that was handled last, as the status remembers it.
    pub handled: Option<&'a str>,
}

/// What a pass goes on with.
#[derive(Debug, Default)]
pub struct Settled {
    /// What is served; `None` without TLS, or while there is none.
    pub serving: Option<desired::ServingCertificate>,
    /// The registry's own authority, if it signs.
    pub authority: Option<desired::Authority>,
    /// What clients must trust.
    pub bundle: Option<String>,
    /// What the status says.
    pub report: Certificate,
    /// When time alone can change the decision.
    pub look_again: Option<Timestamp>,
    /// Why a leaf was issued in this pass.
    pub issued: Option<Renew>,
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
    moment: Moment<'_>,
) -> Result<Settled, Error> {
    match &registry.tls {
        Tls::None | Tls::Unreadable => Ok(Settled::default()),
        Tls::Own { secret } => Ok(take_over(registry, secret, stored, observed, &moment)),
        Tls::PrivateCa { .. } => private_ca(registry, stored, service, &moment),
    }
}

fn private_ca(
    registry: &Resolved,
    stored: &Stored<'_>,
    service: Option<&Value>,
    moment: &Moment<'_>,
) -> Result<Settled, Error> {
    let now = moment.now;
    let Tls::PrivateCa { duration, ca_duration, key_algorithm, .. } = &registry.tls else {
        return Ok(Settled::default());
    };
    let (dns_names, ip_addresses) = hosts(registry, service, stored.leaf);
    let algorithm = algorithm(*key_algorithm);
    let profile = LeafProfile {
        common_name: registry.name.to_string(),
        dns_names,
        ip_addresses,
        duration: signed(*duration),
        key_algorithm: algorithm,
    };
    let mut authority = stored.authority.live().and_then(authority_of);
    // What was handed over or kept is used as it is, or not at all: nothing is written over it.
    let is_taken = matches!(stored.authority, Authority::Offered(_)) || stored.leaf.is_none();
    let authority_reading = AuthorityReading::of(authority.as_ref(), &profile);
    if is_taken && stored.authority.live().is_some() {
        let refusal = authority_reading.refusal(now);
        if refusal.is_some() || authority_reading.facts().is_none() {
            return Ok(not_issued(registry, stored, moment, refusal.as_ref()));
        }
    }
    let last_reason = stored.leaf.and_then(|live| live.annotation(labels::ISSUED)).and_then(|word| word.parse().ok());
    let mut leaf = stored.leaf.and_then(leaf_of);
    let mut leaf_reading = LeafReading::of(leaf.as_ref(), authority.as_ref(), now);
    // A copy of a company's certificate is no leaf of ours, whatever it says.
    if last_reason.is_none() && !matches!(leaf_reading, LeafReading::Read { signed_by_authority: Some(true), .. }) {
        (leaf, leaf_reading) = (None, LeafReading::Missing);
    }
    // The status remembers it too: a request that was served is not served again because its Secret was deleted.
    let served =
        stored.leaf.and_then(|live| live.annotation(labels::SERVED_REQUEST)).or(moment.handled).map(str::to_owned);
    let request = registry.renew_request.as_deref().filter(|wanted| Some(*wanted) != served.as_deref());
    let decision = policy::decide(&policy::Input {
        leaf: leaf_reading,
        authority: authority_reading.clone(),
        profile: &profile,
        uid: &registry.uid,
        now,
        rollout_pending: moment.rollout_pending,
        request: request_of(request),
        last_reason,
    });

    let kept_note = authority.as_ref().filter(|_| decision.authority == AuthorityVerdict::Keep);
    let kept_note = kept_note.and_then(|authority| CertificateFacts::of_pem(&authority.certificate_pem).ok());
    let kept_note = kept_note.and_then(|facts| authority_note(registry, &facts));

    // What clients trusted until now stays in the bundle while it is valid.
    let known =
        stored.leaf.and_then(|live| text(live, "ca.crt")).or_else(|| stored.published.clone()).unwrap_or_default();
    let mut problem = None;
    match decision.authority {
        AuthorityVerdict::Keep => {}
        AuthorityVerdict::Issue(_) => {
            let profile = AuthorityProfile {
                // X.509 allows 64 characters, a registry's name has up to 48.
                common_name: format!("{} registry CA", registry.name),
                duration: signed(*ca_duration),
                key_algorithm: algorithm,
            };
            authority = Some(issue::issue_authority(&profile, now)?);
        }
        AuthorityVerdict::CaMissing => problem = Some(authority_missing(registry)),
        AuthorityVerdict::CaRefused => {
            problem = Some(unusable(registry, stored, authority_reading.refusal(now).as_ref()));
        }
    }
    let (issued, look_again) = match decision.leaf {
        LeafVerdict::Keep { look_again } => (None, Some(look_again)),
        LeafVerdict::Issue(why) => {
            if let Some(authority) = &authority {
                let new = issue::issue_leaf(authority, &profile, now)?;
                // What clients refuse is not worth what is served.
                if let Some(refusal) = LeafReading::of(Some(&new), Some(authority), now).refusal() {
                    return Ok(not_issued(registry, stored, moment, Some(refusal)));
                }
                leaf = Some(new);
            }
            (Some(why), None)
        }
    };

    // A wish that could not be fulfilled stays one. One that is taken back is forgotten, so that it can be uttered again.
    let asked = registry.renew_request.clone();
    let served_request = if issued.is_some() { asked } else { still_asked(registry, served) };

    let is_sound = problem.is_none();
    let mut bundle = Bundle::read(&known);
    if let Some(authority) = authority.as_ref().filter(|_| is_sound) {
        bundle = bundle.with(&authority.certificate_pem);
    }
    let bundle = bundle.without_expired(now);
    let facts = leaf.as_ref().and_then(|leaf| CertificateFacts::of_pem(&leaf.chain_pem).ok());
    let look_again = look_again.or_else(|| facts.as_ref().map(|facts| policy::renew_at(facts, &registry.uid)));
    Ok(Settled {
        report: Certificate {
            served: facts.map(|facts| CertificateStatus {
                renew_at: Some(policy::renew_at(&facts, &registry.uid).to_string()),
                reason: issued.or(last_reason).map(|word| word.to_string()),
                ..certificate_status(&facts, &bundle, leaf.as_ref())
            }),
            handled_request: served_request.clone(),
            problem,
            note: join([node_port_note(registry), request_note(registry), kept_note].into_iter().flatten()),
        },
        serving: leaf.map(|leaf| desired::ServingCertificate {
            checksum: checksum(&leaf),
            chain: leaf.chain_pem,
            key: leaf.key_pem,
            ca: Some(bundle.render()),
            served_request,
            issued: issued.or(last_reason).map(|word| word.to_string()),
        }),
        // What cannot be used is not written, least of all over itself.
        authority: authority.filter(|_| is_sound).map(|authority| desired::Authority {
            certificate: authority.certificate_pem,
            key: authority.key_pem,
            kind: stored.authority.kind().to_owned(),
        }),
        bundle: Some(bundle.render()),
        look_again,
        issued,
    })
}

/// Checks the user's certificate and copies it, or keeps serving the last copy that was good.
fn take_over(
    registry: &Resolved,
    secret: &str,
    stored: &Stored<'_>,
    observed: &Observed,
    moment: &Moment<'_>,
) -> Settled {
    let now = moment.now;
    let handled = still_asked(registry, moment.handled.map(str::to_owned));
    let keep = |reason: &str, message: String, waiting: bool| {
        let still = if is_accepted(stored.leaf, now) { "; the last good one is still served" } else { "" };
        let message = format!("{message}{still}");
        let problem = if waiting { Problem::waiting(reason, message) } else { Problem::stuck(reason, message) };
        refused(registry, stored, moment, problem)
    };
    if observed.unread.contains(secret) {
        return keep("ReadFailed", format!("Secret {secret} could not be read; it is tried again"), true);
    }
    let Some(Some(content)) = observed.secrets.get(secret) else {
        return keep(
            "WaitingForSecret",
            format!("Secret {secret}, named in spec.tls.secret.name, does not exist; create it"),
            true,
        );
    };
    let value = |key: &str| content.data.get(key).map(|value| value.expose().as_slice());
    let material = import::Material { chain: value("tls.crt"), key: value("tls.key"), authorities: value("ca.crt") };
    // The cluster's own names are not asked of a company's certificate: only those that the user wrote.
    let (dns_names, ip_addresses) = written(registry);
    let hosts = import::Hosts { dns_names: &dns_names, ip_addresses: &ip_addresses };
    let copy = stored.leaf.filter(|live| live.annotation(labels::ISSUED).is_none()).and_then(leaf_of);
    let copy = copy.and_then(|leaf| CertificateFacts::of_pem(&leaf.chain_pem).ok());
    let checked = match import::check(material, hosts, copy.as_ref(), now) {
        // Nobody loses a name that is served by what clients refuse.
        Err(ImportError::NamesMissing(_)) if !is_accepted(stored.leaf, now) => {
            import::check(material, hosts, None, now)
        }
        checked => checked,
    };
    let imported = match checked {
        Ok(imported) => imported,
        Err(error) => return keep(error.reason(), format!("Secret {secret}: {error}"), false),
    };
    let bundle = Bundle::read(imported.authorities_pem.as_deref().unwrap_or_default());
    let mut notes: Vec<_> = imported.notes.iter().map(ToString::to_string).collect();
    if !imported.uncovered.is_empty() {
        let names = imported.uncovered.iter().cloned().collect::<Vec<_>>().join(", ");
        notes.push(format!("it does not cover {names} of spec.addresses: clients that use these names will refuse it"));
    }
    Settled {
        look_again: Some(imported.ends),
        report: Certificate {
            served: Some(certificate_status(&imported.facts, &bundle, Some(&imported.leaf))),
            handled_request: handled.clone(),
            problem: None,
            note: join(notes),
        },
        serving: Some(desired::ServingCertificate {
            checksum: checksum(&imported.leaf),
            chain: imported.leaf.chain_pem,
            key: imported.leaf.key_pem,
            ca: imported.authorities_pem.clone(),
            served_request: None,
            issued: None,
        }),
        bundle: imported.authorities_pem,
        ..Settled::default()
    }
}

/// Whether clients accept what is stored.
fn is_accepted(stored: Option<&Live>, now: Timestamp) -> bool {
    let Some((live, leaf)) = stored.and_then(|live| Some((live, leaf_of(live)?))) else { return false };
    let ca = text(live, "ca.crt");
    let material = import::Material {
        chain: Some(leaf.chain_pem.as_bytes()),
        key: Some(leaf.key_pem.expose().as_bytes()),
        authorities: ca.as_deref().map(str::as_bytes),
    };
    let no_hosts = import::Hosts { dns_names: &BTreeSet::new(), ip_addresses: &BTreeSet::new() };
    import::check(material, no_hosts, None, now).is_ok()
}

/// The hosts of `spec.addresses`.
fn written(registry: &Resolved) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for address in &registry.addresses {
        match address.host() {
            Host::Name(name) => _ = names.insert(name.clone()),
            Host::Ip(ip) => _ = addresses.insert(*ip),
        }
    }
    (names, addresses)
}

/// Names and addresses that clients of a registry use. Nodes are never read: whoever uses node ports lists their addresses.
fn hosts(registry: &Resolved, service: Option<&Value>, leaf: Option<&Live>) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let Tls::PrivateCa { dns_names, ip_addresses, .. } = &registry.tls else { return Default::default() };
    let (mut names, mut addresses) = written(registry);
    names.extend(dns_names.iter().cloned());
    addresses.extend(ip_addresses);
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

fn certificate_status(facts: &CertificateFacts, bundle: &Bundle, leaf: Option<&Leaf>) -> CertificateStatus {
    let stage = |signs: bool| if signs { AuthorityStage::Active } else { AuthorityStage::Former };
    let authorities = bundle.signing(leaf.map(|leaf| leaf.chain_pem.as_str()).unwrap_or_default());
    CertificateStatus {
        not_before: facts.not_before.to_string(),
        not_after: facts.not_after.to_string(),
        serial: facts.serial.clone(),
        authorities: authorities
            .into_iter()
            .map(|(facts, signs)| AuthorityStatus {
                fingerprint: facts.fingerprint,
                not_after: facts.not_after.to_string(),
                stage: stage(signs),
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
    };
    (Some(serving), served, renew_at)
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

/// The CA cannot sign what clients accept: what is stored goes on being served. `why`: what clients object to; `None`: there is no CA to read.
fn not_issued(registry: &Resolved, stored: &Stored<'_>, moment: &Moment<'_>, why: Option<&Refusal>) -> Settled {
    let settled = refused(registry, stored, moment, unusable(registry, stored, why));
    let begins = why.and_then(|why| match why.flaw {
        Flaw::NotYetValid(at) => Some(at),
        _ => None,
    });
    Settled { look_again: settled.look_again.into_iter().chain(begins).min(), ..settled }
}

fn unusable(registry: &Resolved, stored: &Stored<'_>, why: Option<&Refusal>) -> Problem {
    let why = why.map_or_else(
        || "a certificate and its key are needed there, under tls.crt and tls.key".to_owned(),
        ToString::to_string,
    );
    let next = match (stored.leaf, &stored.authority) {
        (Some(_), Authority::Stored(_)) => {
            "the certificate that is served stays. Put a CA there that clients accept, or annotate the registry with \
             privateregistry.dev/renew=ca for a new one"
        }
        _ => "put a CA there that clients accept, or delete the Secret for a new one",
    };
    let ca = registry.name.child(Child::Ca);
    Problem::stuck(
        "CaUnusable",
        format!("Secret {ca} holds no CA that can be used, and is not written over: {why}; {next}"),
    )
}

fn authority_missing(registry: &Resolved) -> Problem {
    Problem::stuck(
        "CaMissing",
        format!(
            "Secret {} is missing or unreadable: the certificate is still served, but no new one can be signed; restore the Secret \
             from a backup, or annotate the registry with privateregistry.dev/renew=ca and hand the new bundle to clients",
            registry.name.child(Child::Ca)
        ),
    )
}

fn node_port_note(registry: &Resolved) -> Option<String> {
    (registry.service.kind == api::ServiceType::NodePort && registry.addresses.is_empty()).then(|| {
        "the nodes' addresses are not in the certificate: list those that clients use, with the node port, in spec.addresses"
            .to_owned()
    })
}

/// `leaf-2026-11` asks for a leaf too: the rest tells one request from the next.
fn request_of(annotation: Option<&str>) -> Request {
    Request::of(annotation.and_then(|text| text.split('-').next()))
}

fn request_note(registry: &Resolved) -> Option<String> {
    let asked = registry.renew_request.as_deref()?;
    (request_of(Some(asked)) == Request::None)
        .then(|| format!("the annotation {}={asked} asks for nothing; write leaf or ca", api::annotation::RENEW))
}

/// What the manifest says of the authority counts for the next one: clients trust the one that there is.
fn authority_note(registry: &Resolved, authority: &CertificateFacts) -> Option<String> {
    let Tls::PrivateCa { ca_duration, key_algorithm, named, .. } = &registry.tls else { return None };
    let life = authority.life().saturating_sub(signed(*ca_duration)).abs();
    let is_other_life = named.duration && life > SignedDuration::from_mins(1);
    let wanted = PublicKeyKind::Own(algorithm(*key_algorithm));
    let is_other_key = named.key_algorithm && authority.key != wanted;
    let fields: Vec<_> = [
        is_other_life.then_some("spec.tls.privateCA.duration"),
        is_other_key.then_some("spec.tls.certificate.keyAlgorithm"),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!fields.is_empty()).then(|| {
        format!(
            "the CA, {} until {}, stays as it is: {} counts for the next one, which the annotation {}=ca asks for",
            authority.key,
            authority.not_after,
            fields.join(" and "),
            api::annotation::RENEW
        )
    })
}

fn join(notes: impl IntoIterator<Item = String>) -> Option<String> {
    notes.into_iter().reduce(|all, note| format!("{all}; {note}"))
}

fn leaf_of(live: &Live) -> Option<Leaf> {
    Leaf::stored(live.data("tls.crt").as_deref(), live.data("tls.key").as_deref())
}

fn authority_of(live: &Live) -> Option<pki::Authority> {
    pki::Authority::stored(live.data("tls.crt").as_deref(), live.data("tls.key").as_deref())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::desired::kinds;
    use crate::parts::testing::{resolved, stored_secret};

    fn asking(annotation: &str) -> Resolved {
        resolved(&json!({}), &json!({api::annotation::RENEW: annotation}))
    }

    /// The two Secrets of a certificate.
    #[derive(Default, Clone)]
    struct Shelf {
        leaf: Option<Live>,
        authority: Option<Live>,
    }

    impl Shelf {
        fn settle(&self, registry: &Resolved) -> Settled {
            let authority = self.authority.clone().map_or(Authority::Absent, Authority::Stored);
            let stored = Stored { leaf: self.leaf.as_ref(), published: None, authority };
            let moment = Moment { now: Timestamp::now(), rollout_pending: false, handled: None };
            settle(registry, &stored, &Observed::default(), Some(&json!({})), moment).unwrap()
        }

        /// What lies there after the pass, beside what status says was served and why a certificate was issued.
        fn pass(&self, registry: &Resolved) -> (Self, Option<String>, Option<Renew>) {
            let settled = self.settle(registry);
            let told = settled.report.handled_request.clone();
            let issued = settled.issued;
            let material = desired::Material {
                certificate: settled.serving,
                authority: settled.authority,
                bundle: settled.bundle,
                table: None,
                admin: None,
                pull: None,
                http_secret: String::new().into(),
            };
            let plan = desired::plan(registry, &material, &desired::Run::default());
            let live = |child| stored_secret(registry, &plan, child);
            (Self { leaf: live(Child::Tls), authority: live(Child::Ca) }, told, issued)
        }
    }

    #[test]
    fn a_wish_counts_as_served_only_when_a_certificate_was_issued_for_it() {
        let silent = resolved(&json!({}), &json!({}));
        let (shelf, told, issued) = Shelf::default().pass(&silent);
        assert_eq!((told, issued), (None, Some(Renew::Missing)));

        let asking = asking("leaf-1");
        let lost = Shelf { authority: None, ..shelf.clone() };
        let (kept, told, issued) = lost.pass(&asking);
        assert_eq!((told, issued), (None, None), "nothing can sign");

        let restored = Shelf { leaf: kept.leaf, ..shelf };
        let (renewed, told, issued) = restored.pass(&asking);
        assert_eq!((told.as_deref(), issued), (Some("leaf-1"), Some(Renew::Requested)));
        let (same, told, issued) = renewed.pass(&asking);
        assert_eq!((told.as_deref(), issued), (Some("leaf-1"), None));

        let (forgotten, told, issued) = same.pass(&silent);
        assert_eq!((told, issued), (None, None));
        assert_eq!(forgotten.pass(&asking).2, Some(Renew::Requested));
    }

    /// `NAME-ca` with this content.
    fn handed(shelf: &Shelf, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Shelf {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Company");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        change(&mut params);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let mut object = shelf.authority.as_ref().unwrap().value().clone();
        let encode = |text: String| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        object["data"] = json!({"tls.crt": encode(certificate), "tls.key": encode(key.serialize_pem())});
        Shelf { authority: Some(Live::new(kinds::SECRET, object)), ..shelf.clone() }
    }

    #[test]
    fn a_ca_whose_certificates_clients_refuse_replaces_nothing_and_is_told_with_its_reason() {
        let registry = resolved(&json!({}), &json!({}));
        let (shelf, ..) = Shelf::default().pass(&registry);
        let served = |settled: &Settled| settled.serving.as_ref().unwrap().chain.clone();
        let good = shelf.settle(&registry);

        let excluding = |name: &str| {
            let excluded_subtrees = vec![rcgen::GeneralSubtree::DnsName(name.to_owned())];
            Some(rcgen::NameConstraints { permitted_subtrees: vec![], excluded_subtrees })
        };
        for (bad, words) in [
            (
                handed(&shelf, |params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth]),
                "CN=Company is not meant for servers",
            ),
            (handed(&shelf, |params| params.name_constraints = excluding("localhost")), "does not permit localhost"),
            (handed(&shelf, |params| params.is_ca = rcgen::IsCa::ExplicitNoCa), "is not one of a CA"),
            (
                handed(&shelf, |params| params.not_before = rcgen::date_time_ymd(3000, 1, 1)),
                "valid only from 3000-01-01",
            ),
        ] {
            let settled = bad.settle(&registry);
            assert_eq!(served(&settled), served(&good), "{words}");
            assert_eq!((&settled.bundle, settled.issued), (&good.bundle, None), "{words}");
            assert!(settled.authority.is_none(), "nothing is written over it: {words}");
            let problem = settled.report.problem.unwrap();
            assert_eq!(problem.reason, "CaUnusable", "{words}");
            assert!(problem.message.contains(words) && problem.message.contains("renew=ca"), "{}", problem.message);

            let first = Shelf { leaf: None, ..bad }.settle(&registry);
            assert!(first.serving.is_none() && first.authority.is_none(), "{words}");
            let problem = first.report.problem.unwrap();
            assert!(
                problem.message.contains(words) && problem.message.contains("delete the Secret"),
                "{}",
                problem.message
            );
        }

        // Without a certificate of its own it is not replaced at its end either.
        let ended = handed(&shelf, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
        let settled = Shelf { leaf: None, ..ended }.settle(&registry);
        assert!(settled.authority.is_none() && settled.serving.is_none());
        let problem = settled.report.problem.unwrap();
        assert!(problem.reason == "CaUnusable" && problem.message.contains("expired at 2020"), "{}", problem.message);

        let company = handed(&shelf, |_| {}).settle(&registry);
        assert_eq!((company.issued, company.report.problem), (Some(Renew::CaChanged), None));
    }

    #[test]
    fn a_name_that_the_ca_does_not_permit_is_told_before_a_certificate_with_it_is_issued() {
        let registry = |address: &str| resolved(&json!({"addresses": [address]}), &json!({}));
        let (shelf, ..) = Shelf::default().pass(&registry("registry.example.com"));
        let company = handed(&shelf, |params| {
            let excluded_subtrees = vec![rcgen::GeneralSubtree::DnsName("example.org".to_owned())];
            params.name_constraints = Some(rcgen::NameConstraints { permitted_subtrees: vec![], excluded_subtrees });
        });
        let (shelf, _, issued) = company.pass(&registry("registry.example.com"));
        assert_eq!(issued, Some(Renew::CaChanged));
        let settled = shelf.settle(&registry("registry.example.org"));
        let problem = settled.report.problem.unwrap();
        assert!(problem.message.contains("does not permit registry.example.org"), "{}", problem.message);
        assert_eq!(settled.issued, None);
    }

    /// A user's Secret `own` with a certificate for the host, and the root that signed it, which lives for so many days.
    fn own(host: &str, root_days: i64) -> Observed {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let end = Timestamp::now() + SignedDuration::from_hours(24 * root_days);
        params.not_after = time::OffsetDateTime::from_unix_timestamp(end.as_second()).unwrap();
        let root = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &root).unwrap();
        let data = [("tls.crt", leaf.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", root.pem())];
        let content = crate::model::SecretContent {
            uid: "1".to_owned(),
            kind: "kubernetes.io/tls".to_owned(),
            resource_version: "1".to_owned(),
            data: data.into_iter().map(|(key, text)| (key.to_owned(), text.into_bytes().into())).collect(),
        };
        Observed { secrets: [("own".to_owned(), Some(content))].into(), ..Observed::default() }
    }

    #[test]
    fn a_users_certificate_that_clients_refuse_replaces_nothing_and_one_that_they_refuse_holds_nothing_back() {
        let registry =
            resolved(&json!({"addresses": ["a.example.com"], "tls": {"secret": {"name": "own"}}}), &json!({}));
        let settle = |leaf: Option<&Live>, observed: &Observed| {
            let moment = Moment { now: Timestamp::now(), rollout_pending: false, handled: None };
            settle(&registry, &Stored { leaf, published: None, authority: Authority::Absent }, observed, None, moment)
                .unwrap()
        };
        let stored = |serving: &desired::ServingCertificate| {
            let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
            let data = json!({
                "tls.crt": encode(&serving.chain), "tls.key": encode(serving.key.expose()),
                "ca.crt": encode(serving.ca.as_ref().unwrap()),
            });
            Live::new(kinds::SECRET, json!({"metadata": {"name": "team-a-tls"}, "data": data}))
        };

        let good = settle(None, &own("a.example.com", 10)).serving.unwrap();
        let kept = stored(&good);
        let refused = settle(Some(&kept), &own("a.example.com", -1));
        assert_eq!(refused.serving.unwrap().chain, good.chain);
        assert_eq!(refused.bundle, good.ca);
        let problem = refused.report.problem.unwrap();
        assert_eq!(problem.reason, "CertificateExpired");
        assert!(problem.message.ends_with("; the last good one is still served"), "{}", problem.message);

        let fewer_names = own("b.example.com", 10);
        assert_eq!(settle(Some(&kept), &fewer_names).report.problem.unwrap().reason, "NamesMissing");
        // The same, beside a copy whose root is no longer one that signed it.
        let stranger = own("a.example.com", 10).secrets["own"].as_ref().unwrap().data["ca.crt"].expose().clone();
        let broken =
            stored(&desired::ServingCertificate { ca: Some(String::from_utf8(stranger).unwrap()), ..good.clone() });
        assert!(settle(Some(&broken), &fewer_names).report.problem.is_none());
        let problem = settle(Some(&broken), &own("a.example.com", -1)).report.problem.unwrap();
        assert!(!problem.message.contains("still served"), "{}", problem.message);
    }

    #[test]
    fn nobody_serves_a_wish_for_a_certificate_that_is_the_users_own() {
        let (shelf, ..) = Shelf::default().pass(&resolved(&json!({}), &json!({})));
        let own = resolved(&json!({"tls": {"secret": {"name": "own"}}}), &json!({api::annotation::RENEW: "leaf"}));
        let (_, told, _) = shelf.pass(&own);
        assert_eq!(told, None);
    }

    #[test]
    fn what_a_manifest_says_of_a_ca_that_is_kept_is_told_to_count_for_the_next_one() {
        let (shelf, ..) = Shelf::default().pass(&resolved(&json!({}), &json!({})));
        let note = |tls: Value| {
            let registry = resolved(&json!({"tls": tls}), &json!({}));
            shelf.settle(&registry).report.note
        };
        assert_eq!(note(json!({})), None);
        assert_eq!(
            note(json!({"privateCA": {"duration": "87600h"}, "certificate": {"keyAlgorithm": "ECDSAP256"}})),
            None
        );
        let told = note(json!({"privateCA": {"duration": "87000h"}})).unwrap();
        assert!(
            told.contains("spec.tls.privateCA.duration counts for the next one") && told.contains("renew=ca"),
            "{told}"
        );
        let told = note(json!({"certificate": {"keyAlgorithm": "ECDSAP384"}})).unwrap();
        assert!(told.contains("spec.tls.certificate.keyAlgorithm"), "{told}");
    }

    #[test]
    fn a_request_that_asks_for_nothing_is_told() {
        for known in ["leaf", "leaf-2026-11", "ca"] {
            assert_eq!(request_note(&asking(known)), None, "{known}");
        }
        let note = request_note(&asking("please")).unwrap();
        assert!(note.contains("privateregistry.dev/renew=please") && note.contains("leaf or ca"), "{note}");
    }
}
