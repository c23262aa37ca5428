//! Lists of names as long as people's registries have them, page after page from the real one.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testbed::image::Layer;

use crate::bed::Bed;

/// Gives a repository tags as the registry itself keeps them, which is much faster than to ask it ten thousand times.
fn tag(repository: &Path, digest: &str, tags: impl Iterator<Item = String>) {
    let hexadecimal = digest.strip_prefix("sha256:").unwrap();
    for tag in tags {
        let tag = repository.join("_manifests/tags").join(tag);
        for folder in [tag.join("current"), tag.join("index/sha256").join(hexadecimal)] {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("link"), digest).unwrap();
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[tokio::test]
async fn of_ten_thousand_tags_none_is_left_out() {
    let Some(bed) = Bed::new().await else { return };
    let first = bed.pushes("team/many:t00000", vec![Layer::new().file("a", 0o644, "first")]).await;
    let other = bed.pushes("team/many:t09999", vec![Layer::new().file("a", 0o644, "other")]).await;
    let folder = bed.registry.repository("team/many");
    tag(&folder, &first, (1..9_990).map(|number| format!("t{number:05}")));
    tag(&folder, &other, (9_990..9_999).map(|number| format!("t{number:05}")));
    let all: Vec<_> = (0..10_000).map(|number| format!("t{number:05}")).collect();

    // Ten whole pages, behind which the registry has nothing more.
    assert_eq!(texts(&bed.reads(&["tags", "team-a", "team/many"]).await), all);
    let found = bed.sees(&["search", "team-a", "team/many:t*", "--limit", "20000", "-o", "name"]).await;
    assert_eq!(found.lines().count(), 10_000);
    let said = bed.asks(&["search", "team-a", "team/many:*99", "--limit", "50", "-o", "name"]).await;
    assert_eq!((said.code, said.out.lines().count()), (Some(0), 50), "{}", said.err);
    assert!(said.err.contains("There are more than 50"), "{}", said.err);

    // Which tags share the digest, of all of them.
    let plan = bed.reads(&["rm", "team-a", "team/many:t00042", "--yes"]).await;
    assert_eq!(texts(&plan["stayingTags"]).len(), 9_989, "{}", plan["stayingTags"]);
    assert_eq!((&plan["manifests"], &plan["isExact"]), (&json!([]), &json!(true)));
    let plan = bed.reads(&["rm", "team-a", &format!("team/many@{other}"), "--yes"]).await;
    assert_eq!(texts(&plan["tags"]), &all[9_990..]);
    assert_eq!(plan["manifests"], json!([other]));
    let left = bed.reads(&["tags", "team-a", "team/many"]).await;
    let wanted: Vec<_> = all[..9_990].iter().filter(|tag| *tag != "t00042").collect();
    assert_eq!(texts(&left), wanted);
    bed.sees(&["copy", "team-a", "team/many:t09989", "archive/many"]).await;
    assert_eq!(bed.digest("archive/many:t09989").await, first);
}

#[tokio::test]
async fn of_two_thousand_repositories_none_is_left_out() {
    let Some(bed) = Bed::new().await else { return };
    bed.pushes("team/r0000:1", vec![Layer::new().file("a", 0o644, "x")]).await;
    let first = bed.registry.repository("team/r0000");
    (1..2_000).for_each(|number| copy_folder(&first, &bed.registry.repository(&format!("team/r{number:04}"))));
    let all: Vec<_> = (0..2_000).map(|number| format!("team/r{number:04}")).collect();

    assert_eq!(texts(&bed.reads(&["repos", "team-a"]).await), all);
    let found = bed.sees(&["search", "team-a", "team/*:1", "--limit", "5000", "-o", "name"]).await;
    assert_eq!(found.lines().collect::<Vec<_>>(), all.iter().map(|name| format!("{name}:1")).collect::<Vec<_>>());
    let found = bed.sees(&["search", "team-a", "r1", "--repositories", "-o", "name"]).await;
    assert_eq!(found.lines().count(), 1_000);

    // Two blobs in 1,999 other repositories are 3,998 questions, of 5,000.
    let plan = bed.reads(&["rm", "team-a", "team/r0042:1", "--dry-run"]).await;
    assert_eq!((&plan["freed"]["blobs"], &plan["isExact"]), (&json!(0), &json!(true)), "{plan:#}");
}
