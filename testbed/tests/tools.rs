//! The programs are what they are called.

use std::process::Command;

use anyhow::{Result, ensure};
use testbed::{Family, Mode, Progress, Tools, skip};

fn said(tools: &Tools, program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(tools.path(program)?).args(arguments).output()?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn the_ready_made_clients_are_of_the_expected_versions() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let tools = Tools::ensure(&[Family::Kubectl, Family::Helm], &Progress::auto())?;
    for (program, arguments, expected) in
        [("kubectl", ["version", "--client"], "v1.37.1"), ("helm", ["version", "--short"], "v4.")]
    {
        let text = said(&tools, program, &arguments)?;
        ensure!(text.contains(expected), "{program} says {text}");
    }
    ensure!(tools.path("kube-apiserver").is_err(), "nobody asked for it");
    Ok(())
}

#[test]
fn one_program_of_five_names_answers_to_each() -> Result<()> {
    if skip(Mode::ControlPlane) {
        return Ok(());
    }
    let tools = Tools::ensure(Family::CONTROL_PLANE, &Progress::auto())?;
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"] {
        let text = said(&tools, name, &["--version"])?;
        ensure!(text.trim() == "Kubernetes v1.37.1", "{name} says {text}");
    }
    ensure!(said(&tools, "etcd", &["--version"])?.contains("etcd Version: 3.6"), "etcd");
    Ok(())
}

#[test]
fn what_runs_on_a_node_is_of_the_pinned_versions() -> Result<()> {
    if skip(Mode::Node) {
        return Ok(());
    }
    let tools = Tools::ensure(Family::NODE, &Progress::auto())?;
    for (program, argument, expected) in [
        ("containerd", "--version", "/v2 2.3."),
        ("ctr", "--version", "/v2 2.3."),
        ("registry", "--version", "v3.1.2"),
        ("coredns", "-version", "CoreDNS-1."),
        ("crane", "version", "v0."),
        ("portmap", "--version", "CNI portmap plugin"),
    ] {
        let text = said(&tools, program, &[argument])?;
        ensure!(text.contains(expected), "{program} says {text}");
    }
    Ok(())
}
