//! A real Kubernetes from nothing, on this machine, for tests and demonstrations.
//!
//! [`sandbox`] is the place where an instance's processes, files and namespaces live and from which nothing escapes. Nothing in here
//! knows the product.

pub mod control_plane;
pub mod debian;
pub mod fake_kubelet;
pub mod image;
pub mod paths;
pub mod pki;
pub mod progress;
pub mod provisioner;
pub mod sandbox;
pub mod tools;

pub use control_plane::{ControlPlane, Options};
pub use progress::Progress;
pub use tools::{Family, Tools};
