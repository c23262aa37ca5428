//! What a manifest refers to, as it was read. Data only: [`crate::observe`] fills it.

use std::collections::{BTreeMap, BTreeSet};

use crate::secret::Sensitive;

/// What a manifest refers to, as it was read.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Secrets by name; `None`: it does not exist.
    pub secrets: BTreeMap<String, Option<SecretContent>>,
    /// The authority of another namespace that the manifest names.
    pub elsewhere: Elsewhere,
    /// Secrets and claims, by name, that could not be read this time. What hangs on them stays as it is.
    pub unread: BTreeSet<String>,
    /// Secrets, by name, that have no place beside the others: together they are too large. Nothing of them is used.
    pub oversized: BTreeSet<String>,
    /// The existing claim that the manifest names; `None`: it names none, or it does not exist.
    pub claim: Option<ObservedClaim>,
    /// Another registry of the namespace that uses the claim which this one would mount, and came first.
    pub claim_holder: Option<String>,
}

/// An authority of another namespace.
#[derive(Debug, Clone, Default)]
pub struct Elsewhere {
    /// What its Secret holds; `None`: it does not exist, or does not sign for registries of this namespace. Which of the two is nobody's to know.
    pub content: Option<SecretContent>,
    /// Whether it could not be read this time.
    pub is_unread: bool,
}

/// A Secret that a manifest refers to.
#[derive(Debug, Clone)]
pub struct SecretContent {
    /// Its uid.
    pub uid: String,
    /// Its type, such as `Opaque` or `kubernetes.io/basic-auth`.
    pub kind: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// Its keys and values.
    pub data: BTreeMap<String, Sensitive<Vec<u8>>>,
}

/// A claim that a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedClaim {
    /// Its access modes.
    pub modes: Vec<String>,
}
