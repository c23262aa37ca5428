//! A fingerprint of what is wanted. Pure; the same on every machine and with every toolchain.

use std::fmt;
use std::num::NonZeroU64;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 over canonical JSON: keys sorted, nothing between the tokens. The first half of it, which is enough to tell two states of one object apart:
/// of each child there is one in memory. Of a Secret too, so it is never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hash {
    // Never zero, so that none takes no more space than one.
    first: NonZeroU64,
    second: u64,
}

impl Hash {
    /// The hash of a JSON value.
    pub fn of(value: &Value) -> Self {
        let mut digest = Sha256::new();
        feed(&mut digest, value);
        let digest = digest.finalize();
        let word = |at: usize| digest[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        Self { first: NonZeroU64::new(word(0)).unwrap_or(NonZeroU64::MAX), second: word(8) }
    }

    /// Its beginning, to be written down. Only of objects that hold nothing secret.
    pub(super) fn short(self) -> String {
        format!("{:016x}", self.first)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hash")
    }
}

/// The order of a map's keys depends on a feature of serde_json that any dependency may switch on, so it is made here.
fn feed(digest: &mut Sha256, value: &Value) {
    match value {
        Value::Array(items) => {
            digest.update(b"[");
            for item in items {
                feed(digest, item);
                digest.update(b",");
            }
            digest.update(b"]");
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            digest.update(b"{");
            for (key, item) in entries {
                feed_text(digest, key);
                feed(digest, item);
            }
            digest.update(b"}");
        }
        Value::String(text) => feed_text(digest, text),
        scalar => digest.update(scalar.to_string()),
    }
}

fn feed_text(digest: &mut Sha256, text: &str) {
    digest.update(format!("\"{}:", text.len()));
    digest.update(text);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_content_counts() {
        let one: Value = serde_json::from_str(r#"{"a": 1, "b": ["x", null]}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{ "b":["x",null], "a":1 }"#).unwrap();
        assert_eq!(Hash::of(&one), Hash::of(&two));
    }

    #[test]
    fn neighbours_are_told_apart() {
        let values = [
            json!(["ab", "c"]),
            json!(["a", "bc"]),
            json!([["ab"], "c"]),
            json!(["ab,c"]),
            json!({"a": "b"}),
            json!({"ab": ""}),
            json!("1"),
            json!(1),
            json!(null),
            json!("null"),
            json!([]),
            json!({}),
        ];
        for (i, a) in values.iter().enumerate() {
            for b in &values[i + 1..] {
                assert_ne!(Hash::of(a), Hash::of(b), "{a} {b}");
            }
        }
    }

    #[test]
    fn its_beginning_is_the_same_everywhere() {
        assert_eq!(Hash::of(&json!({"a": 1})).short(), "7adba8a031284c5e");
    }

    #[test]
    fn it_is_never_printed() {
        assert_eq!(format!("{:?}", Hash::of(&json!("x"))), "Hash");
    }
}
