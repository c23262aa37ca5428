use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use k8s_openapi::jiff::Timestamp;

use super::*;

fn object(namespace: &str, name: &str, version: u64) -> ConfigMap {
    let metadata = ObjectMeta {
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(format!("uid-{name}")),
        resource_version: Some(version.to_string()),
        generation: Some(1),
        ..ObjectMeta::default()
    };
    ConfigMap { metadata, ..ConfigMap::default() }
}

fn with(version: u64, change: impl FnOnce(&mut ObjectMeta)) -> ConfigMap {
    let mut object = object("team", "a", version);
    change(&mut object.metadata);
    object
}

fn good(object: ConfigMap) -> Guarded<ConfigMap> {
    Guarded::Known(object)
}

fn broken(name: &str, error: &str) -> Guarded<ConfigMap> {
    broken_with(object("team", name, 2), error)
}

fn broken_with(object: ConfigMap, error: &str) -> Guarded<ConfigMap> {
    let metadata = object.metadata;
    Guarded::Unfollowed(Box::new(Unfollowed { error: error.into(), metadata, object: serde_json::Value::Null }))
}

struct Bench(Objects<ConfigMap>);

impl Bench {
    fn new() -> Self {
        Self(Objects::default())
    }

    /// What an event means, as "name What".
    fn on(&self, scope: &Scope, event: Event<Guarded<ConfigMap>>) -> Vec<String> {
        self.0.apply(scope, event).iter().map(describe).collect()
    }

    fn apply(&self, object: ConfigMap) -> Vec<String> {
        self.on(&Scope::All, Event::Apply(good(object)))
    }

    fn list(&self, scope: &Scope, objects: Vec<Guarded<ConfigMap>>) -> Vec<String> {
        let events =
            std::iter::once(Event::Init).chain(objects.into_iter().map(Event::InitApply)).chain([Event::InitDone]);
        events.flat_map(|event| self.on(scope, event)).collect()
    }
}

fn describe(change: &Change) -> String {
    format!("{} {:?}", change.key.name, change.what)
}

#[test]
fn what_changed_is_named() {
    type Edit = fn(&mut ObjectMeta);
    let cases: [(&str, Edit, &str); 9] = [
        ("spec", |meta| meta.generation = Some(2), "a SpecChanged"),
        (
            "spec and labels",
            |meta| (meta.generation, meta.labels) = (Some(2), Some([("x".into(), "y".into())].into())),
            "a SpecChanged",
        ),
        ("labels", |meta| meta.labels = Some([("x".into(), "y".into())].into()), "a MetadataChanged"),
        ("annotations", |meta| meta.annotations = Some([("x".into(), "y".into())].into()), "a MetadataChanged"),
        ("finalizers", |meta| meta.finalizers = Some(vec!["x".into()]), "a MetadataChanged"),
        ("owners", |meta| meta.owner_references = Some(vec![Default::default()]), "a MetadataChanged"),
        (
            "deletion",
            |meta| (meta.generation, meta.deletion_timestamp) = (Some(2), Some(Time(Timestamp::UNIX_EPOCH))),
            "a MetadataChanged",
        ),
        ("status", |_| (), "a StatusOnly"),
        ("managed fields", |meta| meta.managed_fields = Some(vec![ManagedFieldsEntry::default()]), "a StatusOnly"),
    ];
    for (name, edit, expected) in cases {
        let bench = Bench::new();
        assert_eq!(bench.apply(with(1, |_| ())), ["a Added"]);
        assert_eq!(bench.apply(with(2, edit)), [expected], "{name}");
        assert_eq!(bench.apply(with(2, edit)), [""; 0], "{name}: the same again is no news");
    }
    assert!(!What::StatusOnly.wants_a_pass());
    assert!(What::SpecChanged.wants_a_pass());
}

#[test]
fn what_a_list_does_not_show_any_more_is_removed_in_that_scope_only() {
    let bench = Bench::new();
    let (one, two) = (Scope::Namespace("one".into()), Scope::Namespace("two".into()));
    let many = |namespace: &str, names: &[&str]| names.iter().map(|name| good(object(namespace, name, 1))).collect();
    assert_eq!(bench.list(&one, many("one", &["a", "b", "c"])), ["a Added", "b Added", "c Added"]);
    assert_eq!(bench.list(&two, many("two", &["d"])), ["d Added"]);
    assert_eq!(bench.list(&one, many("one", &["b"])), ["a Removed", "c Removed"]);
    assert_eq!(bench.0.keys(), [Key::new("one", "b"), Key::new("two", "d")]);
}

#[test]
fn a_list_that_breaks_off_removes_nothing() {
    let bench = Bench::new();
    bench.list(&Scope::All, vec![good(object("team", "a", 1)), good(object("team", "b", 1))]);
    bench.on(&Scope::All, Event::Init);
    bench.on(&Scope::All, Event::InitApply(good(object("team", "a", 1))));
    let complete = vec![good(object("team", "b", 1))];
    assert_eq!(bench.list(&Scope::All, complete), ["a Removed"], "what the broken list had shown doesn't count");
}

#[test]
fn a_list_after_a_restored_backup_goes_back_and_a_watch_never_does() {
    let bench = Bench::new();
    bench.list(&Scope::All, vec![good(object("team", "a", 900))]);
    assert_eq!(bench.apply(object("team", "a", 600)), [""; 0], "an event that came late");
    assert_eq!(bench.list(&Scope::All, vec![good(object("team", "a", 600))]), ["a SpecChanged"]);
    assert_eq!(bench.apply(with(601, |meta| meta.generation = Some(2))), ["a SpecChanged"], "followed from there");
    assert_eq!(
        bench.list(&Scope::All, vec![broken_with(object("team", "a", 500), "no")]),
        ["a SpecChanged", "a Undecodable"]
    );
}

#[test]
fn a_list_that_is_older_than_the_answer_to_a_write_does_not_go_back() {
    let bench = Bench::new();
    bench.list(&Scope::All, vec![good(object("team", "a", 5))]);
    bench.on(&Scope::All, Event::Init);
    bench.0.learn(object("team", "a", 7));
    assert_eq!(bench.on(&Scope::All, Event::InitApply(good(object("team", "a", 6)))), [""; 0]);
    bench.on(&Scope::All, Event::InitDone);
    assert_eq!(bench.0.get(&Key::new("team", "a")).unwrap().metadata.resource_version.as_deref(), Some("7"));
}

#[test]
fn another_object_of_the_same_name_is_a_removal_and_an_addition() {
    let bench = Bench::new();
    bench.apply(with(1, |_| ()));
    assert_eq!(bench.apply(with(5, |meta| meta.uid = Some("other".into()))), ["a Removed", "a Added"]);
}

#[test]
fn an_object_that_cannot_be_decoded_is_reported_once_and_comes_back_when_repaired() {
    let bench = Bench::new();
    let key = Key::new("team", "a");
    assert_eq!(bench.on(&Scope::All, Event::Apply(broken("a", "missing field `spec`"))), ["a Undecodable"]);
    assert_eq!(bench.0.get(&key), None);
    assert_eq!(bench.0.undecodable(), BTreeMap::from([(key, "missing field `spec`".to_owned())]));
    assert_eq!(bench.list(&Scope::All, vec![broken("a", "missing field `spec`")]), [""; 0]);
    assert_eq!(bench.on(&Scope::All, Event::Apply(broken("a", "unknown variant"))), ["a Undecodable"]);
    assert_eq!(bench.apply(with(3, |_| ())), ["a Added"]);
    assert!(bench.0.undecodable().is_empty());

    bench.on(&Scope::All, Event::Apply(broken_with(with(4, |_| ()), "again")));
    assert_eq!(bench.on(&Scope::All, Event::Delete(broken("a", "again"))), ["a Removed"]);
    bench.on(&Scope::All, Event::Apply(broken("b", "again")));
    assert_eq!(bench.list(&Scope::All, vec![]), ["b Removed"]);
    assert!(bench.0.undecodable().is_empty());
}

#[test]
fn what_was_decoded_last_is_kept_with_the_metadata_of_now() {
    let bench = Bench::new();
    let key = Key::new("team", "a");
    let mut good = with(1, |_| ());
    good.data = Some([("spec".into(), "good".into())].into());
    bench.apply(good.clone());
    let changed = |version, change: fn(&mut ObjectMeta)| {
        let object = with(version, |meta| {
            meta.generation = Some(2);
            change(meta);
        });
        bench.on(&Scope::All, Event::Apply(broken_with(object, "unknown variant")))
    };

    assert_eq!(changed(2, |_| ()), ["a StatusOnly", "a Undecodable"]);
    let kept = bench.0.get(&key).unwrap();
    assert_eq!(
        (&kept.data, kept.metadata.generation),
        (&good.data, Some(1)),
        "nothing is claimed of a later generation"
    );
    assert_eq!(
        changed(3, |meta| meta.annotations = Some([("paused".into(), "true".into())].into())),
        ["a MetadataChanged"]
    );
    assert_eq!(bench.0.get(&key).unwrap().metadata.annotations, Some([("paused".into(), "true".into())].into()));
    assert_eq!(bench.0.learn(good), None);
    assert_eq!(bench.0.undecodable().len(), 1, "an answer from before does not repair it");
    assert_eq!(bench.apply(with(4, |meta| meta.generation = Some(3))), ["a SpecChanged"]);
    assert!(bench.0.undecodable().is_empty());
    let leaves: fn(&mut ObjectMeta) = |meta| meta.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    assert_eq!(changed(5, leaves), ["a MetadataChanged", "a Undecodable"]);
}

#[test]
fn another_object_of_the_same_name_that_cannot_be_decoded_has_nothing_of_the_one_before() {
    let bench = Bench::new();
    bench.apply(with(1, |_| ()));
    let other = with(5, |meta| meta.uid = Some("other".into()));
    assert_eq!(bench.on(&Scope::All, Event::Apply(broken_with(other, "x"))), ["a Removed", "a Undecodable"]);
    assert!(bench.0.is_empty());
}

#[test]
fn a_writes_answer_is_known_at_once_and_its_event_is_no_news() {
    let bench = Bench::new();
    bench.apply(with(1, |_| ()));
    assert_eq!(bench.0.learn(with(3, |_| ())).as_ref().map(describe).as_deref(), Some("a StatusOnly"));
    assert_eq!(bench.apply(with(3, |_| ())), [""; 0]);
}

#[test]
fn a_users_change_that_a_writes_answer_shows_first_is_not_lost() {
    let bench = Bench::new();
    bench.apply(with(1, |_| ()));
    let learned = bench.0.learn(with(3, |meta| meta.generation = Some(2)));
    assert_eq!(learned.as_ref().map(describe).as_deref(), Some("a SpecChanged"));
    assert_eq!(bench.apply(with(2, |meta| meta.generation = Some(2))), [""; 0], "its own event comes late");
    assert_eq!(bench.0.get(&Key::new("team", "a")).unwrap().metadata.resource_version.as_deref(), Some("3"));
}

#[test]
fn a_late_answer_neither_turns_time_back_nor_raises_the_dead() {
    let bench = Bench::new();
    bench.apply(with(9, |_| ()));
    assert_eq!(bench.0.learn(with(8, |meta| meta.generation = Some(7))), None);
    assert_eq!(bench.0.learn(with(10, |meta| meta.uid = Some("before".into()))), None);
    bench.on(&Scope::All, Event::Delete(good(with(11, |_| ()))));
    assert_eq!(bench.0.learn(with(10, |_| ())), None);
    assert!(bench.0.is_empty());
}

#[test]
fn managed_fields_and_the_copy_of_the_manifest_are_not_kept() {
    let bench = Bench::new();
    let copy = "kubectl.kubernetes.io/last-applied-configuration";
    bench.apply(with(1, |meta| {
        meta.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
        meta.annotations = Some([(copy.into(), "{}".into()), ("keep".into(), "me".into())].into());
    }));
    let kept = bench.0.get(&Key::new("team", "a")).unwrap();
    assert_eq!(kept.metadata.managed_fields, None);
    assert_eq!(kept.metadata.annotations, Some([("keep".into(), "me".into())].into()));
}
