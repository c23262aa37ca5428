//! Images and archives of other people's programs: buildah makes them, skopeo moves them, helm pushes what is no image. What goes through the program has the
//! same digests afterwards, and others read what it writes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testbed::{Family, debian};

use crate::bed::{Bed, runs, sha256, tools};

/// Somebody with buildah and skopeo, and with a folder for what buildah keeps.
struct Builder<'a> {
    bed: &'a Bed,
    buildah: PathBuf,
    skopeo: PathBuf,
    storage: [String; 6],
}

impl<'a> Builder<'a> {
    /// `None` where they can't be had, or can't work.
    async fn new(bed: &'a Bed) -> Option<Self> {
        if let Err(error) = tokio::task::spawn_blocking(|| debian::ensure(debian::IMAGES)).await.unwrap() {
            testbed::skip_because(&format!("{error:#}"));
            return None;
        }
        if !nix::unistd::geteuid().is_root() {
            testbed::skip_because("buildah shows nobody but root the files of an image in the making");
            return None;
        }
        let found = |name: &str| debian::find(name).unwrap();
        let (root, run) = (bed.path("buildah"), bed.path("buildah-run"));
        let storage = ["--storage-driver", "vfs", "--root", &root, "--runroot", &run].map(str::to_owned);
        Some(Self { bed, buildah: found("buildah"), skopeo: found("skopeo"), storage })
    }

    async fn buildah(&self, arguments: &[&str]) -> String {
        let storage = self.storage.each_ref().map(String::as_str);
        let home = self.bed.file("home");
        runs(&self.buildah, &[&storage[..], arguments].concat(), &[("HOME", &home)]).await.trim().to_owned()
    }

    async fn skopeo(&self, arguments: &[&str]) -> String {
        let home = self.bed.file("home");
        // Whoever copies an image asks a policy whether it may.
        let policy = self.bed.path("policy.json");
        fs::write(&policy, "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}").unwrap();
        runs(&self.skopeo, &[&["--policy", &policy][..], arguments].concat(), &[("HOME", &home)]).await
    }

    /// How both call an image of the registry.
    fn there(&self, name: &str) -> String {
        format!("docker://{}/{name}", self.bed.registry.address())
    }

    /// Makes an image from another one, with what is done to its files.
    async fn makes(&self, name: &str, base: &str, architecture: &str, change: impl Fn(&Path)) {
        let container = self.buildah(&["from", "--pull-never", base]).await;
        change(Path::new(&self.buildah(&["mount", &container]).await));
        let config =
            ["config", "--arch", architecture, "--os", "linux", "--label", "made=by-hand", "--cmd", "/bin/tool"];
        self.buildah(&[&config[..], &[&container]].concat()).await;
        self.buildah(&["commit", "--quiet", "--rm", &container, name]).await;
    }

    /// The manifest under a name, as skopeo sees it: digest and content.
    async fn seen(&self, name: &str) -> (String, Value) {
        let raw = self.skopeo(&["inspect", "--raw", "--tls-verify=false", &self.there(name)]).await;
        (sha256(raw.as_bytes()), serde_json::from_str(&raw).unwrap())
    }
}

fn base(root: &Path) {
    for (path, text) in [("etc/a", "1"), ("etc/motd", "hello"), ("bin/tool", "tool"), ("var/log/old", "1")] {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), text).unwrap();
    }
    fs::set_permissions(root.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(root.join("bin/tool"), root.join("bin/alias")).unwrap();
    std::os::unix::fs::symlink("/etc/a", root.join("etc/link")).unwrap();
}

fn upper(root: &Path) {
    fs::write(root.join("etc/a"), "2").unwrap();
    fs::remove_file(root.join("etc/motd")).unwrap();
    fs::remove_dir_all(root.join("var/log")).unwrap();
}

/// Three images of one making: in Docker's form, in the OCI's, and as an index of two platforms.
const NAMES: [&str; 3] = ["team/docker:1", "team/oci:1", "team/index:1"];

async fn pushed(builder: &Builder<'_>) {
    builder.makes("base", "scratch", "amd64", base).await;
    builder.makes("app", "localhost/base", "amd64", upper).await;
    builder.makes("arm", "localhost/base", "arm64", upper).await;
    for (format, name) in [("v2s2", NAMES[0]), ("oci", NAMES[1]), ("oci", "team/base:1")] {
        let from = if name == "team/base:1" { "localhost/base" } else { "localhost/app" };
        let push = ["push", "--quiet", "--tls-verify=false", "--format", format, from];
        builder.buildah(&[&push[..], &[&builder.there(name)]].concat()).await;
    }
    builder.buildah(&["manifest", "create", "both", "localhost/app", "localhost/arm"]).await;
    let push = ["manifest", "push", "--quiet", "--all", "--tls-verify=false", "both"];
    builder.buildah(&[&push[..], &[&builder.there(NAMES[2])]].concat()).await;
}

#[tokio::test]
async fn images_of_buildah_are_seen_as_others_see_them_and_keep_their_digests() {
    let Some(bed) = Bed::new().await else { return };
    let Some(builder) = Builder::new(&bed).await else { return };
    pushed(&builder).await;

    for name in NAMES {
        let (digest, manifest) = builder.seen(name).await;
        let inspected = bed.reads(&["inspect", "team-a", name]).await;
        assert_eq!((&inspected["digest"], &inspected["mediaType"]), (&json!(digest), &manifest["mediaType"]), "{name}");
        assert_eq!(inspected["isIndex"], json!(name == NAMES[2]), "{name}");
        assert_eq!(inspected["images"][0]["labels"]["made"], "by-hand", "{name}");
        let layers = bed.reads(&["layers", "team-a", name]).await;
        if let Some(own) = manifest["layers"].as_array() {
            let sizes = |of: &Value| of.as_array().unwrap().iter().map(|of| of["size"].clone()).collect::<Vec<_>>();
            assert_eq!(sizes(&layers["layers"]), sizes(&manifest["layers"]), "{name}");
            assert_eq!(own.len(), 2, "{name}");
        } else {
            let platforms: Vec<_> = layers["images"].as_array().unwrap().iter().map(|of| &of["platform"]).collect();
            assert_eq!(platforms, ["linux/amd64", "linux/arm64"], "{layers:#}");
        }
        assert_eq!(bed.asks(&["diff", "team-a", name, name]).await.code, Some(0));

        // Into files, as others read them, and back.
        let (file, folder) = (bed.path("ours.tar"), format!("{}/", bed.path(&name.replace(['/', ':'], "-"))));
        bed.sees(&["save", "team-a", name, "-o", &file]).await;
        bed.sees(&["save", "team-a", name, "-o", &folder]).await;
        for (number, from) in [&file, &folder].into_iter().enumerate() {
            let again = format!("again/{name}-{number}");
            bed.sees(&["load", "team-a", &again, "-i", from]).await;
            assert_eq!(builder.seen(&again).await.0, digest, "{again}");
        }
        for from in [format!("oci-archive:{file}"), format!("oci:{folder}")] {
            let copy = ["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false", &from];
            builder.skopeo(&[&copy[..], &[&builder.there("skopeo/oci:1")]].concat()).await;
            assert_eq!(builder.seen("skopeo/oci:1").await.0, digest, "{from}");
        }
        // Of that form, the layers and the configuration are all that counts.
        let copy = ["copy", "--quiet", "--dest-tls-verify=false", &format!("docker-archive:{file}")];
        builder.skopeo(&[&copy[..], &[&builder.there("skopeo/docker:1")]].concat()).await;
        let (_, of_docker) = builder.seen("skopeo/docker:1").await;
        let own = if manifest["config"].is_null() { builder.seen(NAMES[1]).await.1 } else { manifest };
        assert_eq!(of_docker["config"]["digest"], own["config"]["digest"], "{name}");
    }
    let said = bed.asks(&["diff", "team-a", "team/base:1", "team/oci:1"]).await;
    assert!(said.code == Some(1) && said.out.contains("layer: sha256:"), "{}{}", said.out, said.err);
}

#[tokio::test]
async fn files_of_images_of_buildah_come_out_as_buildah_has_them() {
    let Some(bed) = Bed::new().await else { return };
    let Some(builder) = Builder::new(&bed).await else { return };
    pushed(&builder).await;
    let container = builder.buildah(&["from", "--pull-never", "localhost/app"]).await;
    let theirs = builder.buildah(&["mount", &container]).await;
    let (file, ours) = (bed.path("files.tar"), bed.path("files"));
    for name in NAMES {
        bed.sees(&["export", "team-a", name, "-o", &file, "--platform", "linux/amd64"]).await;
        fs::create_dir(&ours).unwrap();
        runs(Path::new("tar"), &["--extract", "--file", &file, "--directory", &ours], &[]).await;
        runs(Path::new("diff"), &["--recursive", "--no-dereference", &ours, &theirs], &[]).await;
        let metadata = fs::metadata(bed.file("files/bin/alias")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o4755, "{name}");
        assert!(!bed.file("files/etc/motd").exists() && !bed.file("files/var/log").exists(), "{name}");
        fs::remove_dir_all(&ours).unwrap();
    }
}

#[tokio::test]
async fn archives_of_skopeo_are_loaded_with_the_same_digests() {
    let Some(bed) = Bed::new().await else { return };
    let Some(builder) = Builder::new(&bed).await else { return };
    pushed(&builder).await;
    for (number, name) in NAMES.into_iter().enumerate() {
        let (digest, manifest) = builder.seen(name).await;
        let from = builder.there(name);
        let (file, folder) = (bed.path(&format!("{number}.tar")), bed.path(&format!("{number}")));
        for to in [format!("oci-archive:{file}:1"), format!("oci:{folder}:1")] {
            // What is in Docker's form becomes another image there.
            let is_kept = if name == NAMES[1] { "--preserve-digests" } else { "--quiet" };
            builder.skopeo(&["copy", "--quiet", "--all", is_kept, "--src-tls-verify=false", &from, &to]).await;
            let path = to.split(':').nth(1).unwrap();
            let done = bed.reads(&["load", "team-a", "skopeo/app", "-i", path]).await;
            assert_eq!(done[0]["reference"], "skopeo/app:1");
            let written: Value = if path == folder {
                serde_json::from_str(&fs::read_to_string(format!("{folder}/index.json")).unwrap()).unwrap()
            } else {
                let text =
                    runs(Path::new("tar"), &["--extract", "--to-stdout", "--file", path, "index.json"], &[]).await;
                serde_json::from_str(&text).unwrap()
            };
            assert_eq!(done[0]["digest"], written["manifests"][0]["digest"], "{to}");
            assert_eq!(builder.seen("skopeo/app:1").await.0, done[0]["digest"].as_str().unwrap(), "{to}");
            if name == NAMES[1] {
                assert_eq!(done[0]["digest"], json!(digest), "{to}");
            }
        }
        // As docker save wrote it for years.
        if name != NAMES[2] {
            let old = bed.path(&format!("{number}-docker.tar"));
            let to = format!("docker-archive:{old}:docker.io/old/app:{number}");
            builder.skopeo(&["copy", "--quiet", "--src-tls-verify=false", &from, &to]).await;
            let done = bed.reads(&["load", "team-a", "-i", &old]).await;
            assert_eq!(done[0]["reference"], format!("old/app:{number}"));
            let (_, loaded) = builder.seen(&format!("old/app:{number}")).await;
            if name == NAMES[0] {
                assert_eq!(loaded["config"]["digest"], manifest["config"]["digest"], "the image keeps its ID");
            }
            let there = builder.there(&format!("old/app:{number}"));
            builder.skopeo(&["copy", "--quiet", "--src-tls-verify=false", &there, &format!("dir:{old}.dir")]).await;
        }
    }
    // Of an archive that somebody changed nothing becomes an image.
    let file = bed.path("1.tar");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(2).position(|two| two == [0x1f, 0x8b]).unwrap() + 40;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let said = bed.asks(&["load", "team-a", "damaged/app:1", "-i", &file]).await;
    // A blob that the registry has is not read.
    let other = bed.another().await;
    let there = bed.asks_at(other.address(), &["load", "team-a", "damaged/app:1", "-i", &file]).await;
    assert!(there.code == Some(1) && there.err.contains("somebody changed it"), "{} {}", said.err, there.err);
    assert_eq!(bed.asks_at(other.address(), &["tags", "team-a", "damaged/app"]).await.code, Some(1));
}

#[tokio::test]
async fn a_chart_that_helm_pushed_is_kept_as_it_is() {
    let Some(bed) = Bed::new().await else { return };
    let helm = tools(&[Family::Helm]).await.unwrap().path("helm").unwrap().to_owned();
    let home = bed.file("home");
    let helm = async |arguments: &[&str]| runs(&helm, arguments, &[("HOME", &home)]).await;
    fs::create_dir_all(bed.file("web/templates")).unwrap();
    fs::write(bed.file("web/Chart.yaml"), "apiVersion: v2\nname: web\nversion: 1.2.3\ndescription: a chart\n").unwrap();
    fs::write(bed.file("web/templates/map.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n").unwrap();
    helm(&["package", &bed.path("web"), "--destination", &bed.path("")]).await;
    let host = bed.registry.address();
    helm(&["push", &bed.path("web-1.2.3.tgz"), &format!("oci://{host}/charts"), "--plain-http"]).await;

    let inspected = bed.reads(&["inspect", "team-a", "charts/web:1.2.3"]).await;
    let digest = inspected["digest"].as_str().unwrap();
    assert_eq!(inspected["annotations"]["org.opencontainers.image.description"], "a chart", "{inspected:#}");
    let layers = bed.reads(&["layers", "team-a", "charts/web:1.2.3"]).await;
    assert_eq!(layers["layers"][0]["mediaType"], "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "{layers:#}");
    let said = bed.asks(&["export", "team-a", "charts/web:1.2.3", "-o", &bed.path("files.tar")]).await;
    assert!(said.code == Some(1) && said.err.contains("is no image of a container"), "{}", said.err);
    assert!(!bed.file("files.tar").exists());

    bed.sees(&["copy", "team-a", "charts/web:1.2.3", "copied/web"]).await;
    let file = bed.path("chart.tar");
    bed.sees(&["save", "team-a", "charts/web:1.2.3", "-o", &file]).await;
    bed.sees(&["load", "team-a", "loaded/web", "-i", &file]).await;
    for folder in ["copied", "loaded"] {
        assert_eq!(bed.digest(&format!("{folder}/web:1.2.3")).await, digest, "{folder}");
        fs::create_dir(bed.file(folder)).unwrap();
        let from = format!("oci://{host}/{folder}/web");
        helm(&["pull", &from, "--version", "1.2.3", "--plain-http", "--destination", &bed.path(folder)]).await;
        let chart = |path: &str| fs::read(bed.file(path)).unwrap();
        assert_eq!(chart(&format!("{folder}/web-1.2.3.tgz")), chart("web-1.2.3.tgz"));
    }
}
