use proptest::prelude::*;
use serde_json::json;

use super::super::kinds::DEPLOYMENT;
use super::super::testing::reference;
use super::*;

/// A field whose wanted content is `wanted`, and which isn't so.
fn field(path: &str, wanted: &str) -> Divergence {
    Divergence { path: path.into(), wanted: Hash::of(&json!(wanted)), live: Hash::of(&json!("theirs")) }
}

fn hpa(_: &str) -> Rival {
    Rival::Manager("hpa".into())
}

/// A fight over one field, told in seconds.
struct Fight {
    disputes: Disputes,
    began: Instant,
}

impl Fight {
    fn new() -> Self {
        Self { disputes: Disputes::default(), began: Instant::now() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.began + Duration::from_secs(seconds)
    }

    /// The field was found changed back: whether it may be repaired at once, which is done then.
    fn changed_back(&mut self, seconds: u64, path: &str) -> bool {
        let (now, place) = (self.at(seconds), field(path, "ours"));
        self.disputes.expire(now);
        let waits = self.disputes.is_waiting(&place, now);
        if waits {
            self.disputes.compared(&[place], hpa);
        } else {
            self.disputes.repaired(&[place], hpa, now);
        }
        !waits
    }

    fn contest(&mut self, seconds: u64) -> Option<Contest> {
        self.disputes.expire(self.at(seconds));
        self.disputes.contest(&reference(DEPLOYMENT, "team-a"), self.at(seconds))
    }

    /// Three repairs, the last at 20 seconds.
    fn begun() -> Self {
        let mut fight = Self::new();
        for seconds in [0, 10, 20] {
            assert!(fight.changed_back(seconds, "spec.replicas"));
        }
        fight
    }
}

#[test]
fn three_repairs_of_one_field_within_ten_minutes_are_a_fight() {
    for (repairs, is_fight) in [
        (&[0, 10][..], false),
        (&[0, 10, 20], true),
        (&[0, 299, 599], true),
        (&[0, 300, 601], false),
        (&[0, 700, 1400, 2100], false),
        (&[0, 500, 700, 800], true),
    ] {
        let mut fight = Fight::new();
        for seconds in repairs {
            assert!(fight.changed_back(*seconds, "spec.replicas"), "{repairs:?}");
        }
        assert_eq!(fight.contest(*repairs.last().unwrap()).is_some(), is_fight, "{repairs:?}");
    }
}

#[test]
fn repairs_of_different_fields_are_no_fight() {
    let mut fight = Fight::new();
    for (seconds, path) in ["a", "b", "c", "d", "e"].iter().enumerate() {
        assert!(fight.changed_back(seconds as u64, path));
    }
    assert_eq!(fight.contest(5), None);
}

#[test]
fn the_wait_doubles_up_to_ten_minutes() {
    let mut fight = Fight::begun();
    let mut last = 20;
    for wait in [60, 120, 240, 480, 600, 600] {
        assert!(!fight.changed_back(last + 1, "spec.replicas"), "at once");
        assert!(!fight.changed_back(last + wait - 1, "spec.replicas"), "a second before {wait} are over");
        assert_eq!(fight.contest(last + wait - 1).unwrap().look_again, Duration::from_secs(1));
        assert!(fight.changed_back(last + wait, "spec.replicas"), "after {wait}");
        last += wait;
    }
    assert_eq!(fight.contest(last).unwrap().times, 9);
}

#[test]
fn it_is_over_when_the_field_stays_ours_for_ten_minutes() {
    let mut fight = Fight::begun();
    let contest = fight.contest(30).unwrap();
    assert_eq!((contest.is_lost, contest.look_again), (false, Duration::from_secs(590)));
    assert!(fight.contest(619).is_some());
    assert_eq!(fight.contest(620), None);
    assert!(fight.disputes.is_empty());
    assert!(fight.changed_back(621, "spec.replicas"), "a new one begins from nothing");
    assert_eq!(fight.contest(621), None);
}

#[test]
fn it_is_not_over_while_the_field_is_theirs() {
    let mut fight = Fight::begun();
    assert!(!fight.changed_back(21, "spec.replicas"));
    let contest = fight.contest(5000).unwrap();
    assert_eq!((contest.is_lost, contest.look_again), (true, Duration::ZERO));
    fight.disputes.compared(&[], hpa);
    assert_eq!(fight.contest(5000), None, "they gave in long ago");
}

#[test]
fn another_field_does_not_wait_and_what_waits_is_written_with_it_uncounted() {
    let mut fight = Fight::begun();
    assert!(!fight.changed_back(21, "spec.replicas"));
    let (now, both) = (fight.at(25), [field("spec.replicas", "ours"), field("spec.paused", "ours")]);
    assert_eq!(both.each_ref().map(|place| fight.disputes.is_waiting(place, now)), [true, false]);

    fight.disputes.repaired(&both, hpa, now);
    let contest = fight.contest(25).unwrap();
    assert_eq!((contest.is_lost, contest.times), (false, 3));
    assert!(fight.changed_back(80, "spec.replicas"), "a minute after the third repair, not after the fourth write");
}

#[test]
fn a_field_of_which_something_else_is_wanted_is_not_fought_over() {
    let mut fight = Fight::begun();
    assert!(!fight.disputes.is_waiting(&field("spec.replicas", "else"), fight.at(21)));

    fight.disputes.rewritten(|_| Hash::of(&json!("ours")));
    assert!(fight.contest(21).is_some(), "something else of the object was changed");
    fight.disputes.rewritten(|_| Hash::of(&json!("else")));
    assert_eq!(fight.contest(21), None);
}

#[test]
fn it_is_told_with_the_name_and_the_field_that_is_lost() {
    let mut fight = Fight::begun();
    assert_eq!(
        fight.contest(21).unwrap().to_string(),
        "spec.replicas of Deployment registries/team-a is changed back by hpa, 3 times; stop it, or let it leave this field alone; \
         until then, repairs wait up to 10 minutes"
    );
    for seconds in [21, 22, 23] {
        assert!(fight.changed_back(seconds, "metadata.labels.x"));
    }
    assert!(!fight.changed_back(24, "metadata.labels.x"));
    let contest = fight.contest(24).unwrap();
    assert_eq!((contest.path.as_str(), contest.others), ("metadata.labels.x", 1));
    assert!(contest.to_string().contains(", and so is another field;"));
}

#[test]
fn who_has_no_name_is_told_from_what_happens_on_the_way_in() {
    assert_eq!(Rival::Admission.to_string(), "an admission webhook or policy");
    assert_eq!(Rival::Somebody.to_string(), "somebody");
}

proptest! {
    /// However the other times its changes, a field is repaired at most six times in ten minutes: thrice at once, then after 1, 2 and 4 minutes.
    #[test]
    fn a_field_is_never_written_often(gaps in prop::collection::vec(1_u64..900, 1..200)) {
        let mut fight = Fight::new();
        let (mut seconds, mut repairs) = (0, Vec::new());
        for gap in gaps {
            seconds += gap;
            if fight.changed_back(seconds, "spec.replicas") {
                repairs.push(seconds);
            }
        }
        for (number, first) in repairs.iter().enumerate() {
            let within = repairs[number..].iter().filter(|repair| **repair < first + 600).count();
            prop_assert!(within <= 6, "{:?}", repairs);
        }
    }

    /// Whoever looks again when told to repairs a lost field as soon as it may be, and sees the end of a fight.
    #[test]
    fn looking_again_when_told_misses_nothing(gaps in prop::collection::vec(1_u64..300, 3..40)) {
        let mut fight = Fight::begun();
        let mut seconds = 20;
        for gap in gaps {
            let Some(contest) = fight.contest(seconds) else { return Ok(()) };
            let told = contest.look_again.as_secs();
            prop_assert!(told <= 600 && (told > 0 || contest.is_due()));
            if told > 0 && contest.is_lost {
                prop_assert!(!fight.changed_back(seconds + told - 1, "spec.replicas"), "not a second earlier");
                prop_assert!(fight.changed_back(seconds + told, "spec.replicas"), "then at once");
                seconds += told;
            } else {
                seconds += gap;
                fight.changed_back(seconds, "spec.replicas");
            }
        }
    }
}
