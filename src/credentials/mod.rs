//! Users of a registry: password hashes, the htpasswd file, the generated admin.
//!
//! [`plan`](mod@plan) decides purely which hashes stay; [`hashing`] makes the others (slow by design: never on an async thread);
//! [`generated`] makes passwords of our own. A password exists here only as [`Password`], a hash only as [`BcryptHash`];
//! neither can be printed, and no error repeats one.

pub mod docker_config;
pub mod generated;
pub mod given;
pub mod hashing;
pub mod htpasswd;
pub mod name;
pub mod password;
pub mod plan;
pub mod rotation;

pub use docker_config::{docker_config, users_in};
pub use htpasswd::{BcryptHash, Htpasswd};
pub use name::UserName;
pub use password::Password;
pub use plan::{Login, Plan, Problem, Source, SourceKind, Table, UserFact, Wanted, plan};

/// The dearest hash that the sidecar computes, as a power of two: the most that the operator makes. Lines that somebody brought may be dearer by days.
pub const DEAREST: u32 = 12;
