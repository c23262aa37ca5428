//! From one manifest to a registry that runs, beside the same objects written by hand until their Deployment is available. On a real node where there
//! can be one; otherwise with a kubelet that only pretends, which leaves nothing but the operator's own part to be seen.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::try_join;
use kube::{
    Client,
    api::DynamicObject,
    runtime::wait::{Condition, await_condition},
};
use serde_json::{Value, json};
use testbed::{Mode, Node, Progress, image, node, sandbox::Place};
use tokio::time::timeout;

use super::{
    objects::{self, Template, api, registry},
    operator::Operator,
    samples::{Samples, milliseconds, ratio},
    table::Row,
    wait::PATIENCE,
    world::{NAMESPACE, World},
};

const GOAL: f64 = 1.2;
const ROUNDS: usize = 7;
const IMAGE: &str = "bench.local/private-registry-operator:bench";
/// Comes first, when nothing is warm, and is what the others are copied from.
const FIRST: &str = "the-first";

pub(super) async fn measure(program: &Path, progress: &Progress) -> Result<[Row; 1]> {
    let (where_, times) = if testbed::missing(Mode::Node).is_none() {
        ("a node", on_a_node(program, progress).await?)
    } else {
        ("a pretended node", on_a_control_plane(program, progress).await?)
    };
    let (ours, theirs) = (times.ours.median(), times.theirs.median());
    let ratio = ratio(ours, theirs);
    Ok([Row {
        name: "ready",
        what: format!("from apply to Ready on {where_}, against the same objects by hand"),
        result: format!("{ratio:.2}x ({:.2} s)", ours.as_secs_f64()),
        goal: format!("≤ {GOAL}x"),
        is_met: Some(ratio <= GOAL),
        values: json!({
            "operator": times.ours.all(),
            "operator_until_deployment_is_available": times.available.all(),
            "by_hand": times.theirs.all(),
            "median_operator": milliseconds(ours),
            "median_by_hand": milliseconds(theirs),
        }),
    }])
}

async fn on_a_node(program: &Path, progress: &Progress) -> Result<Times> {
    let step = progress.step("start a node");
    let operator = image::operator(program, IMAGE)?;
    let node = Node::start(node::Options { images: vec![operator], ..node::Options::default() }).await?;
    let client = node.client().await?;
    objects::install_definition(&client).await?;
    objects::namespace(&client, NAMESPACE).await?;
    let kubeconfig = node.control_plane().inside_kubeconfig("admin")?;
    let images = ["--operator-image", IMAGE, "--registry-image", image::REGISTRY];
    let _operator = Operator::start(program, node.sandbox(), Place::Inside, &kubeconfig, &images)?;
    step.done();
    rounds(&client, progress).await
}

async fn on_a_control_plane(program: &Path, progress: &Progress) -> Result<Times> {
    let mut world = World::start(program, 1, progress).await?;
    world.start_operator()?.ready().await?;
    rounds(&world.client, progress).await
}

struct Times {
    /// Until the registry says that it is ready.
    ours: Samples,
    /// The part until its Deployment is available.
    available: Samples,
    theirs: Samples,
}

/// One of each, in turns, so that what else the machine does meets both.
async fn rounds(client: &Client, progress: &Progress) -> Result<Times> {
    let step = progress.step("ready: one registry after the other");
    by_operator(client, FIRST).await?;
    let template = Template::read(client, NAMESPACE, FIRST).await?;
    let (mut ours, mut available, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        step.note(&format!("{} of {ROUNDS}", round + 1));
        let (all, part) = by_operator(client, &format!("ours-{round}")).await?;
        ours.push(all);
        available.push(part);
        theirs.push(by_hand(client, &template.named(NAMESPACE, &format!("hand-{round}"))?).await?);
    }
    step.done();
    let samples = |times: Vec<Duration>| times.into_iter().collect();
    Ok(Times { ours: samples(ours), available: samples(available), theirs: samples(theirs) })
}

/// The time until it is ready, and the time until its Deployment is available.
async fn by_operator(client: &Client, name: &str) -> Result<(Duration, Duration)> {
    let started = Instant::now();
    let manifest = registry(NAMESPACE, name);
    let (_, all, part) = try_join!(
        objects::apply(client, &manifest),
        reached(client, "PrivateRegistry", name, "Ready", started),
        reached(client, "Deployment", name, "Available", started),
    )?;
    Ok((all, part))
}

/// One after the other, as kubectl does, but without starting it.
async fn by_hand(client: &Client, objects: &[Value]) -> Result<Duration> {
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
    let name = deployment.and_then(|found| found["metadata"]["name"].as_str()).context("no Deployment among them")?;
    let started = Instant::now();
    let writes = async {
        for object in objects {
            objects::apply(client, object).await?;
        }
        Ok(())
    };
    let ((), took) = try_join!(writes, reached(client, "Deployment", name, "Available", started))?;
    Ok(took)
}

/// Waits through a watch until an object's condition is true for what its spec says now.
async fn reached(client: &Client, kind: &str, name: &str, condition: &str, started: Instant) -> Result<Duration> {
    let waited = timeout(PATIENCE, await_condition(api(client, NAMESPACE, kind), name, is_true(condition)));
    waited.await.with_context(|| format!("{kind} {name} is not {condition} after {PATIENCE:?}"))??;
    Ok(started.elapsed())
}

fn is_true(condition: &str) -> impl Condition<DynamicObject> {
    move |object: Option<&DynamicObject>| {
        object.is_some_and(|object| {
            let status = &object.data["status"];
            let conditions = status["conditions"].as_array();
            let found = conditions.into_iter().flatten().find(|found| found["type"] == condition);
            let is_current = status["observedGeneration"].as_i64() == object.metadata.generation;
            is_current && found.is_some_and(|found| found["status"] == "True")
        })
    }
}
