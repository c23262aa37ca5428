//! What happens when the registry's process ends: every cell of the table of restart policies, with processes that really die.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, ListParams};
use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use serde_json::{Value, json};

use crate::cluster::{Cluster, cluster, node, stays, wait};
use crate::registry::Registry;

async fn registry(cluster: &Cluster, namespace: &str, policy: Value) -> Registry {
    let spec = json!({"storage": {"emptyDir": {}}, "restartPolicy": policy});
    let name = policy["type"].as_str().unwrap().to_lowercase();
    cluster.registry(namespace, &name, spec).await.ready().await
}

#[tokio::test]
async fn always_and_unless_stopped_restart_in_place_whatever_happens() {
    let Some(cluster) = node("kills a registry's process").await else { return };
    let always = registry(&cluster, "always", json!({"type": "Always"})).await;
    let unless_stopped = registry(&cluster, "unless-stopped", json!({"type": "UnlessStopped"})).await;

    for registry in [&always, &unless_stopped] {
        let before = registry.kill(SIGTERM).await;
        registry.restarted(1).await;
        registry.kill(SIGKILL).await;
        let after = registry.restarted(2).await;
        assert_eq!(after.metadata.uid, before.metadata.uid);
        assert_eq!(registry.is("Settled").await.status, "True");
    }
}

#[tokio::test]
async fn always_undoes_a_scaling_to_zero() {
    let Some(cluster) = cluster().await else { return };
    let registry = registry(&cluster, "scaled-always", json!({"type": "Always"})).await;
    let before = registry.pod().await;

    registry.scale(0).await;

    registry.successor_of(&before).await;
    assert_eq!(registry.is("Settled").await.status, "True");
}

#[tokio::test]
async fn unless_stopped_stays_stopped_when_a_user_scaled_it_to_zero() {
    let Some(cluster) = cluster().await else { return };
    let registry = registry(&cluster, "scaled-unless", json!({"type": "UnlessStopped"})).await;

    registry.scale(0).await;
    let stopped = registry.is("StoppedByUser").await;
    assert_eq!(stopped.status, "True");
    assert!(stopped.message.contains("kubectl scale"), "{}", stopped.message);
    registry.stopped().await;
    cluster.restart_operator().await;
    registry.change(json!({"config": {"logLevel": "warn"}})).await;
    registry.is("StoppedByUser").await;
    stays("it has no pod", async || registry.has_no_pod().await).await;

    registry.scale(1).await;
    registry.pod().await;
    registry.is("Settled").await;
}

#[tokio::test]
async fn on_failure_stays_stopped_after_an_end_without_error() {
    let Some(cluster) = node("kills a registry's process").await else { return };
    let registry = registry(&cluster, "completed", json!({"type": "OnFailure"})).await;

    registry.kill(SIGTERM).await;

    let completed = registry.is("Completed").await;
    assert_eq!(completed.status, "True");
    assert_eq!(registry.condition("Available", "Completed").await.status, "False");
    stays("nothing runs", async || nothing_runs(&registry).await).await;

    let jobs_pods = ListParams::default().labels("privateregistry.dev/registry=onfailure");
    registry.own::<Pod>().delete_collection(&DeleteParams::default(), &jobs_pods).await.unwrap();
    stays("a finished pod that is tidied up is not replaced", async || nothing_runs(&registry).await).await;
    registry.change(json!({"config": {"logLevel": "warn"}})).await;
    registry.pod().await;
    assert_eq!(registry.is("Settled").await.status, "True", "a changed manifest is begun again");
}

#[tokio::test]
async fn on_failure_restarts_in_place_until_it_failed_too_often_in_a_row() {
    let Some(cluster) = node("kills a registry's process").await else { return };
    let registry = registry(&cluster, "retries", json!({"type": "OnFailure", "maxRetries": 2})).await;

    let first = registry.kill(SIGKILL).await;
    let again = registry.restarted(1).await;
    assert_eq!(again.metadata.uid, first.metadata.uid, "restarted in place");
    registry.kill(SIGKILL).await;
    registry.restarted(2).await;
    registry.kill(SIGKILL).await;

    let given_up = registry.is("MaxRetriesExceeded").await;
    assert_eq!(given_up.status, "False");
    // Kubernetes removes the pod at once, on a busy machine before anybody has looked at it.
    let told = ["exit code was 137", "Kubernetes removes the pod of a Job that gave up"];
    assert!(told.iter().any(|words| given_up.message.contains(words)), "{}", given_up.message);
    assert!(given_up.message.contains("delete the Job onfailure"), "{}", given_up.message);
    assert_eq!(registry.condition("Stalled", "MaxRetriesExceeded").await.status, "True");
    registry.stopped().await;
    stays("it has no pod", async || registry.has_no_pod().await).await;
    let still = registry.is("MaxRetriesExceeded").await;
    assert_eq!(still.message, given_up.message, "what the pod told outlives the pod");

    registry.own::<Job>().delete("onfailure", &DeleteParams::background()).await.unwrap();
    registry.pod().await;
    registry.is("Settled").await;
}

#[tokio::test]
async fn on_failure_replaces_a_pod_that_was_deleted_or_drained_and_does_not_count_it() {
    let Some(cluster) = node("kills a registry's process").await else { return };
    let registry = registry(&cluster, "replaced", json!({"type": "OnFailure", "maxRetries": 1})).await;

    let deleted = registry.delete_pod().await;
    let second = registry.successor_of(&deleted).await;
    drain(&registry, &second).await;
    let third = registry.successor_of(&second).await;
    let deleted = registry.delete_pod().await;
    assert_eq!(deleted.metadata.uid, third.metadata.uid);
    registry.successor_of(&third).await;
    assert_eq!(registry.is("Settled").await.status, "True");

    registry.kill(SIGKILL).await;
    registry.restarted(1).await;
    registry.is("Settled").await;
}

/// The registry then exits with 1.
#[tokio::test]
async fn on_failure_replaces_a_pod_whose_clients_did_not_let_go_and_does_not_count_it() {
    let Some(cluster) = cluster().await else { return };
    let registry = registry(&cluster, "slow-drain", json!({"type": "OnFailure", "maxRetries": 0})).await;
    let upload = registry.admin().await.holds_an_upload("team/app").await;

    let deleted = Instant::now();
    let first = registry.delete_pod().await;
    upload.ends().await;

    assert!(deleted.elapsed() > Duration::from_secs(20), "it was cut after {:?}", deleted.elapsed());
    registry.successor_of(&first).await;
    assert_eq!(registry.is("Settled").await.status, "True");
    let job = registry.own::<Job>().get(&registry.name).await.unwrap();
    // Kubernetes may count the pod before the operator replaces the Job. What counts is that no failure is too many, although none is allowed.
    let conditions = job.status.and_then(|status| status.conditions).unwrap_or_default();
    assert!(conditions.iter().all(|condition| condition.type_ != "Failed"), "{conditions:?}");
}

#[tokio::test]
async fn never_stays_stopped_and_keeps_the_pod_for_its_log() {
    let Some(cluster) = node("kills a registry's process").await else { return };
    let failing = registry(&cluster, "failed", json!({"type": "Never"})).await;
    let ending = registry(&cluster, "ended", json!({"type": "Never"})).await;

    let pod = failing.kill(SIGKILL).await;
    ending.kill(SIGTERM).await;

    let failed = failing.is("Failed").await;
    assert_eq!(failed.status, "False");
    assert!(failed.message.contains("exit code was 137"), "{}", failed.message);
    assert_eq!(ending.is("Completed").await.status, "True");
    stays("nothing runs", async || {
        nothing_runs(&failing).await?;
        nothing_runs(&ending).await
    })
    .await;
    let kept = failing.pod_that("is kept", |kept| kept.metadata.uid == pod.metadata.uid).await;
    let log = failing.own::<Pod>().logs(&kept.metadata.name.unwrap(), &Default::default()).await.unwrap();
    assert!(log.contains("listening on"), "{log}");
}

#[tokio::test]
async fn never_replaces_a_pod_that_was_deleted_or_drained() {
    let Some(cluster) = cluster().await else { return };
    let registry = registry(&cluster, "once", json!({"type": "Never"})).await;

    let deleted = registry.delete_pod().await;
    let second = registry.successor_of(&deleted).await;
    drain(&registry, &second).await;
    registry.successor_of(&second).await;

    assert_eq!(registry.is("Settled").await.status, "True");
}

#[tokio::test]
async fn suspend_stops_and_starts_any_of_them() {
    let Some(cluster) = cluster().await else { return };
    let mut all = Vec::new();
    for (namespace, policy) in
        [("suspend-a", "Always"), ("suspend-u", "UnlessStopped"), ("suspend-o", "OnFailure"), ("suspend-n", "Never")]
    {
        all.push(registry(&cluster, namespace, json!({"type": policy})).await);
    }

    for registry in &all {
        registry.change(json!({"suspend": true})).await;
    }
    for registry in &all {
        let suspended = registry.is("Suspended").await;
        assert_eq!(suspended.status, "True", "a declared stop is as the manifest says");
        assert_eq!(registry.condition("Available", "Suspended").await.status, "False");
        registry.stopped().await;
    }

    for registry in &all {
        registry.change(json!({"suspend": false})).await;
    }
    for registry in &all {
        registry.pod().await;
        assert_eq!(registry.is("Settled").await.status, "True");
    }
}

#[tokio::test]
async fn policies_are_kept_when_it_happens_while_the_operator_is_down() {
    let Some(cluster) = node("kills a registry's process").await else { return };
    let always = registry(&cluster, "down-always", json!({"type": "Always"})).await;
    let unless_stopped = registry(&cluster, "down-stopped", json!({"type": "UnlessStopped"})).await;
    let completed = registry(&cluster, "down-completed", json!({"type": "OnFailure"})).await;
    let deleted = registry(&cluster, "down-deleted", json!({"type": "OnFailure"})).await;
    let never = registry(&cluster, "down-never", json!({"type": "Never"})).await;

    let lost = cluster
        .without_operator(async {
            always.kill(SIGKILL).await;
            unless_stopped.scale(0).await;
            completed.kill(SIGTERM).await;
            never.kill(SIGKILL).await;
            let lost = deleted.delete_pod().await;
            for (registry, condition) in [(&completed, "Complete"), (&deleted, "Complete"), (&never, "Failed")] {
                job_is(registry, condition).await;
            }
            always.restarted(1).await;
            lost
        })
        .await;

    always.is("Settled").await;
    unless_stopped.is("StoppedByUser").await;
    completed.is("Completed").await;
    never.is("Failed").await;
    deleted.successor_of(&lost).await;
    stays("what was stopped stays stopped", async || {
        unless_stopped.has_no_pod().await?;
        nothing_runs(&completed).await?;
        nothing_runs(&never).await
    })
    .await;
}

/// What `kubectl drain` does to each pod.
async fn drain(registry: &Registry, pod: &Pod) {
    let name = pod.metadata.name.as_deref().unwrap();
    registry.own::<Pod>().evict(name, &EvictParams::default()).await.unwrap();
}

async fn job_is(registry: &Registry, wanted: &str) {
    wait(format!("Job {} is {wanted}", registry.name), async || {
        let job = registry.own::<Job>().get(&registry.name).await.unwrap();
        let status = json!(job.status);
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let is = conditions.iter().any(|found| found["type"] == wanted && found["status"] == "True");
        if is { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

async fn nothing_runs(registry: &Registry) -> Result<(), String> {
    let pods = registry.pods().await;
    let ended = |pod: &Pod| {
        pod.status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
    };
    if pods.iter().all(ended) { Ok(()) } else { Err(crate::cluster::brief(&pods)) }
}
