use std::sync::LazyLock;

use rcgen::ExtendedKeyUsagePurpose;

use super::*;
use crate::pki::acceptance::Flaw;
use crate::pki::testing::{DAY, Made, addresses, authority_params, date, handshake, make, names, now, params};

/// A company's authority, its intermediate, and a server's certificate; and an authority that has nothing to do with it.
struct Company {
    root: Made,
    intermediate: Made,
    server: Made,
    stranger: Made,
}

static COMPANY: LazyLock<Company> = LazyLock::new(|| {
    let root = make(authority_params("Company Root"), None);
    let intermediate = make(authority_params("Company Servers"), Some(&root));
    let server =
        make(params("registry", &["registry.example.com", "*.apps.example.com", "192.0.2.1"]), Some(&intermediate));
    Company { root, intermediate, server, stranger: make(authority_params("Stranger"), None) }
});

fn import(chain: &str, key: &str, authorities: Option<&str>) -> Result<Imported, ImportError> {
    import_at(chain, key, authorities, now())
}

fn import_at(chain: &str, key: &str, authorities: Option<&str>, at: Timestamp) -> Result<Imported, ImportError> {
    let (dns_names, ip_addresses) = (names(&["registry.example.com"]), addresses(&["192.0.2.1"]));
    let material = Material {
        chain: Some(chain.as_bytes()),
        key: Some(key.as_bytes()),
        authorities: authorities.map(str::as_bytes),
        passphrase: None,
    };
    check(material, Hosts { dns_names: &dns_names, ip_addresses: &ip_addresses }, None, at)
}

#[test]
fn a_new_version_takes_away_no_name_that_is_served() {
    let Company { root, server, .. } = &*COMPANY;
    let one = make(params("registry", &["registry.example.com"]), Some(root));
    let other = make(params("registry", &["other.example.com"]), Some(root));
    let (dns_names, ip_addresses) = (names(&["registry.example.com"]), addresses(&["192.0.2.1"]));
    let hosts = Hosts { dns_names: &dns_names, ip_addresses: &ip_addresses };
    let facts = |made: &Made| CertificateFacts::of_pem(&made.pem).unwrap();
    let judged = |new: &Made, served: Option<&CertificateFacts>, at: Timestamp| {
        let text = (new.pem.as_bytes(), new.key_pem.as_bytes());
        let material = Material { chain: Some(text.0), key: Some(text.1), authorities: None, passphrase: None };
        check(material, hosts, served, at).map(|imported| imported.uncovered.len())
    };

    assert_eq!(judged(&one, None, now()), Ok(1), "the first version lacks an address, which is only told");
    assert_eq!(judged(&one, Some(&facts(&other)), now()), Ok(1), "it covers more than the one that is served");
    let lost = judged(&one, Some(&facts(server)), now()).unwrap_err();
    assert_eq!((lost.reason(), &lost), ("NamesMissing", &ImportError::NamesMissing("192.0.2.1".to_owned())));
    let mut ended = facts(server);
    ended.not_after = now();
    assert_eq!(judged(&one, Some(&ended), now()), Ok(1), "nobody accepts the one that is served");
}

#[test]
fn an_empty_ca_crt_is_none() {
    let server = &COMPANY.server;
    for empty in ["", "\n", " \r\n"] {
        assert_eq!(import(&server.pem, &server.key_pem, Some(empty)), import(&server.pem, &server.key_pem, None));
    }
}

fn wrong(subject: &str, flaw: Flaw) -> ImportError {
    ImportError::Refused(Refusal { subject: subject.to_owned(), flaw })
}

fn refused(chain: &str, key: &str, authorities: Option<&str>) -> ImportError {
    import(chain, key, authorities).unwrap_err()
}

#[test]
fn a_chain_that_is_accepted_is_accepted_by_clients() {
    let Company { root, intermediate, server, .. } = &*COMPANY;
    let chain = format!("{}{}", server.pem, intermediate.pem);

    let imported = import(&chain, &server.key_pem, Some(&root.pem)).unwrap();
    assert_eq!(imported.leaf.chain_pem.replace('\r', ""), chain.replace('\r', ""));
    assert_eq!(imported.notes, []);
    assert!(imported.uncovered.is_empty());
    assert_eq!(imported.facts.subject, "CN=registry");
    handshake(&imported.leaf, &imported.authorities_pem.unwrap(), "registry.example.com", now()).unwrap();
}

#[test]
fn certificates_in_another_order_are_put_right_and_it_is_said() {
    let Company { root, intermediate, server, stranger } = &*COMPANY;
    let right = import(&format!("{}{}", server.pem, intermediate.pem), &server.key_pem, Some(&root.pem)).unwrap();

    for (chain, notes) in [
        (format!("{}{}", intermediate.pem, server.pem), vec![Note::Reordered]),
        (format!("{}{}{}", server.pem, stranger.pem, intermediate.pem), vec![Note::Reordered, Note::LeftOut(1)]),
        (format!("{}{}{}", server.pem, intermediate.pem, stranger.pem), vec![Note::LeftOut(1)]),
        (format!("{}{}{}", server.pem, intermediate.pem, server.pem), vec![Note::LeftOut(1)]),
    ] {
        let imported = import(&chain, &server.key_pem, Some(&root.pem)).unwrap();
        assert_eq!(imported.notes, notes);
        assert_eq!(imported.leaf, right.leaf);
    }

    let whole = import(&format!("{}{}{}", root.pem, intermediate.pem, server.pem), &server.key_pem, None).unwrap();
    assert_eq!(whole.notes, [Note::Reordered]);
    handshake(&whole.leaf, &whole.authorities_pem.unwrap(), "registry.example.com", now()).unwrap();
}

#[test]
fn what_clients_must_trust_comes_from_ca_crt_or_from_the_chain() {
    let Company { root, intermediate, server, .. } = &*COMPANY;
    let chain = format!("{}{}", server.pem, intermediate.pem);
    let trusted = |chain: &str, authorities: Option<&str>| {
        let imported = import(chain, &server.key_pem, authorities).unwrap();
        (imported.authorities_pem.map(|text| CertificateFacts::of_pem(&text).unwrap().subject), imported.notes)
    };

    assert_eq!(trusted(&chain, Some(&root.pem)), (Some("CN=Company Root".into()), vec![]));
    assert_eq!(trusted(&format!("{chain}{}", root.pem), None), (Some("CN=Company Root".into()), vec![]));
    assert_eq!(trusted(&format!("{chain}{}", root.pem), Some(&root.pem)), (Some("CN=Company Root".into()), vec![]));
    assert_eq!(trusted(&chain, None), (None, vec![Note::IssuerNotIncluded("CN=Company Root".into())]));
    assert_eq!(
        trusted(&format!("{chain}{0}{0}", root.pem), None),
        (Some("CN=Company Root".into()), vec![Note::LeftOut(1)])
    );
    assert_eq!(trusted(&chain, Some(&intermediate.pem)), (Some("CN=Company Servers".into()), vec![]));
    assert_eq!(trusted(&server.pem, Some(&intermediate.pem)), (Some("CN=Company Servers".into()), vec![]));
}

#[test]
fn a_certificate_signed_by_itself_is_its_own_authority() {
    for (certificate, keys) in [
        (
            include_str!("../testdata/p256.crt"),
            vec![include_str!("../testdata/p256.key"), include_str!("../testdata/p256-sec1.key")],
        ),
        (include_str!("../testdata/p384.crt"), vec![include_str!("../testdata/p384.key")]),
        (include_str!("../testdata/ed25519.crt"), vec![include_str!("../testdata/ed25519.key")]),
        (
            include_str!("../testdata/rsa.crt"),
            vec![include_str!("../testdata/rsa.key"), include_str!("../testdata/rsa-pkcs1.key")],
        ),
    ] {
        for key in keys {
            let imported = import(certificate, key, None).unwrap();
            let host = imported.facts.subject.replace("CN=", "");
            assert_eq!(imported.notes, [], "{host}");
            handshake(&imported.leaf, &imported.authorities_pem.unwrap(), &host, now())
                .unwrap_or_else(|error| panic!("{host}: {error}"));
        }
    }
}

#[test]
fn text_around_the_sections_and_windows_line_ends_do_no_harm() {
    let Company { root, intermediate, server, .. } = &*COMPANY;
    let chain = format!("subject=CN = registry\n{}\n\nissuer=\n{}", server.pem, intermediate.pem).replace('\n', "\r\n");
    let key = format!("Bag Attributes\n    friendlyName: registry\n{}", server.key_pem);

    let imported = import(&chain, &key, Some(&root.pem)).unwrap();
    assert!(imported.leaf.chain_pem.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(imported.leaf.key_pem.expose().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(!imported.leaf.chain_pem.contains('\r'));
}

#[test]
fn half_a_secret_is_refused_by_the_name_of_what_is_missing() {
    let Company { server, .. } = &*COMPANY;
    let hosts = (names(&[]), addresses(&[]));
    let check = |chain: Option<&str>, key: Option<&str>| {
        let material = Material {
            chain: chain.map(str::as_bytes),
            key: key.map(str::as_bytes),
            authorities: None,
            passphrase: None,
        };
        check(material, Hosts { dns_names: &hosts.0, ip_addresses: &hosts.1 }, None, now()).unwrap_err()
    };
    assert_eq!(check(None, Some(&server.key_pem)), ImportError::Incomplete("tls.crt"));
    assert_eq!(check(Some(&server.pem), None), ImportError::Incomplete("tls.key"));
}

#[test]
fn what_cannot_be_read_is_refused() {
    let Company { root, server, .. } = &*COMPANY;
    let rubbish = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut = &server.pem[..server.pem.len() / 2];

    for chain in ["", "words", rubbish, cut, &server.key_pem, &format!("{}{rubbish}", server.pem)] {
        assert_eq!(refused(chain, &server.key_pem, None), ImportError::CertificateUnreadable("tls.crt"), "{chain}");
    }
    for authorities in ["words", rubbish] {
        let error = refused(&server.pem, &server.key_pem, Some(authorities));
        assert_eq!(error, ImportError::CertificateUnreadable("ca.crt"));
    }
    let broken_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for key in ["", "words", &root.pem, &server.key_pem[..60], broken_key] {
        assert_eq!(refused(&server.pem, key, None), ImportError::KeyUnreadable, "{key}");
    }
}

#[test]
fn an_encrypted_key_is_named_as_such() {
    let certificate = include_str!("../testdata/rsa.crt");
    for key in [include_str!("../testdata/rsa-encrypted.key"), include_str!("../testdata/rsa-encrypted-pkcs1.key")] {
        let error = refused(certificate, key, None);
        assert_eq!(error, ImportError::KeyEncrypted);
        assert!(error.to_string().contains("passphraseSecretRef"), "{error}");
    }
}

#[test]
fn a_kind_of_key_that_cannot_be_used_is_named() {
    let p521 = refused(include_str!("../testdata/p521.crt"), include_str!("../testdata/p521.key"), None);
    assert_eq!(p521, ImportError::KeyUnsupported(PublicKeyKind::Other("1.3.132.0.35".into())));

    let short = refused(include_str!("../testdata/rsa1024.crt"), include_str!("../testdata/rsa1024.key"), None);
    assert_eq!(short, ImportError::KeyUnsupported(PublicKeyKind::Rsa { bits: 1024 }));
    assert!(short.to_string().contains("(RSA 1024)"), "{short}");
}

#[test]
fn another_certificates_key_is_refused() {
    let Company { server, stranger, .. } = &*COMPANY;
    let error = refused(&server.pem, &stranger.key_pem, None);
    assert_eq!(error, ImportError::KeyMismatch("CN=registry".into()));

    let error = refused(include_str!("../testdata/rsa.crt"), include_str!("../testdata/p256.key"), None);
    assert_eq!(error, ImportError::KeyMismatch("CN=rsa.example.com".into()));
}

#[test]
fn a_chain_with_a_gap_is_refused() {
    let Company { root, server, stranger, intermediate } = &*COMPANY;
    let error = refused(&server.pem, &server.key_pem, Some(&root.pem));
    assert_eq!(error, ImportError::ChainBroken("CN=Company Servers".into()));

    let whole = format!("{}{}", server.pem, intermediate.pem);
    let error = refused(&whole, &server.key_pem, Some(&stranger.pem));
    assert_eq!(error, ImportError::ChainBroken("CN=Company Root".into()));
}

#[test]
fn an_issuer_of_the_same_name_with_another_key_is_no_issuer() {
    let Company { root, server, .. } = &*COMPANY;
    let impostor = make(authority_params("Company Servers"), Some(root));

    let error = refused(&format!("{}{}", server.pem, impostor.pem), &server.key_pem, Some(&root.pem));
    assert_eq!(error, ImportError::ChainBroken("CN=Company Servers".into()));
}

#[test]
fn a_certificate_is_accepted_from_its_first_second_to_its_last() {
    let Company { root, .. } = &*COMPANY;
    let second = jiff::SignedDuration::from_secs(1);
    let begin = Timestamp::from_second(now().as_second()).unwrap();
    let end = begin + DAY / 2;
    let mut params = params("registry", &["a"]);
    (params.not_before, params.not_after) = (date(begin), date(end));
    let server = make(params, Some(root));
    let at = |moment| import_at(&server.pem, &server.key_pem, Some(&root.pem), moment).map(|_| ());
    let subject = || "CN=registry".to_string();

    assert_eq!(at(begin - second), Err(wrong(&subject(), Flaw::NotYetValid(begin))));
    assert_eq!(at(begin), Ok(()));
    assert_eq!(at(end - second), Ok(()));
    assert_eq!(at(end), Err(wrong(&subject(), Flaw::Expired(end))));
}

#[test]
fn an_intermediate_that_has_expired_is_named() {
    let Company { root, .. } = &*COMPANY;
    let mut old = authority_params("Company Old");
    old.not_after = date(now());
    let intermediate = make(old, Some(root));
    let server = make(params("registry", &["a"]), Some(&intermediate));

    let error = refused(&format!("{}{}", server.pem, intermediate.pem), &server.key_pem, Some(&root.pem));
    assert_eq!((error.reason(), error.to_string().contains("CN=Company Old")), ("CertificateExpired", true), "{error}");
}

#[test]
fn what_clients_would_refuse_of_ca_crt_is_refused() {
    let authority = |change: fn(&mut rcgen::CertificateParams)| {
        let mut params = authority_params("Company Root");
        change(&mut params);
        let root = make(params, None);
        let server = make(params_of_server(), Some(&root));
        import(&server.pem, &server.key_pem, Some(&root.pem)).map(|_| ()).map_err(|error| error.reason())
    };
    assert_eq!(authority(|_| {}), Ok(()));
    assert_eq!(authority(|params| params.not_after = date(now())), Err("CertificateExpired"));
    assert_eq!(authority(|params| params.not_before = date(now() + DAY / 2)), Err("CertificateNotYetValid"));
    assert_eq!(
        authority(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        Err("NotForServers")
    );
    assert_eq!(authority(|params| params.is_ca = rcgen::IsCa::ExplicitNoCa), Err("IssuerNotAuthority"));
    assert_eq!(
        authority(|params| {
            let permitted = rcgen::GeneralSubtree::DnsName("example.org".to_owned());
            params.name_constraints =
                Some(rcgen::NameConstraints { permitted_subtrees: vec![permitted], excluded_subtrees: vec![] });
        }),
        Err("NamesNotPermitted")
    );
}

fn params_of_server() -> rcgen::CertificateParams {
    params("registry", &["registry.example.com", "192.0.2.1"])
}

#[test]
fn an_intermediate_that_is_no_authority_is_refused_by_its_name() {
    let Company { root, .. } = &*COMPANY;
    let intermediate = make(params("Company Pretender", &["pretender.example.com"]), Some(root));
    let server = make(params_of_server(), Some(&intermediate));
    let error = refused(&format!("{}{}", server.pem, intermediate.pem), &server.key_pem, Some(&root.pem));
    assert_eq!(error, wrong("CN=Company Pretender", Flaw::NotAuthority));
}

#[test]
fn what_has_expired_in_ca_crt_does_no_harm_and_is_not_published() {
    let Company { root, intermediate, server, stranger } = &*COMPANY;
    let chain = format!("{}{}", server.pem, intermediate.pem);
    let mut old = authority_params("Company Root of Old");
    old.not_after = date(now());
    let old = make(old, None);

    let imported = import(&chain, &server.key_pem, Some(&format!("{}{}{}", old.pem, root.pem, stranger.pem))).unwrap();
    let published = imported.authorities_pem.unwrap();
    let subjects: Vec<_> = Bundle::read(&published).facts().into_iter().map(|facts| facts.subject).collect();
    assert_eq!(subjects, ["CN=Company Root", "CN=Stranger"]);
    handshake(&imported.leaf, &published, "registry.example.com", now()).unwrap();
}

#[test]
fn the_next_look_is_when_the_first_of_all_ends() {
    let Company { server, intermediate, root, .. } = &*COMPANY;
    let chain = format!("{}{}", server.pem, intermediate.pem);
    let mut short = authority_params("Short");
    short.not_after = date(now() + DAY / 4);
    let short_ends = CertificateFacts::of_pem(&make(short.clone(), None).pem).unwrap().not_after;
    let ends = |authorities: &str| import(&chain, &server.key_pem, Some(authorities)).unwrap().ends;
    assert_eq!(ends(&root.pem), CertificateFacts::of_pem(&server.pem).unwrap().not_after);
    assert_eq!(ends(&format!("{}{}", root.pem, make(short, None).pem)), short_ends, "it must leave the bundle then");
}

#[test]
fn of_several_ways_to_a_root_one_that_clients_accept_is_taken() {
    let Company { root, server, intermediate, .. } = &*COMPANY;
    // The same intermediate, signed once more: its first certificate has expired.
    let again = |days: i32| {
        let mut params = authority_params("Company Servers");
        params.not_after = date(now() + DAY * days);
        let key = rcgen::KeyPair::from_pem(&intermediate.key_pem).unwrap();
        root.sign(&params, &key)
    };
    let (old, new) = (again(0), again(1));
    for chain in [format!("{}{old}{new}", server.pem), format!("{}{new}{old}", server.pem)] {
        let imported = import(&chain, &server.key_pem, Some(&root.pem)).unwrap();
        assert!(imported.leaf.chain_pem.replace('\r', "").ends_with(&new.replace('\r', "")));
    }

    // Clients trust the intermediate itself, and the root that comes along has expired.
    let mut params = authority_params("Ended Root");
    params.not_after = date(now());
    let ended = make(params, None);
    let crossed = make(authority_params("Crossed"), Some(&ended));
    let server = make(params_of_server(), Some(&crossed));
    let imported =
        import(&format!("{}{}{}", server.pem, crossed.pem, ended.pem), &server.key_pem, Some(&crossed.pem)).unwrap();
    assert_eq!(imported.notes, [Note::LeftOut(1)]);
    handshake(&imported.leaf, &imported.authorities_pem.unwrap(), "registry.example.com", now()).unwrap();
}

#[test]
fn a_certificate_without_names_is_refused() {
    let Company { root, .. } = &*COMPANY;
    let server = make(params("registry.example.com", &[]), Some(root));
    let error = refused(&server.pem, &server.key_pem, Some(&root.pem));
    assert_eq!(error, wrong("CN=registry.example.com", Flaw::NoSubjectAltName));
}

#[test]
fn a_certificate_for_clients_only_is_refused() {
    let Company { root, .. } = &*COMPANY;
    for (usages, accepted) in [
        (vec![ExtendedKeyUsagePurpose::ClientAuth], false),
        (vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth], true),
        (vec![ExtendedKeyUsagePurpose::Any], false),
        (vec![], true),
    ] {
        let mut params = params("registry", &["registry.example.com"]);
        params.extended_key_usages = usages.clone();
        let server = make(params, Some(root));
        let result = import(&server.pem, &server.key_pem, Some(&root.pem));
        assert_eq!(result.is_ok(), accepted, "{usages:?}");
    }
}

#[test]
fn an_authority_that_serves_itself_is_accepted_with_a_word() {
    let mut params = authority_params("registry");
    params.key_usages.push(rcgen::KeyUsagePurpose::DigitalSignature);
    params.subject_alt_names = vec![rcgen::SanType::DnsName("registry.example.com".try_into().unwrap())];
    let own = make(params, None);
    let imported = import(&own.pem, &own.key_pem, None).unwrap();
    assert_eq!(imported.notes, [Note::LeafIsAuthority]);
}

#[test]
fn hosts_that_the_certificate_does_not_cover_are_listed() {
    let Company { root, intermediate, server, .. } = &*COMPANY;
    let chain = format!("{}{}", server.pem, intermediate.pem);
    let material = Material {
        chain: Some(chain.as_bytes()),
        key: Some(server.key_pem.as_bytes()),
        authorities: Some(root.pem.as_bytes()),
        passphrase: None,
    };
    let dns_names = names(&[
        "registry.example.com",
        "one.apps.example.com",
        "two.one.apps.example.com",
        "apps.example.com",
        "team-a",
        "localhost",
    ]);
    let ip_addresses = addresses(&["192.0.2.1", "192.0.2.2", "fd00::1"]);

    let hosts = Hosts { dns_names: &dns_names, ip_addresses: &ip_addresses };
    let imported = check(material, hosts, None, now()).unwrap();
    let expected =
        names(&["two.one.apps.example.com", "apps.example.com", "team-a", "localhost", "192.0.2.2", "fd00::1"]);
    assert_eq!(imported.uncovered, expected);
}

#[test]
fn every_refusal_has_its_own_word_and_says_what_to_do() {
    let subject = || "CN=x".to_string();
    let errors = [
        ImportError::Incomplete("tls.key"),
        ImportError::CertificateUnreadable("tls.crt"),
        ImportError::KeyUnreadable,
        ImportError::KeyEncrypted,
        ImportError::KeyUnsupported(PublicKeyKind::Rsa { bits: 1024 }),
        ImportError::KeyMismatch(subject()),
        ImportError::ChainBroken(subject()),
        ImportError::NamesMissing(subject()),
        wrong("CN=x", Flaw::Expired(now())),
    ];
    let words: BTreeSet<_> = errors.iter().map(ImportError::reason).collect();
    assert_eq!(words.len(), errors.len());
    for error in &errors {
        assert!(error.reason().chars().all(|letter| letter.is_ascii_alphabetic()));
        assert!(error.to_string().contains("; "), "no next action: {error}");
    }
}

#[test]
fn no_result_shows_the_key() {
    let Company { server, stranger, .. } = &*COMPANY;
    let body = server.key_pem.lines().nth(1).unwrap();
    let results = [
        format!("{:?}", import(&server.pem, &server.key_pem, None)),
        format!("{:?}", import(&stranger.pem, &server.key_pem, None)),
        format!("{:?}", import(&server.pem, &server.key_pem.replace("END PRIVATE", "END PUBLIC"), None)),
    ];
    assert!(
        results[0].contains("redacted") && results[1].contains("KeyMismatch") && results[2].contains("KeyUnreadable")
    );
    assert!(results.iter().all(|text| !text.contains(body)), "{results:?}");
}
