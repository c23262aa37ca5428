//! `sidecar`: the process beside nginx in a registry's pod.

use std::process::ExitCode;

use operator_engine::process::telemetry::{self, LogSettings};

use crate::PROGRAM;
use crate::sidecar::{self, Options};

/// Runs until it is told to end.
pub(super) fn run(options: &Options) -> ExitCode {
    // Work that waits for a volume that hangs must not fill the memory with threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(32).build();
    let logs = telemetry::init(&LogSettings::default(), &PROGRAM).map_err(|error| error.to_string());
    let done = logs.and_then(|()| {
        let done = runtime.and_then(|runtime| runtime.block_on(sidecar::run(options)));
        done.map_err(|error| format!("{}: {error}", options.folder.display()))
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&format!("private-registry-operator sidecar: {error}"));
            ExitCode::FAILURE
        }
    }
}
