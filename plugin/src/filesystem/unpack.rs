//! Layers and archives as they come: in clear, or packed with gzip or zstd, whatever their name or type says.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use anyhow::{Context as _, Result, bail};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;
/// How far back zstd may look, which is kept in memory: as far as `zstd -d` goes unasked.
const MOST_WINDOW: u64 = 128 << 20;

/// The content in clear.
pub(crate) fn unpack(mut source: impl Read + Send + 'static) -> Result<Box<dyn Read + Send>> {
    let mut first = [0; 6];
    let mut read = 0;
    while read < first.len() {
        match source.read(&mut first[read..]).context("read it")? {
            0 => break,
            more => read += more,
        }
    }
    let whole = BufReader::with_capacity(BUFFER, Cursor::new(first).take(read as u64).chain(source));
    match &first[..read] {
        [0x1f, 0x8b, ..] => Ok(Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(whole)))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Box::new(Zstd::new(whole))),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => bail!("it is packed with xz, which this command does not unpack: xz -d"),
        [b'B', b'Z', b'h', ..] => bail!("it is packed with bzip2, which this command does not unpack: bzip2 -d"),
        _ => Ok(Box::new(whole)),
    }
}

/// Frames of zstd, one after the other, and what may stand between them.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    is_within: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MOST_WINDOW);
        Self { source, decoder, is_within: false }
    }

    /// Begins the next frame; `false` if there is none.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if io::copy(&mut (&mut self.source).take(length), &mut io::sink())? != length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_within {
                if !self.begin()? {
                    return Ok(0);
                }
                self.is_within = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, strategy).map_err(io::Error::other)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.is_within = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        unpack(Cursor::new(bytes.to_vec()))?.read_to_end(&mut text)?;
        Ok(text)
    }

    #[test]
    fn whatever_it_is_packed_with_it_is_the_same() {
        let text: Vec<u8> = (0..300_000_u32).map(|at| (at / 100) as u8 ^ (at % 7) as u8).collect();
        let (first, second) = text.split_at(100_000);
        let skipped = [&[0x5d, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
        for bytes in [
            text.clone(),
            gzip(&text),
            // Of several parts, as those are that can be read in pieces.
            [gzip(first), gzip(second)].concat(),
            zstd(&text),
            [zstd(first), zstd(second)].concat(),
            [skipped.clone(), zstd(first), skipped.clone(), zstd(second), skipped].concat(),
        ] {
            assert!(read(&bytes).unwrap() == text);
        }
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"ab").unwrap(), b"ab");
    }

    /// `printf 'text of zstd\n' | zstd --ultra -22 --check`, by the reference implementation: a window of 128 MiB.
    #[test]
    fn what_others_pack_is_read() {
        let bytes = [
            0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x88, 0x69, 0x00, 0x00, 0x74, 0x65, 0x78, 0x74, 0x20, 0x6f, 0x66, 0x20, 0x7a,
            0x73, 0x74, 0x64, 0x0a, 0xc1, 0x63, 0xc5, 0x13,
        ];
        assert_eq!(read(&bytes).unwrap(), b"text of zstd\n");
    }

    #[test]
    fn what_breaks_off_or_cannot_be_unpacked_is_said() {
        let (gzip, zstd) = (gzip(&[7; 5000]), zstd(&[7; 5000]));
        for bytes in [&gzip[..gzip.len() - 3], &zstd[..zstd.len() - 3], &[0x5d, 0x2a, 0x4d, 0x18, 9, 0, 0, 0, 1]] {
            assert!(read(bytes).is_err());
        }
        for (bytes, words) in [(&b"\xfd7zXZ\0"[..], "xz -d"), (b"BZh91", "bzip2 -d")] {
            assert!(read(bytes).unwrap_err().to_string().contains(words));
        }
        // A window of 256 MiB.
        let wide = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 18 << 3, 0, 0, 0];
        assert!(format!("{:#}", read(&wide).unwrap_err()).contains("window"));
    }
}
