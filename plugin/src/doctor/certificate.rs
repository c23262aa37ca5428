//! Checks of the certificate that is shown, with rustls' own eyes: what clients do with it. Pure; the time is given.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use private_registry_operator::model::{Host, HostPort};
use private_registry_operator::pki::CertificateFacts;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};

use super::check::{Check, Group, Verdict};
use super::facts::Facts;
use crate::output;

/// Somebody should know of an end that is so near: what is renewed in time never comes to this.
const SOON: i64 = 3 * 86400;

pub(super) static GROUP: Group<Facts> = Group {
    name: ", its certificate",
    checks: &[
        Check {
            id: "certificate-shown",
            title: "it shows a certificate",
            page: "clients.md#trust-and-names",
            needs: &["registry"],
            judge: shown,
        },
        Check {
            id: "certificate-signed",
            title: "it is signed by the authority that the cluster publishes",
            page: "clients.md#trust-and-names",
            needs: &["certificate-shown"],
            judge: signed,
        },
        Check {
            id: "certificate-names",
            title: "it is for the address",
            page: "clients.md#trust-and-names",
            needs: &["certificate-shown"],
            judge: names,
        },
        Check {
            id: "certificate-time",
            title: "its time has begun and is not over soon",
            page: "operations.md#certificates",
            needs: &["certificate-shown"],
            judge: time,
        },
    ],
};

/// Whether a chain leads to one of the authorities of a PEM text, at a time; in words, why not.
pub(super) fn is_signed_by(
    chain: &[CertificateDer<'_>],
    authorities: &str,
    now: Timestamp,
) -> Result<(), rustls::Error> {
    let Some((leaf, intermediates)) = chain.split_first() else { return Err(rustls::Error::NoCertificatesPresented) };
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authorities.as_bytes()).flatten() {
        // What systems carry beside authorities that can be used is passed over by their own programs, too.
        let _ = roots.add(authority);
    }
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf)?,
        &roots,
        intermediates,
        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        algorithms.all,
    )
}

/// The certificate of the registry itself.
fn leaf(facts: &Facts) -> Option<&CertificateDer<'static>> {
    facts.chain.as_ref()?.as_ref().ok()?.first()
}

fn read(leaf: &CertificateDer<'_>) -> Option<CertificateFacts> {
    let text = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(leaf));
    CertificateFacts::of_pem(&text).ok()
}

fn shown(facts: &Facts) -> Option<Verdict> {
    if facts.is_plain() {
        return None;
    }
    let chain = match &facts.chain {
        None => return Some(Verdict::skipped("it is reached neither from here nor through the cluster")),
        Some(Err(why)) => {
            return Some(Verdict::failed(
                why.as_str(),
                "does something else than the registry answer there? A proxy before it must speak TLS, too",
            ));
        }
        Some(Ok(chain)) => chain,
    };
    Some(match chain.first().and_then(read) {
        Some(leaf) => Verdict::good(format!("{}, signed by {}", leaf.subject, leaf.issuer)),
        None => Verdict::failed("what it shows is no certificate that can be read", ""),
    })
}

fn signed(facts: &Facts) -> Option<Verdict> {
    if facts.is_plain() {
        return None;
    }
    let Some(Ok(chain)) = &facts.chain else { return Some(Verdict::skipped("no certificate was seen")) };
    let bundle = match &facts.bundle {
        Ok(Some(bundle)) if !bundle.is_empty() => bundle,
        Ok(_) => return Some(unpublished(facts, chain)),
        Err(why) => return Some(Verdict::skipped(format!("cannot be known: {why}"))),
    };
    Some(match is_signed_by(chain, bundle, facts.now) {
        Ok(()) => Verdict::good(format!("ConfigMap {}/{}-ca-bundle", facts.namespace, facts.name)),
        // Of its time there is a check of its own.
        Err(rustls::Error::InvalidCertificate(fault)) if is_of_time(&fault) => {
            Verdict::good("but for its time, see below")
        }
        Err(error) => Verdict::failed(
            error.to_string(),
            "a proxy before the registry shows a certificate of its own, somebody stands between, or the authority was changed and the pods still show the former certificate: kubectl registry restart",
        ),
    })
}

/// A certificate of one's own, of which the cluster does not know who signed it.
fn unpublished(facts: &Facts, chain: &[CertificateDer<'_>]) -> Verdict {
    if is_signed_by(chain, &facts.here.authorities, facts.now).is_ok() {
        return Verdict::good("the cluster publishes none, and every program of this machine trusts who signed it");
    }
    Verdict::skipped(format!(
        "the ConfigMap {}-ca-bundle has no authority: put ca.crt beside a certificate of your own for clients to find",
        facts.name
    ))
}

fn is_of_time(fault: &CertificateError) -> bool {
    use CertificateError as Fault;
    matches!(
        fault,
        Fault::Expired | Fault::ExpiredContext { .. } | Fault::NotValidYet | Fault::NotValidYetContext { .. }
    )
}

fn names(facts: &Facts) -> Option<Verdict> {
    if facts.is_plain() {
        return None;
    }
    let Some(leaf) = leaf(facts) else { return Some(Verdict::skipped("no certificate was seen")) };
    let Some((address, _)) = facts.address() else { return Some(Verdict::skipped("the registry has no address yet")) };
    let Ok(parsed) = ParsedCertificate::try_from(leaf) else {
        return Some(Verdict::failed("the certificate cannot be read", ""));
    };
    let is_for = |address: &HostPort| {
        let name = match address.host() {
            Host::Name(name) => ServerName::try_from(name.clone()).ok(),
            Host::Ip(ip) => Some(ServerName::from(*ip)),
        };
        name.is_some_and(|name| verify_server_name(&parsed, &name).is_ok())
    };
    let known = facts.status().addresses;
    let others = known.iter().filter_map(|known| HostPort::parse(&known.address).ok());
    let lacking: Vec<_> = others.filter(|other| !is_for(other)).map(|other| other.to_string()).collect();
    let cure = "list the name in spec.addresses; of a certificate of your own, have it signed with that name";
    Some(match () {
        () if !is_for(&address) => {
            Verdict::failed(format!("{address} is not among its names: {}", all_names(leaf)), cure)
        }
        () if !lacking.is_empty() => Verdict::warning(format!("not among its names: {}", lacking.join(", ")), cure),
        () => Verdict::good(address.as_str()),
    })
}

fn all_names(leaf: &CertificateDer<'_>) -> String {
    let Some(read) = read(leaf) else { return "none".to_owned() };
    let names = read.dns_names.into_iter().chain(read.ip_addresses.iter().map(ToString::to_string));
    names.take(20).collect::<Vec<_>>().join(", ")
}

fn time(facts: &Facts) -> Option<Verdict> {
    if facts.is_plain() {
        return None;
    }
    let Some(leaf) = leaf(facts).and_then(read) else { return Some(Verdict::skipped("no certificate was seen")) };
    let day = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let left = leaf.not_after.duration_since(facts.now).as_secs();
    let life = leaf.not_after.duration_since(leaf.not_before).as_secs();
    let cure = "CertificateReady says why it was not renewed; kubectl registry rotate leaf asks for another one";
    Some(match () {
        () if facts.now < leaf.not_before => Verdict::failed(
            format!("it is valid from {} on", day(leaf.not_before)),
            "the clock of this machine is behind, or that of who signed it ahead",
        ),
        () if left <= 0 => Verdict::failed(format!("it ended at {}", day(leaf.not_after)), cure),
        () if left < SOON.min(life / 10) => {
            Verdict::warning(format!("it ends at {}, in {}", day(leaf.not_after), output::span(left)), cure)
        }
        () => Verdict::good(format!("until {}", day(leaf.not_after))),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::SignedDuration;
    use private_registry_operator::pki::issue::{issue_authority, issue_leaf};
    use private_registry_operator::pki::{Authority, AuthorityProfile, KeyAlgorithm, LeafProfile};
    use serde_json::json;

    use super::super::check::{Missing, Outcome};
    use super::super::facts::testing;
    use super::*;

    fn authority() -> Authority {
        let profile = AuthorityProfile {
            common_name: "team-a".to_owned(),
            duration: AuthorityProfile::DEFAULT_DURATION,
            key_algorithm: KeyAlgorithm::EcdsaP256,
        };
        issue_authority(&profile, testing::now()).unwrap()
    }

    fn chain(authority: &Authority, names: &[&str], issued: Timestamp) -> Vec<CertificateDer<'static>> {
        let profile = LeafProfile {
            common_name: "team-a".to_owned(),
            dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ip_addresses: BTreeSet::from(["10.96.0.9".parse().unwrap()]),
            duration: SignedDuration::from_hours(24 * 100),
            key_algorithm: KeyAlgorithm::EcdsaP256,
        };
        let leaf = issue_leaf(authority, &profile, issued).unwrap();
        CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes()).map(Result::unwrap).collect()
    }

    fn ago(days: i64) -> Timestamp {
        testing::now().checked_sub(SignedDuration::from_hours(24 * days)).unwrap()
    }

    const NAMES: [&str; 2] = ["registry.example.com", "team-a.registries.svc"];

    fn facts(authority: &Authority, chain: Vec<CertificateDer<'static>>) -> Facts {
        let bundle = Ok(Some(authority.certificate_pem.clone()));
        Facts { bundle, chain: Some(Ok(chain)), ..testing::facts() }
    }

    fn looked(facts: &Facts) -> Vec<(&'static str, Outcome, String)> {
        let section = GROUP.look("", facts, &mut Missing::default());
        section.checks.into_iter().map(|looked| (looked.id, looked.outcome, looked.seen)).collect()
    }

    /// The only check that is not good.
    fn fault(facts: &Facts) -> (&'static str, Outcome, String) {
        let mut wrong: Vec<_> = looked(facts).into_iter().filter(|(_, outcome, _)| *outcome != Outcome::Good).collect();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        wrong.remove(0)
    }

    #[test]
    fn a_certificate_of_the_published_authority_for_the_address_is_good() {
        let authority = authority();
        let facts = facts(&authority, chain(&authority, &NAMES, ago(1)));
        assert!(looked(&facts).iter().all(|(_, outcome, _)| *outcome == Outcome::Good), "{:?}", looked(&facts));
        assert_eq!(looked(&facts).len(), GROUP.checks.len());
    }

    #[test]
    fn one_that_somebody_else_signed_is_told() {
        let facts = facts(&authority(), chain(&authority(), &NAMES, ago(1)));
        let (id, outcome, _) = fault(&facts);
        assert_eq!((id, outcome), ("certificate-signed", Outcome::Failed));
    }

    #[test]
    fn one_without_the_name_is_told_with_the_names_that_it_has() {
        let authority = authority();
        let (id, outcome, said) = fault(&facts(&authority, chain(&authority, &NAMES[1..], ago(1))));
        assert_eq!((id, outcome), ("certificate-names", Outcome::Failed));
        assert!(
            said.contains("registry.example.com:5000 is not among its names: team-a.registries.svc, 10.96.0.9"),
            "{said}"
        );
        let (id, outcome, said) = fault(&facts(&authority, chain(&authority, &NAMES[..1], ago(1))));
        assert_eq!((id, outcome), ("certificate-names", Outcome::Warning), "only another address");
        assert!(said.contains("not among its names: team-a.registries.svc:5000"), "{said}");
    }

    #[test]
    fn an_end_that_is_near_is_a_warning_and_one_that_is_past_a_failure() {
        let authority = authority();
        for (issued, outcome, words) in [
            (ago(98), Outcome::Warning, "in 2d"),
            (ago(101), Outcome::Failed, "it ended at 2026-11-29"),
            (ago(-1), Outcome::Failed, "it is valid from 2026-12-01"),
        ] {
            let (id, how, said) = fault(&facts(&authority, chain(&authority, &NAMES, issued)));
            assert_eq!((id, how), ("certificate-time", outcome), "{said}");
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn without_tls_there_is_nothing_to_say_and_without_a_certificate_only_that() {
        let mut plain = testing::facts();
        plain.registry = Ok(testing::registry(&json!({"tls": {"none": {}}}), &json!({})));
        assert_eq!(looked(&plain), []);
        let mut broken = testing::facts();
        broken.chain = Some(Err("it does not speak TLS".to_owned()));
        let looked = looked(&broken);
        assert_eq!(looked[0], ("certificate-shown", Outcome::Failed, "it does not speak TLS".to_owned()));
        assert!(looked[1..].iter().all(|(_, outcome, _)| *outcome == Outcome::Skipped), "{looked:?}");
    }

    #[test]
    fn an_authority_of_every_system_needs_no_bundle() {
        let authority = authority();
        let mut facts = facts(&authority, chain(&authority, &NAMES, ago(1)));
        facts.bundle = Ok(None);
        assert_eq!(fault(&facts).1, Outcome::Skipped, "nobody says who signed it");
        facts.here.authorities = authority.certificate_pem;
        assert!(looked(&facts).iter().all(|(_, outcome, _)| *outcome == Outcome::Good));
    }
}
