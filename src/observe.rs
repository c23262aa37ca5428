//! Reads of the objects that a manifest refers to: Secrets of users and certificates, and an existing claim. Decides nothing.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use operator_engine::apply::{self, Engine, Live};
use serde_json::Value;

use crate::api::PrivateRegistry;
use crate::desired::kinds;
use crate::model::{self, Child, Observed, ObservedClaim, SecretContent, labels, names};
use crate::secret::Sensitive;

/// Bytes that all Secrets of a manifest may have together: more than a table of users has room for. One registry must not fill the operator's memory.
const SECRETS_AT_MOST: usize = 2 << 20;
/// How many that have no place are read to find that out.
const OVERSIZED_AT_MOST: usize = 8;
/// What a key costs beside its name and value: each may become a user.
const KEY: usize = 256;

/// Namespace and name of the authority of another namespace that a manifest refers to.
#[must_use]
pub fn elsewhere(registry: &PrivateRegistry) -> Option<(String, String)> {
    let (place, name) = model::authority_of(registry)?;
    Some((place?.clone(), name.clone()))
}

/// Names of the Secrets of its own namespace that a manifest refers to.
#[must_use]
pub fn secrets(registry: &PrivateRegistry) -> BTreeSet<String> {
    named(registry).collect()
}

fn named(registry: &PrivateRegistry) -> impl Iterator<Item = String> {
    model::answer_of(registry).into_iter().chain(model::secrets_of(registry).cloned())
}

/// Name of the existing claim that a manifest refers to.
#[must_use]
pub fn claim(registry: &PrivateRegistry) -> Option<&str> {
    registry.spec.storage.as_ref()?.existing_claim.as_ref().map(|claim| claim.name.as_str())
}

/// Reads what `registry` refers to; `rivals` are other registries that may want its claim.
///
/// Also gives what went wrong: an object that could not be read stops only what hangs on it. That it does not exist is no error: the answer says so.
pub async fn references(
    registry: &PrivateRegistry,
    rivals: &[Arc<PrivateRegistry>],
    engine: &Engine,
    sees_namespaces: bool,
) -> (Observed, Vec<apply::Error>) {
    let namespace = registry.metadata.namespace.as_deref().unwrap_or_default();
    let mut observed = Observed { claim_holder: holder(registry, rivals), ..Observed::default() };
    let mut errors = Vec::new();
    let mut room = SECRETS_AT_MOST;
    // Admission may have let a name pass that is none. Nothing has it, and no path is made from it.
    let read = async |kind, place: &str, name: &str| {
        let are_names = [place, name].into_iter().all(names::is_of_an_object);
        if are_names { engine.read(kind, place, name).await } else { Ok(None) }
    };
    for name in named(registry) {
        if [&observed.unread, &observed.oversized].into_iter().any(|known| known.contains(&name))
            || observed.secrets.contains_key(&name)
        {
            continue;
        }
        if observed.oversized.len() >= OVERSIZED_AT_MOST {
            observed.oversized.insert(name);
            continue;
        }
        match read(kinds::SECRET, namespace, &name).await {
            Ok(live) => {
                let content = live.as_ref().map(content);
                match room.checked_sub(content.as_ref().map_or(0, size)) {
                    Some(left) => {
                        room = left;
                        observed.secrets.insert(name, content);
                    }
                    None => _ = observed.oversized.insert(name),
                }
            }
            Err(error) => {
                errors.push(error);
                observed.unread.insert(name);
            }
        }
    }
    if let Some((place, name)) = elsewhere(registry).filter(|_| sees_namespaces) {
        match read(kinds::SECRET, &place, &name).await {
            Ok(live) => {
                let granted = live.filter(|live| signs_for(live, namespace));
                observed.elsewhere.content = granted.as_ref().map(content).filter(|content| size(content) <= room);
            }
            Err(error) => {
                errors.push(error);
                observed.elsewhere.is_unread = true;
            }
        }
    }
    if let Some(name) = claim(registry) {
        match read(kinds::PERSISTENT_VOLUME_CLAIM, namespace, name).await {
            Ok(live) => observed.claim = live.as_ref().map(modes),
            Err(error) => {
                errors.push(error);
                observed.unread.insert(name.to_owned());
            }
        }
    }
    (observed, errors)
}

/// Whether an authority of another namespace may sign for registries of this one. One that may not is the same as none: what is there is nobody's to know.
fn signs_for(live: &Live, namespace: &str) -> bool {
    let allowed = live.annotation(labels::SIGNS_FOR).unwrap_or_default();
    allowed.split(',').map(str::trim).any(|one| one == labels::ANY || one == namespace)
}

fn content(live: &Live) -> SecretContent {
    let keys = live.at("data").and_then(Value::as_object).into_iter().flat_map(|data| data.keys());
    SecretContent {
        uid: live.uid().to_owned(),
        kind: live.at("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
        resource_version: live.resource_version().to_owned(),
        data: keys.filter_map(|key| Some((key.clone(), Sensitive::new(live.data(key)?)))).collect(),
    }
}

fn size(content: &SecretContent) -> usize {
    content.data.iter().map(|(key, value)| key.len() + value.expose().len() + KEY).sum()
}

fn modes(live: &Live) -> ObservedClaim {
    let modes = live.at("spec.accessModes").and_then(Value::as_array);
    ObservedClaim { modes: modes.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect() }
}

/// The registry that has the claim which `registry` would mount, if it is another one. Who came first keeps it, whether the claim is its own
/// or one that it names.
fn holder(registry: &PrivateRegistry, rivals: &[Arc<PrivateRegistry>]) -> Option<String> {
    let wanted = mounted(registry)?;
    let rank = |registry: &PrivateRegistry| {
        let meta = &registry.metadata;
        // Creation times have whole seconds. Within one, a claim is rather whose own it is.
        (meta.creation_timestamp.as_ref().map(|time| time.0), claim(registry).is_some(), meta.name.clone())
    };
    let first =
        rivals.iter().filter(|rival| mounted(rival).as_ref() == Some(&wanted)).min_by_key(|rival| rank(rival))?;
    (rank(first) < rank(registry)).then(|| first.metadata.name.clone()).flatten()
}

/// Name of the claim that a registry's pods mount; `None` with `emptyDir`.
fn mounted(registry: &PrivateRegistry) -> Option<Cow<'_, str>> {
    let storage = registry.spec.storage.as_ref();
    if storage.is_some_and(|storage| storage.empty_dir.is_some()) {
        return None;
    }
    let own = || format!("{}{}", registry.metadata.name.as_deref().unwrap_or_default(), Child::Data.suffix());
    Some(claim(registry).map_or_else(|| own().into(), Cow::from))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A registry that came at this second of the day.
    fn registry(name: &str, second: u32, storage: &Value) -> Arc<PrivateRegistry> {
        let created = format!("2026-01-01T00:00:{second:02}Z");
        let manifest = json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "spec": {"storage": storage},
            "metadata": {"name": name, "namespace": "registries", "creationTimestamp": created},
        });
        Arc::new(serde_json::from_value(manifest).unwrap())
    }

    fn naming(claim: &str) -> Value {
        json!({"existingClaim": {"name": claim}})
    }

    /// Who holds the claim of the first and of the second of two registries.
    fn holders(one: &(&str, u32, Value), other: &(&str, u32, Value)) -> [Option<String>; 2] {
        let all = [one, other].map(|(name, second, storage)| registry(name, *second, storage));
        all.each_ref().map(|registry| holder(registry, &all))
    }

    #[test]
    fn who_came_first_keeps_the_claim_whichever_of_them_names_it() {
        let own = || json!({"persistentVolumeClaim": {"size": "1Gi"}});
        assert_eq!(holders(&("foo", 1, naming("bar-data")), &("bar", 2, own())), [None, Some("foo".to_owned())]);
        assert_eq!(holders(&("foo", 2, naming("bar-data")), &("bar", 1, json!({}))), [Some("bar".to_owned()), None]);
        assert_eq!(holders(&("foo", 1, naming("bar-data")), &("bar", 2, json!({}))), [None, Some("foo".to_owned())]);
        assert_eq!(holders(&("foo", 1, naming("x")), &("bar", 2, naming("x"))), [None, Some("foo".to_owned())]);
        assert_eq!(holders(&("foo", 1, naming("x")), &("bar", 1, naming("x"))), [Some("bar".to_owned()), None]);
        assert_eq!(holders(&("bar", 1, naming("foo-data")), &("foo", 1, own())), [Some("foo".to_owned()), None]);
    }

    #[test]
    fn registries_on_claims_of_their_own_and_those_without_any_share_nothing() {
        assert_eq!(holders(&("foo", 2, naming("bar-data")), &("bar", 1, json!({"emptyDir": {}}))), [None, None]);
        assert_eq!(holders(&("foo", 2, naming("bar-data")), &("bar", 1, naming("other"))), [None, None]);
        assert_eq!(holders(&("foo", 1, json!({})), &("bar", 2, json!({}))), [None, None]);
    }
}
