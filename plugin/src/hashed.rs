//! Passes on what is read or written, and computes its digest.

use std::io::{self, Read, Write};

use anyhow::Result;

use crate::registry_client::digest::Hasher;

/// What passes through here is counted.
pub(crate) struct Hashed<T> {
    inner: T,
    hasher: Hasher,
    bytes: u64,
}

impl<T> Hashed<T> {
    pub(crate) fn new(inner: T) -> Result<Self> {
        Ok(Self { inner, hasher: Hasher::like("sha256:")?, bytes: 0 })
    }

    /// The digest of what has passed.
    pub(crate) fn digest(&self) -> String {
        self.hasher.clone().digest()
    }

    /// How much has passed.
    pub(crate) fn length(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
