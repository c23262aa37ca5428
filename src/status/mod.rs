//! What a user reads: conditions and the summary, judged only from what the server returned. Pure, but for `write`.

pub mod identities;
pub mod merge;
pub mod route;
pub mod summary;
mod trust;
pub mod workload;
pub mod write;

pub use merge::{Finding, Truth};
pub use route::Route;
pub use summary::{Certificate, Findings, Logins, Problem, summarise};
pub use trust::{Cluster, Reach, Trust};
pub use workload::{PodFacts, Workload};
