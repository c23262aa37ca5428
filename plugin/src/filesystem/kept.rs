//! Entries of an archive, kept with their contents in a file that nobody else sees: only where each one is stays in memory.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::sync::Arc;

use anyhow::{Context as _, Result};

use super::entries::{Entry, Kind};
use crate::archive::Content;

const BUFFER: usize = 256 << 10;
/// Bytes of a header.
const HEAD: usize = 512;
/// In the order of their numbers in the file.
const KINDS: [Kind; 7] =
    [Kind::File, Kind::Folder, Kind::Symlink, Kind::Link, Kind::Character, Kind::Block, Kind::Fifo];

/// Takes entries.
pub(super) struct Keeper {
    out: BufWriter<File>,
    at: u64,
}

/// Gives them back.
pub(super) struct Kept(Arc<File>);

impl Keeper {
    pub(super) fn new() -> Result<Self> {
        let file = tempfile::tempfile().with_context(what)?;
        Ok(Self { out: BufWriter::with_capacity(BUFFER, file), at: 0 })
    }

    /// Keeps an entry with its content. Where it is.
    pub(super) fn keep(&mut self, entry: &Entry, content: &mut impl Read) -> Result<u64> {
        let at = self.at;
        let number = KINDS.iter().position(|kind| *kind == entry.kind).unwrap_or(0);
        let mut head = entry.head.as_bytes().to_vec();
        head.push(u8::try_from(number)?);
        head.extend_from_slice(&entry.size.to_le_bytes());
        text(&mut head, &entry.link)?;
        head.extend_from_slice(&u32::try_from(entry.records.len())?.to_le_bytes());
        for (key, value) in &entry.records {
            text(&mut head, key)?;
            text(&mut head, value)?;
        }
        self.out.write_all(&head).with_context(what)?;
        let mut buffer = vec![0; BUFFER.min(usize::try_from(entry.size).unwrap_or(BUFFER))];
        let mut left = entry.size;
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = content.read(&mut buffer[..wanted]).context("read it")?;
            self.out.write_all(&buffer[..read]).with_context(what)?;
            left -= read as u64;
        }
        self.at += head.len() as u64 + entry.size;
        Ok(at)
    }

    /// All are kept.
    pub(super) fn kept(self) -> Result<Kept> {
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error).with_context(what)?;
        Ok(Kept(Arc::new(file)))
    }
}

impl Kept {
    /// The entry that is there, under a name, and its content.
    pub(super) fn entry(&self, at: u64, path: &[u8]) -> io::Result<(Entry, Content)> {
        let rest = Content { file: Arc::clone(&self.0), at, size: u64::MAX - at };
        let mut from = BufReader::with_capacity(4 << 10, rest.reader());
        let mut head = tar::Header::new_old();
        from.read_exact(head.as_mut_bytes())?;
        let mut fixed = [0; 9];
        from.read_exact(&mut fixed)?;
        let [number, size @ ..] = fixed;
        let (size, link) = (u64::from_le_bytes(size), back(&mut from)?);
        let mut records = Vec::new();
        for _ in 0..length(&mut from)? {
            records.push((back(&mut from)?, back(&mut from)?));
        }
        let own = HEAD + fixed.len() + 4 + link.len() + 4;
        let of_records: usize = records.iter().map(|(key, value)| 8 + key.len() + value.len()).sum();
        let content = Content { file: Arc::clone(&self.0), at: at + (own + of_records) as u64, size };
        let kind = KINDS.get(usize::from(number)).copied().ok_or(io::ErrorKind::InvalidData)?;
        Ok((Entry { path: path.to_vec(), is_absolute: false, kind, link, size, head, records }, content))
    }
}

fn text(into: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    into.extend_from_slice(&u32::try_from(text.len())?.to_le_bytes());
    into.extend_from_slice(text);
    Ok(())
}

fn length(from: &mut impl Read) -> io::Result<usize> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    Ok(u32::from_le_bytes(length) as usize)
}

fn back(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut text = vec![0; length(from)?];
    from.read_exact(&mut text)?;
    Ok(text)
}

fn what() -> String {
    format!("keep it in a file in {} ($TMPDIR)", std::env::temp_dir().display())
}

#[cfg(test)]
mod tests {
    use super::super::entries::Entries;
    use super::super::testing::{Tar, file, folder, symlink};
    use super::*;

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let long = "x".repeat(300_000);
        let made = [
            folder("a"),
            file("a/long", &long).mode(0o4755).record("SCHILY.xattr.user.a", "b"),
            symlink("s", "a/long"),
            file("empty", ""),
        ];
        let bytes = Tar::of(made);
        let (mut entries, mut keeper) = (Entries::new(&bytes[..]), Keeper::new().unwrap());
        let mut places = Vec::new();
        while let Some(entry) = entries.next().unwrap() {
            let at = keeper.keep(&entry, &mut entries).unwrap();
            places.push((at, entry));
        }
        let kept = keeper.kept().unwrap();
        for (at, entry) in places.iter().rev() {
            let (back, content) = kept.entry(*at, &entry.path).unwrap();
            assert_eq!((&back.path, back.kind, &back.link), (&entry.path, entry.kind, &entry.link));
            assert_eq!((back.head.as_bytes(), &back.records), (entry.head.as_bytes(), &entry.records));
            let mut text = String::new();
            content.reader().read_to_string(&mut text).unwrap();
            assert_eq!(text, if entry.path == b"a/long" { &long[..] } else { "" });
        }
    }
}
