//! Logins for pods of other namespaces that accept them. What the manifest says of a namespace is not enough: whoever rules it must have said so, too.

use std::collections::BTreeSet;

use operator_engine::apply::ObjectRef;

use super::super::Pass;
use super::super::address::Address;
use super::super::elsewhere::accepting::ACCEPTS_PULL_SECRETS;
use super::super::elsewhere::{Place, Plan, named};
use super::decide::Lent;
use crate::desired::{kinds, pull_copy};
use crate::status::{Problem, Reach, summary};

/// `lent`: what is known of the login of each entry; `None`: nothing at the moment.
pub(in crate::parts) fn plan(pass: &Pass<'_>, lent: Option<&[Lent]>, address: &Address, there: &[ObjectRef]) -> Plan {
    let registry = pass.registry;
    let name = pull_copy::name(&registry.namespace, registry.name.as_str());
    let told = |reach| Plan { keep: named(there, &name), reach: Some(reach), ..Plan::default() };
    if let Some(blocked) = &registry.faults.login_copies {
        return told(Reach { fault: Some(Problem::of(blocked)), ..Reach::default() });
    }
    if registry.login_copies.is_empty() {
        return Plan::default();
    }
    if !pass.ctx.settings.sees_namespaces {
        let why = "this operator watches single namespaces and has no right to see others: install it for the whole cluster, or remove namespaces from spec.pullSecrets";
        return told(Reach { problem: Some(Problem::stuck("NeedsClusterScope", why)), ..Reach::default() });
    }
    let (Some(lent), Some(service)) = (lent, address.service()) else {
        let why = "logins are copied when the users and the Service are known; what was copied stays";
        return told(Reach { problem: Some(Problem::retrying("Progressing", why)), ..Reach::default() });
    };
    let hosts = summary::hosts_of_others(registry, service);
    let logins: Vec<_> = lent.iter().map(|lent| lent.login().map(|login| login.docker_config(&hosts))).collect();
    let first = |labels: &_| registry.login_copies.iter().position(|copy| copy.selects(labels));

    let mut plan = Plan { reach: Some(Reach::default()), ..Plan::default() };
    let reach = plan.reach.get_or_insert_default();
    let is_there: BTreeSet<Place> = named(there, &name);
    for (namespace, entry) in pass.ctx.accepting.namespaces(ACCEPTS_PULL_SECRETS, &registry.namespace, first) {
        let place = (namespace.clone(), kinds::SECRET, name.clone());
        match (lent.get(entry), logins.get(entry).and_then(Option::as_ref)) {
            (Some(Lent::Login(_)), Some(login)) => {
                plan.write.push(pull_copy::build(registry, &namespace, login));
            }
            // Who it is cannot be said at the moment.
            (Some(Lent::Open), _) => {
                if !is_there.contains(&place) {
                    reach.missing.push((namespace, "the login is not known yet".to_owned()));
                }
            }
            _ => {
                let user = &registry.login_copies[entry].user;
                reach.problem.get_or_insert_with(|| nobody(user));
                continue;
            }
        }
        plan.keep.insert(place);
        reach.wanted += 1;
    }
    plan
}

fn nobody(user: &str) -> Problem {
    let why = format!(
        "there is no login to copy: user {user} cannot log in, or is known by a hash only; name one of auth.users or usersFrom.secretRef in spec.pullSecrets"
    );
    Problem::stuck("PullUserUnknown", why)
}
