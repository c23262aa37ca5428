//! A registry in memory, for tests of what goes wrong on the way: it answers as Distribution does, and fails as no real one does when asked.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;

use super::Client;
use super::connection::{Stream, Way};
use super::digest;
use super::manifest::Found;

/// What it has. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Store(Arc<Mutex<Held>>);

#[derive(Default)]
pub(crate) struct Held {
    /// By repository and digest.
    pub(crate) blobs: BTreeMap<(String, String), Vec<u8>>,
    pub(crate) manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    pub(crate) tags: BTreeMap<(String, String), String>,
    /// First lines of all requests, and which range is asked for.
    pub(crate) asked: Vec<String>,
    pub(crate) faults: Vec<Fault>,
    /// Whether nothing may be deleted.
    pub(crate) keeps_all: bool,
}

/// What goes wrong with requests that begin like this.
pub(crate) struct Fault {
    pub(crate) of: &'static str,
    /// How often.
    pub(crate) times: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Another answer.
    Status(u16),
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// A byte in the middle is another.
    Damaged,
    /// Ranges are not known.
    Whole,
    /// Of what is answered to a range, a byte is another.
    OtherRest,
    /// Another range than was asked for.
    OtherRange,
    /// More comes than there is.
    Endless,
    /// It is moved to another manifest before it answers.
    Moved(&'static str),
}

impl Store {
    pub(crate) fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap()
    }

    pub(crate) fn client(&self) -> Client<Self> {
        Client::new(self.clone(), None)
    }

    pub(crate) fn fails(&self, of: &'static str, times: usize, kind: Kind) {
        self.held().faults.push(Fault { of, times, kind });
    }

    /// How many requests began like this.
    pub(crate) fn count(&self, of: &str) -> usize {
        self.held().asked.iter().filter(|line| line.starts_with(of)).count()
    }

    /// Puts a blob there and gives its descriptor.
    pub(crate) fn blob(&self, repository: &str, kind: &str, content: &[u8]) -> serde_json::Value {
        let digest = digest::sha256(content);
        self.held().blobs.insert((repository.to_owned(), digest.clone()), content.to_vec());
        json!({"mediaType": kind, "digest": digest, "size": content.len()})
    }

    /// Puts a manifest there, under a tag if one is given, and gives its descriptor.
    pub(crate) fn manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        manifest: &serde_json::Value,
    ) -> serde_json::Value {
        let (kind, text) = (manifest["mediaType"].as_str().unwrap().to_owned(), manifest.to_string());
        let digest = digest::sha256(&text);
        let mut held = self.held();
        held.manifests.insert((repository.to_owned(), digest.clone()), (kind.clone(), text.clone().into_bytes()));
        if let Some(tag) = tag {
            held.tags.insert((repository.to_owned(), tag.to_owned()), digest.clone());
        }
        json!({"mediaType": kind, "digest": digest, "size": text.len()})
    }

    /// An image with these layers.
    pub(crate) fn image(
        &self,
        repository: &str,
        tag: Option<&str>,
        architecture: &str,
        layers: &[&[u8]],
    ) -> serde_json::Value {
        let diff_ids: Vec<_> = layers.iter().map(digest::sha256).collect();
        let config =
            json!({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
                .to_string();
        let config = self.blob(repository, "application/vnd.oci.image.config.v1+json", config.as_bytes());
        let layers: Vec<_> =
            layers.iter().map(|layer| self.blob(repository, "application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let mut made = self.manifest(
            repository,
            tag,
            &json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}),
        );
        made["platform"] = json!({"os": "linux", "architecture": architecture});
        made
    }

    /// An index of these.
    pub(crate) fn index(&self, repository: &str, tag: &str, parts: &[serde_json::Value]) -> serde_json::Value {
        let kind = "application/vnd.oci.image.index.v1+json";
        self.manifest(repository, Some(tag), &json!({"schemaVersion": 2, "mediaType": kind, "manifests": parts}))
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let uri = head.uri.to_string();
        let line = format!("{} {uri}", head.method);
        let fault = {
            let mut held = self.held();
            let range = head.headers.get("range").and_then(|range| range.to_str().ok()).unwrap_or_default();
            held.asked.push(format!("{line} {range}"));
            let fault = held.faults.iter_mut().find(|fault| fault.times > 0 && line.starts_with(fault.of));
            fault.map(|fault| {
                fault.times -= 1;
                fault.kind
            })
        };
        if let Some(Kind::Status(status)) = fault {
            return Ok(said(StatusCode::from_u16(status).unwrap(), &[], &[]));
        }
        if let Some(Kind::CutAfter(0)) = fault {
            return Ok(pieces(StatusCode::OK, &[], 1000, vec![Err(cut())]));
        }
        let body = if head.method == Method::PUT {
            match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => return Ok(said(StatusCode::BAD_REQUEST, &[], &[])),
            }
        } else {
            Bytes::new()
        };
        let range = head
            .headers
            .get("range")
            .and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let range = range.filter(|_| !matches!(fault, Some(Kind::Whole)));
        let (status, mut headers, content) = self.held().respond(&head.method, &uri, &head.headers, &body, range);
        if matches!(fault, Some(Kind::OtherRange)) {
            headers.push(("content-range", "bytes 7-8/9".to_owned()));
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        if head.method == Method::HEAD {
            return Ok(pieces(status, &headers, content.len(), Vec::new()));
        }
        let length = content.len();
        Ok(match fault {
            Some(Kind::CutAfter(after)) => {
                let first = Bytes::copy_from_slice(&content[..after.min(length)]);
                let first = futures::stream::iter([Ok(Frame::data(first))]);
                // What was sent must have gone before the end comes, or nobody gets any of it.
                let end = futures::stream::once(async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Err(cut())
                });
                streamed(status, &headers, length, first.chain(end))
            }
            Some(Kind::OtherRest) if status == StatusCode::PARTIAL_CONTENT => {
                let mut content = content;
                content[0] ^= 1;
                said(status, &headers, &content)
            }
            Some(Kind::Damaged) => {
                let mut content = content;
                content[length / 2] ^= 1;
                said(status, &headers, &content)
            }
            Some(Kind::Endless) => said(status, &headers, &content.repeat(1000)),
            Some(Kind::Moved(to)) => {
                let mut held = self.held();
                let digest = held.tags.iter().find(|((_, tag), _)| tag == to).unwrap().1.clone();
                for (_, held) in held.tags.iter_mut() {
                    digest.clone_into(held);
                }
                said(status, &headers, &content)
            }
            _ => said(status, &headers, &content),
        })
    }
}

type Headers = Vec<(&'static str, String)>;

impl Held {
    fn respond(
        &mut self,
        method: &Method,
        uri: &str,
        headers: &http::HeaderMap,
        body: &Bytes,
        range: Option<usize>,
    ) -> (StatusCode, Headers, Vec<u8>) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let rest = path.strip_prefix("/v2/").unwrap_or_default();
        let queried = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
                .map(|text| text.replace("%3A", ":"))
        };
        let none =
            || (StatusCode::NOT_FOUND, vec![], br#"{"errors":[{"code":"UNKNOWN","message":"unknown"}]}"#.to_vec());
        if rest == "_catalog" {
            let names: BTreeSet<_> = self.manifests.keys().map(|(repository, _)| repository).collect();
            return (StatusCode::OK, vec![], json!({"repositories": names}).to_string().into_bytes());
        }
        if let Some(repository) = rest.strip_suffix("/tags/list") {
            let tags: Vec<_> = self.tags.keys().filter(|(of, _)| of == repository).map(|(_, tag)| tag).collect();
            return (StatusCode::OK, vec![], json!({"tags": tags}).to_string().into_bytes());
        }
        if let Some((repository, _)) = rest.split_once("/blobs/uploads/") {
            let key = |of: &str, digest: &str| (of.to_owned(), digest.to_owned());
            if let (Some(digest), Some(from)) = (queried("mount"), queried("from"))
                && let Some(content) = self.blobs.get(&key(&from, &digest)).cloned()
            {
                self.blobs.insert(key(repository, &digest), content);
                return (StatusCode::CREATED, vec![], vec![]);
            }
            if method == Method::POST {
                let to = format!("https://elsewhere.test/v2/{repository}/blobs/uploads/1?_state=planted");
                return (StatusCode::ACCEPTED, vec![("location", to)], vec![]);
            }
            let digest = queried("digest").unwrap();
            if digest::compare(body, &digest).is_err() {
                return (
                    StatusCode::BAD_REQUEST,
                    vec![],
                    br#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#.to_vec(),
                );
            }
            self.blobs.insert(key(repository, &digest), body.to_vec());
            return (StatusCode::CREATED, vec![], vec![]);
        }
        if let Some((repository, digest)) = rest.split_once("/blobs/") {
            let Some(content) = self.blobs.get(&(repository.to_owned(), digest.to_owned())) else { return none() };
            return match range {
                Some(from) => (StatusCode::PARTIAL_CONTENT, vec![], content[from..].to_vec()),
                None => (StatusCode::OK, vec![], content.clone()),
            };
        }
        let Some((repository, version)) = rest.split_once("/manifests/") else { return none() };
        let tagged = (repository.to_owned(), version.to_owned());
        if method == Method::PUT {
            let Some(kind) = headers.get("content-type") else { return none() };
            let digest = digest::sha256(body);
            let found = Found::read(digest.clone(), kind.to_str().unwrap(), body.to_vec()).unwrap();
            let manifest = found.manifest;
            let is_there = |digest: &String| {
                let key = (repository.to_owned(), digest.clone());
                self.blobs.contains_key(&key) || self.manifests.contains_key(&key)
            };
            let parts = manifest
                .config
                .iter()
                .chain(manifest.layers.iter().flatten())
                .chain(manifest.manifests.iter().flatten());
            if !parts.filter(|part| part.urls.is_none()).all(|part| is_there(&part.digest)) {
                return (
                    StatusCode::BAD_REQUEST,
                    vec![],
                    br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"no"}]}"#.to_vec(),
                );
            }
            self.manifests.insert((repository.to_owned(), digest.clone()), (found.media_type, body.to_vec()));
            if !version.contains(':') {
                self.tags.insert(tagged, digest.clone());
            }
            return (StatusCode::CREATED, vec![("docker-content-digest", digest)], vec![]);
        }
        if method == Method::DELETE {
            if self.keeps_all {
                return (
                    StatusCode::METHOD_NOT_ALLOWED,
                    vec![],
                    br#"{"errors":[{"code":"UNSUPPORTED","message":"no"}]}"#.to_vec(),
                );
            }
            if !version.contains(':') {
                return if self.tags.remove(&tagged).is_some() {
                    (StatusCode::ACCEPTED, vec![], vec![])
                } else {
                    none()
                };
            }
            self.tags.retain(|(of, _), digest| of != repository || digest != version);
            return if self.manifests.remove(&tagged).is_some() {
                (StatusCode::ACCEPTED, vec![], vec![])
            } else {
                none()
            };
        }
        let digest = self.tags.get(&tagged).cloned().unwrap_or_else(|| version.to_owned());
        match self.manifests.get(&(repository.to_owned(), digest.clone())) {
            Some((kind, text)) => {
                (StatusCode::OK, vec![("content-type", kind.clone()), ("docker-content-digest", digest)], text.clone())
            }
            None => none(),
        }
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

fn cut() -> std::io::Error {
    std::io::Error::other("cut")
}

fn said(status: StatusCode, headers: &[(&str, &str)], content: &[u8]) -> Response<Body> {
    let length = content.len();
    let content = content.chunks(1000).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    pieces(status, headers, length, content)
}

fn pieces(
    status: StatusCode,
    headers: &[(&str, &str)],
    length: usize,
    content: Vec<std::io::Result<Frame<Bytes>>>,
) -> Response<Body> {
    streamed(status, headers, length, futures::stream::iter(content))
}

fn streamed(
    status: StatusCode,
    headers: &[(&str, &str)],
    length: usize,
    content: impl futures::Stream<Item = std::io::Result<Frame<Bytes>>> + Send + Sync + 'static,
) -> Response<Body> {
    let mut answer = Response::builder().status(status).header("content-length", length);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(BodyExt::boxed(StreamBody::new(content))).unwrap()
}

impl Way for Store {
    fn place(&self) -> String {
        "the registry".to_owned()
    }

    fn host(&self) -> String {
        "registry.test".to_owned()
    }

    async fn open(&self) -> Result<Box<dyn Stream>> {
        let (near, far) = tokio::io::duplex(1 << 12);
        let store = self.clone();
        let service = service_fn(move |request| store.clone().answer(request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(far), service));
        Ok(Box::new(near))
    }
}
