//! `docs/api.md`: the definition's schema as tables that a person can read, one row a field. Everything in it comes from the schema.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

const TITLE: &str = "\
# PrivateRegistry: every field

Generated from the definition by `cargo xtask generate`. [registry.md](registry.md) explains the fields with examples; `kubectl explain privateregistry.spec` shows this page's
descriptions in a terminal.
";

/// The page for a definition (YAML, one version).
pub(super) fn of(definition: &str) -> Result<String> {
    let definition: Value = serde_saphyr::from_str(definition).context("read the definition")?;
    let spec = &definition["spec"];
    let (version, kind) = (&spec["versions"][0], &spec["names"]["kind"]);
    let name = version["name"].as_str().context("the version has a name")?;
    let group = spec["group"].as_str().context("the definition has a group")?;
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut page = TITLE.to_owned();
    write!(page, "\n`apiVersion: {group}/{name}`, `kind: {}`\n", kind.as_str().context("a kind")?)?;
    rules(&mut page, "", schema)?;
    for part in ["spec", "status"] {
        section(&mut page, part, properties(schema).and_then(|fields| fields.get(part)).context("spec and status")?)?;
    }
    Ok(page)
}

/// A table of an object's own fields, then one for everything below each field that has fields itself.
fn section(page: &mut String, path: &str, schema: &Value) -> Result<()> {
    heading(page, "##", path, schema)?;
    let fields: Vec<_> = properties(schema).into_iter().flatten().collect();
    for (name, field) in &fields {
        let below = format!("{path}.{name}");
        let more = match own_fields(field) {
            Some(_) => format!("Fields: [`{below}`](#{}).", anchor(&below)),
            None => in_one_line(field),
        };
        row(page, name, field, is_required(schema, name), &more)?;
    }
    for (name, field) in fields.into_iter().filter(|(_, field)| own_fields(field).is_some()) {
        let path = format!("{path}.{name}");
        heading(page, "###", &path, field)?;
        below(page, "", field)?;
    }
    Ok(())
}

fn heading(page: &mut String, level: &str, path: &str, schema: &Value) -> Result<()> {
    write!(page, "\n{level} `{path}`\n\n{}\n", text(schema))?;
    rules(page, path, schema)?;
    page.push_str("\n| field | type | what it means |\n|---|---|---|\n");
    Ok(())
}

/// One row for each field below, however deep.
fn below(page: &mut String, prefix: &str, schema: &Value) -> Result<()> {
    let Some((fields, brackets)) = own_fields(schema) else { return Ok(()) };
    let owner = if brackets.is_empty() { schema } else { &schema["items"] };
    for (name, field) in fields {
        let path = format!("{prefix}{name}");
        row(page, &path, field, is_required(owner, name), &in_one_line(field))?;
        let inner = own_fields(field).map_or("", |(_, brackets)| brackets);
        below(page, &format!("{path}{inner}."), field)?;
    }
    Ok(())
}

fn row(page: &mut String, name: &str, field: &Value, required: bool, more: &str) -> Result<()> {
    let required = if required { "Required." } else { "" };
    let foreign = if is_foreign(field) { "As in Kubernetes." } else { "" };
    let parts = [text(field).as_str(), required, foreign, more].join(" ");
    let meaning = parts.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    Ok(writeln!(page, "| `{name}` | {} | {meaning} |", kind(field))?)
}

/// The rules of a field that has no section of its own.
fn in_one_line(field: &Value) -> String {
    messages(field).map(|message| format!("Rule: {message}.")).collect::<Vec<_>>().join(" ")
}

/// Rules of an object, listed above its table.
fn rules(page: &mut String, path: &str, schema: &Value) -> Result<()> {
    if messages(schema).next().is_some() {
        let of = if path.is_empty() { String::new() } else { format!(" of `{path}`") };
        write!(page, "\nRules{of}:\n\n")?;
        for message in messages(schema) {
            writeln!(page, "- {message}")?;
        }
    }
    Ok(())
}

fn messages(schema: &Value) -> impl Iterator<Item = &str> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule["message"].as_str().or_else(|| rule["rule"].as_str()))
}

fn text(schema: &Value) -> String {
    let words = schema["description"].as_str().unwrap_or_default().split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema["properties"].as_object()
}

/// The fields of an object, or of the objects in a list, if this definition describes them itself.
fn own_fields(schema: &Value) -> Option<(&Map<String, Value>, &'static str)> {
    let found =
        properties(schema).map(|fields| (fields, "")).or_else(|| properties(&schema["items"]).map(|f| (f, "[]")));
    found.filter(|_| !is_foreign(schema))
}

/// A type of Kubernetes' own: its fields came without descriptions.
fn is_foreign(schema: &Value) -> bool {
    let fields = properties(schema).or_else(|| properties(&schema["items"]));
    fields.is_some_and(|fields| fields.values().all(|field| field["description"].is_null()))
}

fn is_required(owner: &Value, name: &str) -> bool {
    owner["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name))
}

/// The type with its bounds, in words.
fn kind(field: &Value) -> String {
    if let Some(values) = field["enum"].as_array() {
        let values = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`"));
        return values.collect::<Vec<_>>().join(", ");
    }
    let pattern = field["pattern"].as_str().unwrap_or_default();
    match field["type"].as_str() {
        _ if pattern.contains("[KMGTPE]i") => "quantity".to_owned(),
        _ if pattern.contains("(ns|us|ms|s|m|h)") => "duration".to_owned(),
        Some("integer" | "number") => format!("integer{}", brackets(range(field, "minimum", "maximum", ""))),
        Some("string") => format!("string{}", brackets(range(field, "minLength", "maxLength", " characters"))),
        Some("array") => {
            let keys = field["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let unique = keys.map(|key| format!("unique by `{key}`"));
            let set = (field["x-kubernetes-list-type"] == "set").then(|| "each once".to_owned());
            let bounds = range(field, "minItems", "maxItems", "").into_iter().chain(set).chain(unique);
            format!("list{} of {}", brackets(bounds), kind(&field["items"]))
        }
        Some("object") if field["additionalProperties"]["type"] == "string" => "map of strings".to_owned(),
        Some(other) => other.to_owned(),
        None if field["x-kubernetes-int-or-string"] == true => "integer or string".to_owned(),
        None => "any".to_owned(),
    }
}

/// `1–65535`, `at most 63 characters`; nothing without bounds.
fn range(field: &Value, least: &str, most: &str, unit: &str) -> Option<String> {
    let bound = |name: &str| field[name].as_f64();
    match (bound(least), bound(most)) {
        (Some(least), Some(most)) => Some(format!("{least}–{most}{unit}")),
        (Some(least), None) => Some(format!("at least {least}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
        (None, None) => None,
    }
}

fn brackets(bounds: impl IntoIterator<Item = String>) -> String {
    let bounds = bounds.into_iter().collect::<Vec<_>>().join(", ");
    if bounds.is_empty() { bounds } else { format!(" ({bounds})") }
}

/// The name that Markdown renderers give a heading.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || *c == '-').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFINITION: &str = r#"
spec:
  group: example.dev
  names: {kind: Thing}
  versions:
  - name: v1
    schema:
      openAPIV3Schema:
        properties:
          spec:
            description: What it is.
            required: [port]
            properties:
              port: {type: integer, minimum: 1.0, maximum: 65535.0, description: "One | two."}
              users:
                description: Who.
                type: array
                maxItems: 4
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties:
                    name: {type: string, maxLength: 9, description: The name.}
                    ref: {type: object, description: Where., properties: {key: {type: string, description: Its key.}}}
              foreign: {type: object, description: From elsewhere., properties: {a: {type: string}}}
            x-kubernetes-validations: [{rule: "true", message: ports are open}]
          status: {description: What was seen., properties: {}}
"#;

    #[test]
    fn every_field_has_a_row_with_type_bounds_and_meaning() {
        let page = of(DEFINITION).unwrap();
        for line in [
            "`apiVersion: example.dev/v1`, `kind: Thing`",
            "- ports are open",
            "| `port` | integer (1–65535) | One \\| two. Required. |",
            "| `users` | list (at most 4, unique by `name`) of object | Who. Fields: [`spec.users`](#specusers). |",
            "| `foreign` | object | From elsewhere. As in Kubernetes. |",
            "### `spec.users`",
            "| `name` | string (at most 9 characters) | The name. Required. |",
            "| `ref.key` | string | Its key. |",
            "## `status`",
        ] {
            assert!(page.lines().any(|have| have == line), "{line}\nis not in\n{page}");
        }
        assert!(!page.contains("`a`"), "{page}");
    }
}
