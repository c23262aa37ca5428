//! `run`: the operator itself.
use std::process::ExitCode;
/// Options.
#[derive(Debug, clap::Args)]
pub struct RunOptions {}
pub(super) fn run(_: RunOptions) -> ExitCode { ExitCode::SUCCESS }
