//! What is held of an object, as JSON: a tenth of the space of a tree of maps, and that packed ([`Alike`]).

use std::fmt;

use hyper::body::Bytes;
use serde_json::Value;

use crate::alike::{Alike, Sample};
use crate::apply::LAST_APPLIED;

/// JSON text. Never printed: it may be of a Secret.
#[derive(Clone)]
pub(super) enum Text {
    /// In memory of its own, for as long as the object is as it is.
    Held(Alike),
    /// A part of the page on which it was listed, until it is compared. As the last of a page's texts goes, all of its memory is given back; texts of
    /// their own would leave holes between what stays.
    Listed(Box<Bytes>),
}

impl Text {
    /// `like`: of objects of its kind.
    pub(super) fn of(value: &Value, like: &mut Sample) -> Self {
        Self::Held(like.pack(value.to_string().as_bytes(), !may_be_secret(value)))
    }

    pub(super) fn listed(text: Bytes) -> Self {
        Self::Listed(Box::new(text))
    }

    /// Into memory of its own.
    pub(super) fn leave_page(&mut self, like: &mut Sample) {
        if let Self::Listed(bytes) = self {
            *self = Self::Held(like.pack(bytes, false));
        }
    }

    /// Bytes that it takes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Held(packed) => packed.len(),
            Self::Listed(bytes) => bytes.len(),
        }
    }

    /// `None`: it is no JSON.
    pub(super) fn parse(&self) -> Option<Value> {
        match self {
            Self::Held(packed) => serde_json::from_slice(&packed.text()?).ok(),
            Self::Listed(bytes) => serde_json::from_slice(bytes).ok(),
        }
    }
}

/// Content may be, and so may be what `kubectl apply` wrote of it.
fn may_be_secret(value: &Value) -> bool {
    ["data", "stringData", "binaryData"].iter().any(|field| value.get(field).is_some())
        || value["metadata"]["annotations"].get(LAST_APPLIED).is_some()
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_may_be_secret_is_no_sample_for_others() {
        let applied =
            json!({"metadata": {"annotations": {LAST_APPLIED: "{\"data\":{\"password\":\"cGxhbnRlZA==\"}}"}}});
        for value in [json!({"metadata": {}, "data": {"password": "cGxhbnRlZA=="}}), applied] {
            let mut like = Sample::default();
            let text = Text::of(&value, &mut like);
            assert_eq!(text.parse(), Some(value));
            assert_eq!(format!("{like:?}"), "Sample(0 bytes)");
        }
        let mut like = Sample::default();
        Text::of(&json!({"metadata": {"labels": {"a": "b"}}}), &mut like);
        assert_ne!(format!("{like:?}"), "Sample(0 bytes)");
    }
}
