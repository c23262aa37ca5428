//! What each state of a Deployment, a Job and their pods is taken for.

use serde_json::json;

use super::*;
use crate::model::{Observed, Settings, resolve};

fn registry(spec: &Value) -> Resolved {
    let registry = serde_json::from_value(json!({
        "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
        "metadata": {"name": "team-a", "namespace": "registries"}, "spec": spec,
    }));
    resolve(&registry.unwrap(), &Observed::default(), &Settings::default()).unwrap()
}

fn pod(value: Value) -> PodFacts {
    PodFacts::of(&serde_json::from_value(value).unwrap())
}

fn container(state: &Value, last: &Value) -> Value {
    json!([{"name": "registry", "image": "r", "imageID": "", "ready": false, "restartCount": 2, "state": state, "lastState": last}])
}

fn deployment(replicas: i32, ready: i32) -> Value {
    json!({
        "metadata": {"generation": 2},
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": 2, "replicas": replicas, "updatedReplicas": replicas,
                   "readyReplicas": ready, "availableReplicas": ready},
    })
}

#[test]
fn a_deployment_runs_when_all_its_pods_are_new_and_available() {
    let registry = registry(&json!({}));
    let judge = |live: &Value| judge_deployment(&registry, live, &[], &Run::default());
    assert_eq!(judge(&deployment(1, 1)), Workload::Running { ready: 1 });
    assert!(matches!(judge(&deployment(1, 0)), Workload::Progressing { ready: 0, .. }));
    let mut behind = deployment(1, 1);
    behind["metadata"]["generation"] = json!(3);
    assert!(matches!(judge(&behind), Workload::Progressing { .. }));
    let mut old_pod = deployment(1, 1);
    old_pod["status"]["replicas"] = json!(2);
    assert!(matches!(judge(&old_pod), Workload::Progressing { .. }));
}

#[test]
fn pods_that_the_api_server_refuses_are_told_in_its_words() {
    let registry = registry(&json!({}));
    let mut live = deployment(1, 0);
    live["status"]["conditions"] =
        json!([{"type": "ReplicaFailure", "status": "True", "message": "no PriorityClass with name nope was found"}]);
    let Workload::Stuck { reason, message, ready: 0 } = judge_deployment(&registry, &live, &[], &Run::default()) else {
        panic!("must be stuck");
    };
    assert_eq!(reason, "PodsRefused");
    assert!(message.contains("Deployment team-a") && message.contains("PriorityClass with name nope"), "{message}");
    live["status"]["conditions"][0]["status"] = json!("False");
    assert!(matches!(judge_deployment(&registry, &live, &[], &Run::default()), Workload::Progressing { ready: 0, .. }));
}

#[test]
fn a_job_without_a_pod_says_where_to_look() {
    let once = registry(&json!({"restartPolicy": {"type": "Never"}}));
    let Workload::Progressing { message, .. } = judge_job(&once, &json!({}), &[]) else { panic!("must progress") };
    assert!(message.contains("kubectl describe job team-a"), "{message}");
}

#[test]
fn only_unless_stopped_respects_a_zero_that_a_user_wrote() {
    let live = |wanted: &str, replicas: i32| json!({"metadata": {"annotations": {labels::REPLICAS: wanted}}, "spec": {"replicas": replicas}});
    let unless = registry(&json!({"restartPolicy": {"type": "UnlessStopped"}}));
    assert!(is_stopped_by_user(&unless, Some(&live("1", 0))));
    assert!(!is_stopped_by_user(&unless, Some(&live("1", 1))));
    let suspended = registry(&json!({"restartPolicy": {"type": "UnlessStopped"}, "suspend": true}));
    assert!(is_stopped_by_user(&suspended, Some(&live("1", 0))), "stopped before it was suspended");
    // The operator itself wrote the zero, while the registry was suspended.
    assert!(!is_stopped_by_user(&unless, Some(&live("0", 0))));
    assert!(!is_stopped_by_user(&unless, None));
    assert!(!is_stopped_by_user(&registry(&json!({})), Some(&live("1", 0))));
}

#[test]
fn trouble_names_the_pod_and_the_next_action() {
    let ended = json!({"terminated": {"exitCode": 2, "message": "secret words of the registry"}});
    let full = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    for (state, last, reason, words) in [
        (json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended, "CrashLooping", "exit code 2"),
        (json!({"waiting": {"reason": "CrashLoopBackOff"}}), full, "CrashLooping", "limits.memory"),
        (json!({"waiting": {"reason": "ImagePullBackOff"}}), json!({}), "ImageNotPulled", "imagePullSecrets"),
        (json!({"waiting": {"reason": "CreateContainerConfigError"}}), json!({}), "ContainerNotCreated", "describe"),
    ] {
        let pod = pod(
            json!({"metadata": {"name": "p"}, "status": {"phase": "Pending", "containerStatuses": container(&state, &last)}}),
        );
        let (found, message) = pod.trouble.unwrap();
        assert_eq!(found, reason);
        assert!(message.contains("Pod p") && message.contains(words), "{message}");
        assert!(!message.contains("secret words"), "the registry's last words may hold secrets: {message}");
    }
}

/// A container that is not ready, as the kubelet shows it one moment after the other.
fn moment(restarts: i32, ready: bool, state: &Value, last: &Value) -> PodFacts {
    pod(json!({"metadata": {"name": "p"}, "status": {"phase": "Running", "containerStatuses": [{
        "name": "registry", "image": "r", "imageID": "", "ready": ready, "restartCount": restarts, "state": state, "lastState": last,
    }]}}))
}

#[test]
fn a_crash_loop_is_told_in_the_same_words_while_the_process_is_up_between_two_ends() {
    let ended = json!({"terminated": {"exitCode": 2, "startedAt": "2026-11-22T00:00:00Z", "finishedAt": "2026-11-22T00:00:05Z"}});
    let running = json!({"running": {"startedAt": "2026-11-22T00:01:00Z"}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    let told = moment(1, false, &waiting, &ended).trouble;
    assert_eq!(told.as_ref().unwrap().0, "CrashLooping");
    for (restarts, state) in [(2, &running), (2, &ended), (2, &waiting), (3, &running), (4, &ended)] {
        assert_eq!(moment(restarts, false, state, &ended).trouble, told, "{restarts} {state}");
    }

    assert_eq!(moment(3, true, &running, &ended).trouble, None, "it is ready");
    assert_eq!(moment(1, false, &running, &ended).trouble, None, "once is no row");
    let long = json!({"terminated": {"exitCode": 2, "startedAt": "2026-11-22T00:00:00Z", "finishedAt": "2026-11-22T00:10:00Z"}});
    assert_eq!(moment(3, false, &running, &long).trouble, None, "a good run lies between");
    let at = |time: &str| moment(3, false, &running, &ended).at(time.parse().unwrap()).trouble;
    assert_eq!(at("2026-11-22T00:10:59Z"), told);
    assert_eq!(at("2026-11-22T00:11:00Z"), None, "whatever keeps it from being ready, it does not end");
}

#[test]
fn a_job_s_pod_that_has_ended_for_good_does_not_end_again() {
    let ended = json!({"terminated": {"exitCode": 0}});
    let status =
        json!({"phase": "Succeeded", "containerStatuses": container(&ended, &json!({"terminated": {"exitCode": 2}}))});
    assert_eq!(pod(json!({"metadata": {"name": "p"}, "status": status})).trouble, None);
}

#[test]
fn an_image_that_cannot_be_pulled_is_told_once_and_not_at_each_try() {
    let trouble = |reason: &str| moment(0, false, &json!({"waiting": {"reason": reason}}), &json!({})).trouble;
    assert_eq!(trouble("ErrImagePull"), trouble("ImagePullBackOff"));
    assert!(trouble("InvalidImageName").unwrap().1.contains("InvalidImageName"));
}

#[test]
fn a_volume_that_cannot_be_written_is_told_in_the_probe_s_words() {
    let status = json!([{"name": "check-volume", "image": "o", "imageID": "", "ready": false, "restartCount": 1,
                         "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                         "lastState": {"terminated": {"exitCode": 1, "message": "cannot write: fsGroup\n"}}}]);
    let pod = pod(json!({"metadata": {"name": "p"}, "status": {"phase": "Pending", "initContainerStatuses": status}}));
    assert_eq!(pod.trouble, Some(("StorageNotWritable".to_owned(), "Pod p: cannot write: fsGroup".to_owned())));
}

/// A pod with these init containers.
fn initialising(containers: &Value) -> PodFacts {
    pod(json!({"metadata": {"name": "p"}, "status": {"phase": "Pending", "initContainerStatuses": containers}}))
}

#[test]
fn an_init_container_that_somebody_added_is_named_and_not_quoted() {
    let ended = json!({"terminated": {"exitCode": 7, "message": "planted"}});
    let mesh = |ready: bool| {
        json!([{"name": "mesh-init", "image": "m", "imageID": "", "ready": ready, "restartCount": 1,
                "state": {"running": {}}, "lastState": ended}])
    };
    let (reason, message) = initialising(&mesh(false)).trouble.unwrap();
    assert_eq!(reason, "InitContainerFailed");
    assert!(message.contains("kubectl logs p --container mesh-init") && message.contains("exit code 7"), "{message}");
    assert!(!message.contains("planted"), "{message}");
    assert_eq!(initialising(&mesh(true)).trouble, None, "it has recovered");
}

#[test]
fn a_pod_that_its_node_does_not_start_is_told_after_a_while() {
    let waits = |state: &Value| {
        let status = json!({
            "phase": "Pending", "containerStatuses": container(state, &json!({})),
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-22T00:00:00Z"}],
        });
        pod(json!({"metadata": {"name": "p"}, "status": status}))
    };
    let creating = waits(&json!({"waiting": {"reason": "ContainerCreating"}}));
    assert_eq!(creating.at("2026-11-22T00:01:29Z".parse().unwrap()).trouble, None);
    let (reason, message) = creating.at("2026-11-22T00:01:30Z".parse().unwrap()).trouble.unwrap();
    assert_eq!(reason, "PodNotStarted");
    assert!(message.contains("kubectl describe pod p"), "{message}");
    assert_eq!(waits(&json!({"running": {}})).at("2026-11-22T00:09:00Z".parse().unwrap()).trouble, None);
    let unpulled = waits(&json!({"waiting": {"reason": "ImagePullBackOff"}}));
    assert_eq!(unpulled.at("2026-11-22T00:09:00Z".parse().unwrap()).trouble.unwrap().0, "ImageNotPulled");
}

#[test]
fn an_operator_image_that_cannot_be_pulled_is_the_administrator_s_to_correct() {
    let status = json!([{"name": "check-volume", "image": "o:1", "imageID": "", "ready": false, "restartCount": 0,
                         "state": {"waiting": {"reason": "ImagePullBackOff"}}}]);
    let pod = pod(json!({"metadata": {"name": "p"}, "status": {"phase": "Pending", "initContainerStatuses": status}}));
    let (reason, message) = pod.trouble.unwrap();
    assert_eq!(reason, "ImageNotPulled");
    assert!(message.contains("image o:1") && message.contains("--operator-image"), "{message}");
}

#[test]
fn a_front_end_that_does_not_run_is_told_wherever_it_stands() {
    let nginx = |name: &str, state: Value, restarts: i32, last: Value| {
        json!([{"name": name, "image": "n:1", "imageID": "", "ready": false, "restartCount": restarts, "state": state,
                "lastState": last}])
    };
    let among = |field: &str, containers: Value| {
        pod(json!({"metadata": {"name": "p"}, "status": {"phase": "Pending", field: containers}})).trouble
    };
    let waits = |reason: &str| json!({"waiting": {"reason": reason}});
    let ended = json!({"terminated": {"exitCode": 1, "message": "planted"}});
    for field in ["initContainerStatuses", "containerStatuses"] {
        let pull = nginx("frontend", waits("ImagePullBackOff"), 0, json!({}));
        let (reason, message) = among(field, pull).unwrap();
        assert_eq!(reason, "ImageNotPulled");
        assert!(message.contains("image n:1") && message.contains("--frontend-image"), "{message}");

        let crash = nginx("frontend", waits("CrashLoopBackOff"), 3, ended.clone());
        let (reason, message) = among(field, crash).unwrap();
        assert_eq!(reason, "CrashLooping");
        assert!(message.contains("--container frontend") && message.contains("exit code 1"), "{message}");
        assert!(!message.contains("planted"), "{message}");
        let first = nginx("frontend", json!({"running": {}}), 1, ended.clone());
        assert_eq!(among(field, first), None, "it may be well again");
    }
    let (_, message) = initialising(&nginx("sidecar", waits("ErrImagePull"), 0, json!({}))).trouble.unwrap();
    assert!(message.contains("--operator-image"), "{message}");
}

#[test]
fn a_job_ends_as_its_policy_says() {
    let ended = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True"}]}});
    let once = registry(&json!({"restartPolicy": {"type": "Never"}}));
    let thrice = registry(&json!({"restartPolicy": {"type": "OnFailure", "maxRetries": 3}}));
    let reason = |workload| match workload {
        Workload::Stopped { reason, .. } | Workload::Failed { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(judge_job(&thrice, &ended("Complete"), &[])), reason::COMPLETED);
    assert_eq!(reason(judge_job(&thrice, &ended("Failed"), &[])), reason::MAX_RETRIES_EXCEEDED);
    assert_eq!(reason(judge_job(&once, &ended("Failed"), &[])), reason::FAILED);
    assert_eq!(judge_job(&once, &json!({"status": {"ready": 1}}), &[]), Workload::Running { ready: 1 });
}

#[test]
fn a_job_with_a_limited_folder_may_have_been_evicted_and_says_so() {
    let complete = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    let told = |storage: Value| match judge_job(
        &registry(&json!({"restartPolicy": {"type": "Never"}, "storage": storage})),
        &complete,
        &[],
    ) {
        Workload::Stopped { reason: reason::COMPLETED, message } => message,
        other => panic!("{other:?}"),
    };
    let limited = told(json!({"emptyDir": {"sizeLimit": "1Gi"}}));
    assert!(
        limited.contains("spec.storage.emptyDir.sizeLimit") && limited.contains("delete the Job team-a"),
        "{limited}"
    );
    assert!(!told(json!({"emptyDir": {}})).contains("sizeLimit"));
}

#[test]
fn the_exit_code_is_that_of_the_process_and_outlives_the_pod() {
    let retries = registry(&json!({"restartPolicy": {"type": "OnFailure", "maxRetries": 2}}));
    let gave_up = json!({"status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}});
    let killed = json!({"terminated": {"exitCode": 137}});
    let told_to_end = json!({"terminated": {"exitCode": 0}});
    let going = pod(json!({
        "metadata": {"name": "p", "deletionTimestamp": "2026-11-22T00:00:00Z"},
        "status": {"phase": "Running", "containerStatuses": container(&told_to_end, &killed)},
    }));
    assert_eq!(going.exit_code, Some(137));

    let told = judge_job(&retries, &gave_up, &[going]);
    let Workload::Failed { reason, message } = told.clone() else { panic!("{told:?}") };
    assert!(message.contains("137"), "{message}");
    let before: PrivateRegistryStatus = serde_json::from_value(json!({"conditions": [{
        "type": "Ready", "status": "False", "reason": reason, "message": message, "lastTransitionTime": "2026-11-22T00:00:00Z",
    }]}))
    .unwrap();
    assert_eq!(judge_job(&retries, &gave_up, &[]).remembering(&before), told);
}

#[test]
fn a_job_whose_pod_was_taken_away_has_not_ended_whatever_the_pod_ended_with() {
    let job = |limit: i32, failed: i32, condition: &str| {
        json!({
            "spec": {"backoffLimit": limit},
            "status": {"failed": failed, "conditions": [{"type": condition, "status": "True"}]},
        })
    };
    let ended = |phase: &str, deleted: bool| {
        let mut metadata = json!({"name": "p"});
        if deleted {
            metadata["deletionTimestamp"] = json!("2026-11-22T00:00:00Z");
        }
        pod(json!({"metadata": metadata, "status": {"phase": phase}}))
    };
    let itself = |phase: &str| vec![ended(phase, false)];
    let taken = |phase: &str| vec![ended(phase, true)];
    let none = Vec::new;
    for (restart, job, pods, lost) in [
        (RestartType::OnFailure, job(3, 0, "Complete"), itself("Succeeded"), false),
        (RestartType::OnFailure, job(3, 0, "Complete"), taken("Succeeded"), true),
        (RestartType::OnFailure, job(3, 0, "Complete"), none(), true),
        (RestartType::OnFailure, job(3, 0, "Suspended"), none(), false),
        // A drain that took too long.
        (RestartType::OnFailure, job(3, 1, "Suspended"), none(), true),
        (RestartType::OnFailure, job(3, 1, "Suspended"), taken("Failed"), true),
        (RestartType::OnFailure, job(3, 1, "Suspended"), itself("Running"), false),
        // The process failed too often: the Job takes the pod away.
        (RestartType::OnFailure, job(3, 1, "FailureTarget"), taken("Running"), false),
        (RestartType::OnFailure, job(3, 1, "Failed"), none(), false),
        (RestartType::OnFailure, job(3, 4, "Failed"), none(), true),
        (RestartType::Never, job(0, 0, "Complete"), itself("Succeeded"), false),
        (RestartType::Never, job(0, 0, "Complete"), none(), true),
        (RestartType::Never, job(0, 1, "Failed"), itself("Failed"), false),
        (RestartType::Never, job(0, 1, "Failed"), taken("Failed"), true),
        (RestartType::Never, job(0, 1, "Failed"), none(), true),
        (RestartType::Never, job(0, 1, "FailureTarget"), taken("Failed"), true),
        (RestartType::Never, job(0, 1, "Suspended"), none(), false),
    ] {
        assert_eq!(job_lost_its_pod(restart, &job, &pods), lost, "{restart} {job} {pods:?}");
    }
}

#[test]
fn pods_that_still_run_are_older_than_the_end_of_their_job() {
    let complete = json!({"status": {"conditions": [{"type": "Complete", "status": "True"}]}});
    let seen = |phase: &str| [pod(json!({"metadata": {"name": "p"}, "status": {"phase": phase}}))];
    assert!(pods_are_older(&complete, &seen("Running")));
    assert!(!pods_are_older(&complete, &seen("Succeeded")));
    assert!(!pods_are_older(&complete, &[]));
    assert!(!pods_are_older(&json!({}), &seen("Running")));
}
