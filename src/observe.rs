//! Reads of the objects that a manifest refers to: Secrets of users and certificates, and an existing claim. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::PrivateRegistry;
use crate::apply::{self, Engine, Live, kinds};
use crate::model::{Observed, ObservedClaim, SecretContent};
use crate::secret::Sensitive;

/// Names of the Secrets that a manifest refers to.
#[must_use]
pub fn secrets(registry: &PrivateRegistry) -> BTreeSet<String> {
    let auth = registry.spec.auth.as_ref();
    let users = auth.into_iter().flat_map(|auth| &auth.users).map(|user| user.password_secret_ref.name.clone());
    let tables = auth.into_iter().flat_map(|auth| &auth.users_from).map(|from| from.secret_ref.name.clone());
    let certificate = registry.spec.tls.as_ref().and_then(|tls| tls.secret.as_ref()).map(|secret| secret.name.clone());
    users.chain(tables).chain(certificate).collect()
}

/// Name of the existing claim that a manifest refers to.
#[must_use]
pub fn claim(registry: &PrivateRegistry) -> Option<&str> {
    registry.spec.storage.as_ref()?.persistent_volume_claim.as_ref()?.claim_name.as_deref()
}

/// Reads what `registry` refers to; `others` are the registries of its namespace.
///
/// # Errors
/// When an object cannot be read. That it does not exist is no error: the answer says so.
pub async fn references(
    registry: &PrivateRegistry,
    others: &[std::sync::Arc<PrivateRegistry>],
    engine: &Engine,
) -> Result<Observed, apply::Error> {
    let namespace = registry.metadata.namespace.as_deref().unwrap_or_default();
    let mut found = BTreeMap::new();
    for name in secrets(registry) {
        let content = engine.read(kinds::SECRET, namespace, &name).await?.map(|live| content(&live));
        found.insert(name, content);
    }
    let claim = match claim(registry) {
        Some(name) => engine.read(kinds::PERSISTENT_VOLUME_CLAIM, namespace, name).await?,
        None => None,
    };
    Ok(Observed { secrets: found, claim: claim.map(|live| modes(&live)), claim_holder: holder(registry, others) })
}

fn content(live: &Live) -> SecretContent {
    let keys = live.at("data").and_then(Value::as_object).into_iter().flat_map(|data| data.keys());
    SecretContent {
        uid: live.uid().to_owned(),
        resource_version: live.resource_version().to_owned(),
        data: keys.filter_map(|key| Some((key.clone(), Sensitive::new(live.data(key)?)))).collect(),
    }
}

fn modes(live: &Live) -> ObservedClaim {
    let modes = live.at("spec.accessModes").and_then(Value::as_array);
    ObservedClaim { modes: modes.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect() }
}

/// The registry that has the claim, if it is another one: its own claim, or one that it named earlier. Who came first keeps it.
fn holder(registry: &PrivateRegistry, others: &[std::sync::Arc<PrivateRegistry>]) -> Option<String> {
    let wanted = claim(registry)?;
    let rank = |registry: &PrivateRegistry| {
        let meta = &registry.metadata;
        (meta.creation_timestamp.as_ref().map(|time| time.0), meta.name.clone())
    };
    others
        .iter()
        .filter(|other| {
            other.metadata.namespace == registry.metadata.namespace && other.metadata.name != registry.metadata.name
        })
        .find(|other| {
            let name = other.metadata.name.as_deref().unwrap_or_default();
            let owns = claim(other).is_none() && format!("{name}-data") == wanted;
            owns || (claim(other) == Some(wanted) && rank(other) < rank(registry))
        })
        .and_then(|other| other.metadata.name.clone())
}
