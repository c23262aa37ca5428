//! What lies under each path when layers are laid one over the other. Knows paths and nothing of contents; pure. What a layer deletes is of lower layers only,
//! in whichever order it says so.

use std::collections::BTreeMap;
use std::collections::btree_map::Iter;
use std::ops::Bound;

use anyhow::{Result, bail};

use super::{OLDER, OPAQUE, WHITEOUT, join, shown, split};

/// Paths that are kept.
const MOST_PATHS: usize = 2_000_000;
/// Bytes of them.
const MOST_BYTES: usize = 128 << 20;

/// What a name in a layer means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It is there.
    Present,
    /// What lower layers have under this path is not.
    Deleted(Vec<u8>),
    /// What lower layers have in this folder is not.
    Emptied(Vec<u8>),
    /// Nothing.
    None,
}

/// What the name of an entry means.
pub(crate) fn meaning(path: &[u8]) -> Result<Meaning> {
    let (folder, name) = split(path);
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Meaning::Present),
        _ if name == OPAQUE => Ok(Meaning::Emptied(folder.to_vec())),
        _ if name.starts_with(OLDER) => Ok(Meaning::None),
        Some(b"" | b"." | b"..") => bail!("{} deletes nothing that could be there", shown(path)),
        Some(name) => Ok(Meaning::Deleted(join(folder, name))),
    }
}

struct Node<T> {
    layer: u32,
    is_folder: bool,
    item: T,
}

/// The files of an image, by path.
pub(crate) struct Overlay<T> {
    nodes: BTreeMap<Box<[u8]>, Node<T>>,
    bytes: usize,
}

impl<T> Overlay<T> {
    pub(crate) fn new() -> Self {
        Self { nodes: BTreeMap::new(), bytes: 0 }
    }

    /// What lies under a path.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&T> {
        self.nodes.get(path).map(|node| &node.item)
    }

    /// Whether a folder lies under a path.
    pub(crate) fn is_folder(&self, path: &[u8]) -> bool {
        self.nodes.get(path).is_some_and(|node| node.is_folder)
    }

    /// Whether anything lies below a path.
    pub(crate) fn has_below(&self, path: &[u8]) -> bool {
        self.below(path).next().is_some()
    }

    /// Whether something lies above a path that is no folder.
    pub(crate) fn is_covered(&self, path: &[u8]) -> bool {
        ancestors(path).any(|above| self.nodes.get(above).is_some_and(|node| !node.is_folder))
    }

    /// All paths, folders before what is in them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        let all: Iter<'_, Box<[u8]>, Node<T>> = self.nodes.iter();
        all.map(|(path, node)| (&path[..], &node.item))
    }

    /// A layer has something under a path. A folder leaves what is in it; anything else takes its place, and what it stands in becomes a folder.
    pub(crate) fn put(&mut self, layer: u32, path: &[u8], is_folder: bool, item: T) -> Result<()> {
        for above in ancestors(path) {
            match self.nodes.get(above) {
                Some(node) if node.is_folder => {}
                Some(node) if node.layer < layer => self.take(above),
                Some(_) => bail!("{} is in {}, which is no folder", shown(path), shown(above)),
                None => {}
            }
        }
        if !is_folder {
            self.remove_below(layer, path);
            if self.has_below(path) {
                bail!("{} is a folder and something else at once", shown(path));
            }
        }
        if self.nodes.insert(path.into(), Node { layer, is_folder, item }).is_none() {
            self.bytes += path.len();
        }
        if self.nodes.len() > MOST_PATHS || self.bytes > MOST_BYTES {
            bail!(
                "there are more than {MOST_PATHS} files, or {MOST_BYTES} bytes of their names, which this command does not take"
            );
        }
        Ok(())
    }

    /// A layer deletes what lower ones have under a path.
    pub(crate) fn delete(&mut self, layer: u32, path: &[u8]) {
        if self.nodes.get(path).is_some_and(|node| node.layer < layer) {
            self.take(path);
        }
        self.remove_below(layer, path);
    }

    /// A layer deletes what lower ones have in a folder.
    pub(crate) fn empty(&mut self, layer: u32, folder: &[u8]) {
        self.remove_below(layer, folder);
    }

    fn below(&self, path: &[u8]) -> impl Iterator<Item = (&[u8], &Node<T>)> {
        // A slash comes right before a zero.
        let (first, last) = ([path, b"/"].concat(), [path, b"0"].concat());
        let bounds = if path.is_empty() {
            (Bound::Unbounded, Bound::Unbounded)
        } else {
            (Bound::Included(&first[..]), Bound::Excluded(&last[..]))
        };
        self.nodes.range::<[u8], _>(bounds).map(|(path, node)| (&path[..], node))
    }

    fn remove_below(&mut self, layer: u32, path: &[u8]) {
        let older = self.below(path).filter(|(_, node)| node.layer < layer);
        let paths: Vec<Box<[u8]>> = older.map(|(path, _)| path.into()).collect();
        paths.iter().for_each(|path| self.take(path));
    }

    fn take(&mut self, path: &[u8]) {
        if self.nodes.remove(path).is_some() {
            self.bytes -= path.len();
        }
    }
}

/// The folders that a path is in, outer ones first, without the root.
pub(super) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a layer does: `a` is a file, `a/` a folder, `-a` a deletion, `~a` an emptied folder.
    fn laid(layers: &[&[&str]]) -> Result<Vec<String>> {
        let mut overlay = Overlay::new();
        for (layer, does) in (0..).zip(layers) {
            for what in *does {
                let path = what.trim_matches(['-', '~', '/']).as_bytes();
                match what.as_bytes() {
                    [b'-', ..] => overlay.delete(layer, path),
                    [b'~', ..] => overlay.empty(layer, path),
                    _ => overlay.put(layer, path, what.ends_with('/'), layer)?,
                }
            }
        }
        let mark = |path: &[u8]| if overlay.is_folder(path) { "/" } else { "" };
        Ok(overlay.iter().map(|(path, layer)| format!("{}{}@{layer}", shown(path), mark(path))).collect())
    }

    #[test]
    fn layers_lie_one_over_the_other() {
        for (layers, left) in [
            (&[&["a/", "a/b"][..], &["a/c"]][..], &["a/@0", "a/b@0", "a/c@1"][..]),
            (&[&["a"], &["a"]], &["a@1"]),
            // Deletions.
            (&[&["a/", "a/b", "a/c"], &["-a/b"]], &["a/@0", "a/c@0"]),
            (&[&["a/", "a/b", "ab"], &["-a"]], &["ab@0"]),
            (&[&["a"], &["-a"], &["a"]], &["a@2"]),
            (&[&["a"], &["-b"]], &["a@0"]),
            // Of lower layers only, whatever comes first.
            (&[&["a/", "a/b"], &["-a", "a/", "a/c"]], &["a/@1", "a/c@1"]),
            (&[&["a/", "a/b"], &["a/", "a/c", "-a"]], &["a/@1", "a/c@1"]),
            // Emptied folders.
            (&[&["a/", "a/b", "a/d/", "a/d/e"], &["~a", "a/c"]], &["a/@0", "a/c@1"]),
            (&[&["a/", "a/b"], &["a/c", "~a"]], &["a/@0", "a/c@1"]),
            (&[&["a", "b/"], &["~", "c"]], &["c@1"]),
            // A folder over a folder leaves what is in it.
            (&[&["a/", "a/b"], &["a/"]], &["a/@1", "a/b@0"]),
            // A file over a folder, and back.
            (&[&["a/", "a/b", "a/c/d"], &["a"]], &["a@1"]),
            (&[&["a/", "a/b"], &["a"], &["a/", "a/c"]], &["a/@2", "a/c@2"]),
            (&[&["a"], &["a/"]], &["a/@1"]),
            // Something in a file makes it a folder: so it is with overlayfs.
            (&[&["a"], &["a/b"]], &["a/b@1"]),
            (&[&["a/b/c"], &["a/b"]], &["a/b@1"]),
        ] {
            assert_eq!(laid(layers).unwrap(), left, "{layers:?}");
        }
    }

    #[test]
    fn a_layer_that_contradicts_itself_is_refused() {
        for (layers, words) in [
            (&[&["a", "a/b"][..]][..], "a/b is in a, which is no folder"),
            (&[&["a/b", "a"]], "a is a folder and something else at once"),
            (&[&["a"], &["a/b", "a"]], "a is a folder and something else at once"),
        ] {
            let error = laid(layers).unwrap_err().to_string();
            assert_eq!(error, words, "{layers:?}");
        }
    }

    #[test]
    fn names_of_deletions_are_known() {
        for (path, means) in [
            ("a/b", Meaning::Present),
            ("a/.what", Meaning::Present),
            (".wh.a/b", Meaning::Present),
            ("a/.wh.b", Meaning::Deleted(b"a/b".to_vec())),
            (".wh.b", Meaning::Deleted(b"b".to_vec())),
            ("a/.wh..wh..opq", Meaning::Emptied(b"a".to_vec())),
            (".wh..wh..opq", Meaning::Emptied(Vec::new())),
            (".wh..wh.plnk", Meaning::None),
        ] {
            assert_eq!(meaning(path.as_bytes()).unwrap(), means, "{path}");
        }
        for path in [".wh.", "a/.wh..", "a/.wh..."] {
            assert!(meaning(path.as_bytes()).is_err(), "{path}");
        }
    }
}
