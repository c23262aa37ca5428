//! A layer of changes: what somebody adds from folders and archives, and what is deleted of the layers below. The same input gives the same bytes: paths are in
//! order, and all times are one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use super::entries::{Entries, Entry, Kind, normal};
use super::flatten::Files;
use super::kept::{Keeper, Kept};
use super::overlay::{Overlay, ancestors};
use super::pack::{Packed, Packer};
use super::read_in::{judge, lay, whole};
use super::{OPAQUE, WHITEOUT, join, shown, split, unpack, write};
use crate::aside::Wanted;
use crate::cluster::listed;

/// Records of PAX that are times.
const TIMES: [&[u8]; 4] = [b"mtime", b"atime", b"ctime", b"LIBARCHIVE.creationtime"];

/// Something that is added. There may be hundreds of thousands, so that all that can be found again is left where it is.
#[derive(Clone, Copy)]
enum Added {
    /// Under its path below a folder that was given.
    Disk { folder: u32, kind: Kind, mode: u32 },
    /// From this byte on in what is kept of an archive.
    Archive { archive: u32, at: u64 },
}

/// A layer that is put together.
pub(crate) struct Change<'a> {
    wanted: &'a Wanted,
    overlay: Overlay<u32>,
    added: Vec<Added>,
    folders: Vec<PathBuf>,
    archives: Vec<Kept>,
    deleted: BTreeSet<Vec<u8>>,
    sources: u32,
}

impl<'a> Change<'a> {
    /// Nothing, which ends when nobody waits for it.
    pub(crate) fn new(wanted: &'a Wanted) -> Self {
        Self {
            wanted,
            overlay: Overlay::new(),
            added: Vec::new(),
            folders: Vec::new(),
            archives: Vec::new(),
            deleted: BTreeSet::new(),
            sources: 0,
        }
    }

    /// Adds what is in a folder, or in a tar archive; what comes later lies over what came before.
    pub(crate) fn add(&mut self, path: &Path) -> Result<()> {
        let layer = self.sources;
        self.sources += 1;
        let what = || format!("add {}", path.display());
        if path == Path::new("-") {
            return self.archive(layer, io::stdin()).context("add standard input");
        }
        if path.is_dir() {
            self.folders.push(path.to_owned());
            return self.folder(layer, path, &[]).with_context(what);
        }
        self.archive(layer, File::open(path).with_context(what)?).with_context(what)
    }

    /// Deletes what the layers below have under a path.
    pub(crate) fn delete(&mut self, path: Vec<u8>) {
        self.deleted.insert(path);
    }

    /// That an image of this name and with these files can be changed so: what is deleted is there, and nothing becomes a folder, or is none any more, that
    /// nobody deleted. Else a folder `lib` would take the place of a symlink to `usr/lib`, and with it everything that is there.
    pub(crate) fn check(&self, files: &Files, name: &str) -> Result<()> {
        let missing = self.deleted.iter().filter(|path| !files.has(path)).map(|path| shown(path));
        let missing: Vec<_> = missing.collect();
        if !missing.is_empty() {
            bail!("{name} has no {}: nothing was made", listed(missing));
        }
        let is_deleted = |path: &[u8]| self.deleted.contains(path) || self.is_deleted_above(path);
        let stays = |path: &[u8]| files.has(path) && !is_deleted(path);
        for (path, _) in self.overlay.iter() {
            if let Some(above) = ancestors(path).find(|above| stays(above) && !files.is_folder(above)) {
                bail!(
                    "{} would make a folder of {}, which is none in {name}: add it where that leads, or delete {1} as well",
                    shown(path),
                    shown(above)
                );
            }
            if stays(path) && files.is_folder(path) != self.overlay.is_folder(path) {
                let (is, is_not) = if files.is_folder(path) { ("a", "none") } else { ("no", "one") };
                bail!(
                    "{} is {is} folder in {name}, and would be {is_not}: delete it as well, if that is meant",
                    shown(path)
                );
            }
        }
        Ok(())
    }

    fn is_deleted_above(&self, path: &[u8]) -> bool {
        ancestors(path).any(|above| self.deleted.contains(above))
    }

    fn put(&mut self, layer: u32, entry: &Entry, added: Added) -> Result<()> {
        judge(entry)?;
        if entry.path.is_empty() {
            return Ok(());
        }
        let number = u32::try_from(self.added.len()).context("count what is added")?;
        if lay(&mut self.overlay, layer, entry, number)? == number {
            self.added.push(added);
        }
        Ok(())
    }

    fn archive(&mut self, layer: u32, source: impl Read + Send + 'static) -> Result<()> {
        let mut keeper = Keeper::new()?;
        let archive = u32::try_from(self.archives.len()).context("count the archives")?;
        let mut entries = Entries::new(unpack(self.wanted.reading(source))?);
        while let Some(entry) = entries.next()? {
            let at = keeper.keep(&entry, &mut entries)?;
            self.put(layer, &entry, Added::Archive { archive, at })?;
        }
        whole(&entries)?;
        self.archives.push(keeper.kept()?);
        Ok(())
    }

    /// What is in a folder. A folder that has something in it has no entry: that of the image below stays as it is.
    fn folder(&mut self, layer: u32, folder: &Path, at: &[u8]) -> Result<()> {
        let what = |path: &Path| format!("read {}", path.display());
        let entries = fs::read_dir(folder).with_context(|| what(folder))?;
        let names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        if names.is_empty() && !at.is_empty() {
            let metadata = fs::symlink_metadata(folder).with_context(|| what(folder))?;
            return self.on_disk(layer, at.to_vec(), Kind::Folder, metadata.mode());
        }
        for name in names {
            let path = folder.join(&name);
            let below = join(at, name.as_bytes());
            let Some(below) = normal(&below) else { bail!("{} is too long a name", path.display()) };
            let metadata = fs::symlink_metadata(&path).with_context(|| what(&path))?;
            let kind = metadata.file_type();
            match () {
                () if kind.is_dir() => self.folder(layer, &path, &below)?,
                () if kind.is_symlink() => self.on_disk(layer, below, Kind::Symlink, 0o777)?,
                () if kind.is_file() => self.on_disk(layer, below, Kind::File, metadata.mode())?,
                () if kind.is_socket() => bail!("{} is a socket, which no image can have", path.display()),
                () => bail!("{} is a device or a pipe: add it in a tar archive", path.display()),
            }
        }
        Ok(())
    }

    /// Something of the folder that was given last.
    fn on_disk(&mut self, layer: u32, path: Vec<u8>, kind: Kind, mode: u32) -> Result<()> {
        let folder = u32::try_from(self.folders.len()).context("count the folders")?.saturating_sub(1);
        self.put(layer, &entry(path, kind, Vec::new(), mode), Added::Disk { folder, kind, mode })
    }

    /// Packs it, as made at this time.
    pub(crate) fn pack(&self, time: Timestamp) -> Result<Packed> {
        let time = u64::try_from(time.as_second()).unwrap_or(0);
        let mut packer = Packer::new()?;
        let mut names = self.of_several_names();
        let mut deletions = self.deletions().into_iter().peekable();
        for (path, number) in self.overlay.iter() {
            while let Some(deletion) = deletions.next_if(|deletion| &deletion[..] < path) {
                write_deletion(&mut packer, &deletion, time)?;
            }
            self.write(&mut packer, path, *number, &mut names, time).with_context(|| format!("add {}", shown(path)))?;
        }
        deletions.try_for_each(|deletion| write_deletion(&mut packer, &deletion, time))?;
        write::end(&mut packer).context("write the end")?;
        packer.finish()
    }

    /// What stands under several paths; of each the first of them, once it was written.
    fn of_several_names(&self) -> BTreeMap<u32, Option<Vec<u8>>> {
        let mut is_met = vec![false; self.added.len()];
        let mut several = BTreeMap::new();
        for (_, number) in self.overlay.iter() {
            match is_met.get_mut(*number as usize) {
                Some(true) => drop(several.insert(*number, None)),
                Some(met) => *met = true,
                None => {}
            }
        }
        several
    }

    fn write(
        &self,
        out: &mut impl Write,
        path: &[u8],
        number: u32,
        names: &mut BTreeMap<u32, Option<Vec<u8>>>,
        time: u64,
    ) -> Result<()> {
        let added = self.added.get(number as usize).context("it is gone")?;
        if let Some(name) = names.get_mut(&number) {
            match (&name, added) {
                (Some(first), Added::Archive { archive, at }) => {
                    let (entry, _) = self.kept(*archive)?.entry(*at, path)?;
                    return Ok(write::link(out, &self::at(entry, time), path, first)?);
                }
                _ => *name = Some(path.to_vec()),
            }
        }
        self.content(out, path, *added, time)
    }

    fn kept(&self, archive: u32) -> Result<&Kept> {
        self.archives.get(archive as usize).context("its archive is gone")
    }

    fn content(&self, out: &mut impl Write, path: &[u8], added: Added, time: u64) -> Result<()> {
        match added {
            Added::Archive { archive, at } => {
                let (entry, content) = self.kept(archive)?.entry(at, path)?;
                write::put(out, &self::at(entry, time), path, &mut self.wanted.reading(content.reader()))?;
            }
            Added::Disk { folder, kind, mode } => {
                let file = self.folders.get(folder as usize).context("its folder is gone")?;
                let file = file.join(OsStr::from_bytes(path));
                let what = || format!("read {}", file.display());
                let mut entry = at(entry(path.to_vec(), kind, Vec::new(), mode), time);
                if kind == Kind::Symlink {
                    entry.link = fs::read_link(&file).with_context(what)?.into_os_string().into_vec();
                }
                if kind != Kind::File {
                    return Ok(write::put(out, &entry, path, &mut io::empty())?);
                }
                let mut file = File::open(&file).with_context(what)?;
                entry.size = file.metadata()?.len();
                let mut reading = self.wanted.reading(file.try_clone()?);
                write::put(out, &entry, path, &mut reading)
                    .context("it became shorter meanwhile, or cannot be read")?;
                // The clone reads on where the other one is.
                if file.stream_position()? != entry.size || file.read(&mut [0])? != 0 {
                    bail!("it grew meanwhile");
                }
            }
        }
        Ok(())
    }

    /// Names that delete, in order.
    fn deletions(&self) -> BTreeSet<Vec<u8>> {
        self.deleted.iter().filter_map(|path| self.deletion(path)).collect()
    }

    /// The name that deletes what lies below a path; `None` if something else does already.
    fn deletion(&self, path: &[u8]) -> Option<Vec<u8>> {
        let is_replaced = self.overlay.get(path).is_some() && !self.overlay.is_folder(path);
        if is_replaced || self.overlay.is_covered(path) || self.is_deleted_above(path) {
            return None;
        }
        if self.overlay.is_folder(path) || self.overlay.has_below(path) {
            return Some(join(path, OPAQUE));
        }
        let (folder, name) = split(path);
        Some(join(folder, &[WHITEOUT, name].concat()))
    }
}

fn write_deletion(out: &mut impl Write, path: &[u8], time: u64) -> Result<()> {
    let deletion = at(entry(path.to_vec(), Kind::File, Vec::new(), 0), time);
    write::put(out, &deletion, path, &mut io::empty()).with_context(|| format!("add {}", shown(path)))
}

/// An entry of root's.
fn entry(path: Vec<u8>, kind: Kind, link: Vec<u8>, mode: u32) -> Entry {
    let mut head = tar::Header::new_ustar();
    head.set_mode(mode & 0o7777);
    head.set_uid(0);
    head.set_gid(0);
    Entry { path, is_absolute: false, kind, link, size: 0, head, records: Vec::new() }
}

fn at(mut entry: Entry, time: u64) -> Entry {
    entry.head.set_mtime(time);
    entry.records.retain(|(key, _)| !TIMES.contains(&&key[..]));
    entry
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::super::testing::{self, Made, Tar, link};
    use super::super::tests::listed;
    use super::*;

    fn packed(sources: &[&Path], deleted: &[&str], time: i64) -> Result<Packed> {
        let wanted = Wanted::default();
        let mut change = Change::new(&wanted);
        sources.iter().try_for_each(|source| change.add(source))?;
        deleted.iter().for_each(|path| change.delete(path.as_bytes().to_vec()));
        change.pack(Timestamp::from_second(time).unwrap())
    }

    fn clear(packed: &Packed) -> Vec<u8> {
        let mut bytes = Vec::new();
        flate2::read::MultiGzDecoder::new(packed.content.reader()).read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn names(packed: &Packed) -> Vec<String> {
        let bytes = clear(packed);
        let mut entries = Entries::new(&bytes[..]);
        let mut names = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            names.push(shown(&entry.path));
        }
        names
    }

    fn archive(folder: &Path, entries: &[Made]) -> PathBuf {
        let path = folder.join("a.tar");
        fs::write(&path, Tar::of(entries.to_vec())).unwrap();
        path
    }

    fn tree(home: &Path, files: &[&str]) -> PathBuf {
        let root = home.join("root");
        for name in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("of {name}")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        root
    }

    #[test]
    fn the_same_folder_gives_the_same_layer_whenever_it_was_written() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = tree(first.path(), &["etc/b", "etc/a", "c"]);
        let other = tree(second.path(), &["c", "etc/a", "etc/b"]);
        for root in [&one, &other] {
            symlink("/etc/a", root.join("s")).unwrap();
            fs::create_dir_all(root.join("empty")).unwrap();
            fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o700)).unwrap();
        }
        File::options()
            .write(true)
            .open(other.join("c"))
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let (one, other) = (packed(&[&one], &["x"], 0).unwrap(), packed(&[&other], &["x"], 0).unwrap());
        assert_eq!((&one.blob, &one.diff_id), (&other.blob, &other.diff_id));
        // Folders that hold something are those of the image below.
        assert_eq!(names(&one), [".wh.x", "c", "empty", "etc/a", "etc/b", "s"]);
        let bytes = clear(&one);
        let mut entries = Entries::new(&bytes[..]);
        while let Some(Entry { path, head, .. }) = entries.next().unwrap() {
            assert_eq!((head.mtime().unwrap(), head.uid().unwrap()), (0, 0), "{}", shown(&path));
            if path == b"c" {
                assert_eq!(head.mode().unwrap(), 0o640);
            }
        }
    }

    #[test]
    fn little_is_in_memory_of_what_is_added() {
        assert!(size_of::<Added>() <= 16, "{}", size_of::<Added>());
    }

    #[test]
    fn all_times_are_one_and_owners_of_an_archive_stay() {
        let home = tempfile::tempdir().unwrap();
        let made = [testing::file("a", "x").record("mtime", "5.5").record("SCHILY.xattr.user.a", "b"), link("b", "a")];
        let packed = packed(&[&archive(home.path(), &made)], &[], 99).unwrap();
        let bytes = clear(&packed);
        let mut entries = Entries::new(&bytes[..]);
        let entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.head.mtime().unwrap(), 99);
        assert_eq!(entry.records, [(b"SCHILY.xattr.user.a".to_vec(), b"b".to_vec())]);
        let other = entries.next().unwrap().unwrap();
        assert_eq!((other.kind, shown(&other.link)), (Kind::Link, "a".to_owned()), "another name of a file stays one");
    }

    #[test]
    fn what_comes_later_lies_over_what_came_before() {
        let home = tempfile::tempdir().unwrap();
        let made = [
            testing::folder("etc"),
            testing::file("etc/a", "of the archive"),
            link("other", "etc/a"),
            testing::file("c", "x"),
        ];
        let archive = archive(home.path(), &made);
        let root = tree(home.path(), &["etc/a", "c/d"]);
        let found = listed(&clear(&packed(&[&archive, &root], &[], 0).unwrap()));
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["c/d", "etc", "etc/a", "other"]);
        assert_eq!((found["etc/a"].as_str(), found["other"].as_str()), ("of etc/a", "of the archive"));
    }

    #[test]
    fn a_deletion_hides_what_is_below_and_nothing_that_is_added() {
        let home = tempfile::tempdir().unwrap();
        let root = tree(home.path(), &["etc/app/a", "file"]);
        for (deleted, expected) in [
            (&["etc/motd"][..], &["etc/.wh.motd", "etc/app/a", "file"][..]),
            // A folder in which something is added is emptied first.
            (&["etc/app"], &["etc/app/.wh..wh..opq", "etc/app/a", "file"]),
            (&["etc"], &["etc/.wh..wh..opq", "etc/app/a", "file"]),
            // What is replaced needs no deletion, and what is in a deleted folder neither: its name would make the folder again.
            (&["file"], &["etc/app/a", "file"]),
            (&["file/x"], &["etc/app/a", "file"]),
            (&["var", "var/log", "var/log/x"], &[".wh.var", "etc/app/a", "file"]),
            (&["etc", "etc/app"], &["etc/.wh..wh..opq", "etc/app/a", "file"]),
        ] {
            assert_eq!(names(&packed(&[&root], deleted, 0).unwrap()), expected, "{deleted:?}");
        }
    }

    #[test]
    fn nothing_becomes_a_folder_or_is_none_any_more_unasked() {
        let home = tempfile::tempdir().unwrap();
        let wanted = Wanted::default();
        let base = Tar::of([
            testing::folder("usr/lib"),
            testing::file("usr/lib/a", "x"),
            testing::symlink("lib", "usr/lib"),
            testing::file("etc/app/a", "x"),
        ]);
        let layer = super::super::Layer { name: "1".to_owned(), content: base, diff_id: None };
        let files = Files::of(&[layer], &wanted).unwrap();
        let no_folder = "lib/b would make a folder of lib, which is none in shop/web:1: add it where that leads, or delete lib as well";
        for (made, deleted, words) in [
            (testing::file("usr/lib/a", "y"), &[][..], ""),
            (testing::folder("usr/lib"), &[], ""),
            (testing::folder("etc/app"), &[], ""),
            (testing::symlink("lib", "lib64"), &[], ""),
            (testing::file("lib/b", "y"), &[], no_folder),
            (testing::file("lib/b", "y"), &["lib"], ""),
            (testing::file("lib/b/c", "y"), &["lib"], ""),
            (testing::folder("lib"), &[], "lib is no folder in shop/web:1, and would be one: delete it as well"),
            (testing::folder("lib"), &["lib"], ""),
            (testing::file("etc/app", "y"), &[], "etc/app is a folder in shop/web:1, and would be none"),
            (testing::file("etc/app", "y"), &["etc"], ""),
            (testing::file("new", "y"), &["etc/none", "usr/lib/b", "etc"], "shop/web:1 has no etc/none and usr/lib/b"),
        ] {
            let mut change = Change::new(&wanted);
            change.add(&archive(home.path(), std::slice::from_ref(&made))).unwrap();
            deleted.iter().for_each(|path| change.delete(path.as_bytes().to_vec()));
            let found = change.check(&files, "shop/web:1").map_err(|error| error.to_string()).err().unwrap_or_default();
            assert!(
                found.contains(words) && found.is_empty() == words.is_empty(),
                "{} {deleted:?}: {found}",
                made.path
            );
        }
    }

    #[test]
    fn what_cannot_be_added_is_named() {
        let home = tempfile::tempdir().unwrap();
        let root = tree(home.path(), &["a"]);
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let error = format!("{:#}", packed(&[&root], &[], 0).unwrap_err());
        assert!(error.contains("root/socket is a socket"), "{error}");
        let other = tree(&home.path().join("other"), &["b/.wh.c"]);
        let error = format!("{:#}", packed(&[&other], &[], 0).unwrap_err());
        assert!(error.contains("b/.wh.c in it begins with .wh."), "{error}");
        let error = format!("{:#}", packed(&[&home.path().join("none")], &[], 0).unwrap_err());
        assert!(error.contains("none: No such file"), "{error}");
        for (made, words) in [
            (testing::file("../a", "x"), "../a is a name that leads nowhere"),
            (testing::file("/a", "x"), "/a in it begins with a slash"),
            (link("b", "none"), "b is another name of none"),
        ] {
            let error = format!("{:#}", packed(&[&archive(home.path(), &[made])], &[], 0).unwrap_err());
            assert!(error.contains(words) && error.contains("a.tar"), "{words}: {error}");
        }
        fs::write(home.path().join("a.tar"), &Tar::of([testing::file("a", "x")])[..1024]).unwrap();
        let error = format!("{:#}", packed(&[&home.path().join("a.tar")], &[], 0).unwrap_err());
        assert!(error.contains("it has no end"), "{error}");
    }
}
