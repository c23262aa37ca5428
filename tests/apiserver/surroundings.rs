//! When the operator can't work it says why, in words and once, and goes on trying instead of ending again and again.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kube::api::PostParams;
use private_registry_operator::api;
use serde_json::json;
use testbed::{ControlPlane, Options};

use crate::cluster::{Cluster, namespace};
use crate::object::Object;
use crate::operator::{Operator, PROGRAM};
use crate::wait::{PATIENCE, always, within};

impl Operator {
    /// It runs, is alive, and is not ready, for a while.
    async fn waits_and_lives(&self) {
        always(Duration::from_secs(4), "it goes on trying", async || {
            self.process.check().map_err(|error| format!("{error:#}"))?;
            match (self.get("/healthz").await, self.get("/readyz").await) {
                (Ok((200, _)), Ok((503, _))) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

/// Exit code and standard error of `run` with these arguments.
fn run(arguments: &[&str], kubeconfig: &Path) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM)
        .arg("run")
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn what_can_never_work_ends_at_once_and_names_what_to_correct() {
    let Some(team) = namespace("flags").await else { return };
    let good = team.credentials().await;
    let cases: [(&[&str], &Path, &str); 7] = [
        (&["--no-such-flag"], good, "--no-such-flag"),
        (&["--concurrency", "0"], good, "--concurrency"),
        (&["--listen", "nonsense"], good, "--listen"),
        (&["--log-level", "loud"], good, "--log-level"),
        (&["--lease-duration", "5s"], good, "--lease-renew-deadline"),
        (&["--listen", "127.0.0.1:0"], Path::new("/nonexistent/kubeconfig"), "/nonexistent/kubeconfig"),
        (&["--listen", "127.0.0.1:0", "--context", "absent"], good, "absent"),
    ];
    for (arguments, kubeconfig, words) in cases {
        let (code, text) = run(arguments, kubeconfig);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(words) && text.lines().count() <= 12, "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[tokio::test]
async fn an_api_server_that_cannot_be_reached_is_told_and_waited_for() {
    let Some(team) = namespace("unreachable").await else { return };
    let line = team.line().await;
    line.cut();
    let operator = team.operator_as(&line.kubeconfig, &[], &[]);

    operator.readiness_says("can't be reached").await;
    operator.waits_and_lives().await;
    let lines = operator.log().lines().count();
    assert!(lines < 60, "{lines} lines of log in four seconds:\n{}", operator.log());

    line.mend();
    operator.ready().await;
    team.registry("team-a", json!({})).await.ready().await;
}

#[tokio::test]
async fn a_token_that_has_ended_is_told() {
    let Some(team) = namespace("token").await else { return };
    team.credentials().await;
    team.second_account("ending").await;
    let credentials = team.credentials_of("ending", 600).await;
    team.object("ServiceAccount", "ending").delete().await;

    let operator = team.operator_as(&credentials, &[], &[]);

    operator.readiness_says("401").await;
    operator.waits_and_lives().await;
    assert!(
        !operator
            .log()
            .contains(std::fs::read_to_string(&credentials).unwrap().split("token: ").nth(1).unwrap().trim())
    );
}

#[tokio::test]
async fn rights_that_are_missing_are_listed_and_counted_when_they_come() {
    let Some(team) = namespace("no-rights").await else { return };
    let credentials = team.credentials().await.to_owned();
    let role = team.object("Role", "operator-private-registry-operator");
    let rules = role.at("/rules").await;
    let mut fewer = rules.clone();
    fewer.as_array_mut().unwrap().retain(|rule| !rule["resources"].as_array().unwrap().contains(&json!("secrets")));
    role.edit(json!({"rules": fewer})).await;

    let operator = team.operator_as(&credentials, &[], &[]);

    let words = operator.readiness_says("rights: missing").await;
    assert!(words.contains("secrets") && words.contains("in no-rights"), "{words}");
    operator.waits_and_lives().await;

    role.edit(json!({"rules": rules})).await;
    operator.ready().await;
    team.registry("team-a", json!({})).await.ready().await;
}

#[tokio::test]
async fn a_namespace_that_may_not_be_looked_at_keeps_no_other_one_waiting() {
    let Some(team) = namespace("one-of-two").await else { return };
    let credentials = team.credentials().await.to_owned();
    let operator = team.operator_as(&credentials, &["--watch-namespace", "gone"], &[]);
    operator.readiness_says("privateregistries.privateregistry.dev in namespace gone").await;

    let registry = team.registry("team-a", json!({})).await.ready().await;
    let uid = registry.child("Service", "").uid().await;
    registry.child("Service", "").delete().await;
    registry.child("Service", "").is_made_again(&uid, within(5)).await;

    let words = operator.readiness_says("failed   watches: ").await;
    assert!(words.contains("no right to list services in namespace gone"), "{words}");
    assert!(!words.contains("in namespace one-of-two"), "{words}");
    operator.waits_and_lives().await;
}

#[tokio::test]
async fn without_flags_a_missing_definition_is_waited_for_and_a_restart_of_the_api_server_survived() {
    // A cluster of its own: in the common one the definition is there, and its API server serves other tests.
    if testbed::skip(testbed::Mode::ControlPlane) {
        return;
    }
    let bare = ControlPlane::start(Options::default()).await.unwrap();
    let operator = Operator::from_a_shell(&bare);

    let words = operator.readiness_says("privateregistries.privateregistry.dev").await;
    assert!(words.contains("failed"), "{words}");
    operator.waits_and_lives().await;

    Cluster::install_definition(&bare.client().await.unwrap()).await;
    operator.ready().await;

    bare.kill_apiserver().unwrap();
    operator.readiness_says("failed").await;
    bare.restart_apiserver().await.unwrap();
    operator.ready().await;
    let registry = json!({
        "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": "team-a"}, "spec": {},
    });
    let registry: api::PrivateRegistry = serde_json::from_value(registry).unwrap();
    for namespace in ["default", "kube-public"] {
        let registries = kube::Api::namespaced(bare.client().await.unwrap(), namespace);
        registries.create(&PostParams::default(), &registry).await.unwrap();
    }
    for namespace in ["default", "kube-public"] {
        Object::new(bare.client().await.unwrap(), namespace, "Deployment", "team-a").appears(PATIENCE).await;
    }
}
