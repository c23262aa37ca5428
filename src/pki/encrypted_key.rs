//! Opens private keys that are encrypted with a passphrase: PKCS #8 (`ENCRYPTED PRIVATE KEY`, RFC 8018) and OpenSSL's older form, whose header says
//! `Proc-Type: 4,ENCRYPTED` (RFC 1421), as `openssl genrsa -des3` and `ssh-keygen -m PEM` write it.
//! No error repeats a byte of key or passphrase.

use aes::{Aes128, Aes192, Aes256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use des::TdesEde3;
use md5::{Digest, Md5};
use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use zeroize::Zeroizing;

/// Why a key stays closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Closed {
    /// It is another key's passphrase.
    WrongPassphrase,
    /// It is encrypted in a way that is not read here, or that would take too long to open.
    Unsupported(&'static str),
    /// It is broken.
    Unreadable,
}

/// More rounds take more than a second, in which nothing else is done. OpenSSL makes 2,048 unless it is told otherwise.
const ROUNDS_AT_MOST: u32 = 2_000_000;

/// More memory could end the operator. OpenSSL's scrypt takes 16 MiB.
const MEMORY_AT_MOST: u64 = 32 << 20;

/// The first encrypted private key in `text`.
pub(super) fn open(text: &[u8], passphrase: &[u8]) -> Result<Zeroizing<PrivateKeyDer<'static>>, Closed> {
    let text = str::from_utf8(text).map_err(|_| Closed::Unreadable)?;
    match section(text, "ENCRYPTED PRIVATE KEY") {
        Some(body) => pkcs8(&decode(body)?, passphrase),
        None => ["RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"]
            .into_iter()
            .find_map(|label| section(text, label).map(|body| legacy(label, body, passphrase)))
            .unwrap_or(Err(Closed::Unreadable)),
    }
    .map(Zeroizing::new)
    // Rubbish that ends in what looks like padding is no key.
    .and_then(|key| if is_sequence(key.secret_der()) { Ok(key) } else { Err(Closed::WrongPassphrase) })
}

/// Every form of key is one SEQUENCE of DER, as long as its length says.
fn is_sequence(der: &[u8]) -> bool {
    let length = match der {
        [0x30, short @ ..=0x7f, ..] => 2 + usize::from(*short),
        [0x30, 0x81, length, ..] => 3 + usize::from(*length),
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => return false,
    };
    length == der.len()
}

fn section<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    rest.split_once(&format!("-----END {label}-----")).map(|(body, _)| body)
}

fn decode(body: &str) -> Result<Vec<u8>, Closed> {
    let digits: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(digits).map_err(|_| Closed::Unreadable)
}

fn pkcs8(der: &[u8], passphrase: &[u8]) -> Result<PrivateKeyDer<'static>, Closed> {
    const OLD: Closed = Closed::Unsupported("PKCS #5 version 1 or PKCS #12, with MD5 or SHA-1");
    // Schemes that are not known cannot even be read.
    let info = EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|_| if is_sequence(der) { OLD } else { Closed::Unreadable })?;
    match &info.encryption_algorithm {
        EncryptionScheme::Pbes2(parameters) => match &parameters.kdf {
            Kdf::Pbkdf2(pbkdf2) if pbkdf2.iteration_count > ROUNDS_AT_MOST => {
                return Err(Closed::Unsupported("it takes more than 2,000,000 rounds to open"));
            }
            Kdf::Scrypt(scrypt)
                if u64::from(scrypt.block_size).saturating_mul(scrypt.cost_parameter).saturating_mul(128)
                    > MEMORY_AT_MOST
                    || scrypt.parallelization > 16 =>
            {
                return Err(Closed::Unsupported("it takes more than 32 MiB of memory, or too long, to open"));
            }
            _ => {}
        },
        _ => return Err(OLD),
    }
    let opened = info.decrypt(passphrase).map_err(|_| Closed::WrongPassphrase)?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(opened.as_bytes().to_vec())))
}

/// `DEK-Info: AES-256-CBC,0123…`: the cipher, and in hexadecimal digits its start value, the first half of which salts the passphrase.
fn legacy(label: &str, body: &str, passphrase: &[u8]) -> Result<PrivateKeyDer<'static>, Closed> {
    let (headers, content) =
        body.split_once("\n\n").or_else(|| body.split_once("\r\n\r\n")).ok_or(Closed::Unreadable)?;
    let dek = headers.lines().find_map(|line| line.trim().strip_prefix("DEK-Info:")).ok_or(Closed::Unreadable)?;
    let (cipher, start) = dek.trim().split_once(',').ok_or(Closed::Unreadable)?;
    let start = bytes(start.trim()).ok_or(Closed::Unreadable)?;
    let mut content = Zeroizing::new(decode(content)?);
    let open = match cipher {
        "DES-EDE3-CBC" => cbc_open::<TdesEde3, 24>,
        "AES-128-CBC" => cbc_open::<Aes128, 16>,
        "AES-192-CBC" => cbc_open::<Aes192, 24>,
        "AES-256-CBC" => cbc_open::<Aes256, 32>,
        _ => return Err(Closed::Unsupported("a cipher other than AES and triple DES")),
    };
    let length = open(&mut content, passphrase, &start)?;
    let der = content.get(..length).unwrap_or_default().to_vec();
    Ok(match label {
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        _ => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
    })
}

/// Decrypts in place; how many bytes are left without padding.
fn cbc_open<C, const KEY: usize>(content: &mut [u8], passphrase: &[u8], start: &[u8]) -> Result<usize, Closed>
where
    Decryptor<C>: KeyIvInit + BlockModeDecrypt,
    C: cbc::cipher::BlockCipherDecrypt,
{
    let salt = start.get(..8).ok_or(Closed::Unreadable)?;
    let key = stretched::<KEY>(passphrase, salt);
    let cipher = Decryptor::<C>::new_from_slices(&*key, start).map_err(|_| Closed::Unreadable)?;
    let opened = cipher.decrypt_padded::<Pkcs7>(content).map_err(|_| Closed::WrongPassphrase)?;
    Ok(opened.len())
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round.
fn stretched<const KEY: usize>(passphrase: &[u8], salt: &[u8]) -> Zeroizing<[u8; KEY]> {
    let mut key = Zeroizing::new([0; KEY]);
    let mut block = Zeroizing::new(Vec::new());
    for part in key.chunks_mut(16) {
        let digest = Md5::new().chain_update(&*block).chain_update(passphrase).chain_update(salt).finalize();
        *block = digest.to_vec();
        part.copy_from_slice(&block[..part.len()]);
    }
    key
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).ok().filter(|pair| pair.len() == 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::pem;

    const RIGHT: &[u8] = b"passphrase";

    fn encrypted(name: &str) -> Vec<u8> {
        std::fs::read(format!("{}/src/pki/testdata/encrypted/{name}.key", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    /// What the key would sign with, in whichever form it is.
    fn public(key: &PrivateKeyDer<'_>) -> Vec<u8> {
        let signing = rustls::crypto::ring::sign::any_supported_type(key).unwrap();
        signing.public_key().unwrap().as_ref().to_vec()
    }

    #[test]
    fn what_openssl_encrypts_is_opened_with_its_passphrase_and_with_no_other() {
        let rsa = public(&pem::private_key(include_bytes!("testdata/rsa.key")).unwrap());
        let p256 = public(&pem::private_key(include_bytes!("testdata/p256.key")).unwrap());
        for (name, plain) in [
            ("pkcs8-aes256", &rsa),
            ("pkcs8-scrypt", &p256),
            ("pkcs8-des3", &p256),
            ("rsa-aes128", &rsa),
            ("rsa-aes192", &rsa),
            ("rsa-aes256", &rsa),
            ("rsa-des3", &rsa),
            ("ec-aes256", &p256),
        ] {
            let text = encrypted(name);
            assert_eq!(public(&open(&text, RIGHT).unwrap()), *plain, "{name}");
            let crlf = String::from_utf8(text.clone()).unwrap().replace('\n', "\r\n");
            assert_eq!(public(&open(crlf.as_bytes(), RIGHT).unwrap()), *plain, "{name} of Windows");
            for wrong in ["", "passphrasE", "passphrase "] {
                // A wrong key may end in what looks like padding: then it is no key that can be used.
                let opened = open(&text, wrong.as_bytes());
                assert!(opened.is_err_and(|closed| closed == Closed::WrongPassphrase), "{name} with {wrong:?}");
            }
        }
    }

    #[test]
    fn what_is_not_read_here_or_would_hold_up_the_operator_is_refused_with_the_reason() {
        for (name, words) in [
            ("pkcs8-slow", "2,000,000 rounds"),
            ("pkcs8-large", "too long"),
            ("pkcs8-version-1", "PKCS #5 version 1"),
            ("rsa-camellia256", "other than AES and triple DES"),
        ] {
            match open(&encrypted(name), RIGHT) {
                Err(Closed::Unsupported(how)) => assert!(how.contains(words), "{name}: {how}"),
                other => panic!("{name}: {:?}", other.err()),
            }
        }
        let cut = encrypted("rsa-des3");
        for broken in [&b""[..], b"words", &cut[..cut.len() / 2]] {
            assert_eq!(open(broken, RIGHT).err(), Some(Closed::Unreadable));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_the_reader_panic(words in ".{0,200}", start in "[0-9A-F]{0,40}", body in "[A-Za-z0-9+/]{0,80}") {
            let _ = open(words.as_bytes(), RIGHT);
            for cipher in ["AES-256-CBC", "DES-EDE3-CBC"] {
                let text = format!("-----BEGIN EC PRIVATE KEY-----\nDEK-Info: {cipher},{start}\n\n{body}\n-----END EC PRIVATE KEY-----\n");
                let _ = open(text.as_bytes(), RIGHT);
            }
        }
    }
}
