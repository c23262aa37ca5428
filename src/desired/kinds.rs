//! THE table of kinds that the operator writes. The watches, pruning, and the rights that the installation grants are all
//! derived from it; nothing of that is listed a second time. What is true of a kind in any cluster stands in [`operator_engine::apply::kinds`].

use std::collections::BTreeSet;

use operator_engine::apply::kinds::{Immutable, OPTIONAL, Remedy, Remember, Stage};
use operator_engine::apply::{Kind, Kinds};

pub use operator_engine::apply::kinds::{
    CLUSTER_TRUST_BUNDLE, CONFIG_MAP, DEPLOYMENT, INGRESS, JOB, PERSISTENT_VOLUME_CLAIM, POD_DISRUPTION_BUDGET, SECRET,
    SERVICE, SERVICE_ACCOUNT,
};

/// What an issuer of cert-manager is asked to sign, and its answer. What is asked cannot change, so another request is another object.
pub const CERTIFICATE_REQUEST: &Kind = &Kind {
    group: "cert-manager.io",
    kind: "CertificateRequest",
    plural: "certificaterequests",
    remember: Remember::Paths(&["spec", "status"]),
    immutable: &[Immutable { path: "spec", remedy: Remedy::Recreate }],
    is_stamped: true,
    ..OPTIONAL
};

const OF_GATEWAY_API: Kind = Kind {
    group: "gateway.networking.k8s.io",
    // With what controllers say of it.
    remember: Remember::Paths(&["status"]),
    is_replaceable: true,
    is_stamped: true,
    ..OPTIONAL
};

/// How a Gateway speaks TLS to the registry, since version 1.4 of the Gateway API. Of an earlier stage than the routes, so that none outlives it.
pub const BACKEND_TLS_POLICY: &Kind =
    &Kind { kind: "BackendTLSPolicy", plural: "backendtlspolicies", stage: Stage::Policy, ..OF_GATEWAY_API };

/// Which requests a Gateway sends to the registry.
pub const HTTP_ROUTE: &Kind =
    &Kind { kind: "HTTPRoute", plural: "httproutes", stage: Stage::Exposure, ..OF_GATEWAY_API };

/// Which connections a Gateway passes on as they are, since version 1.5 of the Gateway API.
pub const TLS_ROUTE: &Kind = &Kind { kind: "TLSRoute", plural: "tlsroutes", stage: Stage::Exposure, ..OF_GATEWAY_API };

/// Every kind, in the order of their stages.
pub const KINDS: Kinds = Kinds(&[
    SERVICE_ACCOUNT,
    SERVICE,
    PERSISTENT_VOLUME_CLAIM,
    SECRET,
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    BACKEND_TLS_POLICY,
    CERTIFICATE_REQUEST,
    CLUSTER_TRUST_BUNDLE,
    POD_DISRUPTION_BUDGET,
    HTTP_ROUTE,
    INGRESS,
    TLS_ROUTE,
]);

/// Those that this operator writes: every kind that each cluster has, and of the others those that an administrator lets it. What belongs to no namespace
/// only if it serves the whole cluster.
pub fn written(optional: &BTreeSet<String>, is_of_the_cluster: bool) -> impl Iterator<Item = &'static Kind> {
    let is_allowed = |kind: &Kind| !kind.is_optional || optional.contains(kind.kind);
    KINDS.iter().filter(move |kind| is_allowed(kind) && (is_of_the_cluster || !kind.is_cluster_wide))
}

/// The kinds that a cluster may lack.
pub fn optional() -> impl Iterator<Item = &'static str> {
    KINDS.iter().filter(|kind| kind.is_optional).map(|kind| kind.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_table_is_in_the_order_of_stages() {
        assert!(KINDS.0.is_sorted_by(|a, b| a.stage <= b.stage && a.kind != b.kind));
    }

    #[test]
    fn users_data_can_be_neither_pruned_nor_deleted() {
        assert!(!PERSISTENT_VOLUME_CLAIM.is_deletable());
    }
}
