//! What clients in other namespaces must trust: copies of the bundle.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use operator_engine::apply::Kind;

use super::secrets::BUNDLE_KEY;
use super::{Hold, Object, kinds, object};
use crate::api::BundleKind;
use crate::model::{Resolved, labels};

/// `NAMESPACE.NAME-ca-bundle` in another namespace. Neither part can hold a dot, so no two registries' copies ever have one name.
#[must_use]
pub fn build(registry: &Resolved, namespace: &str, kind: BundleKind, bundle: &str) -> Object {
    let metadata = ObjectMeta {
        name: Some(name(&registry.namespace, registry.name.as_str())),
        // Not `instance`: GitOps tools of that namespace know nothing of the registry's release.
        labels: Some(registry.labels(labels::copied())),
        ..ObjectMeta::default()
    };
    let copy = match kind {
        BundleKind::ConfigMap => {
            let data = Some(BTreeMap::from([(BUNDLE_KEY.to_owned(), bundle.to_owned())]));
            object(&ConfigMap { metadata, data, ..ConfigMap::default() }, Hold::Kept)
        }
        BundleKind::Secret => {
            let data = Some(BTreeMap::from([(BUNDLE_KEY.to_owned(), ByteString(bundle.as_bytes().to_vec()))]));
            let type_ = Some("Opaque".to_owned());
            object(&Secret { metadata, type_, data, ..Secret::default() }, Hold::Kept)
        }
    };
    Object { namespace: Some(namespace.to_owned()), ..copy }
}

/// What a copy is called.
#[must_use]
pub fn name(namespace: &str, registry: &str) -> String {
    format!("{namespace}.{registry}-ca-bundle")
}

/// What it is, for the engine.
#[must_use]
pub fn kind(kind: BundleKind) -> &'static Kind {
    match kind {
        BundleKind::ConfigMap => kinds::CONFIG_MAP,
        BundleKind::Secret => kinds::SECRET,
    }
}
