//! `save`: images come into a file or a folder, from which `load`, docker, podman, skopeo and containerd read them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::access::Access;
use crate::archive::{DOCKER_MANIFEST, DockerImage, FULL_NAME, INDEX, REF_NAME, Writer, blob_path};
use crate::progress::Progress;
use crate::registry_client::connection::Way;
use crate::registry_client::manifest::{Descriptor, Found, Platform};
use crate::registry_client::reference::{Reference, Version};
use crate::registry_client::retries::patiently;
use crate::registry_client::tree::{self, Tree};
use crate::registry_client::{Client, blobs};
use crate::{cluster, output, platform, shell};

/// Options of `save`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// Images, with or without an address of the registry before them; without tag and digest, their tag latest
    #[arg(value_name = "REPOSITORY[:TAG|@DIGEST]", required = true)]
    images: Vec<String>,
    /// A tar archive; a folder, if there is one of this name or it ends with /; - for standard output
    #[arg(short, long, value_name = "FILE|FOLDER|-")]
    output: PathBuf,
    /// Only what one platform runs, such as linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
}

/// An image that is saved.
struct Chosen {
    reference: Reference,
    tree: Tree,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let path = &options.output;
    if path == Path::new("-") && std::io::stdout().is_terminal() {
        bail!("an archive is nothing for a terminal: give a file with -o, or a program behind |");
    }
    cluster::transfer(async {
        let mut opened = options.access.open().await?;
        let mut chosen = Vec::new();
        for image in &options.images {
            let reference = opened.reference(image)?;
            let Reference { repository, version } = &reference;
            let tree = tree::pull(&mut opened.client, repository, version, options.platform.as_deref()).await?;
            let Some(tree) = tree else { return Err(opened.has_no(&reference)) };
            chosen.push(Chosen { reference, tree });
        }
        let is_folder = path.is_dir() || path.as_os_str().to_string_lossy().ends_with('/');
        let mut writer = match () {
            () if path == Path::new("-") => Writer::stream(Box::new(std::io::stdout())),
            () if is_folder => Writer::folder(path)?,
            () => Writer::file(path)?,
        };
        let address = opened.found.status.clone().unwrap_or_default().address;
        let sent = save(&mut opened.client, &chosen, address.as_deref(), &mut writer).await?;
        writer.finish()?;
        if path != Path::new("-") {
            for Chosen { reference, tree } in &chosen {
                shell::print(&format!("{reference}, {}\n", tree.root()?.digest));
            }
            shell::print(&format!("{} in {}\n", output::size(sent), path.display()));
        }
        Ok(())
    })
}

/// Writes the images; how many bytes were fetched for it.
async fn save<W: Way>(
    client: &mut Client<W>,
    chosen: &[Chosen],
    address: Option<&str>,
    writer: &mut Writer,
) -> Result<u64> {
    writer.layout()?;
    let progress = Progress::of("save", chosen.iter().map(|one| one.tree.bytes()).sum());
    let mut written = BTreeSet::new();
    let mut fetched = 0;
    for Chosen { reference, tree } in chosen {
        for blob in &tree.blobs {
            if !written.insert(blob.digest.clone()) {
                progress.add(blob.size);
                continue;
            }
            if writer.has(&blob.digest, blob.size) {
                progress.add(blob.size);
                continue;
            }
            let repository = &reference.repository;
            let size = async || blobs::size(client, repository, &blob.digest).await;
            if blob.is_foreign && patiently(size).await?.is_none() {
                written.remove(&blob.digest);
                continue;
            }
            let name = blob_path(&blob.digest);
            writer.begin(&name, blob.size)?;
            let is_there = blobs::get(client, repository, blob, async |piece| {
                progress.add(piece.len() as u64);
                writer.write(&piece)
            });
            if !is_there.await? {
                bail!("{} is not there, which {reference} points to", blob.digest);
            }
            writer.end(&name, blob.size)?;
            fetched += blob.size;
        }
        for found in &tree.manifests {
            if written.insert(found.digest.clone()) && !writer.has(&found.digest, found.bytes.len() as u64) {
                writer.put(&blob_path(&found.digest), &found.bytes)?;
            }
        }
    }
    let before = writer.index()?;
    if before.is_none() {
        let table = docker_table(chosen, address, &written);
        if !table.is_empty() {
            writer.put(DOCKER_MANIFEST, &serde_json::to_vec(&table).context("write JSON")?)?;
        }
    }
    writer.put(INDEX, index(before.as_deref(), chosen, address)?.to_string().as_bytes())?;
    Ok(fetched)
}

/// How others call it.
fn full_name(reference: &Reference, address: Option<&str>) -> String {
    match address {
        Some(address) => format!("{address}/{reference}"),
        None => reference.to_string(),
    }
}

/// The OCI's table of contents: what was there and has another name stays.
fn index(before: Option<&[u8]>, chosen: &[Chosen], address: Option<&str>) -> Result<Value> {
    let before: Value = before.map_or(Ok(json!({})), serde_json::from_slice).context("read the folder's index.json")?;
    let new = chosen.iter().map(|one| entry(one, address)).collect::<Result<Vec<_>>>()?;
    let name = |entry: &Value| entry["annotations"][FULL_NAME].as_str().map(str::to_owned);
    let is_replaced = |old: &Value| {
        let is_same = |new: &Value| name(new) == name(old) && (name(old).is_some() || new["digest"] == old["digest"]);
        new.iter().any(is_same)
    };
    let mut entries: Vec<Value> = before["manifests"].as_array().cloned().unwrap_or_default();
    entries.retain(|old| !is_replaced(old));
    entries.extend(new.clone());
    Ok(json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}))
}

fn entry(Chosen { reference, tree }: &Chosen, address: Option<&str>) -> Result<Value> {
    let root = tree.root()?;
    let mut entry = json!({"mediaType": root.media_type, "digest": root.digest, "size": root.bytes.len()});
    if let Version::Tag(tag) = &reference.version {
        entry["annotations"] = json!({FULL_NAME: full_name(reference, address), REF_NAME: tag});
    }
    Ok(entry)
}

/// Docker's table: of each image what this machine would run, or what there is if there is one platform only.
fn docker_table(chosen: &[Chosen], address: Option<&str>, written: &BTreeSet<String>) -> Vec<DockerImage> {
    let here = platform::here();
    let mut table: BTreeMap<String, DockerImage> = BTreeMap::new();
    for Chosen { reference, tree } in chosen {
        let Some(found) = runnable(tree, &here) else { continue };
        let Some(config) = found.manifest.config.as_ref().filter(|config| config.is_configuration()) else { continue };
        let layers: Vec<_> = found.manifest.layers.iter().flatten().map(|layer| layer.digest.clone()).collect();
        if !layers.iter().all(|digest| written.contains(digest)) {
            continue;
        }
        let image = table.entry(found.digest.clone()).or_insert_with(|| DockerImage {
            config: blob_path(&config.digest),
            repo_tags: None,
            layers: layers.iter().map(|digest| blob_path(digest)).collect(),
        });
        if let Version::Tag(_) = reference.version {
            image.repo_tags.get_or_insert_default().push(full_name(reference, address));
        }
    }
    table.into_values().collect()
}

fn runnable<'a>(tree: &'a Tree, here: &str) -> Option<&'a Found> {
    let root = tree.root().ok()?;
    let Some(parts) = &root.manifest.manifests else { return Some(root) };
    let is_for_here = |part: &&Descriptor| part.platform.as_ref().map(Platform::words).as_deref() == Some(here);
    let part = parts.iter().find(is_for_here)?;
    tree.manifests.iter().find(|found| found.digest == part.digest)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::registry_client::store::Store;

    /// Saves what a registry has under these names.
    pub(crate) async fn saved(store: &Store, images: &[&str], writer: &mut Writer) -> Result<u64> {
        let mut client = store.client();
        let mut chosen = Vec::new();
        for image in images {
            let reference = Reference::parse(image, &[]).unwrap();
            let tree = tree::pull(&mut client, &reference.repository, &reference.version, None).await?.unwrap();
            chosen.push(Chosen { reference, tree });
        }
        save(&mut client, &chosen, Some("registry.test:5000"), writer).await
    }

    #[tokio::test]
    async fn a_folder_keeps_what_it_has_and_fetches_only_the_rest() {
        let store = Store::default();
        store.image("a", Some("1"), "amd64", &[b"base", b"one"]);
        store.image("a", Some("2"), "amd64", &[b"base", b"two"]);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("images");
        saved(&store, &["a:1"], &mut Writer::folder(&path).unwrap()).await.unwrap();
        let before = store.count("GET /v2/a/blobs/");
        saved(&store, &["a:2"], &mut Writer::folder(&path).unwrap()).await.unwrap();
        assert_eq!(store.count("GET /v2/a/blobs/") - before, 2, "the base is there");
        let fetched = saved(&store, &["a:2"], &mut Writer::folder(&path).unwrap()).await.unwrap();
        assert_eq!((store.count("GET /v2/a/blobs/") - before, fetched), (2, 0));
        let index: Value = serde_json::from_slice(&std::fs::read(path.join(INDEX)).unwrap()).unwrap();
        let names: Vec<_> =
            index["manifests"].as_array().unwrap().iter().map(|entry| &entry["annotations"][FULL_NAME]).collect();
        assert_eq!(names, ["registry.test:5000/a:1", "registry.test:5000/a:2"]);

        // What was damaged meanwhile is fetched again.
        let blob = path.join(blob_path(&crate::registry_client::digest::sha256(b"base")));
        std::fs::write(&blob, b"xxxx").unwrap();
        saved(&store, &["a:1"], &mut Writer::folder(&path).unwrap()).await.unwrap();
        assert_eq!(std::fs::read(&blob).unwrap(), b"base");

        let other = home.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("letter"), "dear").unwrap();
        assert!(Writer::folder(&other).err().unwrap().to_string().contains("is a folder of something else"));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_has_the_final_name_that_is_not_whole() {
        use crate::registry_client::store::Kind;
        let store = Store::default();
        store.image("a", Some("1"), "amd64", &[&[7; 5000]]);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("images.tar");
        std::fs::write(&path, "of yesterday").unwrap();
        let layer: &'static str =
            format!("GET /v2/a/blobs/{}", crate::registry_client::digest::sha256([7; 5000])).leak();
        for kind in [Kind::Damaged, Kind::Status(404), Kind::CutAfter(10)] {
            store.fails(layer, if matches!(kind, Kind::CutAfter(_)) { 1000 } else { 1 }, kind);
            let mut writer = Writer::file(&path).unwrap();
            let done = match saved(&store, &["a:1"], &mut writer).await {
                Ok(_) => writer.finish().map(|()| true),
                Err(error) => {
                    drop(writer);
                    Err(error)
                }
            };
            // A registry that comes further each time is asked until it is done.
            if !matches!(kind, Kind::CutAfter(_)) {
                assert!(done.is_err(), "it was noticed");
                assert_eq!(std::fs::read_to_string(&path).unwrap(), "of yesterday");
                assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left lying about");
            }
        }
    }

    #[test]
    fn a_full_disk_is_said() {
        if !Path::new("/dev/full").exists() {
            return;
        }
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut writer = Writer::stream(Box::new(full));
        let written = writer.put("a", &[0; 1 << 20]).and_then(|()| writer.finish());
        let error = format!("{:#}", written.unwrap_err());
        assert!(error.contains("write standard output: No space left on device"), "{error}");
    }
}
