//! The front end in the registry's pod: nginx, which ends TLS and sends blobs, and our sidecar, which brings it the certificate and says who may have what.
//! What they share lies in memory.
//!
//! ```text
//!  Secret NAME-tls ──▶ sidecar ──(checked pair)──▶ nginx ──(socket)──▶ registry
//!  Secret NAME-htpasswd ──▶ │ ◀──(socket: may he?)──╯ ╰───(read-only)──▶ volume
//! ```

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, ExecAction, Probe, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::nginx::ALIVE;
use super::pod::{
    AUTH, DATA, FRONTEND_CONFIG, Life, PORT, TLS, TOKENS, asks, container_context, has_logins, mount, port,
    requirements, withdrawn,
};
use super::secrets::NGINX_KEY;
use super::{cluster_access, issuer_keys};
use crate::model::{Frontend, Pulls, Resolved};

/// Name of nginx's container.
pub const CONTAINER: &str = "frontend";
/// Name of the sidecar's container.
pub const SIDECAR: &str = "sidecar";
/// Folder of the registry's socket.
pub const SOCKET_FOLDER: &str = "/run/registry";
/// The registry's socket.
pub const SOCKET: &str = "/run/registry/registry.sock";
/// What the sidecar writes and nginx reads.
pub const FOLDER: &str = "/run/frontend";
/// Which addresses nginx listens on.
pub const LISTEN: &str = "/run/frontend/listen.conf";
/// The pair that is served: a link to a folder with tls.crt and tls.key.
pub const PAIR: &str = "/run/frontend/tls/current";
/// Where nginx asks the sidecar who may have what.
pub const GATE: &str = "/run/frontend/gate.sock";
/// What nginx writes.
pub const SCRATCH: &str = "/run/nginx";

pub(super) const CONFIG_VOLUME: &str = "frontend-config";
pub(super) const SOCKET_VOLUME: &str = "socket";
const FOLDER_VOLUME: &str = "frontend";
const SCRATCH_VOLUME: &str = "scratch";

/// nginx.
pub(super) fn nginx(registry: &Resolved, frontend: &Frontend, life: Life) -> Container {
    let mut mounts = vec![
        mount(CONFIG_VOLUME, FRONTEND_CONFIG, true),
        mount(FOLDER_VOLUME, FOLDER, true),
        mount(SOCKET_VOLUME, SOCKET_FOLDER, false),
        mount(SCRATCH_VOLUME, SCRATCH, false),
    ];
    mounts.extend((frontend.pulls != Pulls::Registry).then(|| mount("data", DATA, true)));
    Container {
        name: CONTAINER.to_owned(),
        image: Some(frontend.image.clone()),
        // Not the image's entry point, which edits files of the image.
        command: Some(
            ["nginx", "-e", "stderr", "-c", &format!("{FRONTEND_CONFIG}/{NGINX_KEY}")].map(str::to_owned).to_vec(),
        ),
        ports: Some(vec![port()]),
        volume_mounts: Some(mounts),
        // What it answers itself: a restart mends nginx, and not the registry behind it. In a Job each restart would count as one of the registry's.
        liveness_probe: (life == Life::Endless).then(|| asks(registry, ALIVE, 10, 6)),
        startup_probe: (life == Life::Endless).then(|| asks(registry, ALIVE, 1, 120)),
        readiness_probe: Some(asks(registry, ALIVE, 10, 3)),
        lifecycle: withdrawn(registry, 0).filter(|_| life == Life::Endless),
        restart_policy: always_in_a_job(life),
        ..ours(registry, frontend)
    }
}

/// The sidecar: the same program as the operator. It starts before nginx and ends after it.
pub(super) fn sidecar(registry: &Resolved, frontend: &Frontend, image: &str) -> Container {
    let how = if registry.has_tls() { format!("{PORT} ssl http2") } else { PORT.to_string() };
    let mut args = vec!["sidecar".to_owned(), FOLDER.to_owned(), format!("--listen={how}")];
    let mut mounts = vec![mount(FOLDER_VOLUME, FOLDER, false)];
    if registry.has_tls() {
        args.push(format!("--certificate={TLS}"));
        mounts.push(mount("tls", TLS, true));
    }
    let (has_tokens, pulls) = (registry.policy().is_some(), frontend.pulls == Pulls::AskingGate);
    if pulls {
        args.push(format!("--data={DATA}"));
        mounts.push(mount("data", DATA, true));
    }
    if has_logins(registry) && (pulls || has_tokens) {
        args.push(format!("--logins={AUTH}"));
        mounts.push(mount("auth", AUTH, true));
    }
    if has_tokens {
        args.push(format!("--tokens={TOKENS}"));
        mounts.push(mount("token", TOKENS, true));
    }
    mounts.extend(registry.cluster_logins().map(|_| cluster_access::mounted()));
    let issuers = issuer_keys::mounted(registry);
    args.extend((!issuers.is_empty()).then(|| format!("--issuers={}", issuer_keys::FOLDER)));
    mounts.extend(issuers);
    let is_ready = ["/usr/local/bin/private-registry-operator", "sidecar-is-ready", FOLDER].map(str::to_owned);
    Container {
        name: SIDECAR.to_owned(),
        image: Some(image.to_owned()),
        args: Some(args),
        volume_mounts: Some(mounts),
        // nginx starts when what it reads is there.
        startup_probe: Some(Probe {
            exec: Some(ExecAction { command: Some(is_ready.into()) }),
            period_seconds: Some(1),
            timeout_seconds: Some(5),
            failure_threshold: Some(120),
            ..Probe::default()
        }),
        restart_policy: Some("Always".to_owned()),
        ..ours(registry, frontend)
    }
}

fn ours(registry: &Resolved, frontend: &Frontend) -> Container {
    Container {
        resources: Some(requirements(frontend.resources.as_ref(), ["10m", "32Mi"])),
        security_context: Some(container_context(registry)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn always_in_a_job(life: Life) -> Option<String> {
    (life != Life::Endless).then(|| "Always".to_owned())
}

/// The folders that the containers share, or have for themselves. Nothing of them reaches a disk: the key of the certificate is in one.
pub(super) fn in_memory() -> [Volume; 3] {
    [(SOCKET_VOLUME, "1Mi"), (FOLDER_VOLUME, "4Mi"), (SCRATCH_VOLUME, "16Mi")].map(|(name, limit)| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity(limit.to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    })
}
