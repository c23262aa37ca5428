//! The login that nodes use to pull: a `kubernetes.io/dockerconfigjson` Secret for every address of one registry.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::secret::Sensitive;

#[derive(Serialize)]
struct File<'a> {
    auths: BTreeMap<&'a str, Login<'a>>,
}

#[derive(Clone, Serialize)]
struct Login<'a> {
    username: &'a str,
    password: &'a str,
    auth: &'a str,
}

/// The text of `.dockerconfigjson`: one user for many addresses. The same input gives the same bytes.
///
/// An address is written exactly as in image references, port included: `host:port` and `host` are two addresses.
pub fn docker_config(addresses: &BTreeSet<String>, user: &str, password: &str) -> Sensitive<String> {
    let pair = Sensitive::new(format!("{user}:{password}"));
    let auth = Sensitive::new(STANDARD.encode(pair.expose()));
    let login = Login { username: user, password, auth: auth.expose() };
    let file = File { auths: addresses.iter().map(|address| (address.as_str(), login.clone())).collect() };
    // Strings and string keys only: this can't fail.
    serde_json::to_string(&file).unwrap_or_default().into()
}

/// The password in such a text, of whichever address comes first.
pub fn password_in(text: &[u8]) -> Option<Sensitive<String>> {
    #[derive(Deserialize)]
    struct Given {
        auths: BTreeMap<String, Auth>,
    }
    #[derive(Deserialize)]
    struct Auth {
        password: String,
    }
    let file: Given = serde_json::from_slice(text).ok()?;
    file.auths.into_values().next().map(|auth| auth.password.into())
}

/// The names of users in such a text, of all addresses.
pub fn users_in(text: &str) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Given {
        auths: BTreeMap<String, Auth>,
    }
    #[derive(Deserialize)]
    struct Auth {
        username: Option<String>,
    }
    let logins = serde_json::from_str::<Given>(text).map(|file| file.auths).unwrap_or_default();
    logins.into_values().filter_map(|login| login.username).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(addresses: &[&str]) -> Sensitive<String> {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        docker_config(&addresses, "ann", "pa\"ss\\wörd")
    }

    #[test]
    fn the_password_is_found_again() {
        let found = password_in(config(&["a:1", "b:1"]).expose().as_bytes()).unwrap();
        assert_eq!(found.expose(), "pa\"ss\\wörd");
        for none in ["", "{}", "[]", r#"{"auths":{}}"#, r#"{"auths":{"a:1":{"auth":"YTpi"}}}"#] {
            assert!(password_in(none.as_bytes()).is_none(), "{none}");
        }
    }

    #[test]
    fn who_is_in_it_is_found_again() {
        assert_eq!(users_in(config(&["a:1", "b:1"]).expose()), BTreeSet::from(["ann".to_owned()]));
        for none in ["", "{}", "[]", r#"{"auths":{"a:1":{"auth":"YTpi"}}}"#] {
            assert!(users_in(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn every_address_has_the_login_in_the_shape_that_docker_and_containerd_read() {
        let addresses = ["10.96.0.10:5000", "registry.example.com", "team-a.registries.svc:5000"];
        let file: serde_json::Value = serde_json::from_str(config(&addresses).expose()).unwrap();

        let auths = file["auths"].as_object().unwrap();
        assert_eq!(auths.keys().map(String::as_str).collect::<Vec<_>>(), addresses);
        for login in auths.values() {
            assert_eq!(login["username"], "ann");
            assert_eq!(login["password"], "pa\"ss\\wörd");
            let auth = STANDARD.decode(login["auth"].as_str().unwrap()).unwrap();
            assert_eq!(String::from_utf8(auth).unwrap(), "ann:pa\"ss\\wörd");
        }
    }

    #[test]
    fn the_order_of_addresses_changes_no_byte() {
        assert!(config(&["b:1", "a:1"]) == config(&["a:1", "b:1"]));
        assert_eq!(config(&[]).expose(), r#"{"auths":{}}"#);
    }
}
