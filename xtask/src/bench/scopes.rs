//! An operator that has rights in some namespaces only, named one by one: how long it takes to know all of them, and what that costs.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::{memory::mib, restart::by_verb_and_kind, samples::milliseconds, table::Row, world::World};

/// Namespaces that are watched, if there are so many.
const WATCHED: usize = 500;
/// Seconds until everything is listed.
const GOAL: f64 = 10.0;

pub(super) async fn measure(world: &mut World) -> Result<[Row; 2]> {
    let namespaces: Vec<String> = world.places().map(|(namespace, _)| namespace).take(WATCHED).collect();
    let watched = namespaces.len();
    let step = world.progress.step(format!("{watched} namespaces, named one by one"));
    world.stop_operator().await?;
    let mark = world.mark().await?;
    let started = Instant::now();
    let ready = world.start_operator_with(&["--watch-namespace", &namespaces.join(",")])?.ready().await?;
    let at_start = world.operator()?.processor()?;
    world.confirmed_at_least(u32::try_from(watched)?).await?;
    let confirmed = started.elapsed();
    let processor = world.operator()?.processor()?;
    world.settled().await?;
    let memory = world.operator()?.memory()?;
    let connections = world.operator()?.connections()?;
    let asked = world.asked_since(mark).await?;
    world.stop_operator().await?;
    world.start_operator()?.ready().await?;
    step.done();

    let seconds = ready.as_secs_f64();
    Ok([
        Row {
            name: "scopes",
            what: format!("{watched} namespaces with a registry each, until all of them are listed and watched"),
            result: format!("{seconds:.1} s, and {:.1} s until each registry is confirmed", confirmed.as_secs_f64()),
            goal: format!("≤ {GOAL} s"),
            is_met: Some(seconds <= GOAL),
            values: json!({
                "ready": milliseconds(ready), "confirmed": milliseconds(confirmed),
                "own_processor_time": {"ready": milliseconds(at_start), "confirmed": milliseconds(processor)},
                "requests": by_verb_and_kind(&asked),
            }),
        },
        Row {
            name: "scopes",
            what: "memory after that".to_owned(),
            result: format!("{:.1} MiB, {connections} connections", mib(memory.rss)),
            goal: String::new(),
            is_met: None,
            values: json!({"kib": memory}),
        },
    ])
}
