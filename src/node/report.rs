//! What a node says of each order, as the operator reads it: `data` of a ConfigMap, an entry for each registry.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::trust_files::Owner;
use crate::model::labels::{MANAGED_BY, MANAGER};

/// Longest message of one registry, in characters: all of them must fit into one object.
const LONGEST_MESSAGE: usize = 400;

/// How far one registry is on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// All files are there.
    Written,
    /// This node is not meant, and nothing is there.
    NotSelected,
    /// Something stands in the way; what was there stays.
    Refused,
}

/// What is reported of one registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The operator's name for the bundle that was ordered.
    pub bundle: String,
    /// How far it is.
    pub state: State,
    /// What stands in the way and what to do; otherwise empty, or worth knowing.
    pub message: String,
}

impl Entry {
    /// With a message that fits.
    #[must_use]
    pub fn new(bundle: &str, state: State, message: &str) -> Self {
        let message = match message.char_indices().nth(LONGEST_MESSAGE) {
            Some((end, _)) => format!("{}…", &message[..end]),
            None => message.to_owned(),
        };
        Self { bundle: bundle.to_owned(), state, message }
    }
}

/// The label of reports, and its value.
pub const LABEL: (&str, &str) = ("privateregistry.dev/trust", "report");

/// The selector by which reports are listed.
#[must_use]
pub fn selector() -> String {
    format!("{}={}", LABEL.0, LABEL.1)
}

/// The node that a report of this name is of.
#[must_use]
pub fn node(name: &str) -> Option<&str> {
    name.strip_prefix("node.").filter(|node| !node.is_empty())
}

/// Name of a node's report.
#[must_use]
pub fn name(node: &str) -> String {
    format!("node.{node}")
}

/// The `data` of a report.
#[must_use]
pub fn data(entries: &BTreeMap<Owner, Entry>) -> BTreeMap<String, String> {
    let key = |owner: &Owner| owner.to_string().replace('/', ".");
    entries.iter().map(|(owner, entry)| (key(owner), json!(entry).to_string())).collect()
}

/// The whole report. It goes with its node.
#[must_use]
pub fn object(node: &Node, namespace: &str, data: &BTreeMap<String, String>) -> Value {
    let (of, uid) = (node.metadata.name.clone().unwrap_or_default(), node.metadata.uid.clone().unwrap_or_default());
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": name(&of), "namespace": namespace,
            "labels": {LABEL.0: LABEL.1, MANAGED_BY: MANAGER},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": of, "uid": uid}],
        },
        "data": data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_what_the_operator_reads() {
        let mut node = Node::default();
        node.metadata.name = Some("node-1".to_owned());
        node.metadata.uid = Some("u-1".to_owned());
        let entries =
            BTreeMap::from([(Owner::parse("registries/team-a").unwrap(), Entry::new("ab12", State::NotSelected, ""))]);
        assert_eq!(
            object(&node, "nodes", &data(&entries)),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": "node.node-1", "namespace": "nodes",
                    "labels": {"privateregistry.dev/trust": "report", "app.kubernetes.io/managed-by": "private-registry-operator"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "u-1"}],
                },
                "data": {"registries.team-a": "{\"bundle\":\"ab12\",\"message\":\"\",\"state\":\"NotSelected\"}"},
            })
        );
    }

    #[test]
    fn a_thousand_long_messages_fit_into_one_object() {
        let entry = |n: usize| {
            let owner = Owner::parse(&format!("{}/r{n:04}{}", "n".repeat(63), "x".repeat(43))).unwrap();
            (owner, Entry::new(&"f".repeat(64), State::Refused, &"long ".repeat(1000)))
        };
        let entries: BTreeMap<_, _> = (0..super::super::orders::MOST_ORDERS).map(entry).collect();
        assert!(json!(data(&entries)).to_string().len() < 900_000);
    }
}
