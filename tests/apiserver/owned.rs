//! The fields of an object that the operator owns, as the API server keeps account of them in `managedFields`.

use std::fmt;

use private_registry_operator::model::labels::MANAGER;
use serde_json::Value;

/// One step on the way to a field.
#[derive(Clone, Debug)]
enum Step {
    /// A field of an object.
    Field(String),
    /// The item of a list that has these values.
    Item(Value),
}

/// A field without fields of its own.
#[derive(Clone, Debug)]
pub struct Leaf(Vec<Step>);

/// Every leaf that the operator applied or posted.
pub fn owned_leaves(object: &Value) -> Vec<Leaf> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let mut leaves = Vec::new();
    for entry in entries.iter().filter(|entry| entry["manager"] == MANAGER) {
        walk(&entry["fieldsV1"], &mut Vec::new(), &mut leaves);
    }
    leaves
}

fn walk(fields: &Value, way: &mut Vec<Step>, leaves: &mut Vec<Leaf>) {
    let fields = fields.as_object().into_iter().flatten().filter(|(name, _)| *name != ".");
    for (name, inner) in fields {
        let step = match name.split_once(':') {
            Some(("f", name)) => Step::Field(name.to_owned()),
            Some(("k" | "v", item)) => Step::Item(serde_json::from_str(item).unwrap()),
            _ => panic!("managedFields has {name}"),
        };
        way.push(step);
        if inner.as_object().is_none_or(|inner| inner.keys().all(|name| name == ".")) {
            leaves.push(Leaf(way.clone()));
        } else {
            walk(inner, way, leaves);
        }
        way.pop();
    }
}

impl Leaf {
    /// Its value in `object`.
    pub fn find<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        object.pointer(&self.pointer(object)?)
    }

    /// Its JSON pointer in `object`.
    pub fn pointer(&self, object: &Value) -> Option<String> {
        let mut pointer = String::new();
        for step in &self.0 {
            let here = object.pointer(&pointer)?;
            let next = match step {
                Step::Field(name) => name.replace('~', "~0").replace('/', "~1"),
                Step::Item(item) => here.as_array()?.iter().position(|found| fits(found, item))?.to_string(),
            };
            pointer = format!("{pointer}/{next}");
        }
        object.pointer(&pointer).map(|_| pointer)
    }
}

fn fits(found: &Value, item: &Value) -> bool {
    match item {
        Value::Object(keys) => keys.iter().all(|(key, value)| found.get(key) == Some(value)),
        value => found == value,
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            match step {
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(item) => write!(f, "[{item}]")?,
            }
        }
        Ok(())
    }
}
