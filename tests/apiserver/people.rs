//! What people do with `kubectl registry`, and an operator that follows: a command ends when what it did is in force.

use clap::Parser as _;
use kube::api::ListParams;
use kubectl_registry::Cli;
use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace};
use crate::registry::Registry;
use crate::wait::PATIENCE;

impl Namespace {
    /// Runs a command in this namespace. Whether it was done.
    async fn people(&self, arguments: &[&str]) -> bool {
        let kubeconfig = self.cluster.plane.kubeconfig().to_str().unwrap().to_owned();
        let place = ["--namespace".to_owned(), self.name.clone(), "--kubeconfig".to_owned(), kubeconfig];
        let words: Vec<_> = std::iter::once("kubectl-registry".to_owned())
            .chain(arguments.iter().map(|word| (*word).to_owned()))
            .chain(place)
            .collect();
        // It has a runtime of its own.
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || tell.send(kubectl_registry::run(Cli::parse_from(words)) == 0));
        told.await.unwrap()
    }

    async fn password(&self, secret: &str, key: &str) -> String {
        self.object("Secret", secret).decoded(key).await
    }
}

async fn pods(registry: &Registry<'_>) -> Vec<String> {
    let ours = ListParams::default().labels(&format!("privateregistry.dev/registry={}", registry.name));
    let pods = registry.namespace.object("Pod", "").api.list(&ours).await.unwrap();
    pods.items.into_iter().filter_map(|pod| pod.metadata.uid).collect()
}

#[tokio::test]
async fn users_come_change_their_password_and_go_and_each_command_ends_when_that_counts() {
    let Some(team) = namespace("people-users").await else { return };
    let _operator = team.operator().await;
    team.secret("many", &[("bob", "bob's password")]).await;
    let registry = team.registry("team-a", json!({})).await.ready().await;

    assert!(team.people(&["users", "add", "team-a", "alice", "--generate", "--yes"]).await);
    let first = team.password("team-a-user-alice", "password").await;
    assert!(registry.knows("alice", &first).await, "the command has returned, so it is so");
    assert!(!team.people(&["users", "add", "team-a", "alice", "--generate"]).await, "there is one of that name");
    assert_eq!(team.password("team-a-user-alice", "password").await, first);

    assert!(team.people(&["users", "rotate", "team-a", "alice"]).await);
    let second = team.password("team-a-user-alice", "password").await;
    assert!(registry.knows("alice", &second).await && !registry.knows("alice", &first).await);

    // Beside what stands in the manifest already, and as it is called in a Secret of many.
    let spec = json!({"auth": {"usersFrom": [{"secretRef": {"name": "many"}}]}});
    registry.object.edit(json!({"spec": spec})).await;
    registry.lets_in("bob", "bob's password").await;
    assert!(team.people(&["users", "passwd", "team-a", "bob", "--generate"]).await);
    let bobs = team.password("many", "bob").await;
    assert!(bobs != "bob's password" && registry.knows("bob", &bobs).await);
    team.secret("ready-made", &[("token", "carl's password")]).await;
    let carl = ["users", "add", "team-a", "Carl@example.com", "--from", "ready-made", "--key", "token", "--keep-admin"];
    assert!(team.people(&carl).await);
    assert!(registry.knows("Carl@example.com", "carl's password").await);

    // Nobody is removed whom the operator makes itself, nor who is not there.
    assert!(!team.people(&["users", "remove", "team-a", "admin", "--yes"]).await);
    assert!(!team.people(&["users", "remove", "team-a", "nobody", "--yes"]).await);
    for user in ["alice", "bob", "Carl@example.com"] {
        assert!(!team.people(&["users", "remove", "team-a", user]).await, "nobody said yes");
        assert!(team.people(&["users", "remove", "team-a", user, "--yes"]).await);
        let table = registry.htpasswd().decoded("htpasswd").await;
        assert!(!table.contains(&format!("{user}:")), "{user}: {table}");
    }
    assert!(team.object("Secret", "team-a-user-alice").find().await.is_none(), "it was made for her");
    assert!(team.object("Secret", "ready-made").find().await.is_some(), "it was there before");
    let auth = registry.object.at("/spec/auth").await;
    assert!(auth["users"].is_null() && auth["admin"]["generate"] == "Always", "{auth}");
    registry.says("UsersReady", "True", "Written").await;
}

#[tokio::test]
async fn whose_password_the_operator_makes_gets_the_next_one_and_with_now_no_other_counts() {
    let Some(team) = namespace("people-rotation").await else { return };
    let _operator = team.operator_with(&["--login-lead", "2s"]).await;
    let spec = json!({"auth": {"users": [{"name": "robot", "rotation": {"every": "720h"}}]}});
    let registry = team.registry("team-a", spec).await.ready().await;
    let password = || team.password("team-a-login-robot", "password");
    let first = password().await;
    assert!(team.people(&["users", "rotate", "team-a", "robot"]).await);
    let second = password().await;
    assert!(registry.knows("robot.2", &second).await, "the command has returned, so it is shown and counts");
    assert!(registry.knows("robot", &first).await, "and the former one counts, too");
    assert!(!team.people(&["users", "rotate", "team-a", "robot"]).await, "there is a former one still");
    assert!(!team.people(&["users", "passwd", "team-a", "robot", "--generate"]).await);

    assert!(team.people(&["users", "rotate", "team-a", "robot", "--now", "--yes"]).await);
    let third = password().await;
    registry.lets_in("robot.2", &third).await;
    let table = registry.htpasswd().decoded("htpasswd").await;
    assert!(third != second && table.lines().count() == 1, "{table}");
    assert!(team.people(&["users", "list", "team-a"]).await);

    assert!(team.people(&["users", "remove", "team-a", "robot", "--yes"]).await);
    assert!(!registry.knows("robot.2", &third).await);
    team.object("Secret", "team-a-login-robot").disappears(PATIENCE).await;
}

#[tokio::test]
async fn a_user_of_whom_a_line_of_htpasswd_is_known_is_removed_with_the_line_and_no_other_one() {
    let Some(team) = namespace("people-lines").await else { return };
    let _operator = team.operator().await;
    let hash = bcrypt::hash_with_result("correct horse", 4).unwrap().format_for_version(bcrypt::Version::TwoY);
    let lines = format!("# ours\nann:{hash}\nanne:{hash}\n");
    team.secret("old", &[("auth", &lines)]).await;
    let spec = json!({"auth": {"usersFrom": [{"htpasswdSecretRef": {"name": "old"}}]}});
    let registry = team.registry("team-a", spec).await.ready().await;
    assert!(!team.people(&["users", "passwd", "team-a", "ann", "--generate"]).await, "only the hash is known");
    assert!(team.people(&["users", "remove", "team-a", "ann", "--yes"]).await);
    assert_eq!(team.password("old", "auth").await, format!("# ours\nanne:{hash}\n"));
    assert!(!registry.knows("ann", "correct horse").await && registry.knows("anne", "correct horse").await);
}

#[tokio::test]
async fn a_registry_is_stopped_started_and_restarted_and_is_what_it_was() {
    let Some(team) = namespace("people-running").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let spec = registry.object.at("/spec").await;

    assert!(team.people(&["stop", "team-a"]).await);
    assert_eq!(registry.deployment().at("/spec/replicas").await, 0);
    assert!(team.people(&["stop", "team-a"]).await, "it is stopped already");
    assert!(!team.people(&["restart", "team-a"]).await, "nothing runs");
    assert!(team.people(&["start", "team-a"]).await);
    assert_eq!(registry.deployment().at("/spec/replicas").await, 1);
    assert_eq!(registry.object.at("/spec").await, spec, "as if nothing had been");

    let before = pods(&registry).await;
    assert!(team.people(&["restart", "team-a"]).await);
    let after = pods(&registry).await;
    assert!(!before.is_empty() && !after.is_empty() && !after.iter().any(|pod| before.contains(pod)), "{after:?}");
    team.settles().await;
    registry.says("Ready", "True", "").await;

    // Somebody scales to zero where that counts.
    registry.apply(json!({"restartPolicy": {"type": "UnlessStopped"}})).await.unwrap();
    registry.says("Ready", "True", "").await;
    registry.deployment().edit(json!({"spec": {"replicas": 0}})).await;
    registry.says("Ready", "True", "StoppedByUser").await;
    assert!(team.people(&["start", "team-a"]).await);
    assert_eq!(registry.deployment().at("/spec/replicas").await, 1);

    // A Job is another one afterwards.
    registry.apply(json!({"restartPolicy": {"type": "OnFailure"}})).await.unwrap();
    let job = registry.child("Job", "");
    job.appears(PATIENCE).await;
    registry.says("Ready", "True", "").await;
    let uid = job.uid().await;
    assert!(team.people(&["restart", "team-a"]).await);
    job.is_made_again(&uid, PATIENCE).await;
    assert!(!team.people(&["start", "nobody"]).await);
}

#[tokio::test]
async fn who_would_wait_for_ever_is_told_what_the_operator_says() {
    let Some(team) = namespace("people-waiting").await else { return };
    let _operator = team.operator().await;
    let wanting = json!({"auth": {"users": [{"name": "ann", "passwordSecretRef": {"name": "missing"}}]}});
    let registry = team.registry("team-a", wanting).await;
    registry.says("UsersReady", "False", "WaitingForSecret").await;
    // Another one's fault keeps nobody waiting.
    assert!(team.people(&["users", "add", "team-a", "bob", "--generate", "--yes", "--timeout", "30s"]).await);
    assert!(!team.people(&["start", "team-a", "--timeout", "2s"]).await, "the manifest wants what is not there");
    registry.object.annotate("privateregistry.dev/paused", "true").await;
    registry.says("Ready", "False", "Paused").await;
    assert!(
        team.people(&["users", "rotate", "team-a", "bob"]).await,
        "nobody waits for an operator that was told to rest"
    );
    registry.object.annotate("privateregistry.dev/paused", Value::Null).await;
    registry.lets_in("bob", &team.password("team-a-user-bob", "password").await).await;
}
