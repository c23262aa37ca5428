//! Where images are kept.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Quantity, rules};

/// Where images are kept: exactly one of its fields. The kind cannot be changed later.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_STORAGE)]
pub struct StorageSpec {
    /// A PersistentVolumeClaim that the operator makes, named NAME-data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSpec>,
    /// A PersistentVolumeClaim that exists already. The operator mounts it and never resizes or deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_claim: Option<ExistingClaim>,
    /// A directory that is lost with the pod. For trying things out; the condition StorageReady says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirSpec>,
}

/// Size of a claim for which the manifest names none.
pub const DEFAULT_SIZE: &str = "10Gi";

/// A claim that the operator makes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpec {
    /// Size of the volume, default 10Gi. It can grow if the StorageClass allows expansion, and go back down to what the volume
    /// really has (status.storage.capacity) when growing it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::POSITIVE)]
    pub size: Option<Quantity>,
    /// StorageClass of the volume. Absent: the cluster's default class; `""`: a volume that no class provisions. It cannot be
    /// changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// Access modes, default ReadWriteOnce. More than one replica needs ReadWriteMany. They cannot be changed later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub access_modes: Vec<AccessMode>,
}

/// A claim that exists already.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExistingClaim {
    /// Name of the claim, in the registry's namespace. It cannot be changed later.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
}

/// How a volume may be mounted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
pub enum AccessMode {
    /// By the pods of one node.
    ReadWriteOnce,
    /// By one pod only.
    ReadWriteOncePod,
    /// By pods of several nodes.
    ReadWriteMany,
}

/// A directory that is lost with the pod.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirSpec {
    /// Maximum size of the directory; the pod is evicted when it grows past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::POSITIVE)]
    pub size_limit: Option<Quantity>,
}
