//! Logins that pods have from `spec.pullSecrets` where more than the manifest is asked: those of other namespaces, whoever rules a namespace must have accepted
//! it; and tokens of ServiceAccounts, the registry's own namespace included.

use std::collections::BTreeSet;
use std::sync::Arc;

use operator_engine::apply::ObjectRef;

use super::super::Pass;
use super::super::address::Address;
use super::super::elsewhere::accepting::ACCEPTS_PULL_SECRETS;
use super::super::elsewhere::{Place, Plan, named};
use super::accounts::AccountSecret;
use super::decide::Lent;
use crate::access::account::Account;
use crate::desired::{kinds, pull_copy};
use crate::model::PullAs;
use crate::status::{Problem, Reach, summary};

/// `lent`: what is known of the login of each entry; `None`: nothing at the moment.
pub(in crate::parts) fn plan(pass: &Pass<'_>, lent: Option<&[Lent]>, address: &Address, there: &[ObjectRef]) -> Plan {
    let registry = pass.registry;
    let name = pull_copy::name(&registry.namespace, registry.name.as_str());
    let mut plan = at_home(pass, address);
    // What was copied stays.
    let stays = |plan: Plan, tell: &dyn Fn(&mut Reach)| {
        let mut reach = plan.reach.unwrap_or_default();
        tell(&mut reach);
        Plan { keep: named(there, &name), reach: Some(reach), ..plan }
    };
    if let Some(blocked) = &registry.faults.login_copies {
        return stays(plan, &|reach| reach.fault = Some(Problem::of(blocked)));
    }
    if registry.login_copies.is_empty() {
        return plan;
    }
    if !pass.ctx.settings.sees_namespaces {
        let why = "this operator watches single namespaces and has no right to see others: install it for the whole cluster, or remove namespaces from spec.pullSecrets";
        return stays(plan, &|reach| reach.problem = Some(Problem::stuck("NeedsClusterScope", why)));
    }
    let (Some(lent), Some(service)) = (lent, address.service()) else {
        let why = "logins are copied when the users and the Service are known; what was copied stays";
        return stays(plan, &|reach| reach.problem = Some(Problem::retrying("Progressing", why)));
    };
    let hosts = Arc::new(summary::hosts_of_others(registry, service));
    let logins: Vec<_> = lent.iter().map(|lent| lent.login().map(|login| login.docker_config(&hosts))).collect();
    let first = |labels: &_| registry.login_copies.iter().position(|copy| copy.selects(labels));

    let mut reach = plan.reach.take().unwrap_or_default();
    let is_there: BTreeSet<Place> = named(there, &name);
    for (namespace, entry) in pass.ctx.accepting.namespaces(ACCEPTS_PULL_SECRETS, &registry.namespace, first) {
        let place = (namespace.clone(), kinds::SECRET, name.clone());
        match (&registry.login_copies[entry].whom, lent.get(entry), logins.get(entry).and_then(Option::as_ref)) {
            (PullAs::ServiceAccount(account), ..) => match account_of(pass, &namespace, account) {
                Ok(account) => plan.tokens.push(AccountSecret::new(account, name.clone(), &hosts)),
                Err(problem) => {
                    reach.problem.get_or_insert(problem);
                }
            },
            (_, Some(Lent::Login(_)), Some(login)) => {
                plan.write.push(pull_copy::build(registry, &namespace, login));
            }
            // Who it is cannot be said at the moment.
            (_, Some(Lent::Open), _) => {
                if !is_there.contains(&place) {
                    reach.missing.push((namespace, "the login is not known yet".to_owned()));
                }
            }
            (PullAs::User(user), ..) => {
                reach.problem.get_or_insert_with(|| nobody(user));
                continue;
            }
        }
        plan.keep.insert(place);
        reach.wanted += 1;
    }
    plan.reach = Some(reach);
    plan
}

/// Tokens of the registry's own namespace.
fn at_home(pass: &Pass<'_>, address: &Address) -> Plan {
    let registry = pass.registry;
    let mut plan = Plan::default();
    let accounts = registry.pull_secrets.iter().filter_map(|secret| match &secret.whom {
        PullAs::ServiceAccount(account) => Some((&secret.name, account)),
        PullAs::User(_) => None,
    });
    for (secret, account) in accounts {
        let reach = plan.reach.get_or_insert_default();
        // They name every address, so they wait for the Service.
        let Some(service) = address.service() else {
            let why = "tokens are asked for when the Service is known; what is there stays";
            reach.problem.get_or_insert_with(|| Problem::retrying("Progressing", why));
            continue;
        };
        match account_of(pass, &registry.namespace, account) {
            Ok(account) => {
                let hosts = Arc::new(summary::image_hosts(registry, service));
                plan.tokens.push(AccountSecret::new(account, secret.clone(), &hosts));
                reach.wanted += 1;
            }
            Err(problem) => _ = reach.problem.get_or_insert(problem),
        }
    }
    plan
}

/// The ServiceAccount of this name. What its token is good for must be this registry and nothing else: who writes manifests here would otherwise choose for
/// whom the cluster vouches.
fn account_of(pass: &Pass<'_>, namespace: &str, name: &str) -> Result<Account, Problem> {
    let own = format!("{}.{}.svc", pass.registry.name, pass.registry.namespace);
    if pass.registry.cluster_logins().is_none_or(|logins| logins.audience != own) {
        let why = format!(
            "spec.pullSecrets[].serviceAccountName needs spec.auth.token.kubernetes with the audience {own}, which is this registry and nobody else"
        );
        return Err(Problem::stuck("InvalidManifest", why));
    }
    Ok(Account { namespace: namespace.to_owned(), name: name.to_owned(), audience: own })
}

fn nobody(user: &str) -> Problem {
    let why = format!(
        "there is no login to copy: user {user} cannot log in, or is known by a hash only; name one of auth.users or usersFrom.secretRef in spec.pullSecrets"
    );
    Problem::stuck("PullUserUnknown", why)
}
