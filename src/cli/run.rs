//! `run`: the operator itself.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::controller::Operator;
use crate::controller::queue::Limits;
use crate::controller::watches::Scope;
use crate::metrics::Metrics;
use crate::model::Settings;
use crate::runtime::client::{ClientSettings, connect};
use crate::runtime::fence::Fence;
use crate::runtime::health::Health;
use crate::runtime::server::{Server, ServerSettings};
use crate::runtime::shutdown::Signals;
use crate::runtime::telemetry::{self, LogSettings};

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct RunOptions {
    /// Watch registries in this namespace only; can be given more than once. Absent: all namespaces.
    #[arg(long = "watch-namespace", env = "WATCH_NAMESPACE", value_delimiter = ',', value_name = "NAMESPACE")]
    watch_namespaces: Vec<String>,
    /// Image of registries whose manifest names none.
    #[arg(long, env = "REGISTRY_IMAGE", value_name = "IMAGE", default_value_t = Settings::default().registry_image)]
    registry_image: String,
    /// The operator's own image: registries' pods probe their volume with it before they start.
    #[arg(long, env = "OPERATOR_IMAGE", value_name = "IMAGE", default_value_t = Settings::default().operator_image)]
    operator_image: String,
    /// DNS domain of the cluster.
    #[arg(long, env = "CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// How many registries are worked on at once.
    #[arg(long, env = "CONCURRENCY", value_name = "NUMBER", default_value_t = 8)]
    concurrency: usize,
    #[command(flatten)]
    client: ClientSettings,
    #[command(flatten)]
    server: ServerSettings,
    #[command(flatten)]
    log: LogSettings,
}

/// Runs until it is told to stop.
pub(super) fn run(options: RunOptions) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(work(options)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn work(options: RunOptions) -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    telemetry::init(&options.log)?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), env!("COMMIT"));
    let health = Health::default();
    let server = Server::bind(&options.server).await?;
    tokio::spawn(server.serve(health.clone(), metrics.clone()));
    let fence = Fence::open();
    let clients = connect(&options.client, &fence, &metrics).await?;
    let settings = Settings {
        registry_image: options.registry_image,
        operator_image: options.operator_image,
        cluster_domain: options.cluster_domain,
    };
    let limits = Limits { concurrency: options.concurrency, pass: Duration::from_secs(30), ..Limits::default() };
    let operator = Operator::start(
        clients.work,
        &Scope::of(&options.watch_namespaces),
        settings,
        limits,
        "operator",
        metrics,
        Arc::new(()),
    );
    let mut signals = Signals::install()?;
    operator
        .run(async move {
            signals.next().await;
        })
        .await;
    Ok(())
}
