//! What events mean: which registries must be looked at. Called from the streams' tasks; never blocks, never reads.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Resource as _;
use operator_engine::apply::Kind;
use operator_engine::work::queue::{Key, Urgency};
use operator_engine::work::watches::{Meta, Scope, Sink, Watched};

use crate::desired::kinds::KINDS;
use crate::model::labels;
use crate::parts::Context;

const POD: &str = "Pod";
const REQUEST: &str = "CertificateSigningRequest";
/// Kinds that manifests refer to by name, so that objects without our label matter too.
const REFERRED: [&str; 2] = ["Secret", "PersistentVolumeClaim"];

/// Every kind to watch beside registries: what is written, and pods, which tell why something does not run. What belongs to no namespace can only be
/// watched by who watches all.
pub(super) fn watched(scope: &Scope) -> Vec<Watched> {
    let ours = format!("{}={}", labels::MANAGED_BY, labels::MANAGER);
    let children = KINDS.iter().map(|kind| Watched {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
        selector: (!REFERRED.contains(&kind.kind)).then(|| ours.clone()),
    });
    let pods = Watched::kind_of::<k8s_openapi::api::core::v1::Pod>().selected_by(ours.clone());
    let requests = Watched::kind_of::<CertificateSigningRequest>().selected_by(ours.clone());
    children.chain([pods]).chain((*scope == Scope::All).then_some(requests)).collect()
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

    fn kind(watched: &Watched) -> Option<&'static Kind> {
        KINDS.named(&watched.kind)
    }

    /// The registry that owns a changed object, and those that refer to it. What is heard before the first round is no reason for a pass:
    /// the round comes to all.
    fn queue_all(&self, kind: &'static str, namespace: &str, name: &str, owner: Option<&str>) {
        if !self.ctx.rounds.is_open(namespace) {
            return;
        }
        let owner = owner.map(|owner| Key::new(namespace, owner));
        let concerned: BTreeSet<_> = self.ctx.references.to(kind, namespace, name).into_iter().chain(owner).collect();
        for key in concerned.iter().filter(|key| self.ctx.registries.contains(key)) {
            self.ctx.queue.add(key, Urgency::Change);
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
            self.queue_all(POD, meta.namespace(), meta.name(), Some(registry));
        }
    }
}

impl Sink for Intake {
    fn relist_started(&self, watched: &Watched, scope: &Scope) {
        match Self::kind(watched) {
            Some(kind) => self.ctx.memory.relist_started(kind, scope.namespace()),
            None if watched.kind == REQUEST => self.ctx.requests.relist_started(),
            None => _ = self.listing_pods().insert(scope.clone()),
        }
    }

    fn seen(&self, watched: &Watched, scope: &Scope, meta: &Meta) {
        if watched.kind == REQUEST {
            return self.request_changed(self.ctx.requests.seen(meta));
        }
        let Some(kind) = Self::kind(watched) else { return self.pod_seen(meta, scope) };
        let notice = self.ctx.memory.seen(kind, meta.meta());
        if notice.changed {
            self.queue_all(kind.kind, meta.namespace(), meta.name(), notice.owner.as_deref());
        }
    }

    fn gone(&self, watched: &Watched, _: &Scope, meta: &Meta) {
        if watched.kind == REQUEST {
            return self.request_changed(self.ctx.requests.gone(meta.name()));
        }
        let Some(kind) = Self::kind(watched) else { return self.pod_changed(meta) };
        let notice = self.ctx.memory.gone(kind, meta.meta());
        if notice.changed {
            self.queue_all(kind.kind, meta.namespace(), meta.name(), notice.owner.as_deref());
        }
    }

    fn relisted(&self, watched: &Watched, scope: &Scope) {
        match Self::kind(watched) {
            Some(kind) => {
                for missing in self.ctx.memory.relisted(kind, scope.namespace()) {
                    let object = &missing.object;
                    self.queue_all(kind.kind, &object.namespace, &object.name, missing.owner.as_deref());
                }
            }
            None if watched.kind == REQUEST => {
                self.ctx.requests.relisted().into_iter().for_each(|key| self.request_changed(Some(key)));
            }
            // Pods may have changed or gone meanwhile: whoever was told of them asks again.
            None => {
                self.listing_pods().remove(scope);
                for key in self.ctx.recall.forget_pods(scope) {
                    if self.ctx.rounds.is_open(&key.namespace) {
                        self.ctx.queue.add(&key, Urgency::Change);
                    }
                }
            }
        }
    }
}
