//! A Kubernetes operator for private container registries.
//!
//! One pass over one registry, left to right; only the first and the last two steps touch the cluster:
//!
//! ```text
//!  watches ──▶ queue ──▶ observe ──▶ resolve ──▶ plan ──▶ apply, prune ──▶ report
//!                        (reads)     (pure)      (pure)   (writes)         (status, events)
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`api`] | what a user writes: the custom resource, its rules, its status |
//! | [`model`] | what we know to be true: validated names, `resolve(spec, observed)` |
//! | [`observe`] | reads of the objects that a manifest refers to |
//! | [`pki`] | certificates: when to renew (pure), how to issue (effect) |
//! | [`credentials`] | password hashes, the htpasswd file, the generated admin |
//! | [`desired`] | pure builders, one file per kind of child |
//! | [`apply`] | compare and write; knows objects, not registries |
//! | [`status`] | conditions and the summary a user reads |
//! | [`controller`] | the loop: queue, watches, `reconcile` |
//! | [`runtime`] | the process: client, leader election, health, logs, shutdown |
//! | [`cli`] | one file per family of subcommands |
//! | [`metrics`] | what the process counts, as OpenMetrics |
//! | [`secret`] | `Sensitive<T>`: what must never be printed |

pub mod api;
pub mod apply;
pub mod cli;
pub mod controller;
pub mod credentials;
pub mod desired;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod pki;
pub mod runtime;
pub mod secret;
pub mod status;
