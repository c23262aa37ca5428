//! THE table of kinds that the operator writes. The watches, pruning, and the rights that the installation grants are all
//! derived from it; nothing of that is listed a second time. What is true of a kind in any cluster stands in [`operator_engine::apply::kinds`].

use operator_engine::apply::kinds::{Immutable, PLAIN, Remedy, Remember};
use operator_engine::apply::{Kind, Kinds};

pub use operator_engine::apply::kinds::{
    CONFIG_MAP, DEPLOYMENT, JOB, PERSISTENT_VOLUME_CLAIM, POD_DISRUPTION_BUDGET, SECRET, SERVICE, SERVICE_ACCOUNT,
};

/// What an issuer of cert-manager is asked to sign. Remembered with its answer; what is asked cannot change, so another request is another object.
pub const CERTIFICATE_REQUEST: &Kind = &Kind {
    group: "cert-manager.io",
    kind: "CertificateRequest",
    plural: "certificaterequests",
    remember: Remember::Paths(&["spec", "status"]),
    immutable: &[Immutable { path: "spec", remedy: Remedy::Recreate }],
    is_stamped: true,
    ..PLAIN
};

/// Every kind, in the order of their stages.
pub const KINDS: Kinds = Kinds(&[
    SERVICE_ACCOUNT,
    SERVICE,
    PERSISTENT_VOLUME_CLAIM,
    SECRET,
    CONFIG_MAP,
    CERTIFICATE_REQUEST,
    DEPLOYMENT,
    JOB,
    POD_DISRUPTION_BUDGET,
]);

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
