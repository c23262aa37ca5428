//! From a manifest without a user until that user is refused, on a real node whose kubelet has default settings: untold, it would bring a changed table
//! to the registry within two minutes.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kube::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Mode, Node, Progress, node, sandbox::Place};

use super::{
    objects::{self, api, registry},
    samples::{Samples, milliseconds},
    served_node::{ServedNode, reached},
    table::Row,
    wait::until,
    world::NAMESPACE,
};

const GOAL: Duration = Duration::from_secs(2);
/// Users that are removed, one after the other.
const ROUNDS: usize = 40;
const NAME: &str = "revoking";
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(super) async fn measure(program: &Path, progress: &Progress) -> Result<Vec<Row>> {
    if testbed::missing(Mode::Node).is_some() {
        return Ok(Vec::new());
    }
    let step = progress.step("start a node with a kubelet of default settings");
    let options = node::Options { default_sync: true, ..node::Options::default() };
    let ServedNode { node, client, .. } = &ServedNode::start(program, options, &[]).await?;
    step.done();

    let step = progress.step("revoke: one user after the other");
    let people = People::new(client).await?;
    objects::apply(client, &with_users(0)).await?;
    reached(client, "PrivateRegistry", NAME, "Ready", Instant::now()).await?;
    let address = service_address(client).await?;
    let mut times = Vec::new();
    for user in 0..ROUNDS {
        step.note(&format!("{} of {ROUNDS}", user + 1));
        // Also the last table has to have come to the registry, so that each round begins at rest.
        let login = || people.answer(node, &address, user);
        until("the user is let in", LOOK_EVERY, async || Ok(is("200", login().await?))).await?;
        let removed = Instant::now();
        objects::apply(client, &with_users(user + 1)).await?;
        until("the user is refused", LOOK_EVERY, async || Ok(is("401", login().await?))).await?;
        times.push(removed.elapsed());
        reached(client, "PrivateRegistry", NAME, "Ready", removed).await?;
    }
    step.done();

    let samples: Samples = times.iter().copied().collect();
    let worst = samples.percentile(99);
    Ok(vec![Row {
        name: "revoke",
        what: format!(
            "from apply until a removed user is refused, kubelet of default settings, p50 and p99 of {ROUNDS}"
        ),
        result: format!("{:.0}, {:.0} ms", milliseconds(samples.median()), milliseconds(worst)),
        goal: format!("≤ {GOAL:?}"),
        is_met: Some(worst <= GOAL),
        values: json!({"times": times.into_iter().map(milliseconds).collect::<Vec<_>>()}),
    }])
}

fn user(number: usize) -> String {
    format!("user-{number}")
}

/// The registry without the first users.
fn with_users(first: usize) -> Value {
    let users = (first..=ROUNDS).map(user);
    let users = users.map(|user| json!({"name": user, "passwordSecretRef": {"name": NAME, "key": user}}));
    let mut manifest = registry(NAMESPACE, NAME);
    manifest["spec"] = json!({"auth": {"users": users.collect::<Vec<_>>()}, "storage": {"emptyDir": {}}});
    manifest
}

/// `address:port` of the registry's Service.
async fn service_address(client: &Client) -> Result<String> {
    let service = api(client, NAMESPACE, "Service").get(NAME).await?;
    let address = service.data["spec"]["clusterIP"].as_str().context("the Service has no address")?;
    Ok(format!("{address}:{}", service.data["spec"]["ports"][0]["port"]))
}

fn is(wanted: &str, answer: String) -> Result<(), String> {
    if answer == wanted { Ok(()) } else { Err(answer) }
}

/// Whoever logs in, with curl's settings for each in a file.
struct People(TempDir);

impl People {
    async fn new(client: &Client) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let mut passwords = json!({});
        for number in 0..=ROUNDS {
            let (name, password) = (user(number), format!("password-of-{number}"));
            fs::write(folder.path().join(&name), format!("user = \"{name}:{password}\"\n"))?;
            passwords[&name] = password.into();
        }
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME, "namespace": NAMESPACE}, "stringData": passwords,
        });
        objects::apply(client, &secret).await?;
        Ok(Self(folder))
    }

    /// The HTTP status with which the registry answers a user; 000 if there is no answer.
    async fn answer(&self, node: &Node, address: &str, number: usize) -> Result<String> {
        let mut command = node.sandbox().command(Place::Inside, "curl");
        command.args([
            "--silent",
            "--insecure",
            "--max-time",
            "10",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ]);
        command.arg("--config").arg(self.0.path().join(user(number))).arg(format!("https://{address}/v2/"));
        let output = tokio::task::spawn_blocking(move || command.output()).await?.context("run curl")?;
        let answer = String::from_utf8(output.stdout)?;
        ensure!(answer.len() == 3, "curl said {answer:?}");
        if !["200", "401", "000"].contains(&answer.as_str()) {
            bail!("the registry answered {answer}");
        }
        Ok(answer)
    }
}
