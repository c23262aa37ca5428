//! A value as packed JSON: of a custom resource with its status, a tenth of the space of the typed value. Reading it takes some ten microseconds.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::alike::{Alike, Sample};

/// A value, packed.
#[derive(Debug)]
pub(super) enum Packed<K> {
    Text(Alike),
    /// What JSON does not give back is kept as it is.
    Whole(Arc<K>),
}

impl<K: Serialize + DeserializeOwned> Packed<K> {
    /// Packs it. `like`: of values of its type.
    pub(super) fn of(value: K, like: &mut Sample) -> Self {
        let text = serde_json::to_vec(&value).ok().filter(|text| serde_json::from_slice::<K>(text).is_ok());
        match text {
            Some(text) => Self::Text(like.pack(&text, true)),
            None => Self::Whole(Arc::new(value)),
        }
    }

    /// The value.
    pub(super) fn unpack(&self) -> Option<Arc<K>> {
        match self {
            Self::Text(packed) => serde_json::from_slice(&packed.text()?).ok().map(Arc::new),
            Self::Whole(value) => Some(value.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn what_is_like_others_takes_little_space() {
        let mut like = Sample::default();
        let value = |of: &str| -> Vec<String> {
            (0..30).map(|n| format!("condition {n} of {of} is as it should be")).collect()
        };
        Packed::of(value("team-a"), &mut like);
        let packed = Packed::of(value("team-b"), &mut like);
        assert!(matches!(&packed, Packed::Text(text) if text.len() < 250), "{packed:?}");
        assert_eq!(*packed.unpack().unwrap(), value("team-b"));
    }

    /// Written under another name than it is read.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct OneWay {
        #[serde(rename(serialize = "there", deserialize = "back"))]
        text: String,
    }

    #[test]
    fn what_cannot_be_read_back_is_kept_as_it_is() {
        let packed = Packed::of(OneWay { text: "kept".to_owned() }, &mut Sample::default());
        assert_eq!(packed.unpack().unwrap().text, "kept");
    }
}
