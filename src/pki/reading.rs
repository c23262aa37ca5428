//! Looks at stored material and says what is there, so that `policy` can decide over plain facts.
//! Reads and verifies, decides nothing.

use rustls::pki_types::PrivateKeyDer;
use x509_parser::certificate::X509Certificate;

use super::facts::{self, CertificateFacts};
use super::{Authority, Leaf, pem};

/// What is stored as the serving certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafReading {
    /// Nothing.
    Missing,
    /// Something, but no certificate with a key.
    Unreadable,
    /// A certificate and a key.
    Read {
        /// What the certificate says.
        facts: Box<CertificateFacts>,
        /// Whether the key is the certificate's.
        key_fits: bool,
        /// Whether the present authority signed it; `None` while that can't be read.
        signed_by_authority: Option<bool>,
    },
}

impl LeafReading {
    /// Reads the stored leaf beside the stored authority.
    pub fn of(leaf: Option<&Leaf>, authority: Option<&Authority>) -> Self {
        leaf.map_or(Self::Missing, |leaf| Self::read(leaf, authority).unwrap_or(Self::Unreadable))
    }

    fn read(leaf: &Leaf, authority: Option<&Authority>) -> Option<Self> {
        let chain = pem::certificates(leaf.chain_pem.as_bytes())?;
        let certificate = facts::parse(chain.first()?).ok()?;
        let key = pem::private_key(leaf.key_pem.expose().as_bytes()).ok()?;
        let key_fits = key_fits(&key, &certificate)?;

        let authorities = authority.and_then(|authority| pem::certificates(authority.certificate_pem.as_bytes()));
        let signed_by_authority = authorities
            .as_ref()
            .and_then(|found| facts::parse(&found[0]).ok())
            .map(|authority| signed_by(&certificate, &authority));

        Some(Self::Read { facts: Box::new(CertificateFacts::of(&certificate)), key_fits, signed_by_authority })
    }

    /// What the certificate says, if there is one to read.
    pub fn facts(&self) -> Option<&CertificateFacts> {
        match self {
            Self::Read { facts, .. } => Some(facts),
            Self::Missing | Self::Unreadable => None,
        }
    }
}

/// What is stored as the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorityReading {
    /// Nothing.
    Missing,
    /// Something, but nothing that can sign: no certificate, no authority's certificate, no key, or another's key.
    Unreadable,
    /// An authority that can sign. Whether it still may is a question of time.
    Usable(Box<CertificateFacts>),
}

impl AuthorityReading {
    /// Reads the stored authority.
    pub fn of(authority: Option<&Authority>) -> Self {
        authority.map_or(Self::Missing, |authority| Self::read(authority).unwrap_or(Self::Unreadable))
    }

    fn read(authority: &Authority) -> Option<Self> {
        let certificates = pem::certificates(authority.certificate_pem.as_bytes())?;
        let certificate = facts::parse(certificates.first()?).ok()?;
        let key = pem::private_key(authority.key_pem.expose().as_bytes()).ok()?;

        let can_sign = certificate.is_ca() && key_fits(&key, &certificate)?;
        can_sign.then(|| Self::Usable(Box::new(CertificateFacts::of(&certificate))))
    }

    /// What its certificate says, if it can sign.
    pub fn facts(&self) -> Option<&CertificateFacts> {
        match self {
            Self::Usable(facts) => Some(facts),
            Self::Missing | Self::Unreadable => None,
        }
    }
}

/// Whether the certificate carries this key's public half; `None` if the key is of no kind that can be used.
pub(super) fn key_fits(key: &PrivateKeyDer<'_>, certificate: &X509Certificate<'_>) -> Option<bool> {
    let signing = rustls::crypto::ring::sign::any_supported_type(key).ok()?;
    let public = signing.public_key()?;
    Some(public.as_ref() == certificate.public_key().raw)
}

/// Whether `authority` is the named issuer and its key made the signature.
pub(super) fn signed_by(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == authority.subject().as_raw()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}
