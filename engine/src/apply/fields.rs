//! Which fields a manager owns, as the server keeps it in `metadata.managedFields`, and which of them it should give up. Pure.
//!
//! The format is `FieldsV1` of structured-merge-diff: `f:` a field or key of a map, `k:` an element of a list by its merge key, `v:` an element of a
//! set, `.` the node itself. <https://kubernetes.io/docs/reference/using-api/server-side-apply/>

use serde_json::{Map, Value};

use super::kinds::Kind;
use super::path;

/// The fields below one node that our manager has set. Empty where it owns nothing.
#[derive(Clone, Default)]
pub(super) struct Owned<'a>(Vec<&'a Map<String, Value>>);

impl<'a> Owned<'a> {
    /// What `manager` has applied to `object`, or posted if the kind allows that. `None` if the object says nothing about managers.
    pub(super) fn of(kind: &Kind, object: &'a Value, manager: &str) -> Option<Self> {
        let entries = object["metadata"]["managedFields"].as_array()?;
        let counts = |entry: &&Value| kind.is_verbatim || entry["operation"] == "Apply";
        let ours = entries.iter().filter(|entry| is_main(entry, manager)).filter(counts);
        Some(Self(ours.filter_map(|entry| entry["fieldsV1"].as_object()).filter(|fields| !fields.is_empty()).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what is at a path, as a comparison writes it, is ours.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.0.iter().any(|node| node.is_empty() || contains(node, "", path))
    }

    /// Below a field, or a key of a map.
    pub(super) fn field(&self, name: &str) -> Self {
        let key = format!("f:{name}");
        self.below(|node| node.get(&key))
    }

    /// Below the list element that is `item`, whatever the list's merge key is.
    pub(super) fn element(&self, item: &Value) -> Self {
        self.below(|node| node.iter().find(|(key, _)| Step::parse(key).matches(item)).map(|(_, below)| below))
    }

    /// A leaf owns all that is below it.
    fn below(&self, step: impl Fn(&'a Map<String, Value>) -> Option<&'a Value>) -> Self {
        Self(
            self.0
                .iter()
                .filter_map(|node| if node.is_empty() { Some(*node) } else { step(node)?.as_object() })
                .collect(),
        )
    }
}

/// Where in managedFields `manager` stands with fields that it wrote otherwise than by apply. While it does, they don't go when an apply drops them.
pub(super) fn written_entry(object: &Value, manager: &str) -> Option<usize> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    entries.iter().position(|entry| is_main(entry, manager) && entry["operation"] == "Update")
}

/// Who but `manager` has last written what is at a path, to the object or to one of its subresources.
pub(super) fn writer<'a>(object: &'a Value, manager: &str, path: &str) -> Option<&'a str> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    let writes = |entry: &&Value| entry["fieldsV1"].as_object().is_some_and(|fields| contains(fields, "", path));
    let others = entries.iter().filter(|entry| !is_main(entry, manager)).filter(writes);
    others.max_by_key(|entry| entry["time"].as_str())?["manager"].as_str()
}

/// Whether the fields below one node, which is at `here`, contain what is at `path`. A leaf stands for all that is below it.
fn contains(node: &Map<String, Value>, here: &str, path: &str) -> bool {
    node.iter().any(|(key, below)| {
        let here = match Step::parse(key) {
            Step::Itself | Step::Member(_) => return false,
            Step::Field(name) => path::field(here, name),
            Step::Index(index) => path::element(here, &index.to_string()),
            Step::Element(keys) => path::element(here, &describe(&keys)),
        };
        let is_below = |below: &Map<String, Value>| below.is_empty() || contains(below, &here, path);
        here == path || path::is_within(path, &here) && below.as_object().is_some_and(is_below)
    })
}

fn is_main(entry: &Value, manager: &str) -> bool {
    entry["manager"] == manager && entry["subresource"].as_str().unwrap_or("").is_empty()
}

/// One key of `FieldsV1`.
enum Step<'a> {
    Field(&'a str),
    Element(Map<String, Value>),
    Member(Value),
    Index(usize),
    Itself,
}

impl<'a> Step<'a> {
    fn parse(key: &'a str) -> Self {
        match key.split_at_checked(2) {
            Some(("f:", name)) => Self::Field(name),
            Some(("k:", json)) => serde_json::from_str(json).map_or(Self::Itself, Self::Element),
            Some(("v:", json)) => serde_json::from_str(json).map_or(Self::Itself, Self::Member),
            Some(("i:", index)) => index.parse().map_or(Self::Itself, Self::Index),
            _ => Self::Itself,
        }
    }

    /// Whether a list's `item` is the one that this key means.
    fn matches(&self, item: &Value) -> bool {
        match self {
            Self::Element(keys) => keys.iter().all(|(key, value)| match item.get(key) {
                Some(actual) => actual == value,
                None => key == "protocol" && value == "TCP",
            }),
            Self::Member(value) => item == value,
            _ => false,
        }
    }
}

/// The fields that our manager owns and no longer wants: an apply takes them out of the object. Paths, sorted.
pub(super) fn stale(owned: &Owned<'_>, wanted: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    for node in &owned.0 {
        descend(node, wanted, &mut String::new(), &mut paths);
    }
    paths.sort();
    paths.dedup();
    paths
}

/// `at`: the path of `node`. Written on and taken back, because there is a field for each line of an object, and nearly all are as wanted.
fn descend(node: &Map<String, Value>, wanted: &Value, at: &mut String, paths: &mut Vec<String>) {
    for (key, below) in node {
        let step = Step::parse(key);
        let end = at.len();
        let found = match &step {
            Step::Itself => continue,
            Step::Field(name) => {
                path::push_field(at, name);
                wanted.get(name)
            }
            Step::Index(index) => {
                path::push_element(at, &index.to_string());
                wanted.get(index)
            }
            Step::Member(_) => {
                path::push_element(at, "a member");
                pick(wanted, &step)
            }
            Step::Element(keys) => {
                path::push_element(at, &describe(keys));
                pick(wanted, &step)
            }
        };
        match (found, below.as_object()) {
            (None, _) => paths.push(at.clone()),
            (Some(wanted), Some(below)) => descend(below, wanted, at, paths),
            (Some(_), None) => {}
        }
        at.truncate(end);
    }
}

fn pick<'a>(list: &'a Value, step: &Step<'_>) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| step.matches(item))
}

fn describe(keys: &Map<String, Value>) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    keys.iter().map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json!(…) reads best in its place")]
mod tests {
    use serde_json::json;

    use super::super::kinds::{CONFIG_MAP, SERVICE};
    use super::*;

    fn object(fields: Value) -> Value {
        json!({"metadata": {"managedFields": [
            {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:theirs": {}}}},
            {"manager": "ours", "operation": "Update", "subresource": "status", "fieldsV1": {"f:status": {}}},
            {"manager": "ours", "operation": "Apply", "fieldsV1": fields},
        ]}})
    }

    fn stale_in(fields: Value, wanted: Value) -> Vec<String> {
        stale(&Owned::of(SERVICE, &object(fields), "ours").unwrap(), &wanted)
    }

    /// As 1.37 answered it.
    fn deployment_fields() -> Value {
        json!({
            "f:metadata": {"f:labels": {}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {"f:spec": {
                    "f:containers": {"k:{\"name\":\"r\"}": {
                        ".": {}, "f:name": {},
                        "f:env": {"k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:value": {}}},
                        "f:ports": {"k:{\"containerPort\":5000,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    }},
                    "f:hostNetwork": {},
                }},
            },
        })
    }

    fn deployment() -> Value {
        json!({
            "metadata": {"labels": {}},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {
                "containers": [{"name": "r", "env": [{"name": "E", "value": ""}], "ports": [{"containerPort": 5000}]}],
                "hostNetwork": false,
            }}},
        })
    }

    #[test]
    fn what_is_still_wanted_is_not_stale() {
        assert_eq!(stale_in(deployment_fields(), deployment()), Vec::<String>::new());
    }

    #[test]
    fn every_dropped_field_is_found() {
        for (drop, expected) in [
            ("/spec/replicas", "spec.replicas"),
            ("/spec/template/spec/hostNetwork", "spec.template.spec.hostNetwork"),
            ("/spec/template/spec/containers/0/env/0", "spec.template.spec.containers[name=r].env[name=E]"),
            ("/spec/template/spec/containers/0/env/0/value", "spec.template.spec.containers[name=r].env[name=E].value"),
            (
                "/spec/template/spec/containers/0/ports/0",
                "spec.template.spec.containers[name=r].ports[containerPort=5000,protocol=TCP]",
            ),
            ("/spec/template", "spec.template"),
        ] {
            let mut wanted = deployment();
            let (parent, last) = drop.rsplit_once('/').unwrap();
            match wanted.pointer_mut(parent).unwrap() {
                Value::Array(items) => _ = items.remove(last.parse().unwrap()),
                map => _ = map.as_object_mut().unwrap().remove(last),
            }
            assert_eq!(stale_in(deployment_fields(), wanted), [expected], "{drop}");
        }
    }

    #[test]
    fn an_owner_reference_that_is_taken_back_is_stale() {
        let fields = json!({"f:metadata": {"f:ownerReferences": {"k:{\"uid\":\"1\"}": {}}}});
        assert_eq!(stale_in(fields, json!({"metadata": {}})), ["metadata.ownerReferences"]);
    }

    #[test]
    fn members_of_sets_are_never_shown() {
        let fields = json!({"f:metadata": {"f:finalizers": {"v:\"keep\"": {}, "v:\"drop\"": {}}}});
        let wanted = json!({"metadata": {"finalizers": ["keep"]}});
        assert_eq!(stale_in(fields, wanted), ["metadata.finalizers[a member]"]);
    }

    #[test]
    fn fields_of_others_are_not_ours_to_drop() {
        assert_eq!(stale_in(json!({}), json!({})), Vec::<String>::new());
    }

    #[test]
    fn only_what_we_wrote_to_the_object_itself_is_a_written_entry() {
        let mut object = object(json!({"f:data": {}}));
        assert_eq!(written_entry(&object, "ours"), None, "the status is another resource");
        let entries = object["metadata"]["managedFields"].as_array_mut().unwrap();
        entries.push(json!({"manager": "ours", "operation": "Update", "fieldsV1": {}}));
        assert_eq!(written_entry(&object, "ours"), Some(3));
        assert_eq!(written_entry(&object, "kubectl"), Some(0));
    }

    #[test]
    fn an_object_without_managers_is_told_from_one_that_we_never_applied() {
        assert!(Owned::of(SERVICE, &json!({"metadata": {}}), "ours").is_none());
        assert!(Owned::of(SERVICE, &object(json!({})), "nobody").unwrap().is_empty());
        assert!(Owned::of(SERVICE, &object(json!({})), "ours").unwrap().is_empty());
        assert!(!Owned::of(SERVICE, &object(json!({"f:data": {}})), "ours").unwrap().is_empty());
    }

    #[test]
    fn what_is_ours_is_found_by_its_path() {
        let fields = object(json!({
            "f:metadata": {"f:labels": {"f:app.kubernetes.io/name": {}}, "f:finalizers": {".": {}, "v:\"a\"": {}}},
            "f:spec": {"f:args": {}, "f:ports": {
                "k:{\"containerPort\":5000,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
            }},
        }));
        let owned = Owned::of(SERVICE, &fields, "ours").unwrap();
        for (path, expected) in [
            ("metadata.labels.app.kubernetes.io/name", true),
            ("metadata.labels.app", false),
            ("metadata.finalizers", true),
            ("spec.args[1]", true),
            ("spec.argsx", false),
            ("spec.ports[containerPort=5000,protocol=TCP].containerPort", true),
            ("spec.ports[containerPort=5000,protocol=TCP].name", false),
            ("spec.theirs", false),
        ] {
            assert_eq!(owned.contains(path), expected, "{path}");
        }
    }

    #[test]
    fn who_wrote_a_field_last_is_named_and_it_is_never_us() {
        let mut object = object(json!({"f:spec": {"f:replicas": {}, "f:ours": {}}}));
        let entries = object["metadata"]["managedFields"].as_array_mut().unwrap();
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        entries.push(json!({"manager": "hpa", "operation": "Update", "subresource": "scale", "time": "2026-01-02T00:00:00Z", "fieldsV1": replicas}));
        entries.push(
            json!({"manager": "argo", "operation": "Apply", "time": "2026-01-01T00:00:00Z", "fieldsV1": replicas}),
        );
        assert_eq!(writer(&object, "ours", "spec.replicas"), Some("hpa"));
        assert_eq!(writer(&object, "ours", "spec.theirs"), Some("kubectl"));
        assert_eq!(writer(&object, "ours", "spec.ours"), None);
    }

    #[test]
    fn what_was_posted_is_owned_where_the_server_adds_nothing() {
        let entry = json!({"manager": "ours", "operation": "Update", "fieldsV1": {"f:data": {"f:a": {}, "f:b": {}}}});
        let posted = json!({"metadata": {"managedFields": [entry]}});
        let owned = Owned::of(CONFIG_MAP, &posted, "ours").unwrap();
        assert_eq!(stale(&owned, &json!({"data": {"a": "1"}})), ["data.b"]);
        assert!(Owned::of(SERVICE, &posted, "ours").unwrap().is_empty(), "some of it may be a default");
    }
}
