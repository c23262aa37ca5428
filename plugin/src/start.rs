//! `start`: a registry runs again, whatever stopped it.

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use private_registry_operator::api::condition::{AVAILABLE, READY};
use private_registry_operator::api::{PrivateRegistry, reason};
use private_registry_operator::model::{RegistryName, labels};
use serde_json::{Value, json};

use crate::change::{self, Look, Patience, said};
use crate::cluster::{self, MANAGER, Place, Registry, explained};
use crate::shell;

/// Options of `start`.
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

/// What stopped a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// Its manifest.
    Suspended,
    /// Somebody who scaled its Deployment.
    Scaled,
    /// Its process ended, and is not to be started again.
    Ended,
    /// Nothing.
    No,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let found = registry.read().await?;
        let mut generation = found.metadata.generation.unwrap_or_default();
        match what_stopped(&found) {
            Stopped::No => shell::print(&format!("{}: nothing has stopped it.\n", registry.title())),
            Stopped::Suspended => {
                let written = change::manifest(&registry, |live| Ok(patch(live))).await?;
                change::note_other_writers(&written, "remove spec.suspend there");
                generation = written.metadata.generation.unwrap_or_default();
                shell::print(&format!("{}: spec.suspend is removed from its manifest.\n", registry.title()));
            }
            Stopped::Scaled => {
                let count = scale_up(&registry, &found).await?;
                shell::print(&format!("{}: its Deployment is scaled to {count} again.\n", registry.title()));
            }
            Stopped::Ended => {
                remove_job(&registry).await?;
                shell::print(&format!(
                    "{}: its Job, which had ended, is removed, and another one is made.\n",
                    registry.title()
                ));
            }
        }
        options.patience.until(&registry, "It runs", async |found| Ok(runs(found, generation))).await
    })
}

fn what_stopped(found: &PrivateRegistry) -> Stopped {
    if found.spec.suspend == Some(true) {
        return Stopped::Suspended;
    }
    let ready = found.status.as_ref().and_then(|status| status.condition(READY));
    match ready.map(|ready| ready.reason.as_str()) {
        Some(reason::STOPPED_BY_USER) => Stopped::Scaled,
        Some(reason::COMPLETED | reason::FAILED | reason::MAX_RETRIES_EXCEEDED) => Stopped::Ended,
        _ => Stopped::No,
    }
}

/// As if it had never been there.
fn patch(live: &Value) -> Option<Value> {
    (!live["spec"]["suspend"].is_null()).then(|| json!({"spec": {"suspend": null}}))
}

/// To as many as the operator wanted before.
async fn scale_up(registry: &Registry, found: &PrivateRegistry) -> Result<i32> {
    let deployments: Api<Deployment> = Api::namespaced(registry.client.clone(), &registry.namespace);
    let name = registry.name.as_str();
    let what = || format!("Deployment {}/{name}", registry.namespace);
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    // The cluster's own controllers write to it, too.
    for _ in 0..change::ATTEMPTS {
        let live = deployments.get(name).await.map_err(explained).with_context(|| format!("read {}", what()))?;
        let wanted = live.metadata.annotations.as_ref().and_then(|all| all.get(labels::REPLICAS)?.parse::<i32>().ok());
        let count = wanted.or(found.spec.replicas).unwrap_or(1).max(1);
        let patch =
            json!({"metadata": {"resourceVersion": live.metadata.resource_version}, "spec": {"replicas": count}});
        match deployments.patch_scale(name, &parameters, &Patch::Merge(&patch)).await {
            Ok(_) => return Ok(count),
            Err(kube::Error::Api(refusal)) if refusal.is_conflict() => {}
            Err(error) => return Err(explained(error)).with_context(|| format!("scale {}", what())),
        }
    }
    bail!("{} is being changed by somebody else all the time: try again", what())
}

/// Removes a Job, so that the operator makes another one.
pub(crate) async fn remove_job(registry: &Registry) -> Result<()> {
    let jobs: Api<Job> = Api::namespaced(registry.client.clone(), &registry.namespace);
    let name = registry.name.as_str();
    let what = || format!("Job {}/{name}", registry.namespace);
    let Some(live) = jobs.get_opt(name).await.map_err(explained).with_context(|| format!("read {}", what()))? else {
        bail!(
            "there is no {}: something in the cluster removes Jobs that have ended. kubectl registry stop, and then start, starts it again",
            what()
        )
    };
    let only = Preconditions { uid: live.metadata.uid, resource_version: None };
    let deleted = jobs.delete(name, &DeleteParams::background().preconditions(only)).await;
    deleted.map_err(explained).with_context(|| format!("remove {}", what()))?;
    Ok(())
}

/// Whether it answers.
pub(crate) fn runs(found: &PrivateRegistry, generation: i64) -> Look {
    let (ready, available) = (said(found, READY, generation), said(found, AVAILABLE, generation));
    match (ready, available) {
        (Ok((true, ..)), Ok((true, _, message))) => Look::Done(message.to_owned()),
        // Where the operator cannot reach it, it says so, and nobody knows better.
        (Ok((true, ..)), Ok((false, reason::UNREACHABLE, message))) => {
            Look::Done(format!("as far as its pods tell; {message}"))
        }
        (Ok((_, reason, message)), _) => Look::Not(format!("{reason}: {message}")),
        (Err(why), _) => Look::Not(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stopped_it_is_what_must_be_undone() {
        for (spec, reason, stopped) in [
            (json!({"suspend": true}), "Suspended", Stopped::Suspended),
            (json!({"suspend": true}), "StoppedByUser", Stopped::Suspended),
            (json!({"suspend": false}), "StoppedByUser", Stopped::Scaled),
            (json!({}), "Completed", Stopped::Ended),
            (json!({}), "MaxRetriesExceeded", Stopped::Ended),
            (json!({}), "Settled", Stopped::No),
        ] {
            let found = json!({
                "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": "team-a"}, "spec": spec,
                "status": {"conditions": [{
                    "type": "Ready", "status": "True", "reason": reason, "message": "", "lastTransitionTime": "2026-11-30T11:00:00Z",
                }]},
            });
            assert_eq!(what_stopped(&serde_json::from_value(found).unwrap()), stopped, "{spec} {reason}");
        }
    }
}
