//! `kubectl registry` as somebody meets it in a shell: what it answers, where it answers, with which exit code, and what it leaves on the
//! disk.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

mod doctor;
mod logins;
mod manifests;
mod pages;
mod trust;

use std::io::Write as _;
use std::process::{Command, Stdio};

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ask(arguments: &[&str]) -> Answer {
    told(arguments, "")
}

/// The same, with something on standard input, which is no terminal.
fn told(arguments: &[&str], input: &str) -> Answer {
    // Whoever hides what they write from others still writes files that are for everybody.
    let mut program = Command::new("/bin/sh");
    program.args(["-c", "umask 077; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kubectl-registry")]);
    // None of the machine's own settings.
    program.env_clear().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    // Who refuses a flag reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn help_shows_for_every_command_how_it_is_called() {
    let of = |command: &str| ask(&[command, "--help"]).out;
    for command in [
        "list",
        "status",
        "doctor",
        "report",
        "login",
        "logout",
        "repos",
        "tags",
        "inspect",
        "search",
        "layers",
        "diff",
        "copy",
        "save",
        "load",
        "export",
        "import",
        "commit",
        "rm",
        "check",
        "render",
        "csr",
        "set-certificate",
        "rotate",
        "trust",
        "man",
        "completions",
    ] {
        assert!(ask(&["--help"]).out.contains(&format!("\n  {command} ")), "{command} is not listed");
        assert!(of(command).contains("Usage: kubectl registry "), "{command}");
        assert!(of(command).contains("Examples:\n  "), "{command}");
        assert!(of(command).contains(&format!("kubectl registry {command}")), "{command}");
    }
}

/// As Krew installs it, whose index takes no name as general as `registry`.
#[test]
fn by_another_name_it_is_the_same_and_says_how_it_was_called() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("kubectl-private_registry");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kubectl-registry"), &program).unwrap();
    let said = |arguments: &[&str]| {
        let output = Command::new(&program).env_clear().args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    };
    let help = said(&["copy", "--help"]).out;
    assert!(help.contains("Usage: kubectl private-registry copy ") && !help.contains("kubectl registry"), "{help}");
    assert!(help.contains("\n  kubectl private-registry copy team-a "), "{help}");
    let answer = said(&["status", "team-a"]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.err.starts_with("kubectl private-registry: no cluster to talk to"), "{}", answer.err);
    assert!(said(&["copy"]).err.contains("Usage: kubectl private-registry copy "));
    assert_eq!(said(&["--version"]).out, ask(&["--version"]).out);
}

#[test]
fn the_time_of_an_image_comes_from_the_environment_of_builds() {
    let said = |epoch: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-registry"));
        program.env_clear().env("SOURCE_DATE_EPOCH", epoch).args(["commit", "team-a", "a:1", "a:2", "--add", "."]);
        let output = program.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = said("yesterday");
    assert!(code == Some(2) && text.contains("'--created <TIME>': a time is "), "{text}");
    let (code, text) = said("1764504000");
    assert!(code == Some(1) && text.contains("no cluster to talk to"), "{text}");
}

#[test]
fn the_version_is_that_of_the_operator() {
    let said = ask(&["--version"]).out;
    assert_eq!(said, format!("kubectl-registry {}\n", private_registry_operator::VERSION));
}

#[test]
fn without_a_cluster_it_says_how_to_name_one() {
    for arguments in [
        &["rotate", "leaf", "team-a"][..],
        &["trust", "team-a", "--docker"],
        &["list"],
        &["status", "team-a"],
        &["login", "team-a", "--authfile", "/nowhere/auth.json"],
        &["repos", "team-a"],
        &["doctor", "team-a", "--wait", "1h"],
        &["report", "team-a", "-o", "/nowhere/a.zip"],
    ] {
        let answer = ask(arguments);
        assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""));
        assert!(
            answer.err.starts_with("kubectl registry: no cluster to talk to") && answer.err.contains("--kubeconfig"),
            "{}",
            answer.err
        );
    }
}
