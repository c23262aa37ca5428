//! A registry whose clients get tokens: teams, rules, and who is out when they change.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Person;
use crate::cluster::{Cluster, cluster, node, wait};
use crate::place::no_frontend;
use crate::registry::{Registry, restarts};

fn rules() -> Value {
    json!([
        {"teams": ["*"], "repositories": ["${team}/**"], "actions": ["pull", "push"]},
        {"users": ["*"], "repositories": ["shared/**"], "actions": ["pull"]},
        {"users": ["keeper"], "repositories": ["shared/**", "public/**"], "actions": ["pull", "push", "delete"]},
        {"anonymous": true, "repositories": ["public/**"], "actions": ["pull"]},
        {"users": ["robot"], "repositories": ["**"], "actions": ["pull", "catalog"]},
    ])
}

fn auth(users: &[&str], red: &[&str]) -> Value {
    let user = |name: &&str| json!({"name": name, "passwordSecretRef": {"name": "people", "key": name}});
    let users: Vec<_> = users.iter().map(user).collect();
    let teams = json!([{"name": "red", "users": red}, {"name": "blue", "users": ["ben"]}]);
    json!({"users": users, "token": {"teams": teams, "rules": rules()}})
}

const EVERYBODY: [&str; 4] = ["ann", "ben", "keeper", "robot"];

/// A registry with a few people; `None`, said aloud, where there can be none.
async fn company(cluster: &Cluster, namespace: &str, mut spec: Value) -> Option<Registry> {
    if no_frontend().is_some_and(testbed::skip_because) {
        return None;
    }
    cluster.namespace(namespace).await;
    let passwords = EVERYBODY.map(|name| (name, format!("password of {name}")));
    let passwords = passwords.each_ref().map(|(name, password)| (*name, password.as_str()));
    cluster.secret(namespace, "people", &passwords).await;
    spec["auth"] = auth(&EVERYBODY, &["ann"]);
    spec["frontend"]["nginx"]["resources"] = json!({"requests": {"cpu": "1m", "memory": "16Mi"}});
    Some(cluster.another(namespace, "team-a", spec).await.ready().await)
}

async fn person(registry: &Registry, name: &str) -> Person {
    registry.user(name, &format!("password of {name}")).await
}

#[tokio::test]
async fn everybody_has_what_the_rules_say_and_nothing_else() {
    let Some(cluster) = node("makes the node trust a registry").await else { return };
    let spec = json!({"pullSecrets": [{"user": "robot"}]});
    let Some(registry) = company(&cluster, "tokens", spec).await else { return };
    let [ann, ben] = [person(&registry, "ann").await, person(&registry, "ben").await];
    let (keeper, stranger) = (person(&registry, "keeper").await, registry.stranger().await);
    let robot = person(&registry, "robot").await;

    let digest = ann.pushes("red/app:1", "of the red team").await;
    keeper.pushes("public/app:1", "for everybody").await;
    keeper.pushes("shared/base:1", "for whoever has logged in").await;
    ben.pushes("blue/secret:1", "of the blue team").await;
    for (who, name) in [
        (&ann, "red/app:1"),
        (&robot, "red/app:1"),
        (&robot, "blue/secret:1"),
        (&ben, "shared/base:1"),
        (&ben, "public/app:1"),
        (&stranger, "public/app:1"),
    ] {
        who.pulls(name).await;
    }
    for (who, name) in
        [(&ben, "red/app:1"), (&ann, "blue/secret:1"), (&stranger, "red/app:1"), (&stranger, "shared/base:1")]
    {
        let refusal = who.tries_to_pull(name).await.unwrap_err();
        assert!(
            refusal.contains("UNAUTHORIZED") || refusal.contains("DENIED") || refusal.contains("401"),
            "{name}: {refusal}"
        );
    }
    let image = testbed::image::test_client(&crate::place::program("pause"), "unused/name:1", "pushed by who may not");
    for (who, name) in
        [(&ben, "red/app:2"), (&robot, "red/app:2"), (&ann, "shared/base:2"), (&stranger, "public/app:2")]
    {
        assert!(who.tries_to_push(name, &image).await.is_err(), "{name}");
    }
    assert!(ann.tries_to_delete(&format!("red/app@{digest}")).await.is_err());

    // A password does what a token does; a mount of what may not be read is an upload, and nobody's push fails for it.
    let layer = |text: &str| {
        let manifest: Value = serde_json::from_str(text).unwrap();
        // The first one is the same program in all of them.
        manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned()
    };
    let accept = ["--header", "Accept: application/vnd.oci.image.manifest.v1+json"];
    let [theirs, ours] = [
        layer(&ben.curls("/v2/blue/secret/manifests/1", &accept).await),
        layer(&ben.curls("/v2/shared/base/manifests/1", &accept).await),
    ];
    for (from, blob, code) in
        [("shared/base", &ours, "201"), ("blue/secret", &theirs, "202"), ("no/such", &ours, "202")]
    {
        let path = format!("/v2/red/app/blobs/uploads/?mount={blob}&from={from}");
        assert_eq!(ann.sees_with(&["--data", ""], &path).await, code, "{from}");
    }
    // A form says the same to the registry as a query does.
    let form = format!("mount={theirs}&from=blue/secret");
    assert_eq!(ann.sees_with(&["--data", &form], "/v2/red/app/blobs/uploads/").await, "202");
    for (who, path, code) in [
        (&ann, "/v2/".to_owned(), "200"),
        (&stranger, "/v2/".to_owned(), "401"),
        (&ann, "/v2/_catalog".to_owned(), "401"),
        (&robot, "/v2/_catalog".to_owned(), "200"),
        (&ann, "/v2/blue/secret/tags/list".to_owned(), "401"),
        (&ann, format!("/v2/blue/secret/blobs/{theirs}"), "401"),
        (&ben, format!("/v2/blue/secret/blobs/{theirs}"), "200"),
        (&ann, format!("/v2/red/app/blobs/{theirs}"), "404"),
    ] {
        assert_eq!(who.sees(&path).await, code, "{path}");
    }
    let answer = stranger.hears("/v2/red/app/manifests/1", &[]).await.to_lowercase();
    let realm =
        format!("www-authenticate: bearer realm=\"https://{}/auth/token\",service=\"tokens/team-a\"", registry.host());
    assert_eq!(answer.matches(&realm).count(), 1, "{answer}");
    assert!(answer.contains("scope=\"repository:red/app:pull\"") && answer.contains("unauthorized"), "{answer}");
    let answer = stranger.hears(&format!("/v2/red/app/blobs/{ours}"), &[]).await.to_lowercase();
    assert_eq!(answer.matches("www-authenticate: bearer ").count(), 1, "{answer}");

    registry.trusted_by_the_node(&registry.bundle().await).await;
    registry.runs("by-a-robot", "red/app:1", Some("team-a-pull")).await;
    registry.runs("by-nobody", "public/app:1", None).await;
    registry.started("by-a-robot").await;
    registry.started("by-nobody").await;
    let log = registry.log_of(&registry.pod().await.metadata.name.unwrap(), "sidecar").await;
    assert!(log.contains("\"audit\":\"token\"") && log.contains("\"user\":\"robot\""), "{log}");
    assert!(!log.contains("password of"), "{log}");
}

#[tokio::test]
async fn who_is_removed_is_out_although_his_token_has_not_ended() {
    let Some(cluster) = cluster().await else { return };
    let Some(registry) = company(&cluster, "tokens-removed", json!({})).await else { return };
    let [ann, ben] = [person(&registry, "ann").await, person(&registry, "ben").await];
    ann.pushes("red/app:1", "of the red team").await;
    ben.pushes("blue/app:1", "of the blue team").await;
    let pod = registry.pod().await;
    let bearer = async |who: &Person, scope: &str| {
        let query = format!("/auth/token?service=tokens-removed/team-a&scope={scope}");
        let token: Value = serde_json::from_str(&who.curls(&query, &[]).await).unwrap();
        format!("Authorization: Bearer {}", token["token"].as_str().unwrap())
    };
    let of_ann = bearer(&ann, "repository:red/app:pull,push").await;
    let of_ben = bearer(&ben, "repository:blue/app:pull").await;
    let stranger = registry.stranger().await;
    let [red, blue] = ["/v2/red/app/tags/list", "/v2/blue/app/tags/list"];
    let sees = async |token: &str, path: &str| stranger.sees_with(&["--header", token], path).await;
    assert_eq!([sees(&of_ann, red).await, sees(&of_ben, blue).await], ["200", "200"]);

    // Out of her team, with the same token.
    registry.change(json!({"auth": auth(&EVERYBODY, &[])})).await;
    let removed = Instant::now();
    wait("a token of a former member is refused", async || match sees(&of_ann, red).await {
        code if code == "401" => Ok(()),
        code => Err(code),
    })
    .await;
    let from_the_team = removed.elapsed();
    // However the path is written.
    for path in [
        "/v2/red/ap%70/tags/list",
        "/v2/red%2fapp/tags/list",
        "/v2/red/app/tag%73/list",
        "/v2/red/app/tags/list?\u{e9}",
    ] {
        assert_eq!(sees(&of_ann, path).await, "401", "{path}");
    }
    registry.change(json!({"auth": auth(&["ann", "keeper"], &["ann"])})).await;
    let removed = Instant::now();
    wait("a token of a removed user is refused", async || match sees(&of_ben, blue).await {
        code if code == "401" => Ok(()),
        code => Err(code),
    })
    .await;
    let from_the_table = removed.elapsed();
    println!("out of the team after {from_the_team:?}, out of the table after {from_the_table:?}");
    // Other tests share this machine, so the limit is wide.
    assert!(from_the_team.max(from_the_table) < Duration::from_secs(5));
    assert_eq!(sees(&of_ann, red).await, "200", "and back in");
    let now = registry.pod().await;
    assert_eq!((now.metadata.uid.clone(), restarts(&now)), (pod.metadata.uid.clone(), 0), "nothing was restarted");

    // From tokens to plain logins and back: the images stay, and everybody has everything in between.
    let mut plain = auth(&EVERYBODY, &["ann"]);
    plain["token"] = json!(null);
    registry.change(json!({"auth": plain})).await;
    let plain_pod = registry.successor_of(&pod).await;
    registry.is("Settled").await;
    ann.pulls("blue/app:1").await;
    registry.change(json!({"auth": auth(&EVERYBODY, &["ann"])})).await;
    registry.successor_of(&plain_pod).await;
    registry.is("Settled").await;
    ann.pulls("red/app:1").await;
    assert!(ann.tries_to_pull("blue/app:1").await.is_err());
}
