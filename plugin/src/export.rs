//! `export`: the files of an image, as a container of it finds them, come into one archive.

use std::io::{BufWriter, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::access::OneImage;
use crate::archive::Out;
use crate::aside::aside;
use crate::chosen::{Chosen, choose};
use crate::filesystem::{Written, flatten};
use crate::registry_client::Client;
use crate::registry_client::connection::Way;
use crate::registry_client::reference::Repository;
use crate::{cluster, output, shell};

/// Bytes that are written at once.
const BUFFER: usize = 256 << 10;

/// Options of `export`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    image: OneImage,
    /// A tar archive; - for standard output
    #[arg(short, long, value_name = "FILE|-")]
    output: PathBuf,
    /// What this platform runs [default: the only one, or this machine's]
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let path = options.output.clone();
    let is_stream = path == Path::new("-");
    if is_stream && std::io::stdout().is_terminal() {
        bail!("an archive is nothing for a terminal: give a file with -o, or a program behind |");
    }
    if path.is_dir() {
        bail!("{} is a folder: give the file that shall be made", path.display());
    }
    cluster::transfer(async {
        let (mut opened, reference) = options.image.open().await?;
        let platform = options.platform.as_deref();
        let Some(chosen) = choose(&mut opened.client, &reference, platform).await? else {
            return Err(opened.has_no(&reference));
        };
        let written = export(&opened.client, &reference.repository, &chosen, move || {
            if is_stream { Ok(Out::stream(Box::new(std::io::stdout()))) } else { Out::file(&path) }
        });
        let written = written.await?;
        if !is_stream {
            let (platform, digest) = (&chosen.platform, &chosen.found.digest);
            let (entries, size) = (written.entries, output::size(written.bytes));
            shell::print(&format!("{reference} ({platform}), {digest}\n"));
            shell::print(&format!("{entries} entries, {size}, in {}\n", options.output.display()));
        }
        Ok(())
    })
}

/// Fetches the layers, and writes what is left of them. The place is made when all of them are there.
async fn export<W: Way + Clone>(
    client: &Client<W>,
    repository: &Repository,
    chosen: &Chosen,
    place: impl FnOnce() -> Result<Out> + Send + 'static,
) -> Result<Written> {
    let layers = chosen.fetch("export", client, repository).await?;
    aside(move |wanted| {
        let mut out = BufWriter::with_capacity(BUFFER, place()?);
        let written = flatten(&layers, &mut out, wanted)?;
        let out = out.into_inner().map_err(std::io::IntoInnerError::into_error);
        out.and_then(Out::finish).context("write the archive")?;
        Ok(written)
    })
    .await
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::io::Write as _;

    use serde_json::{Value, json};

    use super::*;
    use crate::filesystem::testing::{Tar, file, folder, link};
    use crate::filesystem::tests::listed;
    use crate::registry_client::digest;
    use crate::registry_client::reference::Reference;
    use crate::registry_client::store::{Kind, Store};

    /// Exports what a registry has under a name.
    pub(crate) async fn exported(store: &Store, image: &str, platform: Option<&str>, path: &Path) -> Result<Written> {
        let reference = Reference::parse(image, &[]).unwrap();
        let mut client = store.client();
        let chosen = choose(&mut client, &reference, platform).await?.context("nothing there")?;
        let path = path.to_owned();
        export(&client, &reference.repository, &chosen, move || Out::file(&path)).await
    }

    fn base() -> Vec<u8> {
        Tar::of([folder("etc"), file("etc/a", "1"), file("etc/b", &"x".repeat(5000)), link("etc/c", "etc/a")])
    }

    fn upper() -> Vec<u8> {
        Tar::of([file("etc/.wh.a", ""), file("etc/new", "2")])
    }

    /// An image whose layers are packed.
    fn packed(store: &Store, tag: &str, layers: &[(&str, Vec<u8>, Vec<u8>)]) {
        let diff_ids: Vec<_> = layers.iter().map(|(_, clear, _)| digest::sha256(clear)).collect();
        let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}}).to_string();
        let config = store.blob("a", "application/vnd.oci.image.config.v1+json", config.as_bytes());
        let layers: Vec<Value> = layers.iter().map(|(kind, _, packed)| store.blob("a", kind, packed)).collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        store.manifest(
            "a",
            Some(tag),
            &json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}),
        );
    }

    #[tokio::test]
    async fn what_is_left_of_all_layers_comes_out_however_they_are_packed() {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        let store = Store::default();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&base()).unwrap();
        let zstd = compress_to_vec(&upper()[..], CompressionLevel::Fastest);
        let layers = [
            ("application/vnd.oci.image.layer.v1.tar+gzip", base(), gzip.finish().unwrap()),
            ("application/vnd.oci.image.layer.v1.tar+zstd", upper(), zstd),
            ("application/vnd.oci.image.layer.v1.tar", upper(), upper()),
        ];
        packed(&store, "1", &layers);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.tar");
        let written = exported(&store, "a:1", None, &path).await.unwrap();
        assert_eq!((written.entries, written.bytes), (4, 5002));
        let found = listed(&fs::read(&path).unwrap());
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["etc", "etc/b", "etc/c", "etc/new"]);
        assert_eq!((found["etc/c"].as_str(), found["etc/new"].as_str()), ("1", "2"));
    }

    #[tokio::test]
    async fn of_several_platforms_one_comes_out() {
        let store = Store::default();
        let one = |name: &str| Tar::of([file(name, "x")]);
        let amd = store.image("a", None, "amd64", &[&one("amd")]);
        let arm = store.image("a", None, "arm64", &[&one("arm")]);
        let mut beside = store.image("a", None, "none", &[&one("none")]);
        beside["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        store.index("a", "both", &[amd.clone(), arm.clone(), beside.clone()]);
        store.index("a", "arm", &[arm, beside]);
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a.tar");
        for (image, platform, name) in
            [("a:both", Some("linux/arm64"), "arm"), ("a:both", Some("linux/amd64"), "amd"), ("a:arm", None, "arm")]
        {
            exported(&store, image, platform, &path).await.unwrap();
            assert!(listed(&fs::read(&path).unwrap()).contains_key(name), "{image} {platform:?}");
        }
        let error = exported(&store, "a:both", Some("linux/s390x"), &path).await.unwrap_err().to_string();
        assert!(error.contains("there is no linux/s390x in ") && error.contains("linux/arm64"), "{error}");
        store.image("a", Some("one"), "amd64", &[&one("amd")]);
        let error = exported(&store, "a:one", Some("linux/arm64"), &path).await.unwrap_err().to_string();
        assert_eq!(error, "a:one is for linux/amd64, and not for linux/arm64");
    }

    #[tokio::test(start_paused = true)]
    async fn no_fault_leaves_half_a_file() {
        type Change = fn(&Store);
        let layer: Change = |store| store.fails("GET /v2/a/blobs/", 1000, Kind::Damaged);
        let gone: Change = |store| store.held().blobs.retain(|_, content| *content != base());
        let cut: Change = |store| {
            store.image("a", Some("1"), "amd64", &[&base()[..3000]]);
        };
        let out: Change = |store| {
            store.image("a", Some("1"), "amd64", &[&base(), &Tar::of([file("etc/../../b", "x")])]);
        };
        let chart: Change = |store| {
            let config = store.blob("a", "application/vnd.cncf.helm.config.v1+json", b"{}");
            let kind = "application/vnd.oci.image.manifest.v1+json";
            store.manifest("a", Some("1"), &json!({"mediaType": kind, "config": config, "layers": []}));
        };
        let mixed: Change = |store| {
            let layers = [("application/vnd.oci.image.layer.v1.tar", upper(), base())];
            packed(store, "1", &layers);
        };
        let fewer: Change = |store| {
            packed(store, "1", &[]);
            let held = store.held();
            let digest = held.tags[&("a".to_owned(), "1".to_owned())].clone();
            let (kind, text) = held.manifests[&("a".to_owned(), digest)].clone();
            let mut manifest: Value = serde_json::from_slice(&text).unwrap();
            drop(held);
            manifest["mediaType"] = kind.into();
            manifest["layers"] = json!([store.blob("a", "x", &base())]);
            store.manifest("a", Some("1"), &manifest);
        };
        for (change, words) in [
            (layer, "its storage is damaged"),
            (gone, "is not there"),
            (cut, "it ends in the middle of a file"),
            (out, "etc/../../b is a name that leads nowhere in an image"),
            (chart, "is no image of a container, but application/vnd.cncf.helm"),
            (mixed, "layers were mixed up"),
            (fewer, "knows 0 layers, and its manifest 1"),
        ] {
            let store = Store::default();
            store.image("a", Some("1"), "amd64", &[&base(), &upper()]);
            change(&store);
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join("a.tar");
            fs::write(&path, "of yesterday").unwrap();
            let error = format!("{:#}", exported(&store, "a:1", None, &path).await.unwrap_err());
            assert!(error.contains(words), "{words}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "of yesterday", "{words}");
            assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "{words}: nothing is left lying about");
        }
    }
}
