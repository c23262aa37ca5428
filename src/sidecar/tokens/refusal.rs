//! Why a request or a login does not pass, and what is answered to it.

use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::cluster::Silent;

/// Why a request does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denial {
    /// Nobody has said who asks.
    NoLogin,
    /// The login is wrong.
    WrongLogin,
    /// Too many logins were.
    Later(Duration),
    /// The token is none that counts.
    BadToken(String),
    /// Who asks may not do that.
    NotAllowed,
    /// The token that was brought in the place of a password does not count.
    NotAccepted(String),
    /// It cannot be found out whether it does.
    Silent(String),
    /// Users, rules or keys cannot be read.
    Unreadable,
}

impl From<Silent> for Denial {
    fn from(Silent(why): Silent) -> Self {
        Self::Silent(why)
    }
}

/// A request that does not pass, and who asked, as far as that was said.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) user: Option<String>,
    pub(super) denial: Denial,
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self { user: None, denial }
    }
}

impl Denial {
    /// The same, of this user.
    pub(super) fn of(self, user: &str) -> Refused {
        Refused { user: Some(user.to_owned()).filter(|user| !user.is_empty()), denial: self }
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::NoLogin => "authentication required".to_owned(),
            Self::WrongLogin => "user name or password is wrong".to_owned(),
            Self::Later(_) => {
                "too many logins of this user from this address were wrong; wait, and try again".to_owned()
            }
            Self::BadToken(why) => why.clone(),
            Self::NotAllowed => {
                "no rule in spec.auth.token.rules allows this, or the token was asked for less".to_owned()
            }
            Self::NotAccepted(why) => why.clone(),
            Self::Silent(why) => format!("it cannot be found out whose token this is: {why}"),
            Self::Unreadable => "users, rules or keys cannot be read; see the log of container sidecar".to_owned(),
        }
    }

    pub(super) fn answer(&self, challenge: &str) -> Response<Full<Bytes>> {
        let (status, code) = match self {
            Self::NotAllowed => (StatusCode::UNAUTHORIZED, "DENIED"),
            Self::NoLogin | Self::WrongLogin | Self::BadToken(_) | Self::NotAccepted(_) => {
                (StatusCode::UNAUTHORIZED, "UNAUTHORIZED")
            }
            Self::Later(_) => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::Silent(_) | Self::Unreadable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        };
        let mut answer = refused(status, code, &self.words());
        if let (StatusCode::UNAUTHORIZED, Ok(challenge)) = (status, HeaderValue::from_str(challenge)) {
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        match self {
            Self::Later(wait) => _ = answer.headers_mut().insert(RETRY_AFTER, (wait.as_secs() + 1).into()),
            Self::Silent(_) | Self::Unreadable => _ = answer.headers_mut().insert(RETRY_AFTER, 5.into()),
            _ => {}
        }
        answer
    }
}

pub(super) fn no_longer_accepted() -> Denial {
    Denial::BadToken("this registry no longer takes the tokens for which this one was given".to_owned())
}

/// In the registry's form, which every client can read.
pub(super) fn refused(status: StatusCode, code: &str, words: &str) -> Response<Full<Bytes>> {
    json_answer(status, &json!({"errors": [{"code": code, "message": words, "detail": null}]}))
}

pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
