//! The command line: one file per family of subcommands, each arm calls one function. Printing happens here and nowhere else.

mod node_agent;
mod run;
mod sidecar;
mod volume;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use run::RunOptions;

/// A Kubernetes operator for private container registries.
#[derive(Debug, Parser)]
#[command(
    name = "private-registry-operator",
    version = crate::VERSION,
    about = "A Kubernetes operator for private container registries",
    long_about = "Keeps every PrivateRegistry of a cluster as its manifest says: a CNCF Distribution registry with TLS that renews \
                  itself, logins, and storage that is kept.",
    after_help = "Examples:\n  private-registry-operator crd | kubectl apply --server-side -f -\n  private-registry-operator run"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator, in a cluster or against the current kubeconfig.
    ///
    /// No flag is needed. It keeps running until SIGTERM or Ctrl-C; wrong flags, or no cluster to talk to, end it with exit code 2 and
    /// the reason. Registries need the definition: see `crd`.
    #[command(after_help = "Examples:\n  \
        private-registry-operator run\n  \
        private-registry-operator run --context staging --watch-namespace team-a --watch-namespace team-b\n  \
        private-registry-operator run --log-level info,operator_engine::apply=debug --listen 127.0.0.1:8080")]
    Run(Box<RunOptions>),
    /// Print the definition of PrivateRegistry.
    #[command(after_help = "Examples:\n  private-registry-operator crd | kubectl apply --server-side -f -")]
    Crd,
    /// Print a completion script for a shell.
    #[command(after_help = "Examples:\n  \
        source <(private-registry-operator completions bash)\n  \
        private-registry-operator completions zsh > \"${fpath[1]}/_private-registry-operator\"\n  \
        private-registry-operator completions fish > ~/.config/fish/completions/private-registry-operator.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write and sync a file in a folder, and say in words why that failed. The registry's init container runs it.
    #[command(hide = true)]
    CheckVolume {
        /// The folder.
        folder: PathBuf,
    },
    /// Bring the front end each renewed certificate, and answer what it asks. A registry's pod runs it beside nginx.
    #[command(hide = true)]
    Sidecar {
        /// The folder that nginx reads.
        folder: PathBuf,
        /// The folder in which the kubelet shows certificate and key; absent without TLS.
        #[arg(long, value_name = "FOLDER")]
        certificate: Option<PathBuf>,
        /// What nginx is told to listen on, for instance "5000 ssl http2".
        #[arg(long, value_name = "HOW")]
        listen: String,
        /// The folder of the registry's data, if the gate answers for blobs and manifests.
        #[arg(long, value_name = "FOLDER")]
        data: Option<PathBuf>,
        /// The folder in which the kubelet shows the users' table; absent if everybody may come in.
        #[arg(long, value_name = "FOLDER")]
        logins: Option<PathBuf>,
        /// The folder in which it shows the keys of tokens, if clients get them.
        #[arg(long, value_name = "FOLDER", requires = "logins")]
        tokens: Option<PathBuf>,
        /// The folder with the keys of issuers, a folder for each.
        #[arg(long, value_name = "FOLDER", requires = "tokens")]
        issuers: Option<PathBuf>,
    },
    /// Make a node trust registries, as the operator orders. The chart's DaemonSet runs it.
    #[command(hide = true)]
    NodeAgent(Box<node_agent::Options>),
    /// Say by the exit code whether nginx can start. The startup probe of the sidecar runs it.
    #[command(hide = true)]
    SidecarIsReady {
        /// The folder that nginx reads.
        folder: PathBuf,
    },
}

/// Runs what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Run(options) => run::run(*options),
        Command::Crd => {
            print(crate::api::DEFINITION);
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "private-registry-operator", &mut script);
            print(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
        Command::CheckVolume { folder } => volume::check(&folder),
        Command::Sidecar { folder, certificate, listen, data, logins, tokens, issuers } => {
            let is_asked = data.is_some() || tokens.is_some();
            let gate = is_asked.then_some(crate::sidecar::gate::Options { data, logins, tokens, issuers });
            sidecar::run(&crate::sidecar::Options { folder, certificate, listen, gate })
        }
        Command::NodeAgent(options) => node_agent::run(*options),
        Command::SidecarIsReady { folder } => match crate::sidecar::is_ready(&folder) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
    }
}

/// Prints to standard output. Whoever closes it early, as `head` does, has read enough.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints a line to standard error, likewise.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
