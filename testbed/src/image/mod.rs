//! OCI images written by our own code, so that no image builder and no image registry is needed to run a pod.
//! Building an image twice gives the same digest: nothing of the clock, the user or the file system's order may reach a blob.

mod contents;
mod layer;
mod layout;

pub use contents::{FRONTEND, PAUSE, REGISTRY, nginx, operator, pause, registry, test_client};
pub use layer::{Compression, Layer};
pub use layout::Built;

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// What an image is made of. [`Image::build`] turns it into blobs.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The full name under which a container runtime will know it, `host/repository:tag`.
    pub reference: String,
    /// The file systems, lowest first.
    pub layers: Vec<Layer>,
    /// Program and leading arguments.
    pub entrypoint: Vec<String>,
    /// Arguments used when a pod gives none.
    pub cmd: Vec<String>,
    /// `uid` or `uid:gid`; empty means root.
    pub user: String,
    /// The environment, name to value.
    pub env: BTreeMap<String, String>,
    /// `org.opencontainers.image.*` and the like.
    pub labels: BTreeMap<String, String>,
    /// TCP ports that the program listens on; informative.
    pub exposed_ports: Vec<u16>,
    /// The signal by which it is told to end; empty means SIGTERM.
    pub stop_signal: String,
    /// How the layers are stored: unpacked is faster to import, packed is smaller to publish.
    pub compression: Compression,
}

impl Image {
    /// Reads every file and computes every digest. Fails when a file that a layer names can't be read.
    pub fn build(&self) -> Result<Built> {
        layout::build(self).with_context(|| format!("build image {}", self.reference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(compression: Compression) -> Image {
        Image {
            reference: "registry.example/team/sample:1".into(),
            layers: vec![
                Layer::new().file("etc/one", 0o644, b"1\n".as_slice()).symlink("etc/two", "one"),
                Layer::new().file("bin/run", 0o755, vec![7_u8; 100_000]).directory_owned_by("data", 0o700, 65532),
            ],
            entrypoint: vec!["/bin/run".into()],
            user: "65532:65532".into(),
            env: BTreeMap::from([("PATH".into(), "/bin".into())]),
            exposed_ports: vec![5000],
            compression,
            ..Image::default()
        }
    }

    #[test]
    fn building_one_twice_gives_the_same_digest_and_bytes() {
        for compression in [Compression::None, Compression::Gzip] {
            let folder = tempfile::tempdir().unwrap();
            let archives = ["a.tar", "b.tar"].map(|name| {
                let path = folder.path().join(name);
                sample(compression).build().unwrap().write_archive(&path).unwrap();
                std::fs::read(path).unwrap()
            });
            assert_eq!(archives[0], archives[1]);
        }
    }

    #[test]
    fn the_order_of_adding_files_does_not_matter_but_their_bytes_do() {
        let digest = |layer: Layer| {
            Image { layers: vec![layer], ..sample(Compression::None) }.build().unwrap().digest().to_owned()
        };
        let forwards = digest(Layer::new().file("a", 0o644, "1").file("b", 0o644, "2"));
        let backwards = digest(Layer::new().file("b", 0o644, "2").file("a", 0o644, "1"));
        let changed = digest(Layer::new().file("a", 0o644, "1").file("b", 0o644, "3"));
        let executable = digest(Layer::new().file("a", 0o755, "1").file("b", 0o644, "2"));
        assert_eq!(forwards, backwards);
        assert_ne!(forwards, changed);
        assert_ne!(forwards, executable);
    }

    #[test]
    fn a_layout_holds_exactly_the_blobs_its_manifest_names_under_their_own_digest() {
        let folder = tempfile::tempdir().unwrap();
        let built = sample(Compression::Gzip).build().unwrap();
        built.write_layout(folder.path()).unwrap();

        let blobs = folder.path().join("blobs/sha256");
        let mut named = vec![built.digest().to_owned()];
        let read = |digest: &str| std::fs::read(blobs.join(digest.strip_prefix("sha256:").unwrap())).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&read(built.digest())).unwrap();
        named.push(manifest["config"]["digest"].as_str().unwrap().into());
        for layer in manifest["layers"].as_array().unwrap() {
            assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
            named.push(layer["digest"].as_str().unwrap().into());
        }
        assert_eq!(std::fs::read_dir(&blobs).unwrap().count(), named.len());
        for digest in &named {
            assert_eq!(&layout::digest(&read(digest)), digest);
        }

        let config: serde_json::Value = serde_json::from_slice(&read(&named[1])).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["ExposedPorts"], serde_json::json!({"5000/tcp": {}}));
        let unpacked = read(&named[2]);
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(unpacked.as_slice()), &mut tar).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], layout::digest(&tar));
    }

    #[test]
    fn a_layer_lists_parents_before_children_with_fixed_owner_and_time() {
        let layer = Layer::new().file("usr/lib/deep/file", 0o600, "x").directory_owned_by("usr/lib/data", 0o700, 65532);
        let tar = layer.to_tar().unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let seen: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(header.mtime().unwrap(), 0);
                (entry.path().unwrap().display().to_string(), header.mode().unwrap(), header.uid().unwrap())
            })
            .collect();
        let wanted = [
            ("usr/", 0o755, 0),
            ("usr/lib/", 0o755, 0),
            ("usr/lib/data/", 0o700, 65532),
            ("usr/lib/deep/", 0o755, 0),
            ("usr/lib/deep/file", 0o600, 0),
        ];
        assert_eq!(seen, wanted.map(|(path, mode, uid)| (path.to_owned(), mode, uid)));
    }

    #[test]
    fn a_missing_file_is_named_in_the_error() {
        let image = Image {
            reference: "x/y:1".into(),
            layers: vec![Layer::new().file_from("bin/x", 0o755, "/nonexistent/program")],
            ..Image::default()
        };
        let error = format!("{:#}", image.build().unwrap_err());
        assert!(error.contains("x/y:1") && error.contains("/nonexistent/program"), "{error}");
    }
}
