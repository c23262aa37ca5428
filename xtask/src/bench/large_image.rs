//! An image of 5 GiB, made on the fly and alike each time: a layer with one file of 2 GiB, one with files of 128 MiB, one with 100,000 small ones. Its bytes
//! do not become less by packing.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MEBIBYTE: u64 = 1 << 20;
const SMALL_FILES: u64 = 100_000;
/// Files of a larger number, which are what counts where paths are kept in memory.
pub(super) const MANY_FILES: u64 = 300_000;
/// Bytes of each: together with headers they are 1 GiB.
const SMALL: u64 = 10 << 10;

/// Files of one size below a folder.
struct Files {
    folder: &'static str,
    count: u64,
    size: u64,
}

const LAYERS: [Files; 3] = [
    Files { folder: "srv/one", count: 1, size: 2048 * MEBIBYTE },
    Files { folder: "srv/many", count: 16, size: 128 * MEBIBYTE },
    Files { folder: "usr/share/a-folder-with-a-name", count: SMALL_FILES, size: SMALL },
];

/// Writes it as an OCI layout, with its layers in clear.
pub(super) fn layout(folder: &Path) -> Result<()> {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("make {}", blobs.display()))?;
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for files in &LAYERS {
        let unnamed = blobs.join("unfinished");
        let file = File::create(&unnamed).with_context(|| format!("make {}", unnamed.display()))?;
        let mut out = Hashed { out: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new(), size: 0 };
        archive(&mut out, std::slice::from_ref(files))?;
        out.out.flush().context("write a layer")?;
        let hexadecimal = hexadecimal(&out.hash.finalize());
        fs::rename(&unnamed, blobs.join(&hexadecimal)).context("name a layer")?;
        layers.push(described("application/vnd.oci.image.layer.v1.tar", &hexadecimal, out.size));
        diff_ids.push(format!("sha256:{hexadecimal}"));
    }
    let blob = |kind: &str, content: Value| -> Result<Value> {
        let text = content.to_string();
        let hexadecimal = hexadecimal(&Sha256::digest(&text));
        fs::write(blobs.join(&hexadecimal), &text).context("write a blob")?;
        Ok(described(kind, &hexadecimal, text.len() as u64))
    };
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let config = json!({"os": "linux", "architecture": architecture(), "rootfs": rootfs});
    let config = blob("application/vnd.oci.image.config.v1+json", config)?;
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = blob(kind, json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}))?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(folder.join("index.json"), index.to_string()).context("write index.json")?;
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).context("write oci-layout")
}

/// Writes its files as one archive.
pub(super) fn all_files(out: &mut dyn Write) -> Result<()> {
    archive(&mut BufWriter::with_capacity(1 << 20, out), &LAYERS)
}

/// Writes as many small files, which are none of its own, as one archive.
pub(super) fn small_files(out: &mut dyn Write) -> Result<()> {
    let more = Files { folder: "opt/more", count: SMALL_FILES, size: SMALL };
    archive(&mut BufWriter::with_capacity(1 << 20, out), &[more])
}

/// Writes very many files with next to nothing in them as one archive.
pub(super) fn many_files(out: &mut dyn Write) -> Result<()> {
    let many = Files { folder: "usr/share/a-folder-with-a-name", count: MANY_FILES, size: 100 };
    archive(&mut BufWriter::with_capacity(1 << 20, out), &[many])
}

fn described(kind: &str, hexadecimal: &str, size: u64) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{hexadecimal}"), "size": size})
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn archive(out: &mut impl Write, all: &[Files]) -> Result<()> {
    let noise = noise();
    let mut archive = tar::Builder::new(out);
    for files in all {
        for number in 0..files.count {
            let mut header = tar::Header::new_ustar();
            header.set_size(files.size);
            header.set_mode(0o644);
            let path = format!("{}/of-files-{}/{number:08}", files.folder, number / 100);
            let content = Repeated { noise: &noise, at: usize::try_from(number * 7919)? % noise.len() };
            archive.append_data(&mut header, path, content.take(files.size)).context("write an archive")?;
        }
    }
    archive.into_inner().and_then(Write::flush).context("write an archive")
}

/// A mebibyte that packers make nothing of: it comes again further away than they look.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take(1 << 17).flatten().collect()
}

struct Repeated<'a> {
    noise: &'a [u8],
    at: usize,
}

impl Read for Repeated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&self.noise[self.at..]).read(buffer)?;
        self.at = (self.at + read) % self.noise.len();
        Ok(read)
    }
}

struct Hashed<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_an_archive_of_these_files() {
        let files = Files { folder: "a", count: 3, size: 3 * MEBIBYTE };
        let mut bytes = Vec::new();
        archive(&mut bytes, &[files]).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let sizes: Vec<_> = archive.entries().unwrap().map(|entry| entry.unwrap().size()).collect();
        assert_eq!(sizes, [3 * MEBIBYTE; 3]);
        let total: u64 = LAYERS.iter().map(|files| files.count * files.size.next_multiple_of(512)).sum();
        assert!((5 << 30..6_u64 << 30).contains(&(total + SMALL_FILES * 512)), "{total}");
    }
}
