//! `load`: images come out of a file or a folder into a registry. What is there already is not sent; what is not what its digest says is not taken.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::json;

use crate::access::Access;
use crate::archive::{Archive, DOCKER_MANIFEST, DockerImage, FULL_NAME, INDEX, REF_NAME, blob_path, docker};
use crate::filesystem::Packed;
use crate::output::Form;
use crate::prepared::{Done, Prepared, agree};
use crate::registry_client::Client;
use crate::registry_client::blobs::Blob;
use crate::registry_client::connection::Way;
use crate::registry_client::digest::{self, Hasher};
use crate::registry_client::manifest::{Descriptor, Found, MOST_CONFIG, MOST_MANIFEST};
use crate::registry_client::reference::{Reference, Version};
use crate::registry_client::tree::{self, Shelf, Tree};
use crate::{cluster, shell};

/// Images of an archive.
const MOST_IMAGES: usize = 1000;

/// Options of `load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// What it is called in the registry, if there is one image; else, and without it, as the archive says
    #[arg(value_name = "REPOSITORY[:TAG]")]
    image: Option<String>,
    /// An archive of docker save, podman save, skopeo or kubectl registry save, also packed with gzip; a folder of the OCI's layout; - for standard input
    #[arg(short, long, value_name = "FILE|FOLDER|-")]
    input: PathBuf,
    /// How to print what was loaded
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

/// The OCI's table of contents.
#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// What is in an archive under a name.
enum Kept {
    Layout(Descriptor),
    Docker(DockerImage),
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::transfer(async {
        let opened = options.access.open().await?;
        let archive = Archive::open(&options.input)?;
        let addresses = opened.addresses();
        let done = load(&opened.client, &archive, options.image.as_deref(), &addresses).await?;
        shell::print(&Done::all_told(&done, options.output)?);
        Ok(())
    })
}

/// Sends every image of an archive.
async fn load<W: Way + Clone>(
    client: &Client<W>,
    archive: &Archive,
    called: Option<&str>,
    addresses: &[String],
) -> Result<Vec<Done>> {
    let images = images(archive)?;
    if images.len() > 1 && called.is_some() {
        bail!("there are {} images in it, which cannot have one name: leave it out", images.len());
    }
    // All names are read before anything is sent.
    let mut named = Vec::new();
    for (names, kept) in images {
        let references = references(&names, called, addresses)?;
        named.push((references, kept));
    }
    let mut done = Vec::new();
    for (references, kept) in named {
        let prepared = match kept {
            Kept::Layout(descriptor) => Prepared::of_layout(archive, &descriptor).await?,
            Kept::Docker(image) => Prepared::of_docker(archive, &image).await?,
        };
        for reference in references {
            let outcome = prepared.send(client, &reference).await?;
            let digest = prepared.tree.root()?.digest.clone();
            let repository = reference.repository.to_string();
            done.push(Done { reference: reference.to_string(), repository, digest, outcome });
        }
    }
    Ok(done)
}

/// The images of an archive, with the names that it gives them.
fn images(archive: &Archive) -> Result<Vec<(Vec<String>, Kept)>> {
    let read = |name: &str| archive.text(name, MOST_MANIFEST);
    let found: Vec<_> = if let Some(text) = read(INDEX)? {
        let index: Index = parsed(&text, INDEX)?;
        let name = |of: &Descriptor| {
            let annotations = of.annotations.clone().unwrap_or_default();
            annotations.get(FULL_NAME).or_else(|| annotations.get(REF_NAME)).cloned()
        };
        index.manifests.into_iter().map(|of| (name(&of).into_iter().collect(), Kept::Layout(of))).collect()
    } else {
        let text = read(DOCKER_MANIFEST)?.with_context(|| format!("there is no {DOCKER_MANIFEST} in it"))?;
        let table: Vec<DockerImage> = parsed(&text, DOCKER_MANIFEST)?;
        table.into_iter().map(|of| (of.repo_tags.clone().unwrap_or_default(), Kept::Docker(of))).collect()
    };
    match found.len() {
        0 => bail!("there is no image in it"),
        1..=MOST_IMAGES => Ok(found),
        more => bail!("there are {more} images in it, which this command does not take"),
    }
}

/// What is wrong with a text is said without repeating it.
fn parsed<T: serde::de::DeserializeOwned>(text: &[u8], name: &str) -> Result<T> {
    serde_json::from_slice(text)
        .map_err(|error| anyhow!("{name} is not what it should be (line {}, column {})", error.line(), error.column()))
}

/// What an image is called in the registry.
fn references(names: &[String], called: Option<&str>, addresses: &[String]) -> Result<Vec<Reference>> {
    // A name may be a tag alone.
    let tag = names.iter().find_map(|name| match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => Some(tag.to_owned()),
        None if !name.contains('/') => Some(name.clone()),
        _ => None,
    });
    if let Some(called) = called {
        let tag = Version::Tag(tag.unwrap_or_else(|| "latest".to_owned()));
        return Ok(vec![Reference::parse_or(called, addresses, &tag).map_err(anyhow::Error::msg)?]);
    }
    let full: Vec<_> = names.iter().filter(|name| name.contains([':', '/'])).collect();
    if full.is_empty() {
        bail!("the archive does not say what the image is called: give a name behind the registry's");
    }
    full.into_iter().map(|name| Reference::parse(without_host(name), addresses).map_err(anyhow::Error::msg)).collect()
}

/// What is behind the registry's address: that is what has a dot or a colon, or is `localhost`.
fn without_host(name: &str) -> &str {
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
        _ => name,
    }
}

struct Layout<'a>(&'a Archive);

impl Shelf for Layout<'_> {
    async fn manifest(&mut self, of: &Descriptor) -> Result<Option<Found>> {
        if Version::digest(&of.digest).is_none() {
            bail!("{:?} is no digest", of.digest);
        }
        let Some(text) = self.0.text(&blob_path(&of.digest), MOST_MANIFEST)? else { return Ok(None) };
        same(&text, &of.digest)?;
        Found::read(of.digest.clone(), &of.media_type, text).map(Some)
    }
}

/// Whether what an archive has is what it is called.
fn same(bytes: &[u8], digest: &str) -> Result<()> {
    let mut hasher = Hasher::like(digest)?;
    hasher.update(bytes);
    agree(hasher, digest)
}

impl Prepared {
    async fn of_layout(archive: &Archive, root: &Descriptor) -> Result<Self> {
        let mut shelf = Layout(archive);
        let root = shelf.manifest(root).await?.with_context(|| format!("{} is missing in it", root.digest))?;
        let mut tree = tree::grow(&mut shelf, root).await?;
        let mut contents = Vec::new();
        let mut blobs = Vec::new();
        for blob in tree.blobs {
            let Some(content) = archive.content(&blob_path(&blob.digest))? else {
                if blob.is_foreign {
                    continue;
                }
                bail!("{} is missing in it, which a manifest points to", blob.digest);
            };
            if content.size != blob.size {
                bail!("{} has {} bytes in it instead of {}", blob.digest, content.size, blob.size);
            }
            contents.push(content);
            blobs.push(blob);
        }
        tree.blobs = blobs;
        Ok(Self { tree, contents })
    }

    /// Makes the manifest that `docker push` would make.
    async fn of_docker(archive: &Archive, image: &DockerImage) -> Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Config {
            rootfs: RootFs,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct RootFs {
            diff_ids: Vec<String>,
        }
        let missing = |name: &str| format!("{name} is missing in it, which {DOCKER_MANIFEST} points to");
        let config = archive.content(&image.config)?.with_context(|| missing(&image.config))?;
        let text = archive.text(&image.config, MOST_CONFIG)?.with_context(|| missing(&image.config))?;
        // Its name is its digest.
        let name = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        let config_digest = digest::sha256(&text);
        if name.len() == 64 && format!("sha256:{name}") != config_digest {
            same(&text, &format!("sha256:{name}"))?;
        }
        let diff_ids = parsed::<Config>(&text, &image.config)?.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            bail!("the image has {} layers, of which {} are in it", diff_ids.len(), image.layers.len());
        }
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(&diff_ids) {
            let layer = archive.content(name)?.with_context(|| missing(name))?;
            let (name, diff_id) = (name.clone(), diff_id.clone());
            let packed = tokio::task::spawn_blocking(move || docker::pack(&layer, &name, &diff_id));
            layers.push(packed.await.context("pack a layer")??);
        }
        let descriptor = |kind: &str, blob: &Blob| json!({"mediaType": kind, "size": blob.size, "digest": blob.digest});
        let config_blob = Blob { digest: config_digest, size: text.len() as u64, is_foreign: false };
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let of_layer = |layer: &Packed| descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer.blob);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": descriptor("application/vnd.docker.container.image.v1+json", &config_blob),
            "layers": layers.iter().map(of_layer).collect::<Vec<_>>(),
        });
        let bytes = serde_json::to_vec(&manifest).context("write JSON")?;
        let found = Found::read(digest::sha256(&bytes), kind, bytes)?;
        let mut tree = Tree { manifests: vec![found], blobs: vec![config_blob] };
        let mut contents = vec![config];
        for layer in layers {
            // The same layer may be there several times.
            if tree.blobs.iter().all(|blob| blob.digest != layer.blob.digest) {
                tree.blobs.push(layer.blob);
                contents.push(layer.content);
            }
        }
        Ok(Self { tree, contents })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::archive::Writer;
    use crate::registry_client::store::Store;
    use crate::save::tests::saved;

    async fn loaded(store: &Store, path: &std::path::Path, called: Option<&str>) -> Result<Vec<Done>> {
        load(&store.client(), &Archive::open(path)?, called, &[]).await
    }

    fn same(from: &Store, to: &Store) {
        let (from, to) = (from.held(), to.held());
        assert_eq!((&from.manifests, &from.tags, &from.blobs), (&to.manifests, &to.tags, &to.blobs));
    }

    fn index(store: &Store) -> String {
        let amd = store.image("team/app", None, "amd64", &[&[1; 9000], b"", b"amd"]);
        let arm = store.image("team/app", None, "arm64", &[&[1; 9000], b"arm"]);
        store.index("team/app", "1", &[amd, arm])["digest"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn what_is_saved_and_loaded_is_the_same() {
        let home = tempfile::tempdir().unwrap();
        let from = Store::default();
        let digest = index(&from);
        from.image("other", Some("2"), "amd64", &[b"x"]);
        let (file, folder) = (home.path().join("a.tar"), home.path().join("folder"));
        let mut writer = Writer::file(&file).unwrap();
        saved(&from, &["team/app:1", "other:2"], &mut writer).await.unwrap();
        writer.finish().unwrap();
        saved(&from, &["team/app:1", "other:2"], &mut Writer::folder(&folder).unwrap()).await.unwrap();
        let packed = home.path().join("a.tar.gz");
        let mut packer = flate2::write::GzEncoder::new(fs::File::create(&packed).unwrap(), flate2::Compression::fast());
        std::io::copy(&mut fs::File::open(&file).unwrap(), &mut packer).unwrap();
        packer.finish().unwrap();

        for path in [&file, &folder, &packed] {
            let to = Store::default();
            let done = loaded(&to, path, None).await.unwrap();
            let names: Vec<_> = done.iter().map(|one| one.reference.as_str()).collect();
            assert_eq!((names, &done[0].digest), (vec!["team/app:1", "other:2"], &digest));
            same(&from, &to);
            let again = loaded(&to, path, None).await.unwrap();
            assert_eq!((again[0].outcome.copied, again[0].outcome.present), (0, 6), "{}", path.display());
        }
    }

    #[tokio::test]
    async fn what_is_missing_or_changed_in_an_archive_is_said_and_nothing_has_a_name() {
        let home = tempfile::tempdir().unwrap();
        let from = Store::default();
        index(&from);
        let folder = home.path().join("folder");
        saved(&from, &["team/app:1"], &mut Writer::folder(&folder).unwrap()).await.unwrap();
        let layer = folder.join(blob_path(&digest::sha256([1; 9000])));
        let root = folder.join(blob_path(&from.held().tags[&("team/app".to_owned(), "1".to_owned())]));
        for (file, content, words) in [
            (&layer, Some([2; 9000].to_vec()), "it is damaged, or somebody changed it"),
            (&layer, Some(vec![1; 8999]), "has 8999 bytes in it instead of 9000"),
            (&layer, None, "is missing in it, which a manifest points to"),
            (&root, Some(b"{}".to_vec()), "it is damaged, or somebody changed it"),
            (&root, None, "is missing in it"),
            (
                &folder.join(INDEX),
                Some(b"{\"manifests\": [{\"digest\": \"sha256:../../../etc/passwd\"}]}".to_vec()),
                "does not say what",
            ),
            (&folder.join(INDEX), Some(b"planted".to_vec()), "index.json is not what it should be"),
            (&folder.join(INDEX), Some(b"{}".to_vec()), "there is no image in it"),
        ] {
            let before = fs::read(file).unwrap();
            match &content {
                Some(content) => fs::write(file, content).unwrap(),
                None => fs::remove_file(file).unwrap(),
            }
            let to = Store::default();
            let error = format!("{:#}", loaded(&to, &folder, None).await.err().unwrap());
            assert!(error.contains(words) && !error.contains("planted"), "{words}: {error}");
            assert!(to.held().tags.is_empty() && to.held().manifests.is_empty(), "{words}");
            assert!(to.held().blobs.values().all(|blob| blob.len() < 8999), "{words}");
            fs::write(file, before).unwrap();
        }
        let outside = "{\"manifests\": [{\"digest\": \"sha256:../../../etc/passwd\"}]}";
        fs::write(folder.join(INDEX), outside).unwrap();
        let error = format!("{:#}", loaded(&Store::default(), &folder, Some("a:1")).await.err().unwrap());
        assert!(error.contains("is no digest"), "{error}");
    }

    /// An archive as `docker save` wrote it before it knew the OCI's layout.
    fn docker_archive(
        layers: &[&[u8]],
        change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>,
    ) -> (tempfile::NamedTempFile, String) {
        let diff_ids: Vec<_> = layers.iter().map(digest::sha256).collect();
        let config =
            json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
                .to_string();
        let id = digest::sha256(&config);
        let name = format!("{}.json", &id[7..]);
        let names: Vec<_> = (0..layers.len()).map(|number| format!("{number:064}/layer.tar")).collect();
        let table = json!([{"Config": name, "RepoTags": ["docker.io/library/app:1", "10.0.0.1:5000/team/app:2"], "Layers": names}]);
        let mut entries: Vec<_> = names.into_iter().zip(layers.iter().map(|layer| layer.to_vec())).collect();
        entries.push((name, config.into_bytes()));
        entries.push((DOCKER_MANIFEST.to_owned(), table.to_string().into_bytes()));
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(file.as_file());
        for (name, content) in entries {
            let Some(content) = change(&name, content) else { continue };
            let mut head = tar::Header::new_ustar();
            head.set_size(content.len() as u64);
            builder.append_data(&mut head, &name, &content[..]).unwrap();
        }
        builder.finish().unwrap();
        drop(builder);
        (file, id)
    }

    #[tokio::test]
    async fn older_archives_of_docker_keep_the_identity_of_the_image() {
        let layers = [&b"content".repeat(1000)[..], b"", b"more", b""];
        let (file, id) = docker_archive(&layers, |_, content| Some(content));
        let to = Store::default();
        let done = loaded(&to, file.path(), None).await.unwrap();
        assert_eq!(done.iter().map(|one| one.reference.as_str()).collect::<Vec<_>>(), ["library/app:1", "team/app:2"]);
        let (_, manifest) = to.held().manifests[&("team/app".to_owned(), done[1].digest.clone())].clone();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["config"]["digest"], id);
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 4);
        assert_eq!(manifest["layers"][1], manifest["layers"][3]);
        let again = loaded(&to, file.path(), None).await.unwrap();
        assert_eq!((again[1].outcome.copied, &again[1].digest), (0, &done[1].digest));
    }

    #[tokio::test]
    async fn older_archives_with_faults_are_refused() {
        type Change = fn(&str, Vec<u8>) -> Option<Vec<u8>>;
        let layer: Change =
            |name, content| if name.starts_with("0000") { Some(b"changed".to_vec()) } else { Some(content) };
        let gone: Change = |name, content| (!name.starts_with("0000")).then_some(content);
        let config: Change =
            |name, content| Some(if name.ends_with(".json") && name.len() > 60 { b"{}".to_vec() } else { content });
        let outside: Change = |name, content| {
            let outside = br#"[{"Config": "../../../../etc/passwd", "Layers": ["/etc/shadow"], "RepoTags": ["a:1"]}]"#;
            Some(if name == DOCKER_MANIFEST { outside.to_vec() } else { content })
        };
        let fewer: Change = |name, content| {
            let text = String::from_utf8(content).unwrap();
            Some(if name == DOCKER_MANIFEST {
                text.replace(&format!("\"{:064}/layer.tar\"", 0), "").into()
            } else {
                text.into()
            })
        };
        for (change, words) in [
            (layer, "instead of sha256:"),
            (gone, "is missing in it, which manifest.json points to"),
            (config, "somebody changed it"),
            (outside, "../../../../etc/passwd is missing in it"),
            (fewer, "the image has 1 layers, of which 0 are in it"),
        ] {
            let (file, _) = docker_archive(&[b"content"], change);
            let to = Store::default();
            let error = format!("{:#}", loaded(&to, file.path(), None).await.err().unwrap());
            assert!(error.contains(words), "{words}: {error}");
            assert!(to.held().tags.is_empty() && to.held().blobs.is_empty(), "{words}");
        }
    }

    #[test]
    fn names_lose_their_host_and_get_what_they_lack() {
        let addresses = ["r.test:5000".to_owned()];
        for (names, called, found) in [
            (&["docker.io/library/app:1"][..], None, Ok("library/app:1")),
            (&["r.test:5000/team/app:1"], None, Ok("team/app:1")),
            (&["localhost/app"], None, Ok("app:latest")),
            (&["team/app:1"], None, Ok("team/app:1")),
            (&["app:1"], None, Ok("app:1")),
            (&["1.4"], Some("team/app"), Ok("team/app:1.4")),
            (&["elsewhere.test/app:1.4"], Some("r.test:5000/team/app"), Ok("team/app:1.4")),
            (&[], Some("team/app"), Ok("team/app:latest")),
            (&["x:1"], Some("team/app:2"), Ok("team/app:2")),
            (&["1.4"], None, Err("does not say what the image is called")),
            (&[], None, Err("does not say what the image is called")),
            (&["../../app:1"], None, Err("is no name of a repository")),
            (&["App:1"], None, Err("is no name of a repository")),
        ] {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let read = references(&names, called, &addresses);
            match found {
                Ok(found) => assert_eq!(read.unwrap()[0].to_string(), found, "{names:?} {called:?}"),
                Err(words) => assert!(read.unwrap_err().to_string().contains(words), "{names:?} {called:?}"),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn whatever_an_image_holds_a_round_trip_keeps_it(layers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..5)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (from, to) = (Store::default(), Store::default());
                let home = tempfile::tempdir().unwrap();
                let layers: Vec<_> = layers.iter().map(Vec::as_slice).collect();
                from.image("a", Some("1"), "amd64", &layers);
                let file = home.path().join("a.tar");
                let mut writer = Writer::file(&file).unwrap();
                saved(&from, &["a:1"], &mut writer).await.unwrap();
                writer.finish().unwrap();
                loaded(&to, &file, None).await.unwrap();
                same(&from, &to);
            });
        }
    }
}
