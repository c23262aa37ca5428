//! The name of a user: what htpasswd and HTTP basic authentication can carry.

use std::fmt;

/// Longest name in bytes.
pub const NAME_MAX: usize = 255;

/// A user's name that is legal in an htpasswd file and in an `Authorization` header (RFC 7617: no colon).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserName(String);

/// The rule that a name breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("a user name must not be empty")]
    Empty,
    /// More than [`NAME_MAX`] bytes.
    #[error("a user name must not be longer than 255 bytes")]
    TooLong,
    /// The colon ends the name in the file and in the header.
    #[error("a user name must not contain a colon")]
    Colon,
    /// A space or anything like it.
    #[error("a user name must not contain blanks")]
    Blank,
    /// A control character, a line break among them.
    #[error("a user name must not contain control characters")]
    Control,
    /// The registry would take the line for a comment.
    #[error("a user name must not begin with #")]
    Comment,
}

impl UserName {
    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let broken = [
            (name.is_empty(), NameError::Empty),
            (name.len() > NAME_MAX, NameError::TooLong),
            (name.contains(':'), NameError::Colon),
            (name.contains(char::is_control), NameError::Control),
            (name.contains(char::is_whitespace), NameError::Blank),
            (name.starts_with('#'), NameError::Comment),
        ];
        let first = broken.into_iter().find_map(|(breaks, rule)| breaks.then_some(rule));
        first.map_or_else(|| Ok(Self(name.into())), Err)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_named() {
        let (longest, longer) = ("a".repeat(255), "ä".repeat(128));
        for (name, verdict) in [
            ("ann", Ok(())),
            ("ann.o'hara@example.com", Ok(())),
            ("björn", Ok(())),
            ("a#", Ok(())),
            (longest.as_str(), Ok(())),
            ("", Err(NameError::Empty)),
            (longer.as_str(), Err(NameError::TooLong)),
            ("ann:x", Err(NameError::Colon)),
            ("ann bee", Err(NameError::Blank)),
            (" ann", Err(NameError::Blank)),
            ("ann\u{a0}", Err(NameError::Blank)),
            ("ann\n", Err(NameError::Control)),
            ("ann\tbee", Err(NameError::Control)),
            ("ann\0", Err(NameError::Control)),
            ("#ann", Err(NameError::Comment)),
        ] {
            assert_eq!(UserName::new(name).map(|_| ()), verdict, "{name:?}");
        }
    }
}
