//! Reads a tar archive from its beginning to its end: headers in the forms of ustar, GNU and PAX. The archive's own names and lengths have bounds, so that a small
//! archive cannot fill the memory.

use std::io::{self, Read};

use anyhow::{Context as _, Result, bail};

use super::shown;

/// Bytes that a tar archive is made of.
const BLOCK: usize = 512;
/// The longest path of Linux.
const LONGEST_PATH: usize = 4096;
/// Bytes of a long name, or of all records of an entry: attributes may have 64 KiB each.
const MOST_RECORDS: u64 = 1 << 20;
/// Entries of an archive.
const MOST_ENTRIES: u32 = 2_000_000;

/// What stands under a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    Symlink,
    /// Another name of a file in the archive.
    Link,
    Character,
    Block,
    Fifo,
}

/// One entry of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Without a slash at either end; empty for the root itself.
    pub(crate) path: Vec<u8>,
    /// Whether the archive had it with a slash before it.
    pub(crate) is_absolute: bool,
    pub(crate) kind: Kind,
    /// Where a link leads: of another name the path, as above; of a symlink whatever stands there.
    pub(crate) link: Vec<u8>,
    /// Bytes of the content that follows.
    pub(crate) size: u64,
    /// Owner, mode and times.
    pub(crate) head: tar::Header,
    /// What PAX says besides, such as attributes.
    pub(crate) records: Vec<Record>,
}

/// A key and what it stands for.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// An archive; what is read from it is the content of the entry that [`Entries::next`] gave last.
pub(crate) struct Entries<R> {
    source: R,
    left: u64,
    padding: u64,
    count: u32,
    /// Whether the mark of the end was seen.
    is_whole: bool,
}

/// What long headers before an entry say.
#[derive(Default)]
struct Said {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<Record>,
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0, count: 0, is_whole: false }
    }

    /// The next entry; `None` at the end. What is left of the one before is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let rest = self.left + self.padding;
        self.pass_over(rest).map_err(|error| cut(error, "it ends in the middle of a file"))?;
        (self.left, self.padding) = (0, 0);
        let mut said = Said::default();
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            let length = number(&head.as_old().size, head.entry_size()).context("a length in it is none")?;
            match head.entry_type().as_byte() {
                b'x' => said.records = records(&self.text(length)?)?,
                b'L' => said.path = Some(until_nul(self.text(length)?)),
                b'K' => said.link = Some(until_nul(self.text(length)?)),
                // Of all entries that follow: a comment, as of git archive.
                b'g' => _ = self.text(length)?,
                _ => {
                    let entry = entry(head, length, said)?;
                    self.count += 1;
                    if self.count > MOST_ENTRIES {
                        bail!("it has more than {MOST_ENTRIES} entries, which this command does not take");
                    }
                    (self.left, self.padding) = (entry.size, padding(entry.size));
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Whether the mark of the end was seen.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// What the archive is read from, and what follows it there.
    pub(crate) fn into_source(self) -> R {
        self.source
    }

    /// A header that is what its sum says; `None` at the end.
    fn head(&mut self) -> Result<Option<tar::Header>> {
        let mut head = tar::Header::new_old();
        let block = head.as_mut_bytes();
        let mut read = 0;
        while read < BLOCK {
            match self.source.read(&mut block[read..]).context("read it")? {
                0 if read == 0 => return Ok(None),
                0 => bail!("it ends in the middle of a header"),
                more => read += more,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            self.is_whole = true;
            return Ok(None);
        }
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        if head.cksum().ok() != Some(sum) {
            bail!("it is no tar archive, or is damaged");
        }
        Ok(Some(head))
    }

    /// What a long header says.
    fn text(&mut self, length: u64) -> Result<Vec<u8>> {
        if length > MOST_RECORDS {
            bail!("a name or the attributes of a file in it have more than {MOST_RECORDS} bytes");
        }
        let mut text = Vec::new();
        (&mut self.source).take(length).read_to_end(&mut text).context("read it")?;
        if text.len() as u64 != length {
            bail!("it ends in the middle of a name");
        }
        self.pass_over(padding(length)).map_err(|error| cut(error, "it ends in the middle of a name"))?;
        Ok(text)
    }

    fn pass_over(&mut self, bytes: u64) -> io::Result<()> {
        let passed = io::copy(&mut (&mut self.source).take(bytes), &mut io::sink())?;
        if passed == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.source.read(&mut buffer[..wanted])?;
        if read == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle of a file"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// What an error of reading says of the archive: that it has an end too early, or nothing.
fn cut(error: io::Error, words: &'static str) -> anyhow::Error {
    let words = if error.kind() == io::ErrorKind::UnexpectedEof { words } else { "read it" };
    anyhow::Error::new(error).context(words)
}

/// A field's number; an empty one is nought, as everybody reads it.
pub(super) fn number<T: Default>(field: &[u8], read: io::Result<T>) -> io::Result<T> {
    let is_empty = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if is_empty { Ok(T::default()) } else { read }
}

fn padding(length: u64) -> u64 {
    length.wrapping_neg() % BLOCK as u64
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
    text
}

/// `LENGTH KEY=VALUE` and a line break, one after the other; the length is of all that.
fn records(text: &[u8]) -> Result<Vec<Record>> {
    let mut found = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let record = || -> Option<(Record, &[u8])> {
            let blank = rest.iter().position(|byte| *byte == b' ')?;
            let length: usize = str::from_utf8(&rest[..blank]).ok()?.parse().ok()?;
            let body = rest.get(blank + 1..length)?.strip_suffix(b"\n")?;
            let equals = body.iter().position(|byte| *byte == b'=')?;
            Some(((body[..equals].to_vec(), body[equals + 1..].to_vec()), &rest[length..]))
        };
        let Some((record, after)) = record() else { bail!("attributes of a file in it are none") };
        found.push(record);
        rest = after;
    }
    Ok(found)
}

fn entry(head: tar::Header, length: u64, said: Said) -> Result<Entry> {
    let Said { path, link, mut records } = said;
    let mut taken = |key: &str| {
        let at = records.iter().rposition(|(known, _)| known == key.as_bytes())?;
        let value = records.remove(at).1;
        records.retain(|(known, _)| known != key.as_bytes());
        Some(value)
    };
    let (pax_path, pax_link, pax_size) = (taken("path"), taken("linkpath"), taken("size"));
    let path = pax_path.or(path).unwrap_or_else(|| head.path_bytes().into_owned());
    let link = pax_link.or(link).unwrap_or_else(|| head.link_name_bytes().unwrap_or_default().into_owned());
    let name = || shown(&path);
    if records.iter().any(|(key, _)| key.starts_with(b"GNU.sparse.")) || head.entry_type().is_gnu_sparse() {
        bail!(
            "{} in it is stored without its holes, which this command does not read: write it without --sparse",
            name()
        );
    }
    let kind = match head.entry_type().as_byte() {
        // Before there was a type for folders.
        b'0' | 0 if path.ends_with(b"/") => Kind::Folder,
        b'0' | b'7' | 0 => Kind::File,
        b'1' => Kind::Link,
        b'2' => Kind::Symlink,
        b'3' => Kind::Character,
        b'4' => Kind::Block,
        b'5' => Kind::Folder,
        b'6' => Kind::Fifo,
        other => bail!("{} in it is of the kind {:?}, which this command does not know", name(), char::from(other)),
    };
    let size = match pax_size {
        Some(text) => {
            str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).context("a length in it is none")?
        }
        None => length,
    };
    let normal = normal(&path).with_context(|| format!("{} is a name that leads nowhere in an image", name()))?;
    let link = match kind {
        Kind::Link => self::normal(&link).filter(|link| !link.is_empty()).with_context(|| {
            format!("{} is another name of {}, which leads nowhere in an image", name(), shown(&link))
        })?,
        Kind::Symlink => link,
        _ => Vec::new(),
    };
    Ok(Entry {
        is_absolute: path.starts_with(b"/"),
        path: normal,
        kind,
        link,
        // What else is told of a length has no content: others read it alike.
        size: if kind == Kind::File { size } else { 0 },
        head,
        records,
    })
}

/// A path without detours; `None` if it leads out, or is none.
pub(crate) fn normal(path: &[u8]) -> Option<Vec<u8>> {
    let parts: Vec<_> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    let is_good = path.len() <= LONGEST_PATH && !path.contains(&0) && parts.iter().all(|part| part != b"..");
    is_good.then(|| parts.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Tar, file, folder};
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(String, Kind, Vec<u8>)>> {
        let mut entries = Entries::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = entries.next()? {
            let mut content = Vec::new();
            entries.read_to_end(&mut content)?;
            found.push((shown(&entry.path), entry.kind, content));
        }
        Ok(found)
    }

    #[test]
    fn names_come_without_detours() {
        for (path, found) in [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            ("/a", Some("a")),
            ("./", Some("")),
            ("a/../b", None),
            ("../a", None),
            ("..", None),
            ("a\0b", None),
            ("..a/b..", Some("..a/b..")),
        ] {
            assert_eq!(normal(path.as_bytes()).map(|path| shown(&path)).as_deref(), found, "{path:?}");
        }
        assert_eq!(normal(&[b'a'; 4097]), None);
    }

    #[test]
    fn long_names_and_attributes_are_read_in_both_forms() {
        let long = format!("{}/file", "folder".repeat(40));
        let mut gnu = tar::Builder::new(Vec::new());
        let mut head = tar::Header::new_gnu();
        head.set_size(4);
        head.set_mode(0o644);
        gnu.append_data(&mut head, &long, &b"text"[..]).unwrap();
        let pax = Tar::default().with(file(&long, "text").record("SCHILY.xattr.user.a", "b=c\nd")).bytes();
        for bytes in [gnu.into_inner().unwrap(), pax.clone()] {
            assert_eq!(read(&bytes).unwrap(), [(long.clone(), Kind::File, b"text".to_vec())]);
        }
        let entry = Entries::new(&pax[..]).next().unwrap().unwrap();
        assert_eq!(entry.records, [(b"SCHILY.xattr.user.a".to_vec(), b"b=c\nd".to_vec())]);
    }

    #[test]
    fn what_is_not_read_is_passed_over() {
        let bytes = Tar::default().with(file("a", &"x".repeat(1000))).with(folder("b")).with(file("c", "")).bytes();
        let mut entries = Entries::new(&bytes[..]);
        let mut names = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            names.push(shown(&entry.path));
        }
        assert_eq!((names.join(" "), entries.is_whole()), ("a b c".to_owned(), true));
    }

    #[test]
    fn what_is_no_archive_or_ends_too_early_is_said() {
        let whole = Tar::default().with(file("a", &"x".repeat(1000))).bytes();
        let mut damaged = whole.clone();
        damaged[3] ^= 1;
        let sparse = Tar::default().with(file("a", "x").record("GNU.sparse.major", "1")).bytes();
        let mut unknown = file("a", "x");
        unknown.kind = b'V';
        for (bytes, words) in [
            (&whole[..100], "in the middle of a header"),
            (&whole[..700], "in the middle of a file"),
            (&damaged, "no tar archive, or is damaged"),
            (&[b'x'; 2048], "no tar archive, or is damaged"),
            (&sparse, "stored without its holes"),
            (&Tar::default().with(unknown).bytes(), "is of the kind 'V'"),
            (&Tar::default().with(file("a/../../b", "x")).bytes(), "a/../../b is a name that leads nowhere"),
        ] {
            let error = format!("{:#}", read(bytes).unwrap_err());
            assert!(error.contains(words), "{words}: {error}");
        }
        let mut cut = Entries::new(&whole[..whole.len() - 1024]);
        while cut.next().unwrap().is_some() {}
        assert!(!cut.is_whole(), "the mark of the end is missing");
    }

    #[test]
    fn a_small_archive_does_not_fill_the_memory() {
        let mut head = tar::Header::new_ustar();
        head.set_entry_type(tar::EntryType::XHeader);
        head.set_size(1 << 40);
        head.set_cksum();
        let endless = head.as_bytes().chain(io::repeat(b'1'));
        let error = Entries::new(endless).next().unwrap_err().to_string();
        assert!(error.contains("more than 1048576 bytes"), "{error}");
    }
}
