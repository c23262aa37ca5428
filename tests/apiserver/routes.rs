//! Clients come to a registry by name: its Ingress, or its route of a Gateway, follows the manifest, and what its controller says of it is told.

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, GATEWAY_KINDS, namespace, namespace_of_its_own_cluster};
use crate::object::Object;
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually, within};

/// Nothing runs: what leads to the Service does not ask.
fn spec(route: Value) -> Value {
    json!({"suspend": true, "storage": {"emptyDir": {}}, "route": route})
}

fn ingress(hosts: &[&str]) -> Value {
    spec(json!({"ingress": {"hosts": hosts}}))
}

fn gateway(mode: &str, hosts: &[&str]) -> Value {
    let parents = json!([{"name": "public", "namespace": "infra", "sectionName": "https"}]);
    spec(json!({"gateway": {"mode": mode, "hosts": hosts, "parentRefs": parents}}))
}

impl Object {
    /// As its controller does.
    async fn is_told(&self, status: Value) {
        let parameters = PatchParams { field_manager: Some("a-controller".into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({"status": status}));
        self.api.patch_status(&self.name, &parameters, &patch).await.unwrap();
    }
}

/// What a controller says of a route for the Gateway of these tests.
async fn verdict(route: &Object, status: &str, words: &str) -> Value {
    let generation = route.at("/metadata/generation").await;
    let parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public", "namespace": "infra", "sectionName": "https"});
    json!([{"parentRef": parent, "controllerName": "example.com/controller", "conditions": [{
        "type": "Accepted", "status": status, "reason": if status == "True" { "Accepted" } else { "NotAllowedByListeners" },
        "message": words, "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}])
}

async fn policy_is_taken(policy: &Object) {
    let mut ancestors = verdict(policy, "True", "").await;
    let fields = ancestors[0].as_object_mut().unwrap();
    let parent = fields.remove("parentRef").unwrap();
    fields.insert("ancestorRef".to_owned(), parent);
    policy.is_told(json!({"ancestors": ancestors})).await;
}

fn hosts_of(ingress: &Value) -> Vec<&str> {
    ingress["spec"]["rules"].as_array().unwrap().iter().map(|rule| rule["host"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_ingress_follows_its_manifest_and_its_hosts_are_addresses() {
    let Some(team) = namespace("ingresses").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", ingress(&["a.example.com"])).await.ready().await;
    let child = registry.child("Ingress", "");
    let live = child.get().await;
    assert_eq!(hosts_of(&live), ["a.example.com"]);
    let backend = &live["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
    assert_eq!(*backend, json!({"name": "team-a", "port": {"number": 5000}}));
    assert_eq!(live["spec"]["tls"], json!([{"hosts": ["a.example.com"], "secretName": "team-a-tls"}]));
    assert_eq!(registry.object.at("/status/address").await, "a.example.com");

    // What somebody edits or deletes is put right.
    child.edit(json!({"spec": {"rules": [{"host": "theirs.example.com"}]}})).await;
    child.becomes(PATIENCE, "has its host again", |live| hosts_of(live) == ["a.example.com"]).await;
    let uid = child.uid().await;
    child.delete().await;
    child.is_made_again(&uid, PATIENCE).await;

    // Another host is an address, a name of the certificate and a login, too.
    registry.apply(ingress(&["b.example.com", "a.example.com"])).await.unwrap();
    child.becomes(PATIENCE, "has both hosts", |live| hosts_of(live) == ["b.example.com", "a.example.com"]).await;
    registry.says("Ready", "True", "").await;
    assert_eq!(registry.object.at("/status/address").await, "b.example.com");
    let pull: Value =
        serde_json::from_str(&registry.child("Secret", "-pull").decoded(".dockerconfigjson").await).unwrap();
    assert!(pull["auths"]["b.example.com"].is_object(), "{:?}", pull["auths"].as_object().unwrap().keys());
    let chain = registry.tls().decoded("tls.crt").await;
    let facts = private_registry_operator::pki::CertificateFacts::of_pem(&chain).unwrap();
    assert!(facts.dns_names.contains("b.example.com"), "{facts:?}");

    // A class that comes and goes: only a new Ingress gets the cluster's default again.
    let mut classed = ingress(&["a.example.com"]);
    classed["route"]["ingress"]["className"] = json!("inner");
    registry.apply(classed).await.unwrap();
    child.becomes(PATIENCE, "has a class", |live| live["spec"]["ingressClassName"] == "inner").await;
    let uid = child.uid().await;
    registry.apply(ingress(&["a.example.com"])).await.unwrap();
    let live = child.is_made_again(&uid, PATIENCE).await;
    assert_eq!(live["spec"]["ingressClassName"], Value::Null);
    registry.apply(json!({"suspend": true, "storage": {"emptyDir": {}}})).await.unwrap();
    child.disappears(PATIENCE).await;
    registry.says("Ready", "True", "").await;
    assert_eq!(registry.condition("RouteReady").await, Value::Null);
}

#[tokio::test]
async fn a_controller_that_says_nothing_keeps_no_registry_back_and_one_that_speaks_is_told() {
    let Some(team) = namespace("told-routes").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", ingress(&["told.example.com"])).await.ready().await;
    let words = registry.says("RouteReady", "Unknown", "NotTaken").await;
    assert!(words.contains("kubectl describe ingress team-a"), "{words}");
    let address = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}});
    registry.child("Ingress", "").is_told(address).await;
    let words = registry.says_within(within(5), "RouteReady", "True", "Taken").await;
    assert!(words.contains("192.0.2.7"), "{words}");

    registry.apply(gateway("Terminate", &["told.example.com"])).await.unwrap();
    let words = registry.says("RouteReady", "Unknown", "NotTaken").await;
    assert!(words.contains("Gateway infra/public, listener https"), "{words}");
    registry.says("Ready", "True", "").await;
    let (route, policy) = (registry.child("HTTPRoute", ""), registry.child("BackendTLSPolicy", ""));
    route.is_told(json!({"parents": verdict(&route, "False", "no listener has this host").await})).await;
    let words = registry.says_within(within(5), "RouteReady", "False", "RouteRefused").await;
    assert!(words.contains("NotAllowedByListeners: no listener has this host"), "{words}");
    registry.says("Ready", "False", "RouteRefused").await;
    registry.says("Stalled", "False", "").await;
    route.is_told(json!({"parents": verdict(&route, "True", "").await})).await;
    // Without the policy the Gateway would speak plain text.
    let words = registry.says_within(within(5), "RouteReady", "Unknown", "NotTaken").await;
    assert!(words.contains("BackendTLSPolicy team-a") && !words.contains("HTTPRoute"), "{words}");
    policy_is_taken(&policy).await;
    registry.says_within(within(5), "RouteReady", "True", "Taken").await;
    registry.says("Ready", "True", "").await;
}

#[tokio::test]
async fn a_route_changes_its_kind_and_back_as_if_nothing_had_been() {
    let Some(team) = namespace("switched-routes").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", gateway("Terminate", &["a.example.com"])).await.ready().await;
    let [http, tls, policy, ingressed] =
        ["HTTPRoute", "TLSRoute", "BackendTLSPolicy", "Ingress"].map(|kind| registry.child(kind, ""));
    let first = (http.at("/spec").await, policy.at("/spec").await);
    assert_eq!(first.0["rules"][0]["timeouts"]["request"], "0s");
    assert_eq!(first.0["hostnames"], json!(["a.example.com"]));
    let validation = &first.1["validation"];
    assert_eq!(validation["hostname"], "team-a.switched-routes.svc");
    assert_eq!(validation["caCertificateRefs"][0]["name"], "team-a-ca-bundle");

    // A field of a list that is one to Kubernetes.
    let mut bare = gateway("Terminate", &["a.example.com", "b.example.com"]);
    bare["route"]["gateway"]["parentRefs"] = json!([{"name": "public", "namespace": "infra"}]);
    registry.apply(bare).await.unwrap();
    http.becomes(PATIENCE, "has no listener and two hosts", |live| {
        let spec = &live["spec"];
        spec["parentRefs"][0]["sectionName"].is_null() && spec["hostnames"] == json!(["a.example.com", "b.example.com"])
    })
    .await;

    registry.apply(gateway("Passthrough", &["a.example.com"])).await.unwrap();
    tls.appears(PATIENCE).await;
    http.disappears(PATIENCE).await;
    policy.disappears(PATIENCE).await;
    registry.apply(ingress(&["a.example.com"])).await.unwrap();
    ingressed.appears(PATIENCE).await;
    tls.disappears(PATIENCE).await;
    registry.apply(gateway("Terminate", &["a.example.com"])).await.unwrap();
    policy.appears(PATIENCE).await;
    ingressed.disappears(PATIENCE).await;
    assert_eq!((http.at("/spec").await, policy.at("/spec").await), first);

    // Plain HTTP behind the Gateway, and none of that.
    let mut plain = gateway("Terminate", &["a.example.com"]);
    plain["tls"] = json!({"none": {}});
    registry.apply(plain).await.unwrap();
    policy.disappears(PATIENCE).await;
    registry.apply(json!({"suspend": true, "storage": {"emptyDir": {}}})).await.unwrap();
    http.disappears(PATIENCE).await;
    registry.delete().await;
}

#[tokio::test]
async fn what_is_somebody_elses_is_named_and_nothing_else_waits_for_it() {
    let Some(team) = namespace("foreign-routes").await else { return };
    let _operator = team.operator().await;
    let rule = json!({"host": "theirs.example.com"});
    let theirs = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "team-a"}, "spec": {"rules": [rule]}});
    let theirs = team.create(theirs).await;
    let registry = team.registry("team-a", ingress(&["a.example.com"])).await;
    let words = registry.says("RouteReady", "False", "NotOurs").await;
    assert!(words.contains("Ingress"), "{words}");
    registry.says("Stalled", "True", "NotOurs").await;
    registry.says("CertificateReady", "True", "").await;
    registry.says("UsersReady", "True", "").await;
    theirs.stays_untouched(Duration::from_secs(1)).await;
    theirs.delete().await;
    registry.object.annotate("example.com/again", "1").await;
    registry.says("Ready", "True", "").await;

    // The policy is somebody else's: no route goes without it, and what serves stays.
    let target = json!([{"group": "", "kind": "Service", "name": "team-a"}]);
    let validation = json!({"hostname": "theirs", "wellKnownCACertificates": "System"});
    let policy = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy", "metadata": {"name": "team-a"},
        "spec": {"targetRefs": target, "validation": validation},
    });
    let policy = team.create(policy).await;
    registry.apply(gateway("Terminate", &["a.example.com"])).await.unwrap();
    let words = registry.says("RouteReady", "False", "NotOurs").await;
    assert!(words.contains("BackendTLSPolicy"), "{words}");
    registry.child("HTTPRoute", "").stays_away(Duration::from_secs(1)).await;
    registry.child("Ingress", "").survives(Duration::from_secs(1)).await;
    policy.delete().await;
    registry.object.annotate("example.com/again", "2").await;
    registry.child("HTTPRoute", "").appears(PATIENCE).await;
    registry.child("Ingress", "").disappears(PATIENCE).await;
}

#[tokio::test]
async fn of_two_registries_with_one_host_the_second_is_told() {
    let Some(team) = namespace("one-host").await else { return };
    let _operator = team.operator().await;
    let first = team.registry("zeta", ingress(&["one.example.com"])).await.ready().await;
    first.says("RouteReady", "Unknown", "NotTaken").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let second = team.registry("alpha", gateway("Passthrough", &["other.example.com", "one.example.com"])).await;
    let words = second.says("RouteReady", "False", "HostTaken").await;
    assert!(words.contains("one.example.com") && !words.contains("zeta"), "{words}");
    second.says("Ready", "True", "").await;
    first.says("RouteReady", "Unknown", "NotTaken").await;

    first.apply(ingress(&["former.example.com"])).await.unwrap();
    second.says_within(within(5), "RouteReady", "Unknown", "NotTaken").await;
    first.apply(ingress(&["other.example.com"])).await.unwrap();
    second.says_within(within(5), "RouteReady", "False", "HostTaken").await;
    first.delete().await;
    second.says_within(within(5), "RouteReady", "Unknown", "NotTaken").await;
}

#[tokio::test]
async fn an_ingress_goes_only_when_the_one_of_another_class_would_be_taken() {
    let Some(team) = namespace("route-class").await else { return };
    let rules = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "no-bad-class"},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["ingresses"]}]},
            "validations": [{"expression": "!has(object.spec.ingressClassName) || object.spec.ingressClassName != 'bad'", "message": "no such class here"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "no-bad-class"},
        "spec": {"policyName": "no-bad-class", "validationActions": ["Deny"]},
    });
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(team.client.clone());
    policies.create(&PostParams::default(), &serde_json::from_value(rules).unwrap()).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(team.client.clone());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    let _operator = team.operator().await;
    let spec = |class: &str| {
        json!({
            "restartPolicy": {"type": "Never"}, "suspend": true, "tls": {"none": {}},
            "route": {"ingress": {"className": class, "hosts": ["class.example.com"]}},
        })
    };
    let registry = team.registry("team-a", spec("good")).await;
    let ingress = team.object("Ingress", "team-a");
    ingress.appears(PATIENCE).await;
    let uid = ingress.uid().await;

    // The policy takes a moment to count.
    tokio::time::sleep(Duration::from_secs(5)).await;
    registry.apply(spec("bad")).await.unwrap();
    let words = registry.says("RouteReady", "False", "Refused").await;
    assert!(words.contains("no such class here"), "{words}");
    assert_eq!(ingress.uid().await, uid, "what served before stays");

    registry.apply(spec("other")).await.unwrap();
    ingress.is_made_again(&uid, PATIENCE).await;
    assert_eq!(ingress.at("/spec/ingressClassName").await, "other");
}

#[tokio::test]
async fn a_kind_that_an_administrator_takes_away_stays_as_it_is_and_is_named() {
    let Some(team) = namespace("kept-back").await else { return };
    let operator = team.operator().await;
    let registry = team.registry("team-a", ingress(&["kept-back.example.com"])).await.ready().await;
    assert!(operator.stop().await.success());
    let _operator = team.operator_with(&["--optional-kinds=HTTPRoute,BackendTLSPolicy"]).await;
    let words = registry.says("RouteReady", "False", "KindNotAllowed").await;
    assert!(words.contains("Ingress") && words.contains("optionalKinds"), "{words}");
    registry.says("Stalled", "True", "KindNotAllowed").await;
    registry.says("CertificateReady", "True", "").await;
    registry.child("Ingress", "").survives(Duration::from_secs(1)).await;
    registry.apply(gateway("Terminate", &["kept-back.example.com"])).await.unwrap();
    registry.says("Ready", "True", "").await;
    registry.child("HTTPRoute", "").appears(PATIENCE).await;
}

#[tokio::test]
async fn kinds_that_the_cluster_lacks_are_named_and_used_once_they_are_there() {
    let Some(team) = namespace_of_its_own_cluster("lacking").await else { return };
    let definitions: Api<CustomResourceDefinition> = Api::all(team.client.clone());
    for plural in GATEWAY_KINDS {
        let name = format!("{plural}.gateway.networking.k8s.io");
        definitions.delete(&name, &DeleteParams::default()).await.unwrap();
        eventually(PATIENCE, &format!("{name} is gone"), async || match definitions.get_opt(&name).await.unwrap() {
            None => Ok(()),
            Some(_) => Err("there".to_owned()),
        })
        .await;
    }
    let operator = team.operator().await;
    let registry = team.registry("team-a", ingress(&["a.example.com"])).await.ready().await;
    registry.apply(gateway("Terminate", &["a.example.com"])).await.unwrap();
    let words = registry.says("RouteReady", "False", "NotInstalled").await;
    assert!(words.contains("BackendTLSPolicy"), "{words}");
    registry.says("Ready", "False", "NotInstalled").await;
    registry.says("CertificateReady", "True", "").await;
    registry.child("Ingress", "").survives(Duration::from_secs(1)).await;
    operator.ready().await;

    Cluster::install_gateway_definitions(&team.client).await;
    Registry::named(&team, "team-a").says_within(Duration::from_secs(90), "Ready", "True", "").await;
    registry.child("HTTPRoute", "").appears(PATIENCE).await;
    registry.child("Ingress", "").disappears(PATIENCE).await;

    // Without its policy a Gateway would hand logins to whatever answers.
    definitions.delete("backendtlspolicies.gateway.networking.k8s.io", &DeleteParams::default()).await.unwrap();
    Registry::named(&team, "team-a").says_within(Duration::from_secs(90), "RouteReady", "False", "NotInstalled").await;
    registry.child("HTTPRoute", "").disappears(PATIENCE).await;
}
