//! The instances of this user: who they belong to, which are left over, and how one of them is ended from outside.
//! An instance is alive as long as its janitor holds the lock beside its folder, whatever became of the process that made it.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Kind, cgroup::Cgroups};
use crate::paths;

const JANITOR: &str = include_str!("janitor.sh");

/// What an instance says about itself, in `instance.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was asked for.
    pub kind: Kind,
    /// The number of a node, 1 or 2; it gives the node's address. `None` for a control plane.
    pub slot: Option<u8>,
    /// The process that made the instance.
    pub owner: u32,
    /// When it was made.
    pub created: Timestamp,
}

/// Whether somebody looks after an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It ends with the process that made it.
    Owned,
    /// It was left running on purpose, until somebody takes it down.
    Detached,
    /// Nobody looks after it.
    Orphan,
}

/// One instance, seen from outside.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its name, six characters.
    pub id: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Whether somebody looks after it.
    pub state: State,
    /// What it says about itself; `None` when it didn't come that far.
    pub record: Option<Record>,
}

/// Every instance of this user, oldest first.
pub fn instances() -> Result<Vec<Instance>> {
    list(&paths::run()?)
}

/// Ends every instance that nobody looks after. Gives their names.
pub fn clear_orphans() -> Result<Vec<String>> {
    let run = paths::run()?;
    let _guard = guard(&run)?;
    let orphans = list(&run)?.into_iter().filter(|instance| instance.state == State::Orphan);
    orphans.map(|orphan| orphan.remove().map(|()| orphan.id.clone())).collect()
}

impl Instance {
    /// Ends the instance: kills its processes and removes whatever it left. Refused while a process still owns it.
    pub fn remove(&self) -> Result<()> {
        if self.state == State::Owned {
            bail!("instance {} belongs to a running process", self.id);
        }
        let mark = self.dir.join("detached");
        if mark.exists() {
            fs::remove_file(&mark).with_context(|| format!("remove {}", mark.display()))?;
        }
        Janitor::start(&self.dir, &self.id)?.finish()
    }
}

fn list(run: &Path) -> Result<Vec<Instance>> {
    let Ok(entries) = fs::read_dir(run) else { return Ok(Vec::new()) };
    let mut found: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".lock").map(str::to_owned))
        .filter(|id| !id.is_empty())
        .map(|id| look(run.join(&id), id))
        .collect::<Result<_>>()?;
    found.sort_by_key(|instance| instance.record.as_ref().map(|record| record.created));
    Ok(found)
}

fn look(dir: PathBuf, id: String) -> Result<Instance> {
    let text = fs::read(dir.join("instance.json")).unwrap_or_default();
    let state = if dir.join("detached").exists() {
        State::Detached
    } else if is_locked(&lock_path(&dir))? {
        State::Owned
    } else {
        State::Orphan
    };
    Ok(Instance { record: serde_json::from_slice(&text).ok(), id, dir, state })
}

fn is_locked(path: &Path) -> Result<bool> {
    match File::open(path).map(|file| file.try_lock()) {
        Ok(Ok(())) => Ok(false),
        Ok(Err(TryLockError::WouldBlock)) => Ok(true),
        Ok(Err(TryLockError::Error(error))) => Err(error).with_context(|| format!("look at {}", path.display())),
        Err(_) => Ok(false),
    }
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.with_extension("lock")
}

/// Held while instances are made or cleared, so that nobody clears what another is just making.
pub(super) fn guard(run: &Path) -> Result<File> {
    fs::create_dir_all(run).with_context(|| format!("make {}", run.display()))?;
    let path = run.join(".guard");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// The slots that are taken, and whether each will only be free when somebody takes a detached instance down.
pub(super) fn taken_slots(run: &Path) -> Result<BTreeMap<u8, bool>> {
    let slots = list(run)?.into_iter().filter_map(|instance| Some((instance.record?.slot?, instance.state)));
    Ok(slots.map(|(slot, state)| (slot, state == State::Detached)).collect())
}

/// The process that ends an instance when its owner lets go. A process of its own, because an owner that was killed can't do it.
#[derive(Debug)]
pub(super) struct Janitor {
    process: std::process::Child,
    lock: PathBuf,
}

impl Janitor {
    /// Starts looking after `dir`. The lock is the janitor's own standard output: the kernel lets go of it when the janitor ends.
    pub(super) fn start(dir: &Path, id: &str) -> Result<Self> {
        let lock = lock_path(dir);
        let held = File::options().create(true).append(true).open(&lock);
        let held = held.with_context(|| format!("open {}", lock.display()))?;
        held.lock().with_context(|| format!("lock {}", lock.display()))?;
        let errors = held.try_clone().context("share the lock with the janitor")?;
        let process = Command::new("setsid")
            .args(["sh", "-c", JANITOR, "janitor"])
            .arg(dir)
            .arg(id)
            .args(Cgroups::of(id).iter().flat_map(Cgroups::folders))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(held)
            .stderr(errors)
            .spawn()
            .context("start the janitor (needs setsid from util-linux)")?;
        Ok(Self { process, lock })
    }

    /// Lets go, and waits until nothing is left.
    pub(super) fn finish(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        let status = self.process.wait().context("wait for the janitor")?;
        if !status.success() {
            bail!("{}: {}", self.lock.display(), fs::read_to_string(&self.lock).unwrap_or_default().trim());
        }
        Ok(())
    }
}
