//! The files of images, from a terminal: out of one, into one, and in another layer of one. What crane makes of the same images is what counts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::Person;
use crate::cluster::cluster;
use crate::terminal::Terminal;

/// Runs the system's own tar.
fn tar(what: &str, archive: &Path, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let mut command = Command::new("tar");
    command.args([what, "--file"]).arg(archive).arg("--directory").arg(folder);
    if what == "--create" {
        command.arg(".");
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes a file, and what it is in.
fn file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Each path of an archive with what somebody finds there who unpacks it: kind, mode, names of the same file, content or target.
fn tree(archive: &Path) -> BTreeMap<String, String> {
    fn visit(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let (metadata, name) = (fs::symlink_metadata(&path).unwrap(), path.strip_prefix(root).unwrap());
            let kind = metadata.file_type();
            let what = match () {
                () if kind.is_dir() => "folder".to_owned(),
                () if kind.is_symlink() => format!("-> {}", fs::read_link(&path).unwrap().display()),
                () => format!("{} x {}", metadata.nlink(), fs::read_to_string(&path).unwrap()),
            };
            found.insert(name.display().to_string(), format!("{:o} {what}", metadata.mode()));
            if kind.is_dir() {
                visit(root, &path, found);
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    tar("--extract", archive, folder.path());
    let mut found = BTreeMap::new();
    visit(folder.path(), folder.path(), &mut found);
    found
}

/// What crane says an image's files are.
async fn told_by_crane(admin: &Person, terminal: &Terminal, name: &str) -> BTreeMap<String, String> {
    let archive = terminal.file("crane.tar");
    admin.once("crane", &["export", &admin.reference(name), archive.to_str().unwrap()]).await;
    tree(&archive)
}

async fn manifest(admin: &Person, name: &str) -> Value {
    serde_json::from_str(&admin.once("crane", &["manifest", &admin.reference(name)]).await).unwrap()
}

#[tokio::test]
async fn files_come_out_of_images_and_into_them_as_others_see_them() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("files", "team-a", json!({})).await.ready().await;
    let (admin, terminal) = (registry.admin().await, Terminal::new(&registry));
    let text = |path: &Path| path.to_str().unwrap().to_owned();

    let base = terminal.file("base");
    for (path, content) in
        [("etc/a", "1"), ("etc/motd", "hello"), ("bin/tool", "x"), ("var/log/old", "1"), ("swap", "file")]
    {
        file(&base, path, content);
    }
    fs::hard_link(base.join("bin/tool"), base.join("bin/alias")).unwrap();
    symlink("/etc/a", base.join("etc/link")).unwrap();
    fs::set_permissions(base.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    let upper = terminal.file("upper");
    for (path, content) in [("etc/a", "2"), ("etc/.wh.motd", ""), ("var/.wh.log", ""), ("swap/now/a/folder", "2")] {
        file(&upper, path, content);
    }
    let archive = terminal.file("layer.tar");
    tar("--create", &archive, &base);
    admin
        .once("crane", &["append", "--new_layer", &text(&archive), "--new_tag", &admin.reference("team/base:1")])
        .await;
    tar("--create", &archive, &upper);
    let (of, to) = (admin.reference("team/base:1"), admin.reference("team/app:1"));
    admin.once("crane", &["append", "--base", &of, "--new_layer", &text(&archive), "--new_tag", &to]).await;

    // Out of an image.
    let ours = terminal.file("ours.tar");
    let said = terminal.sees(&["export", "team-a", "team/app:1", "-o", &text(&ours)]).await;
    assert!(said.starts_with("team/app:1 (") && said.contains(" entries, "), "{said}");
    let files = tree(&ours);
    assert_eq!(files, told_by_crane(&admin, &terminal, "team/app:1").await);
    assert!(files["etc/a"].ends_with(" 2") && files["swap/now/a/folder"].ends_with(" 2"), "{files:#?}");
    assert!(!files.contains_key("etc/motd") && !files.contains_key("var/log"), "{files:#?}");
    assert!(files["bin/alias"] == files["bin/tool"] && files["bin/tool"].contains("4755 2 x x"), "{files:#?}");

    // Into an image.
    let into = ["import", "team-a", &text(&ours), "team/flat:1", "--cmd", "/bin/tool", "--platform", "linux/amd64"];
    let done = terminal.reads(&into).await;
    assert_eq!(admin.pulls("team/flat:1").await, done["digest"].as_str().unwrap());
    assert_eq!(told_by_crane(&admin, &terminal, "team/flat:1").await, files);
    assert_eq!(manifest(&admin, "team/flat:1").await["layers"].as_array().unwrap().len(), 1);
    let again = terminal.reads(&into).await;
    assert_eq!((&again["digest"], &again["copied"]), (&done["digest"], &json!(0)), "{again:#}");
    fs::write(&archive, &fs::read(&ours).unwrap()[..fs::metadata(&ours).unwrap().len() as usize - 1024]).unwrap();
    let said = terminal.asks(&["import", "team-a", &text(&archive), "team/cut:1"]).await;
    assert!(said.code == Some(1) && said.err.contains("layer.tar: it has no end"), "{}", said.err);
    assert_eq!(terminal.asks(&["tags", "team-a", "team/cut"]).await.code, Some(1));

    // In another layer.
    let changes = terminal.file("changes");
    file(&changes, "etc/a", "3");
    file(&changes, "srv/new", "3");
    let changed = ["--add", &text(&changes), "--delete", "/swap", "--delete", "bin/tool"];
    let commit = ["commit", "team-a", "team/app:1", "shop/app:2", "-a", "Ann", "-m", "why"];
    let done = terminal.reads(&[&commit[..], &changed].concat()).await;
    assert_eq!((&done["mounted"], &done["copied"]), (&json!(2), &json!(2)), "{done:#}");
    assert_eq!(admin.pulls("shop/app:2").await, done["digest"].as_str().unwrap());
    let (before, after) = (manifest(&admin, "team/app:1").await, manifest(&admin, "shop/app:2").await);
    let layers = after["layers"].as_array().unwrap();
    assert_eq!((layers.len(), &layers[..2]), (3, &before["layers"].as_array().unwrap()[..]));
    let config = admin.once("crane", &["config", &admin.reference("shop/app:2")]).await;
    let config: Value = serde_json::from_str(&config).unwrap();
    let last = config["history"].as_array().unwrap().last().unwrap();
    assert_eq!((&config["author"], &last["author"], &last["comment"]), (&json!("Ann"), &json!("Ann"), &json!("why")));

    terminal.sees(&["export", "team-a", "shop/app:2", "-o", &text(&ours)]).await;
    let found = tree(&ours);
    let mut expected = files;
    expected.retain(|path, _| !path.starts_with("swap") && path != "bin/tool");
    // Of the two names one is left, and its content.
    let alias = expected.insert("bin/alias".to_owned(), found["bin/alias"].clone());
    assert_eq!(alias.unwrap().replace(" 2 x", " 1 x"), found["bin/alias"]);
    for (path, what) in [("etc/a", "100644 1 x 3"), ("srv", "40755 folder"), ("srv/new", "100644 1 x 3")] {
        expected.insert(path.to_owned(), what.to_owned());
    }
    assert_eq!(found, expected);

    let again = terminal.reads(&[&commit[..], &changed].concat()).await;
    assert_eq!((&again["digest"], &again["copied"]), (&done["digest"], &json!(0)), "{again:#}");
    let said = terminal.asks(&["commit", "team-a", "team/app:1", "shop/app:3", "--delete", "etc/motd"]).await;
    assert!(said.code == Some(1) && said.err.contains("team/app:1 has no etc/motd: nothing was made"), "{}", said.err);
    file(&changes, "etc/link/new", "3");
    let said = terminal.asks(&["commit", "team-a", "team/app:1", "shop/app:3", "--add", &text(&changes)]).await;
    assert!(said.code == Some(1) && said.err.contains("would make a folder of etc/link"), "{}", said.err);
    assert_eq!(terminal.reads(&["tags", "team-a", "shop/app"]).await, json!(["2"]));
}
