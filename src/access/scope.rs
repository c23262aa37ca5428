//! What clients ask for, and what a request needs: scopes as the registry's tokens have them
//! (<https://distribution.github.io/distribution/spec/auth/scope/>).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Access, Action};

/// Scopes of one request that are looked at: a client asks for one or two, or one for each image that it copies from.
const MOST: usize = 64;
const REPOSITORY: &str = "repository";
const REGISTRY: &str = "registry";
const CATALOG: &str = "catalog";
/// Every action.
const ANY: &str = "*";

/// The actions of a repository.
const OF_A_REPOSITORY: [Action; 3] = [Action::Delete, Action::Pull, Action::Push];

/// Something that a client asks for: `type:name:action,action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    kind: String,
    name: String,
    actions: BTreeSet<String>,
}

/// Something that a token gives, as it stands in the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// `repository` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The repository's name, or `catalog`.
    pub name: String,
    /// `pull`, `push`, `delete`; of the catalog `*`.
    pub actions: BTreeSet<String>,
}

impl Scope {
    /// Reads scopes: several stand in one text with blanks between them. What is none is left out, and so is what comes after 64 of them.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        texts.into_iter().flat_map(|text| text.split(' ')).filter_map(Self::one).take(MOST).collect()
    }

    fn one(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        // `repository(plugin)`: a class, which says nothing about rights.
        let kind = kind.split_once('(').map_or(kind, |(kind, _)| kind);
        let actions = actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned).collect();
        Some(Self { kind: kind.to_owned(), name: name.to_owned(), actions })
    }
}

impl Scope {
    /// Everything that it could give, if all of it is allowed; nothing, if there is no such thing.
    fn accesses(&self) -> Vec<Access<'_>> {
        let wants = |action: &str| self.actions.contains(action) || self.actions.contains(ANY);
        match self.kind.as_str() {
            REPOSITORY if is_repository(&self.name) => {
                let wanted = OF_A_REPOSITORY.into_iter().filter(|action| wants(&action.to_string()));
                wanted.map(|action| Access::Repository(&self.name, action)).collect()
            }
            REGISTRY if self.name == CATALOG && wants(ANY) => vec![Access::Catalog],
            _ => Vec::new(),
        }
    }
}

/// Everything that is asked for, once.
#[must_use]
pub fn wanted(asked: &[Scope]) -> BTreeSet<Access<'_>> {
    asked.iter().flat_map(Scope::accesses).collect()
}

/// What a token gives: as much of what was asked as is allowed, in the order of names. What is not allowed is left out without a word: a client asks for more
/// than it needs.
#[must_use]
pub fn grant(allowed: &BTreeSet<Access<'_>>) -> Vec<Granted> {
    let mut granted = BTreeMap::<(&str, &str), BTreeSet<String>>::new();
    for access in allowed {
        let (kind, name, action) = match access {
            Access::Repository(name, action) => (REPOSITORY, *name, action.to_string()),
            Access::Catalog => (REGISTRY, CATALOG, ANY.to_owned()),
        };
        granted.entry((kind, name)).or_default().insert(action);
    }
    let entry = |((kind, name), actions): ((&str, &str), _)| Granted { kind: kind.into(), name: name.into(), actions };
    granted.into_iter().map(entry).collect()
}

/// What a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need<'a> {
    /// That somebody has logged in.
    Login,
    /// To list all repositories.
    Catalog,
    /// To do all of this with a repository.
    Repository(&'a str, &'static [Action]),
}

impl Need<'_> {
    /// As a client asks for it; empty for a mere login.
    #[must_use]
    pub fn scope(&self) -> String {
        match self {
            Self::Login => String::new(),
            Self::Catalog => format!("{REGISTRY}:{CATALOG}:{ANY}"),
            Self::Repository(name, actions) => {
                let actions: Vec<_> = actions.iter().map(ToString::to_string).collect();
                format!("{REPOSITORY}:{name}:{}", actions.join(","))
            }
        }
    }

    /// Everything that must be allowed for it.
    #[must_use]
    pub fn accesses(&self) -> BTreeSet<Access<'_>> {
        match self {
            Self::Login => BTreeSet::new(),
            Self::Catalog => [Access::Catalog].into(),
            Self::Repository(name, actions) => actions.iter().map(|action| Access::Repository(name, *action)).collect(),
        }
    }

    /// Whether a token gives it.
    #[must_use]
    pub fn is_granted(&self, granted: &[Granted]) -> bool {
        let has = |kind: &str, name: &str, action: &str| {
            granted.iter().any(|entry| entry.kind == kind && entry.name == name && entry.actions.contains(action))
        };
        match self {
            Self::Login => true,
            Self::Catalog => has(REGISTRY, CATALOG, ANY),
            Self::Repository(name, actions) => actions.iter().all(|action| has(REPOSITORY, name, &action.to_string())),
        }
    }

    /// The same as what a token gives.
    #[must_use]
    pub fn granted(&self) -> Vec<Granted> {
        grant(&self.accesses())
    }
}

/// What a request needs, by its method and the path that the registry will understand; the same as what the registry asks for
/// (<https://github.com/distribution/distribution/blob/v3.1.1/registry/handlers/app.go>, `appendAccessRecords`). `None`: it is not clear which repository
/// it is about.
#[must_use]
pub fn need<'a>(method: &str, path: &'a str) -> Option<Need<'a>> {
    let rest = path.strip_prefix("/v2")?;
    if matches!(rest, "" | "/") {
        return Some(Need::Login);
    }
    let rest = rest.strip_prefix('/')?;
    if rest.trim_end_matches('/') == "_catalog" {
        return Some(Need::Catalog);
    }
    let name = repository_of(rest)?;
    Some(Need::Repository(
        name,
        match method {
            "GET" | "HEAD" => &[Action::Pull],
            "DELETE" => &[Action::Delete],
            _ => &[Action::Pull, Action::Push],
        },
    ))
}

/// The repository's name before what is asked of it. Repositories may be called `blobs` or `tags`, so what is asked is looked for at the end.
fn repository_of(path: &str) -> Option<&str> {
    let parts: Vec<_> = path.split('/').collect();
    let is_asked = match parts.as_slice() {
        [.., "blobs", "uploads", ""] => 3,
        [.., "blobs", "uploads", _] => 3,
        [.., "tags", "list"] | [.., "blobs" | "manifests" | "referrers", _] => 2,
        _ => return None,
    };
    let name = parts[..parts.len() - is_asked].join("/").len();
    path.get(..name).filter(|name| is_repository(name))
}

/// Whether a registry would take this for a repository's name. So no part is a folder of the registry's own, which begin with an underscore, and none leads
/// upwards
/// (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests>).
#[must_use]
pub fn is_repository(name: &str) -> bool {
    name.len() <= 255 && name.split('/').all(is_part)
}

/// Letters and digits, and between them a dot, one or two underscores, or any number of dashes.
fn is_part(part: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_between = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
    part.starts_with(is_plain) && part.ends_with(is_plain) && part.split(is_plain).all(is_between)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::{Caller, Policy};
    use super::*;

    fn policy() -> Policy {
        serde_json::from_value(json!({
            "teams": {"red": ["ann"]},
            "rules": [
                {"teams": ["red"], "repositories": ["red/**"], "actions": ["pull", "push"]},
                {"users": ["root"], "repositories": ["**"], "actions": ["pull", "delete", "catalog"]},
                {"anonymous": true, "repositories": ["public/*"], "actions": ["pull"]},
            ],
        }))
        .unwrap()
    }

    fn gets(caller: Caller<'_>, asked: &[Scope]) -> Vec<Granted> {
        grant(&policy().allowed(caller, &wanted(asked)))
    }

    fn asks(user: &str, scopes: &[&str]) -> String {
        let caller = if user.is_empty() { Caller::Anonymous } else { Caller::User(user) };
        let granted = gets(caller, &Scope::parse(scopes.iter().copied()));
        let entry = |one: Granted| {
            format!("{}:{}:{}", one.kind, one.name, one.actions.into_iter().collect::<Vec<_>>().join(","))
        };
        granted.into_iter().map(entry).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_client_gets_as_much_of_what_it_asks_for_as_it_may_have() {
        for (user, scopes, gets) in [
            ("ann", &["repository:red/app:pull,push"][..], "repository:red/app:pull,push"),
            ("ann", &["repository:red/app:pull", "repository:red/app:push"], "repository:red/app:pull,push"),
            ("ann", &["repository:red/a:pull,push repository:blue/b:pull"], "repository:red/a:pull,push"),
            ("ann", &["repository:red/app:*"], "repository:red/app:pull,push"),
            ("ann", &["repository(plugin):red/app:pull"], "repository:red/app:pull"),
            ("ann", &["repository:red/app:delete,own"], ""),
            ("ann", &["registry:catalog:*"], ""),
            ("root", &["registry:catalog:*"], "registry:catalog:*"),
            ("root", &["registry:catalog:pull"], ""),
            ("root", &["registry:other:*"], ""),
            ("root", &["repository:x:*"], "repository:x:delete,pull"),
            ("", &["repository:public/x:pull,push"], "repository:public/x:pull"),
            ("", &["repository:red/x:pull"], ""),
            ("ann", &["", "  ", "repository", "repository:red/app", "nothing:red/app:pull"], ""),
            ("root", &["repository:../x:pull", "repository:A:pull", "repository::pull", "repository:a//b:pull"], ""),
        ] {
            assert_eq!(asks(user, scopes), gets, "{user} {scopes:?}");
        }
    }

    #[test]
    fn of_a_thousand_scopes_the_first_are_looked_at() {
        let many: Vec<_> = (0..1000).map(|number| format!("repository:red/{number}:pull")).collect();
        let granted = gets(Caller::User("ann"), &Scope::parse([many.join(" ").as_str()]));
        assert_eq!(granted.len(), MOST);
    }

    #[test]
    fn a_request_needs_what_the_registry_asks_for() {
        for (method, path, scope) in [
            ("GET", "/v2/", Some("")),
            ("GET", "/v2", Some("")),
            ("GET", "/v2/_catalog", Some("registry:catalog:*")),
            ("GET", "/v2/app/tags/list", Some("repository:app:pull")),
            ("HEAD", "/v2/a/b/manifests/1", Some("repository:a/b:pull")),
            ("PUT", "/v2/a/b/manifests/1", Some("repository:a/b:pull,push")),
            ("DELETE", "/v2/a/b/manifests/sha256:0", Some("repository:a/b:delete")),
            ("GET", "/v2/a/blobs/sha256:0", Some("repository:a:pull")),
            ("POST", "/v2/a/blobs/uploads/", Some("repository:a:pull,push")),
            ("PATCH", "/v2/a/blobs/uploads/some-id", Some("repository:a:pull,push")),
            ("GET", "/v2/a/blobs/uploads/some-id", Some("repository:a:pull")),
            ("DELETE", "/v2/a/blobs/uploads/some-id", Some("repository:a:delete")),
            ("POST", "/v2/a/blobs/uploads/blobs/uploads/", Some("repository:a/blobs/uploads:pull,push")),
            ("GET", "/v2/tags/list/tags/list", Some("repository:tags/list:pull")),
            ("GET", "/v2/a/referrers/sha256:0", Some("repository:a:pull")),
            ("GET", "/v2/manifests/x/manifests/1", Some("repository:manifests/x:pull")),
            ("GET", "/v2/app", None),
            ("GET", "/v2/A/tags/list", None),
            ("GET", "/v2//tags/list", None),
            ("GET", "/v2/a/../b/tags/list", None),
            ("GET", "/v2/a%2fb/tags/list", None),
            ("GET", "/v1/a/tags/list", None),
            ("GET", "/v2x/a/tags/list", None),
        ] {
            assert_eq!(need(method, path).map(|need| need.scope()).as_deref(), scope, "{method} {path}");
        }
    }

    #[test]
    fn names_are_those_of_the_specification() {
        for (name, is) in [
            ("a", true),
            ("a/b/c", true),
            ("a.b_c__d-e---f", true),
            ("0", true),
            (&"a".repeat(255), true),
            (&"a".repeat(256), false),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("a..b", false),
            ("a._b", false),
            ("a___b", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("_catalog", false),
            ("..", false),
            ("a%2fb", false),
        ] {
            assert_eq!(is_repository(name), is, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_granted_is_what_the_request_needs(method in "GET|HEAD|PUT|DELETE|POST", name in "(red|blue)/[a-z]{1,3}") {
            let path = format!("/v2/{name}/manifests/1");
            let need = need(&method, &path).unwrap();
            for user in ["ann", "root"] {
                let caller = Caller::User(user);
                let granted = gets(caller, &Scope::parse([need.scope().as_str()]));
                let is_allowed = policy().allowed(caller, &need.accesses()) == need.accesses();
                prop_assert_eq!(need.is_granted(&granted), is_allowed);
            }
            prop_assert!(need.is_granted(&need.granted()));
            prop_assert!(!need.is_granted(&[]));
        }

        #[test]
        fn no_text_is_too_strange(text in any::<String>(), method in any::<String>()) {
            let _ = gets(Caller::User("root"), &Scope::parse([text.as_str()]));
            let _ = need(&method, &text);
        }
    }
}
