//! One fault stops only what hangs on it, and nothing that is kept is lost by a fault of something else.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace};
use crate::object::Object;
use crate::registry::Registry;
use crate::wait::{GARBAGE, PATIENCE, eventually, within};

/// A registry with two users of its own, ready.
async fn with_two_users(team: &Namespace) -> Registry<'_> {
    team.secret("ann", &[("password", "correct horse")]).await;
    team.secret("ben", &[("password", "battery staple")]).await;
    team.registry("team-a", json!({"auth": users(&["ann", "ben"])})).await.ready().await
}

fn users(names: &[&str]) -> Value {
    json!({"users": names.iter().map(|name| json!({"name": name, "passwordSecretRef": {"name": name}})).collect::<Vec<_>>()})
}

async fn is_out(registry: &Registry<'_>, user: &str) {
    eventually(within(5), &format!("{user} is out"), async || {
        let table = registry.htpasswd().decoded("htpasswd").await;
        if table.contains(&format!("{user}:")) { Err("still in the table".to_owned()) } else { Ok(()) }
    })
    .await;
}

async fn taken_port(team: &Namespace) -> i64 {
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "theirs"}});
    let theirs = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs"}, "spec": spec});
    team.create(theirs).await.at("/spec/ports/0/nodePort").await.as_i64().unwrap()
}

#[tokio::test]
async fn a_removed_user_is_out_and_a_certificate_renewed_while_everything_else_is_refused() {
    let Some(team) = namespace("parts-refused").await else { return };
    let _operator = team.operator().await;
    let registry = with_two_users(&team).await;
    team.settles().await;
    let serial = registry.object.at("/status/certificate/serial").await;
    let (deployment, config) =
        (registry.deployment().at("/metadata/generation").await, registry.child("Secret", "-config"));
    let written = config.at("/data").await;

    let spec = json!({
        "auth": users(&["ann"]), "service": {"type": "NodePort", "nodePort": taken_port(&team).await},
        "extraConfig": {"htp": {}},
    });
    registry.apply(spec).await.unwrap();
    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;

    is_out(&registry, "ben").await;
    registry
        .object
        .becomes(PATIENCE, "has a new certificate", |live| live["status"]["certificate"]["serial"] != serial)
        .await;
    let words = registry.says("AddressReady", "False", "Refused").await;
    assert!(words.contains("spec.service.nodePort"), "{words}");
    registry.says("UsersReady", "True", "Written").await;
    let words = registry.says("CertificateReady", "True", "Valid").await;
    assert!(words.contains("not served yet"), "{words}");
    registry.says("Stalled", "True", "").await;
    assert_eq!(registry.deployment().at("/metadata/generation").await, deployment, "what runs is left alone");
    assert_eq!(config.at("/data").await, written);

    registry.apply(json!({"auth": users(&["ann"])})).await.unwrap();
    registry.ready().await;
}

#[tokio::test]
async fn while_the_claim_is_being_deleted_nothing_is_rolled_or_replaced() {
    let Some(team) = namespace("parts-claim").await else { return };
    let _operator = team.operator().await;
    let registry = with_two_users(&team).await;
    team.settles().await;
    // Somebody holds it, as a running pod does.
    registry.claim().edit(json!({"metadata": {"finalizers": ["kubernetes.io/pvc-protection", "test.dev/held"]}})).await;
    let (uid, generation) = (registry.claim().uid().await, registry.deployment().at("/metadata/generation").await);

    registry.claim().delete().await;

    let words = registry.says("StorageReady", "False", "BeingDeleted").await;
    assert!(words.contains("kubectl patch pv pvc-") && words.contains("Retain"), "{words}");
    registry.says("Stalled", "True", "BeingDeleted").await;
    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;
    registry.apply(json!({"auth": users(&["ann"]), "config": {"logLevel": "debug"}, "suspend": true})).await.unwrap();
    is_out(&registry, "ben").await;
    team.settles().await;
    assert_eq!(registry.deployment().at("/metadata/generation").await, generation, "the last pod keeps the images");
    assert_eq!(registry.claim().uid().await, uid);

    let volume = registry.claim().at("/spec/volumeName").await;
    registry.claim().edit(json!({"metadata": {"finalizers": null}})).await;
    registry.says("StorageReady", "False", "VolumeGone").await;
    registry.object.annotate("privateregistry.dev/given-up-volume", volume).await;
    registry.claim().is_made_again(&uid, PATIENCE).await;
    registry.says("Ready", "True", "Suspended").await;
}

/// A CA that somebody made, as a Secret that they hand over.
fn handed_over(data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
        "metadata": {"name": "team-a-ca", "annotations": {"privateregistry.dev/adopt": "true"}},
    })
}

#[tokio::test]
async fn a_ca_that_is_handed_over_is_used_as_it_is_or_refused_and_never_written_over() {
    let Some(team) = namespace("parts-adopted").await else { return };
    let _operator = team.operator().await;
    let donor = team.registry("donor", json!({})).await.ready().await;
    let company = donor.ca().at("/data").await;

    let ours = team.create(handed_over(company.clone())).await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    assert_eq!(ours.at("/data").await, company, "it is the one that was handed over");
    let bundle = registry.bundle().at("/data/ca.crt").await;
    let trusted = String::from_utf8(STANDARD.decode(company["tls.crt"].as_str().unwrap()).unwrap()).unwrap();
    assert!(bundle.as_str().unwrap().contains(trusted.trim()));

    let no_ca = json!({"tls.crt": STANDARD.encode("no certificate"), "tls.key": STANDARD.encode("no key")});
    let mut broken = handed_over(no_ca.clone());
    broken["metadata"]["name"] = json!("team-b-ca");
    let broken = team.create(broken).await;
    let refused = team.registry("team-b", json!({})).await;
    let words = refused.says("CertificateReady", "False", "CaUnusable").await;
    assert!(words.contains("team-b-ca") && words.contains("delete the Secret"), "{words}");
    assert_eq!(broken.at("/data").await, no_ca);
    refused.lets_in("admin", &refused.admin().decoded("password").await).await;
    broken.delete().await;
    refused.ready().await;
}

#[tokio::test]
async fn nothing_is_derived_from_a_password_that_is_stored_nowhere() {
    let Some(team) = namespace("parts-admin").await else { return };
    let _operator = team.operator().await;
    let theirs = team.secret("team-a-admin", &[("password", "somebody else's")]).await;
    team.secret("ann", &[("password", "correct horse")]).await;
    let auth = json!({"admin": {"generate": "Always"}, "users": users(&["ann"])["users"]});
    let registry = team.registry("team-a", json!({"auth": auth})).await;

    registry.says("UsersReady", "False", "NotOurs").await;
    registry.lets_in("ann", "correct horse").await;
    assert!(!registry.knows("admin", "somebody else's").await);
    registry.htpasswd().stays_untouched(Duration::from_secs(2)).await;
    assert_eq!(theirs.decoded("password").await, "somebody else's");

    theirs.delete().await;
    registry.object.annotate("test.dev/look", "again").await;
    let registry = registry.ready().await;
    registry.lets_in("admin", &registry.admin().decoded("password").await).await;
}

#[tokio::test]
async fn a_request_that_was_served_is_not_served_again_whatever_is_deleted() {
    let Some(team) = namespace("parts-request").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    registry.object.annotate("privateregistry.dev/renew", "ca").await;
    registry.object.becomes(PATIENCE, "has served it", |live| live["status"]["handledRenewRequest"] == "ca").await;
    let registry = registry.ready().await;
    let ca = registry.ca().at("/data").await;

    let uid = registry.tls().uid().await;
    registry.tls().delete().await;
    registry.tls().is_made_again(&uid, PATIENCE).await;
    team.settles().await;
    assert_eq!(registry.ca().at("/data").await, ca);

    registry.apply(json!({"tls": {"none": {}}})).await.unwrap();
    registry.tls().disappears(PATIENCE).await;
    registry.apply(json!({})).await.unwrap();
    let registry = registry.ready().await;
    assert_eq!(registry.ca().at("/data").await, ca);
}

fn kept(registry: &Registry<'_>) -> [Object; 3] {
    [registry.claim(), registry.ca(), registry.admin()]
}

async fn goes_and_leaves_what_is_kept(registry: &Registry<'_>) {
    registry.deployment().disappears(GARBAGE).await;
    for object in kept(registry) {
        object.survives(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn retain_holds_at_once_whatever_else_is_wrong() {
    let Some(team) = namespace("holds-wrong").await else { return };
    let _operator = team.operator().await;
    for (name, wrong, paused) in [
        ("unfollowed", json!({"extraConfig": {"htp": {}}}), false),
        ("refused", json!({"service": {"type": "NodePort", "nodePort": taken_port(&team).await}}), false),
        ("paused", json!({}), true),
    ] {
        let registry = team.registry(name, json!({"deletionPolicy": "Delete"})).await.ready().await;
        if paused {
            registry.object.annotate("privateregistry.dev/paused", "true").await;
        }
        let mut spec = wrong;
        spec["deletionPolicy"] = json!("Retain");
        registry.apply(spec).await.unwrap();
        registry.object.delete().await;
        registry.object.disappears(PATIENCE).await;
        goes_and_leaves_what_is_kept(&registry).await;
    }
}

#[tokio::test]
async fn a_switch_to_retain_holds_although_the_operator_was_down_from_then_on() {
    let Some(team) = namespace("holds-down").await else { return };
    let operator = team.operator().await;
    let registry = team.registry("team-a", json!({"deletionPolicy": "Delete"})).await.ready().await;
    operator.stop().await;
    registry.apply(json!({"deletionPolicy": "Retain"})).await.unwrap();
    registry.object.delete().await;
    for object in kept(&registry) {
        object.survives(Duration::from_secs(1)).await;
    }

    let _operator = team.operator().await;
    registry.object.disappears(PATIENCE).await;
    goes_and_leaves_what_is_kept(&registry).await;
}

#[tokio::test]
async fn what_is_due_is_done_in_time_while_something_else_is_refused() {
    let Some(team) = namespace("parts-due").await else { return };
    let _operator = team.operator_with(&["--short-certificates-for-tests=parts-due=45s"]).await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let port = taken_port(&team).await;
    registry.apply(json!({"service": {"type": "NodePort", "nodePort": port}})).await.unwrap();
    registry.says("AddressReady", "False", "Refused").await;
    let served = registry.object.at("/status/certificate").await;
    let due: jiff::Timestamp = served["renewAt"].as_str().unwrap().parse().unwrap();

    // What is refused is tried again each minute.
    let limit = due.duration_since(jiff::Timestamp::now()).max(jiff::SignedDuration::ZERO).unsigned_abs() + within(8);
    assert!(limit < within(45), "{limit:?}");
    let is_renewed = |live: &Value| live["status"]["certificate"]["serial"] != served["serial"];
    registry.object.becomes(limit, "has its next certificate", is_renewed).await;
    registry.says("AddressReady", "False", "Refused").await;
}

/// Somebody limits how much storage the namespace may ask for.
async fn quota(team: &Namespace, storage: &str) -> Object {
    let spec = json!({"hard": {"requests.storage": storage}});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "storage"}, "spec": spec});
    let quota = team.create(quota).await;
    quota.becomes(PATIENCE, "counts", |quota| quota["status"]["hard"]["requests.storage"] == storage).await;
    quota
}

#[tokio::test]
async fn a_quota_that_is_in_the_way_of_a_claim_is_told_and_its_end_is_noticed() {
    let Some(team) = namespace("parts-quota").await else { return };
    let _operator = team.operator().await;
    let sized = |size: &str| json!({"storage": {"persistentVolumeClaim": {"size": size}}});
    let refused = async |registry: &Registry<'_>| {
        let words = registry.says("StorageReady", "False", "Refused").await;
        assert!(words.contains("exceeded quota") && words.contains("it is tried again"), "{words}");
        registry.says("Stalled", "False", "").await;
        registry.says("Reconciling", "True", "").await;
    };
    let limit = quota(&team, "0").await;
    let registry = team.registry("team-a", sized("1Gi")).await;
    refused(&registry).await;
    limit.delete().await;
    let registry = registry.ready().await;

    let limit = quota(&team, "1Gi").await;
    registry.apply(sized("2Gi")).await.unwrap();
    refused(&registry).await;
    limit.delete().await;
    let asks = |claim: &Value| claim["spec"]["resources"]["requests"]["storage"] == "2Gi";
    registry.claim().becomes(PATIENCE, "grows", asks).await;
}

#[tokio::test]
async fn a_claim_without_a_file_system_is_refused_at_once() {
    let Some(team) = namespace("parts-block").await else { return };
    let _operator = team.operator().await;
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "volumeMode": "Block", "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "raw"}, "spec": spec});
    team.create(claim).await;
    let registry = team.registry("team-a", json!({"storage": {"existingClaim": {"name": "raw"}}})).await;
    let words = registry.says("StorageReady", "False", "VolumeModeBlock").await;
    assert!(words.contains("PersistentVolumeClaim raw") && words.contains("Filesystem"), "{words}");
    registry.says("Stalled", "True", "VolumeModeBlock").await;
    assert!(registry.deployment().find().await.is_none());
}

#[tokio::test]
async fn what_runs_never_reads_what_was_rendered_for_pods_that_are_refused() {
    let Some(team) = namespace("parts-rendered").await else { return };
    let _operator = team.operator().await;
    let refused = json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}});
    let deployed = json!({});
    let job = json!({"storage": {"emptyDir": {}}, "restartPolicy": {"type": "OnFailure"}});
    for (name, kind, spec) in [("endless", "Deployment", deployed), ("limited", "Job", job)] {
        let registry = team.registry(name, spec.clone()).await.ready().await;
        team.settles().await;
        let (config, workload) = (registry.child("Secret", "-config"), registry.child(kind, ""));
        let (written, uid, generation) =
            (config.at("/data").await, workload.uid().await, workload.at("/metadata/generation").await);

        let mut broken = spec.clone();
        broken["config"] = json!({"logLevel": "debug"});
        broken["pod"] = json!({"resources": refused});
        registry.apply(broken.clone()).await.unwrap();
        let words = registry.says("Ready", "False", "Refused").await;
        assert!(words.contains("spec.pod.resources"), "{words}");
        team.settles().await;
        assert_eq!(config.at("/data").await, written, "{name}");
        assert_eq!((workload.uid().await, workload.at("/metadata/generation").await), (uid, generation), "{name}");

        broken["pod"] = json!({});
        let mark = team.mark().await;
        registry.apply(broken).await.unwrap();
        let registry = registry.ready().await;
        config.becomes(PATIENCE, "has the new level", |live| live["data"]["config.yml"] != written["config.yml"]).await;
        let tries = team.written_since(mark).await;
        let tries = tries.iter().filter(|entry| entry.resource == workload_of(kind)).count();
        assert!(tries <= 3, "one try, and at most a deletion and the write: {tries}");
        registry.delete().await;
    }
}

fn workload_of(kind: &str) -> &'static str {
    if kind == "Job" { "jobs" } else { "deployments" }
}

#[tokio::test]
async fn what_runs_stays_while_a_workload_of_another_kind_is_refused() {
    let Some(team) = namespace("parts-kind").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    team.settles().await;
    let uid = registry.deployment().uid().await;
    let refused = json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}});
    let once = |pod: Value| json!({"restartPolicy": {"type": "Never"}, "pod": pod});

    registry.apply(once(json!({"resources": refused}))).await.unwrap();
    registry.says("Ready", "False", "Refused").await;
    team.settles().await;
    assert_eq!(registry.deployment().uid().await, uid);

    registry.apply(once(json!({}))).await.unwrap();
    let registry = registry.ready().await;
    assert!(registry.deployment().find().await.is_none() && registry.child("Job", "").find().await.is_some());
}
