//! Writes an archive. A file or a blob appears under its name when it is whole, and not before.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tempfile::NamedTempFile;

use super::out::{Out, beside, persist, sweep};
use super::{INDEX, LAYOUT, LAYOUT_TEXT, blob_path};
use crate::registry_client::digest::Hasher;

/// Bytes that are written at once.
const BUFFER: usize = 256 << 10;
/// Bytes that a tar archive is made of.
const BLOCK: u64 = 512;

/// An archive in the making.
pub(crate) enum Writer {
    Tar { out: BufWriter<Out>, path: PathBuf },
    Folder { path: PathBuf, part: Option<BufWriter<NamedTempFile>> },
}

impl Writer {
    /// A tar archive that is a file in the end.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        let out = BufWriter::with_capacity(BUFFER, Out::file(path)?);
        Ok(Self::Tar { out, path: path.to_owned() })
    }

    /// A tar archive that somebody reads meanwhile.
    pub(crate) fn stream(out: Box<dyn Write + Send>) -> Self {
        Self::Tar { out: BufWriter::with_capacity(BUFFER, Out::stream(out)), path: PathBuf::from("standard output") }
    }

    /// A folder, new or a layout already; what is in that stays.
    pub(crate) fn folder(path: &Path) -> Result<Self> {
        let what = || format!("write {}", path.display());
        fs::create_dir_all(path).with_context(what)?;
        let is_empty = fs::read_dir(path).with_context(what)?.next().is_none();
        let is_layout = path.join(LAYOUT).exists();
        if !is_empty && !is_layout {
            bail!(
                "{} is a folder of something else: give an empty one, or one that has images already",
                path.display()
            );
        }
        for kind in ["sha256", "sha512"] {
            let blobs = path.join("blobs").join(kind);
            fs::create_dir_all(&blobs).with_context(what)?;
            sweep(&blobs);
        }
        sweep(path);
        Ok(Self::Folder { path: path.to_owned(), part: None })
    }

    /// Whether a blob is there already, whole.
    pub(crate) fn has(&self, digest: &str, size: u64) -> bool {
        let Self::Folder { path, .. } = self else { return false };
        let check = || -> Option<bool> {
            let mut file = File::open(path.join(blob_path(digest))).ok()?;
            if file.metadata().ok()?.len() != size {
                return None;
            }
            let mut hasher = Hasher::like(digest).ok()?;
            let mut buffer = vec![0; BUFFER];
            loop {
                match file.read(&mut buffer).ok()? {
                    0 => return Some(hasher.digest() == digest),
                    read => hasher.update(&buffer[..read]),
                }
            }
        };
        check().unwrap_or(false)
    }

    /// The table of contents of a folder that has one.
    pub(crate) fn index(&self) -> Result<Option<Vec<u8>>> {
        let Self::Folder { path, .. } = self else { return Ok(None) };
        let path = path.join(INDEX);
        match fs::read(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// An entry of this size follows.
    pub(crate) fn begin(&mut self, name: &str, size: u64) -> Result<()> {
        let what = self.what(name);
        match self {
            Self::Tar { out, .. } => write_head(out, name, size).with_context(|| what),
            Self::Folder { path, part } => {
                *part = Some(BufWriter::with_capacity(BUFFER, beside(&path.join(name))?));
                Ok(())
            }
        }
    }

    /// More of it.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let done = match self {
            Self::Tar { out, .. } => out.write_all(bytes),
            Self::Folder { part: Some(part), .. } => part.write_all(bytes),
            Self::Folder { part: None, .. } => Ok(()),
        };
        done.with_context(|| self.what(""))
    }

    /// It is whole.
    pub(crate) fn end(&mut self, name: &str, size: u64) -> Result<()> {
        let what = self.what(name);
        let done = match self {
            Self::Tar { out, .. } => {
                let left = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or(0);
                out.write_all(&[0; 512][..left])
            }
            Self::Folder { path, part } => match part.take() {
                Some(part) => settle(part, &path.join(name)),
                None => Ok(()),
            },
        };
        done.with_context(|| what)
    }

    /// An entry that is in memory.
    pub(crate) fn put(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let size = content.len() as u64;
        self.begin(name, size)?;
        self.write(content)?;
        self.end(name, size)
    }

    /// What a layout begins with.
    pub(crate) fn layout(&mut self) -> Result<()> {
        self.put(LAYOUT, LAYOUT_TEXT.as_bytes())
    }

    /// All is there.
    pub(crate) fn finish(self) -> Result<()> {
        let Self::Tar { mut out, path } = self else { return Ok(()) };
        let done = out.write_all(&[0; 1024]).and_then(|()| out.into_inner().map_err(io::IntoInnerError::into_error));
        done.and_then(Out::finish).with_context(|| format!("write {}", path.display()))
    }

    fn what(&self, name: &str) -> String {
        match self {
            Self::Tar { path, .. } => format!("write {}", path.display()),
            Self::Folder { path, .. } => format!("write {}", path.join(name).display()),
        }
    }
}

fn settle(part: BufWriter<NamedTempFile>, path: &Path) -> io::Result<()> {
    persist(part.into_inner().map_err(io::IntoInnerError::into_error)?, path)
}

/// Alike for alike content: no times, no owners.
fn write_head(out: &mut impl Write, name: &str, size: u64) -> io::Result<()> {
    let mut head = tar::Header::new_ustar();
    if head.set_path(name).is_err() {
        // Longer than a header takes, as digests of another kind make it.
        let record = format!(" path={name}\n");
        let digits = |length: usize| length + length.to_string().len();
        let length = digits(digits(record.len()));
        let record = format!("{length}{record}");
        let mut long = tar::Header::new_ustar();
        long.set_path("path")?;
        long.set_entry_type(tar::EntryType::XHeader);
        long.set_size(record.len() as u64);
        long.set_mode(0o644);
        long.set_cksum();
        out.write_all(long.as_bytes())?;
        out.write_all(record.as_bytes())?;
        out.write_all(&[0; 512][..record.len().next_multiple_of(512) - record.len()])?;
        head.set_path("long")?;
    }
    head.set_entry_type(tar::EntryType::Regular);
    head.set_size(size);
    head.set_mode(0o644);
    head.set_cksum();
    out.write_all(head.as_bytes())
}
