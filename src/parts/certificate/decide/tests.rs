use std::collections::BTreeMap;

use serde_json::json;

use super::private_ca::request_note;
use super::*;
use crate::desired::kinds;
use crate::model::Child;
use crate::parts::testing::{resolved, stored_secret};

fn asking(annotation: &str) -> Resolved {
    resolved(&json!({}), &json!({api::annotation::RENEW: annotation}))
}

/// The two Secrets of a certificate.
#[derive(Default, Clone)]
struct Shelf {
    leaf: Option<Live>,
    authority: Option<Live>,
}

impl Shelf {
    fn settle(&self, registry: &Resolved) -> Settled {
        self.settle_at(registry, Timestamp::now(), Serves::Unknown)
    }

    fn settle_at(&self, registry: &Resolved, now: Timestamp, serves: Serves) -> Settled {
        let authority = self.authority.clone().map_or(Authority::Absent, Authority::Stored);
        let stored = Stored {
            leaf: self.leaf.as_ref(),
            published: None,
            authority,
            request: None,
            answer: Answer::Nothing,
            asks_at: None,
        };
        let moment = Moment { now, rollout: Rollout { is_pending: false, serves }, handled: None };
        settle(registry, &stored, &Observed::default(), Some(&json!({})), &moment).unwrap()
    }

    /// What lies there after the pass, beside what status says was served and why a certificate was issued.
    fn pass(&self, registry: &Resolved) -> (Self, Option<String>, Option<Renew>) {
        let settled = self.settle(registry);
        let (told, issued) = (settled.report.handled_request.clone(), settled.issued);
        (Self::written(registry, settled), told, issued)
    }

    /// The same at a moment, when all pods serve what lies there; and what the status says of the authorities, beside the condition.
    fn pass_at(&self, registry: &Resolved, now: Timestamp) -> (Self, Vec<AuthorityStage>, Option<String>) {
        let serves = self.leaf.as_ref().and_then(leaf_of).map_or(Serves::Nothing, |leaf| Serves::Only(checksum(&leaf)));
        let settled = self.settle_at(registry, now, serves);
        let stages = settled.report.served.iter().flat_map(|served| &served.authorities).map(|one| one.stage).collect();
        let note = settled.report.note.clone();
        (Self::written(registry, settled), stages, note)
    }

    fn written(registry: &Resolved, settled: Settled) -> Self {
        let material = desired::Material {
            certificate: settled.serving,
            authority: settled.authority,
            request: settled.request,
            bundle: settled.bundle,
            tokens: None,
            table: None,
            admin: None,
            logins: BTreeMap::new(),
            pull: None,
            http_secret: String::new().into(),
        };
        let plan = desired::plan(registry, &material, &desired::Run::default());
        let live = |child| stored_secret(registry, &plan, child);
        Self { leaf: live(Child::Tls), authority: live(Child::Ca) }
    }

    /// Fingerprints of the authority that signs, and of its successor.
    fn authorities(&self) -> (String, Option<String>) {
        let fingerprint =
            |key: &str| Some(CertificateFacts::of_pem(&text(self.authority.as_ref()?, key)?).unwrap().fingerprint);
        (fingerprint("tls.crt").unwrap(), fingerprint("next.crt"))
    }

    fn chain(&self) -> String {
        text(self.leaf.as_ref().unwrap(), "tls.crt").unwrap()
    }
}

#[test]
fn a_wish_counts_as_served_only_when_a_certificate_was_issued_for_it() {
    let silent = resolved(&json!({}), &json!({}));
    let (shelf, told, issued) = Shelf::default().pass(&silent);
    assert_eq!((told, issued), (None, Some(Renew::Missing)));

    let asking = asking("leaf-1");
    let lost = Shelf { authority: None, ..shelf.clone() };
    let (kept, told, issued) = lost.pass(&asking);
    assert_eq!((told, issued), (None, None), "nothing can sign");

    let restored = Shelf { leaf: kept.leaf, ..shelf };
    let (renewed, told, issued) = restored.pass(&asking);
    assert_eq!((told.as_deref(), issued), (Some("leaf-1"), Some(Renew::Requested)));
    let (same, told, issued) = renewed.pass(&asking);
    assert_eq!((told.as_deref(), issued), (Some("leaf-1"), None));

    let (forgotten, told, issued) = same.pass(&silent);
    assert_eq!((told, issued), (None, None));
    assert_eq!(forgotten.pass(&asking).2, Some(Renew::Requested));
}

/// `NAME-ca` with this content.
fn handed(shelf: &Shelf, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Shelf {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Company");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    change(&mut params);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let mut object = shelf.authority.as_ref().unwrap().value().clone();
    let encode = |text: String| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    object["data"] = json!({"tls.crt": encode(certificate), "tls.key": encode(key.serialize_pem())});
    Shelf { authority: Some(Live::new(kinds::SECRET, object)), ..shelf.clone() }
}

#[test]
fn a_ca_whose_certificates_clients_refuse_replaces_nothing_and_is_told_with_its_reason() {
    let registry = resolved(&json!({}), &json!({}));
    let (shelf, ..) = Shelf::default().pass(&registry);
    let served = |settled: &Settled| settled.serving.as_ref().unwrap().chain.clone();
    let good = shelf.settle(&registry);

    let excluding = |name: &str| {
        let excluded_subtrees = vec![rcgen::GeneralSubtree::DnsName(name.to_owned())];
        Some(rcgen::NameConstraints { permitted_subtrees: vec![], excluded_subtrees })
    };
    for (bad, words) in [
        (
            handed(&shelf, |params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth]),
            "CN=Company is not meant for servers",
        ),
        (handed(&shelf, |params| params.name_constraints = excluding("localhost")), "does not permit localhost"),
        (handed(&shelf, |params| params.is_ca = rcgen::IsCa::ExplicitNoCa), "is not one of a CA"),
        (handed(&shelf, |params| params.not_before = rcgen::date_time_ymd(3000, 1, 1)), "valid only from 3000-01-01"),
    ] {
        let settled = bad.settle(&registry);
        assert_eq!(served(&settled), served(&good), "{words}");
        assert_eq!((&settled.bundle, settled.issued), (&good.bundle, None), "{words}");
        assert!(settled.authority.is_none(), "nothing is written over it: {words}");
        let problem = settled.report.problem.unwrap();
        assert_eq!(problem.reason, "CaUnusable", "{words}");
        assert!(problem.message.contains(words) && problem.message.contains("renew=ca"), "{}", problem.message);

        let first = Shelf { leaf: None, ..bad }.settle(&registry);
        assert!(first.serving.is_none() && first.authority.is_none(), "{words}");
        let problem = first.report.problem.unwrap();
        assert!(
            problem.message.contains(words) && problem.message.contains("delete the Secret"),
            "{}",
            problem.message
        );
    }

    // Without a certificate of its own it is not replaced at its end either.
    let ended = handed(&shelf, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let settled = Shelf { leaf: None, ..ended }.settle(&registry);
    assert!(settled.authority.is_none() && settled.serving.is_none());
    let problem = settled.report.problem.unwrap();
    assert!(problem.reason == "CaUnusable" && problem.message.contains("expired at 2020"), "{}", problem.message);

    let company = handed(&shelf, |_| {});
    let settled = company.settle(&registry);
    assert_eq!((settled.issued, &settled.report.problem), (None, &None), "clients have to learn of it first");
    let asked = company.settle(&asking("leaf"));
    assert_eq!((asked.issued, asked.report.problem), (Some(Renew::CaChanged), None));
}

#[test]
fn a_name_that_the_ca_does_not_permit_is_told_before_a_certificate_with_it_is_issued() {
    let registry = |address: &str| resolved(&json!({"addresses": [address]}), &json!({}));
    let (shelf, ..) = Shelf::default().pass(&registry("registry.example.com"));
    let company = handed(&shelf, |params| {
        let excluded_subtrees = vec![rcgen::GeneralSubtree::DnsName("example.org".to_owned())];
        params.name_constraints = Some(rcgen::NameConstraints { permitted_subtrees: vec![], excluded_subtrees });
    });
    let company = Shelf { leaf: None, ..company };
    let (shelf, _, issued) = company.pass(&registry("registry.example.com"));
    assert_eq!(issued, Some(Renew::Missing));
    let settled = shelf.settle(&registry("registry.example.org"));
    let problem = settled.report.problem.unwrap();
    assert!(problem.message.contains("does not permit registry.example.org"), "{}", problem.message);
    assert_eq!(settled.issued, None);
}

/// A user's Secret `own` with a certificate for the host, and the root that signed it, which lives for so many days.
fn own(host: &str, root_days: i64) -> Observed {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let end = Timestamp::now() + SignedDuration::from_hours(24 * root_days);
    params.not_after = time::OffsetDateTime::from_unix_timestamp(end.as_second()).unwrap();
    let root = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &root).unwrap();
    let data = [("tls.crt", leaf.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", root.pem())];
    let content = crate::model::SecretContent {
        uid: "1".to_owned(),
        kind: "kubernetes.io/tls".to_owned(),
        resource_version: "1".to_owned(),
        data: data.into_iter().map(|(key, text)| (key.to_owned(), text.into_bytes().into())).collect(),
    };
    Observed { secrets: [("own".to_owned(), Some(content))].into(), ..Observed::default() }
}

#[test]
fn a_users_certificate_that_clients_refuse_replaces_nothing_and_one_that_they_refuse_holds_nothing_back() {
    let registry = resolved(&json!({"addresses": ["a.example.com"], "tls": {"secret": {"name": "own"}}}), &json!({}));
    let settle = |leaf: Option<&Live>, observed: &Observed| {
        let moment = Moment { now: Timestamp::now(), rollout: Rollout::default(), handled: None };
        settle(
            &registry,
            &Stored {
                leaf,
                published: None,
                authority: Authority::Absent,
                request: None,
                answer: Answer::Nothing,
                asks_at: None,
            },
            observed,
            None,
            &moment,
        )
        .unwrap()
    };
    let stored = |serving: &desired::ServingCertificate| {
        let encode = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
        let data = json!({
            "tls.crt": encode(&serving.chain), "tls.key": encode(serving.key.expose()),
            "ca.crt": encode(serving.ca.as_ref().unwrap()),
        });
        Live::new(kinds::SECRET, json!({"metadata": {"name": "team-a-tls"}, "data": data}))
    };

    let good = settle(None, &own("a.example.com", 10)).serving.unwrap();
    let kept = stored(&good);
    let refused = settle(Some(&kept), &own("a.example.com", -1));
    assert_eq!(refused.serving.unwrap().chain, good.chain);
    assert_eq!(refused.bundle, good.ca);
    let problem = refused.report.problem.unwrap();
    assert_eq!(problem.reason, "CertificateExpired");
    assert!(problem.message.ends_with("; the last good one is still served"), "{}", problem.message);

    let fewer_names = own("b.example.com", 10);
    assert_eq!(settle(Some(&kept), &fewer_names).report.problem.unwrap().reason, "NamesMissing");
    // The same, beside a copy whose root is no longer one that signed it.
    let stranger = own("a.example.com", 10).secrets["own"].as_ref().unwrap().data["ca.crt"].expose().clone();
    let broken =
        stored(&desired::ServingCertificate { ca: Some(String::from_utf8(stranger).unwrap()), ..good.clone() });
    assert!(settle(Some(&broken), &fewer_names).report.problem.is_none());
    let problem = settle(Some(&broken), &own("a.example.com", -1)).report.problem.unwrap();
    assert!(!problem.message.contains("still served"), "{}", problem.message);
}

#[test]
fn nobody_serves_a_wish_for_a_certificate_that_is_the_users_own() {
    let (shelf, ..) = Shelf::default().pass(&resolved(&json!({}), &json!({})));
    let own = resolved(&json!({"tls": {"secret": {"name": "own"}}}), &json!({api::annotation::RENEW: "leaf"}));
    let (_, told, _) = shelf.pass(&own);
    assert_eq!(told, None);
}

#[test]
fn what_a_manifest_says_of_a_ca_that_is_kept_is_told_to_count_for_the_next_one() {
    let (shelf, ..) = Shelf::default().pass(&resolved(&json!({}), &json!({})));
    let note = |tls: Value| {
        let registry = resolved(&json!({"tls": tls}), &json!({}));
        shelf.settle(&registry).report.note
    };
    assert_eq!(note(json!({})), None);
    assert_eq!(note(json!({"privateCA": {"duration": "87600h"}, "certificate": {"keyAlgorithm": "ECDSAP256"}})), None);
    let told = note(json!({"privateCA": {"duration": "87000h"}})).unwrap();
    assert!(
        told.contains("spec.tls.privateCA.duration counts for the next one") && told.contains("renew=ca"),
        "{told}"
    );
    let told = note(json!({"certificate": {"keyAlgorithm": "ECDSAP384"}})).unwrap();
    assert!(told.contains("spec.tls.certificate.keyAlgorithm"), "{told}");
}

#[test]
fn a_request_that_asks_for_nothing_is_told() {
    for known in ["leaf", "leaf-2026-11", "ca", "ca-now-1"] {
        assert_eq!(request_note(&asking(known)), None, "{known}");
    }
    let note = request_note(&asking("please")).unwrap();
    assert!(note.contains("privateregistry.dev/renew=please") && note.contains("leaf, ca or ca-now"), "{note}");
}

const DAY: SignedDuration = SignedDuration::from_hours(24);
const SECOND: SignedDuration = SignedDuration::from_secs(1);

#[test]
fn an_authority_takes_over_in_stages_that_the_status_tells() {
    use AuthorityStage::{Active, Former, Next};
    let (silent, asking) = (resolved(&json!({}), &json!({})), asking("ca-1"));
    let begin = Timestamp::now();
    let (first, stages, note) = Shelf::default().pass_at(&silent, begin);
    assert_eq!((stages, note), (vec![Active], None));

    let (prepared, stages, note) = first.pass_at(&asking, begin);
    let (present, next) = prepared.authorities();
    assert_eq!((stages, prepared.chain()), (vec![Next, Active], first.chain()));
    assert!(note.as_ref().is_some_and(|note| note.contains("team-a-ca-bundle and signs from")), "{note:?}");
    let (waiting, stages, _) = prepared.pass_at(&asking, begin + DAY - SECOND);
    assert_eq!((stages, waiting.authorities()), (vec![Next, Active], (present.clone(), next.clone())));

    let (promoted, stages, note) = waiting.pass_at(&asking, begin + DAY);
    assert_eq!((stages, promoted.authorities()), (vec![Active, Former], (next.clone().unwrap(), None)));
    assert_ne!(promoted.chain(), first.chain());
    assert!(
        note.as_ref().is_some_and(|note| note.contains("the former CA stays in ConfigMap team-a-ca-bundle until")),
        "{note:?}"
    );
    let (before, stages, _) = promoted.pass_at(&asking, begin + DAY * 2 - SECOND);
    assert_eq!(stages, [Active, Former]);
    let settled = before.settle_at(&asking, begin + DAY * 3, Serves::Unknown);
    assert!(settled.report.note.unwrap().contains("until no pod serves its certificate"));

    let (retired, stages, note) = before.pass_at(&asking, begin + DAY * 2);
    assert_eq!((stages, note), (vec![Active], None));
    assert_eq!((retired.authorities(), retired.chain()), ((next.unwrap(), None), promoted.chain()));
    assert_eq!(retired.leaf.as_ref().unwrap().annotation(labels::AUTHORITIES_SINCE), None);
    let (same, ..) = retired.pass_at(&asking, begin + DAY * 3);
    assert_eq!(same.authorities(), retired.authorities(), "a wish is fulfilled once");
}

#[test]
fn behind_a_front_end_a_former_authority_stays_until_kubelets_have_brought_what_the_new_one_signed() {
    use AuthorityStage::{Active, Former};
    let spec = json!({"frontend": {"nginx": {}}, "tls": {"privateCA": {"rotation": {"gracePeriod": "0s"}}}});
    let asking = resolved(&spec, &json!({api::annotation::RENEW: "ca-1"}));
    let begin = Timestamp::now();
    let (mut shelf, mut stages, _) = Shelf::default().pass_at(&resolved(&spec, &json!({})), begin);
    for _ in 0..3 {
        if stages != [Active, Former] {
            (shelf, stages, _) = shelf.pass_at(&asking, begin);
        }
    }
    assert_eq!(stages, [Active, Former]);

    let later = |seconds| shelf.settle_at(&asking, begin + SECOND * seconds, Serves::Brought);
    let stages = |settled: &Settled| -> Vec<_> {
        settled.report.served.iter().flat_map(|served| &served.authorities).map(|one| one.stage).collect()
    };
    let early = later(149);
    assert_eq!(stages(&early), [Active, Former]);
    let again = early.look_again.unwrap();
    assert!(again > begin + SECOND * 149 && again <= begin + SECOND * 150, "{again}");
    assert_eq!(stages(&later(150)), [Active]);
}

/// The Secrets are written one after the other: whatever is stored when the operator dies, the next one goes on from there.
#[test]
fn a_change_of_authority_goes_on_wherever_it_was_interrupted() {
    let (silent, asking) = (resolved(&json!({}), &json!({})), asking("ca-1"));
    let begin = Timestamp::now();
    let steps =
        [(silent, begin), (asking.clone(), begin), (asking.clone(), begin + DAY), (asking.clone(), begin + DAY * 2)];
    let mut shelf = Shelf::default();
    for (number, (registry, now)) in steps.into_iter().enumerate() {
        let (done, ..) = shelf.pass_at(&registry, now);
        let killed = Shelf { leaf: shelf.leaf.clone(), authority: done.authority.clone() };
        let (resumed, ..) = killed.pass_at(&registry, now);
        if number > 0 {
            assert_eq!(resumed.authorities(), done.authorities(), "step {number}: no further authority is made");
            let published = |shelf: &Shelf| text(shelf.leaf.as_ref().unwrap(), "ca.crt");
            assert_eq!(published(&resumed), published(&done), "step {number}");
        }
        let facts = |shelf: &Shelf| CertificateFacts::of_pem(&shelf.chain()).unwrap().issuer;
        assert_eq!(facts(&resumed), facts(&done));
        shelf = done;
    }
    assert_eq!(shelf.authorities().1, None);
}

#[test]
fn whoever_puts_a_ca_of_his_own_in_the_place_of_the_present_one_does_not_get_the_successor_of_that() {
    let (silent, asking) = (resolved(&json!({}), &json!({})), asking("ca-1"));
    let begin = Timestamp::now();
    let (first, ..) = Shelf::default().pass_at(&silent, begin);
    let (prepared, ..) = first.pass_at(&asking, begin);
    let mut object = prepared.authority.as_ref().unwrap().value().clone();
    let company = handed(&prepared, |_| {}).authority.unwrap().value()["data"].clone();
    for key in ["tls.crt", "tls.key"] {
        object["data"][key] = company[key].clone();
    }
    let swapped = Shelf { authority: Some(Live::new(kinds::SECRET, object)), ..prepared };

    let (kept, stages, _) = swapped.pass_at(&asking, begin + DAY);
    let (present, next) = kept.authorities();
    assert_eq!((next, kept.chain()), (None, first.chain()));
    assert_eq!(stages, [AuthorityStage::Next, AuthorityStage::Active]);
    let (signed, ..) = kept.pass_at(&asking, begin + DAY * 2);
    assert_eq!(signed.authorities(), (present, None));
    assert_ne!(signed.chain(), first.chain());
}

#[test]
fn a_ca_in_wrong_hands_is_trusted_no_longer_in_the_same_pass() {
    let begin = Timestamp::now();
    let (first, ..) = Shelf::default().pass_at(&resolved(&json!({}), &json!({})), begin);
    let (replaced, stages, note) = first.pass_at(&asking("ca-now-1"), begin);
    assert_eq!(stages, [AuthorityStage::Active]);
    assert_ne!(replaced.authorities().0, first.authorities().0);
    assert_ne!(replaced.chain(), first.chain());
    assert!(note.is_some_and(|note| note.contains("trusted no longer, as was asked")));
    let (same, ..) = replaced.pass_at(&asking("ca-now-1"), begin);
    assert_eq!(same.authorities(), replaced.authorities(), "a wish is fulfilled once");
}

#[test]
fn an_encrypted_key_is_opened_with_the_passphrase_that_is_named_and_what_is_missing_of_that_is_told() {
    let key = include_str!("../../../pki/testdata/encrypted/rsa-des3.key");
    let mut observed = own("a.example.com", 10);
    let mut set = |secret: &str, key: &str, text: &str| {
        let content =
            observed.secrets.entry(secret.to_owned()).or_insert_with(|| own("x", 1).secrets.remove("own").unwrap());
        content.as_mut().unwrap().data.insert(key.to_owned(), text.as_bytes().to_vec().into());
        observed.clone()
    };
    let chain = include_str!("../../../pki/testdata/rsa.crt");
    set("own", "tls.crt", chain);
    set("own", "ca.crt", chain);
    let without = set("own", "tls.key", key);
    let (wrong, right) = (set("phrase", "password", "another"), set("phrase", "password", "passphrase\r\n"));
    let other_key = set("phrase", "password", "passphrase");

    let settle = |tls: Value, observed: &Observed| {
        let registry = resolved(&json!({"tls": tls}), &json!({}));
        let moment = Moment { now: Timestamp::now(), rollout: Rollout::default(), handled: None };
        let stored = Stored {
            leaf: None,
            published: None,
            authority: Authority::Absent,
            request: None,
            answer: Answer::Nothing,
            asks_at: None,
        };
        let settled = settle(&registry, &stored, observed, None, &moment).unwrap();
        (settled.serving, settled.report.problem.map(|problem| problem.reason))
    };
    let named = |key: &str| json!({"secret": {"name": "own", "passphraseSecretRef": {"name": "phrase", "key": key}}});
    let reason = |tls: Value, observed: &Observed| settle(tls, observed).1.unwrap_or_default();
    assert_eq!(reason(json!({"secret": {"name": "own"}}), &right), "KeyEncrypted");
    assert_eq!(reason(named("password"), &wrong), "WrongPassphrase");
    assert_eq!(reason(named("password"), &without), "WaitingForSecret");
    assert_eq!(reason(named("other"), &other_key), "WaitingForSecret");
    let (serving, problem) = settle(named("password"), &right);
    assert_eq!(problem, None);
    let opened = serving.unwrap().key;
    assert!(opened.expose().starts_with("-----BEGIN RSA PRIVATE KEY-----") && !opened.expose().contains("ENCRYPTED"));
}

#[test]
fn an_authority_that_lies_elsewhere_signs_for_whoever_names_it_and_is_only_read() {
    let begin = Timestamp::now();
    let registry = |asked: Option<&str>| {
        let annotations = asked.map_or(json!({}), |asked| json!({api::annotation::RENEW: asked}));
        resolved(&json!({"tls": {"privateCA": {"caSecretRef": {"name": "company"}}}}), &annotations)
    };
    let settle = |shelf: &Shelf, content: Option<SecretContent>, asked: Option<&str>, now: Timestamp| {
        let registry = registry(asked);
        let secret = Shared { namespace: None, name: "company".to_owned() };
        let authority = Authority::Shared { secret, content, is_unread: false };
        let stored = Stored {
            leaf: shelf.leaf.as_ref(),
            published: None,
            authority,
            request: None,
            answer: Answer::Nothing,
            asks_at: None,
        };
        let moment = Moment { now, rollout: Rollout::default(), handled: None };
        let settled = settle(&registry, &stored, &Observed::default(), Some(&json!({})), &moment).unwrap();
        assert!(settled.authority.is_none(), "nothing is written");
        let told = (settled.report.problem.clone().map(|problem| problem.reason), settled.report.note.clone());
        (Shelf::written(&registry, settled), told)
    };
    let company = || {
        let mut content = own("unused", 3650).secrets.remove("own").flatten().unwrap();
        let handed = handed(&Shelf::default().pass(&resolved(&json!({}), &json!({}))).0, |_| {}).authority.unwrap();
        for key in ["tls.crt", "tls.key"] {
            content.data.insert(key.to_owned(), handed.data(key).unwrap().into());
        }
        content
    };
    let issuer = |shelf: &Shelf| CertificateFacts::of_pem(&shelf.chain()).unwrap().issuer;

    let (nothing, told) = settle(&Shelf::default(), None, None, begin);
    assert_eq!(
        (nothing.leaf.is_none(), told.0.as_deref()),
        (true, Some("WaitingForSecret")),
        "no CA is made in its place"
    );
    let (first, second) = (company(), company());
    let (signed, told) = settle(&Shelf::default(), Some(first.clone()), None, begin);
    assert_eq!((issuer(&signed).as_str(), told), ("CN=Company", (None, None)));
    let (kept, told) = settle(&signed, None, None, begin);
    assert_eq!((kept.chain(), told.0.as_deref()), (signed.chain(), Some("WaitingForSecret")));
    for asked in ["ca-1", "ca-now-1"] {
        let (kept, told) = settle(&signed, Some(first.clone()), Some(asked), begin);
        assert_eq!(kept.chain(), signed.chain());
        assert!(told.1.is_some_and(|note| note.contains("lies in Secret company: replace it there")));
    }
    let (published, _) = settle(&signed, Some(second.clone()), None, begin);
    assert_eq!(published.chain(), signed.chain(), "clients have to learn of it first");
    let (changed, _) = settle(&published, Some(second), None, begin + DAY);
    assert_ne!(changed.chain(), signed.chain());

    // Back to an authority of its own, which has never been there: it is made, not missed.
    let own = resolved(&json!({}), &json!({}));
    let (back, stages, _) = changed.pass_at(&own, begin + DAY);
    assert_eq!((back.chain(), stages[0], back.authority.is_some()), (changed.chain(), AuthorityStage::Next, true));
    let (signed, ..) = back.pass_at(&own, begin + DAY * 2);
    assert_eq!(issuer(&signed), "CN=team-a registry CA");
    assert_eq!(signed.leaf.as_ref().unwrap().annotation(labels::SHARED_AUTHORITY), None);
}
