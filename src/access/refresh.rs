//! Refresh tokens: what a client may keep in the place of a password. Nothing but our token server takes one, and it ends with the password that it was
//! given for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde::{Deserialize, Serialize};

/// By which scanners recognise one that has leaked.
pub const PREFIX: &str = "prtr_";
/// How long one holds, in seconds: 90 days.
pub const LIFE: u64 = 90 * 24 * 3600;
/// Longest one, in bytes, that is looked at.
const LONGEST: usize = 4 << 10;

/// What one says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user.
    pub user: String,
    /// A mark of the password.
    pub login: String,
    /// The registry that it is for.
    pub service: String,
    /// Seconds since 1970 at which it ends.
    pub until: u64,
}

/// The text of a refresh token.
#[must_use]
pub fn seal(key: &hmac::Key, login: &Login) -> String {
    let said = BASE64.encode(serde_json::to_vec(login).expect("a login is JSON"));
    let tag = hmac::sign(key, said.as_bytes());
    format!("{PREFIX}{said}.{}", BASE64.encode(tag))
}

/// What a refresh token says, if it is one of ours for this registry and has not ended. `now`: seconds since 1970.
#[must_use]
pub fn open(key: &hmac::Key, text: &str, service: &str, now: u64) -> Option<Login> {
    let (said, tag) = text.strip_prefix(PREFIX).filter(|_| text.len() <= LONGEST)?.split_once('.')?;
    hmac::verify(key, said.as_bytes(), &BASE64.decode(tag).ok()?).ok()?;
    let login: Login = serde_json::from_slice(&BASE64.decode(said).ok()?).ok()?;
    (login.service == service && now < login.until).then_some(login)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_sealed_for_this_registry_is_taken_in_its_time() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[2; 32]);
        let login = Login { user: "ann".to_owned(), login: "mark".to_owned(), service: "here".to_owned(), until: 100 };
        let text = seal(&key, &login);
        assert!(text.starts_with(PREFIX));
        assert_eq!(open(&key, &text, "here", 99), Some(login));
        let (said, tag) = text.split_once('.').unwrap();
        let changed = format!("{said}A.{tag}");
        for (key, text, service, now) in [
            (&key, text.as_str(), "here", 100),
            (&key, &text, "there", 99),
            (&other, &text, "here", 99),
            (&key, &changed, "here", 99),
            (&key, said, "here", 99),
            (&key, &text[1..], "here", 99),
            (&key, "", "here", 99),
            (&key, &format!("{PREFIX}{}", "a".repeat(1 << 20)), "here", 99),
        ] {
            assert_eq!(open(key, text, service, now), None, "{}", &text[..text.len().min(100)]);
        }
    }
}
