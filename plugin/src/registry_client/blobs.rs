//! Blobs: layers and configurations, which may have gigabytes. They pass in pieces; what has not been compared with its digest to the end is
//! given to nobody as whole.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::Way;
use super::digest::{self, Hasher};
use super::reference::Repository;
use super::retries::{GaveUp, TooSlow, may_pass};
use super::{Answer, Call, Client, Outgoing, Pieces};
use crate::shell;

/// How long no byte may come.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a registry may think about a blob that it has been sent whole: some read it again.
const THINKING: Duration = Duration::from_secs(900);
/// Bytes of an answer that only says how it went.
const MOST_WORDS: usize = 64 << 10;
/// How often in a row a download is taken up again without having come further.
const TRIES: u32 = 5;

/// What is to be transferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) size: u64,
    /// It may be somewhere else: layers that must not be distributed.
    pub(crate) is_foreign: bool,
}

/// The beginning of an upload.
pub(crate) enum Begun {
    /// There is nothing left to be done.
    Mounted,
    /// Where the content goes.
    At(String),
}

/// How a sender ended.
pub(crate) enum Sent {
    Whole,
    /// Nobody takes it any more; whoever took it knows why.
    Unwanted,
}

fn path(repository: &Repository, digest: &str) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// How large a blob is that the registry has.
pub(crate) async fn size<W: Way>(client: &mut Client<W>, repository: &Repository, digest: &str) -> Result<Option<u64>> {
    let answer = client.send(Call::new(Method::HEAD, path(repository, digest)), MOST_WORDS).await?;
    let Some(answer) = client.found(answer)? else { return Ok(None) };
    let size = answer.header("content-length").and_then(|text| text.parse().ok());
    size.map(Some).with_context(|| format!("{} does not say how large {digest} is", client.place()))
}

/// Begins to upload, or has the registry take the blob from another of its repositories.
pub(crate) async fn begin<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    mount: Option<(&str, &Repository)>,
) -> Result<Begun> {
    let query = mount.map_or_else(String::new, |(digest, from)| format!("?mount={digest}&from={from}"));
    let call = Call::new(Method::POST, format!("/v2/{repository}/blobs/uploads/{query}"));
    let answer = client.send(call, MOST_WORDS).await?;
    // Whoever may not read there, or is not understood, uploads.
    if mount.is_some() && answer.status.is_client_error() && answer.status != StatusCode::TOO_MANY_REQUESTS {
        return Box::pin(begin(client, repository, None)).await;
    }
    let answer = client.accepted(answer)?;
    match answer.status {
        StatusCode::CREATED if mount.is_some() => Ok(Begun::Mounted),
        StatusCode::ACCEPTED => Ok(Begun::At(location(&answer)?)),
        other => bail!("{} begins an upload with {other}", client.place()),
    }
}

/// Where an upload goes on. Whatever host is named, it is this registry: login and content go nowhere else.
fn location(answer: &Answer) -> Result<String> {
    let named = answer.header("location").context("the registry does not say where the upload goes on")?;
    let target: Option<Uri> = named.parse().ok();
    let path = target.as_ref().and_then(Uri::path_and_query).map(PathAndQuery::as_str);
    match path.filter(|path| path.starts_with("/v2/")) {
        Some(path) => Ok(path.to_owned()),
        None => bail!("the registry lets the upload go on at {named:?}"),
    }
}

/// Sends the content of an upload that was begun, in one request.
pub(crate) async fn put<W: Way>(client: &mut Client<W>, location: &str, blob: &Blob, content: Pieces) -> Result<()> {
    let separator = if location.contains('?') { '&' } else { '?' };
    let digest = blob.digest.replace(':', "%3A");
    let call = Call::new(Method::PUT, format!("{location}{separator}digest={digest}"))
        .with(header::CONTENT_TYPE, "application/octet-stream")
        .sending(Outgoing::Pieces(content));
    // Who provides the pieces sees to it that they don't stop.
    let limit = THINKING + Duration::from_secs(blob.size / (16 << 10));
    let answer = client.send_within(limit, call, MOST_WORDS).await?;
    let answer = client.accepted(answer)?;
    if answer.status != StatusCode::CREATED {
        bail!("{} ends an upload with {}", client.place(), answer.status);
    }
    Ok(())
}

/// Gives each piece of a blob to somebody; the last one only when all together are what the digest says. A connection that breaks is opened again, and
/// the rest is asked for. `false` if the registry does not have it.
pub(crate) async fn get<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    blob: &Blob,
    mut take: impl AsyncFnMut(Bytes) -> Result<()>,
) -> Result<bool> {
    let mut passing = Passing { hasher: Hasher::like(&blob.digest)?, at: 0, held: None, is_refused: false };
    let mut failures = 0;
    loop {
        let before = passing.at;
        let error = match go_on(client, repository, blob, &mut passing, &mut take).await {
            Ok(is_there) => return Ok(is_there),
            Err(error) => error,
        };
        failures = if passing.at > before { 0 } else { failures + 1 };
        let Some(at_least) = may_pass(&error).filter(|_| !passing.is_refused) else { return Err(error) };
        if failures == TRIES {
            return Err(error.context(GaveUp { tries: TRIES, at: passing.at, size: blob.size }));
        }
        let pause = at_least.max(Duration::from_secs(1 << failures.min(5)));
        shell::complain(&format!(
            "{error:#}; going on at byte {} of {} in {} s",
            passing.at,
            blob.size,
            pause.as_secs()
        ));
        tokio::time::sleep(pause).await;
    }
}

/// How far a download has come.
struct Passing {
    hasher: Hasher,
    at: u64,
    held: Option<Bytes>,
    /// Whoever takes the pieces takes no more of them, and has lost one: a pipe breaks as a connection does.
    is_refused: bool,
}

impl Passing {
    async fn give(&mut self, piece: Bytes, take: &mut impl AsyncFnMut(Bytes) -> Result<()>) -> Result<()> {
        let taken = take(piece).await;
        self.is_refused = taken.is_err();
        taken
    }
}

async fn go_on<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    blob: &Blob,
    passing: &mut Passing,
    take: &mut impl AsyncFnMut(Bytes) -> Result<()>,
) -> Result<bool> {
    let mut call = Call::new(Method::GET, path(repository, &blob.digest));
    if passing.at > 0 {
        call = call.with(header::RANGE, format!("bytes={}-", passing.at));
    }
    let what = format!("{} of {repository}", blob.digest);
    let answer = client.begin(call).await?;
    let (head, mut body) = answer.into_parts();
    // Not all registries know ranges.
    let mut skip = match head.status {
        StatusCode::OK => passing.at,
        StatusCode::PARTIAL_CONTENT if passing.at > 0 => {
            begins_at(&head.headers, passing.at).with_context(|| format!("read the rest of {what}"))?;
            0
        }
        status => {
            let words = rest(&mut body).await;
            let asked = format!("GET {}", path(repository, &blob.digest));
            let answer = Answer { asked, status, headers: head.headers, body: words };
            return match client.found(answer)? {
                None => Ok(false),
                Some(_) => bail!("{} answers GET of {what} with {status}", client.place()),
            };
        }
    };
    while passing.at < blob.size || skip > 0 {
        let Some(piece) = next(&mut body).await.with_context(|| format!("read {what}"))? else {
            bail!("{what} has {} bytes instead of {}", passing.at, blob.size);
        };
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
        skip -= skipped as u64;
        let piece = piece.slice(skipped..);
        if piece.is_empty() {
            continue;
        }
        passing.at += piece.len() as u64;
        if passing.at > blob.size {
            bail!("{what} has more than the {} bytes that it should have", blob.size);
        }
        passing.hasher.update(&piece);
        if let Some(before) = passing.held.replace(piece) {
            passing.give(before, take).await?;
        }
    }
    if next(&mut body).await.is_ok_and(|more| more.is_some_and(|more| !more.is_empty())) {
        bail!("{what} has more than the {} bytes that it should have", blob.size);
    }
    digest::same(passing.hasher.clone(), &blob.digest).with_context(|| what.clone())?;
    if let Some(last) = passing.held.take() {
        passing.give(last, take).await?;
    }
    Ok(true)
}

/// That a part is the one that was asked for, if the registry says which one it is.
fn begins_at(headers: &HeaderMap, at: u64) -> Result<()> {
    let Some(range) = headers.get(header::CONTENT_RANGE) else { return Ok(()) };
    let range = range.to_str().unwrap_or_default();
    let first = range.strip_prefix("bytes ").and_then(|range| range.split_once('-')?.0.trim().parse::<u64>().ok());
    if first != Some(at) {
        bail!("the registry was asked for what follows byte {at}, and answers with {range:?}");
    }
    Ok(())
}

/// The next bytes of a body; `None` at its end.
async fn next(body: &mut Incoming) -> Result<Option<Bytes>> {
    loop {
        let Some(frame) = timeout(SILENCE, body.frame()).await.map_err(|_| TooSlow("byte", SILENCE))? else {
            return Ok(None);
        };
        // What is no data is a trailer.
        if let Ok(data) = frame.context("its answer breaks off")?.into_data() {
            return Ok(Some(data));
        }
    }
}

/// A registry's words of an error, as far as anybody reads them.
async fn rest(body: &mut Incoming) -> Vec<u8> {
    let mut words = Vec::new();
    while words.len() < MOST_WORDS {
        match next(body).await {
            Ok(Some(piece)) => words.extend_from_slice(&piece),
            _ => break,
        }
    }
    words.truncate(MOST_WORDS);
    words
}

/// Sends a piece to whoever uploads it.
pub(crate) async fn pass_on(into: &mpsc::Sender<Bytes>, piece: Bytes) -> Result<Sent> {
    match timeout(THINKING, into.send(piece)).await {
        Ok(Ok(())) => Ok(Sent::Whole),
        Ok(Err(_)) => Ok(Sent::Unwanted),
        Err(_) => Err(anyhow!("the registry takes nothing for {} s", THINKING.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::store::{Kind, Store};
    use super::*;

    const CUT: Kind = Kind::CutAfter(10_000);

    /// What comes of 50,000 bytes of a registry with faults, and how it ended.
    async fn got(store: &Store, faults: &[(usize, Kind)]) -> (Vec<u8>, Result<bool>) {
        let content: Vec<_> = (0..50_000_u32).flat_map(|at| (at / 3).to_le_bytes()).take(50_000).collect();
        let blob = store.blob("a", "x", &content);
        let digest = blob["digest"].as_str().unwrap().to_owned();
        let of: &'static str = format!("GET /v2/a/blobs/{digest}").leak();
        faults.iter().for_each(|(times, kind)| store.fails(of, *times, *kind));
        let blob = Blob { digest, size: 50_000, is_foreign: false };
        let (repository, mut taken) = (Repository::parse("a", &[]).unwrap(), Vec::new());
        let mut client = store.client();
        let done = get(&mut client, &repository, &blob, async |piece| {
            taken.extend_from_slice(&piece);
            Ok(())
        });
        let done = done.await;
        assert_eq!(done.is_ok(), taken == content, "what is whole, and nothing else, is given whole");
        (taken, done)
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_goes_on_whatever_a_registry_makes_of_ranges() {
        for faults in [
            &[(1, CUT)][..],
            &[(4, CUT)],
            &[(1, CUT), (1, Kind::Whole)],
            &[(2, CUT), (1, Kind::Whole)],
            &[(1, CUT), (1, Kind::Status(503)), (1, Kind::Status(429))],
            &[(4, Kind::CutAfter(0)), (1, CUT), (4, Kind::CutAfter(0))],
        ] {
            let store = Store::default();
            assert!(got(&store, faults).await.1.unwrap());
            assert!(store.held().faults.iter().all(|fault| fault.times == 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_that_comes_no_further_ends_with_words() {
        let started = tokio::time::Instant::now();
        for (faults, words) in [
            (&[(1000, Kind::CutAfter(0))][..], "5 tries in a row brought nothing, at byte 0 of 50000"),
            (&[(1, CUT), (1000, Kind::CutAfter(0))], "5 tries in a row brought nothing, at byte 10000 of 50000"),
            (&[(1, CUT), (1000, Kind::Status(503))], "5 tries in a row brought nothing, at byte 10000 of 50000"),
        ] {
            let store = Store::default();
            let error = got(&store, faults).await.1.unwrap_err();
            assert!(format!("{error:#}").starts_with(words), "{error:#}");
            assert_eq!(may_pass(&error), None, "nobody tries all of it again");
            assert!(store.count("GET") <= 6, "{}", store.count("GET"));
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_that_is_another_is_not_taken_for_the_rest() {
        for (kind, words) in [
            (Kind::OtherRest, "its storage is damaged"),
            (Kind::OtherRange, "was asked for what follows byte 10000, and answers with \"bytes 7-8/9\""),
        ] {
            let error = got(&Store::default(), &[(1, CUT), (1, kind)]).await.1.unwrap_err();
            assert!(format!("{error:#}").contains(words), "{words}: {error:#}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_no_more_is_not_offered_the_rest() {
        let store = Store::default();
        let blob = store.blob("a", "x", &[7; 50_000]);
        let blob = Blob { digest: blob["digest"].as_str().unwrap().to_owned(), size: 50_000, is_foreign: false };
        let repository = Repository::parse("a", &[]).unwrap();
        // A pipe breaks as a connection does.
        let mut client = store.client();
        let done = get(&mut client, &repository, &blob, async |_| {
            Err(io::Error::from(io::ErrorKind::BrokenPipe)).context("write standard output")
        });
        let error = format!("{:#}", done.await.unwrap_err());
        assert!(error.starts_with("write standard output") && store.count("GET") == 1, "{error}");
    }
}
