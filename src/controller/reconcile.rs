//! The pipeline of one pass, readable top to bottom. Every step either narrows what is known or touches the cluster, never both.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Resource as _;
use tracing::info;

use super::answer::ASK_AGAIN;
use super::backoff::Class;
use super::certificates::{self, Stored as StoredCertificate};
use super::context::Context;
use super::error::Error;
use super::logins::{self, Stored as StoredLogins};
use super::queue::Key;
use super::report::{report, words};
use super::running::{self, Running};
use super::{backoff, events};
use crate::api::{PrivateRegistry, PrivateRegistryStatus, RestartType, annotation, condition, reason};
use crate::apply::{self, Applied, Kind, Live, Outcome, Owner, Verb, kinds};
use crate::desired::{self, Hold, Material, Object, workload};
use crate::model::{self, Child, Resolved, labels};
use crate::observe;
use crate::status::summary::{self, Answer};
use crate::status::{Findings, PodFacts};

/// How soon it is looked again at what changed while a pass was deciding.
const SOON: Duration = Duration::from_secs(1);
/// How soon it is looked whether what ran before has ended; the watch usually tells earlier.
const MAKE_WAY: Duration = Duration::from_secs(5);

/// How soon it is looked whether somebody else's object was handed over or removed: it may not be watched.
const HANDED_OVER: Duration = Duration::from_secs(60);

/// What the queue does next with the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is as wanted, or on its way: look again after this time at the latest.
    Look(Duration),
    /// It stands still until something changes; still looked at, at the slow pace.
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
    ctx.recall.note(key, &registry);
    let now = ctx.now();
    let before = registry.status.clone().unwrap_or_default();
    let generation = registry.metadata.generation.unwrap_or_default();
    if is_paused(&registry) {
        report(&registry, summary::paused(&before, generation, now), ctx).await?;
        return Ok(Next::Look(resync(&registry)));
    }
    match pass(key, &registry, &before, now, ctx).await {
        Ok(next) => Ok(next),
        // Somebody was faster: the next pass sees what they did.
        Err(Error::Apply(error)) if matches!(*error, apply::Error::Conflict { verb: Verb::Update, .. }) => {
            Ok(Next::Look(SOON))
        }
        Err(error) => {
            let blocked = error.class() == Class::Blocked;
            let message = words(&error);
            let status = summary::failed(error.reason(), &message, blocked, &before, generation, now);
            report(&registry, status, ctx).await?;
            match error {
                Error::Apply(error) if matches!(*error, apply::Error::NotOurs { .. }) => Ok(Next::Look(HANDED_OVER)),
                _ if blocked => Ok(Next::Blocked),
                error => Err(error),
            }
        }
    }
}

async fn pass(
    key: &Key,
    registry: &PrivateRegistry,
    before: &PrivateRegistryStatus,
    now: Timestamp,
    ctx: &Context,
) -> Result<Next, Error> {
    // Only an existing claim can be shared: without one nobody else's manifest matters.
    let others = if observe::claim(registry).is_some() { ctx.registries.all() } else { Vec::new() };
    let observed = observe::references(registry, &others, &ctx.engine).await?;
    let resolved = match model::resolve(registry, &observed, &ctx.settings) {
        Ok(resolved) => resolved,
        Err(blocked) => {
            let generation = registry.metadata.generation.unwrap_or_default();
            report(registry, summary::blocked(&blocked, before, generation, now), ctx).await?;
            return Ok(if blocked.waiting { Next::Look(summary::PATIENCE.unsigned_abs()) } else { Next::Blocked });
        }
    };
    let owner = owner(registry);

    let foundation = ctx.engine.apply_all(&owner, &children(desired::foundation(&resolved))).await?;
    let claim = claim(&resolved, &owner, ctx).await?;
    let service = live(&foundation, kinds::SERVICE, &resolved.name.child(Child::Service));
    if let Some(wait) = load_balancer_is_pending(&resolved, service.as_ref(), now) {
        report(registry, waiting_for_load_balancer(&resolved, before, now), ctx).await?;
        return Ok(Next::Look(wait));
    }
    let service = service.map(|live| live.value().clone()).unwrap_or_default();

    let stored = Stored::read(&resolved, &owner, ctx).await?;
    let addresses: BTreeSet<_> =
        summary::addresses(&resolved, &service).into_iter().map(|found| found.address).collect();
    let logins = logins::settle(&resolved, &stored.logins(), &addresses, now).await?;
    let probe_image = stored.workload.as_ref().and_then(|live| live.annotation(labels::PROBE_IMAGE)).map(str::to_owned);
    let template = workload::template_hash(
        &resolved,
        &logins.http_secret,
        probe_image.as_deref().unwrap_or(&resolved.operator_image),
    );
    let rollout_pending =
        stored.workload.as_ref().is_some_and(|live| live.annotation(labels::TEMPLATE) != Some(template.as_str()));
    let certificate =
        certificates::settle(&resolved, &stored.certificate(), &observed, &service, rollout_pending, now)?;
    if let Some(why) = certificate.issued {
        info!(registry = %key, %why, "issued a certificate");
    }
    let certificate_is_kept = certificate.issued.is_none();
    let material = Material {
        certificate: certificate.serving,
        authority: certificate.authority,
        bundle: certificate.bundle,
        table: logins.table,
        admin: logins.admin,
        pull: logins.pull,
        http_secret: logins.http_secret,
    };

    let running = Running::look(&resolved, stored.workload, key, ctx).await?;
    let mut run = running.run(&resolved, now);
    if !rollout_pending && certificate_is_kept {
        run.probe_image = probe_image;
    }
    let mut plan = desired::plan(&resolved, &material, &run);
    if running.rests(&resolved, before, &template) {
        plan.retain(|object| object.kind != kinds::JOB.kind);
    } else if material.is_complete(&resolved) && running.makes_way(&resolved, &owner, key, before, ctx).await? {
        let message = "what ran before makes way; the registry starts when it has ended";
        let status = summary::failed(reason::PROGRESSING, message, false, before, resolved.generation, now);
        report(registry, status, ctx).await?;
        return Ok(Next::Look(MAKE_WAY));
    }
    let wanted = wanted_names(&resolved, &material, &plan);
    // Stored before the certificate that it signed: an operator that dies in between must not leave a leaf whose authority is lost.
    let authority = resolved.name.child(Child::Ca);
    let (first, rest): (Vec<_>, Vec<_>) = plan.into_iter().partition(|object| object.name == authority);
    ctx.engine.apply_all(&owner, &children(first)).await?;
    let applied = ctx.engine.apply_all(&owner, &children(rest)).await?;
    ctx.engine.prune(&owner, &wanted).await?;
    if running.lost_meanwhile(&resolved, &applied, before, key, ctx) {
        return Ok(Next::Look(SOON));
    }
    if stored.admin.is_some() && material.admin.is_none() && !logins.report.users.is_empty() {
        end_admin(registry, &resolved, &owner, ctx).await?;
    }

    let leaving = applied.iter().any(|done| done.outcome == Outcome::Replacing);
    let workload = material.is_complete(&resolved).then(|| running.state(&resolved, &applied, &run, before)).flatten();
    let answer = running::ask(&resolved, key, &material, &service, workload.as_ref(), &applied, ctx).await;
    let findings = Findings {
        registry: &resolved,
        service: &service,
        claim: claim.live.as_ref().map(Live::value),
        claim_refusal: claim.refusal,
        certificate: certificate.report,
        logins: logins.report,
        workload,
        answer,
    };
    let status = summary::summarise(&findings, before, now);
    if let Some(end) = status.certificate.as_ref().and_then(|served| served.not_after.parse::<Timestamp>().ok()) {
        ctx.metrics.set_certificate_not_after(&key.namespace, &key.name, end.as_second());
    }
    report(registry, status, ctx).await?;
    let next = next_look(registry, &findings, certificate.look_again, &running.pods, now);
    Ok(Next::Look(if leaving { next.min(MAKE_WAY) } else { next }))
}

/// What the cluster holds of a registry beside its foundation.
struct Stored {
    tls: Option<Live>,
    ca: Option<Live>,
    htpasswd: Option<Live>,
    admin: Option<Live>,
    config: Option<Live>,
    workload: Option<Live>,
}

impl Stored {
    async fn read(registry: &Resolved, owner: &Owner, ctx: &Context) -> Result<Self, Error> {
        // What lies under a child's name may be somebody else's: nothing of it may be used before it is refused.
        let own = async |kind, name: &str| {
            let found = ctx.engine.read(kind, &registry.namespace, name).await?;
            Ok::<_, Error>(found.filter(|live| ctx.engine.owns(owner, live)))
        };
        let secret = async |child: Child| own(kinds::SECRET, &registry.name.child(child)).await;
        let (kind, _) = running::workload_kinds(registry);
        Ok(Self {
            tls: secret(Child::Tls).await?,
            ca: secret(Child::Ca).await?,
            htpasswd: secret(Child::Htpasswd).await?,
            admin: secret(Child::Admin).await?,
            config: secret(Child::Config).await?,
            workload: own(kind, registry.name.as_str()).await?,
        })
    }

    fn certificate(&self) -> StoredCertificate<'_> {
        StoredCertificate { leaf: self.tls.as_ref(), authority: self.ca.as_ref() }
    }

    fn logins(&self) -> StoredLogins<'_> {
        StoredLogins { table: self.htpasswd.as_ref(), admin: self.admin.as_ref(), config: self.config.as_ref() }
    }
}

/// The claim that pods mount.
struct Claim {
    live: Option<Live>,
    /// Why it does not grow.
    refusal: Option<String>,
}

/// Makes or grows the claim, or looks at one that is not ours. Whether a class allows growth is found out by trying: the refusal is
/// told, and everything else goes on.
async fn claim(registry: &Resolved, owner: &Owner, ctx: &Context) -> Result<Claim, Error> {
    let read = async |name: &str| ctx.engine.read(kinds::PERSISTENT_VOLUME_CLAIM, &registry.namespace, name).await;
    if let model::Storage::Existing { name, .. } = &registry.storage {
        return Ok(Claim { live: read(name).await?, refusal: None });
    }
    let Some(mut wanted) = children(desired::claim::build(registry).into_iter().collect()).pop() else {
        return Ok(Claim { live: None, refusal: None });
    };
    // Kubernetes refuses to grow a claim that has no volume yet: it gets its first volume as it is, and grows then.
    let size = "/spec/resources/requests/storage";
    if let Some(live) =
        read(&wanted.name).await?.filter(|live| live.value().pointer("/status/phase") == Some(&"Pending".into()))
        && let (Some(asked), Some(given)) = (wanted.body.pointer_mut(size), live.value().pointer(size))
    {
        *asked = given.clone();
    }
    match ctx.engine.apply(owner, &wanted).await {
        Ok(applied) => Ok(Claim { live: Some(applied.live), refusal: None }),
        Err(apply::Error::Refused { message, object, .. }) => match read(&object.name).await? {
            Some(live) => Ok(Claim { live: Some(live), refusal: Some(message) }),
            None => Ok(Claim { live: None, refusal: Some(message) }),
        },
        Err(error) => Err(error.into()),
    }
}

/// Names of everything that must stay.
fn wanted_names(registry: &Resolved, material: &Material, plan: &[Object]) -> BTreeSet<(&'static Kind, String)> {
    let mut foundation = desired::foundation(registry);
    foundation.extend(desired::claim::build(registry));
    let named = |object: &Object| Some((Kind::named(object.kind)?, object.name.clone()));
    let mut wanted: BTreeSet<_> = plan.iter().chain(&foundation).filter_map(named).collect();
    // What cannot be made again is never pruned, only let go on purpose.
    wanted.extend([Child::Ca, Child::Admin].map(|child| (kinds::SECRET, registry.name.child(child))));
    // The workload changes its kind only when the new one can run; a resting Job is not in the plan.
    if !material.is_complete(registry) || registry.restart.is_job() {
        wanted.insert((kinds::JOB, registry.name.to_string()));
    }
    if !material.is_complete(registry) {
        wanted.insert((kinds::DEPLOYMENT, registry.name.to_string()));
        wanted.insert((kinds::POD_DISRUPTION_BUDGET, registry.name.to_string()));
    }
    wanted
}

/// Removes the generated admin, after the table with other users was written. That a password ends is worth an event.
async fn end_admin(registry: &PrivateRegistry, resolved: &Resolved, owner: &Owner, ctx: &Context) -> Result<(), Error> {
    let admin = resolved.name.child(Child::Admin);
    ctx.engine.remove(owner, kinds::SECRET, &admin).await?;
    let ended = events::Happening {
        tone: events::Tone::Normal,
        reason: "AdminRemoved".to_owned(),
        action: condition::USERS_READY.to_owned(),
        note: format!("Secret {admin} was removed and its login ended: other users can log in now"),
    };
    ctx.events.publish(&registry.object_ref(&()), &[ended]).await;
    Ok(())
}

/// A certificate without the load balancer's address would have to be made twice: it is waited for, up to a minute.
fn load_balancer_is_pending(registry: &Resolved, service: Option<&Live>, now: Timestamp) -> Option<Duration> {
    const LIMIT: SignedDuration = SignedDuration::from_secs(60);
    if registry.service.kind != crate::api::ServiceType::LoadBalancer || !registry.has_tls() {
        return None;
    }
    let service = service?;
    if service.at("status.loadBalancer.ingress").is_some() {
        return None;
    }
    let created: Timestamp = service.at("metadata.creationTimestamp")?.as_str()?.parse().ok()?;
    let waited = now.duration_since(created);
    (waited < LIMIT).then(|| (LIMIT - waited).unsigned_abs())
}

fn waiting_for_load_balancer(
    registry: &Resolved,
    before: &PrivateRegistryStatus,
    now: Timestamp,
) -> PrivateRegistryStatus {
    let message = format!(
        "Service {} waits for the address of its load balancer, up to a minute; see kubectl describe service {}",
        registry.name, registry.name
    );
    summary::failed("WaitingForLoadBalancer", &message, false, before, registry.generation, now)
}

fn next_look(
    registry: &PrivateRegistry,
    findings: &Findings<'_>,
    certificate: Option<Timestamp>,
    pods: &[PodFacts],
    now: Timestamp,
) -> Duration {
    let until = |at: Timestamp| at.duration_since(now).max(SignedDuration::from_secs(1)).unsigned_abs();
    let mut next = resync(registry);
    if let Some(certificate) = certificate {
        next = next.min(until(certificate));
    }
    if matches!(findings.answer, Answer::Bad(_) | Answer::Unreachable(_)) {
        next = next.min(ASK_AGAIN);
    }
    if findings.logins.problems.iter().chain(&findings.certificate.problem).any(|problem| problem.waiting) {
        next = next.min(summary::PATIENCE.unsigned_abs());
    }
    if findings.registry.restart == RestartType::OnFailure && findings.registry.max_retries.is_some() {
        for since in pods.iter().filter(|pod| pod.restarts > 0).filter_map(|pod| pod.running_since) {
            let forgiven = since.saturating_add(running::GOOD_RUN).unwrap_or(Timestamp::MAX);
            if forgiven > now {
                next = next.min(until(forgiven));
            }
        }
    }
    next
}

fn resync(registry: &PrivateRegistry) -> Duration {
    backoff::resync(registry.metadata.uid.as_deref().unwrap_or_default())
}

fn is_paused(registry: &PrivateRegistry) -> bool {
    let annotations = registry.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(annotation::PAUSED)).is_some_and(|value| value == "true")
}

fn owner(registry: &PrivateRegistry) -> Owner {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Owner {
        api_version: "privateregistry.dev/v1alpha1".to_owned(),
        kind: "PrivateRegistry".to_owned(),
        namespace: text(&registry.metadata.namespace),
        name: text(&registry.metadata.name),
        uid: text(&registry.metadata.uid),
    }
}

fn children(objects: Vec<Object>) -> Vec<apply::Child> {
    objects
        .into_iter()
        .filter_map(|object| {
            let hold = match object.hold {
                Hold::Disposable => apply::Hold::Disposable,
                Hold::Kept => apply::Hold::Kept,
                Hold::Released => apply::Hold::KeptUntilOwnerGoes,
            };
            Some(apply::Child { kind: apply::Kind::named(object.kind)?, name: object.name, hold, body: object.body })
        })
        .collect()
}

fn live(applied: &[Applied], kind: &apply::Kind, name: &str) -> Option<Live> {
    applied
        .iter()
        .find(|done| done.live.kind().kind == kind.kind && done.live.name() == name)
        .map(|done| done.live.clone())
}
