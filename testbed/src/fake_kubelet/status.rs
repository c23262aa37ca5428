//! Pure: the status that a kubelet would write for a pod. No client, no clock but the one handed in.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use serde_json::{Value, json};

use super::{Behaviour, End};

/// The status to write, or `None` if the pod already has it or has ended for good.
pub(super) fn of(
    pod: &Pod,
    behaviour: &Behaviour,
    age: Duration,
    new_address: impl FnOnce() -> String,
) -> Option<Value> {
    if matches!(phase(pod), Some("Succeeded" | "Failed")) {
        return None;
    }
    let spec = pod.spec.as_ref()?;
    let view = View::of(pod, behaviour, age);
    let containers: Vec<_> = spec.containers.iter().map(|container| view.status_of(container, false)).collect();
    let inits: Vec<_> =
        spec.init_containers.iter().flatten().map(|container| view.status_of(container, true)).collect();
    if is_shown(pod, &view, &containers, &inits) {
        return None;
    }

    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_else(new_address);
    let now = jiff::Timestamp::now();
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0);
    let condition = |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now});
    Some(json!({
        "phase": view.phase, "podIP": address, "podIPs": [{"ip": address}], "hostIP": "192.0.2.10", "hostIPs": [{"ip": "192.0.2.10"}], "startTime": started,
        "conditions": [
            condition("PodReadyToStartContainers", true), condition("Initialized", view.is_initialized),
            condition("ContainersReady", view.is_ready), condition("Ready", view.is_ready),
        ],
        "containerStatuses": containers,
        "initContainerStatuses": inits,
    }))
}

/// The status of a pod whose containers were told to end and did so with this exit code. `None` if it had ended before.
pub(super) fn stopped(pod: &Pod, code: i32) -> Option<Value> {
    if matches!(phase(pod), Some("Succeeded" | "Failed")) {
        return None;
    }
    let (phase, reason) = if code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    let ended = json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": jiff::Timestamp::now()}});
    let stop = |container: &ContainerStatus| {
        let mut status = json!(container);
        (status["ready"], status["started"], status["state"]) = (json!(false), json!(false), ended.clone());
        status
    };
    let known = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let containers: Vec<_> = known.into_iter().flatten().map(stop).collect();
    let conditions = ["Ready", "ContainersReady"].map(|kind| json!({"type": kind, "status": "False"}));
    Some(json!({"phase": phase, "containerStatuses": containers, "conditions": conditions}))
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

/// What is to be seen of a pod.
struct View<'a> {
    pod: &'a Pod,
    phase: &'static str,
    is_ready: bool,
    is_initialized: bool,
    pull_fails: bool,
    starts: bool,
    end: Option<(&'a End, &'a str)>,
}

impl<'a> View<'a> {
    fn of(pod: &'a Pod, behaviour: &'a Behaviour, age: Duration) -> Self {
        let running = Self {
            pod,
            phase: "Running",
            is_ready: true,
            is_initialized: true,
            pull_fails: false,
            starts: true,
            end: None,
        };
        match behaviour {
            Behaviour::Ready | Behaviour::HangsOnDelete | Behaviour::ExitsOnDelete(_) => running,
            Behaviour::ReadyAfter(delay) => Self { is_ready: age >= *delay, ..running },
            Behaviour::NotReady => Self { is_ready: false, ..running },
            Behaviour::PullFails => Self { phase: "Pending", is_ready: false, pull_fails: true, ..running },
            Behaviour::NeverStarts => {
                Self { phase: "Pending", is_ready: false, is_initialized: false, starts: false, ..running }
            }
            Behaviour::Ends(end) => Self::of_end(pod, end, running),
        }
    }

    fn of_end(pod: &'a Pod, end: &'a End, running: Self) -> Self {
        let spec = pod.spec.as_ref();
        let first = spec.and_then(|spec| spec.containers.first()).map_or("", |container| &container.name);
        let name = end.container.as_deref().unwrap_or(first);
        let is_init =
            spec.is_some_and(|spec| spec.init_containers.iter().flatten().any(|container| container.name == name));
        let again = starts_again(pod, end, is_init);
        let phase = match (again, end.code, is_init) {
            (true, _, true) => "Pending",
            (true, _, false) => "Running",
            (false, 0, false) => "Succeeded",
            (false, 0, true) => return running,
            (false, ..) => "Failed",
        };
        Self { phase, is_ready: false, is_initialized: !is_init, end: Some((end, name)), ..running }
    }

    fn status_of(&self, container: &Container, is_init: bool) -> Value {
        let known = known(self.pod, &container.name, is_init);
        let mut restarts = known.map_or(0, |known| known.restart_count);
        let mut last =
            known.and_then(|known| known.last_state.as_ref()).map_or_else(|| json!({}), |state| json!(state));
        let ended = self.end.filter(|(_, name)| *name == container.name).map(|(end, _)| end);
        let mut is_up = !is_init && self.is_initialized && !self.pull_fails;
        let waiting = |reason: &str, message: String| json!({"waiting": {"reason": reason, "message": message}});

        let state = if let Some(end) = ended {
            is_up = false;
            restarts = restarts.max(end.restarts);
            let terminated =
                json!({"terminated": {"exitCode": end.code, "reason": end.reason, "message": end.message}});
            if starts_again(self.pod, end, is_init) {
                last = terminated;
                waiting("CrashLoopBackOff", format!("back-off restarting failed container {}", container.name))
            } else {
                terminated
            }
        } else if self.pull_fails {
            let image = container.image.as_deref().unwrap_or_default();
            waiting("ImagePullBackOff", format!("Back-off pulling image \"{image}\""))
        } else if is_init && self.starts {
            json!({"terminated": {"exitCode": 0, "reason": "Completed"}})
        } else if is_up {
            json!({"running": {}})
        } else {
            waiting("PodInitializing", String::new())
        };

        let is_done = is_init && state["terminated"]["exitCode"] == 0;
        json!({
            "name": container.name, "image": container.image, "imageID": "", "restartCount": restarts,
            "ready": is_done || (is_up && self.is_ready), "started": is_up, "state": state, "lastState": last,
        })
    }
}

fn starts_again(pod: &Pod, end: &End, is_init: bool) -> bool {
    match pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
        Some("Never") => false,
        Some("OnFailure") => end.code != 0,
        _ => !(is_init && end.code == 0),
    }
}

fn known<'a>(pod: &'a Pod, name: &str, is_init: bool) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let list = if is_init { &status.init_container_statuses } else { &status.container_statuses };
    list.iter().flatten().find(|known| known.name == name)
}

/// Whether the pod's status already says all this, times aside.
fn is_shown(pod: &Pod, view: &View<'_>, containers: &[Value], inits: &[Value]) -> bool {
    let Some(status) = &pod.status else { return false };
    let shows = |wanted: &Value, is_init: bool| {
        let wanted: Option<ContainerStatus> = serde_json::from_value(wanted.clone()).ok();
        let name = wanted.as_ref().map_or("", |wanted| &wanted.name);
        let Some((known, wanted)) = known(pod, name, is_init).zip(wanted.as_ref()) else { return false };
        let essence = |status: &ContainerStatus| {
            let ended = status
                .state
                .as_ref()
                .and_then(|state| state.terminated.as_ref())
                .map(|end| (end.exit_code, end.reason.clone()));
            let waits =
                status.state.as_ref().and_then(|state| state.waiting.as_ref()).and_then(|wait| wait.reason.clone());
            let last = status
                .last_state
                .as_ref()
                .and_then(|state| state.terminated.as_ref())
                .map(|end| (end.exit_code, end.message.clone().unwrap_or_default()));
            (status.ready, status.restart_count, ended, waits, last)
        };
        essence(known) == essence(wanted)
    };
    status.phase.as_deref() == Some(view.phase)
        && status.container_statuses.as_ref().is_some_and(|known| known.len() == containers.len())
        && containers.iter().all(|wanted| shows(wanted, false))
        && inits.iter().all(|wanted| shows(wanted, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(restart_policy: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"restartPolicy": restart_policy, "containers": [{"name": "main", "image": "i:1"}, {"name": "side", "image": "i:2"}],
                     "initContainers": [{"name": "probe", "image": "i:1"}]},
        }))
        .unwrap()
    }

    fn after(mut pod: Pod, behaviour: &Behaviour) -> Pod {
        if let Some(status) = of(&pod, behaviour, Duration::ZERO, || "10.0.0.1".into()) {
            pod.status = serde_json::from_value(status).unwrap();
        }
        pod
    }

    fn seen(pod: &Pod) -> (String, bool, i32, String) {
        let status = pod.status.as_ref().unwrap();
        let main = &status.container_statuses.as_ref().unwrap()[0];
        let state = main.state.as_ref().unwrap();
        let word = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        let ended = state
            .terminated
            .as_ref()
            .map(|end| format!("{} {}", end.reason.clone().unwrap_or_default(), end.exit_code));
        (
            status.phase.clone().unwrap(),
            main.ready,
            main.restart_count,
            word.or(ended).unwrap_or_else(|| "running".into()),
        )
    }

    #[test]
    fn a_pods_status_follows_from_its_behaviour_and_restart_policy() {
        let table = [
            ("Always", Behaviour::Ready, ("Running", true, 0, "running")),
            ("Always", Behaviour::NotReady, ("Running", false, 0, "running")),
            ("Always", Behaviour::ReadyAfter(Duration::from_secs(1)), ("Running", false, 0, "running")),
            ("Always", Behaviour::PullFails, ("Pending", false, 0, "ImagePullBackOff")),
            ("Always", Behaviour::crashes(2, 3), ("Running", false, 3, "CrashLoopBackOff")),
            ("Always", Behaviour::exits(0), ("Running", false, 0, "CrashLoopBackOff")),
            ("OnFailure", Behaviour::exits(0), ("Succeeded", false, 0, "Completed 0")),
            ("OnFailure", Behaviour::crashes(1, 2), ("Running", false, 2, "CrashLoopBackOff")),
            ("Never", Behaviour::exits(3), ("Failed", false, 0, "Error 3")),
            ("Never", Behaviour::out_of_memory(0), ("Failed", false, 0, "OOMKilled 137")),
            ("Always", Behaviour::init_fails("probe", 1, "can't write"), ("Pending", false, 0, "PodInitializing")),
            ("Never", Behaviour::init_fails("probe", 1, "can't write"), ("Failed", false, 0, "PodInitializing")),
        ];
        for (policy, behaviour, (phase, ready, restarts, word)) in table {
            let wanted = (phase.to_owned(), ready, restarts, word.to_owned());
            assert_eq!(seen(&after(pod(policy), &behaviour)), wanted, "{policy} {behaviour:?}");
        }
    }

    #[test]
    fn a_status_that_says_it_already_is_not_written_again() {
        for behaviour in
            [Behaviour::Ready, Behaviour::PullFails, Behaviour::crashes(2, 3), Behaviour::init_fails("probe", 1, "no")]
        {
            let settled = after(pod("Always"), &behaviour);
            assert!(of(&settled, &behaviour, Duration::ZERO, || unreachable!()).is_none(), "{behaviour:?}");
        }
    }

    #[test]
    fn a_pod_that_recovers_keeps_its_restart_count_its_last_words_and_its_address() {
        let crashed = after(pod("Always"), &Behaviour::crashes(2, 3));
        let recovered = after(crashed.clone(), &Behaviour::Ready);
        assert_eq!(seen(&recovered), ("Running".into(), true, 3, "running".into()));
        let container = &recovered.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
        assert_eq!(container.last_state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 2);
        assert_eq!(recovered.status.unwrap().pod_ip, crashed.status.unwrap().pod_ip);
    }

    #[test]
    fn a_pod_that_has_ended_stays_as_it_is() {
        let ended = after(pod("Never"), &Behaviour::exits(1));
        assert!(of(&ended, &Behaviour::Ready, Duration::ZERO, || unreachable!()).is_none());
        assert!(stopped(&ended, 0).is_none());
        let looping = after(pod("Always"), &Behaviour::crashes(2, 3));
        assert_eq!(stopped(&looping, 1).unwrap()["phase"], "Failed");
        let stopped = stopped(&looping, 0).unwrap();
        assert_eq!(
            (&stopped["phase"], &stopped["containerStatuses"][0]["restartCount"]),
            (&json!("Succeeded"), &json!(3))
        );
    }

    #[test]
    fn a_slow_pod_becomes_ready_when_its_time_has_come() {
        let behaviour = Behaviour::ReadyAfter(Duration::from_secs(1));
        let slow = after(pod("Always"), &behaviour);
        let later = of(&slow, &behaviour, Duration::from_secs(1), || unreachable!()).unwrap();
        assert_eq!(later["containerStatuses"][0]["ready"], true);
    }

    #[test]
    fn an_init_containers_last_words_are_in_its_last_state() {
        let failed = after(pod("Always"), &Behaviour::init_fails("probe", 1, "can't write"));
        let probe = &failed.status.unwrap().init_container_statuses.unwrap()[0];
        assert_eq!(
            probe.last_state.as_ref().unwrap().terminated.as_ref().unwrap().message.as_deref(),
            Some("can't write")
        );
    }
}
