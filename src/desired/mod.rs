//! Pure builders, one file per kind of child. They cannot fail: whatever could be wrong was refused in [`crate::model`].

pub mod bundle_copy;
pub mod certificate_request;
pub mod claim;
mod cluster_access;
pub mod cluster_bundle;
pub mod config;
pub mod disruption_budget;
pub mod frontend;
pub mod identity;
mod issuer_keys;
pub mod kinds;
pub mod material;
mod merge;
pub mod nginx;
pub mod node_order;
pub mod node_proof;
pub mod pod;
pub mod pull_copy;
pub mod route;
pub mod secrets;
pub mod service;
pub mod signing;
pub mod workload;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

/// `Child` is the word for which one of a registry's children.
pub use operator_engine::apply::{Child as Object, Hold};

pub use material::{
    AdminLogin, Authority, FormerPassword, Material, RotatedLogin, ServingCertificate, SigningRequest, Table, TokenKeys,
};
pub use workload::Run;

use crate::model::{Child, Resolved, labels};

/// A child as it should be: the whole object, without namespace and owner.
fn object<K>(child: &K, hold: Hold) -> Object
where
    K: k8s_openapi::Resource + k8s_openapi::Metadata<Ty = ObjectMeta> + Serialize,
{
    Object {
        kind: kinds::KINDS.named(K::KIND).expect("every kind that is built stands in the table"),
        namespace: None,
        name: child.metadata().name.clone().unwrap_or_default(),
        hold,
        body: serde_json::to_value(child).expect("a Kubernetes object is JSON"),
    }
}

/// What must exist before certificates can be made, beside the claim: the Service gives the addresses.
#[must_use]
pub fn foundation(registry: &Resolved) -> Vec<Object> {
    vec![service::build(registry), identity::build(registry)]
}

/// Everything else, in any order.
#[must_use]
pub fn plan(registry: &Resolved, material: &Material, run: &Run) -> Vec<Object> {
    let mut objects = secrets::build(registry, material);
    // Without its certificate or its users a registry would come up open, or not at all.
    if material.is_complete(registry) {
        objects.push(workload::build(registry, material, run));
        objects.extend(disruption_budget::build(registry));
        objects.extend(routing(registry, material));
    }
    objects
}

/// What leads clients outside of the cluster to it.
fn routing(registry: &Resolved, material: &Material) -> Vec<Object> {
    let Some(route) = &registry.route else { return Vec::new() };
    let backend = route::Backend::of(registry, route.hosts(), material.certificate.as_ref());
    backend.map(|backend| route::build(registry, route, &backend)).unwrap_or_default()
}

impl Resolved {
    /// Metadata of a child that goes with the registry.
    fn metadata(&self, child: Child) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.child(child)),
            labels: Some(self.labels(labels::disposable(&self.name))),
            ..ObjectMeta::default()
        }
    }

    /// Metadata of a child that may outlive it.
    fn kept_metadata(&self, child: Child) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.child(child)),
            labels: Some(self.kept_labels()),
            annotations: Some(labels::keep_annotations()),
            ..ObjectMeta::default()
        }
    }

    /// The labels for every child, and over them those that the operator sets.
    fn labels(&self, ours: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = self.common_labels.clone();
        labels.extend(ours);
        labels
    }

    /// The same for a child that may outlive the registry: GitOps tools must not take it for a part of the release.
    fn kept_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels(labels::kept(&self.name));
        labels.remove(labels::INSTANCE);
        labels
    }

    /// How long a child that may outlive the registry stays.
    fn hold(&self) -> Hold {
        if self.retain { Hold::Kept } else { Hold::KeptUntilOwnerGoes }
    }
}

/// `None` for an empty map: an empty one would never equal what the API server stores.
fn some<V>(map: BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!map.is_empty()).then_some(map)
}
