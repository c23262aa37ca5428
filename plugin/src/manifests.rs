//! Manifests from files, folders and standard input.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What stands for it among the paths.
const STANDARD_INPUT: &str = "-";
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Where manifests are.
#[derive(Debug, clap::Args)]
pub(crate) struct Manifests {
    /// A file, a folder (every .yaml, .yml and .json below it), or - for standard input. Can be given more than once.
    #[arg(short = 'f', long = "filename", required = true, value_name = "PATH")]
    pub(crate) files: Vec<PathBuf>,
}

/// One object of a file.
#[derive(Debug)]
pub(crate) struct Document {
    /// Where it came from, for messages.
    pub(crate) file: String,
    /// The object.
    pub(crate) object: Value,
}

impl Document {
    /// A line that says what is wrong with it.
    pub(crate) fn fault(&self, fault: &str) -> String {
        format!("{}: {}: {fault}", self.file, self.title())
    }

    /// `Kind namespace/name`.
    fn title(&self) -> String {
        let text = |pointer: &str| self.object.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
        match self.object.pointer("/metadata/namespace").and_then(Value::as_str) {
            Some(namespace) => format!("{} {namespace}/{}", text("/kind"), text("/metadata/name")),
            None => format!("{} {}", text("/kind"), text("/metadata/name")),
        }
    }

    /// Whether somebody meant it to be a registry. Not by its version: a misspelt one would go unnoticed.
    fn is_registry(&self) -> bool {
        self.object["kind"] == "PrivateRegistry"
    }
}

/// What was found where the user pointed to.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Every registry, in the order of the paths, folders sorted by name.
    pub(crate) registries: Vec<Document>,
    /// A line for each file or folder that cannot be read or is no YAML. The others are of use all the same.
    pub(crate) unreadable: Vec<String>,
}

/// Every registry of `paths`. If there is nothing at all, that is among what is unreadable.
pub(crate) fn find(paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        find_below(path, &mut found);
    }
    if found.registries.is_empty() && found.unreadable.is_empty() {
        let names: Vec<_> = paths.iter().map(|path| name(path)).collect();
        found.unreadable.push(format!("no PrivateRegistry in {}", names.join(", ")));
    }
    found
}

fn find_below(path: &Path, found: &mut Found) {
    if path == Path::new(STANDARD_INPUT) || !path.is_dir() {
        match read(path) {
            Ok(documents) => found.registries.extend(documents.into_iter().filter(Document::is_registry)),
            Err(error) => found.unreadable.push(format!("{}: {error}", name(path))),
        }
        return;
    }
    match entries(path) {
        Ok(entries) => entries.iter().filter(|entry| is_manifest(entry)).for_each(|entry| find_below(entry, found)),
        Err(error) => found.unreadable.push(format!("{}: {error}", name(path))),
    }
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(entries)
}

/// Whether an entry of a folder is looked into.
fn is_manifest(entry: &Path) -> bool {
    entry.is_dir() || entry.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

/// Every object of one file.
fn read(file: &Path) -> Result<Vec<Document>, String> {
    let text =
        if file == Path::new(STANDARD_INPUT) { io::read_to_string(io::stdin()) } else { fs::read_to_string(file) };
    let text = text.map_err(|error| error.to_string())?;
    let objects: Vec<Value> =
        serde_saphyr::from_multiple_with_options(&text, options()).map_err(|error| format!("no YAML: {error}"))?;
    let mut documents = Vec::new();
    let mut add = |object| documents.push(Document { file: name(file), object });
    for mut object in objects {
        // kubectl prints several objects as one List.
        let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match object.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if is_list => items.into_iter().for_each(&mut add),
            _ => add(object),
        }
    }
    Ok(documents)
}

/// Room for what a large repository builds. No excerpt with an error: Secrets often stand in the same file.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! { max_documents: 100_000, max_nodes: 2_000_000, max_events: 8_000_000 },
    }
}

fn name(path: &Path) -> String {
    if path == Path::new(STANDARD_INPUT) { "standard input".to_owned() } else { path.display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "apiVersion: privateregistry.dev/v1alpha1\nkind: PrivateRegistry\nmetadata: {name: a}\n";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn find_in(files: &[(&str, &str)]) -> Found {
        find(&[folder(files).path().to_owned()])
    }

    #[test]
    fn a_folder_gives_the_registries_of_every_manifest_below_it() {
        let list = r#"{"kind": "List", "items": [{"kind": "PrivateRegistry"}, {"kind": "Secret"}, null]}"#;
        let two = format!("---\n---\n{REGISTRY}---\nkind: ConfigMap\n---\n{REGISTRY}");
        let found = find_in(&[("b/two.yml", &two), ("a.yaml", REGISTRY), ("list.json", list), ("notes.md", REGISTRY)]);
        let files: Vec<_> = found.registries.iter().map(|document| document.file.rsplit('/').next().unwrap()).collect();
        assert_eq!(files, ["a.yaml", "two.yml", "two.yml", "list.json"]);
        assert_eq!(found.unreadable, Vec::<String>::new());
    }

    #[test]
    fn a_file_that_is_no_yaml_is_told_without_its_text_and_hides_no_other() {
        let broken = "password: hunter2\nmetadata:\n\tname: a\n";
        let found = find_in(&[("a.yaml", broken), ("b.yaml", REGISTRY)]);
        assert_eq!(found.registries.len(), 1);
        let [line] = &found.unreadable[..] else { panic!("{:?}", found.unreadable) };
        assert!(
            line.contains("a.yaml: no YAML: ")
                && line.contains("line 3")
                && !line.contains("hunter2")
                && !line.contains('\n'),
            "{line}"
        );
    }

    #[test]
    fn nothing_found_is_told() {
        assert!(find_in(&[("a.yaml", "kind: Secret\n")]).unreadable[0].starts_with("no PrivateRegistry in "));
        assert!(find(&["/no/such/file.yaml".into()]).unreadable[0].starts_with("/no/such/file.yaml: "));
    }

    #[test]
    fn a_large_repository_is_no_bomb_and_a_bomb_is_one() {
        assert_eq!(find_in(&[("a.yaml", &format!("---\n{REGISTRY}").repeat(5_000))]).registries.len(), 5_000);
        let level = |own: &str, below: &str| format!("{own}: &{own} [{}]\n", vec![format!("*{below}"); 9].join(", "));
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let levels: String = names.windows(2).map(|pair| level(pair[1], pair[0])).collect();
        assert!(find_in(&[("a.yaml", &format!("a: &a [1]\n{levels}"))]).unreadable[0].contains("budget"));
    }
}
