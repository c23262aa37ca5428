//! Access tokens: what is signed, and whether a token is one of ours (<https://distribution.github.io/distribution/spec/auth/jwt/>).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Granted;
use super::cluster::ClusterUser;
use super::issuer::Guest;

/// How long a token holds, in seconds. The gate looks at the rules at each request, so that a right ends sooner.
pub const LIFE: u64 = 300;
/// Seconds by which clocks may differ.
pub const LEEWAY: u64 = 60;
/// Longest token, in bytes, that is looked at: as much as a header may have.
const LONGEST: usize = 16 << 10;
/// The only algorithm, ECDSA with P-256 and SHA-256.
const ALGORITHM: &str = "ES256";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who gave it.
    pub iss: String,
    /// Who asked for it; empty for nobody in particular.
    pub sub: String,
    /// The registry that it is for.
    pub aud: String,
    /// Seconds since 1970 at which it ends.
    pub exp: u64,
    /// Seconds since 1970 at which it begins.
    pub nbf: u64,
    /// Seconds since 1970 at which it was given.
    pub iat: u64,
    /// Its own name.
    pub jti: String,
    /// What it gives.
    pub access: Vec<Granted>,
    /// A mark of the password that it was given for: another password ends it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub login: String,
    /// Whoever logged in with a token of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterUser>,
    /// Whoever logged in with a token of an issuer; `login` is then a mark of what the manifest says of the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// A key that tokens are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    id: String,
    /// The point, uncompressed: 4, x, y.
    point: Vec<u8>,
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is none.
    #[error("this is no token")]
    Malformed,
    /// It is signed in another way, or not at all.
    #[error("the token is not signed with ES256")]
    Algorithm,
    /// It is signed with a key of somebody else, or one that ended.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// It was changed.
    #[error("the token's signature is wrong")]
    Signature,
    /// It has ended.
    #[error("the token has expired")]
    Expired,
    /// It has not begun.
    #[error("the token is not valid yet: compare the clocks")]
    NotYet,
    /// It is for another registry.
    #[error("the token is for another registry")]
    Foreign,
}

impl VerifyingKey {
    /// Of a point of P-256, uncompressed: 65 bytes.
    #[must_use]
    pub fn new(point: &[u8]) -> Option<Self> {
        let is_point = point.len() == 65 && point[0] == 4;
        is_point.then(|| Self { id: BASE64.encode(Sha256::digest(point)), point: point.to_vec() })
    }

    /// Its name in tokens and in the set of keys.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As it stands in a set of keys (RFC 7517).
    #[must_use]
    pub fn to_jwk(&self) -> Value {
        let (x, y) = self.point[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "alg": ALGORITHM, "use": "sig", "kid": self.id,
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        })
    }

    /// The key that stands in a set.
    #[must_use]
    pub fn from_jwk(jwk: &Value) -> Option<Self> {
        let coordinate = |name: &str| BASE64.decode(jwk[name].as_str()?).ok().filter(|bytes| bytes.len() == 32);
        Self::new(&[vec![4], coordinate("x")?, coordinate("y")?].concat())
    }
}

/// What is signed: header and claims.
#[must_use]
pub fn unsigned(key_id: &str, claims: &Claims) -> String {
    let header = json!({"typ": "JWT", "alg": ALGORITHM, "kid": key_id});
    let claims = serde_json::to_vec(claims).expect("claims are JSON");
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims))
}

/// The token, of what is signed and its signature.
#[must_use]
pub fn signed(unsigned: &str, signature: &[u8]) -> String {
    format!("{unsigned}.{}", BASE64.encode(signature))
}

/// Reads a token and checks it. `now`: seconds since 1970. Only keys that are given here count, whatever a token brings along.
///
/// # Errors
/// Why it is refused.
pub fn verify(token: &str, keys: &[VerifyingKey], issuer: &str, audience: &str, now: u64) -> Result<Claims, Refusal> {
    if token.len() > LONGEST {
        return Err(Refusal::Malformed);
    }
    let (unsigned, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (header, claims) = unsigned.split_once('.').ok_or(Refusal::Malformed)?;
    let decoded = |text: &str| BASE64.decode(text).map_err(|_| Refusal::Malformed);
    let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| Refusal::Malformed)?;
    if header.alg != ALGORITHM {
        return Err(Refusal::Algorithm);
    }
    let key = keys.iter().find(|key| key.id == header.kid).ok_or(Refusal::UnknownKey)?;
    let signature = decoded(signature)?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point);
    key.verify(unsigned.as_bytes(), &signature).map_err(|_| Refusal::Signature)?;
    let claims: Claims = serde_json::from_slice(&decoded(claims)?).map_err(|_| Refusal::Malformed)?;
    match () {
        () if claims.iss != issuer || claims.aud != audience => Err(Refusal::Foreign),
        () if now >= claims.exp.saturating_add(LEEWAY) => Err(Refusal::Expired),
        () if now.saturating_add(LEEWAY) < claims.nbf => Err(Refusal::NotYet),
        () => Ok(claims),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::SigningKey;
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn claims() -> Claims {
        Claims {
            iss: "us".to_owned(),
            sub: "ann".to_owned(),
            aud: "here".to_owned(),
            exp: NOW + LIFE,
            nbf: NOW,
            iat: NOW,
            jti: "1".to_owned(),
            access: vec![Granted {
                kind: "repository".to_owned(),
                name: "app".to_owned(),
                actions: ["pull".to_owned()].into(),
            }],
            login: String::new(),
            cluster: None,
            guest: None,
        }
    }

    fn looks(token: &str, key: &SigningKey) -> Result<Claims, Refusal> {
        verify(token, &[key.public()], "us", "here", NOW)
    }

    #[test]
    fn what_we_sign_we_take_and_nothing_else() {
        let (ours, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let token = ours.sign(&claims()).unwrap();
        assert_eq!(looks(&token, &ours), Ok(claims()));
        assert_eq!(looks(&token, &other), Err(Refusal::UnknownKey));
        let parts: Vec<_> = token.split('.').collect();
        let encoded = |value: Value| BASE64.encode(value.to_string());
        let kid = ours.public().id().to_owned();
        let of_header = |header: Value| format!("{}.{}.{}", encoded(header), parts[1], parts[2]);
        let more = Claims { sub: "root".to_owned(), ..claims() };
        let another_body = unsigned(&kid, &more);
        let foreign = signed(&unsigned(&kid, &claims()), &[7; 64]);
        for (token, why) in [
            (String::new(), Refusal::Malformed),
            ("a.b".to_owned(), Refusal::Malformed),
            ("..".to_owned(), Refusal::Malformed),
            (format!("{token}="), Refusal::Malformed),
            (format!("{}.{}.", parts[0], parts[1]), Refusal::Signature),
            (format!("{another_body}.{}", parts[2]), Refusal::Signature),
            (foreign, Refusal::Signature),
            (of_header(json!({"alg": "none", "kid": kid})), Refusal::Algorithm),
            (of_header(json!({"alg": "NONE", "kid": kid})), Refusal::Algorithm),
            (of_header(json!({"alg": "HS256", "kid": kid})), Refusal::Algorithm),
            (of_header(json!({"alg": "ES256"})), Refusal::UnknownKey),
            (of_header(json!({"alg": "ES256", "jwk": other.public().to_jwk()})), Refusal::UnknownKey),
            (of_header(json!({"alg": "ES256", "kid": kid, "jwk": other.public().to_jwk()})), Refusal::Signature),
            (of_header(json!({"alg": "ES256", "kid": kid, "x5c": ["AAAA"]})), Refusal::Signature),
            ("a".repeat(1 << 20), Refusal::Malformed),
        ] {
            assert_eq!(looks(&token, &ours), Err(why), "{}", &token[..token.len().min(200)]);
        }
    }

    #[test]
    fn a_token_holds_in_its_time_and_for_its_registry() {
        let key = SigningKey::generate().unwrap();
        let token = key.sign(&claims()).unwrap();
        let keys = [SigningKey::generate().unwrap().public(), key.public()];
        for (issuer, audience, now, found) in [
            ("us", "here", NOW, Ok(())),
            ("us", "here", NOW - LEEWAY, Ok(())),
            ("us", "here", NOW - LEEWAY - 1, Err(Refusal::NotYet)),
            ("us", "here", NOW + LIFE + LEEWAY - 1, Ok(())),
            ("us", "here", NOW + LIFE + LEEWAY, Err(Refusal::Expired)),
            ("us", "there", NOW, Err(Refusal::Foreign)),
            ("them", "here", NOW, Err(Refusal::Foreign)),
        ] {
            assert_eq!(verify(&token, &keys, issuer, audience, now).map(|_| ()), found, "{issuer} {audience} {now}");
        }
        let endless = key.sign(&Claims { exp: u64::MAX, nbf: 0, ..claims() }).unwrap();
        assert!(verify(&endless, &keys, "us", "here", u64::MAX).is_err());
    }

    #[test]
    fn a_key_in_a_set_is_read_back() {
        let key = SigningKey::generate().unwrap().public();
        assert_eq!(VerifyingKey::from_jwk(&key.to_jwk()), Some(key));
        for jwk in [json!({}), json!({"x": "AA", "y": "AA"}), json!({"x": 1, "y": 2})] {
            assert_eq!(VerifyingKey::from_jwk(&jwk), None);
        }
    }
}
