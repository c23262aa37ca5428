//! Broken input gives its condition, with words that say what to do, and leaves other registries alone.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace};
use crate::given::issue;
use crate::registry::Registry;
use crate::wait::{GARBAGE, PATIENCE};

/// A registry that is well, and stays so.
struct Neighbour<'a> {
    registry: Registry<'a>,
    before: Vec<Value>,
}

impl Namespace {
    async fn neighbour(&self) -> Neighbour<'_> {
        let registry = self.registry("neighbour", json!({})).await.ready().await;
        self.settles().await;
        let before = Neighbour::look(&registry).await;
        Neighbour { registry, before }
    }
}

impl Neighbour<'_> {
    async fn look(registry: &Registry<'_>) -> Vec<Value> {
        let mut versions = vec![registry.object.at("/metadata/resourceVersion").await];
        for child in registry.children().await {
            versions.push(child.at("/metadata/resourceVersion").await);
        }
        versions
    }

    async fn is_untouched(self) {
        assert_eq!(Self::look(&self.registry).await, self.before, "the neighbour was touched");
    }
}

fn users(name: &str, secret: &str) -> Value {
    json!({"auth": {"users": [{"name": name, "passwordSecretRef": {"name": secret}}]}})
}

fn own_tls(secret: &str) -> Value {
    json!({"tls": {"secret": {"name": secret}}})
}

fn existing(claim: &str) -> Value {
    json!({"storage": {"existingClaim": {"name": claim}}})
}

#[tokio::test]
async fn each_sort_of_broken_input_has_its_condition_and_the_neighbour_stays_well() {
    let Some(team) = namespace("broken").await else { return };
    let _operator = team.operator().await;
    let neighbour = team.neighbour().await;
    team.secret("no-key", &[("other", "correct horse")]).await;
    team.secret("empty", &[("password", "")]).await;
    team.secret("short", &[("password", "1234567")]).await;
    team.secret("long", &[("password", &"x".repeat(73))]).await;
    team.secret("newline", &[("password", "correct horse\n")]).await;
    team.secret("broken-pem", &[("tls.crt", "-----BEGIN CERTIFICATE-----\nnonsense"), ("tls.key", "nonsense")]).await;
    let (one, other) = (issue(&["a.example.com"]), issue(&["a.example.com"]));
    team.secret("wrong-key", &[("tls.crt", &one.certificate), ("tls.key", &other.key), ("ca.crt", &one.authority)])
        .await;

    // name, spec, condition, reason, whether only the user can help, words of the message
    let cases: [(&str, Value, &str, &str, bool, &str); 14] = [
        (
            "no-secret",
            users("alice", "absent"),
            "UsersReady",
            "WaitingForSecret",
            false,
            "Secret absent does not exist; create it",
        ),
        (
            "no-key",
            users("alice", "no-key"),
            "UsersReady",
            "WaitingForSecret",
            false,
            "Secret no-key has no key password",
        ),
        (
            "no-users",
            json!({"auth": {"usersFrom": [{"secretRef": {"name": "absent"}}]}}),
            "UsersReady",
            "WaitingForSecret",
            false,
            "Secret absent",
        ),
        ("empty", users("alice", "empty"), "UsersReady", "PasswordEmpty", true, "alice"),
        ("short", users("alice", "short"), "UsersReady", "PasswordTooShort", true, "alice"),
        ("long", users("alice", "long"), "UsersReady", "PasswordTooLong", true, "72"),
        ("newline", users("alice", "newline"), "UsersReady", "PasswordTrailingNewline", true, "alice"),
        ("no-tls", own_tls("absent"), "CertificateReady", "WaitingForSecret", false, "Secret absent"),
        ("broken-pem", own_tls("broken-pem"), "CertificateReady", "CertificateUnreadable", true, "Secret broken-pem"),
        ("wrong-key", own_tls("wrong-key"), "CertificateReady", "KeyMismatch", true, "Secret wrong-key"),
        ("no-claim", existing("absent"), "Ready", "WaitingForClaim", false, "PersistentVolumeClaim absent"),
        ("its-claim", existing("neighbour-data"), "Ready", "ClaimShared", true, "PrivateRegistry neighbour"),
        (
            "no-class",
            json!({"storage": {"persistentVolumeClaim": {"storageClassName": "absent"}}}),
            "StorageReady",
            "Pending",
            false,
            "kubectl describe pvc no-class-data",
        ),
        ("extra", json!({"extraConfig": {"storge": {}}}), "Ready", "InvalidManifest", true, "storge"),
    ];
    for (name, spec, ..) in &cases {
        team.registry(name, spec.clone()).await;
    }
    for (name, _, condition, reason, only_the_user, words) in cases {
        let registry = Registry::named(&team, name);
        let message = registry.says(condition, "False", reason).await;
        assert!(message.contains(words), "{name}: {message}");
        registry.says("Ready", "False", "").await;
        let (stalled, reconciling) = if only_the_user { ("True", "False") } else { ("False", "True") };
        registry.says("Stalled", stalled, "").await;
        registry.says("Reconciling", reconciling, "").await;
    }
    neighbour.is_untouched().await;
}

#[tokio::test]
async fn what_the_api_server_refuses_is_told_with_the_field_of_the_manifest() {
    let Some(team) = namespace("refused").await else { return };
    let _operator = team.operator().await;
    // Of the part of the range that is never given at random.
    let port = json!({"service": {"type": "NodePort", "nodePort": 30078}});
    let first = team.registry("first", port.clone()).await.ready().await;
    let second = team.registry("second", port).await;
    let greedy = json!({"pod": {"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}});
    let greedy = team.registry("greedy", greedy).await;

    for (registry, theirs, ours) in [
        (&second, "provided port is already allocated", "correct spec.service.nodePort in the registry's manifest"),
        (
            &greedy,
            "must be less than or equal to memory limit",
            "correct spec.pod.resources in the registry's manifest",
        ),
    ] {
        let message = registry.says("Stalled", "True", "Refused").await;
        assert!(message.contains(theirs) && message.contains(ours), "{message}");
    }
    first.delete().await;
    greedy.apply(json!({})).await.unwrap();
    greedy.ready().await;
    // No event tells that a port is free: it is tried again each minute.
    second.says_within(Duration::from_secs(90), "Ready", "True", "").await;
}

#[tokio::test]
async fn what_is_missing_may_arrive_later() {
    let Some(team) = namespace("late").await else { return };
    let _operator = team.operator().await;
    let alice = team.registry("users", users("alice", "alice-login")).await;
    let tls = team.registry("tls", own_tls("certificate")).await;
    let claim = team.registry("claim", existing("volume")).await;
    alice.says("UsersReady", "False", "WaitingForSecret").await;
    tls.says("CertificateReady", "False", "WaitingForSecret").await;
    claim.says("Ready", "False", "WaitingForClaim").await;
    for registry in [&alice, &tls, &claim] {
        assert!(registry.object.at("/status/waitingSince").await.is_string(), "{}", registry.name);
    }

    team.secret("alice-login", &[("password", "correct horse")]).await;
    team.own_certificate("certificate", &["registry.example.com"]).await;
    team.claim("volume", "ReadWriteOnce").await;

    let (alice, tls, claim) = (alice.ready().await, tls.ready().await, claim.ready().await);
    for registry in [&alice, &tls, &claim] {
        assert!(registry.object.at("/status/waitingSince").await.is_null(), "{}", registry.name);
    }
    alice.lets_in("alice", "correct horse").await;
    tls.says("CertificateReady", "True", "Valid").await;
    claim.says("StorageReady", "True", "Bound").await;
}

#[tokio::test]
async fn a_password_that_is_corrected_counts_and_a_removed_user_ends() {
    let Some(team) = namespace("passwords").await else { return };
    let _operator = team.operator().await;
    team.secret("alice-login", &[("password", "short")]).await;
    team.secret("bob-login", &[("password", "battery staple")]).await;
    let both = json!({"auth": {"users": [
        {"name": "alice", "passwordSecretRef": {"name": "alice-login"}}, {"name": "bob", "passwordSecretRef": {"name": "bob-login"}},
    ]}});
    let registry = team.registry("team-a", both).await;
    registry.says("UsersReady", "False", "PasswordTooShort").await;
    registry.lets_in("bob", "battery staple").await;

    team.secret("alice-login", &[("password", "correct horse")]).await;
    registry.says("UsersReady", "True", "Written").await;
    registry.lets_in("alice", "correct horse").await;

    registry.apply(users("alice", "alice-login")).await.unwrap();
    registry.says("UsersReady", "True", "Written").await;
    assert!(!registry.knows("bob", "battery staple").await);
    registry.ready().await;
}

#[tokio::test]
async fn a_new_certificate_that_lacks_an_address_is_not_served_and_the_good_one_goes_on() {
    let Some(team) = namespace("own-lacking").await else { return };
    let _operator = team.operator().await;
    team.own_certificate("certificate", &["registry.example.com", "192.0.2.1"]).await;
    let mut spec = own_tls("certificate");
    spec["addresses"] = json!(["registry.example.com", "192.0.2.1:30500"]);
    let registry = team.registry("team-a", spec).await.ready().await;
    let served = registry.tls().at("/data").await;

    team.own_certificate("certificate", &["registry.example.com"]).await;

    let message = registry.says("CertificateReady", "False", "NamesMissing").await;
    assert!(message.contains("192.0.2.1") && message.contains("still served"), "{message}");
    assert_eq!(registry.tls().at("/data").await, served);
}

#[tokio::test]
async fn a_broken_new_certificate_is_not_served_and_the_good_one_goes_on() {
    let Some(team) = namespace("own-broken").await else { return };
    let _operator = team.operator().await;
    team.own_certificate("certificate", &["registry.example.com"]).await;
    let registry = team.registry("team-a", own_tls("certificate")).await.ready().await;
    let served = registry.tls().at("/data").await;

    let (one, other) = (issue(&["registry.example.com"]), issue(&["registry.example.com"]));
    team.secret("certificate", &[("tls.crt", &one.certificate), ("tls.key", &other.key), ("ca.crt", &one.authority)])
        .await;

    let message = registry.says("CertificateReady", "False", "KeyMismatch").await;
    assert!(message.contains("still served"), "{message}");
    assert_eq!(registry.tls().at("/data").await, served);

    team.secret("certificate", &[("tls.crt", &one.certificate), ("tls.key", &one.key), ("ca.crt", &one.authority)])
        .await;
    registry.says("CertificateReady", "True", "Valid").await;
    assert_eq!(registry.tls().decoded("tls.crt").await.trim(), one.certificate.trim());
    assert_eq!(registry.bundle().at("/data/ca.crt").await.as_str().unwrap().trim(), one.authority.trim());
}

#[tokio::test]
async fn of_two_registries_on_one_claim_the_older_has_it() {
    let Some(team) = namespace("shared-claim").await else { return };
    let operator = team.operator().await;
    team.claim("volume", "ReadWriteMany").await;
    let older = team.registry("older", existing("volume")).await.ready().await;
    // Creation times have whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let newer = team.registry("newer", existing("volume")).await;

    let message = newer.says("Stalled", "True", "ClaimShared").await;
    assert!(message.contains("PersistentVolumeClaim volume") && message.contains("PrivateRegistry older"), "{message}");
    assert!(newer.deployment().find().await.is_none());

    // A new process comes to the newer one first, by name.
    operator.stop().await;
    let operator = team.operator().await;
    operator.has_made(2.0).await;
    assert!(newer.deployment().find().await.is_none());

    let pods = older.deployment();
    older.delete().await;
    pods.disappears(GARBAGE).await;
    newer.ready().await;
}

/// Creation times have whole seconds: of two in one second the name decides, which may be known only when the other one has started.
#[tokio::test]
async fn of_two_registries_of_one_second_only_one_runs_on_the_claim() {
    let Some(team) = namespace("same-second").await else { return };
    let _operator = team.operator().await;
    for attempt in 0..20 {
        let claim = format!("volume-{attempt}");
        team.claim(&claim, "ReadWriteOnce").await;
        let later = team.registry(&format!("b-{attempt}"), existing(&claim)).await;
        later.service().appears(PATIENCE).await;
        let first = team.registry(&format!("a-{attempt}"), existing(&claim)).await;
        let created = "/metadata/creationTimestamp";
        if later.object.at(created).await == first.object.at(created).await {
            first.ready().await;
            later.says("Stalled", "True", "ClaimShared").await;
            later.says("Available", "False", "NotRunning").await;
            later.deployment().disappears(PATIENCE).await;
            return;
        }
    }
    panic!("no two registries were made in one second");
}

#[tokio::test]
async fn a_registry_made_again_does_not_take_its_claim_from_the_one_that_runs_on_it() {
    let Some(team) = namespace("claim-back").await else { return };
    let _operator = team.operator().await;
    let bar = team.registry("bar", json!({})).await.ready().await;
    bar.delete().await;
    bar.deployment().disappears(GARBAGE).await;
    let foo = team.registry("foo", existing("bar-data")).await.ready().await;
    team.settles().await;
    let (claim, runs) = (bar.claim().uid().await, foo.deployment().at("/metadata/resourceVersion").await);
    // Creation times have whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;

    let bar = team.registry("bar", json!({})).await;

    let message = bar.says("Stalled", "True", "ClaimShared").await;
    assert!(message.contains("PersistentVolumeClaim bar-data") && message.contains("PrivateRegistry foo"), "{message}");
    team.settles().await;
    assert!(bar.deployment().find().await.is_none());
    assert_eq!(foo.deployment().at("/metadata/resourceVersion").await, runs);
    let foo = foo.ready().await;
    foo.delete().await;
    let bar = bar.ready().await;
    assert_eq!(bar.claim().uid().await, claim);
}

#[tokio::test]
async fn a_claim_named_after_a_registry_that_keeps_its_images_elsewhere_is_free() {
    let Some(team) = namespace("claim-free").await else { return };
    let _operator = team.operator().await;
    team.claim("bar-data", "ReadWriteOnce").await;
    team.registry("bar", json!({"storage": {"emptyDir": {}}})).await.ready().await;
    team.registry("foo", existing("bar-data")).await.ready().await;
}

#[tokio::test]
async fn an_existing_claim_is_never_written() {
    let Some(team) = namespace("given-claim").await else { return };
    let _operator = team.operator().await;
    let volume = team.claim("volume", "ReadWriteOnce").await;
    let before = volume.get().await;
    let registry = team
        .registry("team-a", json!({"storage": {"existingClaim": {"name": "volume"}}, "deletionPolicy": "Delete"}))
        .await;
    let registry = registry.ready().await;
    team.settles().await;

    registry.delete().await;
    registry.deployment().disappears(GARBAGE).await;

    let after = volume.get().await;
    assert_eq!(
        (&after["metadata"]["uid"], &after["metadata"]["labels"], &after["spec"]),
        (&before["metadata"]["uid"], &before["metadata"]["labels"], &before["spec"])
    );
    assert!(after["metadata"]["ownerReferences"].is_null() && after["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test]
async fn a_colon_cannot_come_into_a_users_name() {
    let Some(team) = namespace("colon").await else { return };
    let refusal = Registry::named(&team, "team-a").apply(users("a:b", "s")).await.unwrap_err().to_string();
    assert!(refusal.contains("spec.auth.users[0].name"), "{refusal}");
    // Nor by a Secret with many users: the API server allows no such key.
    let api: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::namespaced(team.client.clone(), &team.name);
    let secret =
        serde_json::from_value(json!({"metadata": {"name": "many"}, "stringData": {"a:b": "correct horse"}})).unwrap();
    let refusal = api.create(&kube::api::PostParams::default(), &secret).await.unwrap_err().to_string();
    assert!(refusal.contains("a:b"), "{refusal}");
}
