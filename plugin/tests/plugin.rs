//! `kubectl registry` as somebody meets it in a shell: what it answers, where it answers, and with which exit code.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ask(arguments: &[&str], input: &str) -> Answer {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-registry"));
    // None of the machine's own settings.
    program.env_clear().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    // Who refuses a flag reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn registry(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: privateregistry.dev/v1alpha1\nkind: PrivateRegistry\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

#[test]
fn check_names_file_object_field_and_reason_of_everything_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), registry("one", "{replicas: 0, suspend: later}")).unwrap();
    fs::write(folder.path().join("b.yaml"), "metadata:\n\tname: two\n").unwrap();
    fs::write(folder.path().join("c.json"), registry("three", "{}")).unwrap();
    fs::write(folder.path().join("d.txt"), "no: manifest: at all").unwrap();
    let place = folder.path().to_str().unwrap();

    let answer = ask(&["check", "-f", place, "-f", "-"], &registry("four", "{image: 'registry:2.8.3'}"));

    assert_eq!((answer.code, answer.out.as_str()), (Some(1), "3 PrivateRegistries, 2 invalid\n"));
    let lines: Vec<_> = answer.err.lines().collect();
    assert!(lines[0].starts_with(&format!("{place}/b.yaml: no YAML: ")) && lines[0].contains("line 2"), "{lines:?}");
    assert_eq!(lines[1], format!("{place}/a.yaml: PrivateRegistry shop/one: spec.replicas: must be at least 1"));
    assert_eq!(lines[2], format!("{place}/a.yaml: PrivateRegistry shop/one: spec.suspend: must be of type boolean"));
    assert!(
        lines[3].starts_with("standard input: PrivateRegistry shop/four: spec: spec.image is older than "),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 4, "{lines:?}");
}

#[test]
fn check_is_content_with_what_is_valid_and_with_nothing_else() {
    let answer = ask(&["check", "-f", "-"], &registry("one", "{}"));
    assert_eq!(
        (answer.code, answer.out.as_str(), answer.err.as_str()),
        (Some(0), "1 PrivateRegistry, 0 invalid\n", "")
    );
    for nothing in ["", "# nothing\n", "just words\n", "[1, 2]\n", "kind: Secret\n"] {
        let answer = ask(&["check", "-f", "-"], nothing);
        assert_eq!(
            (answer.code, answer.err.as_str()),
            (Some(1), "no PrivateRegistry in standard input\n"),
            "{nothing}"
        );
    }
    let misspelt = registry("one", "{}").replace("privateregistry.dev", "privateregistries.dev");
    assert_eq!(ask(&["check", "-f", "-"], &(registry("one", "{}") + &misspelt)).code, Some(1));
}

#[test]
fn render_prints_what_is_valid_and_says_by_its_code_that_something_is_not() {
    let both = registry("bad", "{replicas: 0}") + &registry("good", "{}");
    let answer = ask(&["render", "-f", "-"], &both);
    assert_eq!(answer.code, Some(1));
    assert_eq!(answer.err, "standard input: PrivateRegistry shop/bad: spec.replicas: must be at least 1\n");
    assert_eq!(answer.out, ask(&["render", "-f", "-"], &registry("good", "{}")).out);
}

#[test]
fn help_shows_for_every_command_how_it_is_called() {
    let of = |command: &str| ask(&[command, "--help"], "").out;
    for command in ["check", "render", "completions"] {
        assert!(ask(&["--help"], "").out.contains(&format!("\n  {command} ")), "{command} is not listed");
        assert!(of(command).contains("Usage: kubectl registry "), "{command}");
        assert!(of(command).contains("Examples:\n  "), "{command}");
        assert!(of(command).contains(&format!("kubectl registry {command}")), "{command}");
    }
}

#[test]
fn the_version_is_that_of_the_operator() {
    let said = ask(&["--version"], "").out;
    assert_eq!(said, format!("kubectl-registry {}\n", private_registry_operator::VERSION));
}
