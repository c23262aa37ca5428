use serde_json::{Value, json};

use super::super::error::Class;
use super::super::kinds::{CONFIG_MAP, DEPLOYMENT, JOB, PERSISTENT_VOLUME_CLAIM, SECRET, SERVICE};
use super::super::memory::Notice;
use super::super::testing::{Cluster, child, config, deployment, job, owner, secret, service, set, team_a};
use super::super::wanted::Hold;
use super::*;

async fn apply(cluster: &Cluster, child: &Child) -> Outcome {
    cluster.engine.apply(&owner(), child).await.unwrap().outcome
}

async fn error(cluster: &Cluster, child: &Child) -> Error {
    cluster.engine.apply(&owner(), child).await.unwrap_err()
}

fn nothing() -> Vec<String> {
    Vec::new()
}

// Quiet.

#[tokio::test]
async fn a_new_child_costs_one_request_and_a_settled_one_none() {
    let cluster = Cluster::new();
    assert_eq!(apply(&cluster, &service()).await, Outcome::Created);
    assert_eq!(cluster.requests(), ["create Service/team-a 201"]);

    assert_eq!(apply(&cluster, &service()).await, Outcome::Unchanged);
    assert_eq!(cluster.requests(), nothing());
}

#[tokio::test]
async fn the_event_of_our_own_write_is_no_news() {
    let cluster = Cluster::new();
    apply(&cluster, &service()).await;
    assert_eq!(cluster.tell(SERVICE, "team-a"), Notice { changed: false, owner: team_a() });

    cluster.requests();
    apply(&cluster, &service()).await;
    assert_eq!(cluster.requests(), nothing());
}

#[tokio::test]
async fn a_restarted_operator_reads_each_child_once_and_writes_nothing() {
    let mut cluster = Cluster::new();
    let children = [service(), config("x"), secret(Hold::Kept), deployment("r:1")];
    cluster.engine.apply_all(&owner(), &children).await.unwrap();
    cluster.requests();
    cluster.restart_operator();

    let applied = cluster.engine.apply_all(&owner(), &children).await.unwrap();
    assert!(applied.iter().all(|applied| applied.outcome == Outcome::Unchanged));
    assert_eq!(cluster.requests().len(), 4);
    cluster.engine.apply_all(&owner(), &children).await.unwrap();
    assert_eq!(cluster.requests(), nothing());
}

#[tokio::test]
async fn a_secret_that_was_read_for_its_content_is_not_read_again_to_be_compared() {
    let mut cluster = Cluster::new();
    apply(&cluster, &secret(Hold::Kept)).await;
    cluster.restart_operator();
    cluster.requests();

    let live = cluster.engine.read(SECRET, "registries", "team-a-ca").await.unwrap().unwrap();
    assert_eq!(live.data("tls.key").unwrap(), b"planted");
    assert_eq!(apply(&cluster, &secret(Hold::Kept)).await, Outcome::Unchanged);
    let live = cluster.engine.read(SECRET, "registries", "team-a-ca").await.unwrap().unwrap();
    assert_eq!(live.data("tls.key").unwrap(), b"planted");
    assert_eq!(cluster.requests(), ["read Secret/team-a-ca 200"]);
}

// Repair.

#[tokio::test]
async fn an_edited_child_is_repaired_with_one_read_and_one_write() {
    let cluster = Cluster::new();
    apply(&cluster, &service()).await;
    let edit = |object: &mut Value| {
        set(object, "spec.type", json!("NodePort"));
        set(object, "spec.theirs", json!("y"));
    };
    assert_eq!(cluster.edit(SERVICE, "team-a", edit), Notice { changed: true, owner: team_a() });
    cluster.requests();

    assert_eq!(apply(&cluster, &service()).await, Outcome::Changed);
    assert_eq!(cluster.requests(), ["read Service/team-a 200", "update Service/team-a 200"]);
    let spec = &cluster.get(SERVICE, "team-a").unwrap()["spec"];
    assert_eq!((&spec["type"], &spec["theirs"]), (&json!("ClusterIP"), &json!("y")), "what others added is theirs");
}

#[tokio::test]
async fn a_posted_child_is_held_by_apply_from_its_first_repair_on() {
    let cluster = Cluster::new();
    apply(&cluster, &config("wanted")).await;
    assert_eq!(managers(&cluster.get(CONFIG_MAP, "team-a-ca").unwrap()), [("test-operator", "Update")]);
    cluster.requests();

    for requests in [
        &["read ConfigMap/team-a-ca 200", "replace ConfigMap/team-a-ca 200", "update ConfigMap/team-a-ca 200"][..],
        &["read ConfigMap/team-a-ca 200", "update ConfigMap/team-a-ca 200"],
    ] {
        cluster.edit(CONFIG_MAP, "team-a-ca", |object| set(object, "data", json!({"ca.crt": "edited"})));
        assert_eq!(apply(&cluster, &config("wanted")).await, Outcome::Changed);
        assert_eq!(cluster.requests(), requests);
        let now = cluster.get(CONFIG_MAP, "team-a-ca").unwrap();
        assert_eq!(now["data"], json!({"ca.crt": "wanted"}));
        assert_eq!(managers(&now), [("test-operator", "Apply")]);
    }
}

fn managers(object: &Value) -> Vec<(&str, &str)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().map(|entry| (entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn an_element_that_was_renamed_is_renamed_back() {
    let cluster = Cluster::new();
    apply(&cluster, &service()).await;
    let before = cluster.get(SERVICE, "team-a").unwrap();
    cluster.edit(SERVICE, "team-a", |object| set(&mut object["spec"]["ports"][0], "port", json!(5001)));
    cluster.requests();

    assert_eq!(apply(&cluster, &service()).await, Outcome::Changed);
    let after = cluster.get(SERVICE, "team-a").unwrap();
    assert_eq!(after["spec"], before["spec"]);
    assert_eq!(managers(&after), [("test-operator", "Apply")], "nothing is held otherwise, so dropped fields go");
    assert_eq!(apply(&cluster, &service()).await, Outcome::Unchanged);
}

#[tokio::test]
async fn an_addition_that_makes_our_part_invalid_goes() {
    let cluster = Cluster::new();
    apply(&cluster, &service()).await;
    let before = cluster.get(SERVICE, "team-a").unwrap();
    let theirs = json!([{"name": "registry", "port": 1, "targetPort": 1}]);
    cluster.edit(SERVICE, "team-a", |object| set(object, "spec.ports", theirs));

    assert_eq!(apply(&cluster, &service()).await, Outcome::Changed);
    assert_eq!(cluster.get(SERVICE, "team-a").unwrap()["spec"], before["spec"]);
}

#[tokio::test]
async fn what_an_interrupted_repair_left_behind_is_cleared_away_after_a_restart() {
    let mut cluster = Cluster::new();
    apply(&cluster, &service()).await;
    cluster.edit(SERVICE, "team-a", |object| {
        let entries = object["metadata"]["managedFields"].as_array_mut().unwrap();
        entries.insert(0, json!({"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}}));
        entries.push(json!({"manager": "test-operator", "operation": "Update", "fieldsV1": {"f:spec": {}}}));
    });
    cluster.restart_operator();
    cluster.engine.read(SERVICE, "registries", "team-a").await.unwrap();

    apply(&cluster, &service()).await;
    let after = cluster.get(SERVICE, "team-a").unwrap();
    assert_eq!(managers(&after), [("kubectl", "Update"), ("test-operator", "Apply")]);
}

#[tokio::test]
async fn what_others_add_is_read_once_and_left_alone() {
    let cluster = Cluster::new();
    apply(&cluster, &config("x")).await;
    cluster.edit(CONFIG_MAP, "team-a-ca", |object| set(object, "metadata.annotations", json!({"theirs": "1"})));
    cluster.requests();

    assert_eq!(apply(&cluster, &config("x")).await, Outcome::Unchanged);
    assert_eq!(apply(&cluster, &config("x")).await, Outcome::Unchanged);
    assert_eq!(cluster.requests(), ["read ConfigMap/team-a-ca 200"]);
}

#[tokio::test]
async fn a_deleted_child_is_back_with_one_write() {
    let cluster = Cluster::new();
    apply(&cluster, &service()).await;
    assert_eq!(cluster.delete(SERVICE, "team-a"), Notice { changed: true, owner: team_a() });
    cluster.requests();

    assert_eq!(apply(&cluster, &service()).await, Outcome::Created);
    assert_eq!(cluster.requests(), ["create Service/team-a 201"]);
}

#[tokio::test]
async fn a_child_stripped_of_every_mark_is_repaired_even_after_a_restart() {
    for child in [config("x"), secret(Hold::Kept)] {
        let mut cluster = Cluster::new();
        apply(&cluster, &child).await;
        cluster.edit(child.kind, &child.name, |object| {
            object["metadata"]
                .as_object_mut()
                .unwrap()
                .retain(|field, _| field != "labels" && field != "ownerReferences");
        });
        cluster.restart_operator();

        assert!(cluster.engine.read_known_child(&owner(), child.kind, &child.name).await.unwrap().is_none());
        let before = cluster.get(child.kind, &child.name);
        let error = cluster.engine.apply(&owner(), &child).await.unwrap_err();
        assert_eq!(error.reason(), "Conflict", "what was decided without knowing it must not be written over it");
        assert_eq!(cluster.get(child.kind, &child.name), before);

        assert!(cluster.engine.read_known_child(&owner(), child.kind, &child.name).await.unwrap().is_some());
        assert_eq!(apply(&cluster, &child).await, Outcome::Changed);
        let metadata = &cluster.get(child.kind, &child.name).unwrap()["metadata"];
        assert_eq!(metadata["labels"]["test.dev/owner"], "team-a");
        assert_eq!(metadata["ownerReferences"].is_array(), child.hold == Hold::Disposable);
    }
}

#[tokio::test]
async fn what_no_watch_has_told_of_is_not_asked_for_and_is_known_once_it_was_made() {
    let cluster = Cluster::new();
    let child = secret(Hold::Kept);
    assert!(cluster.engine.read_known_child(&owner(), SECRET, &child.name).await.unwrap().is_none());
    apply(&cluster, &child).await;
    let made = cluster.engine.read_known_child(&owner(), SECRET, &child.name).await.unwrap().unwrap();
    assert_eq!(made.data("tls.key").unwrap(), b"planted");
    assert_eq!(cluster.requests(), ["create Secret/team-a-ca 201"]);
}

#[tokio::test]
async fn a_field_that_is_no_longer_sent_disappears() {
    let cluster = Cluster::new();
    let with = |data: Value| child(CONFIG_MAP, "c", Hold::Disposable, json!({"data": data}));
    apply(&cluster, &with(json!({"a": "1", "b": "2"}))).await;
    assert_eq!(apply(&cluster, &with(json!({"a": "1"}))).await, Outcome::Changed);
    assert_eq!(cluster.get(CONFIG_MAP, "c").unwrap()["data"], json!({"a": "1"}));
}

#[tokio::test]
async fn a_field_that_a_new_version_of_the_operator_no_longer_sends_disappears_too() {
    let mut cluster = Cluster::new();
    let with = |data: Value| child(CONFIG_MAP, "c", Hold::Disposable, json!({"data": data}));
    apply(&cluster, &with(json!({"a": "1", "b": "2"}))).await;
    cluster.restart_operator();

    assert_eq!(apply(&cluster, &with(json!({"a": "1"}))).await, Outcome::Changed);
    assert_eq!(cluster.get(CONFIG_MAP, "c").unwrap()["data"], json!({"a": "1"}));
}

// Ownership.

#[tokio::test]
async fn a_foreign_object_is_never_touched_and_looked_at_in_each_pass() {
    let cluster = Cluster::new();
    cluster.put(SERVICE, "team-a", json!({"spec": {"type": "NodePort"}}));
    let before = cluster.get(SERVICE, "team-a");

    let error = error(&cluster, &service()).await;
    assert_eq!((error.reason(), error.class()), ("NotOurs", Class::InTheWay));
    assert_eq!(
        error.to_string(),
        "Service registries/team-a exists and belongs to somebody else; delete it, choose another name, \
         or hand it over with the annotation test.dev/adopt=true"
    );
    assert_eq!(cluster.requests(), ["create Service/team-a 409", "read Service/team-a 200"]);

    // Not every watch shows objects without our labels.
    cluster.engine.apply(&owner(), &service()).await.unwrap_err();
    assert_eq!(cluster.requests(), ["read Service/team-a 200"]);
    assert_eq!(cluster.get(SERVICE, "team-a"), before);
}

#[tokio::test]
async fn a_foreign_object_that_is_handed_over_or_goes_away_lets_us_in() {
    for hand_over in [true, false] {
        let cluster = Cluster::new();
        cluster.put(SERVICE, "team-a", json!({"spec": {"type": "NodePort"}}));
        error(&cluster, &service()).await;

        let notice = match hand_over {
            true => {
                cluster.edit(SERVICE, "team-a", |s| set(s, "metadata.annotations", json!({"test.dev/adopt": "true"})))
            }
            false => cluster.delete(SERVICE, "team-a"),
        };
        assert_eq!(notice, Notice { changed: true, owner: team_a() });
        assert_eq!(apply(&cluster, &service()).await, if hand_over { Outcome::Changed } else { Outcome::Created });
        assert_eq!(cluster.get(SERVICE, "team-a").unwrap()["spec"]["type"], "ClusterIP");
    }
}

#[tokio::test]
async fn an_object_that_appears_while_we_create_is_not_touched() {
    let cluster = Cluster::new();
    cluster.interrupt(0, |store| store.put(SECRET, "team-a-ca", json!({"data": {"theirs": "eA=="}})));

    assert_eq!(error(&cluster, &secret(Hold::Kept)).await.reason(), "NotOurs");
    assert_eq!(cluster.get(SECRET, "team-a-ca").unwrap()["data"], json!({"theirs": "eA=="}));
}

#[tokio::test]
async fn an_object_that_takes_the_place_of_ours_before_the_write_is_not_touched() {
    let cluster = Cluster::new();
    apply(&cluster, &config("1")).await;
    cluster.interrupt(1, |store| store.put(CONFIG_MAP, "team-a-ca", json!({"data": {"theirs": "x"}})));

    let conflict = error(&cluster, &config("2")).await;
    assert_eq!((conflict.reason(), conflict.class()), ("Conflict", Class::Transient));
    assert_eq!(error(&cluster, &config("2")).await.reason(), "NotOurs");
    assert_eq!(cluster.get(CONFIG_MAP, "team-a-ca").unwrap()["data"], json!({"theirs": "x"}));
}

#[tokio::test]
async fn an_object_that_vanishes_before_the_write_is_not_made_by_an_update() {
    let cluster = Cluster::new();
    apply(&cluster, &config("1")).await;
    cluster.interrupt(1, |store| store.remove(CONFIG_MAP, "team-a-ca"));

    assert_eq!(error(&cluster, &config("2")).await.reason(), "Conflict");
    assert_eq!(cluster.get(CONFIG_MAP, "team-a-ca"), None);
    assert_eq!(apply(&cluster, &config("2")).await, Outcome::Created);
}

#[tokio::test]
async fn what_changed_since_a_decision_is_not_written_over() {
    let stop = |object: &mut Value| set(object, "spec.replicas", json!(0));
    for told in [true, false] {
        let cluster = Cluster::new();
        let read = || cluster.engine.read(DEPLOYMENT, "registries", "team-a");
        apply(&cluster, &deployment("r:1")).await;
        let seen = read().await.unwrap().unwrap();
        if told {
            cluster.edit(DEPLOYMENT, "team-a", stop);
        } else {
            cluster.interrupt(0, move |store| store.edit(DEPLOYMENT, "team-a", stop));
        }

        let mut decided = deployment("r:2");
        set(&mut decided.body, "metadata.resourceVersion", json!(seen.resource_version()));
        assert_eq!(error(&cluster, &decided).await.reason(), "Conflict");
        assert_eq!(cluster.get(DEPLOYMENT, "team-a").unwrap()["spec"]["replicas"], 0);

        let seen = read().await.unwrap().unwrap();
        set(&mut decided.body, "metadata.resourceVersion", json!(seen.resource_version()));
        assert_eq!(apply(&cluster, &decided).await, Outcome::Changed);
    }
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_ends_well() {
    let cluster = Cluster::new();
    cluster.lose_next_answer();
    assert_eq!(error(&cluster, &secret(Hold::Kept)).await.class(), Class::Transient);
    assert_eq!(apply(&cluster, &secret(Hold::Kept)).await, Outcome::Unchanged);
    assert_eq!(cluster.requests(), ["create Secret/team-a-ca 201", "read Secret/team-a-ca 200"]);
}

#[tokio::test]
async fn a_kept_child_follows_the_deletion_policy_both_ways() {
    let cluster = Cluster::new();
    let references = || cluster.get(SECRET, "team-a-ca").unwrap()["metadata"]["ownerReferences"].clone();
    apply(&cluster, &secret(Hold::Kept)).await;
    assert_eq!(references(), Value::Null);

    assert_eq!(apply(&cluster, &secret(Hold::KeptUntilOwnerGoes)).await, Outcome::Changed);
    assert_eq!(references()[0]["uid"], "uid-a");

    assert_eq!(apply(&cluster, &secret(Hold::Kept)).await, Outcome::Changed);
    assert_eq!(references(), Value::Null);
}

#[tokio::test]
async fn an_owner_made_again_takes_back_what_was_kept_and_waits_for_what_was_not() {
    let mut cluster = Cluster::new();
    apply(&cluster, &secret(Hold::Kept)).await;
    apply(&cluster, &service()).await;
    cluster.restart_operator();
    let again = Owner { uid: "uid-b".into(), ..owner() };

    let kept = cluster.engine.apply(&again, &secret(Hold::Kept)).await.unwrap();
    assert_eq!(kept.outcome, Outcome::Unchanged);
    let waiting = cluster.engine.apply(&again, &service()).await.unwrap();
    assert_eq!(waiting.outcome, Outcome::Replacing);

    cluster.delete(SERVICE, "team-a");
    assert_eq!(cluster.engine.apply(&again, &service()).await.unwrap().outcome, Outcome::Created);
}

// What can't change in place.

#[tokio::test]
async fn a_job_with_another_pod_waits_for_the_old_pod_to_end() {
    let cluster = Cluster::new();
    apply(&cluster, &job("r:1")).await;
    cluster.requests();

    assert_eq!(apply(&cluster, &job("r:2")).await, Outcome::Replacing);
    assert_eq!(cluster.requests(), ["read Job/team-a 200", "delete Job/team-a 200"]);
    cluster.tell(JOB, "team-a");
    assert_eq!(apply(&cluster, &job("r:2")).await, Outcome::Replacing, "it still has a pod");
    assert_eq!(cluster.requests(), ["read Job/team-a 200"], "not every watch shows that it is gone");

    cluster.delete(JOB, "team-a");
    assert_eq!(apply(&cluster, &job("r:2")).await, Outcome::Created);
    assert_eq!(cluster.requests(), ["create Job/team-a 201"]);
}

#[tokio::test]
async fn a_child_that_is_deleted_while_we_write_it_is_not_called_settled() {
    let cluster = Cluster::new();
    apply(&cluster, &job("r:1")).await;
    let mut more = job("r:1");
    more.body["spec"]["backoffLimit"] = json!(7);
    let deleted = json!("2026-01-01T00:00:00Z");
    cluster
        .interrupt(1, |store| store.edit(JOB, "team-a", |object| set(object, "metadata.deletionTimestamp", deleted)));

    assert_eq!(apply(&cluster, &more).await, Outcome::Changed);
    assert_eq!(apply(&cluster, &more).await, Outcome::Replacing);
}

#[tokio::test]
async fn a_job_that_only_gets_more_retries_stays() {
    let cluster = Cluster::new();
    apply(&cluster, &job("r:1")).await;
    let mut more = job("r:1");
    more.body["spec"]["backoffLimit"] = json!(7);
    assert_eq!(apply(&cluster, &more).await, Outcome::Changed);
}

#[tokio::test]
async fn a_claim_never_shrinks_and_another_class_is_refused() {
    let cluster = Cluster::new();
    let claim = |size: &str, class: &str| {
        let spec = json!({"storageClassName": class, "resources": {"requests": {"storage": size}}});
        child(PERSISTENT_VOLUME_CLAIM, "team-a-data", Hold::Kept, json!({"spec": spec}))
    };
    apply(&cluster, &claim("2Gi", "fast")).await;
    apply(&cluster, &claim("1Gi", "fast")).await;
    assert_eq!(
        cluster.get(PERSISTENT_VOLUME_CLAIM, "team-a-data").unwrap()["spec"]["resources"]["requests"]["storage"],
        "2Gi"
    );
    assert_eq!(apply(&cluster, &claim("1Gi", "fast")).await, Outcome::Unchanged);
    assert_eq!(apply(&cluster, &claim("3Gi", "fast")).await, Outcome::Changed);

    let error = error(&cluster, &claim("3Gi", "slow")).await;
    assert_eq!((error.reason(), error.class()), ("Immutable", Class::Blocked));
    let live = cluster.get(PERSISTENT_VOLUME_CLAIM, "team-a-data").unwrap();
    assert_eq!(live["spec"], json!({"storageClassName": "fast", "resources": {"requests": {"storage": "3Gi"}}}));
}

// Reading.

#[tokio::test]
async fn an_absent_object_is_asked_for_once_until_it_appears() {
    let cluster = Cluster::new();
    let read = async || cluster.engine.read(SECRET, "registries", "users").await.unwrap();
    assert!(read().await.is_none());
    assert!(read().await.is_none());
    assert_eq!(cluster.requests(), ["read Secret/users 404"]);

    cluster.put(SECRET, "users", json!({"data": {"a": "eA=="}}));
    assert!(cluster.tell(SECRET, "users").changed);
    assert_eq!(read().await.unwrap().data("a").unwrap(), b"x");
    assert_eq!(read().await.unwrap().data("a").unwrap(), b"x");
    assert_eq!(cluster.requests(), ["read Secret/users 200"]);
}

// Errors.

#[tokio::test]
async fn errors_are_classed_and_show_no_content() {
    for (status, reason, class) in [
        (422, "Refused", Class::InTheWay),
        (403, "Refused", Class::Transient),
        (500, "WriteFailed", Class::Transient),
        (429, "WriteFailed", Class::Transient),
    ] {
        let cluster = Cluster::new();
        cluster.fail_next(status);
        let error = error(&cluster, &secret(Hold::Kept)).await;
        assert_eq!((error.reason(), error.class()), (reason, class), "{status}");
        assert!(!format!("{error} {error:?}").contains("planted"), "{error:?}");
        assert_eq!(apply(&cluster, &secret(Hold::Kept)).await, Outcome::Created, "the next pass looks again");
    }
}

#[tokio::test]
async fn a_failed_read_is_told_from_an_absent_object() {
    let cluster = Cluster::new();
    cluster.fail_next(500);
    let error = cluster.engine.read(SECRET, "registries", "users").await.unwrap_err();
    assert_eq!(error.to_string(), "read Secret registries/users");
    assert!(std::error::Error::source(&error).unwrap().to_string().starts_with("500"));
    assert!(cluster.engine.read(SECRET, "registries", "users").await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_no_name_never_becomes_part_of_an_address() {
    let cluster = Cluster::new();
    for name in ["?watch=true&", "other/secrets/a", "..", ".", "", "a%2fb", "a#b", "a b"] {
        let refused = cluster.engine.read(SECRET, "registries", name).await.unwrap_err();
        assert_eq!(refused.reason(), "ReadFailed", "{name}");
        let refused = cluster.engine.read(SECRET, name, "a").await.unwrap_err();
        assert_eq!(refused.reason(), "ReadFailed", "{name}");
    }
    assert_eq!(cluster.requests(), nothing());
}
