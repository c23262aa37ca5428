//! Who may stop a registry, and what the operator may do meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::namespace;
use crate::object::brief;
use crate::registry::Registry;
use crate::wait::{PATIENCE, always, within};

impl Registry<'_> {
    async fn is_scaled_to(&self, replicas: i64) -> Value {
        self.deployment()
            .becomes(PATIENCE, &format!("has {replicas} replicas"), |live| live["spec"]["replicas"] == replicas)
            .await
    }

    async fn stays_scaled_to(&self, replicas: i64) {
        always(Duration::from_secs(1), "the number of replicas stays", async || {
            let live = self.deployment().get().await;
            if live["spec"]["replicas"] == replicas { Ok(()) } else { Err(brief(&live)) }
        })
        .await;
    }

    /// What `kubectl scale` does.
    async fn scale(&self, replicas: i64) {
        self.deployment().edit(json!({"spec": {"replicas": replicas}})).await;
    }
}

#[tokio::test]
async fn a_paused_registry_is_looked_at_and_not_written() {
    let Some(team) = namespace("paused").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;

    registry.object.annotate("privateregistry.dev/paused", "true").await;
    registry.says("Ready", "False", "Paused").await;
    registry.says("Stalled", "False", "").await;
    team.settles().await;

    let mark = team.mark().await;
    registry.service().edit(json!({"spec": {"sessionAffinity": "ClientIP"}, "metadata": {"labels": {"app.kubernetes.io/name": "drifted"}}})).await;
    registry.bundle().delete().await;
    registry.apply(json!({"service": {"port": 443}})).await.unwrap();
    registry.says("Ready", "False", "Paused").await;
    registry.service().stays_untouched(Duration::from_secs(1)).await;
    let written = team.written_since(mark).await;
    assert!(written.iter().all(|entry| entry.subresource == "status" || entry.resource == "events"), "{written:#?}");

    registry.object.annotate("privateregistry.dev/paused", Value::Null).await;
    registry
        .service()
        .becomes(PATIENCE, "is repaired", |live| {
            live["metadata"]["labels"]["app.kubernetes.io/name"] == "private-registry"
                && live["spec"]["ports"][0]["port"] == 443
        })
        .await;
    registry.bundle().appears(PATIENCE).await;
    registry.ready().await;
}

#[tokio::test]
async fn unless_stopped_respects_a_zero_until_it_is_scaled_up_again() {
    let Some(team) = namespace("unless-stopped").await else { return };
    let operator = team.operator().await;
    let spec = |label: &str| json!({"restartPolicy": {"type": "UnlessStopped"}, "pod": {"labels": {"example.com/round": label}}});
    let registry = team.registry("team-a", spec("1")).await.ready().await;

    registry.scale(0).await;
    registry.says("Ready", "True", "StoppedByUser").await;
    registry.says("Available", "False", "").await;
    registry.stays_scaled_to(0).await;

    operator.stop().await;
    let _operator = team.operator().await;
    registry.apply(spec("2")).await.unwrap();
    registry
        .deployment()
        .becomes(PATIENCE, "follows the manifest", |live| {
            live["spec"]["template"]["metadata"]["labels"]["example.com/round"] == "2"
        })
        .await;
    registry.stays_scaled_to(0).await;
    registry.says("Ready", "True", "StoppedByUser").await;

    let mut suspended = spec("2");
    suspended["suspend"] = json!(true);
    registry.apply(suspended).await.unwrap();
    registry.says("Ready", "True", "Suspended").await;
    registry.apply(spec("2")).await.unwrap();
    registry.says("Ready", "True", "StoppedByUser").await;
    registry.stays_scaled_to(0).await;

    registry.scale(1).await;
    registry.says("Ready", "True", "Settled").await;
    registry.stays_scaled_to(1).await;

    registry.scale(3).await;
    registry.is_scaled_to(1).await;
}

#[tokio::test]
async fn always_undoes_a_zero() {
    let Some(team) = namespace("always").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({"restartPolicy": {"type": "Always"}})).await.ready().await;

    registry.scale(0).await;

    registry.is_scaled_to(1).await;
    registry.says("Ready", "True", "Settled").await;
}

#[tokio::test]
async fn suspend_stops_a_registry_of_any_restart_policy_and_keeps_what_it_has() {
    let Some(team) = namespace("suspend").await else { return };
    let _operator = team.operator().await;
    for policy in ["Always", "UnlessStopped", "OnFailure", "Never"] {
        let spec = |suspend: bool| json!({"suspend": suspend, "restartPolicy": {"type": policy}});
        let registry = team.registry(&format!("with-{}", policy.to_lowercase()), spec(false)).await.ready().await;
        let authority = registry.ca().at("/data").await;

        registry.apply(spec(true)).await.unwrap();
        registry.says("Ready", "True", "Suspended").await;
        registry.says("Available", "False", "Suspended").await;
        registry.has_no_pod().await;

        registry.apply(spec(false)).await.unwrap();
        registry.says("Ready", "True", "Settled").await;
        assert_eq!(registry.ca().at("/data").await, authority);
    }
}

#[tokio::test]
async fn a_registry_whose_manifest_is_invalid_or_refused_is_stopped_all_the_same() {
    let Some(team) = namespace("blocked-suspended").await else { return };
    let _operator = team.operator().await;
    // Of the part of the range that is never given at random.
    let port = json!({"type": "NodePort", "nodePort": 30076});
    let _first = team.registry("first", json!({"service": port})).await.ready().await;
    let endless = team.registry("endless", json!({})).await.ready().await;
    let job = json!({"restartPolicy": {"type": "OnFailure"}});
    let ending = team.registry("ending", job.clone()).await.ready().await;
    let taken = team.registry("taken", json!({})).await.ready().await;
    let _server = taken.serving("401 Unauthorized").await;
    taken.says_within(within(40), "Available", "True", "Answering").await;
    team.settles().await;
    let claim = endless.claim().uid().await;

    for (registry, workload, mut spec, reason) in [
        (&endless, "Deployment", json!({"extraConfig": {"storge": {}}}), "InvalidManifest"),
        (
            &ending,
            "Job",
            json!({"extraConfig": {"storge": {}}, "restartPolicy": job["restartPolicy"]}),
            "InvalidManifest",
        ),
    ] {
        let workload = registry.child(workload, "");
        registry.apply(spec.clone()).await.unwrap();
        registry.says("Stalled", "True", reason).await;
        workload.survives(Duration::from_millis(300)).await;

        spec["suspend"] = json!(true);
        registry.apply(spec).await.unwrap();

        workload.disappears(PATIENCE).await;
        registry.says("Ready", "False", reason).await;
        registry.says("Available", "False", "Suspended").await;
        assert_eq!(registry.object.at("/status/readyReplicas").await, 0);
    }
    // What runs does not hang on its Service: it is stopped like any other.
    taken.apply(json!({"service": port, "suspend": true})).await.unwrap();
    taken.deployment().becomes(PATIENCE, "is scaled to zero", |live| live["spec"]["replicas"] == 0).await;
    taken.says("Available", "False", "Suspended").await;
    taken.says("Ready", "False", "Refused").await;

    endless.apply(json!({})).await.unwrap();
    let endless = endless.ready().await;
    assert_eq!(endless.claim().uid().await, claim);
}
