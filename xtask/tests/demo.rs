//! `cargo xtask demo`, as a newcomer runs it.

mod support;

use std::{
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use support::State;
use testbed::{Family, Mode, Progress, Tools, image, skip, traces::Traces};

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

/// The same on a cluster of somebody's.
const STORY_ELSEWHERE: [&str; 6] = [
    "helm install: the definition's chart, then the operator's (",
    "over TLS, with the generated login: sha256:",
    "without the authority: x509: certificate signed by unknown authority",
    "left out: a pod that runs the image. Nodes must first trust the registry",
    "another pod serves, and every layer of the image is still there",
    "kubectl delete -f deploy/examples/quickstart.yaml",
];

/// Whether everything was said, in this order.
fn is_told(said: &str, story: &[&str]) -> Result<()> {
    let rest =
        story.iter().try_fold(said, |rest, expected| rest.split_once(expected).map(|(_, rest)| rest).ok_or(expected));
    rest.map(drop).map_err(|missing| anyhow::anyhow!("{missing:?} was to come next: {said}"))
}

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
    is_told(&said, &STORY)?;

    let (_, kubeconfig) = said.split_once("export KUBECONFIG=").context("the kubeconfig")?;
    let kubeconfig = Path::new(kubeconfig.lines().next().unwrap_or_default());
    let id = kubeconfig.parent().and_then(Path::file_name).context("the cluster's folder")?.to_string_lossy();
    the_registry_goes_on(kubeconfig)?;
    it_is_shown_on_a_cluster_that_exists(&state, kubeconfig)?;

    ensure!(xtask(&state, &["demo", "--down"])?.contains("ended "), "it is to say what it ended");
    ensure!(xtask(&state, &["cluster", "status"])?.contains("nothing is running"), "it is still there");
    ensure!(xtask(&state, &["demo", "--down"])?.contains("no demo of this checkout is running"), "a second time");
    let left = Traces::left(&id, &before, Duration::from_secs(5));
    ensure!(left.is_empty(), "{left:#?}");
    Ok(())
}

fn the_registry_goes_on(kubeconfig: &Path) -> Result<()> {
    let tools = Tools::ensure(&[Family::Kubectl], &Progress::silent())?;
    let mut kubectl = Command::new(tools.path("kubectl")?);
    kubectl.arg("--kubeconfig").arg(kubeconfig).args(["--namespace", "registries"]);
    let waited = kubectl.args(["wait", "privateregistry/team-a", "--for=condition=Ready", "--timeout=60s"]).output()?;
    ensure!(waited.status.success(), "{waited:?}");
    Ok(())
}

/// The demo's own cluster stands for somebody's: its node has the images that others would have to pull.
fn it_is_shown_on_a_cluster_that_exists(state: &State, kubeconfig: &Path) -> Result<()> {
    let copy = state.run().with_file_name("kubeconfig");
    std::fs::copy(kubeconfig, &copy)?;
    let registry = format!("registry.image={}", image::REGISTRY);
    let images = ["image.repository=demo.local/private-registry-operator", "image.tag=demo", &registry];
    let set: Vec<_> = images.iter().flat_map(|value| ["--set", *value]).collect();
    let arguments = ["demo", "--kubeconfig", copy.to_str().context("a path of text")?];
    is_told(&xtask(state, &[&arguments, set.as_slice()].concat())?, &STORY_ELSEWHERE)
}
