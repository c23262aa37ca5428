//! A real Kubernetes from nothing.

pub mod image;
