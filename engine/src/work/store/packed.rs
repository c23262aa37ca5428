//! A value as compressed JSON: of a custom resource with its status, a fifth of the space of the typed value. Reading it takes some ten microseconds.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How hard it is tried (0 to 10). Above this it takes longer, and the text gets little smaller.
const LEVEL: u8 = 4;

/// A value, packed.
#[derive(Debug)]
pub(super) enum Packed<K> {
    Text(Box<[u8]>),
    /// What JSON does not give back is kept as it is.
    Whole(Arc<K>),
}

impl<K: Serialize + DeserializeOwned> Packed<K> {
    /// Packs it.
    pub(super) fn of(value: K) -> Self {
        let text = serde_json::to_vec(&value).map(|text| miniz_oxide::deflate::compress_to_vec(&text, LEVEL));
        match text {
            Ok(text) if read::<K>(&text).is_some() => Self::Text(text.into_boxed_slice()),
            _ => Self::Whole(Arc::new(value)),
        }
    }

    /// The value.
    pub(super) fn unpack(&self) -> Option<Arc<K>> {
        match self {
            Self::Text(text) => read(text).map(Arc::new),
            Self::Whole(value) => Some(value.clone()),
        }
    }
}

fn read<K: DeserializeOwned>(text: &[u8]) -> Option<K> {
    let text = miniz_oxide::inflate::decompress_to_vec(text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[test]
    fn text_that_repeats_itself_takes_little_space() {
        let value: Vec<String> = (0..100).map(|n| format!("condition {n} is as the manifest says")).collect();
        let packed = Packed::of(value.clone());
        assert!(matches!(&packed, Packed::Text(text) if text.len() < 600));
        assert_eq!(*packed.unpack().unwrap(), value);
    }

    /// Written under another name than it is read.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct OneWay {
        #[serde(rename(serialize = "there", deserialize = "back"))]
        text: String,
    }

    #[test]
    fn what_cannot_be_read_back_is_kept_as_it_is() {
        let packed = Packed::of(OneWay { text: "kept".to_owned() });
        assert_eq!(packed.unpack().unwrap().text, "kept");
    }
}
