//! Logins from outside: an OpenID Connect issuer says who somebody is.

use serde::{Deserialize, Serialize};

/// Who it is, where the manifest says nothing else.
pub const SUBJECT: &str = "claims.sub";
/// The file in which the kubelet shows the keys of an issuer, and their key in a ConfigMap where the manifest names none.
pub const KEYS_FILE: &str = "jwks.json";
/// An issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// What its users and groups are called before the colon.
    pub name: String,
    /// As its tokens say it, and where its keys are asked for.
    pub url: String,
    /// Whom a token must be for.
    pub audience: String,
    /// Who somebody is: a CEL expression about `claims` that gives a text.
    pub user: String,
    /// In which groups: one that gives a list of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// Whether its keys are shown as a file, and not asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_file: bool,
    /// Who signs its certificate, PEM; `None`: a public authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

/// Somebody whom an issuer knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// With the issuer's name before it: `github:acme/web`. No user of a table has a colon.
    pub name: String,
    /// Likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl Guest {
    /// The name of the issuer who knows him.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.name.split_once(':').map_or("", |(issuer, _)| issuer)
    }
}
