//! Looks at stored material and says what is there, so that `policy` can decide over plain facts.
//! Reads and verifies, decides nothing.

use jiff::Timestamp;
use rustls::pki_types::PrivateKeyDer;
use x509_parser::certificate::X509Certificate;

use super::acceptance::{self, Flaw, Names, Refusal, Signature};
use super::facts::{self, CertificateFacts};
use super::{Authority, Leaf, LeafProfile, pem};

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
        /// What clients that trust the present authority object to; `None` if nothing, or while that can't be read.
        refusal: Option<Box<Refusal>>,
    },
}

impl LeafReading {
    /// Reads the stored leaf beside the stored authority, as clients see it at `now`.
    pub fn of(leaf: Option<&Leaf>, authority: Option<&Authority>, now: Timestamp) -> Self {
        leaf.map_or(Self::Missing, |leaf| Self::read(leaf, authority, now).unwrap_or(Self::Unreadable))
    }

    fn read(leaf: &Leaf, authority: Option<&Authority>, now: Timestamp) -> Option<Self> {
        let chain = pem::certificates(leaf.chain_pem.as_bytes())?;
        let certificate = facts::parse(chain.first()?).ok()?;
        let key = pem::private_key(leaf.key_pem.expose().as_bytes()).ok()?;
        let key_fits = key_fits(&key, &certificate)?;

        let authorities = authority.and_then(|authority| pem::certificates(authority.certificate_pem.as_bytes()));
        let authority = authorities.as_ref().and_then(|found| facts::parse(&found[0]).ok());
        let accepted = authority.map(|authority| accepted(&certificate, &authority, now));

        Some(Self::Read {
            facts: Box::new(CertificateFacts::of(&certificate)),
            key_fits,
            signed_by_authority: accepted
                .as_ref()
                .map(|accepted| !matches!(accepted, Err(Refusal { flaw: Flaw::NotSigned(_), .. }))),
            refusal: accepted.and_then(Result::err).map(Box::new),
        })
    }

    /// What the certificate says, if there is one to read.
    pub fn facts(&self) -> Option<&CertificateFacts> {
        match self {
            Self::Read { facts, .. } => Some(facts),
            Self::Missing | Self::Unreadable => None,
        }
    }

    /// What clients that trust the authority object to.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Read { refusal, .. } => refusal.as_deref(),
            Self::Missing | Self::Unreadable => None,
        }
    }
}

/// What is stored as the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthorityReading {
    /// Nothing.
    Missing,
    /// Something, but nothing that can sign: no certificate, no key, or another's key.
    Unreadable,
    /// An authority, but clients refuse what it signs, whatever the time is.
    Refused(Box<Refusal>),
    /// An authority that can sign. Whether it still may is a question of time.
    Usable(Box<CertificateFacts>),
}

impl AuthorityReading {
    /// Reads the stored authority, which shall sign such a leaf.
    pub fn of(authority: Option<&Authority>, profile: &LeafProfile) -> Self {
        authority.map_or(Self::Missing, |authority| Self::read(authority, profile).unwrap_or(Self::Unreadable))
    }

    fn read(authority: &Authority, profile: &LeafProfile) -> Option<Self> {
        let certificates = pem::certificates(authority.certificate_pem.as_bytes())?;
        let certificate = facts::parse(certificates.first()?).ok()?;
        let key = pem::private_key(authority.key_pem.expose().as_bytes()).ok()?;
        if !key_fits(&key, &certificate)? {
            return None;
        }
        let names = Names::new(&profile.dns_names, &profile.ip_addresses);
        let sound = acceptance::authority(&certificate, &names, 0).and_then(|()| acceptance::can_issue(&certificate));
        Some(match sound {
            Ok(()) => Self::Usable(Box::new(CertificateFacts::of(&certificate))),
            Err(refusal) => Self::Refused(Box::new(refusal)),
        })
    }

    /// Why it can't sign now what clients accept; `None` if it can, or if there is none to judge.
    pub fn refusal(&self, now: Timestamp) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some((**refusal).clone()),
            Self::Usable(facts) => acceptance::in_time(facts, now).err(),
            Self::Missing | Self::Unreadable => None,
        }
    }

    /// What its certificate says, if it can sign.
    pub fn facts(&self) -> Option<&CertificateFacts> {
        match self {
            Self::Usable(facts) => Some(facts),
            Self::Missing | Self::Unreadable | Self::Refused(_) => None,
        }
    }
}

/// Whether the certificate carries this key's public half; `None` if the key is of no kind that can be used.
pub(super) fn key_fits(key: &PrivateKeyDer<'_>, certificate: &X509Certificate<'_>) -> Option<bool> {
    let signing = rustls::crypto::ring::sign::any_supported_type(key).ok()?;
    let public = signing.public_key()?;
    Some(public.as_ref() == certificate.public_key().raw)
}

/// Whether clients that trust `authority` accept the certificate, which must be signed by it. A signature of a kind that can't be verified
/// is none of ours.
fn accepted(certificate: &X509Certificate<'_>, authority: &X509Certificate<'_>, now: Timestamp) -> Result<(), Refusal> {
    match acceptance::signed_by(certificate, authority) {
        Signature::Good => acceptance::chain(&[certificate], Some(authority), now),
        Signature::Bad | Signature::Unknown => Err(acceptance::not_signed(certificate, authority)),
    }
}
