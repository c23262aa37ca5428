//! Passwords and secrets that the operator makes itself, from the operating system's randomness.
//! Called once for each; what was made is stored and kept.

use ring::rand::{SecureRandom, SystemRandom};

use crate::secret::Sensitive;

/// Letters and digits without those that are mistaken for each other (`0 O`, `1 l I`): 57, that is 5.8 bits each.
const ALPHABET: &[u8; 57] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// 24 × 5.8 = 139 bits.
const PASSWORD_LENGTH: usize = 24;

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes; trying again may help")]
pub struct NoRandomness;

/// A password for the generated administrator: 24 characters that can be read aloud and typed.
pub fn admin_password() -> Result<Sensitive<String>, NoRandomness> {
    // Bytes beyond the last whole multiple of the alphabet would favour its beginning.
    let fair = u8::MAX / ALPHABET.len() as u8 * ALPHABET.len() as u8;
    let mut password = String::with_capacity(PASSWORD_LENGTH);
    while password.len() < PASSWORD_LENGTH {
        let [byte] = random()?;
        if byte < fair {
            password.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        }
    }
    Ok(password.into())
}

/// The registry's `http.secret`, with which it signs the state of uploads: 32 bytes in hexadecimal.
pub fn http_secret() -> Result<Sensitive<String>, NoRandomness> {
    let mut text = String::with_capacity(64);
    for byte in random::<32>()? {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    Ok(text.into())
}

fn random<const COUNT: usize>() -> Result<[u8; COUNT], NoRandomness> {
    let mut bytes = [0; COUNT];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Password;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn an_admin_password_is_legal_unambiguous_and_never_the_same() {
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let password = admin_password().unwrap();
            assert_eq!(password.expose().len(), PASSWORD_LENGTH);
            assert!(!password.expose().contains(['0', 'O', '1', 'l', 'I']));
            Password::new(password.expose().as_bytes()).unwrap();
            assert!(seen.insert(password.expose().clone()));
        }
    }

    #[test]
    fn every_character_of_the_alphabet_is_as_likely() {
        let mut counts = BTreeMap::new();
        let rounds = 1000;
        for _ in 0..rounds {
            admin_password().unwrap().expose().bytes().for_each(|byte| *counts.entry(byte).or_insert(0) += 1);
        }
        // 421 on average with a deviation of 20; without the rejection the first 28 would come to 469 and more.
        let average = rounds * PASSWORD_LENGTH / ALPHABET.len();
        assert_eq!(counts.len(), ALPHABET.len());
        let first_half: usize = ALPHABET[..28].iter().map(|byte| counts[byte]).sum();
        assert!(first_half.abs_diff(average * 28) < 800, "{first_half} against {}", average * 28);
        assert!(counts.values().all(|count| count.abs_diff(average) < 160), "{counts:?}");
    }

    #[test]
    fn an_http_secret_is_32_bytes_in_hexadecimal_and_never_the_same() {
        let secret = http_secret().unwrap();
        assert_eq!(secret.expose().len(), 64);
        assert!(secret.expose().bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
        assert!(secret != http_secret().unwrap());
    }
}
