//! The ZIP of a report: takes texts that are blanked and nothing else, and appears under its name when it is whole.

use std::fs::Permissions;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::blank::Blanked;

/// A ZIP in the making.
pub(super) struct Archive {
    writer: ZipWriter<BufWriter<NamedTempFile>>,
    path: PathBuf,
}

impl Archive {
    /// Begins it beside its place.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut name = tempfile::Builder::new();
        // It holds what not everybody may know of a cluster, even without its secrets.
        name.prefix(".kubectl-registry-").suffix(".part").permissions(Permissions::from_mode(0o600));
        let file = name.tempfile_in(folder).with_context(|| format!("write in {}", folder.display()))?;
        Ok(Self { writer: ZipWriter::new(BufWriter::new(file)), path: path.to_owned() })
    }

    /// An entry. The parts of its name are names of the cluster's.
    pub(super) fn put(&mut self, parts: &[&str], text: &Blanked) -> Result<()> {
        let name = parts.iter().map(|part| harmless(part)).collect::<Vec<_>>().join("/");
        let options =
            SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).unix_permissions(0o600);
        let what = || format!("write {name} in {}", self.path.display());
        self.writer.start_file(&name, options).with_context(what)?;
        self.writer.write_all(text.as_str().as_bytes()).with_context(|| format!("write {}", self.path.display()))
    }

    /// All is there.
    pub(super) fn finish(self) -> Result<()> {
        let what = || format!("write {}", self.path.display());
        let out = self.writer.finish().with_context(what)?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(what)?;
        file.as_file().sync_all().with_context(what)?;
        file.persist(&self.path).map_err(|error| error.error).with_context(what)?;
        Ok(())
    }
}

/// A name that leads nowhere else, whatever unpacks it.
fn harmless(part: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '_' };
    let name: String = part.chars().map(plain).collect();
    if name.trim_matches('.').is_empty() { "_".to_owned() } else { name }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::{self, File};
    use std::io::Read as _;

    use super::super::blank::Blank;
    use super::*;

    /// Every entry of a ZIP with its text.
    pub(in crate::report) fn entries(path: &Path) -> Vec<(String, String)> {
        let mut archive = zip::ZipArchive::new(File::open(path).unwrap()).unwrap();
        let count = archive.len();
        let read = |index| {
            let mut entry = archive.by_index(index).unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.name().unwrap().into_owned(), text)
        };
        (0..count).map(read).collect()
    }

    #[test]
    fn a_zip_appears_whole_or_not_at_all_and_is_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        fs::write(&path, "before").unwrap();
        let text = Blank::default().text("text");
        let mut half = Archive::at(&path).unwrap();
        half.put(&["a", "b.txt"], &text).unwrap();
        drop(half);
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left of the half one");

        let mut whole = Archive::at(&path).unwrap();
        whole.put(&["a", "../../etc/passwd"], &text).unwrap();
        whole.put(&["..", "b"], &text).unwrap();
        whole.finish().unwrap();
        let names = entries(&path);
        let expected = [("a/.._.._etc_passwd", "text"), ("_/b", "text")];
        assert_eq!(names, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Archive::at(&folder.path().join("nowhere/a.zip")).is_err());
    }
}
