//! What somebody calls an image: `REPOSITORY`, `REPOSITORY:TAG` or `REPOSITORY@DIGEST`. Checked before it becomes part of a request.

use std::fmt;
use std::sync::LazyLock;

use private_registry_operator::access::is_repository;
use regex::Regex;

/// The tag that is meant by none.
const LATEST: &str = "latest";

static TAG: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"));
static DIGEST: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$"));

#[allow(clippy::expect_used, reason = "a pattern of our own; a test uses it")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// Repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository(String);

/// One image of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) repository: Repository,
    pub(crate) version: Version,
}

/// Which image of its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    Tag(String),
    Digest(String),
}

impl Repository {
    /// Reads a name; an address of the registry before it, as in an image name, is left out.
    pub(crate) fn parse(text: &str, addresses: &[String]) -> Result<Self, String> {
        let known = addresses.iter().find_map(|address| text.strip_prefix(address.as_str())?.strip_prefix('/'));
        let name = known.unwrap_or(text);
        if !is_repository(name) {
            return Err(format!(
                "{text:?} is no name of a repository: lower-case letters, digits and single . _ - between them, in parts with / between"
            ));
        }
        Ok(Self(name.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Reference {
    /// Reads a name; what is said of the repository goes for it as well.
    pub(crate) fn parse(text: &str, addresses: &[String]) -> Result<Self, String> {
        Self::parse_or(text, addresses, &Version::Tag(LATEST.to_owned()))
    }

    /// The same, with another version that is meant by none.
    pub(crate) fn parse_or(text: &str, addresses: &[String], none: &Version) -> Result<Self, String> {
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        // The colon of a port stands before a slash.
        let (name, tag) = match name.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => (before, Some(tag)),
            _ => (name, None),
        };
        let repository = Repository::parse(name, addresses)?;
        if let Some(tag) = tag.filter(|tag| !TAG.is_match(tag)) {
            return Err(format!("{tag:?} is no tag: letters, digits and . _ -, 128 at most"));
        }
        let version = match (digest, tag) {
            (Some(digest), _) if DIGEST.is_match(digest) => Version::Digest(digest.to_owned()),
            (Some(digest), _) => return Err(format!("{digest:?} is no digest: sha256: and 64 hexadecimal digits")),
            (None, Some(tag)) => Version::Tag(tag.to_owned()),
            (None, None) => none.clone(),
        };
        Ok(Self { repository, version })
    }
}

impl Version {
    /// What is read as a digest, and nothing else.
    pub(crate) fn digest(text: &str) -> Option<Self> {
        DIGEST.is_match(text).then(|| Self::Digest(text.to_owned()))
    }

    /// As it stands in a request.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Tag(text) | Self::Digest(text) => text,
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Version::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let addresses = ["10.96.0.9:5000".to_owned(), "team-a.shop.svc:5000".to_owned()];
        for (text, read) in [
            ("app", "app:latest".to_owned()),
            ("team/app", "team/app:latest".to_owned()),
            ("team/app:1.0_X", "team/app:1.0_X".to_owned()),
            ("a.b/c__d/e--f:1", "a.b/c__d/e--f:1".to_owned()),
            (&format!("team/app@{digest}"), format!("team/app@{digest}")),
            (&format!("team/app:1@{digest}"), format!("team/app@{digest}")),
            ("10.96.0.9:5000/team/app", "team/app:latest".to_owned()),
            ("team-a.shop.svc:5000/app:2", "app:2".to_owned()),
        ] {
            assert_eq!(Reference::parse(text, &addresses).map(|found| found.to_string()), Ok(read), "{text}");
        }
    }

    #[test]
    fn what_would_change_a_request_is_refused() {
        for text in [
            "",
            "/",
            "App",
            "app/",
            "/app",
            "a//b",
            "../app",
            "a/../b",
            "app:",
            "app:a b",
            "app:-a",
            "app@",
            "app@sha256:0",
            "app@sha256:../x",
            "app?n=1",
            "app#a",
            "app\r\nHost: b",
            "app:1:2",
            "elsewhere.test:5000/app",
            "a___b",
            "app%2f",
            &"a".repeat(256),
            &format!("app:{}", "a".repeat(129)),
            "https://registry.example.com/app",
        ] {
            assert!(Reference::parse(text, &[]).is_err(), "{text:?}");
        }
    }
}
