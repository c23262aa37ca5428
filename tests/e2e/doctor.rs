//! What a person learns of a registry that is well and of one that is not, with `kubectl registry doctor`, and what is in a report for others.

use std::fs::File;
use std::io::Read as _;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::cluster::{cluster, has_roles_only, node};
use crate::registry::Registry;
use crate::terminal::Terminal;

const STRANGER: &str = "x509: certificate signed by unknown authority";

/// The check of this name.
fn check<'a>(doctor: &'a Value, id: &str) -> &'a Value {
    let all = doctor["sections"].as_array().into_iter().flatten().flat_map(|section| section["checks"].as_array());
    all.flatten().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no check {id}: {doctor:#}"))
}

impl Terminal {
    /// What the doctor says, as a program reads it, and the exit code.
    async fn examines(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let said = self.asks(&[&["doctor"], arguments, &["-o", "json"]].concat()).await;
        let read = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}{}", said.out, said.err));
        (said.code, read)
    }
}

async fn address(registry: &Registry) -> String {
    registry.status().await.address.unwrap()
}

#[tokio::test]
async fn a_doctor_finds_nothing_where_all_is_well_and_each_fault_where_it_is() {
    let Some(cluster) = node("looks at what its kubelet says").await else { return };
    let registry = cluster.registry("doctor", "team-a", json!({})).await.ready().await;
    let (admin, terminal) = (registry.admin().await, Terminal::new(&registry));
    admin.pushes("team/app:1", "to be followed").await;
    let nodes = Api::<Node>::all(cluster.client.clone()).list(&ListParams::default()).await.unwrap().items;
    let name = nodes[0].metadata.name.clone().unwrap();
    let image = format!("{}/team/app:1", address(&registry).await);
    let follow = ["team-a", "--image", &image, "--node", &name];

    let (code, doctor) = terminal.examines(&follow).await;
    assert_eq!((code, &doctor["failed"]), (Some(0), &json!(0)), "{doctor:#}");
    let good = [
        "api-server",
        "clock-api-server",
        "definition",
        "operator-runs",
        "operator-version",
        "ready",
        "available",
        "storage",
        "certificate-signed",
        "certificate-names",
        "certificate-time",
        "service",
        "answers",
        "login",
        "may-pull",
        "image",
        "pull-secret",
        "node-ready",
        "pulls",
    ];
    for id in good {
        assert_eq!(check(&doctor, id)["outcome"], "good", "{id}: {doctor:#}");
    }
    println!("{}", terminal.sees(&[&["doctor"], &follow[..]].concat()).await);

    // A tag that is not there, and a node that does not trust the registry.
    let pull = format!("{}-pull", registry.name);
    registry.runs("stranger", "team/app:1", Some(&pull)).await;
    registry.is_refused("stranger", STRANGER).await;
    let missing = format!("{}/team/app:2", address(&registry).await);
    let (code, doctor) = terminal.examines(&["team-a", "--image", &missing]).await;
    assert_eq!((code, &check(&doctor, "image")["outcome"]), (Some(1), &json!("failed")), "{doctor:#}");
    let seen = check(&doctor, "image")["seen"].as_str().unwrap();
    assert!(seen.contains("it has no team/app:2; of team/app there is 1"), "{seen}");
    assert_eq!(check(&doctor, "pulls")["outcome"], "good", "nobody pulls that one: {doctor:#}");

    let said = terminal.asks(&["doctor", "team-a"]).await;
    println!("{}", said.out);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(
        said.out.contains("× kubelets pull from it\n    pod doctor/stranger") && said.out.contains(STRANGER),
        "{}",
        said.out
    );
    assert!(said.out.contains("see docs/clients.md#containerd-and-with-it-most-kubelets"), "{}", said.out);

    // What is cured is no fault any more, though its events are there still.
    registry.trusted_by_the_node(&registry.bundle().await).await;
    registry.started("stranger").await;
    let said = terminal.asks(&["doctor", "team-a", "--wait", "1m", "-o", "short"]).await;
    assert_eq!(said.code, Some(0), "{}", said.out);
    assert!(!said.out.contains('×'), "{}", said.out);

    // What the operator says of a node, where it has agents on nodes.
    if !has_roles_only() {
        registry.change(json!({"trust": {"nodes": {}}})).await;
        registry.condition("NodesTrusted", "Told").await;
        let (code, doctor) = terminal.examines(&["team-a", "--node", &name]).await;
        let told = check(&doctor, "nodes-trust");
        assert_eq!((code, &told["seen"]), (Some(0), &json!(format!("{name}, as all 1"))), "{doctor:#}");
    }

    // A claim that waits for ever, among all of the namespace.
    let class = json!({"storage": {"persistentVolumeClaim": {"storageClassName": "there-is-none", "size": "1Gi"}}});
    let pending = cluster.another("doctor", "team-b", class).await;
    pending.condition("StorageReady", "Pending").await;
    let started = Instant::now();
    let (code, doctor) = terminal.examines(&["--wait", "3s"]).await;
    assert!(started.elapsed() >= Duration::from_secs(3), "it has not waited");
    assert_eq!(code, Some(1));
    let failed: Vec<_> = doctor["sections"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|section| section["checks"].as_array().unwrap().iter().any(|check| check["outcome"] == "failed"))
        .map(|section| section["name"].as_str().unwrap())
        .collect();
    assert!(failed.iter().all(|name| name.starts_with("PrivateRegistry doctor/team-b")), "{failed:?}");
    let sections = doctor["sections"].as_array().unwrap();
    let own = sections.iter().find(|section| section["name"] == "PrivateRegistry doctor/team-b").unwrap();
    let storage = own["checks"].as_array().unwrap().iter().find(|check| check["id"] == "storage").unwrap();
    assert_eq!(
        (&storage["outcome"], &storage["page"]),
        (&json!("failed"), &json!("docs/conditions.md#storageready")),
        "{storage:#}"
    );

    let (code, doctor) = terminal.examines(&["nobody"]).await;
    assert_eq!((code, &doctor["failed"]), (Some(1), &json!(1)), "{doctor:#}");
}

#[tokio::test]
async fn a_report_has_what_is_needed_and_nothing_that_is_secret() {
    let Some(cluster) = cluster().await else { return };
    cluster.namespace("doctor-report").await;
    cluster.secret("doctor-report", "ann", &[("password", "planted-for-ann")]).await;
    let spec = json!({
        "auth": {"users": [{"name": "ann", "passwordSecretRef": {"name": "ann", "key": "password"}}], "admin": {"generate": "Always"}},
        "pod": {"env": [{"name": "HTTPS_PROXY_OF_NOBODY", "value": "planted-in-a-variable"}]},
    });
    let registry = cluster.another("doctor-report", "team-a", spec).await.ready().await;
    let terminal = Terminal::new(&registry);
    // The registry's log has what clients send.
    registry.admin().await.sees("/v2/_catalog?n=1&token=planted-in-a-query").await;
    let path = terminal.file("report.zip");
    let said = terminal.sees(&["report", "team-a", "-o", path.to_str().unwrap()]).await;
    assert!(said.contains("Look through it"), "{said}");

    let mut archive = zip::ZipArchive::new(File::open(&path).unwrap()).unwrap();
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        entries.push((entry.name().unwrap().into_owned(), text));
    }
    let names: Vec<_> = entries.iter().map(|(name, _)| name.as_str()).collect();
    let folder = "doctor-report/team-a";
    let expected = [
        format!("{folder}/manifests/PrivateRegistry.yaml"),
        format!("{folder}/manifests/Deployment-team-a.yaml"),
        format!("{folder}/manifests/Secret-team-a-admin.yaml"),
        format!("{folder}/manifests/PersistentVolumeClaim-team-a-data.yaml"),
        format!("{folder}/events.yaml"),
        "nodes.json".to_owned(),
        "versions.json".to_owned(),
        "doctor.json".to_owned(),
        "operator/private-registry-system/Deployment-private-registry-operator.yaml".to_owned(),
    ];
    for name in &expected {
        assert!(names.contains(&name.as_str()), "{name} is missing: {names:#?}");
    }
    let log = |folder: &str| {
        entries.iter().any(|(name, text)| name.starts_with(folder) && name.ends_with(".log") && !text.is_empty())
    };
    assert!(log(&format!("{folder}/logs/")) && log("operator/private-registry-system/logs/"), "{names:#?}");

    let mut secrets =
        vec!["planted-for-ann".to_owned(), "planted-in-a-variable".to_owned(), "planted-in-a-query".to_owned()];
    for (secret, key) in [
        ("admin", "password"),
        ("htpasswd", "htpasswd"),
        ("tls", "tls.key"),
        ("ca", "tls.key"),
        ("pull", ".dockerconfigjson"),
    ] {
        let held = registry.secret(&format!("team-a-{secret}")).await;
        let value = held.get(key).unwrap_or_else(|| panic!("{secret} has no {key}"));
        // A line is enough to recognise what has several.
        let line = value.lines().find(|line| !line.starts_with("-----")).unwrap();
        secrets.push(line.to_owned());
    }
    for (name, text) in &entries {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "a secret is in {name}");
        }
    }
    let admin = &entries.iter().find(|(name, _)| name.ends_with("Secret-team-a-admin.yaml")).unwrap().1;
    assert!(admin.contains("password: ") && admin.contains(" bytes"), "{admin}");
}
