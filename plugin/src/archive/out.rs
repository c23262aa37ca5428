//! Where an archive goes: to somebody who reads it meanwhile, or into a file, which has its name when it is whole, and not before.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

/// An archive's place.
pub(crate) enum Out {
    File(NamedTempFile, PathBuf),
    Stream(Box<dyn Write + Send>),
}

impl Out {
    /// A file that is there in the end.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        Ok(Self::File(beside(path)?, path.to_owned()))
    }

    pub(crate) fn stream(out: Box<dyn Write + Send>) -> Self {
        Self::Stream(out)
    }

    /// It is whole.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::File(file, path) => persist(file, &path),
            Self::Stream(mut stream) => stream.flush(),
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file, _) => file.write(bytes),
            Self::Stream(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file, _) => file.flush(),
            Self::Stream(stream) => stream.flush(),
        }
    }
}

/// A file beside its place, for as long as it is not whole.
pub(super) fn beside(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = tempfile::Builder::new();
    // As others make files, less what the user's mask takes.
    name.prefix(".kubectl-registry-").suffix(".part").permissions(Permissions::from_mode(0o666));
    name.tempfile_in(folder).with_context(|| format!("write in {}", folder.display()))
}

pub(super) fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
