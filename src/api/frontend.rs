//! What stands before the registry in its own pod.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{Resources, rules};

/// What stands before the registry in its own pod: `nginx: {}`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_FRONTEND)]
pub struct FrontendSpec {
    /// nginx ends TLS, serves a renewed certificate without a restart, and sends blobs from the volume itself, after the registry
    /// has allowed it. The registry then listens on a socket in the pod alone. `{}` is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nginx: Option<NginxSpec>,
}

/// nginx in the registry's pod.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NginxSpec {
    /// CPU and memory of each of the two containers that come with it, nginx and the sidecar. Absent: requests of 10m and 32Mi, no
    /// limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}
