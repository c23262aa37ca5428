//! From one manifest to a registry that runs, beside the same objects written by hand until their Deployment is available. On a real node where there
//! can be one; otherwise with a kubelet that only pretends, which leaves nothing but the operator's own part to be seen.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::try_join;
use kube::Client;
use serde_json::{Value, json};
use testbed::{Mode, Progress, node};

use super::{
    objects::{self, Template, registry},
    samples::{Samples, milliseconds, ratio},
    served_node::{ServedNode, reached},
    table::Row,
    world::{NAMESPACE, Shape, World},
};

const GOAL: f64 = 1.2;
const ROUNDS: usize = 7;
/// Comes first, when nothing is warm, and is what the others are copied from.
const FIRST: &str = "the-first";

pub(super) async fn measure(program: &Path, progress: &Progress) -> Result<[Row; 1]> {
    let (where_, times) = if testbed::missing(Mode::Node).is_none() {
        ("a node", on_a_node(program, progress).await?)
    } else {
        ("a pretended node", on_a_control_plane(program, progress).await?)
    };
    let (ours, theirs) = (times.median(|round| round.ours), times.median(|round| round.theirs));
    let ratio = times.ratio();
    let each = |part: fn(&Round) -> Duration| -> Vec<f64> { times.0.iter().map(part).map(milliseconds).collect() };
    Ok([Row {
        name: "ready",
        what: format!("from apply to Ready on {where_}, against the same objects by hand"),
        result: format!("{ratio:.2}x ({:.2} s)", ours.as_secs_f64()),
        goal: format!("≤ {GOAL}x"),
        is_met: Some(ratio <= GOAL),
        values: json!({
            "operator": each(|round| round.ours),
            "operator_until_deployment_is_available": each(|round| round.available),
            "by_hand": each(|round| round.theirs),
            "median_operator": milliseconds(ours),
            "median_by_hand": milliseconds(theirs),
        }),
    }])
}

async fn on_a_node(program: &Path, progress: &Progress) -> Result<Times> {
    let step = progress.step("start a node");
    let served = ServedNode::start(program, node::Options::default(), &[]).await?;
    step.done();
    rounds(&served.client, progress).await
}

async fn on_a_control_plane(program: &Path, progress: &Progress) -> Result<Times> {
    let mut world = World::start(program, 1, Shape::Names, progress).await?;
    world.start_operator()?.ready().await?;
    rounds(&world.client, progress).await
}

struct Times(Vec<Round>);

struct Round {
    /// Until the registry says that it is ready.
    ours: Duration,
    /// The part of it until the Deployment is available.
    available: Duration,
    theirs: Duration,
}

impl Times {
    fn median(&self, part: fn(&Round) -> Duration) -> Duration {
        self.0.iter().map(part).collect::<Samples>().median()
    }

    /// The median of the rounds' ratios: what else the machine does meets both sides of a round, and differs between rounds.
    fn ratio(&self) -> f64 {
        let mut ratios: Vec<f64> = self.0.iter().map(|round| ratio(round.ours, round.theirs)).collect();
        ratios.sort_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

/// One of each a round, and each second round the other way round.
async fn rounds(client: &Client, progress: &Progress) -> Result<Times> {
    let step = progress.step("ready: one registry after the other");
    by_operator(client, FIRST).await?;
    let template = Template::read(client, NAMESPACE, FIRST).await?;
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        step.note(&format!("{} of {ROUNDS}", round + 1));
        let copy = template.named(NAMESPACE, &format!("hand-{round}"))?;
        let (name, before) = (format!("ours-{round}"), round % 2 == 1);
        let early = if before { Some(by_hand(client, &copy).await?) } else { None };
        let (ours, available) = by_operator(client, &name).await?;
        let theirs = match early {
            Some(took) => took,
            None => by_hand(client, &copy).await?,
        };
        rounds.push(Round { ours, available, theirs });
    }
    step.done();
    Ok(Times(rounds))
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
