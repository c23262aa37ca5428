//! Keys that sign tokens: made, read and used. All of it needs random numbers.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::token::{self, Claims, VerifyingKey};
use crate::credentials::generated::NoRandomness;
use crate::secret::Sensitive;

/// A key that signs tokens, of P-256.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    pem: Sensitive<String>,
}

impl SigningKey {
    /// Makes one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Self, NoRandomness> {
        let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|_| NoRandomness)?;
        Self::read(&made.serialize_pem()).ok_or(NoRandomness)
    }

    /// Reads one, PKCS #8 in PEM.
    #[must_use]
    pub fn read(pem: &str) -> Option<Self> {
        let read = rcgen::KeyPair::from_pem(pem).ok()?;
        let random = SystemRandom::new();
        let der = Sensitive::new(read.serialize_der());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.expose(), &random).ok()?;
        Some(Self { pair, random, pem: pem.to_owned().into() })
    }

    /// PKCS #8 in PEM.
    #[must_use]
    pub fn pem(&self) -> &Sensitive<String> {
        &self.pem
    }

    /// What checks what it signs.
    #[must_use]
    pub fn public(&self) -> VerifyingKey {
        VerifyingKey::new(self.pair.public_key().as_ref()).expect("a key of P-256 is a point")
    }

    /// A token that says this.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn sign(&self, claims: &Claims) -> Result<String, NoRandomness> {
        let unsigned = token::unsigned(self.public().id(), claims);
        let signature = self.pair.sign(&self.random, unsigned.as_bytes()).map_err(|_| NoRandomness)?;
        Ok(token::signed(&unsigned, signature.as_ref()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signing key {}", self.public().id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_and_never_printed() {
        let key = SigningKey::generate().unwrap();
        let read = SigningKey::read(key.pem().expose()).unwrap();
        assert_eq!(read.public(), key.public());
        assert_eq!(format!("{key:?}"), format!("signing key {}", key.public().id()));
        let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        for text in ["", "no key", &rsa] {
            assert!(SigningKey::read(text).is_none());
        }
    }
}
