//! The promises to a user, kept on a real node: real kubelet, containerd, registry, clients, and the operator as its chart installs it.
//! One node serves all tests, each in a namespace of its own. Most of a test's time is waiting, so run many at once:
//! `cargo test --test e2e -- --test-threads=8`. Needs root on Linux. The operator has Roles only; with `E2E_INSTALL=cluster` it serves all
//! namespaces. With `E2E_KUBECONFIG` the tests run on another cluster, see CONTRIBUTING.md.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells how long things took"
)]

mod client;
mod cluster;
mod place;
mod registry;

mod certificates;
mod configuring;
mod conformance;
mod content;
mod doctor;
mod files;
mod frontend;
mod identities;
mod installing;
mod keeping;
mod neighbours;
mod nodes;
mod pulling;
mod pushing;
mod restarts;
mod rotating;
mod routes;
mod storage;
mod terminal;
mod tokens;
mod users;
