//! Digests: computed while bytes pass, and compared with what was promised.

use anyhow::{Result, anyhow, bail};
use sha2::{Digest as _, Sha256, Sha512};

/// A digest in the making.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// Of the kind that this digest has.
    pub(crate) fn like(digest: &str) -> Result<Self> {
        match digest.split_once(':') {
            Some(("sha256", _)) => Ok(Self::Sha256(Sha256::new())),
            Some(("sha512", _)) => Ok(Self::Sha512(Sha512::new())),
            _ => bail!("{digest:?} is no digest of a known kind"),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn digest(self) -> String {
        match self {
            Self::Sha256(hash) => hexadecimal("sha256", &hash.finalize()),
            Self::Sha512(hash) => hexadecimal("sha512", &hash.finalize()),
        }
    }
}

/// The usual digest of some bytes.
pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hexadecimal("sha256", &Sha256::digest(bytes))
}

/// Whether a body is what its digest says.
pub(crate) fn compare(body: &[u8], digest: &str) -> Result<()> {
    let mut hasher = Hasher::like(digest)?;
    hasher.update(body);
    same(hasher, digest)
}

/// Whether what has passed is what its digest says.
pub(crate) fn same(hasher: Hasher, digest: &str) -> Result<()> {
    let found = hasher.digest();
    if found == digest {
        return Ok(());
    }
    Err(anyhow!(
        "what the registry sends has the digest {found} instead of {digest}: its storage is damaged, or somebody stands between"
    ))
}

fn hexadecimal(kind: &str, digest: &[u8]) -> String {
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}:{digits}")
}
