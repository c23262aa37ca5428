//! `cargo xtask demo`, as a newcomer runs it.

mod support;

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use support::State;
use testbed::{Family, Mode, Progress, Tools, skip, traces::Traces};

/// What it says while it goes on, in this order: one line a step, and what the step has shown.
const STORY: [&str; 13] = [
    "helm install: the definition's chart, then the operator's (",
    "kubectl apply -f deploy/examples/quickstart.yaml (",
    "ready, at ",
    "push an image with three layers as team-a.registries.svc:5000/shop/hello:1 (",
    "over TLS, with the generated login: sha256:",
    "without a login:       401 Unauthorized",
    "without the authority: x509: certificate signed by unknown authority",
    "whose image the kubelet pulls with the Secret team-a-pull (",
    "certs.d/team-a.registries.svc:5000/hosts.toml, written just now",
    "kill the registry (",
    "its process was started again, and every layer of the image is still there",
    "What you could do next:",
    "cargo xtask demo --down",
];

/// Runs a chore; gives everything that it said, the progress first.
fn xtask(state: &State, arguments: &[&str]) -> Result<String> {
    let Output { status, stdout, stderr } = state.xtask(arguments).env_remove("KUBECONFIG").output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&stdout));
    ensure!(status.success(), "{arguments:?}: {said}");
    Ok(said)
}

#[test]
fn the_demo_shows_all_that_it_promises_and_goes_on_until_it_is_taken_down() -> Result<()> {
    if skip(Mode::Node) {
        return Ok(());
    }
    let before = Traces::of_machine("none");
    let state = State::new()?;
    let said = xtask(&state, &["demo"])?;
    STORY.iter().try_fold(said.as_str(), |rest, expected| {
        let (_, rest) = rest.split_once(expected).with_context(|| format!("{expected:?} was to come next: {said}"))?;
        anyhow::Ok(rest)
    })?;

    let (_, kubeconfig) = said.split_once("export KUBECONFIG=").context("the kubeconfig")?;
    let kubeconfig = Path::new(kubeconfig.lines().next().unwrap_or_default());
    let id = kubeconfig.parent().and_then(Path::file_name).context("the cluster's folder")?.to_string_lossy();
    let tools = Tools::ensure(&[Family::Kubectl], &Progress::silent())?;
    let mut kubectl = Command::new(tools.path("kubectl")?);
    kubectl.arg("--kubeconfig").arg(kubeconfig).args(["--namespace", "registries"]);
    let waited = kubectl.args(["wait", "privateregistry/team-a", "--for=condition=Ready", "--timeout=60s"]).output()?;
    ensure!(waited.status.success(), "{waited:?}");

    ensure!(xtask(&state, &["demo", "--down"])?.contains("ended "), "it is to say what it ended");
    ensure!(xtask(&state, &["cluster", "status"])?.contains("nothing is running"), "it is still there");
    ensure!(xtask(&state, &["demo", "--down"])?.contains("no demo of this checkout is running"), "a second time");
    let left = Traces::left(&id, &before, Duration::from_secs(5));
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}
