//! What runs the registry: a Deployment, or a Job where the restart policy lets the process end.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};

use super::pod::{self, Life};
use super::{Hold, Material, Object, object};
use crate::api::RestartType;
use crate::model::{Child, Resolved, labels};
use crate::secret::Sensitive;

/// Seconds that a finished Job stays: as many as there may be.
pub const KEPT_FOR: i32 = i32::MAX;

/// What the cluster says about how much should run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    /// A user scaled the Deployment to zero, and the restart policy respects it.
    pub stopped_by_user: bool,
    /// Restarts that are forgiven, because a long good run came after them.
    pub forgiven_restarts: i32,
    /// The operator's image that pods probe their volume with; `None`: the present one. A new operator is no reason to roll pods:
    /// its image comes with the next rollout that happens anyway.
    pub probe_image: Option<String>,
    /// The version of the Deployment that this was read from, where writing over a later one would undo what a user did meanwhile.
    pub version: Option<String>,
}

impl Run {
    fn probe_image<'a>(&'a self, registry: &'a Resolved) -> &'a str {
        self.probe_image.as_deref().unwrap_or(&registry.operator_image)
    }
}

/// The Deployment or Job.
#[must_use]
pub fn build(registry: &Resolved, material: &Material, run: &Run) -> Object {
    if registry.restart.is_job() {
        object(&job(registry, material, run), Hold::Disposable)
    } else {
        object(&deployment(registry, material, run), Hold::Disposable)
    }
}

fn deployment(registry: &Resolved, material: &Material, run: &Run) -> Deployment {
    // The number that a user's zero is compared with: the operator's own zero is none.
    let wanted = if registry.suspend && !run.stopped_by_user { 0 } else { registry.replicas };
    let mut metadata = registry.metadata(Child::Workload);
    metadata.resource_version.clone_from(&run.version);
    metadata.annotations = Some(BTreeMap::from([
        (labels::REPLICAS.to_owned(), wanted.to_string()),
        (labels::TEMPLATE.to_owned(), template_hash(registry, &material.http_secret, run.probe_image(registry))),
        (labels::PROBE_IMAGE.to_owned(), run.probe_image(registry).to_owned()),
    ]));
    metadata.annotations.get_or_insert_default().extend(served(registry, material));
    Deployment {
        metadata,
        spec: DeploymentSpec {
            replicas: Some(if run.stopped_by_user { 0 } else { wanted }),
            revision_history_limit: Some(2),
            // `kubectl rollout pause` would hold up renewed certificates: it is repaired like any other difference.
            paused: Some(false),
            selector: LabelSelector {
                match_labels: Some(labels::selector(&registry.name)),
                ..LabelSelector::default()
            },
            strategy: Some(strategy(registry)),
            template: pod::template(registry, material, Life::Endless, run.probe_image(registry)),
            ..DeploymentSpec::default()
        },
        ..Deployment::default()
    }
}

/// Which certificate its pods serve: told without its template. Behind a front end that changes while they run.
fn served(registry: &Resolved, material: &Material) -> Option<(String, String)> {
    let certificate = material.certificate.as_ref().filter(|_| registry.frontend.is_none())?;
    Some((labels::TLS_CHECKSUM.to_owned(), certificate.checksum.clone()))
}

/// Two pods cannot have a volume that one node mounts: the old one goes first.
fn strategy(registry: &Resolved) -> DeploymentStrategy {
    if !registry.storage.is_shared() {
        return DeploymentStrategy { type_: Some("Recreate".to_owned()), ..DeploymentStrategy::default() };
    }
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        // Always sent: fields that the API server filled in itself would make a later switch to Recreate invalid.
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}

fn job(registry: &Resolved, material: &Material, run: &Run) -> Job {
    let once = registry.restart == RestartType::Never;
    let mut metadata = registry.metadata(Child::Workload);
    let template = template_hash(registry, &material.http_secret, run.probe_image(registry));
    metadata.annotations = Some(BTreeMap::from([
        (labels::TEMPLATE.to_owned(), template),
        (labels::PROBE_IMAGE.to_owned(), run.probe_image(registry).to_owned()),
    ]));
    metadata.annotations.get_or_insert_default().extend(served(registry, material));
    let forgiven = Some(run.forgiven_restarts).filter(|count| *count > 0 && registry.max_retries.is_some());
    let forgiven = forgiven.map(|count| (labels::FORGIVEN_RESTARTS.to_owned(), count.to_string()));
    metadata.annotations.get_or_insert_default().extend(forgiven);
    Job {
        metadata,
        spec: Some(JobSpec {
            completions: Some(1),
            parallelism: Some(1),
            suspend: Some(registry.suspend),
            // A deleted or drained pod is replaced when it has ended.
            pod_replacement_policy: Some("Failed".to_owned()),
            // Whoever has ended is not to be started again, which a Job that vanished would be.
            ttl_seconds_after_finished: Some(KEPT_FOR),
            backoff_limit: Some(if once { 0 } else { backoff_limit(registry, run) }),
            // A drain is no failure of the process. Kubernetes allows such a rule only where pods never restart.
            pod_failure_policy: once.then(|| PodFailurePolicy {
                rules: vec![PodFailurePolicyRule {
                    action: "Ignore".to_owned(),
                    on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                        type_: "DisruptionTarget".to_owned(),
                        status: Some("True".to_owned()),
                    }]),
                    ..PodFailurePolicyRule::default()
                }],
            }),
            template: pod::template(
                registry,
                material,
                if once { Life::Once } else { Life::OnFailure },
                run.probe_image(registry),
            ),
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

/// A Job fails as soon as restarts *reach* the limit, so n retries need n + 1.
fn backoff_limit(registry: &Resolved, run: &Run) -> i32 {
    match registry.max_retries {
        None => i32::MAX,
        Some(retries) => retries.saturating_add(1).saturating_add(run.forgiven_restarts),
    }
}

/// What the pods are made from, the certificate left out: whether they roll for a reason that the manifest gives. `probe_image` is the
/// one that they have, as its annotation says: a changed annotation does not fit its hash, so that nobody can slip in an image.
#[must_use]
pub fn template_hash(registry: &Resolved, http_secret: &Sensitive<String>, probe_image: &str) -> String {
    let bare = Material::without_secrets(http_secret.clone());
    let template = pod::template(registry, &bare, Life::Endless, probe_image);
    sha256(&serde_json::to_vec(&template).expect("a template is JSON"))
}

/// SHA-256, hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
