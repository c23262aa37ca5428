//! Health, readiness and metrics over HTTP.
//!
//! It starts before everything else and ends with the process, so that "why is it not ready?" always has an answer. It says nothing that a neighbour in
//! the cluster may not know.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::health::{Answer, Health};
use crate::metrics::{self, Metrics};

/// Connections at once. Nobody needs many to ask for three pages; whoever has the most loses his oldest to the next one that comes.
const CONNECTIONS: usize = 64;
/// What of a request is kept until it is complete, in bytes.
const LONGEST_HEAD: usize = 16 << 10;
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// A whole connection: a scraper may keep it for a few rounds, nobody may keep it for ever.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
/// After a failed accept, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where health, readiness and metrics are served.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ServerSettings {
    /// Address for /healthz, /readyz and /metrics (one listener; port 0 takes a free one)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:8080")]
    pub listen: SocketAddr,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 8080)) }
    }
}

/// The address is taken, not ours, or not allowed.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address} for health and metrics: {source}; choose another with --listen")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// A listener that is bound but does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the address.
    ///
    /// # Errors
    /// The address can't be had.
    pub async fn bind(settings: &ServerSettings) -> Result<Self, BindError> {
        let address = settings.listen;
        let listener = match TcpListener::bind(address).await {
            // A machine without IPv6 has no [::]; the default address must work there too.
            Err(error) if address.ip() == std::net::Ipv6Addr::UNSPECIFIED && is_no_ipv6(&error) => {
                TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port())).await
            }
            bound => bound,
        };
        let failed = |source| BindError { address, source };
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped.
    pub async fn serve(self, health: Health, metrics: Arc<Metrics>) -> Infallible {
        let guests = Guests::default();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    guests.welcome(peer.ip(), connection(stream, health.clone(), Arc::clone(&metrics)));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept a connection for health and metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// The open connections, in the order in which they came. A probe that is not answered ends the process, so none may wait because of what others hold.
#[derive(Clone, Default)]
struct Guests(Arc<Mutex<BTreeMap<u64, Guest>>>);

struct Guest {
    from: IpAddr,
    task: AbortHandle,
}

impl Guests {
    /// Serves one more; another one has to go if there are too many.
    fn welcome(&self, from: IpAddr, connection: impl Future<Output = ()> + Send + 'static) {
        let mut guests = self.lock();
        if guests.len() >= CONNECTIONS
            && let Some(guest) = whose_turn(&guests).and_then(|number| guests.remove(&number))
        {
            guest.task.abort();
        }
        let number = guests.last_key_value().map_or(0, |(last, _)| last + 1);
        let all = self.clone();
        let served = tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
            all.lock().remove(&number);
        });
        guests.insert(number, Guest { from, task: served.abort_handle() });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Guest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The oldest connection of the address that has the most: one that holds many pushes out its own and nobody else's.
fn whose_turn(guests: &BTreeMap<u64, Guest>) -> Option<u64> {
    let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for guest in guests.values() {
        *counts.entry(guest.from).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    guests.iter().find(|(_, guest)| counts.get(&guest.from) == Some(&most)).map(|(number, _)| *number)
}

fn is_no_ipv6(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, Unsupported};
    // EAFNOSUPPORT has no kind of its own yet.
    matches!(error.kind(), AddrNotAvailable | Unsupported) || error.raw_os_error() == Some(97)
}

async fn connection(stream: TcpStream, health: Health, metrics: Arc<Metrics>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &health, &metrics);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(LONGEST_HEAD);
    // What a client does with its connection is its own affair.
    let _ = server.serve_connection(TokioIo::new(stream), answer).await;
}

fn answer(method: &Method, path: &str, health: &Health, metrics: &Metrics) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match path {
        "/healthz" => judged(health.liveness()),
        "/readyz" => judged(health.readiness()),
        "/metrics" => typed(StatusCode::OK, metrics::CONTENT_TYPE, metrics.encode()),
        _ => text(StatusCode::NOT_FOUND, "try /healthz, /readyz or /metrics\n".to_owned()),
    }
}

fn judged(answer: Answer) -> Response<Full<Bytes>> {
    text(if answer.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, answer.text)
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::health::State;
    use super::*;
    use crate::testing::PROGRAM;

    async fn started(health: &Health) -> SocketAddr {
        let settings = ServerSettings { listen: "127.0.0.1:0".parse().unwrap() };
        let server = Server::bind(&settings).await.unwrap();
        let address = server.address();
        tokio::spawn(server.serve(health.clone(), Metrics::new(&PROGRAM, |_| ())));
        address
    }

    async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        (reply[9..12].parse().unwrap(), reply)
    }

    #[tokio::test]
    async fn readiness_is_a_status_and_a_text() {
        let health = Health::default();
        let address = started(&health).await;
        health.set("resource definition", State::Failed("kubectl apply -f crds/".into()));
        let (status, reply) = ask(address, "GET /readyz").await;
        assert_eq!(status, 503);
        assert!(reply.ends_with("\r\n\r\nfailed   resource definition: kubectl apply -f crds/\n"), "{reply}");
        health.set("resource definition", State::Ok);
        assert_eq!(ask(address, "GET /readyz").await.0, 200);
    }

    #[tokio::test]
    async fn a_loop_that_ended_is_a_failed_liveness() {
        let health = Health::default();
        let address = started(&health).await;
        let beat = health.heartbeat("loop", Duration::from_secs(60));
        assert_eq!(ask(address, "GET /healthz").await.0, 200);
        drop(beat);
        assert_eq!(ask(address, "GET /healthz").await.0, 503);
    }

    #[tokio::test]
    async fn metrics_are_open_metrics() {
        let address = started(&Health::default()).await;
        let (status, reply) = ask(address, "GET /metrics").await;
        assert_eq!(status, 200);
        assert!(reply.contains("content-type: application/openmetrics-text; version=1.0.0"), "{reply}");
        assert!(reply.ends_with("# EOF\n"), "{reply}");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused_with_words() {
        let address = started(&Health::default()).await;
        assert_eq!(ask(address, "GET /").await.0, 404);
        assert_eq!(ask(address, "POST /metrics").await.0, 405);
        assert_eq!(ask(address, "HEAD /healthz").await.0, 200);
    }

    /// Holds connections in every way there is: silent, in the middle of a request, kept alive after an answer.
    async fn hold(address: SocketAddr, count: usize) -> Vec<TcpStream> {
        let mut held = Vec::new();
        for n in 0..count {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let start = ["", "GET /healthz HTTP/1.1\r\nhost:", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"][n % 3];
            stream.write_all(start.as_bytes()).await.unwrap();
            held.push(stream);
        }
        held
    }

    #[tokio::test]
    async fn probes_are_answered_whatever_others_hold() {
        let address = started(&Health::default()).await;
        let held = hold(address, 200).await;
        for _ in 0..3 {
            let probe = tokio::time::timeout(Duration::from_secs(1), ask(address, "GET /healthz"));
            assert_eq!(probe.await.expect("a probe waits no longer").0, 200);
        }
        drop(held);
    }

    #[tokio::test]
    async fn who_holds_many_connections_loses_them_and_nobody_else() {
        let address = started(&Health::default()).await;
        let local = tokio::net::TcpSocket::new_v4().unwrap();
        local.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut probe = local.connect(address).await.unwrap();
        let held = hold(address, 200).await;

        probe.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut reply = String::new();
        let read = tokio::time::timeout(Duration::from_secs(1), probe.read_to_string(&mut reply));
        read.await.expect("it came first, and is one").unwrap();
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        drop(held);
    }

    #[tokio::test]
    async fn a_taken_address_is_named() {
        let first = Server::bind(&ServerSettings { listen: "127.0.0.1:0".parse().unwrap() }).await.unwrap();
        let error = Server::bind(&ServerSettings { listen: first.address() }).await.unwrap_err().to_string();
        assert!(error.contains(&first.address().to_string()) && error.contains("--listen"), "{error}");
    }
}
