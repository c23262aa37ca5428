//! The files of the sidecar: what the kubelet shows, and what nginx reads. Whatever is exchanged is exchanged by one rename, and what a handshake may still
//! be reading stays for one exchange more.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::reloader::{self, Judged};
use crate::pki::Leaf;
use crate::pki::reading::LeafReading;

/// The link that a kubelet turns when it exchanges the files of a folder.
const KUBELETS_LINK: &str = "..data";
/// The link that nginx follows.
const CURRENT: &str = "current";

/// Which version of its files the kubelet shows: the folder that they are in. `None` if there is no such folder.
pub(super) fn version(shown: &Path) -> Option<PathBuf> {
    fs::canonicalize(shown.join(KUBELETS_LINK)).ok()
}

/// Writes a file by renaming it.
pub(super) fn write(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let draft = folder.join(format!(".{name}"));
    fs::write(&draft, text)?;
    fs::rename(draft, folder.join(name))
}

/// Certificate and key as the kubelet shows them.
pub(super) struct Shown(Option<Leaf>);

impl Shown {
    /// Reads them. What cannot be read is not there.
    pub(super) fn read(folder: &Path) -> Self {
        let read = |name: &str| fs::read(folder.join(name)).ok();
        Self(Leaf::stored(read("tls.crt").as_deref(), read("tls.key").as_deref()))
    }

    pub(super) fn leaf(&self) -> Option<&Leaf> {
        self.0.as_ref()
    }

    pub(super) fn judged(&self, now: Timestamp) -> Judged {
        reloader::judge(self.leaf(), &LeafReading::of(self.leaf(), None, now))
    }
}

/// Where nginx finds the pair that it serves: a folder for each, and a link to the present one.
pub(super) struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    /// In a subfolder of what nginx reads.
    pub(super) fn in_folder(folder: &Path) -> io::Result<Self> {
        let folder = folder.join("tls");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// The pair that is served.
    pub(super) fn served(&self) -> Option<String> {
        let target = fs::read_link(self.folder.join(CURRENT)).ok()?;
        let is_whole = self.folder.join(&target).is_dir();
        target.to_str().filter(|_| is_whole).map(str::to_owned)
    }

    /// Serves a pair.
    pub(super) fn put(&self, checksum: &str, leaf: &Leaf) -> io::Result<()> {
        let (before, pair) = (self.served(), self.folder.join(checksum));
        if !pair.is_dir() {
            let draft = self.folder.join(".draft");
            // Of a process that was killed.
            if draft.exists() {
                fs::remove_dir_all(&draft)?;
            }
            fs::create_dir(&draft)?;
            for (name, text) in [("tls.crt", leaf.chain_pem.as_str()), ("tls.key", leaf.key_pem.expose().as_str())] {
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(0o640).open(draft.join(name))?.write_all(text.as_bytes())?;
            }
            fs::rename(&draft, &pair)?;
        }
        let link = self.folder.join(".link");
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => symlink(checksum, &link)?,
        }
        fs::rename(&link, self.folder.join(CURRENT))?;
        self.clear(&[Some(checksum), before.as_deref()])
    }

    /// Takes away every pair but these.
    fn clear(&self, stay: &[Option<&str>]) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let stays = entry.file_name().to_str().is_some_and(|name| stay.contains(&Some(name)));
            if entry.file_type()?.is_dir() && !stays {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(chain: &str) -> Leaf {
        Leaf { chain_pem: chain.to_owned(), key_pem: "key".to_owned().into() }
    }

    fn names(shelf: &Shelf) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&shelf.folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn the_present_pair_and_the_one_before_stay_and_older_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::in_folder(folder.path()).unwrap();
        assert_eq!(shelf.served(), None);
        for (checksum, stay) in [
            ("a", vec!["a", "current"]),
            ("b", vec!["a", "b", "current"]),
            ("c", vec!["b", "c", "current"]),
            // Taken back.
            ("b", vec!["b", "c", "current"]),
        ] {
            shelf.put(checksum, &leaf(checksum)).unwrap();
            assert_eq!(names(&shelf), stay);
            assert_eq!(shelf.served().as_deref(), Some(checksum));
            assert_eq!(fs::read_to_string(shelf.folder.join("current/tls.crt")).unwrap(), checksum);
        }
    }

    #[test]
    fn what_a_killed_process_left_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::in_folder(folder.path()).unwrap();
        fs::create_dir(shelf.folder.join(".draft")).unwrap();
        fs::write(shelf.folder.join(".draft/tls.crt"), "half").unwrap();
        symlink("nowhere", shelf.folder.join(".link")).unwrap();
        symlink("nowhere", shelf.folder.join(CURRENT)).unwrap();
        assert_eq!(shelf.served(), None, "a link that leads nowhere serves nothing");

        shelf.put("a", &leaf("a")).unwrap();

        assert_eq!(names(&shelf), ["a", "current"]);
        assert_eq!(shelf.served().as_deref(), Some("a"));
    }

    #[test]
    fn a_broken_pair_is_told_from_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let pair = || rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let judged = |chain: &str, key: &str| {
            fs::write(folder.path().join("tls.crt"), chain).unwrap();
            fs::write(folder.path().join("tls.key"), key).unwrap();
            Shown::read(folder.path()).judged(Timestamp::now())
        };
        let (one, other) = (pair(), pair());
        assert_eq!(Shown::read(folder.path()).judged(Timestamp::now()), Judged::Bad("there is none"));
        let key = one.signing_key.serialize_pem();
        assert!(matches!(judged(&one.cert.pem(), &key), Judged::Good { .. }));
        assert_eq!(judged(&other.cert.pem(), &key), Judged::Bad("the key is not the certificate's"));
        assert_eq!(judged(&one.cert.pem()[..100], &key), Judged::Bad("it is not a certificate with a key"));
        assert_eq!(judged(&one.cert.pem(), ""), Judged::Bad("it is not a certificate with a key"));
    }
}
