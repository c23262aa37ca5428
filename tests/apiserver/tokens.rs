//! What the operator makes of teams and rules, and of the keys that sign tokens, on the API server.

use serde_json::{Value, json};

use crate::cluster::namespace;
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually};

/// A registry whose users may pull everything.
fn readers() -> Value {
    json!({"rules": [{"users": ["*"], "repositories": ["**"], "actions": ["pull"]}]})
}

impl Registry<'_> {
    /// Who may do what, as the sidecar reads it.
    async fn rules(&self) -> Value {
        serde_json::from_str(&self.htpasswd().decoded("access.json").await).unwrap()
    }

    /// Which keys the registry knows.
    async fn known_keys(&self) -> Vec<String> {
        let set: Value = serde_json::from_str(&self.child("Secret", "-config").decoded("jwks.json").await).unwrap();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn rules_reach_the_sidecar_with_the_users_and_one_that_cannot_be_followed_allows_nothing() {
    let Some(team) = namespace("tokens-rules").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({"auth": {"token": readers()}})).await.ready().await;
    let rules = registry.rules().await;
    assert_eq!(
        rules,
        json!({"service": "tokens-rules/team-a", "policy": {"administrators": ["admin"], "rules": readers()["rules"]}})
    );

    team.secret("admin-login", &[("password", "not generated")]).await;
    let users = json!([{"name": "admin", "passwordSecretRef": {"name": "admin-login"}}]);
    let good = json!({"users": ["*"], "repositories": ["a/**"], "actions": ["pull"]});
    let bad = json!({"users": ["*"], "repositories": ["a**"], "actions": ["pull", "push"]});
    registry.apply(json!({"auth": {"users": users, "token": {"rules": [bad, good]}}})).await.unwrap();
    let words = registry.says("UsersReady", "False", "RuleInvalid").await;
    assert!(words.contains("spec.auth.token.rules[0]") && words.contains("a**"), "{words}");
    let policy = &registry.rules().await["policy"];
    assert_eq!(
        policy,
        &json!({"rules": [null, good]}),
        "who only has the admin's name is none, and the rule keeps its number"
    );
    registry.lets_in("admin", "not generated").await;

    registry.apply(json!({"auth": {"users": users, "token": {"rules": [good]}}})).await.unwrap();
    registry.says("UsersReady", "True", "Written").await;
    assert_eq!(registry.rules().await["policy"], json!({"rules": [good]}));
}

#[tokio::test]
async fn whose_tokens_are_logins_reaches_the_sidecar_and_one_that_cannot_be_followed_stops_no_other() {
    let Some(team) = namespace("tokens-others").await else { return };
    let _operator = team.operator().await;
    let good = json!({"name": "ci", "issuer": "https://ci.example.com", "audience": "here", "jwksConfigMapRef": {"name": "keys"}});
    let bad = json!({"name": "gitlab", "issuer": "https://gitlab.example.com", "audience": "here", "claimMapping": {"user": "claims."}});
    let rule = json!({"users": ["ci:one", "other:two"], "repositories": ["a"], "actions": ["pull"]});
    let teams = json!([{"name": "red", "groups": ["ci:all"]}]);
    let mut token =
        json!({"issuers": [good, bad], "teams": teams, "kubernetes": {"audience": "here"}, "rules": [rule]});
    let registry = team.registry("team-a", json!({"auth": {"token": token}})).await;
    let words = registry.says("UsersReady", "False", "IssuerUnknown").await;
    assert!(words.contains("other:two"), "{words}");
    token["rules"][0]["users"] = json!(["ci:one"]);
    registry.apply(json!({"auth": {"token": token}})).await.unwrap();
    let words = registry.says("UsersReady", "False", "IssuerInvalid").await;
    assert!(words.contains("gitlab: claimMapping.user"), "{words}");
    let rules = registry.rules().await;
    let issuer = json!({"name": "ci", "url": "https://ci.example.com", "audience": "here", "user": "claims.sub", "hasFile": true});
    assert_eq!(rules["issuers"], json!([issuer]));
    assert_eq!(rules["cluster"], json!({"audience": "here", "namespace": "tokens-others"}));
    assert_eq!(rules["policy"]["groups"], json!({"red": ["ci:all"]}));
    // Taken back, nothing of it is left, and the pods' ServiceAccount has no token.
    token = json!({"rules": [{"users": ["*"], "repositories": ["a"], "actions": ["pull"]}]});
    registry.apply(json!({"auth": {"token": token}})).await.unwrap();
    registry.says("UsersReady", "True", "Written").await;
    let rules = registry.rules().await;
    assert!(rules.get("issuers").is_none() && rules.get("cluster").is_none(), "{rules}");
    eventually(PATIENCE, "the pod has no access to the API server", async || {
        let volumes = registry.deployment().at("/spec/template/spec/volumes").await.to_string();
        if volumes.contains("serviceAccountToken") { Err(volumes) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_pod_with_tokens_that_cannot_be_replaced_yet_still_learns_who_is_out() {
    let Some(team) = namespace("tokens-left").await else { return };
    let _operator = team.operator().await;
    team.secret("many", &[("ann", "of Ann's login"), ("ben", "of Ben's login")]).await;
    let users = json!([{"secretRef": {"name": "many"}}]);
    let registry =
        team.registry("team-a", json!({"auth": {"usersFrom": users, "token": readers()}})).await.ready().await;
    let (keys, runs) = (registry.child("Secret", "-token"), registry.deployment().at("/spec").await);

    team.secret("many", &[("ann", "of Ann's login")]).await;
    registry.apply(json!({"auth": {"usersFrom": users}, "extraConfig": {"http": {}}})).await.unwrap();
    registry.says("Ready", "False", "InvalidManifest").await;
    eventually(PATIENCE, "the removed user is out of the table", async || {
        let table = registry.htpasswd().decoded("htpasswd").await;
        if table.contains("ben:") { Err("he is in it".to_owned()) } else { Ok(()) }
    })
    .await;
    assert_eq!(registry.deployment().at("/spec").await, runs);
    let rules = registry.rules().await;
    assert_eq!(rules["policy"]["rules"][0]["users"], json!(["*"]), "what the manifest says now: {rules}");
    assert!(keys.find().await.is_some(), "the pod still signs with it");

    registry.apply(json!({"auth": {"usersFrom": users}})).await.unwrap();
    keys.disappears(PATIENCE).await;
    let config = registry.child("Secret", "-config").decoded("config.yml").await;
    assert!(config.contains("htpasswd:") && !config.contains("token:"), "{config}");
}

#[tokio::test]
async fn keys_of_tokens_are_kept_while_they_can_be_read_and_made_anew_when_they_cannot() {
    let Some(team) = namespace("tokens-keys").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({"auth": {"token": readers()}})).await.ready().await;
    let keys = registry.child("Secret", "-token");
    let (first, known) = (keys.at("/data").await, registry.known_keys().await);
    assert_eq!(known.len(), 2, "the one that signs, and the next");

    registry.apply(json!({"auth": {"token": readers()}, "config": {"logLevel": "debug"}})).await.unwrap();
    registry.says("Ready", "True", "").await;
    assert_eq!((keys.at("/data").await, registry.known_keys().await), (first.clone(), known.clone()));

    keys.delete().await;
    eventually(PATIENCE, "other keys are published", async || {
        let now = registry.known_keys().await;
        if now.iter().any(|key| known.contains(key)) { Err(format!("{now:?}")) } else { Ok(()) }
    })
    .await;
    assert_ne!(keys.at("/data/signing.key").await, first["signing.key"]);
    keys.edit(json!({"data": {"next.key": "bm8ga2V5"}})).await;
    eventually(PATIENCE, "a key that is none is put right", async || {
        let next = keys.decoded("next.key").await;
        if next.contains("PRIVATE KEY") { Ok(()) } else { Err(next) }
    })
    .await;
}

#[tokio::test]
async fn somebody_elses_secret_signs_nothing() {
    let Some(team) = namespace("tokens-foreign").await else { return };
    let _operator = team.operator().await;
    team.secret("team-a-token", &[("signing.key", "theirs")]).await;
    let registry = team.registry("team-a", json!({"auth": {"token": readers()}})).await;
    let words = registry.says("UsersReady", "False", "NotOurs").await;
    assert!(words.contains("team-a-token"), "{words}");
    assert!(registry.deployment().find().await.is_none(), "nothing runs that could give no token");
    assert_eq!(registry.child("Secret", "-token").decoded("signing.key").await, "theirs");
}
