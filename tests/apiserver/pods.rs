//! What the registry says when its pods are not well, and what each restart policy makes of an end. The kubelet is told what to show.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use testbed::fake_kubelet::Behaviour;

use crate::cluster::{Namespace, namespace};
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually, within};

fn folder(policy: Value) -> Value {
    json!({"storage": {"emptyDir": {}}, "restartPolicy": policy})
}

impl Namespace {
    /// A registry whose pods behave so from their first moment.
    async fn behaving(&self, name: &str, spec: Value, behaviour: Behaviour) -> Registry<'_> {
        self.cluster.pods_of(name, behaviour);
        self.registry(name, spec).await
    }
}

#[tokio::test]
async fn each_trouble_of_a_pod_is_told_with_what_to_do_and_ends_with_its_cause() {
    let Some(team) = namespace("troubles").await else { return };
    let _operator = team.operator().await;
    let full = "/var/lib/registry is full";
    let cases = [
        ("crashing", Behaviour::crashes(2, 5), "CrashLooping", "exit code 2"),
        ("greedy", Behaviour::out_of_memory(3), "CrashLooping", "spec.pod.resources.limits.memory"),
        ("unpulled", Behaviour::PullFails, "ImageNotPulled", "spec.pod.imagePullSecrets"),
        ("unwritable", Behaviour::init_fails("check-volume", 1, full), "StorageNotWritable", full),
        ("slow", Behaviour::NotReady, "Progressing", "0 of 1 pods are ready"),
    ];
    let mut registries = Vec::new();
    for (name, behaviour, ..) in &cases {
        registries.push(team.behaving(name, folder(json!({})), behaviour.clone()).await);
    }
    for (registry, (_, _, reason, words)) in registries.iter().zip(&cases) {
        let message = registry.says("Ready", "False", reason).await;
        assert!(message.contains(words), "{message}");
        registry.says("Available", "False", "NotRunning").await;
        registry.says("Stalled", "False", "").await;
    }
    for registry in registries {
        team.cluster.pods_of(&registry.name, Behaviour::Ready);
        registry.says("Ready", "True", "Settled").await;
    }
}

impl Registry<'_> {
    /// What `kubectl drain` does.
    async fn evicts_its_pod(&self) {
        let ours = ListParams::default().labels(&format!("privateregistry.dev/registry={}", self.name));
        let api: Api<Pod> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let pod = api.list(&ours).await.unwrap().items.remove(0).name_any();
        api.evict(&pod, &EvictParams::default()).await.unwrap();
    }

    /// Lets its pod behave otherwise, and waits until it is seen to.
    async fn pods_become(&self, behaviour: Behaviour, state: &str, restarts: i64) {
        let ours = ListParams::default().labels(&format!("privateregistry.dev/registry={}", self.name));
        self.namespace.cluster.pods_of(&self.name, behaviour);
        eventually(PATIENCE, &format!("the pod is {state} after {restarts} restarts"), async || {
            let pods = self.namespace.object("Pod", "").api.list(&ours).await.unwrap();
            let seen = json!(pods.items)[0]["status"]["containerStatuses"][0].clone();
            let fits = seen["restartCount"] == restarts && !seen["state"][state].is_null();
            if fits { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_crash_loop_is_told_once_and_not_at_each_restart() {
    let Some(team) = namespace("crash-loop").await else { return };
    let operator = team.operator().await;
    let registry = team.behaving("looping", folder(json!({})), Behaviour::crashes(2, 2)).await;
    let told = registry.says("Ready", "False", "CrashLooping").await;
    team.settles().await;

    let (mark, passes) = (team.mark().await, operator.passes().await);
    for restarts in 3..6 {
        registry.pods_become(Behaviour::NotReady, "running", restarts - 1).await;
        team.settles().await;
        registry.pods_become(Behaviour::crashes(2, i32::try_from(restarts).unwrap()), "waiting", restarts).await;
        team.settles().await;
    }

    operator.has_made(passes + 6.0).await;
    assert_eq!(team.written_since(mark).await, []);
    assert_eq!(registry.says("Ready", "False", "CrashLooping").await, told);
    team.cluster.pods_of(&registry.name, Behaviour::Ready);
    registry.says("Ready", "True", "Settled").await;
}

#[tokio::test]
async fn a_pod_that_no_node_takes_is_told_in_the_schedulers_words() {
    let Some(team) = namespace("unschedulable").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("picky", json!({"pod": {"nodeSelector": {"example.com/no": "such-node"}}})).await;
    let words = registry.says("Ready", "False", "Unschedulable").await;
    assert!(words.contains("node"), "{words}");
}

#[tokio::test]
async fn never_keeps_what_has_ended_and_says_how() {
    let Some(team) = namespace("never").await else { return };
    let _operator = team.operator().await;
    let never = || folder(json!({"type": "Never"}));
    let done = team.behaving("never-done", never(), Behaviour::exits(0)).await;
    let failed = team.behaving("never-failed", never(), Behaviour::exits(3)).await;

    done.says("Ready", "True", "Completed").await;
    let words = failed.says("Stalled", "True", "Failed").await;
    assert!(words.contains("exit code was 3"), "{words}");

    // Once it was told, tidying up the pod is no reason to start it again.
    team.settles().await;
    let uid = done.child("Job", "").uid().await;
    done.deletes_its_pods().await;
    team.settles().await;
    assert_eq!(done.child("Job", "").uid().await, uid);
}

#[tokio::test]
async fn on_failure_stops_after_its_retries_and_a_deleted_pod_is_none() {
    let Some(team) = namespace("on-failure").await else { return };
    let _operator = team.operator().await;
    let limited = || folder(json!({"type": "OnFailure", "maxRetries": 2}));
    let steady = team.registry("on-failure-steady", limited()).await.ready().await;
    let uid = steady.child("Job", "").uid().await;
    steady.deletes_its_pods().await;
    steady.child("Job", "").is_made_again(&uid, within(30)).await;
    let steady = steady.ready().await;
    steady.says("Ready", "True", "Settled").await;

    let failing = team.behaving("on-failure-failing", limited(), Behaviour::crashes(7, 1)).await;
    failing.says("Ready", "False", "CrashLooping").await;
    team.cluster.pods_of("on-failure-failing", Behaviour::crashes(7, 3));
    let words = failing.says("Stalled", "True", "MaxRetriesExceeded").await;
    assert!(words.contains("2 restarts"), "{words}");
}

/// The registry exits with 1 when its clients do not let go within the time of a drain.
#[tokio::test]
async fn a_pod_that_is_taken_away_is_no_failure_whatever_it_ends_with() {
    let Some(team) = namespace("taken-away").await else { return };
    let _operator = team.operator().await;
    for (name, policy) in
        [("taken-on-failure", json!({"type": "OnFailure", "maxRetries": 0})), ("taken-never", json!({"type": "Never"}))]
    {
        let mut registry = team.behaving(name, folder(policy), Behaviour::ExitsOnDelete(1)).await.ready().await;
        for round in 0..3 {
            let job = registry.child("Job", "");
            let uid = job.uid().await;
            if round == 2 {
                registry.evicts_its_pod().await;
            } else {
                registry.deletes_its_pods().await;
            }
            // A Job that ignores a failure makes its next pod itself, after ten seconds.
            if round < 2 || name == "taken-on-failure" {
                job.is_made_again(&uid, within(30)).await;
            }
            registry = registry.ready().await;
            registry.says("Ready", "True", "Settled").await;
        }

        team.cluster.pods_of(name, Behaviour::crashes(3, 1));
        registry.says("Stalled", "True", if name == "taken-never" { "Failed" } else { "MaxRetriesExceeded" }).await;
        let uid = registry.child("Job", "").uid().await;
        registry.deletes_its_pods().await;
        team.settles().await;
        assert_eq!(registry.child("Job", "").uid().await, uid, "once its end was told, tidying up starts nothing");
    }
}

#[tokio::test]
async fn failures_count_in_a_row_and_a_good_run_of_ten_minutes_ends_the_row() {
    let Some(team) = namespace("good-run").await else { return };
    let _operator = team.operator().await;
    let limited = folder(json!({"type": "OnFailure", "maxRetries": 2}));
    let registry = team.behaving("good-run", limited, Behaviour::crashes(7, 2)).await;
    registry.says("Ready", "False", "CrashLooping").await;
    team.cluster.pods_of("good-run", Behaviour::Ready);
    let registry = registry.ready().await;
    let job = registry.child("Job", "");
    assert_eq!(job.at("/spec/backoffLimit").await, 3, "one failure more ends it");

    // A registry that answers is not asked again, and nothing happens to its pod: only time is left to forgive.
    let _server = registry.serving("401 Unauthorized").await;
    registry.says_within(within(40), "Available", "True", "Answering").await;
    let good_run = SignedDuration::from_mins(10) - SignedDuration::from_secs(5);
    runs_since(&registry, Timestamp::now() - good_run).await;
    team.settles().await;
    assert_eq!(job.at("/spec/backoffLimit").await, 3, "not yet");
    job.becomes(within(30), "forgives two failures", |job| job["spec"]["backoffLimit"] == 5).await;

    team.cluster.pods_of("good-run", Behaviour::crashes(7, 4));
    registry.says("Ready", "False", "CrashLooping").await;
    team.settles().await;
    assert_eq!(job.at("/spec/backoffLimit").await, 5, "what was forgiven stays forgiven, and nothing more is");
    team.cluster.pods_of("good-run", Behaviour::crashes(7, 5));
    registry.says("Stalled", "True", "MaxRetriesExceeded").await;
}

/// Lets the kubelet's report say that the registry's process was started then.
async fn runs_since(registry: &Registry<'_>, start: Timestamp) {
    let pods = registry.namespace.object("Pod", "").api;
    let ours = ListParams::default().labels(&format!("privateregistry.dev/registry={}", registry.name));
    let pod = pods.list(&ours).await.unwrap().items.remove(0).name_any();
    let state = json!([{"op": "replace", "path": "/status/containerStatuses/0/state", "value": {"running": {"startedAt": start}}}]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(state).unwrap());
    pods.patch_status(&pod, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn a_lower_limit_of_retries_counts_at_once() {
    let Some(team) = namespace("fewer-retries").await else { return };
    let _operator = team.operator().await;
    let limited = |retries: i32| folder(json!({"type": "OnFailure", "maxRetries": retries}));
    let registry = team.behaving("fewer-retries", limited(5), Behaviour::crashes(7, 4)).await;
    registry.says("Ready", "False", "CrashLooping").await;
    assert_eq!(registry.child("Job", "").at("/spec/backoffLimit").await, 6);

    registry.apply(limited(2)).await.unwrap();
    let words = registry.says("Stalled", "True", "MaxRetriesExceeded").await;
    assert!(words.contains("2 restarts"), "{words}");
}

#[tokio::test]
async fn an_init_container_that_a_mesh_adds_is_named_and_nothing_that_it_said_is_repeated() {
    let Some(team) = namespace("mesh").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("meshed", folder(json!({}))).await.ready().await;
    team.cluster.pods_of("meshed", Behaviour::init_fails("mesh-init", 7, "planted-word"));
    let added = json!([{"op": "add", "path": "/spec/template/spec/initContainers/0", "value": {"name": "mesh-init", "image": "mesh:1"}}]);
    registry.deployment().patched(added).await.unwrap();

    let words = registry.says("Ready", "False", "InitContainerFailed").await;
    assert!(words.contains("--container mesh-init") && words.contains("exit code 7"), "{words}");
    team.settles().await;
    assert!(!registry.object.get().await.to_string().contains("planted-word"));
    assert!(!team.events().await.contains("planted-word"));
}

#[tokio::test]
async fn a_pod_that_its_node_never_starts_is_told_with_where_to_look() {
    let Some(team) = namespace("never-starts").await else { return };
    let _operator = team.operator().await;
    let registry = team.behaving("unmounted", folder(json!({})), Behaviour::NeverStarts).await;
    registry.says("Ready", "False", "Progressing").await;
    let pods = team.object("Pod", "").api;
    let pod = eventually(PATIENCE, "its node has the pod", async || {
        let pod = pods.list(&ListParams::default()).await.unwrap().items.pop().ok_or("none")?;
        let state = json!(pod)["status"]["containerStatuses"][0]["state"].clone();
        if state.is_null() { Err(json!(pod).to_string()) } else { Ok(pod) }
    })
    .await;
    // As if it had been so for nearly as long as it is waited: no event tells when that is over.
    let mut conditions = json!(pod)["status"]["conditions"].clone();
    let is_scheduled = |found: &&mut Value| found["type"] == "PodScheduled";
    let since = Timestamp::now() - SignedDuration::from_secs(85);
    conditions.as_array_mut().unwrap().iter_mut().find(is_scheduled).unwrap()["lastTransitionTime"] = json!(since);
    let patch = Patch::Merge(json!({"status": {"conditions": conditions}}));
    pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await.unwrap();

    let words = registry.says("Ready", "False", "PodNotStarted").await;
    assert!(words.contains(&format!("kubectl describe pod {}", pod.name_any())), "{words}");
    registry.says("Stalled", "False", "").await;
    team.cluster.pods_of("unmounted", Behaviour::Ready);
    registry.ready().await;
}

#[tokio::test]
async fn what_has_ended_stays_so_although_somebody_lets_kubernetes_remove_its_job() {
    let Some(team) = namespace("removed-job").await else { return };
    let _operator = team.operator().await;
    let never = || folder(json!({"type": "Never"}));
    let registry = team.registry("removed-job", never()).await.ready().await;
    let job = registry.child("Job", "");
    let soon = json!({"spec": {"ttlSecondsAfterFinished": 1}});
    job.edit(soon.clone()).await;
    job.becomes(within(5), "stays when it has ended", |job| job["spec"]["ttlSecondsAfterFinished"] == i32::MAX).await;

    team.cluster.pods_of("removed-job", Behaviour::exits(3));
    let words = registry.says("Stalled", "True", "Failed").await;
    assert!(words.contains("delete the Job"), "{words}");
    job.edit(soon).await;
    registry
        .object
        .becomes(within(5), "knows that the Job goes", |live| {
            live["status"]["endedGeneration"] == live["metadata"]["generation"]
        })
        .await;
    job.disappears(PATIENCE).await;
    job.stays_away(within(3)).await;
    let words = registry.says("Stalled", "True", "Failed").await;
    assert!(words.contains("exit code was 3") && words.contains("set spec.suspend to true and back"), "{words}");
    registry.says("Available", "False", "Failed").await;

    team.cluster.pods_of("removed-job", Behaviour::Ready);
    let mut suspended = never();
    suspended["suspend"] = json!(true);
    registry.apply(suspended).await.unwrap();
    registry.says("Ready", "True", "Suspended").await;
    registry.apply(never()).await.unwrap();
    let registry = registry.ready().await;
    assert!(registry.object.at("/status/endedGeneration").await.is_null());
}

/// A policy of the cluster that lets Kubernetes remove the Jobs of this namespace a second after they have ended.
async fn jobs_are_removed(team: &Namespace) {
    let name = format!("jobs-are-removed-{}", team.name);
    let rule = json!({"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["jobs"]});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": team.name}}, "resourceRules": [rule],
            },
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
                "expression": "Object{spec: Object.spec{ttlSecondsAfterFinished: 1}}",
            }}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name},
    });
    let policies: Api<MutatingAdmissionPolicy> = Api::all(team.client.clone());
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    let bindings: Api<MutatingAdmissionPolicyBinding> = Api::all(team.client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    let probe = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "probe"},
        "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}},
    });
    let probe = team.create(probe).await;
    let mut round = 0;
    eventually(PATIENCE, "the policy is at work", async || {
        round += 1;
        probe.edit(json!({"metadata": {"labels": {"round": format!("r{round}")}}})).await;
        let kept = probe.at("/spec/ttlSecondsAfterFinished").await;
        if kept == 1 { Ok(()) } else { Err(kept.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_job_that_ended_and_was_removed_while_no_operator_looked_is_not_started_again() {
    let Some(team) = namespace("removed-unseen").await else { return };
    jobs_are_removed(&team).await;
    let operator = team.operator().await;
    let never = || folder(json!({"type": "Never"}));
    let registry = team.registry("removed-unseen", never()).await.ready().await;
    let job = registry.child("Job", "");
    assert_eq!(job.at("/spec/ttlSecondsAfterFinished").await, 1);
    registry
        .object
        .becomes(PATIENCE, "tells of its Job", |live| {
            live["status"]["startedGeneration"] == live["metadata"]["generation"]
        })
        .await;
    // While somebody looks, one that is deleted is made again.
    let uid = job.uid().await;
    job.delete().await;
    job.is_made_again(&uid, PATIENCE).await;
    let registry = registry.ready().await;
    team.settles().await;

    assert!(operator.stop().await.success());
    team.cluster.pods_of("removed-unseen", Behaviour::exits(3));
    job.disappears(PATIENCE).await;
    let operator = team.operator().await;
    operator.has_made(1.0).await;
    let words = registry.says("Stalled", "True", "Failed").await;
    assert!(words.contains("no operator looked") && words.contains("set spec.suspend to true and back"), "{words}");
    job.stays_away(within(3)).await;

    // The next operator knows it, too.
    assert!(operator.stop().await.success());
    let operator = team.operator().await;
    operator.has_made(1.0).await;
    job.stays_away(within(1)).await;
    team.cluster.pods_of("removed-unseen", Behaviour::Ready);
    let mut suspended = never();
    suspended["suspend"] = json!(true);
    registry.apply(suspended).await.unwrap();
    registry.says("Ready", "True", "Suspended").await;
    registry.apply(never()).await.unwrap();
    registry.ready().await;
}

#[tokio::test]
async fn whoever_deletes_the_job_of_what_has_ended_starts_it_again() {
    let Some(team) = namespace("deleted-job").await else { return };
    let _operator = team.operator().await;
    let registry = team.behaving("deleted-job", folder(json!({"type": "Never"})), Behaviour::exits(3)).await;
    registry.says("Stalled", "True", "Failed").await;
    let uid = registry.child("Job", "").uid().await;
    team.cluster.pods_of("deleted-job", Behaviour::Ready);
    registry.child("Job", "").delete().await;
    registry.child("Job", "").is_made_again(&uid, PATIENCE).await;
    registry.ready().await;
}

#[tokio::test]
async fn who_waits_for_a_claim_starts_when_the_pods_of_who_had_it_have_ended() {
    let Some(team) = namespace("claim-changes-hands").await else { return };
    let _operator = team.operator().await;
    team.claim("images", "ReadWriteOnce").await;
    let on_it = || json!({"storage": {"existingClaim": {"name": "images"}}});
    let former = team.behaving("former", on_it(), Behaviour::HangsOnDelete).await.ready().await;
    let waiting = team.registry("waiting", on_it()).await;
    waiting.says("Ready", "False", "ClaimShared").await;

    former.delete().await;
    let words = waiting.says("Ready", "False", "Progressing").await;
    assert!(words.contains("Pod former-") && words.contains("PersistentVolumeClaim images"), "{words}");
    // Nor does one that nobody saw wait.
    let late = team.registry("zz-late", on_it()).await;
    late.says("Ready", "False", "ClaimShared").await;
    waiting.deployment().stays_away(within(2)).await;

    team.cluster.pods_of("former", Behaviour::Ready);
    former.has_no_pod().await;
    waiting.ready().await;
}
