//! Passes over registries that are as wanted, each caused by a change that means nothing: what they ask of the API server.

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    objects::api,
    restart::by_verb_and_kind,
    table::Row,
    world::{WORKERS, World},
};

pub(super) async fn measure(world: &mut World) -> Result<[Row; 1]> {
    let step = world.progress.step("quiet passes");
    let before = world.operator()?.metric("reconciles_total", "").await?;
    let mark = world.mark().await?;
    let note: Value = json!({"metadata": {"annotations": {"example.com/note": "again"}}});
    let (client, note) = (&world.client, &note);
    let edits = world.places().map(|(namespace, name)| async move {
        let registries = api(client, &namespace, "PrivateRegistry");
        registries.patch(&name, &PatchParams::default(), &Patch::Merge(note)).await.map(drop)
    });
    stream::iter(edits).buffer_unordered(WORKERS).try_collect::<Vec<_>>().await?;
    let passes = world.places().count();
    world.operator()?.reaches("reconciles_total", "", before + f64::from(u32::try_from(passes)?)).await?;
    let asked = world.asked_since(mark).await?;
    step.done();

    let writes = asked.iter().filter(|entry| entry.is_write()).count();
    let reads = asked.iter().filter(|entry| matches!(entry.verb.as_str(), "get" | "list")).count();
    Ok([Row {
        name: "quiet",
        what: format!("{passes} passes over settled registries"),
        result: format!("{reads} reads, {writes} writes"),
        goal: "0 reads, 0 writes".to_owned(),
        is_met: Some(reads == 0 && writes == 0),
        values: json!({"requests": by_verb_and_kind(&asked)}),
    }])
}
