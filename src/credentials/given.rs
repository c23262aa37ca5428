//! Lines of an htpasswd file that a user already has. Read as the registry reads them (blanks around a line, comments, what stands
//! behind the hash), so that a file that works elsewhere works here; but a line that cannot be used is told by its number, where the
//! registry would let the user in nowhere without a word. Never repeats a line, which holds a hash.

use std::fmt;

use super::{BcryptHash, UserName};

/// Why a line is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flawed {
    /// Counted from 1.
    line: usize,
    /// Whose line it is, if that can be read.
    user: Option<UserName>,
    flaw: Flaw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    Line,
    Name,
    Hash,
}

impl Flawed {
    /// The one word for conditions, events and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.flaw {
            Flaw::Line => "HtpasswdLineInvalid",
            Flaw::Name => "UserNameInvalid",
            Flaw::Hash => "HtpasswdHashUnsupported",
        }
    }
}

impl fmt::Display for Flawed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(user) = &self.user {
            write!(f, " (user {user})")?;
        }
        f.write_str(match self.flaw {
            Flaw::Line => ": is not of the form name:hash; correct or remove it",
            Flaw::Name => ": has a name with blanks or control characters, or none; correct or remove it",
            Flaw::Hash => ": has no bcrypt hash, and the registry accepts no other; let the user choose a password with htpasswd -B",
        })
    }
}

/// Every user of the file, or why a line is not taken. Comments and blank lines are passed over.
pub fn lines(file: &[u8]) -> impl Iterator<Item = Result<(UserName, BcryptHash), Flawed>> {
    let file = file.strip_prefix("\u{feff}".as_bytes()).unwrap_or(file);
    file.split(|byte| *byte == b'\n').enumerate().filter_map(|(number, line)| user(number + 1, line))
}

fn user(line: usize, bytes: &[u8]) -> Option<Result<(UserName, BcryptHash), Flawed>> {
    let flawed = |user, flaw| Some(Err(Flawed { line, user, flaw }));
    let Ok(text) = str::from_utf8(bytes) else { return flawed(None, Flaw::Line) };
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let Some((name, rest)) = text.split_once(':') else { return flawed(None, Flaw::Line) };
    let Ok(name) = UserName::new(name) else { return flawed(None, Flaw::Name) };
    match BcryptHash::new(rest.split(':').next().unwrap_or_default()) {
        Some(hash) => Some(Ok((name, hash))),
        None => flawed(Some(name), Flaw::Hash),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HASH: &str = "$2y$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ0123.";

    #[test]
    fn good_lines_are_taken_in_every_form_that_tools_write() {
        let file =
            format!("\u{feff}# made by htpasswd\n\nann:{HASH}\r\n  ben:{HASH}  \ncarl:{HASH}:a comment\ndora:{HASH}");
        let users: Vec<_> = lines(file.as_bytes()).map(|line| line.unwrap()).collect();
        let names: Vec<_> = users.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ann", "ben", "carl", "dora"]);
        assert!(users.iter().all(|(_, hash)| hash.expose() == HASH));
    }

    #[test]
    fn a_flawed_line_is_told_by_its_number_and_never_repeated() {
        for (line, reason, words) in [
            ("planted-secret", "HtpasswdLineInvalid", "line 2: is not"),
            (":planted-secret", "UserNameInvalid", "line 2: has a name"),
            ("planted secret:x", "UserNameInvalid", "line 2: has a name"),
            ("ann:planted-secret", "HtpasswdHashUnsupported", "line 2 (user ann): has no bcrypt"),
            ("ann:$apr1$planted$secret", "HtpasswdHashUnsupported", "line 2 (user ann)"),
            ("ann:{SHA}planted-secret", "HtpasswdHashUnsupported", "htpasswd -B"),
            ("ann:", "HtpasswdHashUnsupported", "line 2 (user ann)"),
        ] {
            let found: Vec<_> = lines(format!("# one\n{line}\n").as_bytes()).collect();
            let [Err(flawed)] = found.as_slice() else { panic!("{line}: {found:?}") };
            assert_eq!(flawed.reason(), reason, "{line}");
            let said = format!("{flawed} {flawed:?}");
            assert!(said.contains(words) && !said.contains("planted"), "{said}");
        }
        assert_eq!(lines(b"\xff\xfe:x").next().unwrap().unwrap_err().reason(), "HtpasswdLineInvalid");
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(file in any::<Vec<u8>>(), text in "([a-z:$#]{0,5}\n?){0,5}") {
            let _ = lines(&file).count();
            let _ = lines(text.as_bytes()).count();
        }
    }
}
