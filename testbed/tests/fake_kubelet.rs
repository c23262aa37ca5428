//! A control plane with a fake kubelet: pods that are Ready without running, and fail as a test demands.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::api::DeleteParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use support::{capacity, claim, claim_is, create, grow, has, pod, wait};
use testbed::fake_kubelet::{Behaviour, FakeKubelet, load_balancer};
use testbed::{ControlPlane, Mode, Options, provisioner};

fn template(app: &str, restart_policy: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"restartPolicy": restart_policy, "containers": [{"name": "main", "image": "i:1"}]}})
}

async fn deploy(client: &Client, app: &str) {
    let spec = json!({"selector": {"matchLabels": {"app": app}}, "template": template(app, "Always")});
    create::<Deployment>(client, json!({"metadata": {"name": app}, "spec": spec})).await;
}

async fn job(client: &Client, app: &str, restart_policy: &str, retries: u32) {
    let spec = json!({"backoffLimit": retries, "template": template(app, restart_policy)});
    create::<Job>(client, json!({"metadata": {"name": app}, "spec": spec})).await;
}

async fn job_is(client: &Client, name: &str, condition: &str) {
    let jobs = Api::<Job>::default_namespaced(client.clone());
    wait(Duration::from_secs(30), &format!("job {name} is {condition}"), async || {
        let status = jobs.get(name).await.map_err(|error| error.to_string())?.status;
        let conditions = status.as_ref().and_then(|status| status.conditions.as_ref());
        let found = conditions.into_iter().flatten().any(|known| known.type_ == condition && known.status == "True");
        if found { Ok(()) } else { Err(json!(status).to_string()) }
    })
    .await;
}

fn waits_for(pod: &Pod, reason: &str) -> bool {
    let container = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
    let waiting = container.and_then(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    waiting == Some(reason)
}

fn last_end(pod: &Pod) -> Option<(i32, i32, String)> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let end = container.last_state.as_ref()?.terminated.as_ref()?;
    Some((container.restart_count, end.exit_code, end.reason.clone()?))
}

#[tokio::test]
async fn pods_behave_as_a_test_demands_and_controllers_believe_it() {
    if testbed::skip(Mode::ControlPlane) {
        return;
    }
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let kubelet = FakeKubelet::start(plane.kubeconfig(), "fake").await.unwrap();
    let _storage = provisioner::start(plane.kubeconfig(), provisioner::Settings::ApiOnly).await.unwrap();
    let client = plane.client().await.unwrap();

    tokio::join!(
        pods_of_a_deployment_are_ready_and_end_when_deleted(&client),
        a_pod_fails_in_every_way_and_recovers(&client, &kubelet),
        a_pod_becomes_ready_late(&client, &kubelet),
        a_deleted_pod_hangs_as_long_as_a_test_wants(&client, &kubelet),
        jobs_complete_and_fail(&client, &kubelet),
        a_service_gets_its_address(&client),
        claims_are_bound_and_grow_at_once(&client),
    );
    plane.stop().unwrap();
}

async fn pods_of_a_deployment_are_ready_and_end_when_deleted(client: &Client) {
    deploy(client, "plain").await;
    let first = pod(client, "app=plain", "is ready", |pod| has(pod, "Ready")).await;

    let pods = Api::<Pod>::default_namespaced(client.clone());
    pods.delete(first.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
    pod(client, "app=plain", "is another, and ready", |pod| {
        has(pod, "Ready") && pod.metadata.uid != first.metadata.uid
    })
    .await;
}

async fn a_pod_fails_in_every_way_and_recovers(client: &Client, kubelet: &FakeKubelet) {
    let app = [("app", "failing")];
    kubelet.behave(app, Behaviour::PullFails);
    deploy(client, "failing").await;
    pod(client, "app=failing", "can't be pulled", |pod| waits_for(pod, "ImagePullBackOff")).await;

    kubelet.behave(app, Behaviour::NotReady);
    pod(client, "app=failing", "runs and is not ready", |pod| {
        json!(pod.status)["phase"] == "Running" && !has(pod, "Ready")
    })
    .await;

    kubelet.behave(app, Behaviour::crashes(2, 3));
    pod(client, "app=failing", "crashes", |pod| {
        waits_for(pod, "CrashLoopBackOff") && last_end(pod) == Some((3, 2, "Error".into()))
    })
    .await;

    kubelet.behave(app, Behaviour::out_of_memory(4));
    pod(client, "app=failing", "was out of memory", |pod| last_end(pod) == Some((4, 137, "OOMKilled".into()))).await;

    kubelet.behave(app, Behaviour::Ready);
    pod(client, "app=failing", "recovers and remembers", |pod| {
        has(pod, "Ready") && last_end(pod).is_some_and(|(restarts, ..)| restarts == 4)
    })
    .await;
}

async fn a_pod_becomes_ready_late(client: &Client, kubelet: &FakeKubelet) {
    kubelet.behave([("app", "slow")], Behaviour::ReadyAfter(Duration::from_secs(3)));
    deploy(client, "slow").await;
    pod(client, "app=slow", "runs and is not ready", |pod| {
        json!(pod.status)["phase"] == "Running" && !has(pod, "Ready")
    })
    .await;
    let ready = pod(client, "app=slow", "is ready", |pod| has(pod, "Ready")).await.status.unwrap();
    let condition = ready.conditions.iter().flatten().find(|condition| condition.type_ == "Ready").unwrap();
    let became_ready = condition.last_transition_time.as_ref().unwrap().0;
    // Both times are written in whole seconds.
    assert!(became_ready.duration_since(ready.start_time.unwrap().0).as_secs() >= 2, "it was slow");
}

async fn a_deleted_pod_hangs_as_long_as_a_test_wants(client: &Client, kubelet: &FakeKubelet) {
    kubelet.behave([("app", "hangs")], Behaviour::HangsOnDelete);
    create::<Pod>(
        client,
        json!({"metadata": {"name": "hangs", "labels": {"app": "hangs"}}, "spec": template("hangs", "Always")["spec"]}),
    )
    .await;
    pod(client, "app=hangs", "is ready", |pod| has(pod, "Ready")).await;
    let pods = Api::<Pod>::default_namespaced(client.clone());
    pods.delete("hangs", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(pods.get("hangs").await.unwrap().metadata.deletion_timestamp.is_some());

    kubelet.behave([("app", "hangs")], Behaviour::Ready);
    wait(Duration::from_secs(30), "the pod is gone", async || match pods.get_opt("hangs").await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

async fn jobs_complete_and_fail(client: &Client, kubelet: &FakeKubelet) {
    kubelet.behave([("app", "completes")], Behaviour::exits(0));
    kubelet.behave([("app", "fails")], Behaviour::exits(3));
    kubelet.behave([("app", "retries")], Behaviour::crashes(1, 2));
    job(client, "completes", "OnFailure", 2).await;
    job(client, "fails", "Never", 0).await;
    job(client, "retries", "OnFailure", 2).await;
    tokio::join!(
        job_is(client, "completes", "Complete"),
        job_is(client, "fails", "Failed"),
        job_is(client, "retries", "Failed")
    );
}

async fn a_service_gets_its_address(client: &Client) {
    create::<Service>(
        client,
        json!({"metadata": {"name": "public"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 5000}]}}),
    )
    .await;
    let services = Api::<Service>::default_namespaced(client.clone());
    let address = async || json!(services.get("public").await.unwrap().status)["loadBalancer"]["ingress"][0].clone();
    assert_eq!(address().await, Value::Null);

    load_balancer(client, "default", "public", "203.0.113.7").await.unwrap();
    assert_eq!(address().await["ip"], "203.0.113.7");
    load_balancer(client, "default", "public", "lb.example.com").await.unwrap();
    assert_eq!(address().await["hostname"], "lb.example.com");
}

async fn claims_are_bound_and_grow_at_once(client: &Client) {
    claim(client, "data", None, "1Gi").await;
    let bound = |claim: &PersistentVolumeClaim| {
        claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"))
    };
    claim_is(client, "data", "is bound", bound).await;
    grow(client, "data", "2Gi").await.unwrap();
    claim_is(client, "data", "has grown", |claim| capacity(claim) == Some("2Gi")).await;
}
