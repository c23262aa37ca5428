//! A settled registry costs nothing: no read and no write, whatever makes the operator look at it again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use private_registry_operator::desired::kinds::KINDS;
use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace};
use crate::given::{Company, DAY};
use crate::operator::Operator;
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually};

impl Namespace {
    /// Waits until the operator has asked nothing of the API server for a while.
    pub async fn settles(&self) {
        eventually(PATIENCE, "the operator asks nothing more", async || {
            let mark = self.mark().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let asked = self.asked_since(mark).await;
            if asked.is_empty() { Ok(()) } else { Err(format!("{asked:#?}")) }
        })
        .await;
    }

    /// Registries that have, all together, a child of every kind and a reference of every sort, settled.
    pub async fn every_sort_of_registry(&self) -> Vec<Registry<'_>> {
        self.secret("alice-login", &[("password", "correct horse")]).await;
        self.secret("many-logins", &[("bob", "battery staple"), ("carol", "correct horse")]).await;
        self.own_certificate("own-certificate", &["registry.example.com"]).await;
        self.claim("given", "ReadWriteOnce").await;
        let mut registries = Vec::new();
        for (name, spec) in sorts() {
            registries.push(self.registry(name, spec).await);
        }
        // What a person has to do for one of them.
        let request = self.object("ConfigMap", "signed-csr").appears(PATIENCE).await;
        let chain = Company::new().signs(request["data"]["tls.csr"].as_str().unwrap(), DAY);
        self.secret("signed-signed", &[("tls.crt", &chain)]).await;
        let mut settled = Vec::new();
        for registry in registries {
            settled.push(registry.ready().await);
        }
        self.settles().await;
        settled
    }
}

fn sorts() -> Vec<(&'static str, Value)> {
    let shared = json!({"persistentVolumeClaim": {"size": "1Gi", "accessModes": ["ReadWriteMany"]}});
    let users = json!({
        "users": [{"name": "alice", "passwordSecretRef": {"name": "alice-login"}}],
        "usersFrom": [{"secretRef": {"name": "many-logins"}}], "admin": {"generate": "Always"},
    });
    vec![
        ("plain", json!({})),
        ("shared", json!({"replicas": 2, "storage": shared})),
        ("job", json!({"restartPolicy": {"type": "OnFailure", "maxRetries": 3}, "storage": {"emptyDir": {}}})),
        ("users", json!({"auth": users, "service": {"type": "NodePort"}})),
        ("open", json!({"auth": {"none": {}}, "tls": {"none": {}}, "suspend": true})),
        ("own-tls", json!({"tls": {"secret": {"name": "own-certificate"}}, "addresses": ["registry.example.com"]})),
        ("signed", json!({"tls": {"certificateSigningRequest": {}}, "storage": {"emptyDir": {}}})),
        (
            "ingress",
            json!({"route": {"ingress": {"hosts": ["ingress.example.com"], "controller": "IngressNginx"}}, "suspend": true}),
        ),
        ("gateway", json!({"route": gateway("Terminate", "gateway.example.com"), "suspend": true})),
        ("passing", json!({"route": gateway("Passthrough", "passing.example.com"), "suspend": true})),
        ("given", json!({"storage": {"existingClaim": {"name": "given"}}, "deletionPolicy": "Delete"})),
    ]
}

fn gateway(mode: &str, host: &str) -> Value {
    let parents = json!([{"name": "public", "namespace": "infra", "sectionName": "https"}]);
    json!({"gateway": {"mode": mode, "hosts": [host], "parentRefs": parents}})
}

/// Makes the operator look at the registry once more although nothing is to be done.
pub async fn look_again(operator: &Operator, registry: &Registry<'_>, round: usize) {
    let before = operator.passes().await;
    registry.object.annotate("example.com/round", round.to_string()).await;
    operator.has_made(before + 1.0).await;
}

#[tokio::test]
async fn a_quiet_pass_reads_and_writes_nothing_whatever_the_registry_consists_of() {
    let Some(team) = namespace("quiet").await else { return };
    let operator = team.operator().await;
    let registries = team.every_sort_of_registry().await;
    // cert-manager is not there, and this operator serves one namespace.
    let present = KINDS.iter().filter(|kind| kind.kind != "CertificateRequest" && !kind.is_cluster_wide);
    assert_eq!(team.kinds_of_children(&registries).await, present.map(|kind| kind.kind.to_owned()).collect());

    let mark = team.mark().await;
    for round in 0..3 {
        for registry in &registries {
            look_again(&operator, registry, round).await;
        }
    }

    assert_eq!(team.asked_since(mark).await, []);
    let (_, metrics) = operator.get("/metrics").await.unwrap();
    let watched = KINDS.iter().filter(|kind| !kind.is_cluster_wide).map(|kind| kind.kind);
    for kind in watched.chain(["Pod", "PrivateRegistry"]) {
        let series = format!("private_registry_operator_last_watch_event_age_seconds{{kind=\"{kind}\"}}");
        assert!(metrics.contains(&series), "{series} in {metrics}");
    }
}

#[tokio::test]
async fn a_restart_of_the_operator_and_a_sweep_write_nothing_and_list_children_instead_of_reading_them() {
    let Some(team) = namespace("restart").await else { return };
    let operator = team.operator().await;
    let registries = team.every_sort_of_registry().await;
    assert!(operator.stop().await.success());

    let mark = team.mark().await;
    let operator = team.operator_with(&["--sweep-every=10s"]).await;
    let all = f64::from(u32::try_from(registries.len()).unwrap());
    for round in ["restart", "sweep"] {
        let before = if round == "restart" { 0.0 } else { operator.passes().await };
        operator.has_made(before + all).await;
        team.settles().await;
    }

    assert_eq!(team.written_since(mark).await, []);
    let asked = team.asked_since(mark).await;
    let children_read = asked.iter().filter(|entry| entry.verb == "get" && entry.name.starts_with("plain"));
    assert_eq!(children_read.count(), 0, "{asked:#?}");
}

#[tokio::test]
async fn a_registry_that_comes_up_has_two_reports_and_two_events() {
    let Some(team) = namespace("told").await else { return };
    let _operator = team.operator().await;
    let (mark, started) = (team.mark().await, Instant::now());
    team.registry("team-a", json!({})).await.ready().await;
    // What takes longer is told meanwhile, every two seconds.
    let most = 2 + usize::try_from(started.elapsed().as_secs() / 2).unwrap();
    team.settles().await;

    let written = team.written_since(mark).await;
    let reports = written.iter().filter(|entry| entry.subresource == "status").count();
    let events = written.iter().filter(|entry| entry.resource == "events").count();
    assert!((2..=most).contains(&reports) && (1..=most).contains(&events), "{most}: {reports}, {events}: {written:#?}");
}

#[tokio::test]
async fn another_image_of_the_operator_waits_for_the_next_rollout() {
    let Some(team) = namespace("another-image").await else { return };
    let probe = |deployment: &Value| deployment["spec"]["template"]["spec"]["initContainers"][0]["image"].clone();
    let operator = team.operator_with(&["--operator-image=example.test/operator:1"]).await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    team.settles().await;
    let before = registry.deployment().at("/spec").await;
    assert!(operator.stop().await.success());

    let operator = team.operator_with(&["--operator-image=example.test/operator:2"]).await;
    operator.has_made(1.0).await;
    team.settles().await;
    assert_eq!(registry.deployment().at("/spec").await, before);

    registry.apply(json!({"pod": {"labels": {"example.com/round": "2"}}})).await.unwrap();
    let follows = |live: &Value| probe(live) == "example.test/operator:2";
    registry.deployment().becomes(PATIENCE, "runs the new image with what the manifest changes", follows).await;
}

impl Namespace {
    async fn kinds_of_children(&self, registries: &[Registry<'_>]) -> BTreeSet<String> {
        let mut kinds = BTreeSet::new();
        for registry in registries {
            kinds.extend(registry.children().await.into_iter().map(|child| child.kind));
        }
        kinds
    }
}
