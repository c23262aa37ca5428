//! The gate: nginx asks it before it sends a blob, and lets it answer for manifests, so that what is pulled most is hashed, parsed and looked up by nobody
//! else. It says yes where the registry would: the login is in the same table, and the repository has the link on the same volume. It never says no for the
//! registry but to a login: whatever else it is not sure of, nginx asks the registry.
//!
//! | answer | nginx |
//! |---|---|
//! | 200 | sends the blob; passes the manifest on |
//! | 401 | answers as to a failed login |
//! | 403 | asks the registry |

mod question;
mod volume;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::tokens::{JUDGE, SERVER, Tokens, USER, tell};
use super::users::{Entry, HASHING, Users};
use question::Question;
use volume::{Found, Manifest, Volume};

/// Questions that the volume is asked at once. One that hangs holds up no more than these.
const LOOKING: usize = 16;
/// Names of hosts that are looked up at once, for issuers and the API server: a look takes long where nobody answers.
const RESOLVING: usize = 24;
/// Threads for questions, for hashing and for names.
pub const THREADS: usize = HASHING + LOOKING + RESOLVING;
/// After a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the gate looks at.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the registry's data; `None`: nothing is answered from it.
    pub data: Option<PathBuf>,
    /// Folder in which the kubelet shows the users' table; `None`: everybody may come in.
    pub logins: Option<PathBuf>,
    /// Folder in which it shows the keys of tokens, if clients get them.
    pub tokens: Option<PathBuf>,
    /// Folder with a folder for each issuer whose keys it shows.
    pub issuers: Option<PathBuf>,
}

/// What is asked, and what is known.
pub(super) struct Gate {
    volume: Option<Volume>,
    looking: Arc<Semaphore>,
    users: Option<Arc<Users>>,
    tokens: Option<Tokens>,
}

impl Gate {
    pub(super) fn new(options: &Options) -> io::Result<Self> {
        Self::of_cluster(options, None)
    }

    /// With a `client` in the place of the cluster that the pod is in.
    pub(super) fn of_cluster(options: &Options, client: Option<Client>) -> io::Result<Self> {
        let users = options.logins.clone().map(|folder| Users::new(folder, options.tokens.is_some()));
        let users = users.transpose()?.map(Arc::new);
        let tokens = options.tokens.clone().zip(users.clone()).map(|(keys, users)| {
            let issuers = options.issuers.clone().unwrap_or_default();
            Tokens::new(keys, issuers, users, client)
        });
        let volume = options.data.as_deref().map(Volume::new);
        Ok(Self { volume, looking: Arc::new(Semaphore::new(LOOKING)), users, tokens })
    }

    /// Answers at this socket until it is dropped.
    pub(super) async fn serve(self, socket: &Path) -> io::Result<Infallible> {
        // Of a process that was killed.
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (listener, gate) = (UnixListener::bind(socket)?, Arc::new(self));
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                let answer = service_fn(|request: Request<Incoming>| {
                    let gate = Arc::clone(&gate);
                    async move { Ok::<_, Infallible>(gate.answer(request).await) }
                });
                // Only nginx comes here, and it closes what it no longer needs.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (&self.tokens, request.uri().path()) {
            (Some(tokens), SERVER) => tokens.give(request).await,
            (Some(tokens), JUDGE) => tokens.judge(request.headers()).await,
            (_, path) => self.pull(path, request.headers()).await,
        }
    }

    /// Answers for a pull.
    async fn pull(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let user = match self.user(path, headers).await {
            Ok(user) => user,
            Err(refusal) => return *refusal,
        };
        let Some(volume) = self.volume.clone() else { return bare(StatusCode::FORBIDDEN) };
        // A network volume may hang. Whoever asked may go, the question stays.
        let Ok(turn) = Arc::clone(&self.looking).try_acquire_owned() else { return bare(StatusCode::FORBIDDEN) };
        let path = path.to_owned();
        let look = move || {
            let _turn = turn;
            volume.find(&Question::parse(&path)?)
        };
        let found = tokio::task::spawn_blocking(look).await;
        let mut answer = match found.ok().flatten() {
            Some(Found::Blob) => bare(StatusCode::OK),
            Some(Found::Manifest(manifest)) if takes(headers, manifest.media_type) => whole(manifest),
            Some(Found::Manifest(_)) | None => return bare(StatusCode::FORBIDDEN),
        };
        if let Some(user) = user {
            tell(&mut answer, USER, &user);
        }
        answer
    }

    /// Who pulls, where that is for nginx to know, or why he may not.
    async fn user(&self, path: &str, headers: &HeaderMap) -> Result<Option<String>, Box<Response<Full<Bytes>>>> {
        if let Some(tokens) = &self.tokens {
            return tokens.puller(path, headers).await.map(Some);
        }
        let Some(users) = &self.users else { return Ok(None) };
        match users.admit(headers.get(AUTHORIZATION).map(HeaderValue::as_bytes)).await {
            Entry::Yes(_) => Ok(None),
            Entry::No => Err(Box::new(bare(StatusCode::UNAUTHORIZED))),
            Entry::Later(_) | Entry::Unclear => Err(Box::new(bare(StatusCode::FORBIDDEN))),
        }
    }
}

/// Whether a client says that it takes this kind, and asks for the whole. Of everybody else, and of what only looks like it, the registry knows what it is.
fn takes(headers: &HeaderMap, media_type: &str) -> bool {
    let is_weight = |text: &str| text.trim().strip_prefix("q=").is_some_and(is_number);
    let is_it = |kind: &str| match kind.split_once(';') {
        None => kind.trim() == media_type,
        Some((kind, parameters)) => kind.trim() == media_type && is_weight(parameters),
    };
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    !headers.contains_key(IF_NONE_MATCH) && lines.flat_map(|line| line.split(',')).any(is_it)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

pub(super) fn bare(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

/// A manifest with the heads that the registry gives it.
fn whole(manifest: Manifest) -> Response<Full<Bytes>> {
    let digest = manifest.digest;
    let mut response = Response::new(Full::new(Bytes::from(manifest.text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(manifest.media_type));
    headers.insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    let text = |text: &str| HeaderValue::from_str(text).expect("a digest has no other letters");
    headers.insert("docker-content-digest", text(&digest));
    headers.insert(ETAG, text(&format!("\"{digest}\"")));
    response
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use base64::Engine as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::super::users::TABLE;
    use super::*;

    const KIND: &str = "application/vnd.oci.image.index.v1+json";

    /// A volume with a blob and a manifest of one digest, a folder as a kubelet shows it, and a gate that looks at both.
    struct World(tempfile::TempDir);

    impl World {
        async fn new(has_logins: bool) -> Self {
            let world = Self(tempfile::tempdir().unwrap());
            let digest = digest();
            let hex = digest.strip_prefix("sha256:").unwrap();
            for (path, text) in [
                (format!("repositories/app/_layers/sha256/{hex}/link"), digest.as_str()),
                (format!("repositories/app/_manifests/revisions/sha256/{hex}/link"), &digest),
                ("repositories/app/_manifests/tags/1/current/link".to_owned(), &digest),
                (format!("blobs/sha256/ab/{hex}/data"), &manifest()),
            ] {
                let path = world.0.path().join("data/docker/registry/v2").join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let logins = has_logins.then(|| world.0.path().join("users"));
            let options = Options { data: Some(world.0.path().join("data")), logins, tokens: None, issuers: None };
            let (gate, socket) = (Gate::new(&options).unwrap(), world.socket());
            fs::write(&socket, "of a process that was killed").unwrap();
            tokio::spawn(async move { gate.serve(&socket).await });
            while UnixStream::connect(world.socket()).await.is_err() {
                tokio::task::yield_now().await;
            }
            world
        }

        fn socket(&self) -> PathBuf {
            self.0.path().join("gate.sock")
        }

        /// Shows another table, as a kubelet does.
        fn shows(&self, version: &str, table: &str) {
            let folder = self.0.path().join("users");
            fs::create_dir_all(folder.join(version)).unwrap();
            fs::write(folder.join(version).join(TABLE), table).unwrap();
            symlink(version, folder.join("..next")).unwrap();
            fs::rename(folder.join("..next"), folder.join("..data")).unwrap();
        }

        async fn asks(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
            let mut stream = UnixStream::connect(self.socket()).await.unwrap();
            let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }

        /// The status for a `HEAD` of the blob.
        async fn lets_in(&self, login: Option<&str>) -> u16 {
            let header = login.map(|login| ("authorization", login));
            let path = format!("/v2/app/blobs/{}", digest());
            let answer = self.asks("HEAD", &path, header.as_slice()).await;
            answer[9..12].parse().unwrap()
        }
    }

    fn digest() -> String {
        format!("sha256:{}", "ab".repeat(32))
    }

    fn manifest() -> String {
        format!(r#"{{"schemaVersion":2,"mediaType":"{KIND}","manifests":[]}}"#)
    }

    fn line(name: &str, password: &str) -> String {
        format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap())
    }

    fn login(name: &str, password: &str) -> String {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}")))
    }

    #[tokio::test]
    async fn who_is_in_the_table_that_is_shown_now_is_let_in() {
        let world = World::new(true).await;
        let (ann, ben) = (login("ann", "of Ann's"), login("ben", "of Ben's"));
        assert_eq!(world.lets_in(Some(&ann)).await, 403, "nothing is shown yet");
        world.shows("1", &line("ann", "of Ann's"));
        for (login, status) in [
            (Some(ann.as_str()), 200),
            (Some(&ann), 200),
            (Some(&ben), 401),
            (Some("Bearer of-something"), 403),
            (None, 401),
        ] {
            assert_eq!(world.lets_in(login).await, status, "{login:?}");
        }
        world.shows("2", &line("ben", "of Ben's"));
        assert_eq!([world.lets_in(Some(&ann)).await, world.lets_in(Some(&ben)).await], [401, 200]);
        world.shows("3", "a line that is cut off");
        assert_eq!([world.lets_in(Some(&ann)).await, world.lets_in(Some(&ben)).await], [403, 403]);
        world.shows("4", "");
        assert_eq!(world.lets_in(Some(&ben)).await, 401, "a table without users is one");
    }

    #[tokio::test]
    async fn a_manifest_has_the_heads_of_the_registrys_answer() {
        let world = World::new(false).await;
        for (method, reference) in [("GET", digest()), ("GET", "1".to_owned()), ("HEAD", "1".to_owned())] {
            let accept = [
                ("accept", "text/html;q=0.5, application/x"),
                ("accept", "x/y , application/vnd.oci.image.index.v1+json;q=1"),
            ];
            let answer = world.asks(method, &format!("/v2/app/manifests/{reference}"), &accept).await;
            let (heads, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(heads.starts_with("HTTP/1.1 200 "), "{answer}");
            for head in [
                format!("content-type: {KIND}"),
                format!("content-length: {}", manifest().len()),
                format!("docker-content-digest: {}", digest()),
                format!("etag: \"{}\"", digest()),
                "docker-distribution-api-version: registry/2.0".to_owned(),
            ] {
                assert!(heads.lines().any(|line| line == head), "{head}: {heads}");
            }
            assert_eq!(body, if method == "GET" { manifest() } else { String::new() });
        }
    }

    #[tokio::test]
    async fn what_the_gate_is_not_sure_of_is_the_registrys() {
        let world = World::new(false).await;
        let (tag, accept) = ("/v2/app/manifests/1", ("accept", KIND));
        for (path, headers) in [
            (tag, vec![]),
            (tag, vec![("accept", "*/*")]),
            (tag, vec![("accept", &format!("{KIND};q"))]),
            (tag, vec![("accept", &format!("{KIND};q="))]),
            (tag, vec![("accept", &format!("{KIND};q=1;q=1"))]),
            (tag, vec![("accept", &format!("text/html;x=\"a,{KIND};y\""))]),
            (tag, vec![("accept", "application/vnd.oci.image.manifest.v1+json")]),
            (tag, vec![accept, ("if-none-match", "\"x\"")]),
            ("/v2/app/manifests/2", vec![accept]),
            ("/v2/other/manifests/1", vec![accept]),
            ("/v2/app/manifests/%31", vec![accept]),
            ("/v2/app/../app/manifests/1", vec![accept]),
            ("/v2/", vec![accept]),
        ] {
            let answer = world.asks("GET", path, &headers).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{path} {headers:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_login_that_waits_too_long_for_its_turn_is_the_registrys() {
        let world = World::new(true).await;
        world.shows("1", &line("ann", "of Ann's"));
        let users = Arc::new(Users::new(world.0.path().join("users"), false).unwrap());
        let header = login("ann", "of Ann's");
        let comes = || users.admit(Some(header.as_bytes()));
        let turns = users.hashing.acquire_many(HASHING as u32).await.unwrap();
        tokio::time::pause();
        assert_eq!(comes().await, Entry::Unclear);
        tokio::time::resume();
        drop(turns);
        assert!(matches!(comes().await, Entry::Yes(_)));
        let _turns = users.hashing.acquire_many(HASHING as u32).await.unwrap();
        assert!(matches!(comes().await, Entry::Yes(_)), "it is remembered");
    }

    #[tokio::test]
    async fn who_goes_before_he_is_answered_takes_nobodys_turn() {
        let world = World::new(true).await;
        let hash = bcrypt::hash("of Ann's", 8).unwrap();
        world.shows("1", &format!("ann:{hash}\n"));
        let users = Arc::new(Users::new(world.0.path().join("users"), false).unwrap());
        let right = login("ann", "of Ann's");
        let mut leaving = Box::pin(users.admit(Some(right.as_bytes())));
        assert!(futures::poll!(&mut leaving).is_pending(), "it is being hashed");
        drop(leaving);
        assert_eq!(users.hashing.available_permits(), HASHING - 1, "it is hashed all the same");
        let all = users.hashing.acquire_many(HASHING as u32).await.unwrap();
        assert!(matches!(users.admit(Some(right.as_bytes())).await, Entry::Yes(_)), "and remembered");
        drop(all);
    }

    #[tokio::test]
    async fn a_volume_that_hangs_holds_up_nobody_who_does_not_need_it() {
        let world = World::new(true).await;
        world.shows("1", &line("ann", "of Ann's"));
        let stuck = world.0.path().join("data/docker/registry/v2/repositories/app/_manifests/tags/stuck/current");
        fs::create_dir_all(&stuck).unwrap();
        nix::unistd::mkfifo(&stuck.join("link"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let ann = login("ann", "of Ann's");
        assert_eq!(world.lets_in(Some(&ann)).await, 200);
        let mut waiting = Vec::new();
        for _ in 0..LOOKING {
            let mut stream = UnixStream::connect(world.socket()).await.unwrap();
            let request = format!("GET /v2/app/manifests/stuck HTTP/1.1\r\nhost: x\r\nauthorization: {ann}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            waiting.push(stream);
        }
        while world.lets_in(Some(&ann)).await != 403 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.lets_in(Some(&login("ann", "another"))).await, 401, "passwords are hashed all the same");
        // Somebody writes into it: those who read get an end.
        fs::OpenOptions::new().write(true).open(stuck.join("link")).unwrap();
        while world.lets_in(Some(&ann)).await != 200 {
            tokio::task::yield_now().await;
        }
    }
}
