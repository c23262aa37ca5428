//! What events mean: which registries must be looked at. Called from the streams' tasks; never blocks, never reads.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Resource as _;
use kube::core::ObjectMeta;
use operator_engine::apply::Kind;
use operator_engine::apply::memory::Notice;
use operator_engine::work::queue::{Key, Urgency};
use operator_engine::work::watches::{Meta, Scope, Sink, Watched};

use crate::desired::kinds::{self, KINDS};
use crate::desired::{bundle_copy, cluster_bundle, node_proof, pull_copy};
use crate::model::labels;
use crate::node::{orders, report};
use crate::parts::Context;
use crate::parts::context::{NAMESPACE, REPORT, any};
use crate::parts::trust::reports;

const POD: &str = "Pod";
const REQUEST: &str = "CertificateSigningRequest";
/// Kinds that manifests refer to by name, so that objects without our label matter too.
const REFERRED: [&str; 2] = ["Secret", "PersistentVolumeClaim"];

/// Every kind to watch beside registries: what is written, pods, which tell why something does not run, and, in the whole cluster, namespaces, some of
/// which accept bundles or logins, and requests to signers: they belong to no namespace, so only who watches all can.
pub(super) fn watched(scope: &Scope, optional: &BTreeSet<String>) -> Vec<Watched> {
    let ours = format!("{}={}", labels::MANAGED_BY, labels::MANAGER);
    let children = kinds::written(optional, *scope == Scope::All).map(|kind| Watched {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
        selector: (!REFERRED.contains(&kind.kind)).then(|| ours.clone()),
        is_optional: kind.is_optional,
    });
    let pods = Watched::kind_of::<k8s_openapi::api::core::v1::Pod>().selected_by(ours.clone());
    // All of them: no selector asks for one label or another.
    let namespaces = Watched::kind_of::<k8s_openapi::api::core::v1::Namespace>();
    let requests = Watched::kind_of::<CertificateSigningRequest>().selected_by(ours.clone());
    let of_the_cluster = [namespaces, requests].into_iter().filter(|_| *scope == Scope::All);
    children.chain([pods]).chain(of_the_cluster).collect()
}

/// What an event is about.
enum About {
    /// Something that the operator writes, or that manifests refer to.
    Child(&'static Kind),
    Pod,
    Namespace,
    /// A request to a signer.
    Request,
}

impl About {
    fn of(watched: &Watched) -> Self {
        match watched.kind.as_str() {
            POD => Self::Pod,
            NAMESPACE => Self::Namespace,
            REQUEST => Self::Request,
            kind => KINDS.named(kind).map_or(Self::Pod, Self::Child),
        }
    }
}

/// Names of what a registry has outside of its namespace, by its namespace and name.
const BELIEVED: [fn(&str, &str) -> String; 5] =
    [bundle_copy::name, pull_copy::name, cluster_bundle::name, orders::name, node_proof::name];

/// What is believed of an object's metadata. Whoever rules a namespace may put our labels on whatever is there; but only what has the name of a copy, or of
/// an order to nodes, is taken for one. So it is one object of a kind in a namespace, and not thousands.
fn believed(meta: &Meta) -> Cow<'_, ObjectMeta> {
    let (registry, namespace) = (meta.label(labels::REGISTRY), meta.label(labels::REGISTRY_NAMESPACE));
    let is_copy = |namespace| {
        let names = registry.map(|registry| BELIEVED.map(|name| name(namespace, registry)));
        names.is_some_and(|names| names.iter().any(|name| name == meta.name()))
    };
    match namespace {
        Some(namespace) if !is_copy(namespace) => Cow::Owned(ObjectMeta { labels: None, ..meta.meta().clone() }),
        _ => Cow::Borrowed(meta.meta()),
    }
}

/// Puts registries on the queue.
pub(super) struct Intake {
    ctx: Arc<Context>,
    /// Where the list of pods is under way.
    listing_pods: Mutex<BTreeSet<Scope>>,
}

impl Intake {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        Self { ctx, listing_pods: Mutex::default() }
    }

    /// The registry that owns a changed object, by namespace and name, and those that refer to it. What is heard before the first round is no reason for
    /// a pass: the round comes to all.
    fn queue_all(&self, kind: &'static str, namespace: &str, name: &str, owner: Option<(String, String)>) {
        let owner = owner.map(|(namespace, name)| Key::new(namespace, name));
        let concerned: BTreeSet<_> = self.ctx.references.to(kind, namespace, name).into_iter().chain(owner).collect();
        let is_concerned = |key: &&Key| self.ctx.rounds.is_open(&key.namespace) && self.ctx.registries.contains(key);
        for key in concerned.iter().filter(is_concerned) {
            self.ctx.queue.add(key, Urgency::Change);
        }
    }

    /// Everybody who wants to know which namespaces there are.
    fn namespaces_changed(&self, is_news: bool) {
        if is_news {
            self.queue_all(NAMESPACE, "", "", None);
        }
    }

    /// Many nodes report within a moment: everybody who wants to know of nodes looks a little later.
    fn node_reported(&self) {
        self.ctx.reports.changed();
        let (kind, namespace, name) = any(REPORT);
        let concerned = self.ctx.references.to(kind, &namespace, &name);
        for key in concerned.iter().filter(|key| self.ctx.rounds.is_open(&key.namespace)) {
            self.ctx.queue.add_after(key, Urgency::Upkeep, reports::TOGETHER);
        }
    }

    /// Whether it is a pod that proves trust on a node: then its registry is looked at.
    fn is_proof(&self, meta: &Meta) -> bool {
        let agents = self.ctx.settings.node_agents.as_ref();
        let (of, namespace) = (meta.label(node_proof::OF), meta.label(labels::REGISTRY_NAMESPACE));
        let (Some(of), Some(namespace)) = (of, namespace) else { return false };
        if agents.is_some_and(|agents| agents.proofs == meta.namespace()) {
            self.ctx.recall.proves(&Key::new(namespace, of), true);
            self.queue_all(POD, meta.namespace(), meta.name(), Some((namespace.to_owned(), of.to_owned())));
        }
        true
    }

    /// Whether it is a report of the agent on a node.
    fn is_report(&self, kind: &Kind, meta: &Meta) -> bool {
        let agents = self.ctx.settings.node_agents.as_ref();
        let (label, value) = report::LABEL;
        kind == kinds::CONFIG_MAP
            && agents.is_some_and(|agents| agents.namespace == meta.namespace())
            && meta.label(label) == Some(value)
    }

    fn noticed(&self, kind: &'static Kind, meta: &Meta, notice: Notice) {
        if notice.changed {
            self.queue_all(kind.kind, meta.namespace(), meta.name(), notice.owner);
        }
    }

    /// A list shows every pod, changed or not. Whose pods matter at the moment is asked when it is complete.
    fn pod_seen(&self, meta: &Meta, scope: &Scope) {
        if !self.listing_pods().contains(scope) {
            self.pod_changed(meta);
        }
    }

    fn listing_pods(&self) -> MutexGuard<'_, BTreeSet<Scope>> {
        self.listing_pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a registry that is gone, too: what it left is removed.
    fn request_changed(&self, key: Option<Key>) {
        if let Some(key) = key.filter(|key| self.ctx.rounds.is_open(&key.namespace)) {
            self.ctx.queue.add(&key, Urgency::Change);
        }
    }

    fn pod_changed(&self, meta: &Meta) {
        if let Some(registry) = meta.label(labels::REGISTRY) {
            self.ctx.recall.pods_changed(&Key::new(meta.namespace(), registry));
            let owner = (meta.namespace().to_owned(), registry.to_owned());
            self.queue_all(POD, meta.namespace(), meta.name(), Some(owner));
        }
    }
}

impl Sink for Intake {
    fn relist_started(&self, watched: &Watched, scope: &Scope) {
        match About::of(watched) {
            About::Child(kind) => self.ctx.memory.relist_started(kind, scope.namespace()),
            About::Pod => _ = self.listing_pods().insert(scope.clone()),
            About::Namespace => self.ctx.accepting.relist_started(),
            About::Request => self.ctx.requests.relist_started(),
        }
    }

    fn seen(&self, watched: &Watched, scope: &Scope, meta: &Meta) {
        match About::of(watched) {
            About::Child(kind) if self.is_report(kind, meta) => self.node_reported(),
            About::Child(kind) => self.noticed(kind, meta, self.ctx.memory.seen(kind, &believed(meta))),
            About::Pod if self.is_proof(meta) => {}
            About::Pod => self.pod_seen(meta, scope),
            // One on its way out takes nothing in.
            About::Namespace if meta.is_terminating() => self.namespaces_changed(self.ctx.accepting.gone(meta.name())),
            About::Namespace => {
                let labels = meta.meta().labels.clone().unwrap_or_default();
                self.namespaces_changed(self.ctx.accepting.seen(meta.name(), &labels));
            }
            About::Request => self.request_changed(self.ctx.requests.seen(meta)),
        }
    }

    fn gone(&self, watched: &Watched, _: &Scope, meta: &Meta) {
        match About::of(watched) {
            About::Child(kind) if self.is_report(kind, meta) => self.node_reported(),
            About::Child(kind) => self.noticed(kind, meta, self.ctx.memory.gone(kind, &believed(meta))),
            About::Pod if self.is_proof(meta) => {}
            About::Pod => self.pod_changed(meta),
            About::Namespace => self.namespaces_changed(self.ctx.accepting.gone(meta.name())),
            About::Request => self.request_changed(self.ctx.requests.gone(meta.name())),
        }
    }

    fn relisted(&self, watched: &Watched, scope: &Scope) {
        match About::of(watched) {
            About::Child(kind) => {
                for missing in self.ctx.memory.relisted(kind, scope.namespace()) {
                    self.queue_all(kind.kind, &missing.object.namespace, &missing.object.name, missing.owner);
                }
                if kind == kinds::CONFIG_MAP {
                    self.node_reported();
                }
                self.ctx.recall.who_lacked(kind).iter().for_each(|key| self.ctx.queue.add(key, Urgency::Change));
            }
            // Pods may have changed or gone meanwhile: whoever was told of them asks again.
            About::Pod => {
                self.listing_pods().remove(scope);
                for key in self.ctx.recall.forget_pods(scope) {
                    if self.ctx.rounds.is_open(&key.namespace) {
                        self.ctx.queue.add(&key, Urgency::Change);
                    }
                }
            }
            About::Namespace => self.namespaces_changed(self.ctx.accepting.relisted()),
            About::Request => {
                self.ctx.requests.relisted().into_iter().for_each(|key| self.request_changed(Some(key)));
            }
        }
    }
}
