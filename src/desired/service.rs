//! The Service that clients talk to.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Hold, Object, object, some};
use crate::api::ServiceType;
use crate::model::{Child, Resolved, labels};

/// Name of the port, in the Service and in the pod.
pub const PORT_NAME: &str = "registry";

/// The Service that clients talk to.
#[must_use]
pub fn build(registry: &Resolved) -> Object {
    let wanted = &registry.service;
    let balanced = wanted.kind == ServiceType::LoadBalancer;
    let mut metadata = registry.metadata(Child::Service);
    metadata.annotations = some(wanted.annotations.clone());
    let service = Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(wanted.kind.to_string()),
            selector: Some(labels::selector(&registry.name)),
            ports: Some(vec![ServicePort {
                name: Some(PORT_NAME.to_owned()),
                port: wanted.port,
                target_port: Some(IntOrString::String(PORT_NAME.to_owned())),
                protocol: Some("TCP".to_owned()),
                node_port: wanted.node_port,
                ..ServicePort::default()
            }]),
            load_balancer_class: wanted.load_balancer_class.clone().filter(|_| balanced),
            // Always sent: left out after it was dual, the Service would stay as it is.
            ip_family_policy: Some(wanted.ip_family_policy.to_string()),
            external_traffic_policy: wanted.external_traffic_policy.map(|policy| policy.to_string()),
            // The parts of an upload find each other on storage that several nodes share only after a while.
            session_affinity: (registry.replicas > 1).then(|| "ClientIP".to_owned()),
            load_balancer_source_ranges: (!wanted.source_ranges.is_empty()).then(|| wanted.source_ranges.clone()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    object(&service, Hold::Disposable)
}
