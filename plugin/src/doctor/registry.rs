//! Checks of one registry as the operator sees it: nothing that it has judged is judged a second time. Pure.

use private_registry_operator::access::cluster::binding;
use private_registry_operator::api::condition::{
    ADDRESS_READY, AVAILABLE, CERTIFICATE_READY, CLUSTER_TRUSTED, IDENTITIES_READY, NAMESPACES_TRUSTED,
    PULL_SECRETS_COPIED, READY, ROUTE_READY, STORAGE_READY, USERS_READY,
};

use super::check::{Check, Group, Trouble, Verdict};
use super::facts::{Facts, Space};
use crate::output;

/// Of a volume, in percent: pushes fail when nothing is left.
const LITTLE: u64 = 10;
/// In bytes: no layer of a usual image fits.
const NOTHING: u64 = 64 << 20;

pub(super) static GROUP: Group<Facts> = Group {
    name: "",
    checks: &[
        Check { id: "registry", title: "it exists", page: "registry.md", needs: &["api-server"], judge: exists },
        Check {
            id: "followed",
            title: "the operator has seen its last change",
            page: "install.md#is-it-running",
            needs: &["registry"],
            judge: followed,
        },
        Check {
            id: "ready",
            title: "it is as its manifest says",
            page: "conditions.md#ready-reconciling-stalled",
            needs: &["registry"],
            judge: |facts| condition(facts, READY, Weight::Counts),
        },
        Check {
            id: "available",
            title: "it answers",
            page: "conditions.md#available",
            needs: &["registry"],
            judge: |facts| condition(facts, AVAILABLE, Weight::Counts),
        },
        Check {
            id: "address",
            title: "it has its addresses",
            page: "conditions.md#addressready",
            needs: &["registry"],
            judge: |facts| condition(facts, ADDRESS_READY, Weight::Counts),
        },
        Check {
            id: "route",
            title: "its Ingress or Gateway has taken the route",
            page: "conditions.md#routeready",
            needs: &["registry"],
            judge: |facts| condition(facts, ROUTE_READY, Weight::Counts),
        },
        Check {
            id: "certificate",
            title: "its certificate is valid and covers its names",
            page: "conditions.md#certificateready",
            needs: &["registry"],
            judge: |facts| condition(facts, CERTIFICATE_READY, Weight::Counts),
        },
        Check {
            id: "users",
            title: "all of its users can log in",
            page: "conditions.md#usersready",
            needs: &["registry"],
            judge: |facts| condition(facts, USERS_READY, Weight::Counts),
        },
        Check {
            id: "identities",
            title: "logins from elsewhere can be judged",
            page: "conditions.md#identitiesready",
            needs: &["registry"],
            judge: |facts| condition(facts, IDENTITIES_READY, Weight::Others),
        },
        Check {
            id: "cluster-logins",
            title: "it may ask the cluster whose a token is",
            page: "identities.md#the-clusters-own-identities",
            needs: &["registry"],
            judge: cluster_logins,
        },
        Check {
            id: "storage",
            title: "its volume is bound and as large as wanted",
            page: "conditions.md#storageready",
            needs: &["registry"],
            judge: |facts| condition(facts, STORAGE_READY, Weight::Counts),
        },
        Check {
            id: "free-space",
            title: "its volume has room",
            page: "disk-space.md",
            needs: &["registry", "storage"],
            judge: free_space,
        },
        Check {
            id: "pull-secrets-copied",
            title: "other namespaces have its login",
            page: "conditions.md#pullsecretscopied",
            needs: &["registry"],
            judge: |facts| condition(facts, PULL_SECRETS_COPIED, Weight::Others),
        },
        Check {
            id: "namespaces-trusted",
            title: "other namespaces have its authority",
            page: "conditions.md#namespacestrusted",
            needs: &["registry"],
            judge: |facts| condition(facts, NAMESPACES_TRUSTED, Weight::Others),
        },
        Check {
            id: "cluster-trusted",
            title: "pods of every namespace can mount its authority",
            page: "conditions.md#clustertrusted",
            needs: &["registry"],
            judge: |facts| condition(facts, CLUSTER_TRUSTED, Weight::Others),
        },
    ],
};

/// What a condition that is not True keeps from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Somebody who pulls.
    Counts,
    /// Others than who is looked at: it does not count for `Ready` either.
    Others,
}

fn exists(facts: &Facts) -> Option<Verdict> {
    Some(match &facts.registry {
        Ok(registry) if registry.metadata.deletion_timestamp.is_some() => Verdict::Failed(
            Trouble::new(
                "it is being deleted",
                "apply its manifest again when it is gone: images, authority and the generated login are kept with deletionPolicy: Retain",
            )
            .on("operations.md#deleting-a-registry-and-taking-it-back"),
        ),
        Ok(_) => Verdict::good(""),
        Err(why) => Verdict::failed(why.as_str(), ""),
    })
}

fn followed(facts: &Facts) -> Option<Verdict> {
    let status = facts.status();
    let generation = facts.registry.as_ref().ok().and_then(|registry| registry.metadata.generation);
    let look =
        "does the operator run, and does it serve this namespace? Its /readyz names registries that it cannot read";
    Some(match (status.observed_generation, generation) {
        (None, _) => Verdict::failed("no operator has looked at it yet", look),
        (Some(seen), Some(now)) if seen < now => {
            Verdict::failed("its manifest was changed, and the status speaks of what it was before", look)
        }
        _ => Verdict::good(status.operator.map_or(String::new(), |operator| format!("by {operator}"))),
    })
}

/// What a condition says; `None` if the registry has none of that kind.
pub(super) fn condition(facts: &Facts, kind: &str, weight: Weight) -> Option<Verdict> {
    let status = facts.status();
    let Some(found) = status.condition(kind) else {
        // Until it was looked at there are none; Ready is asked for all the same.
        return (kind == READY).then(|| Verdict::skipped("the status does not say it yet"));
    };
    let trouble = || {
        let age = output::age(found.last_transition_time.0, facts.now);
        let message = if found.message.is_empty() { String::new() } else { format!(": {}", found.message) };
        Trouble::new(format!("{} is {} for {age}, {}{message}", found.type_, found.status, found.reason), "")
    };
    Some(match (found.status.as_str(), weight) {
        ("True", _) => Verdict::good(found.reason.as_str()),
        ("False", Weight::Counts) => Verdict::Failed(trouble()),
        _ => Verdict::Warning(trouble()),
    })
}

fn cluster_logins(facts: &Facts) -> Option<Verdict> {
    Some(match facts.unasked_reviews.as_ref()? {
        Ok(unasked) if unasked.is_empty() => Verdict::good(""),
        Ok(unasked) => Verdict::failed(
            format!("its ServiceAccount {} may not create {}", facts.name, unasked.join(" and ")),
            binding(&facts.namespace, &facts.name),
        ),
        Err(why) => Verdict::skipped(format!("cannot be known: {why}")),
    })
}

fn free_space(facts: &Facts) -> Option<Verdict> {
    let space = match facts.space.as_ref()? {
        Ok(space) => space,
        Err(why) => return Some(Verdict::skipped(format!("cannot be known: {why}"))),
    };
    let Space { available, capacity } = *space;
    let percent = available.saturating_mul(100).checked_div(capacity).unwrap_or(0);
    let seen = format!("{} of {} are free", output::size(available), output::size(capacity));
    let cure = "delete images and collect what is free then, or raise spec.storage.persistentVolumeClaim.size";
    Some(match () {
        () if available < NOTHING => Verdict::failed(format!("{seen}: pushes are refused"), cure),
        () if percent < LITTLE => Verdict::warning(format!("{seen} ({percent} %)"), cure),
        () => Verdict::good(seen),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check::{Missing, Outcome};
    use super::super::facts::testing;
    use super::*;

    fn looked(facts: &Facts) -> Vec<(&'static str, Outcome, String)> {
        let section = GROUP.look("", facts, &mut Missing::default());
        section.checks.into_iter().map(|looked| (looked.id, looked.outcome, looked.seen + &looked.cure)).collect()
    }

    fn of(id: &str, facts: &Facts) -> (Outcome, String) {
        let looked = looked(facts);
        let (_, outcome, said) = looked.iter().find(|(found, ..)| *found == id).unwrap_or_else(|| panic!("{looked:?}"));
        (*outcome, said.clone())
    }

    #[test]
    fn a_registry_that_is_well_has_no_fault_and_only_the_checks_of_what_it_has() {
        let looked = looked(&testing::facts());
        let ids: Vec<_> = looked.iter().map(|(id, ..)| *id).collect();
        assert_eq!(ids, ["registry", "followed", "ready", "available", "storage", "free-space"]);
        assert!(looked.iter().all(|(_, outcome, _)| *outcome == Outcome::Good), "{looked:?}");
    }

    #[test]
    fn conditions_are_told_in_the_operators_words() {
        let says = |kind: &str, status: &str| {
            let conditions = [
                testing::condition("Ready", "False", "WaitingForSecret", "create Secret ann"),
                testing::condition(kind, status, "Pending", "the claim waits"),
            ];
            let mut facts = testing::facts();
            facts.registry = Ok(testing::registry(&json!({}), &json!({"conditions": conditions})));
            facts
        };
        let pending = says("StorageReady", "False");
        assert_eq!(
            of("ready", &pending),
            (Outcome::Failed, "Ready is False for 60m, WaitingForSecret: create Secret ann".to_owned())
        );
        assert_eq!(of("storage", &pending).0, Outcome::Failed);
        assert_eq!(of("free-space", &pending).0, Outcome::Skipped, "there is no volume yet");
        // What others lack keeps nobody from pulling, and what is not known is not broken.
        assert_eq!(of("namespaces-trusted", &says("NamespacesTrusted", "False")).0, Outcome::Warning);
        assert_eq!(of("available", &says("Available", "Unknown")).0, Outcome::Warning);
        assert_eq!(of("available", &says("Available", "False")).0, Outcome::Failed);
    }

    #[test]
    fn a_registry_that_is_not_there_is_the_only_fault() {
        let mut facts = testing::facts();
        facts.registry = Err("there is no PrivateRegistry registries/team-a".to_owned());
        let looked = looked(&facts);
        assert_eq!((looked[0].0, looked[0].1), ("registry", Outcome::Failed));
        assert!(looked[1..].iter().all(|(_, outcome, _)| *outcome == Outcome::Skipped), "{looked:?}");
    }

    #[test]
    fn a_manifest_that_nobody_follows_is_told() {
        let mut facts = testing::facts();
        facts.registry.as_mut().unwrap().metadata.generation = Some(2);
        assert!(of("followed", &facts).1.contains("what it was before"));
        facts.registry.as_mut().unwrap().status = None;
        assert_eq!(of("followed", &facts).0, Outcome::Failed);
        assert_eq!(of("ready", &facts), (Outcome::Skipped, "the status does not say it yet".to_owned()));
    }

    #[test]
    fn a_registry_that_may_not_ask_the_cluster_is_told_with_the_command() {
        let mut facts = testing::facts();
        facts.unasked_reviews = Some(Ok(vec!["tokenreviews"]));
        let (outcome, said) = of("cluster-logins", &facts);
        assert!(outcome == Outcome::Failed && said.contains("--serviceaccount=registries:team-a"), "{said}");
        facts.unasked_reviews = Some(Ok(Vec::new()));
        assert_eq!(of("cluster-logins", &facts).0, Outcome::Good);
        facts.unasked_reviews = Some(Err("no right".to_owned()));
        assert_eq!(of("cluster-logins", &facts).0, Outcome::Skipped);
    }

    #[test]
    fn little_space_is_a_warning_and_none_a_failure() {
        for (available, outcome) in [
            (50 << 30, Outcome::Good),
            (9 << 30, Outcome::Warning),
            (NOTHING - 1, Outcome::Failed),
            (0, Outcome::Failed),
        ] {
            let mut facts = testing::facts();
            facts.space = Some(Ok(Space { available, capacity: 100 << 30 }));
            assert_eq!(of("free-space", &facts).0, outcome, "{available}");
        }
        let mut facts = testing::facts();
        facts.space = Some(Err("no right".to_owned()));
        assert_eq!(of("free-space", &facts).0, Outcome::Skipped);
    }
}
