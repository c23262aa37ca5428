//! What is where in this checkout, and cargo as a child process. Nothing in here knows a chore.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The checkout's folder.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The cargo that runs us, in the checkout's folder.
pub(crate) fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program, in the checkout's folder.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
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
