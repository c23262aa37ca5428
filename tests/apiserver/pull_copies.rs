//! Logins for pods of other namespaces: who gets one, who does not, and who takes them away again. A cluster of its own: this operator serves all of it.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::cluster::{namespace, namespace_of_its_own_cluster};
use crate::object::Object;
use crate::others::Others;
use crate::wait::{PATIENCE, always, eventually, within};

const ACCEPTS: &str = "privateregistry.dev/accept-pull-secrets-from";
const ACCEPTS_BUNDLES: &str = "privateregistry.dev/accept-bundles-from";
const COPY: &str = "lending.team-a-pull";
const LOGIN: &str = ".dockerconfigjson";

/// Everything but pods, which matter to nobody here.
fn spec(pulls: Value) -> Value {
    json!({
        "restartPolicy": {"type": "Never"}, "suspend": true, "addresses": ["registry.example.com"],
        "auth": {"usersFrom": [{"secretRef": {"name": "many"}}]}, "pullSecrets": pulls,
    })
}

/// The user `cluster` for these namespaces.
fn lent(selector: Value) -> Value {
    spec(json!([{"user": "cluster", "namespaces": {"selector": selector}}]))
}

#[tokio::test]
async fn namespaces_that_accept_it_have_the_login_and_nobody_else_has() {
    let Some(team) = namespace_of_its_own_cluster("lending").await else { return };
    let others = Others::new(&team, COPY);
    for (name, labels) in [
        ("apps", json!({ACCEPTS: "Any", "tier": "app"})),
        ("tools", json!({ACCEPTS: "lending"})),
        ("public", json!({ACCEPTS_BUNDLES: "Any", "tier": "app"})),
        ("strangers", json!({ACCEPTS: "others"})),
        ("silent", json!({})),
    ] {
        others.namespace(name, labels).await;
    }
    team.secret("many", &[("build", "may push all"), ("cluster", "pulls for pods")]).await;
    let operator = team.operator_of_the_cluster(&[]).await;
    let registry = team.registry("team-a", lent(json!({}))).await;
    others.are_exactly("Secret", &["apps", "tools"]).await;
    let words = registry.says("PullSecretsCopied", "True", "Written").await;
    assert_eq!(words, "2 of 2 namespaces have the login");
    assert_eq!(registry.object.at("/status/pullSecrets").await, json!({"wanted": 2, "copied": 2}));

    // What nodes read, for every address that means the same there.
    let copy = others.copy_in("apps", "Secret");
    assert_eq!(copy.at("/type").await, "kubernetes.io/dockerconfigjson");
    let login = copy.decoded(LOGIN).await;
    assert!(login.contains("pulls for pods") && !login.contains("may push all"), "{login}");
    for host in ["registry.example.com", "team-a.lending:5000", "team-a.lending.svc:5000"] {
        assert!(login.contains(&format!("\"{host}\":")), "{host}: {login}");
    }
    let short = "\"team-a:5000\":";
    assert!(!login.contains(short), "the Service of that namespace may be another one: {login}");
    assert!(registry.child("Secret", "-pull").decoded(LOGIN).await.contains(short));

    // A namespace that comes, one that asks for it, one that wants it no more: within a second.
    others.namespace("late", json!({ACCEPTS: "lending", "tier": "app"})).await;
    others.copy_in("late", "Secret").appears(within(5)).await;
    others.label("silent", json!({ACCEPTS: "Any"})).await;
    others.copy_in("silent", "Secret").appears(within(5)).await;
    others.label("silent", json!({ACCEPTS: null})).await;
    others.copy_in("silent", "Secret").disappears(within(5)).await;

    // By labels, and the first entry that selects a namespace counts there; and back.
    let app = json!({"matchLabels": {"tier": "app"}});
    let two = json!([
        {"name": "for-builds", "user": "build", "namespaces": {"selector": app}},
        {"user": "cluster", "namespaces": {"selector": {}}},
    ]);
    registry.apply(spec(two)).await.unwrap();
    copy.becomes(PATIENCE, "is the login of builds", |live| decoded(live).contains("may push all")).await;
    registry.says("PullSecretsCopied", "True", "Written").await;
    assert!(others.copy_in("tools", "Secret").decoded(LOGIN).await.contains("pulls for pods"));
    registry.apply(lent(app)).await.unwrap();
    others.are_exactly("Secret", &["apps", "late"]).await;
    registry.apply(lent(json!({}))).await.unwrap();
    others.are_exactly("Secret", &["apps", "late", "tools"]).await;

    // What somebody edits or deletes there is put right, and a copy follows the password.
    copy.edit(json!({"data": {LOGIN: "eyJhdXRocyI6e319"}})).await;
    copy.becomes(within(5), "is the login again", |live| decoded(live).contains("pulls for pods")).await;
    others.copy_in("tools", "Secret").delete().await;
    others.copy_in("tools", "Secret").appears(within(5)).await;
    team.secret("many", &[("build", "may push all"), ("cluster", "another one")]).await;
    copy.becomes(within(10), "is the new login", |live| decoded(live).contains("another one")).await;

    // What cannot be read takes nothing away; who cannot log in is given to nobody.
    registry.apply(lent(json!({"matchExpressions": [{"key": "tier", "operator": "Like"}]}))).await.unwrap();
    let words = registry.says("PullSecretsCopied", "False", "InvalidManifest").await;
    assert!(words.contains("spec.pullSecrets[].namespaces.selector"), "{words}");
    registry.says("Ready", "False", "InvalidManifest").await;
    always(within(2), "the copies stay", async || {
        let places = others.places("Secret").await;
        if places.len() == 3 { Ok(()) } else { Err(format!("{places:?}")) }
    })
    .await;
    let nobody = json!([{"user": "nobody", "namespaces": {"selector": {}}}]);
    registry.apply(spec(nobody)).await.unwrap();
    let words = registry.says("PullSecretsCopied", "False", "PullUserUnknown").await;
    assert!(words.contains("user nobody"), "{words}");
    others.are_exactly("Secret", &[]).await;
    registry.apply(lent(json!({}))).await.unwrap();
    others.are_exactly("Secret", &["apps", "late", "tools"]).await;
    registry.says("Ready", "True", "Suspended").await;

    // A quiet operator asks for nothing; and after a restart the copies are known.
    operator.stop().await;
    others.label("tools", json!({ACCEPTS: null})).await;
    let operator = team.operator_of_the_cluster(&[]).await;
    others.are_exactly("Secret", &["apps", "late"]).await;
    operator.stop().await;
    registry.apply(spec(json!([{"user": "cluster"}]))).await.unwrap();
    let operator = team.operator_of_the_cluster(&[]).await;
    others.are_exactly("Secret", &[]).await;
    registry.object.becomes(PATIENCE, "says nothing of it", |live| live["status"]["pullSecrets"].is_null()).await;
    registry.apply(lent(json!({}))).await.unwrap();
    others.are_exactly("Secret", &["apps", "late"]).await;

    // The registry goes while the operator is down: it waits for it, and no login is left.
    operator.stop().await;
    registry.object.delete().await;
    registry.object.survives_deletion(within(1)).await;
    let _operator = team.operator_of_the_cluster(&[]).await;
    registry.object.disappears(PATIENCE).await;
    others.are_exactly("Secret", &[]).await;
}

fn decoded(live: &Value) -> String {
    use base64::Engine as _;
    let text = live["data"][LOGIN].as_str().unwrap_or_default();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn a_secret_that_somebody_else_made_is_never_touched_and_keeps_no_other_out() {
    let Some(team) = namespace_of_its_own_cluster("lending").await else { return };
    let others = Others::new(&team, COPY);
    for name in ["apps", "full", "hostile"] {
        others.namespace(name, json!({ACCEPTS: "Any"})).await;
    }
    let theirs =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": COPY}, "stringData": {"key": "theirs"}});
    others.create("hostile", theirs).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"count/secrets": "0"}}});
    others.create("full", quota).await;
    team.secret("many", &[("cluster", "pulls for pods")]).await;

    let operator = team.operator_of_the_cluster(&["--log-level", "trace"]).await;
    let registry = team.registry("team-a", lent(json!({}))).await;
    let words = registry.says("PullSecretsCopied", "False", "NotAllWritten").await;
    assert!(words.starts_with("1 of 3 namespaces; "), "{words}");
    assert!(
        words.contains("hostile: Secret hostile/lending.team-a-pull exists and belongs to somebody else"),
        "{words}"
    );
    assert!(words.contains("full: "), "{words}");
    others.are_exactly("Secret", &["apps", "hostile"]).await;
    assert_eq!(others.copy_in("hostile", "Secret").decoded("key").await, "theirs");
    registry.says("Ready", "True", "Suspended").await;
    registry.says("UsersReady", "True", "Written").await;

    // Labels that say it is a child of the registry make it none, whatever its name is.
    let forged = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "lending.team-b-pull", "labels": {
            "privateregistry.dev/registry": "team-a", "privateregistry.dev/registry-namespace": "lending",
            "app.kubernetes.io/managed-by": "private-registry-operator",
        }},
    });
    others.create("hostile", forged).await;

    // It is gone with its entry, and what is not ours is not.
    registry.apply(spec(json!([{"user": "cluster"}]))).await.unwrap();
    others.are_exactly("Secret", &["hostile"]).await;
    registry.apply(lent(json!({}))).await.unwrap();
    others.are_exactly("Secret", &["apps", "hostile"]).await;
    registry.delete().await;
    others.are_exactly("Secret", &["hostile"]).await;
    assert_eq!(others.copy_in("hostile", "Secret").decoded("key").await, "theirs");
    let forged = Object::new(team.client.clone(), "hostile", "Secret", "lending.team-b-pull");
    assert!(forged.find().await.is_some());
    let log = operator.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log was loud");
    assert!(
        !log.contains("pulls for pods") && !log.contains("Y2x1c3RlcjpwdWxscyBmb3IgcG9kcw"),
        "nor cluster:PASSWORD in base64"
    );
}

#[tokio::test]
async fn an_operator_of_single_namespaces_says_that_it_cannot_copy_logins() {
    let Some(team) = namespace("lending-scope").await else { return };
    let _operator = team.operator().await;
    team.secret("many", &[("cluster", "pulls for pods")]).await;
    let registry = team.registry("team-a", lent(json!({}))).await;
    let words = registry.says("PullSecretsCopied", "False", "NeedsClusterScope").await;
    assert!(words.contains("install it for the whole cluster"), "{words}");
    registry.says("Ready", "True", "Suspended").await;
    assert!(registry.child("Secret", "-pull").decoded(LOGIN).await.contains("pulls for pods"));
    registry.delete().await;
}

#[tokio::test]
async fn a_namespace_of_which_no_request_ends_keeps_no_other_from_its_bundle_and_its_login() {
    let Some(team) = namespace_of_its_own_cluster("lending").await else { return };
    let others = Others::new(&team, COPY);
    let both = |slow: &str| json!({ACCEPTS: "Any", ACCEPTS_BUNDLES: "Any", "slow": slow});
    others.namespace("aaa", both("true")).await;
    others.namespace("zzz", both("false")).await;
    // Somebody's webhook takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "silent"},
        "webhooks": [{
            "name": "silent.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 10,
            "clientConfig": {"url": format!("https://{}/", silent.local_addr().unwrap())},
            "namespaceSelector": {"matchLabels": {"slow": "true"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps", "secrets"]}],
        }],
    });
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(team.client.clone());
    hooks.create(&PostParams::default(), &serde_json::from_value(hook).unwrap()).await.unwrap();
    team.secret("many", &[("cluster", "pulls for pods")]).await;

    let _operator = team.operator_of_the_cluster(&[]).await;
    let mut spec = lent(json!({}));
    spec["trust"] = json!({"namespaces": {}});
    let registry = team.registry("team-a", spec).await;
    // Two objects that each take a whole pass come before these two.
    others.copy_in("zzz", "Secret").appears(within(120)).await;
    let bundle = Object::new(team.client.clone(), "zzz", "ConfigMap", "lending.team-a-ca-bundle");
    bundle.appears(within(60)).await;
    eventually(within(120), "the slow one is named", async || {
        let words = registry.condition("PullSecretsCopied").await["message"].as_str().unwrap_or_default().to_owned();
        if words.starts_with("1 of 2 namespaces") && words.contains("aaa: ") { Ok(()) } else { Err(words) }
    })
    .await;
}
