//! An object as the server last answered it. Never prints its content: it may be a Secret.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use super::Marks;
use super::kinds::{Kind, Remember};
use super::path;

/// An object as the server last answered it, or as much of it as its kind remembers ([`Kind::remember`]). Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Live {
    kind: &'static Kind,
    value: Arc<Value>,
}

/// The owner that a controller ownerReference points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// For example `apps/v1`.
    pub api_version: String,
    /// For example `Deployment`.
    pub kind: String,
    /// Its name; it is in the same namespace.
    pub name: String,
    /// Its uid: what counts.
    pub uid: String,
}

/// How much of an object is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Everything, with our own entry of managedFields: it has still to be compared.
    Whole,
    /// What [`Kind::remember`] says, for an object that somebody reads by name.
    Read,
    /// The same for an object that nobody reads.
    Unread,
    /// Only the metadata: somebody else's object.
    Metadata,
}

impl Live {
    /// Wraps what the server answered.
    pub fn new(kind: &'static Kind, value: Value) -> Self {
        Self { kind, value: Arc::new(value) }
    }

    /// The same of an object from a list, where none says what it is.
    pub(super) fn named(kind: &'static Kind, mut value: Value) -> Self {
        if let Some(fields) = value.as_object_mut() {
            fields.entry("apiVersion").or_insert_with(|| kind.api_version().into());
            fields.entry("kind").or_insert_with(|| kind.kind.into());
        }
        Self::new(kind, value)
    }

    /// Its kind.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The JSON itself. Don't print it.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// What is at a path of plain field names, for example `spec.clusterIP`.
    pub fn at(&self, path: &str) -> Option<&Value> {
        path::find(&self.value, path)
    }

    /// One decoded entry of a Secret's `data`.
    pub fn data(&self, key: &str) -> Option<Vec<u8>> {
        let encoded = self.value.get("data")?.get(key)?;
        <ByteString as serde::Deserialize>::deserialize(encoded).ok().map(|bytes| bytes.0)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.metadata_text("name")
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata_text("namespace")
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        self.metadata_text("uid")
    }

    /// Its resourceVersion.
    pub fn resource_version(&self) -> &str {
        self.metadata_text("resourceVersion")
    }

    /// Its generation, where the kind has one.
    pub fn generation(&self) -> Option<i64> {
        self.at("metadata.generation")?.as_i64()
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.at("metadata.labels")?.get(key)?.as_str()
    }

    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.at("metadata.annotations")?.get(key)?.as_str()
    }

    /// Whether it has been deleted and something still holds it.
    pub fn is_leaving(&self) -> bool {
        self.at("metadata.deletionTimestamp").is_some()
    }

    /// The owner that controls it.
    pub fn controller(&self) -> Option<Controller> {
        let references = self.at("metadata.ownerReferences")?.as_array()?;
        let reference = references.iter().find(|reference| reference["controller"] == true)?;
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        Some(Controller { api_version: text("apiVersion"), kind: text("kind"), name: text("name"), uid: text("uid") })
    }

    fn metadata_text(&self, field: &str) -> &str {
        self.value["metadata"][field].as_str().unwrap_or_default()
    }

    /// Whether its texts have more bytes than this.
    pub(super) fn is_larger_than(&self, bytes: usize) -> bool {
        take(&self.value, bytes).is_none()
    }

    /// As much of it as `depth` says. Until it has been compared, our own managedFields stay; after that, of the labels, those that say whose it is.
    pub(super) fn trimmed(&self, depth: Depth, marks: &Marks) -> Value {
        let mut kept = Value::Object(Map::new());
        match (depth, self.kind.remember) {
            (Depth::Whole, _) | (Depth::Read, Remember::WhenRead) => {
                let content = self.value.as_object().into_iter().flatten();
                kept = content
                    .filter(|(field, _)| !["metadata", "apiVersion", "kind"].contains(&field.as_str()))
                    .map(|(f, value)| (f.clone(), value.clone()))
                    .collect();
            }
            (Depth::Read | Depth::Unread, Remember::Paths(paths)) => {
                for path in paths {
                    if let Some(value) = self.at(path) {
                        path::put(&mut kept, path, value.clone());
                    }
                }
            }
            (Depth::Unread, Remember::WhenRead) | (Depth::Metadata, _) => {}
        }
        let metadata = self.value["metadata"].as_object().into_iter().flatten();
        let metadata =
            metadata.filter_map(|(field, value)| Some((field.clone(), metadatum(field, value, depth, marks)?)));
        let metadata = metadata.filter(|(field, _)| depth == Depth::Whole || !KNOWN_BESIDES.contains(&field.as_str()));
        kept["metadata"] = metadata.collect();
        kept
    }
}

/// Where `kubectl apply` keeps what was applied, a Secret's content too.
pub(crate) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What of the metadata is remembered with an object anyway, in less space than in its text.
pub(super) const KNOWN_BESIDES: [&str; 4] = ["name", "namespace", "uid", "resourceVersion"];

/// What is left of so many bytes when a value has taken its own; `None`: they are not enough.
fn take(value: &Value, bytes: usize) -> Option<usize> {
    match value {
        Value::String(text) => bytes.checked_sub(text.len()),
        Value::Array(items) => items.iter().try_fold(bytes, |bytes, item| take(item, bytes)),
        Value::Object(fields) => {
            fields.iter().try_fold(bytes, |bytes, (name, item)| take(item, bytes.checked_sub(name.len())?))
        }
        _ => Some(bytes),
    }
}

/// What is kept of a field of the metadata.
fn metadatum(field: &str, value: &Value, depth: Depth, marks: &Marks) -> Option<Value> {
    let some = |kept: &dyn Fn(&str) -> bool| {
        let entries = value.as_object().into_iter().flatten();
        Some(entries.filter(|(key, _)| kept(key)).map(|(key, value)| (key.clone(), value.clone())).collect())
    };
    match (field, depth) {
        // The entries of others are emptied, not taken out: an entry is addressed by its position.
        ("managedFields", Depth::Whole) => {
            let entries = value.as_array().into_iter().flatten();
            let own = |entry: &Value| if entry["manager"] == marks.field_manager { entry.clone() } else { json!({}) };
            Some(entries.map(own).collect())
        }
        ("managedFields", _) => None,
        (_, Depth::Whole) => Some(value.clone()),
        ("labels", _) => {
            some(&|label| [marks.owner_label, marks.owner_namespace_label, marks.managed_by_label].contains(&label))
        }
        ("annotations", _) => some(&|annotation| annotation != marks.applied),
        _ => Some(value.clone()),
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{} at {}", self.kind.kind, self.namespace(), self.name(), self.resource_version())
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds;
    use super::super::testing::MARKS;
    use super::*;

    fn secret() -> Live {
        Live::new(
            kinds::SECRET,
            json!({
                "metadata": {
                    "name": "s", "namespace": "x", "uid": "u", "resourceVersion": "7", "labels": {"a": "b", "test.dev/owner": "team-a"},
                    "managedFields": [{"manager": "theirs"}, {"manager": "test-operator"}],
                },
                "type": "Opaque",
                "data": {"password": "cGxhbnRlZA=="},
            }),
        )
    }

    #[test]
    fn content_is_never_printed() {
        assert_eq!(format!("{:?}", secret()), "Secret x/s at 7");
    }

    #[test]
    fn data_is_decoded() {
        assert_eq!(secret().data("password").unwrap(), b"planted");
        assert_eq!(secret().data("other"), None);
    }

    #[test]
    fn a_secret_that_nobody_reads_leaves_memory() {
        assert!(!secret().trimmed(Depth::Unread, &MARKS).to_string().contains("cGxhbnRlZA"));
        assert!(!secret().trimmed(Depth::Metadata, &MARKS).to_string().contains("cGxhbnRlZA"));
        assert!(secret().trimmed(Depth::Read, &MARKS).to_string().contains("cGxhbnRlZA"));
    }

    #[test]
    fn only_our_fields_stay_in_their_place_and_only_until_compared() {
        assert_eq!(
            secret().trimmed(Depth::Whole, &MARKS)["metadata"]["managedFields"],
            json!([{}, {"manager": "test-operator"}])
        );
        assert_eq!(secret().trimmed(Depth::Read, &MARKS)["metadata"]["managedFields"], Value::Null);
    }

    #[test]
    fn once_compared_only_the_labels_stay_that_say_whose_it_is() {
        let labels = |depth| secret().trimmed(depth, &MARKS)["metadata"]["labels"].clone();
        assert_eq!(labels(Depth::Whole), json!({"a": "b", "test.dev/owner": "team-a"}));
        for depth in [Depth::Read, Depth::Unread, Depth::Metadata] {
            assert_eq!(labels(depth), json!({"test.dev/owner": "team-a"}));
        }
    }

    #[test]
    fn the_stamp_stays_until_compared() {
        let stamped = json!({"metadata": {"name": "d", "annotations": {"test.dev/applied": "1-2", "theirs": "x"}}});
        let annotations = |depth| {
            Live::new(kinds::DEPLOYMENT, stamped.clone()).trimmed(depth, &MARKS)["metadata"]["annotations"].clone()
        };
        assert_eq!(annotations(Depth::Whole), stamped["metadata"]["annotations"]);
        assert_eq!(annotations(Depth::Unread), json!({"theirs": "x"}));
    }

    #[test]
    fn a_workload_keeps_what_readiness_is_judged_from() {
        let deployment = Live::new(
            kinds::DEPLOYMENT,
            json!({
                "metadata": {"name": "d", "generation": 3}, "spec": {"replicas": 2, "template": {}}, "status": {"readyReplicas": 2},
            }),
        );
        assert_eq!(
            deployment.trimmed(Depth::Unread, &MARKS),
            json!({"metadata": {"generation": 3}, "spec": {"replicas": 2}, "status": {"readyReplicas": 2}}),
        );
    }

    #[test]
    fn only_the_controlling_owner_counts() {
        let live = |references: Value| {
            Live::new(kinds::SECRET, json!({"metadata": {"ownerReferences": references}})).controller()
        };
        assert_eq!(live(json!([])), None);
        assert_eq!(live(json!([{"uid": "1"}])), None);
        assert_eq!(live(json!([{"uid": "1"}, {"uid": "2", "controller": true}])).unwrap().uid, "2");
    }
}
