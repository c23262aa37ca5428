//! What a client asks the token server: by GET with a query, or by POST with a form
//! (<https://distribution.github.io/distribution/spec/auth/token/>, <https://distribution.github.io/distribution/spec/auth/oauth/>).

use crate::access::Scope;
use crate::secret::Sensitive;
use crate::sidecar::logins::basic;

/// Parameters that are looked at.
const MOST: usize = 256;

/// A request for a token.
#[derive(Debug)]
pub(super) struct TokenRequest {
    /// Who asks.
    pub(super) login: Login,
    /// For what.
    pub(super) scopes: Vec<Scope>,
    /// Of which registry.
    pub(super) service: Option<String>,
    /// Whether it keeps what it gets in the place of the password.
    pub(super) wants_refresh: bool,
}

/// How somebody says who they are.
#[derive(Debug)]
pub(super) enum Login {
    /// Not at all.
    None,
    /// By name and password.
    Password(String, Sensitive<Vec<u8>>),
    /// By what was given before.
    Refresh(Sensitive<String>),
    /// In a way that is none of these.
    Unclear,
}

impl TokenRequest {
    /// Of a GET.
    pub(super) fn of_query(query: &str, authorization: Option<&[u8]>) -> Self {
        let parameters = Parameters::read(query.as_bytes());
        let login = match authorization {
            None => Login::None,
            Some(text) => basic(text).map_or(Login::Unclear, |(name, password)| Login::Password(name, password)),
        };
        Self::new(login, parameters.has("offline_token", "true"), &parameters)
    }

    /// Of a POST.
    pub(super) fn of_form(body: &[u8]) -> Self {
        let parameters = Parameters::read(body);
        let login = match parameters.first("grant_type") {
            Some("password") => match (parameters.first("username"), parameters.first("password")) {
                (Some(name), Some(password)) => Login::Password(name.to_owned(), password.as_bytes().to_vec().into()),
                _ => Login::Unclear,
            },
            Some("refresh_token") => match parameters.first("refresh_token") {
                Some(token) => Login::Refresh(token.to_owned().into()),
                None => Login::Unclear,
            },
            _ => Login::Unclear,
        };
        Self::new(login, parameters.has("access_type", "offline"), &parameters)
    }

    fn new(login: Login, wants_refresh: bool, parameters: &Parameters) -> Self {
        Self {
            login,
            wants_refresh,
            scopes: Scope::parse(parameters.all("scope")),
            service: parameters.first("service").map(str::to_owned),
        }
    }
}

/// Names and values; some are passwords.
struct Parameters(Sensitive<Vec<(String, String)>>);

impl Parameters {
    fn read(text: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(text).take(MOST);
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect::<Vec<_>>().into())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.expose().iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn first<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.first(name) == Some(value)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn said(request: &TokenRequest) -> String {
        let login = match &request.login {
            Login::None => "nobody".to_owned(),
            Login::Password(name, password) => format!("{name}/{}", String::from_utf8_lossy(password.expose())),
            Login::Refresh(token) => format!("refresh {}", token.expose()),
            Login::Unclear => "unclear".to_owned(),
        };
        let service = request.service.as_deref().unwrap_or("-");
        format!("{login} {service} {} {}", request.scopes.len(), request.wants_refresh)
    }

    #[test]
    fn what_clients_send_is_understood() {
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("ann:pa:ss"));
        for (query, login, meant) in [
            ("service=here&scope=repository:a:pull", None, "nobody here 1 false"),
            ("", Some(basic.as_str()), "ann/pa:ss - 0 false"),
            (
                "account=ann&scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull&offline_token=true",
                Some(&basic),
                "ann/pa:ss - 2 true",
            ),
            ("scope=repository:a:pull+repository:b:pull", Some("Bearer x"), "unclear - 2 false"),
            ("service=a&service=b", Some(""), "unclear a 0 false"),
        ] {
            assert_eq!(said(&TokenRequest::of_query(query, login.map(str::as_bytes))), meant, "{query}");
        }
        for (form, meant) in [
            (
                "grant_type=password&service=here&client_id=c&username=ann&password=p%26%2B+s&scope=repository%3Aa%3Apull",
                "ann/p&+ s here 1 false",
            ),
            ("grant_type=password&username=ann&password=x&access_type=offline", "ann/x - 0 true"),
            ("grant_type=refresh_token&refresh_token=abc&service=here", "refresh abc here 0 false"),
            ("grant_type=refresh_token", "unclear - 0 false"),
            ("grant_type=password&username=ann", "unclear - 0 false"),
            ("grant_type=client_credentials&username=ann&password=x", "unclear - 0 false"),
            ("", "unclear - 0 false"),
            ("\u{0}%ff%zz&&&===", "unclear - 0 false"),
        ] {
            assert_eq!(said(&TokenRequest::of_form(form.as_bytes())), meant, "{form}");
        }
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let form = "grant_type=password&username=ann&password=planted-secret&scope=repository:a:pull";
        let said = format!("{:?}", TokenRequest::of_form(form.as_bytes()));
        assert!(said.contains("ann") && !said.contains("planted"), "{said}");
        let form = "grant_type=refresh_token&refresh_token=planted-secret";
        assert!(!format!("{:?}", TokenRequest::of_form(form.as_bytes())).contains("planted"));
    }
}
