//! How the Deployment or Job is doing, and why, from what the server returned.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use serde_json::Value;

use crate::api::{PrivateRegistryStatus, RestartType, condition, reason};
use crate::desired::pod::{CONTAINER, VOLUME_PROBE};
use crate::desired::workload::KEPT_FOR;
use crate::desired::{Run, frontend};
use crate::model::{Resolved, Storage, labels};

/// A good run of this length ends a row of failures.
pub const GOOD_RUN: SignedDuration = SignedDuration::from_mins(10);

/// How long a node may take until the first container of a pod has started, before that is told: pulling an image takes its time.
pub const START_TIME: SignedDuration = SignedDuration::from_secs(90);

/// Restarts after which a process that is up again has not recovered before it is ready.
const ROW: i32 = 2;

/// Where the operator's own image is named.
const OPERATOR_IMAGE: &str = "the operator's --operator-image (image.repository of its chart)";

/// How the workload is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Workload {
    /// Everything that is wanted runs, in its newest form.
    Running {
        /// Pods that are ready.
        ready: i32,
    },
    /// It is on its way there.
    Progressing {
        /// What it waits for.
        message: String,
        /// Pods that are ready.
        ready: i32,
    },
    /// It is trying, and something stands in the way.
    Stuck {
        /// One CamelCase word.
        reason: String,
        /// Names the pod and the next action.
        message: String,
        /// Pods that are ready.
        ready: i32,
    },
    /// What ran before, while what is wanted now cannot be made yet.
    Former {
        /// Pods that are ready.
        ready: i32,
    },
    /// Stopped, as told.
    Stopped {
        /// `Suspended`, `StoppedByUser` or `Completed`.
        reason: &'static str,
        /// How to start it.
        message: String,
    },
    /// Stopped after an error, as the restart policy says.
    Failed {
        /// `Failed` or `MaxRetriesExceeded`.
        reason: &'static str,
        /// The exit code and what to look at.
        message: String,
    },
}

impl Workload {
    /// Pods that are ready.
    #[must_use]
    pub fn ready_pods(&self) -> i32 {
        match self {
            Self::Running { ready }
            | Self::Progressing { ready, .. }
            | Self::Stuck { ready, .. }
            | Self::Former { ready } => *ready,
            Self::Stopped { .. } | Self::Failed { .. } => 0,
        }
    }

    /// A Job that gave up loses its pod, and with it what the pod told: what the status has of it is told on.
    #[must_use]
    pub fn remembering(self, before: &PrivateRegistryStatus) -> Self {
        let Self::Failed { reason, message } = self else { return self };
        let told = before.condition(condition::READY).filter(|found| found.reason == reason);
        Self::Failed { reason, message: told.map_or(message, |told| told.message.clone()) }
    }
}

/// What a Job that is gone was told to be: how it ended is remembered where it stands in any case. Where that is not known, it was gone before the operator
/// came back.
#[must_use]
pub fn judge_removed_job(before: &PrivateRegistryStatus) -> Workload {
    let told = before.condition(condition::AVAILABLE);
    let words = |reason: &str| told.filter(|told| told.reason == reason).map(|told| told.message.clone());
    if let Some(message) = words(reason::COMPLETED) {
        return Workload::Stopped { reason: reason::COMPLETED, message };
    }
    if let Some(message) = words(reason::MAX_RETRIES_EXCEEDED) {
        return Workload::Failed { reason: reason::MAX_RETRIES_EXCEEDED, message };
    }
    let unseen = || {
        format!(
            "the Job was removed while no operator looked, so that nobody knows how it ended: {}",
            how_a_removed_job_starts()
        )
    };
    Workload::Failed { reason: reason::FAILED, message: words(reason::FAILED).unwrap_or_else(unseen) }
}

fn how_a_removed_job_starts() -> &'static str {
    "something sets ttlSecondsAfterFinished, so that Kubernetes removes the Job; set spec.suspend to true and back to false to start it again"
}

/// Whether Kubernetes removes a Job soon after it has ended, because somebody else says so.
#[must_use]
pub fn is_removed_when_finished(job: &Value) -> bool {
    job.pointer("/spec/ttlSecondsAfterFinished").and_then(Value::as_i64).is_some_and(|kept| kept < i64::from(KEPT_FOR))
}

/// What matters of one of the registry's pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// It was deleted, drained or preempted: that it ends says nothing about the process.
    pub disrupted: bool,
    /// Its phase.
    pub phase: String,
    /// Restarts of the registry's process.
    pub restarts: i32,
    /// Exit code of the last run that ended by itself.
    pub exit_code: Option<i32>,
    /// Since when the process has been running.
    pub running_since: Option<Timestamp>,
    /// Since when its node has had it without starting any container.
    pub starting_since: Option<Timestamp>,
    /// What stands in the way: reason and words.
    pub trouble: Option<(String, String)>,
    /// Where it answers, while it is ready.
    pub address: Option<IpAddr>,
}

impl PodFacts {
    /// Reads a pod.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let registry = status.container_statuses.iter().flatten().find(|container| container.name == CONTAINER);
        let before_it =
            status.container_statuses.iter().flatten().find(|container| container.name == frontend::CONTAINER);
        let disrupted = pod.metadata.deletion_timestamp.is_some()
            || status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
        // The registry exits with 0 when it is told to end: that says nothing about how it ended before.
        let ended = registry.and_then(|container| {
            let states = [container.state.clone(), container.last_state.clone()];
            let ends = states.into_iter().flatten().filter_map(|state| state.terminated);
            ends.into_iter().find(|ended| !(disrupted && ended.exit_code == 0))
        });
        let unscheduled = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
            .map(|condition| {
                let words = condition.message.clone().unwrap_or_default();
                ("Unschedulable".to_owned(), format!("Pod {name} finds no node: {words}"))
            });
        let first =
            status.init_container_statuses.iter().flatten().find_map(|container| init_trouble(&name, container));
        let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        Self {
            disrupted,
            phase: status.phase.clone().unwrap_or_default(),
            restarts: registry.map_or(0, |container| container.restart_count),
            exit_code: ended.as_ref().map(|ended| ended.exit_code),
            running_since: registry
                .and_then(|container| container.state.clone()?.running?.started_at)
                .map(|time| time.0),
            starting_since: starting_since(&status).filter(|_| !disrupted),
            address: address(&status).filter(|_| !disrupted),
            trouble: first
                .or_else(|| registry.and_then(|container| registry_trouble(&name, container, is_over)))
                .or_else(|| before_it.and_then(|container| frontend_trouble(&name, container)))
                .or(unscheduled)
                .filter(|_| !disrupted),
            name,
        }
    }

    /// As it is at this time: what has run well for long does not end again and again, whatever it did before.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Self {
        let runs_well = self.running_since.is_some_and(|since| now.duration_since(since) >= GOOD_RUN);
        let trouble = self.trouble.clone().or_else(|| self.late(now)).filter(|_| !runs_well);
        Self { trouble, ..self.clone() }
    }

    /// A volume that cannot be mounted leaves no trace in a pod's status but this.
    fn late(&self, now: Timestamp) -> Option<(String, String)> {
        let (name, since) = (&self.name, self.starting_since?);
        let words = format!(
            "Pod {name}: its node has not started any container for more than {} s: a volume that cannot be mounted, or an image that is slow to pull; \
             see kubectl describe pod {name}",
            START_TIME.as_secs()
        );
        (now.duration_since(since) >= START_TIME).then(|| ("PodNotStarted".to_owned(), words))
    }
}

fn address(status: &PodStatus) -> Option<IpAddr> {
    let mut conditions = status.conditions.iter().flatten();
    let is_ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
    status.pod_ip.as_ref().filter(|_| is_ready)?.parse().ok()
}

/// Since when a node has had the pod, if none of its containers has started yet.
fn starting_since(status: &PodStatus) -> Option<Timestamp> {
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let mut states = containers.flat_map(|container| [&container.state, &container.last_state]).flatten();
    if status.phase.as_deref() != Some("Pending")
        || states.any(|state| state.running.is_some() || state.terminated.is_some())
    {
        return None;
    }
    let mut conditions = status.conditions.iter().flatten();
    let scheduled = conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "True")?;
    scheduled.last_transition_time.as_ref().map(|time| time.0)
}

fn init_trouble(pod: &str, container: &ContainerStatus) -> Option<(String, String)> {
    match container.name.as_str() {
        VOLUME_PROBE => volume_trouble(pod, container),
        frontend::CONTAINER | frontend::SIDECAR => frontend_trouble(pod, container),
        _ => added_trouble(pod, container),
    }
}

/// What stands before the registry. Where a pod ends with its registry, it is among the init containers.
fn frontend_trouble(pod: &str, container: &ContainerStatus) -> Option<(String, String)> {
    let name = &container.name;
    let state = container.state.clone().unwrap_or_default();
    let waiting = state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
    let source = match name.as_str() {
        frontend::SIDECAR => OPERATOR_IMAGE,
        _ => "the operator's --frontend-image (frontend.image of its chart)",
    };
    if let Some(trouble) = image_trouble(pod, &container.image, &waiting, source) {
        return Some(trouble);
    }
    let last = container.last_state.clone().and_then(|last| last.terminated);
    let ended = state.terminated.or(last).filter(|_| !container.ready && container.restart_count >= ROW);
    if waiting != "CrashLoopBackOff" && ended.is_none() {
        return None;
    }
    let why = ended.map_or_else(String::new, |ended| match ended.reason.as_deref() {
        Some("OOMKilled") => "; it ran out of memory: raise spec.frontend.nginx.resources.limits.memory".to_owned(),
        _ => format!("; it ended with exit code {}", ended.exit_code),
    });
    let words = format!(
        "Pod {pod}: the container {name} of the front end ends again and again{why}; see kubectl logs --previous {pod} --container {name}"
    );
    Some(("CrashLooping".to_owned(), words))
}

/// An init container that a mesh or a policy added. What it said is not repeated: nobody knows what it may hold.
fn added_trouble(pod: &str, container: &ContainerStatus) -> Option<(String, String)> {
    let name = &container.name;
    let state = container.state.clone().unwrap_or_default();
    let last = container.last_state.clone().and_then(|last| last.terminated);
    let ended = state.terminated.or(last).filter(|ended| ended.exit_code != 0 && !container.ready);
    if let Some(ended) = ended {
        let words = format!(
            "Pod {pod}: the init container {name}, which is not the registry's, ended with exit code {}; see kubectl logs {pod} --container {name}, \
             and ask who adds it",
            ended.exit_code
        );
        return Some(("InitContainerFailed".to_owned(), words));
    }
    let source = format!("what adds the init container {name}");
    state.waiting.and_then(|waiting| image_trouble(pod, &container.image, &waiting.reason.unwrap_or_default(), &source))
}

/// The init container is ours: its last words are for users. The registry's are not repeated: they may hold secrets.
fn volume_trouble(pod: &str, container: &ContainerStatus) -> Option<(String, String)> {
    let state = container.state.clone().unwrap_or_default();
    let ended =
        state.terminated.or_else(|| container.last_state.clone()?.terminated).filter(|ended| ended.exit_code != 0);
    if let Some(ended) = ended {
        let words = ended.message.unwrap_or_default();
        return Some(("StorageNotWritable".to_owned(), format!("Pod {pod}: {}", words.trim())));
    }
    let reason = state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
    image_trouble(pod, &container.image, &reason, OPERATOR_IMAGE)
}

fn registry_trouble(pod: &str, container: &ContainerStatus, is_over: bool) -> Option<(String, String)> {
    let state = container.state.clone().unwrap_or_default();
    let waiting = state.waiting.and_then(|waiting| waiting.reason).unwrap_or_default();
    if let Some(trouble) = image_trouble(pod, &container.image, &waiting, "the name") {
        return Some(trouble);
    }
    let last = container.last_state.clone().and_then(|last| last.terminated);
    let ended = state.terminated.or(last);
    // Between two ends the process is up for a moment: that it is well again shows when it is ready.
    let ends_in_a_row =
        !is_over && !container.ready && container.restart_count >= ROW && ended.as_ref().is_some_and(was_short);
    if waiting != "CrashLoopBackOff" && !ends_in_a_row {
        return None;
    }
    let why = ended.map_or_else(String::new, |ended| match ended.reason.as_deref() {
        Some("OOMKilled") => "; it ran out of memory: raise spec.pod.resources.limits.memory".to_owned(),
        _ => format!("; it ended with exit code {}", ended.exit_code),
    });
    Some((
        "CrashLooping".to_owned(),
        format!("Pod {pod}: the registry's process ends again and again{why}; see kubectl logs --previous {pod}"),
    ))
}

fn was_short(run: &ContainerStateTerminated) -> bool {
    let times = run.started_at.as_ref().zip(run.finished_at.as_ref());
    times.is_none_or(|(started, finished)| finished.0.duration_since(started.0) < GOOD_RUN)
}

fn image_trouble(pod: &str, image: &str, reason: &str, source: &str) -> Option<(String, String)> {
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
            // The kubelet shows these two in turn, at each try.
            let takes_turns = matches!(reason, "ErrImagePull" | "ImagePullBackOff");
            let how = if takes_turns { String::new() } else { format!(" ({reason})") };
            Some((
                "ImageNotPulled".to_owned(),
                format!(
                    "Pod {pod}: image {image} cannot be pulled{how}; check {source}, and spec.pod.imagePullSecrets"
                ),
            ))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => Some((
            "ContainerNotCreated".to_owned(),
            format!("Pod {pod}: the container cannot be created ({reason}); see kubectl describe pod {pod}"),
        )),
        _ => None,
    }
}

/// How a Deployment is doing.
#[must_use]
pub fn judge_deployment(registry: &Resolved, live: &Value, pods: &[PodFacts], run: &Run) -> Workload {
    let name = &registry.name;
    if registry.suspend {
        return stopped(reason::SUSPENDED, "spec.suspend is true; set it to false to start the registry");
    }
    if run.stopped_by_user {
        return Workload::Stopped {
            reason: reason::STOPPED_BY_USER,
            message: format!(
                "stopped by a user; kubectl scale deployment {name} --replicas={} starts it",
                registry.replicas
            ),
        };
    }
    let ready = number(live, "/status/readyReplicas");
    let current = number(live, "/status/observedGeneration") >= number(live, "/metadata/generation");
    let wanted = registry.replicas;
    let settled = current
        && number(live, "/status/updatedReplicas") == wanted
        && number(live, "/status/availableReplicas") == wanted
        && number(live, "/status/replicas") == wanted;
    if settled {
        return Workload::Running { ready };
    }
    match (unsettled(pods, ready, format!("{ready} of {wanted} pods are ready")), refusal_of_pods(live)) {
        (Workload::Progressing { .. }, Some(why)) => Workload::Stuck {
            reason: "PodsRefused".to_owned(),
            message: format!("Deployment {name} cannot make its pods: {why}; correct what this names"),
            ready,
        },
        (judged, _) => judged,
    }
}

/// A quota, an admission policy, a PriorityClass that does not exist: there is no pod that could tell.
fn refusal_of_pods(deployment: &Value) -> Option<&str> {
    condition_of(deployment, "ReplicaFailure")?["message"].as_str()
}

/// How a Job is doing.
#[must_use]
pub fn judge_job(registry: &Resolved, live: &Value, pods: &[PodFacts]) -> Workload {
    if registry.suspend {
        return stopped(reason::SUSPENDED, "spec.suspend is true; set it to false to start the registry");
    }
    let name = &registry.name;
    let exit = pods
        .iter()
        .find_map(|pod| pod.exit_code)
        .map_or_else(String::new, |code| format!("; its exit code was {code}"));
    let again = if is_removed_when_finished(live) {
        how_a_removed_job_starts().to_owned()
    } else {
        format!("delete the Job {name} to start it again")
    };
    if job_has(live, "Complete") {
        let ended = "the registry's process ended by itself with exit code 0, and spec.restartPolicy.type says that it stays so";
        // The kubelet that evicts such a pod leaves no trace in its status, and the registry ends with 0 when it is told to.
        return match registry.storage {
            Storage::EmptyDir { limit: Some(_) } => stopped(
                reason::COMPLETED,
                &format!(
                    "{ended}; or its folder was over spec.storage.emptyDir.sizeLimit: kubectl describe pod then says Evicted; raise \
                     the limit, and {again}"
                ),
            ),
            _ => stopped(reason::COMPLETED, &format!("{ended}; {again}")),
        };
    }
    if job_has(live, "Failed") || job_has(live, "FailureTarget") {
        let (reason, message) = if registry.restart == RestartType::OnFailure {
            let retries = registry.max_retries.unwrap_or(i32::MAX);
            let why = format!("the registry's process failed after {retries} restarts in a row{exit}");
            let log = "Kubernetes removes the pod of a Job that gave up: its log is where you collect logs";
            (
                reason::MAX_RETRIES_EXCEEDED,
                format!("{why}; {log}, and kubectl describe job/{name} shows its events; {again}"),
            )
        } else {
            let why = "the registry's process failed, and spec.restartPolicy.type is Never";
            (reason::FAILED, format!("{why}{exit}; see kubectl logs job/{name}, then {again}"))
        };
        return Workload::Failed { reason, message };
    }
    let ready = number(live, "/status/ready");
    if ready >= 1 {
        return Workload::Running { ready };
    }
    let waits_for = match pods {
        [] => format!("Job {name} has no pod yet; if it stays so, see kubectl describe job {name}"),
        _ => "the pod is not ready".to_owned(),
    };
    unsettled(pods, ready, waits_for)
}

/// How a Deployment or Job is doing that was made for what was wanted before. What is wanted now does not judge it.
#[must_use]
pub fn judge_former(live: &Value) -> Workload {
    Workload::Former { ready: number(live, "/status/readyReplicas").max(number(live, "/status/ready")) }
}

/// Whether a Job has ended, one way or the other.
#[must_use]
pub fn job_is_finished(live: &Value) -> bool {
    job_has(live, "Complete") || job_has(live, "Failed")
}

/// Whether a Job has ended, or counts a failure, only because its pod was taken away: deleted, drained or preempted, whatever it ended with. The registry
/// exits with 0 when it is told to stop, and with 1 when clients do not let go in time. A pod that ended by itself stays.
#[must_use]
pub fn job_lost_its_pod(restart: RestartType, live: &Value, pods: &[PodFacts]) -> bool {
    let ended_by_itself = |phase: &str| pods.iter().any(|pod| pod.phase == phase && !pod.disrupted);
    let failed = number(live, "/status/failed");
    let in_place = restart == RestartType::OnFailure;
    if job_has(live, "Complete") {
        !ended_by_itself("Succeeded")
    } else if job_has(live, "Failed") || job_has(live, "FailureTarget") {
        // A Job whose process failed too often takes its one pod away itself.
        if in_place { failed > number(live, "/spec/backoffLimit") } else { !ended_by_itself("Failed") }
    } else {
        // Where processes are restarted in place, only a pod that was taken away fails. The next one would come late, and so would its failures count.
        in_place && failed > 0 && pods.iter().all(|pod| pod.disrupted)
    }
}

/// Whether what is known of its pods is older than the end of the Job.
#[must_use]
pub fn pods_are_older(live: &Value, pods: &[PodFacts]) -> bool {
    let is_over = |pod: &PodFacts| pod.disrupted || matches!(pod.phase.as_str(), "Succeeded" | "Failed");
    job_is_finished(live) && !pods.iter().all(is_over)
}

/// Whether a user scaled the Deployment to zero: the operator wanted pods, wrote so beside the number, and the number is zero. A registry
/// that is suspended after that stays stopped when the suspension ends.
#[must_use]
pub fn is_stopped_by_user(registry: &Resolved, live: Option<&Value>) -> bool {
    let Some(live) = live.filter(|_| registry.restart == RestartType::UnlessStopped) else {
        return false;
    };
    let wanted =
        live.pointer("/metadata/annotations").and_then(|all| all.get(labels::REPLICAS)).and_then(Value::as_str);
    let wanted: i32 = wanted.and_then(|count| count.parse().ok()).unwrap_or(0);
    wanted > 0 && live.pointer("/spec/replicas").and_then(Value::as_i64) == Some(0)
}

fn unsettled(pods: &[PodFacts], ready: i32, message: String) -> Workload {
    match pods.iter().find_map(|pod| pod.trouble.clone()) {
        Some((reason, message)) => Workload::Stuck { reason, message, ready },
        None => Workload::Progressing { message, ready },
    }
}

fn stopped(reason: &'static str, message: &str) -> Workload {
    Workload::Stopped { reason, message: message.to_owned() }
}

fn job_has(live: &Value, condition: &str) -> bool {
    condition_of(live, condition).is_some()
}

/// The condition of that type, if it holds.
fn condition_of<'a>(live: &'a Value, condition: &str) -> Option<&'a Value> {
    let mut conditions = live.pointer("/status/conditions")?.as_array()?.iter();
    conditions.find(|found| found["type"] == condition && found["status"] == "True")
}

fn number(live: &Value, pointer: &str) -> i32 {
    live.pointer(pointer).and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok()).unwrap_or(0)
}

#[cfg(test)]
#[path = "workload_tests.rs"]
mod tests;
