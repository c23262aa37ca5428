//! `commit`: an image gets another layer of changes and another name, as `docker commit` leaves it. The layers that it had are shared.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::access::{Access, Elsewhere};
use crate::archive::Content;
use crate::aside::aside;
use crate::chosen::{Chosen, choose};
use crate::configuration::{self, Changes, Step};
use crate::filesystem::{Change, Files, Layer, Packed, normal};
use crate::import::tagged;
use crate::output::Form;
use crate::prepared::{Done, Prepared};
use crate::registry_client::blobs::Blob;
use crate::registry_client::connection::Way;
use crate::registry_client::digest;
use crate::registry_client::manifest::Found;
use crate::registry_client::reference::Reference;
use crate::registry_client::tree::Tree;
use crate::transfer::{self, Outcome, Shop};
use crate::{cluster, shell};

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// What the image was made of: image-spec, annotations.md.
const BASE: &str = "org.opencontainers.image.base.digest";

/// Options of `commit`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// The image that is changed, which stays as it is; without tag and digest, its tag latest
    #[arg(value_name = "REPOSITORY[:TAG|@DIGEST]")]
    base: String,
    /// What the new one is called; without tag, latest
    #[arg(value_name = "REPOSITORY[:TAG]")]
    target: String,
    #[command(flatten)]
    layer: LayerOptions,
    /// Who made the change
    #[arg(short, long, value_name = "NAME")]
    author: Option<String>,
    /// What the change is for
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What this platform runs [default: the only one, or this machine's]
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// How to print what was made
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

/// What the layer changes, of which there must be something.
#[derive(Debug, clap::Args)]
struct LayerOptions {
    /// Add what is in a folder or in a tar archive, also packed with gzip or zstd; - for standard input. Can be given more than once; what comes later counts
    #[arg(long, value_name = "FOLDER|FILE|-", required_unless_present = "delete")]
    add: Vec<PathBuf>,
    /// Delete a file or a folder of the image. Can be given more than once
    #[arg(long, value_name = "PATH", value_parser = path)]
    delete: Vec<String>,
    /// Do not fetch the image's layers to see whether they have what is deleted, and whether a folder would take the place of a file or a symlink
    #[arg(long)]
    unchecked: bool,
}

/// A path in an image, with or without a slash before it.
fn path(text: &str) -> Result<String, String> {
    match normal(text.as_bytes()).and_then(|path| String::from_utf8(path).ok()) {
        Some(path) if !path.is_empty() => Ok(path),
        _ => Err("a path leads to something in the image, without ..".to_owned()),
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::transfer(async {
        let (mut opened, other) = options.access.open_both(&options.elsewhere).await?;
        let base = opened.reference(&options.base)?;
        let there = other.as_ref().unwrap_or(&opened).addresses();
        let target = tagged(&options.target, &there)?;
        let Some(chosen) = choose(&mut opened.client, &base, options.platform.as_deref()).await? else {
            return Err(opened.has_no(&base));
        };
        let from = Shop { client: &opened.client, repository: &base.repository };
        let layers = match options.layer.unchecked {
            true => None,
            false => Some(chosen.fetch("read the image", from.client, from.repository).await?),
        };
        let layer = layer(&options.layer, &base, layers, options.changes.created()).await?;
        let step = Step {
            made_by: "kubectl registry commit",
            author: options.author.as_deref(),
            message: options.message.as_deref(),
        };
        let prepared = prepare(&chosen, &layer, &options.changes, &step)?;
        let is_same = other.as_ref().is_none_or(|other| other.registry.is(&opened.registry));
        let to = Shop { client: &other.as_ref().unwrap_or(&opened).client, repository: &target.repository };
        let outcome = send(&from, &to, is_same, &chosen, &prepared, &target).await?;
        let digest = prepared.tree.root()?.digest.clone();
        let repository = target.repository.to_string();
        let done = Done { reference: target.to_string(), repository, digest, outcome };
        shell::print(&done.told(options.output)?);
        Ok(())
    })
}

/// The layer of changes, of an image with these layers, if they are known.
async fn layer(
    options: &LayerOptions,
    base: &Reference,
    layers: Option<Vec<Layer<Content>>>,
    created: Timestamp,
) -> Result<Packed> {
    let LayerOptions { add, delete, .. } = options;
    let (add, delete, name) = (add.clone(), delete.clone(), base.to_string());
    aside(move |wanted| {
        let mut change = Change::new(wanted);
        for path in &add {
            change.add(path)?;
        }
        for path in delete {
            change.delete(path.into_bytes());
        }
        if let Some(layers) = layers {
            change.check(&Files::of(&layers, wanted)?, &name)?;
        }
        change.pack(created)
    })
    .await
}

/// The image with another layer, in the form that it has.
fn prepare(chosen: &Chosen, layer: &Packed, changes: &Changes, step: &Step<'_>) -> Result<Prepared> {
    let config = changes.apply(configuration::read(&chosen.config)?, &layer.diff_id, step)?;
    let (config, text) = configuration::blob(&config)?;
    let Found { digest, media_type, bytes, .. } = &chosen.found;
    let base: Value = serde_json::from_slice(bytes).context("read the image's manifest")?;
    let is_docker = media_type.starts_with("application/vnd.docker.");
    let (kind, of_layer) = if is_docker { (media_type.as_str(), DOCKER_LAYER) } else { (OCI, OCI_LAYER) };
    let descriptor = |kind: Value, blob: &Blob| json!({"mediaType": kind, "digest": blob.digest, "size": blob.size});
    let mut layers = base["layers"].as_array().cloned().context("the image's manifest has no layers")?;
    layers.push(descriptor(of_layer.into(), &layer.blob));
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": descriptor(base["config"]["mediaType"].clone(), &config),
        "layers": layers,
    });
    if !is_docker {
        manifest["annotations"] = json!({BASE: digest});
    }
    let bytes = serde_json::to_vec(&manifest).context("write JSON")?;
    let found = Found::read(digest::sha256(&bytes), kind, bytes)?;
    let tree = Tree { manifests: vec![found], blobs: vec![config, layer.blob.clone()] };
    Ok(Prepared { tree, contents: vec![text, layer.content.clone()] })
}

/// Shares the layers of before, sends the new one, and names the image at last.
async fn send<S: Way + Clone, T: Way + Clone>(
    from: &Shop<'_, S>,
    to: &Shop<'_, T>,
    is_same: bool,
    chosen: &Chosen,
    prepared: &Prepared,
    target: &Reference,
) -> Result<Outcome> {
    // The same layer may be there several times.
    let blobs: BTreeMap<_, _> = chosen.layers.iter().map(|blob| (blob.digest.as_str(), blob)).collect();
    let blobs: Vec<_> = blobs.into_values().cloned().collect();
    let shared = transfer::bring(from, to, &blobs, is_same).await?;
    let sent = prepared.send(to.client, target).await?;
    Ok(Outcome::of(shared).and(sent))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::configuration::tests::changes;
    use crate::export::tests::exported;
    use crate::filesystem::testing::{Tar, file, folder};
    use crate::filesystem::tests::listed;
    use crate::registry_client::store::{Kind, Store};

    fn base() -> Vec<u8> {
        Tar::of([folder("etc"), file("etc/a", "1"), file("etc/motd", "hello"), folder("var"), file("var/x", "1")])
    }

    fn stocked() -> Store {
        let store = Store::default();
        store.image("shop/web", Some("1"), "amd64", &[&base(), &Tar::of([file("etc/b", "1")])]);
        store
    }

    /// A folder with `etc/a`, changed, and `srv/new`.
    fn added(home: &Path) -> PathBuf {
        let root = home.join("root");
        for (path, text) in [("etc/a", "2"), ("srv/new", "2")] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        }
        root
    }

    async fn committed(
        from: &Store,
        to: &Store,
        target: &str,
        add: &[PathBuf],
        delete: &[&str],
    ) -> Result<(String, Outcome)> {
        let (base, target) = (Reference::parse("shop/web:1", &[]).unwrap(), tagged(target, &[])?);
        let (mut near, far) = (from.client(), to.client());
        let chosen = choose(&mut near, &base, None).await?.context("nothing there")?;
        let is_same = std::ptr::eq(from, to);
        let (from, to) = (
            Shop { client: &near, repository: &base.repository },
            Shop { client: &far, repository: &target.repository },
        );
        let delete: Vec<_> = delete.iter().map(|text| path(text).unwrap()).collect();
        let options = LayerOptions { add: add.to_vec(), delete, unchecked: false };
        let changes = changes(&["--env", "A=1"]).unwrap();
        let layers = chosen.fetch("", from.client, from.repository).await?;
        let layer = layer(&options, &base, Some(layers), changes.created()).await?;
        let step = Step { made_by: "kubectl registry commit", author: Some("Ann"), message: Some("why") };
        let prepared = prepare(&chosen, &layer, &changes, &step)?;
        let outcome = send(&from, &to, is_same, &chosen, &prepared, &target).await?;
        Ok((prepared.tree.root()?.digest.clone(), outcome))
    }

    fn manifest(store: &Store, repository: &str, digest: &str) -> (String, Value) {
        let (kind, text) = store.held().manifests[&(repository.to_owned(), digest.to_owned())].clone();
        (kind, serde_json::from_slice(&text).unwrap())
    }

    #[tokio::test]
    async fn the_image_is_the_base_with_the_changes_and_shares_its_layers() {
        let (store, home) = (stocked(), tempfile::tempdir().unwrap());
        let root = added(home.path());
        let (digest, outcome) =
            committed(&store, &store, "shop/web:2", std::slice::from_ref(&root), &["/etc/motd", "var"]).await.unwrap();
        assert_eq!((outcome.copied, outcome.present, outcome.mounted), (2, 2, 0), "a configuration and a layer");
        let path = home.path().join("a.tar");
        exported(&store, "shop/web:2", None, &path).await.unwrap();
        let found = listed(&fs::read(&path).unwrap());
        let names: Vec<_> = found.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        assert_eq!(names, [("etc", "/"), ("etc/a", "2"), ("etc/b", "1"), ("srv/new", "2")]);

        let before = store.held().tags[&("shop/web".to_owned(), "1".to_owned())].clone();
        let ((_, old), (kind, new)) = (manifest(&store, "shop/web", &before), manifest(&store, "shop/web", &digest));
        let layers = new["layers"].as_array().unwrap();
        assert_eq!(layers[..2], old["layers"].as_array().unwrap()[..]);
        assert_eq!((layers.len(), kind.as_str(), &new["annotations"][BASE]), (3, OCI, &json!(before)));
        let config = new["config"]["digest"].as_str().unwrap().to_owned();
        let config: Value = serde_json::from_slice(&store.held().blobs[&("shop/web".to_owned(), config)]).unwrap();
        assert_eq!((&config["author"], &config["config"]["Env"]), (&json!("Ann"), &json!(["A=1"])));
        assert_eq!((&config["history"][0]["comment"], &config["history"][0]["author"]), (&json!("why"), &json!("Ann")));
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn the_same_change_has_the_same_digest_wherever_it_is_made() {
        let (store, other) = (stocked(), Store::default());
        let (home, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = committed(&store, &store, "shop/api:1", &[added(home.path())], &["etc/motd"]).await.unwrap();
        assert_eq!((first.1.copied, first.1.mounted), (2, 2), "within the registry no layer is sent");
        let second = committed(&store, &other, "shop/api:1", &[added(again.path())], &["/etc//motd"]).await.unwrap();
        assert_eq!((second.1.copied, &second.0), (4, &first.0));
        let third = committed(&store, &other, "shop/api:1", &[added(again.path())], &["etc/motd"]).await.unwrap();
        assert_eq!((third.1.copied, third.1.present, &third.0), (0, 4, &first.0));
    }

    #[tokio::test]
    async fn an_image_of_dockers_form_keeps_it() {
        let store = stocked();
        let before = store.held().tags[&("shop/web".to_owned(), "1".to_owned())].clone();
        let (_, mut docker) = manifest(&store, "shop/web", &before);
        docker["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
        docker["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
        store.manifest("shop/web", Some("1"), &docker);
        let home = tempfile::tempdir().unwrap();
        let (digest, _) = committed(&store, &store, "shop/web:2", &[added(home.path())], &[]).await.unwrap();
        let (kind, made) = manifest(&store, "shop/web", &digest);
        assert_eq!(kind, "application/vnd.docker.distribution.manifest.v2+json");
        assert_eq!(made["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
        assert_eq!((&made["layers"][2]["mediaType"], &made["annotations"]), (&json!(DOCKER_LAYER), &Value::Null));
    }

    #[tokio::test(start_paused = true)]
    async fn no_fault_leaves_a_name() {
        type Change = fn(&Store);
        let nothing: Change = |_| {};
        let damaged: Change = |store| store.fails("GET /v2/shop/web/blobs/", 1000, Kind::Damaged);
        let refused: Change = |store| store.fails("PUT /v2/shop/web/blobs/", 1000, Kind::Status(413));
        let late: Change = |store| store.fails("PUT /v2/shop/web/manifests/", 1000, Kind::Status(400));
        let home = tempfile::tempdir().unwrap();
        let root = added(home.path());
        for (change, add, delete, words) in [
            (nothing, root.clone(), &["etc/moto", "etc/motd"][..], "shop/web:1 has no etc/moto: nothing was made"),
            (nothing, home.path().join("none"), &[], "none: No such file"),
            (damaged, root.clone(), &["etc/motd"], "its storage is damaged"),
            (refused, root.clone(), &[], "with 413"),
            (late, root.clone(), &[], "with 400"),
        ] {
            let store = stocked();
            change(&store);
            let error = format!("{:#}", committed(&store, &store, "shop/web:2", &[add], delete).await.unwrap_err());
            assert!(error.contains(words), "{words}: {error}");
            assert_eq!(store.held().tags.len(), 1, "{words}");
        }
    }

    #[test]
    fn a_path_stays_in_the_image() {
        assert_eq!(path("/etc//app/").as_deref(), Ok("etc/app"));
        for text in ["", "/", ".", "..", "a/../b"] {
            assert!(path(text).is_err(), "{text:?}");
        }
    }
}
