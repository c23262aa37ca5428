//! The files of this machine, or of one below another root. What is not marked as ours is never written over and never removed; what is
//! written appears whole or not at all.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use private_registry_operator::node::trust_files::{File, Owner, Runtime, Store};
use private_registry_operator::pki::Bundle;

/// No file of ours is nearly as long.
const LONGEST: u64 = 1 << 20;

/// Where files lie.
pub(super) struct Machine {
    root: PathBuf,
}

/// What there is of a file that should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing.
    Absent,
    /// It, as it should be.
    Current,
    /// An older one of ours.
    Outdated,
    /// Somebody else's, which says the same.
    Equal,
    /// Somebody else's; in words, whose, and what to do.
    Foreign(String),
}

impl Machine {
    /// The machine below `root`.
    pub(super) fn at(root: &Path) -> Result<Self> {
        let root = root.canonicalize().with_context(|| format!("look at --root {}", root.display()))?;
        Ok(Self { root })
    }

    /// Whether it is this one, and not a folder that will be one.
    fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The place of a path of the machine. Below another root no link is followed: it would lead out of there.
    pub(super) fn place(&self, path: &Path) -> Result<PathBuf> {
        let mut place = self.root.clone();
        for part in path.components().filter(|part| *part != Component::RootDir) {
            place.push(part);
            if !self.is_this() && place.is_symlink() {
                bail!("{} is a link, which could lead out of {}", place.display(), self.root.display());
            }
        }
        Ok(place)
    }

    fn exists(&self, path: &str) -> bool {
        self.place(Path::new(path)).is_ok_and(|place| place.exists())
    }

    /// The runtimes that seem to be installed.
    pub(super) fn runtimes(&self) -> Vec<Runtime> {
        [
            (Runtime::Docker, ["/etc/docker", "/usr/bin/dockerd"]),
            (Runtime::Containerd, ["/etc/containerd", "/usr/bin/containerd"]),
            (Runtime::Podman, ["/etc/containers", "/usr/bin/podman"]),
        ]
        .into_iter()
        .filter(|(_, signs)| signs.iter().any(|sign| self.exists(sign)))
        .map(|(runtime, _)| runtime)
        .collect()
    }

    /// The system's own store.
    pub(super) fn store(&self) -> Result<Store> {
        let of = |store: Store| self.exists(store.added()[0]);
        match [Store::Debian, Store::RedHat].into_iter().find(|store| of(*store)) {
            Some(store) => Ok(store),
            None => bail!(
                "there is neither {} nor {}: install the package ca-certificates",
                Store::Debian.added()[0],
                Store::RedHat.added()[0]
            ),
        }
    }

    /// Where a runtime looks.
    pub(super) fn folders(&self, runtime: Runtime) -> Result<Vec<PathBuf>> {
        let config = self.read(Path::new("/etc/containerd/config.toml"))?;
        Ok(runtime.folders(config.as_deref()))
    }

    /// What there is of a file, for whom it should be.
    pub(super) fn look(&self, file: &File, owner: &Owner, is_shared: bool) -> Result<State> {
        let Some(text) = self.read(&file.path)? else {
            let folder = file.path.parent().filter(|_| !is_shared);
            return Ok(match folder.map(|folder| self.others(folder, owner)).transpose()?.flatten() {
                Some(words) => State::Foreign(words),
                None => State::Absent,
            });
        };
        Ok(match Owner::of(&text) {
            Some(found) if found == *owner && text == file.text => State::Current,
            Some(found) if found == *owner => State::Outdated,
            Some(other) => State::Foreign(taken(&other)),
            None if says_the_same(&text, file.content()) => State::Equal,
            None => State::Foreign("it was not written by this command: move it away".to_owned()),
        })
    }

    /// In words, whose a folder is, if it exists and nothing in it is for this registry.
    fn others(&self, folder: &Path, owner: &Owner) -> Result<Option<String>> {
        if !self.place(folder)?.exists() {
            return Ok(None);
        }
        let mut words = "its folder was not made by this command: move it away".to_owned();
        for path in self.entries(folder)? {
            match self.read(&path)?.as_deref().and_then(Owner::of) {
                Some(found) if found == *owner => return Ok(None),
                Some(other) => words = taken(&other),
                None => {}
            }
        }
        Ok(Some(words))
    }

    /// The files for a registry in a folder of folders, or in a folder of everybody.
    pub(super) fn written_for(&self, folder: &Path, depth: usize) -> Result<Vec<(PathBuf, Owner)>> {
        let mut found = Vec::new();
        for path in self.entries(folder)? {
            if depth > 0 && self.place(&path)?.is_dir() {
                found.extend(self.written_for(&path, depth - 1)?);
            } else if let Some(owner) = self.read(&path)?.as_deref().and_then(Owner::of) {
                found.push((path, owner));
            }
        }
        Ok(found)
    }

    /// What is in a folder, in order; nothing, if it is not there.
    fn entries(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let place = self.place(folder)?;
        let failed = || format!("look into {}", place.display());
        let listed = match fs::read_dir(&place) {
            Ok(listed) => listed,
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error).with_context(failed),
        };
        let names = listed.map(|entry| entry.map(|entry| folder.join(entry.file_name())));
        let mut paths = names.collect::<io::Result<Vec<_>>>().with_context(failed)?;
        paths.sort();
        Ok(paths)
    }

    /// The text of a file; `None` where there is none.
    fn read(&self, path: &Path) -> Result<Option<String>> {
        let place = self.place(path)?;
        match fs::metadata(&place) {
            // A pipe would be waited for.
            Ok(about) if about.is_file() && about.len() <= LONGEST => {}
            Ok(_) => return Ok(Some(String::new())),
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("look at {}", place.display())),
        }
        let bytes = fs::read(&place).with_context(|| format!("read {}", place.display()))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Writes the files of one folder. A folder that is new appears with all of them.
    pub(super) fn write(&self, files: &[&File]) -> Result<()> {
        let Some(folder) = files.first().and_then(|file| file.path.parent()) else { return Ok(()) };
        let place = self.place(folder)?;
        if place.is_dir() {
            return files.iter().try_for_each(|file| put(&place, file)).with_context(|| denied(&place));
        }
        self.write_folder(&place, files).with_context(|| denied(&place))
    }

    fn write_folder(&self, place: &Path, files: &[&File]) -> io::Result<()> {
        let parent = place.parent().unwrap_or(&self.root);
        make_folder(parent)?;
        let whole = tempfile::Builder::new().prefix(".private-registry-").tempdir_in(parent)?;
        files.iter().try_for_each(|file| put(whole.path(), file))?;
        open_to_all(whole.path(), 0o755)?;
        // An empty folder that somebody made meanwhile would give way; one with something in it does not.
        fs::rename(whole.path(), place)?;
        // It is at its place now.
        let _ = whole.keep();
        fs::File::open(parent)?.sync_all()
    }

    /// Removes a file, and its folder if that is empty then and stands for a host.
    pub(super) fn remove(&self, path: &Path, is_shared: bool) -> Result<()> {
        let place = self.place(path)?;
        fs::remove_file(&place).with_context(|| denied(&place))?;
        if let Some(folder) = place.parent().filter(|_| !is_shared) {
            match fs::remove_dir(folder) {
                // Something else lies there, or the folder is a link to one.
                Err(error) if [ErrorKind::DirectoryNotEmpty, ErrorKind::NotADirectory].contains(&error.kind()) => {}
                removed => removed.with_context(|| denied(folder))?,
            }
        }
        Ok(())
    }

    /// Runs one of the system's commands.
    pub(super) fn run(&self, command: &[&str]) -> Result<()> {
        let words = command.join(" ");
        let mut program = if self.is_this() {
            Command::new(command[0])
        } else {
            let mut program = Command::new("/usr/sbin/chroot");
            program.arg(&self.root).arg(command[0]);
            program
        };
        let output = program.args(&command[1..]).output().with_context(|| format!("run {words}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{words} failed ({}): {}", output.status, said.trim().lines().last().unwrap_or("it says nothing"));
        }
        Ok(())
    }
}

/// Whoever comes first has a host.
fn taken(other: &Owner) -> String {
    let space = other.namespace().map_or(String::new(), |space| format!(" --namespace {space}"));
    format!("it is for the registry {other}: kubectl registry trust {}{space} --uninstall takes it away", other.name())
}

/// Whether a text of somebody else gives the same trust.
fn says_the_same(theirs: &str, ours: &str) -> bool {
    let authorities = Bundle::read(theirs);
    theirs.trim() == ours.trim() || authorities == Bundle::read(ours) && authorities != Bundle::default()
}

/// A file at once, in a folder that exists.
fn put(folder: &Path, file: &File) -> io::Result<()> {
    let name = file.path.file_name().unwrap_or_default();
    let mut whole = tempfile::Builder::new().prefix(".private-registry-").tempfile_in(folder)?;
    whole.write_all(file.text.as_bytes())?;
    open_to_all(whole.path(), 0o644)?;
    whole.as_file().sync_all()?;
    whole.persist(folder.join(name))?;
    fs::File::open(folder)?.sync_all()
}

/// A folder and those above it, whatever the user's mask hides: the programs that read here run as somebody else.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(above) = folder.parent() {
        make_folder(above)?;
    }
    fs::create_dir(folder)?;
    open_to_all(folder, 0o755)
}

fn open_to_all(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn denied(place: &Path) -> String {
    format!("write {} (below /etc and /usr this needs root: docs/clients.md says how to become it)", place.display())
}
