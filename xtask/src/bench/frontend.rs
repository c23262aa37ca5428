//! What a front end costs or gains, against the registry's own TLS: both on one node, in turns, in one run.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{
    Family, Mode, Node, Progress, Tools,
    debian::{self, Program},
    image, node,
    sandbox::Place,
};

use super::{
    objects::{self, registry},
    person::{Person, REPOSITORY},
    served_node::{ServedNode, reached},
    table::Row,
    world::NAMESPACE,
};

/// Of each number that many are taken, in turns.
const ROUNDS: usize = 3;
/// How long wrk asks for one thing.
const SECONDS: u32 = 6;
const PUSHES: usize = 20;
const LARGE: usize = 128 << 20;
const NGINX_AT_MOST: u64 = 32 << 10;

const MEDIA: &str = "application/vnd.oci.image.manifest.v1+json";

/// What is compared: how much better the front end must be.
const BLOBS: [(&str, usize, f64); 2] = [("8 KiB", 8 << 10, 2.5), ("1 MiB", 1 << 20, 1.5)];

pub(super) async fn measure(program: &Path, progress: &Progress) -> Result<Vec<Row>> {
    if testbed::missing(Mode::Node).is_some() {
        return Ok(Vec::new());
    }
    let step = progress.step("start a node with and without a front end");
    debian::ensure(&[Program { name: "wrk", package: "wrk" }])?;
    let nginx = image::nginx(Tools::ensure(&[Family::Nginx], progress)?.path("nginx")?)?;
    let options = node::Options { images: vec![nginx], ..node::Options::default() };
    let more = ["--frontend-image", image::FRONTEND];
    let ServedNode { node, client, .. } = &ServedNode::start(program, options, &more).await?;
    let started = Instant::now();
    for (name, spec) in [("bare", json!({})), ("front", json!({"frontend": {"nginx": {}}}))] {
        let mut manifest = registry(NAMESPACE, name);
        manifest["spec"] = spec;
        manifest["spec"]["auth"] = json!({"none": {}});
        objects::apply(client, &manifest).await?;
    }
    for name in ["bare", "front"] {
        reached(client, "PrivateRegistry", name, "Ready", started).await?;
    }
    let both = [Person::new(node, client, "bare").await?, Person::new(node, client, "front").await?];
    step.done();

    let mut rows = Vec::new();
    for (words, size, goal) in BLOBS {
        let step = progress.step(format!("front end: pull blobs of {words}"));
        let blob = everywhere(&both, &filler(size)).await?;
        let path = format!("/v2/{REPOSITORY}/blobs/{blob}");
        let [bare, front] = in_turns(async |person: usize| requests_a_second(node, &both[person], &path).await).await?;
        rows.push(faster(&format!("pulls of {words}, requests a second"), bare, front, goal));
        step.done();
    }
    let step = progress.step("front end: pull a blob of 128 MiB");
    let blob = everywhere(&both, &filler(LARGE)).await?;
    let path = format!("/v2/{REPOSITORY}/blobs/{blob}");
    let mut memory = 0;
    let [bare, front] = in_turns(async |person: usize| {
        let began = Instant::now();
        for _ in 0..3 {
            good(both[person].asks(&path, "200", "", &[]).await?)?;
        }
        memory = memory.max(memory_of("nginx"));
        Ok(1.0 / began.elapsed().as_secs_f64())
    })
    .await?;
    rows.push(faster("three pulls of 128 MiB", bare, front, 1.5));
    step.done();

    let step = progress.step("front end: manifests and pushes");
    let manifest = manifest(&both).await?;
    let [bare, front] = in_turns(async |person: usize| requests_a_second(node, &both[person], &manifest).await).await?;
    rows.push(faster("manifests, requests a second", bare, front, 0.9));
    let mut number = 0_u32;
    let [bare, front] = in_turns(async |person: usize| {
        let began = Instant::now();
        for _ in 0..PUSHES {
            number += 1;
            let mut content = filler(1 << 20);
            content[..4].copy_from_slice(&number.to_be_bytes());
            good(both[person].push(&content).await?)?;
        }
        memory = memory.max(memory_of("nginx"));
        Ok(1.0 / began.elapsed().as_secs_f64())
    })
    .await?;
    rows.push(faster("pushes of 1 MiB", bare, front, 0.9));
    step.done();
    rows.push(Row {
        name: "front end",
        what: "memory of nginx, the most that was seen".to_owned(),
        result: format!("{:.1} MiB", memory as f64 / 1024.0),
        goal: "≤ 32 MiB".to_owned(),
        is_met: Some(memory > 0 && memory <= NGINX_AT_MOST),
        values: json!({"KiB": memory}),
    });
    Ok(rows)
}

/// Each side in turns, so that what else the machine does weighs on both. The medians.
async fn in_turns(mut one: impl AsyncFnMut(usize) -> Result<f64>) -> Result<[f64; 2]> {
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (person, found) in found.iter_mut().enumerate() {
            found.push(one(person).await?);
        }
    }
    Ok(found.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[ROUNDS / 2]
    }))
}

fn faster(what: &str, bare: f64, front: f64, goal: f64) -> Row {
    let ratio = front / bare;
    Row {
        name: "front end",
        what: format!("{what}, against the registry's own TLS"),
        result: format!("{ratio:.2}x"),
        goal: format!("≥ {goal}x"),
        is_met: Some(ratio >= goal),
        values: json!({"bare": bare, "front": front}),
    }
}

/// Nothing that packs well.
fn filler(size: usize) -> Vec<u8> {
    (0..u32::try_from(size).unwrap_or(u32::MAX)).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn good<T>(answer: Result<T, String>) -> Result<T> {
    answer.map_err(|why| anyhow::anyhow!(why))
}

async fn everywhere(both: &[Person<'_>], content: &[u8]) -> Result<String> {
    let mut digest = String::new();
    for person in both {
        digest = good(person.push(content).await?)?;
    }
    Ok(digest)
}

/// Pushes one and gives its path.
async fn manifest(both: &[Person<'_>]) -> Result<String> {
    let config = everywhere(both, b"{}").await?;
    let layer = filler(8 << 10);
    let digest = everywhere(both, &layer).await?;
    let manifest: Value = json!({
        "schemaVersion": 2, "mediaType": MEDIA,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": layer.len()}],
    });
    let path = format!("/v2/{REPOSITORY}/manifests/1");
    for person in both {
        let file = person.file("manifest");
        fs::write(&file, manifest.to_string())?;
        let (kind, content) = (format!("Content-Type: {MEDIA}"), format!("@{}", file.display()));
        let more = ["--request", "PUT", "--header", &kind, "--data-binary", &content];
        good(person.asks(&path, "201", "", &more).await?)?;
    }
    Ok(path)
}

/// Eight connections that ask for the same.
async fn requests_a_second(node: &Node, person: &Person<'_>, path: &str) -> Result<f64> {
    let mut command = node.sandbox().command(Place::Inside, "wrk");
    let duration = format!("{SECONDS}s");
    command.args(["--threads", "1", "--connections", "8", "--duration", &duration]);
    command.arg("--header").arg(format!("Accept: {MEDIA}")).arg(format!("{}{path}", person.address));
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("run wrk")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && !said.contains("Non-2xx"), "wrk said {said}");
    let number = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")).context("wrk gave no number")?;
    Ok(number.trim().parse()?)
}

/// KiB of all processes of this name, what they share counted once.
fn memory_of(program: &str) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_it =
        processes.filter(|one| fs::read_to_string(one.path().join("comm")).is_ok_and(|name| name.trim() == program));
    let share = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    of_it.filter_map(|one| share(fs::read_to_string(one.path().join("smaps_rollup")).ok()?)).sum()
}
