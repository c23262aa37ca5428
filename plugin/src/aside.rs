//! Work with files on a thread of its own, so that whoever waits for it can be interrupted. It ends with the next piece that it reads.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

/// Whether somebody waits for what is done.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted(Arc<AtomicBool>);

impl Wanted {
    /// Nobody waits any more.
    pub(crate) fn leave(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Reads only as long as somebody waits.
    pub(crate) fn reading<R: Read + Send + 'static>(&self, source: R) -> impl Read + Send + 'static {
        Reading { source, wanted: self.clone() }
    }
}

struct Reading<R> {
    source: R,
    wanted: Wanted,
}

impl<R: Read> Read for Reading<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.wanted.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted"));
        }
        self.source.read(buffer)
    }
}

/// Leaves when it goes.
struct Waiting(Wanted);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Waits for what a thread of its own does.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce(&Wanted) -> Result<T> + Send + 'static) -> Result<T> {
    let wanted = Wanted::default();
    let _waiting = Waiting(wanted.clone());
    tokio::task::spawn_blocking(move || work(&wanted)).await.context("wait for a thread")?
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_ends_when_nobody_waits() {
        let (say, said) = std::sync::mpsc::channel();
        let work = aside(move |wanted| {
            let ended = io::copy(&mut wanted.reading(io::repeat(0)), &mut io::sink());
            let _ = say.send(ended.is_err());
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), work).await.is_err());
        assert!(said.recv_timeout(Duration::from_secs(20)).unwrap());
    }
}
