//! Material for the tests of this folder: a fixed moment, profiles, certificates of every kind, a handshake in memory.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use time::OffsetDateTime;

use super::issue::{issue_authority, issue_leaf};
use super::{Authority, AuthorityProfile, KeyAlgorithm, Leaf, LeafProfile, pem};

pub(super) const DAY: SignedDuration = SignedDuration::from_hours(24);
pub(super) const YEAR: SignedDuration = SignedDuration::from_hours(24 * 365);

/// A moment between two seconds, because certificates know only whole ones.
pub(super) fn now() -> Timestamp {
    "2026-12-01T12:00:00.5Z".parse().unwrap()
}

pub(super) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

pub(super) fn addresses(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

pub(super) fn authority_profile() -> AuthorityProfile {
    AuthorityProfile {
        common_name: "team-a CA".into(),
        duration: AuthorityProfile::DEFAULT_DURATION,
        key_algorithm: KeyAlgorithm::EcdsaP256,
    }
}

pub(super) fn leaf_profile() -> LeafProfile {
    LeafProfile {
        common_name: "team-a".into(),
        dns_names: names(&["team-a", "team-a.registries.svc", "*.example.com"]),
        ip_addresses: addresses(&["127.0.0.1", "10.96.0.10", "fd00::10"]),
        duration: LeafProfile::DEFAULT_DURATION,
        key_algorithm: KeyAlgorithm::EcdsaP256,
    }
}

pub(super) fn pair() -> (Authority, Leaf) {
    let authority = issue_authority(&authority_profile(), now()).unwrap();
    let leaf = issue_leaf(&authority, &leaf_profile(), now()).unwrap();
    (authority, leaf)
}

/// A certificate with its key, made freely: for what the operator would not make itself.
pub(super) struct Made {
    pub(super) pem: String,
    pub(super) key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Made {
    /// A certificate for another's key, PEM.
    pub(super) fn sign(&self, params: &CertificateParams, key: &KeyPair) -> String {
        params.clone().signed_by(key, &self.issuer).unwrap().pem()
    }
}

/// Parameters that [`make`] starts from.
pub(super) fn params(common_name: &str, dns_names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(dns_names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(now() - DAY);
    params.not_after = date(now() + DAY);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

pub(super) fn authority_params(common_name: &str) -> CertificateParams {
    let mut params = params(common_name, &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![];
    params
}

/// Signed by `issuer`, or by itself.
pub(super) fn make(params: CertificateParams, issuer: Option<&Made>) -> Made {
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, &issuer.issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Made { pem: certificate.pem(), key_pem: key.serialize_pem(), issuer: Issuer::new(params, key) }
}

pub(super) fn date(moment: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(moment.as_second()).unwrap()
}

#[derive(Debug)]
struct Clock(Timestamp);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.as_second()).unwrap();
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
    }
}

/// A TLS handshake at a moment: does a client that trusts `bundle` accept the leaf as `host`?
pub(super) fn handshake(leaf: &Leaf, bundle: &str, host: &str, at: Timestamp) -> Result<(), rustls::Error> {
    let clock = || Arc::new(Clock(at));
    let provider = Arc::new(default_provider());
    let chain = pem::certificates(leaf.chain_pem.as_bytes()).unwrap();
    let key = pem::private_key(leaf.key_pem.expose().as_bytes()).unwrap();
    let server = ServerConfig::builder_with_details(provider.clone(), clock())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key.clone_key())?;

    let mut roots = RootCertStore::empty();
    for authority in pem::certificates(bundle.as_bytes()).unwrap_or_default() {
        roots.add(authority)?;
    }
    let client = ClientConfig::builder_with_details(provider, clock())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();

    let mut server = ServerConnection::new(Arc::new(server))?;
    let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(host.to_string()).unwrap())?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;

        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    Ok(())
}
