//! What lies on a registry's volume, read as the registry reads it: a repository has what it has a link to
//! (<https://github.com/distribution/distribution/blob/v3.1.1/registry/storage/paths.go>).

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::question::{Digest, Question, Wanted};

/// Bytes of the largest manifest that is answered here: few have more. It lies in the socket as a whole, so that no client gets half of one whose sidecar ends.
const LARGEST: u64 = 128 << 10;
/// Bytes of a link: `sha256:` and 64 letters.
const LINK: usize = 71;

/// What a manifest may be. What the registry says of another kind depends on more than its text.
const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// A manifest as it was pushed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    /// With its algorithm.
    pub(super) digest: String,
    /// What it says it is.
    pub(super) media_type: &'static str,
    /// Its text.
    pub(super) text: Vec<u8>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The repository has the blob.
    Blob,
    /// The repository has the manifest.
    Manifest(Manifest),
}

/// The registry's part of the volume. Reads only.
#[derive(Debug, Clone)]
pub(super) struct Volume(PathBuf);

impl Volume {
    /// Where the registry was told to keep its data.
    pub(super) fn new(root: &std::path::Path) -> Self {
        Self(root.join("docker/registry/v2"))
    }

    /// Looks for what is wanted. `None`: it is not there, cannot be read, or is nothing that is answered here.
    pub(super) fn find(&self, Question { repository, wanted }: &Question<'_>) -> Option<Found> {
        let repository = self.0.join("repositories").join(repository);
        let leads_to = |link: &str, digest: Digest<'_>| {
            let link = repository.join(link).join(digest.hex()).join("link");
            Digest::parse(&link_text(link)?).filter(|read| *read == digest).map(drop)
        };
        let current;
        let digest = match *wanted {
            Wanted::Blob(digest) => return leads_to("_layers/sha256", digest).map(|()| Found::Blob),
            Wanted::Manifest(digest) => digest,
            Wanted::Tag(tag) => {
                current = link_text(repository.join("_manifests/tags").join(tag).join("current/link"))?;
                Digest::parse(&current)?
            }
        };
        leads_to("_manifests/revisions/sha256", digest)?;
        self.manifest(digest).map(Found::Manifest)
    }

    fn manifest(&self, digest: Digest<'_>) -> Option<Manifest> {
        let hex = digest.hex();
        let file = File::open(self.0.join("blobs/sha256").join(&hex[..2]).join(hex).join("data")).ok()?;
        let size = file.metadata().ok().map(|facts| facts.len()).filter(|size| *size <= LARGEST)?;
        let mut text = Vec::with_capacity(size as usize);
        file.take(size).read_to_end(&mut text).ok()?;
        let Kind(said) = serde_json::from_slice(&text).ok()?;
        let media_type = MEDIA_TYPES.into_iter().find(|known| *known == said)?;
        Some(Manifest { digest: format!("sha256:{hex}"), media_type, text })
    }
}

/// What a link's file says. A registry that is just writing it has written less.
fn link_text(link: PathBuf) -> Option<String> {
    let mut text = String::new();
    File::open(link).ok()?.take(LINK as u64 + 1).read_to_string(&mut text).ok()?;
    (text.len() == LINK).then_some(text)
}

/// What a manifest of version 2 says it is: the value of `mediaType`. Both stand there once, with keys of exactly these letters. The registry's reader takes
/// a key in any case, and the last of several.
struct Kind(String);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one mediaType and one schemaVersion")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let (mut said, mut version) = (None, None);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match key.as_ref() {
                "mediaType" if said.is_none() => said = Some(map.next_value()?),
                "schemaVersion" if version.is_none() => version = Some(map.next_value::<u32>()?),
                other if ["mediaType", "schemaVersion"].iter().any(|ours| other.eq_ignore_ascii_case(ours)) => {
                    return Err(serde::de::Error::custom("it is not clear which of two counts"));
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        let said = said.filter(|_| version == Some(2));
        said.map(Kind).ok_or_else(|| serde::de::Error::custom("it does not say what it is"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const INDEX: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join("docker/registry/v2").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn finds(&self, path: &str) -> Option<Found> {
            Volume::new(self.0.path()).find(&Question::parse(path).unwrap())
        }
    }

    fn digest(letter: char) -> (String, String) {
        let hex = letter.to_string().repeat(64);
        (format!("sha256:{hex}"), hex)
    }

    #[test]
    fn a_blob_is_there_where_its_link_is() {
        let (disk, (blob, hex), (other, _)) = (Disk::new(), digest('a'), digest('b'));
        let (path, link) =
            (format!("/v2/team/app/blobs/{blob}"), format!("repositories/team/app/_layers/sha256/{hex}/link"));
        assert_eq!(disk.finds(&path), None);
        disk.write(&format!("blobs/sha256/aa/{hex}/data"), "blob");
        assert_eq!(disk.finds(&path), None, "a blob of another repository");
        for (text, found) in [
            (blob.as_str(), Some(Found::Blob)),
            (&other, None),
            (&blob[..70], None),
            ("", None),
            (&format!("{blob}\n"), None),
        ] {
            disk.write(&link, text);
            assert_eq!(disk.finds(&path), found, "{text}");
        }
    }

    #[test]
    fn a_manifest_is_there_where_its_revision_is_whoever_asks() {
        let (disk, (name, hex)) = (Disk::new(), digest('c'));
        let [by_digest, by_tag] = [&name, "1"].map(|reference| format!("/v2/app/manifests/{reference}"));
        let manifest = || {
            let media_type = "application/vnd.oci.image.index.v1+json";
            Some(Found::Manifest(Manifest { digest: name.clone(), media_type, text: INDEX.into() }))
        };
        disk.write("repositories/app/_manifests/tags/1/current/link", &name);
        disk.write(&format!("blobs/sha256/cc/{hex}/data"), INDEX);
        for path in [&by_digest, &by_tag] {
            assert_eq!(disk.finds(path), None, "without a revision");
        }
        disk.write(&format!("repositories/app/_manifests/revisions/sha256/{hex}/link"), &name);
        for path in [&by_digest, &by_tag] {
            assert_eq!(disk.finds(path), manifest(), "{path}");
        }
        assert_eq!(disk.finds("/v2/app/manifests/2"), None);
        assert_eq!(disk.finds(&format!("/v2/app/blobs/{name}")), None, "a manifest is no layer");
    }

    #[test]
    fn a_manifest_that_does_not_say_clearly_what_it_is_is_the_registrys() {
        let (disk, (name, hex)) = (Disk::new(), digest('d'));
        let image = MEDIA_TYPES[0];
        disk.write(&format!("repositories/app/_manifests/revisions/sha256/{hex}/link"), &name);
        for (text, is_clear) in [
            (format!(r#"{{"schemaVersion":2,"mediaType":"{image}","layers":[{{"mediaType":"x"}}]}}"#), true),
            (format!(r#"{{"layers":[],"mediaType":"{image}","schemaVersion":2}}"#), true),
            (format!(r#"{{"schemaVersion":2,"media\u0054ype":"{image}"}}"#), true),
            (format!(r#"{{"schemaVersion":2,"mediatype":"{image}"}}"#), false),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{image}","MediaType":"other"}}"#), false),
            (format!(r#"{{"schemaVersion":2,"MEDIATYPE":"other","mediaType":"{image}"}}"#), false),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{image}","mediaType":"{image}"}}"#), false),
            (format!(r#"{{"mediaType":"{image}"}}"#), false),
            (format!(r#"{{"schemaVersion":1,"mediaType":"{image}"}}"#), false),
            (format!(r#"{{"schemaVersion":"2","mediaType":"{image}"}}"#), false),
            (format!(r#"{{"schemaVersion":2,"SchemaVersion":1,"mediaType":"{image}"}}"#), false),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{image}"}} and more"#), false),
            (format!(r#"{{"schemaVersion":2,"mediaType":["{image}"]}}"#), false),
            (format!(r#"["{image}"]"#), false),
            (
                r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}"#.to_owned(),
                false,
            ),
            (r#"{"schemaVersion":2,"mediaType":"text/html"}"#.to_owned(), false),
            (r#"{"schemaVersion":2}"#.to_owned(), false),
            (format!(r#"{{"schemaVersion":2,"mediaType":"{image}","a":"{}"}}"#, "x".repeat(LARGEST as usize)), false),
            (String::new(), false),
        ] {
            disk.write(&format!("blobs/sha256/dd/{hex}/data"), &text);
            let found = disk.finds(&format!("/v2/app/manifests/{name}"));
            assert_eq!(found.is_some(), is_clear, "{}", &text[..text.len().min(100)]);
        }
    }
}
