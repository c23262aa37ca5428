//! `sidecar`: the process beside nginx in a registry's pod.

use std::process::ExitCode;

use operator_engine::process::telemetry::{self, LogSettings};

use crate::PROGRAM;
use crate::sidecar::{self, Options, gate};

/// Runs until it is told to end.
pub(super) fn run(options: &Options) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().max_blocking_threads(gate::THREADS).build();
    let logs = telemetry::init(&LogSettings::default(), &PROGRAM).map_err(|error| error.to_string());
    let done = logs.and_then(|()| {
        let done = runtime.and_then(|runtime| {
            let done = runtime.block_on(sidecar::run(options));
            // What waits for a volume that hangs must not keep the pod.
            runtime.shutdown_background();
            done
        });
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
