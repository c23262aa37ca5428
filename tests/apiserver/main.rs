//! What the operator promises, kept on a real API server: etcd, kube-apiserver, controller manager and scheduler on this machine, with a
//! kubelet that only pretends. One control plane serves all tests; each has a namespace, and mostly an operator process, of its own.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    clippy::wrong_self_convention,
    reason = "tests end with words when something is not as expected"
)]

mod cluster;
mod given;
mod line;
mod object;
mod operator;
mod others;
mod owned;
mod registry;
mod wait;

mod answers;
mod broken_input;
mod cert_manager;
mod crashes;
mod drift;
mod examples;
mod foreign;
mod frontend;
mod identities;
mod installations;
mod kept;
mod leadership;
mod logins;
mod material;
mod newer;
mod nodes;
mod parts;
mod people;
mod pods;
mod pull_copies;
mod pull_tokens;
mod quiet;
mod revoking;
mod rights;
mod rotated;
mod rotation;
mod routes;
mod rules;
mod secrecy;
mod signers;
mod stopping;
mod surroundings;
mod switches;
mod tokens;
mod trust;
mod volumes;
