//! How clients outside of the cluster reach the registry by a name: an Ingress or a route of the Gateway API.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// How clients reach the registry by a name, at port 443 of somebody's proxy: exactly one of ingress and gateway.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_ROUTE)]
pub struct RouteSpec {
    /// An Ingress called NAME, for the Ingress controller of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressSpec>,
    /// An HTTPRoute or a TLSRoute called NAME, for a Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySpec>,
}

/// An Ingress: every request for one of the hosts goes to the registry's Service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IngressSpec {
    /// Name of the IngressClass. Absent: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub class_name: Option<String>,
    /// Names that clients write before the first slash of an image name, without a port. Each becomes an address of the registry, as one of
    /// spec.addresses would: it is covered by the certificate and has a login in NAME-pull. Who reaches one at another port than 443 lists it with that
    /// port in spec.addresses, too.
    #[schemars(length(min = 1, max = 16), inner(length(max = 253), regex(pattern = rules::ROUTED_HOST)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hosts: Vec<String>,
    /// The controller whose own annotations the Ingress gets: IngressNginx, for no limit of a layer's size, no buffering, timeouts of 15 minutes, and TLS
    /// to the registry, verified with the registry's bundle. Absent: none but yours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<IngressController>,
    /// Annotations of the Ingress, for instance those that cert-manager or your controller asks for. They win over those that come with controller.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Name of a Secret of the namespace with the certificate that the controller shows to clients, for instance one that cert-manager writes. The
    /// operator does not read it. Absent: NAME-tls, which clients trust by NAME-ca-bundle; with tls.none, no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub tls_secret_name: Option<String>,
}

/// An Ingress controller whose annotations are known.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressController {
    /// The Ingress controller of the Kubernetes project, whose annotations begin with nginx.ingress.kubernetes.io.
    IngressNginx,
}

/// A route of the Gateway API: every connection for one of the hosts goes to the registry's Service.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// The Gateways that take the route, and which of their listeners.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::PARENTS_DIFFER)]
    pub parent_refs: Vec<GatewayRef>,
    /// Names that clients write before the first slash of an image name, without a port. Each becomes an address of the registry, as one of
    /// spec.addresses would: it is covered by the certificate and has a login in NAME-pull. Who reaches one at another port than 443 lists it with that
    /// port in spec.addresses, too.
    #[schemars(length(min = 1, max = 16), inner(length(max = 253), regex(pattern = rules::ROUTED_HOST)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hosts: Vec<String>,
    /// Where TLS ends. Terminate (default): at the Gateway, which shows its own certificate; an HTTPRoute, and a BackendTLSPolicy for TLS from the Gateway
    /// to the registry, verified. Passthrough: at the registry, whose certificate clients see; a TLSRoute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<GatewayMode>,
}

/// A Gateway.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Its namespace, which must allow routes of this one. Absent: the registry's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::LABEL))]
    pub namespace: Option<String>,
    /// Name of the listener. Absent: every listener that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub section_name: Option<String>,
    /// Port of the listener. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

/// Where TLS ends.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// At the Gateway.
    #[default]
    Terminate,
    /// At the registry.
    Passthrough,
}
