//! The promise: whatever the level, a value planted in the API server's answers or in our credentials is never printed.

use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::watcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::instrument::WithSubscriber;

use super::super::client::{ClientSettings, connect};
use super::super::fence::Fence;
use super::*;
use crate::testing::PROGRAM;

const PLANTED: &str = "cGxhbnRlZC12YWx1ZQ";
const TOKEN: &str = "planted-token-0815";

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Buffer {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What a broken or hostile API server might send; every answer holds the planted value where a decoder or an error path would quote it.
fn answers() -> Vec<(u16, String)> {
    vec![
        (200, format!(r#"{{"metadata":{{"name":"a"}},"data":"{PLANTED}"}}"#)),
        (200, format!(r#"{{"metadata":{{"name":"a"}},"data":{{"k":"{PLANTED}!"}}}}"#)),
        (200, format!("not json {PLANTED}")),
        (500, format!("<html>{PLANTED}</html>")),
        (
            403,
            format!(
                r#"{{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","message":"no","details":{{"name":"{PLANTED}"}}}}"#
            ),
        ),
        (200, format!(r#"{{"kind":"Status","status":"{PLANTED}"}}"#)),
    ]
}

/// A real HTTP server on the loopback that gives each request the next answer.
async fn server() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let answers = answers();
        for turn in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 8192];
            let count = stream.read(&mut request).await.unwrap();
            assert!(String::from_utf8_lossy(&request[..count]).contains(TOKEN), "the token was sent");
            let (code, body) = &answers[turn % answers.len()];
            let head = format!(
                "HTTP/1.1 {code} X\r\nx-planted: {PLANTED}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(body.as_bytes()).await.unwrap();
        }
    });
    address
}

/// Gets, lists, deletes and watches Secrets of a server that answers nonsense; returns all that was logged.
async fn provoked(level: &str, format: LogFormat) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let address = server().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(
        file,
        "current-context: a\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\nusers: [{{name: u, user: {{token: {TOKEN}}}}}]\n"
    )
    .unwrap();
    let settings = ClientSettings { kubeconfig: Some(file.path().to_owned()), ..ClientSettings::default() };
    let buffer = Buffer::default();
    let dispatch = dispatch(level, format, &PROGRAM, buffer.clone()).unwrap();
    async {
        let clients = connect(&settings, &Fence::open(), &Metrics::new(&PROGRAM, |_| ())).await.unwrap();
        let api: Api<Secret> = Api::default_namespaced(clients.work);
        for _ in answers() {
            let error = api.get("a").await.err();
            tracing::trace!(explained = error.map(|e| super::super::api_error::explain(&e)), "get");
            let _ = api.delete("a", &kube::api::DeleteParams::default()).await;
            let _ = api.get_status("a").await;
        }
        let watched = watcher(api, watcher::Config::default()).take(12).for_each(|_| std::future::ready(()));
        tokio::time::timeout(Duration::from_secs(20), watched).await.unwrap();
    }
    .with_subscriber(dispatch)
    .await;
    buffer.text()
}

#[tokio::test]
async fn at_trace_nothing_planted_is_logged() {
    for level in
        ["trace", "trace,kube_client=trace,kube_runtime=trace,kube=trace,hyper_util=trace,tower=trace,rustls=trace"]
    {
        for format in [LogFormat::Text, LogFormat::Json] {
            let logged = provoked(level, format).await;
            assert!(logged.contains("get"), "our own lines are there: {logged}");
            for secret in [PLANTED, TOKEN] {
                assert!(!logged.contains(secret), "{logged}");
            }
        }
    }
}

/// Keeps the test above honest: without the ceiling the same traffic does leak.
#[tokio::test]
async fn without_the_ceiling_it_would_be() {
    let buffer = Buffer::default();
    let layer = fmt::layer().with_writer(buffer.clone()).with_filter(Targets::new().with_default(LevelFilter::TRACE));
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        let body = kube::client::Body::from(answers()[0].1.clone().into_bytes());
        std::future::ready(Ok::<_, kube::Error>(http::Response::new(body)))
    });
    let api: Api<Secret> = Api::default_namespaced(kube::Client::new(service, "default"));
    async { api.get("a").await.unwrap_err() }.with_subscriber(Registry::default().with(layer)).await;
    assert!(buffer.text().contains(PLANTED));
}

#[test]
fn the_user_may_ask_for_less_but_not_for_more_of_others() {
    let buffer = Buffer::default();
    let dispatch =
        dispatch("error,operator_engine=debug,hyper_util=trace", LogFormat::Text, &PROGRAM, buffer.clone()).unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        tracing::debug!("ours-debug");
        tracing::trace!("ours-trace");
        tracing::warn!(target: "kube_client::client", "kube-warn");
        tracing::error!(target: "kube_client::client", "kube-error");
        tracing::info!(target: "hyper_util", "hyper-info");
        tracing::warn!(target: "hyper_util", "hyper-warn");
        tracing::warn!(target: "some_library", "library-warn");
    });
    let logged = buffer.text();
    for (line, there) in [
        ("ours-debug", true),
        ("ours-trace", false),
        ("kube-warn", false),
        ("kube-error", true),
        ("hyper-info", false),
        ("hyper-warn", true),
        ("library-warn", false),
    ] {
        assert_eq!(logged.contains(line), there, "{line}: {logged}");
    }
}

#[test]
fn a_wrong_level_is_explained() {
    for wrong in ["loud", "info,loud", "operator_engine=loud"] {
        assert!(directives(wrong).is_err(), "{wrong}");
    }
    assert!(directives("info,operator_engine::apply=debug").is_ok());
}

#[test]
fn json_is_one_object_per_line() {
    let buffer = Buffer::default();
    let dispatch = dispatch("info", LogFormat::Json, &PROGRAM, buffer.clone()).unwrap();
    tracing::dispatcher::with_default(&dispatch, || tracing::info!(registry = "team/a", "applied"));
    let line: serde_json::Value = serde_json::from_str(buffer.text().trim()).unwrap();
    assert_eq!(line["message"], "applied");
    assert_eq!(line["registry"], "team/a");
    assert_eq!(line["level"], "INFO");
}
