//! The registry's table of users as text. Only bcrypt: the registry loads other hashes but lets nobody in with them.
//!
//! Strict in both directions, because of what the registry does with a line that it can't read: it keeps the old table
//! without a word, so a user who was taken out could still log in
//! (<https://github.com/distribution/distribution/blob/v3.1.1/registry/auth/htpasswd/access.go>).

use std::collections::BTreeMap;
use std::fmt;

use super::{Password, UserName};
use crate::secret::Sensitive;

/// Users and their hashes, sorted by name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Htpasswd(BTreeMap<UserName, BcryptHash>);

/// Why a text is not a table that we wrote. Never repeats the line, which holds a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the htpasswd file {flaw}")]
pub struct HtpasswdError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
pub enum Flaw {
    /// Not of the form `user:hash`.
    #[strum(to_string = "has no colon")]
    NoColon,
    /// The name breaks a rule.
    #[strum(to_string = "has a name that is not legal")]
    Name,
    /// The hash is not bcrypt.
    #[strum(to_string = "has no bcrypt hash")]
    Hash,
    /// The name was there before.
    #[strum(to_string = "repeats a name")]
    Repeated,
    /// The last line does not end.
    #[strum(to_string = "is cut off")]
    CutOff,
}

impl Htpasswd {
    /// Reads a table. Blank lines, comments and anything after the hash are refused: we never write them.
    pub fn parse(text: &str) -> Result<Self, HtpasswdError> {
        let mut users = BTreeMap::new();
        for (number, line) in text.split_inclusive('\n').enumerate() {
            let flawed = |flaw| HtpasswdError { line: number + 1, flaw };
            let line = line.strip_suffix('\n').ok_or(flawed(Flaw::CutOff))?;
            let (name, hash) = line.split_once(':').ok_or(flawed(Flaw::NoColon))?;
            let name = UserName::new(name).map_err(|_| flawed(Flaw::Name))?;
            let hash = BcryptHash::new(hash).ok_or(flawed(Flaw::Hash))?;
            if users.insert(name, hash).is_some() {
                return Err(flawed(Flaw::Repeated));
            }
        }
        Ok(Self(users))
    }

    /// The text: one line a user, sorted by name. Empty without users: then everybody is refused.
    pub fn render(&self) -> Sensitive<String> {
        self.0.iter().map(|(name, hash)| format!("{name}:{}\n", hash.expose())).collect::<String>().into()
    }

    /// Everybody in it, in order.
    pub fn names(&self) -> impl Iterator<Item = &UserName> {
        self.0.keys()
    }

    /// The hash of a user.
    pub fn hash(&self, name: &UserName) -> Option<&BcryptHash> {
        self.0.get(name)
    }
}

impl FromIterator<(UserName, BcryptHash)> for Htpasswd {
    fn from_iter<T: IntoIterator<Item = (UserName, BcryptHash)>>(users: T) -> Self {
        Self(users.into_iter().collect())
    }
}

/// A well-formed bcrypt hash: `$2b$05$` and 53 characters. Not a password, but good for guessing one, so not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct BcryptHash(Sensitive<String>);

impl BcryptHash {
    /// Checks the form.
    pub fn new(hash: &str) -> Option<Self> {
        let (version, rest) = hash.strip_prefix('$')?.split_once('$')?;
        let (cost, digest) = rest.split_once('$')?;
        let legal = matches!(version, "2a" | "2b" | "2y")
            && cost.len() == 2
            && cost.bytes().all(|digit| digit.is_ascii_digit())
            && ("04"..="31").contains(&cost)
            && digest.len() == 53
            && digest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/'));
        legal.then(|| Self(hash.to_string().into()))
    }

    /// Rounds as a power of two.
    pub fn cost(&self) -> u32 {
        self.expose()[4..6].parse().unwrap_or_default()
    }

    /// Whether it is of this password. Slow by design.
    #[must_use]
    pub fn is_of(&self, password: &Password) -> bool {
        bcrypt::verify(password.expose(), self.expose()).unwrap_or(false)
    }

    /// The text of the hash; see [`Sensitive::expose`].
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for BcryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bcrypt, cost {}", self.cost())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANN: &str = "ann:$2b$05$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234\n";
    const BEN: &str = "ben:$2y$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ0123.\n";

    #[test]
    fn a_table_is_rendered_sorted_by_name() {
        let table = Htpasswd::parse(&format!("{BEN}{ANN}")).unwrap();
        assert_eq!(table.render().expose(), &format!("{ANN}{BEN}"));
        assert_eq!(table.hash(&UserName::new("ben").unwrap()).unwrap().cost(), 10);
    }

    #[test]
    fn a_line_that_would_freeze_the_registrys_table_is_refused() {
        let hash = ANN.trim_start_matches("ann:").trim_end();
        for (text, line, flaw) in [
            (format!("{ANN}\n{BEN}"), 2, Flaw::NoColon),
            (format!("{ANN}# comment\n"), 2, Flaw::NoColon),
            (format!("ann\n{BEN}"), 1, Flaw::NoColon),
            (format!(":{hash}\n"), 1, Flaw::Name),
            (format!("#ann:{hash}\n"), 1, Flaw::Name),
            (format!(" ann:{hash}\n"), 1, Flaw::Name),
            (format!("ann:{hash}:more\n"), 1, Flaw::Hash),
            (format!("ann:{hash} \n"), 1, Flaw::Hash),
            (format!("ann:{hash}\r\n"), 1, Flaw::Hash),
            ("ann:plain-password\n".into(), 1, Flaw::Hash),
            ("ann:\n".into(), 1, Flaw::Hash),
            (format!("{ANN}{ANN}"), 2, Flaw::Repeated),
            (format!("ann:{hash}"), 1, Flaw::CutOff),
        ] {
            assert_eq!(Htpasswd::parse(&text).unwrap_err(), HtpasswdError { line, flaw }, "{text:?}");
        }
    }

    #[test]
    fn only_bcrypt_is_a_hash() {
        let digest = "abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";
        for (hash, legal) in [
            (format!("$2a$05${digest}"), true),
            (format!("$2b$12${digest}"), true),
            (format!("$2y$31${digest}"), true),
            (format!("$2$05${digest}"), false),
            (format!("$2c$05${digest}"), false),
            (format!("$2b$5${digest}"), false),
            (format!("$2b$+5${digest}"), false),
            (format!("$2b$03${digest}"), false),
            (format!("$2b$32${digest}"), false),
            (format!("$2b$05${digest}a"), false),
            (format!("$2b$05${}", &digest[1..]), false),
            (format!("$2b$05${}-", &digest[1..]), false),
            ("$apr1$salt$hash".into(), false),
            ("{SHA}hash".into(), false),
            (String::new(), false),
        ] {
            assert_eq!(BcryptHash::new(&hash).is_some(), legal, "{hash}");
        }
    }

    #[test]
    fn debug_and_errors_show_no_hash() {
        let table = Htpasswd::parse(ANN).unwrap();
        let error = Htpasswd::parse(&ANN.replace("$2b", "$9b")).unwrap_err();
        let text = format!("{table:?} {error} {error:?}");
        assert!(text.contains("ann") && !text.contains("ABCDEFG"), "{text}");
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_back(
            users in prop::collection::btree_map("[^:#\\s\\p{C}][^:\\s\\p{C}]{0,20}", "[./A-Za-z0-9]{53}", 0..8),
            cost in 4u32..=31,
        ) {
            let table: Htpasswd = users
                .iter()
                .map(|(name, digest)| {
                    (UserName::new(name).unwrap(), BcryptHash::new(&format!("$2b${cost:02}${digest}")).unwrap())
                })
                .collect();
            let text = table.render();

            prop_assert_eq!(Htpasswd::parse(text.expose()), Ok(table.clone()));
            prop_assert_eq!(Htpasswd::parse(text.expose()).unwrap().render(), text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), lines in "([a-z:$#]{0,5}\n?){0,5}") {
            let _ = Htpasswd::parse(&text);
            let _ = Htpasswd::parse(&lines);
        }
    }
}
