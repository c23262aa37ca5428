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
    /// A PersistentVolumeClaim: one that the operator makes (named NAME-data), or an existing one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSpec>,
    /// A folder that is lost with the pod. For trying things out; the condition StorageReady says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirSpec>,
}

/// A claim that the operator makes, or the name of an existing one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::EXISTING_CLAIM_ALONE)]
pub struct ClaimSpec {
    /// Size of the volume, default 10Gi. It can only grow, and only if the StorageClass allows expansion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::POSITIVE)]
    pub size: Option<Quantity>,
    /// StorageClass of the volume; absent: the cluster's default class. It cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// Access modes, default ReadWriteOnce. More than one replica needs ReadWriteMany. They cannot be changed later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub access_modes: Vec<AccessMode>,
    /// An existing claim in the registry's namespace. The operator mounts it and never resizes or deletes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
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

/// A folder that is lost with the pod.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirSpec {
    /// Most that the folder may hold; the pod is evicted when it grows past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::POSITIVE)]
    pub size_limit: Option<Quantity>,
}
