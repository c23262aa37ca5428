//! Copies of the bundle in other namespaces: who gets one, who does not, and who takes them away again. A cluster of its own: this operator serves all of it.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace_of_its_own_cluster};
use crate::object::Object;
use crate::others::Others;
use crate::registry::Registry;
use crate::wait::{PATIENCE, always, eventually, within};

const ACCEPTS: &str = "privateregistry.dev/accept-bundles-from";
const COPY: &str = "trust.team-a-ca-bundle";

/// Everything but pods, which matter to nobody here.
fn spec(trust: Value) -> Value {
    json!({"restartPolicy": {"type": "Never"}, "suspend": true, "trust": trust})
}

async fn published(registry: &Registry<'_>) -> Value {
    registry.bundle().at("/data/ca.crt").await
}

#[tokio::test]
async fn namespaces_that_accept_it_have_the_bundle_and_nobody_else_has() {
    let Some(team) = namespace_of_its_own_cluster("trust").await else { return };
    let cluster = Others::new(&team, COPY);
    for (name, labels) in [
        ("apps", json!({ACCEPTS: "Any", "tier": "app"})),
        ("tools", json!({ACCEPTS: "trust"})),
        ("strangers", json!({ACCEPTS: "others"})),
        ("silent", json!({})),
    ] {
        cluster.namespace(name, labels).await;
    }
    let operator = team.operator_of_the_cluster(&[]).await;
    let registry = team.registry("team-a", spec(json!({"namespaces": {}}))).await;
    registry.bundle().appears(PATIENCE).await;
    cluster.are_exactly("ConfigMap", &["apps", "tools"]).await;
    let words = registry.says("NamespacesTrusted", "True", "Told").await;
    assert_eq!(words, "2 of 2 namespaces have the bundle");
    assert_eq!(cluster.copy_in("apps", "ConfigMap").at("/data/ca.crt").await, published(&registry).await);
    assert_eq!(registry.object.at("/status/trust").await, json!({"namespaces": {"wanted": 2, "trusting": 2}}));

    // A namespace that comes, one that asks for it, one that wants it no more: within a second.
    cluster.namespace("late", json!({ACCEPTS: "trust", "tier": "app"})).await;
    cluster.copy_in("late", "ConfigMap").appears(within(5)).await;
    cluster.label("silent", json!({ACCEPTS: "Any"})).await;
    cluster.copy_in("silent", "ConfigMap").appears(within(5)).await;
    cluster.label("silent", json!({ACCEPTS: null})).await;
    cluster.copy_in("silent", "ConfigMap").disappears(within(5)).await;

    // By labels, and as a Secret: and back.
    let chosen = json!({"namespaces": {"selector": {"matchLabels": {"tier": "app"}}, "kinds": ["Secret"]}});
    registry.apply(spec(chosen)).await.unwrap();
    cluster.are_exactly("Secret", &["apps", "late"]).await;
    cluster.are_exactly("ConfigMap", &[]).await;
    assert_eq!(json!(cluster.copy_in("apps", "Secret").decoded("ca.crt").await), published(&registry).await);
    registry.apply(spec(json!({"namespaces": {}}))).await.unwrap();
    cluster.are_exactly("ConfigMap", &["apps", "late", "tools"]).await;
    cluster.are_exactly("Secret", &[]).await;

    // What somebody edits or deletes there is put right.
    cluster.copy_in("apps", "ConfigMap").edit(json!({"data": {"ca.crt": "planted"}})).await;
    let bundle = published(&registry).await;
    cluster
        .copy_in("apps", "ConfigMap")
        .becomes(within(5), "is the bundle again", |live| live["data"]["ca.crt"] == bundle)
        .await;
    cluster.copy_in("tools", "ConfigMap").delete().await;
    cluster.copy_in("tools", "ConfigMap").appears(within(5)).await;

    // A copy follows the bundle, and a wrong selector takes nothing away.
    registry.object.annotate("privateregistry.dev/renew", "ca-now-1").await;
    registry.bundle().becomes(PATIENCE, "is another one", |live| live["data"]["ca.crt"] != bundle).await;
    let bundle = published(&registry).await;
    cluster
        .copy_in("apps", "ConfigMap")
        .becomes(within(10), "is the new bundle", |live| live["data"]["ca.crt"] == bundle)
        .await;
    let wrong = json!({"namespaces": {"selector": {"matchExpressions": [{"key": "tier", "operator": "Like"}]}}});
    registry.apply(spec(wrong)).await.unwrap();
    let words = registry.says("NamespacesTrusted", "False", "InvalidManifest").await;
    assert!(words.contains("spec.trust.namespaces.selector"), "{words}");
    registry.says("Ready", "False", "InvalidManifest").await;
    always(within(2), "the copies stay", async || {
        let places = cluster.places("ConfigMap").await;
        if places.len() == 3 { Ok(()) } else { Err(format!("{places:?}")) }
    })
    .await;
    registry.apply(spec(json!({"namespaces": {}}))).await.unwrap();
    registry.says("NamespacesTrusted", "True", "Told").await;

    // A quiet pass asks for nothing; and after a restart the copies are known.
    operator.stop().await;
    cluster.label("tools", json!({ACCEPTS: null})).await;
    let operator = team.operator_of_the_cluster(&[]).await;
    cluster.are_exactly("ConfigMap", &["apps", "late"]).await;

    // The registry goes while the operator is down: it waits for it, and no copy is left.
    operator.stop().await;
    registry.object.delete().await;
    registry.object.survives_deletion(within(1)).await;
    let _operator = team.operator_of_the_cluster(&[]).await;
    registry.object.disappears(PATIENCE).await;
    cluster.are_exactly("ConfigMap", &[]).await;
}

#[tokio::test]
async fn what_others_do_in_their_namespaces_harms_no_registry() {
    let Some(team) = namespace_of_its_own_cluster("trust").await else { return };
    let cluster = Others::new(&team, COPY);
    for name in ["apps", "full", "leaving", "hostile"] {
        cluster.namespace(name, json!({ACCEPTS: "Any"})).await;
    }
    // Somebody has an object of that name; somebody allows none; somebody's namespace is on its way out.
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": COPY, "namespace": "hostile"}, "data": {"ca.crt": "theirs"}});
    let api = |namespace: &str, kind: &str| -> Api<DynamicObject> {
        Api::namespaced_with(team.client.clone(), namespace, &crate::object::resource(kind))
    };
    let create = async |namespace: &str, object: Value| {
        let kind = object["kind"].as_str().unwrap().to_owned();
        api(namespace, &kind).create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    };
    create("hostile", theirs).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"count/configmaps": "0"}}});
    create("full", quota).await;
    let holder = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "holder", "finalizers": ["example.com/held"]}});
    create("leaving", holder).await;
    cluster.namespaces().delete("leaving", &DeleteParams::default()).await.unwrap();

    let _operator = team.operator_of_the_cluster(&[]).await;
    let registry = team.registry("team-a", spec(json!({"namespaces": {}}))).await;
    let words = registry.says("NamespacesTrusted", "False", "NotAllTold").await;
    assert!(words.starts_with("1 of 3 namespaces; "), "{words}");
    assert!(
        words.contains("hostile: ConfigMap hostile/trust.team-a-ca-bundle exists and belongs to somebody else"),
        "{words}"
    );
    assert!(words.contains("full: "), "{words}");
    cluster.are_exactly("ConfigMap", &["apps", "hostile"]).await;
    assert_eq!(cluster.copy_in("hostile", "ConfigMap").at("/data/ca.crt").await, json!("theirs"));
    registry.says("Ready", "True", "Suspended").await;

    // Labels that say it is a child of the registry make it none, whatever its name is.
    let forged = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {
                "privateregistry.dev/registry": "team-a", "privateregistry.dev/registry-namespace": "trust",
                "app.kubernetes.io/managed-by": "private-registry-operator",
            }},
        })
    };
    create("hostile", forged("forged")).await;
    create("hostile", forged("team-a-ca-bundle")).await;
    // A namesake in a namespace that has a copy loses and takes nothing.
    let namesake = Object::new(team.client.clone(), "apps", "PrivateRegistry", "team-a");
    let manifest = json!({
        "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": "team-a"}, "spec": spec(Value::Null),
    });
    create("apps", manifest).await;
    namesake.becomes(PATIENCE, "has a bundle", |live| !live["status"]["certificate"].is_null()).await;
    namesake.delete().await;
    namesake.disappears(PATIENCE).await;
    cluster.copy_in("apps", "ConfigMap").survives(within(2)).await;

    // Nor do they make somebody else's registry wait when it goes.
    let victim = team.registry("victim", spec(Value::Null)).await;
    let mut copy = forged("trust.victim-ca-bundle");
    copy["metadata"]["labels"]["privateregistry.dev/registry"] = json!("victim");
    create("hostile", copy).await;
    victim.says("Ready", "True", "Suspended").await;
    victim.object.annotate("example.com/nudge", "1").await;
    always(within(1), "it has no finalizer", async || {
        let finalizers = victim.object.at("/metadata/finalizers").await;
        if finalizers.is_null() { Ok(()) } else { Err(finalizers.to_string()) }
    })
    .await;
    victim.delete().await;

    // Whatever was in the way goes, and the copy comes.
    cluster.copy_in("hostile", "ConfigMap").annotate("privateregistry.dev/adopt", "true").await;
    api("full", "ResourceQuota").delete("none", &DeleteParams::default()).await.unwrap();
    registry.object.annotate("example.com/nudge", "1").await;
    registry.apply(spec(json!({"namespaces": {"kinds": ["ConfigMap"]}}))).await.unwrap();
    let words = registry.says("NamespacesTrusted", "True", "Told").await;
    assert_eq!(words, "3 of 3 namespaces have the bundle");
    registry.delete().await;
    cluster.are_exactly("ConfigMap", &[]).await;
    assert!(Object::new(team.client.clone(), "hostile", "ConfigMap", "forged").find().await.is_some());
}

/// The object that pods of every namespace mount.
struct ClusterBundle(Api<DynamicObject>);

impl ClusterBundle {
    const NAME: &str = "privateregistry.dev:registry:trust.team-a";

    fn new(team: &Namespace) -> Self {
        Self(Api::all_with(team.client.clone(), &crate::object::resource("ClusterTrustBundle")))
    }

    /// What it holds; `None`: it is not there.
    async fn content(&self) -> Option<Value> {
        self.0.get_opt(Self::NAME).await.unwrap().map(|found| found.data["spec"]["trustBundle"].clone())
    }

    async fn is(&self, expected: Option<&Value>) {
        eventually(PATIENCE, "the ClusterTrustBundle is as expected", async || {
            let content = self.content().await;
            if content.as_ref() == expected { Ok(()) } else { Err(format!("{content:?} instead of {expected:?}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn pods_of_every_namespace_can_mount_the_bundle_without_a_copy() {
    let Some(team) = namespace_of_its_own_cluster("trust").await else { return };
    let cluster_bundle = ClusterBundle::new(&team);
    // Somebody has an object of that name.
    let theirs = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle", "metadata": {"name": ClusterBundle::NAME},
        "spec": {"signerName": "privateregistry.dev/registry", "trustBundle": crate::given::issue(&["a.example"]).authority}});
    cluster_bundle.0.create(&PostParams::default(), &serde_json::from_value(theirs.clone()).unwrap()).await.unwrap();
    let operator = team.operator_of_the_cluster(&[]).await;
    let registry = team.registry("team-a", spec(json!({"clusterTrustBundle": {}}))).await;
    let words = registry.says("ClusterTrusted", "False", "NotOurs").await;
    let object = format!("ClusterTrustBundle {} exists and belongs to somebody else", ClusterBundle::NAME);
    assert!(words.contains(&object), "{words}");
    assert_eq!(cluster_bundle.content().await, Some(theirs["spec"]["trustBundle"].clone()));
    registry.says("Ready", "True", "Suspended").await;
    cluster_bundle.0.delete(ClusterBundle::NAME, &DeleteParams::default()).await.unwrap();
    registry.object.annotate("example.com/nudge", "1").await;

    registry.says("ClusterTrusted", "True", "Told").await;
    let bundle = published(&registry).await;
    cluster_bundle.is(Some(&bundle)).await;
    assert_eq!(registry.object.at("/status/trust").await, json!({"clusterTrustBundle": ClusterBundle::NAME}));

    // What somebody edits or deletes is put right, and it follows the bundle.
    let other = json!({"spec": {"trustBundle": theirs["spec"]["trustBundle"]}});
    cluster_bundle.0.patch(ClusterBundle::NAME, &PatchParams::default(), &Patch::Merge(other)).await.unwrap();
    cluster_bundle.is(Some(&bundle)).await;
    cluster_bundle.0.delete(ClusterBundle::NAME, &DeleteParams::default()).await.unwrap();
    cluster_bundle.is(Some(&bundle)).await;
    registry.object.annotate("privateregistry.dev/renew", "ca-now-1").await;
    registry.bundle().becomes(PATIENCE, "is another one", |live| live["data"]["ca.crt"] != bundle).await;
    let bundle = published(&registry).await;
    cluster_bundle.is(Some(&bundle)).await;

    // It goes when it is not asked for any more, and with its registry, also if that is deleted while nobody looks.
    registry.apply(spec(json!({"namespaces": {}}))).await.unwrap();
    cluster_bundle.is(None).await;
    registry.apply(spec(json!({"clusterTrustBundle": {}}))).await.unwrap();
    cluster_bundle.is(Some(&bundle)).await;
    operator.stop().await;
    registry.object.delete().await;
    registry.object.survives_deletion(within(1)).await;
    let operator = team.operator_of_the_cluster(&[]).await;
    registry.object.disappears(PATIENCE).await;
    cluster_bundle.is(None).await;

    // An administrator may keep it from the operator.
    operator.stop().await;
    let _operator = team.operator_of_the_cluster(&["--optional-kinds=Ingress"]).await;
    let registry = team.registry("kept", spec(json!({"clusterTrustBundle": {}}))).await;
    let words = registry.says("ClusterTrusted", "False", "KindNotAllowed").await;
    assert!(words.contains("optionalKinds"), "{words}");
    registry.says("Ready", "True", "Suspended").await;
    registry.delete().await;
}

#[tokio::test]
async fn an_operator_of_single_namespaces_says_that_it_cannot_see_others() {
    let Some(team) = crate::cluster::namespace("trust-scope").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", spec(json!({"namespaces": {}}))).await;
    let words = registry.says("NamespacesTrusted", "False", "NeedsClusterScope").await;
    assert!(words.contains("install it for the whole cluster"), "{words}");
    registry.says("Ready", "True", "Suspended").await;
    registry.apply(spec(json!({"clusterTrustBundle": {}}))).await.unwrap();
    let words = registry.says("ClusterTrusted", "False", "NeedsClusterScope").await;
    assert!(words.contains("install it for the whole cluster"), "{words}");
    registry.apply(spec(Value::Null)).await.unwrap();
    registry.object.becomes(PATIENCE, "says nothing of it", |live| live["status"]["trust"].is_null()).await;
    registry.delete().await;
}

#[tokio::test]
async fn a_namespace_that_never_answers_keeps_no_other_from_being_told() {
    let Some(team) = namespace_of_its_own_cluster("trust").await else { return };
    let cluster = Others::new(&team, COPY);
    cluster.namespace("aaa", json!({ACCEPTS: "Any", "slow": "true"})).await;
    cluster.namespace("zzz", json!({ACCEPTS: "Any"})).await;
    // Somebody's webhook takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "silent"},
        "webhooks": [{
            "name": "silent.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 10,
            "clientConfig": {"url": format!("https://{}/", silent.local_addr().unwrap())},
            "namespaceSelector": {"matchLabels": {"slow": "true"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        }],
    });
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(team.client.clone());
    hooks.create(&PostParams::default(), &serde_json::from_value(hook).unwrap()).await.unwrap();

    let _operator = team.operator_of_the_cluster(&[]).await;
    let registry = team.registry("team-a", spec(json!({"namespaces": {}}))).await;
    cluster.copy_in("zzz", "ConfigMap").appears(within(90)).await;
    eventually(within(60), "the slow one is named", async || {
        let words = registry.condition("NamespacesTrusted").await["message"].as_str().unwrap_or_default().to_owned();
        if words.starts_with("1 of 2 namespaces") && words.contains("aaa: ") { Ok(()) } else { Err(words) }
    })
    .await;
    // Nor does it keep another registry waiting.
    let neighbour = team.registry("neighbour", spec(Value::Null)).await;
    neighbour.says_within(within(15), "Ready", "True", "Suspended").await;
}
