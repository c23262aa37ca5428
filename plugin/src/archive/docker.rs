//! Layers as `docker save` wrote them for years: in clear, known by the digest of their content. They are packed as `docker push` packs them, and the digest is
//! compared on the way.

use std::io::{self, BufReader, Read};

use anyhow::{Context as _, Result, bail};
use flate2::read::MultiGzDecoder;

use super::Content;
use crate::filesystem::{Packed, Packer};
use crate::hashed::Hashed;
use crate::registry_client::blobs::Blob;

/// Packs a layer, unless it is packed, if its content has this digest.
pub(crate) fn pack(layer: &Content, name: &str, diff_id: &str) -> Result<Packed> {
    let mut first = [0; 6];
    let read = layer.reader().read(&mut first).with_context(|| format!("read {name}"))?;
    match &first[..read] {
        [0x1f, 0x8b, ..] => packed(layer, name, diff_id),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            bail!("{name} is packed with zstd, of which the content cannot be compared with its digest")
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0] | [b'B', b'Z', b'h', ..] => {
            bail!("{name} is packed in a way that registries do not take")
        }
        _ => in_clear(layer, name, diff_id),
    }
}

fn packed(layer: &Content, name: &str, diff_id: &str) -> Result<Packed> {
    let what = || format!("unpack {name}");
    let mut outside = Hashed::new(layer.reader())?;
    let mut inside = Hashed::new(io::sink())?;
    io::copy(&mut MultiGzDecoder::new(BufReader::new(&mut outside)), &mut inside).with_context(what)?;
    io::copy(&mut outside, &mut io::sink()).with_context(what)?;
    same(&inside.digest(), name, diff_id)?;
    let blob = Blob { digest: outside.digest(), size: outside.length(), is_foreign: false };
    Ok(Packed { blob, diff_id: diff_id.to_owned(), content: layer.clone() })
}

fn in_clear(layer: &Content, name: &str, diff_id: &str) -> Result<Packed> {
    let what = || format!("pack {name}");
    let mut packer = Packer::new().with_context(what)?;
    io::copy(&mut BufReader::with_capacity(256 << 10, layer.reader()), &mut packer).with_context(what)?;
    let packed = packer.finish().with_context(what)?;
    same(&packed.diff_id, name, diff_id)?;
    Ok(packed)
}

fn same(found: &str, name: &str, diff_id: &str) -> Result<()> {
    if found != diff_id {
        bail!(
            "the content of {name} has the digest {found} instead of {diff_id}: it is damaged, or somebody changed it"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::registry_client::digest::sha256;

    fn content(bytes: &[u8]) -> Content {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Content::whole(file).unwrap()
    }

    fn bytes(content: &Content) -> Vec<u8> {
        let mut bytes = Vec::new();
        content.reader().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_layer_is_packed_once_and_alike_each_time() {
        let clear = b"content ".repeat(10_000);
        let id = sha256(&clear);
        let first = pack(&content(&clear), "layer.tar", &id).unwrap();
        let written = bytes(&first.content);
        assert_eq!((&first.blob.digest, first.blob.size), (&sha256(&written), written.len() as u64));
        assert!(written.len() < clear.len() / 10);
        let mut back = Vec::new();
        MultiGzDecoder::new(&written[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, clear);
        assert_eq!(pack(&content(&clear), "layer.tar", &id).unwrap().blob, first.blob);
        let again = pack(&content(&written), "layer.tar", &id).unwrap();
        assert_eq!((again.blob, bytes(&again.content)), (first.blob, written));
    }

    #[test]
    fn what_is_not_what_its_digest_says_or_cannot_be_unpacked_is_refused() {
        let id = sha256(b"content");
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(b"content").unwrap();
        let packed = packer.finish().unwrap();
        let other = [&packed[..packed.len() - 4], &[9, 9, 9, 9]].concat();
        for (bytes, words) in [
            (&b"contend"[..], "somebody changed it"),
            (&[][..], "somebody changed it"),
            (&packed[..packed.len() - 5], "unpack layer.tar"),
            (&other, "unpack layer.tar"),
            (&[0x28, 0xb5, 0x2f, 0xfd, 0, 0], "zstd"),
            (b"BZh9", "do not take"),
        ] {
            let error = format!("{:#}", pack(&content(bytes), "layer.tar", &id).err().unwrap());
            assert!(error.contains(words), "{words}: {error}");
        }
    }
}
