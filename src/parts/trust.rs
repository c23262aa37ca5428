//! Who else is told which authorities to trust: copies of the bundle in other namespaces. A copy follows what is published in the registry's own namespace,
//! never what is only intended; and whoever rules another namespace can keep a copy from being written, so nothing else of the registry hangs on it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use operator_engine::apply::{self, Applied, Kind, ObjectRef, Outcome};

use super::certificate::Certificate;
use super::{Error, Pass, words};
use crate::desired::bundle_copy;
use crate::model::TrustedNamespaces;
use crate::status::{self, Problem, Reach};

/// How long one pass writes copies; what is left has the next one.
const AT_ONCE: Duration = Duration::from_secs(10);
/// How soon the next one comes.
const GO_ON: Duration = Duration::from_millis(1);

/// What the part gives back.
#[derive(Default)]
pub struct Trust {
    /// What the status says.
    pub report: status::Trust,
    /// When it is looked at again although nothing has changed.
    pub look_again: Option<Duration>,
}

/// A copy that should be there: of this kind, in this namespace.
type Place = (String, &'static Kind);

/// Brings the copies to what is wanted. `is_held`: the registry does not go before its copies.
pub async fn settle(pass: &Pass<'_>, certificate: &Certificate, is_held: bool) -> Trust {
    if let Some(blocked) = &pass.registry.faults.trust {
        let report = status::Trust { fault: Some(Problem::of(blocked)), namespaces: None };
        return Trust { report, look_again: None };
    }
    let there = pass.ctx.engine.elsewhere(&pass.owner);
    let Some(asked) = &pass.registry.trusted_namespaces else {
        let mut work = Work::new(pass);
        work.remove(&there, &BTreeSet::new()).await;
        return Trust { look_again: work.look_again(), report: status::Trust::default() };
    };
    if !pass.ctx.settings.sees_namespaces {
        let why = "this operator watches single namespaces and has no right to see others: install it for the whole cluster, or remove spec.trust.namespaces";
        let reach = Reach { problem: Some(("NeedsClusterScope", why.to_owned())), ..Reach::default() };
        return Trust { report: told(reach), look_again: None };
    }
    let namespaces = pass.ctx.namespaces.accepting(&pass.registry.namespace, |labels| asked.selects(labels));
    let is_settled = certificate.bundle.is_some() || certificate.report.problem.is_some();
    // Without a bundle there is nothing to copy; while it cannot be said what it is, what is there stays.
    let wanted: BTreeSet<Place> = match &certificate.bundle {
        None if certificate.report.problem.is_none() => BTreeSet::new(),
        _ => places(&namespaces, asked),
    };
    let mut work = Work::new(pass);
    work.remove(&there, &wanted).await;
    if let Some(bundle) = certificate.bundle.as_deref().filter(|_| is_held) {
        work.write(&namespaces, asked, bundle).await;
    }
    let look_again = if is_held || wanted.is_empty() { work.look_again() } else { Some(GO_ON) };
    let reach = Reach {
        wanted: if wanted.is_empty() { 0 } else { namespaces.len() },
        missing: work.missing,
        problem: (!is_settled).then(|| {
            let why = "clients of this registry trust its certificate without a bundle, so there is nothing to copy; remove spec.trust.namespaces";
            ("NothingToTrust", why.to_owned())
        }),
        is_unfinished: work.is_unfinished,
    };
    Trust { report: told(reach), look_again }
}

fn told(reach: Reach) -> status::Trust {
    status::Trust { namespaces: Some(reach), fault: None }
}

fn places(namespaces: &[String], asked: &TrustedNamespaces) -> BTreeSet<Place> {
    let kinds = || asked.kinds.iter().map(|kind| bundle_copy::kind(*kind));
    namespaces.iter().flat_map(|namespace| kinds().map(|kind| (namespace.clone(), kind))).collect()
}

/// One pass's work on copies: what one namespace refuses keeps no other one waiting.
struct Work<'a> {
    pass: &'a Pass<'a>,
    until: Instant,
    /// Namespace and why, of those that lack a copy.
    missing: Vec<(String, String)>,
    is_unfinished: bool,
    soonest: Option<Duration>,
}

impl<'a> Work<'a> {
    fn new(pass: &'a Pass<'a>) -> Self {
        let until = Instant::now() + AT_ONCE;
        Self { pass, until, missing: Vec::new(), is_unfinished: false, soonest: None }
    }

    async fn remove(&mut self, there: &[ObjectRef], wanted: &BTreeSet<Place>) {
        for copy in there.iter().filter(|copy| !wanted.contains(&(copy.namespace.to_string(), copy.kind))) {
            if self.is_over() {
                return;
            }
            if let Err(error) = self.pass.ctx.engine.remove_elsewhere(&self.pass.owner, copy).await {
                self.failed(&copy.namespace, error);
            }
        }
    }

    async fn write(&mut self, namespaces: &[String], asked: &TrustedNamespaces, bundle: &str) {
        for namespace in namespaces {
            for kind in &asked.kinds {
                if self.is_over() {
                    return;
                }
                let copy = bundle_copy::build(self.pass.registry, namespace, *kind, bundle);
                match self.pass.ctx.engine.apply(&self.pass.owner, &copy).await {
                    Ok(applied) => self.wrote(namespace, &applied),
                    Err(error) => self.failed(namespace, error),
                }
            }
        }
    }

    fn wrote(&mut self, namespace: &str, applied: &Applied) {
        if let Some(contest) = &applied.contested {
            self.soonest = Some(self.soonest.map_or(contest.look_again, |soonest| soonest.min(contest.look_again)));
        }
        match applied.outcome {
            Outcome::Damped => {
                let words = applied.contested.as_ref().map(ToString::to_string).unwrap_or_default();
                self.missing.push((namespace.to_owned(), words));
            }
            Outcome::Replacing => {
                self.missing.push((namespace.to_owned(), "the former copy is being deleted".to_owned()));
            }
            Outcome::Unchanged | Outcome::Created | Outcome::Changed | Outcome::Recreated => {}
        }
    }

    fn failed(&mut self, namespace: &str, error: apply::Error) {
        let error = Error::from(error);
        self.pass.failures.failed(self.pass.key, &error);
        self.missing.push((namespace.to_owned(), words(&error)));
    }

    fn is_over(&mut self) -> bool {
        self.is_unfinished |= Instant::now() >= self.until;
        self.is_unfinished
    }

    fn look_again(&self) -> Option<Duration> {
        if self.is_unfinished { Some(GO_ON) } else { self.soonest }
    }
}
