//! What may go well at the next try: a registry that is busy or starts again, a connection that broke. Everything else is told at once.

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::Result;
use http::{StatusCode, header};

use super::Answer;
use crate::shell;

/// How often something is tried.
const TRIES: u32 = 5;
/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// No registry makes anybody wait for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A registry's no.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// For how long the registry wants not to be asked.
    wait: Option<Duration>,
    words: String,
}

/// Nothing came in time.
#[derive(Debug)]
pub(crate) struct TooSlow(pub(crate) &'static str, pub(crate) Duration);

/// Enough was tried, further in: what failed may not pass.
#[derive(Debug)]
pub(crate) struct GaveUp {
    pub(crate) tries: u32,
    /// How far it came, in bytes, and how far it should have come.
    pub(crate) at: u64,
    pub(crate) size: u64,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tries, at, size } = self;
        write!(
            f,
            "{tries} tries in a row brought nothing, at byte {at} of {size}; run it again when the registry is well"
        )
    }
}

impl Refusal {
    pub(crate) fn of(place: &str, answer: &Answer) -> Self {
        let words = format!("{place} answers {} with {}{}", answer.asked, answer.status, answer.words());
        let wait = answer.header(header::RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
        Self { status: answer.status, wait: wait.map(Duration::from_secs), words }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} within {} s", self.0, self.1.as_secs())
    }
}

impl std::error::Error for TooSlow {}

/// The status of a refusal.
pub(crate) fn refused_with(error: &anyhow::Error) -> Option<StatusCode> {
    error.chain().find_map(|cause| cause.downcast_ref::<Refusal>()).map(|refusal| refusal.status)
}

/// Whether another try may do better, and after how long at least.
pub(crate) fn may_pass(error: &anyhow::Error) -> Option<Duration> {
    if error.is::<GaveUp>() {
        return None;
    }
    error.chain().find_map(|cause| {
        if let Some(refusal) = cause.downcast_ref::<Refusal>() {
            let is_passing = refusal.status == StatusCode::TOO_MANY_REQUESTS || refusal.status.is_server_error();
            return is_passing.then(|| refusal.wait.unwrap_or_default().min(LONGEST_WAIT));
        }
        let is_broken = cause.is::<TooSlow>()
            || cause.downcast_ref::<hyper::Error>().is_some_and(|error| !error.is_user())
            || cause.downcast_ref::<io::Error>().is_some_and(|error| is_of_a_connection(error.kind()));
        is_broken.then_some(Duration::ZERO)
    })
}

/// Files never fail like this.
fn is_of_a_connection(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::ConnectionRefused | Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::TimedOut
    )
}

/// Does something until it succeeds, or fails in a way that stays.
pub(crate) async fn patiently<T>(mut work: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        let error = match work().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Some(at_least) = may_pass(&error) else { return Err(error) };
        let pause = wait.max(at_least);
        shell::complain(&format!("{error:#}; trying again in {} s", pause.as_secs()));
        tokio::time::sleep(pause).await;
        wait *= 2;
    }
    work().await
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    fn refusal(status: u16, wait: Option<u64>) -> anyhow::Error {
        let status = StatusCode::from_u16(status).unwrap();
        let refusal = Refusal { status, wait: wait.map(Duration::from_secs), words: "no".to_owned() };
        anyhow::Error::new(refusal).context("do it")
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let seconds = |error: &anyhow::Error| may_pass(error).map(|wait| wait.as_secs());
        for (error, wait) in [
            (refusal(429, None), Some(0)),
            (refusal(429, Some(7)), Some(7)),
            (refusal(503, Some(100_000)), Some(60)),
            (refusal(500, None), Some(0)),
            (refusal(404, None), None),
            (refusal(401, Some(1)), None),
            (refusal(507 - 100, None), None),
            (anyhow::Error::new(TooSlow("answer", FIRST_WAIT)).context("ask"), Some(0)),
            (anyhow::Error::new(io::Error::from(io::ErrorKind::ConnectionRefused)), Some(0)),
            (anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("write"), None),
            (anyhow!("the digest is another"), None),
            (refusal(503, None).context(GaveUp { tries: 5, at: 1, size: 2 }).context("copy it"), None),
        ] {
            assert_eq!(seconds(&error), wait, "{error:#}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_after_some_tries_and_waits_longer_each_time() {
        let started = tokio::time::Instant::now();
        let mut tries = 0;
        let done: Result<()> = patiently(async || {
            tries += 1;
            Err(refusal(503, None))
        })
        .await;
        assert_eq!((done.is_err(), tries, started.elapsed().as_secs()), (true, 5, 15));

        let mut tries = 0;
        let done = patiently(async || {
            tries += 1;
            if tries < 3 { Err(refusal(429, Some(30))) } else { Ok(tries) }
        })
        .await;
        assert_eq!((done.context("third").unwrap(), started.elapsed().as_secs()), (3, 75));

        let mut tries = 0;
        let done: Result<()> = patiently(async || {
            tries += 1;
            Err(refusal(404, None))
        })
        .await;
        assert_eq!((done.is_err(), tries), (true, 1));
    }
}
