//! What a user wrote over what the operator sets by default: field by field, so that naming one field loses none of the others.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Lays `given` over `base`. Objects are merged; anything else, lists too, replaces what was there.
pub(super) fn over(base: &mut Value, given: &Value) {
    match (base, given) {
        (Value::Object(base), Value::Object(given)) => {
            for (name, given) in given {
                match base.get_mut(name) {
                    Some(field) => over(field, given),
                    None => _ = base.insert(name.clone(), given.clone()),
                }
            }
        }
        (base, given) => *base = given.clone(),
    }
}

/// The same for a type of Kubernetes' own.
pub(super) fn typed<T: Serialize + DeserializeOwned>(base: &T, given: &T) -> T {
    let mut merged = serde_json::to_value(base).expect("a Kubernetes type is JSON");
    over(&mut merged, &serde_json::to_value(given).expect("a Kubernetes type is JSON"));
    serde_json::from_value(merged).expect("a merge of two of a type is of the type")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_named_changes() {
        let mut base = json!({"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}});
        over(&mut base, &json!({"a": {"c": [3]}, "d": {}, "f": {"g": 1}}));
        assert_eq!(base, json!({"a": {"b": 1, "c": [3]}, "d": {"e": 1}, "f": {"g": 1}}));
    }
}
