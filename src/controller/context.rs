//! What every pass shares: the client, what is remembered, the settings, the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};

use super::answer::Answers;
use super::error::Error;
use super::events::Events;
use super::queue::{Key, Queue, Urgency};
use super::rounds::Rounds;
use super::store::Registries;
use crate::api::PrivateRegistry;
use crate::apply::{Engine, Memory};
use crate::metrics::Metrics;
use crate::model::{Child, Settings, labels};
use crate::observe;
use crate::status::PodFacts;

/// What every pass shares.
pub struct Context {
    /// The client of passes, behind the fence.
    pub client: Client,
    /// Reads and writes of children.
    pub engine: Engine,
    /// What is known of children and of what manifests refer to.
    pub memory: Arc<Memory>,
    /// The registries as the API server last showed them.
    pub registries: Arc<Registries<PrivateRegistry>>,
    /// The operator's own settings.
    pub settings: Settings,
    /// Publishes Kubernetes events.
    pub events: Events,
    /// Every metric.
    pub metrics: Arc<Metrics>,
    /// Which registry is looked at next.
    pub queue: Queue,
    /// What passes remember beside children.
    pub recall: Recall,
    /// How registries answered.
    pub(super) answers: Answers,
    /// Looks at every registry.
    pub(super) rounds: Rounds,
}

impl Context {
    /// The present moment. Passes ask here and nowhere else.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// The registry's pods, as they are now: from memory while no pod of it changed, else from one list.
    pub(super) async fn pods(&self, key: &Key) -> Result<Vec<PodFacts>, Error> {
        let now = self.now();
        if let Some(known) = self.recall.pods_of(key) {
            return Ok(known.iter().map(|pod| pod.at(now)).collect());
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let selector = format!("{}={}", labels::REGISTRY, key.name);
        let failed = |source| Error::Pods { registry: key.to_string(), source: Box::new(source) };
        let listed = api.list(&ListParams::default().labels(&selector)).await.map_err(failed)?;
        let facts: Vec<_> = listed.iter().map(PodFacts::of).collect();
        let as_they_are = facts.iter().map(|pod| pod.at(now)).collect();
        self.recall.learn_pods(key, facts);
        Ok(as_they_are)
    }

    /// Learns what a new registry refers to.
    pub(super) fn meet(&self, key: &Key) {
        if let Some(registry) = self.registries.get(key) {
            self.recall.note(key, &registry);
        }
    }

    /// The registries that may want a claim that this one has. All that exist have been met: the watch of registries comes before any pass.
    pub(super) fn rivals(&self, key: &Key) -> Vec<Arc<PrivateRegistry>> {
        self.recall.rivals(key).iter().filter_map(|rival| self.registries.get(rival)).collect()
    }

    /// Has those looked at that may want a claim of this registry, which is new or gone. Creation times have whole seconds, so who comes second to
    /// a claim may still be the first by name.
    pub(super) fn tell_rivals(&self, key: &Key) {
        for rival in self.recall.rivals(key).iter().filter(|rival| self.registries.get(rival).is_some()) {
            self.queue.add(rival, Urgency::Change);
        }
    }

    /// Forgets everything about a registry that is gone. Who waits for its claim may have it now.
    pub(super) fn forget(&self, key: &Key) {
        self.tell_rivals(key);
        locked(&self.recall.pods).remove(key);
        self.answers.forget(key);
        self.memory.forget_owner(&key.namespace, &key.name);
        self.metrics.forget_certificate(&key.namespace, &key.name);
        self.recall.refer(key, BTreeSet::new());
    }
}

/// What passes remember beside children.
#[derive(Default)]
pub struct Recall {
    /// `None` while they are being listed.
    pods: Mutex<BTreeMap<Key, Option<Vec<PodFacts>>>>,
    references: Mutex<References>,
}

/// An object that a manifest refers to: kind, namespace, name.
type Reference = (&'static str, String, String);

/// Who refers to what, both ways.
#[derive(Default)]
struct References {
    of: BTreeMap<Key, BTreeSet<Reference>>,
    to: BTreeMap<Reference, BTreeSet<Key>>,
}

impl Recall {
    /// Who may want a claim that `key` has, its own or one that it names: whoever names it, too, and whose own it would be.
    fn rivals(&self, key: &Key) -> BTreeSet<Key> {
        const CLAIM: &str = "PersistentVolumeClaim";
        let references = locked(&self.references);
        let named = references.of.get(key).into_iter().flatten().filter(|(kind, ..)| *kind == CLAIM).cloned();
        let data = Child::Data.suffix();
        let claims: Vec<_> = named.chain([(CLAIM, key.namespace.clone(), format!("{}{data}", key.name))]).collect();
        let naming = claims.iter().filter_map(|claim| references.to.get(claim)).flatten().cloned();
        let owning =
            claims.iter().filter_map(|(_, namespace, claim)| Some(Key::new(namespace, claim.strip_suffix(data)?)));
        naming.chain(owning).filter(|rival| rival != key).collect()
    }

    /// What is known of a registry's pods. If it is nothing, they are to be listed and learned.
    fn pods_of(&self, key: &Key) -> Option<Vec<PodFacts>> {
        locked(&self.pods).entry(key.clone()).or_default().clone()
    }

    /// Learns what was listed, unless a pod changed meanwhile: the list may be older than the change.
    fn learn_pods(&self, key: &Key, listed: Vec<PodFacts>) {
        if let Some(known) = locked(&self.pods).get_mut(key) {
            *known = Some(listed);
        }
    }

    /// A pod of this registry changed.
    pub fn pods_changed(&self, key: &Key) {
        locked(&self.pods).remove(key);
    }

    /// Pods may have come and gone unseen: returns the registries whose pods were known.
    pub fn forget_pods(&self) -> Vec<Key> {
        std::mem::take(&mut *locked(&self.pods)).into_keys().collect()
    }

    /// Remembers what a registry refers to.
    pub fn note(&self, key: &Key, registry: &PrivateRegistry) {
        let at = |kind: &'static str, name: String| (kind, key.namespace.clone(), name);
        let mut names: BTreeSet<_> = observe::secrets(registry).into_iter().map(|name| at("Secret", name)).collect();
        names.extend(observe::claim(registry).map(|name| at("PersistentVolumeClaim", name.to_owned())));
        self.refer(key, names);
    }

    /// The registries that refer to an object.
    #[must_use]
    pub fn referrers(&self, kind: &'static str, namespace: &str, name: &str) -> Vec<Key> {
        let references = locked(&self.references);
        let found = references.to.get(&(kind, namespace.to_owned(), name.to_owned()));
        found.into_iter().flatten().cloned().collect()
    }

    fn refer(&self, key: &Key, names: BTreeSet<Reference>) {
        let mut references = locked(&self.references);
        let References { of, to } = &mut *references;
        if of.get(key).map_or(names.is_empty(), |known| *known == names) {
            return;
        }
        for name in of.remove(key).into_iter().flatten() {
            if let Some(keys) = to.get_mut(&name) {
                keys.remove(key);
            }
        }
        to.retain(|_, keys| !keys.is_empty());
        for name in &names {
            to.entry(name.clone()).or_default().insert(key.clone());
        }
        if !names.is_empty() {
            of.insert(key.clone(), names);
        }
    }
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_pods_that_is_overtaken_by_a_change_is_not_remembered() {
        let (recall, key) = (Recall::default(), Key::new("n", "team-a"));
        assert_eq!(recall.pods_of(&key), None);
        recall.learn_pods(&key, Vec::new());
        assert_eq!(recall.pods_of(&key), Some(Vec::new()));

        recall.pods_changed(&key);
        assert_eq!(recall.pods_of(&key), None);
        recall.pods_changed(&key);
        recall.learn_pods(&key, Vec::new());
        assert_eq!(recall.pods_of(&key), None, "what was listed may be from before the change");
    }

    fn registry(spec: &serde_json::Value) -> PrivateRegistry {
        let metadata = serde_json::json!({"name": "team-a", "namespace": "n"});
        serde_json::from_value(serde_json::json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": metadata, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn who_waits_for_a_claim_is_known_whether_it_names_it_or_owns_it() {
        let (recall, foo, bar) = (Recall::default(), Key::new("n", "foo"), Key::new("n", "bar"));
        recall.note(&foo, &registry(&serde_json::json!({"storage": {"existingClaim": {"name": "bar-data"}}})));
        recall.note(&bar, &registry(&serde_json::json!({})));
        assert_eq!(recall.rivals(&foo), BTreeSet::from([bar.clone()]));
        assert_eq!(recall.rivals(&bar), BTreeSet::from([foo]));
        assert_eq!(recall.rivals(&Key::new("other", "bar")), BTreeSet::new());
    }

    #[test]
    fn a_reference_is_known_until_the_manifest_drops_it() {
        let (recall, key) = (Recall::default(), Key::new("n", "team-a"));
        recall.note(&key, &registry(&serde_json::json!({"tls": {"secret": {"name": "mine"}}})));
        assert_eq!(recall.referrers("Secret", "n", "mine"), std::slice::from_ref(&key));
        assert!(recall.referrers("Secret", "other", "mine").is_empty());
        recall.note(&key, &registry(&serde_json::json!({})));
        assert!(recall.referrers("Secret", "n", "mine").is_empty());
    }
}
