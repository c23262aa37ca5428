//! `kubectl registry` as somebody meets it in a shell: what it answers, where it answers, with which exit code, and what it leaves on the
//! disk.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

mod doctor;
mod logins;
mod manifests;
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
        "rm",
        "check",
        "render",
        "csr",
        "set-certificate",
        "rotate",
        "trust",
        "completions",
    ] {
        assert!(ask(&["--help"]).out.contains(&format!("\n  {command} ")), "{command} is not listed");
        assert!(of(command).contains("Usage: kubectl registry "), "{command}");
        assert!(of(command).contains("Examples:\n  "), "{command}");
        assert!(of(command).contains(&format!("kubectl registry {command}")), "{command}");
    }
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
