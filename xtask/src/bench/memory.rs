//! Resident memory with everything as wanted, then with thousands of Secrets that are nobody's business: once they come while the operator runs, and
//! once they are there when it starts.

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{objects, operator::Memory, table::Row, world::World};
use crate::units::mebibytes;

/// MiB.
const GOAL: f64 = 25.0;
/// What counts as no change, in MiB: a hundredth of what the Secrets weigh.
const UNCHANGED: f64 = 1.0;
const WRITERS: usize = 16;
const SECRET_BYTES: usize = 10_000;
const NAMESPACE: &str = "somebody-else";

pub(super) async fn measure(world: &mut World, foreign: u32) -> Result<[Row; 3]> {
    let step = world.progress.step("memory");
    world.settled().await?;
    let after_all_this = world.operator()?.memory()?;
    world.restart_operator().await?;
    let without = world.operator()?.memory()?;
    step.done();

    let step = world.progress.step(format!("memory: {foreign} foreign Secrets"));
    objects::namespace(&world.client, NAMESPACE).await?;
    let secrets: Vec<Value> = (0..foreign).map(secret).collect();
    let writing = world.write(&secrets, WRITERS).await?.took;
    drop(secrets);
    world.settled().await?;
    let came = world.operator()?.memory()?;
    world.restart_operator().await?;
    let found = world.operator()?.memory()?;
    step.done();

    let row = |what: String, memory: Memory, goal: String, is_met, values| Row {
        name: "memory",
        what,
        result: format!("{:.1} MiB ({:.1} anonymous)", mib(memory.rss), mib(memory.anonymous)),
        goal,
        is_met: Some(is_met),
        values,
    };
    let against = |memory: Memory, before: Memory| {
        let is_met = mib(memory.rss) - mib(before.rss) <= UNCHANGED;
        (format!("≤ {:.1} MiB: no change", mib(before.rss) + UNCHANGED), is_met)
    };
    let ((came_goal, came_met), (found_goal, found_met)) = (against(came, without), against(found, without));
    let megabytes = u64::from(foreign) * SECRET_BYTES as u64 / 1_000_000;
    Ok([
        row(
            format!("{} registries, as wanted", world.made()),
            without,
            format!("≤ {GOAL} MiB"),
            mib(without.rss) <= GOAL,
            json!({"kib": without, "kib_after_the_other_measurements": after_all_this}),
        ),
        row(
            format!("{foreign} foreign Secrets ({megabytes} MB) come while it runs"),
            came,
            came_goal,
            came_met,
            json!({"kib": came, "writing_seconds": writing.as_secs()}),
        ),
        row("they are there when it starts".to_owned(), found, found_goal, found_met, json!({"kib": found})),
    ])
}

/// Of KiB.
pub(super) fn mib(kib: u64) -> f64 {
    mebibytes(kib * 1024)
}

fn secret(number: u32) -> Value {
    // Different for each, so that nothing on the way can make it small.
    let mut state = u64::from(number) + 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
    .take(SECRET_BYTES)
    .collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": format!("foreign-{number:05}"), "namespace": NAMESPACE},
        "data": {"content": STANDARD.encode(bytes)},
    })
}
