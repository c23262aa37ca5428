//! Where an archive goes: to somebody who reads it meanwhile, or into a file, which has its name when it is whole, and not before.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

/// How a file is called that is not whole.
const UNFINISHED: (&str, &str) = (".kubectl-registry-", ".part");

/// An archive's place.
pub(crate) enum Out {
    File(NamedTempFile, PathBuf),
    Stream(Box<dyn Write + Send>),
}

impl Out {
    /// A file that is there in the end.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        sweep(folder_of(path));
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
    let folder = folder_of(path);
    let what = || format!("write in {}", folder.display());
    let mut name = tempfile::Builder::new();
    // As others make files, less what the user's mask takes.
    name.prefix(UNFINISHED.0).suffix(UNFINISHED.1).permissions(Permissions::from_mode(0o666));
    loop {
        let file = name.tempfile_in(folder).with_context(what)?;
        // Where files cannot be locked, nobody sweeps.
        let _ = file.as_file().lock();
        // Who swept may have met it before that.
        if file.as_file().metadata().with_context(what)?.nlink() > 0 {
            return Ok(file);
        }
    }
}

/// Removes what a program left that was killed. What another one is writing, that one has locked.
pub(super) fn sweep(folder: &Path) {
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(UNFINISHED.0)
            && name.ends_with(UNFINISHED.1)
            && let Ok(file) = File::options().write(true).open(&path)
            && file.try_lock().is_ok()
        {
            // While it is locked: whoever has just made it sees that it is gone.
            let _ = fs::remove_file(&path);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_program_left_goes_and_what_another_one_writes_stays() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        for name in [".kubectl-registry-killed.part", "kubectl-registry-x.part", ".kubectl-registry-notes"] {
            fs::write(at(name), "x").unwrap();
        }
        let other = beside(&at("other.tar")).unwrap();
        let out = Out::file(&at("a.tar")).unwrap();
        assert!(!at(".kubectl-registry-killed.part").exists());
        assert!(at("kubectl-registry-x.part").exists() && at(".kubectl-registry-notes").exists());
        persist(other, &at("other.tar")).unwrap();
        out.finish().unwrap();
        assert!(at("other.tar").exists() && at("a.tar").exists());
    }
}
