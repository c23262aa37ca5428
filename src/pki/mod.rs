//! Certificates: when to renew, how to issue, what to accept.
//!
//! Deciding is pure: [`reading`] looks at what is stored, [`policy`] answers keep or renew with one word, [`import`] judges
//! a certificate that a user brings or somebody else signed, [`signing`] when to ask that one for another, [`acceptance`] knows what clients object to, [`bundle`] is the public file of authorities.
//! Only [`issue`] makes something new.
//! Nothing here knows Kubernetes; whoever calls brings the bytes, the clock and the registry's uid.

pub mod acceptance;
pub mod bundle;
mod encrypted_key;
pub mod facts;
pub mod import;
pub mod issue;
pub mod material;
mod pem;
pub mod policy;
pub mod reading;
pub mod request;
pub mod rotate;
pub mod signing;
#[cfg(test)]
mod testing;

pub use bundle::Bundle;
pub use facts::{CertificateFacts, PublicKeyKind, Unreadable};
pub use material::{Authority, AuthorityProfile, KeyAlgorithm, Leaf, LeafProfile, SigningRequest, checksum};

use jiff::{SignedDuration, Timestamp};

/// How far `NotBefore` lies before the moment of issue, so that a client whose clock is slow accepts the certificate.
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// `moment + duration`, held at the ends of time instead of failing: a user may ask for any duration.
fn after(moment: Timestamp, duration: SignedDuration) -> Timestamp {
    let end = if duration.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    moment.checked_add(duration).unwrap_or(end)
}

/// Bytes as hexadecimal digits in upper case, joined by `separator`.
fn hex(bytes: &[u8], separator: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len() * (2 + separator.len()));
    for byte in bytes {
        if !text.is_empty() {
            text.push_str(separator);
        }
        text.extend([byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
    }
    text
}
