//! The program of this crate's tests, and how it marks what it writes.

use crate::Program;
use crate::apply::Marks;

pub(crate) const PROGRAM: Program = Program {
    name: "test-operator",
    target: "test_operator",
    version: "0.0.0",
    commit: "abc",
    resources: &[
        ("things", "Thing"),
        ("deployments", "Deployment"),
        ("jobs", "Job"),
        ("services", "Service"),
        ("secrets", "Secret"),
        ("configmaps", "ConfigMap"),
    ],
    definition_advice: "apply the definition of things",
};

impl crate::work::followed::Followed for k8s_openapi::api::core::v1::ConfigMap {}

pub(crate) const MARKS: Marks = Marks {
    field_manager: "test-operator",
    owner_label: "test.dev/owner",
    owner_namespace_label: "test.dev/owner-namespace",
    managed_by_label: "app.kubernetes.io/managed-by",
    managed_by: "test-operator",
    adopt: "test.dev/adopt",
    applied: "test.dev/applied",
    owner_kind: "Thing",
    owner_plural: "things",
};
