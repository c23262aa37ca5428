//! `kubectl registry …`: what people run, from their own machine, about private registries.
//!
//! | file | command |
//! |---|---|
//! | [`check`] | are these manifests valid? |
//! | [`render`] | what would be made of them? |
//!
//! What a registry is, and what is made of it, is the operator's library; nothing here decides it a second time.

pub mod check;
mod manifests;
pub mod render;
mod shell;
mod structure;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// What `kubectl registry` understands.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-registry",
    bin_name = "kubectl registry",
    version = private_registry_operator::VERSION,
    about = "Private registries: check, render"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate manifests without a cluster, with the rules that the API server applies.
    ///
    /// Exit code 0: all are valid; 1: some are not or cannot be read, and each line says file, object, field and reason.
    ///
    /// Objects of other kinds are passed over. What only the cluster knows (Secrets, StorageClasses, an older version of the same
    /// registry) is not checked.
    #[command(after_help = "Examples:\n  \
        kubectl registry check -f registry.yaml\n  \
        kubectl registry check -f registries/ -f more.yaml\n  \
        kubectl kustomize overlays/production | kubectl registry check -f -")]
    Check(check::Options),
    /// Print every object that the operator would make of a manifest; secrets appear as a placeholder.
    ///
    /// Exit code 0: everything was rendered; 1: a manifest is invalid, and standard error says why.
    #[command(after_help = "Examples:\n  \
        kubectl registry render -f registry.yaml\n  \
        kubectl kustomize overlays/production | kubectl registry render -f - > children.yaml\n\n\
        What only the cluster knows (certificates, password hashes, addresses) is the text PLACEHOLDER, so the output is\n\
        for reading and comparing, not for kubectl apply.")]
    Render(render::Options),
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:\n  \
        source <(kubectl registry completions bash)\n  \
        kubectl registry completions zsh > \"${fpath[1]}/_kubectl-registry\"\n  \
        kubectl registry completions fish > ~/.config/fish/completions/kubectl-registry.fish\n\n\
        They complete the program kubectl-registry itself.")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check(options) => check::run(&options),
        Command::Render(options) => render::run(&options),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-registry", &mut script);
            shell::print(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
