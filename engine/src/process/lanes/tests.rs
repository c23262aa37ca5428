use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use futures::future::join_all;
use futures::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use kube::Client;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::super::client::transport;
use super::*;

/// A watch that the server ends at once.
const ENDS: &str = "/ends";
const LIMIT: Duration = Duration::from_secs(5);

/// An API server whose watches say one thing and then go on for ever.
struct Server {
    address: SocketAddr,
    certificate: Vec<u8>,
    connections: Arc<Mutex<Vec<Connection>>>,
    /// False: from now on its connections swallow everything.
    hears: watch::Sender<bool>,
}

/// One connection to it.
#[derive(Clone, Default)]
struct Connection {
    is_http2: bool,
    /// What was asked on it.
    paths: Vec<String>,
    task: Option<tokio::task::AbortHandle>,
}

impl Server {
    async fn start(protocols: &[&[u8]], streams: u32) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let mut tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let inner = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let outer = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (far, address) = (inner.local_addr().unwrap(), outer.local_addr().unwrap());
        let connections: Arc<Mutex<Vec<Connection>>> = Arc::default();
        tokio::spawn(accept(inner, acceptor, streams, connections.clone()));
        let (hears, line) = watch::channel(true);
        tokio::spawn(forward(outer, far, line));
        Self { address, certificate: cert.der().to_vec(), connections, hears }
    }

    fn client(&self) -> Client {
        let mut config = Config::new(format!("https://{}", self.address).parse().unwrap());
        config.root_cert = Some(vec![self.certificate.clone()]);
        let lanes = Lanes::new(&config, LIMIT).unwrap();
        transport(&config, lanes).unwrap()
    }

    fn connections(&self) -> Vec<Connection> {
        self.connections.lock().unwrap().clone()
    }

    /// How many watches each HTTP/2 connection has had.
    fn shared(&self) -> Vec<usize> {
        let shared = self.connections().into_iter().filter(|connection| connection.is_http2);
        shared.map(|connection| connection.paths.len()).collect()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, streams: u32, connections: Arc<Mutex<Vec<Connection>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
            let number = {
                let mut all = connections.lock().unwrap();
                all.push(Connection { is_http2, ..Connection::default() });
                all.len() - 1
            };
            let seen = connections.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                seen.lock().unwrap()[number].paths.push(request.uri().path().to_owned());
                let goes_on = request.uri().query() == Some("watch=true") && request.uri().path() != ENDS;
                let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{}\n")))]);
                let rest = if goes_on { stream::pending().boxed() } else { stream::empty().boxed() };
                std::future::ready(Ok::<_, Infallible>(Response::new(StreamBody::new(first.chain(rest)))))
            });
            let io = TokioIo::new(stream);
            let serving = tokio::spawn(async move {
                if is_http2 {
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.max_concurrent_streams(streams).serve_connection(io, service).await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                }
            });
            connections.lock().unwrap()[number].task = Some(serving.abort_handle());
        });
    }
}

/// The way to the server. What is swallowed on it is not refused: nobody hears of it.
async fn forward(listener: TcpListener, far: SocketAddr, hears: watch::Receiver<bool>) {
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut hears = hears.clone();
        tokio::spawn(async move {
            let mut far = TcpStream::connect(far).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => return,
                _ = hears.wait_for(|hears| !*hears) => {}
            }
            std::future::pending::<()>().await;
        });
    }
}

async fn ask(client: &Client, uri: &str) -> Result<Body, kube::Error> {
    let request = Request::get(uri).body(Body::empty()).unwrap();
    let answer = tokio::time::timeout(LIMIT, client.send(request)).await.expect("it is never answered")?;
    assert_eq!(answer.status(), 200);
    Ok(answer.into_body())
}

/// Watches that have begun.
async fn watches(client: &Client, count: usize) -> Vec<Body> {
    let begun = (0..count).map(|number| async move {
        let mut body = ask(client, &format!("/watched-{number}?watch=true")).await.unwrap();
        body.frame().await.unwrap().unwrap();
        body
    });
    join_all(begun).await
}

#[tokio::test]
async fn watches_share_connections_and_what_is_short_has_one_of_its_own() {
    let server = Server::start(&[HTTP2, HTTP1], 100).await;
    let client = server.client();
    let open = watches(&client, 2 * WATCHES + 10).await;
    ask(&client, "/short").await.unwrap().collect_bytes().await.unwrap();
    assert_eq!(server.shared(), [WATCHES, WATCHES, 10]);
    let single: Vec<_> = server.connections().into_iter().filter(|connection| !connection.is_http2).collect();
    assert_eq!(single.iter().map(|connection| connection.paths.clone()).collect::<Vec<_>>(), [["/short"]]);
    drop(open);
}

#[tokio::test]
async fn a_watch_that_ends_gives_its_place_to_the_next() {
    let server = Server::start(&[HTTP2, HTTP1], 100).await;
    let client = server.client();
    for _ in 0..WATCHES {
        ask(&client, &format!("{ENDS}?watch=true")).await.unwrap().collect_bytes().await.unwrap();
    }
    let open = watches(&client, WATCHES).await;
    assert_eq!(server.shared(), [2 * WATCHES]);
    drop(open);
    let again = watches(&client, WATCHES).await;
    assert_eq!(server.shared(), [3 * WATCHES]);
    drop(again);
}

#[tokio::test]
async fn a_server_that_allows_few_streams_gets_more_connections() {
    let server = Server::start(&[HTTP2, HTTP1], 5).await;
    let client = server.client();
    let mut open = Vec::new();
    for _ in 0..13 {
        open.extend(watches(&client, 1).await);
    }
    assert_eq!(server.shared(), [4, 4, 4, 1]);
}

#[tokio::test]
async fn where_http2_is_not_spoken_each_watch_has_a_connection() {
    let server = Server::start(&[HTTP1], 100).await;
    let client = server.client();
    let first = watches(&client, 3).await;
    let tried = server.connections().len();
    let later = watches(&client, 3).await;
    let used = server.connections().into_iter().filter(|connection| !connection.paths.is_empty());
    assert_eq!(used.count(), 6);
    assert_eq!(server.connections().len(), tried + 3, "it is not tried again");
    drop((first, later));
}

#[tokio::test]
async fn a_server_without_the_negotiation_of_protocols_is_spoken_to_as_before() {
    let server = Server::start(&[], 100).await;
    let open = watches(&server.client(), 2).await;
    assert!(server.shared().is_empty());
    drop(open);
}

#[tokio::test]
async fn watches_of_a_connection_that_is_closed_fail_and_begin_on_another() {
    let server = Server::start(&[HTTP2, HTTP1], 100).await;
    let client = server.client();
    let mut open = watches(&client, 2).await;
    server.connections()[0].task.as_ref().unwrap().abort();
    for body in &mut open {
        let end = tokio::time::timeout(LIMIT, body.frame()).await.expect("it goes on as if nothing had happened");
        assert!(end.is_none_or(|frame| frame.is_err()));
    }
    drop(watches(&client, 2).await);
    assert_eq!(server.shared(), [2, 2]);
}

#[tokio::test]
async fn a_connection_whose_packets_are_swallowed_is_given_up_and_the_next_watch_does_not_use_it() {
    let server = Server::start(&[HTTP2, HTTP1], 100).await;
    let client = server.client();
    let mut open = watches(&client, 2).await;
    server.hears.send_replace(false);
    tokio::time::pause();
    let started = Instant::now();
    for body in &mut open {
        let end = tokio::time::timeout(Duration::from_secs(600), body.frame()).await.expect("nobody notices");
        assert!(end.is_none_or(|frame| frame.is_err()));
    }
    assert!(started.elapsed() <= SILENCE + PATIENCE + Duration::from_secs(1), "{:?}", started.elapsed());
    tokio::time::resume();
    server.hears.send_replace(true);
    drop(watches(&client, 2).await);
    assert_eq!(server.shared(), [2, 2]);
}
