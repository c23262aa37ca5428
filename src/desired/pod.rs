//! The registry's pod, the same for a Deployment and a Job. It passes Pod Security `restricted`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction, KeyToPath,
    Lifecycle, LifecycleHandler, PersistentVolumeClaimVolumeSource, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, SleepAction, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::service::PORT_NAME;
use super::{Material, cluster_access, config, frontend, issuer_keys, merge, nginx, secrets, some};
use crate::api::Resources;
use crate::model::{Child, Resolved, Storage, Users, labels};

/// Port that the registry listens on, whatever the Service's port is.
pub const PORT: i32 = 5000;
/// Where the volume is mounted.
pub const DATA: &str = "/var/lib/registry";
/// Where certificate and key are mounted.
pub const TLS: &str = "/etc/registry/tls";
/// Where the users' table is mounted. Always as a folder: a subPath would never be refreshed.
pub const AUTH: &str = "/etc/registry/auth";
/// Where what signs tokens is mounted, in the sidecar.
pub const TOKENS: &str = "/etc/registry/token";
/// Where the configuration is mounted.
pub const CONFIG: &str = "/etc/registry/config";
/// Name of the init container that probes the volume.
pub const VOLUME_PROBE: &str = "check-volume";
/// Name of the registry's container.
pub const CONTAINER: &str = "registry";

/// Where the front end's configuration is mounted.
pub const FRONTEND_CONFIG: &str = "/etc/registry/frontend";

const USER: i64 = 65532;
/// With several pods: seconds that a stopping pod still answers, so that no client is sent to it any more.
pub(super) const WITHDRAW_SECONDS: i64 = 5;
/// Seconds that the registry stays for what its front end has begun, when that one takes nothing new any more.
const LAST_SECONDS: i64 = 2;

/// Whether the kubelet restarts the container for ever (a Deployment) or the workload ends with it (a Job).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Restarted for ever.
    Endless,
    /// Restarted after an error.
    OnFailure,
    /// Never restarted.
    Once,
}

/// The pod template. `probe_image` is the operator's image: of the init container, and of the front end's sidecar.
#[must_use]
pub fn template(registry: &Resolved, material: &Material, life: Life, probe_image: &str) -> PodTemplateSpec {
    let wanted = &registry.pod;
    let mut pod_labels = registry.common_labels.clone();
    pod_labels.extend(wanted.labels.clone());
    pod_labels.extend(labels::disposable(&registry.name));
    let mut node_selector = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
    node_selector.extend(wanted.node_selector.clone());
    let mut annotations = wanted.annotations.clone();
    let clients = registry.protocol.client_authorities.as_deref().unwrap_or_default();
    let front = nginx::render(registry).unwrap_or_default() + clients;
    // The registry reads them once, when it starts.
    let checks = material.tokens.as_ref().map_or("", |keys| keys.public.as_str());
    // A sidecar of an operator that knew no second passwords could not read the rules beside them: pods with it are replaced before there are any.
    let has_second_lines = registry.policy().is_some() && !registry.rotated_users().is_empty();
    let lines = if has_second_lines { "second lines" } else { "" };
    let configuration = config::render(registry, &material.http_secret) + &front + checks + lines;
    let checksum = super::workload::sha256(configuration.as_bytes());
    annotations.insert(labels::CONFIG_CHECKSUM.to_owned(), checksum);
    // The front end serves a new one without being started again.
    if let Some(certificate) = material.certificate.as_ref().filter(|_| registry.frontend.is_none()) {
        annotations.insert(labels::TLS_CHECKSUM.to_owned(), certificate.checksum.clone());
    }
    let mut containers = vec![container(registry, life)];
    let mut init_containers = vec![probe_of_the_volume(registry, probe_image)];
    if let Some(wanted) = &registry.frontend {
        init_containers.push(frontend::sidecar(registry, wanted, probe_image));
        let nginx = frontend::nginx(registry, wanted, life);
        // In a Job it must not keep the pod from ending. Elsewhere it must stop before the registry does.
        if life == Life::Endless { containers.push(nginx) } else { init_containers.push(nginx) }
    }
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers,
            init_containers: Some(init_containers),
            volumes: Some(volumes(registry)),
            service_account_name: Some(registry.name.child(Child::ServiceAccount)),
            automount_service_account_token: Some(false),
            // A Service called `registry-auth` would otherwise become a variable that overrides the configuration.
            enable_service_links: Some(false),
            security_context: Some(pod_context(wanted.security_context.as_ref())),
            termination_grace_period_seconds: Some(config::DRAIN_SECONDS + 2 * WITHDRAW_SECONDS),
            restart_policy: Some(
                match life {
                    Life::Endless => "Always",
                    Life::OnFailure => "OnFailure",
                    Life::Once => "Never",
                }
                .to_owned(),
            ),
            node_selector: Some(node_selector),
            tolerations: some_list(&wanted.tolerations),
            affinity: wanted.affinity.clone().or_else(|| (registry.replicas > 1).then(|| apart(registry))),
            topology_spread_constraints: some_list(&wanted.topology_spread_constraints),
            priority_class_name: wanted.priority_class_name.clone(),
            image_pull_secrets: some_list(&wanted.image_pull_secrets),
            ..PodSpec::default()
        }),
    }
}

fn container(registry: &Resolved, life: Life) -> Container {
    let mut env =
        vec![EnvVar { name: "OTEL_TRACES_EXPORTER".to_owned(), value: Some("none".to_owned()), ..EnvVar::default() }];
    env.retain(|ours| registry.pod.env.iter().all(|theirs| theirs.name != ours.name));
    env.extend(registry.pod.env.iter().cloned());
    let mut mounts = vec![mount("config", CONFIG, true), mount("data", DATA, false)];
    match registry.frontend {
        Some(_) => mounts.push(mount(frontend::SOCKET_VOLUME, frontend::SOCKET_FOLDER, false)),
        None => mounts.extend(registry.has_tls().then(|| mount("tls", TLS, true))),
    }
    mounts.extend((has_logins(registry) && registry.policy().is_none()).then(|| mount("auth", AUTH, true)));
    Container {
        name: CONTAINER.to_owned(),
        image: Some(registry.image.clone()),
        // The published images differ in their entry points, not in this.
        command: Some(["registry", "serve"].map(str::to_owned).to_vec()),
        args: Some(vec![format!("{CONFIG}/{}", secrets::CONFIG_KEY)]),
        env: Some(env),
        ports: registry.frontend.is_none().then(|| vec![port()]),
        volume_mounts: Some(mounts),
        resources: Some(resources(registry.pod.resources.as_ref())),
        security_context: Some(container_context(registry)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        readiness_probe: Some(answers(registry, 10, 3)),
        // A Job's pod ends when its process ends: no probe may kill it.
        startup_probe: (life == Life::Endless).then(|| answers(registry, 1, 120)),
        // No liveness probe. Every HTTP route answers 503 while the storage is at fault, which a restart does not mend; a TCP
        // connection is accepted by the kernel even for a process that hangs, and each one is a line about a failed handshake in
        // the log. A process that ends is restarted without being asked.
        lifecycle: withdrawn(registry, if registry.frontend.is_some() { LAST_SECONDS } else { 0 }),
        ..Container::default()
    }
}

/// The port that clients reach.
pub(super) fn port() -> ContainerPort {
    ContainerPort {
        name: Some(PORT_NAME.to_owned()),
        container_port: PORT,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// One of several pods answers until clients are sent to the others, and `longer`.
pub(super) fn withdrawn(registry: &Resolved, longer: i64) -> Option<Lifecycle> {
    (registry.replicas > 1).then(|| Lifecycle {
        pre_stop: Some(LifecycleHandler {
            sleep: Some(SleepAction { seconds: WITHDRAW_SECONDS + longer }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    })
}

/// Storage that ignores fsGroup answers 500 to every push while the registry looks healthy: it must fail here, with words.
fn probe_of_the_volume(registry: &Resolved, image: &str) -> Container {
    Container {
        name: VOLUME_PROBE.to_owned(),
        image: Some(image.to_owned()),
        args: Some(vec!["check-volume".to_owned(), DATA.to_owned()]),
        volume_mounts: Some(vec![mount("data", DATA, false)]),
        // The same as the registry's: a pod's need is the larger of the two, and a quota may ask limits of every container.
        resources: Some(resources(registry.pod.resources.as_ref())),
        security_context: Some(container_context(registry)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn volumes(registry: &Resolved) -> Vec<Volume> {
    let secret = |volume: &str, child: Child, keys: &[&str]| Volume {
        name: volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(registry.name.child(child)),
            // Named items keep the pod from starting while one is missing.
            items: Some(
                keys.iter()
                    .map(|key| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), ..KeyToPath::default() })
                    .collect(),
            ),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    let (has_tokens, [signing, next, former, refresh, _]) = (registry.policy().is_some(), secrets::TOKEN_KEYS);
    let checks = has_tokens.then_some(secrets::JWKS_KEY);
    let mut volumes =
        vec![secret("config", Child::Config, &[secrets::CONFIG_KEY].into_iter().chain(checks).collect::<Vec<_>>())];
    if registry.has_tls() {
        volumes.push(secret("tls", Child::Tls, &["tls.crt", "tls.key"]));
    }
    if has_logins(registry) {
        let access = has_tokens.then_some(secrets::ACCESS_KEY);
        let keys: Vec<_> = [secrets::HTPASSWD_KEY].into_iter().chain(access).collect();
        volumes.push(secret("auth", Child::Htpasswd, &keys));
    }
    if has_tokens {
        volumes.push(secret("token", Child::Token, &[signing, next, former, refresh]));
    }
    volumes.extend(registry.cluster_logins().map(|_| cluster_access::volume()));
    volumes.extend(issuer_keys::volumes(registry));
    if registry.frontend.is_some() {
        let clients = registry.protocol.client_authorities.as_ref().map(|_| secrets::CLIENT_CA_KEY);
        let keys: Vec<_> = [secrets::NGINX_KEY].into_iter().chain(clients).collect();
        volumes.push(secret(frontend::CONFIG_VOLUME, Child::Config, &keys));
        volumes.extend(frontend::in_memory());
    }
    let claim = |name: String| {
        Some(PersistentVolumeClaimVolumeSource { claim_name: name, ..PersistentVolumeClaimVolumeSource::default() })
    };
    let mut data = Volume { name: "data".to_owned(), ..Volume::default() };
    match &registry.storage {
        Storage::Claim { .. } => data.persistent_volume_claim = claim(registry.name.child(Child::Data)),
        Storage::Existing { name, .. } => data.persistent_volume_claim = claim(name.clone()),
        Storage::EmptyDir { limit } => {
            data.empty_dir = Some(EmptyDirVolumeSource {
                size_limit: limit.clone().map(Quantity),
                ..EmptyDirVolumeSource::default()
            });
        }
    }
    volumes.push(data);
    volumes
}

pub(super) fn has_logins(registry: &Resolved) -> bool {
    matches!(registry.users, Users::Table { .. })
}

pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// `GET /` is answered without login and without hashing a password. A front end passes it on.
fn answers(registry: &Resolved, period_seconds: i32, failure_threshold: i32) -> Probe {
    asks(registry, "/", period_seconds, failure_threshold)
}

/// Asks for a path.
pub(super) fn asks(registry: &Resolved, path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    // A name is looked up among the ports of the container that is asked.
    let port = match registry.frontend {
        Some(_) => IntOrString::Int(PORT),
        None => IntOrString::String(PORT_NAME.to_owned()),
    };
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port,
            scheme: Some(if registry.has_tls() { "HTTPS" } else { "HTTP" }.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn resources(given: Option<&Resources>) -> ResourceRequirements {
    requirements(given, ["50m", "64Mi"])
}

/// What was chosen, or requests of so much CPU and memory.
pub(super) fn requirements(given: Option<&Resources>, [cpu, memory]: [&str; 2]) -> ResourceRequirements {
    let map = |given: &BTreeMap<String, crate::api::Quantity>| {
        some(given.iter().map(|(name, quantity)| (name.clone(), Quantity(quantity.0.clone()))).collect())
    };
    match given {
        Some(given) => ResourceRequirements {
            requests: map(&given.requests),
            limits: map(&given.limits),
            ..ResourceRequirements::default()
        },
        None => ResourceRequirements {
            requests: Some(BTreeMap::from([
                ("cpu".to_owned(), Quantity(cpu.to_owned())),
                ("memory".to_owned(), Quantity(memory.to_owned())),
            ])),
            ..ResourceRequirements::default()
        },
    }
}

/// An empty context names nothing to change: then the platform chooses who the process is. What must hold stands on the containers.
fn pod_context(given: Option<&PodSecurityContext>) -> PodSecurityContext {
    match given {
        None => restricted(),
        Some(given) if *given == PodSecurityContext::default() => PodSecurityContext::default(),
        Some(given) => merge::typed(&restricted(), given),
    }
}

pub(super) fn container_context(registry: &Resolved) -> SecurityContext {
    match &registry.pod.container_security_context {
        None => confined(),
        Some(given) => merge::typed(&confined(), given),
    }
}

fn restricted() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // A volume of a million files is not walked at every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

fn confined() -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}

/// Replicas prefer different nodes.
fn apart(registry: &Resolved) -> Affinity {
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: PodAffinityTerm {
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    label_selector: Some(LabelSelector {
                        match_labels: Some(labels::selector(&registry.name)),
                        ..LabelSelector::default()
                    }),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn some_list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
