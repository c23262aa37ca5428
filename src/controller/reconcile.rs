//! One pass over one registry: its parts, one after the other, and what they come to. No part can end it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use operator_engine::apply::Owner;
use operator_engine::work::backoff::{self, Class};
use operator_engine::work::queue::{Key, Urgency};

use super::installation::{self, Whose};
use super::report::report;
use crate::api::{PrivateRegistry, PrivateRegistryStatus, annotation, condition, reason};
use crate::model::{self, Blocked};
use crate::observe;
use crate::parts::certificate::Certificate;
use crate::parts::failures::soon;
use crate::parts::logins::Logins;
use crate::parts::workload::State;
use crate::parts::{
    self, Context, Error, Failures, Pass, address, certificate, elsewhere, logins, retention, route, storage, workload,
};
use crate::status::Findings;
use crate::status::summary::{self, Problem};
use crate::status::workload::{GOOD_RUN, START_TIME};

/// How soon it is looked again at what changed while a pass was deciding.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// How soon it is looked at again at the earliest because something is due while something else fails.
const DUE_AT_EARLIEST: Duration = Duration::from_secs(5);

/// When a registry is looked at again that is as wanted, if no part asks for it earlier. Whatever happens to it is heard of, and the sweep comes to all.
const IN_NO_HURRY: Duration = Duration::from_secs(24 * 60 * 60);

/// What the queue does next with the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is as wanted, or on its way: look again after this time at the latest.
    Look(Duration),
    /// Something went wrong, and is told: the backoff of this class says when to try again, and it is looked at after this time at the latest, because
    /// something else of it is due.
    Failed(Class, Duration),
    /// It is gone.
    Gone,
}

/// Brings one registry to what its manifest says, and reports. Whatever of it failed, on whichever way, says here when it is tried again.
///
/// # Errors
/// The report could not be written.
pub async fn reconcile(key: &Key, ctx: &Context) -> Result<Next, Error> {
    let failures = Failures::after_overtaken(ctx.recall.overtaken_in_a_row(key));
    let next = pass(key, &failures, ctx).await;
    ctx.recall.note_overtaken(key, failures.overtaken_in_a_row());
    if next.is_ok() && failures.decides_anew() {
        ctx.queue.add_after(key, Urgency::Change, SOON);
        return Ok(Next::Look(SOON));
    }
    let (reasons, class) = failures.take();
    for reason in reasons {
        ctx.engine_metrics.reconcile_failed(reason);
    }
    Ok(next?.unless_failed(class))
}

impl Next {
    /// What failed is tried again with the backoff of its class, unless there is a pass before that in any case.
    fn unless_failed(self, class: Option<Class>) -> Self {
        match (self, class) {
            (Self::Look(after), Some(class)) if after >= SOON => Self::Failed(class, after.max(DUE_AT_EARLIEST)),
            (Self::Failed(own, after), Some(class)) => Self::Failed(std::cmp::min_by_key(own, class, soon), after),
            (next, _) => next,
        }
    }
}

async fn pass(key: &Key, failures: &Failures, ctx: &Context) -> Result<Next, Error> {
    let Some(registry) = ctx.registries.get(key) else {
        ctx.forget(key);
        return certificate::abandon(key, ctx).await.map(|()| Next::Gone);
    };
    ctx.note(key, &registry);
    let registry = match installation::settle(key, registry, failures, ctx).await? {
        Whose::Ours(registry) => registry,
        Whose::Anothers(look) => return Ok(Next::Look(look)),
    };
    let now = ctx.now();
    let is_decodable = ctx.registries.why_undecodable(key).is_none();
    // What runs is looked after as an older manifest says, if the present one is not understood.
    let owner =
        if is_decodable { parts::owner(&registry) } else { Owner { generation: None, ..parts::owner(&registry) } };
    let is_followed = !is_paused(&registry) && is_decodable;
    let held = retention::settle(&registry, &owner, is_followed, ctx).await;
    if held.as_ref().is_err_and(retention::is_conflict) {
        failures.overtaken();
        if failures.decides_anew() {
            return Ok(Next::Look(SOON));
        }
    }
    let before = registry.status.clone().unwrap_or_default();
    let generation = registry.metadata.generation.unwrap_or_default();
    let is_going = registry.metadata.deletion_timestamp.is_some();
    let others = others(&registry);
    // The garbage collector is taking its children: none must be made again.
    if is_going && (others.is_empty() || is_paused(&registry)) {
        return held.map(|_| Next::Gone);
    }
    if is_paused(&registry) {
        report(&registry, summary::paused(&before, generation, now), failures, ctx).await?;
        return held.map(|_| Next::Look(resync(&registry)));
    }
    let (observed, unread) =
        observe::references(&registry, &ctx.rivals(key), &ctx.engine, ctx.settings.sees_namespaces).await;
    for error in unread {
        failures.failed(key, &error.into());
    }
    let resolved = match model::resolve(&registry, &observed, &ctx.settings) {
        Ok(resolved) => resolved,
        Err(blocked) => {
            if let Err(error) = held {
                failures.failed(key, &error);
            }
            return cannot_be_followed(&registry, &owner, &before, &blocked, now, failures, ctx).await;
        }
    };
    let pass = Pass {
        key,
        manifest: &registry,
        registry: &resolved,
        observed: &observed,
        before: &before,
        owner,
        now,
        ctx,
        failures,
    };
    let is_held = held.as_ref().is_ok_and(|is_held| *is_held);
    let holds = held.err().map(|error| pass.problem(error));
    if is_going {
        let problem = holds.or(logins::revoke(&pass).await);
        let told = summary::going(&others, problem.as_ref(), &before, generation, now);
        report(&registry, told, failures, ctx).await?;
        return Ok(Next::Look(resync(&registry)));
    }
    fold(&pass, holds, is_held).await
}

/// Finalizers for which somebody else has to act before a registry that was deleted goes.
fn others(registry: &PrivateRegistry) -> Vec<&str> {
    const OF_KUBERNETES: [&str; 2] = ["foregroundDeletion", "orphan"];
    let all = registry.metadata.finalizers.iter().flatten().map(String::as_str);
    all.filter(|finalizer| *finalizer != retention::FINALIZER && !OF_KUBERNETES.contains(finalizer)).collect()
}

/// The parts, in the order in which one can use what another found.
async fn fold(pass: &Pass<'_>, holds: Option<Problem>, is_held: bool) -> Result<Next, Error> {
    let address = address::settle(pass).await;
    let storage = storage::settle(pass).await;
    let found = workload::look(pass).await;
    let rollout = found.as_ref().map(|found| found.rollout(pass.registry)).unwrap_or_default();
    let is_rolling = rollout.is_pending;
    let certificate = certificate::settle(pass, &address, rollout).await;
    let mut logins = logins::settle(pass, &address, is_rolling).await;
    let running = workload::settle(pass, found, &address, &certificate.serving, &logins, &storage).await;

    let route = route::settle(pass, &certificate).await;
    let elsewhere = elsewhere::settle(pass, &certificate, &address, &running, &logins, is_held).await;
    logins::count_overlaps(pass, &mut logins, elsewhere.logins.as_ref()).await;

    let keep = [&certificate.keep, &logins.keep, &running.keep, &route.keep, &elsewhere.keep];
    let keep = keep.into_iter().flatten().cloned().collect();
    let pruned = pass.ctx.engine.prune(&pass.owner, &keep).await;
    let holds = holds.or(pruned.err().map(|error| pass.problem(error)));
    if pass.failures.decides_anew() {
        return Ok(Next::Look(SOON));
    }
    let (contested, repair) = pass.failures.contests();
    let mut looks = looks(pass, &certificate, &logins, &running);
    looks.extend(elsewhere.look_again);
    let mut certificate = certificate;
    if running.is_behind {
        let note = "not served yet: what runs is not rolled while something stands in its way";
        certificate.report.note =
            Some(certificate.report.note.map_or(note.to_owned(), |other| format!("{note}; {other}")));
    }
    let findings = Findings {
        registry: pass.registry,
        holds,
        contested,
        service: address.service(),
        address: pass.registry.faults.address.as_ref().map(Problem::of).or(address.problem.clone()),
        route: route.report,
        claim: storage.claim(),
        storage: storage.problem.clone(),
        certificate: certificate.report,
        logins: logins.report,
        heard: running.heard,
        copies: elsewhere.logins,
        trust: elsewhere.trust,
        workload: running.workload,
        has_ended: running.has_ended,
        is_fleeting: running.is_fleeting,
        running: running.problem,
        answer: running.answer,
    };
    let wait = findings.is_waiting().then_some(summary::PATIENCE.unsigned_abs());
    let status = summary::summarise(&findings, pass.before, pass.now);
    let rest = if status.says(condition::READY, "True") { IN_NO_HURRY } else { resync(pass.manifest) };
    report(pass.manifest, status, pass.failures, pass.ctx).await?;
    // A repair that is due was made in this pass.
    let repair = repair.map(|wait| wait.max(SOON));
    let next = looks.into_iter().chain(wait).chain(repair).fold(rest, Duration::min);
    Ok(Next::Look(next))
}

/// When a part wants to be looked at again although nothing has changed.
fn looks(pass: &Pass<'_>, certificate: &Certificate, logins: &Logins, running: &State) -> Vec<Duration> {
    let until = |at: Timestamp| at.duration_since(pass.now).max(SignedDuration::from_secs(1)).unsigned_abs();
    let mut looks: Vec<_> =
        [certificate.look_again, logins.look_again].into_iter().flatten().map(until).chain(running.soon).collect();
    if logins.is_unfinished {
        looks.push(Duration::from_millis(1));
    }
    let starting = running.pods.iter().filter_map(|pod| pod.starting_since);
    let overdue = starting.map(|since| since.saturating_add(START_TIME).unwrap_or(Timestamp::MAX));
    looks.extend(overdue.filter(|at| *at > pass.now).map(until));
    for since in running.pods.iter().filter(|pod| pod.restarts > 0).filter_map(|pod| pod.running_since) {
        let forgiven = since.saturating_add(GOOD_RUN).unwrap_or(Timestamp::MAX);
        if forgiven > pass.now {
            looks.push(until(forgiven));
        }
    }
    looks
}

/// Not even its children can be named. What ran before goes on, unless it is to be stopped.
async fn cannot_be_followed(
    registry: &PrivateRegistry,
    owner: &Owner,
    before: &PrivateRegistryStatus,
    blocked: &Blocked,
    now: Timestamp,
    failures: &Failures,
    ctx: &Context,
) -> Result<Next, Error> {
    let generation = registry.metadata.generation.unwrap_or_default();
    let mut status = summary::blocked(blocked, before, generation, now);
    if registry.spec.suspend == Some(true) {
        match workload::stop(owner, ctx).await {
            Ok(()) => status = summary::stopped(status, reason::SUSPENDED, generation, now),
            Err(error) => _ = failures.failed(&Key::new(owner.namespace.as_str(), owner.name.as_str()), &error),
        }
    }
    report(registry, status, failures, ctx).await?;
    let next = if blocked.waiting { summary::PATIENCE.unsigned_abs() } else { resync(registry) };
    Ok(if blocked.waiting { Next::Look(next) } else { Next::Failed(Class::Blocked, next) })
}

fn resync(registry: &PrivateRegistry) -> Duration {
    backoff::resync(registry.metadata.uid.as_deref().unwrap_or_default())
}

fn is_paused(registry: &PrivateRegistry) -> bool {
    let annotations = registry.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(annotation::PAUSED)).is_some_and(|value| value == "true")
}
