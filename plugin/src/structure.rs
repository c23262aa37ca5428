//! The part of admission that the API server does with the schema alone: types, required and unknown fields, ranges, patterns.
//! The definition itself is the only source, so nothing can drift apart.

use regex::Regex;
use serde_json::Value;

/// What is wrong with `value`, each with the path of the field.
pub(crate) fn violations(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    visit(schema, value, path, &mut found);
    found
}

fn visit(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if value.is_null() {
        // The API server drops nulls where they are not nullable.
        return;
    }
    if schema["x-kubernetes-int-or-string"] == true {
        if !(value.is_string() || value.is_number()) {
            found.push(format!("{path}: must be a number or a text"));
        }
        texts(schema, &value.as_str().map_or_else(|| value.to_string(), str::to_owned), path, found);
        return;
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    if !fits {
        let wanted = schema["type"].as_str().unwrap_or("?");
        // The commonest slip: YAML takes 1.0 and true for something else than text.
        let is_bare = wanted == "string" && (value.is_number() || value.is_boolean());
        let advice = if is_bare { format!(": put {value} in quotes") } else { String::new() };
        found.push(format!("{path}: must be of type {wanted}{advice}"));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
        found.push(format!("{path}: must be one of {}", allowed.join(", ")));
    }
    match value {
        Value::String(text) => texts(schema, text, path, found),
        Value::Number(number) => numbers(schema, number.as_f64().unwrap_or_default(), path, found),
        Value::Array(items) => {
            if schema["maxItems"].as_u64().is_some_and(|most| items.len() as u64 > most) {
                found.push(format!("{path}: has more than {} entries", schema["maxItems"]));
            }
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                if items[..index].iter().any(|before| is_same_entry(schema, before, item)) {
                    found.push(format!("{path}: stands there twice"));
                }
                visit(&schema["items"], item, &path, found);
            }
        }
        Value::Object(fields) => {
            for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(required) {
                    found.push(format!("{path}.{required}: is missing"));
                }
            }
            for (name, field) in fields {
                let path = format!("{path}.{name}");
                if let Some(known) = schema["properties"].get(name) {
                    visit(known, field, &path, found);
                } else if schema["additionalProperties"].is_object() {
                    visit(&schema["additionalProperties"], field, &path, found);
                } else if !is_open && schema["properties"].is_object() {
                    found.push(format!("{path}: is no field of this object"));
                }
            }
        }
        _ => {}
    }
}

/// Whether the API server would refuse one entry beside the other.
fn is_same_entry(schema: &Value, one: &Value, other: &Value) -> bool {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => one == other,
        Some("map") => {
            let mut keys =
                schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
            keys.all(|key| one[key] == other[key])
        }
        _ => false,
    }
}

fn texts(schema: &Value, text: &str, path: &str, found: &mut Vec<String>) {
    let length = text.chars().count() as u64;
    if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
        found.push(format!("{path}: is longer than {} characters", schema["maxLength"]));
    }
    if schema["minLength"].as_u64().is_some_and(|least| length < least) {
        found.push(format!("{path}: is shorter than {} characters", schema["minLength"]));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && Regex::new(pattern).is_ok_and(|pattern| !pattern.is_match(text))
    {
        found.push(format!("{path}: {text:?} does not match {pattern}"));
    }
}

fn numbers(schema: &Value, number: f64, path: &str, found: &mut Vec<String>) {
    if schema["minimum"].as_f64().is_some_and(|least| number < least) {
        found.push(format!("{path}: must be at least {}", schema["minimum"]));
    }
    if schema["maximum"].as_f64().is_some_and(|most| number > most) {
        found.push(format!("{path}: must be at most {}", schema["maximum"]));
    }
}
