//! What happens when the registry's process ends.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// What happens when the registry's process ends, in the words of `docker run --restart`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::RETRIES_NEED_ON_FAILURE)]
pub struct RestartPolicySpec {
    /// Always (default): restarted whatever happens. UnlessStopped: the same, but `kubectl scale --replicas=0` is respected.
    /// OnFailure: restarted after an error only. Never: not restarted; the pod is kept for its log.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<RestartType>,
    /// With OnFailure: restarts in a row before it stays stopped. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_retries: Option<i32>,
}

/// When to restart.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
pub enum RestartType {
    /// Whatever happens.
    #[default]
    Always,
    /// Whatever happens, unless a user scaled it to zero.
    UnlessStopped,
    /// After an error only.
    OnFailure,
    /// Never.
    Never,
}

impl RestartType {
    /// Whether the workload is a Job: a Deployment's pods always restart.
    #[must_use]
    pub fn is_job(self) -> bool {
        matches!(self, Self::OnFailure | Self::Never)
    }
}
