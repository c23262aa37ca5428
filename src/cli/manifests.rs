//! Manifests from files, folders and standard input.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One object of a file.
#[derive(Debug)]
pub(super) struct Document {
    /// Where it came from, for messages.
    pub(super) file: String,
    /// The object.
    pub(super) object: Value,
}

impl Document {
    /// `Kind namespace/name`, for messages.
    pub(super) fn title(&self) -> String {
        let text = |pointer: &str| self.object.pointer(pointer).and_then(Value::as_str).unwrap_or("?");
        match self.object.pointer("/metadata/namespace").and_then(Value::as_str) {
            Some(namespace) => format!("{} {namespace}/{}", text("/kind"), text("/metadata/name")),
            None => format!("{} {}", text("/kind"), text("/metadata/name")),
        }
    }

    /// Whether it is a registry.
    pub(super) fn is_registry(&self) -> bool {
        let group =
            self.object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
        group == Some(crate::api::GROUP) && self.object["kind"] == "PrivateRegistry"
    }
}

/// Every registry of `paths`.
///
/// # Errors
/// Names the file that cannot be read or is no YAML; or there is no registry at all.
pub(super) fn registries(paths: &[PathBuf]) -> Result<Vec<Document>, String> {
    let found: Vec<_> = read(paths)?.into_iter().filter(Document::is_registry).collect();
    if found.is_empty() {
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(format!("no PrivateRegistry in {}", paths.join(", ")));
    }
    Ok(found)
}

/// Every object of `paths`, in the order of the paths, folders sorted by name.
///
/// # Errors
/// Names the file that cannot be read or is no YAML.
fn read(paths: &[PathBuf]) -> Result<Vec<Document>, String> {
    let mut documents = Vec::new();
    for path in paths {
        for file in files(path)? {
            let (name, text) = if file == Path::new("-") {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
                ("standard input".to_owned(), text)
            } else {
                let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
                (file.display().to_string(), text)
            };
            let objects: Vec<Value> =
                serde_saphyr::from_multiple(&text).map_err(|error| format!("{name}: no YAML: {error}"))?;
            for object in objects.into_iter().filter(|object| !object.is_null()) {
                // kubectl prints several objects as one List.
                match object.get("items").and_then(Value::as_array) {
                    Some(items) if object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                        documents
                            .extend(items.iter().map(|item| Document { file: name.clone(), object: item.clone() }));
                    }
                    _ => documents.push(Document { file: name.clone(), object }),
                }
            }
        }
    }
    Ok(documents)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let mut entries = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>())
        .map_err(failed)?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let is_manifest =
            entry.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known));
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else if is_manifest {
            found.push(entry);
        }
    }
    Ok(found)
}
