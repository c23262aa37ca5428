//! Waiting with a limit, and with what was seen last when it runs out.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Only failures wait this long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// Looks every `every` until `look` gives `Ok`. Gives what it found and how long that took.
pub(super) async fn until<T>(
    what: &str,
    every: Duration,
    mut look: impl AsyncFnMut() -> Result<Result<T, String>>,
) -> Result<(T, Duration)> {
    let started = Instant::now();
    loop {
        match look().await? {
            Ok(found) => return Ok((found, started.elapsed())),
            Err(seen) if started.elapsed() > PATIENCE => bail!("{what}: not within {PATIENCE:?}; seen last: {seen}"),
            Err(_) => tokio::time::sleep(every).await,
        }
    }
}
