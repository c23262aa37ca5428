//! Storage for a testbed cluster: one volume per claim, growth through the real kubelet, volumes that fill up, and volumes that ignore
//! `fsGroup`. Runs beside a test ([`start`]), or as a process of a cluster that outlives its command: then the command's program must call
//! [`serve`] when it is started with the arguments that [`crate::node::Node::outlive`] gives it. Knows nothing of registries.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::background::Background;
use crate::control_plane::client;

/// The name in every StorageClass of this provisioner.
pub const PROVISIONER: &str = "testbed.privateregistry.dev/local";
/// The default class: `local` volumes that honour `fsGroup` and can grow.
pub const STANDARD: &str = "standard";
/// As [`STANDARD`], but claims can't grow.
pub const FIXED: &str = "fixed";
/// A volume is a tmpfs of exactly the claim's size, so that a disk can be full; it grows with its claim.
pub const CAPPED: &str = "capped";
/// `hostPath` volumes: owned by root, whatever `fsGroup` a pod asks for.
pub const HOST_PATH: &str = "host-path";

const VOLUME: &str = "testbed.privateregistry.dev/volume";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const ASKED_OF: &str = "volume.kubernetes.io/storage-provisioner";
const RETRY: Duration = Duration::from_millis(500);

/// What the provisioner must know of the cluster it serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Settings {
    /// No kubelet: claims are bound and grown at once, and no folder is made.
    ApiOnly,
    /// A real kubelet: claims are bound when a pod needs them, and the kubelet finishes their growth.
    Kubelet {
        /// One folder per volume is made below this one.
        folder: PathBuf,
        /// The node's name.
        node: String,
        /// A process in the node's mount namespace; there the file systems of [`CAPPED`] volumes are mounted.
        mounts_of: u32,
    },
}

/// How a class makes its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Volume {
    Local,
    Capped,
    HostPath,
}

/// Claims made before the classes are bound once [`run`] is at work.
async fn install_classes(client: &Client, settings: &Settings) -> Result<()> {
    let classes = Api::<StorageClass>::all(client.clone());
    let classes = &classes;
    let table =
        [(STANDARD, "local", true), (FIXED, "local", false), (CAPPED, "capped", true), (HOST_PATH, "host-path", false)];
    let writes = table.map(|(name, volume, can_grow)| async move {
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": (name == STANDARD).to_string()}},
            "provisioner": PROVISIONER,
            "parameters": {"volume": volume},
            "allowVolumeExpansion": can_grow,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": if matches!(settings, Settings::ApiOnly) { "Immediate" } else { "WaitForFirstConsumer" },
        });
        classes.patch(name, &PatchParams::apply("testbed").force(), &Patch::Apply(class)).await.with_context(|| format!("apply StorageClass {name}"))
    });
    futures::future::try_join_all(writes).await?;
    Ok(())
}

/// Writes the StorageClasses and serves the cluster of this kubeconfig until the result is dropped.
pub async fn start(kubeconfig: &Path, settings: Settings) -> Result<Background> {
    install_classes(&client(kubeconfig).await?, &settings).await?;
    let kubeconfig = kubeconfig.to_owned();
    Background::start("provisioner", move || async move {
        run(client(&kubeconfig).await?, settings).await;
        Ok(())
    })
}

/// Serves the cluster of this kubeconfig until the process ends. `settings` is a JSON file with [`Settings`].
pub async fn serve(kubeconfig: &Path, settings: &Path) -> Result<()> {
    let text = std::fs::read(settings).with_context(|| format!("read {}", settings.display()))?;
    let settings = serde_json::from_slice(&text).with_context(|| format!("understand {}", settings.display()))?;
    run(client(kubeconfig).await?, settings).await;
    Ok(())
}

/// Serves the cluster until the returned future is dropped. Failures are logged and tried again.
async fn run(client: Client, settings: Settings) {
    let provisioner = Arc::new(Provisioner { client: client.clone(), settings });
    let claims = Controller::new(Api::<PersistentVolumeClaim>::all(client.clone()), watcher::Config::default()).run(
        |claim, provisioner| async move { settle(provisioner.serve(&claim).await, &claim.name_any()) },
        |_, never: &Infallible, _| match *never {},
        provisioner.clone(),
    );
    let volumes = Controller::new(Api::<PersistentVolume>::all(client), watcher::Config::default()).run(
        |volume, provisioner| async move { settle(provisioner.reclaim(&volume).await, &volume.name_any()) },
        |_, never: &Infallible, _| match *never {},
        provisioner,
    );
    futures::join!(claims.for_each(|_| async {}), volumes.for_each(|_| async {}));
}

fn settle(outcome: Result<()>, name: &str) -> Result<Action, Infallible> {
    match outcome {
        Ok(()) => Ok(Action::await_change()),
        Err(error) => {
            tracing::debug!("volume of {name}: {error:#}; trying again");
            Ok(Action::requeue(RETRY))
        }
    }
}

struct Provisioner {
    client: Client,
    settings: Settings,
}

impl Provisioner {
    async fn serve(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        // The controller manager writes this annotation when the time has come: at once, or when the scheduler has chosen a node.
        if claim.annotations().get(ASKED_OF).is_none_or(|name| name != PROVISIONER)
            || claim.metadata.deletion_timestamp.is_some()
        {
            return Ok(());
        }
        match phase(claim) {
            "Bound" => self.grow(claim).await,
            "Lost" => Ok(()),
            _ => self.provision(claim).await,
        }
    }

    async fn provision(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let spec = claim.spec.as_ref().context("the claim has no spec")?;
        let class_name = spec.storage_class_name.as_deref().unwrap_or_default();
        let class = Api::<StorageClass>::all(self.client.clone())
            .get(class_name)
            .await
            .with_context(|| format!("get StorageClass {class_name}"))?;
        let kind = class.parameters.as_ref().and_then(|all| all.get("volume")).map_or("local", String::as_str);
        let volume: Volume =
            serde_json::from_value(json!(kind)).with_context(|| format!("StorageClass {class_name}"))?;
        let size = requested(claim).context("the claim asks for no storage")?;
        let uid = claim.uid().unwrap_or_default();
        let name = format!("pvc-{uid}");

        let (folder, affinity) = match &self.settings {
            Settings::ApiOnly => (PathBuf::from("/nonexistent").join(&name), None),
            Settings::Kubelet { folder, node, .. } => {
                let folder = folder.join(&name);
                std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
                if volume == Volume::Capped {
                    self.mount(&folder, &size).await?;
                }
                (
                    folder,
                    Some(
                        json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}),
                    ),
                )
            }
        };
        // A `local` volume must name its node; without a kubelet there may be none.
        let source = if affinity.is_none() || volume == Volume::HostPath { "hostPath" } else { "local" };
        let mut object = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER, VOLUME: volume}},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": spec.access_modes,
                "storageClassName": class_name,
                "persistentVolumeReclaimPolicy": class.reclaim_policy,
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(), "name": claim.name_any(), "uid": uid},
                "nodeAffinity": affinity,
            },
        });
        object["spec"][source] = json!({"path": folder});
        let object: PersistentVolume = serde_json::from_value(object)?;
        match Api::all(self.client.clone()).create(&PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            other => other.map(drop).with_context(|| format!("create PersistentVolume {name}")),
        }
    }

    /// The order matters: the claim's status first, then the volume's capacity. With the capacity alone, a volume that no pod uses never finishes.
    async fn grow(&self, claim: &PersistentVolumeClaim) -> Result<()> {
        let (Some(wanted), Some(current)) = (requested(claim), capacity(claim)) else { return Ok(()) };
        if bytes(&wanted)? <= bytes(&current)? {
            return Ok(());
        }
        let volumes = Api::<PersistentVolume>::all(self.client.clone());
        let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
        let volume = volumes.get(&name).await.with_context(|| format!("get PersistentVolume {name}"))?;
        let kind = volume.annotations().get(VOLUME).map(String::as_str);
        if kind == Some("capped")
            && let Some(folder) = folder_of(&volume)
        {
            self.mount(&folder, &wanted).await?;
        }

        let claims =
            Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &claim.namespace().unwrap_or_default());
        let capacity_patch = Patch::Merge(json!({"spec": {"capacity": {"storage": wanted}}}));
        let parameters = PatchParams::default();
        match &self.settings {
            Settings::ApiOnly => {
                volumes.patch(&name, &parameters, &capacity_patch).await?;
                let status = json!({"status": {"capacity": {"storage": wanted}}});
                claims.patch_status(&claim.name_any(), &parameters, &Patch::Merge(status)).await?;
            }
            Settings::Kubelet { .. } => {
                if allocated(claim).as_ref() != Some(&wanted) {
                    let pending = json!({"type": "FileSystemResizePending", "status": "True", "lastTransitionTime": jiff::Timestamp::now()});
                    let status = json!({"status": {
                        "allocatedResources": {"storage": wanted},
                        "allocatedResourceStatuses": {"storage": "NodeResizePending"},
                        "conditions": [pending],
                    }});
                    claims.patch_status(&claim.name_any(), &parameters, &Patch::Strategic(status)).await?;
                }
                volumes.patch(&name, &parameters, &capacity_patch).await?;
            }
        }
        Ok(())
    }

    async fn reclaim(&self, volume: &PersistentVolume) -> Result<()> {
        let status = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        let ours = volume.annotations().get(PROVISIONED_BY).is_some_and(|name| name == PROVISIONER);
        if !ours || status != Some("Released") || policy != Some("Delete") {
            return Ok(());
        }
        let name = volume.name_any();
        match Api::<PersistentVolume>::all(self.client.clone()).delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => drop(other.with_context(|| format!("delete PersistentVolume {name}"))?),
        }
        let (Settings::Kubelet { folder: ours, .. }, Some(folder)) = (&self.settings, folder_of(volume)) else {
            return Ok(());
        };
        if volume.annotations().get(VOLUME).is_some_and(|kind| kind == "capped") {
            self.in_node("umount", &[&folder.display().to_string()]).await?;
        }
        if folder.starts_with(ours) && folder.exists() {
            tokio::fs::remove_dir_all(&folder).await.with_context(|| format!("remove {}", folder.display()))?;
        }
        Ok(())
    }

    /// Mounts a tmpfs of the given size, or gives the one that is there that size.
    async fn mount(&self, folder: &Path, size: &Quantity) -> Result<()> {
        let size = format!("size={}", bytes(size)?);
        let path = folder.display().to_string();
        let remount = format!("remount,{size}");
        if self.in_node("mountpoint", &["-q", &path]).await.is_ok() {
            return self.in_node("mount", &["-o", &remount, &path]).await;
        }
        self.in_node("mount", &["-t", "tmpfs", "-o", &format!("{size},mode=0755"), "tmpfs", &path]).await
    }

    async fn in_node(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let Settings::Kubelet { mounts_of, .. } = &self.settings else { return Ok(()) };
        let target = mounts_of.to_string();
        let output = tokio::process::Command::new("nsenter")
            .args(["-t", &target, "-m", program])
            .args(arguments)
            .output()
            .await
            .context("run nsenter")?;
        if !output.status.success() {
            bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn storage(amounts: Option<&BTreeMap<String, Quantity>>) -> Option<Quantity> {
    amounts.and_then(|amounts| amounts.get("storage")).cloned()
}

fn requested(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    storage(claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref())
}

fn capacity(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    storage(claim.status.as_ref()?.capacity.as_ref())
}

fn allocated(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    storage(claim.status.as_ref()?.allocated_resources.as_ref())
}

fn folder_of(volume: &PersistentVolume) -> Option<PathBuf> {
    let spec = volume.spec.as_ref()?;
    let local = spec.local.as_ref().map(|local| &local.path);
    local.or(spec.host_path.as_ref().map(|host| &host.path)).map(PathBuf::from)
}

/// A quantity of storage in bytes, rounded down. Exponents (`1e9`) aren't understood.
fn bytes(quantity: &Quantity) -> Result<u64> {
    const UNITS: [(&str, f64); 11] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("m", 1e-3),
    ];
    let text = quantity.0.as_str();
    let (number, factor) =
        UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1.0));
    let number: f64 = number.parse().with_context(|| format!("read quantity {text}"))?;
    Ok((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_their_bytes() {
        for (text, wanted) in [
            ("1Gi", 1 << 30),
            ("1.5Mi", 1_572_864),
            ("2G", 2_000_000_000),
            ("4096", 4096),
            ("100k", 100_000),
            ("128974848000m", 128_974_848),
        ] {
            assert_eq!(bytes(&Quantity(text.into())).unwrap(), wanted, "{text}");
        }
        assert!(bytes(&Quantity("much".into())).is_err());
    }
}
