//! A Kubernetes operator for private container registries.
//!
//! One pass over one registry, left to right. Each part reads, decides and writes what is its own; none can end the pass:
//!
//! ```text
//!  watches ──▶ queue ──▶ retention ──▶ observe ──▶ resolve ──▶ address · storage · certificate · logins · workload · route · trust ──▶ report
//!                        (writes)      (reads)     (pure)      (parts)                                                                 (status, events)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`access`] | who may do what: rules, scopes, tokens |
//! | [`api`] | what a user writes: the custom resource, its rules, its status |
//! | [`model`] | what we know to be true: validated names, `resolve(spec, observed)` |
//! | [`observe`] | reads of the objects that a manifest refers to |
//! | [`pki`] | certificates: when to renew (pure), how to issue (effect) |
//! | [`credentials`] | password hashes, the htpasswd file, the generated admin |
//! | [`desired`] | pure builders, one file per kind of child |
//! | [`status`] | conditions and the summary a user reads |
//! | [`node`] | which files make a machine trust a registry (pure), and the agent that writes them on nodes |
//! | [`parts`] | one concern of a registry each: what it wants, what it found, what stands in its way |
//! | [`controller`] | one pass, and what brings it about |
//! | [`sidecar`] | the process beside the front end in a registry's pod |
//! | [`cli`] | one file per family of subcommands |
//! | [`metrics`] | what is counted of registries |
//! | [`secret`] | `Sensitive<T>`: what must never be printed |
//!
//! Comparing and writing, the queue, the watches and the process around them know no registry: they are the crate [`operator_engine`].

pub mod access;
pub mod api;
pub mod cli;
pub mod controller;
pub mod credentials;
pub mod desired;
pub mod metrics;
pub mod model;
pub mod node;
pub mod observe;
pub mod parts;
pub mod pki;
pub mod secret;
pub mod sidecar;
pub mod status;

/// Version and commit, as `--version` shows them.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("COMMIT"), ")");

/// Who runs, as the engine is told.
pub const PROGRAM: operator_engine::Program = operator_engine::Program {
    name: env!("CARGO_PKG_NAME"),
    target: env!("CARGO_CRATE_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    commit: env!("COMMIT"),
    resources: &[
        ("privateregistries", "PrivateRegistry"),
        ("deployments", "Deployment"),
        ("jobs", "Job"),
        ("services", "Service"),
        ("serviceaccounts", "ServiceAccount"),
        ("secrets", "Secret"),
        ("configmaps", "ConfigMap"),
        ("persistentvolumeclaims", "PersistentVolumeClaim"),
        ("poddisruptionbudgets", "PodDisruptionBudget"),
        ("certificatesigningrequests", "CertificateSigningRequest"),
        ("certificaterequests", "CertificateRequest"),
        ("clustertrustbundles", "ClusterTrustBundle"),
        ("ingresses", "Ingress"),
        ("httproutes", "HTTPRoute"),
        ("tlsroutes", "TLSRoute"),
        ("backendtlspolicies", "BackendTLSPolicy"),
    ],
    definition_advice: "kubectl apply --server-side -f crds/, or install or upgrade the chart private-registry-crds",
};
