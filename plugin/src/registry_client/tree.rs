//! All that hangs on a name: an index, its manifests, their configurations and layers, whatever kind of artifact they are.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};

use super::Client;
use super::blobs::Blob;
use super::connection::Way;
use super::manifest::{self, Descriptor, Found};
use super::reference::{Repository, Version};
use super::retries::patiently;

/// Manifests below one name.
const MOST_MANIFESTS: usize = 2000;
/// Bytes of all of them, which are in memory.
const MOST_BYTES: usize = 16 << 20;
/// Indexes in indexes.
const DEEPEST: usize = 4;

/// What has to be there for an image to be whole.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Those that others point to stand before these; the last is the one that was asked for.
    pub(crate) manifests: Vec<Found>,
    /// Each once, smaller ones first.
    pub(crate) blobs: Vec<Blob>,
}

impl Tree {
    /// The one that was asked for.
    pub(crate) fn root(&self) -> Result<&Found> {
        self.manifests.last().context("it has no manifest")
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.blobs.iter().fold(0, |sum, blob| sum.saturating_add(blob.size))
    }
}

/// Where manifests come from.
pub(crate) trait Shelf {
    /// A manifest that is what its digest says; `None` if it is not there.
    async fn manifest(&mut self, of: &Descriptor) -> Result<Option<Found>>;
}

/// A repository.
pub(crate) struct Pulled<'a, W> {
    pub(crate) client: &'a mut Client<W>,
    pub(crate) repository: &'a Repository,
}

impl<W: Way> Shelf for Pulled<'_, W> {
    async fn manifest(&mut self, of: &Descriptor) -> Result<Option<Found>> {
        let version = Version::digest(&of.digest).with_context(|| format!("{:?} is no digest", of.digest))?;
        patiently(async || manifest::find(self.client, self.repository, &version).await).await
    }
}

/// What a repository has under a name, or of one platform of it; `None` if there is nothing.
pub(crate) async fn pull<W: Way>(
    client: &mut Client<W>,
    repository: &Repository,
    version: &Version,
    platform: Option<&str>,
) -> Result<Option<Tree>> {
    let Some(root) = patiently(async || manifest::find(client, repository, version).await).await? else {
        return Ok(None);
    };
    let mut shelf = Pulled { client, repository };
    let root = match platform {
        Some(platform) => of_platform(&mut shelf, root, platform).await?,
        None => root,
    };
    grow(&mut shelf, root).await.map(Some)
}

/// The manifest of one platform.
pub(crate) async fn of_platform(shelf: &mut impl Shelf, root: Found, platform: &str) -> Result<Found> {
    let Some(parts) = &root.manifest.manifests else { return Ok(root) };
    let name = |part: &Descriptor| part.platform.as_ref().map(manifest::Platform::words).unwrap_or_default();
    let wanted = |part: &&Descriptor| name(part) == platform;
    match parts.iter().find(wanted) {
        Some(part) => present(shelf, part).await,
        None => bail!(
            "there is no {platform} in {}, but {}",
            root.digest,
            crate::cluster::listed(parts.iter().map(name).filter(|name| !name.is_empty()))
        ),
    }
}

/// The manifest of one platform: of the one that is named, of the only one that there is, or of `here`.
pub(crate) async fn one_platform(
    shelf: &mut impl Shelf,
    root: Found,
    platform: Option<&str>,
    here: &str,
) -> Result<Found> {
    let Some(parts) = &root.manifest.manifests else { return Ok(root) };
    // Builders put what they know of an image beside it, as of an unknown platform.
    let names = parts.iter().filter_map(|part| part.platform.as_ref().map(manifest::Platform::words));
    let mut known = names.filter(|name| !name.starts_with("unknown"));
    let only = match (known.next(), known.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    };
    let platform = platform.map(str::to_owned).or(only).unwrap_or_else(|| here.to_owned());
    of_platform(shelf, root, &platform).await
}

async fn present(shelf: &mut impl Shelf, part: &Descriptor) -> Result<Found> {
    let found = shelf.manifest(part).await?;
    found.with_context(|| format!("{} is not there, which an index points to", part.digest))
}

/// Everything that hangs on a manifest.
pub(crate) async fn grow(shelf: &mut impl Shelf, root: Found) -> Result<Tree> {
    let mut blobs: BTreeMap<String, Blob> = BTreeMap::new();
    let (mut known, mut bytes) = (BTreeSet::from([root.digest.clone()]), root.bytes.len());
    let (mut levels, mut level) = (Vec::new(), vec![root]);
    while !level.is_empty() {
        if levels.len() == DEEPEST {
            bail!("there are indexes in indexes more than {DEEPEST} deep, which this command does not take");
        }
        let mut below = Vec::new();
        for found in &level {
            is_readable(found)?;
            let parts = found.manifest.manifests.iter().flatten();
            let (manifests, others): (Vec<_>, Vec<_>) = parts.partition(|part| is_manifest(&part.media_type));
            for part in manifests {
                if !known.insert(part.digest.clone()) {
                    continue;
                }
                let found = present(shelf, part).await?;
                bytes += found.bytes.len();
                if known.len() > MOST_MANIFESTS || bytes > MOST_BYTES {
                    bail!(
                        "it has more than {MOST_MANIFESTS} manifests or {MOST_BYTES} bytes of them, which this command does not take"
                    );
                }
                below.push(found);
            }
            // Older caches of builders list layers in an index.
            let layers = found.manifest.layers.iter().flatten();
            for blob in found.manifest.config.iter().chain(layers).chain(others) {
                if Version::digest(&blob.digest).is_none() {
                    bail!("{:?} is no digest, which {} points to", blob.digest, found.digest);
                }
                let is_foreign = blob.urls.as_ref().is_some_and(|urls| !urls.is_empty());
                let new = Blob { digest: blob.digest.clone(), size: blob.size, is_foreign };
                let there = blobs.entry(blob.digest.clone()).or_insert_with(|| new.clone());
                if there.size != new.size {
                    bail!("{} has {} bytes in one place and {} in another", new.digest, there.size, new.size);
                }
            }
        }
        // Of two beside each other, one may point to the other.
        below.sort_by_key(|found| found.manifest.manifests.is_some());
        levels.push(std::mem::replace(&mut level, below));
    }
    let mut blobs: Vec<_> = blobs.into_values().collect();
    blobs.sort_by_key(|blob| blob.size);
    Ok(Tree { manifests: levels.into_iter().rev().flatten().collect(), blobs })
}

/// Whether it is of a form that says what belongs to it.
fn is_readable(found: &Found) -> Result<()> {
    if found.media_type.starts_with("application/vnd.docker.distribution.manifest.v1") {
        bail!("{} is an image of Docker's first form, which no current registry takes", found.digest);
    }
    Ok(())
}

fn is_manifest(media_type: &str) -> bool {
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
    .contains(&media_type)
}
