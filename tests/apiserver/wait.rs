//! Waiting for something with a limit, and printing what was seen when it runs out. No test sleeps for luck.

use std::time::{Duration, Instant};

/// How long anything may take on a machine that has much else to do, unless a test promises less.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long the garbage collector may take: it learns of a new kind of owner only twice a minute.
pub const GARBAGE: Duration = Duration::from_secs(75);

/// Each look costs the API server and this program some milliseconds of processor time, and many tests wait at once: so who has waited long looks less
/// often. What is measured is at most a tenth too long.
fn until_next_look(waited: Duration) -> Duration {
    (waited / 10).clamp(Duration::from_millis(15), Duration::from_millis(150))
}

/// A limit, to be read aloud: `appears(within(1))`.
pub fn within(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A limit for work that must be fast, in proportion to how many more programs want to run than there are processors.
pub fn for_this_machine(limit: Duration) -> Duration {
    let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    let load =
        std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    limit.mul_f64((load.unwrap_or(1.0) / processors).max(1.0))
}

/// Looks again and again until `look` gives `Ok`. Panics after `limit` with `what` was waited for and what was seen last. Gives the time
/// it took, too.
pub async fn timed<T>(limit: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> (T, Duration) {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return (found, started.elapsed()),
            Err(seen) if started.elapsed() > limit => panic!("{what}: not within {limit:?}; seen last: {seen}"),
            Err(_) => tokio::time::sleep(until_next_look(started.elapsed())).await,
        }
    }
}

/// As [`timed`], without the time.
pub async fn eventually<T>(limit: Duration, what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    timed(limit, what, look).await.0
}

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks for the whole of `period`; panics when `look` gives a complaint.
pub async fn always(period: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<(), String>) {
    let started = Instant::now();
    while started.elapsed() < period {
        if let Err(seen) = look().await {
            panic!("{what}: not any more after {:?}: {seen}", started.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
