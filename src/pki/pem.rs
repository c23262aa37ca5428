//! PEM text (RFC 7468) in and out. Reads what OpenSSL, cert-manager and people write; an error never repeats the text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

/// Characters of base64 in a line.
const LINE: usize = 64;

/// Every certificate in `text`, in order; other sections and words between them are skipped.
///
/// `None` if a section is broken or there is no certificate at all.
pub(super) fn certificates(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().ok()?;
    (!found.is_empty()).then_some(found)
}

/// Certificates rendered as the text that [`certificates`] reads back.
pub(super) fn render<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    certificates.into_iter().map(|certificate| section("CERTIFICATE", certificate)).collect()
}

/// One section.
pub(super) fn section(label: &str, der: &[u8]) -> String {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text + &format!("-----END {label}-----\n")
}

/// Why a text gives no private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// There is no section with a private key, or it is broken.
    Unreadable,
    /// There is one, but it can be opened only with a passphrase.
    Encrypted,
}

/// The first private key in `text`: PKCS #8 (`PRIVATE KEY`), PKCS #1 (`RSA PRIVATE KEY`) or SEC 1 (`EC PRIVATE KEY`).
pub(super) fn private_key(text: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, NoKey> {
    // OpenSSL's own format announces encryption in a header inside the section (RFC 1421), PKCS #8 in the section's label.
    let says = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    if says(b"BEGIN ENCRYPTED PRIVATE KEY") || says(b"Proc-Type: 4,ENCRYPTED") {
        return Err(NoKey::Encrypted);
    }
    PrivateKeyDer::from_pem_slice(text).map(Zeroizing::new).map_err(|_| NoKey::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_rendered_is_read_back(ders in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..4)) {
            let certificates_in: Vec<_> = ders.into_iter().map(CertificateDer::from).collect();
            let text = render(&certificates_in);

            prop_assert!(text.lines().all(|line| line.len() <= LINE));
            prop_assert_eq!(certificates(text.as_bytes()), Some(certificates_in));
        }

        #[test]
        fn no_input_makes_the_reader_panic(text in any::<Vec<u8>>(), words in ".{0,200}") {
            let _ = certificates(&text);
            let _ = private_key(words.as_bytes());
        }
    }
}
