//! Certificates that an issuer of cert-manager signs: the real one, with its issuers that sign by themselves. One of another program is the test.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testbed::sandbox::Place;
use testbed::{Family, Progress, Tools};

use crate::cluster::{Cluster, Namespace, Shared, documents, namespace_of_its_own_cluster};
use crate::given::{Company, DAY, company_ca};
use crate::object::Object;
use crate::quiet::look_again;
use crate::registry::Registry;
use crate::wait::{GARBAGE, PATIENCE, eventually};

/// A cluster with cert-manager, which ends with it.
static WORLD: Shared<Cluster> = Shared::new();

/// A namespace in it.
async fn namespace(purpose: &str) -> Option<Namespace> {
    let world = WORLD.get(async || {
        let cluster = namespace_of_its_own_cluster("cert-manager").await?.cluster;
        install(&cluster).await;
        Some(cluster)
    });
    Some(world.await?.namespace(purpose).await)
}

/// Installs cert-manager and starts it.
async fn install(cluster: &Cluster) {
    let tools = tools().await;
    define(cluster, &tools).await;
    start(cluster, &tools);
}

async fn tools() -> Tools {
    let made = || Tools::ensure(&[Family::CertManager], &Progress::auto());
    tokio::task::spawn_blocking(made).await.unwrap().unwrap()
}

/// Installs what cert-manager is asked with.
async fn define(cluster: &Cluster, tools: &Tools) {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.plane.client().await.unwrap());
    for file in ["certificaterequests.yaml", "issuers.yaml", "clusterissuers.yaml"] {
        let text = std::fs::read_to_string(tools.path(file).unwrap()).unwrap();
        let definition: CustomResourceDefinition = serde_saphyr::from_str(&text).unwrap();
        definitions.create(&PostParams::default(), &definition).await.unwrap();
        let name = definition.metadata.name.unwrap();
        eventually(PATIENCE, &format!("{name} is established"), async || {
            let live = definitions.get(&name).await.map_err(|error| error.to_string())?;
            let conditions = live.status.and_then(|status| status.conditions).unwrap_or_default();
            let is_done = conditions.iter().any(|found| found.type_ == "Established" && found.status == "True");
            if is_done { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }
}

fn start(cluster: &Cluster, tools: &Tools) {
    let program: &Path = tools.path("cert-manager").unwrap();
    let sandbox = cluster.plane.sandbox();
    let mut command = sandbox.command(Place::Host, program);
    command.arg(cluster.plane.kubeconfig());
    sandbox.start("cert-manager", command).unwrap();
}

fn asking(issuer: Value) -> Value {
    json!({
        "addresses": ["registry.example.com"], "storage": {"emptyDir": {}},
        "tls": {"certManager": {"issuerRef": issuer}, "certificate": {"duration": "720h"}},
    })
}

fn private() -> Value {
    json!({"addresses": ["registry.example.com"], "storage": {"emptyDir": {}}})
}

/// An authority in a Secret, PEM. Written again: another one.
async fn authority(team: &Namespace, secret: &str) -> String {
    let data = company_ca(|_| {});
    let text = |key: &str| String::from_utf8(STANDARD.decode(data[key].as_str().unwrap()).unwrap()).unwrap();
    team.secret(secret, &[("tls.crt", &text("tls.crt")), ("tls.key", &text("tls.key"))]).await;
    text("tls.crt").replace('\r', "").trim().to_owned()
}

async fn issuer(team: &Namespace, name: &str, spec: Value) -> Object {
    let manifest =
        json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": name}, "spec": spec});
    let issuer = team.create(manifest).await;
    let is_ready = |live: &Value| live["status"]["conditions"][0]["status"] == "True";
    issuer.becomes(PATIENCE, "is ready", is_ready).await;
    issuer
}

fn request(registry: &Registry<'_>) -> Object {
    registry.child("CertificateRequest", "-csr")
}

/// The one that waits, once it has another uid than this.
async fn asked_after(registry: &Registry<'_>, uid: &str) -> Value {
    request(registry).is_made_again(uid, PATIENCE).await
}

fn pem(request: &Value) -> String {
    String::from_utf8(STANDARD.decode(request["spec"]["request"].as_str().unwrap()).unwrap()).unwrap()
}

/// An issuer of another program answers.
async fn answer(request: &Object, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    request.api.patch_subresource("status", &request.name, &PatchParams::default(), &patch).await.unwrap();
}

fn ready(status: &str, reason: &str, message: &str, at: Timestamp) -> Value {
    let at = Timestamp::from_second(at.as_second()).unwrap().to_string();
    json!([{"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": at}])
}

async fn serial(registry: &Registry<'_>) -> Value {
    registry.object.at("/status/certificate/serial").await
}

async fn serves_another(registry: &Registry<'_>, before: &Value) {
    let is_other = |live: &Value| live["status"]["certificate"]["serial"] != *before;
    registry.object.becomes(PATIENCE, "serves another certificate", is_other).await;
}

#[tokio::test]
async fn an_issuer_of_cert_manager_signs_and_renews_and_its_authority_is_published() {
    let Some(team) = namespace("cert-manager-signs").await else { return };
    let company = authority(&team, "company").await;
    issuer(&team, "company", json!({"ca": {"secretName": "company"}})).await;
    let operator = team.operator().await;
    let mark = team.mark().await;
    let registry = team.registry("team-a", asking(json!({"name": "company"}))).await.ready().await;

    registry.says("CertificateReady", "True", "Valid").await;
    assert_eq!(registry.bundle().at("/data/ca.crt").await.as_str().unwrap().trim(), company);
    let facts =
        private_registry_operator::pki::CertificateFacts::of_pem(&registry.tls().decoded("tls.crt").await).unwrap();
    for name in ["registry.example.com", "team-a.cert-manager-signs.svc", "localhost"] {
        assert!(facts.dns_names.contains(name), "{:?}", facts.dns_names);
    }
    let life = facts.not_after.duration_since(facts.not_before);
    assert!((SignedDuration::from_hours(719)..=SignedDuration::from_hours(721)).contains(&life), "{life}");
    let key = registry.tls().decoded("tls.key").await;
    assert_eq!(registry.child("Secret", "-csr").decoded("tls.key").await, key, "nobody else has made it");
    request(&registry).disappears(PATIENCE).await;

    // Another one on request, from another authority: the former one stays published for clients that know no other.
    let next = authority(&team, "company").await;
    let first = serial(&registry).await;
    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;
    serves_another(&registry, &first).await;
    assert_eq!(registry.object.at("/status/handledRenewRequest").await, "leaf-1");
    assert_ne!(registry.tls().decoded("tls.key").await, key);
    let bundle = registry.bundle().at("/data/ca.crt").await;
    assert_eq!(bundle.as_str().unwrap().trim(), format!("{next}\n{company}"));
    request(&registry).disappears(PATIENCE).await;

    // The rights that the chart gives are those that are used, and none that is used is missing.
    operator.stop().await;
    let log = team.asked_since(mark).await;
    let used: BTreeSet<_> = log
        .iter()
        .filter(|entry| entry.resource == "certificaterequests")
        .map(|entry| entry.verb.as_str())
        .chain(["list", "watch"])
        .collect();
    assert_eq!(used, ["delete", "get", "list", "patch", "watch"].into());
    let refused: Vec<_> = log.iter().filter(|entry| entry.code == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn an_issuer_that_comes_later_is_waited_for_with_the_words_of_cert_manager() {
    let Some(team) = namespace("cert-manager-late").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", asking(json!({"name": "late", "kind": "Issuer"}))).await;
    let first = request(&registry).appears(PATIENCE).await;
    let words = eventually(PATIENCE, "the missing issuer is named", async || {
        let words = registry.says("CertificateReady", "False", "WaitingForSignature").await;
        if words.contains("not found") { Ok(words) } else { Err(words) }
    })
    .await;
    assert!(
        words.contains("Issuer late") && words.contains("kubectl describe certificaterequest team-a-csr"),
        "{words}"
    );
    // What does not hang on it goes on.
    registry.says("UsersReady", "True", "").await;
    assert!(registry.tls().find().await.is_none());

    // Without its key an answer would be of no use.
    registry.child("Secret", "-csr").delete().await;
    let second = asked_after(&registry, first["metadata"]["uid"].as_str().unwrap()).await;
    assert_ne!(second["spec"]["request"], first["spec"]["request"]);

    // It lets each key sign for itself, so it needs to find it.
    issuer(&team, "late", json!({"selfSigned": {}})).await;
    let registry = registry.ready().await;
    registry.says("CertificateReady", "True", "Valid").await;
    let served = registry.tls().decoded("tls.crt").await;
    assert_eq!(registry.bundle().at("/data/ca.crt").await.as_str().unwrap().trim(), served.trim());
}

#[tokio::test]
async fn what_an_issuer_could_not_sign_or_signed_wrongly_is_told_and_asked_again_after_an_hour_or_when_it_is_removed() {
    let Some(team) = namespace("cert-manager-fails").await else { return };
    let _operator = team.operator().await;
    let company = Company::new();
    let elsewhere = json!({"name": "ours", "kind": "OurIssuer", "group": "issuers.example.com"});
    let registry = team.registry("team-a", asking(elsewhere)).await;
    let waiting = request(&registry).appears(PATIENCE).await;
    assert_eq!(waiting["spec"]["issuerRef"]["group"], "issuers.example.com");

    let failed = |at| json!({"conditions": ready("False", "Failed", "the vault is sealed", at)});
    answer(&request(&registry), failed(Timestamp::now())).await;
    let words = registry.says("CertificateReady", "False", "RequestFailed").await;
    assert!(words.contains("OurIssuer.issuers.example.com ours (the vault is sealed); it is made again at"), "{words}");
    assert!(words.contains("kubectl delete certificaterequest team-a-csr -n cert-manager-fails"), "{words}");
    request(&registry).delete().await;
    let second = asked_after(&registry, waiting["metadata"]["uid"].as_str().unwrap()).await;
    answer(&request(&registry), failed(Timestamp::now() - SignedDuration::from_mins(61))).await;
    let third = asked_after(&registry, second["metadata"]["uid"].as_str().unwrap()).await;
    assert_eq!(pem(&third), pem(&waiting), "an answer on its way still fits");

    // A certificate of another key.
    let other = rcgen::CertificateParams::new(vec!["registry.example.com".to_owned()]).unwrap();
    let other = other.signed_by(&rcgen::KeyPair::generate().unwrap(), &company.0).unwrap().pem();
    let signed = |chain: &str, at: Timestamp| json!({"certificate": STANDARD.encode(chain), "conditions": ready("True", "Issued", "", at)});
    answer(&request(&registry), signed(&other, Timestamp::now())).await;
    let words = registry.says("CertificateReady", "False", "OtherRequest").await;
    assert!(words.contains("it is made again at"), "{words}");
    assert!(registry.tls().find().await.is_none(), "what clients refuse is not served");
    answer(&request(&registry), signed(&other, Timestamp::now() - SignedDuration::from_mins(61))).await;
    let fourth = asked_after(&registry, third["metadata"]["uid"].as_str().unwrap()).await;

    answer(&request(&registry), signed(&company.signs(&pem(&fourth), DAY), Timestamp::now())).await;
    let registry = registry.ready().await;
    assert_eq!(registry.bundle().at("/data/ca.crt").await, company.root().as_str(), "the root at the end of its chain");
    request(&registry).disappears(PATIENCE).await;
}

#[tokio::test]
async fn another_signer_takes_over_and_the_way_back_leaves_nothing_behind() {
    let Some(team) = namespace("cert-manager-changes").await else { return };
    let company = authority(&team, "company").await;
    let _operator = team.operator().await;
    let registry = team.registry("team-a", private()).await.ready().await;
    let (own, leaf) = (registry.ca().decoded("tls.crt").await, registry.tls().at("/data").await);
    let own_key = registry.ca().at("/data/tls.key").await;

    // There and back before anybody answers: as if nothing had been.
    registry.apply(asking(json!({"name": "company"}))).await.unwrap();
    request(&registry).appears(PATIENCE).await;
    registry.says("CertificateReady", "True", "Valid").await;
    assert_eq!(registry.tls().at("/data").await, leaf, "it goes on while the request waits");
    registry.apply(private()).await.unwrap();
    request(&registry).disappears(PATIENCE).await;
    registry.child("Secret", "-csr").disappears(PATIENCE).await;
    registry.says("CertificateReady", "True", "Valid").await;
    assert_eq!(registry.tls().at("/data").await, leaf);

    // There, and served.
    issuer(&team, "company", json!({"ca": {"secretName": "company"}})).await;
    let before = serial(&registry).await;
    registry.apply(asking(json!({"name": "company"}))).await.unwrap();
    serves_another(&registry, &before).await;
    let bundle = registry.bundle().at("/data/ca.crt").await;
    assert_eq!(bundle.as_str().unwrap().trim(), format!("{company}\n{}", own.trim()), "clients may know either");
    request(&registry).disappears(PATIENCE).await;

    // And back: the own authority signs again when clients had time to learn of it.
    registry.apply(private()).await.unwrap();
    registry.child("Secret", "-csr").disappears(PATIENCE).await;
    registry.child("ConfigMap", "-csr").disappears(PATIENCE).await;
    let words = registry.says("CertificateReady", "True", "Valid").await;
    assert!(words.contains("another CA is in ConfigMap team-a-ca-bundle and signs from"), "{words}");
    assert_eq!(registry.ca().at("/data/tls.key").await, own_key);
}

#[tokio::test]
async fn a_request_and_its_key_go_with_their_registry() {
    let Some(team) = namespace("cert-manager-gone").await else { return };
    let operator = team.operator().await;
    let registry = team.registry("team-a", asking(json!({"name": "nobody"}))).await;
    request(&registry).appears(PATIENCE).await;
    registry.says("CertificateReady", "False", "WaitingForSignature").await;
    operator.stop().await;
    registry.delete().await;
    for left in [request(&registry), registry.child("Secret", "-csr"), registry.child("ConfigMap", "-csr")] {
        left.disappears(GARBAGE).await;
    }
}

#[tokio::test]
async fn somebody_elses_request_of_that_name_is_not_touched() {
    let Some(team) = namespace("cert-manager-foreign").await else { return };
    let foreign = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest", "metadata": {"name": "team-a-csr"},
        "spec": {"issuerRef": {"name": "x", "kind": "OurIssuer", "group": "issuers.example.com"}, "request": STANDARD.encode("x")},
    });
    let foreign = team.create(foreign).await;
    let _operator = team.operator().await;
    let registry = team.registry("team-a", asking(json!({"name": "company"}))).await;
    let words = registry.says("CertificateReady", "False", "NotOurs").await;
    assert!(words.contains("CertificateRequest") && words.contains("team-a-csr"), "{words}");
    foreign.stays_untouched(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn who_waits_and_who_is_served_costs_nothing_and_a_restart_asks_nobody_again() {
    let Some(team) = namespace("cert-manager-quiet").await else { return };
    authority(&team, "company").await;
    issuer(&team, "company", json!({"ca": {"secretName": "company"}})).await;
    let operator = team.operator().await;
    let served = team.registry("served", asking(json!({"name": "company"}))).await.ready().await;
    let waiting = team.registry("waiting", asking(json!({"name": "nobody"}))).await;
    let tells = |live: &Value| live["status"]["conditions"].to_string().contains("not found");
    waiting.object.becomes(PATIENCE, "tells what cert-manager says", tells).await;
    team.settles().await;
    let uid = request(&waiting).uid().await;

    let mark = team.mark().await;
    for round in 0..3 {
        look_again(&operator, &served, round).await;
        look_again(&operator, &waiting, round).await;
    }
    assert_eq!(team.asked_since(mark).await, []);

    operator.stop().await;
    let mark = team.mark().await;
    let operator = team.operator().await;
    operator.has_made(2.0).await;
    team.settles().await;
    assert_eq!(team.written_since(mark).await, []);
    assert_eq!(request(&waiting).uid().await, uid);
}

#[tokio::test]
async fn the_example_works_as_it_is() {
    let Some(team) = namespace("cert-manager-example").await else { return };
    let company = authority(&team, "company-ca").await;
    let _operator = team.operator().await;
    let text = include_str!("../../deploy/examples/cert-manager.yaml");
    for mut object in documents(text).into_iter().filter(|object| object["kind"] != "Namespace") {
        object["metadata"]["namespace"] = json!(team.name);
        team.apply(&object).await.unwrap();
    }
    let registry = Registry::named(&team, "depot").ready().await;
    assert_eq!(registry.bundle().at("/data/ca.crt").await.as_str().unwrap().trim(), company);
}

/// A cluster of its own, because the kinds come to all namespaces.
#[tokio::test]
async fn a_registry_that_asks_before_cert_manager_is_installed_is_served_after_it_is() {
    let Some(team) = namespace_of_its_own_cluster("cert-manager-absent").await else { return };
    let company = authority(&team, "company").await;
    let _operator = team.operator().await;
    let registry = team.registry("team-a", asking(json!({"name": "company"}))).await;
    let words = registry.says("CertificateReady", "False", "NotInstalled").await;
    assert!(words.contains("CertificateRequest") && words.contains("cert-manager.io"), "{words}");
    registry.says("UsersReady", "True", "").await;
    // Whoever does not ask is not concerned.
    team.registry("team-b", private()).await.ready().await;

    install(&team.cluster).await;
    issuer(&team, "company", json!({"ca": {"secretName": "company"}})).await;
    registry.says_within(Duration::from_secs(120), "Ready", "True", "").await;
    assert_eq!(registry.bundle().at("/data/ca.crt").await.as_str().unwrap().trim(), company);
}
