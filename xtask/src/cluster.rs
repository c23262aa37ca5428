//! `cargo xtask cluster`: a cluster of the testbed that goes on when the command has ended, for working by hand.
//! Everything that it does is done by the testbed; here is only what a person sees.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write, stdout},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use jiff::{SpanRound, Timestamp, Unit};
use testbed::{
    ControlPlane, Family, Mode, Node, Options, Progress, Tools, control_plane,
    sandbox::{self, Instance, Kind, State},
};

/// How often a log is looked at for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start a cluster; it runs until `down`
    Up {
        /// With a node on which pods really run (needs root). Without: API server, controllers and scheduler only
        #[arg(long)]
        node: bool,
        /// Keep a log of every API request in `audit.log` of the cluster's folder
        #[arg(long)]
        audit: bool,
    },
    /// End clusters and clear what killed ones left
    Down {
        /// Only this one (see `status`)
        id: Option<String>,
    },
    /// Show what is running
    Status,
    /// Print the path of the kubeconfig: `export KUBECONFIG=$(cargo xtask cluster kubeconfig)`
    Kubeconfig {
        /// Of this cluster instead of the newest
        #[arg(long)]
        id: Option<String>,
    },
    /// Print a program's log, or the names of the logs
    Logs {
        /// The program: kube-apiserver, etcd, kubelet, …
        name: Option<String>,
        /// Go on printing what is added
        #[arg(long, short)]
        follow: bool,
        /// Of this cluster instead of the newest
        #[arg(long)]
        id: Option<String>,
    },
    /// Build the programs without starting anything
    Tools {
        /// Those of a node too
        #[arg(long)]
        node: bool,
    },
    /// Part of a running cluster: carries its API server's port to this machine
    #[command(hide = true)]
    Forward { listen: u16, network: PathBuf, port: u16 },
    /// Part of a running cluster: makes volumes for claims
    #[command(hide = true)]
    Provision { kubeconfig: PathBuf, settings: PathBuf },
}

pub(crate) fn run(arguments: Arguments) -> Result<()> {
    match arguments.action {
        Action::Up { node, audit } => up(node, audit),
        Action::Down { id } => down(id.as_deref()),
        Action::Status => status(),
        Action::Kubeconfig { id } => {
            println!("{}", newest(id.as_deref())?.dir.join("kubeconfig").display());
            Ok(())
        }
        Action::Logs { name, follow, id } => logs(&newest(id.as_deref())?, name.as_deref(), follow),
        Action::Tools { node } => Tools::ensure(families(node), &Progress::auto()).map(drop),
        Action::Forward { listen, network, port } => sandbox::forward(listen, &network, port),
        Action::Provision { kubeconfig, settings } => {
            runtime()?.block_on(testbed::provisioner::serve(&kubeconfig, &settings))
        }
    }
}

fn up(node: bool, audit: bool) -> Result<()> {
    let mode = if node { Mode::Node } else { Mode::ControlPlane };
    if let Some(reason) = testbed::missing(mode) {
        bail!(reason);
    }
    let progress = Progress::auto();
    Tools::ensure(families(node), &progress)?;
    let started = Instant::now();
    let step = progress.step("start Kubernetes");
    let kubeconfig = runtime()?.block_on(start(node, audit))?;
    step.done();
    println!("\nKubernetes is up after {:.1} s. Use it with:\n", started.elapsed().as_secs_f64());
    println!("    export KUBECONFIG={}", kubeconfig.display());
    println!("    kubectl get all --all-namespaces\n");
    println!("End it with:\n\n    cargo xtask cluster down");
    Ok(())
}

fn families(node: bool) -> &'static [Family] {
    if node { Family::NODE } else { Family::CONTROL_PLANE }
}

async fn start(node: bool, audit: bool) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let forward = ["cluster", "forward"];
    if node {
        let node = Node::start(testbed::node::Options { audit, ..Default::default() }).await?;
        let kubeconfig = node.kubeconfig().to_owned();
        node.outlive(&own, &forward, &["cluster", "provision"])?;
        Ok(kubeconfig)
    } else {
        let plane = ControlPlane::start(Options { audit, ..Options::default() }).await?;
        plane.outlive(&own, &forward)?;
        Ok(plane.kubeconfig().to_owned())
    }
}

pub(crate) fn down(id: Option<&str>) -> Result<()> {
    let started = Instant::now();
    let mut cleared = sandbox::clear_orphans()?;
    let running = match id {
        Some(id) if cleared.iter().any(|orphan| orphan == id) => Vec::new(),
        Some(id) => vec![newest(Some(id))?],
        None => sandbox::instances()?.into_iter().filter(|instance| instance.state == State::Detached).collect(),
    };
    for instance in running {
        instance.remove()?;
        cleared.push(instance.id);
    }
    match cleared.as_slice() {
        [] => println!("nothing was running"),
        ids => println!("ended {} in {:.1} s", ids.join(", "), started.elapsed().as_secs_f64()),
    }
    Ok(())
}

fn status() -> Result<()> {
    let instances = sandbox::instances()?;
    if instances.is_empty() {
        println!("nothing is running");
        return Ok(());
    }
    let runtime = runtime()?;
    println!("{:<8}{:<15}{:<26}{:<8}{:<10}FOLDER", "ID", "KIND", "STATE", "AGE", "ANSWERS");
    for instance in instances {
        let kind = instance.record.as_ref().map_or("?", |record| kind_name(record.kind));
        let age = instance.record.as_ref().map_or_else(String::new, |record| age(record.created));
        let answers = if runtime.block_on(answers(&instance.dir)) { "yes" } else { "no" };
        let folder = instance.dir.display();
        println!("{:<8}{kind:<15}{:<26}{age:<8}{answers:<10}{folder}", instance.id, state_name(&instance));
    }
    Ok(())
}

async fn answers(dir: &Path) -> bool {
    let Ok(client) = control_plane::client(&dir.join("kubeconfig")).await else { return false };
    let asked = tokio::time::timeout(Duration::from_secs(2), client.apiserver_version()).await;
    asked.is_ok_and(|version| version.is_ok())
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::ControlPlane => "control plane",
        Kind::Node => "node",
    }
}

fn state_name(instance: &Instance) -> String {
    match (instance.state, &instance.record) {
        (State::Detached, _) => "until `down`".to_owned(),
        (State::Owned, Some(record)) => format!("belongs to process {}", record.owner),
        (State::Owned, None) => "being made".to_owned(),
        (State::Orphan, _) => "left over; `down` clears it".to_owned(),
    }
}

fn age(created: Timestamp) -> String {
    let span = Timestamp::now() - created;
    let rounded = span.round(SpanRound::new().largest(Unit::Hour).smallest(Unit::Second));
    rounded.map_or_else(|_| "?".to_owned(), |span| format!("{span:#}").replace(' ', ""))
}

/// The cluster of that name, or the one that a command without a name means.
fn newest(id: Option<&str>) -> Result<Instance> {
    let instances = sandbox::instances()?;
    let mut fitting = instances.into_iter().rev().filter(|instance| match id {
        Some(id) => instance.id == id,
        None => instance.state == State::Detached,
    });
    fitting.next().with_context(|| match id {
        Some(id) => format!("there is no cluster {id}; `cargo xtask cluster status` shows what there is"),
        None => "no cluster is running; start one with `cargo xtask cluster up`".to_owned(),
    })
}

fn logs(instance: &Instance, name: Option<&str>, follow: bool) -> Result<()> {
    let folder = instance.dir.join("log");
    let Some(name) = name else {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        let mut names: Vec<_> =
            entries.filter_map(|entry| Some(entry.ok()?.path().file_stem()?.display().to_string())).collect();
        names.sort();
        println!("{}", names.join("\n"));
        return Ok(());
    };
    let path = folder.join(name).with_extension("log");
    let mut file =
        File::open(&path).with_context(|| format!("open {}; `logs` without a name lists them", path.display()))?;
    let mut position = 0;
    loop {
        let mut more = Vec::new();
        file.seek(SeekFrom::Start(position)).and_then(|_| file.read_to_end(&mut more)).context("read the log")?;
        position += more.len() as u64;
        if stdout().write_all(&more).and_then(|()| stdout().flush()).is_err() || !follow || !path.exists() {
            return Ok(());
        }
        thread::sleep(FOLLOW_EVERY);
    }
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().context("start the asynchronous runtime")
}
