//! The process around the loop: how it reaches the cluster, who may write, what it says about itself, how it stops.
//!
//! It knows nothing of what is done: the work is a future that [`run`] is given.
//!
//! ```text
//!  signals ─┐                      ┌─▶ server      /healthz /readyz /metrics, from the first moment to the last
//!           ├─▶ life::supervise    ├─▶ preflight   is our resource served, are our rights there?
//!  settings ┘                      ├─▶ leader      moves the fence
//!                                  └─▶ the work    through client ─▶ gate (fence, limits, retries, counts)
//! ```
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | asked to stop (SIGTERM, SIGINT), and nothing was left undone |
//! | 1 | the work failed |
//! | 2 | it could not start: wrong flags, no usable kubeconfig, an address in use |
//! | 3 | the lease was lost |
//! | 4 | asked to stop, but work was cut off after 15 s or by a second signal |

use std::sync::Arc;

pub mod api_error;
pub mod client;
pub mod fence;
pub mod flag_values;
pub mod gate;
pub mod health;
mod lanes;
pub mod leader;
pub mod life;
pub mod preflight;
pub mod server;
pub mod shutdown;
pub mod telemetry;

use fence::Fence;
use health::Health;
use leader::lease::KubeLease;
use life::{Announcer, Election, Exit, Process, WorkError};
use preflight::{Needs, Preflight};
use server::Server;
use shutdown::{Signals, Stop};

use crate::metrics::Metrics;

/// Threads for async work: the operator mostly waits, and every thread costs memory.
const THREADS: usize = 2;

/// The flags of the process itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Settings {
    /// Which cluster.
    #[command(flatten, next_help_heading = "Cluster")]
    pub client: client::ClientSettings,
    /// Who leads.
    #[command(flatten, next_help_heading = "Leader election")]
    pub leader: leader::LeaderSettings,
    /// Where health and metrics are served.
    #[command(flatten, next_help_heading = "Health and metrics")]
    pub server: server::ServerSettings,
    /// What is logged.
    #[command(flatten, next_help_heading = "Logs")]
    pub log: telemetry::LogSettings,
}

/// Why the process could not start. The exit code for all of these is 2; each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Logs.
    #[error(transparent)]
    Telemetry(#[from] telemetry::TelemetryError),
    /// Times of the election.
    #[error(transparent)]
    Timing(#[from] leader::TimingError),
    /// The listener.
    #[error(transparent)]
    Bind(#[from] server::BindError),
    /// The cluster's configuration.
    #[error(transparent)]
    Connect(#[from] client::ConnectError),
    /// The system refuses threads or signal handlers.
    #[error("set up threads and signals: {0}")]
    System(#[from] std::io::Error),
}

/// Runs `work` as a process: until a signal, the work's end or the loss of the lease.
///
/// `work` is called once the resource is served. It starts its watches at once, so that a standby is warm, begins to write when
/// [`Process::leadership`] says so, and returns `Ok` soon after [`Process::stop`].
///
/// # Errors
/// The process could not start.
pub fn run<W, F>(settings: &Settings, needs: Needs, metrics: Arc<Metrics>, work: W) -> Result<Exit, StartError>
where
    W: FnOnce(Process) -> F + Send + 'static,
    F: Future<Output = Result<(), WorkError>> + Send + 'static,
{
    telemetry::init(&settings.log, metrics.program())?;
    // Before anything speaks TLS: with no provider chosen rustls may panic at the first handshake. An error says that one is chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    telemetry::install_panic_hook(Arc::clone(&metrics));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let exit = runtime.block_on(start(settings, needs, metrics, work));
    // Whatever still runs was cut off on purpose; hashing of passwords must not hold up the end.
    runtime.shutdown_background();
    exit
}

async fn start<W, F>(settings: &Settings, needs: Needs, metrics: Arc<Metrics>, work: W) -> Result<Exit, StartError>
where
    W: FnOnce(Process) -> F + Send + 'static,
    F: Future<Output = Result<(), WorkError>> + Send + 'static,
{
    let timing = settings.leader.timing()?;
    let mut signals = Signals::install()?;
    let health = Health::default();
    let server = Server::bind(&settings.server).await?;
    let address = server.address();
    tokio::spawn(server.serve(health.clone(), Arc::clone(&metrics)));

    let fence = if settings.leader.leader_elect { Fence::shut() } else { Fence::open() };
    let clients = client::connect(&settings.client, &fence, &metrics).await?;
    tracing::info!(
        version = metrics.program().version,
        cluster = clients.server,
        health = %address,
        "started"
    );

    let (announcer, leadership) = Announcer::new(health.clone(), Arc::clone(&metrics));
    let client = clients.lease.clone();
    let name = settings.leader.lease_name.as_deref().unwrap_or(metrics.program().name);
    let (lease, election) = if settings.leader.leader_elect {
        let lease = match &settings.leader.lease_namespace {
            Some(namespace) => {
                tracing::info!(namespace, name, "taking part in the leader election");
                KubeLease::new(client, namespace, name)
            }
            None => KubeLease::wherever_held(client, &clients.namespace, name),
        };
        (lease.clone(), Election::on(lease, timing, fence.clone(), announcer))
    } else {
        tracing::warn!("no leader election: run only one copy");
        let namespace = settings.leader.lease_namespace.as_deref().unwrap_or(&clients.namespace);
        (KubeLease::new(client, namespace, name), Election::Off(announcer))
    };
    let preflight = Preflight::new(clients.work.clone(), needs, metrics.program().definition_advice, health.clone());
    let process = Process { clients, health, metrics, stop: Stop::default(), leadership, lease };
    Ok(life::supervise(process, preflight, election, fence, &mut signals, work).await)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn no_flag_is_needed_and_defaults_agree() {
        let mut parsed = Program::parse_from(["run"]).settings;
        // Two flags also listen to the environment.
        parsed.leader.lease_namespace = None;
        parsed.log.log_level = "info".to_owned();
        assert_eq!(parsed, Settings::default());
    }

    #[test]
    fn wrong_flags_are_explained() {
        for (flags, words) in [
            (&["--lease-duration", "soon"][..], "such as 15s"),
            (&["--api-concurrency", "0"], "from 1 to 1024"),
            (&["--listen", "8080"], "--listen"),
            (&["--log-level", "loud"], "debug"),
            (&["--log-format", "xml"], "json"),
        ] {
            let arguments = std::iter::once(&"run").chain(flags);
            let error = Program::try_parse_from(arguments).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(words), "{flags:?}: {error}");
        }
        let parsed = Program::parse_from(["run", "--leader-elect", "false"]).settings;
        assert!(!parsed.leader.leader_elect);
    }
}
