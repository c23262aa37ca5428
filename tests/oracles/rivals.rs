//! Somebody else changes a child back each time the operator writes it: a second manager with a client of its own, and an admission policy of the cluster.
//! The fight is noticed, damped, and told with the manager's name; everything else goes on as if nothing were.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use testbed::control_plane::{Entry, Mark};
use tokio::task::JoinHandle;

use crate::cluster::{Namespace, namespace};
use crate::known;
use crate::life::LIMIT;
use crate::object::Object;
use crate::registry::Registry;
use crate::settling::condition;
use crate::wait::{PATIENCE, eventually};

const RIVAL: &str = "rival-controller";

/// How long a fight is looked at once it is noticed: no repair is due before a minute is over.
const DAMPED: Duration = Duration::from_secs(10);

/// Three repairs until a fight is noticed. Before these, random content is made anew once, and what was posted becomes as if it had been applied.
const MOST: usize = 5;

const MIRROR: &str = "mirror.example.test/registry:3.1.2";

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

/// What a rival wants of one child.
struct Fight {
    /// Name of the registry.
    case: &'static str,
    spec: Value,
    kind: &'static str,
    suffix: &'static str,
    wanted: Value,
}

impl Fight {
    fn name(&self) -> String {
        format!("{}{}", self.case, self.suffix)
    }
}

/// A fight over each kind of child, and over what others like to change.
fn fights() -> Vec<Fight> {
    let folder = || json!({"storage": {"emptyDir": {}}});
    let job = || json!({"storage": {"emptyDir": {}}, "restartPolicy": {"type": "OnFailure"}});
    let shared = json!({
        "replicas": 2, "storage": {"persistentVolumeClaim": {"size": "1Gi", "accessModes": ["ReadWriteMany"]}},
    });
    let container = |fields: Value| {
        let mut container = json!({"name": "registry"});
        container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    };
    let label = || json!({"metadata": {"labels": {"app.kubernetes.io/name": "theirs"}}});
    let replicas = json!({"metadata": {"annotations": {"privateregistry.dev/replicas": "7"}}});
    let port = json!({"spec": {"ports": [{"port": 5000, "name": "theirs"}]}});
    let rows = [
        ("image", folder(), "Deployment", "", container(json!({"image": MIRROR}))),
        ("resources", folder(), "Deployment", "", container(json!({"resources": {"requests": {"cpu": "70m"}}}))),
        ("replicas", folder(), "Deployment", "", json!({"spec": {"replicas": 0}})),
        ("annotation", folder(), "Deployment", "", replicas),
        ("retries", job(), "Job", "", json!({"spec": {"backoffLimit": 9}})),
        ("queued", job(), "Job", "", json!({"spec": {"suspend": true}})),
        ("label", folder(), "Service", "", label()),
        ("port", folder(), "Service", "", port),
        ("account", folder(), "ServiceAccount", "", label()),
        ("claim", json!({}), "PersistentVolumeClaim", "-data", label()),
        ("config", folder(), "Secret", "-config", json!({"data": {"config.yml": "dGhlaXJz"}})),
        ("sessions", folder(), "Secret", "-config", json!({"data": {"http-secret": "c2hvcnQ="}})),
        ("leaf", folder(), "Secret", "-tls", json!({"data": {"tls.crt": "dGhlaXJz"}})),
        ("table", folder(), "Secret", "-htpasswd", json!({"data": {"htpasswd": "dGhlaXJz"}})),
        ("pull", folder(), "Secret", "-pull", json!({"data": {".dockerconfigjson": "e30="}})),
        ("authority", folder(), "Secret", "-ca", label()),
        ("admin", folder(), "Secret", "-admin", label()),
        ("bundle", folder(), "ConfigMap", "-ca-bundle", json!({"data": {"ca.crt": "theirs"}})),
        ("budget", shared, "PodDisruptionBudget", "", json!({"spec": {"maxUnavailable": 2}})),
    ];
    rows.into_iter().map(|(case, spec, kind, suffix, wanted)| Fight { case, spec, kind, suffix, wanted }).collect()
}

impl Namespace {
    /// What the operator wrote of this object since `mark`.
    async fn writes_of(&self, mark: Mark, kind: &str, name: &str) -> Vec<Entry> {
        let resource = format!("{}s", kind.to_lowercase());
        let all = self.written_since(mark).await;
        all.into_iter()
            .filter(|entry| entry.resource == resource && entry.name == name && entry.subresource.is_empty())
            .collect()
    }
}

/// What the registry says of a fight, if it says so.
async fn contested(registry: &Registry<'_>) -> Option<String> {
    let status = registry.object.at("/status").await;
    let ready = condition(&status, "Ready");
    (ready["reason"] == "Contested").then(|| ready["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_fight_with_another_manager_over_any_child_is_damped_and_told_and_others_go_on() {
    let Some(team) = namespace("rivals").await else { return };
    let operator = team.operator().await;
    let fights = fights();
    for fight in &fights {
        team.registry(fight.case, fight.spec.clone()).await;
    }
    let bystander = team.registry("bystander", json!({"storage": {"emptyDir": {}}})).await;
    for fight in &fights {
        Registry::named(&team, fight.case).says_within(LIMIT, "Ready", "True", "").await;
    }
    let bystander = bystander.ready().await;

    let first = team.mark().await;
    let rivals: Vec<_> =
        fights.iter().map(|fight| Rival::of(team.object(fight.kind, &fight.name()), fight.wanted.clone())).collect();
    let mut complaints: Vec<(String, String)> = Vec::new();
    let started = Instant::now();
    for fight in &fights {
        let registry = Registry::named(&team, fight.case);
        let told = loop {
            match contested(&registry).await {
                None if started.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(50)).await,
                told => break told,
            }
        };
        let place = format!("{} {}/{}", fight.kind, team.name, fight.name());
        match told {
            Some(words) if words.contains(RIVAL) && words.contains(&place) => {}
            Some(words) => complaints.push((fight.case.to_owned(), format!("told without its name or place: {words}"))),
            None => {
                let status = registry.object.at("/status/conditions").await;
                complaints.push((fight.case.to_owned(), format!("not told: {status}")));
            }
        }
    }
    let second = team.mark().await;
    bystander.service().edit(json!({"metadata": {"labels": {"app.kubernetes.io/name": "drifted"}}})).await;
    let repaired = |live: &Value| live["metadata"]["labels"]["app.kubernetes.io/name"] == "private-registry";
    bystander.service().becomes(PATIENCE, "is repaired while others fight", repaired).await;
    // What the manifest asks for comes at once, the field aside that is fought over.
    let label = Registry::named(&team, "label");
    label.apply(json!({"storage": {"emptyDir": {}}, "service": {"port": 443}})).await.unwrap();
    label.service().becomes(PATIENCE, "has the new port", |live| live["spec"]["ports"][0]["port"] == 443).await;
    tokio::time::sleep(DAMPED).await;

    for fight in fights.iter().filter(|fight| fight.case != "label") {
        let later = team.writes_of(second, fight.kind, &fight.name()).await.len();
        let all = team.writes_of(first, fight.kind, &fight.name()).await.len();
        if later > 1 || all > MOST {
            complaints
                .push((fight.case.to_owned(), format!("written {all} times, {later} of them once it was noticed")));
        }
    }

    // Giving in ends a fight, and so does the end of the rival. What is not forgotten is whether repairs are due: a new operator finds out.
    let image = Registry::named(&team, "image");
    image.apply(json!({"storage": {"emptyDir": {}}, "image": MIRROR})).await.unwrap();
    image.says_within(LIMIT, "Ready", "True", "").await;
    drop(rivals);
    assert!(operator.stop().await.success());
    let _operator = team.operator().await;
    for fight in fights.iter().filter(|fight| fight.case != "image") {
        Registry::named(&team, fight.case).says_within(LIMIT, "Ready", "True", "").await;
        let ended = |live: &Value| !holds(live, &fight.wanted);
        let child = team.object(fight.kind, &fight.name());
        child.becomes(LIMIT, "is as the manifest says, once the rival has gone", ended).await;
    }
    known::judge("rivals", &complaints);
}

/// A policy of the cluster that replaces the image of what is made in this namespace.
async fn mirror_images(client: &Client, namespace: &str) {
    let container = format!("Object.spec.template.spec.containers{{name: 'registry', image: '{MIRROR}'}}");
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
async fn what_an_admission_policy_makes_of_a_pod_is_taken_as_it_is() {
    let Some(team) = namespace("policed").await else { return };
    mirror_images(&team.client, &team.name).await;
    team.mirrors().await;
    let operator = team.operator().await;
    let mark = team.mark().await;
    let deployed = team.registry("deployed", json!({"storage": {"emptyDir": {}}})).await;
    let job = json!({"storage": {"emptyDir": {}}, "restartPolicy": {"type": "OnFailure"}});
    let run = team.registry("run", job).await;
    let (deployed, run) = (deployed.ready().await, run.ready().await);
    for child in [deployed.deployment(), run.child("Job", "")] {
        assert_eq!(child.at("/spec/template/spec/containers/0/image").await, MIRROR);
    }
    let made = team.mark().await;
    for (kind, name) in [("Deployment", "deployed"), ("Job", "run")] {
        let written = team.writes_of(mark, kind, name).await;
        assert!(written.len() <= 2, "{written:#?}");
        assert!(written.iter().all(|entry| entry.verb != "delete"), "{written:#?}");
    }

    assert!(operator.stop().await.success());
    let operator = team.operator().await;
    operator.has_made(2.0).await;
    deployed.service().edit(json!({"metadata": {"labels": {"app.kubernetes.io/name": "drifted"}}})).await;
    let repaired = |live: &Value| live["metadata"]["labels"]["app.kubernetes.io/name"] == "private-registry";
    deployed.service().becomes(PATIENCE, "is repaired", repaired).await;
    for (kind, name) in [("Deployment", "deployed"), ("Job", "run")] {
        assert_eq!(team.writes_of(made, kind, name).await, []);
    }
}
