//! Copies of the bundle in namespaces that accept them.

use std::collections::BTreeSet;

use operator_engine::apply::ObjectRef;

use super::super::Pass;
use super::super::certificate::Certificate;
use super::super::elsewhere::accepting::ACCEPTS_BUNDLES;
use super::super::elsewhere::{Plan, named};
use super::nothing_to_trust;
use crate::desired::bundle_copy;
use crate::status::{Problem, Reach};

pub fn plan(pass: &Pass<'_>, certificate: &Certificate, there: &[ObjectRef]) -> Plan {
    let registry = pass.registry;
    let name = bundle_copy::name(&registry.namespace, registry.name.as_str());
    let told = |reach| Plan { keep: named(there, &name), reach: Some(reach), ..Plan::default() };
    if let Some(blocked) = &registry.faults.trusted_namespaces {
        return told(Reach { fault: Some(Problem::of(blocked)), ..Reach::default() });
    }
    let Some(asked) = &registry.trusted_namespaces else { return Plan::default() };
    if !pass.ctx.settings.sees_namespaces {
        let why = "this operator watches single namespaces and has no right to see others: install it for the whole cluster, or remove spec.trust.namespaces";
        return told(Reach { problem: Some(Problem::stuck("NeedsClusterScope", why)), ..Reach::default() });
    }
    if certificate.bundle.is_none() && certificate.report.problem.is_none() {
        let problem = Some(nothing_to_trust("spec.trust.namespaces"));
        return Plan { reach: Some(Reach { problem, ..Reach::default() }), ..Plan::default() };
    }
    let selected = |labels: &_| asked.selects(labels).then_some(());
    let accepting = pass.ctx.accepting.namespaces(ACCEPTS_BUNDLES, &registry.namespace, selected);
    let places = accepting.iter().flat_map(|(namespace, ())| asked.kinds.iter().map(move |kind| (namespace, *kind)));
    let keep: BTreeSet<_> =
        places.clone().map(|(namespace, kind)| (namespace.clone(), bundle_copy::kind(kind), name.clone())).collect();
    // While it cannot be said what the bundle is, what is there stays.
    let write = certificate.bundle.iter().flat_map(|bundle| {
        places.clone().map(move |(namespace, kind)| bundle_copy::build(registry, namespace, kind, bundle))
    });
    let reach = Reach { wanted: accepting.len(), ..Reach::default() };
    Plan { keep, write: write.collect(), reach: Some(reach), ..Plan::default() }
}
