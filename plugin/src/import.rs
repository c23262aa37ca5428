//! `import`: a tar archive of files becomes an image of one layer.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::access::Access;
use crate::aside::aside;
use crate::configuration::{self, Changes, Step};
use crate::filesystem::{Packed, read_in};
use crate::output::Form;
use crate::platform::{self, Named};
use crate::prepared::{Done, Prepared};
use crate::registry_client::blobs::Blob;
use crate::registry_client::digest;
use crate::registry_client::manifest::Found;
use crate::registry_client::reference::{Reference, Version};
use crate::registry_client::tree::Tree;
use crate::{cluster, shell};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Options of `import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// A tar archive, also packed with gzip or zstd; - for standard input
    #[arg(value_name = "FILE|-")]
    input: PathBuf,
    /// What the image is called in the registry; without tag, latest
    #[arg(value_name = "REPOSITORY[:TAG]")]
    image: String,
    /// What it runs on [default: this machine's]
    #[arg(long, value_name = "OS/ARCHITECTURE", value_parser = platform::parse)]
    platform: Option<Named>,
    #[command(flatten)]
    changes: Changes,
    /// How to print what was made
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let path = options.input.clone();
    let is_stdin = path == Path::new("-");
    if is_stdin && io::stdin().is_terminal() {
        bail!("an archive does not come from a terminal: give a file, or a program before |");
    }
    let platform = match &options.platform {
        Some(platform) => platform.clone(),
        None => platform::parse(&platform::here()).map_err(anyhow::Error::msg)?,
    };
    cluster::transfer(async {
        let opened = options.access.open().await?;
        let reference = tagged(&options.image, &opened.addresses())?;
        let what = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
        let layer = aside(move |wanted| {
            let source: Box<dyn Read + Send> =
                if is_stdin { Box::new(io::stdin()) } else { Box::new(File::open(&path)?) };
            read_in(source, wanted)
        });
        let layer = layer.await.with_context(|| format!("read {what}"))?;
        let prepared = prepare(&layer, &platform, &options.changes)?;
        let outcome = prepared.send(&opened.client, &reference).await?;
        let digest = prepared.tree.root()?.digest.clone();
        let repository = reference.repository.to_string();
        let done = Done { reference: reference.to_string(), repository, digest, outcome };
        shell::print(&done.told(options.output)?);
        Ok(())
    })
}

/// What an image is called that does not exist yet.
pub(crate) fn tagged(text: &str, addresses: &[String]) -> Result<Reference> {
    let reference = Reference::parse(text, addresses).map_err(anyhow::Error::msg)?;
    match reference.version {
        Version::Tag(_) => Ok(reference),
        Version::Digest(_) => bail!("the digest of an image is known when it is made: give {text:?} a tag instead"),
    }
}

/// An image of this layer alone.
fn prepare(layer: &Packed, platform: &Named, changes: &Changes) -> Result<Prepared> {
    let step = Step { made_by: "kubectl registry import", author: None, message: None };
    let config = changes.apply(configuration::empty(platform), &layer.diff_id, &step)?;
    let (config, text) = configuration::blob(&config)?;
    let descriptor = |kind: &str, blob: &Blob| json!({"mediaType": kind, "digest": blob.digest, "size": blob.size});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config),
        "layers": [descriptor(LAYER, &layer.blob)],
    });
    let bytes = serde_json::to_vec(&manifest).context("write JSON")?;
    let found = Found::read(digest::sha256(&bytes), MANIFEST, bytes)?;
    let tree = Tree { manifests: vec![found], blobs: vec![config, layer.blob.clone()] };
    Ok(Prepared { tree, contents: vec![text, layer.content.clone()] })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::aside::Wanted;
    use crate::configuration::tests::changes;
    use crate::export::tests::exported;
    use crate::filesystem::testing::{Tar, file, folder, link};
    use crate::filesystem::tests::listed;
    use crate::registry_client::store::Store;
    use crate::transfer;

    async fn imported(store: &Store, archive: &[u8], arguments: &[&str]) -> (String, transfer::Outcome) {
        let layer = read_in(Cursor::new(archive.to_vec()), &Wanted::default()).unwrap();
        let platform = platform::parse("linux/arm/v7").unwrap();
        let prepared = prepare(&layer, &platform, &changes(arguments).unwrap()).unwrap();
        let reference = tagged("a:1", &[]).unwrap();
        let outcome = prepared.send(&store.client(), &reference).await.unwrap();
        (prepared.tree.root().unwrap().digest.clone(), outcome)
    }

    #[tokio::test]
    async fn an_archive_is_an_image_that_gives_it_back() {
        let archive = Tar::of([folder("bin"), file("bin/sh", "x").mode(0o755), link("bin/ash", "bin/sh")]);
        let store = Store::default();
        let (digest, outcome) = imported(&store, &archive, &["--cmd", "/bin/sh", "--env", "A=1"]).await;
        assert_eq!((outcome.copied, outcome.present), (2, 0));
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.tar");
        exported(&store, "a:1", Some("linux/arm/v7"), &path).await.unwrap();
        assert_eq!(listed(&std::fs::read(&path).unwrap()), listed(&archive));

        let (_, manifest) = store.held().manifests[&("a".to_owned(), digest.clone())].clone();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
        let config: serde_json::Value = serde_json::from_slice(&store.held().blobs[&("a".to_owned(), config)]).unwrap();
        assert_eq!(
            config,
            json!({
                "os": "linux", "architecture": "arm", "variant": "v7", "created": "1970-01-01T00:00:00Z",
                "config": {"Cmd": ["/bin/sh"], "Env": ["A=1"]},
                "rootfs": {"type": "layers", "diff_ids": [digest::sha256(&archive)]},
                "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "kubectl registry import"}],
            })
        );
        // A second time the same, of which nothing is sent.
        let again = imported(&store, &archive, &["--cmd", "/bin/sh", "--env", "A=1"]).await;
        assert_eq!((again.0, again.1.copied, again.1.present), (digest, 0, 2));
    }

    #[test]
    fn an_image_that_is_not_made_yet_has_no_digest() {
        let error = tagged(&format!("a@sha256:{}", "0".repeat(64)), &[]).unwrap_err().to_string();
        assert!(error.contains("give \"a@sha256:") && error.contains("a tag instead"), "{error}");
    }
}
