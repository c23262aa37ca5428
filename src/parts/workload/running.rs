//! What runs of a registry: the Deployment or Job and its pods, what time and users did to it, and whether the registry answers.

use jiff::Timestamp;
use operator_engine::apply::{Applied, Kind, Live, Outcome, Owner, Removal};
use operator_engine::work::queue::Key;
use serde_json::Value;

use super::answer::Question;
use crate::api::{PrivateRegistryStatus, RestartType, reason};
use crate::desired::kinds;
use crate::desired::{Material, Run, ServingCertificate};
use crate::model::{Resolved, Users, labels};
use crate::parts::certificate::Serves;
use crate::parts::{Context, Error, Pass};
use crate::status::summary::{self, Answer};
use crate::status::workload::{self as judge, GOOD_RUN};
use crate::status::{PodFacts, Workload};

/// What is said while something that ran has not ended yet.
pub(super) const MAKING_WAY: &str = "what ran before makes way; the registry starts when it has ended";

/// What ran when the pass began.
pub(super) struct Running {
    live: Option<Live>,
    /// Its pods, as far as they matter.
    pub(super) pods: Vec<PodFacts>,
}

/// Kind of the workload that a registry wants, and the one that it does not.
pub(super) fn workload_kinds(registry: &Resolved) -> (&'static Kind, &'static Kind) {
    if registry.restart.is_job() { (kinds::JOB, kinds::DEPLOYMENT) } else { (kinds::DEPLOYMENT, kinds::JOB) }
}

impl Running {
    /// Pods tell why something is not as wanted, and how a Job is doing. A settled Deployment needs none.
    pub(super) async fn look(
        registry: &Resolved,
        workload: Option<Live>,
        key: &Key,
        ctx: &Context,
    ) -> Result<Self, Error> {
        let is_running = |live: &Live| {
            let state = judge::judge_deployment(registry, live.value(), &[], &Run::default());
            !registry.restart.is_job() && matches!(state, Workload::Running { .. })
        };
        let pods = match &workload {
            Some(live) if !is_running(live) => {
                let pods = ctx.pods(key).await?;
                if judge::pods_are_older(live.value(), &pods) {
                    ctx.recall.pods_changed(key);
                    ctx.pods(key).await?
                } else {
                    pods
                }
            }
            _ => Vec::new(),
        };
        if registry.restart.is_job() && workload.is_some() {
            ctx.recall.saw_job(key);
        }
        Ok(Self { live: workload, pods })
    }

    /// The Deployment or Job as it was.
    pub(super) fn workload(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// Whether what runs was made with another certificate than this.
    pub(super) fn serves_another(&self, registry: &Resolved, certificate: Option<&ServingCertificate>) -> bool {
        let Some(live) = &self.live else { return false };
        match (live.annotation(labels::TLS_CHECKSUM), certificate) {
            // Pods with a front end are made with none.
            (None, Some(_)) => registry.frontend.is_none(),
            (served, wanted) => served != wanted.map(|certificate| certificate.checksum.as_str()),
        }
    }

    /// What all of its pods serve.
    pub(super) fn serves(&self, registry: &Resolved) -> Serves {
        let Some(live) = &self.live else { return Serves::Nothing };
        let count = |pointer: &str| live.value().pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
        let is_deployment = live.kind() == kinds::DEPLOYMENT;
        let is_rolled_out = count("/status/observedGeneration") == count("/metadata/generation")
            && count("/status/replicas") == count("/status/updatedReplicas");
        match live.annotation(labels::TLS_CHECKSUM) {
            _ if is_deployment && !is_rolled_out => Serves::Unknown,
            _ if is_deployment && count("/status/replicas") == 0 => Serves::Nothing,
            Some(checksum) => Serves::Only(checksum.to_owned()),
            None if registry.frontend.is_some() => Serves::Brought,
            None => Serves::Unknown,
        }
    }

    /// How much should run, given what a user or time did to it.
    pub(super) fn run(&self, registry: &Resolved, now: Timestamp) -> Run {
        let forgiven = |pod: &PodFacts| {
            let long = pod.running_since.is_some_and(|since| now.duration_since(since) >= GOOD_RUN);
            if long { pod.restarts } else { 0 }
        };
        // Not worked out from the Job's limit: what is more than the manifest allows may come of a manifest that allowed more.
        let already = self.live.as_ref().and_then(|live| live.annotation(labels::FORGIVEN_RESTARTS));
        let already: i32 = already.and_then(|count| count.parse().ok()).unwrap_or(0);
        // What a former pod was forgiven does not count for its successor, whose restarts begin at 0.
        let restarts = self.pods.iter().map(|pod| pod.restarts).max().unwrap_or(0);
        Run {
            stopped_by_user: judge::is_stopped_by_user(registry, self.live.as_ref().map(Live::value)),
            forgiven_restarts: self.pods.iter().map(forgiven).max().unwrap_or(0).max(already.min(restarts)),
            probe_image: None,
            version: self.version(registry),
        }
    }

    /// The version of the workload that this pass decides on, where a user may decide otherwise meanwhile: a scaling to zero that comes
    /// between reading and writing must not be written over.
    fn version(&self, registry: &Resolved) -> Option<String> {
        let live = self.live.as_ref().filter(|_| registry.restart == RestartType::UnlessStopped)?;
        Some(live.resource_version().to_owned())
    }

    /// Whether a Job of this very manifest has ended and a rule of somebody else's has removed it, or will.
    ///
    /// `is_unseen`: this process has not seen a Job of it yet. One that was to be removed when it has ended, and went while nobody looked, has ended: a user
    /// may have deleted it, too, but what is not to be started again must not be.
    pub(super) fn has_ended(&self, registry: &Resolved, before: &PrivateRegistryStatus, is_unseen: bool) -> bool {
        let is_this = |generation: Option<i64>| generation == Some(registry.generation);
        match &self.live {
            _ if !registry.restart.is_job() => false,
            Some(job) => judge::job_is_finished(job.value()) && judge::is_removed_when_finished(job.value()),
            None => is_this(before.ended_generation) || is_unseen && is_this(before.started_generation),
        }
    }

    /// Whether the Job is removed when it has ended, so that nothing but the status tells that it ever ran.
    pub(super) fn is_fleeting(&self, registry: &Resolved, applied: Option<&Applied>) -> bool {
        let job = applied.map(|done| &done.live).or(self.live.as_ref()).filter(|_| registry.restart.is_job());
        job.is_some_and(|job| judge::is_removed_when_finished(job.value()))
    }

    /// Whether a Job that has ended stays as it is: a renewed certificate is no reason to start it again, a changed manifest is.
    pub(super) fn rests(&self, registry: &Resolved, before: &PrivateRegistryStatus, template: &str) -> bool {
        let Some(job) = self.live.as_ref().filter(|_| registry.restart.is_job()) else { return false };
        let same = job.annotation(labels::TEMPLATE) == Some(template);
        same && judge::job_is_finished(job.value()) && !self.lost(registry, job, before)
    }

    /// Whether a Job ended only because its pod was taken away. Once its end was reported, deleting its pod is tidying up.
    fn lost(&self, registry: &Resolved, job: &Live, before: &PrivateRegistryStatus) -> bool {
        let ends = [reason::COMPLETED, reason::FAILED, reason::MAX_RETRIES_EXCEEDED];
        let known = before.conditions.iter().any(|found| ends.contains(&found.reason.as_str()));
        registry.restart.is_job()
            && !registry.suspend
            && !known
            && judge::job_lost_its_pod(registry.restart, job.value(), &self.pods)
    }

    /// Whether the Job lost its pod after this pass had begun: what is known of its pods is older than the Job, and judges nothing.
    pub(super) fn lost_meanwhile(
        &self,
        registry: &Resolved,
        applied: Option<&Applied>,
        before: &PrivateRegistryStatus,
        key: &Key,
        ctx: &Context,
    ) -> bool {
        let job = applied.filter(|done| done.live.kind() == kinds::JOB);
        let lost = job.is_some_and(|job| self.lost(registry, &job.live, before));
        if lost {
            ctx.recall.pods_changed(key);
        }
        lost
    }

    /// Whether what runs is of the other kind, because the restart policy changed.
    pub(super) async fn changes_kind(&self, registry: &Resolved, owner: &Owner, ctx: &Context) -> Result<bool, Error> {
        if self.live.is_some() {
            return Ok(false);
        }
        let (_, other) = workload_kinds(registry);
        let former = ctx.engine.read_known_child(owner, other, registry.name.as_str()).await?;
        Ok(former.is_some_and(|live| !live.is_leaving()))
    }

    /// Takes away what must end before the wanted workload can start, and says whether there was something: the workload of the other
    /// kind, after the restart policy changed, or a Job that only lost its pod. Two generations never share a volume.
    pub(super) async fn makes_way(
        &self,
        registry: &Resolved,
        owner: &Owner,
        key: &Key,
        before: &PrivateRegistryStatus,
        ctx: &Context,
    ) -> Result<bool, Error> {
        let (wanted, other) = workload_kinds(registry);
        let name = registry.name.as_str();
        let mut removal = ctx.engine.remove(owner, other, name).await?;
        if self.live.as_ref().is_some_and(|job| self.lost(registry, job, before)) {
            removal = ctx.engine.remove(owner, wanted, name).await?;
        }
        let made = matches!(removal, Removal::Removed | Removal::Leaving);
        if made {
            ctx.recall.pods_changed(key);
        }
        Ok(made)
    }

    /// How what ran before is doing, when a pass could not make what is wanted now.
    pub(super) fn former(&self) -> Option<Workload> {
        self.live.as_ref().map(|live| judge::judge_former(live.value()))
    }

    /// How it is doing after the pass.
    pub(super) fn state(
        &self,
        registry: &Resolved,
        done: Option<&Applied>,
        run: &Run,
        before: &PrivateRegistryStatus,
    ) -> Option<Workload> {
        if done.is_some_and(|done| done.outcome == Outcome::Replacing) {
            return Some(Workload::Progressing { message: MAKING_WAY.to_owned(), ready: 0 });
        }
        let Some(live) = done.map(|done| &done.live).or(self.live.as_ref()) else {
            return self.has_ended(registry, before, true).then(|| judge::judge_removed_job(before));
        };
        if registry.restart.is_job() {
            let state = judge::judge_job(registry, live.value(), &self.pods);
            let told = self.pods.iter().any(|pod| pod.exit_code.is_some());
            return Some(if told { state } else { state.remembering(before) });
        }
        Some(judge::judge_deployment(registry, live.value(), &self.pods, run))
    }
}

/// Takes away the workload of a registry whose wanted one cannot be worked out. One that runs nothing stays as it is.
pub async fn stop(owner: &Owner, ctx: &Context) -> Result<(), Error> {
    for kind in [kinds::DEPLOYMENT, kinds::JOB] {
        let live = ctx.engine.read_known_child(owner, kind, &owner.name).await?;
        if live.is_some_and(|live| !runs_nothing(live.value())) {
            ctx.engine.remove(owner, kind, &owner.name).await?;
        }
    }
    Ok(())
}

fn runs_nothing(workload: &Value) -> bool {
    workload["spec"]["replicas"] == 0 || workload["spec"]["suspend"] == true || judge::job_is_finished(workload)
}

/// Asks the registry once after each rollout.
pub(super) async fn ask(
    pass: &Pass<'_>,
    material: &Material,
    service: Option<&Value>,
    workload: Option<&Workload>,
    applied: Option<&Applied>,
) -> Answer {
    let registry = pass.registry;
    let Some(Workload::Running { ready: 1.. }) = workload else { return Answer::NotAsked };
    let address = service.and_then(|service| service.pointer("/spec/clusterIP")?.as_str()?.parse().ok());
    let (Some(address), Ok(port)) = (address, u16::try_from(registry.service.port)) else {
        return Answer::Unreachable("the Service has no address of its own".to_owned());
    };
    let rollout = applied
        .map(|done| format!("{} {}", done.live.uid(), done.live.generation().unwrap_or_default()))
        .unwrap_or_default();
    let [_, _, name, _] = registry.service_names();
    let (path, wanted) = match &registry.users {
        // Only what needs no certificate can be asked for without one.
        _ if registry.protocol.client_authorities.is_some() => ("/", "200"),
        Users::Everybody => ("/v2/", "200"),
        Users::Table { .. } => ("/v2/", "401"),
    };
    let question = Question {
        address,
        port,
        name,
        leaf: material.certificate.as_ref().map(|certificate| certificate.chain.clone()),
        path,
        wanted,
        rollout,
        reloads: registry.frontend.is_some(),
    };
    pass.ctx.answers.get(pass.key, question, summary::answer_of(pass.before), &pass.ctx.queue).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_runs_nothing_is_told_from_what_does() {
        assert!(runs_nothing(&json!({"spec": {"replicas": 0}})));
        assert!(!runs_nothing(&json!({"spec": {"replicas": 2}})));
        assert!(runs_nothing(&json!({"spec": {"suspend": true}})));
        assert!(!runs_nothing(&json!({"spec": {"suspend": false}})));
        assert!(runs_nothing(&json!({"status": {"conditions": [{"type": "Failed", "status": "True"}]}})));
    }
}
