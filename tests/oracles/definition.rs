//! The definition as a list of leaf fields, so that a field is tested from the day it comes. Reads the schema only; what values a field takes is
//! said in `values`.

use std::collections::BTreeSet;

use private_registry_operator::api;
use regex::Regex;
use serde_json::Value;

/// A field of the spec that has no fields of its own.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Names from the spec down; `[]` stands for the item of a list: `auth.users[].name`.
    pub path: String,
    /// What the definition says of it.
    pub schema: Value,
    /// Whether the object around it must have it.
    pub required: bool,
}

/// All of them, in the order of the definition.
pub fn leaves() -> Vec<Leaf> {
    let mut leaves = Vec::new();
    walk(&spec_schema(), String::new(), false, &mut leaves);
    leaves
}

fn spec_schema() -> Value {
    api::schema()["properties"]["spec"].take()
}

fn walk(schema: &Value, path: String, required: bool, leaves: &mut Vec<Leaf>) {
    let fields = schema["properties"].as_object().filter(|fields| !fields.is_empty());
    if let Some(fields) = fields {
        let must = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, field) in fields {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(field, below, must.iter().any(|wanted| wanted == name), leaves);
        }
    } else if schema["type"] == "array" {
        walk(&schema["items"], format!("{path}[]"), required, leaves);
    } else {
        leaves.push(Leaf { path, schema: schema.clone(), required });
    }
}

/// Fields that a transition rule speaks of: admission limits how they change. Without the fields that are only looked through on the way there.
pub fn limited() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    limits(&api::schema(), "", &mut found);
    found.into_iter().filter_map(|path| path.strip_prefix("spec.").map(str::to_owned)).collect()
}

fn limits(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let old = Regex::new(r"oldSelf((?:\.[a-z][A-Za-z0-9]*)+)(\(?)").unwrap();
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let text = rule["rule"].as_str().unwrap_or_default();
        let named = |found: regex::Captures<'_>| {
            let mut names: Vec<_> = found[1].split('.').skip(1).map(str::to_owned).collect();
            // `.size()` is a call and no field.
            if &found[2] == "(" {
                names.pop();
            }
            names.join(".")
        };
        let named: BTreeSet<_> = old.captures_iter(text).map(named).filter(|name| !name.is_empty()).collect();
        let is_passed = |name: &&String| !named.iter().any(|other| other.starts_with(&format!("{name}.")));
        let below = |name: &String| if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        found.extend(named.iter().filter(is_passed).map(below));
        if text.contains("oldSelf") && named.is_empty() {
            found.insert(path.to_owned());
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        limits(field, &below, found);
    }
}
