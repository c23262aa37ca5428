//! Knobs of the registry's own configuration.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GoDuration, rules};

/// Knobs of the registry's own configuration. A change restarts the registry.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigSpec {
    /// How much the registry logs, default info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
    /// Whether each request is logged to standard output, default true: by the front end, if there is one, and by the registry otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<bool>,
    /// Whether tags and manifests may be deleted through the API, default false. Deleting frees no space by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_deletes: Option<bool>,
    /// Whether the registry refuses every write, default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Removal of uploads that were begun and never finished, on by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_purging: Option<UploadPurging>,
}

/// How much the registry logs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// Warnings too.
    Warn,
    /// What happened.
    #[default]
    Info,
    /// Everything.
    Debug,
}

/// Removal of uploads that were begun and never finished.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UploadPurging {
    /// Whether such uploads are removed, default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How old an upload must be, default 168h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::AT_LEAST_A_MINUTE)]
    pub age: Option<GoDuration>,
    /// How often to look, default 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::AT_LEAST_A_MINUTE)]
    pub interval: Option<GoDuration>,
}
