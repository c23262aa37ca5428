//! The files of an image: tar archives, one laid over the other as container runtimes lay them. Whoever made them is not trusted: every name and length is
//! judged when it is read, nothing is written to disk under a name of theirs, and what is kept in memory are paths, not contents.

mod change;
mod entries;
mod flatten;
mod kept;
mod overlay;
mod pack;
mod read_in;
mod unpack;
mod write;

pub(crate) use self::change::Change;
pub(crate) use self::entries::normal;
pub(crate) use self::flatten::{Files, Layer, Written, flatten};
pub(crate) use self::pack::{Packed, Packer};
pub(crate) use self::read_in::read_in;
use self::unpack::unpack;

/// What a name begins with that deletes another: image-spec, layer.md, "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";
/// The name that deletes everything in its folder that lower layers have.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of an older way to keep layers, which mean nothing here.
const OLDER: &[u8] = b".wh..wh.";

/// A path as messages show it.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// A path's folder and last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// A path below a folder; the root's own name is empty.
fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) use self::flatten::tests;
