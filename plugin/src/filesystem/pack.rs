//! A layer on its way into an image: written in clear, packed as `docker push` packs it, in a file that nobody else sees. Both digests are computed meanwhile.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::archive::Content;
use crate::hashed::Hashed;
use crate::registry_client::blobs::Blob;

/// A layer that can be sent.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) blob: Blob,
    /// The digest of what was written.
    pub(crate) diff_id: String,
    pub(crate) content: Content,
}

/// What is written here becomes a layer.
pub(crate) struct Packer(Hashed<GzEncoder<Hashed<BufWriter<File>>>>);

impl Packer {
    pub(crate) fn new() -> Result<Self> {
        let file = tempfile::tempfile().with_context(what)?;
        let outside = Hashed::new(BufWriter::with_capacity(256 << 10, file))?;
        // Without a time and a name, so that it is alike each time.
        Ok(Self(Hashed::new(GzEncoder::new(outside, Compression::default()))?))
    }

    /// All is written.
    pub(crate) fn finish(self) -> Result<Packed> {
        let diff_id = self.0.digest();
        let outside = self.0.into_inner().finish().with_context(what)?;
        let blob = Blob { digest: outside.digest(), size: outside.length(), is_foreign: false };
        let file = outside.into_inner().into_inner().map_err(io::IntoInnerError::into_error).with_context(what)?;
        Ok(Packed { blob, diff_id, content: Content::whole(file).with_context(what)? })
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| named(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|error| named(&error))
    }
}

/// An error that says where: whoever writes here may believe that what it reads is at fault.
fn named(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", what()))
}

fn what() -> String {
    format!("pack a layer into {} ($TMPDIR)", std::env::temp_dir().display())
}
