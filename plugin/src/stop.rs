//! `stop`: nothing of a registry runs, and everything that it has is kept.

use anyhow::Result;
use private_registry_operator::api::condition::READY;
use private_registry_operator::api::{PrivateRegistry, reason};
use private_registry_operator::model::RegistryName;
use serde_json::{Value, json};

use crate::change::{self, Look, Patience, said};
use crate::cluster::{self, Place};
use crate::shell;

/// Options of `stop`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let written = change::manifest(&registry, |live| Ok(patch(live))).await?;
        change::note_other_writers(&written, "write spec.suspend: true there");
        shell::print(&format!(
            "{}: its manifest says spec.suspend: true. kubectl registry start {} --namespace {} starts it again.\n",
            registry.title(),
            registry.name,
            registry.namespace
        ));
        let generation = written.metadata.generation.unwrap_or_default();
        options.patience.until(&registry, "It is stopped", async |found| Ok(is_stopped(found, generation))).await
    })
}

fn patch(live: &Value) -> Option<Value> {
    (live["spec"]["suspend"] != true).then(|| json!({"spec": {"suspend": true}}))
}

fn is_stopped(found: &PrivateRegistry, generation: i64) -> Look {
    let pods = found.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    match said(found, READY, generation) {
        Ok((true, reason::SUSPENDED, _)) if pods == 0 => Look::Done(String::new()),
        Ok((_, reason, message)) => Look::Not(format!("{reason}: {message}")),
        Err(why) => Look::Not(why),
    }
}
