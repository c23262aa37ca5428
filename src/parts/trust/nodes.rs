//! Orders to the agents on nodes, and what the agents report.

use std::collections::BTreeSet;

use operator_engine::apply::ObjectRef;
use operator_engine::work::queue::Key;

use super::super::address::Address;
use super::super::certificate::Certificate;
use super::super::context::host_of_a_node;
use super::super::elsewhere::{Plan, named};
use super::super::workload::State;
use super::super::{Error, Pass};
use super::nothing_to_trust;
use super::proofs::{self, Found};
use super::reports::Tally;
use crate::api::PrivateRegistry;
use crate::desired::kinds;
use crate::desired::node_order::{self, Refused};
use crate::desired::node_proof::{self, Proofs};
use crate::model::{NodeAgents, Resolved};
use crate::node::orders;
use crate::node::proof::Verdict;
use crate::status::{Problem, Reach, summary};

pub async fn plan(
    pass: &Pass<'_>,
    certificate: &Certificate,
    address: &Address,
    running: &State,
    there: &[ObjectRef],
) -> Plan {
    let registry = pass.registry;
    let name = node_order::name(registry);
    let agents = pass.ctx.settings.node_agents.as_ref();
    let home = agents.map(|agents| agents.orders.clone()).unwrap_or_default();
    let names = [name.clone(), proofs_name(registry)];
    let mut keep: BTreeSet<_> = names.iter().flat_map(|name| named(there, name)).collect();
    // In the operator's own namespace they are children like others.
    if home == registry.namespace {
        keep.extend(names.map(|name| (home.clone(), kinds::CONFIG_MAP, name)));
    }
    let told = |reach| Plan { keep: keep.clone(), reach: Some(reach), ..Plan::default() };
    if let Some(blocked) = &registry.faults.trusted_nodes {
        return told(Reach { fault: Some(Problem::of(blocked)), ..Reach::default() });
    }
    let Some(asked) = &registry.trusted_nodes else {
        if let Err(error) = proofs::clear(pass.key, pass.ctx).await {
            pass.failures.failed(pass.key, &error);
        }
        return Plan::default();
    };
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
    let taken = match taken(pass, agents).await {
        Ok(taken) => taken,
        Err(error) => return told(Reach { problem: Some(pass.problem(error)), ..Reach::default() }),
    };
    let hosts = node_order::hosts(registry, service, |host| agents.allow(&registry.namespace, host), &taken);
    let (order, ordered) = node_order::build(registry, &home, bundle, &hosts.given, asked);
    keep.insert((home.clone(), kinds::CONFIG_MAP, name));
    let mut plan = Plan { keep, write: vec![order], ..Plan::default() };

    let (tally, later) = match pass.ctx.reports.of(pass.key, &pass.ctx.client, &agents.namespace).await {
        Ok(found) => found,
        Err(source) => {
            let error = Error::Reports { namespace: agents.namespace.clone(), source: Box::new(source) };
            plan.reach = Some(Reach { problem: Some(pass.problem(error)), ..Reach::default() });
            return plan;
        }
    };
    plan.look_again = later;
    let mut reach = reach(&tally, &ordered);
    if !agents.is_proved
        && let Err(error) = proofs::clear(pass.key, pass.ctx).await
    {
        pass.failures.failed(pass.key, &error);
    }
    if agents.is_proved
        && let Some(host) = hosts.given.first()
    {
        let written = tally.written.get(&ordered).cloned().unwrap_or_default();
        plan.keep.insert((home.clone(), kinds::CONFIG_MAP, proofs_name(registry)));
        match prove(pass, agents, running, &ordered, &host.host, &written).await {
            Ok(Some(found)) => {
                plan.write.push(node_proof::build(registry, &home, &found.proofs));
                plan.look_again = later.into_iter().chain(found.look_again).min();
                judge(&mut reach, &written, &found.proofs);
            }
            Ok(None) => reach.note = Some("not proved by a pull while the registry does not answer"),
            Err(error) => _ = reach.problem.get_or_insert(pass.problem(error)),
        }
    }
    if let Some(refused) = hosts.refused {
        reach.problem.get_or_insert(without_a_host(&registry.namespace, &refused));
    }
    plan.reach = Some(reach);
    plan
}

fn proofs_name(registry: &Resolved) -> String {
    node_proof::name(&registry.namespace, registry.name.as_str())
}

/// Goes on with the proofs; `None` while there is nothing that a pull could tell.
async fn prove(
    pass: &Pass<'_>,
    agents: &NodeAgents,
    running: &State,
    ordered: &str,
    host: &str,
    written: &BTreeSet<String>,
) -> Result<Option<Found>, Error> {
    let name = proofs_name(pass.registry);
    let stored = pass.ctx.engine.read_in(&pass.owner, kinds::CONFIG_MAP, &agents.orders, &name).await?;
    let stored = proofs::read(stored.as_ref().map(|live| &live.value()["data"]));
    // What this pass found, not what was reported before it: nothing need happen after that, and so no other pass.
    if pass.registry.suspend || !summary::is_available(running.workload.as_ref(), &running.answer) {
        let is_proved = |node: &String| stored.get(node).is_some_and(|proof| proof.is_of(ordered));
        // What is proved stays so.
        return Ok(written.iter().all(is_proved).then_some(Found { proofs: stored, look_again: None }));
    }
    proofs::settle(pass, agents, ordered, host, written, &stored).await.map(Some)
}

/// Only what is proved counts.
fn judge(reach: &mut Reach, written: &BTreeSet<String>, proofs: &Proofs) {
    for node in written {
        let why = match proofs.get(node).map(|proof| (proof.verdict, &proof.message)) {
            Some((Verdict::Trusted, _)) => continue,
            Some((Verdict::Refused, said)) => {
                format!("its runtime refuses the certificate although the files are there: {said}")
            }
            Some((Verdict::Unclear, said)) => format!("a pull did not come as far as the registry: {said}"),
            Some((Verdict::Asked, _)) | None => "is being proved by a pull".to_owned(),
        };
        reach.lacking += 1;
        reach.missing.push((node.clone(), why));
    }
    reach.note = Some("each is proved by a pull");
}

fn without_a_host(namespace: &str, refused: &Refused) -> Problem {
    match refused {
        Refused::Taken(host) => Problem::stuck(
            "HostTaken",
            format!(
                "nodes are not told of {host}: another registry with spec.trust.nodes has it in spec.addresses or spec.route, too; take it out of one of them"
            ),
        ),
        Refused::NotAllowed(host) => Problem::stuck(
            "HostNotAllowed",
            format!(
                "nodes are not told of {host}: an administrator allows it with {namespace}={host} in nodeTrust.hosts of the operator's chart; or remove it from spec.addresses or spec.route"
            ),
        ),
    }
}

/// What the nodes' reports come to, for what is ordered now.
fn reach(tally: &Tally, ordered: &str) -> Reach {
    let late = tally.written.iter().filter(|(of, _)| *of != ordered).flat_map(|(_, nodes)| nodes);
    // Those that have not heard of it may be meant, or not.
    let not_meant = tally.not_meant.get(ordered).copied().unwrap_or_default();
    let written = tally.written.values().map(BTreeSet::len).sum::<usize>();
    let silent = tally.nodes.saturating_sub(written + tally.refused_count + not_meant);
    let lacking = tally.refused_count + late.clone().count() + silent;
    let waiting = late.map(|node| (node.clone(), "has not reported what is ordered now yet".to_owned()));
    let others = (silent > 0).then(|| ("other nodes".to_owned(), "have not reported it yet".to_owned()));
    let missing: Vec<_> = tally.refused.iter().cloned().chain(waiting).chain(others).collect();
    let problem = (tally.nodes == 0).then(|| {
        let why = "no node agent has reported yet; see kubectl get daemonset in the agents' namespace";
        Problem::retrying("NoReports", why)
    });
    Reach { wanted: written + tally.refused_count + silent, lacking, missing, problem, ..Reach::default() }
}

/// Hosts that another registry has on nodes, which may have them. Whoever has one keeps it, whoever comes; of two that have none, or both, the older one does.
async fn taken(pass: &Pass<'_>, agents: &NodeAgents) -> Result<BTreeSet<String>, Error> {
    let rank = |registry: &PrivateRegistry| {
        let meta = &registry.metadata;
        (meta.creation_timestamp.as_ref().map(|time| time.0), meta.namespace.clone(), meta.name.clone())
    };
    let mut taken = BTreeSet::new();
    for address in &pass.registry.addresses {
        let (kind, namespace, name) = host_of_a_node(address.to_string());
        let rivals = pass.ctx.references.to(kind, &namespace, &name);
        let rivals: Vec<_> = rivals.iter().filter(|rival| *rival != pass.key).collect();
        let ours = !rivals.is_empty() && has(pass, agents, pass.key, &name).await?;
        for rival in rivals.into_iter().filter(|rival| agents.allow(&rival.namespace, address)) {
            let Some(registry) =
                pass.ctx.registries.get(rival).filter(|rival| rival.metadata.deletion_timestamp.is_none())
            else {
                continue;
            };
            let theirs = has(pass, agents, rival, &name).await?;
            if theirs && !ours || theirs == ours && rank(&registry) < rank(pass.manifest) {
                taken.insert(name.clone());
            }
        }
    }
    Ok(taken)
}

/// Whether a registry's order names this host.
async fn has(pass: &Pass<'_>, agents: &NodeAgents, registry: &Key, host: &str) -> Result<bool, Error> {
    let order = orders::name(&registry.namespace, &registry.name);
    let live = pass.ctx.engine.read(kinds::CONFIG_MAP, &agents.orders, &order).await?;
    let text = live.as_ref().and_then(|live| live.value()["data"][orders::KEY].as_str());
    Ok(text.is_some_and(|text| orders::names(text, host)))
}
