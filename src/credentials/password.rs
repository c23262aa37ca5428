//! A password as a user's Secret holds it, checked before it is used.

use crate::secret::Sensitive;

/// Fewest bytes.
pub const PASSWORD_MIN: usize = 8;
/// Most bytes: bcrypt looks at no more, so a longer password would be a shorter one in disguise.
pub const PASSWORD_MAX: usize = 72;

/// 8 to 72 bytes of UTF-8 without NUL, not ending in a line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Password(Sensitive<String>);

/// The rule that a password breaks. Says nothing about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing there.
    #[error("the password is empty; put one of 8 to 72 bytes into the Secret")]
    Empty,
    /// A line break that `echo` or an editor added. Cut off here it would be a password that the user never chose, so it is
    /// refused instead.
    #[error("the password ends with a line break; write it without one, for example with: printf %s instead of echo")]
    TrailingNewline,
    /// The mark that some editors put before a text. Nobody types it.
    #[error(
        "the password begins with a byte order mark, which an editor added; write it without, for example with: printf %s"
    )]
    Bom,
    /// Somebody put a table of users where one password is expected.
    #[error("the value holds lines of an htpasswd file and no password; name it in auth.usersFrom[].htpasswdSecretRef")]
    Htpasswd,
    /// Bytes that are no text.
    #[error("the password is not valid UTF-8; choose one that is")]
    NotUtf8,
    /// bcrypt would stop there.
    #[error("the password contains a NUL byte; choose one without")]
    Nul,
    /// Fewer than [`PASSWORD_MIN`] bytes.
    #[error("the password is shorter than 8 bytes; choose a longer one")]
    TooShort,
    /// More than [`PASSWORD_MAX`] bytes.
    #[error("the password is longer than 72 bytes, and bcrypt would ignore the rest; choose a shorter one")]
    TooLong,
}

impl PasswordError {
    /// The one word for conditions, events and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Empty => "PasswordEmpty",
            Self::TrailingNewline => "PasswordTrailingNewline",
            Self::Bom => "PasswordBom",
            Self::Htpasswd => "PasswordIsHtpasswd",
            Self::NotUtf8 => "PasswordNotUtf8",
            Self::Nul => "PasswordContainsNul",
            Self::TooShort => "PasswordTooShort",
            Self::TooLong => "PasswordTooLong",
        }
    }
}

impl Password {
    /// Checks the bytes of a Secret's key.
    pub fn new(bytes: &[u8]) -> Result<Self, PasswordError> {
        if bytes.is_empty() {
            return Err(PasswordError::Empty);
        }
        if bytes.starts_with("\u{feff}".as_bytes()) {
            return Err(PasswordError::Bom);
        }
        if is_htpasswd(bytes) {
            return Err(PasswordError::Htpasswd);
        }
        if bytes.ends_with(b"\n") || bytes.ends_with(b"\r") {
            return Err(PasswordError::TrailingNewline);
        }
        let text = str::from_utf8(bytes).map_err(|_| PasswordError::NotUtf8)?;
        match bytes.len() {
            _ if bytes.contains(&0) => Err(PasswordError::Nul),
            ..PASSWORD_MIN => Err(PasswordError::TooShort),
            PASSWORD_MIN..=PASSWORD_MAX => Ok(Self(text.to_string().into())),
            _ => Err(PasswordError::TooLong),
        }
    }

    /// The password itself; see [`Sensitive::expose`].
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Whether the first line that says something is a name and a hash, of whatever kind.
fn is_htpasswd(bytes: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(bytes) else { return false };
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let Some((name, hash)) = first.and_then(|line| line.split_once(':')) else { return false };
    let is_hash = |hash: &str| {
        let crypt = ["$2a$", "$2b$", "$2y$", "$apr1$", "$1$", "$5$", "$6$"];
        hash.starts_with("{SHA}") || hash.len() > 20 && crypt.iter().any(|kind| hash.starts_with(kind))
    };
    !name.is_empty() && is_hash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_named_and_no_error_repeats_the_password() {
        let bytes = |count: usize| "x".repeat(count).into_bytes();
        for (password, verdict) in [
            (bytes(8), Ok(())),
            (bytes(72), Ok(())),
            ("pässword".into(), Ok(())),
            ("with a blank".into(), Ok(())),
            (" padded ".into(), Ok(())),
            (bytes(0), Err(PasswordError::Empty)),
            (bytes(7), Err(PasswordError::TooShort)),
            (bytes(73), Err(PasswordError::TooLong)),
            ("ä".repeat(37).into_bytes(), Err(PasswordError::TooLong)),
            ("planted-secret\n".into(), Err(PasswordError::TrailingNewline)),
            ("planted-secret\r\n".into(), Err(PasswordError::TrailingNewline)),
            ("planted-secret\r".into(), Err(PasswordError::TrailingNewline)),
            ("\n".into(), Err(PasswordError::TrailingNewline)),
            ("\u{feff}planted-secret".into(), Err(PasswordError::Bom)),
            ("ann:{SHA}planted-secret".into(), Err(PasswordError::Htpasswd)),
            ("# us\nann:$apr1$planted$secretsecretsecret\n".into(), Err(PasswordError::Htpasswd)),
            ("with:colon$2y".into(), Ok(())),
            ("planted\0secret".into(), Err(PasswordError::Nul)),
            (b"planted\xffsecret".to_vec(), Err(PasswordError::NotUtf8)),
        ] {
            let result = Password::new(&password);
            assert_eq!(result.as_ref().map(|_| ()).map_err(|error| *error), verdict, "{password:?}");

            let said = format!("{result:?} {}", result.as_ref().map_or_else(ToString::to_string, |_| String::new()));
            assert!(!said.contains("planted") && !said.contains("xxxxxxx"), "{said}");
        }
    }
}
