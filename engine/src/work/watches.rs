//! The streams of changes that put names on the queue.
//!
//! One stream per kind and scope, each with its own backoff and state: a kind that is missing, or that we
//! may not read, harms nothing but itself. (Streams that are merged before the backoff wait together: one missing kind
//! then delays the events of all by seconds.) Children and Secrets are watched by their metadata alone and nothing of
//! them is stored here. What an event means is for the [`Sink`] to say; it never writes, and never reads an object.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kube::core::{ApiResource, NamespaceResourceScope, Resource};
use kube::runtime::watcher::Event;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::followed::{Followed, Guarded};
use super::store::{Change, Objects};
use stream::Consumer;

mod health;
mod meta;
mod presence;
mod stream;

pub use health::{Phase, StreamState};
pub use meta::{Meta, compare_versions};

/// Where a stream looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All namespaces.
    All,
    /// One namespace.
    Namespace(String),
}

impl Scope {
    /// The scopes of an operator that watches these namespaces; none given means all.
    pub fn of(namespaces: &[String]) -> Vec<Self> {
        let distinct: BTreeSet<_> = namespaces.iter().cloned().map(Self::Namespace).collect();
        if distinct.is_empty() { vec![Self::All] } else { distinct.into_iter().collect() }
    }

    /// The one namespace; `None` for all.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Namespace(own) => Some(own),
        }
    }

    /// Whether objects of `namespace` belong to it.
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(own) => own == namespace,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("in all namespaces"),
            Self::Namespace(own) => write!(f, "in namespace {own}"),
        }
    }
}

/// A kind to watch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched {
    /// API group; empty for the core group.
    pub group: String,
    /// API version, such as `v1`.
    pub version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Such as `deployments`.
    pub plural: String,
    /// Label selector; `None` for all objects of the kind.
    pub selector: Option<String>,
    /// Whether the cluster may lack the kind. Then it is looked for by discovery, once for all scopes, and nobody waits for its streams.
    pub is_optional: bool,
}

impl Watched {
    /// The kind of a typed resource, all objects of it.
    pub fn kind_of<K: Resource<DynamicType = ()>>() -> Self {
        Self {
            group: K::group(&()).into_owned(),
            version: K::version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            plural: K::plural(&()).into_owned(),
            selector: None,
            is_optional: false,
        }
    }

    /// The same kind, but only objects whose labels match.
    #[must_use]
    pub fn selected_by(self, selector: impl Into<String>) -> Self {
        Self { selector: Some(selector.into()), ..self }
    }

    /// The resource as RBAC and `kubectl` call it, such as `deployments.apps`.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    fn api_resource(&self) -> ApiResource {
        let api_version =
            if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) };
        ApiResource {
            group: self.group.clone(),
            version: self.version.clone(),
            api_version,
            kind: self.kind.clone(),
            plural: self.plural.clone(),
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.resource(), self.version)
    }
}

/// Who hears what the metadata streams say. Called from the streams' tasks, one call at a time per stream: must be
/// quick, must not block.
pub trait Sink: Send + Sync + 'static {
    /// A list begins. What the sink comes to know from now on may be missing in it.
    fn relist_started(&self, watched: &Watched, scope: &Scope) {
        let _ = (watched, scope);
    }

    /// The object is there: listed, created or changed.
    fn seen(&self, watched: &Watched, scope: &Scope, meta: &Meta);

    /// The object was deleted, or its labels don't match the selector any more.
    fn gone(&self, watched: &Watched, scope: &Scope, meta: &Meta);

    /// A list is complete. What was there before and was not seen since [`Sink::relist_started`] was deleted while nobody looked, and no
    /// [`Sink::gone`] comes for it. An object that was created while the list ran may be missing too: take it as a reason to look, not as
    /// proof.
    fn relisted(&self, watched: &Watched, scope: &Scope);
}

/// All streams. They end when it is dropped.
pub struct Watches {
    client: Client,
    listeners: health::Listeners,
    streams: Vec<Arc<health::Health>>,
    scopes: BTreeMap<Scope, OfScope>,
    tasks: JoinSet<()>,
    rounds: watch::Sender<u64>,
    presence: Arc<presence::Presence>,
}

/// The streams of one scope. Of hundreds, each is only looked at when something changed in it.
#[derive(Default)]
struct OfScope {
    streams: Vec<Arc<health::Health>>,
    changed: Arc<Notify>,
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.states()).finish()
    }
}

impl Watches {
    /// No streams yet.
    pub fn new(client: Client) -> Self {
        let listeners = health::Listeners::default();
        Self {
            presence: Arc::new(presence::Presence::new(client.clone())),
            client: listeners.client(client),
            listeners,
            streams: Vec::new(),
            scopes: BTreeMap::new(),
            tasks: JoinSet::new(),
            rounds: watch::Sender::new(0),
        }
    }

    /// Watches the metadata of a kind. If the API server doesn't know the kind, then there is nothing of it: reported
    /// as an empty list, and tried again.
    pub fn metadata(&mut self, watched: Watched, scope: &Scope, sink: Arc<dyn Sink>) {
        let resource = watched.api_resource();
        let at = scope.clone();
        let api = move |client| match &at {
            Scope::All => Api::<Meta>::all_with(client, &resource),
            Scope::Namespace(own) => Api::<Meta>::namespaced_with(client, own, &resource),
        };
        let watched = Arc::new(watched);
        let feed = Feed { watched: watched.clone(), scope: scope.clone(), sink };
        self.follow(watched, scope, false, api, feed);
    }

    /// Watches the objects that are worked on, whole, into `store`. `on_change` gets everything that the store makes of it,
    /// in order.
    pub fn objects<K>(
        &mut self,
        scope: &Scope,
        store: Arc<Objects<K>>,
        on_change: impl Fn(Change) + Send + Sync + 'static,
    ) where
        K: Followed<Scope = NamespaceResourceScope> + fmt::Debug + Send + Sync + 'static,
    {
        let at = scope.clone();
        let api = move |client| match &at {
            Scope::All => Api::<Guarded<K>>::all(client),
            Scope::Namespace(own) => Api::<Guarded<K>>::namespaced(client, own),
        };
        let feed = Stored { scope: scope.clone(), store, on_change };
        self.follow(Arc::new(Watched::kind_of::<K>()), scope, true, api, feed);
    }

    /// Lists everything again, as if the history had been lost. For the slow sweep.
    pub fn relist(&self) {
        self.rounds.send_modify(|round| *round += 1);
    }

    /// How each stream is doing, in the order in which they were added.
    pub fn states(&self) -> Vec<StreamState> {
        self.streams.iter().map(|health| health.state()).collect()
    }

    /// Waits until every stream has delivered a complete list (of a kind that is absent or optional: or that turned out).
    /// Waits for ever if one can't; [`Watches::states`] says which and why.
    pub async fn synced(&self) {
        for of_scope in self.scopes.values() {
            of_scope.synced().await;
        }
    }

    /// The same for the streams of one scope, whatever becomes of the others.
    pub async fn scope_synced(&self, scope: &Scope) {
        if let Some(of_scope) = self.scopes.get(scope) {
            of_scope.synced().await;
        }
    }

    fn follow<K, C>(
        &mut self,
        watched: Arc<Watched>,
        scope: &Scope,
        required: bool,
        api: impl FnOnce(Client) -> Api<K>,
        consumer: C,
    ) where
        K: Resource + Clone + fmt::Debug + DeserializeOwned + Send + 'static,
        C: Consumer<K>,
    {
        let config = stream::config(watched.selector.as_deref());
        let of_scope = self.scopes.entry(scope.clone()).or_default();
        let health = Arc::new(health::Health::new(watched, scope.clone(), required, of_scope.changed.clone()));
        let api = api(self.client.clone());
        self.listeners.add(api.resource_url(), health.clone());
        of_scope.streams.push(health.clone());
        self.streams.push(health.clone());
        let presence = self.presence.clone();
        self.tasks.spawn(stream::follow(api, config, health, self.rounds.subscribe(), presence, consumer));
    }
}

impl OfScope {
    async fn synced(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.streams.iter().all(|health| health.is_synced()) {
                return;
            }
            changed.await;
        }
    }
}

/// Hands a metadata stream to the sink.
struct Feed {
    watched: Arc<Watched>,
    scope: Scope,
    sink: Arc<dyn Sink>,
}

impl Consumer<Meta> for Feed {
    fn event(&mut self, event: Event<Meta>) {
        let (watched, scope, sink) = (&*self.watched, &self.scope, &*self.sink);
        match event {
            Event::Init => sink.relist_started(watched, scope),
            Event::InitApply(meta) | Event::Apply(meta) => sink.seen(watched, scope, &meta),
            Event::InitDone => sink.relisted(watched, scope),
            Event::Delete(meta) => sink.gone(watched, scope, &meta),
        }
    }

    fn absent(&mut self) {
        self.sink.relisted(&self.watched, &self.scope);
    }
}

/// Hands the stream of the objects to their store.
struct Stored<K, OnChange> {
    scope: Scope,
    store: Arc<Objects<K>>,
    on_change: OnChange,
}

impl<K, OnChange> Consumer<Guarded<K>> for Stored<K, OnChange>
where
    K: Followed + Send + Sync + 'static,
    OnChange: Fn(Change) + Send + Sync + 'static,
{
    fn event(&mut self, event: Event<Guarded<K>>) {
        for change in self.store.apply(&self.scope, event) {
            (self.on_change)(change);
        }
    }
}

#[cfg(test)]
#[path = "watches_tests.rs"]
mod tests;
