//! The keys of tokens as the kubelet shows them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde::Serialize;
use tracing::warn;

use crate::access::keys::SigningKey;
use crate::access::token::VerifyingKey;
use crate::credentials::BcryptHash;
use crate::secret::Sensitive;
use crate::sidecar::files;

/// Bytes of a mark: nobody has to find two alike, only to guess one.
const MARK: usize = 12;

/// What signs tokens, and what checks them.
pub(super) struct Set {
    pub(super) signing: SigningKey,
    /// Of the key that signs, of the next one and of the one before.
    pub(super) verifying: Vec<VerifyingKey>,
    /// What seals refresh tokens.
    pub(super) refresh: hmac::Key,
}

impl Set {
    fn read(folder: &Path) -> Result<Self, String> {
        let text = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
            Ok::<_, String>(Sensitive::new(text))
        };
        let key = |name: &str| SigningKey::read(text(name)?.expose()).ok_or(format!("{name}: this is no key"));
        let (signing, next, former) = (key("signing.key")?, key("next.key")?, text("former.jwk")?);
        let former = serde_json::from_str(former.expose()).ok().and_then(|jwk| VerifyingKey::from_jwk(&jwk));
        let verifying = [signing.public(), next.public()].into_iter().chain(former).collect();
        let refresh = hmac::Key::new(hmac::HMAC_SHA256, text("refresh.key")?.expose().as_bytes());
        Ok(Self { signing, verifying, refresh })
    }

    /// What stands in tokens for a user's password: another line of the table makes another mark, in every replica the same.
    pub(super) fn mark(&self, user: &str, line: &BcryptHash) -> String {
        self.sealed(&["login", user, line.expose()])
    }

    /// What stands in tokens of others for what the manifest says of them: another word makes another mark.
    pub(super) fn mark_of(&self, said: &impl Serialize) -> String {
        let said = serde_json::to_string(said).expect("what the manifest says is JSON");
        self.sealed(&["others", &said])
    }

    fn sealed(&self, parts: &[&str]) -> String {
        let said = parts.join("\0");
        BASE64.encode(&hmac::sign(&self.refresh, said.as_bytes()).as_ref()[..MARK])
    }
}

/// The keys that are shown now.
pub(super) struct Keys {
    folder: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    version: Option<PathBuf>,
    set: Option<Arc<Set>>,
}

impl Keys {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, known: Mutex::default() }
    }

    /// `None`: there are none that can be read.
    pub(super) fn shown(&self) -> Option<Arc<Set>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let version = files::version(&self.folder);
        if known.version != version {
            let read = version.as_deref().ok_or("there are none".to_owned()).and_then(Set::read);
            let read = read.inspect_err(|error| warn!(error, "the keys that sign tokens cannot be read"));
            *known = Known { version, set: read.ok().map(Arc::new) };
        }
        known.set.clone()
    }
}
