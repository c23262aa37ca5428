//! Many registries at once, in rounds of four turns: plain writer, operator, operator, plain writer. So each side has as many turns on the younger
//! as on the older cluster, and a machine that is slow for a while is so for both. While the plain writer works there is no operator; between turns
//! everything comes to rest.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use testbed::control_plane::Entry;

use super::{
    objects::{self, Template},
    plain::Written,
    restart::by_verb_and_kind,
    samples::{milliseconds, ratio},
    table::Row,
    world::{WORKERS, World},
};

const GOAL: f64 = 1.3;
const ROUNDS: u32 = 3;

pub(super) async fn measure(world: &mut World) -> Result<[Row; 1]> {
    let step = world.progress.step("create: plain writer, operator, operator, plain writer, three times");
    world.start_operator()?.ready().await?;
    let template = world.template().await?;
    world.stop_operator().await?;

    let turn = world.registries.saturating_sub(world.made()) / (2 * ROUNDS);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut asked, mut until_made) = (Vec::new(), Vec::new());
    let mut memory = None;
    for round in 0..ROUNDS {
        theirs.push(by_hand(world, &template, turn, &format!("plain-{round}-first")).await?);
        world.settled().await?;

        world.start_operator()?.ready().await?;
        let mark = world.mark().await?;
        for _ in 0..2 {
            world.settled().await?;
            let (written, asked) = by_operator(world, &template, turn).await?;
            ours.push(written);
            until_made.extend(asked);
        }
        asked.extend(world.asked_since(mark).await?);
        memory = Some(world.operator()?.memory()?);
        world.stop_operator().await?;

        theirs.push(by_hand(world, &template, turn, &format!("plain-{round}-last")).await?);
        world.settled().await?;
    }
    step.done();

    let objects = u32::try_from(template.len())? * turn;
    let (ours, theirs) = (Side::of(&ours, objects), Side::of(&theirs, objects));
    let ratio = ratio(ours.each, theirs.each);
    Ok([Row {
        name: "create",
        what: format!("{} registries to all children, against a plain writer", 2 * ROUNDS * turn),
        result: format!("{ratio:.2}x ({:.1} ms an object)", milliseconds(ours.each)),
        goal: format!("≤ {GOAL}x"),
        is_met: Some(ratio <= GOAL),
        values: json!({
            "objects_per_turn": objects,
            "operator": ours.values(),
            "plain": theirs.values(),
            "operator_requests_until_all_are_made": by_verb_and_kind(&until_made),
            "operator_requests": by_verb_and_kind(&asked),
            "operator_memory_after_kib": memory,
        }),
    }])
}

/// The turns of one side.
struct Side {
    turns: Vec<Duration>,
    /// For one object, of all turns.
    each: Duration,
    /// Of the writer's own processor time, for one object.
    processor: Duration,
}

impl Side {
    fn of(turns: &[Written], objects_per_turn: u32) -> Self {
        let objects = objects_per_turn * u32::try_from(turns.len()).unwrap_or(u32::MAX);
        let sum = |part: fn(&Written) -> Duration| turns.iter().map(part).sum::<Duration>() / objects.max(1);
        Self {
            turns: turns.iter().map(|turn| turn.took).collect(),
            each: sum(|turn| turn.took),
            processor: sum(|turn| turn.processor),
        }
    }

    fn values(&self) -> Value {
        json!({
            "turns": self.turns.iter().copied().map(milliseconds).collect::<Vec<_>>(),
            "per_object": milliseconds(self.each),
            "own_processor_time_per_object": milliseconds(self.processor),
        })
    }
}

/// From the first manifest to the last child, and what the operator asked until then.
async fn by_operator(world: &mut World, template: &Template, registries: u32) -> Result<(Written, Vec<Entry>)> {
    const CREATED: (&str, &str) = ("writes_total", "outcome=\"created\"");
    world.prepare(registries).await?;
    let before = world.operator()?.metric(CREATED.0, CREATED.1).await?;
    let expected = before + f64::from(registries * u32::try_from(template.len())?);
    let mark = world.mark().await?;
    let (started, used) = (Instant::now(), world.operator()?.processor()?);
    world.create_registries(registries).await?;
    world.operator()?.reaches(CREATED.0, CREATED.1, expected).await?;
    let took = started.elapsed();
    let processor = world.operator()?.processor()?.saturating_sub(used);
    let asked = world.asked_since(mark).await?;
    world.settled().await?;
    let made = world.operator()?.metric(CREATED.0, CREATED.1).await?;
    if made > expected {
        bail!("the operator made {made} children where {expected} were expected, so the time is not what it seems");
    }
    Ok((Written { took, processor }, asked))
}

async fn by_hand(world: &World, template: &Template, copies: u32, namespace: &str) -> Result<Written> {
    objects::namespace(&world.client, namespace).await?;
    let mut objects: Vec<Value> = Vec::new();
    for number in 0..copies {
        objects.extend(template.named(namespace, &format!("p-{number:05}"))?);
    }
    world.write(&objects, WORKERS).await
}
