//! Patterns for names of repositories.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::is_repository;

/// Longest pattern, in bytes: as long as a repository's name may be.
const LONGEST: usize = 255;
const USER: &str = "${user}";
const TEAM: &str = "${team}";

/// A pattern for names of repositories, part by part: `*` stands for any letters within a part, `**` for any number of whole parts, none included, `${user}`
/// for the name of whoever asks, `${team}` for the name of a team of theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryGlob {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any number of parts.
    Any,
    One(Vec<Piece>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Star,
    User,
    Team,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// More than a name may have.
    #[error("has more than 255 characters")]
    TooLong,
    /// Nothing between two slashes, or none at all.
    #[error("has an empty part: write it without a slash at its beginning or end, and without two in a row")]
    EmptyPart,
    /// `**` stands for whole parts.
    #[error("has ** beside other letters of a part: ** stands for whole parts, * for letters of one")]
    MixedStars,
    /// Something else between `${` and `}`.
    #[error("has a placeholder other than ${{user}} and ${{team}}")]
    Placeholder,
    /// No repository has such a letter.
    #[error("has a letter that no repository's name has: those are a-z, 0-9, '.', '_' and '-'")]
    Letter,
}

impl RepositoryGlob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.len() > LONGEST {
            return Err(GlobError::TooLong);
        }
        let parts = text.split('/').map(part).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), parts })
    }

    /// Whether it stands for a name, asked by this user for one of these teams. Whoever has no name, or one that no repository could have as a part, has no
    /// repository of it.
    #[must_use]
    pub fn matches(&self, repository: &str, user: Option<&str>, team: Option<&str>) -> bool {
        let names: Vec<_> = repository.split('/').collect();
        let who = [user, team].map(|name| name.filter(|name| !name.contains('/') && is_repository(name)));
        // Which beginnings of the name the pattern's first parts stand for.
        let mut reached = vec![false; names.len() + 1];
        reached[0] = true;
        for part in &self.parts {
            let mut next = vec![false; names.len() + 1];
            match part {
                Part::Any => {
                    let mut any = false;
                    for (next, reached) in next.iter_mut().zip(&reached) {
                        any |= reached;
                        *next = any;
                    }
                }
                Part::One(pieces) => {
                    for (at, name) in names.iter().enumerate() {
                        next[at + 1] = reached[at] && is_like(pieces, name, who);
                    }
                }
            }
            reached = next;
        }
        reached[names.len()] && !repository.is_empty()
    }
}

fn part(text: &str) -> Result<Part, GlobError> {
    match text {
        "" => return Err(GlobError::EmptyPart),
        "**" => return Ok(Part::Any),
        _ if text.contains("**") => return Err(GlobError::MixedStars),
        _ => {}
    }
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let end = rest.find(['*', '$']).unwrap_or(rest.len());
        let (piece, length) = match first {
            '*' => (Piece::Star, 1),
            '$' if rest.starts_with(USER) => (Piece::User, USER.len()),
            '$' if rest.starts_with(TEAM) => (Piece::Team, TEAM.len()),
            '$' => return Err(GlobError::Placeholder),
            _ => (Piece::Text(rest[..end].to_owned()), end),
        };
        if let Piece::Text(letters) = &piece
            && !letters.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
        {
            return Err(GlobError::Letter);
        }
        pieces.push(piece);
        rest = &rest[length..];
    }
    Ok(Part::One(pieces))
}

/// Whether the pieces stand for one part of a name. The last star that was met takes one letter more each time that what follows it does not fit.
fn is_like(pieces: &[Piece], name: &str, [user, team]: [Option<&str>; 2]) -> bool {
    let (mut piece, mut rest) = (0, name);
    let mut star: Option<(usize, &str)> = None;
    loop {
        let fits = match pieces.get(piece) {
            None if rest.is_empty() => return true,
            None => None,
            Some(Piece::Star) => {
                star = Some((piece + 1, rest));
                piece += 1;
                continue;
            }
            Some(Piece::Text(text)) => rest.strip_prefix(text.as_str()),
            Some(Piece::User) => user.and_then(|user| rest.strip_prefix(user)),
            Some(Piece::Team) => team.and_then(|team| rest.strip_prefix(team)),
        };
        if let Some(left) = fits {
            (piece, rest) = (piece + 1, left);
            continue;
        }
        let Some((after, from)) = star else { return false };
        let Some(letter) = from.chars().next() else { return false };
        rest = &from[letter.len_utf8()..];
        piece = after;
        star = Some((after, rest));
    }
}

impl fmt::Display for RepositoryGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for RepositoryGlob {
    type Error = GlobError;

    fn try_from(text: String) -> Result<Self, GlobError> {
        Self::parse(&text)
    }
}

impl From<RepositoryGlob> for String {
    fn from(glob: RepositoryGlob) -> Self {
        glob.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_stands_for_what_it_says() {
        for (pattern, yes, no) in [
            ("app", &["app"][..], &["ap", "apps", "app/x", "x/app"][..]),
            ("team/app", &["team/app"], &["team", "team/apps", "team/app/x"]),
            ("team/*", &["team/app", "team/x"], &["team", "team/a/b", "teams/a", "x/team/a"]),
            ("team/**", &["team/app", "team/a/b", "team"], &["teams/a", "x/team/a"]),
            ("**", &["a", "a/b", "a/b/c"], &[""]),
            ("**/base", &["base", "a/base", "a/b/base"], &["base/a", "abase"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a", "z", "a/zz", "b/a/z"]),
            ("*", &["a", "app"], &["a/b"]),
            ("*-dev", &["a-dev", "a-dev-dev"], &["dev", "a-dev2"]),
            ("app-*-x", &["app-1-x", "app-1-x-x", "app--x"], &["app-x", "app-1-y"]),
            ("users/${user}/**", &["users/ann/app", "users/ann/a/b"], &["users/ben/app", "users/annb/app"]),
            ("${user}", &["ann"], &["ben", "a", "anna"]),
            ("${user}-*", &["ann-1"], &["ann", "ben-1"]),
            ("${team}/**", &["red/app"], &["blue/app", "ann/app"]),
            ("*${team}", &["red", "ared", "redred"], &["reda"]),
        ] {
            let pattern = RepositoryGlob::parse(pattern).unwrap();
            for (names, matches) in [(yes, true), (no, false)] {
                for name in names {
                    assert_eq!(pattern.matches(name, Some("ann"), Some("red")), matches, "{pattern} {name}");
                }
            }
        }
    }

    #[test]
    fn who_has_no_name_that_a_repository_could_have_has_none_of_it() {
        let pattern = RepositoryGlob::parse("users/${user}/**").unwrap();
        for (user, name) in [
            (None, "users//a"),
            (None, "users/a/b"),
            (Some("a/b"), "users/a/b/c"),
            (Some(".."), "users/../c"),
            (Some("*"), "users/*/c"),
            (Some("Ann"), "users/Ann/c"),
            (Some(""), "users//c"),
        ] {
            assert!(!pattern.matches(name, user, None), "{user:?} {name}");
        }
        let of_a_team = RepositoryGlob::parse("${team}/app").unwrap();
        assert!(!of_a_team.matches("red/app", Some("red"), None));
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_rule() {
        for (text, rule) in [
            ("", GlobError::EmptyPart),
            ("/a", GlobError::EmptyPart),
            ("a/", GlobError::EmptyPart),
            ("a//b", GlobError::EmptyPart),
            ("a**", GlobError::MixedStars),
            ("***", GlobError::MixedStars),
            ("${USER}", GlobError::Placeholder),
            ("$user", GlobError::Placeholder),
            ("a${user", GlobError::Placeholder),
            ("App", GlobError::Letter),
            ("a:b", GlobError::Letter),
            ("a?", GlobError::Letter),
            ("{a,b}", GlobError::Letter),
            ("é", GlobError::Letter),
            (&"a".repeat(256), GlobError::TooLong),
        ] {
            assert_eq!(RepositoryGlob::parse(text), Err(rule), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_without_stars_stands_for_itself_alone(name in "[a-z]{1,3}(/[a-z]{1,3}){0,3}", other in "[a-z]{1,3}(/[a-z]{1,3}){0,3}") {
            let pattern = RepositoryGlob::parse(&name).unwrap();
            prop_assert!(pattern.matches(&name, None, None));
            prop_assert_eq!(pattern.matches(&other, None, None), name == other);
        }

        #[test]
        fn it_agrees_with_a_regular_expression(pattern in "([ab*]{1,4}|\\*\\*)(/([ab*]{1,4}|\\*\\*)){0,3}", name in "[ab]{1,4}(/[ab]{1,4}){0,4}") {
            let Ok(glob) = RepositoryGlob::parse(&pattern) else { return Ok(()) };
            // Each part with the slash before it.
            let parts = pattern.split('/').map(|part| match part {
                "**" => "(/[^/]+)*".to_owned(),
                part => format!("/{}", part.replace('*', "[^/]*")),
            });
            let expression = regex::Regex::new(&format!("^{}$", parts.collect::<String>())).unwrap();
            prop_assert_eq!(glob.matches(&name, None, None), expression.is_match(&format!("/{name}")));
        }
    }
}
