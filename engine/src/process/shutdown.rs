//! How the process is told to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// A shared "stop now?". Clones share one state; whoever has one may ask for the stop.
#[derive(Clone, Debug)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Stop {
    /// Asks everything to stop. Asking twice changes nothing.
    pub fn request(&self) {
        self.0.send_replace(true);
    }

    /// Whether the stop was asked for.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the stop is asked for, at once if it already was.
    pub async fn requested(&self) {
        let mut changes = self.0.subscribe();
        // The sender lives in `self`, so waiting can't fail.
        let _ = changes.wait_for(|stop| *stop).await;
    }
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on neither signal ends the process by itself.
    ///
    /// # Errors
    /// The system refuses the handlers.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next signal.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everybody_hears_of_a_stop_also_late_comers() {
        let stop = Stop::default();
        let early = tokio::spawn({
            let stop = stop.clone();
            async move { stop.requested().await }
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), stop.requested()).await.is_err());
        assert!(!stop.is_requested());
        stop.clone().request();
        early.await.unwrap();
        stop.requested().await;
        assert!(stop.is_requested());
    }
}
