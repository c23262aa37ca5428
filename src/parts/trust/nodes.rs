//! Orders to the agents on nodes, and what the agents report.

use std::collections::BTreeSet;
use std::sync::Arc;

use operator_engine::apply::ObjectRef;

use super::super::address::Address;
use super::super::certificate::Certificate;
use super::super::context::host_of_a_node;
use super::super::{Error, Pass};
use super::reports::Tally;
use super::{Plan, named, nothing_to_trust};
use crate::api::PrivateRegistry;
use crate::desired::kinds;
use crate::desired::node_order::{self, Refused};
use crate::status::{Problem, Reach};

pub(super) async fn plan(pass: &Pass<'_>, certificate: &Certificate, address: &Address, there: &[ObjectRef]) -> Plan {
    let registry = pass.registry;
    let name = node_order::name(registry);
    let agents = pass.ctx.settings.node_agents.as_ref();
    let home = agents.map(|agents| agents.orders.clone()).unwrap_or_default();
    let mut keep = named(there, &name);
    // In the operator's own namespace an order is a child like others.
    if home == registry.namespace {
        keep.insert((home.clone(), kinds::CONFIG_MAP, name.clone()));
    }
    let told = |reach| Plan { keep: keep.clone(), reach: Some(reach), ..Plan::default() };
    if let Some(blocked) = &registry.faults.trusted_nodes {
        return told(Reach { fault: Some(Problem::of(blocked)), ..Reach::default() });
    }
    let Some(asked) = &registry.trusted_nodes else { return Plan::default() };
    let Some(agents) = agents else {
        let why = "there are no node agents: an administrator switches them on with nodeTrust.enabled of the operator's chart, for an operator of the whole cluster; or remove spec.trust.nodes";
        return told(Reach { problem: Some(Problem::stuck("NoNodeAgents", why)), ..Reach::default() });
    };
    if certificate.bundle.is_none() && certificate.report.problem.is_none() {
        let problem = Some(nothing_to_trust("spec.trust.nodes"));
        return Plan { reach: Some(Reach { problem, ..Reach::default() }), ..Plan::default() };
    }
    let (Some(bundle), Some(service)) = (&certificate.bundle, address.service()) else {
        let why = "nodes are told when certificate and Service are as the manifest says; what they were told stays";
        return told(Reach { problem: Some(Problem::retrying("Progressing", why)), ..Reach::default() });
    };
    let taken = taken(pass);
    let hosts = node_order::hosts(registry, service, |host| agents.allow(&registry.namespace, host), &taken);
    let order = node_order::build(registry, &home, bundle, &hosts.given, asked);
    keep.insert((home.clone(), kinds::CONFIG_MAP, name.clone()));

    let (tally, look_again) = match pass.ctx.reports.of(pass.key, &pass.ctx.client, &agents.namespace).await {
        Ok(found) => found,
        Err(source) => {
            let error = Error::Reports { namespace: agents.namespace.clone(), source: Box::new(source) };
            let problem = Some(pass.problem(error));
            return Plan {
                keep,
                write: vec![order],
                reach: Some(Reach { problem, ..Reach::default() }),
                look_again: None,
            };
        }
    };
    let mut reach = reach(&tally, &node_order::fingerprint(&order));
    if let Some(refused) = hosts.refused {
        reach.problem.get_or_insert(without_a_host(&registry.namespace, &refused));
    }
    Plan { keep, write: vec![order], reach: Some(reach), look_again }
}

fn without_a_host(namespace: &str, refused: &Refused) -> Problem {
    match refused {
        Refused::Taken(host) => Problem::stuck(
            "HostTaken",
            format!(
                "nodes are not told of {host}: an older registry with spec.trust.nodes has it in spec.addresses, too; take it out of one of them"
            ),
        ),
        Refused::NotAllowed(host) => Problem::stuck(
            "HostNotAllowed",
            format!(
                "nodes are not told of {host}: an administrator allows it with {namespace}={host} in nodeTrust.hosts of the operator's chart; or remove it from spec.addresses"
            ),
        ),
    }
}

/// What the nodes' reports come to, for what is ordered now.
fn reach(tally: &Tally, ordered: &str) -> Reach {
    let late = tally.written.iter().filter(|(of, _)| *of != ordered).map(|(_, nodes)| nodes);
    let written = tally.written.values().map(|nodes| nodes.count).sum::<usize>();
    let waiting = late.clone().flat_map(|nodes| &nodes.first);
    let waiting = waiting.map(|node| (node.clone(), "has not reported what is ordered now yet".to_owned()));
    let missing = tally.refused.iter().cloned().chain(waiting).collect();
    let problem = (tally.nodes == 0).then(|| {
        let why = "no node agent has reported yet; see kubectl get daemonset in the agents' namespace";
        Problem::retrying("NoReports", why)
    });
    let lacking = tally.refused_count + late.map(|nodes| nodes.count).sum::<usize>();
    Reach { wanted: written + tally.refused_count, lacking, missing, problem, ..Reach::default() }
}

/// Hosts that another registry has ordered, which came first.
fn taken(pass: &Pass<'_>) -> BTreeSet<String> {
    let rank = |registry: &PrivateRegistry| {
        let meta = &registry.metadata;
        (meta.creation_timestamp.as_ref().map(|time| time.0), meta.namespace.clone(), meta.name.clone())
    };
    let own = rank(pass.manifest);
    let came_first = |registry: &Arc<PrivateRegistry>| rank(registry) < own;
    let hosts = pass.registry.addresses.iter().map(ToString::to_string);
    hosts
        .filter(|host| {
            let (kind, namespace, name) = host_of_a_node(host.clone());
            let rivals = pass.ctx.references.to(kind, &namespace, &name);
            rivals.iter().filter_map(|rival| pass.ctx.registries.get(rival)).any(|rival| came_first(&rival))
        })
        .collect()
}
