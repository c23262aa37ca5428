//! Every rule of admission accepts what it should and refuses the rest with its words, here and on the API server.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::cel::Validator;
use private_registry_operator::api::{self, PrivateRegistry, rules};
use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace};
use crate::operator::PROGRAM;

/// A manifest that is applied, where another one was before or none.
#[derive(Clone)]
struct Change {
    name: &'static str,
    old: Option<Value>,
    new: Value,
}

fn new(spec: Value) -> Change {
    Change { name: "team-a", old: None, new: spec }
}

fn named(name: &'static str) -> Change {
    Change { name, old: None, new: json!({}) }
}

fn switch(old: Value, new: Value) -> Change {
    Change { name: "team-a", old: Some(old), new }
}

fn claim(fields: Value) -> Value {
    json!({"storage": {"persistentVolumeClaim": fields}})
}

fn tls(fields: Value) -> Value {
    json!({"tls": {"selfSigned": fields}})
}

fn purging(fields: Value) -> Value {
    json!({"config": {"uploadPurging": fields}})
}

/// Rule, what it accepts, what it refuses.
type Case = (rules::Rule, Vec<Change>, Vec<Change>);

fn cases() -> Vec<Case> {
    let digest = "registry@sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let user = json!([{"name": "alice", "passwordSecretRef": {"name": "s"}}]);
    let folder = json!({"storage": {"emptyDir": {}}});
    vec![
        (
            rules::NAME,
            vec![named("a"), named("a1"), named("abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstu")],
            vec![named("1a"), named("abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuv"), named("a.b")],
        ),
        (
            rules::IMAGE_TOO_OLD,
            ["registry:3.1.1", "registry:3", "registry:latest", "mirror.example.com:2/registry", digest, "registry:v3.2"].map(|image| new(json!({"image": image}))).into(),
            ["registry:2.8", "registry:2.8.3", "registry:3.0.0", "registry:3.1.0", "registry:v2", "registry:2@sha256:00", "registry:3.0.0-rc.1"]
                .map(|image| new(json!({"image": image})))
                .into(),
        ),
        (
            rules::REPLICAS_NEED_SHARED_STORAGE,
            vec![
                new(json!({"replicas": 1})),
                new(json!({"replicas": 2, "storage": {"persistentVolumeClaim": {"accessModes": ["ReadWriteMany"]}}})),
                new(json!({"replicas": 2, "storage": {"persistentVolumeClaim": {"claimName": "c"}}})),
            ],
            vec![
                new(json!({"replicas": 2})),
                new(json!({"replicas": 2, "storage": {"emptyDir": {}}})),
                new(json!({"replicas": 2, "storage": {"persistentVolumeClaim": {"accessModes": ["ReadWriteOnce"]}}})),
            ],
        ),
        (
            rules::JOBS_RUN_ONE,
            vec![new(json!({"restartPolicy": {"type": "OnFailure"}})), new(json!({"replicas": 1, "restartPolicy": {"type": "Never"}}))],
            ["OnFailure", "Never"]
                .map(|kind| new(json!({"replicas": 2, "restartPolicy": {"type": kind}, "storage": {"persistentVolumeClaim": {"claimName": "c"}}})))
                .into(),
        ),
        (
            rules::STORAGE_KIND_FIXED,
            vec![switch(folder.clone(), json!({"storage": {"emptyDir": {"sizeLimit": "1Gi"}}})), switch(json!({}), claim(json!({})))],
            vec![switch(json!({}), folder.clone()), switch(folder.clone(), json!({})), switch(claim(json!({})), folder)],
        ),
        (
            rules::STORAGE_CLASS_FIXED,
            vec![switch(claim(json!({"storageClassName": "a"})), claim(json!({"storageClassName": "a", "size": "20Gi"})))],
            vec![
                switch(claim(json!({"storageClassName": "a"})), claim(json!({"storageClassName": "b"}))),
                switch(claim(json!({"storageClassName": "a"})), json!({})),
                switch(json!({}), claim(json!({"storageClassName": "a"}))),
            ],
        ),
        (
            rules::ACCESS_MODES_FIXED,
            vec![switch(json!({}), claim(json!({"accessModes": ["ReadWriteOnce"]})))],
            vec![
                switch(json!({}), claim(json!({"accessModes": ["ReadWriteMany"]}))),
                switch(claim(json!({"accessModes": ["ReadWriteMany"]})), json!({})),
            ],
        ),
        (
            rules::CLAIM_NAME_FIXED,
            vec![switch(claim(json!({"claimName": "a"})), json!({"storage": {"persistentVolumeClaim": {"claimName": "a"}}, "suspend": true}))],
            vec![
                switch(claim(json!({"claimName": "a"})), claim(json!({"claimName": "b"}))),
                switch(claim(json!({"claimName": "a"})), json!({})),
                switch(json!({}), claim(json!({"claimName": "a"}))),
            ],
        ),
        (
            rules::SIZE_GROWS,
            vec![
                switch(claim(json!({"size": "1Gi"})), claim(json!({"size": "2Gi"}))),
                switch(claim(json!({"size": "1Gi"})), claim(json!({"size": "1024Mi"}))),
                switch(claim(json!({"size": "1Gi"})), json!({})),
            ],
            vec![
                switch(claim(json!({"size": "2Gi"})), claim(json!({"size": "1Gi"}))),
                switch(claim(json!({"size": "20Gi"})), json!({})),
                switch(json!({}), claim(json!({"size": "1Gi"}))),
            ],
        ),
        (
            rules::ONE_STORAGE,
            vec![new(claim(json!({}))), new(json!({"storage": {"emptyDir": {}}}))],
            vec![new(json!({"storage": {}})), new(json!({"storage": {"emptyDir": {}, "persistentVolumeClaim": {}}}))],
        ),
        (
            rules::EXISTING_CLAIM_ALONE,
            vec![new(claim(json!({"claimName": "c"})))],
            [json!({"size": "1Gi"}), json!({"storageClassName": "a"}), json!({"accessModes": ["ReadWriteOnce"]})]
                .map(|mut fields| {
                    fields["claimName"] = json!("c");
                    new(claim(fields))
                })
                .into(),
        ),
        (
            rules::POSITIVE,
            vec![new(claim(json!({"size": "1"}))), new(claim(json!({"size": 1_000_000}))), new(json!({"storage": {"emptyDir": {"sizeLimit": "1Gi"}}}))],
            vec![new(claim(json!({"size": "0"}))), new(claim(json!({"size": 0}))), new(json!({"storage": {"emptyDir": {"sizeLimit": "0Gi"}}}))],
        ),
        (
            rules::ONE_TLS,
            vec![new(tls(json!({}))), new(json!({"tls": {"none": {}}})), new(json!({"tls": {"secret": {"name": "s"}}}))],
            vec![new(json!({"tls": {}})), new(json!({"tls": {"none": {}, "selfSigned": {}}})), new(json!({"tls": {"none": {}, "secret": {"name": "s"}}}))],
        ),
        (
            rules::AUTHORITY_OUTLIVES_LEAF,
            vec![new(tls(json!({"duration": "1h", "caDuration": "1h"}))), new(tls(json!({"caDuration": "8760h"})))],
            vec![new(tls(json!({"duration": "2h", "caDuration": "1h"}))), new(tls(json!({"caDuration": "8759h"})))],
        ),
        (
            rules::LEAF_AT_MOST_DEFAULT_AUTHORITY,
            vec![new(tls(json!({"duration": "87600h"}))), new(tls(json!({"duration": "87601h", "caDuration": "90000h"})))],
            vec![new(tls(json!({"duration": "87601h"})))],
        ),
        (
            rules::AT_LEAST_A_MINUTE,
            vec![new(tls(json!({"duration": "1m"}))), new(purging(json!({"age": "60s", "interval": "1h30m"})))],
            vec![
                new(tls(json!({"duration": "59s"}))),
                new(tls(json!({"duration": "1s", "caDuration": "30s"}))),
                new(purging(json!({"age": "10s"}))),
                new(purging(json!({"interval": "0s"}))),
            ],
        ),
        (
            rules::NO_AUTH_ALONE,
            vec![new(json!({"auth": {"none": {}}})), new(json!({"auth": {"users": user}}))],
            vec![
                new(json!({"auth": {"none": {}, "users": user}})),
                new(json!({"auth": {"none": {}, "usersFrom": [{"secretRef": {"name": "s"}}]}})),
                new(json!({"auth": {"none": {}, "generatedAdmin": "Always"}})),
            ],
        ),
        (
            rules::RETRIES_NEED_ON_FAILURE,
            vec![new(json!({"restartPolicy": {"type": "OnFailure", "maxRetries": 0}}))],
            vec![new(json!({"restartPolicy": {"maxRetries": 1}})), new(json!({"restartPolicy": {"type": "Always", "maxRetries": 1}}))],
        ),
        (
            rules::NODE_PORT_NEEDS_TYPE,
            ["NodePort", "LoadBalancer"].map(|kind| new(json!({"service": {"type": kind, "nodePort": 30999}}))).into(),
            vec![new(json!({"service": {"nodePort": 30999}})), new(json!({"service": {"type": "ClusterIP", "nodePort": 30999}}))],
        ),
        (
            rules::LOAD_BALANCER_CLASS_NEEDS_TYPE,
            vec![new(json!({"service": {"type": "LoadBalancer", "loadBalancerClass": "example.com/a"}}))],
            vec![new(json!({"service": {"type": "NodePort", "loadBalancerClass": "example.com/a"}})), new(json!({"service": {"loadBalancerClass": "a"}}))],
        ),
        (
            rules::SOURCE_RANGES_NEED_TYPE,
            vec![new(json!({"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.0/24"]}})), new(json!({"service": {"loadBalancerSourceRanges": []}}))],
            vec![new(json!({"service": {"loadBalancerSourceRanges": ["192.0.2.0/24"]}}))],
        ),
        (
            rules::NO_REGISTRY_ENV,
            vec![new(json!({"pod": {"env": [{"name": "HTTP_PROXY", "value": "p"}, {"name": "MY_REGISTRY_X", "value": "y"}]}}))],
            vec![new(json!({"pod": {"env": [{"name": "REGISTRY_HTTP_ADDR", "value": ":1"}]}}))],
        ),
    ]
}

/// Where each rule stands: path and message.
fn places(schema: &Value, path: &str, found: &mut BTreeSet<(String, String)>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found.insert((path.to_owned(), rule["message"].as_str().unwrap().to_owned()));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        places(field, &path, found);
    }
    if schema["items"].is_object() {
        places(&schema["items"], path, found);
    }
}

fn manifest(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": name}, "spec": spec})
}

/// What the rules say without a cluster: path and message of each fault.
fn offline(change: &Change) -> Vec<(String, String)> {
    let old = change.old.as_ref().map(|old| manifest(change.name, old));
    let verdict = Validator::new().validate(&api::schema(), &manifest(change.name, &change.new), old.as_ref());
    let faults = verdict.err().map(kube::core::cel::ValidationErrors::into_vec).unwrap_or_default();
    faults.into_iter().map(|fault| (fault.field_path.trim_start_matches('.').to_owned(), fault.message)).collect()
}

/// What `check` prints about a manifest, and whether it is content.
fn check(change: &Change) -> (bool, String) {
    let mut child = Command::new(PROGRAM)
        .args(["check", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(manifest(change.name, &change.new).to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

/// What the API server says: path and message of each fault.
async fn online(team: &Namespace, change: &Change, number: usize) -> Vec<(String, String)> {
    let api: Api<PrivateRegistry> = Api::namespaced(team.client.clone(), &team.name);
    let parse = |name: &str, spec: &Value| serde_json::from_value::<PrivateRegistry>(manifest(name, spec)).unwrap();
    let answer = match &change.old {
        None => {
            api.create(&PostParams { dry_run: true, ..PostParams::default() }, &parse(change.name, &change.new)).await
        }
        Some(old) => {
            let name = format!("switched-{number}");
            api.create(&PostParams::default(), &parse(&name, old)).await.unwrap();
            let parameters = PatchParams { dry_run: true, ..PatchParams::default() };
            let patch = json!([{"op": "replace", "path": "/spec", "value": change.new}]);
            api.patch(&name, &parameters, &Patch::Json::<()>(serde_json::from_value(patch).unwrap())).await
        }
    };
    match answer {
        Ok(_) => vec![],
        Err(kube::Error::Api(status)) => {
            let causes = status.details.clone().map(|details| details.causes).unwrap_or_default();
            let found: Vec<_> = causes.into_iter().map(|cause| (cause.field, cause.message)).collect();
            if found.is_empty() { vec![(String::new(), status.message.clone())] } else { found }
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn every_rule_accepts_and_refuses_the_same_here_and_on_the_api_server() {
    let Some(team) = namespace("rules").await else { return };
    let mut uncovered = BTreeSet::new();
    places(&api::schema(), "", &mut uncovered);
    let mut number = 0;
    for ((_, message), accepts, refuses) in cases() {
        for change in accepts {
            number += 1;
            let said = (offline(&change), online(&team, &change, number).await);
            assert_eq!(said, (vec![], vec![]), "{message}\nmust accept {} {}", change.name, change.new);
            assert!(change.old.is_some() || check(&change).0, "check must accept {}", change.new);
        }
        for change in refuses {
            number += 1;
            let (here, there) = (offline(&change), online(&team, &change, number).await);
            let says = |said: &[(String, String)]| said.iter().any(|(_, words)| words.contains(message));
            assert!(
                says(&here) && says(&there),
                "{message}\nmust refuse {} {}\nhere: {here:?}\nthere: {there:?}",
                change.name,
                change.new
            );
            if change.old.is_none() {
                let (content, words) = check(&change);
                assert!(!content && words.contains(message), "check says {words} about {}", change.new);
            }
            // The API server has no word for the whole object.
            let place = |path: &str| if path.is_empty() || path == "<nil>" { String::new() } else { path.to_owned() };
            for (path, words) in there {
                uncovered.retain(|(at, message)| !(*at == place(&path) && words.contains(message.as_str())));
            }
        }
    }
    assert_eq!(uncovered, BTreeSet::new(), "rules without a manifest that they refuse");
}
