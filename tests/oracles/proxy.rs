//! What stands between one operator and the API server and does to its requests what networks, API servers and fate do. Plain HTTP on loopback towards the
//! operator; the operator's own credentials towards the API server. It keeps a record of what was asked and what became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use testbed::sandbox::Process;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::cluster::Namespace;
use crate::wait::{PATIENCE, eventually};

/// Not about registries.
const ASIDE: [&str; 6] = ["events", "leases", "pods", "selfsubjectaccessreviews", "selfsubjectrulesreviews", ""];

/// What is done to requests. Only one thing at a time, so that a failure has one cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Fault {
    /// Everything passes.
    #[default]
    None,
    /// The operator is killed before its n-th write about this registry reaches the API server.
    KillBefore { registry: String, write: usize },
    /// The operator is killed after its n-th write about this registry was done, and before it hears of it.
    KillAfter { registry: String, write: usize },
    /// One request in `every` is answered with this status and not passed on. 409 concerns writes only.
    Refuse { code: u16, every: usize },
    /// Of one answer in `every` that is no watch, only half ever arrives.
    Stall { every: usize },
    /// Of every list of whole objects of this resource only half ever arrives. Watches list metadata.
    StallLists { of: &'static str },
    /// Each watch ends after this time.
    CloseWatches { after: Duration },
    /// One event of a watch in `every` is lost.
    LoseEvents { every: usize },
    /// Nothing that a watch says is heard.
    Blind,
    /// Lists are answered as they were when [`Proxy::remember_lists`] was called, and watches say nothing: an API server that lags behind.
    Lag,
}

/// What is only tried, and changes nothing.
const REHEARSED: &str = "rehearse";

/// A request that is no watch, and what became of it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub verb: &'static str,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Status of the answer; the API server's own.
    pub code: u16,
}

impl Seen {
    pub fn is_write(&self) -> bool {
        !["get", REHEARSED].contains(&self.verb) && !ASIDE.contains(&self.resource.as_str())
    }
}

#[derive(Default)]
struct Plan {
    fault: Fault,
    counted: usize,
    /// The operator to kill.
    operator: Option<Process>,
    lists: BTreeMap<String, Bytes>,
    lists_before: BTreeMap<String, Bytes>,
    watched: BTreeSet<String>,
    expired: BTreeSet<String>,
    record: Vec<Seen>,
    last: Option<Instant>,
    running: usize,
}

struct State {
    upstream: Client,
    plan: Mutex<Plan>,
    /// Watches that began under an older number end.
    round: watch::Sender<u64>,
}

/// A proxy for one namespace's operator.
pub struct Proxy {
    /// The operator's kubeconfig, with this proxy's address.
    pub kubeconfig: PathBuf,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Namespace {
    /// A proxy for this namespace's operator, through which everything passes.
    pub async fn proxy(&self) -> Proxy {
        let credentials = self.credentials().await;
        let text = std::fs::read_to_string(credentials).unwrap();
        let upstream = testbed::control_plane::client(credentials).await.unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = regex::Regex::new(r"https://127\.0\.0\.1:[0-9]+").unwrap();
        let text = server.replace(&text, format!("http://127.0.0.1:{port}"));
        let kubeconfig = self.cluster.plane.sandbox().dir().join(format!("{}-proxy.kubeconfig", self.name));
        std::fs::write(&kubeconfig, text.as_ref()).unwrap();
        let state = Arc::new(State { upstream, plan: Mutex::default(), round: watch::Sender::new(0) });
        let task = tokio::spawn(serve(listener, Arc::clone(&state)));
        Proxy { kubeconfig, state, task }
    }
}

impl Proxy {
    /// From now on this, and counting begins anew.
    pub fn does(&self, fault: Fault) {
        let mut plan = self.state.plan.lock().unwrap();
        let ends = matches!(plan.fault, Fault::Blind | Fault::Lag | Fault::LoseEvents { .. });
        if ends {
            // Who was blind does not hear afterwards what it has missed: the API server remembers its changes for a while only.
            plan.expired = plan.watched.clone();
        }
        plan.fault = fault;
        plan.counted = 0;
        drop(plan);
        if ends {
            self.state.round.send_modify(|round| *round += 1);
        }
    }

    /// The process that [`Fault::KillBefore`] and [`Fault::KillAfter`] end.
    pub fn operator(&self, process: &Process) {
        self.state.plan.lock().unwrap().operator = Some(process.clone());
    }

    /// Keeps the lists that were answered last, for [`Fault::Lag`].
    pub fn remember_lists(&self) {
        let mut plan = self.state.plan.lock().unwrap();
        plan.lists_before = plan.lists.clone();
        assert!(!plan.lists_before.is_empty(), "nothing was listed yet");
    }

    /// Whether the fault that was asked for has killed the operator.
    pub fn has_killed(&self) -> bool {
        let plan = self.state.plan.lock().unwrap();
        plan.operator.as_ref().is_some_and(Process::was_killed)
    }

    /// How often the fault that was asked for had its occasion.
    pub fn occasions(&self) -> usize {
        self.state.plan.lock().unwrap().counted
    }

    /// Forgets what was recorded.
    pub fn forget(&self) {
        self.state.plan.lock().unwrap().record.clear();
    }

    /// What was asked since [`Proxy::forget`] about objects whose names begin so.
    pub fn seen(&self, registry: &str) -> Vec<Seen> {
        let plan = self.state.plan.lock().unwrap();
        plan.record.iter().filter(|seen| seen.name.starts_with(registry)).cloned().collect()
    }

    /// How often each child of a registry was made, deleted, and otherwise written, by the operator: by resource and suffix.
    pub fn done(&self, registry: &str) -> BTreeMap<String, Done> {
        let mut all: BTreeMap<String, Done> = BTreeMap::new();
        for seen in self.seen(registry).into_iter().filter(Seen::is_write) {
            if seen.resource == "privateregistries" || seen.code >= 300 {
                continue;
            }
            let suffix = seen.name.strip_prefix(registry).unwrap_or_default();
            let done = all.entry(format!("{}{suffix}", seen.resource)).or_default();
            match (seen.verb, seen.code) {
                ("delete", _) => done.deleted += 1,
                (_, 201) => done.made += 1,
                _ => done.changed += 1,
            }
        }
        all
    }

    /// For how long nothing was asked, counted from `began` at the earliest.
    pub fn silence(&self, began: Instant) -> Duration {
        let plan = self.state.plan.lock().unwrap();
        let last = plan.last.unwrap_or(began).max(began);
        if plan.running == 0 { last.elapsed() } else { Duration::ZERO }
    }

    /// Waits until nothing was asked for a while.
    pub async fn is_quiet(&self) {
        self.is_quiet_within(PATIENCE, Duration::from_millis(400)).await;
    }

    /// Waits until nothing was asked for so long.
    pub async fn is_quiet_within(&self, limit: Duration, pause: Duration) {
        let started = Instant::now();
        eventually(limit, "the operator asks nothing more", async || {
            if self.silence(started) > pause {
                return Ok(());
            }
            Err(format!("{:?}", self.state.plan.lock().unwrap().record.last()))
        })
        .await;
    }
}

/// What the operator did to one object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    pub made: usize,
    pub deleted: usize,
    pub changed: usize,
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(connection(stream, Arc::clone(&state)));
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        // On a task of its own: what has reached a proxy reaches the API server, too, even if who has sent it is killed.
        async move { tokio::spawn(answer(request, state)).await.unwrap_or(Err(Dropped)) }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok();
}

/// The connection ends without an answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

type Answer = Response<BoxBody<Bytes, Infallible>>;

struct Call {
    verb: &'static str,
    resource: String,
    subresource: String,
    name: String,
    watches: bool,
}

impl Call {
    fn of(method: &Method, uri: &Uri, body: &[u8]) -> Self {
        let path: Vec<_> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let rest = match path.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => &[],
        };
        let rest = if let ["namespaces", _, rest @ ..] = rest { rest } else { rest };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
        let verb = match *method {
            Method::POST => "create",
            Method::PATCH | Method::PUT => "patch",
            Method::DELETE => "delete",
            _ => "get",
        };
        let mut name = part(1);
        if verb == "create" && name.is_empty() {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        }
        let asks = |word: &str| uri.query().is_some_and(|query| query.contains(word));
        let verb = if asks("dryRun=All") { REHEARSED } else { verb };
        let watches = asks("watch=true");
        Self { verb, resource: part(0), subresource: part(2), name, watches }
    }

    fn lists(&self) -> bool {
        self.verb == "get" && self.name.is_empty() && !self.resource.is_empty() && !self.watches
    }

    fn seen(&self, code: u16) -> Seen {
        Seen {
            verb: self.verb,
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            name: self.name.clone(),
            code,
        }
    }
}

/// One in so many, the same in every run, and in no rhythm: a pass asks the same questions each time, and the same one would be hit for ever.
fn one_in(every: usize, number: usize) -> bool {
    let mut mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).is_multiple_of(every as u64)
}

/// What is to be done with one request.
enum Deed {
    Pass,
    KillBefore(Process),
    KillAfter(Process),
    Refuse(u16),
    Half,
    Replay(Bytes),
}

fn full(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()).boxed());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

fn refusal(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "a fault made on purpose", "reason": reason, "code": code})
}

/// Half of an answer, and then nothing for ever.
fn half(status: StatusCode, body: &Bytes) -> Answer {
    let begun = futures::stream::iter([Ok(Frame::data(body.slice(..body.len() / 2)))]);
    let mut answer = Response::new(http_body_util::BodyExt::boxed(StreamBody::new(Shared(
        begun.chain(futures::stream::pending()).boxed().into(),
    ))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

/// A stream that may be shared between threads, as hyper's boxed bodies must be.
struct Shared(Mutex<futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>);

impl From<futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>> for Shared {
    fn from(stream: futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>) -> Self {
        Self(Mutex::new(stream))
    }
}

impl futures::Stream for Shared {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.lock().unwrap().poll_next_unpin(context)
    }
}

fn list_key(uri: &Uri, headers: &HeaderMap) -> String {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let query = uri.query().unwrap_or_default();
    let selector = query.split('&').find(|part| part.starts_with("labelSelector=")).unwrap_or_default();
    format!("{} {selector} {accept}", uri.path())
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Answer, Dropped> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
    let call = Call::of(&parts.method, &parts.uri, &body);
    if call.watches {
        return watch(&state, &parts).await;
    }
    {
        let mut plan = state.plan.lock().unwrap();
        plan.running += 1;
        plan.last = Some(Instant::now());
    }
    let answer = exchange(&state, &call, &parts, body).await;
    let mut plan = state.plan.lock().unwrap();
    plan.running -= 1;
    plan.last = Some(Instant::now());
    answer
}

impl State {
    fn deed(&self, call: &Call, key: &str) -> Deed {
        let mut plan = self.plan.lock().unwrap();
        let write = call.seen(0).is_write();
        match plan.fault.clone() {
            Fault::KillBefore { registry, write: at } | Fault::KillAfter { registry, write: at }
                if write && call.name.starts_with(&registry) =>
            {
                plan.counted += 1;
                if plan.counted != at {
                    return Deed::Pass;
                }
                let operator = plan.operator.clone().expect("there is an operator to kill");
                let before = matches!(plan.fault, Fault::KillBefore { .. });
                if before { Deed::KillBefore(operator) } else { Deed::KillAfter(operator) }
            }
            Fault::Refuse { code, every } if code != 409 || write => {
                plan.counted += 1;
                if one_in(every, plan.counted) { Deed::Refuse(code) } else { Deed::Pass }
            }
            Fault::Stall { every } => {
                plan.counted += 1;
                if one_in(every, plan.counted) { Deed::Half } else { Deed::Pass }
            }
            Fault::StallLists { of }
                if call.lists() && call.resource == of && !key.contains("PartialObjectMetadata") =>
            {
                plan.counted += 1;
                Deed::Half
            }
            Fault::Lag if call.lists() => match plan.lists_before.get(key).cloned() {
                Some(before) => {
                    plan.counted += 1;
                    Deed::Replay(before)
                }
                None => Deed::Pass,
            },
            _ => Deed::Pass,
        }
    }

    async fn pass(&self, parts: &http::request::Parts, body: Bytes) -> Result<Response<Body>, Dropped> {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        for name in [header::ACCEPT, header::CONTENT_TYPE] {
            if let Some(value) = parts.headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        self.upstream.send(request).await.map_err(|_| Dropped)
    }
}

async fn exchange(state: &State, call: &Call, parts: &http::request::Parts, body: Bytes) -> Result<Answer, Dropped> {
    let key = list_key(&parts.uri, &parts.headers);
    let deed = state.deed(call, &key);
    match &deed {
        Deed::KillBefore(operator) => {
            operator.kill().unwrap();
            return Err(Dropped);
        }
        Deed::Refuse(code) => {
            let reason = match code {
                409 => "Conflict",
                429 => "TooManyRequests",
                503 => "ServiceUnavailable",
                _ => "InternalError",
            };
            state.plan.lock().unwrap().record.push(call.seen(*code));
            return Ok(full(StatusCode::from_u16(*code).unwrap(), refusal(*code, reason).to_string()));
        }
        Deed::Replay(list) => return Ok(full(StatusCode::OK, list.clone())),
        Deed::Pass | Deed::KillAfter(_) | Deed::Half => {}
    }
    let (head, body) = state.pass(parts, body).await?.into_parts();
    let body = body.collect_bytes().await.map_err(|_| Dropped)?;
    {
        let mut plan = state.plan.lock().unwrap();
        plan.record.push(call.seen(head.status.as_u16()));
        if call.lists() && head.status == StatusCode::OK {
            plan.lists.insert(key, body.clone());
        }
    }
    match deed {
        Deed::KillAfter(operator) => {
            operator.kill().unwrap();
            Err(Dropped)
        }
        Deed::Half => Ok(half(head.status, &body)),
        _ => Ok(full(head.status, body)),
    }
}

async fn watch(state: &Arc<State>, parts: &http::request::Parts) -> Result<Answer, Dropped> {
    let path = parts.uri.path().to_owned();
    let (is_expired, fault) = {
        let mut plan = state.plan.lock().unwrap();
        plan.watched.insert(path.clone());
        (plan.expired.remove(&path), plan.fault.clone())
    };
    if is_expired {
        let event = json!({"type": "ERROR", "object": refusal(410, "Expired")});
        return Ok(full(StatusCode::OK, format!("{event}\n")));
    }
    if let Fault::Refuse { code, every } = fault
        && code != 409
    {
        let mut plan = state.plan.lock().unwrap();
        plan.counted += 1;
        if one_in(every, plan.counted) {
            return Ok(full(StatusCode::from_u16(code).unwrap(), refusal(code, "InternalError").to_string()));
        }
    }
    let mut round = state.round.subscribe();
    let began = *round.borrow_and_update();
    let response = state.pass(parts, Bytes::new()).await?;
    let (head, mut body) = response.into_parts();
    let (lines, mut heard) = mpsc::channel::<Bytes>(16);
    let plan = Arc::clone(state);
    tokio::spawn(async move {
        let started = Instant::now();
        let mut unfinished = Vec::new();
        loop {
            let closes = match plan.plan.lock().unwrap().fault {
                Fault::CloseWatches { after } => after.saturating_sub(started.elapsed()),
                _ => Duration::from_secs(3600),
            };
            let frame = tokio::select! {
                frame = body.frame() => frame,
                _ = round.wait_for(|round| *round != began) => return,
                () = lines.closed() => return,
                () = tokio::time::sleep(closes.min(Duration::from_millis(200))) => {
                    if closes.is_zero() { return }
                    continue;
                }
            };
            let Some(Ok(frame)) = frame else { return };
            unfinished.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(end) = unfinished.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unfinished.drain(..=end).collect();
                if plan.plan.lock().unwrap().passes(&line) && lines.send(line.into()).await.is_err() {
                    return;
                }
            }
        }
    });
    let stream = futures::stream::poll_fn(move |context| {
        heard.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    });
    let mut answer = Response::new(http_body_util::BodyExt::boxed(StreamBody::new(Shared(stream.boxed().into()))));
    *answer.status_mut() = head.status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(answer)
}

impl Plan {
    /// Whether an event of a watch is heard.
    fn passes(&mut self, line: &[u8]) -> bool {
        self.last = Some(Instant::now());
        match self.fault {
            Fault::Blind | Fault::Lag => {
                self.counted += 1;
                false
            }
            Fault::LoseEvents { every } if !line.windows(10).any(|window| window == b"\"BOOKMARK\"") => {
                self.counted += 1;
                !one_in(every, self.counted)
            }
            _ => true,
        }
    }
}
