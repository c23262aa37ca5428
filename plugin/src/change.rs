//! A change of a registry's manifest, and the wait for what the operator says of it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use operator_engine::process::flag_values::duration;
use private_registry_operator::api::{PrivateRegistry, annotation};
use serde_json::Value;
use tokio::time::Instant;

use crate::cluster::{MANAGER, Registry, explained};
use crate::shell;

/// How often somebody else may be faster.
pub(crate) const ATTEMPTS: u32 = 8;
/// How often it is looked whether the operator has followed.
pub(crate) const LOOK: Duration = Duration::from_millis(300);

/// Options of every command that waits for the operator.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Patience {
    /// Return at once, instead of when it is in force
    #[arg(long)]
    no_wait: bool,
    /// How long to wait until it is in force [default: 2m; 15m for the next login of a user with rotation]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
}

/// How long is waited if nobody says otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What a look at the registry tells somebody who waits.
pub(crate) enum Look {
    /// It has come; in words, if there is more to say.
    Done(String),
    /// Not yet, and this is what the operator says.
    Not(String),
}

/// Changes the manifest as it is: `patch` makes a merge patch from it, or `None` if nothing is to be changed. What somebody else changes meanwhile is read,
/// and decided on, anew.
pub(crate) async fn manifest(
    registry: &Registry,
    patch: impl Fn(&Value) -> Result<Option<Value>>,
) -> Result<PrivateRegistry> {
    // As it came: what this program does not know of the manifest is written back as it was.
    let resource = ApiResource::erase::<PrivateRegistry>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(registry.client.clone(), &registry.namespace, &resource);
    for _ in 0..ATTEMPTS {
        let found = registry.read().await?;
        if found.metadata.deletion_timestamp.is_some() {
            bail!("{} is being deleted", registry.title());
        }
        let name = registry.name.as_str();
        let live = api.get(name).await.map_err(explained).with_context(|| format!("read {}", registry.title()))?;
        let version = live.resource_version();
        let live = serde_json::to_value(live).context("read the manifest")?;
        let Some(mut patch) = patch(&live)? else { return Ok(found) };
        patch["metadata"]["resourceVersion"] = version.into();
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(name, &parameters, &Patch::Merge(&patch)).await {
            Ok(changed) => {
                let changed = serde_json::to_value(changed).context("read the manifest")?;
                return serde_json::from_value(changed).context("read the manifest");
            }
            Err(kube::Error::Api(refusal)) if refusal.is_conflict() => {}
            Err(error) => return Err(explained(error)).with_context(|| format!("change {}", registry.title())),
        }
    }
    bail!("{} is being changed by somebody else all the time: try again", registry.title())
}

/// Says who else writes this manifest, and would take the change away again.
pub(crate) fn note_other_writers(found: &PrivateRegistry, what: &str) {
    if let Some(who) = other_writer(found) {
        shell::complain(&format!("Note: {who}: {what}, or it is undone there."));
    }
}

fn other_writer(found: &PrivateRegistry) -> Option<&'static str> {
    let has = |key: &str| found.labels().contains_key(key) || found.annotations().contains_key(key);
    let helm = found.labels().get("app.kubernetes.io/managed-by").is_some_and(|by| by == "Helm");
    match () {
        () if has("argocd.argoproj.io/tracking-id") || has("argocd.argoproj.io/instance") => {
            Some("Argo CD writes this manifest")
        }
        () if has("kustomize.toolkit.fluxcd.io/name") || has("helm.toolkit.fluxcd.io/name") => {
            Some("Flux writes this manifest")
        }
        () if helm => Some("Helm writes this manifest"),
        () if has("kubectl.kubernetes.io/last-applied-configuration") => Some("this manifest was applied from a file"),
        () => None,
    }
}

impl Patience {
    fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// The same, but so long if nobody says otherwise.
    pub(crate) fn usually(&self, timeout: Duration) -> Self {
        Self { timeout: self.timeout.or(Some(timeout)), ..self.clone() }
    }

    /// Until when; `None`: it is not waited for.
    pub(crate) fn end(&self) -> Option<Instant> {
        (!self.no_wait).then(|| Instant::now() + self.timeout())
    }

    /// Waits until the operator says that it has come, and prints `done` with what it says.
    pub(crate) async fn until(
        &self,
        registry: &Registry,
        done: &str,
        look: impl AsyncFn(&PrivateRegistry) -> Result<Look>,
    ) -> Result<()> {
        let found = registry.read().await?;
        if found.annotations().get(annotation::PAUSED).is_some_and(|paused| paused == "true") {
            shell::complain(
                "The registry is paused: the operator follows when the annotation privateregistry.dev/paused is gone.",
            );
            return Ok(());
        }
        if self.no_wait {
            return Ok(());
        }
        let end = Instant::now() + self.timeout();
        loop {
            let said = match look(&registry.read().await?).await? {
                Look::Done(words) => {
                    let more = if words.is_empty() { String::new() } else { format!(": {words}") };
                    shell::print(&format!("{done}{more}.\n"));
                    return Ok(());
                }
                Look::Not(said) => said,
            };
            if Instant::now() >= end {
                let said = if said.is_empty() { "the operator has said nothing".to_owned() } else { said };
                bail!(
                    "it is written, and not in force after {} s: {said}; kubectl registry status {} --namespace {} tells more",
                    self.timeout().as_secs(),
                    registry.name,
                    registry.namespace
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A condition's status, reason and message, if it speaks of this generation of the manifest; else words that say that it does not.
pub(crate) fn said<'a>(
    found: &'a PrivateRegistry,
    kind: &str,
    generation: i64,
) -> Result<(bool, &'a str, &'a str), String> {
    let condition = found.status.as_ref().and_then(|status| status.condition(kind));
    match condition {
        Some(condition) if condition.observed_generation.is_some_and(|at| at >= generation) => {
            Ok((condition.status == "True", &condition.reason, &condition.message))
        }
        _ => Err("the operator has not looked at the change yet".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!(…) reads best in its place")]
mod tests {
    use serde_json::json;

    use super::*;

    fn registry(metadata: Value) -> PrivateRegistry {
        serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": metadata, "spec": {},
            "status": {"conditions": [{
                "type": "UsersReady", "status": "True", "reason": "Written", "message": "1 user", "observedGeneration": 3,
                "lastTransitionTime": "2026-11-30T11:00:00Z",
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn what_was_said_of_an_earlier_manifest_is_not_said_of_this_one() {
        let found = registry(json!({"name": "team-a"}));
        assert_eq!(said(&found, "UsersReady", 3), Ok((true, "Written", "1 user")));
        assert!(said(&found, "UsersReady", 4).is_err() && said(&found, "Ready", 3).is_err());
    }

    #[test]
    fn whoever_else_writes_the_manifest_is_named() {
        for (metadata, words) in [
            (json!({}), None),
            (json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}}), Some("Helm")),
            (json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}), Some("Flux")),
            (json!({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}), Some("Argo CD")),
            (json!({"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}}), Some("a file")),
        ] {
            let said = other_writer(&registry(metadata.clone()));
            assert_eq!(said.is_some(), words.is_some(), "{metadata}");
            assert!(said.is_none_or(|said| said.contains(words.unwrap_or_default())), "{metadata}: {said:?}");
        }
    }
}
