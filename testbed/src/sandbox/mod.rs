//! The place where one instance lives: a folder, a control group and, for a node, a network and mounts of its own. Every process of an
//! instance is started through here, so that ending the sandbox ends them all and leaves nothing, however its owner ended.
//! Knows nothing of Kubernetes.

mod cgroup;
mod instance;
mod namespaces;
mod process;
mod reach;

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use cgroup::Cgroups;
use instance::Janitor;
use namespaces::Namespaces;

pub use instance::{Instance, Record, State, clear_orphans, instances};
pub use namespaces::{SERVICE_CIDR, SERVICE_CIDR6};
pub use process::Process;
pub use reach::{Reach, forward};

/// Two nodes are as much as a small machine carries.
const SLOTS: [u8; 2] = [1, 2];

/// How long a new node waits for a slot.
const SLOT_PATIENCE: Duration = Duration::from_secs(600);

/// What a sandbox is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Processes in the machine's own namespaces, on 127.0.0.1. Needs no root.
    ControlPlane,
    /// Processes in namespaces of their own, with a node address and a control group that a kubelet can use. Needs root.
    Node,
}

/// Where a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the machine's own namespaces.
    Host,
    /// In the sandbox's network and mount namespaces, which all processes of a node share; the same as [`Place::Host`] when the sandbox
    /// has none. Entering changes the working directory: paths must be absolute.
    Inside,
}

/// One instance. Ends, with everything in it, when it is dropped or when this process ends in whatever way, unless [`Sandbox::detach`]
/// was called.
#[derive(Debug)]
pub struct Sandbox {
    id: String,
    dir: PathBuf,
    slot: Option<u8>,
    cgroups: Option<Cgroups>,
    namespaces: Option<Namespaces>,
    processes: Mutex<Vec<Process>>,
    janitor: Mutex<Option<Janitor>>,
}

impl Sandbox {
    /// Makes a sandbox, after clearing what dead owners left. Waits while two other nodes are running; fails when those were detached.
    pub fn create(kind: Kind) -> Result<Self> {
        let run = crate::paths::run()?;
        instance::clear_orphans().context("clear what an earlier run left")?;
        let mut sandbox = match kind {
            Kind::ControlPlane => Self::register(&run, kind, None, &instance::guard(&run)?)?,
            Kind::Node => Self::register_node(&run)?,
        };
        sandbox.make_cgroups(kind)?;
        if let (Some(address), Some(address6)) = (sandbox.node_address(), sandbox.node_address6()) {
            sandbox.namespaces = Some(Namespaces::create(&sandbox, address, address6)?);
        }
        Ok(sandbox)
    }

    fn register_node(run: &Path) -> Result<Self> {
        let started = Instant::now();
        loop {
            let guard = instance::guard(run)?;
            match find_slot(&instance::taken_slots(run)?) {
                Slot::Free(slot) => return Self::register(run, Kind::Node, Some(slot), &guard),
                Slot::Awaited if started.elapsed() < SLOT_PATIENCE => {}
                Slot::Awaited | Slot::Kept => bail!(
                    "two nodes are running already; `cargo xtask cluster status` shows them, `cargo xtask cluster down` ends them"
                ),
            }
            drop(guard);
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn register(run: &Path, kind: Kind, slot: Option<u8>, _guard: &File) -> Result<Self> {
        let id = new_id();
        let dir = run.join(&id);
        let janitor = Janitor::start(&dir, &id)?;
        fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let record = Record { kind, slot, owner: std::process::id(), created: Timestamp::now() };
        fs::write(dir.join("instance.json"), serde_json::to_vec(&record)?).context("write the instance's record")?;
        fs::create_dir(dir.join("log")).context("make the log folder")?;
        Ok(Self {
            id,
            dir,
            slot,
            cgroups: None,
            namespaces: None,
            processes: Mutex::default(),
            janitor: Mutex::new(Some(janitor)),
        })
    }

    /// A control plane can do without control groups: its processes carry a mark in their environment.
    fn make_cgroups(&mut self, kind: Kind) -> Result<()> {
        match (Cgroups::of(&self.id), kind) {
            (Some(cgroups), Kind::Node) => {
                cgroups.create()?;
                self.cgroups = Some(cgroups);
            }
            (Some(cgroups), Kind::ControlPlane) => self.cgroups = cgroups.create().ok().map(|()| cgroups),
            (None, Kind::Node) => bail!("a node needs root and control groups"),
            (None, Kind::ControlPlane) => {}
        }
        Ok(())
    }

    /// The instance's name, six characters.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The instance's folder. It lies outside of /run, /var/lib and /var/log, is the same inside and outside of the node's namespaces,
    /// and is short enough for unix sockets.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file that holds the output of the process of that name.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(name).with_extension("log")
    }

    /// The address of the node, 198.51.100.1 or .2; `None` for a control plane. It exists inside the node's network only.
    pub fn node_address(&self) -> Option<Ipv4Addr> {
        self.slot.map(|slot| Ipv4Addr::new(198, 51, 100, slot))
    }

    /// The node's second address, where the kernel has IPv6: fd00:198:51:100::1 or ::2.
    pub fn node_address6(&self) -> Option<Ipv6Addr> {
        self.slot.map(|slot| Ipv6Addr::new(0xfd00, 0x198, 0x51, 0x100, 0, 0, 0, slot.into()))
    }

    /// The control group below which a kubelet may make its own, as the kubelet names it (`/preg-ID`). It exists in every hierarchy.
    pub fn cgroup_root(&self) -> String {
        format!("/{}", cgroup::name(&self.id))
    }

    /// The process whose namespaces [`Place::Inside`] enters; `None` when the sandbox has none of its own.
    pub fn holder(&self) -> Option<u32> {
        self.namespaces.as_ref().map(Namespaces::holder)
    }

    /// A command that will run at `place`, inside the instance's control group, in a session of its own (Ctrl-C does not reach it).
    /// Arguments and environment can be added as usual.
    pub fn command(&self, place: Place, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setsid");
        if let Some(cgroups) = &self.cgroups {
            command.args(["sh", "-c", r#"echo $$ >"$0" && exec "$@""#]).arg(cgroups.procs());
        }
        if let (Place::Inside, Some(namespaces)) = (place, &self.namespaces) {
            command.args(["nsenter", "--net", "--mount", "--target"]).arg(namespaces.holder().to_string()).arg("--");
        }
        command.arg(program).env("TESTBED_INSTANCE", &self.id).stdin(Stdio::null());
        command
    }

    /// Starts a command made by [`Sandbox::command`], with its output in [`Sandbox::log`].
    pub fn start(&self, name: &str, mut command: Command) -> Result<Process> {
        let path = self.log(name);
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("open {}", path.display()))?;
        let errors = log.try_clone().with_context(|| format!("open {}", path.display()))?;
        let child = command.stdout(log).stderr(errors).spawn().with_context(|| format!("start {name}"))?;
        let process = Process::new(name, path, child);
        self.processes().push(process.clone());
        Ok(process)
    }

    /// Starts a program with its arguments and extra environment, with its output in [`Sandbox::log`].
    pub fn spawn(
        &self,
        name: &str,
        place: Place,
        program: &Path,
        args: &[String],
        env: &[(&str, &str)],
    ) -> Result<Process> {
        let mut command = self.command(place, program);
        command.args(args).envs(env.iter().copied());
        self.start(name, command)
    }

    /// Makes a TCP port of 127.0.0.1 inside the sandbox reachable from this process.
    pub fn reach(&self, port: u16) -> Result<Reach> {
        match &self.namespaces {
            None => Ok(Reach::direct(port)),
            Some(namespaces) => Reach::through(&namespaces.network(), port),
        }
    }

    /// Starts a process that forwards a port of 127.0.0.1 on the machine to one inside the sandbox and outlives this one. `program` must
    /// call [`forward`] with the arguments `LISTEN_PORT NETWORK_NAMESPACE_FILE PORT` that are added to `args`.
    pub fn forward_detached(&self, program: &Path, args: &[&str], listen: u16, port: u16) -> Result<Process> {
        let namespaces = self.namespaces.as_ref().context("this sandbox has no network of its own")?;
        let mut command = self.command(Place::Host, program);
        command.args(args).arg(listen.to_string()).arg(namespaces.network()).arg(port.to_string());
        self.start("forward", command)
    }

    /// From now on the instance outlives this process, until somebody takes it down.
    pub fn detach(&self) -> Result<()> {
        File::create(self.dir.join("detached")).context("mark the instance as detached")?;
        self.finish()
    }

    /// Ends everything and waits until nothing is left.
    pub fn stop(&self) -> Result<()> {
        self.finish()
    }

    fn finish(&self) -> Result<()> {
        let janitor = self.janitor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(janitor) = janitor else { return Ok(()) };
        janitor.finish().with_context(|| format!("end instance {}", self.id))?;
        for process in self.processes().drain(..) {
            process.exited();
        }
        Ok(())
    }

    fn processes(&self) -> std::sync::MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::error!("{error:#}");
        }
    }
}

/// Whether a node may start.
#[derive(Debug, PartialEq, Eq)]
enum Slot {
    Free(u8),
    /// Somebody's node will end by itself.
    Awaited,
    /// Nodes go on until somebody takes them down: waiting would be in vain.
    Kept,
}

/// `taken` as in [`instance::taken_slots`].
fn find_slot(taken: &BTreeMap<u8, bool>) -> Slot {
    match SLOTS.into_iter().find(|slot| !taken.contains_key(slot)) {
        Some(free) => Slot::Free(free),
        None if taken.values().all(|is_detached| *is_detached) => Slot::Kept,
        None => Slot::Awaited,
    }
}

/// Six characters, different for every call on this machine.
fn new_id() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let seed = (std::process::id(), Timestamp::now().as_nanosecond(), CALLS.fetch_add(1, Ordering::Relaxed));
    let digest = Sha256::digest(format!("{seed:?}"));
    digest[..3].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_node_waits_for_one_that_ends_by_itself_and_for_no_other() {
        for (taken, expected) in [
            (vec![], Slot::Free(1)),
            (vec![(1, true)], Slot::Free(2)),
            (vec![(2, false)], Slot::Free(1)),
            (vec![(1, false), (2, false)], Slot::Awaited),
            (vec![(1, true), (2, false)], Slot::Awaited),
            (vec![(1, true), (2, true)], Slot::Kept),
        ] {
            assert_eq!(find_slot(&BTreeMap::from_iter(taken.clone())), expected, "{taken:?}");
        }
    }
}
