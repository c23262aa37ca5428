//! What a person does with the content of registries from a terminal: copies, files and back again, deletions. Images come from crane, and end with the same
//! digests.

use std::fs;

use serde_json::{Value, json};

use crate::cluster::cluster;
use crate::terminal::Terminal;

#[tokio::test]
async fn images_are_found_compared_copied_and_deleted_from_a_terminal() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("content", "team-a", json!({})).await.ready().await;
    let (admin, terminal) = (registry.admin().await, Terminal::new(&registry));
    let other = cluster.another("content", "team-b", json!({})).await;
    let of = |name: &str| admin.reference(name);
    let first = admin.pushes("team/app:1", "first").await;
    let second = admin.pushes("team/app:2", "second").await;
    let both = ["index", "append", "-m", &of("team/app:1"), "-m", &of("team/app:2"), "-t", &of("team/app:both")];
    admin.once("crane", &both).await;
    let index = admin.once("crane", &["digest", &of("team/app:both")]).await.trim().to_owned();

    assert_eq!(terminal.sees(&["search", "team-a", "team/*:bo*", "-o", "name"]).await, "team/app:both\n");
    assert_eq!(terminal.sees(&["search", "team-a", "app", "-o", "name"]).await, "team/app\n");
    let said = terminal.asks(&["search", "team-a", "nothing"]).await;
    assert!(said.code == Some(0) && said.err.contains("has nothing of this name"), "{}", said.err);

    let layers = terminal.reads(&["layers", "team-a", "team/app:1", "team/app:2"]).await;
    let manifest: Value = serde_json::from_str(&admin.once("crane", &["manifest", &of("team/app:1")]).await).unwrap();
    let sizes =
        |layers: &Value| layers.as_array().unwrap().iter().filter_map(|layer| layer["size"].as_u64()).sum::<u64>();
    assert_eq!(layers["images"][0]["bytes"], sizes(&manifest["layers"]), "{layers:#}");
    assert!(sizes(&layers["layers"]) < 2 * sizes(&manifest["layers"]), "what both have is there once: {layers:#}");

    let same = terminal.asks(&["diff", "team-a", "team/app:1", &format!("team/app@{first}")]).await;
    assert_eq!((same.code, same.out), (Some(0), format!("Both are {first}\n")));
    let differs = terminal.asks(&["diff", "team-a", "team/app:1", "team/app:2"]).await;
    assert!(differs.code == Some(1) && differs.out.contains("\n- layer: sha256:"), "{}", differs.out);
    assert_eq!(terminal.asks(&["diff", "team-a", "team/app:1", "team/app:none"]).await.code, Some(2));

    // Within the registry nothing is sent; into another one everything, once.
    let done = terminal.reads(&["copy", "team-a", "team/app:both", "archive/app"]).await;
    assert_eq!((&done["digest"], &done["copied"]), (&json!(index), &json!(0)), "{done:#}");
    assert!(done["mounted"].as_u64().unwrap() > 0, "{done:#}");
    assert_eq!(admin.pulls("archive/app:both").await, index);
    let other = other.ready().await;
    let into = ["copy", "team-a", "team/app:both", "new/app:3", "--to", "team-b"];
    let done = terminal.reads(&into).await;
    assert_eq!((&done["digest"], &done["present"]), (&json!(index), &json!(0)), "{done:#}");
    assert_eq!(other.admin().await.pulls("new/app:3").await, index);
    let again = terminal.reads(&into).await;
    assert_eq!((&again["copied"], &again["present"]), (&json!(0), &done["copied"]), "{again:#}");

    // A registry that keeps everything says so before anybody is asked.
    let said = terminal.asks(&["rm", "team-a", "team/app:2", "--yes"]).await;
    assert!(said.code == Some(1) && said.err.contains("spec.config.allowDeletes"), "{}", said.err);
    registry.change(json!({"config": {"allowDeletes": true}})).await;
    registry.is("Settled").await;

    admin.once("crane", &["tag", &of("archive/app:both"), "stable"]).await;
    let said = terminal.asks(&["rm", "team-a", "archive/app:both"]).await;
    assert!(said.code == Some(1) && said.err.contains("Nobody can be asked here"), "{}", said.err);
    let plan = terminal.reads(&["rm", "team-a", "archive/app:both", "--dry-run"]).await;
    assert_eq!((&plan["stayingTags"], &plan["manifests"]), (&json!(["stable"]), &json!([])), "{plan:#}");
    terminal.sees(&["rm", "team-a", "archive/app:both", "--yes"]).await;
    assert_eq!(terminal.reads(&["tags", "team-a", "archive/app"]).await, json!(["stable"]));
    assert_eq!(admin.pulls("archive/app:stable").await, index);

    // Of an index everything goes that nobody else has; here the other repository has all of it.
    let plan = terminal.reads(&["rm", "team-a", "archive/app:stable", "--yes"]).await;
    assert_eq!((plan["manifests"].as_array().unwrap().len(), &plan["freed"]["blobs"]), (3, &json!(0)), "{plan:#}");
    let gone = terminal.asks(&["inspect", "team-a", &format!("archive/app@{first}")]).await;
    assert!(gone.code == Some(1) && gone.err.contains("has no archive/app@"), "{}", gone.err);
    let part = terminal.asks(&["rm", "team-a", &format!("team/app@{second}"), "--yes"]).await;
    assert!(part.code == Some(1) && part.err.contains("belongs to team/app:both"), "{}", part.err);
    assert_eq!(admin.pulls("team/app:both").await, index);
}

#[tokio::test]
async fn images_go_into_files_and_come_back_as_they_were() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("content-files", "team-a", json!({})).await.ready().await;
    let (admin, terminal) = (registry.admin().await, Terminal::new(&registry));
    let of = |name: &str| admin.reference(name);
    let first = admin.pushes("team/app:1", "first").await;
    admin.pushes("team/app:2", "second").await;
    let both = ["index", "append", "-m", &of("team/app:1"), "-m", &of("team/app:2"), "-t", &of("team/app:both")];
    admin.once("crane", &both).await;
    let index = admin.once("crane", &["digest", &of("team/app:both")]).await.trim().to_owned();

    let (file, folder) = (terminal.file("a.tar"), terminal.file("layout"));
    let (file, folder) = (file.to_str().unwrap(), folder.to_str().unwrap());
    terminal.sees(&["save", "team-a", "team/app:both", "-o", file]).await;
    terminal.sees(&["save", "team-a", "team/app:both", "-o", &format!("{folder}/")]).await;
    for (from, name) in [(file, "from/file:1"), (folder, "from/folder:1")] {
        let done = terminal.reads(&["load", "team-a", name, "-i", from]).await;
        assert_eq!((&done[0]["reference"], &done[0]["digest"]), (&json!(name), &json!(index)), "{done:#}");
        assert_eq!(admin.pulls(name).await, index);
    }
    // As others read it, and as others wrote it.
    admin.once("crane", &["push", "--index", folder, &of("crane/app:1")]).await;
    terminal.sees(&["save", "team-a", "team/app:1", "-o", file]).await;
    admin.once("crane", &["push", file, &of("crane/docker:1")]).await;
    let config = |name: &'static str| {
        let (admin, reference) = (&admin, of(name));
        async move { admin.once("crane", &["config", &reference]).await }
    };
    assert_eq!(config("crane/docker:1").await, config("team/app:1").await);
    let written = terminal.file("crane.tar");
    let written = written.to_str().unwrap();
    admin.once("crane", &["pull", &of("team/app:1"), written]).await;
    let done = terminal.reads(&["load", "team-a", "-i", written]).await;
    assert_eq!(done[0]["reference"], "team/app:1", "{done:#}");
    let oci = terminal.file("crane");
    admin
        .once("crane", &["pull", "--format", "oci", &format!("{}@{first}", of("team/app")), oci.to_str().unwrap()])
        .await;
    let done = terminal.reads(&["load", "team-a", "from/crane:1", "-i", oci.to_str().unwrap()]).await;
    assert_eq!(done[0]["digest"], json!(first), "{done:#}");

    let damaged = fs::read(file).unwrap();
    let at = damaged.len() / 2;
    fs::write(file, [&damaged[..at], &[damaged[at] ^ 1], &damaged[at + 1..]].concat()).unwrap();
    let said = terminal.asks(&["load", "team-a", "from/damaged:1", "-i", file]).await;
    assert!(said.code == Some(1) && said.err.contains("somebody changed it"), "{}", said.err);
    assert_eq!(terminal.asks(&["tags", "team-a", "from/damaged"]).await.code, Some(1));
}
