//! What a sidecar tells the operator: whether it has what it needs to judge logins from elsewhere. No word of it is anybody else's: what an issuer or the API
//! server says gets no further than the sidecar's log.
//!
//! The operator asks at the token server, and proves by the key of refresh tokens that it is the operator: nobody else learns what is missing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::issuer::Issuer;

/// How the operator says that it asks, in the head `Authorization`.
const SCHEME: &str = "Report ";
/// What is signed. Nothing else that this key signs has a zero at its end.
const SAID: &[u8] = b"report\0";
/// Bytes of a definition's name.
const NAME: usize = 12;

/// How it is with one of those from whom logins come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Standing {
    /// Everything is there.
    Good,
    /// It is being found out, or has been wrong for a moment only.
    Pending,
    /// It cannot be reached from the pod, or does not answer.
    Unreachable,
    /// Its certificate is signed by nobody who is known.
    Untrusted,
    /// What it publishes, or the ConfigMap holds, cannot be used.
    Unusable,
    /// The ConfigMap, or the key in it, is not there.
    Missing,
    /// The registry's ServiceAccount may not ask.
    Forbidden,
    /// The registry's ServiceAccount is not known.
    Unauthorized,
    /// A word of another version.
    #[serde(other)]
    Unclear,
}

impl Standing {
    /// Whether logins fail for it.
    #[must_use]
    pub fn is_lack(self) -> bool {
        !matches!(self, Self::Good | Self::Pending | Self::Unclear)
    }
}

/// What one pod says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By the [name](name_of) of what the manifest says of them: a pod may know another version of it.
    pub issuers: BTreeMap<String, Standing>,
    /// The cluster, if its tokens are logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Standing>,
}

/// Tells one definition of an issuer from every other.
#[must_use]
pub fn name_of(issuer: &Issuer) -> String {
    let said = serde_json::to_vec(issuer).expect("what the manifest says is JSON");
    BASE64.encode(&Sha256::digest(said)[..NAME])
}

/// What the operator says in the head `Authorization`. `key`: what seals refresh tokens.
#[must_use]
pub fn question(key: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), SAID);
    format!("{SCHEME}{}", BASE64.encode(tag))
}

/// Whether this head asks for a report, and then whether the operator asks.
#[must_use]
pub fn asks(key: &hmac::Key, authorization: &[u8]) -> Option<bool> {
    let tag = authorization.strip_prefix(SCHEME.as_bytes())?;
    let is_right = |tag: Vec<u8>| hmac::verify(key, SAID, &tag).is_ok();
    Some(BASE64.decode(tag).is_ok_and(is_right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_the_key_is_told() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"the key");
        assert_eq!(asks(&key, question(b"the key").as_bytes()), Some(true));
        assert_eq!(asks(&key, question(b"another").as_bytes()), Some(false));
        assert_eq!(asks(&key, b"Report "), Some(false));
        assert_eq!(asks(&key, b"Report %"), Some(false));
        assert_eq!(asks(&key, b"Basic YW5uOng="), None, "that is a login");
        assert!(!question(b"the key").contains("the key"));
    }

    #[test]
    fn words_of_another_version_are_no_lack_and_something_else_is_no_report() {
        let said = r#"{"issuers": {"a": "Unreachable", "b": "Tired"}, "cluster": "Good", "more": 1}"#;
        let report: Report = serde_json::from_str(said).unwrap();
        assert_eq!(report.issuers["a"], Standing::Unreachable);
        assert!(!report.issuers["b"].is_lack());
        assert_eq!(report.cluster, Some(Standing::Good));
        for none in ["{}", "[]", "<html>", r#"{"errors": []}"#] {
            assert!(serde_json::from_str::<Report>(none).is_err(), "{none}");
        }
    }
}
