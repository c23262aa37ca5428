//! What a certificate says, read once and kept as plain values: for the policy, for the status, for messages.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{BACKDATE, KeyAlgorithm, after, hex, pem};

/// The text holds no certificate that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a readable certificate in PEM form")]
pub struct Unreadable;

/// What one certificate says. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Valid from, in whole seconds.
    pub not_before: Timestamp,
    /// Valid until, in whole seconds.
    pub not_after: Timestamp,
    /// Serial number, hexadecimal in upper case, as `openssl x509 -serial` prints it.
    pub serial: String,
    /// SHA-256 of the DER form, hexadecimal in upper case with colons, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    /// DNS names of the subject alternative name extension, in lower case.
    pub dns_names: BTreeSet<String>,
    /// Addresses of that extension.
    pub ip_addresses: BTreeSet<IpAddr>,
    /// Whom it is for, such as `CN=team-a`.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Kind of its public key.
    pub key: PublicKeyKind,
    /// Whether it may sign other certificates (basic constraints).
    pub is_authority: bool,
}

impl CertificateFacts {
    /// Reads the first certificate of a PEM text.
    pub fn of_pem(text: &str) -> Result<Self, Unreadable> {
        let certificates = pem::certificates(text.as_bytes()).ok_or(Unreadable)?;
        Ok(Self::of(&parse(&certificates[0])?))
    }

    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let (dns_names, ip_addresses) = names(certificate);
        Self {
            not_before: timestamp(certificate.validity().not_before.timestamp()),
            not_after: timestamp(certificate.validity().not_after.timestamp()),
            serial: hex(&certificate.serial.to_bytes_be(), ""),
            fingerprint: hex(&Sha256::digest(certificate.as_raw()), ":"),
            dns_names,
            ip_addresses,
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            key: PublicKeyKind::of(certificate.public_key()),
            is_authority: certificate.is_ca(),
        }
    }

    /// When it was issued. True for certificates of our own only: they begin [`BACKDATE`] before.
    pub fn issued_at(&self) -> Timestamp {
        after(self.not_before, BACKDATE)
    }

    /// From issue to end; see [`issued_at`](Self::issued_at).
    pub fn life(&self) -> SignedDuration {
        self.not_after.duration_since(self.issued_at())
    }
}

/// Reads one certificate; bytes after it make it unreadable, as they do for clients.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Unreadable> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Unreadable),
    }
}

/// Kind of a public key, also of kinds that the operator doesn't make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKeyKind {
    /// A kind that the operator makes.
    Own(KeyAlgorithm),
    /// RSA with a modulus of so many bits.
    Rsa {
        /// Length of the modulus.
        bits: usize,
    },
    /// Anything else, by its object identifier in dotted form.
    Other(String),
}

impl PublicKeyKind {
    pub(super) fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        let algorithm = &key.algorithm.algorithm;
        if *algorithm == oid::OID_SIG_ED25519 {
            return Self::Own(KeyAlgorithm::Ed25519);
        }
        if let Ok(PublicKey::RSA(rsa)) = key.parsed() {
            return Self::Rsa { bits: rsa.key_size() };
        }
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        match curve {
            Some(curve) if curve == oid::OID_EC_P256 => Self::Own(KeyAlgorithm::EcdsaP256),
            Some(curve) if curve == oid::OID_NIST_EC_P384 => Self::Own(KeyAlgorithm::EcdsaP384),
            Some(curve) => Self::Other(curve.to_id_string()),
            None => Self::Other(algorithm.to_id_string()),
        }
    }
}

impl fmt::Display for PublicKeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(algorithm) => algorithm.fmt(f),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::Other(id) => f.write_str(id),
        }
    }
}

/// Certificates may end in the year 9999 ("no end", RFC 5280 4.1.2.5), a day after the last timestamp.
fn timestamp(seconds: i64) -> Timestamp {
    let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(end)
}

fn names(certificate: &X509Certificate<'_>) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension.map(|extension| general_names(&extension.value.general_names)).unwrap_or_default()
}

/// DNS names, in lower case, and addresses.
pub(super) fn general_names(all: &[GeneralName<'_>]) -> (BTreeSet<String>, BTreeSet<IpAddr>) {
    let (mut dns_names, mut ip_addresses) = (BTreeSet::new(), BTreeSet::new());
    for name in all {
        match name {
            GeneralName::DNSName(name) => {
                dns_names.insert(name.to_ascii_lowercase());
            }
            GeneralName::IPAddress(bytes) => ip_addresses.extend(address(bytes)),
            _ => {}
        }
    }
    (dns_names, ip_addresses)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::{addresses, make, names, params};

    #[test]
    fn facts_are_what_openssl_prints() {
        let facts = CertificateFacts::of_pem(include_str!("testdata/rsa.crt")).unwrap();

        // openssl x509 -in rsa.crt -noout -serial -fingerprint -sha256 -subject -dates
        let expected = CertificateFacts {
            not_before: "2026-11-22T10:55:27Z".parse().unwrap(),
            not_after: "2126-10-29T10:55:27Z".parse().unwrap(),
            serial: "3852AA4833CA4EC990200B08C28ED2CE3B77C53B".into(),
            fingerprint:
                "0B:B8:CE:E8:59:BE:99:5A:75:6A:9C:76:0D:DB:6C:F4:98:36:DF:70:FA:CF:C3:63:7D:07:58:8F:C7:E2:56:5F".into(),
            dns_names: names(&["rsa.example.com", "*.rsa.example.com"]),
            ip_addresses: addresses(&["192.0.2.1"]),
            subject: "CN=rsa.example.com".into(),
            issuer: "CN=rsa.example.com".into(),
            key: PublicKeyKind::Rsa { bits: 2048 },
            is_authority: false,
        };
        assert_eq!(facts, expected);
    }

    #[test]
    fn every_kind_of_key_has_a_name() {
        for (certificate, name) in [
            (include_str!("testdata/p256.crt"), "EcdsaP256"),
            (include_str!("testdata/p384.crt"), "EcdsaP384"),
            (include_str!("testdata/ed25519.crt"), "Ed25519"),
            (include_str!("testdata/rsa1024.crt"), "RSA 1024"),
            (include_str!("testdata/p521.crt"), "1.3.132.0.35"),
        ] {
            assert_eq!(CertificateFacts::of_pem(certificate).unwrap().key.to_string(), name);
        }
    }

    #[test]
    fn what_is_no_certificate_is_unreadable() {
        let certificate = include_str!("testdata/p256.crt");
        let key = include_str!("testdata/p256.key");
        let mut der = pem::certificates(certificate.as_bytes()).unwrap()[0].to_vec();
        der.push(0);
        let trailing = pem::section("CERTIFICATE", &der);
        let cut = &certificate[..certificate.len() / 2];

        for text in ["", "words", key, cut, &trailing, &pem::section("CERTIFICATE", b"rubbish")] {
            assert_eq!(CertificateFacts::of_pem(text), Err(Unreadable), "{text}");
        }
    }

    #[test]
    fn names_are_compared_in_lower_case() {
        let made = make(params("Registry", &["Registry.Example.COM"]), None);
        let facts = CertificateFacts::of_pem(&made.pem).unwrap();
        assert_eq!((facts.dns_names, facts.subject.as_str()), (names(&["registry.example.com"]), "CN=Registry"));
    }

    #[test]
    fn a_certificate_without_end_ends_with_time_itself() {
        // 9999-12-31T23:59:59Z
        assert_eq!(timestamp(253_402_300_799), Timestamp::MAX);
        assert_eq!(timestamp(0), Timestamp::UNIX_EPOCH);
    }
}
