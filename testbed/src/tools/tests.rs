//! The cache, with a family of its own that builds in a moment.

use std::{
    cell::Cell,
    fs,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    cache::{self, Cache},
    family::{Build, Recipe},
    *,
};

const BUILD: Build = Build {
    programs: &[(".", "hello")],
    names: &["greet"],
    flags: &[],
    stamps: &[("main.word", "hello")],
    files: &[],
    packages: 50,
};
const RECIPE: Recipe = Recipe { name: "fake", ready_made: None, build: Some(BUILD), instead: None };

fn cache(folder: &Path) -> Cache {
    let sources = folder.join("tools");
    fs::create_dir_all(sources.join("fake")).unwrap();
    fs::write(sources.join("fake/go.mod"), "module privateregistry.dev/tools/fake\n\ngo 1.26.0\n").unwrap();
    // Never compiled before: what Go has in its own cache it doesn't mention.
    let source =
        format!("package main\n\n// {}\nvar word = \"\"\n\nfunc main() {{ println(word) }}\n", folder.display());
    fs::write(sources.join("fake/main.go"), source).unwrap();
    Cache { own: folder.join("own"), shared: None, sources }
}

/// What builds here; fetched into the user's cache on a machine without Go.
pub(super) fn toolchain() -> Toolchain {
    let cache = Cache::of_user().unwrap();
    Go::of_machine().unwrap().toolchain(&cache, &Progress::auto()).unwrap()
}

fn version() -> Result<String> {
    Ok(toolchain().version)
}

fn build(cache: &Cache) -> Result<PathBuf> {
    cache.build(&RECIPE, &BUILD, &toolchain(), &Progress::silent(), || {})
}

#[test]
fn a_family_is_built_once_and_then_found_under_all_its_names() {
    if crate::skip(crate::Mode::ControlPlane) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    assert_eq!(cache.find(&RECIPE, &version).unwrap(), None);

    let linked = Cell::new(false);
    let bin = cache.build(&RECIPE, &BUILD, &toolchain(), &Progress::silent(), || linked.set(true)).unwrap();
    assert!(linked.get(), "the next family could not begin while this one is linked");
    let made = fs::metadata(bin.join("hello")).unwrap().ino();
    for name in ["hello", "greet"] {
        let output = Command::new(bin.join(name)).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "hello\n");
    }

    assert_eq!(cache.find(&RECIPE, &version).unwrap().as_deref(), Some(bin.as_path()));
    assert_eq!(build(&cache).unwrap(), bin);
    assert_eq!(fs::metadata(bin.join("hello")).unwrap().ino(), made, "it was built again");
}

#[test]
fn whatever_a_program_depends_on_gives_it_another_folder() {
    if crate::skip(crate::Mode::ControlPlane) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let built = build(&cache).unwrap();
    let found = |recipe: &Recipe, go: &str| cache.find(recipe, &|| Ok(go.to_owned())).unwrap();
    let go = version().unwrap();
    assert_eq!(found(&RECIPE, &go), Some(built));

    let stamped = Build { stamps: &[("main.word", "bye")], ..BUILD };
    let tagged = Build { flags: &["-tags=other"], ..BUILD };
    for build in [stamped, tagged] {
        assert_eq!(found(&Recipe { build: Some(build), ..RECIPE }, &go), None, "{build:?}");
    }
    assert_eq!(found(&RECIPE, "go version go1.99.0 linux/amd64"), None);
    fs::write(cache.sources.join("fake/README.md"), "not a source").unwrap();
    assert!(found(&RECIPE, &go).is_some());
    for (file, text) in [("go.sum", "\n"), ("other.go", "package main\n")] {
        fs::write(cache.sources.join("fake").join(file), text).unwrap();
        assert_eq!(found(&RECIPE, &go), None, "{file}");
        fs::remove_file(cache.sources.join("fake").join(file)).unwrap();
    }
    assert!(found(&RECIPE, &go).is_some());
    fs::write(cache.sources.join("fake/go.mod"), "module privateregistry.dev/tools/fake\n\ngo 1.26.1\n").unwrap();
    assert_eq!(found(&RECIPE, &go), None, "go.mod");
}

#[test]
fn a_failed_build_leaves_nothing_that_looks_built_and_says_what_to_do() {
    if crate::skip(crate::Mode::ControlPlane) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    fs::write(cache.sources.join("fake/main.go"), "package main\n\nfunc main() { undefined() }\n").unwrap();
    let message = format!("{:#}", build(&cache).unwrap_err());
    assert!(message.contains("undefined: undefined"), "{message}");
    assert!(message.contains("To try it by hand: cd "), "{message}");
    assert_eq!(cache.find(&RECIPE, &version).unwrap(), None);

    fs::write(cache.sources.join("fake/main.go"), "package main\n\nvar word string\n\nfunc main() { println(word) }\n")
        .unwrap();
    build(&cache).unwrap();
}

#[test]
fn what_cannot_be_built_is_replaced_by_what_others_built_and_not_tried_each_time() {
    if crate::skip(crate::Mode::ControlPlane) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    fs::write(cache.sources.join("fake/main.go"), "package main\n\nfunc main() { undefined() }\n").unwrap();
    let jobs = |instead| {
        let recipe = Recipe { instead, ..RECIPE };
        [Job { family: Family::Containerd, recipe, build: BUILD }]
    };
    let made = |instead| super::build(&cache, &jobs(instead), &toolchain(), &Progress::silent());
    assert!(made(None).is_err());

    // As if it had been fetched: here is perhaps no network, and no Debian.
    let other = Family::DebianContainerd.recipe();
    let fetched = cache.own.join(cache::key_of_ready_made(&other, &other.ready_made.unwrap())).join("bin");
    fs::create_dir_all(&fetched).unwrap();
    assert_eq!(made(Some(Family::DebianContainerd)).unwrap()[&Family::Containerd], fetched);
    let [Job { recipe, .. }] = jobs(Some(Family::DebianContainerd));
    assert_eq!(cache.find(&recipe, &version).unwrap(), Some(fetched));

    fs::write(cache.sources.join("fake/main.go"), "package main\n\nvar word string\n\nfunc main() { println(word) }\n")
        .unwrap();
    let built = build(&cache).unwrap();
    assert_eq!(cache.find(&recipe, &version).unwrap(), Some(built), "our own build comes first once it is there");
}

#[test]
fn two_that_want_the_same_family_at_once_build_it_once() {
    if crate::skip(crate::Mode::ControlPlane) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = Arc::new(cache(folder.path()));
    let both: Vec<_> =
        (0..2).map(|_| Arc::clone(&cache)).map(|cache| thread::spawn(move || build(&cache).unwrap())).collect();
    let places: Vec<_> = both.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(places[0], places[1]);
    let folders = fs::read_dir(&cache.own).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
    assert_eq!(folders.count(), 1);
}

#[test]
fn programs_in_the_shared_cache_are_used_and_not_built() {
    if crate::skip(crate::Mode::ControlPlane) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut cache = cache(folder.path());
    let built = build(&cache).unwrap();
    let shared = folder.path().join("shared");
    fs::rename(&cache.own, &shared).unwrap();
    cache.shared = Some(shared.clone());
    let found = cache.find(&RECIPE, &version).unwrap().unwrap();
    assert!(found.starts_with(&shared), "{}", found.display());
    assert_eq!(found.file_name(), built.file_name());
}

#[test]
fn programs_that_nobody_used_for_a_month_go_when_their_family_is_made_again() {
    if crate::skip(crate::Mode::ControlPlane) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(folder.path());
    let place = |name: &str, days: u64| {
        let place = cache.own.join(name);
        fs::create_dir_all(place.join("bin")).unwrap();
        let used = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
        fs::File::open(&place).unwrap().set_modified(used).unwrap();
        place
    };
    let old = place("fake-0123456789abcdef", 31);
    let fresh = place("fake-fedcba9876543210", 29);
    let other = place("faker-0123456789abcdef", 31);
    let hers = place("fake-notes", 31);
    build(&cache).unwrap();
    assert!(!old.exists() && fresh.exists() && other.exists() && hers.exists());

    // Finding is using.
    let built = build(&cache).unwrap().parent().unwrap().to_owned();
    let key = built.file_name().unwrap().to_str().unwrap();
    let built = place(key, 40);
    cache.find(&RECIPE, &version).unwrap().unwrap();
    assert!(fs::metadata(&built).unwrap().modified().unwrap().elapsed().unwrap() < Duration::from_secs(60));
}
