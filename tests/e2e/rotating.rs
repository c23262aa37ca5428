//! A robot whose password the operator makes: it pulls and pushes all the time, and notices nothing when one login takes over from another.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{cluster, wait};
use crate::place::no_frontend;
use crate::registry::{Registry, restarts};

const SECRET: &str = "team-a-login-robot";
/// How long a client goes on with a login that it has read. The overlap is a minute.
const READ_AGAIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn nobody_who_pulls_and_pushes_notices_that_his_login_changes() {
    let Some(cluster) = cluster().await else { return };
    let spec = json!({"auth": {"users": [robot()]}, "pullSecrets": [{"user": "robot"}]});
    let registry = cluster.registry("rotating", "team-a", spec).await.ready().await;
    takes_turns(&registry, ["robot", "robot.2", "robot"]).await;
}

#[tokio::test]
async fn with_tokens_nobody_notices_and_the_name_stays() {
    let Some(cluster) = cluster().await else { return };
    if no_frontend().is_some_and(testbed::skip_because) {
        return;
    }
    let rules = json!([{"users": ["robot"], "repositories": ["app"], "actions": ["pull", "push"]}]);
    let auth = json!({"users": [robot()], "token": {"rules": rules}});
    let spec = json!({"auth": auth, "pullSecrets": [{"user": "robot"}]});
    let registry = cluster.registry("rotating-tokens", "team-a", spec).await.ready().await;
    takes_turns(&registry, ["robot"; 3]).await;
}

fn robot() -> Value {
    json!({"name": "robot", "rotation": {"every": "1h", "overlap": "1m"}})
}

/// Through two rotations.
async fn takes_turns(registry: &Registry, names: [&str; 3]) {
    let pod = registry.pod().await;
    let rotations = async {
        let mut logins = vec![shown(registry).await];
        for turn in 1..=2 {
            asks(registry, &turn.to_string()).await;
            let former = logins.last().unwrap().clone();
            wait(format!("login {turn} takes over"), async || match shown(registry).await {
                login if login != former => Ok(()),
                login => Err(login.0),
            })
            .await;
            logins.push(shown(registry).await);
            sees(registry, &former, "200").await;
            let counts = Instant::now();
            wait(format!("login {turn} is the only one"), async || {
                let secret = registry.secret(SECRET).await;
                if secret.contains_key("former-password") { Err("the former one counts".to_owned()) } else { Ok(()) }
            })
            .await;
            let counted = counts.elapsed();
            assert!(counted > Duration::from_secs(45), "the former login counted for {counted:?}");
            let ended = Instant::now();
            sees(registry, &former, "401").await;
            println!(
                "{}: the former login counted for {counted:?}, and was refused {:?} later",
                names[1],
                ended.elapsed()
            );
            sees(registry, logins.last().unwrap(), "200").await;
        }
        logins
    };
    let logins = tokio::select! {
        () = pulls_and_pushes(registry) => unreachable!(),
        logins = rotations => logins,
    };
    assert_eq!(logins.iter().map(|login| login.0.as_str()).collect::<Vec<_>>(), names);

    // A leak.
    asks(registry, "now-1").await;
    wait("a leaked login is refused", async || {
        let (now, leaked) = (shown(registry).await, logins.last().unwrap());
        let person = registry.user(&leaked.0, &leaked.1).await;
        match (now != *leaked, person.sees("/v2/").await.as_str()) {
            (true, "401") => Ok(()),
            (is_new, seen) => Err(format!("another one is shown: {is_new}; it is answered {seen}")),
        }
    })
    .await;
    sees(registry, &shown(registry).await, "200").await;
    let now = registry.pod().await;
    assert_eq!((now.metadata.uid.clone(), restarts(&now)), (pod.metadata.uid, 0), "nothing was restarted");
}

/// Without end, as whom the pull Secret names, and with a login that is up to [`READ_AGAIN`] old.
async fn pulls_and_pushes(registry: &Registry) {
    let mut rounds = 0_u32;
    loop {
        let (name, password) = pulled_with(registry).await;
        let robot = registry.user(&name, &password).await;
        let read = Instant::now();
        while read.elapsed() < READ_AGAIN {
            rounds += 1;
            robot.pushes("app:1", &format!("round {rounds}")).await;
            robot.pulls("app:1").await;
        }
        println!("{rounds} pushes and pulls as {name} so far");
    }
}

/// Waits until a login is answered so.
async fn sees(registry: &Registry, (name, password): &(String, String), wanted: &str) {
    let person = registry.user(name, password).await;
    wait(format!("{name} is answered with {wanted}"), async || match person.sees("/v2/").await {
        answer if answer == wanted => Ok(()),
        answer => Err(answer),
    })
    .await;
}

async fn shown(registry: &Registry) -> (String, String) {
    let mut secret = registry.secret(SECRET).await;
    (secret.remove("username").unwrap(), secret.remove("password").unwrap())
}

async fn pulled_with(registry: &Registry) -> (String, String) {
    let text = registry.secret("team-a-pull").await.remove(".dockerconfigjson").unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    let auth = config["auths"].as_object().unwrap().values().next().unwrap()["auth"].as_str().unwrap().to_owned();
    let login = String::from_utf8(STANDARD.decode(auth).unwrap()).unwrap();
    let (name, password) = login.split_once(':').unwrap();
    (name.to_owned(), password.to_owned())
}

async fn asks(registry: &Registry, value: &str) {
    let patch = json!({"metadata": {"annotations": {"privateregistry.dev/rotate": value}}});
    registry.own::<Secret>().patch(SECRET, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}
