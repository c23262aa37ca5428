//! What belongs to somebody else is never touched, and taken over only when its owner says so.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::namespace;
use crate::object::Object;
use crate::registry::Registry;

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "theirs"}}, "spec": {"restartPolicy": "Always", "containers": [{"name": "theirs", "image": "theirs"}]}})
}

/// Somebody's object for each kind that is written, under a child's name.
fn theirs(registry: &str) -> Vec<(&'static str, String, Value)> {
    let deployment = json!({"selector": {"matchLabels": {"app": "theirs"}}, "template": template()});
    let port = json!({"ports": [{"port": 80}], "selector": {"app": "theirs"}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}});
    let secret = |kind: &str, data: Value| json!({"type": kind, "stringData": data});
    vec![
        ("Service", registry.to_owned(), json!({"spec": port})),
        ("ServiceAccount", registry.to_owned(), json!({})),
        ("PersistentVolumeClaim", format!("{registry}-data"), json!({"spec": claim})),
        (
            "Secret",
            format!("{registry}-tls"),
            secret("kubernetes.io/tls", json!({"tls.crt": "theirs", "tls.key": "theirs"})),
        ),
        (
            "Secret",
            format!("{registry}-ca"),
            secret("kubernetes.io/tls", json!({"tls.crt": "theirs", "tls.key": "theirs"})),
        ),
        ("Secret", format!("{registry}-htpasswd"), secret("Opaque", json!({"htpasswd": "theirs:x"}))),
        (
            "Secret",
            format!("{registry}-admin"),
            secret("kubernetes.io/basic-auth", json!({"username": "theirs", "password": "their password"})),
        ),
        ("Secret", format!("{registry}-config"), secret("Opaque", json!({"config.yml": "theirs"}))),
        ("ConfigMap", format!("{registry}-ca-bundle"), json!({"data": {"ca.crt": "theirs"}})),
        ("Deployment", registry.to_owned(), json!({"spec": deployment})),
    ]
}

/// What its owner wrote of it.
async fn wish(object: &Object) -> Value {
    let mut live = object.get().await;
    for field in ["managedFields", "resourceVersion", "annotations"] {
        live["metadata"].as_object_mut().unwrap().remove(field);
    }
    live.as_object_mut().unwrap().remove("status");
    live
}

#[tokio::test]
async fn somebody_elses_object_of_any_kind_is_untouched_and_named_and_can_be_handed_over() {
    let Some(team) = namespace("foreign").await else { return };
    let operator = team.operator().await;
    let mut found = Vec::new();
    for number in 0..theirs("x").len() {
        let name = format!("registry-{number}");
        let (kind, child, mut object) = theirs(&name).swap_remove(number);
        let resource = crate::object::resource(kind);
        object["apiVersion"] = json!(resource.api_version);
        object["kind"] = json!(kind);
        object["metadata"] = json!({"name": child});
        found.push((team.create(object).await, Registry::named(&team, &name)));
    }
    // Controllers fill in what they have to.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (object, registry) in &found {
        let before = wish(object).await;
        registry.apply(json!({})).await.unwrap();
        let message = registry.says("Stalled", "True", "NotOurs").await;
        assert!(message.contains(&object.kind) && message.contains(&object.name), "{message}");
        assert!(message.contains("privateregistry.dev/adopt"), "{message}");
        assert_eq!(wish(object).await, before);
    }
    for metric in ["events_total", "reconcile_errors_total"] {
        operator.has_counted(metric, f64::from(u32::try_from(found.len()).unwrap())).await;
    }

    for (object, registry) in &found {
        object.annotate("privateregistry.dev/adopt", "true").await;
        registry.object.annotate("example.com/look", "again").await;
    }
    for (object, registry) in found {
        let name = registry.name.clone();
        if object.name.ends_with("-ca") {
            // Handed over is not written over: what is no CA is refused.
            registry.says("CertificateReady", "False", "CaUnusable").await;
            assert_eq!(object.decoded("tls.key").await, "theirs");
            continue;
        }
        registry.ready().await;
        assert_eq!(object.at("/metadata/labels/privateregistry.dev~1registry").await, json!(name));
    }
}

#[tokio::test]
async fn what_another_controller_owns_cannot_be_handed_over() {
    let Some(team) = namespace("controlled").await else { return };
    let _operator = team.operator().await;
    let owner = team.create(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}})).await;
    let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid().await, "controller": true}]);
    let service = team
        .create(json!({
            "apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]},
            "metadata": {"name": "team-a", "ownerReferences": reference, "annotations": {"privateregistry.dev/adopt": "true"}},
        }))
        .await;
    let before = wish(&service).await;

    let registry = team.registry("team-a", json!({})).await;

    let message = registry.says("Stalled", "True", "NotOurs").await;
    assert!(message.contains("Service") && message.contains("ConfigMap owner"), "{message}");
    assert_eq!(wish(&service).await, before);
}

#[tokio::test]
async fn two_registries_whose_children_would_share_a_name_do_not_share_the_object() {
    let Some(team) = namespace("overlapping").await else { return };
    let _operator = team.operator().await;
    // Secret team-a-tls of the first is not what the second, called team-a-tls, may use for its Service account or anything else.
    let first = team.registry("team-a", json!({})).await.ready().await;
    let second = team.registry("team-a-tls", json!({})).await.ready().await;
    team.settles().await;
    assert_eq!(first.tls().at("/metadata/labels/privateregistry.dev~1registry").await, json!("team-a"));
    assert_eq!(second.tls().at("/metadata/labels/privateregistry.dev~1registry").await, json!("team-a-tls"));
}
