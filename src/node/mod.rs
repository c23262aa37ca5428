//! Nodes and other machines that pull: what makes them trust a registry.

pub mod layouts;
