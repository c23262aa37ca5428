//! `cargo xtask cluster`, as a person uses it.

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use support::State;
use testbed::{Mode, skip};

fn xtask(state: &State, arguments: &[&str]) -> Command {
    state.xtask(&[&["cluster"], arguments].concat())
}

fn said(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output()?;
    ensure!(status.success(), "{command:?}: {}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Ok(String::from_utf8(stdout)?)
}

/// Folders and locks of instances. The file that guards them stays.
fn left(state: &State) -> Vec<String> {
    let entries =
        fs::read_dir(state.run()).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    entries.filter(|name| name != ".guard").collect()
}

#[test]
fn a_cluster_goes_on_after_the_command_until_it_is_taken_down() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let state = State::new()?;
    let text = said(&mut xtask(&state, &["up"]))?;
    let kubeconfig = said(&mut xtask(&state, &["kubeconfig"]))?;
    ensure!(text.contains(kubeconfig.trim()) && Path::new(kubeconfig.trim()).is_file(), "{text}{kubeconfig}");
    let status = said(&mut xtask(&state, &["status"]))?;
    ensure!(status.contains("control plane") && status.contains("until `down`") && status.contains("yes"), "{status}");
    let logs = said(&mut xtask(&state, &["logs"]))?;
    ensure!(logs.lines().eq(["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]), "{logs}");
    ensure!(said(&mut xtask(&state, &["logs", "kube-apiserver"]))?.lines().count() > 10, "the log is empty");

    let started = Instant::now();
    let down = said(&mut xtask(&state, &["down"]))?;
    ensure!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    ensure!(down.starts_with("ended "), "{down}");
    ensure!(left(&state).is_empty(), "{:?}", left(&state));
    ensure!(said(&mut xtask(&state, &["status"]))?.contains("nothing is running"), "it is still there");
    ensure!(!xtask(&state, &["kubeconfig"]).output()?.status.success(), "there is no kubeconfig any more");
    Ok(())
}

#[test]
fn a_command_that_is_killed_midway_leaves_nothing() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let state = State::new()?;
    let mut up = xtask(&state, &["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let apiserver_starts =
        || left(&state).iter().any(|name| state.run().join(name).join("log/kube-apiserver.log").exists());
    wait(Duration::from_secs(60), "the API server starts", apiserver_starts)?;
    up.kill().context("kill the command")?;
    up.wait()?;
    wait(Duration::from_secs(5), "nothing is left", || left(&state).is_empty())
}

/// As after a power failure: a folder and its lock, and nobody who holds it.
#[test]
fn down_clears_what_nobody_looks_after_and_knows_no_other_names() -> Result<()> {
    let state = State::new()?;
    let run = state.run();
    fs::create_dir_all(run.join("abcdef/log"))?;
    fs::write(run.join("abcdef.lock"), "")?;
    let status = said(&mut xtask(&state, &["status"]))?;
    ensure!(status.contains("abcdef") && status.contains("left over"), "{status}");
    let down = said(&mut xtask(&state, &["down"]))?;
    ensure!(down.starts_with("ended abcdef") && left(&state).is_empty(), "{down}{:?}", left(&state));

    let unknown = xtask(&state, &["down", "abcdef"]).output()?;
    let words = String::from_utf8_lossy(&unknown.stderr);
    ensure!(!unknown.status.success() && words.contains("there is no cluster abcdef"), "{words}");
    ensure!(said(&mut xtask(&state, &["down"]))?.contains("nothing was running"), "there was nothing");
    Ok(())
}

fn wait(limit: Duration, what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !is_so() {
        ensure!(started.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
