//! The help of all commands as pages: for `man`, and those in the repository.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::ask;

fn read(folder: &Path) -> BTreeMap<String, String> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(entry).collect()
}

fn written(more: &[&str]) -> BTreeMap<String, String> {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("deep/below");
    let answer = ask(&[&["man", "--to", folder.to_str().unwrap()], more].concat());
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    read(&folder)
}

#[test]
fn the_committed_pages_are_what_the_program_says() {
    let committed = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands"));
    let wanted = written(&["--markdown"]);
    let stale: Vec<_> =
        wanted.keys().chain(committed.keys()).filter(|name| wanted.get(*name) != committed.get(*name)).collect();
    assert!(stale.is_empty(), "run `cargo xtask generate`: {stale:?}");
}

#[test]
fn every_command_has_a_page_for_man() {
    let pages = written(&[]);
    assert_eq!(pages.len(), written(&["--markdown"]).len());
    for name in ["kubectl-registry.1", "kubectl-registry-copy.1", "kubectl-registry-users-add.1"] {
        let page = pages.get(name).unwrap_or_else(|| panic!("{name} is not among {:?}", pages.keys()));
        for part in [".TH ", ".SH NAME\n", ".SH SYNOPSIS\n"] {
            assert!(page.contains(part), "{name}: {part}");
        }
    }
    let page = &pages["kubectl-registry-copy.1"];
    assert!(page.contains(".SH EXAMPLES\n.nf\n") && page.contains("\n  kubectl registry copy "), "{page}");
    assert_eq!(ask(&["man", "copy"]).out, *page, "one page is what is written");
}

#[test]
fn a_page_that_is_not_there_or_cannot_be_written_is_named() {
    let answer = ask(&["man", "users", "none"]);
    assert!(
        answer.code == Some(1) && answer.err.contains("there is no command \"users none\", but list, "),
        "{}",
        answer.err
    );
    let answer = ask(&["man", "--to", "/dev/null/man1"]);
    assert!(answer.code == Some(1) && answer.err.contains("make /dev/null/man1"), "{}", answer.err);
}
