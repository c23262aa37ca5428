//! A real Kubernetes from nothing, on this machine, for tests and demonstrations.
//!
//! [`tools`] builds the real programs once. A [`sandbox`] is the place where an instance's processes, files and namespaces live and from
//! which nothing escapes. A [`ControlPlane`] is a Kubernetes without a node, a [`Node`] one with everything, a [`Registry`] no Kubernetes at all. Nothing in here knows what
//! the tests are about.

pub mod background;
pub mod control_plane;
pub mod debian;
pub mod fake_kubelet;
pub mod http;
pub mod image;
pub mod node;
pub mod objects;
pub mod paths;
pub mod pki;
pub mod progress;
pub mod provisioner;
pub mod registry;
mod requirements;
pub mod sandbox;
pub mod tools;
pub mod traces;

pub use control_plane::{ControlPlane, Options};
pub use node::Node;
pub use objects::Objects;
pub use progress::Progress;
pub use registry::Registry;
pub use requirements::{Mode, SKIPPED, missing, skip, skip_because};
pub use tools::{Family, Tools};
