//! Reads an archive. A tar archive is gone through once, and then every entry is read where it is: names are looked up in that list and nowhere else, so none leads
//! out of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use flate2::read::MultiGzDecoder;

use super::{DOCKER_MANIFEST, INDEX};

/// Entries of an archive.
const MOST_ENTRIES: usize = 200_000;
/// Links that lead to links.
const MOST_LINKS: usize = 8;

/// An archive to read from.
#[derive(Clone)]
pub(crate) enum Archive {
    Tar(Arc<BTreeMap<String, Entry>>),
    Folder(PathBuf),
}

/// What is in a tar archive under a name.
pub(crate) enum Entry {
    File(Content),
    /// To another name.
    Link(String),
}

/// Bytes of a file.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    pub(crate) file: Arc<File>,
    pub(crate) at: u64,
    pub(crate) size: u64,
}

impl Content {
    /// All of a file.
    pub(crate) fn whole(file: File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), at: 0, size })
    }

    /// A text that was made here.
    pub(crate) fn of(text: &[u8]) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        file.write_all(text)?;
        Self::whole(file)
    }

    /// Reads it from its beginning. Several can read at the same time.
    pub(crate) fn reader(&self) -> impl Read + Send + 'static {
        let content = self.clone();
        Reading { content, done: 0 }
    }
}

struct Reading {
    content: Content,
    done: u64,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.content.size - self.done).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = self.content.file.read_at(&mut buffer[..wanted], self.content.at + self.done)?;
        self.done += read as u64;
        Ok(read)
    }
}

impl Archive {
    /// A folder, a tar archive, a compressed one, or what comes on standard input (`-`).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let what = || format!("read {}", path.display());
        if path.is_dir() {
            return Self::folder(path);
        }
        if path == Path::new("-") {
            return Self::tar(unpacked(io::stdin().lock()).context("read standard input")?, "standard input");
        }
        let file = File::open(path).with_context(what)?;
        let mut first = [0; 2];
        let read = file.read_at(&mut first, 0).with_context(what)?;
        let file = if first[..read] == [0x1f, 0x8b] { unpacked(&file).with_context(what)? } else { file };
        Self::tar(file, &path.display().to_string())
    }

    fn folder(path: &Path) -> Result<Self> {
        if !path.join(INDEX).is_file() {
            bail!("{} holds no images: there is no {INDEX} in it", path.display());
        }
        Ok(Self::Folder(path.to_owned()))
    }

    fn tar(file: File, name: &str) -> Result<Self> {
        let file = Arc::new(file);
        let entries = list(&file).with_context(|| format!("{name} is no tar archive, or is damaged"))?;
        let archive = Self::Tar(Arc::new(entries));
        if archive.content(INDEX)?.is_none() && archive.content(DOCKER_MANIFEST)?.is_none() {
            bail!("{name} holds no images: there is neither {INDEX} nor {DOCKER_MANIFEST} in it");
        }
        Ok(archive)
    }

    /// What is under a name; `None` if there is nothing.
    pub(crate) fn content(&self, name: &str) -> Result<Option<Content>> {
        match self {
            Self::Folder(path) => match File::open(path.join(name)) {
                Ok(file) => Ok(Some(Content::whole(file).with_context(|| format!("read {name}"))?)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).with_context(|| format!("read {}", path.join(name).display())),
            },
            Self::Tar(entries) => {
                let mut name = normal(name);
                for _ in 0..MOST_LINKS {
                    match name.and_then(|name| entries.get(&name)) {
                        None => return Ok(None),
                        Some(Entry::File(content)) => return Ok(Some(content.clone())),
                        Some(Entry::Link(to)) => name = Some(to.clone()),
                    }
                }
                bail!("links of the archive lead in a circle")
            }
        }
    }

    /// A small text.
    pub(crate) fn text(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        let Some(content) = self.content(name)? else { return Ok(None) };
        if content.size > most as u64 {
            bail!("{name} has {} bytes, more than the {most} that this command takes", content.size);
        }
        let mut text = Vec::new();
        content.reader().read_to_end(&mut text).with_context(|| format!("read {name}"))?;
        Ok(Some(text))
    }
}

/// A file that has the content in clear; nobody else sees it, and it is gone with the process.
fn unpacked(packed: impl Read) -> Result<File> {
    let mut packed = BufReader::with_capacity(256 << 10, packed);
    let is_packed = io::BufRead::fill_buf(&mut packed)?.starts_with(&[0x1f, 0x8b]);
    let mut file = tempfile::tempfile().context("make a temporary file")?;
    let copied = if is_packed {
        io::copy(&mut MultiGzDecoder::new(packed), &mut file)
    } else {
        io::copy(&mut packed, &mut file)
    };
    copied.with_context(|| format!("unpack it into {} ($TMPDIR)", std::env::temp_dir().display()))?;
    Ok(file)
}

fn list(file: &Arc<File>) -> Result<BTreeMap<String, Entry>> {
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file.as_ref());
    reader.seek(SeekFrom::Start(0))?;
    let mut archive = tar::Archive::new(reader);
    let mut entries = BTreeMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let kind = entry.header().entry_type();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(path) = normal(&path) else { continue };
        let found = if kind.is_file() {
            let (at, size) = (entry.raw_file_position(), entry.size());
            if at.checked_add(size).is_none_or(|end| end > length) {
                bail!("it ends in the middle of {path}");
            }
            Entry::File(Content { file: Arc::clone(file), at, size })
        } else if kind.is_symlink() || kind.is_hard_link() {
            let to = entry.link_name_bytes().map(|to| String::from_utf8_lossy(&to).into_owned()).unwrap_or_default();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let to = if kind.is_symlink() { format!("{folder}/{to}") } else { to };
            match normal(&to) {
                Some(to) => Entry::Link(to),
                None => continue,
            }
        } else {
            continue;
        };
        entries.insert(path, found);
        if entries.len() > MOST_ENTRIES {
            bail!("it has more than {MOST_ENTRIES} entries, which this command does not take");
        }
    }
    Ok(entries)
}

/// A name without detours; `None` if it leads out of the archive.
fn normal(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_an_archive() {
        for (name, found) in [
            ("a/b", Some("a/b")),
            ("./a//b", Some("a/b")),
            ("/a", Some("a")),
            ("a/../b", Some("b")),
            ("../a", None),
            ("a/../../b", None),
            ("", None),
            ("..", None),
        ] {
            assert_eq!(normal(name).as_deref(), found, "{name}");
        }
    }

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut head = tar::Header::new_ustar();
            head.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            head.set_entry_type(*kind);
            head.set_mode(0o644);
            if kind.is_file() {
                head.set_size(content.len() as u64);
                head.set_cksum();
                builder.append(&head, content.as_bytes()).unwrap();
            } else {
                head.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
                head.set_size(0);
                head.set_cksum();
                builder.append(&head, io::empty()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn opened(bytes: &[u8]) -> Result<Archive> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Archive::tar(file, "the file")
    }

    #[test]
    fn entries_are_found_through_links_and_nothing_of_the_disk_is() {
        use tar::EntryType as Kind;
        let bytes = archive(&[
            ("index.json", Kind::Regular, "{}"),
            ("a/layer.tar", Kind::Regular, "content"),
            ("b/layer.tar", Kind::Symlink, "../a/layer.tar"),
            ("c/layer.tar", Kind::Link, "a/layer.tar"),
            ("d/layer.tar", Kind::Symlink, "../../../../etc/passwd"),
            ("e/layer.tar", Kind::Symlink, "/etc/passwd"),
            ("../f", Kind::Regular, "out"),
            ("g", Kind::Symlink, "g"),
        ]);
        let archive = opened(&bytes).unwrap();
        let text = |name: &str| archive.text(name, 100).unwrap().map(|text| String::from_utf8(text).unwrap());
        for name in ["a/layer.tar", "b/layer.tar", "c/layer.tar", "./a/layer.tar"] {
            assert_eq!(text(name).as_deref(), Some("content"), "{name}");
        }
        for name in ["d/layer.tar", "e/layer.tar", "../f", "f", "/etc/passwd", "../../etc/passwd"] {
            assert_eq!(text(name), None, "{name}");
        }
        assert!(archive.text("g", 100).unwrap_err().to_string().contains("in a circle"));
        assert!(archive.text("a/layer.tar", 6).unwrap_err().to_string().contains("more than the 6"));
    }

    #[test]
    fn what_is_no_archive_or_only_the_beginning_of_one_is_said() {
        let whole = archive(&[("index.json", tar::EntryType::Regular, &"x".repeat(2000))]);
        for (bytes, words) in [
            (&b"no archive at all, and longer than a header would be"[..], "is no tar archive, or is damaged"),
            (&whole[..1024], "it ends in the middle of index.json"),
            (&archive(&[("other", tar::EntryType::Regular, "x")]), "holds no images"),
            (b"", "holds no images"),
        ] {
            let error = format!("{:#}", opened(bytes).err().unwrap());
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
