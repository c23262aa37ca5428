//! A new operator where everything is as wanted: how long until it has confirmed every registry, and what it asks for that.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;
use testbed::control_plane::Entry;

use super::{samples::milliseconds, table::Row, world::World};

/// Seconds for 1,000 registries.
const GOAL: f64 = 2.0;

/// Time to settle after a start, before the first sweep.
const SWEEP: Duration = Duration::from_secs(20);

pub(super) async fn measure(world: &mut World) -> Result<[Row; 4]> {
    let step = world.progress.step("restart");
    world.stop_operator().await?;
    let mark = world.mark().await?;
    let started = Instant::now();
    let sweep_every = format!("{}s", SWEEP.as_secs());
    let ready = world.start_operator_with(&["--sweep-every", &sweep_every])?.ready().await?;
    world.confirmed().await?;
    let confirmed = started.elapsed();
    let processor = world.operator()?.processor()?;
    world.settled().await?;
    let asked = world.asked_since(mark).await?;
    step.done();

    let step = world.progress.step("sweep");
    let mark = world.mark().await?;
    let passes = world.operator()?.metric("reconciles_total", "").await?;
    world.operator()?.reaches("reconciles_total", "", passes + f64::from(world.made())).await?;
    world.settled().await?;
    let swept = world.asked_since(mark).await?;
    world.stop_operator().await?;
    world.start_operator()?.ready().await?;
    step.done();

    let registries = f64::from(world.made());
    let per_thousand = confirmed.as_secs_f64() * 1000.0 / registries;
    #[expect(clippy::cast_precision_loss, reason = "a display")]
    let count = |asked: &[Entry]| {
        let writes = asked.iter().filter(|entry| entry.is_write()).count();
        let reads = asked.iter().filter(|entry| matches!(entry.verb.as_str(), "get" | "list")).count();
        (reads as f64 / registries, writes)
    };
    let ((reads, writes), (swept_reads, swept_writes)) = (count(&asked), count(&swept));
    let row = |what: String, result, goal: &str, is_met, values| Row {
        name: "restart",
        what,
        result,
        goal: goal.to_owned(),
        is_met,
        values,
    };
    Ok([
        row(
            format!("from the start of the process until {registries} registries are confirmed"),
            format!("{:.2} s ({per_thousand:.1} s per 1,000)", confirmed.as_secs_f64()),
            &format!("≤ {GOAL} s per 1,000"),
            Some(per_thousand <= GOAL),
            json!({"ready": milliseconds(ready), "confirmed": milliseconds(confirmed), "own_processor_time": milliseconds(processor), "requests": by_verb_and_kind(&asked)}),
        ),
        row("reads per registry".to_owned(), format!("{reads:.2}"), "< 1", Some(reads < 1.0), serde_json::Value::Null),
        row("writes".to_owned(), writes.to_string(), "0", Some(writes == 0), serde_json::Value::Null),
        row(
            "a sweep: reads per registry, and writes".to_owned(),
            format!("{swept_reads:.2}, {swept_writes}"),
            "< 1, 0",
            Some(swept_reads < 1.0 && swept_writes == 0),
            json!({"requests": by_verb_and_kind(&swept)}),
        ),
    ])
}

/// How often each was asked, for example `list secrets`.
pub(super) fn by_verb_and_kind(asked: &[Entry]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in asked {
        *counts.entry(format!("{} {}", entry.verb, entry.resource)).or_default() += 1;
    }
    counts
}
