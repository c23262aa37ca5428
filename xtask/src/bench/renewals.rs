//! Pulls and pushes that go on while certificates are renewed every minute or two and authorities take over from each other, on a real node: behind a front
//! end, with two replicas, and with a single pod, whose gaps are what is measured there.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use testbed::{Family, Mode, Node, Progress, Tools, image, node};

use super::{
    objects::api,
    person::{Person, REPOSITORY},
    samples::milliseconds,
    served_node::{ServedNode, all_ready},
    table::Row,
    world::NAMESPACE,
};

/// Life of certificates and of authorities.
const LIVES: &str = "2m/10m";
/// How long a client keeps one connection.
const KEPT: u32 = 30;
/// Requests that it makes on it in a second.
const EACH_SECOND: u32 = 5;
/// How long a client that connects anew rests between two rounds.
const PAUSE: Duration = Duration::from_millis(100);
/// How often clients look for other authorities.
const NEWS: Duration = Duration::from_secs(10);

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
    let wanted: Vec<_> = shapes.iter().map(|shape| (shape.name, shape.spec.clone())).collect();
    all_ready(client, &wanted).await?;
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
        let both = futures::try_join!(keeps_connections(&person, &blob, until), connects_anew(&person, &blob, until));
        done.store(true, Relaxed);
        both
    };
    let (both, renewed) = futures::join!(clients, renewals(client, shape.name, &done));
    let (kept, (anew, gap)) = both?;
    let (certificates, authorities) = renewed?;
    ensure!(certificates > 0, "no certificate of {} was renewed in {minutes} min", shape.name);
    let (all, failed) = (kept.all + anew.all, kept.failed + anew.failed);
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
    /// The first failures, in words.
    why: Vec<String>,
}

impl Seen {
    fn answer(&mut self, answer: Result<(), String>) {
        self.all += 1;
        let Err(why) = answer else { return };
        self.failed += 1;
        if self.why.len() < 5 {
            self.why.push(why);
        }
    }
}

/// How long a client went without a good answer.
#[derive(Default)]
struct Gap {
    longest: Duration,
    /// Since when there is none.
    since: Option<Instant>,
}

impl Gap {
    fn answer(&mut self, is_good: bool, began: Instant) {
        self.since = (!is_good).then(|| self.since.unwrap_or(began));
        self.longest = self.longest.max(self.since.map_or(Duration::ZERO, |since| since.elapsed()));
    }
}

/// Pulls and pushes, each over a connection of its own. Also gives the longest gap.
async fn connects_anew(person: &Person<'_>, blob: &str, until: Instant) -> Result<(Seen, Duration)> {
    let (mut seen, mut gap, mut learned, mut round) = (Seen::default(), Gap::default(), Instant::now(), 0_u32);
    while Instant::now() < until {
        if learned.elapsed() > NEWS {
            person.learn().await?;
            learned = Instant::now();
        }
        let began = Instant::now();
        let pulled = person.asks(&format!("/v2/{REPOSITORY}/blobs/{blob}"), "200", "", &[]).await?;
        gap.answer(pulled.is_ok(), began);
        seen.answer(pulled.map(drop));
        let began = Instant::now();
        let pushed = person.push(format!("round {round}").as_bytes()).await?;
        gap.answer(pushed.is_ok(), began);
        seen.answer(pushed.map(drop));
        round += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok((seen, gap.longest))
}

/// Pulls over connections that it keeps for half a minute. What it sees is told together at the end, so how long a gap was is for the other client to say.
async fn keeps_connections(person: &Person<'_>, blob: &str, until: Instant) -> Result<Seen> {
    let mut seen = Seen::default();
    let count = KEPT * EACH_SECOND;
    while Instant::now() < until {
        let path = format!("/v2/{REPOSITORY}/blobs/{blob}?[1-{count}]");
        let rate = format!("{EACH_SECOND}/s");
        let output = person.curl(&path, &["--rate", &rate, "--write-out", "%{http_code}\n"]).await?;
        let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let codes: Vec<_> = said.lines().collect();
        for number in 0..count as usize {
            let code = codes.get(number).copied().unwrap_or("nothing");
            let answer = if code == "200" {
                Ok(())
            } else {
                Err(format!("kept connection: {code} {}", error.lines().next().unwrap_or_default()))
            };
            seen.answer(answer);
        }
    }
    Ok(seen)
}
