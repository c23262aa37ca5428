//! From an [`Image`] to blobs, and from blobs to an OCI image layout (folder) or the same as one tar archive, which containerd imports.
//! Format: <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Compression, Image};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image as blobs, held in memory.
#[derive(Debug, Clone)]
pub struct Built {
    reference: String,
    digest: String,
    index: Vec<u8>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Built {
    /// The manifest's digest, `sha256:<hex>`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The full name given to the image.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Sum of all blobs.
    pub fn size_bytes(&self) -> usize {
        self.blobs.values().map(Vec::len).sum()
    }

    /// Writes an OCI image layout into a folder, which is made if needed. `crane push FOLDER NAME` takes it.
    pub fn write_layout(&self, folder: &Path) -> Result<()> {
        for (path, bytes) in self.files() {
            let path = folder.join(path);
            let parent = path.parent().unwrap_or(folder);
            std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
            std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes the layout as one tar archive. `ctr images import` takes it and gives it exactly its full name. So does what only knows archives of
    /// `docker save`: the archive is one of those too.
    pub fn write_archive(&self, path: &Path) -> Result<()> {
        let file = std::fs::File::create(path).with_context(|| format!("make {}", path.display()))?;
        self.archive_into(file).with_context(|| format!("write {}", path.display()))
    }

    /// Writes the archive of [`Self::write_archive`] into any writer.
    pub fn archive_into(&self, writer: impl std::io::Write) -> Result<()> {
        let mut archive = tar::Builder::new(writer);
        let for_docker = self.docker_manifest()?;
        for (path, bytes) in self.files().chain([("manifest.json".to_owned(), for_docker.as_slice())]) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes)?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    /// The table of contents that `docker save` writes: the same blobs under their paths.
    fn docker_manifest(&self) -> Result<Vec<u8>> {
        let manifest: Value = serde_json::from_slice(self.blobs.get(&self.digest).context("the manifest")?)?;
        let path = |blob: &Value| blob["digest"].as_str().map(blob_path);
        let layers: Vec<_> = manifest["layers"].as_array().into_iter().flatten().map(path).collect();
        let config = path(&manifest["config"]);
        Ok(serde_json::to_vec(&json!([{"Config": config, "RepoTags": [self.reference], "Layers": layers}]))?)
    }

    fn files(&self) -> impl Iterator<Item = (String, &[u8])> {
        let blobs = self.blobs.iter().map(|(digest, bytes)| (blob_path(digest), bytes.as_slice()));
        [
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
            ("index.json".to_owned(), self.index.as_slice()),
        ]
        .into_iter()
        .chain(blobs)
    }
}

/// Where a blob lies in a layout.
fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

pub(super) fn build(image: &Image) -> Result<Built> {
    let mut blobs = BTreeMap::new();
    let mut layers = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in &image.layers {
        let tar = layer.to_tar()?;
        diff_ids.push(digest(&tar));
        let (media_type, blob) = match image.compression {
            Compression::None => ("application/vnd.oci.image.layer.v1.tar", tar),
            Compression::Gzip => ("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&tar)?),
        };
        layers.push(store(&mut blobs, media_type, blob));
    }

    let config = store(
        &mut blobs,
        "application/vnd.oci.image.config.v1+json",
        config(image, &diff_ids).to_string().into_bytes(),
    );
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    let mut manifest = store(&mut blobs, MANIFEST, manifest.to_string().into_bytes());
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();

    // containerd takes the image's name from the first of these two, other programs from the second.
    manifest["annotations"] =
        json!({"io.containerd.image.name": image.reference, "org.opencontainers.image.ref.name": image.reference});
    manifest["platform"] = json!({"architecture": architecture(), "os": "linux"});
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]});

    Ok(Built { reference: image.reference.clone(), digest, index: index.to_string().into_bytes(), blobs })
}

fn config(image: &Image, diff_ids: &[String]) -> Value {
    let ports: BTreeMap<_, _> = image.exposed_ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let env: Vec<_> = image.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut config = json!({
        "User": image.user, "Env": env, "Entrypoint": image.entrypoint, "Cmd": image.cmd,
        "ExposedPorts": ports, "Labels": image.labels, "WorkingDir": "/",
    });
    if !image.stop_signal.is_empty() {
        config["StopSignal"] = json!(image.stop_signal);
    }
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture(),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
}

fn store(blobs: &mut BTreeMap<String, Vec<u8>>, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = digest(&bytes);
    let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
    blobs.insert(digest, bytes);
    descriptor
}

/// `sha256:<hex>` of the bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder =
        flate2::GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
