//! Somebody else changes a child back each time the operator writes it: a second manager with a client of its own, and an admission policy of the cluster.
//! The fight is noticed, damped, and told with the manager's name; other registries go on as if nothing were.

use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::control_plane::Entry;
use tokio::task::JoinHandle;

use crate::cluster::{Namespace, namespace};
use crate::life::LIMIT;
use crate::object::Object;
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually, within};

const RIVAL: &str = "rival-controller";

/// How long a fight is looked at, in two halves.
const HALF: Duration = Duration::from_secs(10);

/// Writes of one object that may come in the second half: some tries, and not one for each write of the rival.
const TRIES: usize = 4;

/// A manager that has an opinion of one object, and writes it whenever it is not so.
struct Rival(JoinHandle<()>);

impl Drop for Rival {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Whether everything that `wanted` names is so in `live`. Items of lists are found by their place.
fn holds(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| holds(live.get(name).unwrap_or(&Value::Null), wanted))
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() >= wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| holds(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

impl Rival {
    fn of(object: Object, wanted: Value) -> Self {
        Self(tokio::spawn(async move {
            let config = watcher::Config::default().fields(&format!("metadata.name={}", object.name));
            let mut seen = std::pin::pin!(watcher(object.api.clone(), config).default_backoff().touched_objects());
            while let Some(event) = seen.next().await {
                let Ok(live) = event else { continue };
                if !holds(&serde_json::to_value(live).unwrap(), &wanted) {
                    let parameters = PatchParams { field_manager: Some(RIVAL.to_owned()), ..PatchParams::default() };
                    object.api.patch(&object.name, &parameters, &Patch::Strategic(&wanted)).await.ok();
                }
            }
        }))
    }
}

/// Case (and name of the registry), kind and suffix of the child, what the rival wants of it.
fn fights() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let container = |fields: Value| {
        let mut container = json!({"name": "registry"});
        container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    };
    vec![
        ("image", "Deployment", "", container(json!({"image": "mirror.example.test/registry:3.1.2"}))),
        ("resources", "Deployment", "", container(json!({"resources": {"requests": {"cpu": "70m"}}}))),
        ("replicas", "Deployment", "", json!({"spec": {"replicas": 0}})),
        ("label", "Service", "", json!({"metadata": {"labels": {"app.kubernetes.io/name": "theirs"}}})),
        ("annotation", "Deployment", "", json!({"metadata": {"annotations": {"privateregistry.dev/replicas": "7"}}})),
        ("port", "Service", "", json!({"spec": {"ports": [{"port": 5000, "name": "theirs"}]}})),
        ("secret", "Secret", "-config", json!({"data": {"config.yml": "dGhlaXJz"}})),
        ("bundle", "ConfigMap", "-ca-bundle", json!({"data": {"ca.crt": "theirs"}})),
    ]
}

impl Namespace {
    /// How often the operator wrote each of these objects since `mark`.
    async fn writes_of(&self, mark: testbed::control_plane::Mark, resource: &str, name: &str) -> Vec<Entry> {
        let all = self.written_since(mark).await;
        all.into_iter()
            .filter(|entry| entry.resource == resource && entry.name == name && entry.subresource.is_empty())
            .collect()
    }
}

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}

#[tokio::test]
async fn a_fight_with_another_manager_is_damped_and_told_and_others_go_on() {
    let Some(team) = namespace("rivals").await else { return };
    let _operator = team.operator().await;
    let fights = fights();
    for (case, ..) in &fights {
        team.registry(case, json!({"storage": {"emptyDir": {}}})).await;
    }
    let bystander = team.registry("bystander", json!({"storage": {"emptyDir": {}}})).await;
    for (case, ..) in &fights {
        Registry::named(&team, case).says_within(LIMIT, "Ready", "True", "").await;
    }
    let bystander = bystander.ready().await;

    let mut rivals = Vec::new();
    for (case, kind, suffix, wanted) in &fights {
        rivals.push(Rival::of(team.object(kind, &format!("{case}{suffix}")), wanted.clone()));
    }
    let first = team.mark().await;
    tokio::time::sleep(HALF).await;
    let second = team.mark().await;
    tokio::time::sleep(HALF / 2).await;
    bystander.service().edit(json!({"metadata": {"labels": {"app.kubernetes.io/name": "drifted"}}})).await;
    let repaired = |live: &Value| live["metadata"]["labels"]["app.kubernetes.io/name"] == "private-registry";
    bystander.service().becomes(within(5), "is repaired while others fight", repaired).await;
    tokio::time::sleep(HALF / 2).await;

    let mut complaints = Vec::new();
    for (case, kind, suffix, _) in &fights {
        let name = format!("{case}{suffix}");
        let later = team.writes_of(second, &plural(kind), &name).await.len();
        let all = team.writes_of(first, &plural(kind), &name).await.len();
        if later > TRIES {
            complaints.push(format!("{case}: {later} writes in the second half, {} in the first", all - later));
        }
        let conditions = Registry::named(&team, case).object.at("/status/conditions").await;
        if !conditions.to_string().contains(RIVAL) {
            complaints.push(format!("{case}: nothing names {RIVAL} after {all} writes: {conditions}"));
        }
    }
    drop(rivals);
    for (case, kind, suffix, wanted) in &fights {
        let ended = |live: &Value| !holds(live, wanted);
        let child = team.object(kind, &format!("{case}{suffix}"));
        if tokio::time::timeout(LIMIT, child.becomes(LIMIT, "is as the manifest says, once the rival has gone", ended))
            .await
            .is_err()
        {
            complaints.push(format!("{case}: still as the rival wanted"));
        }
    }
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
}

/// A policy of the cluster that replaces the image of what is made in this namespace.
async fn mirror_images(client: &Client, namespace: &str) {
    let container =
        "Object.spec.template.spec.containers{name: 'registry', image: 'mirror.example.test/registry:3.1.2'}";
    let expression = format!(
        "Object{{spec: Object.spec{{template: Object.spec.template{{spec: Object.spec.template.spec{{containers: [{container}]}}}}}}}}"
    );
    let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": "mirror-images"},
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [rule("apps", "deployments"), rule("batch", "jobs")],
            },
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": "mirror-images"},
        "spec": {"policyName": "mirror-images"},
    });
    let policies: Api<MutatingAdmissionPolicy> = Api::all(client.clone());
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
    let bindings: Api<MutatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

impl Namespace {
    /// Waits until the policy is at work: the API server hears of it a moment after it was written.
    async fn mirrors(&self) {
        let probe = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "probe"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "registry", "image": "plain"}]},
            }},
        });
        let probe = self.create(probe).await;
        let mut round = 0;
        eventually(PATIENCE, "the policy is at work", async || {
            round += 1;
            probe.edit(json!({"metadata": {"labels": {"round": format!("r{round}")}}})).await;
            let image = probe.at("/spec/template/spec/containers/0/image").await;
            if image == "plain" { Err(image.to_string()) } else { Ok(()) }
        })
        .await;
    }
}

#[tokio::test]
async fn an_admission_policy_that_changes_the_image_causes_no_endless_writes_and_no_new_job() {
    let Some(team) = namespace("policed").await else { return };
    mirror_images(&team.client, &team.name).await;
    team.mirrors().await;
    let _operator = team.operator().await;
    let mark = team.mark().await;
    let deployed = team.registry("deployed", json!({"storage": {"emptyDir": {}}})).await;
    let job = json!({"storage": {"emptyDir": {}}, "restartPolicy": {"type": "OnFailure"}});
    let run = team.registry("run", job).await;
    deployed.deployment().appears(PATIENCE).await;
    let job = run.child("Job", "").appears(PATIENCE).await;
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["image"], "mirror.example.test/registry:3.1.2");
    tokio::time::sleep(HALF).await;
    let second = team.mark().await;
    tokio::time::sleep(HALF).await;

    let mut complaints = Vec::new();
    for (resource, name) in [("deployments", "deployed"), ("jobs", "run")] {
        let (all, later) = (team.writes_of(mark, resource, name).await, team.writes_of(second, resource, name).await);
        if later.len() > TRIES {
            complaints.push(format!("{resource}: {} writes in the second half of {}", later.len(), all.len()));
        }
        let deleted = all.iter().filter(|entry| entry.verb == "delete").count();
        if deleted > 1 {
            complaints.push(format!("{resource}: deleted {deleted} times"));
        }
    }
    for registry in [&deployed, &run] {
        let conditions = registry.object.at("/status/conditions").await;
        if !conditions.to_string().contains("spec.template.spec.containers") {
            complaints.push(format!("{}: nothing tells that the image is changed: {conditions}", registry.name));
        }
    }
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
}
