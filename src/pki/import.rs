//! Judges a certificate that a user brings: it must be one that clients will accept, before anything is replaced by it.
//! Pure. Says what is wrong in words that end with what to do; never repeats a byte of the key.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use super::acceptance::{self, Refusal, Signature};
use super::encrypted_key::{self, Closed};
use super::facts::{self, CertificateFacts};
use super::pem::{self, NoKey};
use super::reading::key_fits;
use super::request::RequestFacts;
use super::{Bundle, Leaf, PublicKeyKind};
use crate::secret::Sensitive;

/// The data of the user's `kubernetes.io/tls` Secret.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// `tls.crt`: the serving certificate and its intermediates, PEM.
    pub chain: Option<&'a [u8]>,
    /// `tls.key`: its private key, PEM.
    pub key: Option<&'a [u8]>,
    /// `ca.crt`: the authorities that clients shall trust, PEM. Optional.
    pub authorities: Option<&'a [u8]>,
    /// What the key is encrypted with. A key that is not encrypted needs none.
    pub passphrase: Option<&'a [u8]>,
}

/// A certificate that may be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The chain in order, without anything that doesn't belong to it, and the key as it was given.
    pub leaf: Leaf,
    /// What clients must trust: `ca.crt` without what has expired, or the certificate itself or its root if it comes with one. `None`: an
    /// authority that clients know already.
    pub authorities_pem: Option<String>,
    /// When the first of the certificates in it expires that are served or trusted.
    pub ends: Timestamp,
    /// What the serving certificate says.
    pub facts: CertificateFacts,
    /// Wanted names and addresses that it does not cover; clients that use them will refuse it. For a warning.
    pub uncovered: BTreeSet<String>,
    /// What a user may want to know, though nothing is wrong.
    pub notes: Vec<Note>,
}

/// The same without its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The chain in order, without anything that doesn't belong to it.
    pub chain_pem: String,
    /// As [`Imported::authorities_pem`].
    pub authorities_pem: Option<String>,
    /// As [`Imported::ends`].
    pub ends: Timestamp,
    /// What the serving certificate says.
    pub facts: CertificateFacts,
    /// As [`Imported::uncovered`].
    pub uncovered: BTreeSet<String>,
    /// What a user may want to know, though nothing is wrong.
    pub notes: Vec<Note>,
}

impl Answer {
    fn with_key(self, key_pem: Sensitive<String>) -> Imported {
        let Self { chain_pem, authorities_pem, ends, facts, uncovered, notes } = self;
        Imported { leaf: Leaf { chain_pem, key_pem }, authorities_pem, ends, facts, uncovered, notes }
    }
}

/// Something noticed and dealt with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    /// `tls.crt` did not begin with the certificate of the key, or its issuers were in another order.
    #[error("the certificates in tls.crt were put in order: serving certificate first, each followed by its issuer")]
    Reordered,
    /// `tls.crt` held certificates that are not in the chain; they were left out.
    #[error("{0} certificates in tls.crt do not belong to the chain and were left out")]
    LeftOut(usize),
    /// The serving certificate may itself sign others.
    #[error("the certificate is marked as an authority (CA:TRUE); some clients refuse such a one from a server")]
    LeafIsAuthority,
    /// There is no `ca.crt` and no root in the chain.
    #[error("there is no ca.crt; clients must already trust {0}")]
    IssuerNotIncluded(String),
}

/// Why a user's certificate is not served. What served before goes on serving.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// A key of the Secret is missing.
    #[error("{0} is missing; put the PEM text under that key (kubectl create secret tls does)")]
    Incomplete(&'static str),
    /// `tls.crt` or `ca.crt` can't be read.
    #[error("{0} holds no readable certificate; it must be PEM text that begins with -----BEGIN CERTIFICATE-----")]
    CertificateUnreadable(&'static str),
    /// `tls.key` can't be read.
    #[error("tls.key holds no readable private key; it must be PEM text in PKCS #8, PKCS #1 or SEC 1 form")]
    KeyUnreadable,
    /// `tls.key` needs a passphrase.
    #[error("tls.key is encrypted; name the Secret with its passphrase in spec.tls.secret.passphraseSecretRef")]
    KeyEncrypted,
    /// `tls.key` cannot be opened with the passphrase.
    #[error(
        "tls.key cannot be opened with the passphrase of spec.tls.secret.passphraseSecretRef; put the right one there"
    )]
    WrongPassphrase,
    /// `tls.key` is encrypted in a way that is not read here.
    #[error(
        "tls.key is encrypted in a way that cannot be read ({0}); encrypt it anew: openssl pkcs8 -topk8 -in tls.key"
    )]
    KeyEncryptionUnsupported(&'static str),
    /// A kind of key that can't be used.
    #[error(
        "the key is of a kind that can't be used ({0}); use ECDSA on P-256 or P-384, RSA of 2048 to 4096 bits, or Ed25519"
    )]
    KeyUnsupported(PublicKeyKind),
    /// The key belongs to none of the certificates.
    #[error("tls.key is not the key of the certificate for {0}; store the pair that was made together")]
    KeyMismatch(String),
    /// An issuer is missing between the certificate and `ca.crt`.
    #[error(
        "the chain ends at a certificate issued by {0}, which ca.crt does not hold; add the missing intermediates to tls.crt"
    )]
    ChainBroken(String),
    /// Clients refuse a certificate of the chain.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is the certificate of another key than the one that a signature is waited for.
    #[error(
        "the certificate for {0} has another key than the request that waits: {1}; have the present request signed"
    )]
    OtherRequest(String, Origin),
    /// A signer left out what the manifest names.
    #[error(
        "the certificate does not cover {0}, which the manifest names and the request asks for; have it signed with all names of the request"
    )]
    NamesLeftOut(String),
    /// It lacks a name or an address that the certificate which is served has, and that clients use.
    #[error(
        "the certificate does not cover {0} of spec.addresses or spec.route, which the one that is served covers; issue it with these names and addresses, or remove them there"
    )]
    NamesMissing(String),
}

impl ImportError {
    /// The one word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Incomplete(_) => "CertificateIncomplete",
            Self::CertificateUnreadable(_) => "CertificateUnreadable",
            Self::KeyUnreadable => "KeyUnreadable",
            Self::KeyEncrypted => "KeyEncrypted",
            Self::WrongPassphrase => "WrongPassphrase",
            Self::KeyEncryptionUnsupported(_) => "KeyEncryptionUnsupported",
            Self::KeyUnsupported(_) => "KeyUnsupported",
            Self::KeyMismatch(_) => "KeyMismatch",
            Self::ChainBroken(_) => "ChainBroken",
            Self::Refused(refusal) => refusal.reason(),
            Self::OtherRequest(..) => "OtherRequest",
            Self::NamesMissing(_) | Self::NamesLeftOut(_) => "NamesMissing",
        }
    }
}

/// What a certificate with another key is, as far as its subject tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Origin {
    /// It has the request's subject.
    #[error("it answers an older request of this registry")]
    OlderRequest,
    /// It has another one.
    #[error("it answers no request of this registry")]
    Elsewhere,
}

/// Names and addresses that clients will use.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// DNS names in lower case.
    pub dns_names: &'a BTreeSet<String>,
    /// Addresses.
    pub ip_addresses: &'a BTreeSet<IpAddr>,
}

/// Accepts what clients will accept at `now`, or says the first thing that is wrong. `served` is the copy of an earlier version that is
/// served now, if there is one and its time is not over: a new one must not take away names that clients use.
pub fn check(
    material: Material<'_>,
    hosts: Hosts<'_>,
    served: Option<&CertificateFacts>,
    now: Timestamp,
) -> Result<Imported, ImportError> {
    // What is wrong with a certificate that cannot be read is told before what is wrong with its key.
    certificates(material.chain, "tls.crt")?;
    let key_text = material.key.ok_or(ImportError::Incomplete("tls.key"))?;
    let key = private_key(key_text, material.passphrase)?;
    let judged = judge(material.chain, material.authorities, hosts, served, now, |given| of_key(given, &key))?;
    Ok(judged.with_key(pem::section(label(&key), key.secret_der()).into()))
}

/// The same for what somebody signed on this request, whose key need not be at hand. `written`: what the manifest names has to be covered; where it
/// names nothing, anything that was asked for.
pub fn check_answer(
    chain: Option<&[u8]>,
    request: &RequestFacts,
    authorities: Option<&[u8]>,
    written: Hosts<'_>,
    now: Timestamp,
) -> Result<Answer, ImportError> {
    let asked = Hosts { dns_names: &request.dns_names, ip_addresses: &request.ip_addresses };
    let answer = judge(chain, authorities, asked, None, now, |given| of_request(given, request))?;
    let lost = uncovered(&answer.facts, written);
    if !lost.is_empty() {
        return Err(ImportError::NamesLeftOut(lost.into_iter().collect::<Vec<_>>().join(", ")));
    }
    if answer.uncovered.len() == request.dns_names.len() + request.ip_addresses.len() {
        return Err(ImportError::NamesLeftOut(answer.uncovered.into_iter().collect::<Vec<_>>().join(", ")));
    }
    Ok(answer)
}

fn judge(
    chain_text: Option<&[u8]>,
    authorities: Option<&[u8]>,
    hosts: Hosts<'_>,
    served: Option<&CertificateFacts>,
    now: Timestamp,
    leaf: impl FnOnce(&[X509Certificate<'_>]) -> Result<usize, ImportError>,
) -> Result<Answer, ImportError> {
    let given = certificates(chain_text, "tls.crt")?;
    // Tools write an empty ca.crt where there is none.
    let authorities = authorities
        .filter(|text| !text.trim_ascii().is_empty())
        .map(|text| certificates(Some(text), "ca.crt"))
        .transpose()?;

    let parsed = parse(&given, "tls.crt")?;
    let trusted = authorities.as_deref().map(|found| parse(found, "ca.crt")).transpose()?;
    let mut chain = chain(&parsed, leaf(&parsed)?, now);
    chain.truncate(accepted_length(&chain, &parsed, trusted.as_deref(), now)?);
    let leaf = CertificateFacts::of(&parsed[chain[0]]);
    let uncovered = uncovered(&leaf, hosts);
    if let Some(served) = served.filter(|served| now < served.not_after) {
        let lost: Vec<_> = uncovered.difference(&self::uncovered(served, hosts)).cloned().collect();
        if !lost.is_empty() {
            return Err(ImportError::NamesMissing(lost.join(", ")));
        }
    }

    let mut notes = Vec::new();
    if chain.iter().enumerate().any(|(place, link)| place != *link) {
        notes.push(Note::Reordered);
    }
    if given.len() > chain.len() {
        notes.push(Note::LeftOut(given.len() - chain.len()));
    }
    if leaf.is_authority {
        notes.push(Note::LeafIsAuthority);
    }

    let last = &parsed[chain[chain.len() - 1]];
    let authorities_pem = match &authorities {
        Some(found) => Some(Bundle::read(&pem::render(found)).without_expired(now).render()),
        None if is_own_issuer(last) => Some(pem::render([&given[chain[chain.len() - 1]]])),
        None => {
            notes.push(Note::IssuerNotIncluded(last.issuer().to_string()));
            None
        }
    };
    let published = Bundle::read(authorities_pem.as_deref().unwrap_or_default()).facts();
    let ends = chain.iter().map(|link| CertificateFacts::of(&parsed[*link]));
    let ends = ends.chain(published).map(|facts| facts.not_after).min().unwrap_or(leaf.not_after);

    Ok(Answer {
        chain_pem: pem::render(chain.iter().map(|link| &given[*link])),
        authorities_pem,
        ends,
        uncovered,
        facts: leaf,
        notes,
    })
}

fn certificates(text: Option<&[u8]>, name: &'static str) -> Result<Vec<CertificateDer<'static>>, ImportError> {
    let text = text.ok_or(ImportError::Incomplete(name))?;
    pem::certificates(text).ok_or(ImportError::CertificateUnreadable(name))
}

fn parse<'a>(ders: &'a [CertificateDer<'_>], name: &'static str) -> Result<Vec<X509Certificate<'a>>, ImportError> {
    let parsed = ders.iter().map(|der| facts::parse(der));
    parsed.collect::<Result<_, _>>().map_err(|_| ImportError::CertificateUnreadable(name))
}

fn private_key(text: &[u8], passphrase: Option<&[u8]>) -> Result<Zeroizing<PrivateKeyDer<'static>>, ImportError> {
    match (pem::private_key(text), passphrase) {
        (Ok(key), _) => Ok(key),
        (Err(NoKey::Unreadable), _) => Err(ImportError::KeyUnreadable),
        (Err(NoKey::Encrypted), None) => Err(ImportError::KeyEncrypted),
        (Err(NoKey::Encrypted), Some(passphrase)) => {
            encrypted_key::open(text, passphrase).map_err(|closed| match closed {
                Closed::WrongPassphrase => ImportError::WrongPassphrase,
                Closed::Unsupported(how) => ImportError::KeyEncryptionUnsupported(how),
                Closed::Unreadable => ImportError::KeyUnreadable,
            })
        }
    }
}

fn label(key: &PrivateKeyDer<'_>) -> &'static str {
    match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    }
}

/// Place of the certificate of the key.
fn of_key(given: &[X509Certificate<'_>], key: &PrivateKeyDer<'_>) -> Result<usize, ImportError> {
    let first = &given[0];
    let fits: Option<Vec<bool>> = given.iter().map(|certificate| key_fits(key, certificate)).collect();
    let fits = fits.ok_or_else(|| unusable_key(CertificateFacts::of(first).key))?;
    fits.iter().position(|fits| *fits).ok_or_else(|| ImportError::KeyMismatch(first.subject().to_string()))
}

/// Place of the certificate of the request's key.
fn of_request(given: &[X509Certificate<'_>], request: &RequestFacts) -> Result<usize, ImportError> {
    given.iter().position(|certificate| request.is_key_of(certificate)).ok_or_else(|| {
        let is_subject = |certificate: &X509Certificate<'_>| certificate.subject().to_string() == request.subject;
        let of = given.iter().find(|certificate| is_subject(certificate));
        let origin = if of.is_some() { Origin::OlderRequest } else { Origin::Elsewhere };
        ImportError::OtherRequest(of.unwrap_or(&given[0]).subject().to_string(), origin)
    })
}

/// Places in `given`: the certificate of the key first, then issuer after issuer as far as they are there. Of several that fit, one whose
/// time it is.
fn chain(given: &[X509Certificate<'_>], leaf: usize, now: Timestamp) -> Vec<usize> {
    let mut chain = vec![leaf];
    loop {
        let last = &given[chain[chain.len() - 1]];
        if is_own_issuer(last) {
            return chain;
        }
        let issuers = (0..given.len()).filter(|place| !chain.contains(place) && issued(last, &given[*place]));
        let is_late = |place: &usize| acceptance::in_time(&CertificateFacts::of(&given[*place]), now).is_err();
        match issuers.min_by_key(is_late) {
            Some(issuer) => chain.push(issuer),
            None => return chain,
        }
    }
}

/// How much of the chain is sent to clients: as far as one of what they trust, `ca.crt`, reaches down. Of several ways the longest that
/// clients accept; if they accept none, what is wrong with the first.
fn accepted_length(
    chain: &[usize],
    given: &[X509Certificate<'_>],
    trusted: Option<&[X509Certificate<'_>]>,
    now: Timestamp,
) -> Result<usize, ImportError> {
    let links: Vec<_> = chain.iter().map(|place| &given[*place]).collect();
    let last = links[links.len() - 1];
    let Some(trusted) = trusted else {
        acceptance::chain(&links, is_own_issuer(last).then_some(last), now)?;
        return Ok(links.len());
    };
    let mut first_refusal = None;
    for length in (1..=links.len()).rev() {
        let end = links[length - 1];
        for anchor in trusted.iter().filter(|anchor| end.as_raw() == anchor.as_raw() || issued(end, anchor)) {
            match acceptance::chain(&links[..length], Some(anchor), now) {
                Ok(()) => return Ok(length),
                Err(refusal) => _ = first_refusal.get_or_insert(refusal),
            }
        }
    }
    acceptance::chain(&links, None, now)?;
    Err(first_refusal.map_or_else(|| ImportError::ChainBroken(last.issuer().to_string()), ImportError::Refused))
}

/// The certificate tells which kind its key should be: if that kind can be used, the key's bytes are to blame.
fn unusable_key(kind: PublicKeyKind) -> ImportError {
    match kind {
        PublicKeyKind::Own(_) | PublicKeyKind::Rsa { bits: 2048..=4096 } => ImportError::KeyUnreadable,
        _ => ImportError::KeyUnsupported(kind),
    }
}

/// Whether `issuer` signed the certificate. Unlike in `reading`, a signature of a kind that can't be verified here counts by its issuer's name.
fn issued(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    acceptance::signed_by(certificate, issuer) != Signature::Bad
}

fn is_own_issuer(certificate: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == certificate.subject().as_raw() && issued(certificate, certificate)
}

fn uncovered(leaf: &CertificateFacts, hosts: Hosts<'_>) -> BTreeSet<String> {
    let names = hosts.dns_names.iter().filter(|name| !covers(&leaf.dns_names, name)).cloned();
    let addresses = hosts.ip_addresses.difference(&leaf.ip_addresses).map(ToString::to_string);
    names.chain(addresses).collect()
}

/// A wildcard stands for exactly one label, the first (RFC 6125 6.4.3).
pub fn covers(names: &BTreeSet<String>, host: &str) -> bool {
    let wildcard = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
    names.contains(host) || wildcard.is_some_and(|wildcard| names.contains(&wildcard))
}

#[cfg(test)]
mod tests;
