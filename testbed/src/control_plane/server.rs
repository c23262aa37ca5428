//! The two servers of a control plane, etcd and the API server: start, readiness, and for the API server what a test may do to it.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use kube::Client;
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    flags,
    ports::{self, Ports},
};
use crate::sandbox::{Place, Process, Reach, Sandbox};

/// How long a program may take until it is ready, on a machine that has much else to do.
pub(super) const START_LIMIT: Duration = Duration::from_secs(60);

pub(super) const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Starts etcd and waits until it is healthy. Gives the port of its clients.
pub(super) async fn start_etcd(sandbox: &Sandbox, program: &std::path::Path) -> Result<u16> {
    ports::on_free_ports(sandbox, async |Ports { etcd, etcd_peer, .. }| {
        let args = flags::etcd(sandbox.dir(), etcd, etcd_peer);
        let process = sandbox.spawn("etcd", Place::Inside, program, &args, &flags::ENVIRONMENT)?;
        let reach = sandbox.reach(etcd)?;
        until_ready(&process, async || answers_health(reach.port()).await.unwrap_or(false)).await?;
        Ok(etcd)
    })
    .await
}

/// A running API server.
#[derive(Debug)]
pub(super) struct ApiServer {
    sandbox: Arc<Sandbox>,
    program: PathBuf,
    args: Vec<String>,
    reach: Reach,
    process: Mutex<Process>,
}

impl ApiServer {
    /// Starts it. `port` must be the one that `args` name.
    pub(super) fn spawn(sandbox: &Arc<Sandbox>, program: PathBuf, port: u16, args: Vec<String>) -> Result<Self> {
        let process = sandbox.spawn("kube-apiserver", Place::Inside, &program, &args, &flags::ENVIRONMENT)?;
        let reach = sandbox.reach(port)?;
        Ok(Self { sandbox: Arc::clone(sandbox), program, args, reach, process: Mutex::new(process) })
    }

    /// Starts it again, after it has ended.
    pub(super) fn respawn(&self) -> Result<()> {
        let process =
            self.sandbox.spawn("kube-apiserver", Place::Inside, &self.program, &self.args, &flags::ENVIRONMENT)?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = process;
        Ok(())
    }

    pub(super) async fn ready(&self, client: &Client) -> Result<()> {
        until_ready(&self.process(), async || is_ready(client).await).await
    }

    /// Its port on 127.0.0.1, outside of the sandbox.
    pub(super) fn port(&self) -> u16 {
        self.reach.port()
    }

    pub(super) fn process(&self) -> Process {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn pause(&self) -> Result<()> {
        self.process().signal(Signal::SIGSTOP)
    }

    pub(super) fn resume(&self) -> Result<()> {
        self.process().signal(Signal::SIGCONT)
    }
}

async fn until_ready(process: &Process, ready: impl AsyncFn() -> bool) -> Result<()> {
    let started = Instant::now();
    while !ready().await {
        process.check()?;
        if started.elapsed() > START_LIMIT {
            let name = process.name();
            bail!("{name} is not ready after {START_LIMIT:?}; its last words:\n{}", process.last_words(15));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok_and(|answer| answer == "ok")
}

async fn answers_health(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.0 200"))
}
