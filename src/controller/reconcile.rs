//! The pipeline of one pass, readable top to bottom. Every step either narrows what is known or touches the cluster, never both.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Resource as _;
use operator_engine::apply::{self, Applied, Live, Outcome, Owner, Verb};
use operator_engine::work::backoff::Class;
use operator_engine::work::queue::Key;
use operator_engine::work::{backoff, events};

use super::advice::advice;
use super::answer::ASK_AGAIN;
use super::children::{children, owner, wanted_names};
use super::context::Context;
use super::error::Error;
use super::foundation::Foundation;
use super::material::{self, Settled, Stored};
use super::report::{report, words};
use super::running::{self, Running};
use crate::api::{PrivateRegistry, PrivateRegistryStatus, annotation, condition, reason};
use crate::desired::kinds;
use crate::desired::{self, Object, Run};
use crate::model::{self, Blocked, Child, Observed, Resolved};
use crate::observe;
use crate::status::summary::{self, Answer};
use crate::status::workload::GOOD_RUN;
use crate::status::{Findings, PodFacts};

/// How soon it is looked again at what changed while a pass was deciding.
const SOON: Duration = Duration::from_secs(1);
/// How soon it is looked whether what ran before has ended; the watch usually tells earlier.
const MAKE_WAY: Duration = Duration::from_secs(5);

/// What the queue does next with the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is as wanted, or on its way: look again after this time at the latest.
    Look(Duration),
    /// It stands still until the user changes something; still looked at, slowly.
    Blocked,
    /// It is gone.
    Gone,
}

/// Brings one registry to what its manifest says, and reports.
///
/// # Errors
/// What went wrong; it has been reported in the status as well.
pub async fn reconcile(key: &Key, ctx: &Context) -> Result<Next, Error> {
    let Some(registry) = ctx.registries.get(key) else {
        ctx.forget(key);
        return Ok(Next::Gone);
    };
    // The garbage collector is taking its children: none must be made again.
    if registry.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Gone);
    }
    ctx.note(key, &registry);
    let now = ctx.now();
    let before = registry.status.clone().unwrap_or_default();
    let generation = registry.metadata.generation.unwrap_or_default();
    if is_paused(&registry) {
        report(&registry, summary::paused(&before, generation, now), ctx).await?;
        return Ok(Next::Look(resync(&registry)));
    }
    let pass = Pass { key, registry: &registry, before: &before, owner: owner(&registry), now, ctx };
    match pass.run().await {
        Ok(next) => Ok(next),
        // Somebody was faster: the next pass sees what they did.
        Err(Error::Apply(error))
            if matches!(*error, apply::Error::Conflict { verb: Verb::Create | Verb::Update, .. }) =>
        {
            Ok(Next::Look(SOON))
        }
        Err(error) => Err(pass.failed(error).await),
    }
}

/// What every step of one pass needs.
struct Pass<'a> {
    key: &'a Key,
    registry: &'a PrivateRegistry,
    /// What was reported last.
    before: &'a PrivateRegistryStatus,
    owner: Owner,
    now: Timestamp,
    ctx: &'a Context,
}

impl Pass<'_> {
    async fn run(&self) -> Result<Next, Error> {
        let (ctx, before, now) = (self.ctx, self.before, self.now);
        let observed = self.observe().await?;
        let resolved = match model::resolve(self.registry, &observed, &ctx.settings) {
            Ok(resolved) => resolved,
            Err(blocked) => return self.blocked(&blocked, observed.claim_holder.is_some()).await,
        };

        let foundation = Foundation::lay(&resolved, &self.owner, ctx).await?;
        if let Some(wait) = foundation.load_balancer_is_pending(&resolved, now) {
            return self.wait_for_load_balancer(&resolved, wait).await;
        }
        let service = foundation.service();
        let stored = Stored::read(&resolved, &self.owner, ctx).await?;
        let settled = material::settle(&resolved, &observed, service, &stored, now).await?;

        let running = Running::look(&resolved, stored.workload.clone(), self.key, ctx).await?;
        let run = Run { probe_image: settled.probe_image.clone(), ..running.run(&resolved, now) };
        let mut plan = desired::plan(&resolved, &settled.material, &run);
        let is_complete = settled.material.is_complete(&resolved);
        if running.rests(&resolved, before, &settled.template) {
            plan.retain(|object| object.kind != kinds::JOB.kind);
        } else if is_complete && running.makes_way(&resolved, &self.owner, self.key, before, ctx).await? {
            return self.wait_for_the_end_of_what_ran(&resolved).await;
        }

        let applied = self.apply(&resolved, &settled, plan).await?;
        if running.lost_meanwhile(&resolved, &applied, before, self.key, ctx) {
            return Ok(Next::Look(SOON));
        }
        if stored.outlives_its_admin(&settled) {
            self.end_admin(&resolved).await?;
        }

        let (workload, answer) = if is_complete {
            let workload = running.state(&resolved, &applied, &run, before);
            let material = &settled.material;
            let answer = running::ask(&resolved, self.key, material, service, workload.as_ref(), &applied, ctx).await;
            (workload, answer)
        } else {
            (running.former(), summary::answer_of(before))
        };
        let findings = Findings {
            registry: &resolved,
            service,
            claim: foundation.claim.live.as_ref().map(Live::value),
            claim_refusal: foundation.claim.refusal.clone(),
            certificate: settled.certificate,
            logins: settled.logins,
            workload,
            answer,
        };
        report(self.registry, summary::summarise(&findings, before, now), ctx).await?;
        let next = self.next_look(&findings, settled.look_again, &running.pods);
        let leaving = applied.iter().any(|done| done.outcome == Outcome::Replacing);
        Ok(Next::Look(if leaving { next.min(MAKE_WAY) } else { next }))
    }

    async fn observe(&self) -> Result<Observed, Error> {
        let rivals = self.ctx.rivals(self.key);
        Ok(observe::references(self.registry, &rivals, &self.ctx.engine).await?)
    }

    /// Writes what differs, and removes what is no longer wanted.
    async fn apply(&self, resolved: &Resolved, settled: &Settled, plan: Vec<Object>) -> Result<Vec<Applied>, Error> {
        let wanted = wanted_names(resolved, &settled.material, &plan);
        // Stored before the certificate that it signed: an operator that dies in between must not leave a leaf whose authority is lost.
        let authority = resolved.name.child(Child::Ca);
        let (first, rest): (Vec<_>, Vec<_>) = plan.into_iter().partition(|object| object.name == authority);
        self.ctx.engine.apply_all(&self.owner, &children(first)).await?;
        let applied = self.ctx.engine.apply_all(&self.owner, &children(rest)).await?;
        self.ctx.engine.prune(&self.owner, &wanted).await?;
        Ok(applied)
    }

    /// Removes the generated admin, after the table with other users was written. That a password ends is worth an event.
    async fn end_admin(&self, resolved: &Resolved) -> Result<(), Error> {
        let admin = resolved.name.child(Child::Admin);
        self.ctx.engine.remove(&self.owner, kinds::SECRET, &admin).await?;
        let ended = events::Happening {
            tone: events::Tone::Normal,
            reason: "AdminRemoved".to_owned(),
            action: condition::USERS_READY.to_owned(),
            note: format!("Secret {admin} was removed and its login ended: other users can log in now"),
        };
        self.ctx.events.publish(&self.registry.object_ref(&()), &[ended]).await;
        Ok(())
    }

    /// The manifest says nothing that can be built. What ran before goes on, unless it is to be stopped, or its volume is another one's.
    async fn blocked(&self, blocked: &Blocked, claim_is_held: bool) -> Result<Next, Error> {
        let mut status = summary::blocked(blocked, self.before, self.generation(), self.now);
        if self.is_suspended() || claim_is_held {
            running::stop(&self.owner, self.ctx).await?;
            let why = if self.is_suspended() { reason::SUSPENDED } else { reason::NOT_RUNNING };
            status = summary::stopped(status, why, self.generation(), self.now);
        }
        report(self.registry, status, self.ctx).await?;
        Ok(if blocked.waiting { Next::Look(summary::PATIENCE.unsigned_abs()) } else { Next::Blocked })
    }

    /// Something could not be read, made or written. What ran before goes on, unless it is to be stopped. Gives what was reported.
    async fn failed(&self, error: Error) -> Error {
        let stopped =
            if self.is_suspended() { running::stop(&self.owner, self.ctx).await.map(|()| true) } else { Ok(false) };
        // That it cannot be stopped matters more than what else went wrong.
        let (is_stopped, error) = stopped.map_or_else(|failure| (false, failure), |stopped| (stopped, error));
        let blocked = matches!(error.class(), Class::Blocked | Class::InTheWay);
        let message = [words(&error)].into_iter().chain(advice(&error)).collect::<Vec<_>>().join("; ");
        let mut status = summary::failed(error.reason(), &message, blocked, self.before, self.generation(), self.now);
        if is_stopped {
            status = summary::stopped(status, reason::SUSPENDED, self.generation(), self.now);
        }
        report(self.registry, status, self.ctx).await.err().unwrap_or(error)
    }

    fn is_suspended(&self) -> bool {
        self.registry.spec.suspend == Some(true)
    }

    fn generation(&self) -> i64 {
        self.registry.metadata.generation.unwrap_or_default()
    }

    async fn wait_for_load_balancer(&self, resolved: &Resolved, wait: Duration) -> Result<Next, Error> {
        let message = format!(
            "Service {} waits for the address of its load balancer, up to a minute; see kubectl describe service {}",
            resolved.name, resolved.name
        );
        self.wait(resolved, "WaitingForLoadBalancer", &message, wait).await
    }

    async fn wait_for_the_end_of_what_ran(&self, resolved: &Resolved) -> Result<Next, Error> {
        self.wait(resolved, reason::PROGRESSING, running::MAKING_WAY, MAKE_WAY).await
    }

    async fn wait(&self, resolved: &Resolved, reason: &str, message: &str, at_most: Duration) -> Result<Next, Error> {
        let status = summary::failed(reason, message, false, self.before, resolved.generation, self.now);
        report(self.registry, status, self.ctx).await?;
        Ok(Next::Look(at_most))
    }

    /// When it is looked again at a registry although nothing has changed.
    fn next_look(&self, findings: &Findings<'_>, certificate: Option<Timestamp>, pods: &[PodFacts]) -> Duration {
        let until = |at: Timestamp| at.duration_since(self.now).max(SignedDuration::from_secs(1)).unsigned_abs();
        let mut next = resync(self.registry);
        if let Some(certificate) = certificate {
            next = next.min(until(certificate));
        }
        if matches!(findings.answer, Answer::Bad(_) | Answer::Unreachable(_)) {
            next = next.min(ASK_AGAIN);
        }
        if findings.logins.problems.iter().chain(&findings.certificate.problem).any(|problem| problem.waiting) {
            next = next.min(summary::PATIENCE.unsigned_abs());
        }
        for since in pods.iter().filter(|pod| pod.restarts > 0).filter_map(|pod| pod.running_since) {
            let forgiven = since.saturating_add(GOOD_RUN).unwrap_or(Timestamp::MAX);
            if forgiven > self.now {
                next = next.min(until(forgiven));
            }
        }
        next
    }
}

fn resync(registry: &PrivateRegistry) -> Duration {
    backoff::resync(registry.metadata.uid.as_deref().unwrap_or_default())
}

fn is_paused(registry: &PrivateRegistry) -> bool {
    let annotations = registry.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(annotation::PAUSED)).is_some_and(|value| value == "true")
}
