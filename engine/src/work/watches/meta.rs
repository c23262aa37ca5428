//! What a metadata watch keeps of an object: the few fields that say whose it is and whether it changed.
//!
//! The rest is dropped while the answer is being decoded and never becomes a value: `managedFields` are the larger part
//! of an object's metadata, and the annotations of a foreign Secret may hold a copy of it
//! (`last-applied-configuration`).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::de::{Deserialize, Deserializer};

/// The metadata of one watched object, without annotations and managed fields.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    kept: ObjectMeta,
}

impl Meta {
    /// `metadata.name`
    pub fn name(&self) -> &str {
        self.kept.name.as_deref().unwrap_or_default()
    }

    /// `metadata.namespace`, empty for a kind without namespaces.
    pub fn namespace(&self) -> &str {
        self.kept.namespace.as_deref().unwrap_or_default()
    }

    /// `metadata.uid`
    pub fn uid(&self) -> &str {
        self.kept.uid.as_deref().unwrap_or_default()
    }

    /// `metadata.resourceVersion`; see [`compare_versions`].
    pub fn resource_version(&self) -> &str {
        self.kept.resource_version.as_deref().unwrap_or_default()
    }

    /// `metadata.generation`, which counts changes of the spec. Not every kind has it (Service, Secret and ConfigMap
    /// don't).
    pub fn generation(&self) -> Option<i64> {
        self.kept.generation
    }

    /// The value of one label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.kept.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// The owner that controls the object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.kept.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
    }

    /// Whether the object is being deleted, but still there.
    pub fn is_terminating(&self) -> bool {
        self.kept.deletion_timestamp.is_some()
    }
}

/// Which of two resource versions of one object is the newer one; `None` if one of them isn't a decimal number, which a
/// conforming API server never sends ([KEP-5504](https://kep.k8s.io/5504)).
pub fn compare_versions(left: &str, right: &str) -> Option<Ordering> {
    Some(left.parse::<u128>().ok()?.cmp(&right.parse().ok()?))
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { metadata } = Wire::deserialize(deserializer)?;
        let kept = ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            deletion_timestamp: metadata.deletion_timestamp,
            labels: metadata.labels,
            owner_references: metadata.owner_references,
            ..ObjectMeta::default()
        };
        Ok(Self { kept })
    }
}

#[derive(serde::Deserialize)]
struct Wire {
    metadata: WireMeta,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl Resource for Meta {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(of: &ApiResource) -> Cow<'_, str> {
        of.kind.as_str().into()
    }

    fn group(of: &ApiResource) -> Cow<'_, str> {
        of.group.as_str().into()
    }

    fn version(of: &ApiResource) -> Cow<'_, str> {
        of.version.as_str().into()
    }

    fn plural(of: &ApiResource) -> Cow<'_, str> {
        of.plural.as_str().into()
    }

    /// Makes `kube` ask for `PartialObjectMetadata`.
    fn metadata_api() -> bool {
        true
    }

    fn meta(&self) -> &ObjectMeta {
        &self.kept
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.kept
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> serde_json::Value {
        json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {
                "name": "team-a", "namespace": "registries", "uid": "u1", "resourceVersion": "17", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"app.kubernetes.io/name": "private-registry", "privateregistry.dev/registry": "team-a"},
                "annotations": {"deployment.kubernetes.io/revision": "1", "note": "planted-annotation"},
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "o1"},
                    {"apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "name": "team-a", "uid": "o2",
                     "controller": true, "blockOwnerDeletion": true}
                ],
                "managedFields": [{"manager": "planted-manager", "operation": "Apply", "fieldsV1": {"f:metadata": {}}}]
            }
        })
    }

    #[test]
    fn what_says_whose_an_object_is_and_whether_it_changed_is_kept() {
        let meta: Meta = serde_json::from_value(example()).unwrap();
        assert_eq!((meta.namespace(), meta.name(), meta.uid()), ("registries", "team-a", "u1"));
        assert_eq!((meta.resource_version(), meta.generation()), ("17", Some(3)));
        assert_eq!(meta.label("privateregistry.dev/registry"), Some("team-a"));
        assert_eq!(meta.controller().map(|owner| owner.uid.as_str()), Some("o2"));
        assert!(!meta.is_terminating());
    }

    #[test]
    fn annotations_and_managed_fields_are_not() {
        let meta: Meta = serde_json::from_value(example()).unwrap();
        assert!(!format!("{meta:?}").contains("planted"), "{meta:?}");
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(compare_versions("9", "10"), Some(Ordering::Less));
        assert_eq!(compare_versions("10", "10"), Some(Ordering::Equal));
        assert_eq!(compare_versions("18446744073709551616", "9"), Some(Ordering::Greater));
        assert_eq!(compare_versions("", "10"), None);
        assert_eq!(compare_versions("ab", "10"), None);
    }
}
