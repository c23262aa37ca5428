//! One image of a repository, for one platform: what is known of it, and its layers, once somebody needs them here.

use std::collections::BTreeMap;
use std::io::{Seek as _, Write as _};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::archive::Content;
use crate::filesystem::Layer;
use crate::platform;
use crate::progress::Progress;
use crate::registry_client::blobs::{self, Blob};
use crate::registry_client::connection::Way;
use crate::registry_client::manifest::{self, Found, Platform};
use crate::registry_client::reference::{Reference, Repository};
use crate::registry_client::retries::patiently;
use crate::registry_client::tree::{self, Pulled};
use crate::registry_client::{Client, beside};

/// What the configuration says of the layers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Configuration {
    #[serde(flatten)]
    platform: Platform,
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// An image whose layers are still in the registry.
pub(crate) struct Chosen {
    pub(crate) found: Found,
    /// Its configuration, as it was sent.
    pub(crate) config: Vec<u8>,
    pub(crate) platform: String,
    /// Lowest first.
    pub(crate) layers: Vec<Blob>,
    diff_ids: Vec<String>,
}

/// The image that is meant; `None` if there is nothing of this name.
pub(crate) async fn choose<W: Way>(
    client: &mut Client<W>,
    reference: &Reference,
    wanted: Option<&str>,
) -> Result<Option<Chosen>> {
    let Reference { repository, version } = reference;
    let Some(root) = patiently(async || manifest::find(client, repository, version).await).await? else {
        return Ok(None);
    };
    let mut shelf = Pulled { client, repository };
    let found = tree::one_platform(&mut shelf, root, wanted, &platform::here()).await?;
    let tree = tree::grow(&mut shelf, found).await?;
    let found = tree.root()?.clone();
    let manifest = &found.manifest;
    let (Some(config), Some(layers)) = (&manifest.config, &manifest.layers) else {
        bail!("{reference} is an index in an index, which this command does not take")
    };
    if !config.is_configuration() {
        bail!("{reference} is no image of a container, but {}: it has no files of one", config.media_type);
    }
    let text = patiently(async || manifest::configuration(client, repository, &config.digest).await).await?;
    let text = text.with_context(|| format!("{} is not there, which {reference} points to", config.digest))?;
    let Configuration { platform, rootfs } = manifest::read(&text, "the image's configuration")?;
    let platform = platform.words();
    if let Some(wanted) = wanted.filter(|wanted| *wanted != platform && !platform.starts_with(&format!("{wanted}/"))) {
        bail!("{reference} is for {platform}, and not for {wanted}");
    }
    if rootfs.diff_ids.len() != layers.len() {
        bail!(
            "the configuration of {reference} knows {} layers, and its manifest {}",
            rootfs.diff_ids.len(),
            layers.len()
        );
    }
    let blob = |digest: &String| tree.blobs.iter().find(|blob| blob.digest == *digest).cloned();
    let layers: Option<Vec<_>> = layers.iter().map(|layer| blob(&layer.digest)).collect();
    let layers = layers.context("a layer has no digest")?;
    Ok(Some(Chosen { found, config: text, platform, layers, diff_ids: rootfs.diff_ids }))
}

impl Chosen {
    /// Its layers, each compared with its digest, in files that nobody else sees.
    pub(crate) async fn fetch<W: Way + Clone>(
        &self,
        title: &str,
        client: &Client<W>,
        repository: &Repository,
    ) -> Result<Vec<Layer<Content>>> {
        // The same layer may be there several times.
        let blobs: BTreeMap<_, _> = self.layers.iter().map(|blob| (blob.digest.as_str(), blob)).collect();
        let progress = Progress::of(title, blobs.values().map(|blob| blob.size).sum());
        let work = async |client: &mut Client<W>, blob: &Blob| fetch(client, repository, blob, &progress).await;
        let contents = beside::each(|| client.beside(), blobs.values().copied(), work).await?;
        drop(progress);
        let contents: BTreeMap<_, _> = blobs.into_keys().zip(contents).collect();
        let layer = |(blob, diff_id): (&Blob, &String)| {
            let content = contents.get(blob.digest.as_str()).cloned().context("a layer was not fetched")?;
            Ok(Layer { name: blob.digest.clone(), content, diff_id: Some(diff_id.clone()) })
        };
        self.layers.iter().zip(&self.diff_ids).map(layer).collect()
    }
}

/// A layer, compared with its digest, in a file that nobody else sees.
async fn fetch<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    blob: &Blob,
    progress: &Progress,
) -> Result<Content> {
    let what = || format!("fetch {} into {} ($TMPDIR)", blob.digest, std::env::temp_dir().display());
    let mut file = tempfile::tempfile().with_context(what)?;
    let is_there = blobs::get(client, repository, blob, async |piece| {
        progress.add(piece.len() as u64);
        file.write_all(&piece).with_context(what)
    });
    if !is_there.await? {
        let where_else = if blob.is_foreign { ": it is kept somewhere else" } else { "" };
        bail!("layer {} is not there{where_else}", blob.digest);
    }
    file.rewind().with_context(what)?;
    Content::whole(file).with_context(what)
}
