use proptest::prelude::*;

use super::*;
use crate::pki::issue::{issue_authority, issue_leaf};
use crate::pki::policy::tests::{Case, Change, with_signed};
use crate::pki::policy::{Decision, LeafVerdict, decide, renew_at};
use crate::pki::testing::{DAY, YEAR, authority_profile, handshake, leaf_profile, now, pair};
use crate::pki::{Authority, AuthorityProfile, Leaf, LeafProfile};

const SECOND: SignedDuration = SignedDuration::from_secs(1);
const UID: &str = "0b8f7c9e-6f0e-4a53-9d3f-0d7f0c2a1e55";

fn usable(authority: &Authority) -> AuthorityReading {
    AuthorityReading::of(Some(authority), &leaf_profile())
}

fn present(case: &Case) -> CertificateFacts {
    case.authority.facts().unwrap().clone()
}

/// A successor was made and published at the case's moment.
fn with_successor(case: &mut Case) {
    case.next = usable(&pair().0);
    let fingerprint = case.next.facts().unwrap().fingerprint.clone();
    case.since.0.insert(fingerprint, case.now);
}

/// Somebody put another authority in the place of the present one, and it was published at the case's moment.
fn swapped(case: &mut Case) {
    with_signed(case, Some(false));
    case.is_leaf_trusted = true;
    let fingerprint = present(case).fingerprint;
    case.since.0.insert(fingerprint, case.now);
}

/// What is so, what it makes of the case, and what is decided a second before and then.
type Row<'a> = (&'a str, &'a dyn Fn(&mut Case), AuthorityVerdict, AuthorityVerdict);

#[test]
fn each_step_comes_in_its_second_and_not_before() {
    use AuthorityVerdict::{CaRefused, Issue, Keep, Prepare, Promote};
    let due = |case: &mut Case| case.now = renew_at(&present(case), UID);
    let rows: &[Row<'_>] = &[
        ("the present one is due", &due, Keep, Prepare(Renew::DueForRenewal)),
        (
            "the present one is due, and a user's",
            &|case| {
                due(case);
                case.whose = Whose::Users;
            },
            Keep,
            Keep,
        ),
        (
            "it was asked for",
            &|case| case.request = Request::Authority,
            Prepare(Renew::Requested),
            Prepare(Renew::Requested),
        ),
        ("at once", &|case| case.request = Request::AuthorityNow, Issue(Renew::Requested), Issue(Renew::Requested)),
        (
            "a day after it was published",
            &|case| {
                with_successor(case);
                case.now += DAY;
            },
            Keep,
            Promote,
        ),
        (
            "the half of what the present one has left",
            &|case| {
                case.now = present(case).not_after - SECOND * 600;
                with_successor(case);
                case.now += SECOND * 300;
            },
            Keep,
            Promote,
        ),
        (
            "the end of the present one",
            &|case| {
                case.authority_ends_after(DAY * 30);
                with_successor(case);
                case.since = Since::default();
                case.now = present(case).not_after;
            },
            Keep,
            Promote,
        ),
        (
            "it was not published yet",
            &|case| {
                with_successor(case);
                case.since = Since::default();
                case.now += DAY;
            },
            Keep,
            Keep,
        ),
        (
            "another one was asked for meanwhile",
            &|case| {
                with_successor(case);
                case.request = Request::Authority;
            },
            Keep,
            Keep,
        ),
        (
            "a user's ends",
            &|case| {
                case.whose = Whose::Users;
                case.now = present(case).not_after;
            },
            Keep,
            CaRefused,
        ),
    ];
    for (what, change, before, then) in rows {
        let mut case = Case::healthy();
        change(&mut case);
        assert_eq!(case.decide().authority, *then, "{what}");
        case.now -= SECOND;
        assert_eq!(case.decide().authority, *before, "a second before: {what}");
    }
}

#[test]
fn an_authority_that_lies_elsewhere_is_neither_made_nor_replaced_here_whatever_is_asked() {
    use AuthorityVerdict::{CaMissing, CaRefused, Keep};
    let rows: &[(&str, Change, AuthorityVerdict)] = &[
        ("nothing is wrong", |_| {}, Keep),
        ("another is asked for", |case| case.request = Request::Authority, Keep),
        ("at once", |case| case.request = Request::AuthorityNow, Keep),
        ("its end is near", |case| case.now = present(case).not_after - SECOND, Keep),
        ("its end", |case| case.now = present(case).not_after, CaRefused),
        ("a successor lies there, too", with_successor_known, Keep),
        ("it is gone", |case| case.authority = AuthorityReading::Missing, CaMissing),
        ("it is gone, and nothing is served", with_nothing, CaMissing),
        ("it is broken", |case| case.authority = AuthorityReading::Unreadable, CaMissing),
    ];
    for (what, change, verdict) in rows {
        let case = Case::healthy().with(|case| case.whose = Whose::Shared).with(change);
        assert_eq!(case.decide().authority, *verdict, "{what}");
    }
}

fn with_successor_known(case: &mut Case) {
    with_successor(case);
    case.now += DAY * 2;
}

fn with_nothing(case: &mut Case) {
    (case.leaf, case.authority) = (LeafReading::Missing, AuthorityReading::Missing);
}

#[test]
fn a_lost_authority_is_followed_by_the_successor_that_was_made_for_it() {
    for lost in [AuthorityReading::Missing, AuthorityReading::Unreadable] {
        let case = Case::healthy().with(with_successor).with(|case| case.authority = lost);
        assert_eq!(
            case.decide(),
            Decision { authority: AuthorityVerdict::Promote, leaf: LeafVerdict::Issue(Renew::CaChanged) }
        );
    }
}

#[test]
fn a_leaf_that_clients_trust_is_not_replaced_before_they_could_learn_who_signs_the_next_one() {
    let rows: &[(&str, Change, Option<Renew>)] = &[
        ("another authority", |_| {}, None),
        ("the second before", |case| case.now += DAY - SECOND, None),
        ("a day later", |case| case.now += DAY, Some(Renew::CaChanged)),
        (
            "not published yet",
            |case| {
                case.since = Since::default();
                case.now += DAY * 2;
            },
            None,
        ),
        ("a new host name", |case| _ = case.profile.dns_names.insert("new".into()), None),
        ("other parameters", |case| case.profile.duration = YEAR * 2, None),
        ("a leaf requested", |case| case.request = Request::Leaf, Some(Renew::CaChanged)),
        (
            "another's key",
            |case| {
                if let LeafReading::Read { key_fits, .. } = &mut case.leaf {
                    *key_fits = false;
                }
            },
            Some(Renew::KeyMismatch),
        ),
        ("no leaf", |case| case.leaf = LeafReading::Missing, Some(Renew::Missing)),
        ("the end", |case| case.now = case.facts().not_after, Some(Renew::Expired)),
    ];
    for (what, change, expected) in rows {
        let case = Case::healthy().with(swapped).with(change);
        let found = match case.decide().leaf {
            LeafVerdict::Issue(reason) => Some(reason),
            LeafVerdict::Keep { .. } => None,
        };
        assert_eq!(found, *expected, "{what}");
    }
}

#[test]
fn what_is_remembered_is_read_back_and_rubbish_is_forgotten() {
    let since = Since(BTreeMap::from([("AB:CD".to_owned(), now())]));
    assert_eq!(Since::read(since.render().as_deref()), since);
    assert_eq!(Since::default().render(), None);
    for rubbish in [None, Some(""), Some("{"), Some(r#"{"AB": "yesterday"}"#)] {
        assert_eq!(Since::read(rubbish), Since::default(), "{rubbish:?}");
    }
}

/// A registry over years, everything carried out for real.
struct World {
    profile: LeafProfile,
    authority_profile: AuthorityProfile,
    grace: SignedDuration,
    authority: Option<Authority>,
    next: Option<Authority>,
    leaf: Option<Leaf>,
    bundle: Bundle,
    since: Since,
    /// What pods serve, which may be older than what is stored.
    served: Option<Leaf>,
    last_reason: Option<Renew>,
    authorities: usize,
    leaves: usize,
}

impl World {
    fn new(leaf: SignedDuration, authority: SignedDuration, grace: SignedDuration) -> Self {
        Self {
            profile: LeafProfile { duration: leaf, ..leaf_profile() },
            authority_profile: AuthorityProfile { duration: authority, ..authority_profile() },
            grace,
            authority: None,
            next: None,
            leaf: None,
            bundle: Bundle::default(),
            since: Since::default(),
            served: None,
            last_reason: None,
            authorities: 0,
            leaves: 0,
        }
    }

    fn decide(&self, request: Request, now: Timestamp, rollout_pending: bool) -> Decision {
        let trusts = |leaf: &Leaf| self.bundle.signing(&leaf.chain_pem).iter().any(|(_, signs)| *signs);
        decide(&Input {
            leaf: LeafReading::of(self.leaf.as_ref(), self.authority.as_ref(), now),
            authority: AuthorityReading::of(self.authority.as_ref(), &self.profile),
            rotation: Rotation {
                next: AuthorityReading::of(self.next.as_ref(), &self.profile),
                was_shared: false,
                whose: Whose::Ours,
                since: &self.since,
                grace: self.grace,
                is_leaf_trusted: self.leaf.as_ref().is_some_and(trusts),
            },
            profile: &self.profile,
            uid: UID,
            now,
            rollout_pending,
            request,
            last_reason: self.last_reason,
        })
    }

    fn make(&mut self, now: Timestamp) -> Authority {
        self.authorities += 1;
        issue_authority(&self.authority_profile, now).unwrap()
    }

    /// Carries it out; when it is to be looked at again.
    fn step(&mut self, request: Request, now: Timestamp, rollout_pending: bool) -> Timestamp {
        let decision = self.decide(request, now, rollout_pending);
        match decision.authority {
            AuthorityVerdict::Issue(_) => (self.authority, self.next) = (Some(self.make(now)), None),
            AuthorityVerdict::Prepare(_) => self.next = Some(self.make(now)),
            AuthorityVerdict::Promote => self.authority = self.next.take(),
            AuthorityVerdict::Keep | AuthorityVerdict::CaMissing | AuthorityVerdict::CaRefused => {}
        }
        let authority = self.authority.as_ref().unwrap();
        let is_by = |leaf: &Option<Leaf>| {
            let by = Bundle::read(&authority.certificate_pem);
            leaf.as_ref().is_some_and(|leaf| by.signing(&leaf.chain_pem).iter().any(|(_, signs)| *signs))
        };
        let mut is_first = false;
        let mut look_again = None;
        match decision.leaf {
            LeafVerdict::Issue(reason) => {
                is_first = !is_by(&self.leaf);
                self.leaf = Some(issue_leaf(authority, &self.profile, now).unwrap());
                self.last_reason = Some(reason);
                self.leaves += 1;
            }
            LeafVerdict::Keep { look_again: at } => look_again = Some(at),
        }
        let leaf = self.leaf.as_ref().unwrap();
        let published = publish(Publishing {
            known: std::mem::take(&mut self.bundle).without_expired(now),
            present: &authority.certificate_pem,
            next: self.next.as_ref().map(|next| next.certificate_pem.as_str()),
            leaf: &leaf.chain_pem,
            is_first,
            is_everywhere: self.served == self.leaf,
            at_once: request == Request::AuthorityNow,
            since: &self.since,
            grace: self.grace,
            now,
        });
        (self.bundle, self.since) = (published.bundle, published.since);
        let due = renew_at(&facts(&leaf.chain_pem).unwrap(), UID);
        let moments = [look_again.or(Some(due)), published.signs_from, published.retires_at.filter(|at| *at > now)];
        moments.into_iter().flatten().min().unwrap()
    }

    fn stages(&self) -> (usize, bool) {
        (self.bundle.facts().len(), self.next.is_some())
    }
}

#[test]
fn clients_that_fetch_the_bundle_once_a_day_never_meet_an_authority_that_they_do_not_know() {
    let mut world = World::new(DAY * 30, YEAR, DAY);
    let (begin, mut now) = (now(), now());
    let mut fetched = (now, String::new());
    let (mut rotations, mut authority) = (0, String::new());
    while now < begin + YEAR * 5 {
        let next_look = world.step(Request::None, now, false);
        world.served = world.leaf.clone();
        if now.duration_since(fetched.0) >= DAY || fetched.1.is_empty() {
            fetched = (now, world.bundle.render());
        }
        handshake(world.leaf.as_ref().unwrap(), &fetched.1, "team-a", now)
            .unwrap_or_else(|error| panic!("at {now}, with a bundle of {}: {error}", fetched.0));
        assert!(world.bundle.facts().len() <= 2, "former ones are retired");
        let signs = world.authority.as_ref().unwrap().certificate_pem.clone();
        rotations += usize::from(signs != authority);
        authority = signs;
        now = next_look.min(fetched.0 + DAY);
    }
    assert!((7..=9).contains(&rotations), "five years at two thirds of a year each: {rotations}");
}

#[test]
fn a_former_authority_stays_until_no_pod_serves_what_it_signed() {
    let mut world = World::new(YEAR, YEAR * 10, DAY);
    let begin = now();
    world.step(Request::None, begin, false);
    world.served = world.leaf.clone();
    world.step(Request::Authority, begin, false);
    assert_eq!(world.stages(), (2, true));
    world.step(Request::None, begin + DAY, false);
    assert_eq!((world.stages(), world.last_reason), ((2, false), Some(Renew::CaChanged)));
    world.step(Request::None, begin + DAY * 3, false);
    assert_eq!(world.stages(), (2, false), "a pod still serves the former certificate");
    handshake(world.served.as_ref().unwrap(), &world.bundle.render(), "team-a", begin + DAY * 3).unwrap();
    world.served = world.leaf.clone();
    world.step(Request::None, begin + DAY * 3, false);
    assert_eq!(world.stages(), (1, false));
    assert_eq!(world.since, Since::default(), "nothing is left to be remembered");
}

#[test]
fn an_authority_in_wrong_hands_is_out_at_once_and_so_is_its_successor() {
    for request in [Request::None, Request::Authority] {
        let mut world = World::new(YEAR, YEAR * 10, DAY);
        world.step(Request::None, now(), false);
        world.step(request, now(), false);
        let stolen = world.bundle.clone();
        world.step(Request::AuthorityNow, now(), false);
        assert_eq!(world.stages(), (1, false));
        assert!(world.bundle.facts().iter().all(|left| !stolen.facts().contains(left)));
        handshake(world.leaf.as_ref().unwrap(), &world.bundle.render(), "team-a", now()).unwrap();
        let calm = world.decide(Request::None, now(), false);
        assert!(calm.authority == AuthorityVerdict::Keep && matches!(calm.leaf, LeafVerdict::Keep { .. }), "{calm:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The law behind everything: no combination of durations makes the operator renew in a loop, and what pods serve is valid and trusted after every step,
    /// however late they are.
    #[test]
    fn what_was_decided_and_done_stays_done(
        leaf_minutes in 1i32..2_000,
        authority_minutes in 1i32..6_000,
        grace_minutes in 1i32..3_000,
        steps in prop::collection::vec((0i32..2_000, any::<bool>(), any::<bool>()), 24),
    ) {
        let minute = SignedDuration::from_mins(1);
        let mut world = World::new(minute * leaf_minutes, minute * authority_minutes, minute * grace_minutes);
        let begin = now();
        let mut now = begin;
        for (late, rollout_pending, is_rolled_out) in steps {
            let look_again = world.step(Request::None, now, rollout_pending);
            let settled = world.decide(Request::None, now, rollout_pending);
            prop_assert_eq!(settled.authority, AuthorityVerdict::Keep);
            prop_assert!(matches!(settled.leaf, LeafVerdict::Keep { .. }), "{settled:?} at once");
            prop_assert!(look_again > now);
            if is_rolled_out || world.served.is_none() {
                world.served = world.leaf.clone();
            }
            let bundle = world.bundle.render();
            handshake(world.leaf.as_ref().unwrap(), &bundle, "team-a", now).unwrap();
            let served = world.served.as_ref().unwrap();
            if now < facts(&served.chain_pem).unwrap().not_after {
                handshake(served, &bundle, "team-a", now).unwrap();
            }
            // On time, or up to 2 seconds late.
            now = look_again + SignedDuration::from_millis(i64::from(late));
        }

        let elapsed = now.duration_since(begin).as_secs();
        let (leaf_life, authority_life) = (i64::from(leaf_minutes) * 60, i64::from(authority_minutes) * 60);
        // At least half a life apart; besides, each authority has a first leaf and one that is cut short by its end.
        prop_assert!(world.authorities as i64 <= 2 + 2 * elapsed / authority_life, "{} in {elapsed} s", world.authorities);
        prop_assert!(world.leaves as i64 <= 2 * elapsed / leaf_life + 2 * world.authorities as i64, "{} in {elapsed} s", world.leaves);
    }
}
