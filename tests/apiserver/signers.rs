//! Certificates that somebody else signs: a signer of the cluster, which here is the test, or a person.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Namespace, Shared, namespace, namespace_of_its_own_cluster};
use crate::given::{Company, DAY};
use crate::object::Object;
use crate::operator::Operator;
use crate::registry::Registry;
use crate::wait::{PATIENCE, always, eventually};

const SIGNER: &str = "signers.example.com/registries";
static WORLD: Shared<World> = Shared::new();

/// A cluster with an operator for all namespaces, which tests share that do nothing to it.
struct World {
    cluster: Arc<Cluster>,
    _operator: Operator,
}

impl World {
    async fn start() -> Option<Arc<Self>> {
        let system = namespace_of_its_own_cluster("signers-system").await?;
        let operator = operator(&system).await;
        Some(Arc::new(Self { cluster: Arc::clone(&system.cluster), _operator: operator }))
    }
}

/// A namespace that the common operator serves, and what must live as long.
async fn served(purpose: &str) -> Option<(Namespace, Arc<World>)> {
    let world = WORLD.get(World::start).await?;
    Some((world.cluster.namespace(purpose).await, world))
}

/// An operator for all namespaces that lives in this one. It is killed and started again, so it waits for no lease.
async fn operator(team: &Namespace) -> Operator {
    team.operator_of_the_cluster(&["--leader-elect=false"]).await
}

fn asking() -> Value {
    json!({
        "addresses": ["registry.example.com"], "storage": {"emptyDir": {}},
        "tls": {"certificateSigningRequest": {"signerName": SIGNER}, "certificate": {"duration": "720h"}},
    })
}

/// Requests of the cluster.
fn requests(team: &Namespace) -> Api<CertificateSigningRequest> {
    Api::all(team.client.clone())
}

/// Those of a registry, by name.
async fn of(registry: &Registry<'_>) -> Vec<CertificateSigningRequest> {
    let labels = format!(
        "privateregistry.dev/registry-namespace={},privateregistry.dev/registry={}",
        registry.namespace.name, registry.name
    );
    requests(registry.namespace).list(&ListParams::default().labels(&labels)).await.unwrap().items
}

/// The one that waits, once there is one with another uid than this.
async fn asked_after(registry: &Registry<'_>, uid: &str) -> CertificateSigningRequest {
    eventually(PATIENCE, &format!("{} asks", registry.name), async || {
        let mut all = of(registry).await;
        match (all.len(), all.pop()) {
            (1, Some(one)) if one.metadata.uid.as_deref() != Some(uid) => Ok(one),
            (count, _) => Err(format!("{count} requests")),
        }
    })
    .await
}

async fn asked(registry: &Registry<'_>) -> CertificateSigningRequest {
    asked_after(registry, "").await
}

fn name(request: &CertificateSigningRequest) -> &str {
    request.metadata.name.as_deref().unwrap()
}

fn pem(request: &CertificateSigningRequest) -> String {
    String::from_utf8(request.spec.request.0.clone()).unwrap()
}

/// Somebody with the right to do so says that it is approved, denied or failed.
async fn say(team: &Namespace, request: &CertificateSigningRequest, what: &str) {
    let subresource = if what == "Failed" { "status" } else { "approval" };
    let condition = json!({"type": what, "status": "True", "reason": "Test", "message": "because of a test"});
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    requests(team).patch_subresource(subresource, name(request), &PatchParams::default(), &patch).await.unwrap();
}

/// A signer of the cluster gives its answer.
async fn give(team: &Namespace, request: &CertificateSigningRequest, chain: &str) {
    let patch = Patch::Merge(json!({"status": {"certificate": STANDARD.encode(chain)}}));
    requests(team).patch_subresource("status", name(request), &PatchParams::default(), &patch).await.unwrap();
}

async fn approve_and_sign(
    team: &Namespace,
    request: &CertificateSigningRequest,
    company: &Company,
    life: SignedDuration,
) {
    say(team, request, "Approved").await;
    give(team, request, &company.signs(&pem(request), life)).await;
}

async fn has_no_request(registry: &Registry<'_>) {
    eventually(PATIENCE, "no request is left", async || {
        let all = of(registry).await;
        if all.is_empty() { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
}

/// Waits until `CertificateReady` says this in its message.
async fn tells(registry: &Registry<'_>, words: &str) {
    registry
        .object
        .becomes(PATIENCE, &format!("tells {words}"), |live| {
            let conditions = live["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions
                .iter()
                .any(|found| found["type"] == "CertificateReady" && found["message"].as_str().unwrap().contains(words))
        })
        .await;
}

/// When the certificate ends that is served. Its serial number is made from its key, so it tells nothing.
async fn end(registry: &Registry<'_>) -> Value {
    registry.object.at("/status/certificate/notAfter").await
}

#[tokio::test]
async fn a_signer_of_the_cluster_is_asked_and_only_a_good_answer_is_served() {
    let Some(team) = namespace_of_its_own_cluster("signer-asked").await else { return };
    let operator = operator(&team).await;
    let mark = team.mark().await;
    let company = Company::new();
    let registry = team.registry("team-a", asking()).await;

    let request = asked(&registry).await;
    assert_eq!(request.spec.signer_name, SIGNER);
    assert_eq!(request.spec.expiration_seconds, Some(720 * 3600));
    assert_eq!(request.spec.usages.as_deref().unwrap(), ["digital signature", "server auth"]);
    let words = registry.says("CertificateReady", "False", "WaitingForSignature").await;
    assert!(words.contains(&format!("kubectl certificate approve {}", name(&request))), "{words}");
    // What does not hang on it goes on.
    registry.says("AddressReady", "True", "Assigned").await;
    registry.says("UsersReady", "True", "").await;
    assert!(registry.deployment().find().await.is_none() && registry.tls().find().await.is_none());

    say(&team, &request, "Approved").await;
    tells(&registry, &format!("waits for {SIGNER} to sign it")).await;
    let other_key = rcgen::CertificateParams::new(vec!["registry.example.com".to_owned()]).unwrap();
    let other_key = other_key.signed_by(&KeyPair::generate().unwrap(), &company.0).unwrap().pem();
    give(&team, &request, &other_key).await;
    registry.says("CertificateReady", "False", "OtherRequest").await;
    assert!(registry.tls().find().await.is_none(), "what clients refuse is not served");

    // For a new try, as the message says: a little later, and for the same key.
    requests(&team).delete(name(&request), &DeleteParams::default()).await.unwrap();
    let again = asked_after(&registry, request.metadata.uid.as_deref().unwrap()).await;
    assert_eq!((name(&again), pem(&again)), (name(&request), pem(&request)));
    approve_and_sign(&team, &again, &company, DAY).await;

    let registry = registry.ready().await;
    registry.says("CertificateReady", "True", "Valid").await;
    assert_eq!(registry.bundle().at("/data/ca.crt").await, company.root().as_str());
    assert!(registry.tls().decoded("tls.crt").await.ends_with(&company.root()));
    has_no_request(&registry).await;
    let key = registry.tls().decoded("tls.key").await;
    assert_eq!(registry.child("Secret", "-csr").decoded("tls.key").await, key, "it is the key that was asked for");
    assert_eq!(
        registry.child("ConfigMap", "-csr").at("/data").await,
        json!({"tls.csr": pem(&request)}),
        "and nothing secret"
    );

    // The rights to requests that the chart gives are those that are used, and none that is used is missing.
    operator.stop().await;
    let user = team.operators_name();
    let log = team.cluster.plane.audit().await.unwrap().since(mark).await.unwrap();
    let log: Vec<_> = log.iter().filter(|entry| entry.user == user).collect();
    let used: std::collections::BTreeSet<_> = log
        .iter()
        .filter(|entry| entry.resource == "certificatesigningrequests")
        .map(|entry| entry.verb.as_str())
        .chain(["list", "watch"])
        .collect();
    assert_eq!(used, ["create", "delete", "get", "list", "watch"].into());
    let refused: Vec<_> = log.iter().filter(|entry| entry.code == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn what_was_denied_or_has_failed_is_told_and_asked_again_when_it_is_removed() {
    let Some((team, _world)) = served("signer-refuses").await else { return };
    let registry = team.registry("team-a", asking()).await;
    let mut before = String::new();
    for (what, reason) in [("Denied", "RequestDenied"), ("Failed", "RequestFailed")] {
        let request = asked_after(&registry, &before).await;
        say(&team, &request, what).await;
        let words = registry.says("CertificateReady", "False", reason).await;
        assert!(words.contains("(Test: because of a test)") && words.contains("kubectl delete csr"), "{words}");
        always(Duration::from_secs(1), "nobody is asked meanwhile", async || {
            let all = of(&registry).await;
            if all.len() == 1 && all[0].metadata.uid == request.metadata.uid { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await;
        before = request.metadata.uid.clone().unwrap();
        requests(&team).delete(name(&request), &DeleteParams::default()).await.unwrap();
    }
    asked_after(&registry, &before).await;
}

/// The certificate lives forty seconds. Nobody answers the request for the next one in time.
#[tokio::test]
async fn a_renewal_that_nobody_answers_stops_nothing_and_is_served_when_it_is_answered_at_last() {
    let Some((team, _world)) = served("signer-silent").await else { return };
    let company = Company::new();
    let registry = team.registry("team-a", asking()).await;
    approve_and_sign(&team, &asked(&registry).await, &company, SignedDuration::from_secs(40)).await;
    let registry = registry.ready().await;
    let (served, first) = (registry.tls().at("/data").await, end(&registry).await);

    let renewal = asked(&registry).await;
    assert_ne!(registry.child("Secret", "-csr").at("/data/tls.key").await, served["tls.key"], "a new key");
    tells(&registry, "the next one is asked for").await;
    registry.says("CertificateReady", "True", "Valid").await;
    registry.says("Ready", "True", "").await;
    let words = registry.says_within(Duration::from_secs(60), "CertificateReady", "False", "WaitingForSignature").await;
    assert!(words.contains("clients refuse the certificate"), "{words}");
    assert_eq!(registry.tls().at("/data").await, served, "nothing that runs is stopped");
    registry.deployment().get().await;

    approve_and_sign(&team, &renewal, &company, DAY).await;
    let registry = registry.ready().await;
    assert_ne!(end(&registry).await, first);
    has_no_request(&registry).await;
}

#[tokio::test]
async fn a_request_goes_with_its_registry_also_when_nobody_looks() {
    let Some(team) = namespace_of_its_own_cluster("signer-abandoned").await else { return };
    let former = operator(&team).await;
    let registries = [team.registry("one", asking()).await, team.registry("two", asking()).await];
    for registry in &registries {
        asked(registry).await;
    }
    let [one, two] = &registries;
    one.delete().await;
    has_no_request(one).await;
    assert_eq!(of(two).await.len(), 1);

    former.stop().await;
    two.delete().await;
    let _operator = operator(&team).await;
    has_no_request(two).await;
}

#[tokio::test]
async fn another_signer_is_asked_anew_and_the_way_back_needs_nobody() {
    let Some((team, _world)) = served("signer-changes").await else { return };
    let company = Company::new();
    let private = || json!({"addresses": ["registry.example.com"], "storage": {"emptyDir": {}}});
    let registry = team.registry("team-a", private()).await.ready().await;
    let (own, authority) = (registry.bundle().at("/data/ca.crt").await, registry.ca().at("/data").await);
    let own = own.as_str().unwrap();
    let leaf = registry.tls().at("/data").await;

    registry.apply(asking()).await.unwrap();
    let first = asked(&registry).await;
    registry.says("CertificateReady", "True", "Valid").await;
    assert_eq!(registry.tls().at("/data").await, leaf, "it goes on while the request waits");
    let mut other = asking();
    other["tls"]["certificateSigningRequest"]["signerName"] = json!("signers.example.com/others");
    registry.apply(other).await.unwrap();
    let second = asked_after(&registry, first.metadata.uid.as_deref().unwrap()).await;
    assert_eq!(second.spec.signer_name, "signers.example.com/others");
    approve_and_sign(&team, &second, &company, DAY).await;
    registry
        .object
        .becomes(PATIENCE, "serves it", |live| live["status"]["certificate"]["authorities"][0]["stage"] == "Active")
        .await;
    tells(&registry, "the former CA stays in ConfigMap team-a-ca-bundle").await;
    let both = registry.bundle().at("/data/ca.crt").await;
    assert_eq!(both, (company.root() + own).as_str());

    // Back before the answer of a third one came.
    registry.apply(asking()).await.unwrap();
    asked(&registry).await;
    registry.apply(private()).await.unwrap();
    has_no_request(&registry).await;
    tells(&registry, "another CA is in ConfigMap team-a-ca-bundle and signs from").await;
    assert_eq!(registry.ca().at("/data").await, authority);
    registry.child("Secret", "-csr").disappears(PATIENCE).await;
    registry.child("ConfigMap", "-csr").disappears(PATIENCE).await;
    let bundle = registry.bundle().at("/data/ca.crt").await;
    assert!(bundle.as_str().unwrap().contains(own.trim()) && bundle.as_str().unwrap().contains(company.root().trim()));
}

/// A signer that approves and signs everything in this namespace and those whose names begin like its name, for as long as the other future takes.
async fn while_all_is_signed<T>(team: &Namespace, company: &Company, meanwhile: impl Future<Output = T>) -> T {
    let is_of_team = |request: &CertificateSigningRequest| {
        let labels = request.metadata.labels.as_ref();
        let namespace = labels.and_then(|labels| labels.get("privateregistry.dev/registry-namespace"));
        namespace.is_some_and(|namespace| namespace.starts_with(&team.name))
    };
    let signer = async {
        loop {
            for request in requests(team).list(&ListParams::default()).await.unwrap() {
                let is_new = request.status.as_ref().is_none_or(|status| status.certificate.is_none());
                if request.spec.signer_name == SIGNER && is_new && is_of_team(&request) {
                    let chain = company.signs(&pem(&request), DAY);
                    let conditions = json!([{"type": "Approved", "status": "True", "reason": "Test", "message": ""}]);
                    // It may be removed at any moment.
                    let approval = Patch::Merge(json!({"status": {"conditions": conditions}}));
                    let api = requests(team);
                    let parameters = PatchParams::default();
                    api.patch_subresource("approval", name(&request), &parameters, &approval).await.ok();
                    let certificate = Patch::Merge(json!({"status": {"certificate": STANDARD.encode(chain)}}));
                    api.patch_subresource("status", name(&request), &parameters, &certificate).await.ok();
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = signer => unreachable!(),
        done = meanwhile => done,
    }
}

#[tokio::test]
async fn namesakes_in_many_namespaces_each_get_their_own_certificate() {
    const MANY: usize = 25;
    let Some((team, _world)) = served("signer-namesake").await else { return };
    let company = Company::new();
    let mut teams = Vec::new();
    for number in 0..MANY {
        teams.push(team.cluster.namespace(&format!("signer-namesake-{number}")).await);
    }
    let quiet = json!({"suspend": true, "storage": {"emptyDir": {}}, "auth": {"none": {}}, "tls": {"certificateSigningRequest": {"signerName": SIGNER}}});
    let mut keys = std::collections::BTreeSet::new();
    while_all_is_signed(&team, &company, async {
        for team in &teams {
            team.registry("same", quiet.clone()).await;
        }
        for team in &teams {
            let registry = Registry::named(team, "same");
            registry.says_within(Duration::from_secs(90), "CertificateReady", "True", "Valid").await;
            has_no_request(&registry).await;
            let names = registry.tls().decoded("tls.crt").await;
            let facts = private_registry_operator::pki::CertificateFacts::of_pem(&names).unwrap();
            assert!(facts.dns_names.contains(&format!("same.{}.svc", team.name)), "{:?}", facts.dns_names);
            keys.insert(registry.tls().decoded("tls.key").await);
        }
    })
    .await;
    assert_eq!(keys.len(), MANY);
}

#[tokio::test]
async fn an_operator_killed_at_any_moment_serves_what_was_signed_and_leaves_no_request_behind() {
    const KILLS: u64 = 12;
    let Some(team) = namespace_of_its_own_cluster("signer-kills").await else { return };
    let company = Company::new();
    let registry = Registry::named(&team, "team-a");
    while_all_is_signed(&team, &company, async {
        registry.apply(asking()).await.unwrap();
        for kill in 0..KILLS {
            let operator = operator(&team).await;
            if registry.tls().find().await.is_some() {
                registry.object.annotate("privateregistry.dev/renew", format!("leaf-{kill}")).await;
            }
            // Later each time, so that each step is met.
            tokio::time::sleep(Duration::from_millis(25 * kill)).await;
            operator.kill();
            if let Some(stored) = registry.tls().find().await {
                let text = |key: &str| {
                    String::from_utf8(STANDARD.decode(stored["data"][key].as_str().unwrap()).unwrap()).unwrap()
                };
                let leaf = private_registry_operator::pki::Leaf {
                    chain_pem: text("tls.crt"),
                    key_pem: text("tls.key").into(),
                };
                let reading =
                    private_registry_operator::pki::reading::LeafReading::of(Some(&leaf), None, Timestamp::now());
                assert!(
                    private_registry_operator::pki::signing::is_serving(&reading, Timestamp::now()),
                    "after kill {kill}"
                );
                let bundle = registry.bundle().at("/data/ca.crt").await;
                assert!(bundle.as_str().unwrap().contains(company.root().trim()), "after kill {kill}");
            }
        }
        let _operator = operator(&team).await;
        let last = format!("leaf-{}", KILLS - 1);
        let done = |live: &Value| live["status"]["handledRenewRequest"] == last.as_str();
        registry.object.becomes(PATIENCE, "has done the last request", done).await;
        registry.says_within(Duration::from_secs(60), "Ready", "True", "").await;
        has_no_request(&registry).await;
        let served = registry.tls().decoded("tls.key").await;
        assert_eq!(registry.child("Secret", "-csr").decoded("tls.key").await, served);
    })
    .await;
}

/// What a person does with `kubectl create secret`.
async fn brings(team: &Namespace, registry: &str, chain: &str) -> Object {
    team.secret(&format!("{registry}-signed"), &[("tls.crt", chain)]).await
}

#[tokio::test]
async fn an_operator_of_chosen_namespaces_asks_no_signer_but_takes_what_a_person_brings() {
    let Some(team) = namespace("signed-by-hand").await else { return };
    let _operator = team.operator().await;
    let company = Company::new();
    let registry = team.registry("team-a", asking()).await;
    let words = registry.says("CertificateReady", "False", "SignerUnavailable").await;
    assert!(words.contains(SIGNER) && words.contains("kubectl registry csr"), "{words}");

    let by_hand = json!({"addresses": ["registry.example.com"], "storage": {"emptyDir": {}}, "tls": {"certificateSigningRequest": {}}});
    registry.apply(by_hand.clone()).await.unwrap();
    let words = registry.says("CertificateReady", "False", "WaitingForSignature").await;
    assert!(words.contains("kubectl registry set-certificate team-a -n signed-by-hand"), "{words}");
    let request = registry.child("ConfigMap", "-csr").at("/data/tls.csr").await.as_str().unwrap().to_owned();

    brings(&team, "team-a", "rubbish").await;
    registry.says("CertificateReady", "False", "CertificateUnreadable").await;
    brings(&team, "team-a", &company.signs(&request, -DAY)).await;
    registry.says("CertificateReady", "False", "CertificateExpired").await;
    brings(&team, "team-a", &company.signs(&request, DAY)).await;
    let registry = registry.ready().await;
    let first = end(&registry).await;

    // Signed twice: the later one counts.
    brings(&team, "team-a", &company.signs(&request, DAY * 2)).await;
    registry
        .object
        .becomes(PATIENCE, "serves the second", |live| live["status"]["certificate"]["notAfter"] != first)
        .await;
    let (second, leaf) = (end(&registry).await, registry.tls().at("/data").await);

    // A renewal, and the answer to the request before it.
    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;
    registry.object.becomes(PATIENCE, "has asked", |live| live["status"]["handledRenewRequest"] == "leaf-1").await;
    let words = registry.says("CertificateReady", "True", "Valid").await;
    assert!(words.contains("the next one is asked for"), "{words}");
    brings(&team, "team-a", &company.signs(&request, DAY * 3)).await;
    let words = registry.says("CertificateReady", "False", "OtherRequest").await;
    assert!(words.contains("older request") && words.contains("the last good one is still served"), "{words}");
    assert_eq!((end(&registry).await, registry.tls().at("/data").await), (second.clone(), leaf));
    let renewal = registry.child("ConfigMap", "-csr").at("/data/tls.csr").await.as_str().unwrap().to_owned();
    brings(&team, "team-a", &company.signs(&renewal, DAY)).await;
    registry.says("CertificateReady", "True", "Valid").await;
    registry.object.becomes(PATIENCE, "serves it", |live| live["status"]["certificate"]["notAfter"] != second).await;

    // Without its request it goes on, and nobody has to sign again.
    let (key, uid) = (registry.tls().at("/data/tls.key").await, registry.child("Secret", "-csr").uid().await);
    team.settles().await;
    registry.child("Secret", "-csr").delete().await;
    registry.child("Secret", "-csr").is_made_again(&uid, PATIENCE).await;
    assert_eq!(registry.child("Secret", "-csr").at("/data/tls.key").await, key);
    registry.says("CertificateReady", "True", "Valid").await;

    // Its key is nowhere else, and goes with the registry.
    registry.delete().await;
    registry.child("Secret", "-csr").disappears(crate::wait::GARBAGE).await;
}
