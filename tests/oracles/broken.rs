//! Manifests that pass admission and cannot be followed: a reference to nothing, a value that Kubernetes refuses in a child. What serves goes on as it is, the
//! registry says what is wrong, and taking the change back heals, as if nothing had been.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::children::{self, Children, comparable, differences};
use crate::cluster::{Namespace, namespace};
use crate::known;
use crate::registry::Registry;
use crate::settling::condition;

/// Case, a manifest that is right, and one that is wrong.
fn cases() -> Vec<(&'static str, Value, Value)> {
    let plain = |spec: Value| (json!({}), spec);
    let pod = |pod: Value| plain(json!({"pod": pod}));
    let balancer = |class: &str| json!({"service": {"type": "LoadBalancer", "loadBalancerClass": class}});
    let users = |users: Value| json!({"auth": {"users": users}});
    let alice = json!({"name": "alice", "passwordSecretRef": {"name": "login-one"}});
    let nobody = json!({"name": "nobody", "passwordSecretRef": {"name": "absent"}});
    let rows = [
        ("password-missing", plain(users(json!([nobody])))),
        ("password-missing-beside-another", (users(json!([alice])), users(json!([alice, nobody])))),
        (
            "password-key-missing",
            (
                users(json!([alice])),
                users(json!([alice, {"name": "bob", "passwordSecretRef": {"name": "login-one", "key": "absent"}}])),
            ),
        ),
        ("many-logins-missing", plain(json!({"auth": {"usersFrom": [{"secretRef": {"name": "absent"}}]}}))),
        ("certificate-missing", plain(json!({"tls": {"secret": {"name": "absent"}}}))),
        ("certificate-without-a-certificate", plain(json!({"tls": {"secret": {"name": "login-one"}}}))),
        (
            "certificate-of-another-replaced",
            (json!({"tls": {"secret": {"name": "own-one"}}}), json!({"tls": {"secret": {"name": "login-two"}}})),
        ),
        (
            "plain-to-a-missing-certificate",
            (json!({"tls": {"none": {}}}), json!({"tls": {"secret": {"name": "absent"}}})),
        ),
        ("node-port-out-of-range", plain(json!({"service": {"type": "NodePort", "nodePort": 40_000}}))),
        ("node-port-taken", plain(json!({"service": {"type": "NodePort", "nodePort": 30_020}}))),
        ("service-annotation", plain(json!({"service": {"annotations": {"not a key": "x"}}}))),
        (
            "source-ranges",
            plain(json!({"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["999.0.0.0/99"]}})),
        ),
        ("balancer-class", (balancer("example.com/one"), balancer("example.com/two"))),
        ("label", pod(json!({"labels": {"not a key": "x"}}))),
        ("annotation", pod(json!({"annotations": {"not a key": "x"}}))),
        ("node-selector", pod(json!({"nodeSelector": {"zone": "not a value"}}))),
        ("environment", pod(json!({"env": [{"name": "A=B", "value": "x"}]}))),
        (
            "limits-below-requests",
            pod(json!({"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}})),
        ),
        ("toleration", pod(json!({"tolerations": [{"key": "x", "operator": "Nonsense"}]}))),
        (
            "topology",
            pod(
                json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            ),
        ),
        (
            "affinity",
            pod(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
            ),
        ),
        ("security-context", pod(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}))),
        ("extra-section", plain(json!({"extraConfig": {"nonsense": {}}}))),
        ("certificate-address", plain(json!({"tls": {"certificate": {"ipAddresses": ["999.1.1.1"]}}}))),
        // Several things at once, only one of which cannot be: what hangs on it stays, and is taken back with it.
    ];
    rows.into_iter().map(|(case, (good, bad))| (case, good, bad)).collect()
}

trait With {
    fn with(self, field: &str, value: Value) -> Self;
}

impl With for (Value, Value) {
    fn with(mut self, field: &str, value: Value) -> Self {
        self.1[field] = value;
        self
    }
}

/// What serves, as it lies in the cluster: content and identity.
fn serving(children: &Children) -> BTreeMap<String, Value> {
    let serves = ["Deployment", "Service", "Secret", "ConfigMap", "PersistentVolumeClaim"];
    let content =
        |child: &Value| json!({"uid": child["metadata"]["uid"], "spec": child["spec"], "data": child["data"]});
    let children = children.iter().filter(|(title, _)| serves.iter().any(|kind| title.starts_with(kind)));
    children.map(|(title, child)| (title.clone(), content(child))).collect()
}

/// Whether a registry says that something is not as the manifest says, and not only that it is on its way.
fn complains(status: &Value) -> bool {
    let says = |kind: &&str| {
        let found = condition(status, kind);
        found["status"] == "False" && found["reason"] != "Progressing"
    };
    ["Ready", "CertificateReady", "UsersReady", "StorageReady"].iter().any(says)
}

async fn apply_all(team: &Namespace, specs: impl Iterator<Item = (&'static str, Value)>) -> BTreeMap<String, Children> {
    for (case, spec) in specs {
        Registry::named(team, case).apply(spec).await.unwrap_or_else(|error| panic!("{case}: {error}"));
    }
    team.is_settled().await;
    children::all(team).await
}

#[tokio::test]
async fn a_manifest_that_cannot_be_followed_leaves_what_serves_alone_and_taking_it_back_heals() {
    let Some(team) = namespace("broken").await else { return };
    let _operator = team.operator().await;
    team.what_fields_refer_to().await;
    let port = json!({"port": 80, "nodePort": 30_020});
    let taken = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "first-come"}, "spec": {"type": "NodePort", "ports": [port]}});
    team.create(taken).await;
    let cases = cases();
    let started = Instant::now();

    let good = apply_all(&team, cases.iter().map(|row| (row.0, row.1.clone()))).await;
    let bad = apply_all(&team, cases.iter().map(|row| (row.0, row.2.clone()))).await;
    eprintln!("{:?}: {} broken", started.elapsed(), cases.len());
    let mut complaints = Vec::new();
    for (case, _, spec) in &cases {
        let (before, after) = (serving(&good[*case]), serving(&bad[*case]));
        let differs = differences(&before, &after);
        if !differs.is_empty() {
            let places: Vec<_> = differs.iter().map(|place| place.chars().take(200).collect::<String>()).collect();
            complaints.push(((*case).to_owned(), format!("{spec} has changed what serves: {}", places.join("; "))));
        }
        if !complains(&bad[*case]["status"]) {
            complaints
                .push(((*case).to_owned(), format!("{spec} is not told: {}", bad[*case]["status"]["conditions"])));
        }
    }
    apply_all(&team, cases.iter().map(|row| (row.0, row.1.clone()))).await;
    complaints.extend(not_healed(&team, &cases, &good).await);
    eprintln!("{:?}: healed", started.elapsed());
    known::judge("broken", &complaints);
}

/// Cases that are not again what they were.
async fn not_healed(
    team: &Namespace,
    cases: &[(&'static str, Value, Value)],
    before: &BTreeMap<String, Children>,
) -> Vec<(String, String)> {
    let started = Instant::now();
    loop {
        let all = children::all(team).await;
        let judge = |(case, good, bad): &(&'static str, Value, Value)| {
            let mut differs = differences(&serving(&before[*case]), &serving(&all[*case]));
            let (was, is) = (comparable(case, &before[*case]), comparable(case, &all[*case]));
            differs.extend(differences(&children::without_status(was), &children::without_status(is)));
            let ready = condition(&all[*case]["status"], "Ready");
            if ready["status"] != "True" {
                differs.push(format!("Ready: {ready}"));
            }
            (!differs.is_empty())
                .then(|| ((*case).to_owned(), format!("{good} after {bad} is not what it was: {}", differs.join("; "))))
        };
        let different: Vec<_> = cases.iter().filter_map(judge).collect();
        if different.is_empty() || started.elapsed() > Duration::from_secs(60) {
            return different;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
