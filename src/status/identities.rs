//! Whether logins from elsewhere can be judged: what the pods of a registry say of it, and what a user reads. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::merge::{Finding, Truth};
use super::workload::Workload;
use crate::access::cluster::binding;
use crate::access::report::{self, Report, Standing};
use crate::api::{condition, reason};
use crate::model::Resolved;
use crate::model::resolved::TrustedIssuer;

/// Looks in a row that told nothing, before what was told earlier counts no more: a kubelet needs so long to bring a renewed certificate, and an issuer that is
/// asked the first time to answer.
const PATIENCE: u32 = 5;

/// Who says who somebody is: first the cluster, then the issuers as they stand in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Voucher {
    /// The registry's own cluster.
    Cluster,
    /// The issuer with this number.
    Issuer(usize),
}

/// Why nothing is known of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Silence {
    /// It cannot be reached from here.
    Unreachable,
    /// It answers, and not as pods of this version do.
    Untold,
}

/// What is to be known of a registry: who is to be asked about, as pods call them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether the cluster's tokens are logins.
    cluster: bool,
    /// Numbers of issuers by what [`Report`] calls them.
    issuers: BTreeMap<String, usize>,
}

/// What all pods together say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Heard {
    /// Nothing yet.
    #[default]
    Nothing,
    /// They have what they need.
    Good,
    /// At least one lacks something.
    Lacking(BTreeMap<Voucher, Standing>),
    /// At least one cannot be asked.
    Silent(Silence),
}

impl Wanted {
    /// `None`: there are no logins from elsewhere.
    #[must_use]
    pub fn of(registry: &Resolved) -> Option<Self> {
        let named = registry.issuers().iter().map(|issuer| (report::name_of(&issuer.login), issuer.number));
        let wanted = Self { cluster: registry.cluster_logins().is_some(), issuers: named.collect() };
        (wanted != Self::default()).then_some(wanted)
    }

    /// What these pods say together: the worst counts, and what is known is told although others say nothing.
    #[must_use]
    pub fn heard(&self, pods: &[Result<Report, Silence>]) -> Heard {
        let reports = || pods.iter().filter_map(|pod| pod.as_ref().ok());
        let cluster = self.cluster.then(|| {
            let said = |report: &Report| report.cluster.unwrap_or(Standing::Pending);
            (Voucher::Cluster, worst(reports().map(said)))
        });
        let issuers = self.issuers.iter().map(|(name, number)| {
            let said = |report: &Report| report.issuers.get(name).copied().unwrap_or(Standing::Pending);
            (Voucher::Issuer(*number), worst(reports().map(said)))
        });
        let all: BTreeMap<_, _> = cluster.into_iter().chain(issuers).collect();
        let lacking: BTreeMap<_, _> =
            all.iter().filter(|(_, standing)| standing.is_lack()).map(|(of, standing)| (*of, *standing)).collect();
        let silence = pods.iter().filter_map(|pod| pod.as_ref().err()).min();
        match silence {
            _ if !lacking.is_empty() => Heard::Lacking(lacking),
            Some(silence) => Heard::Silent(*silence),
            None if !pods.is_empty() && all.values().all(|standing| *standing == Standing::Good) => Heard::Good,
            None => Heard::Nothing,
        }
    }
}

/// One that lacks something says more than others, and one that does not know yet more than one that lacks nothing.
fn worst(standings: impl Iterator<Item = Standing>) -> Standing {
    standings.max_by_key(|standing| (standing.is_lack(), *standing)).unwrap_or(Standing::Pending)
}

impl Heard {
    /// Whether it says how it is.
    #[must_use]
    pub fn is_said(&self) -> bool {
        matches!(self, Self::Good | Self::Lacking(_))
    }

    /// What counts after another look, the `looks`-th in a row that told nothing, if it did not: a pod that is busy is not one that lacks something, nor one
    /// that is well again.
    #[must_use]
    pub fn after(self, before: &Self, looks: u32) -> Self {
        if before.is_said() && !self.is_said() && looks < PATIENCE { before.clone() } else { self }
    }
}

/// The condition; `None`: there are no logins from elsewhere. While nothing was heard, what was told `before` of the same manifest stays.
pub(super) fn finding(
    registry: &Resolved,
    heard: &Heard,
    workload: Option<&Workload>,
    before: Option<&Condition>,
) -> Option<Finding> {
    let wanted = Wanted::of(registry)?;
    let say = |status: Truth, reason: &str, words: String| {
        Some(Finding::new(condition::IDENTITIES_READY, status, reason, words))
    };
    let unknown = |reason: &str, words: &str| say(Truth::Unknown, reason, words.to_owned());
    match workload {
        None => return unknown(reason::NOT_RUNNING, "no pod is started yet"),
        Some(Workload::Stopped { reason, .. } | Workload::Failed { reason, .. }) => {
            return unknown(reason, "nothing runs that could be asked");
        }
        Some(workload) if workload.ready_pods() == 0 => return unknown(reason::NOT_RUNNING, "no pod is ready"),
        Some(_) => {}
    }
    match heard {
        Heard::Nothing => match before.filter(|told| told.observed_generation == Some(registry.generation)) {
            Some(told) if ["True", "False"].contains(&told.status.as_str()) => {
                say((told.status == "True").into(), &told.reason, told.message.clone())
            }
            _ => unknown(reason::PROGRESSING, "the pods are finding out whether they can judge logins from elsewhere"),
        },
        Heard::Good => {
            let cluster = wanted.cluster.then(|| "the cluster".to_owned());
            let issuers = registry.issuers().iter().map(|issuer| issuer.login.name.clone());
            let names: Vec<_> = cluster.into_iter().chain(issuers).collect();
            let more = names.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let names = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
            say(Truth::True, reason::ACCEPTING, format!("tokens of {names}{more} are logins"))
        }
        Heard::Lacking(lacking) => {
            let told = lacking.iter().filter_map(|(of, standing)| told(registry, *of, *standing));
            // Numbers may be of an older manifest, for a moment.
            let Some((reason, words)) = told.into_iter().next() else {
                return unknown(reason::PROGRESSING, "the pods are being asked about another version of the manifest");
            };
            let more = if lacking.len() > 1 { format!(" (and {} more)", lacking.len() - 1) } else { String::new() };
            say(Truth::False, reason, format!("{words}{more}"))
        }
        Heard::Silent(Silence::Unreachable) => unknown(
            reason::UNREACHABLE,
            "the operator cannot reach the pods; kubectl registry doctor asks through the API server, and the log of container sidecar tells",
        ),
        Heard::Silent(Silence::Untold) if registry.protocol.client_authorities.is_some() => unknown(
            reason::NOT_TOLD,
            "the pods answer only who has a certificate (spec.tls.clientCASecretRef), and the operator has none; the log of container sidecar tells",
        ),
        Heard::Silent(Silence::Untold) => unknown(
            reason::NOT_TOLD,
            "a pod does not say, as one of an older version does; it does when it has been replaced (kubectl registry restart)",
        ),
    }
}

/// Names that are listed at most.
const NAMED: usize = 8;

/// Reason and words for what is missing; `None`: the manifest has no such issuer.
fn told(registry: &Resolved, of: Voucher, standing: Standing) -> Option<(&'static str, String)> {
    let log = format!(
        "kubectl --namespace {} logs --selector privateregistry.dev/registry={} --container sidecar",
        registry.namespace, registry.name
    );
    let number = match of {
        Voucher::Cluster => return Some(told_of_cluster(registry, standing, &log)),
        Voucher::Issuer(number) => number,
    };
    let TrustedIssuer { login, keys, .. } = registry.issuers().iter().find(|issuer| issuer.number == number)?;
    let (name, url) = (&login.name, &login.url);
    let (reason, words) = match (standing, keys) {
        (Standing::Missing, Some((map, key))) => {
            (reason::ISSUER_KEYS_MISSING, format!("ConfigMap {map} does not exist, or has no key {key}; create it"))
        }
        (Standing::Unusable, Some((map, key))) => (
            reason::ISSUER_KEYS_UNUSABLE,
            format!("ConfigMap {map} holds under {key} no JSON Web Key Set that can be used; put the issuer's there"),
        ),
        (Standing::Untrusted, _) => (
            reason::ISSUER_UNTRUSTED,
            format!(
                "{url} shows a certificate that does not count; put who signs it into certificateAuthority, in PEM"
            ),
        ),
        (Standing::Unusable | Standing::Missing, _) => (
            reason::ISSUER_KEYS_UNUSABLE,
            format!(
                "what {url} publishes cannot be used; write the issuer as {url}/.well-known/openid-configuration has it. {log} says what is wrong"
            ),
        ),
        _ => (
            reason::ISSUER_UNREACHABLE,
            format!(
                "the registry's pod cannot reach {url}, and has no keys that still count; let it reach that host, or put the keys into a ConfigMap \
                 (jwksConfigMapRef). {log} says more"
            ),
        ),
    };
    Some((
        reason,
        format!("auth.token.issuers[{number}], {name}: {words}. Until then its tokens are no logins; all others are"),
    ))
}

fn told_of_cluster(registry: &Resolved, standing: Standing, log: &str) -> (&'static str, String) {
    let (reason, words) = match standing {
        Standing::Forbidden => (
            reason::CLUSTER_FORBIDS,
            format!(
                "ServiceAccount {} may not create tokenreviews and subjectaccessreviews; an administrator runs: {}",
                registry.name,
                binding(&registry.namespace, registry.name.as_str())
            ),
        ),
        Standing::Unauthorized => (
            reason::ACCOUNT_UNKNOWN,
            format!(
                "the API server does not know the pods' ServiceAccount {0}, as after it was deleted; run: kubectl registry restart {0}",
                registry.name
            ),
        ),
        _ => (
            reason::CLUSTER_UNREACHABLE,
            format!("the API server does not answer the registry's pod; let it reach the API server. {log} says more"),
        ),
    };
    (reason, format!("auth.token.kubernetes: {words}. Until then tokens of the cluster are no logins; all others are"))
}

#[cfg(test)]
#[path = "identities_tests.rs"]
mod tests;
