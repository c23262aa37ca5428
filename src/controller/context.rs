//! What every pass shares: the client, what is remembered, the settings, the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};

use super::answer::{self, Question};
use super::error::Error;
use super::events::Events;
use super::queue::{Key, Queue};
use super::store::Registries;
use crate::api::PrivateRegistry;
use crate::apply::{Engine, Memory};
use crate::metrics::Metrics;
use crate::model::{Settings, labels};
use crate::observe;
use crate::status::PodFacts;
use crate::status::summary::Answer;

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
}

impl Context {
    /// The present moment. Passes ask here and nowhere else.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// The registry's pods: from memory while no pod of it changed, else from one list.
    pub(super) async fn pods(&self, key: &Key) -> Result<Vec<PodFacts>, Error> {
        if let Some(known) = self.recall.locked(&self.recall.pods).get(key) {
            return Ok(known.clone());
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let selector = format!("{}={}", labels::REGISTRY, key.name);
        let failed = |source| Error::Pods { registry: key.to_string(), source: Box::new(source) };
        let listed = api.list(&ListParams::default().labels(&selector)).await.map_err(failed)?;
        let facts: Vec<_> = listed.iter().map(PodFacts::of).collect();
        self.recall.locked(&self.recall.pods).insert(key.clone(), facts.clone());
        Ok(facts)
    }

    /// How the registry answers: from memory while nothing about the question changed and the answer was good.
    pub(super) async fn answer(&self, key: &Key, question: Question) -> Answer {
        let known = self.recall.locked(&self.recall.answers).get(key).filter(|(asked, _)| *asked == question).cloned();
        if let Some((_, Answer::Good)) = known {
            return Answer::Good;
        }
        let answer = answer::ask(&question).await;
        self.recall.locked(&self.recall.answers).insert(key.clone(), (question, answer.clone()));
        answer
    }

    /// Forgets everything about a registry that is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.recall.locked(&self.recall.pods).remove(key);
        self.recall.locked(&self.recall.answers).remove(key);
        self.memory.forget_owner(&key.namespace, &key.name);
        self.metrics.forget_certificate(&key.namespace, &key.name);
        self.recall.refer(key, &BTreeSet::new());
    }
}

/// What passes remember beside children.
#[derive(Default)]
pub struct Recall {
    pods: Mutex<BTreeMap<Key, Vec<PodFacts>>>,
    answers: Mutex<BTreeMap<Key, (Question, Answer)>>,
    /// Which registries refer to an object: (kind, namespace, name).
    referrers: Mutex<BTreeMap<(&'static str, String, String), BTreeSet<Key>>>,
}

impl Recall {
    /// A pod of this registry changed.
    pub fn pods_changed(&self, key: &Key) {
        self.locked(&self.pods).remove(key);
    }

    /// Pods may have come and gone unseen: returns the registries whose pods were known.
    pub fn forget_pods(&self) -> Vec<Key> {
        std::mem::take(&mut *self.locked(&self.pods)).into_keys().collect()
    }

    /// Remembers what a registry refers to.
    pub fn note(&self, key: &Key, registry: &PrivateRegistry) {
        let mut names: BTreeSet<_> = observe::secrets(registry).into_iter().map(|name| ("Secret", name)).collect();
        names.extend(observe::claim(registry).map(|name| ("PersistentVolumeClaim", name.to_owned())));
        self.refer(key, &names);
    }

    /// The registries that refer to an object.
    #[must_use]
    pub fn referrers(&self, kind: &str, namespace: &str, name: &str) -> Vec<Key> {
        let referrers = self.locked(&self.referrers);
        let found =
            referrers.iter().find(|((known, space, called), _)| *known == kind && space == namespace && called == name);
        found.into_iter().flat_map(|(_, keys)| keys.iter().cloned()).collect()
    }

    fn refer(&self, key: &Key, names: &BTreeSet<(&'static str, String)>) {
        let mut referrers = self.locked(&self.referrers);
        referrers.retain(|_, keys| {
            keys.remove(key);
            !keys.is_empty()
        });
        for (kind, name) in names {
            referrers.entry((kind, key.namespace.clone(), name.clone())).or_default().insert(key.clone());
        }
    }

    fn locked<'a, T>(&self, what: &'a Mutex<T>) -> MutexGuard<'a, T> {
        what.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
