//! Archives as tests want them, good and bad.

use super::write::record;

/// An entry of an archive that a test makes.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) path: String,
    pub(crate) kind: u8,
    pub(crate) link: String,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) time: u64,
    pub(crate) records: Vec<(String, String)>,
}

impl Made {
    fn of(path: &str, kind: u8, link: &str, content: &[u8]) -> Self {
        Self {
            path: path.to_owned(),
            kind,
            link: link.to_owned(),
            content: content.to_vec(),
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            time: 7,
            records: Vec::new(),
        }
    }

    pub(crate) fn record(mut self, key: &str, value: &str) -> Self {
        self.records.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
}

pub(crate) fn file(path: &str, content: &str) -> Made {
    Made::of(path, b'0', "", content.as_bytes())
}

pub(crate) fn folder(path: &str) -> Made {
    Made::of(&format!("{path}/"), b'5', "", b"")
}

pub(crate) fn symlink(path: &str, to: &str) -> Made {
    Made::of(path, b'2', to, b"")
}

pub(crate) fn link(path: &str, to: &str) -> Made {
    Made::of(path, b'1', to, b"")
}

/// An archive.
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn of(entries: impl IntoIterator<Item = Made>) -> Vec<u8> {
        entries.into_iter().fold(Self::default(), Self::with).bytes()
    }

    #[allow(clippy::needless_pass_by_value, reason = "shorter where it is used")]
    pub(crate) fn with(mut self, made: Made) -> Self {
        let mut records = made.records.clone();
        if made.path.len() > 100 {
            records.push(("path".to_owned(), made.path.clone()));
        }
        let records: Vec<u8> =
            records.iter().flat_map(|(key, value)| record(key.as_bytes(), value.as_bytes())).collect();
        if !records.is_empty() {
            self.put(b'x', "pax", "", &records, &made);
        }
        let short = made.path.get(..100).unwrap_or(&made.path).to_owned();
        self.put(made.kind, &short, &made.link, &made.content, &made);
        self
    }

    fn put(&mut self, kind: u8, path: &str, link: &str, content: &[u8], made: &Made) {
        let mut head = tar::Header::new_ustar();
        head.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        head.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        head.set_entry_type(tar::EntryType::new(kind));
        head.set_size(content.len() as u64);
        head.set_mode(made.mode);
        head.set_mtime(made.time);
        head.set_uid(0);
        head.set_gid(0);
        head.set_cksum();
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}
