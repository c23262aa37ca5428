//! THE table of kinds that the operator writes. The watches, pruning, and the rights that the installation grants are all
//! derived from it; nothing of that is listed a second time. What is true of a kind in any cluster stands in [`operator_engine::apply::kinds`].

use operator_engine::apply::kinds::{PLAIN, Remember, Stage};
use operator_engine::apply::{Kind, Kinds};

pub use operator_engine::apply::kinds::{
    CONFIG_MAP, DEPLOYMENT, INGRESS, JOB, PERSISTENT_VOLUME_CLAIM, POD_DISRUPTION_BUDGET, SECRET, SERVICE,
    SERVICE_ACCOUNT,
};

/// Every kind, in the order of their stages.
pub const KINDS: Kinds = Kinds(&[
    SERVICE_ACCOUNT,
    SERVICE,
    PERSISTENT_VOLUME_CLAIM,
    SECRET,
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    POD_DISRUPTION_BUDGET,
    BACKEND_TLS_POLICY,
    HTTP_ROUTE,
    INGRESS,
    TLS_ROUTE,
]);

const OF_GATEWAY_API: Kind = Kind {
    group: "gateway.networking.k8s.io",
    // Remembered with what controllers say of it.
    remember: Remember::Paths(&["status"]),
    is_stamped: true,
    ..PLAIN
};

/// How a Gateway speaks TLS to a Service. Before the routes, so that none goes without it. Since version 1.4 of the Gateway API.
pub const BACKEND_TLS_POLICY: &Kind =
    &Kind { kind: "BackendTLSPolicy", plural: "backendtlspolicies", stage: Stage::Policy, ..OF_GATEWAY_API };

/// Which requests a Gateway sends where.
pub const HTTP_ROUTE: &Kind =
    &Kind { kind: "HTTPRoute", plural: "httproutes", stage: Stage::Exposure, ..OF_GATEWAY_API };

/// Which connections a Gateway passes on as they are. Since version 1.5 of the Gateway API.
pub const TLS_ROUTE: &Kind = &Kind { kind: "TLSRoute", plural: "tlsroutes", stage: Stage::Exposure, ..OF_GATEWAY_API };

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
