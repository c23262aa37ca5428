//! Nodes and other machines that pull: what makes them trust a registry.
//!
//! ```text
//!  ConfigMaps ──▶ orders ──▶ plan ──▶ disk (writes) ──▶ report ──▶ ConfigMap of the node
//!                 (pure)      ▲ (pure)                  (pure)
//!      own Node ──────────────┤
//!      disk (reads), containerd (pure)
//! ```
//!
//! [`agent`] ties them together: the process that runs on each node. It believes nobody: what it is asked to write, it judges itself.

pub mod agent;
pub mod containerd;
pub mod disk;
pub mod orders;
pub mod plan;
pub mod proof;
pub mod report;
pub mod trust_files;
mod watch;
