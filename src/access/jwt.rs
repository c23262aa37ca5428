//! Tokens of somebody else's, as OpenID Connect has them: whether a key of the issuer has signed one, and whether it counts here and now (RFC 7519, RFC 7515,
//! RFC 7518).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::token::LEEWAY;

/// Longest token, in bytes, that is looked at.
pub(super) const LONGEST: usize = 16 << 10;
/// Longest password of a table's user, in bytes; tokens are longer.
const LONGEST_PASSWORD: usize = 72;
/// Keys of one issuer that are looked at.
const MOST_KEYS: usize = 64;

/// What a token says.
pub type Claims = Map<String, Value>;

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is none.
    #[error("it is no token that can be read")]
    Malformed,
    /// It is signed in a way that nobody should use, or not at all.
    #[error("it is signed with {0}; RS256, PS256 (and those of 384 and 512), ES256, ES384 and EdDSA are understood")]
    Algorithm(String),
    /// The issuer has no such key.
    #[error("it is signed with a key that the issuer does not publish")]
    UnknownKey,
    /// It was changed, or signed by somebody else.
    #[error("its signature is wrong")]
    Signature,
    /// It is of another issuer.
    #[error("it is of another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("it is not for the audience {0}")]
    Audience(String),
    /// It has ended, or says no end.
    #[error("it has expired, or does not say when it does")]
    Expired,
    /// It has not begun.
    #[error("it is not valid yet: compare the clocks")]
    NotYet,
}

/// The keys of an issuer (RFC 7517). Those of kinds that are not understood are left out.
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    /// The only algorithm that it is for, if it says one.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood: none is.
    crit: Option<Value>,
}

impl KeySet {
    /// Reads a set. `None`: it is none, or holds no key that can be used.
    #[must_use]
    pub fn read(text: &[u8]) -> Option<Self> {
        let set: Value = serde_json::from_slice(text).ok()?;
        let keys: Vec<_> = set["keys"].as_array()?.iter().filter_map(Key::read).take(MOST_KEYS).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// Whether a token could be signed with one of them, as far as its head says.
    #[must_use]
    pub fn may_have_signed(&self, token: &[u8]) -> bool {
        head(token).is_some_and(|header| self.find(&header).next().is_some())
    }

    /// A token without a key's name may be of any of them.
    fn find<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(|key| match (&header.kid, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            (None, _) => true,
            (Some(_), None) => false,
        })
    }
}

impl Key {
    fn read(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk[name].as_str();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let bytes = |name: &str| BASE64.decode(text(name)?.trim_end_matches('=')).ok();
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|key| key.len() == 32)?),
            _ => return None,
        };
        Some(Self { id: text("kid").map(str::to_owned), algorithm: text("alg").map(str::to_owned), material })
    }

    /// Whether it has signed this. The key says which algorithms there can be, not the token alone.
    fn has_signed(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.as_deref().is_some_and(|only| only != algorithm) {
            return false;
        }
        let point = |how: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(how, key).verify(message, signature).is_ok()
        };
        match (&self.material, algorithm) {
            (Material::P256(key), "ES256") => point(&ECDSA_P256_SHA256_FIXED, key),
            (Material::P384(key), "ES384") => point(&ECDSA_P384_SHA384_FIXED, key),
            (Material::Ed25519(key), "EdDSA") => point(&ED25519, key),
            (Material::Rsa { n, e }, algorithm) => rsa(algorithm)
                .is_some_and(|how| RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok()),
            _ => false,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        "PS384" => &RSA_PSS_2048_8192_SHA384,
        "PS512" => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn is_known(algorithm: &str) -> bool {
    rsa(algorithm).is_some() || matches!(algorithm, "ES256" | "ES384" | "EdDSA")
}

fn part(token: &[u8], number: usize) -> Option<Vec<u8>> {
    BASE64.decode(token.split(|byte| *byte == b'.').nth(number)?).ok()
}

fn head(token: &[u8]) -> Option<Header> {
    serde_json::from_slice(&part(token, 0)?).ok()
}

/// What a token says of itself: not to be believed.
#[must_use]
pub fn unproved(token: &[u8]) -> Option<Claims> {
    serde_json::from_slice(&part(token, 1)?).ok()
}

/// Whether a password is a token of somebody else's. No password of the table is so long.
#[must_use]
pub fn is_token(password: &[u8]) -> bool {
    password.len() > LONGEST_PASSWORD
        && password.starts_with(b"eyJ")
        && password.split(|byte| *byte == b'.').count() == 3
}

/// When a token ends, in seconds since 1970, as it says itself.
#[must_use]
pub fn end(claims: &Claims) -> Option<u64> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds since 1970; what is none is 0 or far away"
    )]
    claims.get("exp")?.as_f64().map(|end| end as u64)
}

/// What a token says, if one of these keys has signed it, and it is of this issuer, for this audience, and holds `now` (seconds since 1970). Only keys that are
/// given here count, whatever a token brings along.
///
/// # Errors
/// Why it does not count.
pub fn verify(token: &[u8], keys: &KeySet, issuer: &str, audience: &str, now: u64) -> Result<Claims, JwtError> {
    if token.len() > LONGEST {
        return Err(JwtError::Malformed);
    }
    let claims = unproved(token).ok_or(JwtError::Malformed)?;
    let header = head(token).filter(|header| header.crit.is_none()).ok_or(JwtError::Malformed)?;
    if !is_known(&header.alg) {
        // Somebody else's words, but a short few of them.
        return Err(JwtError::Algorithm(header.alg.chars().take(16).filter(char::is_ascii_alphanumeric).collect()));
    }
    let signed = token.iter().rposition(|byte| *byte == b'.').ok_or(JwtError::Malformed)?;
    let signature = part(token, 2).ok_or(JwtError::Malformed)?;
    let mut candidates = keys.find(&header).peekable();
    if candidates.peek().is_none() {
        return Err(JwtError::UnknownKey);
    }
    if !candidates.any(|key| key.has_signed(&header.alg, &token[..signed], &signature)) {
        return Err(JwtError::Signature);
    }
    let seconds = |name: &str| claims.get(name).and_then(Value::as_f64);
    #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
    let (now, leeway) = (now as f64, LEEWAY as f64);
    let is_for = |wanted: &Value| wanted.as_str() == Some(audience);
    let is_ours = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(is_for),
        Some(one) => is_for(one),
        None => false,
    };
    match () {
        () if claims.get("iss").and_then(Value::as_str) != Some(issuer) => Err(JwtError::Issuer),
        () if !is_ours => Err(JwtError::Audience(audience.to_owned())),
        () if seconds("exp").is_none_or(|end| now >= end + leeway) => Err(JwtError::Expired),
        () if seconds("nbf").is_some_and(|begin| now + leeway < begin) => Err(JwtError::NotYet),
        () => Ok(claims),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    /// An issuer of our own making.
    pub(crate) struct Issuer {
        key: EcdsaKeyPair,
        id: &'static str,
    }

    impl Issuer {
        pub(crate) fn new(id: &'static str) -> Self {
            let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
            let document = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
            Self { key: EcdsaKeyPair::from_pkcs8(how, document.as_ref(), &random).unwrap(), id }
        }

        pub(crate) fn jwk(&self) -> Value {
            let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
            json!({"kty": "EC", "crv": "P-256", "kid": self.id, "x": BASE64.encode(x), "y": BASE64.encode(y)})
        }

        pub(crate) fn set(&self) -> String {
            json!({"keys": [{"kty": "RSA", "kid": "broken"}, self.jwk(), {"kty": "oct", "k": "AA"}]}).to_string()
        }

        pub(crate) fn signs_as(&self, header: &Value, claims: &Value) -> String {
            let unsigned = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
            let signature = self.key.sign(&SystemRandom::new(), unsigned.as_bytes()).unwrap();
            format!("{unsigned}.{}", BASE64.encode(signature))
        }

        pub(crate) fn signs(&self, claims: &Value) -> String {
            self.signs_as(&json!({"alg": "ES256", "kid": self.id}), claims)
        }
    }

    fn claims() -> Value {
        json!({"iss": "https://ci.example.com", "aud": "here", "exp": NOW + 60, "nbf": NOW, "sub": "acme/web"})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    fn looks(token: &str, issuer: &Issuer) -> Result<Claims, JwtError> {
        let keys = KeySet::read(issuer.set().as_bytes()).unwrap();
        verify(token.as_bytes(), &keys, "https://ci.example.com", "here", NOW)
    }

    #[test]
    fn a_token_counts_that_its_issuer_signed_for_us_and_for_now() {
        let issuer = Issuer::new("1");
        for (claims, counts) in [
            (claims(), Ok(())),
            (with("aud", json!(["there", "here"])), Ok(())),
            (with("aud", json!("there")), Err(JwtError::Audience("here".to_owned()))),
            (with("aud", json!([])), Err(JwtError::Audience("here".to_owned()))),
            (with("aud", Value::Null), Err(JwtError::Audience("here".to_owned()))),
            (with("iss", json!("https://ci.example.com/")), Err(JwtError::Issuer)),
            (with("exp", json!(NOW - LEEWAY + 1)), Ok(())),
            (with("exp", json!(NOW - LEEWAY)), Err(JwtError::Expired)),
            (with("exp", Value::Null), Err(JwtError::Expired)),
            (with("exp", json!("never")), Err(JwtError::Expired)),
            (with("nbf", json!(NOW + LEEWAY)), Ok(())),
            (with("nbf", json!(NOW + LEEWAY + 1)), Err(JwtError::NotYet)),
            (with("nbf", Value::Null), Ok(())),
        ] {
            let seen = looks(&issuer.signs(&claims), &issuer);
            assert_eq!(seen.map(drop), counts, "{claims}");
        }
    }

    #[test]
    fn nothing_that_is_forged_counts() {
        let (issuer, thief) = (Issuer::new("1"), Issuer::new("1"));
        let good = issuer.signs(&claims());
        let [head, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
        let other = BASE64.encode(with("sub", json!("acme/other")).to_string());
        let none = BASE64.encode(json!({"alg": "none"}).to_string());
        let secret = BASE64.encode(json!({"alg": "HS256", "kid": "1"}).to_string());
        for (token, why) in [
            (thief.signs(&claims()), JwtError::Signature),
            (format!("{head}.{other}.{signature}"), JwtError::Signature),
            (format!("{head}.{body}."), JwtError::Signature),
            (format!("{none}.{body}."), JwtError::Algorithm("none".to_owned())),
            (format!("{secret}.{body}.{signature}"), JwtError::Algorithm("HS256".to_owned())),
            (issuer.signs_as(&json!({"alg": "RS256", "kid": "1"}), &claims()), JwtError::Signature),
            (issuer.signs_as(&json!({"alg": "ES256", "kid": "2"}), &claims()), JwtError::UnknownKey),
            (thief.signs_as(&json!({"alg": "ES256", "jwk": thief.jwk()}), &claims()), JwtError::Signature),
            (issuer.signs_as(&json!({"alg": "ES256", "kid": "1", "crit": ["b64"]}), &claims()), JwtError::Malformed),
            (format!("{head}.{body}"), JwtError::Malformed),
            (format!("{head}.!.{signature}"), JwtError::Malformed),
            ("..".to_owned(), JwtError::Malformed),
            (String::new(), JwtError::Malformed),
            ("a".repeat(LONGEST + 1), JwtError::Malformed),
        ] {
            assert_eq!(looks(&token, &issuer).unwrap_err(), why, "{token}");
        }
        // Without a key's name each is tried.
        assert!(looks(&issuer.signs_as(&json!({"alg": "ES256"}), &claims()), &issuer).is_ok());
    }

    #[test]
    fn a_key_is_used_for_what_it_says_alone() {
        let issuer = Issuer::new("1");
        let mut jwk = issuer.jwk();
        for (name, value, counts) in [("alg", "ES256", true), ("alg", "ES384", false), ("use", "enc", false)] {
            jwk[name] = json!(value);
            let set = json!({"keys": [jwk]}).to_string();
            let keys = KeySet::read(set.as_bytes()).unwrap_or_default();
            let seen = verify(issuer.signs(&claims()).as_bytes(), &keys, "https://ci.example.com", "here", NOW);
            assert_eq!(seen.is_ok(), counts, "{name} {value}");
        }
        for set in [
            "",
            "{}",
            r#"{"keys": 1}"#,
            r#"{"keys": []}"#,
            r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}"#,
        ] {
            assert!(KeySet::read(set.as_bytes()).is_none(), "{set}");
        }
    }

    #[test]
    fn no_password_is_taken_for_a_token() {
        let end_of = |token: &str| unproved(token.as_bytes()).as_ref().and_then(end);
        let token = format!(
            "{}.{}.c2ln",
            BASE64.encode(r#"{"alg":"RS256"}"#),
            BASE64.encode(r#"{"exp":12,"more":"and more, so that it is long"}"#)
        );
        assert!(is_token(token.as_bytes()));
        assert_eq!(end_of(&token), Some(12));
        for password in [&token[..72], "eyJ.a.b", &format!("x{token}"), &format!("{token}.x"), &"a".repeat(100), ""] {
            assert!(!is_token(password.as_bytes()), "{password}");
        }
        let broken = format!("a.{}.c", BASE64.encode(r#"{"exp":12.9}"#));
        assert_eq!(end_of(&broken), Some(12));
        for token in ["", "a.b.c", "eyJ.e30.x"] {
            assert_eq!(end_of(token), None);
        }
    }
}
