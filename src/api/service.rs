//! How clients reach the registry.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// The Service in front of the registry.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::NODE_PORT_NEEDS_TYPE,
    validation = rules::LOAD_BALANCER_CLASS_NEEDS_TYPE,
    validation = rules::SOURCE_RANGES_NEED_TYPE,
    validation = rules::TRAFFIC_POLICY_NEEDS_TYPE
)]
pub struct ServiceSpec {
    /// ClusterIP (default), NodePort or LoadBalancer. It can be changed at any time.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ServiceType>,
    /// Port that clients use, part of every image name unless it is 443. Default 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Port on every node, with type NodePort or LoadBalancer. Absent: the cluster picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
    /// Annotations of the Service, for instance those that a cloud's load balancer asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Implementation of the load balancer. Kubernetes lets it be chosen only when the Service becomes a LoadBalancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,
    /// Networks (CIDR) that may use the load balancer. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 43), regex(pattern = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub load_balancer_source_ranges: Vec<String>,
    /// SingleStack (default): addresses of the cluster's first IP family. PreferDualStack: of both, where the cluster has both.
    /// RequireDualStack: of both, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    /// With type NodePort or LoadBalancer, Cluster (default): any node passes traffic on. Local: only nodes with a pod of the
    /// registry do, and the registry's log shows clients' own addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
}

/// Which IP families the Service has addresses of.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
pub enum IpFamilyPolicy {
    /// The cluster's first.
    #[default]
    SingleStack,
    /// Both, where the cluster has both.
    PreferDualStack,
    /// Both.
    RequireDualStack,
}

/// Which nodes pass traffic from outside on.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
pub enum ExternalTrafficPolicy {
    /// Any node.
    #[default]
    Cluster,
    /// Nodes with a pod of the registry.
    Local,
}

/// Kind of Service.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
pub enum ServiceType {
    /// Reachable inside the cluster.
    #[default]
    ClusterIP,
    /// Reachable on a port of every node too.
    NodePort,
    /// Reachable at an address from outside too.
    LoadBalancer,
}
