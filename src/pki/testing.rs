//! Material for the tests of this folder: a fixed moment, profiles, an authority with a leaf.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::issue::{issue_authority, issue_leaf};
use super::{Authority, AuthorityProfile, KeyAlgorithm, Leaf, LeafProfile};

pub(super) const HOUR: SignedDuration = SignedDuration::from_hours(1);
pub(super) const DAY: SignedDuration = SignedDuration::from_hours(24);
pub(super) const YEAR: SignedDuration = SignedDuration::from_hours(24 * 365);

pub(super) fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn now() -> Timestamp {
    moment("2026-11-21T12:00:00Z")
}

pub(super) fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

pub(super) fn addresses(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

pub(super) fn authority_profile() -> AuthorityProfile {
    AuthorityProfile {
        common_name: "team-a CA".into(),
        duration: SignedDuration::from_hours(24 * 365 * 10),
        key_algorithm: KeyAlgorithm::EcdsaP256,
    }
}

pub(super) fn leaf_profile() -> LeafProfile {
    LeafProfile {
        common_name: "team-a".into(),
        dns_names: names(&["team-a", "team-a.registries.svc", "localhost"]),
        ip_addresses: addresses(&["127.0.0.1", "10.96.0.10", "fd00::10"]),
        duration: YEAR,
        key_algorithm: KeyAlgorithm::EcdsaP256,
    }
}

pub(super) fn pair() -> (Authority, Leaf) {
    let authority = issue_authority(&authority_profile(), now()).unwrap();
    let leaf = issue_leaf(&authority, &leaf_profile(), now()).unwrap();
    (authority, leaf)
}
