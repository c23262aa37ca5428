//! What nginx asks: the path of a request. Only what is written as clients write it is understood; everything else is for the registry.

use crate::access::is_repository;

/// A blob or a manifest that somebody wants to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question<'a> {
    /// The repository's name, which is also its folder.
    pub(super) repository: &'a str,
    /// What of it.
    pub(super) wanted: Wanted<'a>,
}

/// What is wanted of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted<'a> {
    /// A blob.
    Blob(Digest<'a>),
    /// The manifest of this digest.
    Manifest(Digest<'a>),
    /// The manifest that a tag stands for.
    Tag(&'a str),
}

/// The hexadecimal part of a SHA-256 digest: 64 lower-case letters. nginx sends no other kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest<'a>(&'a str);

impl<'a> Digest<'a> {
    /// Reads `sha256:` and the digest.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (hex.len() == 64 && hex.bytes().all(is_hex)).then_some(Self(hex))
    }

    /// The letters.
    pub(super) fn hex(self) -> &'a str {
        self.0
    }
}

impl<'a> Question<'a> {
    /// Reads a path, which has no query.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let (rest, reference) = path.strip_prefix("/v2/")?.rsplit_once('/')?;
        let (repository, kind) = rest.rsplit_once('/')?;
        let wanted = match kind {
            "blobs" => Wanted::Blob(Digest::parse(reference)?),
            "manifests" if reference.contains(':') => Wanted::Manifest(Digest::parse(reference)?),
            "manifests" if is_tag(reference) => Wanted::Tag(reference),
            _ => return None,
        };
        is_repository(repository).then_some(Self { repository, wanted })
    }
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_clients_write_is_understood() {
        let hex = "0123456789abcdef".repeat(4);
        let digest = format!("sha256:{hex}");
        let wanted = Digest::parse(&digest).unwrap();
        let asks = |repository, wanted| Some(Question { repository, wanted });
        for (path, question) in [
            (format!("/v2/app/blobs/{digest}"), asks("app", Wanted::Blob(wanted))),
            (format!("/v2/team-a/app_1.x/blobs/{digest}"), asks("team-a/app_1.x", Wanted::Blob(wanted))),
            (format!("/v2/blobs/blobs/blobs/{digest}"), asks("blobs/blobs", Wanted::Blob(wanted))),
            (format!("/v2/app/manifests/{digest}"), asks("app", Wanted::Manifest(wanted))),
            ("/v2/app/manifests/v1.0-Rc_1".to_owned(), asks("app", Wanted::Tag("v1.0-Rc_1"))),
            ("/v2/app/manifests/_x".to_owned(), asks("app", Wanted::Tag("_x"))),
            (format!("/v2/app/manifests/{}", "t".repeat(128)), asks("app", Wanted::Tag(&"t".repeat(128)))),
            (format!("/v2/app/manifests/{}", "t".repeat(129)), None),
            ("/v2/app/manifests/.".to_owned(), None),
            ("/v2/app/manifests/..".to_owned(), None),
            ("/v2/app/manifests/-x".to_owned(), None),
            ("/v2/app/manifests/".to_owned(), None),
            ("/v2/app/manifests/a%2e".to_owned(), None),
            ("/v2/app/manifests/latest/".to_owned(), None),
            ("/v2/app/blobs/latest".to_owned(), None),
            ("/v2/app/blobs/uploads/".to_owned(), None),
            (format!("/v2/app/blobs/sha256:{}", hex.to_uppercase()), None),
            (format!("/v2/app/blobs/sha256:{}", &hex[1..]), None),
            (format!("/v2/app/blobs/sha512:{hex}"), None),
            (format!("/v2/app/manifests/sha256:{}", "../".repeat(21)), None),
            (format!("/v2/../blobs/{digest}"), None),
            (format!("/v2/a/../b/blobs/{digest}"), None),
            (format!("/v2/a..b/blobs/{digest}"), None),
            (format!("/v2/a//b/blobs/{digest}"), None),
            (format!("/v2//blobs/{digest}"), None),
            (format!("/v2/blobs/{digest}"), None),
            (format!("/v2/a/_layers/blobs/{digest}"), None),
            (format!("/v2/App/blobs/{digest}"), None),
            (format!("/v2/a\0/blobs/{digest}"), None),
            (format!("/v2/{}/blobs/{digest}", "a".repeat(256)), None),
            (format!("/v1/app/blobs/{digest}"), None),
            ("/v2/".to_owned(), None),
            ("/v2/_catalog".to_owned(), None),
            ("/v2/app/tags/list".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(Question::parse(&path), question, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_a_repository(path in "/v2/[a-z./_%-]{0,12}/(manifests|blobs)/[a-z./_:%-]{0,12}") {
            if let Some(Question { repository, wanted }) = Question::parse(&path) {
                for part in repository.split('/') {
                    prop_assert!(!part.is_empty() && !part.starts_with(['.', '_']), "{path}");
                }
                if let Wanted::Tag(tag) = wanted {
                    prop_assert!(!tag.contains('/') && !tag.starts_with('.'), "{path}");
                }
            }
        }
    }
}
