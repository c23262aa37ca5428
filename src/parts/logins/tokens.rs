//! The keys that sign tokens: kept while they can be read, exchanged once a year.

use jiff::Timestamp;
use operator_engine::apply::{Live, Outcome};
use serde_json::{Value, json};

use crate::access::keys::SigningKey;
use crate::access::rotation::{self, Step, Stored};
use crate::access::token::VerifyingKey;
use crate::api::reason;
use crate::credentials::generated::{self, NoRandomness};
use crate::desired::TokenKeys;
use crate::desired::secrets::{self, TOKEN_KEYS};
use crate::model::Child;
use crate::parts::{Pass, whole};
use crate::status::Problem;

/// What was found or made.
pub(super) struct Keys {
    /// The Secret.
    pub(super) live: Option<Live>,
    pub(super) keys: Option<TokenKeys>,
    pub(super) problem: Option<Problem>,
    pub(super) look_again: Option<Timestamp>,
}

/// Keeps, makes or exchanges them. What is not stored signs nothing.
pub(super) async fn settle(pass: &Pass<'_>, is_rolling: bool) -> Keys {
    let failed = |problem| Keys { live: None, keys: None, problem: Some(problem), look_again: None };
    let stored = match pass.read_random(Child::Token).await {
        Ok(stored) => stored,
        Err(error) => return failed(pass.problem(error)),
    };
    let stored = stored.as_ref().map(Found::read);
    let facts = stored.as_ref().map(Found::facts);
    let wanted = match (rotation::step(facts, is_rolling, pass.now), stored) {
        (Step::Keep, Some(found)) => Ok(found),
        (Step::Exchange, Some(found)) => found.exchanged(pass.now),
        (Step::Make, _) | (_, None) => Found::made(pass.now),
    };
    let wanted = match wanted {
        Ok(found) => found.keys(),
        Err(error) => return failed(pass.problem(error)),
    };
    // What is kept is whole, and what was made is.
    let Some(wanted) = wanted else { return failed(pass.problem(NoRandomness)) };
    let look_again = Some(rotation::due(wanted.since));
    match pass.apply_random(Child::Token, secrets::tokens(pass.registry, &wanted)).await {
        Ok(applied) if applied.outcome == Outcome::Replacing => {
            let words = "the Secret of the keys that sign tokens is being deleted; it is made anew when it is gone";
            failed(Problem::retrying(reason::BEING_DELETED, words))
        }
        Ok(applied) => Keys { live: Some(applied.live), keys: Some(wanted), problem: None, look_again },
        Err(error) => failed(pass.problem(error)),
    }
}

/// What a Secret holds, as far as it can be read.
struct Found {
    signing: Option<SigningKey>,
    next: Option<SigningKey>,
    former: Option<VerifyingKey>,
    refresh: Option<String>,
    since: Option<Timestamp>,
}

impl Found {
    fn read(live: &Live) -> Self {
        let text = |key: &str| live.data(key).and_then(|bytes| String::from_utf8(bytes).ok());
        let [signing, next, former, refresh, since] = TOKEN_KEYS.map(text);
        let key = |pem: Option<String>| pem.and_then(|pem| SigningKey::read(&pem));
        Self {
            signing: key(signing),
            next: key(next),
            former: former.and_then(|jwk| VerifyingKey::from_jwk(&serde_json::from_str(&jwk).ok()?)),
            refresh: refresh.filter(|key| key.len() >= 32),
            since: since.and_then(|since| since.parse().ok()),
        }
    }

    fn made(now: Timestamp) -> Result<Self, NoRandomness> {
        let refresh = generated::http_secret()?;
        Ok(Self {
            signing: Some(SigningKey::generate()?),
            next: Some(SigningKey::generate()?),
            former: None,
            refresh: Some(refresh.expose().clone()),
            since: Some(whole(now)),
        })
    }

    /// The next key signs from now on.
    fn exchanged(self, now: Timestamp) -> Result<Self, NoRandomness> {
        Ok(Self {
            former: self.signing.map(|key| key.public()),
            signing: self.next,
            next: Some(SigningKey::generate()?),
            since: Some(whole(now)),
            ..self
        })
    }

    fn facts(&self) -> Stored {
        let is_whole = self.signing.is_some() && self.next.is_some() && self.refresh.is_some();
        Stored { since: self.since, is_whole }
    }

    fn keys(self) -> Option<TokenKeys> {
        let (signing, next) = (self.signing?, self.next?);
        let public = [Some(signing.public()), Some(next.public()), self.former.clone()];
        let public: Vec<Value> = public.iter().flatten().map(VerifyingKey::to_jwk).collect();
        Some(TokenKeys {
            signing: signing.pem().clone(),
            next: next.pem().clone(),
            former: self.former.map(|key| key.to_jwk().to_string()),
            refresh: self.refresh?.into(),
            since: self.since?,
            public: json!({"keys": public}).to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_key_signs_after_the_first_and_both_stay_known() {
        let now: Timestamp = "2026-12-01T00:00:00.5Z".parse().unwrap();
        let first = Found::made(now).unwrap();
        let [a, b] = [&first.signing, &first.next].map(|key| key.as_ref().unwrap().public());
        let second = first.exchanged(now + rotation::PERIOD).unwrap();
        let c = second.next.as_ref().unwrap().public();
        assert_eq!(second.signing.as_ref().unwrap().public(), b);
        let keys = second.keys().unwrap();
        let known: Value = serde_json::from_str(&keys.public).unwrap();
        assert_eq!(known["keys"], json!([b.to_jwk(), c.to_jwk(), a.to_jwk()]));
        assert_eq!(keys.since.to_string(), "2027-12-01T00:00:00Z");
        assert!(!keys.public.contains("\"d\""), "nothing private is published");
    }
}
