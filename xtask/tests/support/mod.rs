//! Running chores with a state of their own, apart from the clusters of whoever runs the tests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

/// Where clusters are kept. Those that a failed test has left are ended with it: nobody else would find them.
pub(crate) struct State(TempDir);

impl State {
    pub(crate) fn new() -> std::io::Result<Self> {
        // Below /tmp, because paths of sockets are short.
        tempfile::tempdir_in("/tmp").map(Self)
    }

    /// The folder of running instances.
    pub(crate) fn run(&self) -> PathBuf {
        self.0.path().join("private-registry-operator/run")
    }

    /// A chore.
    pub(crate) fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(arguments).env("XDG_STATE_HOME", self.0.path());
        command
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.xtask(&["cluster", "down"]).output().ok();
    }
}
