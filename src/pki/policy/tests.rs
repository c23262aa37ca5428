use proptest::prelude::*;

use super::*;
use crate::pki::acceptance::{Flaw, Refusal};
use crate::pki::issue::issue_leaf;
use crate::pki::rotate::{Since, Whose};
use crate::pki::testing::{DAY, Made, YEAR, addresses, authority_params, leaf_profile, make, names, now, pair};
use crate::pki::{Authority, KeyAlgorithm, Leaf};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const UID: &str = "0b8f7c9e-6f0e-4a53-9d3f-0d7f0c2a1e55";

/// A registry whose leaf and authority were issued at `now()` and are as wanted.
pub(in crate::pki) struct Case {
    pub(in crate::pki) leaf: LeafReading,
    pub(in crate::pki) authority: AuthorityReading,
    pub(in crate::pki) next: AuthorityReading,
    pub(in crate::pki) whose: Whose,
    pub(in crate::pki) since: Since,
    pub(in crate::pki) is_leaf_trusted: bool,
    pub(in crate::pki) profile: LeafProfile,
    pub(in crate::pki) now: Timestamp,
    rollout_pending: bool,
    pub(in crate::pki) request: Request,
    last_reason: Option<Renew>,
}

impl Case {
    pub(in crate::pki) fn healthy() -> Self {
        let (authority, leaf) = pair();
        Self {
            leaf: LeafReading::of(Some(&leaf), Some(&authority), now()),
            authority: AuthorityReading::of(Some(&authority), &leaf_profile()),
            next: AuthorityReading::Missing,
            whose: Whose::Ours,
            since: Since::default(),
            is_leaf_trusted: false,
            profile: leaf_profile(),
            now: now(),
            rollout_pending: false,
            request: Request::None,
            last_reason: None,
        }
    }

    pub(in crate::pki) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(in crate::pki) fn facts(&mut self) -> &mut CertificateFacts {
        match &mut self.leaf {
            LeafReading::Read { facts, .. } => facts,
            other => panic!("{other:?}"),
        }
    }

    fn leaf_ends(&self) -> Timestamp {
        self.leaf.facts().unwrap().not_after
    }

    fn due(&self) -> Timestamp {
        renew_at(self.leaf.facts().unwrap(), UID)
    }

    /// Cuts the authority's life, and the leaf's if it is longer.
    pub(in crate::pki) fn authority_ends_after(&mut self, life: SignedDuration) {
        let AuthorityReading::Usable(facts) = &mut self.authority else { panic!("{:?}", self.authority) };
        facts.not_after = after(facts.issued_at(), life);
        let end = facts.not_after;
        self.facts().not_after = end.min(self.leaf_ends());
    }

    pub(in crate::pki) fn decide(&self) -> Decision {
        decide(&Input {
            leaf: self.leaf.clone(),
            authority: self.authority.clone(),
            rotation: Rotation {
                next: self.next.clone(),
                was_shared: false,
                whose: self.whose,
                since: &self.since,
                grace: DAY,
                is_leaf_trusted: self.is_leaf_trusted,
            },
            profile: &self.profile,
            uid: UID,
            now: self.now,
            rollout_pending: self.rollout_pending,
            request: self.request,
            last_reason: self.last_reason,
        })
    }

    /// The leaf's word, with the authority kept.
    fn word(&self) -> Option<Renew> {
        let decision = self.decide();
        assert_eq!(decision.authority, AuthorityVerdict::Keep);
        match decision.leaf {
            LeafVerdict::Issue(reason) => Some(reason),
            LeafVerdict::Keep { look_again } => {
                assert!(look_again > self.now, "{look_again} is not after {}", self.now);
                None
            }
        }
    }

    fn look_again(&self) -> Timestamp {
        match self.decide().leaf {
            LeafVerdict::Keep { look_again } => look_again,
            LeafVerdict::Issue(reason) => panic!("{reason}"),
        }
    }
}

pub(in crate::pki) type Change = fn(&mut Case);

#[test]
fn each_reason_has_its_word() {
    let rows: &[(&str, Change, Option<Renew>)] = &[
        ("nothing is wrong", |_| {}, None),
        ("nothing stored", |case| case.leaf = LeafReading::Missing, Some(Renew::Missing)),
        ("no certificate", |case| case.leaf = LeafReading::Unreadable, Some(Renew::Unreadable)),
        ("another's key", |case| with_key_fits(case, false), Some(Renew::KeyMismatch)),
        ("a new host name", |case| _ = case.profile.dns_names.insert("new".into()), Some(Renew::SanMissing)),
        ("a new address", |case| case.profile.ip_addresses.extend(addresses(&["10.0.0.9"])), Some(Renew::SanMissing)),
        ("fewer host names", |case| case.profile.dns_names = names(&["team-a"]), None),
        ("no address any more", |case| case.profile.ip_addresses.clear(), None),
        ("the last second", |case| case.now = case.leaf_ends() - SECOND, Some(Renew::DueForRenewal)),
        ("the end", |case| case.now = case.leaf_ends(), Some(Renew::Expired)),
        ("the first second", |case| case.now = case.facts().not_before, None),
        ("before it begins", before_it_begins, Some(Renew::NotYetValid)),
        ("a second before it is due", |case| case.now = case.due() - SECOND, None),
        ("due", |case| case.now = case.due(), Some(Renew::DueForRenewal)),
        ("a rollout in the first half", |case| rollout_at(case, YEAR / 2 - SECOND), None),
        ("a rollout in the second half", |case| rollout_at(case, YEAR / 2), Some(Renew::DueForRenewal)),
        ("no rollout in the second half", |case| case.now = now() + YEAR / 2, None),
        ("another authority", |case| with_signed(case, Some(false)), Some(Renew::CaChanged)),
        ("clients refuse it", with_refusal, Some(Renew::Refused)),
        ("a longer duration", |case| case.profile.duration = YEAR * 2, Some(Renew::ParametersChanged)),
        ("a shorter duration", |case| case.profile.duration = YEAR - SECOND * 3, Some(Renew::ParametersChanged)),
        ("a duration that rounds the same", |case| case.profile.duration = YEAR - SECOND, None),
        (
            "another kind of key",
            |case| case.profile.key_algorithm = KeyAlgorithm::EcdsaP384,
            Some(Renew::ParametersChanged),
        ),
        ("an RSA key", |case| case.facts().key = PublicKeyKind::Rsa { bits: 2048 }, Some(Renew::ParametersChanged)),
        ("a leaf requested", |case| case.request = Request::Leaf, Some(Renew::Requested)),
    ];
    for (what, change, word) in rows {
        assert_eq!(Case::healthy().with(change).word(), *word, "{what}");
    }
}

fn before_it_begins(case: &mut Case) {
    let AuthorityReading::Usable(authority) = &mut case.authority else { panic!("{:?}", case.authority) };
    authority.not_before -= DAY;
    case.now = case.facts().not_before - SECOND;
}

fn with_key_fits(case: &mut Case, fits: bool) {
    let LeafReading::Read { key_fits, .. } = &mut case.leaf else { panic!() };
    *key_fits = fits;
}

pub(in crate::pki) fn with_signed(case: &mut Case, signed: Option<bool>) {
    let LeafReading::Read { signed_by_authority, .. } = &mut case.leaf else { panic!() };
    *signed_by_authority = signed;
}

fn with_refusal(case: &mut Case) {
    let LeafReading::Read { refusal, .. } = &mut case.leaf else { panic!() };
    *refusal = Some(Box::new(Refusal { subject: "CN=team-a".into(), flaw: Flaw::NotForServers }));
}

fn rollout_at(case: &mut Case, age: SignedDuration) {
    case.rollout_pending = true;
    case.now = case.facts().issued_at() + age;
}

#[test]
fn the_first_check_that_objects_decides() {
    // From the last check to the first: each change adds an objection in front of those before it.
    let rows: &[(Change, Renew)] = &[
        (|case| case.request = Request::Leaf, Renew::Requested),
        (|case| case.facts().key = PublicKeyKind::Rsa { bits: 2048 }, Renew::ParametersChanged),
        (with_refusal, Renew::Refused),
        (|case| with_signed(case, Some(false)), Renew::CaChanged),
        (|case| case.now = case.due(), Renew::DueForRenewal),
        (|case| case.facts().not_before = now() + YEAR * 2, Renew::NotYetValid),
        (|case| case.now = case.leaf_ends(), Renew::Expired),
        (|case| _ = case.profile.dns_names.insert("new".into()), Renew::SanMissing),
        (|case| with_key_fits(case, false), Renew::KeyMismatch),
        (|case| case.leaf = LeafReading::Unreadable, Renew::Unreadable),
        (|case| case.leaf = LeafReading::Missing, Renew::Missing),
    ];
    assert_eq!(rows.len(), CHECKS.len());
    let mut case = Case::healthy();
    for (change, word) in rows {
        change(&mut case);
        assert_eq!(case.word(), Some(*word));
    }
}

#[test]
fn a_reason_is_one_word_that_can_be_stored_and_read_back() {
    for reason in [Renew::Missing, Renew::SanMissing, Renew::DueForRenewal, Renew::CaChanged] {
        assert_eq!(reason.to_string().parse(), Ok(reason));
    }
    assert_eq!(<&str>::from(Renew::NotYetValid), "NotYetValid");
    assert_eq!(Request::of(Some("leaf")), Request::Leaf);
    assert_eq!(Request::of(Some("ca")), Request::Authority);
    assert_eq!(Request::of(Some("ca-now-1")), Request::AuthorityNow);
    assert_eq!(
        (Request::of(Some("leaf-2026-11")), Request::of(Some("ca-nowadays"))),
        (Request::Leaf, Request::Authority)
    );
    assert_eq!((Request::of(Some("leafy")), Request::of(None)), (Request::None, Request::None));
}

#[test]
fn what_is_stored_is_read_as_it_is() {
    let ((authority, leaf), (other_authority, other_leaf)) = (pair(), pair());
    let read = |leaf: &Leaf, authority: Option<&Authority>| match LeafReading::of(Some(leaf), authority, now()) {
        LeafReading::Read { key_fits, signed_by_authority, .. } => Some((key_fits, signed_by_authority)),
        LeafReading::Unreadable => None,
        LeafReading::Missing => panic!("it is there"),
    };
    let swapped = Leaf { key_pem: other_leaf.key_pem.clone(), ..leaf.clone() };
    let no_chain = Leaf { chain_pem: String::new(), ..leaf.clone() };
    let no_key = Leaf { key_pem: String::new().into(), ..leaf.clone() };
    let unreadable_authority = Authority { certificate_pem: "words".into(), ..authority.clone() };

    assert_eq!(read(&leaf, Some(&authority)), Some((true, Some(true))));
    assert_eq!(read(&leaf, Some(&other_authority)), Some((true, Some(false))), "same name, other key");
    assert_eq!(read(&leaf, Some(&unreadable_authority)), Some((true, None)));
    assert_eq!(read(&leaf, None), Some((true, None)));
    assert_eq!(read(&swapped, Some(&authority)), Some((false, Some(true))));
    assert_eq!(read(&no_chain, Some(&authority)), None);
    assert_eq!(read(&no_key, Some(&authority)), None);
    assert_eq!(LeafReading::of(None, Some(&authority), now()), LeafReading::Missing);

    let authority_with = |certificate: &str, key: &str| {
        let authority = Authority { certificate_pem: certificate.into(), key_pem: key.to_string().into() };
        AuthorityReading::of(Some(&authority), &leaf_profile())
    };
    let (certificate, key) = (&authority.certificate_pem, authority.key_pem.expose());
    assert!(matches!(authority_with(certificate, key), AuthorityReading::Usable(_)));
    assert_eq!(authority_with(certificate, other_authority.key_pem.expose()), AuthorityReading::Unreadable);
    assert_eq!(authority_with(certificate, ""), AuthorityReading::Unreadable);
    assert_eq!(authority_with("", key), AuthorityReading::Unreadable);
    assert_eq!(
        authority_with(&leaf.chain_pem, leaf.key_pem.expose()),
        AuthorityReading::Refused(Box::new(Refusal { subject: "CN=team-a".into(), flaw: Flaw::NotAuthority })),
        "not an authority"
    );
    assert_eq!(AuthorityReading::of(None, &leaf_profile()), AuthorityReading::Missing);
}

#[test]
fn a_stored_leaf_is_read_as_the_clients_of_the_authority_see_it() {
    let company = make(authority_params("Company"), None);
    let authority = |params| Authority {
        certificate_pem: company.sign(&params, &key_of(&company)),
        key_pem: company.key_pem.clone().into(),
    };
    let mut for_clients = authority_params("Company");
    for_clients.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let (good, bad) = (authority(authority_params("Company")), authority(for_clients));
    let leaf = issue_leaf(&good, &LeafProfile { duration: DAY / 2, ..leaf_profile() }, now()).unwrap();
    let refusal = |authority: &Authority, at: Timestamp| {
        LeafReading::of(Some(&leaf), Some(authority), at)
            .refusal()
            .map(|refusal| (refusal.subject.clone(), refusal.flaw.clone()))
    };

    assert_eq!(refusal(&good, now()), None);
    assert_eq!(refusal(&bad, now()), Some(("CN=Company".into(), Flaw::NotForServers)), "the same key and name");
    assert!(matches!(refusal(&good, now() + DAY), Some((_, Flaw::Expired(_)))));
    let stranger = pair().0;
    assert_eq!(refusal(&stranger, now()), Some(("CN=team-a".into(), Flaw::NotSigned("CN=team-a CA".into()))));

    assert!(matches!(AuthorityReading::of(Some(&good), &leaf_profile()), AuthorityReading::Usable(_)));
    let read = AuthorityReading::of(Some(&bad), &leaf_profile());
    assert_eq!(read.refusal(now()).unwrap().flaw, Flaw::NotForServers);
    let read = AuthorityReading::of(Some(&good), &leaf_profile());
    assert_eq!(read.refusal(now()), None);
    assert!(matches!(read.refusal(now() + DAY * 2).unwrap().flaw, Flaw::Expired(_)));
    assert!(matches!(read.refusal(now() - DAY * 2).unwrap().flaw, Flaw::NotYetValid(_)));
}

fn key_of(made: &Made) -> rcgen::KeyPair {
    rcgen::KeyPair::from_pem(&made.key_pem).unwrap()
}

#[test]
fn a_lost_authority_takes_no_trust_away_while_the_leaf_serves() {
    use AuthorityVerdict::{CaMissing, Issue};
    let rows: &[(&str, Change, AuthorityVerdict, Option<Renew>)] = &[
        ("a sound leaf", |_| {}, CaMissing, None),
        ("a new host name", |case| _ = case.profile.dns_names.insert("new".into()), CaMissing, None),
        ("other parameters", |case| case.profile.duration = YEAR * 2, CaMissing, None),
        ("a leaf requested", |case| case.request = Request::Leaf, CaMissing, None),
        ("a rollout in the second half", |case| rollout_at(case, YEAR / 2), CaMissing, None),
        ("due", |case| case.now = case.due(), Issue(Renew::Missing), Some(Renew::DueForRenewal)),
        (
            "due, and a new host name",
            |case| {
                case.now = case.due();
                case.profile.dns_names.insert("new".into());
            },
            Issue(Renew::Missing),
            Some(Renew::SanMissing),
        ),
        ("the end", |case| case.now = case.leaf_ends(), Issue(Renew::Missing), Some(Renew::Expired)),
        ("another's key", |case| with_key_fits(case, false), Issue(Renew::Missing), Some(Renew::KeyMismatch)),
        ("no leaf", |case| case.leaf = LeafReading::Missing, Issue(Renew::Missing), Some(Renew::Missing)),
        ("a new one requested", |case| case.request = Request::Authority, Issue(Renew::Requested), None),
        (
            "a new one requested at once",
            |case| case.request = Request::AuthorityNow,
            Issue(Renew::Requested),
            Some(Renew::Requested),
        ),
    ];
    for (what, change, authority, leaf) in rows {
        let case = Case::healthy().with(|case| {
            change(case);
            case.authority = AuthorityReading::Missing;
            if let LeafReading::Read { signed_by_authority, .. } = &mut case.leaf {
                *signed_by_authority = None;
            }
        });
        let decision = case.decide();
        assert_eq!(decision.authority, *authority, "{what}");
        match (decision.leaf, leaf) {
            (LeafVerdict::Issue(reason), Some(word)) => assert_eq!(reason, *word, "{what}"),
            (LeafVerdict::Keep { look_again }, None) => assert!(look_again > case.now, "{what}"),
            (verdict, _) => panic!("{what}: {verdict:?}"),
        }
    }
}

#[test]
fn an_unreadable_authority_is_kept_apart_from_a_missing_one() {
    let unreadable = |case: &mut Case| case.authority = AuthorityReading::Unreadable;
    assert_eq!(Case::healthy().with(unreadable).decide().authority, AuthorityVerdict::CaMissing);

    let case = Case::healthy().with(unreadable).with(|case| case.leaf = LeafReading::Missing);
    assert_eq!(case.decide().authority, AuthorityVerdict::Issue(Renew::Unreadable));
}

#[test]
fn an_authority_that_clients_refuse_signs_nothing_and_is_replaced_on_request_only() {
    let refused = |case: &mut Case| {
        let refusal = Refusal { subject: "CN=Company".into(), flaw: Flaw::NotForServers };
        case.authority = AuthorityReading::Refused(Box::new(refusal));
        with_signed(case, Some(false));
    };
    let rows: &[(&str, Change)] = &[
        ("a sound leaf", |_| {}),
        ("a new host name", |case| _ = case.profile.dns_names.insert("new".into())),
        ("due", |case| case.now = case.due()),
        ("the end", |case| case.now = case.leaf_ends()),
        ("no leaf", |case| case.leaf = LeafReading::Missing),
    ];
    for (what, change) in rows {
        let decision = Case::healthy().with(refused).with(change).decide();
        assert_eq!(decision.authority, AuthorityVerdict::CaRefused, "{what}");
        assert!(matches!(decision.leaf, LeafVerdict::Keep { .. }), "{what}: {decision:?}");
    }
    let asked = Case::healthy().with(refused).with(|case| case.request = Request::Authority).decide();
    assert_eq!(asked.authority, AuthorityVerdict::Issue(Renew::Requested));
    assert!(
        matches!(asked.leaf, LeafVerdict::Keep { .. }),
        "clients that trust the former one have no other: {asked:?}"
    );
}

#[test]
fn a_new_registry_gets_both() {
    let case = Case::healthy().with(|case| {
        case.authority = AuthorityReading::Missing;
        case.leaf = LeafReading::Missing;
    });
    let expected =
        Decision { authority: AuthorityVerdict::Issue(Renew::Missing), leaf: LeafVerdict::Issue(Renew::Missing) };
    assert_eq!(case.decide(), expected);
}

#[test]
fn an_authority_of_our_own_that_has_ended_is_replaced_and_a_users_is_not() {
    let mut ended = Case::healthy().with(|case| {
        case.authority_ends_after(DAY);
        case.now = case.leaf_ends();
    });
    let expected =
        Decision { authority: AuthorityVerdict::Issue(Renew::Expired), leaf: LeafVerdict::Issue(Renew::Expired) };
    assert_eq!(ended.decide(), expected);
    ended.whose = Whose::Users;
    assert_eq!(ended.decide().authority, AuthorityVerdict::CaRefused);
    assert_eq!(ended.with(|case| case.now -= SECOND).decide().authority, AuthorityVerdict::Keep);
}

#[test]
fn a_leaf_cut_to_its_authoritys_end_is_not_renewed_in_vain() {
    let mut case = Case::healthy().with(|case| case.whose = Whose::Users);
    case.authority_ends_after(DAY * 30);
    let (due, end) = (case.due(), case.leaf_ends());

    assert_eq!(case.word(), None, "the cut is no change of parameters");
    for moment in [due, due + DAY, end - SECOND] {
        let case = Case { now: moment, rollout_pending: true, whose: Whose::Users, ..Case::healthy() };
        let case = case.with(|case| case.authority_ends_after(DAY * 30));
        assert_eq!(case.word(), None, "at {moment}");
        assert_eq!(case.look_again(), end);
    }
}

#[test]
fn a_name_that_comes_and_goes_renews_once_in_five_minutes() {
    let another_name = |case: &mut Case| {
        case.last_reason = Some(Renew::SanMissing);
        case.profile.dns_names.insert("again".into());
    };
    let mut case = Case::healthy().with(another_name);
    let pause_ends = case.facts().issued_at() + SAN_PAUSE;

    assert_eq!(case.word(), None);
    assert_eq!(case.look_again(), pause_ends);
    case.now = pause_ends - SECOND;
    assert_eq!(case.word(), None);
    case.now = pause_ends;
    assert_eq!(case.word(), Some(Renew::SanMissing));

    case.now = now();
    case.last_reason = Some(Renew::Missing);
    assert_eq!(case.word(), Some(Renew::SanMissing), "the first name after another reason doesn't wait");
}

#[test]
fn the_next_look_is_when_time_alone_changes_the_answer() {
    let mut case = Case::healthy();
    assert_eq!(case.look_again(), case.due());

    case.rollout_pending = true;
    let half = case.facts().issued_at() + YEAR / 2;
    assert_eq!(case.look_again(), half);

    let lost = Case::healthy().with(|case| {
        case.authority = AuthorityReading::Missing;
        case.profile.duration = YEAR * 2;
        with_signed(case, None);
    });
    assert_eq!(lost.look_again(), lost.due());
}

#[test]
fn the_moment_of_renewal_never_changes_between_versions() {
    let case = Case::healthy();
    let due = case.due();
    assert_eq!(due.subsec_nanosecond(), 0);
    // issued + life * 2/3 - life/10 * (first 4 bytes of SHA-256 of the uid) / (2^32 - 1), computed apart
    assert_eq!(due.to_string(), "2027-07-04T12:49:44Z");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn renewal_lies_between_17_thirtieths_and_two_thirds_of_a_life(
        uid in ".{0,40}",
        life in 60i64..400_000_000,
    ) {
        let mut facts = Case::healthy().facts().clone();
        facts.not_after = facts.issued_at() + SECOND * i32::try_from(life).unwrap();
        let age = renew_at(&facts, &uid).duration_since(facts.issued_at()).as_secs();

        prop_assert!(age <= life * 2 / 3 && age >= life * 17 / 30 - 1, "{age} of {life}");
        prop_assert_eq!(renew_at(&facts, &uid), renew_at(&facts, &uid));
        prop_assert_eq!(renew_at(&facts, &uid).subsec_nanosecond(), 0);
    }

    #[test]
    fn uids_spread_renewals_over_the_whole_tenth(first in any::<u128>()) {
        let facts = Case::healthy().facts().clone();
        let life = facts.life().as_secs();
        let mut tenths = [0; 10];
        for number in 0..500u128 {
            let jitter = life * 2 / 3 - renew_at(&facts, &(first ^ number).to_string()).duration_since(facts.issued_at()).as_secs();
            tenths[usize::try_from(jitter * 100 / life).unwrap().min(9)] += 1;
        }
        // 50 on average with a deviation of 7.
        prop_assert!(tenths.iter().all(|count| (10..=90).contains(count)), "{:?}", tenths);
    }
}
