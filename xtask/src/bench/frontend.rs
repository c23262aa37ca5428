//! What a front end costs or gains, without logins, with passwords and with tokens, against the registry's own TLS without logins: all on one node, in turns, in one run.

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{
    Family, Mode, Node, Progress, Tools,
    debian::{self, Program},
    image, node,
    sandbox::Place,
};

use super::{
    person::{Person, REPOSITORY},
    served_node::{ServedNode, all_ready},
    table::Row,
};

/// Of each number that many are taken, in turns.
const ROUNDS: usize = 3;
/// How long wrk asks for one thing.
const SECONDS: u32 = 6;
const PUSHES: usize = 20;
const LARGE: usize = 128 << 20;
const NGINX_AT_MOST: u64 = 32 << 10;
const SIDECAR_AT_MOST: u64 = 32 << 10;

const MEDIA: &str = "application/vnd.oci.image.manifest.v1+json";

/// The registries that are compared: the first serves by itself, the others behind a front end.
const REGISTRIES: [&str; 4] = ["bare", "front", "logins", TOKENS];
const TOKENS: &str = "tokens";
/// How much better than the first the others must be.
type Goals = [Option<f64>; 3];
const BLOBS: [(&str, usize, Goals); 2] =
    [("8 KiB", 8 << 10, [Some(2.5), Some(5.0), Some(5.0)]), ("1 MiB", 1 << 20, [Some(1.5); 3])];

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
    let specs = [
        json!({"auth": {"none": {}}}),
        json!({"auth": {"none": {}}, "frontend": {"nginx": {}}}),
        json!({"frontend": {"nginx": {}}}),
        json!({"auth": {"token": {"rules": [{"users": ["*"], "repositories": ["**"], "actions": ["pull"]}]}}}),
    ];
    all_ready(client, &REGISTRIES.into_iter().zip(specs).collect::<Vec<_>>()).await?;
    let mut people = Vec::new();
    for name in REGISTRIES {
        people.push(Person::new(node, client, name).await?);
    }
    step.done();

    let mut rows = Vec::new();
    for (words, size, goals) in BLOBS {
        let step = progress.step(format!("front end: pull blobs of {words}"));
        let blob = everywhere(&people, &filler(size)).await?;
        let path = format!("/v2/{REPOSITORY}/blobs/{blob}");
        take_tokens(&mut people).await?;
        let found = in_turns(async |who: usize| requests_a_second(node, &people[who], &path).await).await?;
        rows.extend(faster(&format!("pulls of {words}, requests a second"), found, goals));
        step.done();
    }
    let step = progress.step("front end: pull a blob of 128 MiB");
    let blob = everywhere(&people, &filler(LARGE)).await?;
    let path = format!("/v2/{REPOSITORY}/blobs/{blob}");
    let mut memory = 0;
    take_tokens(&mut people).await?;
    let found = in_turns(async |who: usize| {
        let began = Instant::now();
        for _ in 0..3 {
            good(people[who].asks(&path, "200", "", &[]).await?)?;
        }
        memory = memory.max(memory_of("nginx"));
        Ok(1.0 / began.elapsed().as_secs_f64())
    })
    .await?;
    rows.extend(faster("three pulls of 128 MiB", found, [Some(1.5); 3]));
    step.done();

    let step = progress.step("front end: manifests and pushes");
    take_tokens(&mut people).await?;
    let manifest = manifest(&people).await?;
    let found = in_turns(async |who: usize| requests_a_second(node, &people[who], &manifest).await).await?;
    rows.extend(faster("manifests, requests a second", found, [Some(0.9), Some(0.7), Some(0.7)]));
    take_tokens(&mut people).await?;
    let mut number = 0_u32;
    let found = in_turns(async |who: usize| {
        let began = Instant::now();
        for _ in 0..PUSHES {
            number += 1;
            let mut content = filler(1 << 20);
            content[..4].copy_from_slice(&number.to_be_bytes());
            good(people[who].push(&content).await?)?;
        }
        memory = memory.max(memory_of("nginx"));
        Ok(1.0 / began.elapsed().as_secs_f64())
    })
    .await?;
    rows.extend(faster("pushes of 1 MiB", found, [Some(0.9), None, None]));
    step.done();
    let step = progress.step("tokens: asked for, and guessed at");
    rows.extend(tokens(node, &people[REGISTRIES.len() - 1]).await?);
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

/// So that each measurement begins with a fresh one.
async fn take_tokens(people: &mut [Person<'_>]) -> Result<()> {
    for (person, _) in people.iter_mut().zip(REGISTRIES).filter(|(_, name)| *name == TOKENS) {
        person.takes_token().await?;
    }
    Ok(())
}

/// How long a token takes whose password is remembered, and what a storm of guesses, each for another user, makes of the sidecar.
async fn tokens(node: &Node, person: &Person<'_>) -> Result<[Row; 2]> {
    let login = person.by_password.as_deref().context("there is no password")?;
    let script = format!("wrk.headers[\"Authorization\"] = \"{login}\"\n");
    let said = wrk(node, person, &person.token_path(), &script, "2", &["--latency"]).await?;
    ensure!(!said.contains("Non-2xx"), "wrk said {said}");
    let slow = said.lines().find_map(|line| line.trim().strip_prefix("99%")).context("wrk gave no latency")?;
    let slow = milliseconds(slow.trim()).with_context(|| format!("wrk's latency {slow}"))?;
    let guesses = "local n = 0\nrequest = function()\n  n = n + 1\n  return wrk.format(\"POST\", nil, nil, \
                   \"grant_type=password&username=u\" .. n .. \"&password=guess\" .. n)\nend\n";
    wrk(node, person, "/auth/token", guesses, "128", &[]).await?;
    let memory = memory_where(|line| line.split('\0').nth(1) == Some("sidecar"));
    Ok([
        Row {
            name: "front end",
            what: "a token for a password that is remembered, two clients: p99".to_owned(),
            result: format!("{slow:.1} ms"),
            goal: "≤ 5 ms".to_owned(),
            is_met: Some(slow <= 5.0),
            values: json!({"milliseconds": slow}),
        },
        Row {
            name: "front end",
            what: format!("memory of the sidecar after {SECONDS} s of guesses by 128 clients, the largest of all"),
            result: format!("{:.1} MiB", memory as f64 / 1024.0),
            goal: "≤ 32 MiB".to_owned(),
            is_met: Some(memory > 0 && memory <= SIDECAR_AT_MOST),
            values: json!({"KiB": memory}),
        },
    ])
}

/// `950.00us`, `3.21ms`, `1.02s`.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// Each side in turns, so that what else the machine does weighs on both. The medians.
async fn in_turns(mut one: impl AsyncFnMut(usize) -> Result<f64>) -> Result<[f64; 4]> {
    let mut found = REGISTRIES.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (who, found) in found.iter_mut().enumerate() {
            found.push(one(who).await?);
        }
    }
    Ok(found.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[ROUNDS / 2]
    }))
}

fn faster(what: &str, [bare, front, logins, tokens]: [f64; 4], goals: Goals) -> impl Iterator<Item = Row> {
    [("", front), (" with logins", logins), (" with tokens", tokens)].into_iter().zip(goals).map(
        move |((how, found), goal)| {
            let ratio = found / bare;
            Row {
                name: "front end",
                what: format!("{what}{how}, against the registry's own TLS"),
                result: format!("{ratio:.2}x"),
                goal: goal.map(|goal| format!("≥ {goal}x")).unwrap_or_default(),
                is_met: goal.map(|goal| ratio >= goal),
                values: json!({"bare": bare, "front": found}),
            }
        },
    )
}

/// Nothing that packs well.
fn filler(size: usize) -> Vec<u8> {
    (0..u32::try_from(size).unwrap_or(u32::MAX)).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn good<T>(answer: Result<T, String>) -> Result<T> {
    answer.map_err(|why| anyhow::anyhow!(why))
}

async fn everywhere(people: &[Person<'_>], content: &[u8]) -> Result<String> {
    let mut digest = String::new();
    for person in people {
        digest = good(person.push(content).await?)?;
    }
    Ok(digest)
}

/// Pushes one and gives its path.
async fn manifest(people: &[Person<'_>]) -> Result<String> {
    let config = everywhere(people, b"{}").await?;
    let layer = filler(8 << 10);
    let digest = everywhere(people, &layer).await?;
    let manifest: Value = json!({
        "schemaVersion": 2, "mediaType": MEDIA,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": layer.len()}],
    });
    let path = format!("/v2/{REPOSITORY}/manifests/1");
    for person in people {
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
    let login = person.authorization.as_deref().map(|login| format!("wrk.headers[\"Authorization\"] = \"{login}\"\n"));
    let said = wrk(node, person, path, &login.unwrap_or_default(), "8", &[]).await?;
    ensure!(!said.contains("Non-2xx"), "wrk said {said}");
    let number = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")).context("wrk gave no number")?;
    Ok(number.trim().parse()?)
}

/// What wrk says. The script is in a file, because everybody can read what a program was started with.
async fn wrk(
    node: &Node,
    person: &Person<'_>,
    path: &str,
    script: &str,
    connections: &str,
    more: &[&str],
) -> Result<String> {
    let mut command = node.sandbox().command(Place::Inside, "wrk");
    let duration = format!("{SECONDS}s");
    command.args(["--threads", "1", "--connections", connections, "--duration", &duration]).args(more);
    let file = person.file("wrk.lua");
    fs::write(&file, script)?;
    command.arg("--script").arg(file);
    command.arg("--header").arg(format!("Accept: {MEDIA}")).arg(format!("{}{path}", person.address));
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("run wrk")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "wrk said {said}");
    Ok(said)
}

/// KiB of the processes of this name in one container, what they share counted once: of the container with the most.
fn memory_of(program: &str) -> u64 {
    memory_where(|line| line.split('\0').next().is_some_and(|name| name.starts_with(program)))
}

/// The same for processes that were started so.
fn memory_where(is_it: impl Fn(&str) -> bool) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_it = processes.filter(|one| fs::read_to_string(one.path().join("cmdline")).is_ok_and(|line| is_it(&line)));
    let share = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    let mut containers = BTreeMap::<_, u64>::new();
    for process in of_it {
        let container = fs::read_link(process.path().join("ns/pid")).ok();
        let text = fs::read_to_string(process.path().join("smaps_rollup")).ok();
        *containers.entry(container).or_default() += text.and_then(share).unwrap_or_default();
    }
    containers.into_values().max().unwrap_or_default()
}
