//! One pass over one registry: its parts, one after the other, and what they come to. No part can end it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use operator_engine::apply::Owner;
use operator_engine::work::backoff::{self, Class};
use operator_engine::work::queue::Key;

use super::installation::{self, Whose};
use super::report::report;
use crate::api::{PrivateRegistry, PrivateRegistryStatus, annotation, condition, reason};
use crate::model::{self, Blocked};
use crate::observe;
use crate::parts::certificate::Certificate;
use crate::parts::logins::Logins;
use crate::parts::workload::State;
use crate::parts::{self, Context, Error, Failures, Pass, address, certificate, holds, logins, storage, workload};
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

/// Brings one registry to what its manifest says, and reports.
///
/// # Errors
/// The report could not be written.
pub async fn reconcile(key: &Key, ctx: &Context) -> Result<Next, Error> {
    let Some(registry) = ctx.registries.get(key) else {
        ctx.forget(key);
        return Ok(Next::Gone);
    };
    ctx.note(key, &registry);
    let registry = match installation::settle(key, registry, ctx).await? {
        Whose::Ours(registry) => registry,
        Whose::Anothers(look) => return Ok(Next::Look(look)),
    };
    let now = ctx.now();
    let is_decodable = ctx.registries.why_undecodable(key).is_none();
    // What runs is looked after as an older manifest says, if the present one is not understood.
    let owner =
        if is_decodable { parts::owner(&registry) } else { Owner { generation: None, ..parts::owner(&registry) } };
    let is_followed = !is_paused(&registry) && is_decodable;
    let held = holds::settle(&registry, &owner, is_followed, ctx).await;
    if held.as_ref().is_err_and(holds::is_conflict) {
        return Ok(Next::Look(SOON));
    }
    // The garbage collector is taking its children: none must be made again.
    if registry.metadata.deletion_timestamp.is_some() {
        return held.map(|()| Next::Gone);
    }
    let before = registry.status.clone().unwrap_or_default();
    if is_paused(&registry) {
        let generation = registry.metadata.generation.unwrap_or_default();
        report(&registry, summary::paused(&before, generation, now), ctx).await?;
        return held.map(|()| Next::Look(resync(&registry)));
    }
    let (observed, unread) = observe::references(&registry, &ctx.rivals(key), &ctx.engine).await;
    let resolved = match model::resolve(&registry, &observed, &ctx.settings) {
        Ok(resolved) => resolved,
        Err(blocked) => return cannot_be_followed(&registry, &owner, &before, &blocked, now, ctx).await,
    };
    let failures = Failures::default();
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
    for error in unread {
        pass.problem(error);
    }
    let holds = held.err().map(|error| pass.problem(error));
    fold(&pass, holds).await
}

/// The parts, in the order in which one can use what another found.
async fn fold(pass: &Pass<'_>, holds: Option<Problem>) -> Result<Next, Error> {
    let address = address::settle(pass).await;
    let storage = storage::settle(pass).await;
    let found = workload::look(pass).await;
    let rollout_is_pending = found.as_ref().is_ok_and(workload::Found::rollout_is_pending);
    let certificate = certificate::settle(pass, &address, rollout_is_pending).await;
    let logins = logins::settle(pass, &address).await;
    let running = workload::settle(pass, found, &address, &certificate.serving, &logins, &storage).await;

    let keep = [&certificate.keep, &logins.keep, &running.keep].into_iter().flatten().cloned().collect();
    let pruned = pass.ctx.engine.prune(&pass.owner, &keep).await;
    let holds = holds.or(pruned.err().map(|error| pass.problem(error)));
    if pass.failures.is_overtaken() {
        return Ok(Next::Look(SOON));
    }
    let (contested, repair) = pass.failures.contests();
    let looks = looks(pass, &certificate, &logins, &running);
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
        claim: storage.claim(),
        storage: storage.problem.clone(),
        certificate: certificate.report,
        logins: logins.report,
        workload: running.workload,
        has_ended: running.has_ended,
        running: running.problem,
        answer: running.answer,
    };
    let wait = findings.is_waiting().then_some(summary::PATIENCE.unsigned_abs());
    let status = summary::summarise(&findings, pass.before, pass.now);
    let rest = if status.says(condition::READY, "True") { IN_NO_HURRY } else { resync(pass.manifest) };
    report(pass.manifest, status, pass.ctx).await?;
    // A repair that is due was made in this pass.
    let repair = repair.map(|wait| wait.max(SOON));
    let next = looks.into_iter().chain(wait).chain(repair).fold(rest, Duration::min);
    let (reasons, class) = pass.failures.take();
    for reason in reasons {
        pass.ctx.engine_metrics.reconcile_failed(reason);
    }
    let failed = |class| Next::Failed(class, next.max(DUE_AT_EARLIEST));
    Ok(class.filter(|_| next >= SOON).map_or(Next::Look(next), failed))
}

/// When a part wants to be looked at again although nothing has changed.
fn looks(pass: &Pass<'_>, certificate: &Certificate, logins: &Logins, running: &State) -> Vec<Duration> {
    let until = |at: Timestamp| at.duration_since(pass.now).max(SignedDuration::from_secs(1)).unsigned_abs();
    let mut looks: Vec<_> = certificate.look_again.map(until).into_iter().chain(running.soon).collect();
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
    ctx: &Context,
) -> Result<Next, Error> {
    let generation = registry.metadata.generation.unwrap_or_default();
    let mut status = summary::blocked(blocked, before, generation, now);
    if registry.spec.suspend == Some(true) {
        workload::stop(owner, ctx).await?;
        status = summary::stopped(status, reason::SUSPENDED, generation, now);
    }
    report(registry, status, ctx).await?;
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
