//! What is wanted, made complete: the caller's body with namespace, marks and owner. Pure.

use std::fmt;

use serde_json::{Value, json};

use super::amendment;
use super::hash::Hash;
use super::kinds::Kind;
use super::{Marks, ObjectRef, Owner};

/// Whether a child lives as long as its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Controlled by the owner: goes with it, and is recognised by the owner's uid.
    Disposable,
    /// No owner reference, so that it outlives the owner; an owner of the same name takes it back by its labels.
    Kept,
    /// Recognised as a kept child, but goes with the owner.
    KeptUntilOwnerGoes,
}

/// An object that must exist, as the builders made it.
#[derive(Clone, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: &'static Kind,
    /// Another namespace than the owner's. Kubernetes knows no owner there, so such a child is held as [`Hold::Kept`] and known by its labels; an owner
    /// that goes removes it first ([`super::Engine::remove_elsewhere`]).
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// How it is tied to its owner.
    pub hold: Hold,
    /// metadata (labels, annotations) and content. Namespace, owner reference and the two labels of [`Marks`] are added when it is applied.
    /// With `metadata.resourceVersion` an existing object is changed only if it still has that version; else [`super::Error::Conflict`].
    pub body: Value,
}

/// The content may be secret.
impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({:?})", self.kind.kind, self.name, self.hold)
    }
}

/// A child as it is sent.
pub(super) struct Wanted {
    pub(super) target: ObjectRef,
    pub(super) body: Value,
    pub(super) hash: Hash,
    /// What [`Marks::applied`] says, if the kind is stamped.
    pub(super) stamp: Option<String>,
    /// The version of the live object that the body was decided on; `None`: whatever is there.
    pub(super) version: Option<String>,
}

impl Wanted {
    pub(super) fn new(owner: &Owner, child: &Child, marks: &Marks) -> Self {
        let mut body = child.body.clone();
        drop_nulls(&mut body);
        body["apiVersion"] = json!(child.kind.api_version());
        body["kind"] = json!(child.kind.kind);
        let elsewhere = child.namespace.as_deref().or(child.kind.is_cluster_wide.then_some(""));
        let namespace = elsewhere.unwrap_or(&owner.namespace);
        let metadata = &mut body["metadata"];
        let version = metadata.as_object_mut().and_then(|metadata| metadata.remove("resourceVersion"));
        metadata["name"] = json!(child.name);
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        metadata["labels"][marks.owner_label] = json!(owner.name);
        if namespace != owner.namespace {
            metadata["labels"][marks.owner_namespace_label] = json!(owner.namespace);
        }
        metadata["labels"][marks.managed_by_label] = json!(marks.managed_by);
        if child.hold != Hold::Kept {
            metadata["ownerReferences"] = json!([{
                "apiVersion": owner.api_version,
                "kind": owner.kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }]);
        }
        let target = ObjectRef::new(child.kind, namespace, &child.name);
        let version = version.and_then(|version| version.as_str().map(str::to_owned));
        let hash = Hash::of(&body);
        let stamp = child.kind.is_stamped.then(|| amendment::stamp(child.kind, &body, hash));
        if let Some(stamp) = &stamp {
            body["metadata"]["annotations"][marks.applied] = json!(stamp);
        }
        Self { target, body, hash, stamp, version }
    }
}

/// In an apply, `null` means to own the absence of a field; a builder that writes it means to say nothing.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds;
    use super::super::testing::{MARKS, owner};
    use super::*;

    fn wanted(hold: Hold, body: Value) -> Wanted {
        Wanted::new(
            &owner(),
            &Child { kind: kinds::SECRET, namespace: None, name: "team-a-tls".into(), hold, body },
            &MARKS,
        )
    }

    #[test]
    fn it_is_complete() {
        let body = wanted(Hold::Disposable, json!({"metadata": {"labels": {"a": "b"}}, "data": {"k": null}})).body;
        assert_eq!(
            body,
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": "team-a-tls",
                    "namespace": "registries",
                    "labels": {"a": "b", "test.dev/owner": "team-a", "app.kubernetes.io/managed-by": "test-operator"},
                    "ownerReferences": [{
                        "apiVersion": "test.dev/v1", "kind": "Thing", "name": "team-a", "uid": "uid-a",
                        "controller": true, "blockOwnerDeletion": true,
                    }],
                },
                "data": {},
            })
        );
    }

    #[test]
    fn only_a_child_that_outlives_its_owner_has_no_reference() {
        let has_reference = |hold| wanted(hold, json!({})).body["metadata"].get("ownerReferences").is_some();
        assert!(has_reference(Hold::Disposable));
        assert!(has_reference(Hold::KeptUntilOwnerGoes));
        assert!(!has_reference(Hold::Kept));
    }

    #[test]
    fn the_hash_follows_the_content_and_the_hold() {
        let hash = |hold, body| wanted(hold, body).hash;
        assert_eq!(hash(Hold::Kept, json!({"type": "a"})), hash(Hold::Kept, json!({"type": "a", "data": null})));
        assert_ne!(hash(Hold::Kept, json!({"type": "a"})), hash(Hold::Kept, json!({"type": "b"})));
        assert_ne!(hash(Hold::Kept, json!({})), hash(Hold::KeptUntilOwnerGoes, json!({})));
    }

    #[test]
    fn only_a_stamped_kind_says_what_was_sent() {
        let stamp = |kind, body| {
            let child = Child { kind, namespace: None, name: "team-a".into(), hold: Hold::Disposable, body };
            Wanted::new(&owner(), &child, &MARKS).body["metadata"]["annotations"][MARKS.applied].clone()
        };
        assert_eq!(stamp(kinds::SECRET, json!({"data": {"k": "x"}})), Value::Null);
        let job =
            |limit: i32, image: &str| stamp(kinds::JOB, json!({"spec": {"backoffLimit": limit, "template": image}}));
        let parts = |stamp: Value| stamp.as_str().unwrap().split('-').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(parts(job(1, "a")), parts(job(1, "a")));
        assert_eq!(parts(job(1, "a"))[0], parts(job(2, "a"))[0], "the pod is the same");
        assert_ne!(parts(job(1, "a"))[1], parts(job(2, "a"))[1]);
        assert_ne!(parts(job(1, "a"))[0], parts(job(1, "b"))[0]);
    }

    #[test]
    fn content_is_never_printed() {
        let body = json!({"data": "planted"});
        let child = Child { kind: kinds::SECRET, namespace: None, name: "s".into(), hold: Hold::Kept, body };
        assert_eq!(format!("{child:?}"), "Secret s (Kept)");
    }
}
