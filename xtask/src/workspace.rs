//! What is where in this checkout, and cargo as a child process. Nothing in here knows a chore.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader, PipeReader, pipe},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use testbed::Progress;

/// How often a running program may be looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long its outputs are read when it has ended and somebody else holds them open.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The checkout's folder.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The cargo that runs us, in the checkout's folder.
pub(crate) fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program, in the checkout's folder, without what cargo told *us* about our own package: build scripts that look at these variables (ring's does)
/// would be run again, and everything that stands on them compiled again, in each cargo below us and then in the next one started by hand.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_about_a_package)) {
        command.env_remove(name);
    }
    command
}

/// Runs a program without input, and gives each line of both its outputs as it comes.
pub(crate) fn lines(command: Command, each: impl FnMut(&str) -> Result<()>) -> Result<ExitStatus> {
    watched_lines(command, each, |_| Ok(()))
}

/// The same, and about once a second, lines or not, somebody may look at the program, by its process id.
///
/// What the program leaves behind may hold its outputs open: they are read for a moment longer than it runs, not to their end.
pub(crate) fn watched_lines(
    mut command: Command,
    mut each: impl FnMut(&str) -> Result<()>,
    mut look: impl FnMut(u32) -> Result<()>,
) -> Result<ExitStatus> {
    let name = command.get_program().display().to_string();
    let (output, input) = pipe().context("make a pipe")?;
    command.stdin(Stdio::null()).stdout(input.try_clone().context("copy a pipe's end")?).stderr(input);
    let mut child = command.spawn().with_context(|| format!("run {name}"))?;
    // The command holds the ends to write to; the pipe ends only when they are closed.
    drop(command);
    let said = heard(output);
    let (mut looked, mut ended) = (Instant::now(), None);
    loop {
        match said.recv_timeout(LOOK_EVERY) {
            Ok(line) => each(line.with_context(|| format!("read the output of {name}"))?.trim_end())?,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                if ended.is_some_and(|ended: Instant| ended.elapsed() > LAST_WORDS) {
                    break;
                }
            }
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            if child.try_wait().with_context(|| format!("look at {name}"))?.is_none() {
                look(child.id())?;
            } else {
                ended.get_or_insert(looked);
            }
        }
    }
    child.wait().with_context(|| format!("wait for {name}"))
}

/// The lines of a pipe, read by a thread that ends with the pipe.
fn heard(output: PipeReader) -> Receiver<std::io::Result<String>> {
    let (hear, said) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            if hear.send(line.map(|line| String::from_utf8_lossy(&line).into_owned())).is_err() {
                break;
            }
        }
    });
    said
}

/// Compiles the operator, with what cargo says as notes of a step. Gives its program.
///
/// Not for release, all members are compiled: a dependency has then the same features as in the tests, and is not compiled again.
pub(crate) fn operator(is_release: bool, progress: &Progress) -> Result<PathBuf> {
    let title = if is_release { "build the operator for release" } else { "build the operator" };
    build("private-registry-operator", is_release, title, progress)
}

/// Compiles `kubectl registry` for release. Gives its program.
pub(crate) fn plugin(progress: &Progress) -> Result<PathBuf> {
    build("kubectl-registry", true, "build kubectl registry for release", progress)
}

/// The folder for what is compiled.
pub(crate) fn target() -> Result<PathBuf> {
    Ok(Workspace::read()?.target().to_owned())
}

fn build(name: &str, is_release: bool, title: &str, progress: &Progress) -> Result<PathBuf> {
    let step = progress.step(title);
    let mut command = cargo();
    command.args(["build", "--locked", "--bin", name]).env("CARGO_TERM_COLOR", "never");
    let profile = if is_release {
        command.args(["--release", "--package", name]);
        // A build script does not hear of every commit, and what is published must not name an older one.
        if let Some(commit) = commit() {
            command.env("PRIVATE_REGISTRY_COMMIT", commit);
        }
        "release"
    } else {
        "debug"
    };
    let mut said = String::new();
    let status = lines(command, |line| {
        step.note(line.trim());
        said.push_str(line);
        said.push('\n');
        Ok(())
    })?;
    if !status.success() {
        bail!("cargo build failed ({status}):\n{said}");
    }
    step.done();
    Ok(target()?.join(profile).join(name))
}

/// The commit that is checked out, if this is a checkout.
fn commit() -> Option<String> {
    let output = command("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Variables of <https://doc.rust-lang.org/cargo/reference/environment-variables.html#environment-variables-cargo-sets-for-crates>.
fn is_about_a_package(variable: &str) -> bool {
    let prefixes = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE"];
    prefixes.iter().any(|prefix| variable.starts_with(prefix))
}

/// What cargo knows of this workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// A file or folder directly under a package's `tests/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IntegrationTest {
    pub(crate) package: String,
    pub(crate) name: String,
}

impl Workspace {
    pub(crate) fn read() -> Result<Self> {
        let arguments = ["metadata", "--no-deps", "--format-version", "1", "--offline"];
        let output = cargo().args(arguments).stderr(Stdio::inherit()).output().context("run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed ({})", output.status);
        }
        serde_json::from_slice(&output.stdout).context("read what cargo metadata said")
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target_directory
    }

    /// All integration tests, in order.
    pub(crate) fn integration_tests(&self) -> Vec<IntegrationTest> {
        let mut tests: Vec<_> = self.packages.iter().flat_map(Package::integration_tests).collect();
        tests.sort();
        tests
    }
}

impl Package {
    fn integration_tests(&self) -> impl Iterator<Item = IntegrationTest> {
        let tests = self.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "test"));
        tests.map(|target| IntegrationTest { package: self.name.clone(), name: target.name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_outputs_of_a_program_come_line_by_line_and_the_last_needs_no_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; printf three; exit 3"]);
        let mut said = Vec::new();
        let status = lines(command, |line| {
            said.push(line.to_owned());
            Ok(())
        });
        assert_eq!((said, status.unwrap().code()), (["one", "two", "three"].map(str::to_owned).to_vec(), Some(3)));
    }

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 30 & echo $!"]);
        let (started, mut left) = (Instant::now(), String::new());
        let status = lines(command, |line| {
            left = line.to_owned();
            Ok(())
        });
        assert!(status.unwrap().success() && started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        Command::new("kill").arg(left).status().unwrap();
    }

    #[test]
    fn a_cargo_below_us_hears_nothing_of_our_package_but_of_the_users_settings() {
        for (variable, expected) in [
            ("CARGO_MANIFEST_DIR", true),
            ("CARGO_PKG_NAME", true),
            ("CARGO_TARGET_DIR", false),
            ("CARGO_HOME", false),
            ("CARGO", false),
        ] {
            assert_eq!(is_about_a_package(variable), expected, "{variable}");
        }
    }
}
