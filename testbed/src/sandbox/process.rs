//! One program of an instance: how it ended, what it last said, and signals to it.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::net::UnixStream;

const LISTEN_LIMIT: Duration = Duration::from_secs(60);

/// A running program. Copies speak of the same one; dropping them leaves it running until its sandbox ends.
#[derive(Debug, Clone)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Arc<Mutex<Child>>,
}

impl Process {
    pub(super) fn new(name: &str, log: PathBuf, child: Child) -> Self {
        Self { name: name.to_owned(), log, child: Arc::new(Mutex::new(child)) }
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// The file that holds its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended; `None` while it runs.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
    }

    /// Fails when it has ended, with the last lines of its log.
    pub fn check(&self) -> Result<()> {
        match self.exited() {
            Some(status) => bail!("{} ended ({status}); its last words:\n{}", self.name, self.last_words(15)),
            None => Ok(()),
        }
    }

    /// Waits until it takes connections at this socket.
    pub async fn listens(&self, socket: &Path) -> Result<()> {
        let started = Instant::now();
        while UnixStream::connect(socket).await.is_err() {
            self.check()?;
            if started.elapsed() > LISTEN_LIMIT {
                let last_words = self.last_words(15);
                bail!("{} did not listen after {LISTEN_LIMIT:?}; its last words:\n{last_words}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Sends a signal. A program that has ended already is an error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exited() {
            bail!("{} has ended already ({status})", self.name);
        }
        let pid = Pid::from_raw(self.pid().cast_signed());
        signal::kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Kills it and waits until it is gone. Does nothing when it has ended already.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.kill().with_context(|| format!("kill {}", self.name))?;
        child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for that, at most `limit`. Gives how it ended.
    pub fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        self.signal(Signal::SIGTERM)?;
        loop {
            match self.exited() {
                Some(status) => return Ok(status),
                None if started.elapsed() > limit => bail!("{} did not end within {limit:?}", self.name),
                None => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Whether it was ended by SIGKILL.
    pub fn was_killed(&self) -> bool {
        self.exited().is_some_and(|status| status.signal() == Some(Signal::SIGKILL as i32))
    }

    /// The last lines of its output.
    pub fn last_words(&self, lines: usize) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}
