//! What runs: configuration, identity, Deployment or Job, disruption budget. It needs certificate, logins and storage; while one is missing, what runs
//! goes on as it is, unless it is to be stopped.

mod answer;
mod identities;
mod running;

use std::time::Duration;

use operator_engine::apply::{ObjectRef, Outcome};

pub use answer::Answers;
pub use identities::Hearings;
pub use running::stop;

use self::running::Running;
use super::address::Address;
use super::certificate::{Rollout, Serving};
use super::logins::Logins;
use super::storage::Storage;
use super::{Error, Keep, Pass};
use crate::api::reason;
use crate::credentials::generated;
use crate::desired::secrets::{CONFIG_KEY, HTTP_SECRET_KEY, NGINX_KEY};
use crate::desired::{self, Material, Run, identity, kinds, secrets, workload};
use crate::model::{Child, Resolved, labels};
use crate::secret::Sensitive;
use crate::status::identities::Heard;
use crate::status::summary::{self, Answer};
use crate::status::{PodFacts, Problem, Workload};

/// How soon it is looked whether what ran before has ended; the watch usually tells earlier.
const MAKE_WAY: Duration = Duration::from_secs(5);

/// What is there when the pass begins.
pub struct Found {
    running: Running,
    /// Key that signs uploads.
    http_secret: Sensitive<String>,
    /// The registry's configuration, as its pods read it when they start.
    config: Option<String>,
    /// Its front end's, likewise.
    nginx: Option<String>,
    /// Hash of what pods are made from.
    template: String,
    /// The operator's image that the running pods were made with.
    probe_image: Option<String>,
}

/// What the part gives back.
pub struct State {
    /// How it is doing; `None`: nothing runs yet.
    pub workload: Option<Workload>,
    /// How the registry answered.
    pub answer: Answer,
    /// What its pods say of logins from elsewhere.
    pub heard: Heard,
    /// What stands in the way.
    pub problem: Option<Problem>,
    /// What must stay.
    pub keep: Keep,
    /// Whether it has ended, and is not to be started again although its Job may vanish.
    pub has_ended: bool,
    /// Whether its Job is removed when it has ended, so that nothing else tells of it.
    pub is_fleeting: bool,
    /// Its pods, as far as they were looked at.
    pub pods: Vec<PodFacts>,
    /// How soon to look again, if sooner than usual.
    pub soon: Option<Duration>,
    /// Whether it serves another certificate than the one that is stored.
    pub is_behind: bool,
}

/// Reads what runs.
///
/// # Errors
/// What could not be read, as the user is told.
pub async fn look(pass: &Pass<'_>) -> Result<Found, Problem> {
    let engine = &pass.ctx.engine;
    let (kind, _) = running::workload_kinds(pass.registry);
    let config = pass.read_random(Child::Config).await;
    let live = engine.read_known_child(&pass.owner, kind, pass.registry.name.as_str()).await;
    let (config, live) = (config.map_err(|error| pass.problem(error))?, live.map_err(|error| pass.problem(error))?);
    let text = |key: &str| config.as_ref().and_then(|live| String::from_utf8(live.data(key)?).ok());
    let (kept, config, nginx) = (text(HTTP_SECRET_KEY), text(CONFIG_KEY), text(NGINX_KEY));
    let http_secret = match kept.filter(|kept| kept.len() >= 32) {
        Some(kept) => kept.into(),
        None => generated::http_secret().map_err(|error| pass.problem(error))?,
    };
    let probe_image = live.as_ref().and_then(|live| live.annotation(labels::PROBE_IMAGE)).map(str::to_owned);
    let image = probe_image.as_deref().unwrap_or(&pass.registry.operator_image);
    let template = workload::template_hash(pass.registry, &http_secret, image);
    let running = Running::look(pass.registry, live, pass.key, pass.ctx).await.map_err(|error| pass.problem(error))?;
    Ok(Found { running, http_secret, config, nginx, template, probe_image })
}

impl Found {
    /// Whether pods are replaced in any case: then a certificate may come with them.
    fn rollout_is_pending(&self) -> bool {
        let live = self.running.workload();
        live.is_some_and(|live| live.annotation(labels::TEMPLATE) != Some(self.template.as_str()))
    }

    /// What pods do while the certificate is decided about.
    #[must_use]
    pub fn rollout(&self, registry: &Resolved) -> Rollout {
        Rollout { is_pending: self.rollout_is_pending(), serves: self.running.serves(registry) }
    }

    /// Whether the configuration changes together with what pods are made from.
    fn rewrites(&self, registry: &Resolved) -> bool {
        let rendered = || desired::config::render(registry, &self.http_secret);
        let differs = || self.config != Some(rendered()) || self.nginx != desired::nginx::render(registry);
        self.rollout_is_pending() && self.config.is_some() && differs()
    }
}

/// Brings what runs to what is wanted, if everything is there that it needs.
pub async fn settle(
    pass: &Pass<'_>,
    found: Result<Found, Problem>,
    address: &Address,
    certificate: &Serving,
    logins: &Logins,
    storage: &Storage,
) -> State {
    let found = match found {
        Ok(found) => found,
        Err(problem) => return State { problem: Some(problem), ..State::as_before(pass, None) },
    };
    let is_behind = match certificate {
        Serving::Certificate(certificate) => found.running.serves_another(pass.registry, Some(certificate)),
        Serving::Nothing | Serving::Missing => false,
    };
    let as_before = || State { is_behind, ..State::as_before(pass, Some(&found)) };
    // Whoever ends the last pod now ends the images.
    if storage.is_leaving {
        return as_before();
    }
    let blocked = pass.registry.faults.workload.as_ref().map(Problem::of);
    let certificate = match certificate {
        Serving::Nothing => Some(None),
        Serving::Certificate(certificate) => Some(Some(certificate.as_ref().clone())),
        Serving::Missing => None,
    };
    match certificate {
        Some(certificate) if blocked.is_none() && logins.is_guarded && storage.is_usable => {
            match run(pass, &found, address, certificate, logins, storage).await {
                Ok(state) => state,
                Err(error) => {
                    let problem = Some(pass.problem(error));
                    halt(pass, State { problem, ..as_before() }, storage).await
                }
            }
        }
        _ => halt(pass, State { problem: blocked, ..as_before() }, storage).await,
    }
}

/// What cannot be brought to what is wanted can still be stopped, if it is to be: because the manifest says so, or because its volume is
/// another's, or another one.
async fn halt(pass: &Pass<'_>, state: State, storage: &Storage) -> State {
    let suspended = pass.manifest.spec.suspend == Some(true);
    if !suspended && !storage.is_held_by_another && !storage.is_lost {
        return state;
    }
    if let Err(error) = running::stop(&pass.owner, pass.ctx).await {
        return State { problem: Some(pass.problem(error)), ..state };
    }
    let reason = if suspended { reason::SUSPENDED } else { reason::NOT_RUNNING };
    let message = if storage.is_lost {
        "stopped, so that no other volume is served in the place of the one that held the images".to_owned()
    } else {
        "stopped; the rest of the manifest cannot be applied".to_owned()
    };
    State { workload: Some(Workload::Stopped { reason, message }), answer: Answer::NotAsked, ..state }
}

impl State {
    /// What runs goes on; everything that it may need stays.
    fn as_before(pass: &Pass<'_>, found: Option<&Found>) -> Self {
        Self {
            workload: found.and_then(|found| found.running.former()),
            answer: match summary::answer_of(pass.before) {
                // The answer may have come after the last report.
                Answer::NotAsked => pass.ctx.answers.last(pass.key),
                known => known,
            },
            heard: pass.ctx.hearings.last(pass.key),
            problem: None,
            keep: everything(pass),
            has_ended: pass.before.ended_generation == Some(pass.registry.generation),
            is_fleeting: pass.before.started_generation == Some(pass.registry.generation),
            pods: found.map(|found| found.running.pods.clone()).unwrap_or_default(),
            soon: None,
            is_behind: false,
        }
    }
}

/// What runs and what its pods mount.
fn everything(pass: &Pass<'_>) -> Keep {
    Keep::from([
        pass.named(kinds::SECRET, Child::Config),
        pass.named(kinds::SECRET, Child::Tls),
        pass.named(kinds::SECRET, Child::Htpasswd),
        pass.named(kinds::SECRET, Child::Token),
        pass.named(kinds::DEPLOYMENT, Child::Workload),
        pass.named(kinds::JOB, Child::Workload),
        pass.named(kinds::POD_DISRUPTION_BUDGET, Child::DisruptionBudget),
    ])
}

async fn run(
    pass: &Pass<'_>,
    found: &Found,
    address: &Address,
    certificate: Option<desired::ServingCertificate>,
    logins: &Logins,
    storage: &Storage,
) -> Result<State, Error> {
    let (registry, before, ctx) = (pass.registry, pass.before, pass.ctx);
    let running = &found.running;
    // A renewal rolls the pods, and with them comes the present operator's image.
    let renewed = running.serves_another(registry, certificate.as_ref());
    let probe_image = found.probe_image.clone().filter(|_| !found.rollout_is_pending() && !renewed);
    let run = Run { probe_image, ..running.run(registry, pass.now) };
    let rests = running.rests(registry, before, &found.template);
    let has_ended = running.has_ended(registry, before, !ctx.recall.has_seen_job(pass.key))
        && (rests || running.workload().is_none());
    let rests = rests || has_ended;
    if !rests && let Some(pod) = former_pod(pass, found, storage).await? {
        let workload = Some(Workload::Progressing { message: pod, ready: 0 });
        let as_before = State::as_before(pass, Some(found));
        return Ok(State { workload, answer: Answer::NotAsked, soon: Some(MAKE_WAY), ..as_before });
    }
    let tokens = logins.tokens.clone();
    let material = Material { certificate, tokens, ..Material::without_secrets(found.http_secret.clone()) };
    // The pod that runs would read the new configuration when its process starts again, and go away with the old workload, although the new one is refused.
    if !rests && (found.rewrites(registry) || running.changes_kind(registry, &pass.owner, ctx).await?) {
        ctx.engine.rehearse(&pass.owner, &workload::build(registry, &material, &run)).await?;
    }
    if !rests && running.makes_way(registry, &pass.owner, pass.key, before, ctx).await? {
        let workload = Some(Workload::Progressing { message: running::MAKING_WAY.to_owned(), ready: 0 });
        let as_before = State::as_before(pass, Some(found));
        return Ok(State { workload, answer: Answer::NotAsked, soon: Some(MAKE_WAY), ..as_before });
    }
    // Two of them at once would share a volume. A registry of which nothing was reported yet cannot have another one.
    if running.workload().is_none() && before.observed_generation.is_some() {
        let (kind, name) = pass.named(running::workload_kinds(registry).0, Child::Workload);
        ctx.engine.confirm(&pass.owner, &ObjectRef::new(kind, &registry.namespace, &name)).await?;
    }
    pass.apply(identity::build(registry)).await?;
    pass.apply_random(Child::Config, secrets::configuration(registry, &material)).await?;
    let applied = if rests { None } else { Some(pass.apply(workload::build(registry, &material, &run)).await?) };
    if applied.is_some() && registry.restart.is_job() {
        ctx.recall.saw_job(pass.key);
    }
    let mut keep = Keep::from([pass.named(kinds::SECRET, Child::Config)]);
    keep.insert((running::workload_kinds(registry).0, registry.name.to_string()));
    if let Some(budget) = desired::disruption_budget::build(registry) {
        keep.insert(pass.named(kinds::POD_DISRUPTION_BUDGET, Child::DisruptionBudget));
        pass.apply(budget).await?;
    }
    if running.lost_meanwhile(registry, applied.as_ref(), before, pass.key, ctx) {
        pass.failures.overtaken();
    }
    let replacing = applied.as_ref().is_some_and(|applied| applied.outcome == Outcome::Replacing);
    let state = running.state(registry, applied.as_ref(), &run, before);
    let answer = running::ask(pass, &material, address.service(), state.as_ref(), applied.as_ref()).await;
    let heard = identities::hear(pass, &material, state.as_ref()).await;
    Ok(State {
        workload: state,
        answer,
        heard,
        problem: None,
        keep,
        has_ended,
        is_fleeting: !has_ended && running.is_fleeting(registry, applied.as_ref()),
        pods: running.pods.clone(),
        soon: replacing.then_some(MAKE_WAY),
        is_behind: false,
    })
}

/// What is waited for before the first pod is started on a claim that was there: a pod that still has it mounted. Two processes would destroy each
/// other's images.
async fn former_pod(pass: &Pass<'_>, found: &Found, storage: &Storage) -> Result<Option<String>, Error> {
    let Some(claim) = storage.claim_name().filter(|_| storage.is_old && found.running.workload().is_none()) else {
        return Ok(None);
    };
    let pod = pass.ctx.still_mounting(pass.key, claim, pass.registry.storage.is_shared()).await?;
    Ok(pod.map(|(pod, registry)| {
        format!("Pod {pod} of PrivateRegistry {registry} still has PersistentVolumeClaim {claim} mounted; the registry starts when it has ended")
    }))
}
