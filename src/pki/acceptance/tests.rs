use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints, SanType,
};

use super::*;
use crate::pki::issue::{issue_authority, issue_leaf};
use crate::pki::reading::{AuthorityReading, LeafReading};
use crate::pki::testing::{
    DAY, Made, addresses, authority_params, authority_profile, date, handshake, leaf_profile, make, names, now, params,
};
use crate::pki::{Authority, AuthorityProfile, Leaf, LeafProfile, facts, pem};

type Change = fn(&mut CertificateParams);

/// A root, an intermediate and a server's certificate, PEM.
struct Chain {
    root: Made,
    intermediate: Made,
    leaf: Made,
}

impl Chain {
    fn of(root: Change, intermediate: Change, leaf: Change) -> Self {
        let changed = |mut params: CertificateParams, change: Change| {
            change(&mut params);
            params
        };
        let root = make(changed(authority_params("Root"), root), None);
        let intermediate = make(changed(authority_params("Intermediate"), intermediate), Some(&root));
        let server = params("registry", &["registry.example.com", "*.apps.example.com", "192.0.2.1"]);
        let leaf = make(changed(server, leaf), Some(&intermediate));
        Self { root, intermediate, leaf }
    }

    fn judge(&self) -> Result<(), Refusal> {
        judge(&[&self.leaf.pem, &self.intermediate.pem], Some(&self.root.pem))
    }

    /// What a client that is built on rustls says.
    fn rustls(&self) -> Result<(), rustls::Error> {
        let chain_pem = format!("{}{}", self.leaf.pem, self.intermediate.pem);
        let leaf = Leaf { chain_pem, key_pem: self.leaf.key_pem.clone().into() };
        handshake(&leaf, &self.root.pem, "registry.example.com", now())
    }
}

fn judge(sent: &[&str], trusted: Option<&str>) -> Result<(), Refusal> {
    let der = |text: &str| pem::certificates(text.as_bytes()).unwrap().remove(0);
    let (sent, trusted): (Vec<_>, _) = (sent.iter().map(|text| der(text)).collect(), trusted.map(der));
    let sent: Vec<_> = sent.iter().map(|der| facts::parse(der).unwrap()).collect();
    let trusted = trusted.as_ref().map(|der| facts::parse(der).unwrap());
    chain(&sent.iter().collect::<Vec<_>>(), trusted.as_ref(), now())
}

const GOOD: Change = |_| {};

fn critical(id: &[u64], content: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(id, content);
    extension.set_criticality(true);
    extension
}

fn permitting(subtrees: Vec<GeneralSubtree>) -> Option<NameConstraints> {
    Some(NameConstraints { permitted_subtrees: subtrees, excluded_subtrees: vec![] })
}

fn excluding(subtrees: Vec<GeneralSubtree>) -> Option<NameConstraints> {
    Some(NameConstraints { permitted_subtrees: vec![], excluded_subtrees: subtrees })
}

fn dns(name: &str) -> GeneralSubtree {
    GeneralSubtree::DnsName(name.to_owned())
}

fn not_permitted(name: &str) -> Flaw {
    Flaw::NameNotPermitted(name.to_owned())
}

/// What makes an authority one whose certificates clients refuse, wherever in the chain it stands.
fn bad_authorities() -> Vec<(&'static str, Change, Flaw)> {
    let whole = |moment: Timestamp| Timestamp::from_second(moment.as_second()).unwrap();
    vec![
        ("expired", |params| params.not_after = date(now()), Flaw::Expired(whole(now()))),
        ("not begun", |params| params.not_before = date(now() + DAY / 2), Flaw::NotYetValid(whole(now() + DAY / 2))),
        ("no basicConstraints", |params| params.is_ca = IsCa::NoCa, Flaw::NotAuthority),
        ("CA:FALSE", |params| params.is_ca = IsCa::ExplicitNoCa, Flaw::NotAuthority),
        ("no keyCertSign", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign], Flaw::NoCertSign),
        (
            "for clients",
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            Flaw::NotForServers,
        ),
        (
            "for anything, which is not for servers",
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any],
            Flaw::NotForServers,
        ),
        (
            "for something unknown",
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![1, 2, 3, 4])],
            Flaw::NotForServers,
        ),
        (
            "an unknown critical extension",
            |params| params.custom_extensions = vec![critical(&[1, 2, 3, 4], vec![5, 0])],
            Flaw::ExtensionUnknown("1.2.3.4".to_owned()),
        ),
        (
            "a critical issuerAltName, which Go does not know",
            |params| params.custom_extensions = vec![critical(&[2, 5, 29, 18], vec![0x30, 0x03, 0x82, 0x01, 0x61])],
            Flaw::ExtensionUnknown("2.5.29.18".to_owned()),
        ),
        (
            "an extension twice",
            |params| {
                let policies = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
                params.custom_extensions = vec![policies.clone(), policies];
            },
            Flaw::ExtensionUnreadable("1.2.3.4".to_owned()),
        ),
        (
            "a broken extension that decides",
            |params| params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 30], vec![5, 0])],
            Flaw::ExtensionUnreadable("2.5.29.30".to_owned()),
        ),
        ("no subject", |params| params.distinguished_name = DistinguishedName::new(), Flaw::NoSubject),
        (
            "another domain",
            |params| params.name_constraints = permitting(vec![dns("example.org")]),
            not_permitted("*.apps.example.com"),
        ),
        (
            "one name of several",
            |params| params.name_constraints = permitting(vec![dns("registry.example.com")]),
            not_permitted("*.apps.example.com"),
        ),
        (
            "an excluded name",
            |params| params.name_constraints = excluding(vec![dns("registry.example.com")]),
            not_permitted("registry.example.com"),
        ),
        (
            "an excluded name below a wildcard",
            |params| params.name_constraints = excluding(vec![dns("one.apps.example.com")]),
            not_permitted("*.apps.example.com"),
        ),
        (
            "every name excluded",
            |params| params.name_constraints = excluding(vec![dns("")]),
            not_permitted("*.apps.example.com"),
        ),
        (
            "another network",
            |params| {
                let network = GeneralSubtree::IpAddress(CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0]));
                params.name_constraints = permitting(vec![network]);
            },
            not_permitted("192.0.2.1"),
        ),
        (
            "an excluded network",
            |params| {
                let network = GeneralSubtree::IpAddress(CidrSubnet::V4([192, 0, 2, 0], [255, 255, 255, 0]));
                params.name_constraints = excluding(vec![network]);
            },
            not_permitted("192.0.2.1"),
        ),
        (
            "a network of the other kind alone",
            |params| {
                params.name_constraints = permitting(vec![GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16]))]);
            },
            not_permitted("192.0.2.1"),
        ),
        (
            "a directory",
            |params| {
                let mut directory = DistinguishedName::new();
                directory.push(DnType::CountryName, "CH");
                params.name_constraints = permitting(vec![GeneralSubtree::DirectoryName(directory)]);
            },
            Flaw::NamesRestricted,
        ),
    ]
}

#[test]
fn an_authority_that_clients_refuse_is_refused_as_root_and_as_intermediate() {
    for (what, change, flaw) in bad_authorities() {
        let nobody = flaw == Flaw::NoSubject;
        for (subject, chain) in
            [("CN=Root", Chain::of(change, GOOD, GOOD)), ("CN=Intermediate", Chain::of(GOOD, change, GOOD))]
        {
            let refusal = chain.judge().expect_err(what);
            assert_eq!(refusal.flaw, flaw, "{what}: {refusal}");
            assert!(nobody && refusal.subject.starts_with("nobody") || refusal.subject == subject, "{what}: {refusal}");
        }
    }
}

#[test]
fn what_clients_accept_is_accepted() {
    let good: &[(&str, Change)] = &[
        ("plain", GOOD),
        ("any use", |params| params.key_usages = vec![]),
        ("for servers too", |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        }),
        ("an unknown extension", |params| {
            params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
        }),
        ("the domain", |params| params.name_constraints = permitting(vec![dns("example.com")])),
        ("the domain in capitals", |params| params.name_constraints = permitting(vec![dns("EXAMPLE.com")])),
        ("what lies in the domain", |params| params.name_constraints = permitting(vec![dns(".example.com")])),
        ("one of several", |params| params.name_constraints = permitting(vec![dns("example.org"), dns("example.com")])),
        ("mail of another domain", |params| {
            params.name_constraints = permitting(vec![GeneralSubtree::Rfc822Name("example.org".to_owned())]);
        }),
        ("the network", |params| {
            let network = GeneralSubtree::IpAddress(CidrSubnet::V4([192, 0, 2, 0], [255, 255, 255, 0]));
            params.name_constraints = permitting(vec![network]);
        }),
        ("another domain excluded", |params| {
            params.name_constraints = excluding(vec![dns("ample.com"), dns("apps.example.org")]);
        }),
        ("a long path", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1))),
    ];
    for (what, change) in good {
        for chain in [Chain::of(*change, GOOD, GOOD), Chain::of(GOOD, *change, GOOD)] {
            chain.judge().unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
            chain.rustls().unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

#[test]
fn no_more_intermediates_are_accepted_than_an_authority_allows() {
    let no_intermediate: Change = |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let refusal = Chain::of(no_intermediate, GOOD, GOOD).judge().unwrap_err();
    assert_eq!((refusal.subject.as_str(), refusal.flaw), ("CN=Root", Flaw::PathTooLong(0)));
    assert_eq!(Chain::of(GOOD, no_intermediate, GOOD).judge(), Ok(()));
}

#[test]
fn a_negative_serial_number_is_refused() {
    let der = pem::certificates(include_bytes!("../testdata/negative-root.crt")).unwrap().remove(0);
    let (dns_names, none) = (names(&["registry.example.com"]), addresses(&[]));
    let refusal = authority(&facts::parse(&der).unwrap(), &Names::new(&dns_names, &none), 0).unwrap_err();
    assert_eq!(refusal.flaw, Flaw::SerialNumber);
}

#[test]
fn a_serving_certificate_must_be_one_for_servers() {
    let bad: &[(&str, Change, Flaw)] = &[
        ("no names", |params| params.subject_alt_names.clear(), Flaw::NoSubjectAltName),
        (
            "for clients",
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            Flaw::NotForServers,
        ),
        (
            "for signing others",
            |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign],
            Flaw::NoDigitalSignature,
        ),
        (
            "an unknown critical extension",
            |params| params.custom_extensions = vec![critical(&[1, 2, 3, 4], vec![5, 0])],
            Flaw::ExtensionUnknown("1.2.3.4".to_owned()),
        ),
    ];
    for (what, change, flaw) in bad {
        let refusal = Chain::of(GOOD, GOOD, *change).judge().expect_err(what);
        assert_eq!((refusal.subject.as_str(), &refusal.flaw), ("CN=registry", flaw), "{what}");
    }
    let fine: Change = |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    assert_eq!(Chain::of(GOOD, GOOD, fine).judge(), Ok(()));
}

#[test]
fn names_that_cannot_be_compared_are_not_accepted_where_their_kind_is_restricted() {
    let with_mail: Change =
        |params| params.subject_alt_names.push(SanType::Rfc822Name("ann@example.com".try_into().unwrap()));
    let restricted: Change = |params| {
        params.name_constraints = permitting(vec![GeneralSubtree::Rfc822Name("example.org".to_owned())]);
    };
    let refusal = Chain::of(restricted, GOOD, with_mail).judge().unwrap_err();
    assert_eq!((refusal.subject.as_str(), refusal.flaw), ("CN=Root", Flaw::NamesRestricted));
    assert_eq!(Chain::of(GOOD, GOOD, with_mail).judge(), Ok(()));
}

/// Certificates that only OpenSSL makes.
#[test]
fn weak_keys_and_signatures_are_refused_unless_clients_trust_the_certificate_itself() {
    let leaf = |text: &str, root: &str| judge(&[text], Some(root)).map_err(|refusal| (refusal.subject, refusal.flaw));
    let rsa = include_str!("../testdata/rsa-root.crt");
    let owned = |subject: &str, flaw| Err((subject.to_owned(), flaw));
    assert_eq!(leaf(include_str!("../testdata/rsa-leaf.crt"), rsa), Ok(()));
    assert_eq!(leaf(include_str!("../testdata/pss-leaf.crt"), rsa), Ok(()));
    let sha1 = include_str!("../testdata/sha1-leaf.crt");
    assert_eq!(leaf(sha1, rsa), owned("CN=registry.example.com", Flaw::SignatureRefused("SHA-1".to_owned())));
    assert_eq!(leaf(sha1, sha1), Ok(()));
    assert_eq!(
        leaf(include_str!("../testdata/rsa1024-leaf.crt"), include_str!("../testdata/rsa1024-root.crt")),
        owned("CN=Short Root", Flaw::KeyRefused(PublicKeyKind::Rsa { bits: 1024 }))
    );
    assert_eq!(leaf(include_str!("../testdata/p521-leaf.crt"), include_str!("../testdata/p521-root.crt")), Ok(()));
    assert_eq!(leaf(include_str!("../testdata/v1-leaf.crt"), include_str!("../testdata/v1-root.crt")), Ok(()));
}

#[test]
fn an_issuer_is_told_by_name_key_and_signature() {
    let der = |text: &str| pem::certificates(text.as_bytes()).unwrap().remove(0);
    let signed = |certificate: &str, issuer: &str| {
        let (certificate, issuer) = (der(certificate), der(issuer));
        signed_by(&facts::parse(&certificate).unwrap(), &facts::parse(&issuer).unwrap())
    };
    let chain = Chain::of(GOOD, GOOD, |params| params.use_authority_key_identifier_extension = true);
    assert_eq!(signed(&chain.leaf.pem, &chain.intermediate.pem), Signature::Good);
    assert_eq!(signed(&chain.leaf.pem, &chain.root.pem), Signature::Bad, "another name");
    let impostor = make(authority_params("Intermediate"), None);
    assert_eq!(signed(&chain.leaf.pem, &impostor.pem), Signature::Bad, "another key");
    // The same name and key, but what OpenSSL compares is another.
    let mut params = authority_params("Intermediate");
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1, 2, 3]);
    let key = rcgen::KeyPair::from_pem(&chain.intermediate.key_pem).unwrap();
    assert_eq!(signed(&chain.leaf.pem, &chain.root.sign(&params, &key)), Signature::Bad, "another key identifier");
    let rsa = include_str!("../testdata/rsa-root.crt");
    assert_eq!(signed(include_str!("../testdata/pss-leaf.crt"), rsa), Signature::Good);
    assert_eq!(signed(include_str!("../testdata/rsa-leaf.crt"), rsa), Signature::Good);
    let unverified = signed(include_str!("../testdata/p521-leaf.crt"), include_str!("../testdata/p521-root.crt"));
    assert_eq!(unverified, Signature::Unknown);
    let short = signed(include_str!("../testdata/rsa1024-leaf.crt"), include_str!("../testdata/rsa1024-root.crt"));
    assert_eq!(short, Signature::Unknown);
}

#[test]
fn what_the_operator_makes_is_accepted_for_as_long_as_it_lasts() {
    use KeyAlgorithm::{EcdsaP256, EcdsaP384, Ed25519};
    for key_algorithm in [EcdsaP256, EcdsaP384, Ed25519] {
        for days in [1, 3650, 36500] {
            let profile = AuthorityProfile { key_algorithm, duration: DAY * days, ..authority_profile() };
            let authority = issue_authority(&profile, now()).unwrap();
            let leaf = issue_leaf(&authority, &LeafProfile { key_algorithm, ..leaf_profile() }, now()).unwrap();
            assert_eq!(judge(&[&leaf.chain_pem], Some(&authority.certificate_pem)), Ok(()));
        }
    }
}

#[test]
fn what_the_operator_issues_with_a_company_ca_is_accepted() {
    let root = make(authority_params("Company Root"), None);
    let intermediate = make(authority_params("Company Servers"), Some(&root));
    let both = format!("{}{}", intermediate.pem, root.pem);
    let rsa = (include_str!("../testdata/rsa-root.crt"), include_str!("../testdata/rsa.key"));
    for (what, certificate_pem, key_pem) in [
        ("RSA", rsa.0, rsa.1),
        ("an intermediate", intermediate.pem.as_str(), intermediate.key_pem.as_str()),
        ("an intermediate with its root", both.as_str(), intermediate.key_pem.as_str()),
    ] {
        let authority = Authority { certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned().into() };
        assert!(
            matches!(AuthorityReading::of(Some(&authority), &leaf_profile()), AuthorityReading::Usable(_)),
            "{what}"
        );
        let profile = LeafProfile { duration: DAY / 2, ..leaf_profile() };
        let leaf = issue_leaf(&authority, &profile, now()).unwrap();
        let reading = LeafReading::of(Some(&leaf), Some(&authority), now());
        assert_eq!(reading.refusal(), None, "{what}");
        handshake(&leaf, certificate_pem, "team-a", now()).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn a_ca_for_the_operator_can_be_repeated_as_an_issuer() {
    let judged = |text: &str| {
        let der = pem::certificates(text.as_bytes()).unwrap().remove(0);
        can_issue(&facts::parse(&der).unwrap()).map_err(|refusal| refusal.flaw)
    };
    assert_eq!(judged(&make(authority_params("Root"), None).pem), Ok(()));
    assert_eq!(judged(include_str!("../testdata/v1-root.crt")), Err(Flaw::NotAuthority));
    assert_eq!(judged(include_str!("../testdata/company-root.crt")), Err(Flaw::SubjectNotRepeatable));
}

#[test]
fn an_authority_is_judged_by_the_names_that_it_shall_sign() {
    let mut params = authority_params("Company");
    params.name_constraints = permitting(vec![dns("example.com")]);
    let company = make(params, None);
    let der = pem::certificates(company.pem.as_bytes()).unwrap().remove(0);
    let judged = |dns_names: &[&str]| {
        let (dns_names, none) = (names(dns_names), addresses(&[]));
        authority(&facts::parse(&der).unwrap(), &Names::new(&dns_names, &none), 0).map_err(|refusal| refusal.flaw)
    };
    assert_eq!(judged(&["registry.example.com"]), Ok(()));
    assert_eq!(judged(&["registry.example.com", "localhost"]), Err(not_permitted("localhost")));
}

#[test]
fn every_refusal_names_the_certificate_and_says_what_to_do() {
    let flaws = bad_authorities().into_iter().map(|(_, _, flaw)| flaw).chain([
        Flaw::NoSubjectAltName,
        Flaw::NoDigitalSignature,
        Flaw::PathTooLong(0),
        Flaw::SubjectNotRepeatable,
        Flaw::KeyRefused(PublicKeyKind::Rsa { bits: 1024 }),
        Flaw::SignatureRefused("SHA-1".to_owned()),
        Flaw::NotSigned("CN=Root".to_owned()),
    ]);
    for flaw in flaws {
        let refusal = Refusal { subject: "CN=x".to_owned(), flaw };
        let text = refusal.to_string();
        assert!(text.contains("CN=x") && text.contains("; "), "{text}");
        assert!(refusal.reason().chars().all(|letter| letter.is_ascii_alphabetic()));
    }
}
