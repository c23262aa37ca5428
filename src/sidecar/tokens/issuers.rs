//! Whom an issuer's token is about. Keys are shown by the kubelet as a file, or asked for where the issuer publishes them, and then kept: for an hour, and for a
//! day while the issuer cannot be reached.

mod published;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::warn;

use super::cluster::Silent;
use super::lack::Lack;
use crate::access::expressions;
use crate::access::issuer::{Guest, Issuer, KEYS_FILE};
use crate::access::jwt::{self, KeySet};
use crate::access::report::Standing;
use crate::secret::Sensitive;
use crate::sidecar::files;

/// How long keys count without being asked for again.
const FRESH: Duration = Duration::from_secs(3600);
/// How long they count while the issuer cannot be reached.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// How long nothing is asked after an answer, or none: a token with an unknown key must not make anybody ask at will.
const PAUSE: Duration = Duration::from_secs(30);
/// How long a token waits for an answer, or for its turn: less than nginx waits for the judge.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks for keys, and keeps them.
pub(super) struct Issuers {
    /// Folders of keys by the issuer's name.
    folder: PathBuf,
    known: Mutex<BTreeMap<String, Source>>,
    /// Expressions that are evaluated at once.
    evaluating: Semaphore,
}

/// The keys of one issuer, and who asks for them.
#[derive(Clone, Default)]
struct Source {
    /// What the manifest said of it then.
    of: Option<Arc<Issuer>>,
    state: Arc<Mutex<State>>,
    /// Held by who asks: to the end, also when whoever came with the token has gone.
    asking: Arc<tokio::sync::Mutex<()>>,
}

/// What is known of the keys.
#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// Which version of the file they are of.
    version: Option<PathBuf>,
    /// When they were last asked for, and why there was no answer.
    asked: Option<(Instant, Result<(), String>)>,
    /// What the last look has found.
    lack: Lack,
}

/// What is to be done for a token.
enum Step {
    Use(Arc<KeySet>),
    /// They count, and somebody should look whether there are newer ones.
    UseAndAsk(Arc<KeySet>),
    Ask,
    Fail(String),
}

impl Issuers {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, known: Mutex::default(), evaluating: Semaphore::new(1) }
    }

    /// Whom a token of this issuer is about. The inner error: nobody, and why.
    pub(super) async fn guest(
        &self,
        issuer: &Issuer,
        token: &Sensitive<Vec<u8>>,
        now: u64,
    ) -> Result<Result<Guest, String>, Silent> {
        let keys = self.keys(issuer, token.expose()).await?;
        let claims = jwt::verify(token.expose(), &keys, &issuer.url, &issuer.audience, now);
        let claims = match claims {
            Ok(claims) => claims,
            Err(error) => return Ok(Err(format!("the token of issuer {} is not accepted: {error}", issuer.name))),
        };
        // One that never ends holds up its own kind alone.
        let busy = || Silent("too many log in at once; try again".to_owned());
        let turn = tokio::time::timeout(PATIENCE, self.evaluating.acquire()).await.ok().and_then(Result::ok);
        let _turn = turn.ok_or_else(busy)?;
        let issuer = issuer.clone();
        let evaluated = tokio::task::spawn_blocking(move || {
            let guest = expressions::guest(&issuer, &claims);
            guest.map_err(|why| format!("spec.auth.token.issuers, {}: {why}", issuer.name))
        });
        evaluated.await.map_err(|_| busy())
    }

    /// How it is with its keys now. They are asked for if it is time, and nobody waits for that: the next look finds what came of it.
    pub(super) fn standing(&self, issuer: &Issuer, now: Instant) -> Standing {
        let source = self.source(issuer);
        if issuer.has_file {
            return source.state(|state| {
                _ = state.read(&self.folder.join(&issuer.name), now);
                state.lack.told(now)
            });
        }
        if source.state(|state| state.are_due(now)) {
            drop(source.begin(now));
        }
        source.state(|state| state.standing(now))
    }

    fn source(&self, issuer: &Issuer) -> Source {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let source = known.entry(issuer.name.clone()).or_default();
        if source.of.as_deref() != Some(issuer) {
            *source = Source { of: Some(Arc::new(issuer.clone())), ..Source::default() };
        }
        source.clone()
    }

    /// Keys that may have signed this token, if there are such.
    async fn keys(&self, issuer: &Issuer, token: &[u8]) -> Result<Arc<KeySet>, Silent> {
        let source = self.source(issuer);
        let keys = match issuer.has_file {
            true => source.state(|state| state.read(&self.folder.join(&issuer.name), Instant::now())),
            false => source.ask(token, Instant::now()).await,
        };
        // Whoever comes with a token is told no more: addresses and the like are for who reads the log.
        keys.map_err(|why| {
            warn!(issuer = issuer.name, why, "the keys of an issuer are not there");
            Silent(format!("the keys of issuer {} are not there; the log of container sidecar says why", issuer.name))
        })
    }
}

impl Source {
    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn ask(&self, token: &[u8], now: Instant) -> Result<Arc<KeySet>, String> {
        match self.state(|state| state.step(token, now)) {
            Step::Use(keys) => return Ok(keys),
            Step::UseAndAsk(keys) => {
                drop(self.begin(now));
                return Ok(keys);
            }
            Step::Fail(why) => return Err(why),
            Step::Ask => {}
        }
        let patience = match self.begin(now) {
            Some(task) => tokio::time::timeout(PATIENCE, task).await.is_ok(),
            None => tokio::time::timeout(PATIENCE, self.asking.lock()).await.is_ok(),
        };
        match self.state(|state| state.step(token, now)) {
            Step::Use(keys) | Step::UseAndAsk(keys) => Ok(keys),
            Step::Fail(why) => Err(why),
            Step::Ask if patience => Err("they were asked for a while ago".to_owned()),
            Step::Ask => Err("the issuer has not answered yet".to_owned()),
        }
    }

    /// Asks, if nobody does.
    fn begin(&self, now: Instant) -> Option<JoinHandle<()>> {
        let turn = Arc::clone(&self.asking).try_lock_owned().ok()?;
        let (issuer, source) = (self.of.clone()?, self.clone());
        Some(tokio::spawn(async move {
            let answer = published::keys(&issuer.url, issuer.authority.as_deref()).await;
            source.state(|state| {
                state.asked = Some((now, answer.as_ref().map(drop).map_err(|failure| failure.why.clone())));
                state.lack.learn(answer.as_ref().map_or_else(|failure| failure.standing, |_| Standing::Good), now);
                match answer {
                    Ok(keys) => state.keys = Some((Arc::new(keys), now)),
                    Err(failure) => {
                        warn!(issuer = issuer.name, why = failure.why, "the keys of an issuer cannot be had");
                    }
                }
            });
            drop(turn);
        }))
    }
}

impl State {
    fn is_pause(&self, now: Instant) -> bool {
        self.asked.as_ref().is_some_and(|(since, _)| now.saturating_duration_since(*since) < PAUSE)
    }

    /// Whether keys are to be asked for although nobody has come with a token.
    fn are_due(&self, now: Instant) -> bool {
        let is_fresh = |(_, since): &(_, Instant)| now.saturating_duration_since(*since) < FRESH;
        !self.keys.as_ref().is_some_and(is_fresh) && !self.is_pause(now)
    }

    /// Of keys that are asked for: as long as those that were had count, nobody has to be reached.
    fn standing(&self, now: Instant) -> Standing {
        match &self.keys {
            Some((_, since)) if now.saturating_duration_since(*since) < STALE => Standing::Good,
            // They have become too old, and why nobody has newer ones is not known yet.
            _ if self.lack.is_none() => Standing::Pending,
            _ => self.lack.told(now),
        }
    }

    fn step(&self, token: &[u8], now: Instant) -> Step {
        let age = |since: Instant| now.saturating_duration_since(since);
        let is_pause = self.is_pause(now);
        match (&self.keys, &self.asked) {
            (Some((keys, since)), _) if age(*since) < STALE && keys.may_have_signed(token) => {
                match age(*since) < FRESH || is_pause {
                    true => Step::Use(Arc::clone(keys)),
                    false => Step::UseAndAsk(Arc::clone(keys)),
                }
            }
            _ if !is_pause => Step::Ask,
            // It is of none of them, and who looks closer says so.
            (Some((keys, since)), _) if age(*since) < STALE => Step::Use(Arc::clone(keys)),
            (_, Some((_, Err(why)))) => Step::Fail(why.clone()),
            _ => Step::Fail("they are too old".to_owned()),
        }
    }

    fn read(&mut self, folder: &Path, now: Instant) -> Result<Arc<KeySet>, String> {
        let read = self.read_file(folder, now);
        self.lack.learn(read.as_ref().map_or_else(|(standing, _)| *standing, |_| Standing::Good), now);
        read.map_err(|(_, why)| why)
    }

    fn read_file(&mut self, folder: &Path, now: Instant) -> Result<Arc<KeySet>, (Standing, String)> {
        let version = files::version(folder);
        if let Some((keys, _)) = self.keys.as_ref().filter(|_| version.is_some() && self.version == version) {
            return Ok(Arc::clone(keys));
        }
        let missing = "the ConfigMap of jwksConfigMapRef has no such key, or does not exist";
        let text = std::fs::read(version.as_deref().unwrap_or(folder).join(KEYS_FILE));
        let text = text.map_err(|_| (Standing::Missing, missing.to_owned()))?;
        let none = "the ConfigMap of jwksConfigMapRef holds no JSON Web Key Set that can be used";
        let keys = Arc::new(KeySet::read(&text).ok_or((Standing::Unusable, none.to_owned()))?);
        (self.keys, self.version) = (Some((Arc::clone(&keys), now)), version);
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::access::jwt::tests::Issuer as Maker;

    /// An issuer that answers over TLS what it is told to.
    struct Server {
        url: String,
        authority: String,
        /// By path: status and body.
        answers: Mutex<BTreeMap<String, (u16, String)>>,
        asked: AtomicUsize,
    }

    impl Server {
        async fn start() -> Arc<Self> {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let config = config.unwrap().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.unwrap()));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
            let answers = Mutex::default();
            let server = Arc::new(Self { url, authority: certificate.pem(), answers, asked: AtomicUsize::new(0) });
            let answering = Arc::clone(&server);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                    let mut head = vec![0; 4096];
                    let length = stream.read(&mut head).await.unwrap_or_default();
                    let head = String::from_utf8_lossy(&head[..length]).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    answering.asked.fetch_add(1, Ordering::SeqCst);
                    let (status, body) =
                        answering.answers.lock().unwrap().get(&path).cloned().unwrap_or((404, String::new()));
                    let more = if status == 302 { "location: https://localhost:1/\r\n" } else { "" };
                    let answer = format!(
                        "HTTP/1.1 {status} x\r\n{more}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
            server
        }

        fn says(&self, path: &str, status: u16, body: &str) {
            self.answers.lock().unwrap().insert(path.to_owned(), (status, body.to_owned()));
        }

        fn publishes(&self, keys: &Maker) {
            let document = json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)});
            self.says("/.well-known/openid-configuration", 200, &document.to_string());
            self.says("/keys", 200, &keys.set());
        }

        fn issuer(&self) -> Issuer {
            let issuer = json!({"name": "ci", "url": self.url, "audience": "here", "user": "claims.sub", "authority": self.authority});
            serde_json::from_value(issuer).unwrap()
        }

        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::SeqCst)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn token(maker: &Maker) -> Vec<u8> {
        maker.signs(&json!({"sub": "x"})).into_bytes()
    }

    #[tokio::test]
    async fn published_keys_are_kept_for_an_hour_and_for_a_day_without_the_issuer() {
        let (server, first, second) = (Server::start().await, Maker::new("1"), Maker::new("2"));
        server.publishes(&first);
        let begin = Instant::now();
        let source = Source { of: Some(Arc::new(server.issuer())), ..Source::default() };
        source.ask(&token(&first), begin).await.unwrap();
        assert_eq!(server.asked(), 2);
        source.ask(&token(&first), begin + FRESH - SECOND).await.unwrap();
        assert_eq!(server.asked(), 0, "fresh keys are not asked for");
        // A new key is found at once, but nobody makes it ask at will.
        server.publishes(&second);
        let later = begin + FRESH - SECOND;
        let keys = source.ask(&token(&second), later).await.unwrap();
        assert!(keys.may_have_signed(&token(&second)));
        assert_eq!(server.asked(), 2);
        for _ in 0..5 {
            source.ask(&token(&first), later + PAUSE - SECOND).await.unwrap();
        }
        assert_eq!(server.asked(), 0, "an unknown key is asked about once in a while");
        server.says("/keys", 500, "");
        for (after, is_there) in [(FRESH, true), (STALE - SECOND, true), (STALE + PAUSE, false)] {
            // Who asks aside has come to the end.
            drop(source.asking.lock().await);
            assert_eq!(source.ask(&token(&second), later + after).await.is_ok(), is_there, "{after:?}");
        }
        server.publishes(&second);
        source.ask(&token(&second), later + STALE + 2 * PAUSE).await.unwrap();
    }

    /// Looks, and lets whoever asks come to the end.
    async fn looks(issuers: &Issuers, issuer: &Issuer, now: Instant) -> Standing {
        let standing = issuers.standing(issuer, now);
        drop(issuers.source(issuer).asking.lock().await);
        standing
    }

    #[tokio::test]
    async fn an_issuer_that_is_away_is_told_when_its_keys_count_no_more_and_not_before() {
        let (server, maker) = (Server::start().await, Maker::new("1"));
        let (issuers, issuer) = (Issuers::new(PathBuf::new()), server.issuer());
        server.publishes(&maker);
        let begin = Instant::now();
        let mut seen = Vec::new();
        for (after, is_there) in [
            (Duration::ZERO, true),
            (SECOND, true),
            // The keys still count, whoever is away.
            (FRESH + SECOND, false),
            (FRESH + PAUSE + 2 * SECOND, false),
            (STALE - SECOND, false),
            // They are too old, and that it is away is known for long.
            (STALE + PAUSE, false),
            (STALE + 3 * PAUSE, true),
            (STALE + 4 * PAUSE, true),
        ] {
            server.says("/keys", if is_there { 200 } else { 503 }, &maker.set());
            seen.push(looks(&issuers, &issuer, begin + after).await);
        }
        let (good, away) = (Standing::Good, Standing::Unreachable);
        assert_eq!(seen, [Standing::Pending, good, good, good, good, away, away, good]);
    }

    #[tokio::test]
    async fn an_issuer_that_never_answered_as_it_should_is_told_when_it_has_not_for_a_while() {
        let (server, maker) = (Server::start().await, Maker::new("1"));
        let nobody = Issuer { url: "https://localhost:1".to_owned(), ..server.issuer() };
        let strange = Issuer { authority: None, ..server.issuer() };
        server.publishes(&maker);
        server.says("/keys", 200, "{}");
        for (issuer, wanted) in
            [(&server.issuer(), Standing::Unusable), (&strange, Standing::Untrusted), (&nobody, Standing::Unreachable)]
        {
            let (issuers, begin) = (Issuers::new(PathBuf::new()), Instant::now());
            assert_eq!(looks(&issuers, issuer, begin).await, Standing::Pending);
            assert_eq!(looks(&issuers, issuer, begin + SECOND).await, Standing::Pending, "for a moment");
            assert_eq!(looks(&issuers, issuer, begin + PAUSE).await, wanted);
        }
        server.asked();
        let (issuers, begin) = (Issuers::new(PathBuf::new()), Instant::now());
        for second in 0..20 {
            looks(&issuers, &server.issuer(), begin + second * SECOND).await;
        }
        assert_eq!(server.asked(), 2, "looks make nobody ask at will");
    }

    #[tokio::test]
    async fn keys_in_a_file_are_told_when_they_are_missing_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let issuer =
            json!({"name": "ci", "url": "https://x", "audience": "here", "user": "claims.sub", "hasFile": true});
        let issuer: Issuer = serde_json::from_value(issuer).unwrap();
        let (issuers, begin) = (Issuers::new(folder.path().to_owned()), Instant::now());
        let shows = |text: &str| {
            std::fs::create_dir_all(folder.path().join("ci")).unwrap();
            std::fs::write(folder.path().join("ci").join(KEYS_FILE), text).unwrap();
        };
        assert_eq!(issuers.standing(&issuer, begin), Standing::Pending);
        assert_eq!(issuers.standing(&issuer, begin + PAUSE), Standing::Missing);
        shows("no keys");
        assert_eq!(issuers.standing(&issuer, begin + PAUSE), Standing::Unusable);
        shows(&Maker::new("1").set());
        assert_eq!(issuers.standing(&issuer, begin + PAUSE), Standing::Good);
    }

    #[tokio::test]
    async fn of_an_issuer_that_the_manifest_has_changed_other_keys_count() {
        let issuers = Issuers::new(PathBuf::new());
        for _ in 0..2 {
            let (server, maker) = (Server::start().await, Maker::new("1"));
            server.publishes(&maker);
            let token = maker.signs(&json!({"iss": server.url, "aud": "here", "exp": 100, "sub": "x"}));
            let guest = issuers.guest(&server.issuer(), &Sensitive::new(token.into_bytes()), 50).await;
            assert_eq!(guest.unwrap().unwrap().name, "ci:x");
        }
    }

    #[tokio::test]
    async fn who_comes_and_goes_makes_nobody_ask_twice() {
        let (server, maker) = (Server::start().await, Maker::new("1"));
        server.publishes(&maker);
        let source = Source { of: Some(Arc::new(server.issuer())), ..Source::default() };
        for _ in 0..5 {
            // Looked at once, and dropped before there can be an answer.
            let token = token(&maker);
            let ask = source.ask(&token, Instant::now());
            assert!(futures::FutureExt::now_or_never(ask).is_none());
        }
        source.ask(&token(&maker), Instant::now()).await.unwrap();
        assert_eq!(server.asked(), 2, "the document and the keys, once");
    }

    #[tokio::test]
    async fn an_issuer_that_says_something_else_is_told_and_followed_nowhere() {
        let (server, maker) = (Server::start().await, Maker::new("1"));
        let document = "/.well-known/openid-configuration";
        let keys_at = |url: &str| json!({"issuer": server.url, "jwks_uri": url}).to_string();
        let big = " ".repeat(600 << 10);
        for (path, status, body, why) in [
            (
                document,
                200,
                json!({"issuer": "https://elsewhere.example.com", "jwks_uri": format!("{}/keys", server.url)})
                    .to_string(),
                "another issuer",
            ),
            (document, 200, json!({"issuer": server.url}).to_string(), "no jwks_uri"),
            (document, 200, keys_at("http://localhost/keys"), "cannot be reached"),
            (document, 200, keys_at("file:///etc/passwd"), "file:///etc/passwd"),
            (document, 200, "<html>".to_owned(), "no JSON"),
            (document, 302, String::new(), "answers 302"),
            (document, 404, String::new(), "answers 404"),
            (document, 200, big.clone(), "says more than"),
            ("/keys", 200, "{}".to_owned(), "holds no key"),
            ("/keys", 200, big, "says more than"),
        ] {
            server.publishes(&maker);
            server.says(path, status, &body);
            let error = published::keys(&server.url, Some(&server.authority)).await.unwrap_err();
            assert!(error.why.contains(why), "{path}: {error:?}");
        }
        server.publishes(&maker);
        assert!(published::keys(&server.url, Some(&server.authority)).await.is_ok());
        for (authority, why) in [(None, "cannot be reached"), (Some("no certificate"), "certificateAuthority")] {
            let error = published::keys(&server.url, authority).await.unwrap_err();
            assert!(error.why.contains(why) && error.standing == Standing::Untrusted, "{error:?}");
        }
    }
}
