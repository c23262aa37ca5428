//! What must hold whatever a manifest says, whatever goes wrong on the way, and whoever else writes, judged by the final state alone: one and the same
//! state of the world for one manifest. The cases are made from the definition and from schedules of faults, not written down one by one.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::needless_pass_by_value,
    clippy::wrong_self_convention,
    reason = "tests end with words when something is not as expected"
)]

#[path = "../apiserver/cluster.rs"]
mod cluster;
#[path = "../apiserver/given.rs"]
mod given;
#[path = "../apiserver/object.rs"]
mod object;
#[path = "../apiserver/operator.rs"]
mod operator;
#[path = "../apiserver/registry.rs"]
mod registry;
#[path = "../apiserver/wait.rs"]
mod wait;

mod children;
mod definition;
mod known;
mod life;
mod objects;
mod proxy;
mod settling;
mod values;

mod broken;
mod disturbed;
mod fields;
mod killed;
mod rivals;
