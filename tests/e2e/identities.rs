//! Logins from elsewhere. The cluster's own identities: ServiceAccounts log in with their tokens, Roles say what they may do, and a kubelet pulls with them
//! without any pull Secret. And those of an issuer, whose users and groups stand in rules.

use std::time::Instant;

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::Person;
use crate::cluster::{Cluster, OPERATOR, SYSTEM, cluster, node, wait};
use crate::place::no_frontend;
use crate::registry::Registry;
use crate::terminal::Terminal;

const NAMESPACE: &str = "identities";
const ISSUERS: &str = "issuers";
const AUDIENCE: &str = "team-a.identities.svc";

/// What an administrator applies in no namespace.
async fn gives<K>(cluster: &Cluster, object: Value)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let api = Api::<K>::all(cluster.client.clone());
    api.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(object)).await.unwrap();
}

async fn account(cluster: &Cluster, name: &str, repositories: &[&str], verbs: &[&str]) {
    let metadata = json!({"name": name});
    cluster.create::<ServiceAccount>(NAMESPACE, json!({"metadata": metadata})).await;
    let rule = json!({"apiGroups": ["privateregistry.dev"], "resources": ["repositories"], "resourceNames": repositories, "verbs": verbs});
    cluster.create::<Role>(NAMESPACE, json!({"metadata": metadata, "rules": [rule]})).await;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name});
    let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE});
    let binding = json!({"metadata": metadata, "roleRef": role, "subjects": [subject]});
    cluster.create::<RoleBinding>(NAMESPACE, binding).await;
}

/// Whoever rules the namespace lets the operator make tokens of this ServiceAccount.
async fn lets_make_tokens(cluster: &Cluster, account: &str) {
    let metadata = json!({"name": "pull-tokens"});
    let rule = json!({"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [account], "verbs": ["create"]});
    cluster.create::<Role>(NAMESPACE, json!({"metadata": metadata, "rules": [rule]})).await;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pull-tokens"});
    let subject = json!({"kind": "ServiceAccount", "name": OPERATOR, "namespace": SYSTEM});
    cluster
        .create::<RoleBinding>(NAMESPACE, json!({"metadata": metadata, "roleRef": role, "subjects": [subject]}))
        .await;
}

/// What `kubectl create token ACCOUNT --audience …` prints.
async fn token(cluster: &Cluster, account: &str, audience: &str) -> String {
    token_in(cluster, NAMESPACE, account, audience).await
}

async fn token_in(cluster: &Cluster, namespace: &str, account: &str, audience: &str) -> String {
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": [audience]}})).unwrap();
    let accounts = cluster.api::<ServiceAccount>(namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await.unwrap();
    answer.status.unwrap().token.unwrap_or_default()
}

async fn person(cluster: &Cluster, registry: &Registry, account: &str) -> Person {
    registry.user("serviceaccount", &token(cluster, account, AUDIENCE).await).await
}

/// The cluster is an issuer like others: whoever has its keys can check its tokens without asking it.
#[tokio::test]
async fn an_issuers_tokens_are_logins_and_rules_say_what_they_may_do() {
    let Some(cluster) = cluster().await else { return };
    if no_frontend().is_some_and(testbed::skip_because) {
        return;
    }
    cluster.namespace(ISSUERS).await;
    cluster.create::<ServiceAccount>(ISSUERS, json!({"metadata": {"name": "pipeline"}})).await;
    let published = cluster.client.request_text(http::Request::get("/openid/v1/jwks").body(Vec::new()).unwrap()).await;
    let said = cluster
        .client
        .request_text(http::Request::get("/.well-known/openid-configuration").body(Vec::new()).unwrap())
        .await;
    let said: Value = serde_json::from_str(&said.unwrap()).unwrap();
    let issuer = json!({
        "name": "ci", "issuer": said["issuer"], "audience": "team-a.issuers.svc", "jwksConfigMapRef": {"name": "keys"},
        "claimMapping": {"user": "claims['kubernetes.io'].serviceaccount.name", "groups": "[claims['kubernetes.io'].namespace]"},
    });
    let spec = json!({
        "auth": {"token": {
            "issuers": [issuer],
            "teams": [{"name": "shop", "groups": [format!("ci:{ISSUERS}")]}],
            "rules": [
                {"teams": ["*"], "repositories": ["${team}/**"], "actions": ["pull", "push"]},
                {"users": ["*"], "repositories": ["**"], "actions": ["pull"]},
            ],
        }},
        "frontend": {"nginx": {"resources": {"requests": {"cpu": "1m", "memory": "16Mi"}}}},
    });
    // It starts without the keys, and everybody else logs in.
    let registry = cluster.another(ISSUERS, "team-a", spec).await.ready().await;
    registry.admin().await.pushes("other/app:1", "of the admin").await;
    let brought = token_in(&cluster, ISSUERS, "pipeline", "team-a.issuers.svc").await;
    let pipeline = registry.user("pipeline", &brought).await;
    let refusal = pipeline.hears("/auth/token", &[]).await;
    assert!(refusal.contains(" 503") && refusal.contains("the keys of issuer ci are not there"), "{refusal}");
    let told = registry.condition("IdentitiesReady", "IssuerKeysMissing").await;
    assert!(told.message.contains("auth.token.issuers[0], ci: ConfigMap keys"), "{}", told.message);
    let keys = json!({"metadata": {"name": "keys"}, "data": {"jwks.json": published.unwrap()}});
    cluster.create::<ConfigMap>(ISSUERS, keys).await;
    wait("the kubelet shows the keys", async || match pipeline.sees("/auth/token").await.as_str() {
        "200" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    registry.condition("IdentitiesReady", "Accepting").await;

    let digest = pipeline.pushes("shop/web:1", "of a pipeline").await;
    assert_eq!(pipeline.pulls("shop/web:1").await, digest);
    assert!(pipeline.tries_to_pull("other/app:1").await.is_err(), "`*` is the registry's own users");
    let foreign = token_in(&cluster, ISSUERS, "pipeline", "https://elsewhere.example.com").await;
    assert_eq!(registry.user("pipeline", &foreign).await.sees("/auth/token").await, "401");
    let answer = Terminal::new(&registry)
        .sees(&["can-i", "team-a", "push", "shop/web", "--as=ci:pipeline", &format!("--as-group=ci:{ISSUERS}")])
        .await;
    assert!(answer.contains("ci:pipeline is in shop"), "{answer}");
}

#[tokio::test]
async fn service_accounts_pull_and_push_what_roles_say_and_pods_need_no_pull_secret() {
    let Some(cluster) = node("sets up a kubelet").await else { return };
    if no_frontend().is_some_and(testbed::skip_because) {
        return;
    }
    cluster.namespace(NAMESPACE).await;
    let rule = json!({"anonymous": true, "repositories": ["public/**"], "actions": ["pull"]});
    let spec = json!({
        "auth": {"token": {"kubernetes": {"audience": AUDIENCE}, "rules": [rule]}},
        "pullSecrets": [{"serviceAccountName": "reader"}],
        "frontend": {"nginx": {"resources": {"requests": {"cpu": "1m", "memory": "16Mi"}}}},
    });
    lets_make_tokens(&cluster, "reader").await;
    let registry = cluster.another(NAMESPACE, "team-a", spec).await.ready().await;
    account(&cluster, "builder", &["shop/web"], &["pull", "push"]).await;
    account(&cluster, "reader", &["shop/web"], &["pull"]).await;

    // Until an administrator lets it ask the cluster it says so, and everybody else goes on.
    let builder = person(&cluster, &registry, "builder").await;
    let refusal = builder.hears("/auth/token?scope=repository:shop/web:pull", &[]).await;
    assert!(refusal.contains("503") && refusal.contains("system:auth-delegator"), "{refusal}");
    let doctor = Terminal::new(&registry).asks(&["doctor", "team-a", "-o", "short"]).await.out;
    assert!(doctor.contains("may not create tokenreviews and subjectaccessreviews"), "{doctor}");
    let told = registry.condition("IdentitiesReady", "ClusterForbids").await;
    assert!(told.message.contains("system:auth-delegator --serviceaccount=identities:team-a"), "{}", told.message);
    registry.condition("Ready", "Settled").await;
    registry.admin().await.pushes("public/app:1", "for everybody").await;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"});
    let subject = json!({"kind": "ServiceAccount", "name": "team-a", "namespace": NAMESPACE});
    let kind = json!("ClusterRoleBinding");
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "identities-team-a"}, "roleRef": role, "subjects": [subject]});
    gives::<ClusterRoleBinding>(&cluster, binding).await;
    wait("the registry may ask the cluster", async || {
        let answer = builder.hears("/auth/token?scope=repository:shop/web:pull", &[]).await;
        if answer.contains(" 200") { Ok(()) } else { Err(answer) }
    })
    .await;
    registry.condition("IdentitiesReady", "Accepting").await;

    let digest = builder.pushes("shop/web:1", "of the shop").await;
    let image = testbed::image::test_client(&crate::place::program("pause"), "unused/name:1", "pushed by who may not");
    assert!(builder.tries_to_push("shop/other:1", &image).await.is_err());
    let reader = person(&cluster, &registry, "reader").await;
    assert_eq!(reader.pulls("shop/web:1").await, digest);
    assert!(reader.tries_to_push("shop/web:2", &image).await.is_err());
    // Rules and Roles are two things: nobody has both.
    assert_eq!(reader.sees("/v2/shop/web/tags/list").await, "200");
    assert_eq!(reader.sees("/v2/_catalog").await, "401");
    let foreign = token(&cluster, "builder", "https://elsewhere.example.com").await;
    let foreign = registry.user("serviceaccount", &foreign).await;
    let refusal = foreign.hears("/auth/token", &[]).await;
    assert!(refusal.contains(" 401") && refusal.contains(AUDIENCE), "{refusal}");

    // The kubelet may ask for such tokens, and the provider hands them on.
    let rule = json!({"apiGroups": [""], "resources": [AUDIENCE], "verbs": ["request-serviceaccounts-token-audience"]});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "identities-pull"}, "rules": [rule]});
    gives::<ClusterRole>(&cluster, role).await;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "identities-pull"});
    let nodes = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": "identities-pull"}, "roleRef": role, "subjects": [nodes]});
    gives::<ClusterRoleBinding>(&cluster, binding).await;
    registry.trusted_by_the_node(&registry.bundle().await).await;
    // The operator is refused until the account is there, and tries again.
    wait("the pull Secret is there", async || {
        let told = registry.status().await.condition("PullSecretsCopied").cloned();
        let there = cluster.api::<Secret>(NAMESPACE).get_opt("team-a-pull").await;
        if matches!(there, Ok(Some(_))) { Ok(()) } else { Err(format!("{there:?}, {told:?}")) }
    })
    .await;
    for (name, account, secrets) in [
        ("as-reader", "reader", json!([])),
        ("as-default", "default", json!([])),
        ("as-default-with-its-token", "default", json!([{"name": "team-a-pull"}])),
    ] {
        let confined = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        let container = json!({"name": "main", "image": format!("{}/shop/web:1", registry.host()), "imagePullPolicy": "Always", "securityContext": confined});
        let spec = json!({"serviceAccountName": account, "imagePullSecrets": secrets, "terminationGracePeriodSeconds": 1, "containers": [container]});
        cluster.create::<Pod>(NAMESPACE, json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    registry.started("as-reader").await;
    registry.started("as-default-with-its-token").await;
    registry.is_refused("as-default", "authorization failed").await;

    let terminal = Terminal::new(&registry);
    for (verb, account, code, said) in [
        ("push", "builder", 0, "RoleBinding \"builder/identities\""),
        ("push", "reader", 1, "lets system:serviceaccount:identities:reader push"),
    ] {
        let who = format!("--as=system:serviceaccount:{NAMESPACE}:{account}");
        let answer = terminal.asks(&["can-i", "team-a", verb, "shop/web", &who]).await;
        assert_eq!(answer.code, Some(code), "{}{}", answer.out, answer.err);
        assert!(answer.out.contains(said), "{}", answer.out);
    }

    // A right that is taken ends with the cluster's answers, although the registry's own token still holds.
    let bindings = cluster.api::<RoleBinding>(NAMESPACE);
    bindings.delete("reader", &DeleteParams::default()).await.unwrap();
    let taken = Instant::now();
    wait("whoever lost a role is out", async || match reader.sees("/v2/shop/web/tags/list").await.as_str() {
        "401" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    println!("a role that was taken counted no more after {:?}", taken.elapsed());

    let log = registry.log_of(&registry.pod().await.metadata.name.unwrap(), "sidecar").await;
    assert!(log.contains("system:serviceaccount:identities:builder"), "{log}");
    assert!(!log.contains("eyJ"), "no token is in the log: {log}");
}
