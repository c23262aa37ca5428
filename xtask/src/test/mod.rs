//! `cargo xtask test`: everything that can be tested, in groups, with one summary. Compiling and testing what needs no cluster goes on while
//! the clusters' programs are built; tests that start clusters begin when nothing else is left to build.

mod group;
mod step;
mod summary;
mod tally;
mod watchdog;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use testbed::{Family, Progress, SKIPPED, Tools};

use crate::{
    given::Given,
    workspace::{self, Workspace},
};
use group::Group;
use step::Log;
use summary::{Outcome, Summary};
use tally::Tally;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only this group; can be given more than once, or with commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "GROUP")]
    only: Vec<Group>,
    /// Run the e2e tests on this cluster, and without --only nothing else. They install the operator there, restart it, and make and delete
    /// namespaces and registries; so KUBECONFIG, which names whatever cluster you work with, is not enough. Its nodes must be able to
    /// pull the operator's image, which --set names
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// More values for the operator's chart on that cluster, as Helm takes them
    #[arg(long, value_name = "KEY=VALUE", requires = "kubeconfig")]
    set: Vec<String>,
    /// Say everything that the tests say, not only what failed
    #[arg(long, short)]
    verbose: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let given = arguments.kubeconfig.as_deref().map(|file| Given::new(file, &arguments.set)).transpose()?;
    let groups: BTreeSet<Group> = match arguments.only.as_slice() {
        [] if given.is_some() => BTreeSet::from([Group::E2e]),
        [] => Group::value_variants().iter().copied().collect(),
        only => only.iter().copied().collect(),
    };
    if given.is_none() && groups.contains(&Group::E2e) && env::var_os("KUBECONFIG").is_some() {
        println!(
            "The tests use clusters of their own, not the one of KUBECONFIG: name it with --kubeconfig to have the e2e tests run there."
        );
    }
    let started = Instant::now();
    fetch_crates()?;
    let workspace = Workspace::read()?;
    let logs = workspace.target().join("xtask");
    fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    let run = Run { workspace, logs, progress: Progress::auto(), verbose: arguments.verbose, given };
    let outcomes = run.groups(&groups)?;
    let summary = Summary { outcomes, took: started.elapsed() };
    println!("\n{summary}");
    Ok(if summary.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything after this works without a network, and with the versions that are committed.
fn fetch_crates() -> Result<()> {
    let status = workspace::cargo().args(["fetch", "--locked", "--quiet"]).status().context("run cargo fetch")?;
    if !status.success() {
        bail!("cargo fetch failed ({status})");
    }
    Ok(())
}

struct Run {
    workspace: Workspace,
    logs: PathBuf,
    progress: Progress,
    verbose: bool,
    /// Where the e2e tests run, if not on a node of our own.
    given: Option<Given>,
}

impl Run {
    fn groups(&self, groups: &BTreeSet<Group>) -> Result<Vec<Outcome>> {
        let (with_clusters, without): (Vec<Group>, Vec<Group>) =
            groups.iter().partition(|group| group.starts_clusters());
        let families = families(&with_clusters, self.given.as_ref());
        thread::scope(|scope| {
            let building = scope.spawn(|| Tools::ensure(&families, &self.progress));
            let mut outcomes = without.into_iter().map(|group| self.group(group)).collect::<Result<Vec<_>>>()?;
            for group in &with_clusters {
                self.compile(*group)?;
            }
            let built = building.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let rest = with_clusters.into_iter().map(|group| match &built {
                Ok(_) => self.group(group),
                Err(error) => self.cannot_run(group, error),
            });
            outcomes.extend(rest.collect::<Result<Vec<_>>>()?);
            Ok(outcomes)
        })
    }

    /// A group whose programs could not be built is one failed test: its tests would each try to build them again.
    fn cannot_run(&self, group: Group, error: &anyhow::Error) -> Result<Outcome> {
        let name = group.name();
        let mut log = Log::create(self.logs.join(&name).with_extension("log"), true)?;
        log.line(&format!("error: {name} cannot run: build the programs of clusters: {error:#}"), &self.progress)?;
        Ok(Outcome { name, tally: Tally::one(false), took: Duration::ZERO, skipped: Vec::new(), log: log.path })
    }

    /// Runs a group. What keeps it from running is one failed test, so that the other groups still run.
    fn group(&self, group: Group) -> Result<Outcome> {
        let started = Instant::now();
        let name = group.name();
        let shown = self.progress.step(format!("test {name}"));
        let mut log = Log::create(self.logs.join(&name).with_extension("log"), self.verbose)?;
        let skipped = self.logs.join(&name).with_extension("skipped");
        let mut tally = match self.steps(group, &skipped, &mut log, &shown) {
            Ok(tally) => tally,
            Err(error) => {
                log.line(&format!("error: {error:#}"), &self.progress)?;
                Tally::one(false)
            }
        };
        let mut skipped = lines(&skipped);
        tally.skip(skipped.len() as u64);
        if is_ci() && !skipped.is_empty() {
            log.line(&format!("{} tests skipped themselves, and in CI none may", skipped.len()), &self.progress)?;
            tally.failed += 1;
        }
        skipped.extend(tally::ignored(log.text()).map(|test| format!("skipped {test}: ignored by its source")));
        let outcome = Outcome { name, tally, took: started.elapsed(), skipped, log: log.path.clone() };
        if outcome.has_failed() && !log.is_echoed() {
            self.progress.say(log.text());
        }
        shown.done();
        Ok(outcome)
    }

    fn steps(&self, group: Group, skipped: &Path, log: &mut Log, shown: &testbed::progress::Step) -> Result<Tally> {
        fs::write(skipped, "").with_context(|| format!("write {}", skipped.display()))?;
        group.fetch(self.given.as_ref(), &self.progress)?;
        let mut tally = Tally::default();
        for mut step in group.steps(&self.workspace, self.given.as_ref(), &self.progress)? {
            step.command.env(SKIPPED, skipped).env("CARGO_TERM_COLOR", "never");
            tally += step.run(log, &self.progress, shown)?;
        }
        Ok(tally)
    }

    /// Compiles a group's tests ahead of its turn. What fails here fails again then, and is reported there.
    fn compile(&self, group: Group) -> Result<()> {
        let shown = self.progress.step(format!("compile the tests of {}", group.name()));
        let mut log = Log::create(self.logs.join(format!("{}.compile.log", group.name())), false)?;
        let compiled = group
            .fetch(self.given.as_ref(), &self.progress)
            .and_then(|()| group.compile(&self.workspace, &self.progress))
            .and_then(|step| step.run(&mut log, &self.progress, &shown));
        if compiled.is_ok_and(|tally| tally.failed == 0) {
            shown.done();
        }
        Ok(())
    }
}

/// Each family once, in the order in which the groups need them.
fn families(groups: &[Group], given: Option<&Given>) -> Vec<Family> {
    let mut families = Vec::new();
    for family in groups.iter().flat_map(|group| group.families(given)) {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    families
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_cannot_be_built_fail_the_group_and_not_the_summary() {
        let folder = tempfile::tempdir().unwrap();
        let (logs, workspace) = (folder.path().to_owned(), Workspace::read().unwrap());
        let run = Run { workspace, logs, progress: Progress::silent(), verbose: false, given: None };
        let outcome = run.cannot_run(Group::E2e, &anyhow::anyhow!("no network")).unwrap();
        assert!(
            fs::read_to_string(&outcome.log)
                .unwrap()
                .contains("e2e cannot run: build the programs of clusters: no network")
        );
        let summary = Summary { outcomes: vec![outcome], took: Duration::ZERO };
        assert!(summary.has_failed() && summary.to_string().ends_with("\n0 passed, 1 failed, 0 skipped"), "{summary}");
    }
}
