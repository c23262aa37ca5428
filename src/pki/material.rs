//! What is issued and stored: a serving certificate, an authority, and the profiles that describe them.
//! Holds values only; whether they are any good is the business of `reading` and `import`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::SignedDuration;
use sha2::{Digest, Sha256};

use crate::secret::Sensitive;

/// A serving certificate as it lies in a `kubernetes.io/tls` Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// `tls.crt`: the serving certificate first, then intermediates if there are any; never the authority of our own.
    pub chain_pem: String,
    /// `tls.key`: PKCS #8, PKCS #1 or SEC 1.
    pub key_pem: Sensitive<String>,
}

impl Leaf {
    /// From a Secret's `tls.crt` and `tls.key`. `None` if it has neither; half a pair, or bytes that are no text, becomes
    /// a leaf that reads as `Unreadable`.
    pub fn stored(chain: Option<&[u8]>, key: Option<&[u8]>) -> Option<Self> {
        let (chain_pem, key_pem) = pair(chain, key)?;
        Some(Self { chain_pem, key_pem })
    }
}

/// What somebody else is asked to sign, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    /// `tls.csr`: PKCS #10 (RFC 2986), PEM.
    pub request_pem: String,
    /// Its key, PKCS #8.
    pub key_pem: Sensitive<String>,
}

impl SigningRequest {
    /// From a Secret's `tls.csr` and `tls.key`, under the same rules as [`Leaf::stored`].
    pub fn stored(request: Option<&[u8]>, key: Option<&[u8]>) -> Option<Self> {
        let (request_pem, key_pem) = pair(request, key)?;
        Some(Self { request_pem, key_pem })
    }
}

/// A certificate authority with its key. Lies in a Secret of its own that no pod mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// One certificate, signed by itself.
    pub certificate_pem: String,
    /// Its key, PKCS #8.
    pub key_pem: Sensitive<String>,
}

impl Authority {
    /// From a Secret's `tls.crt` and `tls.key`, under the same rules as [`Leaf::stored`].
    pub fn stored(certificate: Option<&[u8]>, key: Option<&[u8]>) -> Option<Self> {
        let (certificate_pem, key_pem) = pair(certificate, key)?;
        Some(Self { certificate_pem, key_pem })
    }
}

fn pair(certificate: Option<&[u8]>, key: Option<&[u8]>) -> Option<(String, Sensitive<String>)> {
    let text =
        |bytes: Option<&[u8]>| bytes.and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default().to_string();
    (certificate.is_some() || key.is_some()).then(|| (text(certificate), text(key).into()))
}

/// What a serving certificate must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafProfile {
    /// For people to read; clients look only at the names below. 1 to 64 bytes (RFC 5280, `ub-common-name`).
    pub common_name: String,
    /// DNS names in lower case, wildcards allowed.
    pub dns_names: BTreeSet<String>,
    /// Addresses; they become IP entries, which is what clients compare an address with.
    pub ip_addresses: BTreeSet<IpAddr>,
    /// Life from the moment of issue.
    pub duration: SignedDuration,
    /// Kind of key.
    pub key_algorithm: KeyAlgorithm,
}

impl LeafProfile {
    /// Life of a leaf unless the manifest says otherwise: a year of 365 days.
    pub const DEFAULT_DURATION: SignedDuration = SignedDuration::from_hours(24 * 365);
}

/// What an authority must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityProfile {
    /// Name of the authority, 1 to 64 bytes.
    pub common_name: String,
    /// Life from the moment of issue.
    pub duration: SignedDuration,
    /// Kind of key.
    pub key_algorithm: KeyAlgorithm,
}

impl AuthorityProfile {
    /// Life of an authority unless the manifest says otherwise: ten years of 365 days.
    pub const DEFAULT_DURATION: SignedDuration = SignedDuration::from_hours(24 * 365 * 10);
}

/// Kinds of key that the operator makes.
///
/// No RSA: *ring*, the only crypto provider here, signs and verifies with RSA but can't generate its keys
/// (<https://github.com/briansmith/ring/issues/219>). A user's own RSA certificate is accepted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display, strum::EnumString)]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256 with SHA-256: every client knows it.
    #[default]
    EcdsaP256,
    /// ECDSA on NIST P-384 with SHA-384.
    EcdsaP384,
    /// Ed25519 (RFC 8410). Not known to every client: Docker and containerd are fine, old libraries are not.
    Ed25519,
}

/// A name for exactly this leaf: SHA-256 over chain and key, in hexadecimal. Put on a pod template, it rolls the pods when
/// the leaf changes. Reveals neither.
pub fn checksum(leaf: &Leaf) -> String {
    let mut hash = Sha256::new();
    for part in [leaf.chain_pem.as_bytes(), leaf.key_pem.expose().as_bytes()] {
        // The length keeps ("ab", "c") apart from ("a", "bc").
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    super::hex(&hash.finalize(), "").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(chain: &str, key: &str) -> Leaf {
        Leaf { chain_pem: chain.into(), key_pem: key.to_string().into() }
    }

    #[test]
    fn the_checksum_differs_with_every_part_and_with_the_border_between_them() {
        let texts = [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc"), ("ab", "d")];
        let sums: BTreeSet<_> = texts.iter().map(|(chain, key)| checksum(&leaf(chain, key))).collect();

        assert_eq!(sums.len(), texts.len());
    }

    #[test]
    fn the_checksum_of_a_leaf_never_changes_between_versions() {
        // Computed apart: printf '\0\0\0\0\0\0\0\005chain\0\0\0\0\0\0\0\003key' | sha256sum
        assert_eq!(checksum(&leaf("chain", "key")), "88b6859095cc95ae9145e5d80451a156dd4df187c21d13bc8d956d4aed4679aa");
    }

    #[test]
    fn half_a_pair_is_there_but_nothing_at_all_is_missing() {
        assert_eq!(Leaf::stored(None, None), None);
        assert_eq!(Leaf::stored(Some(b"chain"), None), Some(leaf("chain", "")));
        assert_eq!(Leaf::stored(None, Some(b"key")), Some(leaf("", "key")));
        assert_eq!(Leaf::stored(Some(b"\xff"), Some(b"key")), Some(leaf("", "key")));
    }

    #[test]
    fn debug_shows_the_certificate_but_never_the_key() {
        let text = format!("{:?}", leaf("chain", "planted-key"));
        assert!(text.contains("chain") && !text.contains("planted-key"), "{text}");
    }
}
