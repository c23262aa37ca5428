//! Where something is inside an object, written as in `kubectl explain`: `spec.template.spec.containers[name=app].image`. Pure.
//!
//! Paths may be shown to anybody, so they are made of field names, keys of maps and merge keys of lists, never of values.

use serde_json::{Map, Value};

/// What is at `path`, which consists of plain field names.
pub(super) fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |node, field| node.get(field))
}

/// Puts `value` at `path`, making the maps on the way. A node on the way that is no map is replaced.
pub(super) fn put(object: &mut Value, path: &str, value: Value) {
    let mut node = object;
    for field in path.split('.') {
        if !node.is_object() {
            *node = Value::Object(Map::new());
        }
        node = &mut node[field];
    }
    *node = value;
}

/// Whether `path` is `root` or lies below it.
pub(super) fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Extends `path` by a field or a key of a map.
pub(super) fn push_field(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Extends `path` by an element of a list.
pub(super) fn push_element(path: &mut String, which: &str) {
    path.push('[');
    path.push_str(which);
    path.push(']');
}

/// `path` extended by a field or a key of a map.
pub(super) fn field(path: &str, name: &str) -> String {
    let mut path = path.to_owned();
    push_field(&mut path, name);
    path
}

/// `path` extended by an element of a list.
pub(super) fn element(path: &str, which: &str) -> String {
    let mut path = path.to_owned();
    push_element(&mut path, which);
    path
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_put_is_found() {
        let mut object = json!({"spec": {"a": 1}});
        put(&mut object, "spec.b.c", json!("x"));
        put(&mut object, "status.ok", json!(true));
        assert_eq!(object, json!({"spec": {"a": 1, "b": {"c": "x"}}, "status": {"ok": true}}));
        assert_eq!(find(&object, "spec.b.c"), Some(&json!("x")));
        assert_eq!(find(&object, "spec.z.c"), None);
    }

    #[test]
    fn a_name_that_only_begins_alike_is_not_within() {
        assert!(is_within("spec.template", "spec.template"));
        assert!(is_within("spec.template.spec", "spec.template"));
        assert!(is_within("spec.accessModes[0]", "spec.accessModes"));
        assert!(!is_within("spec.templates", "spec.template"));
        assert!(!is_within("spec", "spec.template"));
    }
}
