//! One layer: a sorted set of files that becomes a tar archive with no trace of when or by whom it was made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// How a layer's archive is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar archive.
    #[default]
    None,
    /// gzip with an empty header (no name, no time).
    Gzip,
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Vec<u8>),
    CopyOf(PathBuf),
    LinkTo(String),
    Directory,
}

#[derive(Debug, Clone)]
struct Entry {
    mode: u32,
    owner: u64,
    content: Content,
}

/// Files by path, relative to the image's root and without a leading slash. Parent folders are made as needed (0755, root).
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

impl Layer {
    /// A layer with no files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file with the given bytes, owned by root.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.with(path, mode, 0, Content::Bytes(bytes.into()))
    }

    /// Adds a copy of a file of this machine, read when the image is built; symbolic links are followed.
    #[must_use]
    pub fn file_from(self, path: &str, mode: u32, source: impl Into<PathBuf>) -> Self {
        self.with(path, mode, 0, Content::CopyOf(source.into()))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.with(path, 0o777, 0, Content::LinkTo(target.to_owned()))
    }

    /// Adds an empty folder that belongs to the given user and the group of the same number.
    #[must_use]
    pub fn directory_owned_by(self, path: &str, mode: u32, owner: u64) -> Self {
        self.with(path, mode, owner, Content::Directory)
    }

    fn with(mut self, path: &str, mode: u32, owner: u64, content: Content) -> Self {
        let path = path.trim_matches('/').to_owned();
        for (slash, _) in path.match_indices('/') {
            self.entries.entry(path[..slash].to_owned()).or_insert(Entry {
                mode: 0o755,
                owner: 0,
                content: Content::Directory,
            });
        }
        self.entries.insert(path, Entry { mode, owner, content });
        self
    }

    /// The layer as an uncompressed tar archive.
    pub(crate) fn to_tar(&self) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_uid(entry.owner);
            header.set_gid(entry.owner);
            header.set_mtime(0);
            header.set_size(0);
            match &entry.content {
                Content::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Content::LinkTo(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    archive.append_link(&mut header, path, target)?;
                }
                Content::Bytes(bytes) => append_file(&mut archive, &mut header, path, bytes)?,
                Content::CopyOf(source) => {
                    let bytes =
                        std::fs::read(source).with_context(|| format!("read {} for /{path}", source.display()))?;
                    append_file(&mut archive, &mut header, path, &bytes)?;
                }
            }
        }
        Ok(archive.into_inner()?)
    }
}

fn append_file(archive: &mut tar::Builder<Vec<u8>>, header: &mut tar::Header, path: &str, bytes: &[u8]) -> Result<()> {
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes.len() as u64);
    Ok(archive.append_data(header, path, bytes)?)
}
