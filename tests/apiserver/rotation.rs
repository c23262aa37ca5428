//! One authority takes over from another: no certificate is ever stored whose authority is not published, wherever it is interrupted.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::cluster::{namespace, namespace_of_its_own_cluster};
use crate::given::company_ca;
use crate::object::Object;
use crate::registry::Registry;
use crate::wait::{PATIENCE, always, eventually, within};

fn rotating(grace: &str) -> Value {
    json!({"tls": {"privateCA": {"rotation": {"gracePeriod": grace}}}})
}

/// What the status says of each authority.
fn stages(live: &Value) -> Vec<String> {
    let authorities = live["status"]["certificate"]["authorities"].as_array();
    authorities.into_iter().flatten().map(|one| one["stage"].as_str().unwrap().to_owned()).collect()
}

async fn is_at(registry: &Registry<'_>, wanted: &[&str]) {
    registry.object.becomes(PATIENCE, &format!("is at {wanted:?}"), |live| stages(live) == wanted).await;
}

/// Looks on for as long as the other future takes: the authority of what is stored as certificate is published.
async fn never_unknown<T>(registry: &Registry<'_>, meanwhile: impl Future<Output = T>) -> T {
    let watch = async {
        loop {
            let leaf = registry.tls().decoded("tls.crt").await;
            // What is read later holds at least what was there then.
            let bundle = registry.bundle().at("/data/ca.crt").await.as_str().unwrap().to_owned();
            assert!(
                signs(&bundle, &leaf),
                "a certificate is stored whose authority is not in the bundle:\n{leaf}\n{bundle}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = watch => unreachable!(),
        done = meanwhile => done,
    }
}

fn signs(bundle: &str, leaf: &str) -> bool {
    let bundle = private_registry_operator::pki::Bundle::read(bundle);
    bundle.signing(leaf).iter().any(|(_, signs)| *signs)
}

#[tokio::test]
async fn another_authority_is_published_before_it_signs_and_the_former_one_is_retired_after_that() {
    let Some(team) = namespace("rotation-asked").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", rotating("5s")).await.ready().await;
    team.settles().await;
    let (leaf, first) = (registry.tls().at("/data/tls.crt").await, registry.ca().decoded("tls.crt").await);
    registry.object.annotate("privateregistry.dev/renew", "ca-1").await;

    let stages = async {
        is_at(&registry, &["Next", "Active"]).await;
        assert_eq!(registry.tls().at("/data/tls.crt").await, leaf, "clients have to learn of it first");
        let words = registry.says("CertificateReady", "True", "Valid").await;
        assert!(words.contains("team-a-ca-bundle and signs from"), "{words}");
        let next = registry.ca().decoded("next.crt").await;
        is_at(&registry, &["Active", "Former"]).await;
        assert_eq!(registry.ca().decoded("tls.crt").await, next);
        is_at(&registry, &["Active"]).await;
        next
    };
    let next = never_unknown(&registry, stages).await;

    assert_ne!(first, next);
    assert_eq!(registry.bundle().at("/data/ca.crt").await.as_str().unwrap(), next);
    let ca = registry.ca().get().await;
    assert!(ca["data"]["next.crt"].is_null() && ca["data"]["next.key"].is_null(), "{:?}", ca["data"]);
    assert_eq!(registry.object.at("/status/handledRenewRequest").await, "ca-1");
    let registry = registry.ready().await;
    team.settles().await;
    assert_eq!(registry.ca().at("/data").await, ca["data"], "one request makes one authority");
}

#[tokio::test]
async fn an_authority_in_wrong_hands_is_replaced_at_once() {
    let Some(team) = namespace("rotation-now").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    team.settles().await;
    let first = registry.ca().decoded("tls.crt").await;

    registry.object.annotate("privateregistry.dev/renew", "ca-now-1").await;

    registry.object.becomes(PATIENCE, "has done it", |live| live["status"]["handledRenewRequest"] == "ca-now-1").await;
    let registry = registry.ready().await;
    let (now, bundle) = (registry.ca().decoded("tls.crt").await, registry.bundle().at("/data/ca.crt").await);
    assert!(now != first && bundle == now.as_str(), "the former one is trusted no longer: {bundle}");
    assert!(signs(&now, &registry.tls().decoded("tls.crt").await));
    let words = registry.says("CertificateReady", "True", "Valid").await;
    assert!(words.contains("trusted no longer, as was asked"), "{words}");
}

/// As long as nobody can learn of the next authority, the present one goes on: also when its certificate has to be renewed.
#[tokio::test]
async fn an_authority_that_cannot_be_published_never_signs_and_holds_up_no_renewal() {
    let Some(team) = namespace("rotation-refused").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", rotating("0s")).await.ready().await;
    team.settles().await;
    let first = registry.ca().decoded("tls.crt").await;
    registry.bundle().edit(json!({"immutable": true})).await;

    registry.object.annotate("privateregistry.dev/renew", "ca-1").await;
    registry.says("CertificateReady", "False", "Immutable").await;
    let serial = registry.object.at("/status/certificate/serial").await;
    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;
    let is_renewed = |live: &Value| live["status"]["certificate"]["serial"] != serial;
    registry.object.becomes(PATIENCE, "has a new certificate", is_renewed).await;
    assert!(signs(&first, &registry.tls().decoded("tls.crt").await), "by the authority that clients know");

    registry.bundle().delete().await;
    eventually(PATIENCE, "the next authority signs", async || {
        if registry.ca().decoded("tls.crt").await == first { Err("the first one is there".to_owned()) } else { Ok(()) }
    })
    .await;
    is_at(&registry, &["Active"]).await;
    registry.ready().await;
}

/// Authorities that live a minute, certificates of twenty seconds: each takes over from the one before, and nobody asks for it.
#[tokio::test]
async fn an_authority_is_replaced_by_itself_before_its_end() {
    let Some(team) = namespace("rotation-due").await else { return };
    let short = format!("{}=20s/60s", team.name);
    let _operator = team.operator_with(&["--short-certificates-for-tests", &short]).await;
    let registry = team.registry("team-a", rotating("5s")).await.ready().await;
    let first = registry.ca().decoded("tls.crt").await;

    let limit = Duration::from_secs(90);
    let replaced = eventually(limit, "another authority signs", async || {
        let now = registry.ca().decoded("tls.crt").await;
        if now == first { Err("the first one is there".to_owned()) } else { Ok(()) }
    });
    never_unknown(&registry, replaced).await;
    let renewed = registry.object.becomes(PATIENCE, "says so", |live| stages(live).contains(&"Former".to_owned()));
    never_unknown(&registry, renewed).await;
    assert_eq!(registry.object.at("/status/certificate/reason").await, "CaChanged");
}

#[tokio::test]
async fn an_authority_of_another_namespace_signs_for_whom_its_owner_names_and_for_nobody_else() {
    let Some(team) = namespace_of_its_own_cluster("team").await else { return };
    let _operator = team.operator_of_the_cluster(&[]).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pki"}});
    let namespaces: Api<KubeNamespace> = Api::all(team.client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
    let company = Object::new(team.client.clone(), "pki", "Secret", "company");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "company"}, "data": company_ca(|_| {}),
    });
    company.api.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let spec = json!({
        "restartPolicy": {"type": "Never"}, "suspend": true,
        "tls": {"privateCA": {"caSecretRef": {"name": "company", "namespace": "pki"}}},
    });
    let registry = team.registry("team-a", spec.clone()).await;

    // What is there without a grant sounds as what is not there.
    let words = registry.says("CertificateReady", "False", "WaitingForSecret").await;
    assert!(words.contains("Secret pki/company") && words.contains("privateregistry.dev/signs-for=team"), "{words}");
    let mut nobody = spec;
    nobody["tls"]["privateCA"]["caSecretRef"]["name"] = json!("nobody");
    let other = team.registry("team-b", nobody).await;
    assert_eq!(other.says("CertificateReady", "False", "WaitingForSecret").await, words.replace("company", "nobody"));
    for strangers in ["others", "team-x, teams", ""] {
        company.annotate("privateregistry.dev/signs-for", strangers).await;
        registry.object.annotate("example.com/nudge", strangers).await;
        always(within(1), "nothing is issued", async || {
            let live = registry.object.find().await.unwrap();
            if live["status"]["certificate"].is_null() { Ok(()) } else { Err(live["status"].to_string()) }
        })
        .await;
    }

    company.annotate("privateregistry.dev/signs-for", "others, team").await;
    registry.says("CertificateReady", "True", "Valid").await;
    let authority = company.decoded("tls.crt").await;
    assert_eq!(registry.bundle().at("/data/ca.crt").await, json!(authority.replace('\r', "")));
    let leaf = registry.tls().decoded("tls.crt").await;
    assert!(signs(&authority, &leaf));

    // Who takes it back signs no more; what is served stays.
    company.annotate("privateregistry.dev/signs-for", "others").await;
    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;
    registry.says("CertificateReady", "False", "WaitingForSecret").await;
    assert_eq!(registry.tls().decoded("tls.crt").await, leaf);
    company.annotate("privateregistry.dev/signs-for", "Any").await;
    registry.says("CertificateReady", "True", "Valid").await;
    assert_ne!(registry.tls().decoded("tls.crt").await, leaf, "the request was not forgotten");
}
