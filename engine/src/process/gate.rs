//! What every request to the API server passes through: a bound on how many run at once, the fence, time limits, a few retries, metrics.
//!
//! The body of an answer has limits of its own ([`body`]); only the stream of a watch has none, which is meant to be silent for minutes.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Uri, header};
use kube::Client;
use kube::client::Body;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::fence::{self, Fence};
use crate::Program;
use crate::metrics::Metrics;

mod body_limits;

use body_limits::{Allowance, Bounded};

/// How often a refused request is sent again at most.
const RETRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A server that asks for more patience than this gets its answer passed on: the caller's backoff knows better how to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a request was not sent, or not waited for.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// This process may not write (any more).
    #[error("not sent: this process does not hold the lease")]
    Fenced,
    /// No headers within the limit.
    #[error("the API server did not answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The headers came, and then the rest did not.
    #[error("the API server's answer stopped in the middle, after {0} bytes")]
    Stalled(u64),
    /// More than this program ever takes in.
    #[error("the answer to {verb} {kind} is larger than {} MiB", .limit >> 20)]
    TooLarge {
        /// What was asked, in the words of RBAC.
        verb: &'static str,
        /// Of which kind.
        kind: &'static str,
        /// The limit, in bytes.
        limit: u64,
    },
}

/// What of an error is the gate's own doing.
pub fn cause(error: &kube::Error) -> Option<&GateError> {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// Whether `error` says that the answer was larger than this program takes in; asking for less can help.
pub fn is_too_large(error: &kube::Error) -> bool {
    matches!(cause(error), Some(GateError::TooLarge { .. }))
}

/// Whether `error` says that the [`Fence`] refused a write.
pub fn is_fenced(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(inner) if matches!(inner.downcast_ref(), Some(GateError::Fenced)))
}

/// The limits of one client.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Who may write; `None` for the client of the lease itself.
    pub fence: Option<Fence>,
    /// From the start of a request to the headers of its answer, retries included.
    pub header_limit: Duration,
    /// Requests that may wait for their headers at once.
    pub concurrency: usize,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
}

impl Gate {
    /// A client that sends through `transport`, each request within these limits.
    pub fn guard(self, transport: Client) -> Client {
        let namespace = transport.default_namespace().to_owned();
        let valid_until = *transport.valid_until();
        let slots = Arc::new(Semaphore::new(self.concurrency));
        let gate = Arc::new(self);
        let service = tower::service_fn(move |request| {
            let (gate, slots, transport) = (Arc::clone(&gate), Arc::clone(&slots), transport.clone());
            async move {
                let _slot = slots.acquire_owned().await.map_err(|closed| kube::Error::Service(closed.into()))?;
                gate.send(request, &transport).await
            }
        });
        Client::new(service, namespace).with_valid_until(valid_until)
    }

    async fn send(&self, request: Request<Body>, transport: &Client) -> Result<Response<Bounded>, kube::Error> {
        let call = Call::of(&request, self.metrics.program());
        let response = self.answer(request, &call, transport).await?;
        let allowance = Allowance::of(&call, response.status());
        Ok(response.map(|body| Bounded::new(body, allowance)))
    }

    async fn answer(
        &self,
        mut request: Request<Body>,
        call: &Call,
        transport: &Client,
    ) -> Result<Response<Body>, kube::Error> {
        let deadline = Instant::now() + self.header_limit;
        let mut tries = 0;
        loop {
            let spare = if tries < RETRIES { copy(&request) } else { None };
            let response = self.attempt(request, call, transport, deadline).await?;
            let (Some(pause), Some(next)) = (pause(&response, tries), spare) else { return Ok(response) };
            if Instant::now() + pause >= deadline {
                return Ok(response);
            }
            tokio::time::sleep(pause).await;
            tries += 1;
            request = next;
        }
    }

    async fn attempt(
        &self,
        request: Request<Body>,
        call: &Call,
        transport: &Client,
        deadline: Instant,
    ) -> Result<Response<Body>, kube::Error> {
        let started = Instant::now();
        let fence = self.fence.as_ref().filter(|_| call.writes);
        let sending = fence::guard(fence, transport.send(request));
        let result = match tokio::time::timeout_at(deadline, sending).await {
            Ok(Some(result)) => result,
            Ok(None) => Err(kube::Error::Service(GateError::Fenced.into())),
            Err(_) => Err(kube::Error::Service(GateError::NoAnswer(self.header_limit).into())),
        };
        self.metrics.api_request(call.verb, call.kind, code(&result), started.elapsed());
        result
    }
}

/// How long to wait before the request is sent again; `None` if the answer is to be passed on.
fn pause<B>(response: &Response<B>, tries: u32) -> Option<Duration> {
    let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    if !busy.contains(&response.status()) {
        return None;
    }
    let asked = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let pause = asked.map_or_else(|| FIRST_PAUSE * 2_u32.pow(tries), Duration::from_secs).max(FIRST_PAUSE);
    (pause <= LONGEST_PAUSE).then_some(pause)
}

/// The same request; `None` if its body is not at hand.
pub(super) fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Whether the answer to this request is to go on for minutes.
pub(super) fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"))
}

fn code(result: &Result<Response<Body>, kube::Error>) -> &'static str {
    let response = match result {
        Ok(response) => response,
        Err(error) if is_fenced(error) => return "fenced",
        Err(_) => return "none",
    };
    match response.status().as_u16() {
        404 => "404",
        409 => "409",
        422 => "422",
        429 => "429",
        200..=299 => "2xx",
        400..=499 => "4xx",
        500..=599 => "5xx",
        _ => "other",
    }
}

/// What a request is, in the words of RBAC.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    verb: &'static str,
    kind: &'static str,
    writes: bool,
}

impl Call {
    fn of<B>(request: &Request<B>, program: &Program) -> Self {
        let uri = request.uri();
        let path: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let (group, rest) = match path.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => ("", &[][..]),
        };
        let (resource, named) = match rest {
            ["namespaces", _, resource, tail @ ..] => (*resource, !tail.is_empty()),
            [resource, tail @ ..] => (*resource, !tail.is_empty()),
            [] => ("", true),
        };
        let verb = match (request.method(), named) {
            (&Method::GET, _) if is_watch(uri) => "watch",
            (&Method::GET, true) => "get",
            (&Method::GET, false) => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "delete",
            (&Method::DELETE, false) => "deletecollection",
            _ => "other",
        };
        // A review is a question that needs a body; it changes nothing, and a standby asks it too.
        let review = matches!(group, "authorization.k8s.io" | "authentication.k8s.io");
        let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        Self { verb, kind: program.kind_of(resource), writes: !reads && !review }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::StreamExt;
    use k8s_openapi::api::core::v1::Secret;
    use kube::Api;
    use kube::api::{ListParams, PostParams};

    use super::*;
    use crate::testing::PROGRAM;

    fn request(method: &str, uri: &str) -> Request<()> {
        Request::builder().method(method).uri(uri).body(()).unwrap()
    }

    #[test]
    fn requests_are_named_as_in_rbac() {
        let cases = [
            ("GET", "/api/v1/namespaces/a/secrets/b", "get", "Secret", false),
            ("GET", "/api/v1/secrets?limit=500", "list", "Secret", false),
            ("GET", "/api/v1/namespaces/a/secrets?watch=true&x=1", "watch", "Secret", false),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/b?force=true", "patch", "Deployment", true),
            ("PATCH", "/apis/test.dev/v1/namespaces/a/things/b/status", "patch", "Thing", true),
            ("POST", "/api/v1/namespaces/a/services", "create", "Service", true),
            ("DELETE", "/api/v1/namespaces/a/services/b", "delete", "Service", true),
            ("DELETE", "/api/v1/namespaces/a/services", "deletecollection", "Service", true),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b", "update", "Lease", true),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "create",
                "SelfSubjectAccessReview",
                false,
            ),
            ("GET", "/api/v1/namespaces/a", "get", "other", false),
            ("GET", "/openapi/v3/apis/test.dev/v1", "get", "other", false),
        ];
        for (method, uri, verb, kind, writes) in cases {
            assert_eq!(Call::of(&request(method, uri), &PROGRAM), Call { verb, kind, writes }, "{method} {uri}");
        }
    }

    /// A server that answers with the given statuses, then 200 for ever; and the times at which it was asked.
    fn server(statuses: &[(u16, Option<&str>)]) -> (Client, Arc<Mutex<Vec<Instant>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let statuses: Vec<(u16, Option<String>)> =
            statuses.iter().map(|(code, after)| (*code, after.map(str::to_owned))).collect();
        let log = Arc::clone(&asked);
        let service = tower::service_fn(move |_: Request<Body>| {
            let mut log = log.lock().unwrap();
            let (code, after) = statuses.get(log.len()).cloned().unwrap_or((200, None));
            log.push(Instant::now());
            let mut response = Response::builder().status(code);
            if let Some(after) = after {
                response = response.header(header::RETRY_AFTER, after);
            }
            let body = if code == 200 { r#"{"metadata":{"name":"a"},"items":[]}"# } else { "busy" };
            std::future::ready(Ok::<_, kube::Error>(response.body(Body::from(body.as_bytes().to_vec())).unwrap()))
        });
        (Client::new(service, "default"), asked)
    }

    fn gate(fence: Option<Fence>) -> Gate {
        Gate { fence, header_limit: Duration::from_secs(10), concurrency: 2, metrics: Metrics::new(&PROGRAM, |_| ()) }
    }

    fn secrets(client: &Client) -> Api<Secret> {
        Api::default_namespaced(client.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_costs_ten_seconds() {
        let silent = Client::new(
            tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, kube::Error>>()),
            "default",
        );
        let gate = gate(None);
        let metrics = Arc::clone(&gate.metrics);
        let client = gate.guard(silent);

        let started = Instant::now();
        let error = secrets(&client).get("a").await.unwrap_err();

        assert_eq!(started.elapsed(), Duration::from_secs(10));
        assert!(
            matches!(&error, kube::Error::Service(e) if matches!(e.downcast_ref(), Some(GateError::NoAnswer(_)))),
            "{error}"
        );
        assert!(metrics.encode().contains(r#"api_requests_total{verb="get",kind="Secret",code="none"} 1"#));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_server_is_asked_again_a_few_times() {
        let (server, asked) = server(&[(429, Some("1")), (503, None)]);
        secrets(&gate(None).guard(server)).get("a").await.unwrap();
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 3);
        assert_eq!(asked[1] - asked[0], Duration::from_secs(1));
        assert_eq!(asked[2] - asked[1], Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stays_busy_is_given_up_on_within_seconds() {
        for after in [None, Some("1"), Some("120")] {
            let (server, asked) = server(&[(503, after); 20]);
            let started = Instant::now();
            let error = secrets(&gate(None).guard(server)).list(&ListParams::default()).await.unwrap_err();
            assert!(started.elapsed() < Duration::from_secs(10), "{after:?}: {:?}", started.elapsed());
            assert!(asked.lock().unwrap().len() <= 4);
            assert!(matches!(&error, kube::Error::Api(status) if status.code == 503), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_refusals_are_final() {
        for code in [400, 403, 404, 409, 422, 500] {
            let (server, asked) = server(&[(code, None); 5]);
            secrets(&gate(None).guard(server)).get("a").await.unwrap_err();
            assert_eq!(asked.lock().unwrap().len(), 1, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_deadline_reads_go_through_and_writes_are_not_sent() {
        let (server, asked) = server(&[]);
        let fence = Fence::shut();
        let client = gate(Some(fence.clone())).guard(server);
        let secret = Secret::default();

        fence.extend(Instant::now() + Duration::from_secs(10));
        secrets(&client).create(&PostParams::default(), &secret).await.unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        let error = secrets(&client).create(&PostParams::default(), &secret).await.unwrap_err();
        assert!(is_fenced(&error), "{error}");
        assert_eq!(asked.lock().unwrap().len(), 1);
        secrets(&client).get("a").await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_was_held_up_while_connecting_is_not_sent_after_the_deadline() {
        let sent = Arc::new(Mutex::new(false));
        let flag = Arc::clone(&sent);
        let slow = tower::service_fn(move |_: Request<Body>| {
            let flag = Arc::clone(&flag);
            async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                *flag.lock().unwrap() = true;
                Ok::<_, kube::Error>(Response::new(Body::empty()))
            }
        });
        let fence = Fence::shut();
        fence.extend(Instant::now() + Duration::from_secs(2));
        let client = gate(Some(fence)).guard(Client::new(slow, "default"));
        let error = secrets(&client).create(&PostParams::default(), &Secret::default()).await.unwrap_err();
        assert!(is_fenced(&error), "{error}");
        assert!(!*sent.lock().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_waited_for_a_slot_is_checked_when_its_turn_comes() {
        let stuck = tower::service_fn(|request: Request<Body>| async move {
            assert_eq!(request.method(), Method::GET, "a write was sent");
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok::<_, kube::Error>(Response::new(Body::from(b"{}".to_vec())))
        });
        let fence = Fence::shut();
        fence.extend(Instant::now() + Duration::from_secs(2));
        let client = gate(Some(fence)).guard(Client::new(stuck, "default"));
        let api = secrets(&client);
        let (post, secret) = (PostParams::default(), Secret::default());
        let later = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            api.create(&post, &secret).await
        };
        let (_, _, written) = tokio::join!(api.get("a"), api.get("b"), later);
        assert!(is_fenced(&written.unwrap_err()));
    }

    /// A server whose answers begin with `start` and go on with what `more` says: so many bytes after each pause; then there is silence.
    fn streaming(start: &'static str, more: &'static [(u64, usize)]) -> Client {
        let service = tower::service_fn(move |_: Request<Body>| {
            let more = futures::stream::iter(more).then(async |(seconds, bytes)| {
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                hyper::body::Bytes::from(vec![b' '; *bytes])
            });
            let start = futures::stream::once(std::future::ready(hyper::body::Bytes::from(start)));
            let all = start.chain(more).chain(futures::stream::pending());
            let frames = all.map(|bytes| Ok::<_, std::io::Error>(hyper::body::Frame::data(bytes)));
            std::future::ready(Ok::<_, kube::Error>(Response::new(http_body_util::StreamBody::new(Box::pin(frames)))))
        });
        Client::new(service, "default")
    }

    async fn in_time<T>(call: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(3600), call).await.expect("it never ends")
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stops_in_the_middle_is_given_up_on() {
        let client = gate(None).guard(streaming(r#"{"items":["#, &[(15, 1)]));
        for list in [true, false] {
            let started = Instant::now();
            let error = match list {
                true => in_time(secrets(&client).list(&ListParams::default())).await.unwrap_err(),
                false => in_time(secrets(&client).get("a")).await.unwrap_err(),
            };
            assert_eq!(started.elapsed(), Duration::from_secs(35), "15 s until the last byte, 20 s of silence");
            assert!(matches!(cause(&error), Some(GateError::Stalled(11))), "{error}");
            assert_eq!(
                super::super::api_error::explain(&error),
                "the API server's answer stopped in the middle, after 11 bytes"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_trickles_for_ever_is_given_up_on() {
        let client = gate(None).guard(streaming("{", &[(14, 1); 100]));
        let started = Instant::now();
        let error = in_time(secrets(&client).get("a")).await.unwrap_err();
        assert_eq!(started.elapsed(), Duration::from_secs(60));
        assert!(matches!(cause(&error), Some(GateError::Stalled(5))), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_takes_more_memory_than_its_limit() {
        let client = gate(None).guard(streaming("{", &[(0, 3 << 20); 100]));
        let error = in_time(secrets(&client).list(&ListParams::default())).await.unwrap_err();
        assert!(is_too_large(&error), "{error}");
        assert_eq!(super::super::api_error::explain(&error), "the answer to list Secret is larger than 8 MiB");
        let error = in_time(secrets(&client).get("a")).await.unwrap_err();
        assert_eq!(super::super::api_error::explain(&error), "the answer to get Secret is larger than 4 MiB");
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_of_a_watch_may_be_silent_and_long() {
        const EVENT: &str = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}\n";
        let client = gate(None).guard(streaming(EVENT, &[(100, 9 << 20), (100, 1)]));
        let mut events = Box::pin(secrets(&client).watch(&Default::default(), "1").await.unwrap());
        assert!(matches!(events.next().await, Some(Ok(kube::api::WatchEvent::Added(_)))));
        assert!(tokio::time::timeout(Duration::from_secs(150), events.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_requests_run_at_once() {
        let running = Arc::new(Mutex::new((0_usize, 0_usize)));
        let seen = Arc::clone(&running);
        let slow = tower::service_fn(move |_: Request<Body>| {
            let seen = Arc::clone(&seen);
            async move {
                {
                    let mut seen = seen.lock().unwrap();
                    seen.0 += 1;
                    seen.1 = seen.1.max(seen.0);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                seen.lock().unwrap().0 -= 1;
                Ok::<_, kube::Error>(Response::new(Body::from(b"{\"metadata\":{}}".to_vec())))
            }
        });
        let api = secrets(&gate(None).guard(Client::new(slow, "default")));
        futures::future::join_all((0..9).map(|_| api.get("a"))).await;
        assert_eq!(running.lock().unwrap().1, 2);
    }
}
