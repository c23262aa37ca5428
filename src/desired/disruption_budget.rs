//! The PodDisruptionBudget of a registry with several pods: a drain takes one at a time.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Hold, Object, object};
use crate::model::{Child, Resolved, labels};

/// The budget; nothing for a single pod, which it would only keep a node from being drained.
#[must_use]
pub fn build(registry: &Resolved) -> Option<Object> {
    if registry.replicas < 2 {
        return None;
    }
    let budget = PodDisruptionBudget {
        metadata: registry.metadata(Child::DisruptionBudget),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(labels::selector(&registry.name)),
                ..LabelSelector::default()
            }),
            // A pod that is not ready serves nobody: it must not block a drain.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    Some(object(&budget, Hold::Disposable))
}
