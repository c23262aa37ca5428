//! The doctor where there is no API server, or one that says nothing: it ends, and says so.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use super::ask;

fn kubeconfig(server: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    let text = format!(
        "{{clusters: [{{name: a, cluster: {{server: '{server}'}}}}], contexts: [{{name: a, context: {{cluster: a, user: a}}}}], \
         users: [{{name: a, user: {{}}}}], current-context: a}}"
    );
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn without_an_api_server_one_thing_failed_and_nothing_else_was_looked_at() {
    let file = kubeconfig("http://127.0.0.1:1");
    let file = file.path().to_str().unwrap();
    for name in [&["team-a"][..], &[]] {
        let answer = ask(&[&["doctor", "--kubeconfig", file], name].concat());
        assert_eq!((answer.code, answer.err.as_str()), (Some(1), ""));
        assert!(
            answer.out.contains("× the API server answers\n    can't be reached: Connection refused"),
            "{}",
            answer.out
        );
        assert!(
            answer.out.contains("see docs/install.md#kubectl-registry") && !answer.out.contains('√'),
            "{}",
            answer.out
        );
        assert!(answer.out.contains("\n1 failed, ") && answer.out.ends_with(" not looked at.\n"), "{}", answer.out);
    }
}

#[test]
fn an_api_server_that_says_nothing_keeps_nobody_waiting() {
    // Connections are taken, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = kubeconfig(&format!("http://{}", silent.local_addr().unwrap()));
    let started = Instant::now();
    let answer = ask(&["doctor", "team-a", "-o", "json", "--kubeconfig", file.path().to_str().unwrap()]);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(answer.code, Some(1), "{}", answer.err);
    let said: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((&said["failed"], &said["isWell"]), (&1.into(), &false.into()), "{said:#}");
    assert_eq!(said["sections"][0]["checks"][0]["seen"], "no answer within 10 s", "{said:#}");
}

#[test]
fn a_report_that_cannot_be_made_leaves_no_file() {
    let file = kubeconfig("http://127.0.0.1:1");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    let answer =
        ask(&["report", "team-a", "-o", path.to_str().unwrap(), "--kubeconfig", file.path().to_str().unwrap()]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""));
    assert!(answer.err.contains("read PrivateRegistry default/team-a: can't be reached"), "{}", answer.err);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = ask(&["report", "team-a", "-o", "/nowhere/a.zip", "--kubeconfig", file.path().to_str().unwrap()]);
    assert!(nowhere.code == Some(1) && nowhere.err.contains("write in /nowhere"), "{}", nowhere.err);
}
