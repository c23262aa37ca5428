//! An archive that somebody gives becomes a layer, byte by byte as it is. It is judged while it passes: what runtimes would refuse, or take for a deletion, becomes
//! no image.

use std::io::{self, Read, Write};

use anyhow::{Context as _, Result, bail};

use super::entries::{Entries, Entry, Kind};
use super::overlay::{Meaning, Overlay, meaning};
use super::pack::{Packed, Packer};
use super::{shown, unpack};
use crate::aside::Wanted;

/// Passes on what is read, and writes it as well.
struct Both<R, W> {
    source: R,
    copy: W,
}

impl<R: Read, W: Write> Read for Both<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.copy.write_all(&buffer[..read])?;
        Ok(read)
    }
}

/// The layer that an archive becomes, in clear or packed with gzip or zstd.
pub(crate) fn read_in(source: impl Read + Send + 'static, wanted: &Wanted) -> Result<Packed> {
    let source = unpack(wanted.reading(source))?;
    let mut entries = Entries::new(Both { source, copy: Packer::new()? });
    let mut overlay = Overlay::new();
    while let Some(entry) = entries.next()? {
        judge(&entry)?;
        lay(&mut overlay, 0, &entry, ())?;
    }
    whole(&entries)?;
    let mut both = entries.into_source();
    io::copy(&mut both, &mut io::sink()).context("read it")?;
    both.copy.finish()
}

/// That an archive goes as far as its end.
pub(super) fn whole<R: Read>(entries: &Entries<R>) -> Result<()> {
    if !entries.is_whole() {
        bail!("it has no end: it is no tar archive, or was cut off");
    }
    Ok(())
}

/// What cannot become a file of an image.
pub(super) fn judge(entry: &Entry) -> Result<()> {
    let name = || shown(&entry.path);
    if entry.is_absolute {
        bail!("/{} in it begins with a slash: write it without one, as tar does without -P", name());
    }
    if meaning(&entry.path)? != Meaning::Present {
        bail!("{} in it begins with .wh., which deletes a file in an image: leave it out", name());
    }
    Ok(())
}

/// Lays an entry over what is there. Another name of a file has the item of that file.
pub(super) fn lay<T: Clone>(overlay: &mut Overlay<T>, layer: u32, entry: &Entry, item: T) -> Result<T> {
    let Entry { path, kind, link, .. } = entry;
    // The root is there.
    if path.is_empty() {
        return Ok(item);
    }
    let item = match kind {
        Kind::Link => match overlay.get(link).filter(|_| !overlay.is_folder(link)) {
            Some(target) => target.clone(),
            None => bail!("{} is another name of {}, which is not there", shown(path), shown(link)),
        },
        _ => item,
    };
    overlay.put(layer, path, *kind == Kind::Folder, item.clone())?;
    Ok(item)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::testing::{Tar, file, folder, link, symlink};
    use super::*;
    use crate::registry_client::digest;

    fn read(bytes: &[u8]) -> Result<Packed> {
        read_in(Cursor::new(bytes.to_vec()), &Wanted::default())
    }

    fn clear(packed: &Packed) -> Vec<u8> {
        let mut bytes = Vec::new();
        flate2::read::MultiGzDecoder::new(packed.content.reader()).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn an_archive_is_a_layer_as_it_is_however_it_came() {
        // tar fills up to 10 KiB.
        let bytes =
            [Tar::of([folder("a"), file("a/b", "x"), link("c", "a/b"), symlink("s", "/a")]), vec![0; 5000]].concat();
        let packed = read(&bytes).unwrap();
        assert_eq!((&packed.diff_id, clear(&packed)), (&digest::sha256(&bytes), bytes.clone()));
        let zstd = ruzstd::encoding::compress_to_vec(&bytes[..], ruzstd::encoding::CompressionLevel::Fastest);
        for again in [clear(&packed), zstd] {
            assert_eq!(read(&again).unwrap().blob, packed.blob, "the same input gives the same digest");
        }
    }

    #[test]
    fn what_would_be_no_file_of_an_image_is_refused() {
        let whole = Tar::of([file("a", "x")]);
        for (bytes, words) in [
            (Tar::of([file("/etc/passwd", "x")]), "/etc/passwd in it begins with a slash"),
            (Tar::of([file("../a", "x")]), "../a is a name that leads nowhere in an image"),
            (Tar::of([file("a/.wh.b", "")]), "a/.wh.b in it begins with .wh."),
            (Tar::of([link("a", "b")]), "a is another name of b, which is not there"),
            (Tar::of([symlink("s", "/etc"), file("s/passwd", "x")]), "s/passwd is in s, which is no folder"),
            (whole[..1024].to_vec(), "it has no end"),
            (whole[..700].to_vec(), "in the middle of a file"),
            (Vec::new(), "it has no end"),
            (vec![b'x'; 2000], "it is no tar archive, or is damaged"),
            (b"BZh9".to_vec(), "bzip2 -d"),
        ] {
            let error = format!("{:#}", read(&bytes).unwrap_err());
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
