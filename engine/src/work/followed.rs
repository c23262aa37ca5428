//! What the API server shows, read with care: an object that this program cannot read, or not wholly, hides no other and is never taken for one that it
//! understands.

use std::borrow::Cow;

use kube::core::{ObjectMeta, Resource};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A kind of object that is worked on.
pub trait Followed: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned {
    /// What of this object the program does not know, in words; `None`: nothing. What is not known must not be taken for absent: a restriction that is
    /// not understood would be read as none.
    fn unknown(object: &Value) -> Option<String> {
        let _ = object;
        None
    }

    /// Takes over what counts whatever else is wrong, from an object of the same uid that cannot be followed. Returns whether something changed.
    fn salvage(&mut self, object: &Value) -> bool {
        let _ = object;
        false
    }
}

/// An object as the API server shows it.
#[derive(Debug, Clone)]
pub enum Guarded<K> {
    /// It is understood.
    Known(K),
    /// It is not.
    Unfollowed(Box<Unfollowed>),
}

/// An object that is not understood.
#[derive(Debug, Clone, Default)]
pub struct Unfollowed {
    /// Why.
    pub error: String,
    /// Its metadata, which can always be read.
    pub metadata: ObjectMeta,
    /// All of it.
    pub object: Value,
}

impl<'de, K: Followed> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        let error = match K::unknown(&object) {
            None => match K::deserialize(&object) {
                Ok(known) => return Ok(Self::Known(known)),
                Err(error) => error.to_string(),
            },
            Some(error) => error,
        };
        let metadata = ObjectMeta::deserialize(&object["metadata"]).map_err(D::Error::custom)?;
        Ok(Self::Unfollowed(Box::new(Unfollowed { error, metadata, object })))
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Guarded<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn api_version((): &()) -> Cow<'_, str> {
        K::api_version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Known(object) => object.meta(),
            Self::Unfollowed(broken) => &broken.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Known(object) => object.meta_mut(),
            Self::Unfollowed(broken) => &mut broken.metadata,
        }
    }
}

/// What of a schema (`openAPIV3Schema`) names fields and values: all that is worth having in memory for as long as the program runs.
#[must_use]
pub fn outline(schema: &Value) -> Value {
    const KEPT: [&str; 5] =
        ["properties", "items", "additionalProperties", "enum", "x-kubernetes-preserve-unknown-fields"];
    let mut kept = Map::new();
    for (name, value) in schema.as_object().into_iter().flatten().filter(|(name, _)| KEPT.contains(&name.as_str())) {
        let value = match (name.as_str(), value) {
            ("properties", Value::Object(fields)) => {
                fields.iter().map(|(name, field)| (name.clone(), outline(field))).collect()
            }
            ("items", _) | ("additionalProperties", Value::Object(_)) => outline(value),
            _ => value.clone(),
        };
        kept.insert(name.clone(), value);
    }
    // Most fields are plain values.
    if kept.is_empty() { Value::Bool(true) } else { Value::Object(kept) }
}

/// Where `object` has a field that `schema` (`openAPIV3Schema`, or its [`outline`]) does not know, as a path below `path`; `None`: nowhere.
#[must_use]
pub fn unknown_field(schema: &Value, object: &Value, path: &str) -> Option<String> {
    match object {
        Value::Object(fields) => {
            let anything = schema["x-kubernetes-preserve-unknown-fields"] == true;
            fields.iter().find_map(|(name, value)| {
                let path = format!("{path}.{name}");
                match (schema["properties"].get(name), schema.get("additionalProperties")) {
                    (Some(known), _) | (None, Some(known @ Value::Object(_))) => unknown_field(known, value, &path),
                    // A schema that names no fields says nothing about them.
                    (None, _) if anything || schema["properties"].is_null() => None,
                    (None, _) => Some(path),
                }
            })
        }
        Value::Array(items) => {
            items.iter().find_map(|item| unknown_field(&schema["items"], item, &format!("{path}[]")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_the_schema_does_not_know_is_found_wherever_it_stands() {
        let schema = json!({"type": "object", "properties": {
            "size": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "users": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        }});
        let found = |object: Value| {
            let found = unknown_field(&schema, &object, "spec");
            assert_eq!(found, unknown_field(&outline(&schema), &object, "spec"));
            found
        };
        assert_eq!(found(json!({"size": "1", "labels": {"any": "thing"}, "free": {"any": {"thing": 1}}})), None);
        assert_eq!(found(json!({"users": [{"name": "a"}]})), None);
        assert_eq!(found(json!({"s3": {}})).as_deref(), Some("spec.s3"));
        assert_eq!(found(json!({"users": [{"name": "a"}, {"token": 1}]})).as_deref(), Some("spec.users[].token"));
    }
}
