//! The operator as a process: how it is started, what it says of itself, what the kernel says of it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use testbed::sandbox::{Place, Process, Sandbox};

use super::{processor, wait::until};

const ENDS_WITHIN: Duration = Duration::from_secs(25);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Rarer, because writing all metrics is work that counts as the operator's own.
const MEASURE_EVERY: Duration = Duration::from_millis(40);

pub(super) struct Operator {
    process: Process,
    address: SocketAddr,
}

/// Resident memory, in KiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Memory {
    /// All of it, with the parts of the program's file that are in use.
    pub(super) rss: u64,
    /// What the program allocated.
    pub(super) anonymous: u64,
    /// The most that `rss` has ever been.
    pub(super) peak: u64,
}

impl Operator {
    /// Starts it with its defaults: all namespaces, with an election.
    pub(super) fn start(
        program: &Path,
        sandbox: &Sandbox,
        place: Place,
        kubeconfig: &Path,
        more: &[&str],
    ) -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let address = free.context("find a free port")?;
        let mut command = sandbox.command(place, program);
        command.env_remove("RUST_LOG").env("KUBECONFIG", kubeconfig);
        command.args(["run", "--lease-namespace", "default", "--listen", &address.to_string()]).args(more);
        Ok(Self { process: sandbox.start("operator", command)?, address })
    }

    /// Waits until it is ready. Gives the time that took.
    pub(super) async fn ready(&self) -> Result<Duration> {
        let ready = until("the operator is ready", LOOK_EVERY, async || {
            self.process.check()?;
            Ok(match testbed::http::get(self.address, "/readyz").await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            })
        });
        Ok(ready.await?.1)
    }

    /// Waits until a metric has reached a value. Gives the time that took.
    pub(super) async fn reaches(&self, metric: &str, label: &str, value: f64) -> Result<Duration> {
        let what = format!("{metric} reaches {value}");
        let reached = until(&what, MEASURE_EVERY, async || {
            self.process.check()?;
            let now = self.metric(metric, label).await.unwrap_or_default();
            Ok(if now >= value { Ok(()) } else { Err(now.to_string()) })
        });
        Ok(reached.await?.1)
    }

    /// The sum of a metric over the series that carry a label (`outcome="created"`; empty for all).
    pub(super) async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let (_, text) =
            testbed::http::get(self.address, "/metrics").await.context("ask the operator for its metrics")?;
        let name = format!("private_registry_operator_{name}");
        let ours = |line: &&str| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let labelled = text.lines().filter(ours).filter(|line| line.contains(label));
        Ok(labelled.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// What the kernel counts.
    pub(super) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.process.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok())
                .with_context(|| format!("{path} has no {name}"))
        };
        Ok(Memory { rss: field("VmRSS")?, anonymous: field("RssAnon")?, peak: field("VmHWM")? })
    }

    /// How many sockets it has open: to the API server, and those on which it answers.
    pub(super) fn connections(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.process.pid());
        let open = fs::read_dir(&path).with_context(|| format!("list {path}"))?;
        let is_socket = |target: &Path| target.to_string_lossy().starts_with("socket:");
        Ok(open
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|target| is_socket(target))
            .count())
    }

    /// Processor time since it started.
    pub(super) fn processor(&self) -> Result<Duration> {
        processor::of_process(self.process.pid())
    }

    /// Asks it to end, and waits.
    pub(super) async fn stop(self) -> Result<()> {
        let process = self.process.clone();
        let status = tokio::task::spawn_blocking(move || process.terminate(ENDS_WITHIN)).await??;
        if !status.success() {
            bail!("the operator ended with {status}; its last words:\n{}", self.process.last_words(15));
        }
        Ok(())
    }

    /// The last lines of its log.
    pub(super) fn last_words(&self) -> String {
        self.process.last_words(15)
    }
}
