//! Reads a request for a certificate: what it asks for, and for which key. Decides nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::facts::{self, PublicKeyKind};
use super::{Leaf, SigningRequest, Unreadable, pem};

/// What one request asks for. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// DNS names, in lower case.
    pub dns_names: BTreeSet<String>,
    /// Addresses.
    pub ip_addresses: BTreeSet<IpAddr>,
    /// Whom it is for, such as `CN=team-a`.
    pub subject: String,
    /// Kind of its key.
    pub key: PublicKeyKind,
    /// Its public key: SubjectPublicKeyInfo, DER.
    public_key: Vec<u8>,
}

impl RequestFacts {
    /// Reads the first request of a PEM text. Its signature must be its key's own.
    pub fn of_pem(text: &str) -> Result<Self, Unreadable> {
        let der = CertificateSigningRequestDer::from_pem_slice(text.as_bytes()).map_err(|_| Unreadable)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| Unreadable)?;
        if !rest.is_empty() || request.verify_signature().is_err() {
            return Err(Unreadable);
        }
        let info = &request.certification_request_info;
        let (mut dns_names, mut ip_addresses) = (BTreeSet::new(), BTreeSet::new());
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                let (more_names, more_addresses) = facts::general_names(&names.general_names);
                dns_names.extend(more_names);
                ip_addresses.extend(more_addresses);
            }
        }
        Ok(Self {
            dns_names,
            ip_addresses,
            subject: info.subject.to_string(),
            key: PublicKeyKind::of(&info.subject_pki),
            public_key: info.subject_pki.raw.to_vec(),
        })
    }

    /// Whether the certificate is for the key of this request.
    pub(super) fn is_key_of(&self, certificate: &X509Certificate<'_>) -> bool {
        certificate.public_key().raw == self.public_key
    }

    /// Whether everything is asked for that these names and addresses are.
    pub fn covers(&self, dns_names: &BTreeSet<String>, ip_addresses: &BTreeSet<IpAddr>) -> bool {
        self.dns_names.is_superset(dns_names) && self.ip_addresses.is_superset(ip_addresses)
    }
}

impl SigningRequest {
    /// What it asks for, if it can be read and its key is there.
    pub fn facts(&self) -> Option<RequestFacts> {
        let facts = RequestFacts::of_pem(&self.request_pem).ok()?;
        let key = pem::private_key(self.key_pem.expose().as_bytes()).ok()?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key).ok()?;
        let public = key.public_key()?;
        (public.as_ref() == facts.public_key).then_some(facts)
    }

    /// Whether this is the certificate of its key, whoever signed it: the request is answered by it.
    pub fn is_answered_by(&self, leaf: &Leaf) -> bool {
        let key = |text: &str| pem::private_key(text.as_bytes()).ok();
        match (key(self.key_pem.expose()), key(leaf.key_pem.expose())) {
            (Some(ours), Some(theirs)) => ours.secret_der() == theirs.secret_der(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::issue::{issue_leaf, request, request_again};
    use crate::pki::testing::{authority_profile, leaf_profile, now};
    use crate::pki::{KeyAlgorithm, LeafProfile, issue::issue_authority};

    #[test]
    fn a_request_asks_for_what_the_profile_says_whatever_the_key() {
        for key_algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Ed25519] {
            let profile = LeafProfile { key_algorithm, ..leaf_profile() };
            let made = request(&profile).unwrap();
            let facts = made.facts().unwrap();
            assert_eq!((&facts.dns_names, &facts.ip_addresses), (&profile.dns_names, &profile.ip_addresses));
            assert_eq!((facts.key, facts.subject.as_str()), (PublicKeyKind::Own(key_algorithm), "CN=team-a"));
            assert!(!format!("{made:?}").contains(made.key_pem.expose().lines().nth(1).unwrap()), "the key is secret");
        }
    }

    #[test]
    fn a_request_that_is_made_again_for_other_names_has_the_same_key() {
        let first = request(&leaf_profile()).unwrap();
        let mut wider = leaf_profile();
        wider.dns_names.insert("more.example.com".to_owned());
        let second = request_again(&wider, &first.key_pem).unwrap();
        let (before, after) = (first.facts().unwrap(), second.facts().unwrap());
        assert_eq!(before.public_key, after.public_key);
        assert!(
            after.covers(&wider.dns_names, &wider.ip_addresses)
                && !before.covers(&wider.dns_names, &wider.ip_addresses)
        );
    }

    #[test]
    fn a_request_with_another_key_or_a_broken_one_is_none() {
        let (one, other) = (request(&leaf_profile()).unwrap(), request(&leaf_profile()).unwrap());
        let mixed = SigningRequest { key_pem: other.key_pem.clone(), ..one.clone() };
        assert_eq!(mixed.facts(), None);
        assert_eq!(SigningRequest { request_pem: "x".to_owned(), ..one.clone() }.facts(), None);
        let half = SigningRequest { request_pem: one.request_pem[..200].to_owned(), ..one };
        assert_eq!(half.facts(), None);
    }

    #[test]
    fn only_a_certificate_of_its_key_answers_it() {
        let asked = request(&leaf_profile()).unwrap();
        let authority = issue_authority(&authority_profile(), now()).unwrap();
        let stranger = issue_leaf(&authority, &leaf_profile(), now()).unwrap();
        assert!(!asked.is_answered_by(&stranger));
        let ours = Leaf { chain_pem: String::new(), key_pem: format!("\n{}", asked.key_pem.expose()).into() };
        assert!(asked.is_answered_by(&ours));
    }
}
