//! The bundle for pods of every namespace.

use std::collections::BTreeSet;

use operator_engine::apply::ObjectRef;

use super::super::Pass;
use super::super::certificate::Certificate;
use super::super::elsewhere::{Place, named};
use super::nothing_to_trust;
use crate::desired::{Object, cluster_bundle, kinds};
use crate::status::{Cluster, Problem};

/// What is wanted.
#[derive(Default)]
pub struct Plan {
    /// What must stay if it is there.
    pub keep: BTreeSet<Place>,
    /// What must be there.
    pub write: Option<Object>,
    /// What is said of it; `None`: the manifest does not ask for it.
    pub told: Option<Cluster>,
}

pub fn plan(pass: &Pass<'_>, certificate: &Certificate, there: &[ObjectRef]) -> Plan {
    const FIELD: &str = "spec.trust.clusterTrustBundle";
    let (registry, settings) = (pass.registry, &pass.ctx.settings);
    if !registry.is_trusted_by_the_cluster {
        return Plan::default();
    }
    let object = cluster_bundle::name(&registry.namespace, registry.name.as_str());
    let keep = named(there, &object);
    let told = |problem| Some(Cluster { object: object.clone(), problem });
    if !settings.sees_namespaces {
        let why = format!(
            "this operator watches single namespaces and has no right to what belongs to none: install it for the whole cluster, or remove {FIELD}"
        );
        return Plan { keep, told: told(Some(Problem::stuck("NeedsClusterScope", why))), write: None };
    }
    if let Err(error) = pass.may_write(kinds::CLUSTER_TRUST_BUNDLE, &object) {
        return Plan { keep, told: told(Some(pass.problem(error))), write: None };
    }
    match &certificate.bundle {
        Some(bundle) => Plan { keep, write: Some(cluster_bundle::build(registry, bundle)), told: told(None) },
        None if certificate.report.problem.is_none() => {
            Plan { told: told(Some(nothing_to_trust(FIELD))), ..Plan::default() }
        }
        // While it cannot be said what the bundle is, what is there stays.
        None => {
            let is_there = !keep.is_empty();
            let waits = (!is_there).then(|| Problem::retrying("Progressing", "there is no certificate yet"));
            Plan { keep, told: told(waits), write: None }
        }
    }
}
