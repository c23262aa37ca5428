//! What clients object to in a chain of certificates: each refusal names the certificate, the first thing that is wrong, and what to do.
//!
//! As strict as the strictest of the usual clients in each point: Go's `crypto/x509` (Docker, containerd, podman), OpenSSL 3, rustls.
//! Unlike some of them it looks at a root as closely as at the rest, because those that do refuse the chain.
//! Pure: the moment is an argument. Judges; what follows from it is up to `reading`, `policy` and `import`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::oid::Oid;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, GeneralSubtree, NameConstraints, ParsedExtension};
use x509_parser::oid_registry as oid;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, X509Version};

use super::facts::CertificateFacts;
use super::{KeyAlgorithm, PublicKeyKind};

/// Why clients refuse a certificate, or what it signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate for {subject} {flaw}")]
pub struct Refusal {
    /// Whose certificate.
    pub subject: String,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// What can be wrong with a certificate. The texts end with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Its time is over.
    #[error("expired at {0}; store a renewed one")]
    Expired(Timestamp),
    /// Its time has not begun.
    #[error("is valid only from {0}; store one that is valid now, or check the clocks")]
    NotYetValid(Timestamp),
    /// There is no subject alternative name.
    #[error(
        "has only a common name, which clients ignore; issue it with subjectAltName entries for every name and address"
    )]
    NoSubjectAltName,
    /// The extended key usage leaves out servers. Counts for every certificate of a chain, the root included.
    #[error("is not meant for servers; issue it with extendedKeyUsage serverAuth, or a CA without extendedKeyUsage")]
    NotForServers,
    /// The key usage of a serving certificate forbids what a server does with its key.
    #[error("may not be used by a server (keyUsage); issue it with keyUsage digitalSignature")]
    NoDigitalSignature,
    /// It signs others and is no authority.
    #[error("is not one of a CA (basicConstraints CA:TRUE); issue it as a CA")]
    NotAuthority,
    /// The key usage of an authority forbids it to sign certificates.
    #[error("may not sign others (keyUsage); issue it with keyUsage keyCertSign")]
    NoCertSign,
    /// More intermediates come below it than it allows.
    #[error(
        "allows only {0} intermediates below it (pathlen of basicConstraints); issue it with a larger one, or shorten the chain"
    )]
    PathTooLong(u32),
    /// An authority without a name.
    #[error("has no subject, which a CA must have; issue it with one")]
    NoSubject,
    /// A name of an authority that the operator cannot write as the issuer of a certificate.
    #[error(
        "has a subject that the operator cannot repeat as an issuer (the same attribute twice, or several in one part); use a CA with a plainer subject, for instance a common name alone"
    )]
    SubjectNotRepeatable,
    /// A name or an address is outside of what an authority may sign for.
    #[error(
        "does not permit {0} (nameConstraints); issue it so that it permits every name and address of the certificate that is served"
    )]
    NameNotPermitted(String),
    /// Restrictions of a kind that not every client understands.
    #[error(
        "restricts names in a way that not every client understands (nameConstraints); restrict DNS names and addresses only"
    )]
    NamesRestricted,
    /// A critical extension that a client does not know.
    #[error("has a critical extension that clients do not know ({0}); issue it without, or not as critical")]
    ExtensionUnknown(String),
    /// An extension that is broken, or there twice.
    #[error("has an extension that cannot be read, or the same one twice ({0}); issue it again")]
    ExtensionUnreadable(String),
    /// A kind of key that is too weak or not known to clients.
    #[error("has a key that clients refuse ({0}); use ECDSA on P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519")]
    KeyRefused(PublicKeyKind),
    /// A signature that is too weak or not known to clients.
    #[error("is signed in a way that clients refuse ({0}); have it signed with SHA-256")]
    SignatureRefused(String),
    /// A negative serial number.
    #[error("has a negative serial number, which Go refuses; issue it again")]
    SerialNumber,
    /// Another one signed it than the next of the chain.
    #[error("is not signed by {0}; store the CA that signed it")]
    NotSigned(String),
}

impl Refusal {
    /// The one word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self.flaw {
            Flaw::Expired(_) => "CertificateExpired",
            Flaw::NotYetValid(_) => "CertificateNotYetValid",
            Flaw::NoSubjectAltName => "NoSubjectAltName",
            Flaw::NotForServers | Flaw::NoDigitalSignature => "NotForServers",
            Flaw::NotAuthority
            | Flaw::NoCertSign
            | Flaw::PathTooLong(_)
            | Flaw::NoSubject
            | Flaw::SubjectNotRepeatable => "IssuerNotAuthority",
            Flaw::NameNotPermitted(_) | Flaw::NamesRestricted => "NamesNotPermitted",
            Flaw::ExtensionUnknown(_) | Flaw::ExtensionUnreadable(_) | Flaw::SerialNumber => "CertificateMalformed",
            Flaw::KeyRefused(_) | Flaw::SignatureRefused(_) => "AlgorithmRefused",
            Flaw::NotSigned(_) => "ChainBroken",
        }
    }
}

/// Names and addresses that a certificate has, or shall have.
pub struct Names<'a> {
    dns_names: &'a BTreeSet<String>,
    ip_addresses: &'a BTreeSet<IpAddr>,
}

impl<'a> Names<'a> {
    /// These.
    pub fn new(dns_names: &'a BTreeSet<String>, ip_addresses: &'a BTreeSet<IpAddr>) -> Self {
        Self { dns_names, ip_addresses }
    }
}

/// Whether clients at `now` accept what a server sends them: its own certificate first, each followed by its issuer. `trusted` is the one
/// that they trust, which signed the last or is one of those that are sent; `None`: one that is not known here.
/// The signatures are not verified once more: [`signed_by`] found the chain.
pub(super) fn chain(
    sent: &[&X509Certificate<'_>],
    trusted: Option<&X509Certificate<'_>>,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(leaf) = sent.first() else { return Ok(()) };
    let is_trusted = |link: &X509Certificate<'_>| trusted.is_some_and(|trusted| trusted.as_raw() == link.as_raw());
    let signed: Vec<_> = sent.iter().copied().take_while(|link| !is_trusted(link)).collect();
    let links: Vec<_> = signed.iter().copied().chain(trusted).collect();

    let facts = CertificateFacts::of(leaf);
    serving(leaf, &facts).map_err(|flaw| refusal(leaf, flaw))?;
    links.iter().try_for_each(|link| in_time(&CertificateFacts::of(link), now))?;
    // How a trusted certificate is signed is nobody's business.
    signed.iter().try_for_each(|link| signature(link))?;
    let names = Names::new(&facts.dns_names, &facts.ip_addresses);
    for (below, issuer) in links.iter().skip(1).enumerate() {
        authority(issuer, &names, below)?;
        other_names(leaf, issuer).map_err(|flaw| refusal(issuer, flaw))?;
    }
    Ok(())
}

/// Whether clients accept what this authority signs for `names`, with `below` intermediates in between, as long as its time lasts.
pub(super) fn authority(certificate: &X509Certificate<'_>, names: &Names<'_>, below: usize) -> Result<(), Refusal> {
    issuing(certificate, names, below).map_err(|flaw| refusal(certificate, flaw))
}

/// Whether it is the time of this certificate.
pub(super) fn in_time(facts: &CertificateFacts, now: Timestamp) -> Result<(), Refusal> {
    let refused = |flaw| Err(Refusal { subject: facts.subject.clone(), flaw });
    if now >= facts.not_after {
        return refused(Flaw::Expired(facts.not_after));
    }
    if now < facts.not_before {
        return refused(Flaw::NotYetValid(facts.not_before));
    }
    Ok(())
}

/// Whether the operator can issue with this authority: it calls itself one, and its subject can be written as an issuer.
pub(super) fn can_issue(certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
    if !certificate.is_ca() {
        return Err(refusal(certificate, Flaw::NotAuthority));
    }
    let mut seen = BTreeSet::new();
    let is_plain = certificate.subject().iter().all(|part| {
        let mut attributes = part.iter();
        let is_new = attributes.next().is_some_and(|attribute| seen.insert(attribute.attr_type().to_id_string()));
        is_new && attributes.next().is_none()
    });
    if is_plain { Ok(()) } else { Err(refusal(certificate, Flaw::SubjectNotRepeatable)) }
}

/// What is known of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signature {
    /// The issuer's key made it.
    Good,
    /// Another key made it, or another issuer is named.
    Bad,
    /// The names fit, but its kind can't be verified here (P-521, say).
    Unknown,
}

/// Whether `issuer` signed the certificate.
pub(super) fn signed_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Signature {
    if certificate.issuer().as_raw() != issuer.subject().as_raw() || is_other_key(certificate, issuer) {
        return Signature::Bad;
    }
    match certificate.verify_signature(Some(issuer.public_key())) {
        Ok(()) => Signature::Good,
        Err(X509Error::SignatureUnsupportedAlgorithm) => Signature::Unknown,
        // Too short for the verifier; `key` says so.
        Err(_) if matches!(PublicKeyKind::of(issuer.public_key()), PublicKeyKind::Rsa { bits: ..2048 }) => {
            Signature::Unknown
        }
        Err(_) => Signature::Bad,
    }
}

/// The refusal of a certificate that `issuer` did not sign.
pub(super) fn not_signed(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Refusal {
    refusal(certificate, Flaw::NotSigned(subject(issuer)))
}

/// Whether the certificate names another one of its issuer's certificates: OpenSSL then looks no further.
fn is_other_key(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    let named = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(named) => Some(named),
        _ => None,
    });
    let own = issuer.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(own) => Some(own),
        _ => None,
    });
    let Some(named) = named else { return false };
    let other_id = matches!((&named.key_identifier, own), (Some(named), Some(own)) if named != own);
    other_id || named.authority_cert_serial.is_some_and(|serial| serial != issuer.raw_serial())
}

fn refusal(certificate: &X509Certificate<'_>, flaw: Flaw) -> Refusal {
    Refusal { subject: subject(certificate), flaw }
}

fn subject(certificate: &X509Certificate<'_>) -> String {
    match certificate.subject().to_string() {
        empty if empty.is_empty() => format!("nobody (serial number {})", certificate.raw_serial_as_string()),
        subject => subject,
    }
}

fn serving(leaf: &X509Certificate<'_>, facts: &CertificateFacts) -> Result<(), Flaw> {
    if facts.dns_names.is_empty() && facts.ip_addresses.is_empty() {
        return Err(Flaw::NoSubjectAltName);
    }
    sound(leaf)?;
    let Ok(Some(usage)) = leaf.key_usage() else { return Ok(()) };
    let is_rsa = matches!(facts.key, PublicKeyKind::Rsa { .. });
    let serves = usage.value.digital_signature() || is_rsa && usage.value.key_encipherment();
    if serves { Ok(()) } else { Err(Flaw::NoDigitalSignature) }
}

fn issuing(issuer: &X509Certificate<'_>, names: &Names<'_>, below: usize) -> Result<(), Flaw> {
    if issuer.subject().iter().next().is_none() {
        return Err(Flaw::NoSubject);
    }
    sound(issuer)?;
    let constraints = issuer.basic_constraints().ok().flatten();
    // The first version has no extensions: such a one is an authority if it is trusted.
    let is_old_root = issuer.version() == X509Version::V1 && issuer.issuer().as_raw() == issuer.subject().as_raw();
    if !is_old_root && !constraints.as_ref().is_some_and(|constraints| constraints.value.ca) {
        return Err(Flaw::NotAuthority);
    }
    if matches!(issuer.key_usage(), Ok(Some(usage)) if !usage.value.key_cert_sign()) {
        return Err(Flaw::NoCertSign);
    }
    if let Some(limit) = constraints.and_then(|constraints| constraints.value.path_len_constraint)
        && below > usize::try_from(limit).unwrap_or(usize::MAX)
    {
        return Err(Flaw::PathTooLong(limit));
    }
    if let Ok(Some(constraints)) = issuer.name_constraints() {
        permits(constraints.value, names)?;
    }
    Ok(())
}

/// What holds for every certificate of a chain.
fn sound(certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
    serial_number(certificate)?;
    extensions(certificate)?;
    let kind = PublicKeyKind::of(certificate.public_key());
    let is_known = match &kind {
        PublicKeyKind::Own(KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 | KeyAlgorithm::Ed25519) => true,
        PublicKeyKind::Rsa { bits } => (2048..=8192).contains(bits),
        PublicKeyKind::Other(curve) => *curve == oid::OID_NIST_EC_P521.to_id_string(),
    };
    if !is_known {
        return Err(Flaw::KeyRefused(kind));
    }
    match certificate.extended_key_usage() {
        // OpenSSL and rustls do not take anyExtendedKeyUsage for it.
        Ok(Some(usage)) if !usage.value.server_auth => Err(Flaw::NotForServers),
        _ => Ok(()),
    }
}

fn serial_number(certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
    let is_negative = certificate.raw_serial().first().is_some_and(|first| first & 0x80 != 0);
    if is_negative { Err(Flaw::SerialNumber) } else { Ok(()) }
}

fn extensions(certificate: &X509Certificate<'_>) -> Result<(), Flaw> {
    let mut seen = BTreeSet::new();
    for extension in certificate.iter_extensions() {
        let id = extension.oid.to_id_string();
        let can_be_read = match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => !extension.critical && !is_weighed(&extension.oid),
            ParsedExtension::SubjectAlternativeName(names) => names.general_names.iter().all(can_be_compared),
            _ => true,
        };
        if !can_be_read || !seen.insert(id.clone()) {
            return Err(Flaw::ExtensionUnreadable(id));
        }
        if extension.critical && !may_be_critical(&extension.oid) {
            return Err(Flaw::ExtensionUnknown(id));
        }
    }
    Ok(())
}

fn can_be_compared(name: &GeneralName<'_>) -> bool {
    match name {
        GeneralName::IPAddress(bytes) => matches!(bytes.len(), 4 | 16),
        GeneralName::Invalid(..) => false,
        _ => true,
    }
}

/// Extensions that decide about a chain.
fn is_weighed(id: &Oid<'_>) -> bool {
    [
        oid::OID_X509_EXT_KEY_USAGE,
        oid::OID_X509_EXT_SUBJECT_ALT_NAME,
        oid::OID_X509_EXT_BASIC_CONSTRAINTS,
        oid::OID_X509_EXT_NAME_CONSTRAINTS,
        oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
        oid::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
        oid::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
    ]
    .contains(id)
}

/// Those that clients know and weigh when they are critical. Of the policies (RFC 5280 4.2.1.4) only the list itself: what restricts it is
/// weighed by some clients and unknown to others.
fn may_be_critical(id: &Oid<'_>) -> bool {
    [
        oid::OID_X509_EXT_KEY_USAGE,
        oid::OID_X509_EXT_SUBJECT_ALT_NAME,
        oid::OID_X509_EXT_BASIC_CONSTRAINTS,
        oid::OID_X509_EXT_NAME_CONSTRAINTS,
        oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
        oid::OID_X509_EXT_CRL_DISTRIBUTION_POINTS,
        oid::OID_X509_EXT_CERTIFICATE_POLICIES,
    ]
    .contains(id)
}

/// Whether clients take this kind of signature from a certificate that they do not trust as it is.
fn signature(certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
    let algorithm = &certificate.signature_algorithm;
    let is_strong = is_strong(algorithm) && *algorithm == certificate.tbs_certificate.signature;
    let refused = || refusal(certificate, Flaw::SignatureRefused(algorithm_name(&algorithm.algorithm)));
    is_strong.then_some(()).ok_or_else(refused)
}

fn is_strong(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    let id = &algorithm.algorithm;
    if *id == oid::OID_PKCS1_RSASSAPSS {
        let parameters = algorithm.parameters.as_ref().and_then(|any| RsaSsaPssParams::try_from(any).ok());
        return parameters.is_some_and(|parameters| {
            [oid::OID_NIST_HASH_SHA256, oid::OID_NIST_HASH_SHA384, oid::OID_NIST_HASH_SHA512]
                .contains(parameters.hash_algorithm_oid())
        });
    }
    [
        oid::OID_PKCS1_SHA256WITHRSA,
        oid::OID_PKCS1_SHA384WITHRSA,
        oid::OID_PKCS1_SHA512WITHRSA,
        oid::OID_SIG_ECDSA_WITH_SHA256,
        oid::OID_SIG_ECDSA_WITH_SHA384,
        oid::OID_SIG_ECDSA_WITH_SHA512,
        oid::OID_SIG_ED25519,
    ]
    .contains(id)
}

fn algorithm_name(id: &Oid<'_>) -> String {
    let sha1 = [oid::OID_PKCS1_SHA1WITHRSA, oid::OID_SHA1_WITH_RSA];
    if sha1.contains(id) { "SHA-1".to_owned() } else { id.to_id_string() }
}

/// Whether an authority restricted so may sign for these names. A client compares all of them, not only the one that it asked for.
fn permits(constraints: &NameConstraints<'_>, names: &Names<'_>) -> Result<(), Flaw> {
    let none = Vec::new();
    let permitted = constraints.permitted_subtrees.as_ref().unwrap_or(&none);
    let excluded = constraints.excluded_subtrees.as_ref().unwrap_or(&none);
    if permitted.iter().chain(excluded).any(|subtree| !is_understood(&subtree.base)) {
        return Err(Flaw::NamesRestricted);
    }
    let refused = |name: String| Err(Flaw::NameNotPermitted(name));
    for name in names.dns_names {
        if !is_permitted(permitted, dns_constraint, |constraint| dns_within(name, constraint))
            || excluded.iter().filter_map(dns_constraint).any(|constraint| dns_touches(name, constraint))
        {
            return refused(name.clone());
        }
    }
    for address in names.ip_addresses {
        if !is_permitted(permitted, ip_constraint, |constraint| ip_within(*address, constraint))
            || excluded.iter().filter_map(ip_constraint).any(|constraint| ip_within(*address, constraint))
        {
            return refused(address.to_string());
        }
    }
    Ok(())
}

/// Names of other kinds in a user's certificate cannot be compared here: an authority must not restrict that kind.
fn other_names(leaf: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> Result<(), Flaw> {
    let Ok(Some(constraints)) = issuer.name_constraints() else { return Ok(()) };
    let subtrees = [&constraints.value.permitted_subtrees, &constraints.value.excluded_subtrees];
    let mut subtrees = subtrees.into_iter().flatten().flatten();
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let kinds: Vec<_> = names
        .filter(|name| matches!(name, GeneralName::RFC822Name(_) | GeneralName::URI(_)))
        .map(std::mem::discriminant)
        .collect();
    let meets = subtrees.any(|subtree| kinds.contains(&std::mem::discriminant(&subtree.base)));
    if meets { Err(Flaw::NamesRestricted) } else { Ok(()) }
}

/// Restrictions of the kinds that Go knows; it refuses the others (`parseNameConstraintsExtension`).
fn is_understood(base: &GeneralName<'_>) -> bool {
    match base {
        GeneralName::DNSName(_) | GeneralName::RFC822Name(_) | GeneralName::URI(_) => true,
        GeneralName::IPAddress(bytes) => matches!(bytes.len(), 8 | 32),
        _ => false,
    }
}

/// A kind of name that is not mentioned is not restricted (RFC 5280 4.2.1.10).
fn is_permitted<'a, C>(
    permitted: &'a [GeneralSubtree<'a>],
    kind: fn(&'a GeneralSubtree<'a>) -> Option<C>,
    within: impl Fn(C) -> bool,
) -> bool {
    let mut constraints = permitted.iter().filter_map(kind).peekable();
    constraints.peek().is_none() || constraints.any(within)
}

fn dns_constraint<'a>(subtree: &'a GeneralSubtree<'a>) -> Option<&'a str> {
    match subtree.base {
        GeneralName::DNSName(name) => Some(name),
        _ => None,
    }
}

fn ip_constraint<'a>(subtree: &'a GeneralSubtree<'a>) -> Option<&'a [u8]> {
    match subtree.base {
        GeneralName::IPAddress(bytes) => Some(bytes),
        _ => None,
    }
}

/// Whether the name is the domain or lies in it. With a dot in front only what lies in it counts; an empty one holds every name.
fn dns_within(name: &str, constraint: &str) -> bool {
    let (name, constraint) = (name.to_ascii_lowercase(), constraint.to_ascii_lowercase());
    name.strip_suffix(&constraint).is_some_and(|front| match front {
        "" => true,
        front => constraint.is_empty() || constraint.starts_with('.') || front.ends_with('.'),
    })
}

/// Whether a name that the certificate is good for lies in the domain: a wildcard reaches into domains below it.
fn dns_touches(name: &str, constraint: &str) -> bool {
    let reaches = |parent: &str| dns_within(constraint.trim_start_matches('.'), parent);
    dns_within(name, constraint) || name.strip_prefix("*.").is_some_and(reaches)
}

/// Address and mask, one after the other.
fn ip_within(address: IpAddr, constraint: &[u8]) -> bool {
    let (network, mask) = constraint.split_at(constraint.len() / 2);
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.len() == network.len()
        && bytes.iter().zip(network).zip(mask).all(|((byte, network), mask)| byte & mask == network & mask)
}

#[cfg(test)]
mod tests;
