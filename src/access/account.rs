//! Tokens of ServiceAccounts that stand in pull Secrets: what the one who holds a token can read of it, and when it is time for the next. Decides only: the
//! clock is in the input. Whether a token is good is for the cluster to say.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use serde::Deserialize;
use serde_json::Value;

use super::cluster::ClusterUser;
use super::jwt;
use crate::secret::Sensitive;

/// How long a token is asked for. It is renewed at half of its life, so that an operator may be away for two hours.
const LIFE: SignedDuration = SignedDuration::from_hours(4);

/// Of which ServiceAccount, and for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The only one for whom its token is good.
    pub audience: String,
}

/// A token, and when it is renewed.
#[derive(Debug, Clone)]
pub struct AccountToken {
    /// What stands in a pull Secret as the password.
    pub text: Sensitive<String>,
    /// At half of its life.
    pub renew_at: Timestamp,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Vec<String>,
    iat: i64,
    exp: i64,
}

impl Account {
    /// What the cluster is asked for.
    #[must_use]
    pub fn request(&self) -> TokenRequest {
        let spec = TokenRequestSpec {
            audiences: Some(vec![self.audience.clone()]),
            expiration_seconds: Some(LIFE.as_secs()),
            ..TokenRequestSpec::default()
        };
        TokenRequest { spec: Some(spec), ..TokenRequest::default() }
    }

    /// The token in this text. `None`: it is none, of another ServiceAccount, or good for others, too.
    #[must_use]
    pub fn token(&self, text: Sensitive<String>) -> Option<AccountToken> {
        let bytes = Some(text.expose().as_bytes()).filter(|bytes| bytes.len() <= jwt::LONGEST)?;
        let claims = jwt::unproved(bytes)?;
        let claims: Claims = serde_json::from_value(Value::Object(claims)).ok()?;
        let is_its_own = claims.sub == ClusterUser::service_account(&self.namespace, &self.name).name;
        if !is_its_own || claims.aud != [self.audience.as_str()] || claims.iat < 0 || claims.exp <= claims.iat {
            return None;
        }
        let half = claims.iat.checked_add((claims.exp - claims.iat) / 2)?;
        Some(AccountToken { renew_at: Timestamp::from_second(half).ok()?, text })
    }
}

impl AccountToken {
    /// Whether it is to be renewed. A clock that was put back does not make an old token last.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        now >= self.renew_at || self.renew_at.duration_since(now) > LIFE
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use serde_json::json;

    use super::*;

    fn account() -> Account {
        let text = str::to_owned;
        Account { namespace: text("shop"), name: text("default"), audience: text("team-a.registries.svc") }
    }

    fn signed(claims: &Value) -> Sensitive<String> {
        format!("e30.{}.c2lnbmF0dXJl", BASE64.encode(claims.to_string())).into()
    }

    #[test]
    fn a_token_is_renewed_at_half_of_its_life() {
        let subject = "system:serviceaccount:shop:default";
        let claims = json!({"sub": subject, "aud": ["team-a.registries.svc"], "iat": 1_000_000, "exp": 1_014_400});
        let token = account().token(signed(&claims)).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        for (now, is_due) in
            [(1_000_000, false), (1_007_199, false), (1_007_200, true), (1_014_401, true), (990_000, true)]
        {
            assert_eq!(token.is_due(at(now)), is_due, "{now}");
        }
        assert!(!format!("{token:?}").contains("e30"));
    }

    #[test]
    fn a_token_that_is_not_its_own_and_for_this_registry_alone_is_none() {
        let subject = "system:serviceaccount:shop:default";
        let claims = |subject: &str, audience: Value| json!({"sub": subject, "aud": audience, "iat": 1, "exp": 3});
        let good = claims(subject, json!(["team-a.registries.svc"]));
        assert!(account().token(signed(&good)).is_some());
        for bad in [
            claims("system:serviceaccount:shop:other", json!(["team-a.registries.svc"])),
            claims(subject, json!(["team-b.registries.svc"])),
            claims(subject, json!(["team-a.registries.svc", "https://kubernetes.default.svc"])),
            claims(subject, json!([])),
            json!({"sub": subject, "aud": ["team-a.registries.svc"], "iat": 3, "exp": 3}),
            json!({"sub": subject, "aud": ["team-a.registries.svc"], "iat": i64::MAX, "exp": i64::MIN}),
            json!({"sub": subject, "aud": ["team-a.registries.svc"], "iat": -1, "exp": i64::MAX}),
            json!({}),
        ] {
            assert!(account().token(signed(&bad)).is_none(), "{bad}");
        }
        for text in ["", "a.b.c", "no token", "..", &"a".repeat(jwt::LONGEST + 1)] {
            assert!(account().token(text.to_owned().into()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_token_is_asked_for_this_registry_alone_and_for_hours() {
        let asked = account().request().spec.unwrap();
        assert_eq!(asked.audiences, Some(vec!["team-a.registries.svc".to_owned()]));
        assert_eq!(asked.expiration_seconds, Some(14_400));
    }
}
