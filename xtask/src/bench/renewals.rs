//! Pulls and pushes that go on while certificates are renewed every minute or two and authorities take over from each other, on a real node: behind a front
//! end, with two replicas, and with a single pod, whose gaps are what is measured there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use testbed::{Family, Mode, Node, Progress, Tools, image, node, sandbox::Place};

use super::{
    objects::{self, api, registry},
    samples::milliseconds,
    served_node::{ServedNode, reached},
    table::Row,
    world::NAMESPACE,
};

/// Life of certificates and of authorities.
const LIVES: &str = "2m/10m";
const REPOSITORY: &str = "team/app";
/// How long a client keeps one connection.
const KEPT: u32 = 30;
/// Requests that it makes on it in a second.
const EACH_SECOND: u32 = 5;
/// How long a client that connects anew rests between two rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// How often clients look for other authorities.
const NEWS: Duration = Duration::from_secs(10);
/// Shorter gaps than what a browser would notice are none.
const TIMEOUT: &str = "10";

/// How a registry is run.
struct Shape {
    name: &'static str,
    words: &'static str,
    spec: Value,
    /// Whether no request may fail.
    is_gapless: bool,
}

fn shapes(has_nginx: bool) -> Vec<Shape> {
    let shared = json!({"persistentVolumeClaim": {"size": "1Gi", "accessModes": ["ReadWriteMany"]}});
    let front = has_nginx.then(|| Shape {
        name: "front",
        words: "one pod behind a front end",
        spec: json!({"frontend": {"nginx": {}}}),
        is_gapless: true,
    });
    let without = [
        Shape {
            name: "two",
            words: "two pods without a front end",
            spec: json!({"replicas": 2, "storage": shared}),
            is_gapless: true,
        },
        Shape { name: "one", words: "one pod without a front end", spec: json!({}), is_gapless: false },
    ];
    front.into_iter().chain(without).collect()
}

pub(super) async fn measure(program: &Path, minutes: u32, progress: &Progress) -> Result<Vec<Row>> {
    if testbed::missing(Mode::Node).is_some() {
        return Ok(Vec::new());
    }
    let step = progress.step("start a node whose certificates live for minutes");
    let nginx = Tools::ensure(&[Family::Nginx], progress).ok();
    let front = nginx.as_ref().map(|tools| image::nginx(tools.path("nginx")?)).transpose()?;
    let shapes = shapes(front.is_some());
    let options = node::Options { images: front.into_iter().collect(), ..node::Options::default() };
    let short = format!("{NAMESPACE}={LIVES}");
    let more = ["--short-certificates-for-tests", &short, "--frontend-image", image::FRONTEND];
    let ServedNode { node, client, .. } = &ServedNode::start(program, options, &more).await?;
    let started = Instant::now();
    for shape in &shapes {
        let mut manifest = registry(NAMESPACE, shape.name);
        manifest["spec"] = shape.spec.clone();
        objects::apply(client, &manifest).await?;
    }
    for shape in &shapes {
        reached(client, "PrivateRegistry", shape.name, "Ready", started).await?;
    }
    step.done();

    let step = progress.step("renewals: pull and push all the time");
    let until = Instant::now() + Duration::from_secs(u64::from(minutes) * 60);
    let watched = shapes.iter().map(|shape| watch(node, client, shape, until, minutes));
    let rows = futures::future::try_join_all(watched).await?;
    step.done();
    Ok(rows)
}

/// One registry, with its two clients.
async fn watch(node: &Node, client: &Client, shape: &Shape, until: Instant, minutes: u32) -> Result<Row> {
    let person = Person::new(node, client, shape.name).await?;
    let blob = person.push(b"what is pulled all the time").await?;
    let blob = blob.map_err(|why| anyhow::anyhow!("the first push to {}: {why}", shape.name))?;
    let done = AtomicBool::new(false);
    let clients = async {
        let both = futures::try_join!(person.keeps_connections(&blob, until), person.connects_anew(&blob, until));
        done.store(true, Relaxed);
        both
    };
    let (both, renewed) = futures::join!(clients, renewals(client, shape.name, &done));
    let (kept, anew) = both?;
    let (certificates, authorities) = renewed?;
    ensure!(certificates > 0, "no certificate of {} was renewed in {minutes} min", shape.name);
    let (all, failed) = (kept.all + anew.all, kept.failed + anew.failed);
    let gap = kept.gap.max(anew.gap);
    let why = [kept.why, anew.why].concat();
    let result = if shape.is_gapless { format!("{failed} of {all}") } else { format!("{:.1} s", gap.as_secs_f64()) };
    let what = if shape.is_gapless { "failed requests" } else { "longest gap" };
    Ok(Row {
        name: "renewals",
        what: format!("{what}, {}: {minutes} min, {certificates} certificates, {authorities} authorities", shape.words),
        result,
        goal: if shape.is_gapless { "0".to_owned() } else { String::new() },
        is_met: shape.is_gapless.then_some(failed == 0),
        values: json!({
            "requests": all, "failed": failed, "gap": milliseconds(gap), "certificates": certificates,
            "authorities": authorities, "why": why,
        }),
    })
}

/// How often certificate and authority changed.
async fn renewals(client: &Client, name: &str, done: &AtomicBool) -> Result<(usize, usize)> {
    let (mut serials, mut authorities) = (Vec::new(), Vec::new());
    while !done.load(Relaxed) {
        let live = api(client, NAMESPACE, "PrivateRegistry").get(name).await?;
        let certificate = &live.data["status"]["certificate"];
        let active = certificate["authorities"].as_array().into_iter().flatten();
        let active = active.filter(|one| one["stage"] == "Active").map(|one| one["fingerprint"].clone()).next();
        for (known, now) in [(&mut serials, Some(certificate["serial"].clone())), (&mut authorities, active)] {
            known.extend(now.filter(|now| known.last() != Some(now)));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok((serials.len().saturating_sub(1), authorities.len().saturating_sub(1)))
}

/// What a client has seen.
#[derive(Default)]
struct Seen {
    all: u32,
    failed: u32,
    /// The longest time without a good answer.
    gap: Duration,
    /// Since when there was none.
    since: Option<Instant>,
    /// The first failures, in words.
    why: Vec<String>,
}

impl Seen {
    fn answer(&mut self, answer: Result<(), String>, began: Instant) {
        self.all += 1;
        match answer {
            Ok(()) => self.since = None,
            Err(why) => {
                self.failed += 1;
                let since = *self.since.get_or_insert(began);
                self.gap = self.gap.max(since.elapsed());
                if self.why.len() < 5 {
                    self.why.push(why);
                }
            }
        }
    }
}

/// Somebody who pulls and pushes with curl. The login is in a file.
struct Person<'a> {
    node: &'a Node,
    client: &'a Client,
    name: &'a str,
    address: String,
    home: TempDir,
}

impl<'a> Person<'a> {
    async fn new(node: &'a Node, client: &'a Client, name: &'a str) -> Result<Self> {
        let home = tempfile::tempdir().context("make a folder")?;
        let service = api(client, NAMESPACE, "Service").get(name).await?;
        let address = service.data["spec"]["clusterIP"].as_str().context("the Service has no address")?;
        let login = api(client, NAMESPACE, "Secret").get(&format!("{name}-admin")).await?;
        let text = |key: &str| -> Result<String> {
            let encoded = login.data["data"][key].as_str().context("no login")?;
            let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded)?;
            Ok(String::from_utf8(bytes)?)
        };
        let user = format!("user = \"{}:{}\"\n", text("username")?, text("password")?);
        fs::write(home.path().join("login"), user).context("write the login")?;
        let person = Self { node, client, name, address: format!("https://{address}:5000"), home };
        person.learn().await?;
        Ok(person)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Trusts whom the bundle names now.
    async fn learn(&self) -> Result<()> {
        let bundle = api(self.client, NAMESPACE, "ConfigMap").get(&format!("{}-ca-bundle", self.name)).await?;
        let text = bundle.data["data"]["ca.crt"].as_str().context("the bundle is empty")?;
        fs::write(self.file("new"), text).and_then(|()| fs::rename(self.file("new"), self.file("ca.crt")))?;
        Ok(())
    }

    async fn curl(&self, path: &str, more: &[&str]) -> Result<Output> {
        let mut command = self.node.sandbox().command(Place::Inside, "curl");
        command.args(["--silent", "--show-error", "--max-time", TIMEOUT, "--output", "/dev/null"]).args(more);
        command.arg("--config").arg(self.file("login")).arg("--cacert").arg(self.file("ca.crt"));
        command.arg(format!("{}{path}", self.address));
        tokio::task::spawn_blocking(move || command.output()).await?.context("run curl")
    }

    /// One request over a new connection, and what curl says of it.
    async fn asks(&self, path: &str, wanted: &str, say: &str, more: &[&str]) -> Result<Result<String, String>> {
        let write = format!("%{{http_code}} {say}");
        let output = self.curl(path, &[&["--write-out", &write], more].concat()).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(match said.split_once(' ') {
            Some((code, rest)) if code == wanted => Ok(rest.trim().to_owned()),
            _ => Err(format!("{path}: {said} {error}")),
        })
    }

    /// Its digest.
    async fn push(&self, content: &[u8]) -> Result<Result<String, String>> {
        let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.file("content"), content).context("write what is pushed")?;
        let begin = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let place = match self.asks(&begin, "202", "%header{location}", &["--data", ""]).await? {
            Ok(place) => place,
            Err(why) => return Ok(Err(why)),
        };
        let content = format!("@{}", self.file("content").display());
        let more =
            ["--request", "PUT", "--header", "Content-Type: application/octet-stream", "--data-binary", &content];
        let put = self.asks(&format!("{place}&digest=sha256:{digest}"), "201", "", &more).await?;
        Ok(put.map(|_| format!("sha256:{digest}")))
    }

    async fn connects_anew(&self, blob: &str, until: Instant) -> Result<Seen> {
        let (mut seen, mut learned, mut round) = (Seen::default(), Instant::now(), 0_u32);
        while Instant::now() < until {
            if learned.elapsed() > NEWS {
                self.learn().await?;
                learned = Instant::now();
            }
            let began = Instant::now();
            let pulled = self.asks(&format!("/v2/{REPOSITORY}/blobs/{blob}"), "200", "", &[]).await?;
            seen.answer(pulled.map(drop), began);
            let began = Instant::now();
            let pushed = self.push(format!("round {round}").as_bytes()).await?;
            seen.answer(pushed.map(drop), began);
            round += 1;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(seen)
    }

    async fn keeps_connections(&self, blob: &str, until: Instant) -> Result<Seen> {
        let mut seen = Seen::default();
        let count = KEPT * EACH_SECOND;
        while Instant::now() < until {
            let began = Instant::now();
            let path = format!("/v2/{REPOSITORY}/blobs/{blob}?[1-{count}]");
            let rate = format!("{EACH_SECOND}/s");
            let output = self.curl(&path, &["--rate", &rate, "--write-out", "%{http_code}\n"]).await?;
            let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let codes: Vec<_> = said.lines().collect();
            for number in 0..count as usize {
                let code = codes.get(number).copied().unwrap_or("nothing");
                let began = began + Duration::from_secs(number as u64) / EACH_SECOND;
                let answer =
                    if code == "200" { Ok(()) } else { Err(format!("kept connection: {code} {}", error.trim())) };
                // Told together at the end, so how long a gap was is for the other client to say.
                seen.answer(answer, began.min(Instant::now()));
                seen.gap = Duration::ZERO;
            }
        }
        Ok(seen)
    }
}
