//! The files that are left when all layers lie one over the other, as one archive. Layers are gone through twice: for what is left, of which only paths are kept,
//! and for the contents.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use anyhow::{Context as _, Result, bail};

use super::entries::{Entries, Entry, Kind};
use super::overlay::{Meaning, Overlay, meaning};
use super::read_in::lay;
use super::{shown, unpack, write};
use crate::archive::Content;
use crate::aside::Wanted;
use crate::hashed::Hashed;

/// A layer that lies here.
pub(crate) struct Layer<C> {
    /// What it is called in messages.
    pub(crate) name: String,
    pub(crate) content: C,
    /// What the image's configuration says of it in clear.
    pub(crate) diff_id: Option<String>,
}

/// What can be read several times.
pub(crate) trait Again {
    fn again(&self) -> Box<dyn Read + Send>;
}

impl Again for Content {
    fn again(&self) -> Box<dyn Read + Send> {
        Box::new(self.reader())
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) entries: u64,
    /// Of the files' contents.
    pub(crate) bytes: u64,
}

/// A file, whatever it is called: its layer and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    layer: u32,
    number: u32,
}

/// What is left, and which files have several names.
struct Left {
    overlay: Overlay<Origin>,
    names: BTreeMap<Origin, Vec<Box<[u8]>>>,
}

/// Writes what is left of the layers, lowest first. Nothing is written before all of them were read, and are what they should be.
pub(crate) fn flatten<C: Again>(layers: &[Layer<C>], out: &mut impl Write, wanted: &Wanted) -> Result<Written> {
    let left = left(layers, wanted)?;
    let mut written = Written::default();
    for (number, layer) in (0..).zip(layers) {
        let source = unpack(wanted.reading(layer.content.again())).with_context(|| in_layer(layer))?;
        let mut entries = Numbered::of(number, source);
        while let Some((origin, entry)) = entries.next().with_context(|| in_layer(layer))? {
            left.write(origin, &entry, &mut entries.entries, out, &mut written)
                .with_context(|| format!("write {}", shown(&entry.path)))?;
        }
    }
    write::end(out).context("write the end")?;
    Ok(written)
}

/// The paths that the layers leave, and which of them are folders.
pub(crate) struct Files(Overlay<Origin>);

impl Files {
    pub(crate) fn of<C: Again>(layers: &[Layer<C>], wanted: &Wanted) -> Result<Self> {
        Ok(Self(left(layers, wanted)?.overlay))
    }

    /// Whether there is anything under a path.
    pub(super) fn has(&self, path: &[u8]) -> bool {
        self.0.get(path).is_some() || self.0.has_below(path)
    }

    /// Whether it is a folder, also one that has no entry of its own.
    pub(super) fn is_folder(&self, path: &[u8]) -> bool {
        self.0.is_folder(path) || self.0.has_below(path)
    }
}

fn in_layer<C>(layer: &Layer<C>) -> String {
    format!("layer {}", layer.name)
}

/// Entries with their origins.
struct Numbered<R> {
    entries: Entries<R>,
    next: Origin,
}

impl<R: Read> Numbered<R> {
    fn of(layer: u32, source: R) -> Self {
        Self { entries: Entries::new(source), next: Origin { layer, number: 0 } }
    }

    fn next(&mut self) -> Result<Option<(Origin, Entry)>> {
        let origin = self.next;
        self.next.number += 1;
        Ok(self.entries.next()?.map(|entry| (origin, entry)))
    }
}

fn left<C: Again>(layers: &[Layer<C>], wanted: &Wanted) -> Result<Left> {
    let mut left = Left { overlay: Overlay::new(), names: BTreeMap::new() };
    for (number, layer) in (0..).zip(layers) {
        left.lay(number, layer, wanted).with_context(|| in_layer(layer))?;
    }
    let Left { overlay, names } = &mut left;
    if !names.is_empty() {
        for (path, origin) in overlay.iter() {
            if let Some(known) = names.get_mut(origin) {
                known.push(path.into());
            }
        }
    }
    Ok(left)
}

impl Left {
    fn lay<C: Again>(&mut self, number: u32, layer: &Layer<C>, wanted: &Wanted) -> Result<()> {
        let clear = unpack(wanted.reading(layer.content.again()))?;
        let mut entries = Numbered::of(number, Hashed::new(clear)?);
        while let Some((origin, entry)) = entries.next()? {
            self.apply(origin, &entry)?;
        }
        let mut clear = entries.entries.into_source();
        io::copy(&mut clear, &mut io::sink()).context("read it")?;
        let found = clear.digest();
        match &layer.diff_id {
            Some(wanted) if *wanted != found => bail!(
                "its content has the digest {found} instead of {wanted}, which the image's configuration says: layers were mixed up, or somebody changed it"
            ),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, origin: Origin, entry: &Entry) -> Result<()> {
        match meaning(&entry.path)? {
            Meaning::None => {}
            Meaning::Deleted(path) => self.overlay.delete(origin.layer, &path),
            Meaning::Emptied(folder) => self.overlay.empty(origin.layer, &folder),
            Meaning::Present => {
                let found = lay(&mut self.overlay, origin.layer, entry, origin)?;
                if entry.kind == Kind::Link {
                    self.names.entry(found).or_default();
                }
            }
        }
        Ok(())
    }

    /// Writes an entry under the names that it has in the end.
    fn write(
        &self,
        origin: Origin,
        entry: &Entry,
        content: &mut impl Read,
        out: &mut impl Write,
        written: &mut Written,
    ) -> Result<()> {
        let own = &entry.path[..];
        let has_own = self.overlay.get(own) == Some(&origin);
        let names = self.names.get(&origin).map(Vec::as_slice).unwrap_or_default();
        let first = if has_own { Some(own) } else { names.first().map(|name| &name[..]) };
        let Some(first) = first else { return Ok(()) };
        write::put(out, entry, first, content)?;
        written.entries += 1;
        written.bytes += entry.size;
        for other in names.iter().filter(|name| name[..] != *first) {
            write::link(out, entry, other, first)?;
            written.entries += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use super::super::testing::{Made, Tar, file, folder, link, symlink};
    use super::*;
    use crate::registry_client::digest;

    impl Again for Vec<u8> {
        fn again(&self) -> Box<dyn Read + Send> {
            Box::new(Cursor::new(self.clone()))
        }
    }

    fn laid(layers: &[Vec<u8>]) -> Result<(Vec<u8>, Written)> {
        let layers: Vec<_> = (1..)
            .zip(layers)
            .map(|(number, content)| Layer {
                name: number.to_string(),
                content: content.clone(),
                diff_id: Some(digest::sha256(content)),
            })
            .collect();
        let mut out = Vec::new();
        let written = flatten(&layers, &mut out, &Wanted::default())?;
        Ok((out, written))
    }

    /// Each path with its content, as somebody finds it who unpacks the archive: `=` before other names, `->` before targets, `/` for folders.
    pub(crate) fn listed(archive: &[u8]) -> BTreeMap<String, String> {
        let mut entries = Entries::new(archive);
        let mut found = BTreeMap::new();
        while let Some(entry) = entries.next().unwrap() {
            let mut content = String::new();
            entries.read_to_string(&mut content).unwrap();
            let content = match entry.kind {
                Kind::Folder => "/".to_owned(),
                Kind::Symlink => format!("-> {}", shown(&entry.link)),
                Kind::Link => found.get(&shown(&entry.link)).cloned().expect("a link follows its target"),
                _ => content,
            };
            assert!(found.insert(shown(&entry.path), content).is_none(), "{} twice", shown(&entry.path));
        }
        assert!(entries.is_whole());
        found
    }

    fn left(layers: &[&[Made]]) -> BTreeMap<String, String> {
        let layers: Vec<_> = layers.iter().map(|layer| Tar::of(layer.to_vec())).collect();
        listed(&laid(&layers).unwrap().0)
    }

    fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect()
    }

    #[test]
    fn what_upper_layers_change_and_delete_is_as_they_say() {
        let found = left(&[
            &[
                folder("etc"),
                file("etc/a", "1"),
                file("etc/b", "1"),
                folder("var"),
                file("var/old", "1"),
                symlink("s", "/etc/a"),
            ],
            &[
                file("etc/a", "2"),
                file("etc/.wh.b", ""),
                folder("var"),
                file("var/.wh..wh..opq", ""),
                file("var/new", "2"),
            ],
        ]);
        assert_eq!(found, of(&[("etc", "/"), ("etc/a", "2"), ("s", "-> /etc/a"), ("var", "/"), ("var/new", "2")]));
    }

    #[test]
    fn a_file_becomes_a_folder_and_a_file_again() {
        let as_file = file("x", "1");
        let as_folder = [folder("x"), file("x/y", "2")];
        let again = file("x", "3");
        assert_eq!(left(&[std::slice::from_ref(&as_file), &as_folder]), of(&[("x", "/"), ("x/y", "2")]));
        assert_eq!(left(&[&[as_file], &as_folder, &[again]]), of(&[("x", "3")]));
    }

    #[test]
    fn a_file_of_several_names_keeps_its_content_when_the_first_is_gone() {
        let base = [file("a", "content"), link("b", "a"), link("c", "b"), folder("d"), link("d/e", "./a")];
        assert_eq!(
            left(&[&base]),
            of(&[("a", "content"), ("b", "content"), ("c", "content"), ("d", "/"), ("d/e", "content")])
        );
        assert_eq!(
            left(&[&base, &[file(".wh.a", "")]]),
            of(&[("b", "content"), ("c", "content"), ("d", "/"), ("d/e", "content")])
        );
        assert_eq!(
            left(&[&base, &[file("a", "new"), file(".wh.c", ""), file(".wh.d", "")]]),
            of(&[("a", "new"), ("b", "content")])
        );
        assert_eq!(
            left(&[&base, &[file(".wh.a", ""), file(".wh.b", ""), file(".wh.c", ""), file(".wh.d", "")]]),
            of(&[])
        );
        let several = [symlink("s", "a"), link("t", "s")];
        assert_eq!(left(&[&several, &[file(".wh.s", "")]]), of(&[("t", "-> a")]));
    }

    #[test]
    fn within_a_layer_the_last_of_a_name_counts() {
        assert_eq!(left(&[&[file("a", "1"), link("b", "a"), file("a", "2")]]), of(&[("a", "2"), ("b", "1")]));
    }

    #[test]
    fn modes_owners_and_attributes_stay() {
        let made = file("a", "x").mode(0o4711).record("SCHILY.xattr.security.capability", "\u{1}");
        let (out, written) = laid(&[Tar::of([made])]).unwrap();
        let entry = Entries::new(&out[..]).next().unwrap().unwrap();
        assert_eq!((entry.head.mode().unwrap(), entry.records.len()), (0o4711, 1));
        assert_eq!(written, Written { entries: 1, bytes: 1 });
    }

    #[test]
    fn names_that_begin_with_a_slash_lead_nowhere_else() {
        // As ko writes them; nothing that is written begins with one.
        assert_eq!(left(&[&[file("/ko-app/main", "x")]]), of(&[("ko-app/main", "x")]));
    }

    #[test]
    fn what_nobody_could_lay_out_is_refused_by_its_layer_before_a_byte_is_written() {
        let good = Tar::of([file("a", "x")]);
        for (second, words) in [
            (Tar::of([file("../../etc/passwd", "x")]), "layer 2: ../../etc/passwd is a name that leads nowhere"),
            (Tar::of([link("b", "../a")]), "layer 2: b is another name of ../a, which leads nowhere"),
            (Tar::of([link("b", "none")]), "layer 2: b is another name of none, which is not there"),
            (Tar::of([symlink("s", "/etc"), file("s/passwd", "x")]), "layer 2: s/passwd is in s, which is no folder"),
            (Tar::of([file(".wh...", "")]), "layer 2: .wh... deletes nothing"),
            (b"no archive, and longer than nothing".repeat(20), "layer 2: it is no tar archive, or is damaged"),
            (good[..700].to_vec(), "layer 2: it ends in the middle of a file"),
            (good[..300].to_vec(), "layer 2: it ends in the middle of a header"),
        ] {
            let mut out = Vec::new();
            let layers = [&good, &second].map(Clone::clone);
            let layers: Vec<_> = (1..)
                .zip(layers)
                .map(|(number, content)| Layer { name: i32::to_string(&number), content, diff_id: None })
                .collect();
            let error = format!("{:#}", flatten(&layers, &mut out, &Wanted::default()).unwrap_err());
            assert!(error.contains(words), "{words}: {error}");
            assert!(out.is_empty(), "{words}: something was written");
        }
    }

    #[test]
    fn a_layer_that_the_configuration_does_not_know_is_refused() {
        let layer = Layer {
            name: "sha256:1".to_owned(),
            content: Tar::of([file("a", "x")]),
            diff_id: Some(digest::sha256("another")),
        };
        let error = format!("{:#}", flatten(&[layer], &mut io::sink(), &Wanted::default()).unwrap_err());
        assert!(error.contains("layer sha256:1: its content has the digest") && error.contains("mixed up"), "{error}");
    }

    #[test]
    fn whoever_is_not_waited_for_any_more_ends() {
        let layer = Layer { name: "1".to_owned(), content: Tar::of([file("a", "x")]), diff_id: None };
        let wanted = Wanted::default();
        wanted.leave();
        let error = format!("{:#}", flatten(&[layer], &mut io::sink(), &wanted).unwrap_err());
        assert!(error.contains("interrupted"), "{error}");
    }

    /// A layer of so many files, which is nowhere whole.
    struct Nowhere {
        files: u64,
        size: u64,
    }

    impl Again for Nowhere {
        fn again(&self) -> Box<dyn Read + Send> {
            let Self { files, size } = *self;
            let one = move |number: u64| {
                let mut head = tar::Header::new_ustar();
                head.set_path(format!("usr/share/a-folder-with-a-name/of-files-{}/{number:08}", number / 100)).unwrap();
                head.set_size(size);
                head.set_mode(0o644);
                head.set_cksum();
                Cursor::new(*head.as_bytes()).chain(io::repeat(7).take(size.next_multiple_of(512)))
            };
            let mut next = 0;
            let mut current: Option<Box<dyn Read + Send>> = None;
            Box::new(Pulled(move |buffer: &mut [u8]| {
                loop {
                    if let Some(source) = &mut current {
                        let read = source.read(buffer)?;
                        if read > 0 {
                            return Ok(read);
                        }
                    }
                    if next == files {
                        return Ok(0);
                    }
                    current = Some(Box::new(one(next)));
                    next += 1;
                }
            }))
        }
    }

    struct Pulled<F>(F);

    impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for Pulled<F> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0(buffer)
        }
    }

    /// The most that this process ever had in memory, in MiB.
    fn peak() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? >> 10)
    }

    #[test]
    fn memory_does_not_grow_with_what_files_hold() {
        let Some(before) = peak() else { return };
        let layer = Layer { name: "1".to_owned(), content: Nowhere { files: 16, size: 16 << 20 }, diff_id: None };
        let written = flatten(&[layer], &mut io::sink(), &Wanted::default()).unwrap();
        assert_eq!(written.bytes, 256 << 20);
        let grown = peak().unwrap() - before;
        assert!(grown < 64, "{grown} MiB");
    }
}
