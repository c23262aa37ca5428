//! `node-agent`: what makes a node trust registries. The chart's DaemonSet runs it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use operator_engine::metrics::Metrics;
use operator_engine::process::client::{self, ClientSettings};
use operator_engine::process::fence::Fence;
use operator_engine::process::flag_values;
use operator_engine::process::health::Health;
use operator_engine::process::server::{Server, ServerSettings};
use operator_engine::process::shutdown::{Signals, Stop};
use operator_engine::process::telemetry::{self, LogSettings};

use crate::PROGRAM;
use crate::node::agent;
use crate::node::disk::Disk;
use crate::node::trust_files::Runtime;

/// Options of `node-agent`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The node that it runs on.
    #[arg(long, env = "NODE_NAME", value_name = "NAME", value_parser = flag_values::name)]
    node: String,
    /// Namespace of the node's report.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", value_parser = flag_values::name)]
    namespace: String,
    /// Namespace of the operator, where the orders are.
    #[arg(long, value_name = "NAMESPACE", value_parser = flag_values::name)]
    orders: String,
    /// Where the root of the node's file system is.
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,
    /// Folder of containerd's configuration on the node, to be written below.
    #[arg(long, value_name = "FOLDER")]
    containerd: Option<PathBuf>,
    /// Folder of Docker's configuration on the node, to be written below.
    #[arg(long, value_name = "FOLDER")]
    docker: Option<PathBuf>,
    /// Folder of podman's and CRI-O's configuration on the node, to be written below.
    #[arg(long, value_name = "FOLDER")]
    podman: Option<PathBuf>,
    /// Take away everything that was written; ready once nothing is left.
    #[arg(long)]
    clean_up: bool,
    /// How often the disk is looked at although nothing was ordered.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = flag_values::duration)]
    look_every: Duration,
    #[command(flatten, next_help_heading = "Cluster")]
    client: ClientSettings,
    #[command(flatten, next_help_heading = "Health and metrics")]
    server: ServerSettings,
    #[command(flatten, next_help_heading = "Logs")]
    log: LogSettings,
}

/// Runs until it is told to stop. Exit code 2: it could not start.
pub(super) fn run(options: Options) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started = telemetry::init(&options.log, &PROGRAM).map_err(|error| error.to_string());
    let done = started.and_then(|()| runtime.map_err(|error| error.to_string())?.block_on(work(options)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::complain(&format!("private-registry-operator node-agent: {error}"));
            ExitCode::from(2)
        }
    }
}

async fn work(options: Options) -> Result<(), String> {
    // With no provider chosen rustls may panic at the first handshake. An error says that one is chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut signals = Signals::install().map_err(|error| format!("set up signals: {error}"))?;
    let metrics = Metrics::new(&PROGRAM, |_| ());
    telemetry::install_panic_hook(Arc::clone(&metrics));
    let health = Health::default();
    let server = Server::bind(&options.server).await.map_err(|error| error.to_string())?;
    let clients =
        client::connect(&options.client, &Fence::open(), &metrics).await.map_err(|error| error.to_string())?;
    tracing::info!(version = PROGRAM.version, cluster = clients.server, health = %server.address(), node = options.node, "started");
    tokio::spawn(server.serve(health.clone(), metrics));

    let homes = [
        (Runtime::Containerd, options.containerd),
        (Runtime::Docker, options.docker),
        (Runtime::Podman, options.podman),
    ];
    let homes: BTreeMap<_, _> = homes.into_iter().filter_map(|(runtime, home)| Some((runtime, home?))).collect();
    if homes.is_empty() {
        return Err(
            "give at least one of --containerd, --docker and --podman: nothing may be written otherwise".to_owned()
        );
    }
    let stop = Stop::default();
    let agent = agent::run(
        agent::Options {
            node: options.node,
            namespace: options.namespace,
            orders: options.orders,
            disk: Disk { root: options.root, homes },
            clean_up: options.clean_up,
            look_every: options.look_every,
        },
        clients.work,
        health.clone(),
        stop.clone(),
    );
    let mut agent = std::pin::pin!(agent);
    tokio::select! {
        () = &mut agent => return Ok(()),
        signal = signals.next() => tracing::info!(signal, "stopping"),
    }
    health.stopping();
    stop.request();
    agent.await;
    Ok(())
}
