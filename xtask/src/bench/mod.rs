//! `cargo xtask bench`: the numbers in the README, measured. The operator's release build runs as a process of its own against a real API server;
//! wherever a time depends on the machine, what it is compared with is measured in the same run. One file each says how a number comes about.

mod create;
mod drift;
mod frontend;
mod large_image;
mod memory;
mod objects;
mod operator;
mod person;
mod plain;
mod processor;
mod quiet;
mod ready;
mod renewals;
mod restart;
mod revoke;
mod samples;
mod scopes;
mod served_node;
mod size;
mod table;
mod transfers;
mod wait;
mod world;

use std::{collections::BTreeSet, fs, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use testbed::{Family, Mode, Progress, Tools};

use crate::{cluster, workspace};
use table::{Row, Table};
use world::{Shape, World};

/// Registries of a large cluster.
const LARGE: u32 = 10_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this measurement; can be given more than once, or with commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    only: Vec<Measurement>,
    /// Write the results to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this program instead of building it for release
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Measure this kubectl-registry instead of building it for release, for `--only transfers`
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// How the registries lie in the cluster
    #[arg(long, value_enum, default_value_t = Shape::Names)]
    shape: Shape,
    /// Registries in the cluster
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    registries: u32,
    /// 10,000 registries: takes hours, and gigabytes of memory
    #[arg(long, conflicts_with = "registries")]
    large: bool,
    /// Minutes of pulls and pushes, for `--only renewals`
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(3..=240))]
    minutes: u32,
    /// Secrets of somebody else in the cluster, of 10 KB each
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    foreign_secrets: u32,
}

/// In the order in which they are made: one control plane serves all, and what weighs on it comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Measurement {
    /// The program on disk
    Size,
    /// From a manifest to a registry that runs, against the same objects written by hand
    Ready,
    /// From a manifest without a user until that user is refused
    Revoke,
    /// Pulls and pushes through a front end, against the registry's own TLS
    Frontend,
    /// Memory of kubectl registry with an image of 5 GiB; only if it is asked for, because it takes minutes and 30 GiB of disk, below the folder target
    Transfers,
    /// Pulls and pushes while certificates are renewed all the time; only if it is asked for, because it takes `--minutes`
    Renewals,
    /// Many registries at once, against a plain writer of the same objects
    Create,
    /// A new operator in a cluster where everything is as wanted
    Restart,
    /// An operator that watches 500 namespaces by name; needs a namespace for each registry
    Scopes,
    /// Passes over registries that are as wanted
    Quiet,
    /// Children deleted or edited by somebody
    Drift,
    /// Resident memory, without and with thousands of foreign Secrets
    Memory,
}

impl Measurement {
    fn needs_operator(self) -> bool {
        self != Self::Transfers
    }

    fn needs_cluster(self) -> bool {
        !matches!(self, Self::Size | Self::Transfers)
    }

    fn is_asked_for(self) -> bool {
        matches!(self, Self::Renewals | Self::Transfers)
    }

    fn needs_namespaces(self) -> bool {
        self == Self::Scopes
    }

    fn needs_registries(self) -> bool {
        self.needs_cluster() && !matches!(self, Self::Ready | Self::Revoke | Self::Frontend | Self::Renewals)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let chosen: BTreeSet<Measurement> = match arguments.only.as_slice() {
        [] => {
            let fits = |measurement: &Measurement| {
                let has_place = !measurement.needs_namespaces() || arguments.shape == Shape::Namespaces;
                has_place && !measurement.is_asked_for()
            };
            Measurement::value_variants().iter().copied().filter(fits).collect()
        }
        only => only.iter().copied().collect(),
    };
    if chosen.iter().any(|measurement| measurement.needs_namespaces()) && arguments.shape != Shape::Namespaces {
        bail!("--only scopes needs --shape namespaces");
    }
    let progress = Progress::auto();
    let program = match &arguments.program {
        Some(program) => std::path::absolute(program).context("find the program")?,
        None if chosen.iter().any(|measurement| measurement.needs_operator()) => workspace::operator(true, &progress)?,
        None => PathBuf::new(),
    };
    let plugin = match &arguments.plugin {
        Some(plugin) => std::path::absolute(plugin).context("find kubectl-registry")?,
        None if chosen.contains(&Measurement::Transfers) => workspace::plugin(&progress)?,
        None => PathBuf::new(),
    };
    if chosen.iter().any(|measurement| measurement.needs_cluster()) {
        if let Some(reason) = testbed::missing(Mode::ControlPlane) {
            bail!("{reason}");
        }
        Tools::ensure(Family::CONTROL_PLANE, &progress)?;
    }
    let started = Instant::now();
    let bench = Bench {
        chosen,
        program,
        plugin,
        registries: if arguments.large { LARGE } else { arguments.registries },
        shape: arguments.shape,
        foreign: arguments.foreign_secrets,
        minutes: arguments.minutes,
        progress,
    };
    let rows = cluster::runtime()?.block_on(bench.measure())?;
    let table = Table { rows, took: started.elapsed() };
    println!("\n{table}");
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&table)?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench {
    chosen: BTreeSet<Measurement>,
    program: PathBuf,
    plugin: PathBuf,
    registries: u32,
    shape: Shape,
    foreign: u32,
    minutes: u32,
    progress: Progress,
}

impl Bench {
    async fn measure(self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        if self.has(Measurement::Size) {
            rows.extend(size::measure(&self.program)?);
        }
        if self.has(Measurement::Transfers) {
            rows.extend(transfers::measure(&self.plugin, &workspace::target()?, &self.progress).await?);
        }
        if self.has(Measurement::Ready) {
            rows.extend(ready::measure(&self.program, &self.progress).await?);
        }
        if self.has(Measurement::Revoke) {
            rows.extend(revoke::measure(&self.program, &self.progress).await?);
        }
        if self.has(Measurement::Frontend) {
            rows.extend(frontend::measure(&self.program, &self.progress).await?);
        }
        if self.has(Measurement::Renewals) {
            rows.extend(renewals::measure(&self.program, self.minutes, &self.progress).await?);
        }
        if !self.chosen.iter().any(|measurement| measurement.needs_registries()) {
            return Ok(rows);
        }
        let mut world = World::start(&self.program, self.registries, self.shape, &self.progress).await?;
        if self.has(Measurement::Create) {
            rows.extend(create::measure(&mut world).await?);
        }
        world.populate().await?;
        if self.has(Measurement::Restart) {
            rows.extend(restart::measure(&mut world).await?);
        }
        if self.has(Measurement::Scopes) {
            rows.extend(scopes::measure(&mut world).await?);
        }
        if self.has(Measurement::Quiet) {
            rows.extend(quiet::measure(&mut world).await?);
        }
        if self.has(Measurement::Drift) {
            rows.extend(drift::measure(&mut world).await?);
        }
        if self.has(Measurement::Memory) {
            rows.extend(memory::measure(&mut world, self.foreign).await?);
        }
        world.stop()?;
        Ok(rows)
    }

    fn has(&self, measurement: Measurement) -> bool {
        self.chosen.contains(&measurement)
    }
}
