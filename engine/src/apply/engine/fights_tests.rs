//! What the server makes of what it is sent, and what others change back.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::advance;

use super::super::error::Class;
use super::super::kinds::{CONFIG_MAP, DEPLOYMENT, JOB, PERSISTENT_VOLUME_CLAIM, SECRET, SERVICE};
use super::super::testing::{Cluster, child, config, deployment, job, owner, secret, service, set};
use super::super::wanted::Hold;
use super::*;

async fn apply(cluster: &Cluster, child: &Child) -> Applied {
    cluster.engine.apply(&owner(), child).await.unwrap()
}

async fn outcome(cluster: &Cluster, child: &Child) -> Outcome {
    apply(cluster, child).await.outcome
}

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const IMAGE: &str = "spec.template.spec.containers[name=registry].image";

/// A policy that takes images from elsewhere.
fn mirror(object: &mut Value) {
    if let Some(image) = object.pointer_mut("/spec/template/spec/containers/0/image")
        && !image.as_str().unwrap().starts_with("mirror/")
    {
        *image = json!(format!("mirror/{}", image.as_str().unwrap()));
    }
}

/// Somebody else changes the object, so that it has to be looked at.
fn touch(cluster: &Cluster, kind: &'static Kind) {
    cluster
        .edit(kind, "team-a", |object| set(object, "status.observed", object["metadata"]["resourceVersion"].clone()));
}

fn writes(cluster: &Cluster) -> Vec<String> {
    cluster.requests().into_iter().filter(|request| !request.starts_with("read")).collect()
}

// Amendments.

#[tokio::test]
async fn what_a_webhook_changes_on_its_way_in_is_written_once() {
    for (child, kind) in [(deployment("r:1"), DEPLOYMENT), (job("r:1"), JOB)] {
        let mut cluster = Cluster::new();
        cluster.admit(|object, _| mirror(object));
        let made = apply(&cluster, &child).await;
        assert_eq!((made.outcome, made.amended), (Outcome::Created, vec![IMAGE.to_owned()]));
        cluster.requests();

        for restarts in [false, true, false] {
            if restarts {
                cluster.restart_operator();
            }
            touch(&cluster, kind);
            let found = apply(&cluster, &child).await;
            assert_eq!((found.outcome, found.amended), (Outcome::Unchanged, vec![IMAGE.to_owned()]), "{kind:?}");
            assert_eq!(outcome(&cluster, &child).await, Outcome::Unchanged);
        }
        assert_eq!(writes(&cluster), Vec::<String>::new());
    }
}

#[tokio::test]
async fn without_a_stamp_a_restart_costs_one_write_and_no_more() {
    let mut cluster = Cluster::new();
    cluster.admit(|object, _| set(object, "spec.type", json!("NodePort")));
    apply(&cluster, &service()).await;
    cluster.restart_operator();
    cluster.requests();
    for _ in 0..3 {
        touch(&cluster, SERVICE);
        apply(&cluster, &service()).await;
    }
    assert_eq!(writes(&cluster), ["update Service/team-a 200"]);
}

#[tokio::test]
async fn what_a_webhook_changes_only_in_new_objects_stays_when_a_jobs_other_fields_change() {
    for restarts in [false, true] {
        let mut cluster = Cluster::new();
        cluster.admit(|object, is_new| {
            if is_new {
                mirror(object);
            }
        });
        apply(&cluster, &job("r:1")).await;
        if restarts {
            cluster.restart_operator();
        }
        let mut more = job("r:1");
        more.body["spec"]["backoffLimit"] = json!(7);

        assert_eq!(outcome(&cluster, &more).await, Outcome::Changed);
        cluster.restart_operator();
        assert_eq!(outcome(&cluster, &more).await, Outcome::Unchanged);
        let spec = &cluster.get(JOB, "team-a").unwrap()["spec"];
        assert_eq!(
            (&spec["backoffLimit"], &spec["template"]["spec"]["containers"][0]["image"]),
            (&json!(7), &json!("mirror/r:1"))
        );
    }
}

#[tokio::test]
async fn a_claim_whose_class_a_policy_has_changed_is_used_as_it_is_and_grows() {
    let mut cluster = Cluster::new();
    cluster.admit(|object, is_new| {
        if is_new {
            set(object, "spec.storageClassName", json!("policy"));
        }
    });
    let claim = |size: &str, class: &str| {
        let spec = json!({"storageClassName": class, "resources": {"requests": {"storage": size}}});
        child(PERSISTENT_VOLUME_CLAIM, "team-a", Hold::Kept, json!({"spec": spec}))
    };
    apply(&cluster, &claim("1Gi", "fast")).await;
    cluster.restart_operator();
    assert_eq!(outcome(&cluster, &claim("1Gi", "fast")).await, Outcome::Unchanged);

    cluster.restart_operator();
    let grown = apply(&cluster, &claim("2Gi", "fast")).await;
    assert_eq!((grown.outcome, grown.amended), (Outcome::Changed, vec!["spec.storageClassName".to_owned()]));
    let spec = json!({"storageClassName": "policy", "resources": {"requests": {"storage": "2Gi"}}});
    assert_eq!(cluster.get(PERSISTENT_VOLUME_CLAIM, "team-a").unwrap()["spec"], spec);

    let error = cluster.engine.apply(&owner(), &claim("2Gi", "slow")).await.unwrap_err();
    assert_eq!(error.reason(), "Immutable", "something else is wanted than before");
}

#[tokio::test]
async fn another_pod_is_made_although_the_old_one_was_amended() {
    let cluster = Cluster::new();
    cluster.admit(|object, _| mirror(object));
    apply(&cluster, &job("r:1")).await;
    assert_eq!(outcome(&cluster, &job("r:2")).await, Outcome::Replacing);

    apply(&cluster, &deployment("r:1")).await;
    assert_eq!(outcome(&cluster, &deployment("r:2")).await, Outcome::Changed);
    let image =
        cluster.get(DEPLOYMENT, "team-a").unwrap()["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image, "mirror/r:2");
}

#[tokio::test]
async fn what_somebody_edits_is_repaired_beside_an_amendment_and_after_a_restart() {
    let mut cluster = Cluster::new();
    cluster.admit(|object, _| mirror(object));
    apply(&cluster, &deployment("r:1")).await;
    for restarts in [false, true] {
        let image = json!([{"name": "registry", "image": "mirror/evil:1"}]);
        cluster.edit_as("kubectl-edit", DEPLOYMENT, "team-a", "spec.replicas", Some(json!(7)));
        cluster.edit(DEPLOYMENT, "team-a", |object| set(object, "spec.template.spec.containers", image));
        if restarts {
            cluster.restart_operator();
        }
        assert_eq!(outcome(&cluster, &deployment("r:1")).await, Outcome::Changed);
        let spec = &cluster.get(DEPLOYMENT, "team-a").unwrap()["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(spec["template"]["spec"]["containers"][0]["image"], "mirror/r:1");
    }
}

#[tokio::test]
async fn what_a_webhook_changes_when_others_write_is_as_wanted_where_the_object_vouches_for_it_and_else_a_fight() {
    let cluster = Cluster::new();
    apply(&cluster, &deployment("r:1")).await;
    apply(&cluster, &service()).await;
    cluster.requests();
    for _ in 0..3 {
        cluster.amend(DEPLOYMENT, "team-a", "spec.replicas", json!(2));
        assert_eq!(outcome(&cluster, &deployment("r:1")).await, Outcome::Unchanged);
        cluster.amend(SERVICE, "team-a", "spec.type", json!("NodePort"));
        assert_eq!(outcome(&cluster, &service()).await, Outcome::Changed);
    }
    assert_eq!(writes(&cluster), ["update Service/team-a 200"; 3]);
    assert_eq!(apply(&cluster, &service()).await.contested.unwrap().rival, Rival::Admission);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_answers_otherwise_each_time_is_damped() {
    let cluster = Cluster::new();
    let count = AtomicU64::new(0);
    cluster.admit(move |object, _| set(object, "spec.type", json!(format!("Type{}", count.fetch_add(1, Relaxed)))));
    apply(&cluster, &service()).await;
    cluster.requests();
    for number in 0..60 {
        cluster.amend(SERVICE, "team-a", "spec.type", json!(format!("Other{number}")));
        apply(&cluster, &service()).await;
        advance(SECOND).await;
    }
    assert_eq!(writes(&cluster), ["update Service/team-a 200"; 3]);
}

// Fights.

/// The autoscaler wants seven, each time it looks.
fn scale(cluster: &Cluster) {
    cluster.edit_as("kube-controller-manager", DEPLOYMENT, "team-a", "spec.replicas", Some(json!(7)));
}

async fn fought_over() -> Cluster {
    let cluster = Cluster::new();
    apply(&cluster, &deployment("r:1")).await;
    for _ in 0..3 {
        scale(&cluster);
        assert_eq!(outcome(&cluster, &deployment("r:1")).await, Outcome::Changed);
        advance(SECOND).await;
    }
    cluster
}

fn replicas(cluster: &Cluster) -> Value {
    cluster.get(DEPLOYMENT, "team-a").unwrap()["spec"]["replicas"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_field_that_is_changed_back_each_time_is_told_with_the_managers_name_and_repaired_less_and_less() {
    let cluster = fought_over().await;
    cluster.requests();
    scale(&cluster);
    let damped = apply(&cluster, &deployment("r:1")).await;
    assert_eq!(damped.outcome, Outcome::Damped);
    let contest = damped.contested.unwrap();
    assert_eq!((contest.is_lost, contest.look_again), (true, MINUTE - SECOND));
    assert_eq!(
        contest.to_string(),
        "spec.replicas of Deployment registries/team-a is changed back by kube-controller-manager, 3 times; stop it, or let it leave \
         this field alone; until then, repairs wait up to 10 minutes"
    );

    assert_eq!(outcome(&cluster, &deployment("r:1")).await, Outcome::Damped);
    assert_eq!(cluster.requests(), ["read Deployment/team-a 200"], "nothing is asked twice");

    let mut repairs = 0;
    for _ in 0..(60 * 60) {
        advance(SECOND).await;
        if outcome(&cluster, &deployment("r:1")).await == Outcome::Changed {
            repairs += 1;
            scale(&cluster);
        }
    }
    assert_eq!(repairs, 8, "after 1, 2, 4, 8 and then each 10 minutes, an hour long");
}

#[tokio::test(start_paused = true)]
async fn the_manager_is_named_even_if_the_object_was_read_for_something_else() {
    let cluster = Cluster::new();
    apply(&cluster, &htpasswd("YQ==")).await;
    for _ in 0..3 {
        cluster.edit_as("policy", SECRET, "team-a", "metadata.labels.x", Some(json!("theirs")));
        cluster.engine.read(SECRET, "registries", "team-a").await.unwrap();
        apply(&cluster, &htpasswd("YQ==")).await;
    }
    let contest = apply(&cluster, &htpasswd("YQ==")).await.contested.unwrap();
    assert_eq!(contest.rival, Rival::Manager("policy".into()));
}

#[tokio::test(start_paused = true)]
async fn a_fight_ends_when_the_field_stays_ours() {
    let cluster = fought_over().await;
    let contest = apply(&cluster, &deployment("r:1")).await.contested.unwrap();
    assert_eq!((contest.is_lost, contest.times), (false, 3));
    cluster.requests();
    advance(contest.look_again - SECOND).await;
    assert!(apply(&cluster, &deployment("r:1")).await.contested.is_some());
    advance(SECOND).await;
    assert_eq!(apply(&cluster, &deployment("r:1")).await.contested, None);
    assert_eq!(cluster.requests(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_others_take_away_each_time_is_a_fight_too() {
    let cluster = Cluster::new();
    let mut labelled = deployment("r:1");
    set(&mut labelled.body, "metadata.labels.x", json!("1"));
    apply(&cluster, &labelled).await;
    for _ in 0..3 {
        cluster.edit_as("argocd", DEPLOYMENT, "team-a", "metadata.labels.x", None);
        apply(&cluster, &labelled).await;
    }
    let contest = apply(&cluster, &labelled).await.contested.unwrap();
    assert_eq!((contest.path.as_str(), contest.rival), ("metadata.labels.x", Rival::Somebody));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_suspended_again_and_again_is_a_fight() {
    let cluster = Cluster::new();
    let mut running = job("r:1");
    running.body["spec"]["suspend"] = json!(false);
    apply(&cluster, &running).await;
    for _ in 0..3 {
        cluster.edit_as("kueue", JOB, "team-a", "spec.suspend", Some(json!(true)));
        assert_eq!(outcome(&cluster, &running).await, Outcome::Changed);
    }
    cluster.edit_as("kueue", JOB, "team-a", "spec.suspend", Some(json!(true)));
    let damped = apply(&cluster, &running).await;
    assert_eq!(damped.outcome, Outcome::Damped);
    assert_eq!(damped.contested.unwrap().rival, Rival::Manager("kueue".into()));
}

/// A policy that changes the pod of a finished Job and takes the stamp away: nothing tells that from an edit.
#[tokio::test(start_paused = true)]
async fn a_job_is_not_made_again_for_ever() {
    let cluster = Cluster::new();
    apply(&cluster, &job("r:1")).await;
    cluster.requests();
    for number in 0..20 {
        cluster.edit(JOB, "team-a", |object| {
            set(object, "metadata.annotations", json!({}));
            set(
                object,
                "spec.template.spec.containers",
                json!([{"name": "registry", "image": format!("other:{number}")}]),
            );
        });
        if outcome(&cluster, &job("r:1")).await == Outcome::Replacing {
            cluster.delete(JOB, "team-a");
            assert_eq!(outcome(&cluster, &job("r:1")).await, Outcome::Created);
        }
        advance(SECOND).await;
    }
    let deletions = cluster.requests().into_iter().filter(|request| request.starts_with("delete")).count();
    assert_eq!(deletions, 3);
    assert!(apply(&cluster, &job("r:1")).await.contested.is_some());
}

fn htpasswd(users: &str) -> Child {
    let metadata = json!({"labels": {"x": "ours"}});
    child(SECRET, "team-a", Hold::Disposable, json!({"metadata": metadata, "data": {"htpasswd": users}}))
}

#[tokio::test(start_paused = true)]
async fn a_user_is_removed_at_once_while_a_label_is_fought_over() {
    let cluster = Cluster::new();
    let relabel = || cluster.edit_as("policy", SECRET, "team-a", "metadata.labels.x", Some(json!("theirs")));
    apply(&cluster, &htpasswd("YQ==")).await;
    for _ in 0..3 {
        relabel();
        apply(&cluster, &htpasswd("YQ==")).await;
    }
    relabel();
    assert_eq!(outcome(&cluster, &htpasswd("YQ==")).await, Outcome::Damped);

    let revoked = apply(&cluster, &htpasswd("Yg==")).await;
    assert_eq!(revoked.outcome, Outcome::Changed);
    assert_eq!(cluster.get(SECRET, "team-a").unwrap()["data"]["htpasswd"], "Yg==");
    assert!(revoked.contested.is_some(), "the label is fought over all the same");

    relabel();
    assert_eq!(outcome(&cluster, &htpasswd("Yg==")).await, Outcome::Damped);
    cluster.edit_as("kubectl-edit", SECRET, "team-a", "data.htpasswd", Some(json!("YQ==")));
    assert_eq!(outcome(&cluster, &htpasswd("Yg==")).await, Outcome::Changed, "another field doesn't wait");
    assert_eq!(cluster.get(SECRET, "team-a").unwrap()["data"]["htpasswd"], "Yg==");
}

#[tokio::test(start_paused = true)]
async fn giving_in_ends_a_fight_at_once() {
    let cluster = fought_over().await;
    scale(&cluster);
    assert_eq!(outcome(&cluster, &deployment("r:1")).await, Outcome::Damped);
    let mut seven = deployment("r:1");
    seven.body["spec"]["replicas"] = json!(7);
    assert_eq!(apply(&cluster, &seven).await.contested, None);
    assert_eq!(replicas(&cluster), 7);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_the_other_puts_right_is_as_wanted_at_once() {
    let cluster = fought_over().await;
    scale(&cluster);
    assert_eq!(outcome(&cluster, &deployment("r:1")).await, Outcome::Damped);
    cluster.edit_as("kube-controller-manager", DEPLOYMENT, "team-a", "spec.replicas", Some(json!(1)));
    let settled = apply(&cluster, &deployment("r:1")).await;
    assert_eq!((settled.outcome, settled.contested.unwrap().is_lost), (Outcome::Unchanged, false));
    advance(10 * MINUTE).await;
    assert_eq!(apply(&cluster, &deployment("r:1")).await.contested, None);
}

#[tokio::test(start_paused = true)]
async fn a_fight_is_forgotten_with_the_owner() {
    let cluster = fought_over().await;
    cluster.memory.forget_owner("registries", "team-a");
    assert!(cluster.memory.is_empty());
    let target = ObjectRef::new(DEPLOYMENT, "registries", "team-a");
    assert_eq!(cluster.memory.troubles(&target, Instant::now()), (None, Vec::new()));
}

// Sealed.

#[tokio::test]
async fn an_object_that_somebody_sealed_is_named_with_what_to_do() {
    let words = |kind: &str, path: &str| {
        format!("{kind} registries/team-a-ca is marked immutable: true, so {path} cannot be changed; ")
    };
    for (old, new, expected) in [
        (
            config("old"),
            config("new"),
            words("ConfigMap", "data.ca.crt") + "delete it, and it is made again without that mark",
        ),
        (
            secret(Hold::Kept),
            child(SECRET, "team-a-ca", Hold::Kept, json!({"type": "Opaque", "data": {"tls.key": "bmV3"}})),
            words("Secret", "data.tls.key")
                + "it holds what cannot be made again, so save it, delete it, and put it back without that mark",
        ),
    ] {
        let cluster = Cluster::new();
        apply(&cluster, &old).await;
        cluster.edit(old.kind, "team-a-ca", |object| set(object, "immutable", json!(true)));
        assert_eq!(outcome(&cluster, &old).await, Outcome::Unchanged);
        cluster.requests();

        let error = cluster.engine.apply(&owner(), &new).await.unwrap_err();
        assert_eq!((error.to_string(), error.reason(), error.class()), (expected, "Immutable", Class::InTheWay));
        assert_eq!(writes(&cluster), Vec::<String>::new());

        if old.kind == CONFIG_MAP {
            cluster.delete(old.kind, "team-a-ca");
            assert_eq!(outcome(&cluster, &new).await, Outcome::Created);
        }
    }
}
