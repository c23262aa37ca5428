//! The certificate of one registry: what `pki` decides, carried out on what lies in the cluster. The only step of a pass, beside
//! [`super::logins`], in which something random is made; it is stored before anything uses it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jiff::{SignedDuration, Timestamp};
use operator_engine::apply::Live;
use serde_json::Value;

use super::error::Error;
use crate::api::{self, AuthorityStage, AuthorityStatus, CertificateStatus};
use crate::desired;
use crate::model::{Child, Host, Observed, Resolved, Tls, labels};
use crate::pki::bundle::Bundle;
use crate::pki::facts::CertificateFacts;
use crate::pki::policy::{self, AuthorityVerdict, LeafVerdict, Renew, Request};
use crate::pki::reading::{AuthorityReading, LeafReading};
use crate::pki::{Authority, AuthorityProfile, KeyAlgorithm, Leaf, LeafProfile, checksum, import, issue};
use crate::status::{Certificate, Problem};

/// What the cluster holds of a registry's certificate.
pub(super) struct Stored<'a> {
    /// `NAME-tls`.
    pub(super) leaf: Option<&'a Live>,
    /// `NAME-ca`.
    pub(super) authority: Option<&'a Live>,
}

/// What a pass goes on with.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// What is served; `None` without TLS, or while there is none.
    pub(super) serving: Option<desired::ServingCertificate>,
    /// The registry's own authority, if it signs.
    pub(super) authority: Option<desired::Authority>,
    /// What clients must trust.
    pub(super) bundle: Option<String>,
    /// What the status says.
    pub(super) report: Certificate,
    /// When time alone can change the decision.
    pub(super) look_again: Option<Timestamp>,
    /// Why a leaf was issued in this pass.
    pub(super) issued: Option<Renew>,
}

/// Keeps, makes or takes over the certificate.
///
/// # Errors
/// When a key cannot be made.
pub(super) fn settle(
    registry: &Resolved,
    stored: &Stored<'_>,
    observed: &Observed,
    service: &Value,
    rollout_pending: bool,
    now: Timestamp,
) -> Result<Settled, Error> {
    match &registry.tls {
        Tls::None => Ok(Settled::default()),
        Tls::Own { secret } => Ok(take_over(registry, secret, stored, observed, now)),
        Tls::PrivateCa { .. } => private_ca(registry, stored, service, rollout_pending, now),
    }
}

fn private_ca(
    registry: &Resolved,
    stored: &Stored<'_>,
    service: &Value,
    rollout_pending: bool,
    now: Timestamp,
) -> Result<Settled, Error> {
    let Tls::PrivateCa { duration, ca_duration, key_algorithm, .. } = &registry.tls else {
        return Ok(Settled::default());
    };
    let (dns_names, ip_addresses) = hosts(registry, service);
    let algorithm = algorithm(*key_algorithm);
    let profile = LeafProfile {
        common_name: registry.name.to_string(),
        dns_names,
        ip_addresses,
        duration: signed(*duration),
        key_algorithm: algorithm,
    };
    let mut authority = stored.authority.and_then(authority_of);
    let last_reason = stored.leaf.and_then(|live| live.annotation(labels::ISSUED)).and_then(|word| word.parse().ok());
    let mut leaf =
        stored.leaf.and_then(leaf_of).filter(|leaf| last_reason.is_some() || is_signed(leaf, authority.as_ref()));
    let served = stored.leaf.and_then(|live| live.annotation(labels::SERVED_REQUEST)).map(str::to_owned);
    let request = registry.renew_request.as_deref().filter(|wanted| Some(*wanted) != served.as_deref());
    let decision = policy::decide(&policy::Input {
        leaf: LeafReading::of(leaf.as_ref(), authority.as_ref()),
        authority: AuthorityReading::of(authority.as_ref()),
        profile: &profile,
        uid: &registry.uid,
        now,
        rollout_pending,
        request: request_of(request),
        last_reason,
    });

    // What clients trusted until now stays in the bundle while it is valid.
    let known = stored.leaf.and_then(|live| text(live, "ca.crt")).unwrap_or_default();
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
    }
    let (issued, look_again) = match decision.leaf {
        LeafVerdict::Keep { look_again } => (None, Some(look_again)),
        LeafVerdict::Issue(why) => {
            if let Some(authority) = &authority {
                leaf = Some(issue::issue_leaf(authority, &profile, now)?);
            }
            (Some(why), None)
        }
    };

    // A wish that could not be fulfilled stays one. One that is taken back is forgotten, so that it can be uttered again.
    let asked = registry.renew_request.clone();
    let served_request = if issued.is_some() { asked } else { served.filter(|_| asked.is_some()) };

    let mut bundle = Bundle::read(&known);
    if let Some(authority) = authority.as_ref().filter(|_| problem.is_none()) {
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
            note: join(node_port_note(registry).into_iter().chain(request_note(registry))),
        },
        serving: leaf.map(|leaf| desired::ServingCertificate {
            checksum: checksum(&leaf),
            chain: leaf.chain_pem,
            key: leaf.key_pem,
            ca: Some(bundle.render()),
            served_request,
            issued: issued.or(last_reason).map(|word| word.to_string()),
        }),
        // A lost authority must not be overwritten by an unreadable copy of itself.
        authority: authority
            .filter(|_| decision.authority != AuthorityVerdict::CaMissing)
            .map(|authority| desired::Authority { certificate: authority.certificate_pem, key: authority.key_pem }),
        bundle: Some(bundle.render()),
        look_again,
        issued,
    })
}

/// Checks the user's certificate and copies it, or keeps serving the last copy that was good.
fn take_over(registry: &Resolved, secret: &str, stored: &Stored<'_>, observed: &Observed, now: Timestamp) -> Settled {
    let keep = |reason: &str, message: String, waiting: bool| {
        let kept = stored.leaf.and_then(leaf_of);
        let facts = kept.as_ref().and_then(|leaf| CertificateFacts::of_pem(&leaf.chain_pem).ok());
        let ca = stored.leaf.and_then(|live| text(live, "ca.crt"));
        let bundle = Bundle::read(ca.as_deref().unwrap_or_default());
        let good = facts.as_ref().is_some_and(|facts| now < facts.not_after);
        let still = if good { "; the last good one is still served" } else { "" };
        Settled {
            report: Certificate {
                served: facts.map(|facts| certificate_status(&facts, &bundle, kept.as_ref())),
                handled_request: None,
                problem: Some(Problem { reason: reason.to_owned(), message: format!("{message}{still}"), waiting }),
                note: None,
            },
            serving: kept.map(|leaf| desired::ServingCertificate {
                checksum: checksum(&leaf),
                chain: leaf.chain_pem,
                key: leaf.key_pem,
                ca: ca.clone(),
                served_request: None,
                issued: None,
            }),
            bundle: ca,
            ..Settled::default()
        }
    };
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
    let imported = match import::check(material, hosts, copy.as_ref(), now) {
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
        look_again: Some(imported.facts.not_after),
        report: Certificate {
            served: Some(certificate_status(&imported.facts, &bundle, Some(&imported.leaf))),
            handled_request: None,
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
fn hosts(registry: &Resolved, service: &Value) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let Tls::PrivateCa { dns_names, ip_addresses, .. } = &registry.tls else { return Default::default() };
    let (mut names, mut addresses) = written(registry);
    names.extend(dns_names.iter().cloned());
    addresses.extend(ip_addresses);
    names.extend(registry.service_names());
    names.insert("localhost".to_owned());
    addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
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

fn authority_missing(registry: &Resolved) -> Problem {
    Problem {
        reason: "CaMissing".to_owned(),
        message: format!(
            "Secret {} is missing or unreadable: the certificate is still served, but no new one can be signed; restore the Secret \
             from a backup, or annotate the registry with privateregistry.dev/renew=ca and hand the new bundle to clients",
            registry.name.child(Child::Ca)
        ),
        waiting: false,
    }
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

fn join(notes: impl IntoIterator<Item = String>) -> Option<String> {
    notes.into_iter().reduce(|all, note| format!("{all}; {note}"))
}

/// A copy of a company's certificate is no leaf of ours, whatever it says.
fn is_signed(leaf: &Leaf, authority: Option<&Authority>) -> bool {
    matches!(LeafReading::of(Some(leaf), authority), LeafReading::Read { signed_by_authority: Some(true), .. })
}

fn leaf_of(live: &Live) -> Option<Leaf> {
    Leaf::stored(live.data("tls.crt").as_deref(), live.data("tls.key").as_deref())
}

fn authority_of(live: &Live) -> Option<Authority> {
    Authority::stored(live.data("tls.crt").as_deref(), live.data("tls.key").as_deref())
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
    use crate::controller::testing::{resolved, stored_secret};

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
            let stored = Stored { leaf: self.leaf.as_ref(), authority: self.authority.as_ref() };
            settle(registry, &stored, &Observed::default(), &json!({}), false, Timestamp::now()).unwrap()
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

    #[test]
    fn nobody_serves_a_wish_for_a_certificate_that_is_the_users_own() {
        let (shelf, ..) = Shelf::default().pass(&resolved(&json!({}), &json!({})));
        let own = resolved(&json!({"tls": {"secret": {"name": "own"}}}), &json!({api::annotation::RENEW: "leaf"}));
        let (_, told, _) = shelf.pass(&own);
        assert_eq!(told, None);
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
