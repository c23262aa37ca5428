//! What this machine lacks, in words, so that a test which can't run here is skipped by name and with the reason – but never in CI, where
//! a test that silently didn't run would be a lie.

use std::{env, fs::File, io::Write, path::PathBuf, thread};

use nix::unistd::Uid;

use crate::{debian, paths, tools};

/// What a test or a command wants to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A control plane.
    ControlPlane,
    /// A node.
    Node,
}

/// The file to which skipped tests are written, one line each, for whoever runs them all and sums up.
pub const SKIPPED: &str = "TESTBED_SKIPPED";

/// Why this machine can't run it; `None` when it can. What can be installed or built here counts as present.
pub fn missing(mode: Mode) -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("a cluster's programs need Linux".to_owned());
    }
    if debian::find("setsid").is_none() {
        return Some("setsid is missing (Debian's package util-linux)".to_owned());
    }
    if let Err(error) = paths::run().and(tools::builder()) {
        return Some(format!("{error:#}"));
    }
    match mode {
        Mode::ControlPlane => None,
        Mode::Node => missing_for_node(),
    }
}

fn missing_for_node() -> Option<String> {
    if !Uid::effective().is_root() {
        return Some("node mode needs root on Linux (it makes namespaces, mounts and control groups)".to_owned());
    }
    let is_debian = std::path::Path::new("/etc/debian_version").exists();
    let absent: Vec<_> = debian::NODE.iter().filter(|program| debian::find(program.name).is_none()).collect();
    match absent.as_slice() {
        [] => None,
        _ if is_debian => None,
        programs => {
            let names: Vec<_> =
                programs.iter().map(|program| format!("{} ({})", program.name, program.package)).collect();
            Some(format!("programs are missing (in brackets Debian's packages): {}", names.join(", ")))
        }
    }
}

/// For the first line of a test: `if testbed::skip(Mode::Node) { return }`. True when the test can't run here; it has then been named,
/// with the reason, on standard error. Panics instead in CI.
pub fn skip(mode: Mode) -> bool {
    missing(mode).is_some_and(|reason| skip_because(&reason))
}

/// The same for another reason. Always true.
pub fn skip_because(reason: &str) -> bool {
    // The test harness gives each test's thread the test's name.
    let test = thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        env::var_os("CI").is_none_or(|value| value.is_empty() || value == "false"),
        "{test} can't run here, and in CI no test is skipped: {reason}"
    );
    let line = format!("skipped {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).ok();
    if let Some(path) = env::var_os(SKIPPED).map(PathBuf::from) {
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).ok();
    }
    true
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// Runs itself again as a test that can't run here.
    #[test]
    fn a_test_that_cannot_run_here_is_named_with_the_reason_and_fails_in_ci() {
        const AGAIN: &str = "RUN_AS_A_TEST_THAT_CANNOT";
        const NAME: &str = "requirements::tests::a_test_that_cannot_run_here_is_named_with_the_reason_and_fails_in_ci";
        if env::var_os(AGAIN).is_some() {
            assert!(skip_because("no moon"));
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for (ci, may_skip) in
            [(None, true), (Some(""), true), (Some("false"), true), (Some("true"), false), (Some("1"), false)]
        {
            let list = folder.path().join("skipped");
            let mut test = Command::new(env::current_exe().unwrap());
            test.args(["--exact", NAME])
                .env(AGAIN, "1")
                .env(SKIPPED, &list)
                .env_remove("CI")
                .envs(ci.map(|ci| ("CI", ci)));
            let output = test.output().unwrap();
            assert_eq!(output.status.success(), may_skip, "CI={ci:?}: {output:?}");
            let listed = fs::read_to_string(&list).unwrap_or_default();
            let expected = if may_skip { format!("skipped {NAME}: no moon\n") } else { String::new() };
            assert_eq!(listed, expected, "CI={ci:?}");
            drop(fs::remove_file(&list));
        }
    }
}
