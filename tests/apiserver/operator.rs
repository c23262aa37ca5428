//! The operator as a process of its own, with the chart's rights and no more.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::ControlPlane;
use testbed::sandbox::{Place, Process};

use crate::cluster::Namespace;
use crate::wait::{PATIENCE, eventually};

/// The chart gives the right to a lease of this name only.
pub const LEASE: &str = "operator-private-registry-operator";

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_private-registry-operator");

/// A running operator. It is killed when this is dropped; when a test fails, its last words are printed.
pub struct Operator {
    pub process: Process,
    pub address: SocketAddr,
    name: String,
}

impl Namespace {
    /// An operator that watches this namespace, ready.
    pub async fn operator(&self) -> Operator {
        self.operator_with(&[]).await
    }

    /// An operator of the whole cluster, with more arguments and the chart's rights for that, ready. Can be called again.
    pub async fn operator_of_the_cluster(&self, more: &[&str]) -> Operator {
        let credentials = self.credentials_for_the_cluster().await;
        let own = ["--lease-namespace", &self.name, "--lease-name", LEASE, "--log-format", "text"];
        let arguments: Vec<_> = own.into_iter().chain(more.iter().copied()).collect();
        let operator = Operator::start(&self.cluster.plane, &self.name, credentials, &arguments, &[]);
        operator.ready().await;
        operator
    }

    /// An operator with more arguments, ready.
    pub async fn operator_with(&self, more: &[&str]) -> Operator {
        let credentials = self.credentials().await.to_owned();
        let operator = self.operator_as(&credentials, more, &[]);
        operator.ready().await;
        operator
    }

    /// An operator with these credentials, arguments and environment, just started.
    pub fn operator_as(&self, credentials: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Operator {
        self.installation_as(LEASE, credentials, arguments, environment)
    }

    /// The same as an installation of its own: what counts is the name of the Lease.
    pub fn installation_as(
        &self,
        lease: &str,
        credentials: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Operator {
        let mut all = vec!["--watch-namespace", &self.name, "--lease-namespace", &self.name, "--lease-name", lease];
        all.extend(["--log-format", "text"]);
        all.extend(arguments);
        Operator::start(&self.cluster.plane, &self.name, credentials, &all, environment)
    }
}

/// Below the ports that the kernel gives to clients and above those of the control plane.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 50) as u16 * 20;
    loop {
        let port = 29_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 1_000;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

impl Operator {
    /// As somebody starts it in a shell, with all rights and a kubeconfig, and no flag but the address, which only one process can have.
    pub fn from_a_shell(plane: &ControlPlane) -> Self {
        Self::start(plane, "shell", plane.kubeconfig(), &[], &[])
    }

    fn start(
        plane: &ControlPlane,
        purpose: &str,
        kubeconfig: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        static NUMBER: AtomicU16 = AtomicU16::new(1);
        let name = format!("operator-{purpose}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let address = free_address();
        let sandbox = plane.sandbox();
        let mut command = sandbox.command(Place::Host, PROGRAM);
        command.env_remove("RUST_LOG").env("KUBECONFIG", kubeconfig).envs(environment.iter().copied());
        command.args(["run", "--listen", &address.to_string()]).args(arguments);
        let process = sandbox.start(&name, command).unwrap();
        Self { process, address, name }
    }

    /// Everything that it has written to standard output and standard error.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.process.log()).unwrap_or_default()).into_owned()
    }

    /// Waits until it is ready.
    pub async fn ready(&self) -> String {
        eventually(PATIENCE, &format!("{} is ready", self.name), async || {
            self.process.check().map_err(|error| format!("{error:#}"))?;
            match self.get("/readyz").await {
                Ok((200, body)) => Ok(body),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until readiness says this, whether ready or not.
    pub async fn readiness_says(&self, words: &str) -> String {
        self.readiness_says_within(PATIENCE, words).await
    }

    /// As [`Operator::readiness_says`], with a limit.
    pub async fn readiness_says_within(&self, limit: Duration, words: &str) -> String {
        eventually(limit, &format!("{} says {words}", self.name), async || {
            self.process.check().map_err(|error| format!("{error:#}"))?;
            match self.get("/readyz").await {
                Ok((_, body)) if body.contains(words) => Ok(body),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Asks its HTTP server.
    pub async fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        testbed::http::get(self.address, path).await
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics").await.unwrap();
        let name = format!("private_registry_operator_{name}");
        let ours = |line: &&str| line.strip_prefix(&name).is_some_and(|rest| rest.starts_with([' ', '{']));
        text.lines().filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// How many passes have ended.
    pub async fn passes(&self) -> f64 {
        self.metric("reconciles_total").await
    }

    /// Ends it without a warning.
    pub fn kill(&self) {
        self.process.kill().unwrap();
    }

    /// Asks it to end, and waits.
    pub async fn stop(&self) -> std::process::ExitStatus {
        self.process.signal(Signal::SIGTERM).unwrap();
        self.ended(Duration::from_secs(25)).await
    }

    /// Waits until it has ended.
    pub async fn ended(&self, limit: Duration) -> std::process::ExitStatus {
        eventually(limit, &format!("{} ends", self.name), async || self.process.exited().ok_or("it runs".to_owned()))
            .await
    }

    /// Waits until so many passes have ended.
    pub async fn has_made(&self, passes: f64) {
        self.has_counted("reconciles_total", passes).await;
    }

    /// Waits until a counter is there: what it counts can be seen elsewhere a moment before.
    pub async fn has_counted(&self, name: &str, at_least: f64) {
        eventually(PATIENCE, &format!("{name} is {at_least}"), async || {
            let now = self.metric(name).await;
            if now >= at_least { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- last words of {}\n{}", self.name, self.process.last_words(40));
        }
        self.process.kill().ok();
    }
}
