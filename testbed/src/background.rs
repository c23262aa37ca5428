//! Work that goes on beside a test: on a thread and a runtime of its own, so that it outlives the runtime of the test that happened to start it,
//! and doesn't stand still while a test blocks.

use std::future::Future;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

/// A running piece of work. Dropping it cancels the work and waits until it has ended.
#[derive(Debug)]
pub struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the work on a thread of this name. `work` is called on that thread, because clients belong to the runtime that made them.
    pub(crate) fn start<W, F>(name: &str, work: W) -> Result<Self>
    where
        W: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<()>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("make a runtime")?;
        let (stop, stopped) = oneshot::channel::<()>();
        let title = name.to_owned();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    outcome = work() => if let Err(error) = outcome { tracing::error!("{title}: {error:#}") },
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(serve)
            .with_context(|| format!("start a thread for {name}"))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
