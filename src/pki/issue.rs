//! Makes keys and certificates: the only place under `pki` with a source of randomness.
//! Asks no questions; whether something must be made was decided by `policy`.

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, SignatureAlgorithm,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{
    Authority, AuthorityProfile, BACKDATE, CertificateFacts, KeyAlgorithm, Leaf, LeafProfile, after, facts, pem,
};

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The operating system gave no random bytes.
    #[error("the system gave no random bytes; trying again may help")]
    Random,
    /// The authority can't be used for signing. The policy asks for a new one before it comes to this.
    #[error("the certificate authority can't sign: {0}")]
    Authority(&'static str),
    /// The profile asks for what no certificate can hold.
    #[error("certificate for {common_name}: {what}")]
    Profile {
        /// The name in the profile.
        common_name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The certificate could not be encoded or signed.
    #[error("certificate for {common_name}: could not be signed")]
    Sign {
        /// The name in the profile.
        common_name: String,
        /// What the encoder said.
        #[source]
        source: rcgen::Error,
    },
}

impl IssueError {
    /// The one word for conditions, events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Random => "NoRandomness",
            Self::Authority(_) => "CaUnusable",
            Self::Profile { .. } => "CertificateProfileInvalid",
            Self::Sign { .. } => "CertificateNotSigned",
        }
    }
}

/// Longest common name, in characters (RFC 5280, `ub-common-name`).
const COMMON_NAME_MAX: usize = 64;

/// A new authority: signs serving certificates and nothing else (path length 0).
pub fn issue_authority(profile: &AuthorityProfile, now: Timestamp) -> Result<Authority, IssueError> {
    let key = new_key(profile.key_algorithm)?;
    let mut params = params(&profile.common_name, now, after(now, profile.duration))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

    let certificate = params
        .self_signed(&key)
        .map_err(|source| IssueError::Sign { common_name: profile.common_name.clone(), source })?;
    Ok(Authority {
        certificate_pem: pem::section("CERTIFICATE", certificate.der()),
        key_pem: pem::section("PRIVATE KEY", key.serialized_der()).into(),
    })
}

/// A new serving certificate with a new key, signed by `authority`. Its life ends with the authority's at the latest.
///
/// The chain is the leaf alone: clients have the authority's certificate from the bundle.
pub fn issue_leaf(authority: &Authority, profile: &LeafProfile, now: Timestamp) -> Result<Leaf, IssueError> {
    let (issuer, authority_ends) = issuer(authority)?;
    if authority_ends <= now {
        return Err(IssueError::Authority("its time is over"));
    }

    let key = new_key(profile.key_algorithm)?;
    let mut params = params(&profile.common_name, now, after(now, profile.duration).min(authority_ends))?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = names(profile)?;

    let certificate = params
        .signed_by(&key, &issuer)
        .map_err(|source| IssueError::Sign { common_name: profile.common_name.clone(), source })?;
    Ok(Leaf {
        chain_pem: pem::section("CERTIFICATE", certificate.der()),
        key_pem: pem::section("PRIVATE KEY", key.serialized_der()).into(),
    })
}

fn params(common_name: &str, now: Timestamp, not_after: Timestamp) -> Result<CertificateParams, IssueError> {
    let profile = |what: &str| IssueError::Profile { common_name: common_name.into(), what: what.into() };
    if common_name.is_empty() || common_name.chars().count() > COMMON_NAME_MAX {
        return Err(profile("the common name must have 1 to 64 characters"));
    }
    if not_after <= now {
        return Err(profile("the duration must be longer than nothing"));
    }

    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(after(now, -BACKDATE));
    params.not_after = date(not_after);
    params.serial_number = Some(serial()?);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn names(profile: &LeafProfile) -> Result<Vec<SanType>, IssueError> {
    let invalid = |name: &str| IssueError::Profile {
        common_name: profile.common_name.clone(),
        what: format!("{name:?} is not a DNS name"),
    };
    if profile.dns_names.is_empty() && profile.ip_addresses.is_empty() {
        let what = "without a DNS name or an address no client would accept it".into();
        return Err(IssueError::Profile { common_name: profile.common_name.clone(), what });
    }
    let dns_name = |name: &String| name.as_str().try_into().map(SanType::DnsName).map_err(|_| invalid(name));
    let dns_names = profile.dns_names.iter().map(dns_name);
    dns_names.chain(profile.ip_addresses.iter().map(|address| Ok(SanType::IpAddress(*address)))).collect()
}

fn issuer(authority: &Authority) -> Result<(Issuer<'static, KeyPair>, Timestamp), IssueError> {
    let unusable = IssueError::Authority;
    let certificates =
        pem::certificates(authority.certificate_pem.as_bytes()).ok_or(unusable("its certificate is unreadable"))?;
    let certificate: &CertificateDer<'_> = &certificates[0];
    let parsed = facts::parse(certificate).map_err(|_| unusable("its certificate is unreadable"))?;
    let ends = CertificateFacts::of(&parsed).not_after;

    let key = pem::private_key(authority.key_pem.expose().as_bytes()).map_err(|_| unusable("its key is unreadable"))?;
    let key = KeyPair::try_from(&key).map_err(|_| unusable("its key is of an unknown kind"))?;
    let issuer = Issuer::from_ca_cert_der(certificate, key).map_err(|_| unusable("its certificate is unreadable"))?;
    Ok((issuer, ends))
}

fn new_key(algorithm: KeyAlgorithm) -> Result<KeyPair, IssueError> {
    let algorithm: &'static SignatureAlgorithm = match algorithm {
        KeyAlgorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyAlgorithm::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
        KeyAlgorithm::Ed25519 => return new_ed25519_key(),
    };
    KeyPair::generate_for(algorithm).map_err(|_| IssueError::Random)
}

/// The short form of PKCS #8 (RFC 8410, version 1). The longer one that ring writes is refused by OpenSSL before 3.
fn new_ed25519_key() -> Result<KeyPair, IssueError> {
    const HEAD: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let mut der = Zeroizing::new([0; HEAD.len() + 32]);
    let (head, seed) = der.split_at_mut(HEAD.len());
    head.copy_from_slice(&HEAD);
    SystemRandom::new().fill(seed).map_err(|_| IssueError::Random)?;

    let pkcs8 = PrivatePkcs8KeyDer::from(&der[..]);
    KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519).map_err(|_| IssueError::Random)
}

/// 16 random bytes, positive and of constant length (RFC 5280 4.1.2.2).
fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| IssueError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// rcgen speaks the `time` crate. Whole seconds, held at the year 9999, the last that a certificate can name.
fn date(moment: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(moment.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
