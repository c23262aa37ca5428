use super::*;
use crate::pki::facts::CertificateFacts;
use crate::pki::issue::{issue_authority, issue_leaf, request};
use crate::pki::testing::{DAY, YEAR, authority_profile, leaf_profile, now};
use crate::pki::{KeyAlgorithm, Leaf};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const UID: &str = "6f2a9a0e-0000-4000-8000-000000000001";

/// What is served, and the request that it answers.
struct Case {
    leaf: Leaf,
    facts: CertificateFacts,
    request: RequestFacts,
}

fn answered() -> Case {
    let authority = issue_authority(&authority_profile(), now()).unwrap();
    let leaf = issue_leaf(&authority, &leaf_profile(), now()).unwrap();
    let facts = CertificateFacts::of_pem(&leaf.chain_pem).unwrap();
    Case { leaf, facts, request: request(&leaf_profile()).unwrap().facts().unwrap() }
}

impl Case {
    fn input<'a>(&'a self, profile: &'a LeafProfile, at: Timestamp) -> Input<'a> {
        Input {
            leaf: LeafReading::of(Some(&self.leaf), None, at),
            request: Some(&self.request),
            is_answered: true,
            is_former_answer: false,
            is_anothers: false,
            is_accepted: true,
            profile,
            uid: UID,
            now: at,
            wish: Request::None,
            last_reason: Some(Renew::Missing),
        }
    }
}

#[test]
fn another_certificate_is_asked_for_at_two_thirds_of_its_life_and_not_a_second_before() {
    let (case, profile) = (answered(), leaf_profile());
    let due = renew_at(&case.facts, UID);
    assert!(due > now() + YEAR / 2 && due <= now() + YEAR * 2 / 3, "{due}");
    assert_eq!(decide(&case.input(&profile, due - SECOND)), Verdict::Keep { look_again: due });
    assert_eq!(decide(&case.input(&profile, due)), Verdict::Ask(Renew::DueForRenewal));
    let end = case.facts.not_after;
    assert_eq!(decide(&case.input(&profile, end - SECOND)), Verdict::Ask(Renew::DueForRenewal));
    assert_eq!(decide(&case.input(&profile, end)), Verdict::Ask(Renew::Expired));
    let begin = case.facts.not_before;
    assert_eq!(decide(&case.input(&profile, begin - SECOND)), Verdict::Ask(Renew::NotYetValid));
    assert_eq!(decide(&case.input(&profile, begin)), Verdict::Keep { look_again: due });
}

#[test]
fn what_is_served_goes_on_to_the_second_of_its_end() {
    let case = answered();
    let reading = |at| LeafReading::of(Some(&case.leaf), None, at);
    let is_serving_at = |at| is_serving(&reading(at), at);
    assert!(!is_serving_at(case.facts.not_before - SECOND) && is_serving_at(case.facts.not_before));
    assert!(is_serving_at(case.facts.not_after - SECOND) && !is_serving_at(case.facts.not_after));
    assert!(!is_serving(&LeafReading::Missing, now()) && !is_serving(&LeafReading::Unreadable, now()));
    let other = answered();
    let mixed = Leaf { key_pem: other.leaf.key_pem, ..case.leaf.clone() };
    assert!(!is_serving(&LeafReading::of(Some(&mixed), None, now()), now()));
}

#[test]
fn each_reason_to_ask_again_has_its_word() {
    let (case, profile) = (answered(), leaf_profile());
    let other_key = LeafProfile { key_algorithm: KeyAlgorithm::EcdsaP384, ..leaf_profile() };
    let mut wider = leaf_profile();
    wider.dns_names.insert("more.example.com".to_owned());
    let input = |profile| case.input(profile, now());
    for (input, why) in [
        (Input { is_anothers: true, ..input(&profile) }, Renew::CaChanged),
        (input(&other_key), Renew::ParametersChanged),
        (input(&wider), Renew::SanMissing),
        (Input { wish: Request::Leaf, ..input(&profile) }, Renew::Requested),
        (Input { is_accepted: false, ..input(&profile) }, Renew::Refused),
        (Input { request: None, leaf: LeafReading::Missing, ..input(&profile) }, Renew::Missing),
        (Input { request: None, leaf: LeafReading::Unreadable, ..input(&profile) }, Renew::Unreadable),
        (Input { request: None, ..input(&profile) }, Renew::CaChanged),
    ] {
        assert_eq!(decide(&input), Verdict::Ask(why));
    }
    // What a signer left out is no reason to ask for it again, and other authorities are none of ours.
    let mut fewer = leaf_profile();
    fewer.dns_names.retain(|name| name == "team-a");
    assert!(matches!(decide(&input(&fewer)), Verdict::Keep { .. }));
    assert!(matches!(decide(&Input { wish: Request::AuthorityNow, ..input(&profile) }), Verdict::Keep { .. }));
}

#[test]
fn a_request_that_waits_is_made_once_and_asks_for_more_with_the_same_key() {
    let (case, profile) = (answered(), leaf_profile());
    let waiting = |profile| Input { is_answered: false, ..case.input(profile, now()) };
    assert_eq!(decide(&waiting(&profile)), Verdict::Await);
    // Neither time nor a wish nor another signer makes a second one.
    for input in [
        Input { wish: Request::Leaf, ..waiting(&profile) },
        Input { now: case.facts.not_after + DAY, ..waiting(&profile) },
        Input { is_anothers: true, ..waiting(&profile) },
        Input { leaf: LeafReading::Missing, ..waiting(&profile) },
    ] {
        assert_eq!(decide(&input), Verdict::Await);
    }
    let mut wider = leaf_profile();
    wider.dns_names.insert("more.example.com".to_owned());
    assert_eq!(decide(&waiting(&wider)), Verdict::Widen);
    let other_key = LeafProfile { key_algorithm: KeyAlgorithm::Ed25519, ..leaf_profile() };
    assert_eq!(decide(&waiting(&other_key)), Verdict::Ask(Renew::ParametersChanged));
}

#[test]
fn a_request_whose_reason_is_gone_is_taken_back_and_no_other() {
    let (case, profile) = (answered(), leaf_profile());
    let due = renew_at(&case.facts, UID);
    let waiting = |why, at| Input {
        is_answered: false,
        is_former_answer: true,
        last_reason: Some(why),
        ..case.input(&profile, at)
    };
    for why in [Renew::CaChanged, Renew::ParametersChanged, Renew::Refused, Renew::SanMissing] {
        assert_eq!(decide(&waiting(why, now())), Verdict::TakeBack, "{why}");
        assert_eq!(decide(&waiting(why, due - SECOND)), Verdict::TakeBack, "{why}");
        let other_key = LeafProfile { key_algorithm: KeyAlgorithm::Ed25519, ..leaf_profile() };
        for input in [
            waiting(why, due),
            Input { is_former_answer: false, ..waiting(why, now()) },
            Input { is_accepted: false, ..waiting(why, now()) },
            Input { is_anothers: true, ..waiting(why, now()) },
            Input { wish: Request::Leaf, ..waiting(why, now()) },
            Input { profile: &other_key, ..waiting(why, now()) },
        ] {
            assert_ne!(decide(&input), Verdict::TakeBack, "{why}");
        }
    }
    for why in [Renew::Missing, Renew::DueForRenewal, Renew::Requested, Renew::Expired] {
        assert_eq!(decide(&waiting(why, now())), Verdict::Await, "{why}");
    }
    // A name that the certificate does not have is still missing.
    let mut wider = leaf_profile();
    wider.dns_names.insert("more.example.com".to_owned());
    assert_eq!(decide(&Input { profile: &wider, ..waiting(Renew::SanMissing, now()) }), Verdict::Widen);
}

#[test]
fn a_name_that_comes_and_goes_asks_nobody_twice_in_five_minutes() {
    let case = answered();
    let mut wider = leaf_profile();
    wider.dns_names.insert("more.example.com".to_owned());
    let end = case.facts.issued_at() + SAN_PAUSE;
    let at = |at| decide(&Input { last_reason: Some(Renew::SanMissing), ..case.input(&wider, at) });
    assert_eq!(at(end - SECOND), Verdict::Keep { look_again: end });
    assert_eq!(at(end), Verdict::Ask(Renew::SanMissing));
}

#[test]
fn a_request_that_is_removed_each_time_is_sent_ever_more_seldom() {
    let waits: Vec<_> = [1, 2, 3, 7, 8, 9, 100, u32::MAX]
        .map(|times| ask_again_at(now(), times).duration_since(now()).as_secs())
        .into();
    assert_eq!(waits, [5, 10, 20, 320, 640, 1280, 3600, 3600]);
}
