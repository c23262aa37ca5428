//! A new operator where everything is as wanted: how long until it has confirmed every registry, and what it asks for that.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Result;
use serde_json::json;
use testbed::control_plane::Entry;

use super::{samples::milliseconds, table::Row, world::World};

/// Seconds for 1,000 registries.
const GOAL: f64 = 2.0;

pub(super) async fn measure(world: &mut World) -> Result<[Row; 3]> {
    let step = world.progress.step("restart");
    world.stop_operator().await?;
    let mark = world.mark().await?;
    let started = Instant::now();
    let ready = world.start_operator()?.ready().await?;
    world.confirmed().await?;
    let confirmed = started.elapsed();
    world.settled().await?;
    let asked = world.asked_since(mark).await?;
    step.done();

    let registries = f64::from(world.made());
    let per_thousand = confirmed.as_secs_f64() * 1000.0 / registries;
    let writes = asked.iter().filter(|entry| entry.is_write()).count();
    let reads = asked.iter().filter(|entry| matches!(entry.verb.as_str(), "get" | "list")).count();
    #[expect(clippy::cast_precision_loss, reason = "a display")]
    let reads_each = reads as f64 / registries;
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
            json!({"ready": milliseconds(ready), "confirmed": milliseconds(confirmed), "requests": by_verb_and_kind(&asked)}),
        ),
        row("reads per registry".to_owned(), format!("{reads_each:.2}"), "", None, serde_json::Value::Null),
        row("writes".to_owned(), writes.to_string(), "0", Some(writes == 0), serde_json::Value::Null),
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
