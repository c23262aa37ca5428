//! A runtime for Kubernetes operators that knows no custom resource.
//!
//! What every operator needs and none should write twice: objects are compared and written ([`apply`]), names are queued and visited ([`work`]),
//! and a process runs around it ([`process`]). It knows no custom resource: the kinds that are written, the marks on them, the program's name and
//! what a pass does are given by the program.
//!
//! ```text
//!  API server ──▶ work::watches ──▶ work::queue ──▶ a pass of the program ──▶ apply ──▶ API server
//!       ▲                                                                                 │
//!       └────────────── process::gate: fence, limits, retries, counts ◀───────────────────┘
//! ```
//!
//! | module | what it promises |
//! |---|---|
//! | [`apply`] | an object that isn't proved ours is not touched; what didn't change costs no request; no content is ever printed |
//! | [`work`] | one pass of an object at a time; a stream that fails, or a pass that hangs, holds up no other |
//! | [`process`] | at most one process writes; it says what is missing; it ends in time |
//! | [`metrics`] | what all of these count |

mod alike;
pub mod apply;
pub mod metrics;
pub mod process;
mod program;
#[cfg(test)]
mod testing;
pub mod work;

pub use program::Program;
