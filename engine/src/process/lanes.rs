//! The connections of watches. An operator may have thousands: ten for each namespace that it is to look at. They share HTTP/2 connections, so that a
//! watch costs neither a handshake nor buffers of its own.
//!
//! An API server allows a number of streams on a connection, and what is beyond waits for ever behind watches that do not end. So there are as many
//! connections as it takes, and nothing but watches goes through them: a request that is to be answered soon has an HTTP/1.1 connection for itself.
//!
//! Pings show that a connection is alive. Without them packets that somebody swallows would be noticed by nobody: giving up on a stream ends only that
//! stream, and the next one would begin on the same dead connection.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Bytes};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt as _};
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Watches on a connection: below the 100 that kube-apiserver allows (`--http2-max-streams-per-connection`), because it may take one that has just ended
/// for one that has not.
const WATCHES: usize = 80;
/// Of what another server allows, the part that is used.
const SHARE: (usize, usize) = (4, 5);
/// A connection on which nothing was received for so long is asked for a sign of life, ...
const SILENCE: Duration = Duration::from_secs(20);
/// ... which must come within this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that a watch may be ahead of its reader, and all of a connection together.
const AHEAD: u32 = 512 << 10;
const ALL_AHEAD: u32 = 2 << 20;
/// How often a watch is offered to connections that close before they take it.
const OFFERS: usize = 3;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Why a watch did not begin. None of the texts holds anything secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    /// The server, or a proxy before it, does not speak HTTP/2. Nothing was sent.
    #[error("the server does not speak HTTP/2")]
    NotSpoken,
    #[error("connect")]
    Connect(#[source] io::Error),
    /// Not the error itself: as the error of a client it would look like one that came from a server.
    #[error("send")]
    Send(#[source] hyper::Error),
}

/// All connections of watches to one server.
pub(super) struct Lanes {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
    connect_limit: Duration,
    lanes: Mutex<Vec<Arc<Lane>>>,
    is_spoken: AtomicBool,
}

/// One connection, or one that is about to be made.
#[derive(Default)]
struct Lane {
    sender: OnceCell<SendRequest<Body>>,
    /// Watches on it.
    taken: AtomicUsize,
    /// Streams that the server allows; zero: not known yet.
    allowed: Arc<AtomicUsize>,
}

/// A watch's place on a connection, until it is dropped.
struct Seat(Arc<Lane>);

impl fmt::Debug for Lanes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Lanes({}:{})", self.host, self.port)
    }
}

impl Lanes {
    /// Makes no connection yet. `None`: this configuration has none that could speak HTTP/2.
    pub(super) fn new(config: &Config, connect_limit: Duration) -> Result<Option<Self>, kube::Error> {
        let url = &config.cluster_url;
        let Some(host) = url.host().filter(|_| url.scheme_str() == Some("https") && config.proxy_url.is_none()) else {
            return Ok(None);
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = server_name(config.tls_server_name.as_ref().unwrap_or(&host));
        let Ok(name) = name else { return Ok(None) };
        let mut tls = config.rustls_client_config()?;
        tls.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        Ok(Some(Self {
            host,
            port: url.port_u16().unwrap_or(443),
            name,
            tls: TlsConnector::from(Arc::new(tls)),
            connect_limit,
            lanes: Mutex::default(),
            is_spoken: AtomicBool::new(true),
        }))
    }

    /// False once the server has shown that it does not speak HTTP/2.
    pub(super) fn may_be_spoken(&self) -> bool {
        self.is_spoken.load(Ordering::Relaxed)
    }

    /// Begins a watch.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<impl HttpBody<Data = Bytes, Error = hyper::Error> + use<>>, LaneError> {
        let mut offers = 1;
        loop {
            let seat = self.seat();
            let mut sender = seat.0.sender.get_or_try_init(|| self.open(&seat.0.allowed)).await?.clone();
            match sender.try_send_request(request).await {
                Ok(response) => {
                    return Ok(response.map(|body| {
                        body.map_frame(move |frame| {
                            let _is_taken = &seat;
                            frame
                        })
                    }));
                }
                Err(mut error) => match error.take_message().filter(|_| offers < OFFERS) {
                    Some(unsent) => (request, offers) = (unsent, offers + 1),
                    None => return Err(LaneError::Send(error.into_error())),
                },
            }
        }
    }

    /// On the first connection that has one, so that the last ones become empty.
    fn seat(&self) -> Seat {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|lane| !lane.sender.get().is_some_and(SendRequest::is_closed));
        let lane = match lanes.iter().find(|lane| lane.has_room()) {
            Some(lane) => lane.clone(),
            None => {
                lanes.push(Arc::default());
                lanes[lanes.len() - 1].clone()
            }
        };
        lane.taken.fetch_add(1, Ordering::Relaxed);
        Seat(lane)
    }

    async fn open(&self, allowed: &Arc<AtomicUsize>) -> Result<SendRequest<Body>, LaneError> {
        let connected = timeout(self.connect_limit, self.connect()).await;
        let stream = connected.map_err(|_| io::ErrorKind::TimedOut.into()).flatten().map_err(LaneError::Connect)?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            tracing::info!("the API server, or a proxy before it, does not speak HTTP/2; each watch is a connection");
            self.is_spoken.store(false, Ordering::Relaxed);
            return Err(LaneError::NotSpoken);
        }
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(SILENCE)
            .keep_alive_timeout(PATIENCE)
            .initial_stream_window_size(AHEAD)
            .initial_connection_window_size(ALL_AHEAD);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(LaneError::Send)?;
        let allowed = allowed.clone();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            poll_fn(|context| {
                let polled = connection.as_mut().poll(context);
                allowed.store(connection.current_max_send_streams(), Ordering::Relaxed);
                polled
            })
            .await
        });
        Ok(sender)
    }

    async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        self.tls.connect(self.name.clone(), stream).await
    }
}

impl Lane {
    fn has_room(&self) -> bool {
        let room = match self.allowed.load(Ordering::Relaxed) {
            0 => WATCHES,
            allowed => (allowed / SHARE.1 * SHARE.0).clamp(1, WATCHES),
        };
        self.taken.load(Ordering::Relaxed) < room
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(name.to_owned())
}

#[cfg(test)]
mod tests;
