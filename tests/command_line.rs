//! The program as somebody meets it in a shell: what it answers, where it answers, and with which exit code.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

use std::process::Command;

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ask(arguments: &[&str]) -> Answer {
    let mut program = Command::new(env!("CARGO_BIN_EXE_private-registry-operator"));
    // None of the machine's own settings.
    let output = program.env_clear().args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[test]
fn help_shows_for_every_command_how_it_is_called() {
    let of = |command: &str| ask(&[command, "--help"]).out;
    for command in ["run", "crd", "completions"] {
        assert!(ask(&["--help"]).out.contains(&format!("\n  {command} ")), "{command} is not listed");
        assert!(of(command).contains("Examples:\n  "), "{command}");
        assert!(of(command).contains(&format!("private-registry-operator {command}")), "{command}");
    }
    for command in ["check-volume", "sidecar", "node-agent"] {
        assert!(!ask(&["--help"]).out.contains(command), "{command} is not for people");
    }
}

#[test]
fn a_node_agent_that_may_write_nothing_says_so_at_once() {
    let place =
        ["node-agent", "--node", "node-1", "--namespace", "nodes", "--orders", "system", "--listen", "127.0.0.1:0"];
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let text = "{clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}], contexts: [{name: a, context: {cluster: a, user: a}}], \
                users: [{name: a, user: {}}], current-context: a}";
    std::fs::write(kubeconfig.path(), text).unwrap();
    let answer = ask(&[&place[..], &["--kubeconfig", kubeconfig.path().to_str().unwrap()]].concat());
    assert_eq!(answer.code, Some(2), "{}", answer.err);
    assert!(answer.err.contains("give at least one of --containerd, --docker and --podman"), "{}", answer.err);
    for flag in ["--node", "--orders"] {
        let answer = ask(&["node-agent", flag, "Team A"]);
        assert_eq!(answer.code, Some(2));
        assert!(answer.err.contains(flag), "{}", answer.err);
    }
}

#[test]
fn the_version_names_the_commit() {
    let said = ask(&["--version"]).out;
    let commit = said.strip_prefix(concat!("private-registry-operator ", env!("CARGO_PKG_VERSION"), " ("));
    let commit = commit.and_then(|rest| rest.strip_suffix(")\n")).unwrap_or_else(|| panic!("{said}"));
    let is_hash = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hash || commit == "unknown commit", "{said}");
}

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = ask(&["completions", shell]).out;
        for word in ["crd", "run", "watch-namespace"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn flags_that_cannot_work_are_refused_at_once_with_a_reason() {
    for (flag, value) in [
        ("--watch-namespace", ""),
        ("--watch-namespace", "Team A"),
        ("--watch-namespace", "a, b"),
        ("--cluster-domain", "cluster local"),
        ("--lease-name", ""),
        ("--lease-namespace", "a/b"),
        ("--registry-image", ""),
        ("--frontend-image", ""),
        ("--operator-image", ""),
        ("--concurrency", "0"),
    ] {
        let answer = ask(&["run", flag, value]);
        assert_eq!(answer.code, Some(2), "{flag}={value}: {}", answer.err);
        assert!(answer.err.contains(flag), "{flag}={value}: {}", answer.err);
    }
}
