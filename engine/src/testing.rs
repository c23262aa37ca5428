//! The program of this crate's tests.

use crate::Program;

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
