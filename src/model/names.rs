//! Names of registries and of their children: one place, so that no two parts ever disagree.

use std::fmt;

/// Name of a registry: `^[a-z]([-a-z0-9]{0,46}[a-z0-9])?$`.
///
/// It begins with a letter because Service names before Kubernetes 1.36 must, and has at most 48 characters so that no child's
/// name ever has to be cut: the longest suffix has 10, labels and host names allow 63.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryName(String);

impl RegistryName {
    /// Longest name, in characters.
    pub const MAX: usize = 48;

    /// The name, if it keeps the rule.
    ///
    /// # Errors
    /// The rule in words. Admission refuses such names; only a cluster with an older definition can let one through.
    pub fn parse(name: &str) -> Result<Self, &'static str> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        match name.chars().next() {
            None => return Err("is empty"),
            Some(first) if !first.is_ascii_lowercase() => return Err("must begin with a lower-case letter"),
            Some(_) => {}
        }
        if name.len() > Self::MAX {
            return Err("has more than 48 characters");
        }
        if !name.chars().all(|c| legal(c) || c == '-') || name.ends_with('-') {
            return Err("may hold only lower-case letters, digits and '-', and must not end with '-'");
        }
        Ok(Self(name.to_owned()))
    }

    /// Name of a child.
    #[must_use]
    pub fn child(&self, child: Child) -> String {
        format!("{}{}", self.0, child.suffix())
    }

    /// Name of the Secret with the login of a user whose password the operator rotates.
    #[must_use]
    pub fn login(&self, user: &str) -> String {
        login_secret(&self.0, user)
    }

    /// The name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What belongs to a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::EnumIter)]
pub enum Child {
    /// What clients talk to.
    Service,
    /// Identity of the pods, without rights.
    ServiceAccount,
    /// The claim of the images. Kept.
    Data,
    /// Serving certificate and key.
    Tls,
    /// The authority and its key. Kept, mounted nowhere.
    Ca,
    /// The public bundle that clients must trust.
    CaBundle,
    /// A request for a certificate that somebody else signs: with its key as a Secret, alone as a ConfigMap.
    Csr,
    /// Password hashes.
    Htpasswd,
    /// Generated admin. Kept.
    Admin,
    /// Keys that sign tokens.
    Token,
    /// Pull secret for pods of the registry's namespace.
    Pull,
    /// The registry's configuration file.
    Config,
    /// Deployment or Job.
    Workload,
    /// PodDisruptionBudget.
    DisruptionBudget,
    /// Ingress, HTTPRoute or TLSRoute, and BackendTLSPolicy.
    Route,
}

impl Child {
    /// Every Secret that the operator writes: none of them can be an input.
    pub const SECRETS: [Self; 8] =
        [Self::Tls, Self::Ca, Self::Csr, Self::Htpasswd, Self::Admin, Self::Pull, Self::Config, Self::Token];

    /// What stands behind the registry's name.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::Service | Self::ServiceAccount | Self::Workload | Self::DisruptionBudget | Self::Route => "",
            Self::Data => "-data",
            Self::Tls => "-tls",
            Self::Ca => "-ca",
            Self::CaBundle => "-ca-bundle",
            Self::Csr => "-csr",
            Self::Htpasswd => "-htpasswd",
            Self::Admin => "-admin",
            Self::Token => "-token",
            Self::Pull => "-pull",
            Self::Config => "-config",
        }
    }
}

/// Name of the Secret with the login of a user whose password the operator rotates, at a registry of this name.
#[must_use]
pub fn login_secret(registry: &str, user: &str) -> String {
    format!("{registry}-login-{user}")
}

/// Whether an object, or a namespace, can have this name: what cannot must never become part of an address.
#[must_use]
pub fn is_of_an_object(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    name.len() <= 253 && name.split('.').all(|part| !part.is_empty() && part.bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strum::IntoEnumIterator as _;

    use super::*;
    use crate::api::rules;

    #[test]
    fn names_that_a_service_could_not_have_are_refused() {
        for name in ["", "1a", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(49)] {
            assert!(RegistryName::parse(name).is_err(), "{name}");
        }
        for name in ["a", "a1", "team-a", &"a".repeat(48)] {
            assert!(RegistryName::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn the_rules_of_admission_name_every_secret_of_the_operators() {
        let suffixes: Vec<_> = Child::SECRETS.iter().map(|child| format!("'{}'", child.suffix())).collect();
        let list = format!("[{}]", suffixes.join(", "));
        for (rule, _) in
            [rules::INPUT_SECRETS_ARE_NO_CHILDREN, rules::USERS_SECRETS_ARE_NO_CHILDREN, rules::ROUTE_SHOWS_NO_CHILD]
        {
            assert!(rule.contains(&list), "{rule}");
        }
        assert!(rules::CLAIM_IS_NO_CHILD.0.contains(&format!("'{}'", Child::Data.suffix())));
    }

    proptest! {
        #[test]
        fn every_child_of_every_legal_registry_has_a_legal_name(name in "[a-z]([-a-z0-9]{0,46}[a-z0-9])?") {
            let name = RegistryName::parse(&name).unwrap();
            for child in Child::iter() {
                let child = name.child(child);
                prop_assert!(child.len() <= 63);
                prop_assert!(child.starts_with(|c: char| c.is_ascii_lowercase()));
                prop_assert!(child.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()));
            }
            prop_assert!(is_of_an_object(&name.login(&"u".repeat(63))));
        }
    }

    #[test]
    fn what_is_no_name_of_an_object_is_told() {
        for name in ["a", "company-ca", "a.b.c", "0"] {
            assert!(is_of_an_object(name), "{name}");
        }
        for name in ["", ".", "..", "a..b", "pki/company", "?watch=true&", "a?b", "a%2fb", "a b", "A", "a#b", "../a"] {
            assert!(!is_of_an_object(name), "{name}");
        }
    }
}
