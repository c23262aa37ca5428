use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::kinds::{CLUSTER_TRUST_BUNDLE, CONFIG_MAP, SECRET};
use super::super::testing::{MARKS, reference, team_a};
use super::*;

fn memory() -> Memory {
    Memory::new(MARKS)
}

fn object(name: &str, uid: &str, version: u64) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "registries", "uid": uid, "resourceVersion": version.to_string(),
            "labels": {"test.dev/owner": "team-a"},
        },
        "data": {"password": "cGxhbnRlZA=="},
    })
}

fn foreign(name: &str) -> ObjectMeta {
    ObjectMeta { labels: None, ..metadata(&object(name, "u", 1)) }
}

fn metadata(object: &Value) -> ObjectMeta {
    serde_json::from_value(object["metadata"].clone()).unwrap()
}

fn remember(memory: &Memory, name: &str, version: u64) {
    let target = reference(SECRET, name);
    let since = memory.begin(&target, Some(("registries", "team-a")));
    memory.remember(&target, since, &Live::new(SECRET, object(name, "u", version)), Depth::Unread, None);
}

fn is_known(memory: &Memory, name: &str) -> bool {
    matches!(memory.recall(&reference(SECRET, name)), Recall::Known(_))
}

fn is_stale(memory: &Memory, name: &str) -> bool {
    matches!(memory.recall(&reference(SECRET, name)), Recall::Stale)
}

fn names(missing: &[Missing]) -> Vec<&str> {
    missing.iter().map(|missing| &*missing.object.name).collect()
}

#[test]
fn ten_thousand_foreign_objects_cost_nothing() {
    let memory = memory();
    for i in 0..10_000 {
        assert_eq!(memory.seen(SECRET, &foreign(&format!("theirs-{i}"))), Notice { changed: false, owner: None });
    }
    assert!(memory.is_empty());
}

#[test]
fn labelled_objects_that_come_and_go_leave_nothing_behind() {
    let memory = memory();
    for i in 0..10_000 {
        let theirs = metadata(&object(&format!("theirs-{i}"), "u", 1));
        assert!(memory.seen(SECRET, &theirs).changed);
        assert_eq!(memory.gone(SECRET, &theirs), Notice { changed: true, owner: team_a() });
    }
    assert!(memory.is_empty());
    assert!(memory.lock().children.is_empty());

    remember(&memory, "ours", 1);
    memory.gone(SECRET, &metadata(&object("ours", "u", 1)));
    assert_eq!(memory.len(), 1, "an answer about it may still come");
    memory.sweep();
    assert!(memory.is_empty() && memory.lock().children.is_empty());
}

/// So many objects fit into a memory that has room for twelve as [`remember`] leaves them.
fn small_memory() -> Memory {
    let one = memory();
    remember(&one, "a00", 1);
    Memory::with_room(MARKS, 12 * one.lock().held)
}

#[test]
fn content_for_which_there_is_no_room_is_let_go_but_not_what_is_asked_for() {
    let memory = small_memory();
    for n in 0..50 {
        remember(&memory, &format!("a{n:02}"), 1);
        assert!(is_known(&memory, "a00"), "after {n}");
    }
    let known = (0..50).filter(|n| is_known(&memory, &format!("a{n:02}"))).count();
    assert!((6..=12).contains(&known), "{known}");
    let state = memory.lock();
    assert!(state.held <= state.room);
}

/// A child of team-a as the watch and then a list showed it.
fn listed(memory: &Memory, name: &str) {
    let child = object(name, "u", 1);
    memory.seen(SECRET, &metadata(&child));
    memory.remember_listed(&reference(SECRET, name), "u", "1", child.to_string().into());
}

#[test]
fn what_was_read_ahead_waits_for_its_pass_and_no_longer() {
    let memory = small_memory();
    for n in 0..50 {
        listed(&memory, &format!("a{n:02}"));
    }
    let all = memory.lock().held;
    assert!(all > memory.lock().room, "it waits although there is no room");
    assert!(is_known(&memory, "a07"));
    memory.pass_is_over("registries", "team-b");
    assert_eq!(memory.lock().held, all);

    memory.pass_is_over("registries", "team-a");
    assert!(is_known(&memory, "a07"), "somebody asked for it");
    assert!(is_stale(&memory, "a08"), "the pass did not ask for it: of a paused owner, for instance");
    assert_eq!(memory.lock().held, all / 50);
    assert!(memory.stale_children("registries", "team-a").is_empty(), "it has not changed");
}

#[test]
fn what_a_pass_asked_for_keeps_no_page_of_a_list_in_memory() {
    let memory = small_memory();
    let child = object("a", "u", 1);
    let page = Bytes::from(format!("[{child}]"));
    memory.seen(SECRET, &metadata(&child));
    memory.remember_listed(&reference(SECRET, "a"), "u", "1", page.slice(1..page.len() - 1));
    assert!(is_known(&memory, "a") && !page.is_unique());
    memory.pass_is_over("registries", "team-a");
    assert!(is_known(&memory, "a") && page.is_unique());
}

/// What nobody's owner refers to by name, of this many bytes, as a read shows it.
fn referred(memory: &Memory, name: &str, bytes: usize) {
    let target = reference(SECRET, name);
    memory.mark_read(&target);
    let since = memory.begin(&target, None);
    let mut theirs = object(name, "u", 1);
    theirs["metadata"]["labels"] = json!({});
    theirs["data"]["password"] = "x".repeat(bytes).into();
    memory.remember(&target, since, &Live::new(SECRET, theirs), Depth::Whole, None);
}

#[test]
fn what_belongs_to_others_takes_no_more_than_its_share() {
    let memory = small_memory();
    for n in 0..50 {
        referred(&memory, &format!("theirs-{n:02}"), 100);
    }
    let state = memory.lock();
    assert!(state.held <= state.room, "{} of {}", state.held, state.room);
    drop(state);

    let memory = self::memory();
    referred(&memory, "small", 1_000);
    referred(&memory, "huge", LARGEST + 1);
    assert!(is_known(&memory, "small"));
    assert!(is_stale(&memory, "huge"), "it is read when it is needed");
    assert!(memory.lock().held < 3_000);
}

#[test]
fn what_there_is_one_of_for_each_child_is_small() {
    assert!(size_of::<Version>() <= 24, "{}", size_of::<Version>());
    assert!(size_of::<Entry>() <= 128, "{}", size_of::<Entry>());
}

#[test]
fn what_was_let_go_has_not_changed_and_is_read_when_it_is_needed() {
    let memory = small_memory();
    for n in 0..50 {
        remember(&memory, &format!("a{n:02}"), 1);
    }
    let gone = (0..50).map(|n| format!("a{n:02}")).find(|name| !is_known(&memory, name)).unwrap();
    assert!(is_stale(&memory, &gone));
    assert!(memory.stale_children("registries", "team-a").is_empty(), "it need not be compared");
    assert!(!memory.seen(SECRET, &metadata(&object(&gone, "u", 1))).changed);
    assert!(memory.seen(SECRET, &metadata(&object(&gone, "u", 2))).changed);
    remember(&memory, &gone, 2);
    assert!(is_known(&memory, &gone));
}

#[test]
fn what_is_held_is_counted_whatever_becomes_of_it() {
    let memory = memory();
    for n in 0..9 {
        remember(&memory, &format!("a{n}"), 1);
    }
    memory.doubt(&reference(SECRET, "a0"));
    memory.seen(SECRET, &metadata(&object("a1", "u", 2)));
    memory.gone(SECRET, &metadata(&object("a2", "u", 2)));
    remember(&memory, "a3", 3);
    let since = memory.begin(&reference(SECRET, "a4"), None);
    memory.remember_absence(&reference(SECRET, "a4"), since);
    memory.relist_started(SECRET, None);
    assert_eq!(memory.relisted(SECRET, None).len(), 7);
    assert_eq!(memory.lock().held, 0);
    remember(&memory, "a5", 1);
    memory.forget_owner("registries", "team-a");
    assert_eq!(memory.lock().held, 0);
}

#[test]
fn versions_in_the_usual_form_are_small_and_any_other_form_is_kept_as_it_is() {
    let usual = Version::new("1db0f34c-4220-4cc5-ad62-3015909f6654", "279");
    assert!(matches!(usual, Version::Usual { number, .. } if number.get() == 279));
    for (uid, version) in [
        ("1DB0F34C-4220-4cc5-ad62-3015909f6654", "279"),
        ("1db0f34c42204cc5ad623015909f6654", "279"),
        ("1db0f34c-4220-4cc5-ad62-3015909f665", "279"),
        ("1db0f34c-4220-4cc5-ad62-3015909f6654-", "279"),
        ("1db0f34c-4220-4cc5-ad62-3015909f665é", "279"),
        ("1db0f34c-4220-4cc5-ad62-3015909f6654", "0279"),
        ("1db0f34c-4220-4cc5-ad62-3015909f6654", "+279"),
        ("u", "x"),
        ("", ""),
    ] {
        assert!(matches!(Version::new(uid, version), Version::Other(_)), "{uid} {version}");
        assert!(Version::new(uid, version) != usual);
    }
}

#[test]
fn a_labelled_object_is_known_as_a_child_before_it_is_read() {
    let memory = memory();
    let notice = memory.seen(SECRET, &metadata(&object("a", "u", 1)));
    assert_eq!(notice, Notice { changed: true, owner: team_a() });
    assert_eq!(memory.children("registries", "team-a"), [reference(SECRET, "a")]);
    assert_eq!(memory.children("elsewhere", "team-a"), []);
}

#[test]
fn an_object_of_no_namespace_is_a_child_of_whom_its_labels_name() {
    let memory = memory();
    let mut child = object("a", "u", 1);
    child["metadata"]["namespace"] = Value::Null;
    child["metadata"]["labels"][MARKS.owner_namespace_label] = json!("registries");
    let notice = memory.seen(CLUSTER_TRUST_BUNDLE, &metadata(&child));
    assert_eq!(notice, Notice { changed: true, owner: team_a() });
    assert_eq!(memory.children("registries", "team-a"), [ObjectRef::new(CLUSTER_TRUST_BUNDLE, "", "a")]);
    assert_eq!(memory.seen(SECRET, &metadata(&child)), Notice::nothing(), "every Secret has a namespace");
}

#[test]
fn a_controlled_object_is_known_as_a_child_without_its_label() {
    let memory = memory();
    let mut child = object("a", "u", 1);
    child["metadata"]["labels"] = Value::Null;
    child["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "test.dev/v1", "kind": "Thing", "name": "team-a", "uid": "1", "controller": true}]);
    assert_eq!(memory.seen(SECRET, &metadata(&child)).owner, team_a());
}

#[test]
fn a_child_that_loses_its_label_still_concerns_its_owner() {
    let memory = memory();
    remember(&memory, "a", 1);
    let stripped = ObjectMeta { resource_version: Some("2".into()), ..foreign("a") };
    assert_eq!(memory.seen(SECRET, &stripped), Notice { changed: true, owner: team_a() });
}

#[test]
fn late_events_are_no_news() {
    let memory = memory();
    remember(&memory, "a", 10);
    assert!(!memory.seen(SECRET, &metadata(&object("a", "u", 10))).changed);
    assert!(!memory.seen(SECRET, &metadata(&object("a", "u", 9))).changed);
    assert!(!memory.gone(SECRET, &metadata(&object("a", "earlier", 5))).changed);
    assert!(is_known(&memory, "a"));
    assert!(memory.seen(SECRET, &metadata(&object("a", "u", 11))).changed);
    assert!(is_stale(&memory, "a"));
}

#[test]
fn a_list_that_shows_an_earlier_version_is_believed() {
    let memory = memory();
    remember(&memory, "a", 10);
    memory.relist_started(SECRET, None);
    assert!(memory.seen(SECRET, &metadata(&object("a", "u", 9))).changed, "a backup was restored");
}

#[test]
fn a_version_that_is_no_number_is_compared_only_for_equality() {
    let memory = memory();
    let mut live = object("a", "u", 1);
    live["metadata"]["resourceVersion"] = json!("opaque");
    let target = reference(SECRET, "a");
    memory.remember(&target, memory.begin(&target, None), &Live::new(SECRET, live.clone()), Depth::Unread, None);
    assert!(!memory.seen(SECRET, &metadata(&live)).changed);
    assert!(memory.seen(SECRET, &metadata(&object("a", "u", 0))).changed);
}

#[test]
fn an_answer_that_was_overtaken_by_news_is_not_trusted() {
    let target = reference(SECRET, "a");
    let answer = Live::new(SECRET, object("a", "u", 10));
    for (event, trusted) in [(10, true), (9, true), (11, false)] {
        let memory = memory();
        let since = memory.begin(&target, None);
        memory.seen(SECRET, &metadata(&object("a", "u", event)));
        memory.remember(&target, since, &answer, Depth::Unread, None);
        assert_eq!(is_known(&memory, "a"), trusted, "{event}");
    }
    let memory = memory();
    let since = memory.begin(&target, None);
    memory.gone(SECRET, &metadata(&object("a", "u", 11)));
    memory.remember(&target, since, &answer, Depth::Unread, None);
    assert!(matches!(memory.recall(&target), Recall::Absent));
}

#[test]
fn an_absence_that_was_overtaken_by_news_is_not_trusted() {
    let memory = memory();
    let target = reference(SECRET, "a");
    let since = memory.begin(&target, None);
    memory.seen(SECRET, &metadata(&object("a", "u", 1)));
    memory.remember_absence(&target, since);
    assert!(is_stale(&memory, "a"));
}

#[test]
fn what_a_relist_does_not_show_is_missing_in_its_scope_only() {
    let memory = memory();
    for name in ["listed", "missing"] {
        remember(&memory, name, 1);
    }
    let other_kind = reference(CONFIG_MAP, "other");
    memory.begin(&other_kind, Some(("registries", "team-a")));
    memory.relist_started(SECRET, Some("elsewhere"));
    assert_eq!(names(&memory.relisted(SECRET, Some("elsewhere"))), Vec::<&str>::new());

    memory.relist_started(SECRET, Some("registries"));
    memory.seen(SECRET, &metadata(&object("listed", "u", 1)));
    let missing = memory.relisted(SECRET, Some("registries"));
    assert_eq!(missing, [Missing { object: reference(SECRET, "missing"), owner: team_a() }]);
    assert!(is_known(&memory, "listed"));
    assert!(is_stale(&memory, "missing"));
    assert_eq!(memory.relisted(SECRET, Some("registries")), []);
}

#[test]
fn what_was_made_during_a_relist_stays_a_child() {
    let memory = memory();
    memory.relist_started(SECRET, None);
    remember(&memory, "new", 5);
    memory.relisted(SECRET, None);
    assert_eq!(memory.children("registries", "team-a"), [reference(SECRET, "new")]);
    assert!(is_stale(&memory, "new"), "it may have been deleted before the list was taken");
}

#[test]
fn a_sweep_trusts_nothing_and_forgets_no_child() {
    let memory = memory();
    remember(&memory, "a", 1);
    let absent = reference(SECRET, "absent");
    memory.remember_absence(&absent, memory.begin(&absent, Some(("registries", "team-a"))));
    memory.sweep();
    assert!(is_stale(&memory, "a"));
    assert!(matches!(memory.recall(&absent), Recall::Unknown));
    assert_eq!(memory.children("registries", "team-a"), [reference(SECRET, "a")]);
}

#[test]
fn what_nobody_refers_to_is_forgotten_and_children_are_not() {
    let memory = memory();
    remember(&memory, "child", 1);
    let reference_only = reference(SECRET, "users");
    memory.remember_absence(&reference_only, memory.begin(&reference_only, None));
    memory.forget(&reference(SECRET, "child"));
    memory.forget(&reference_only);
    assert_eq!(memory.len(), 1);

    memory.forget_owner("registries", "team-a");
    assert!(memory.is_empty());
    assert_eq!(memory.children("registries", "team-a"), []);
}

#[test]
fn nothing_of_it_is_printed() {
    let memory = memory();
    remember(&memory, "a", 1);
    assert_eq!(format!("{memory:?}"), "Memory(1 objects)");
}

/// One object on a server, a watch that tells of it late, and requests whose answers come late.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Somebody makes the object or changes it.
    Write,
    /// Somebody deletes it.
    Delete,
    /// The watch delivers its next event.
    Deliver,
    /// We send a read; the server sees it; its answer arrives.
    Ask,
    Serve,
    Answer,
    /// The watch breaks and lists anew: begins; the server takes the list; the list arrives.
    Break,
    List,
    Listed,
}

#[derive(Default)]
struct World {
    truth: Option<Value>,
    version: u64,
    events: Vec<(bool, Value)>,
    asked: Option<Since>,
    served: Option<Option<Value>>,
    is_broken: bool,
    listed: Option<Option<Value>>,
}

impl World {
    fn step(&mut self, memory: &Memory, step: Step) {
        let target = reference(SECRET, "a");
        match step {
            Step::Write => {
                self.version += 1;
                let uid = self.truth.as_ref().map_or_else(
                    || format!("uid-{}", self.version),
                    |object| object["metadata"]["uid"].as_str().unwrap().to_owned(),
                );
                let object = object("a", &uid, self.version);
                self.events.push((false, object.clone()));
                self.truth = Some(object);
            }
            Step::Delete => {
                self.version += 1;
                if let Some(mut object) = self.truth.take() {
                    object["metadata"]["resourceVersion"] = json!(self.version.to_string());
                    self.events.push((true, object));
                }
            }
            Step::Deliver if !self.is_broken && !self.events.is_empty() => match self.events.remove(0) {
                (true, object) => _ = memory.gone(SECRET, &metadata(&object)),
                (false, object) => _ = memory.seen(SECRET, &metadata(&object)),
            },
            Step::Ask if self.asked.is_none() => self.asked = Some(memory.begin(&target, None)),
            Step::Serve if self.asked.is_some() && self.served.is_none() => self.served = Some(self.truth.clone()),
            Step::Answer => match (self.asked, self.served.take()) {
                (Some(since), Some(Some(object))) => {
                    memory.remember(&target, since, &Live::new(SECRET, object), Depth::Unread, None);
                    self.asked = None;
                }
                (Some(since), Some(None)) => {
                    memory.remember_absence(&target, since);
                    self.asked = None;
                }
                (_, served) => self.served = served,
            },
            Step::Break if !self.is_broken => {
                self.is_broken = true;
                memory.relist_started(SECRET, None);
            }
            Step::List if self.is_broken && self.listed.is_none() => {
                self.listed = Some(self.truth.clone());
                self.events.clear();
            }
            Step::Listed => {
                if let Some(list) = self.listed.take() {
                    if let Some(object) = list {
                        memory.seen(SECRET, &metadata(&object));
                    }
                    memory.relisted(SECRET, None);
                    self.is_broken = false;
                }
            }
            _ => {}
        }
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self, memory: &Memory) {
        for step in [Step::List, Step::Listed, Step::Serve, Step::Answer] {
            self.step(memory, step);
        }
        while !self.events.is_empty() {
            self.step(memory, Step::Deliver);
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::{Answer, Ask, Break, Delete, Deliver, List, Listed, Serve, Write};
    let all = vec![Write, Write, Delete, Deliver, Deliver, Ask, Ask, Serve, Serve, Answer, Answer, Break, List, Listed];
    prop::collection::vec(prop::sample::select(all), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// In whatever order answers, events and lists arrive: once all of them have, what is remembered is true.
    #[test]
    fn no_change_is_ever_lost(steps in steps()) {
        let memory = memory();
        let mut world = World::default();
        for step in steps {
            world.step(&memory, step);
        }
        world.settle(&memory);
        match memory.recall(&reference(SECRET, "a")) {
            Recall::Known(known) => {
                prop_assert_eq!(Some(&known.live.value()["metadata"]), world.truth.as_ref().map(|object| &object["metadata"]));
            }
            Recall::Absent => prop_assert!(world.truth.is_none()),
            Recall::Unknown => prop_assert!(world.truth.is_none()),
            Recall::Stale => {}
        }
        for step in [Step::Ask, Step::Serve, Step::Answer] {
            world.step(&memory, step);
        }
        let is_settled = matches!(memory.recall(&reference(SECRET, "a")), Recall::Known(_) | Recall::Absent);
        prop_assert!(is_settled, "one read is enough");
    }
}
