//! What cannot be derived again is never replaced without being asked, and what can be is made again.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::namespace;
use crate::given::{company_ca, issue};
use crate::operator::Operator;
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually, within};

/// How many certificates a PEM text holds.
fn certificates(pem: &str) -> usize {
    pem.matches("BEGIN CERTIFICATE").count()
}

async fn bundle(registry: &Registry<'_>) -> String {
    registry.bundle().at("/data/ca.crt").await.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_deleted_authority_breaks_nobodys_trust_and_comes_back_only_on_request() {
    let Some(team) = namespace("ca-deleted").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    // A pass that is under way still has the authority, and would put it back.
    team.settles().await;
    let (leaf, old_bundle, old_authority) =
        (registry.tls().at("/data").await, bundle(&registry).await, registry.ca().decoded("tls.crt").await);

    registry.ca().delete().await;

    let advice = registry.says("CertificateReady", "False", "CaMissing").await;
    assert!(advice.contains("team-a-ca") && advice.contains("privateregistry.dev/renew=ca"), "{advice}");
    assert_eq!(registry.tls().at("/data").await, leaf, "the certificate goes on");
    assert_eq!(bundle(&registry).await, old_bundle);
    registry.ca().stays_away(Duration::from_secs(1)).await;

    registry.object.annotate("privateregistry.dev/renew", "ca").await;

    registry.says("CertificateReady", "True", "Valid").await;
    let new_authority = registry.ca().decoded("tls.crt").await;
    assert_ne!(new_authority, old_authority);
    let both = bundle(&registry).await;
    assert_eq!(certificates(&both), 2);
    assert!(both.contains(old_authority.trim()) && both.contains(new_authority.trim()), "both are trusted for now");
    registry.ready().await;
}

#[tokio::test]
async fn an_unreadable_authority_is_told_and_not_overwritten() {
    let Some(team) = namespace("ca-damaged").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    // A pass that is under way still has the authority, and would put it back.
    team.settles().await;
    let leaf = registry.tls().at("/data").await;

    registry.ca().edit(json!({"data": {"tls.key": "ZGFtYWdlZA=="}})).await;

    registry.says("CertificateReady", "False", "CaMissing").await;
    assert_eq!(registry.tls().at("/data").await, leaf);
    assert_eq!(registry.ca().decoded("tls.key").await, "damaged", "somebody may still want to repair it");
}

#[tokio::test]
async fn a_ca_whose_certificates_clients_refuse_replaces_nothing_and_a_good_one_does() {
    let Some(team) = namespace("ca-refused").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    // A pass that is under way still has the former authority, and would put it back.
    team.settles().await;
    let (leaf, trusted) = (registry.tls().at("/data").await, bundle(&registry).await);

    let for_clients =
        company_ca(|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth]);
    registry.ca().edit(json!({"data": for_clients})).await;

    let words = registry.says("CertificateReady", "False", "CaUnusable").await;
    assert!(words.contains("team-a-ca") && words.contains("Company CA") && words.contains("serverAuth"), "{words}");
    registry.says("Ready", "False", "CaUnusable").await;
    // A request does not change it, nor does it write over what somebody put there.
    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;
    team.settles().await;
    assert_eq!(registry.tls().at("/data").await, leaf, "the certificate that clients accept goes on");
    assert_eq!(bundle(&registry).await, trusted);
    assert_eq!(registry.ca().at("/data").await, for_clients);

    registry.object.edit(json!({"metadata": {"annotations": {"privateregistry.dev/renew": null}}})).await;
    let good = company_ca(|_| {});
    registry.ca().edit(json!({"data": good})).await;
    let waits = registry.says("CertificateReady", "True", "Valid").await;
    assert!(waits.contains("another CA is in ConfigMap team-a-ca-bundle"), "{waits}");
    assert_eq!(registry.tls().at("/data/tls.crt").await, leaf["tls.crt"], "clients have to learn of it first");
    registry.object.annotate("privateregistry.dev/renew", "leaf-2").await;
    registry.object.becomes(PATIENCE, "has served it", |live| live["status"]["handledRenewRequest"] == "leaf-2").await;

    registry.says("CertificateReady", "True", "Valid").await;
    let registry = registry.ready().await;
    assert_ne!(registry.tls().at("/data/tls.crt").await, leaf["tls.crt"]);
    assert_eq!(registry.ca().at("/data").await, good);
    let both = bundle(&registry).await;
    assert!(both.contains(registry.ca().decoded("tls.crt").await.replace('\r', "").trim()), "{both}");
    assert!(both.contains(trusted.trim()), "the former one is trusted for now");
}

#[tokio::test]
async fn a_deleted_admin_password_is_replaced_and_the_table_follows() {
    let Some(team) = namespace("admin-deleted").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let old = registry.admin().decoded("password").await;
    let uid = registry.admin().uid().await;

    registry.admin().delete().await;

    registry.admin().is_made_again(&uid, within(5)).await;
    let new = registry.admin().decoded("password").await;
    assert_ne!(new, old);
    registry.lets_in("admin", &new).await;
    assert!(!registry.knows("admin", &old).await, "the old password ends");
    eventually(PATIENCE, "NAME-pull follows", async || {
        let pull = registry.child("Secret", "-pull").decoded(".dockerconfigjson").await;
        if pull.contains(&new) { Ok(()) } else { Err("another password".to_owned()) }
    })
    .await;
    registry.ready().await;
}

#[tokio::test]
async fn a_deleted_certificate_is_issued_again_by_the_same_authority() {
    let Some(team) = namespace("tls-deleted").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let (authority, trusted) = (registry.ca().at("/data").await, bundle(&registry).await);
    let uid = registry.tls().uid().await;

    registry.tls().delete().await;

    registry.tls().is_made_again(&uid, within(5)).await;
    registry.htpasswd().delete().await;
    registry.htpasswd().appears(PATIENCE).await;
    team.settles().await;
    assert_eq!(registry.ca().at("/data").await, authority);
    assert_eq!(bundle(&registry).await, trusted);
    assert_eq!(registry.tls().decoded("ca.crt").await.trim(), trusted.trim());
    let password = registry.admin().decoded("password").await;
    registry.lets_in("admin", &password).await;
}

#[tokio::test]
async fn an_edited_certificate_is_issued_again_by_the_same_authority_and_put_back_if_it_is_edited_again() {
    let Some(team) = namespace("tls-edited").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    // A pass that is under way still has the certificate, and would put it back.
    team.settles().await;
    let (authority, trusted) = (registry.ca().at("/data").await, bundle(&registry).await);
    let foreign = issue(&["team-a.example.com"]);

    for (round, (key, value)) in [
        ("tls.crt", "damaged".to_owned()),
        ("tls.key", "damaged".to_owned()),
        ("ca.crt", "damaged".to_owned()),
        ("tls.crt", foreign.certificate),
        ("tls.key", foreign.key),
    ]
    .into_iter()
    .enumerate()
    {
        let before = registry.tls().at("/data").await;
        registry.tls().edit(json!({"data": {key: STANDARD.encode(&value)}})).await;
        registry
            .tls()
            .becomes(PATIENCE, &format!("has a good {key}"), |tls| tls["data"][key] != json!(STANDARD.encode(&value)))
            .await;
        team.settles().await;
        if round == 0 {
            assert_ne!(registry.tls().at("/data/tls.crt").await, before["tls.crt"]);
            assert_ne!(registry.tls().at("/data/tls.key").await, before["tls.key"]);
        } else {
            assert_eq!(registry.tls().at("/data").await, before, "{key}: it was written lately, so that is put back");
        }
        registry.says("CertificateReady", "True", "Valid").await;
    }
    assert_eq!(registry.ca().at("/data").await, authority);
    assert_eq!(bundle(&registry).await, trusted);
}

#[tokio::test]
async fn an_edited_table_of_users_lets_in_nobody_else() {
    let Some(team) = namespace("table-edited").await else { return };
    let _operator = team.operator().await;
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();

    for (number, table) in [
        format!("{{good}}mallory:{}\n", hash("let me in")),
        format!("admin:{}\n", hash("let me in")),
        "damaged".to_owned(),
        String::new(),
    ]
    .into_iter()
    .enumerate()
    {
        // One edit each: several would be a fight.
        let registry = team.registry(&format!("team-{number}"), json!({})).await.ready().await;
        let password = registry.admin().decoded("password").await;
        let table = table.replace("{good}", &registry.htpasswd().decoded("htpasswd").await);
        registry.htpasswd().edit(json!({"data": {"htpasswd": STANDARD.encode(&table)}})).await;
        registry
            .htpasswd()
            .becomes(PATIENCE, "is no longer as somebody wrote it", |live| {
                live["data"]["htpasswd"] != json!(STANDARD.encode(&table))
            })
            .await;
        registry.lets_in("admin", &password).await;
        for user in ["mallory", "admin"] {
            assert!(!registry.knows(user, "let me in").await, "{user}: {table}");
        }
    }
}

#[tokio::test]
async fn an_edited_admin_password_counts_if_it_can_be_one() {
    let Some(team) = namespace("admin-edited").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let old = registry.admin().decoded("password").await;

    registry.admin().edit(json!({"data": {"password": STANDARD.encode("correct horse")}})).await;
    registry.lets_in("admin", "correct horse").await;
    assert!(!registry.knows("admin", &old).await, "the old password ends");

    registry.admin().edit(json!({"data": {"password": ""}})).await;
    let words = registry.says("UsersReady", "False", "AdminUnreadable").await;
    assert!(words.contains("team-a-admin") && words.contains("delete the Secret"), "{words}");
    assert_eq!(registry.admin().at("/data/password").await, "", "it is not written over");
    let uid = registry.admin().uid().await;
    registry.admin().delete().await;
    registry.admin().is_made_again(&uid, PATIENCE).await;
    let new = registry.admin().decoded("password").await;
    registry.lets_in("admin", &new).await;
    assert!(!registry.knows("admin", "correct horse").await);
}

#[tokio::test]
async fn a_certificate_is_renewed_once_for_each_request() {
    let Some(team) = namespace("renewed").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let authority = registry.ca().at("/data").await;
    let first = registry.tls().decoded("tls.crt").await;

    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;
    registry
        .tls()
        .becomes(PATIENCE, "is another one", |tls| {
            tls["metadata"]["annotations"]["privateregistry.dev/served-request"] == "leaf-1"
        })
        .await;
    let second = registry.tls().decoded("tls.crt").await;
    assert_ne!(second, first);
    team.settles().await;
    registry.object.annotate("example.com/other", "1").await;
    team.settles().await;

    assert_eq!(registry.tls().decoded("tls.crt").await, second, "a request that was served is not served twice");
    assert_eq!(registry.ca().at("/data").await, authority);
}

#[tokio::test]
async fn the_metric_of_a_certificates_end_is_there_while_it_is_served_and_no_longer() {
    let Some(team) = namespace("expiry").await else { return };
    let operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let end = async |operator: &Operator| operator.metric("registry_certificate_not_after_timestamp_seconds").await;
    let told = end(&operator).await;
    assert!(told > 0.0);

    registry.object.annotate("privateregistry.dev/paused", "true").await;
    registry.says("Ready", "False", "Paused").await;
    operator.stop().await;
    let operator = team.operator().await;
    eventually(PATIENCE, "a new operator tells it of a paused registry", async || {
        let now = end(&operator).await;
        if now == told { Ok(()) } else { Err(now.to_string()) }
    })
    .await;

    registry.object.annotate("privateregistry.dev/paused", Value::Null).await;
    registry.apply(json!({"tls": {"none": {}}})).await.unwrap();
    registry.ready().await;
    assert_eq!(end(&operator).await, 0.0, "plain HTTP has no certificate");
}
