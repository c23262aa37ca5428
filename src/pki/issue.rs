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
    Authority, AuthorityProfile, BACKDATE, CertificateFacts, KeyAlgorithm, Leaf, LeafProfile, SigningRequest, after,
    facts, pem,
};
use crate::secret::Sensitive;

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

/// A new key, and the request for a certificate of it, for somebody else to sign.
pub fn request(profile: &LeafProfile) -> Result<SigningRequest, IssueError> {
    request_for(profile, &new_key(profile.key_algorithm)?)
}

/// The request for a key that there is, for other names.
pub fn request_again(profile: &LeafProfile, key_pem: &Sensitive<String>) -> Result<SigningRequest, IssueError> {
    let unusable =
        || IssueError::Profile { common_name: profile.common_name.clone(), what: "its key is unreadable".into() };
    let key = pem::private_key(key_pem.expose().as_bytes()).map_err(|_| unusable())?;
    request_for(profile, &KeyPair::try_from(&*key).map_err(|_| unusable())?)
}

fn request_for(profile: &LeafProfile, key: &KeyPair) -> Result<SigningRequest, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&profile.common_name)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = names(profile)?;
    let request = params
        .serialize_request(key)
        .map_err(|source| IssueError::Sign { common_name: profile.common_name.clone(), source })?;
    Ok(SigningRequest {
        request_pem: pem::section("CERTIFICATE REQUEST", request.der()),
        key_pem: pem::section("PRIVATE KEY", key.serialized_der()).into(),
    })
}

fn subject(common_name: &str) -> Result<DistinguishedName, IssueError> {
    if common_name.is_empty() || common_name.chars().count() > COMMON_NAME_MAX {
        let what = "the common name must have 1 to 64 characters".into();
        return Err(IssueError::Profile { common_name: common_name.into(), what });
    }
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    Ok(subject)
}

fn params(common_name: &str, now: Timestamp, not_after: Timestamp) -> Result<CertificateParams, IssueError> {
    let subject = subject(common_name)?;
    if not_after <= now {
        let what = "the duration must be positive".into();
        return Err(IssueError::Profile { common_name: common_name.into(), what });
    }

    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
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
    let key = KeyPair::try_from(&*key).map_err(|_| unusable("its key is of an unknown kind"))?;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::SignedDuration;
    use rustls::{CertificateError, Error};

    use super::*;
    use crate::pki::PublicKeyKind;
    use crate::pki::reading::{AuthorityReading, LeafReading};
    use crate::pki::testing::{DAY, YEAR, authority_profile, handshake, leaf_profile, names, now, pair};

    const KINDS: [KeyAlgorithm; 3] = [KeyAlgorithm::EcdsaP256, KeyAlgorithm::EcdsaP384, KeyAlgorithm::Ed25519];
    const SECOND: SignedDuration = SignedDuration::from_secs(1);

    fn facts(leaf: &Leaf) -> CertificateFacts {
        CertificateFacts::of_pem(&leaf.chain_pem).unwrap()
    }

    fn refused(error: Error) -> CertificateError {
        match error {
            Error::InvalidCertificate(error) => error,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_client_that_trusts_the_authority_accepts_the_leaf_whatever_the_keys() {
        for authority_kind in KINDS {
            let profile = AuthorityProfile { key_algorithm: authority_kind, ..authority_profile() };
            let authority = issue_authority(&profile, now()).unwrap();
            for leaf_kind in KINDS {
                let profile = LeafProfile { key_algorithm: leaf_kind, ..leaf_profile() };
                let leaf = issue_leaf(&authority, &profile, now()).unwrap();

                assert_eq!(facts(&leaf).key, PublicKeyKind::Own(leaf_kind));
                handshake(&leaf, &authority.certificate_pem, "team-a", now())
                    .unwrap_or_else(|error| panic!("{leaf_kind} signed by {authority_kind}: {error}"));
            }
        }
    }

    #[test]
    fn every_name_and_address_is_accepted_and_no_other() {
        let (authority, leaf) = pair();
        let connect = |host| handshake(&leaf, &authority.certificate_pem, host, now());

        for host in ["team-a", "team-a.registries.svc", "any.example.com", "127.0.0.1", "10.96.0.10", "fd00::10"] {
            connect(host).unwrap_or_else(|error| panic!("{host}: {error}"));
        }
        for host in ["team-b", "example.com", "a.b.example.com", "10.96.0.11", "fd00::11"] {
            let error = refused(connect(host).unwrap_err());
            assert!(matches!(error, CertificateError::NotValidForNameContext { .. }), "{host}: {error:?}");
        }
    }

    #[test]
    fn a_client_that_trusts_another_authority_refuses_the_leaf() {
        let ((_, leaf), (other, _)) = (pair(), pair());
        let error = refused(handshake(&leaf, &other.certificate_pem, "team-a", now()).unwrap_err());
        // The other authority has the same name, so its key is tried and doesn't fit.
        assert_eq!(error, CertificateError::BadSignature);
    }

    #[test]
    fn a_leaf_is_accepted_from_five_minutes_before_its_issue_to_the_end_of_its_duration() {
        let (authority, leaf) = pair();
        let connect = |at| handshake(&leaf, &authority.certificate_pem, "team-a", at).map_err(refused);
        let begin = now() - SignedDuration::from_mins(5);

        assert_eq!(connect(begin), Ok(()));
        assert!(matches!(connect(begin - SECOND), Err(CertificateError::NotValidYetContext { .. })));
        assert_eq!(connect(now() + YEAR - SECOND), Ok(()));
        assert!(matches!(connect(now() + YEAR + SECOND), Err(CertificateError::ExpiredContext { .. })));
        assert_eq!(facts(&leaf).life(), YEAR);
    }

    #[test]
    fn a_leaf_never_outlives_its_authority() {
        let (authority, _) = pair();
        let ends = CertificateFacts::of_pem(&authority.certificate_pem).unwrap().not_after;

        let late = issue_leaf(&authority, &leaf_profile(), ends - DAY).unwrap();
        assert_eq!(facts(&late).not_after, ends);

        let error = issue_leaf(&authority, &leaf_profile(), ends).unwrap_err();
        assert_eq!(error.reason(), "CaUnusable");
    }

    #[test]
    fn what_is_issued_reads_as_sound() {
        let (authority, leaf) = pair();
        assert!(matches!(AuthorityReading::of(Some(&authority), &leaf_profile()), AuthorityReading::Usable(_)));
        assert!(matches!(
            LeafReading::of(Some(&leaf), Some(&authority), now()),
            LeafReading::Read { key_fits: true, signed_by_authority: Some(true), .. }
        ));
    }

    #[test]
    fn an_authority_signs_servers_and_no_further_authority() {
        let (authority, leaf) = pair();
        let certificates = pem::certificates(authority.certificate_pem.as_bytes()).unwrap();
        let authority = facts::parse(&certificates[0]).unwrap();
        let constraints = authority.basic_constraints().unwrap().unwrap();
        let usage = authority.key_usage().unwrap().unwrap();

        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(0));
        assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
        assert!(!usage.value.digital_signature());

        let certificates = pem::certificates(leaf.chain_pem.as_bytes()).unwrap();
        assert_eq!(certificates.len(), 1, "the authority is apart");
        let leaf = facts::parse(&certificates[0]).unwrap();
        let usage = leaf.key_usage().unwrap().unwrap();
        let extended = leaf.extended_key_usage().unwrap().unwrap();
        assert!(!leaf.is_ca());
        assert!(usage.value.digital_signature() && !usage.value.key_cert_sign());
        assert!(extended.value.server_auth && !extended.value.client_auth && !extended.value.any);
    }

    #[test]
    fn a_leaf_names_the_key_that_signed_it() {
        use x509_parser::extensions::ParsedExtension as Extension;

        let (authority, leaf) = pair();
        let texts = [authority.certificate_pem, leaf.chain_pem];
        let ders: Vec<_> = texts.iter().map(|text| pem::certificates(text.as_bytes()).unwrap().remove(0)).collect();
        let parsed: Vec<_> = ders.iter().map(|der| facts::parse(der).unwrap()).collect();
        let subject_key = |place: usize| {
            let found = parsed[place].extensions().iter().find_map(|extension| match extension.parsed_extension() {
                Extension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
            found.unwrap()
        };
        let authority_key = |place: usize| {
            let found = parsed[place].extensions().iter().find_map(|extension| match extension.parsed_extension() {
                Extension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref().unwrap().0.to_vec()),
                _ => None,
            });
            found.unwrap()
        };

        assert_eq!(authority_key(1), subject_key(0));
        assert_eq!(authority_key(0), subject_key(0));
        assert_ne!(subject_key(1), subject_key(0));
    }

    #[test]
    fn serial_numbers_are_16_bytes_positive_and_never_the_same() {
        let serials: BTreeSet<Vec<u8>> = (0..1000).map(|_| serial().unwrap().to_bytes()).collect();
        assert_eq!(serials.len(), 1000);
        assert!(serials.iter().all(|bytes| bytes.len() == 16 && (0x40..0x80).contains(&bytes[0])));

        let (_, leaf) = pair();
        assert_eq!(facts(&leaf).serial.len(), 32);
    }

    #[test]
    fn a_profile_that_no_certificate_can_hold_is_refused_in_words() {
        let (authority, _) = pair();
        let none = LeafProfile { dns_names: BTreeSet::new(), ip_addresses: BTreeSet::new(), ..leaf_profile() };
        for (profile, words) in [
            (LeafProfile { common_name: String::new(), ..leaf_profile() }, "1 to 64 characters"),
            (LeafProfile { common_name: "a".repeat(65), ..leaf_profile() }, "1 to 64 characters"),
            (LeafProfile { duration: SignedDuration::ZERO, ..leaf_profile() }, "duration"),
            (LeafProfile { dns_names: names(&["bücher.example"]), ..leaf_profile() }, "\"bücher.example\" is not"),
            (none, "without a DNS name"),
        ] {
            let error = issue_leaf(&authority, &profile, now()).unwrap_err();
            assert_eq!(error.reason(), "CertificateProfileInvalid");
            assert!(error.to_string().contains(words), "{error}");
        }
        let longest = LeafProfile { common_name: "a".repeat(64), ..leaf_profile() };
        issue_leaf(&authority, &longest, now()).unwrap();
    }

    #[test]
    fn a_duration_beyond_the_end_of_time_ends_there() {
        let profile = AuthorityProfile { duration: SignedDuration::MAX, ..authority_profile() };
        let authority = issue_authority(&profile, now()).unwrap();
        let leaf = issue_leaf(&authority, &LeafProfile { duration: SignedDuration::MAX, ..leaf_profile() }, now());
        handshake(&leaf.unwrap(), &authority.certificate_pem, "team-a", now() + YEAR * 1000).unwrap();
    }

    #[test]
    fn an_authority_that_cannot_sign_is_an_error_without_its_key() {
        let (authority, _) = pair();
        let broken = |certificate: &str, key: &str| Authority {
            certificate_pem: certificate.into(),
            key_pem: key.to_string().into(),
        };
        for authority in [
            broken("", authority.key_pem.expose()),
            broken(&authority.certificate_pem, ""),
            broken(&authority.certificate_pem, &pem::section("PRIVATE KEY", b"planted")),
        ] {
            let error = issue_leaf(&authority, &leaf_profile(), now()).unwrap_err();
            assert_eq!(error.reason(), "CaUnusable");
            assert!(!format!("{error} {error:?}").contains("PRIVATE"), "{error:?}");
        }
    }

    /// A second opinion, where there is one.
    #[test]
    fn openssl_verifies_the_chain_and_reads_every_key() {
        let openssl = |arguments: &[&str]| std::process::Command::new("openssl").args(arguments).output();
        if let Err(error) = openssl(&["version"]) {
            println!("skipped: openssl can't be started: {error}");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_string()
        };
        let at = now().as_second().to_string();

        for kind in KINDS {
            let profile = AuthorityProfile { key_algorithm: kind, ..authority_profile() };
            let authority = issue_authority(&profile, now()).unwrap();
            let profile = LeafProfile { key_algorithm: kind, ..leaf_profile() };
            let leaf = issue_leaf(&authority, &profile, now()).unwrap();
            let ca_file = write("ca.crt", &authority.certificate_pem);
            let leaf_file = write("tls.crt", &leaf.chain_pem);
            let key_file = write("tls.key", leaf.key_pem.expose());

            let verify =
                ["verify", "-x509_strict", "-attime", &at, "-purpose", "sslserver", "-verify_ip", "10.96.0.10"];
            let verified = openssl(&[&verify[..], &["-CAfile", &ca_file, &leaf_file]].concat()).unwrap();
            assert!(verified.status.success(), "{kind}: {}", String::from_utf8_lossy(&verified.stderr));

            let key = openssl(&["pkey", "-pubout", "-in", &key_file]).unwrap().stdout;
            let certified = openssl(&["x509", "-pubkey", "-noout", "-in", &leaf_file]).unwrap().stdout;
            assert!(!key.is_empty() && key == certified, "{kind}");
        }
    }
}
