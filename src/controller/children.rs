//! Between `desired`, which says what a registry consists of, and `apply`, which writes objects and knows no registry. Asks and
//! decides nothing.

use std::collections::BTreeSet;

use operator_engine::apply::{self, Applied, Kind, Live, Owner};

use crate::api::PrivateRegistry;
use crate::desired::kinds::{self, KINDS};
use crate::desired::{Hold, Material, Object};
use crate::model::{Child, Resolved};

/// Whom the children belong to.
pub(super) fn owner(registry: &PrivateRegistry) -> Owner {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Owner {
        api_version: "privateregistry.dev/v1alpha1".to_owned(),
        kind: "PrivateRegistry".to_owned(),
        namespace: text(&registry.metadata.namespace),
        name: text(&registry.metadata.name),
        uid: text(&registry.metadata.uid),
    }
}

/// What `desired` built, as `apply` takes it.
pub(super) fn children(objects: Vec<Object>) -> Vec<apply::Child> {
    objects
        .into_iter()
        .filter_map(|object| {
            let hold = match object.hold {
                Hold::Disposable => apply::Hold::Disposable,
                Hold::Kept => apply::Hold::Kept,
                Hold::Released => apply::Hold::KeptUntilOwnerGoes,
            };
            Some(apply::Child { kind: KINDS.named(object.kind)?, name: object.name, hold, body: object.body })
        })
        .collect()
}

/// One of the objects that were applied, as the server has it.
pub(super) fn live(applied: &[Applied], kind: &apply::Kind, name: &str) -> Option<Live> {
    applied
        .iter()
        .find(|done| done.live.kind().kind == kind.kind && done.live.name() == name)
        .map(|done| done.live.clone())
}

/// Names of everything that must stay.
pub(super) fn wanted_names(
    registry: &Resolved,
    material: &Material,
    plan: &[Object],
) -> BTreeSet<(&'static Kind, String)> {
    // Kinds of the foundation are never pruned.
    let named = |object: &Object| Some((KINDS.named(object.kind)?, object.name.clone()));
    let mut wanted: BTreeSet<_> = plan.iter().filter_map(named).collect();
    // What cannot be made again is never pruned, only let go on purpose.
    wanted.extend([Child::Ca, Child::Admin].map(|child| (kinds::SECRET, registry.name.child(child))));
    // A resting Job is not in the plan.
    if material.is_complete(registry) && registry.restart.is_job() {
        wanted.insert((kinds::JOB, registry.name.to_string()));
    }
    // What ran goes on as it is until the new one can run, unless it is to be stopped.
    if !material.is_complete(registry) && !registry.suspend {
        wanted.insert((kinds::JOB, registry.name.to_string()));
        wanted.insert((kinds::DEPLOYMENT, registry.name.to_string()));
        wanted.insert((kinds::POD_DISRUPTION_BUDGET, registry.name.to_string()));
        // What its pods mount stays with it.
        let mounted = [Child::Config, Child::Tls, Child::Htpasswd];
        wanted.extend(mounted.map(|child| (kinds::SECRET, registry.name.child(child))));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::controller::testing::resolved;
    use crate::desired;
    use operator_engine::apply::kinds::Prune;

    #[test]
    fn what_a_registry_stands_on_is_of_kinds_that_are_never_pruned() {
        let registry = resolved(&json!({}), &json!({}));
        let claim = desired::claim::build(&registry);
        for object in desired::foundation(&registry).into_iter().chain(claim) {
            assert_eq!(KINDS.named(object.kind).unwrap().prune, Prune::Never, "{}", object.kind);
        }
    }
}
