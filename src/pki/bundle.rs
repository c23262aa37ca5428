//! The public file of authorities that clients must trust now: the present one, and earlier ones that are still valid.
//! Only ever certificates: whatever else a text holds, such as a key, is left behind.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::facts::{self, CertificateFacts};
use super::pem;

/// Certificates in a stable order, each once.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bundle(Vec<CertificateDer<'static>>);

impl Bundle {
    /// Reads every certificate of a text, in order. A text without one, or a broken one, is an empty bundle: what can't be
    /// read must not stop a new authority from being published.
    ///
    /// Read it from the registry's TLS Secret, not from the public ConfigMap: more people may write that, and what is read
    /// here is published again.
    pub fn read(text: &str) -> Self {
        let mut bundle = Self::default();
        for certificate in pem::certificates(text.as_bytes()).unwrap_or_default() {
            if facts::parse(&certificate).is_ok() && !bundle.0.contains(&certificate) {
                bundle.0.push(certificate);
            }
        }
        bundle
    }

    /// The text, empty for an empty bundle.
    pub fn render(&self) -> String {
        pem::render(&self.0)
    }

    /// With the certificates of `text` in it: new ones in front, known ones where they are.
    pub fn with(self, text: &str) -> Self {
        let mut bundle = Self::read(text);
        bundle.0.retain(|certificate| !self.0.contains(certificate));
        bundle.0.extend(self.0);
        bundle
    }

    /// Without those whose time is over.
    pub fn without_expired(mut self, now: Timestamp) -> Self {
        self.0.retain(|certificate| {
            facts::parse(certificate).is_ok_and(|parsed| now < CertificateFacts::of(&parsed).not_after)
        });
        self
    }

    /// What each certificate says, in order.
    pub fn facts(&self) -> Vec<CertificateFacts> {
        let parsed = self.0.iter().filter_map(|certificate| facts::parse(certificate).ok());
        parsed.map(|certificate| CertificateFacts::of(&certificate)).collect()
    }
}
