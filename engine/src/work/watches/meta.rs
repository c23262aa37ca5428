//! What a metadata watch keeps of an object: the few fields that say whose it is and whether it changed.
//!
//! The rest is dropped while the answer is being decoded and never becomes a value: `managedFields` are the larger part
//! of an object's metadata, and the annotations of a foreign Secret may hold a copy of it
//! (`last-applied-configuration`).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use sha2::{Digest, Sha256};

/// The metadata of one watched object, without annotations and managed fields.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    kept: ObjectMeta,
    digest: u128,
}

impl Meta {
    /// What a watch would show of an object with this metadata. For comparing a write's answer with later events.
    pub fn of(full: &ObjectMeta) -> Self {
        let digest = digest_of(b'l', full.labels.iter().flatten()) ^ digest_of(b'a', full.annotations.iter().flatten());
        let kept = ObjectMeta {
            name: full.name.clone(),
            namespace: full.namespace.clone(),
            uid: full.uid.clone(),
            resource_version: full.resource_version.clone(),
            generation: full.generation,
            deletion_timestamp: full.deletion_timestamp.clone(),
            labels: full.labels.clone(),
            owner_references: full.owner_references.clone(),
            ..ObjectMeta::default()
        };
        Self { kept, digest }
    }

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

    /// A digest of all labels and annotations, in no order. Equal digests: equal labels and annotations.
    pub fn digest(&self) -> u128 {
        self.digest
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
        let digest = digest_of(b'l', metadata.labels.iter().flatten()) ^ metadata.annotations.unwrap_or_default().0;
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
        Ok(Self { kept, digest })
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
    annotations: Option<Annotations>,
    owner_references: Option<Vec<OwnerReference>>,
}

/// A map of annotations of which only the digest is kept.
#[derive(Default)]
struct Annotations(u128);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Hashing;
        impl<'de> Visitor<'de> for Hashing {
            type Value = Annotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut digest = 0;
                while let Some(entry) = map.next_entry::<Cow<'de, str>, Cow<'de, str>>()? {
                    digest ^= digest_of(b'a', [entry]);
                }
                Ok(Annotations(digest))
            }
        }
        deserializer.deserialize_map(Hashing)
    }
}

/// Independent of the order of the entries, so that it can be made while they arrive.
fn digest_of(what: u8, entries: impl IntoIterator<Item = (impl AsRef<str>, impl AsRef<str>)>) -> u128 {
    entries.into_iter().fold(0, |digest, (name, value)| {
        let entry = Sha256::new()
            .chain_update([what])
            .chain_update(name.as_ref())
            .chain_update([0])
            .chain_update(value.as_ref());
        let mut half = [0; 16];
        half.copy_from_slice(&entry.finalize()[..16]);
        digest ^ u128::from_be_bytes(half)
    })
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
    fn an_event_and_a_writes_answer_give_the_same_digest() {
        let full: ObjectMeta = serde_json::from_value(example()["metadata"].clone()).unwrap();
        let from_event: Meta = serde_json::from_str(&example().to_string()).unwrap();
        assert_eq!(Meta::of(&full).digest(), from_event.digest());
        assert_eq!(format!("{:?}", Meta::of(&full)), format!("{from_event:?}"));
    }

    #[test]
    fn the_digest_sees_every_change_of_labels_and_annotations_and_nothing_else() {
        let digest = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut object = example();
            change(&mut object["metadata"]);
            serde_json::from_value::<Meta>(object).unwrap().digest()
        };
        let original = digest(&|_| {});
        let nothing = digest(&|meta| {
            meta["annotations"] = json!(null);
            meta["labels"] = json!({});
        });
        assert_eq!(nothing, 0);
        assert_eq!(original, digest(&|meta| meta["resourceVersion"] = json!("18")));
        let changed = [
            digest(&|meta| meta["labels"]["more"] = json!("x")),
            digest(&|meta| meta["annotations"]["more"] = json!("x")),
            digest(&|meta| meta["annotations"]["note"] = json!("x")),
            digest(&|meta| meta["annotations"]["note"] = json!("")),
            digest(&|meta| {
                let labels = meta["labels"].take();
                meta["labels"] = meta["annotations"].take();
                meta["annotations"] = labels;
            }),
        ];
        for (n, digest) in changed.iter().enumerate() {
            assert_ne!(original, *digest, "change {n}");
            assert!(!changed[..n].contains(digest), "change {n}");
        }
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
