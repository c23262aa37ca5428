//! The loop that keeps registries as their manifests say.

pub mod backoff;
pub mod events;
pub mod queue;
pub mod store;
pub mod watches;
