//! Who may do what in a registry that gives tokens: rules, scopes and tokens. Decides only; [`keys`] signs, and [`expressions`] evaluates what
//! the manifest says in CEL.
//!
//! A client without a token is told where to get one and for what ([`scope`]). The token server gives it as much of that as the rules allow ([`policy`]), as
//! a [`token`]. Who comes with a token of the [`cluster`] has what its RBAC allows. The gate looks at token and rules at each request, so that what a token says ends with the rule that it came from.
//! Whether whoever vouches for others can be asked is told the operator ([`report`]).

pub mod account;
pub mod cluster;
pub mod expressions;
mod glob;
pub mod issuer;
pub mod jwt;
pub mod keys;
mod policy;
pub mod refresh;
pub mod report;
pub mod rotation;
mod scope;
pub mod token;

pub use glob::{GlobError, RepositoryGlob};
pub use policy::{ALL, Access, AccessFile, Action, Caller, Grant, Policy, Rule, Team};
pub use scope::{Granted, Need, Scope, grant, is_repository, need, wanted};
