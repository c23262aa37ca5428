//! What the operator promises, kept on a real API server: etcd, kube-apiserver, controller manager and scheduler on this machine, with a
//! kubelet that only pretends. One control plane serves all tests; each has a namespace, and mostly an operator process, of its own.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests end with words when something is not as expected"
)]

mod cluster;
mod given;
mod line;
mod object;
mod operator;
mod owned;
mod registry;
mod wait;

mod broken_input;
mod drift;
mod foreign;
mod kept;
mod material;
mod quiet;
mod stopping;
mod switches;
