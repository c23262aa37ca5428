//! `restart`: other pods in the place of those that run, as `kubectl rollout restart` does it.

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use private_registry_operator::api::RestartType;
use private_registry_operator::model::RegistryName;
use serde_json::json;
use tokio::time::Instant;

use crate::change::Patience;
use crate::cluster::{self, MANAGER, Place, Registry, explained};
use crate::{shell, start};

/// The annotation by which kubectl does it, too.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Options of `restart`.
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
        let found = registry.read().await?;
        if found.spec.suspend == Some(true) {
            bail!("{} is stopped: kubectl registry start starts it", registry.title());
        }
        let policy = found.spec.restart_policy.clone().and_then(|policy| policy.kind).unwrap_or_default();
        if matches!(policy, RestartType::OnFailure | RestartType::Never) {
            start::remove_job(&registry).await?;
            shell::print(&format!("{}: its Job is removed, and another one is made.\n", registry.title()));
        } else {
            let generation = replace_pods(&registry).await?;
            shell::print(&format!("{}: its pods are replaced.\n", registry.title()));
            if let Some(end) = options.patience.end() {
                rolled_out(&registry, generation, end).await?;
            }
        }
        let generation = found.metadata.generation.unwrap_or_default();
        options.patience.until(&registry, "It runs", async |found| Ok(start::runs(found, generation))).await
    })
}

/// The generation of the Deployment that has the new pods.
async fn replace_pods(registry: &Registry) -> Result<i64> {
    let patch =
        json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: Timestamp::now().to_string()}}}}});
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let patched = deployments(registry).patch(registry.name.as_str(), &parameters, &Patch::Merge(&patch)).await;
    let patched = patched.map_err(explained).with_context(|| format!("restart the pods of {}", registry.title()))?;
    Ok(patched.metadata.generation.unwrap_or_default())
}

/// Waits until no former pod runs.
async fn rolled_out(registry: &Registry, generation: i64, end: Instant) -> Result<()> {
    loop {
        let live = deployments(registry).get(registry.name.as_str()).await.map_err(explained);
        let live = live.with_context(|| format!("read the Deployment of {}", registry.title()))?;
        if is_rolled_out(&live, generation) {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!(
                "its pods are still being replaced: kubectl --namespace {} rollout status deployment/{}",
                registry.namespace,
                registry.name
            );
        }
        tokio::time::sleep(crate::change::LOOK).await;
    }
}

fn is_rolled_out(live: &Deployment, generation: i64) -> bool {
    let wanted = live.spec.replicas.unwrap_or(1);
    let status = live.status.clone().unwrap_or_default();
    let count = |number: Option<i32>| number.unwrap_or(0);
    status.observed_generation.is_some_and(|at| at >= generation)
        && count(status.updated_replicas) == wanted
        && count(status.replicas) == wanted
        && count(status.available_replicas) == wanted
}

fn deployments(registry: &Registry) -> Api<Deployment> {
    Api::namespaced(registry.client.clone(), &registry.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_replaced_when_no_former_one_is_left() {
        let live = |status: serde_json::Value| {
            serde_json::from_value(json!({"spec": {"replicas": 2}, "status": status})).unwrap()
        };
        let status = |at: i64, updated: i32, all: i32, available: i32| json!({"observedGeneration": at, "updatedReplicas": updated, "replicas": all, "availableReplicas": available});
        assert!(is_rolled_out(&live(status(3, 2, 2, 2)), 3));
        for (at, updated, all, available) in [(2, 2, 2, 2), (3, 1, 2, 2), (3, 2, 3, 2), (3, 2, 2, 1)] {
            assert!(!is_rolled_out(&live(status(at, updated, all, available)), 3), "{at} {updated} {all} {available}");
        }
    }
}
