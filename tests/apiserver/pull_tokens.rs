//! Pull Secrets that hold tokens of ServiceAccounts: who lets the operator make them, for whom they are good, and when they are renewed. A cluster of its own:
//! this operator serves all of it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::TokenReview;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace_of_its_own_cluster};
use crate::object::{Object, resource};
use crate::others::Others;
use crate::wait::{PATIENCE, always, within};

const ACCEPTS: &str = "privateregistry.dev/accept-pull-secrets-from";
const COPY: &str = "lending.team-a-pull";
const AUDIENCE: &str = "team-a.lending.svc";
const LOGIN: &str = ".dockerconfigjson";

fn spec(audience: &str) -> Value {
    json!({
        "restartPolicy": {"type": "Never"}, "suspend": true, "addresses": ["registry.example.com"],
        "auth": {"token": {
            "rules": [{"users": ["admin"], "repositories": ["**"], "actions": ["pull"]}], "kubernetes": {"audience": audience},
        }},
        "pullSecrets": [
            {"serviceAccountName": "default", "namespaces": {"selector": {}}},
            {"name": "for-builds", "serviceAccountName": "builder"},
        ],
    })
}

/// What whoever rules a namespace writes, so that the operator may make tokens of this ServiceAccount.
async fn lets_make_tokens(team: &Namespace, namespace: &str, account: &str) {
    let name = json!({"name": format!("pull-tokens-{account}")});
    let subject =
        json!({"kind": "ServiceAccount", "name": "operator-private-registry-operator", "namespace": team.name});
    let group = "rbac.authorization.k8s.io/v1";
    for object in [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}),
        json!({"apiVersion": group, "kind": "Role", "metadata": name, "rules": [
            {"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [account], "verbs": ["create"]},
        ]}),
        json!({"apiVersion": group, "kind": "RoleBinding", "metadata": name, "subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": format!("pull-tokens-{account}")}}),
    ] {
        let kind = resource(object["kind"].as_str().unwrap());
        let api: Api<DynamicObject> = Api::namespaced_with(team.client.clone(), namespace, &kind);
        let name = object["metadata"]["name"].as_str().unwrap();
        api.patch(name, &PatchParams::apply("its-ruler").force(), &Patch::Apply(&object)).await.unwrap();
    }
}

fn token_in(live: &Value) -> String {
    let text = STANDARD.decode(live["data"][LOGIN].as_str().unwrap_or_default()).unwrap();
    let login: Value = serde_json::from_slice(&text).unwrap();
    login["auths"]["registry.example.com"]["password"].as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// Who the cluster says it is, asked for this audience.
async fn user_of(team: &Namespace, token: &str, audience: Option<&str>) -> Option<String> {
    let review = json!({"spec": {"token": token, "audiences": audience.map(|audience| [audience])}});
    let reviews: Api<TokenReview> = Api::all(team.client.clone());
    let answer = reviews.create(&PostParams::default(), &serde_json::from_value(review).unwrap()).await.unwrap();
    answer.status.filter(|status| status.authenticated == Some(true))?.user?.username
}

/// A login whose token lived from `issued` to `ends`, in seconds from now. Nobody signed it: a Secret's reader cannot tell.
async fn hold_a_token_of(secret: &Object, account: &str, issued: i64, ends: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({"sub": format!("system:serviceaccount:{account}"), "aud": [AUDIENCE], "iat": now + issued, "exp": now + ends});
    let token = format!("e30.{}.bm9ib2R5", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let login = json!({"auths": {"registry.example.com": {"username": "serviceaccount", "password": token}}});
    secret.edit(json!({"data": {LOGIN: STANDARD.encode(login.to_string())}})).await;
    token
}

#[tokio::test]
async fn pods_pull_with_tokens_of_their_own_namespace_that_are_good_for_this_registry_alone() {
    let Some(team) = namespace_of_its_own_cluster("lending").await else { return };
    let others = Others::new(&team, COPY);
    for name in ["apps", "tools"] {
        others.namespace(name, json!({ACCEPTS: "Any"})).await;
    }
    lets_make_tokens(&team, "lending", "default").await;
    lets_make_tokens(&team, "lending", "builder").await;
    lets_make_tokens(&team, "apps", "default").await;
    let operator = team.operator_of_the_cluster(&[]).await;
    let registry = team.registry("team-a", spec(AUDIENCE)).await;

    // Where nobody lets it be made it is missing, in words; everywhere else it is there.
    let copy = others.copy_in("apps", "Secret");
    let token = token_in(&copy.appears(PATIENCE).await);
    let words = registry.says("PullSecretsCopied", "False", "NotAllWritten").await;
    assert!(words.starts_with("3 of 4 namespaces; tools: ask for a token of ServiceAccount tools/default"), "{words}");
    assert!(words.contains("lets the operator create serviceaccounts/token for this name"), "{words}");
    registry.says("Ready", "True", "Suspended").await;
    assert_eq!(user_of(&team, &token, Some(AUDIENCE)).await.as_deref(), Some("system:serviceaccount:apps:default"));
    assert_eq!(user_of(&team, &token, None).await, None, "it is no token for the API server");
    let said = claims(&token);
    assert_eq!(
        (&said["aud"], said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap()),
        (&json!([AUDIENCE]), 14_400)
    );
    let at_home = registry.child("Secret", "-pull");
    assert_eq!(claims(&token_in(&at_home.get().await))["sub"], "system:serviceaccount:lending:default");
    let builds = team.object("Secret", "for-builds");
    assert_eq!(claims(&token_in(&builds.get().await))["sub"], "system:serviceaccount:lending:builder");
    let login = copy.decoded(LOGIN).await;
    assert!(!login.contains("\"team-a:5000\":") && login.contains("\"team-a.lending:5000\":"), "{login}");
    assert!(!operator.log().contains(&token), "it stands in no log");

    // Its ruler lets it be made.
    lets_make_tokens(&team, "tools", "default").await;
    others.copy_in("tools", "Secret").appears(within(60)).await;
    let words = registry.says("PullSecretsCopied", "True", "Written").await;
    assert_eq!(words, "4 of 4 namespaces have the login");

    // What somebody edits is put right with the token that there is; who deletes one wants another.
    copy.edit(json!({"data": {LOGIN: "eyJhdXRocyI6e319"}})).await;
    copy.becomes(within(5), "is the login again", |live| live["data"][LOGIN] != "eyJhdXRocyI6e319").await;
    assert_eq!(token_in(&copy.get().await), token);
    copy.delete().await;
    let another = token_in(&copy.appears(within(5)).await);
    assert_ne!(another, token);

    // A restart makes no token; one whose time has come, or that is of somebody else, is replaced, and one is when its time comes.
    operator.stop().await;
    let tools = others.copy_in("tools", "Secret");
    let due = hold_a_token_of(&tools, "tools:default", -7_300, 7_100).await;
    let stolen = hold_a_token_of(&builds, "lending:default", 0, 14_400).await;
    let soon = hold_a_token_of(&at_home, "lending:default", -20, 40).await;
    let mark = team.mark().await;
    let operator = team.operator_of_the_cluster(&[]).await;
    for (secret, old) in [(&tools, due), (&builds, stolen)] {
        secret.becomes(within(10), "has a new token", |live| token_in(live) != old).await;
    }
    at_home.becomes(within(30), "has a new token in time", |live| token_in(live) != soon).await;
    assert_eq!(token_in(&copy.get().await), another);
    let asked = team.asked_since(mark).await;
    let tokens = asked.iter().filter(|entry| entry.subresource == "token").count();
    assert_eq!(tokens, 3, "one each: {asked:#?}");

    // A token that would be good for others is never made, and what is there stays.
    registry.apply(spec("team-a.elsewhere.svc")).await.unwrap();
    let words = registry.says("PullSecretsCopied", "False", "InvalidManifest").await;
    assert!(words.contains(AUDIENCE), "{words}");
    always(within(2), "the copies stay", async || {
        let places = others.places("Secret").await;
        if places.len() == 2 { Ok(()) } else { Err(format!("{places:?}")) }
    })
    .await;
    registry.apply(spec(AUDIENCE)).await.unwrap();
    registry.says("PullSecretsCopied", "True", "Written").await;

    // A namespace that wants it no more, a manifest that asks for it no more.
    others.label("tools", json!({ACCEPTS: null})).await;
    tools.disappears(within(5)).await;
    let mut without = spec(AUDIENCE);
    without["pullSecrets"] = json!([]);
    registry.apply(without).await.unwrap();
    for secret in [&copy, &builds] {
        secret.disappears(within(10)).await;
    }
    registry.object.becomes(PATIENCE, "says nothing of it", |live| live["status"]["pullSecrets"].is_null()).await;
    operator.stop().await;
}
