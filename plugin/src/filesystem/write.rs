//! Writes a tar archive: ustar, with records of PAX where that has no room. Every reader takes it.

use std::io::{self, Read, Write};

use super::entries::{Entry, Kind, Record, number};

/// Bytes of a name in a header.
const LONGEST_NAME: usize = 100;
const BLOCK: u64 = 512;

/// A record of PAX. Its length is its own part.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    // Blank, equals sign and line break.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// An entry under this name, with its content.
pub(super) fn put(out: &mut impl Write, entry: &Entry, name: &[u8], content: &mut impl Read) -> io::Result<()> {
    head(out, entry, entry.kind, name, &entry.link)?;
    let copied = io::copy(&mut content.take(entry.size), out)?;
    if copied != entry.size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    pad(out, copied)
}

/// Another name of a file that was written.
pub(super) fn link(out: &mut impl Write, entry: &Entry, name: &[u8], to: &[u8]) -> io::Result<()> {
    head(out, entry, Kind::Link, name, to)
}

/// What every archive ends with.
pub(super) fn end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK as usize])
}

fn head(out: &mut impl Write, entry: &Entry, kind: Kind, name: &[u8], link: &[u8]) -> io::Result<()> {
    let name = if kind == Kind::Folder { [name, b"/"].concat() } else { name.to_vec() };
    let mut records = entry.records.clone();
    for (key, text) in [(&b"path"[..], &name[..]), (b"linkpath", link)] {
        if text.len() > LONGEST_NAME {
            records.push((key.to_vec(), text.to_vec()));
        }
    }
    pax(out, &records)?;
    let from = &entry.head;
    let mut head = tar::Header::new_ustar();
    head.set_entry_type(tar::EntryType::new(match kind {
        Kind::File => b'0',
        Kind::Link => b'1',
        Kind::Symlink => b'2',
        Kind::Character => b'3',
        Kind::Block => b'4',
        Kind::Folder => b'5',
        Kind::Fifo => b'6',
    }));
    let fields = head.as_old_mut();
    let short = |text: &[u8]| text.len().min(LONGEST_NAME);
    fields.name[..short(&name)].copy_from_slice(&name[..short(&name)]);
    fields.linkname[..short(link)].copy_from_slice(&link[..short(link)]);
    head.set_size(if kind == Kind::File { entry.size } else { 0 });
    let fields = from.as_old();
    head.set_mode(number(&fields.mode, from.mode())?);
    head.set_uid(number(&fields.uid, from.uid())?);
    head.set_gid(number(&fields.gid, from.gid())?);
    head.set_mtime(number(&fields.mtime, from.mtime())?);
    if let (Some(to), Some((user, group))) = (head.as_ustar_mut(), owners(from)) {
        (to.uname, to.gname) = (user, group);
    }
    if matches!(kind, Kind::Character | Kind::Block) {
        head.set_device_major(from.device_major()?.unwrap_or(0))?;
        head.set_device_minor(from.device_minor()?.unwrap_or(0))?;
    }
    head.set_cksum();
    out.write_all(head.as_bytes())
}

/// Names of user and group, which two forms of headers have in one place.
fn owners(head: &tar::Header) -> Option<([u8; 32], [u8; 32])> {
    let ustar = head.as_ustar().map(|head| (head.uname, head.gname));
    ustar.or_else(|| head.as_gnu().map(|head| (head.uname, head.gname)))
}

fn pax(out: &mut impl Write, records: &[Record]) -> io::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let text: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    let mut head = tar::Header::new_ustar();
    head.as_old_mut().name[..3].copy_from_slice(b"pax");
    head.set_entry_type(tar::EntryType::XHeader);
    head.set_size(text.len() as u64);
    head.set_mode(0o644);
    head.set_uid(0);
    head.set_gid(0);
    head.set_mtime(0);
    head.set_cksum();
    out.write_all(head.as_bytes())?;
    out.write_all(&text)?;
    pad(out, text.len() as u64)
}

fn pad(out: &mut impl Write, length: u64) -> io::Result<()> {
    let left = usize::try_from(length.next_multiple_of(BLOCK) - length).unwrap_or(0);
    out.write_all(&[0; BLOCK as usize][..left])
}

#[cfg(test)]
mod tests {
    use super::super::entries::Entries;
    use super::super::testing::{Tar, file, symlink};
    use super::*;

    #[test]
    fn the_length_of_a_record_is_its_own_part() {
        assert_eq!(record(b"path", b"ab"), b"11 path=ab\n");
        for length in 0..2000 {
            let record = record(b"k", &vec![b'v'; length]);
            let said: usize = str::from_utf8(&record).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, record.len(), "{length}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_as_it_was() {
        let long = format!("{}/x", "ä".repeat(120));
        let made = [
            file("a", "text").mode(0o4755).record("SCHILY.xattr.security.capability", "\u{1}\u{2}=\n"),
            file(&long, "more"),
            symlink("c", &"/to".repeat(30)),
        ];
        let bytes = Tar::of(made);
        let mut entries = Entries::new(&bytes[..]);
        let (mut out, mut before) = (Vec::new(), Vec::new());
        while let Some(entry) = entries.next().unwrap() {
            let name = entry.path.clone();
            put(&mut out, &entry, &name, &mut entries).unwrap();
            before.push(entry);
        }
        end(&mut out).unwrap();
        let mut again = Entries::new(&out[..]);
        for entry in before {
            let found = again.next().unwrap().unwrap();
            assert_eq!((found.path, found.link, found.size), (entry.path, entry.link, entry.size));
            assert_eq!((found.records, found.head.mode().unwrap()), (entry.records, entry.head.mode().unwrap()));
            assert_eq!(found.head.mtime().unwrap(), 7);
        }
        assert!(again.next().unwrap().is_none() && again.is_whole());
    }
}
