//! Unions and types can be switched by applying another manifest, and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testbed::{Family, Progress, Tools};

use crate::cluster::namespace;
use crate::given::issue;
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually, within};

async fn configuration(registry: &Registry<'_>) -> String {
    registry.child("Secret", "-config").decoded("config.yml").await
}

impl Registry<'_> {
    /// Applies another spec and waits until it is so.
    async fn becomes(self, spec: Value) -> Self {
        self.apply(spec).await.unwrap();
        self.ready().await
    }
}

#[tokio::test]
async fn the_signer_of_the_certificate_can_be_switched_both_ways() {
    let Some(team) = namespace("switch-tls").await else { return };
    let _operator = team.operator().await;
    let own = team.own_certificate("certificate", &["registry.example.com"]).await;
    let registry = team.registry("team-a", json!({"tls": {"privateCA": {}}})).await.ready().await;
    let authority = registry.ca().at("/data").await;

    let registry = registry.becomes(json!({"tls": {"secret": {"name": "certificate"}}})).await;
    assert_eq!(registry.tls().decoded("tls.crt").await.trim(), own.certificate.trim());
    assert_eq!(registry.bundle().at("/data/ca.crt").await.as_str().unwrap().trim(), own.authority.trim());

    let registry = registry.becomes(json!({"tls": {"none": {}}})).await;
    registry.tls().disappears(PATIENCE).await;
    registry.bundle().disappears(PATIENCE).await;
    assert!(!configuration(&registry).await.contains("certificate:"));

    let registry = registry.becomes(json!({"tls": {"certificate": {"keyAlgorithm": "ECDSAP384"}}})).await;
    assert_eq!(registry.ca().at("/data").await, authority, "the authority was kept all the time");
    assert!(configuration(&registry).await.contains("certificate:"));

    let registry = registry.becomes(json!({"tls": {"secret": {"name": "certificate"}}})).await;
    let registry = registry.becomes(json!({})).await;
    assert_eq!(registry.ca().at("/data").await, authority);
    assert_ne!(registry.tls().decoded("tls.crt").await.trim(), own.certificate.trim());
}

/// kubectl on the client's side works out from the manifest before what is to go, and never sends what the server filled in: a union with a
/// default would keep two members.
#[tokio::test]
async fn kubectl_apply_switches_unions_both_ways() {
    let Some(team) = namespace("switch-kubectl").await else { return };
    let _operator = team.operator().await;
    team.own_certificate("certificate", &["registry.example.com"]).await;
    team.secret("alice-login", &[("password", "correct horse")]).await;
    let registry = Registry::named(&team, "team-a");
    let users = json!({"users": [{"name": "alice", "passwordSecretRef": {"name": "alice-login"}}]});
    let specs = [
        json!({"tls": {"privateCA": {}}, "auth": users}),
        json!({"tls": {"secret": {"name": "certificate"}}, "auth": {"none": {}}}),
        json!({"tls": {"none": {}}, "auth": {"none": {}}}),
        json!({}),
        json!({"tls": {"none": {}}, "auth": users}),
        json!({"tls": {"privateCA": {}}}),
    ];
    for spec in specs {
        kubectl_apply(&registry, &spec).await;
        registry.says("Ready", "True", "").await;
        let live = registry.object.at("/spec").await;
        assert_eq!((&live["tls"], &live["auth"]), (&spec["tls"], &spec["auth"]));
    }
}

async fn kubectl_apply(registry: &Registry<'_>, spec: &Value) {
    let tools = tokio::task::spawn_blocking(|| Tools::ensure(&[Family::Kubectl], &Progress::auto())).await;
    let manifest = json!({
        "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
        "metadata": {"name": registry.name, "namespace": registry.namespace.name}, "spec": spec,
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, manifest.to_string()).unwrap();
    let mut command = tokio::process::Command::new(tools.unwrap().unwrap().path("kubectl").unwrap());
    command.arg("--kubeconfig").arg(registry.namespace.cluster.plane.kubeconfig()).args(["apply", "--filename"]);
    let output = command.arg(file.path()).output().await.unwrap();
    assert!(output.status.success(), "{spec}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn logins_can_be_switched_off_and_on_again() {
    let Some(team) = namespace("switch-auth").await else { return };
    let _operator = team.operator().await;
    team.secret("alice-login", &[("password", "correct horse")]).await;
    let alice = json!({"auth": {"users": [{"name": "alice", "passwordSecretRef": {"name": "alice-login"}}]}});
    let registry = team.registry("team-a", alice.clone()).await.ready().await;
    registry.lets_in("alice", "correct horse").await;
    assert!(registry.admin().find().await.is_none(), "another user exists");

    let registry = registry.becomes(json!({"auth": {"none": {}}})).await;
    registry.htpasswd().disappears(PATIENCE).await;
    registry.child("Secret", "-pull").disappears(PATIENCE).await;
    assert!(!configuration(&registry).await.contains("htpasswd"));

    let registry = registry.becomes(alice.clone()).await;
    registry.lets_in("alice", "correct horse").await;
    assert!(configuration(&registry).await.contains("htpasswd"));

    let registry = registry.becomes(json!({})).await;
    let password = registry.admin().decoded("password").await;
    registry.lets_in("admin", &password).await;
    assert!(!registry.knows("alice", "correct horse").await);

    let registry = registry.becomes(alice).await;
    registry.admin().disappears(PATIENCE).await;
    assert!(!registry.knows("admin", &password).await);
    eventually(PATIENCE, "an event tells of it", async || {
        let events = team.events().await;
        if events.contains("AdminRemoved") { Ok(()) } else { Err(events) }
    })
    .await;
}

#[tokio::test]
async fn the_type_of_the_service_can_be_switched_all_the_way_round() {
    let Some(team) = namespace("switch-service").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let address = registry.service().at("/spec/clusterIP").await;

    // Of the part of the range that is never given at random.
    let registry = registry.becomes(json!({"service": {"type": "NodePort", "nodePort": 30077}})).await;
    assert_eq!(registry.service().at("/spec/ports/0/nodePort").await, 30077);

    let balanced = json!({"service": {"type": "LoadBalancer", "port": 443, "loadBalancerSourceRanges": ["192.0.2.0/24"], "loadBalancerClass": "example.com/ours"}});
    registry.apply(balanced).await.unwrap();
    // What serves goes on serving while the load balancer gets its address.
    let before = registry.ready().await.object.at("/status/certificate/serial").await;
    let registry = Registry::named(&team, "team-a");
    testbed::fake_kubelet::load_balancer(&team.client, &team.name, "team-a", "192.0.2.77").await.unwrap();
    let renewed =
        |live: &Value| live["status"]["address"] == "192.0.2.77" && live["status"]["certificate"]["serial"] != before;
    registry.object.becomes(PATIENCE, "has a certificate for the new address", renewed).await;
    let registry = registry.ready().await;

    let registry = registry.becomes(json!({})).await;
    let spec = registry.service().at("/spec").await;
    assert_eq!(
        (&spec["type"], &spec["ports"][0]["port"], &spec["clusterIP"]),
        (&json!("ClusterIP"), &json!(5000), &address)
    );
    assert!(
        spec["ports"][0]["nodePort"].is_null()
            && spec["loadBalancerSourceRanges"].is_null()
            && spec["loadBalancerClass"].is_null(),
        "{spec}"
    );
    assert_eq!(spec["ports"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_workload_follows_the_restart_policy_both_ways() {
    let Some(team) = namespace("switch-restart").await else { return };
    let _operator = team.operator().await;
    let policy = |kind: &str| json!({"restartPolicy": {"type": kind}});
    let registry = team.registry("team-a", json!({})).await.ready().await;

    let registry = registry.becomes(policy("OnFailure")).await;
    assert!(registry.deployment().find().await.is_none() && registry.child("Job", "").find().await.is_some());
    let registry = registry.becomes(policy("Never")).await;
    assert_eq!(registry.child("Job", "").at("/spec/template/spec/restartPolicy").await, "Never");
    let registry = registry.becomes(policy("UnlessStopped")).await;
    assert!(registry.deployment().find().await.is_some() && registry.child("Job", "").find().await.is_none());
}

#[tokio::test]
async fn replicas_bring_their_disruption_budget_and_take_it_along() {
    let Some(team) = namespace("switch-replicas").await else { return };
    let _operator = team.operator().await;
    let shared = json!({"persistentVolumeClaim": {"accessModes": ["ReadWriteMany"]}});
    let spec = |replicas: i64| json!({"replicas": replicas, "storage": shared});
    let registry = team.registry("team-a", spec(1)).await.ready().await;
    let budget = registry.child("PodDisruptionBudget", "");
    assert!(budget.find().await.is_none(), "one pod must not keep a node from being drained");

    let registry = registry.becomes(spec(3)).await;
    budget.appears(PATIENCE).await;
    let strategy = registry.deployment().at("/spec/strategy").await;
    assert_eq!(strategy, json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}));

    let _registry = registry.becomes(spec(1)).await;
    budget.disappears(PATIENCE).await;
}

#[tokio::test]
async fn a_claim_grows_and_a_class_that_cannot_is_told() {
    let Some(team) = namespace("growth").await else { return };
    let _operator = team.operator().await;
    let spec = |size: &str, class: &str| json!({"storage": {"persistentVolumeClaim": {"size": size, "storageClassName": class}}});
    let growing = team.registry("growing", spec("1Gi", "standard")).await.ready().await;
    let growing = growing.becomes(spec("2Gi", "standard")).await;
    growing.says("StorageReady", "True", "Bound").await;
    assert_eq!(growing.claim().at("/status/capacity/storage").await, "2Gi");
    assert_eq!(growing.object.at("/status/storage/capacity").await, "2Gi");

    let words = growing.apply(spec("1Gi", "standard")).await.unwrap_err().to_string();
    assert!(words.contains("status.storage.capacity"), "{words}");

    let fixed = team.registry("fixed", spec("1Gi", "fixed")).await.ready().await;
    fixed.apply(spec("2Gi", "fixed")).await.unwrap();
    let words = fixed.says("StorageReady", "False", "ClaimRefused").await;
    assert!(words.contains("fixed-data"), "{words}");
    assert_eq!(fixed.claim().at("/spec/resources/requests/storage").await, "1Gi");
    fixed.says("Available", "Unknown", "").await;
}

#[tokio::test]
async fn a_section_may_lose_its_last_field() {
    let Some(team) = namespace("switch-empty").await else { return };
    let _operator = team.operator().await;
    let full = json!({
        "storage": {"emptyDir": {"sizeLimit": "1Gi"}}, "tls": {"privateCA": {"duration": "90000h"}},
        "pod": {"securityContext": {"runAsUser": 1000}}, "config": {"uploadPurging": {"age": "48h"}},
    });
    let registry = team.registry("folder", full).await.ready().await;
    let empty = json!({
        "storage": {"emptyDir": {}}, "tls": {"privateCA": {}}, "pod": {"securityContext": {}}, "config": {"uploadPurging": {}},
    });
    let registry = registry.becomes(empty).await;
    assert_eq!(registry.object.at("/spec/storage").await, json!({"emptyDir": {}}));
    let context = registry.deployment().at("/spec/template/spec/securityContext").await;
    assert!(context["runAsUser"].is_null(), "{context}");

    let registry =
        team.registry("claim", json!({"storage": {"persistentVolumeClaim": {"size": "10Gi"}}})).await.ready().await;
    let registry = registry.becomes(json!({"storage": {"persistentVolumeClaim": {}}})).await;
    registry.becomes(json!({})).await;
}

#[tokio::test]
async fn what_is_no_longer_said_of_a_certificate_goes_whether_or_not_the_operator_saw_the_change() {
    let Some(team) = namespace("switch-own").await else { return };
    let mut operator = team.operator().await;
    let own = issue(&["registry.example.com"]);
    team.secret("own", &[("tls.crt", &own.certificate), ("tls.key", &own.key)]).await;
    for is_down in [true, false] {
        let name = if is_down { "unseen" } else { "seen" };
        let registry = team.registry(name, json!({})).await.ready().await;
        let issued = registry.tls().get().await;
        assert_ne!(issued["metadata"]["annotations"]["privateregistry.dev/issued"], Value::Null);
        assert_ne!(issued["data"]["ca.crt"], Value::Null);

        if is_down {
            operator.stop().await;
        }
        registry.apply(json!({"tls": {"secret": {"name": "own"}}})).await.unwrap();
        if is_down {
            operator = team.operator().await;
        }

        let chain = json!(STANDARD.encode(&own.certificate));
        let now = registry.tls().becomes(PATIENCE, "is the user's own", |live| live["data"]["tls.crt"] == chain).await;
        assert_eq!(now["metadata"]["annotations"]["privateregistry.dev/issued"], Value::Null, "{name}");
        assert_eq!(now["data"]["ca.crt"], Value::Null, "{name}");
    }
}

#[tokio::test]
async fn a_rollout_that_somebody_pauses_goes_on_and_a_renewed_certificate_is_served() {
    let Some(team) = namespace("paused-rollout").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    team.settles().await;
    let serial = registry.object.at("/status/certificate/serial").await;

    // What `kubectl rollout pause` does.
    registry.deployment().edit(json!({"spec": {"paused": true}})).await;
    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;

    let goes_on = |live: &Value| live["spec"]["paused"] != true;
    registry.deployment().becomes(within(5), "is not paused", goes_on).await;
    let is_renewed = |live: &Value| live["status"]["certificate"]["serial"] != serial;
    registry.object.becomes(PATIENCE, "has a new certificate", is_renewed).await;
    let rolled = |live: &Value| {
        live["status"]["observedGeneration"] == live["metadata"]["generation"] && live["status"]["updatedReplicas"] == 1
    };
    registry.deployment().becomes(PATIENCE, "has rolled", rolled).await;
    registry.ready().await;
}
