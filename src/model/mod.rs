//! What we know to be true: validated newtypes, the operator's settings, and `resolve`, which turns a manifest and what it
//! refers to into either a registry that can be built without failing, or the reason why not. No client, no clock, no
//! randomness, no async.

pub mod address;
mod client_authorities;
pub mod image;
pub mod labels;
pub mod names;
pub mod node_agents;
pub mod observed;
pub mod resolve;
pub mod resolved;
pub mod route;
pub mod settings;
mod users;

pub use crate::access::issuer::KEYS_FILE;
pub use address::{Host, HostPort};
pub use names::{Child, RegistryName};
pub use node_agents::{HostRule, NodeAgents};
pub use observed::{Observed, ObservedClaim, SecretContent};
pub use resolve::{Blocked, answer_of, answer_secret, authority_of, has_login_copies, resolve, secrets_of};
pub use resolved::{
    Admin, Fault, Faults, Frontend, Issuer, LoginCopy, Protocol, PullAs, PullSecret, Pulls, Requested, Resolved,
    RotatedUser, Shared, Signer, Storage, Tls, TrustedNamespaces, TrustedNodes, Users,
};
pub use route::{Route, routed_hosts, written_addresses};
pub use settings::Settings;
pub use users::{HTPASSWD_KEYS, rules_of, second_name};
