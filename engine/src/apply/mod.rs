//! Compare and write, for any kind of object.
//!
//! ```text
//!             wanted (pure)                      live
//!  Child ──▶ body + hash ──▶ memory: the same? ──no──▶ read ──▶ ownership ──▶ diff ──▶ immutable ──▶ write
//!                                   │yes                        ours?         where?   how?
//!                                   ▼
//!                                nothing: no request at all
//! ```
//!
//! Between diff and write stand two questions: is the difference what the server made of what it was sent (then it is as wanted), and is it fought over
//! (then its repair may have to wait, [`Contest`])?
//!
//! | module | what it holds |
//! |---|---|
//! | [`kinds`] | what there is to know of a kind: order, rights, what cannot change, what is remembered |
//! | [`memory`] | what is known without asking; fed by answers and by watch events |
//! | [`Engine`] | the decisions, in the order of the picture; nothing else sends a request |
//!
//! What the caller does with [`Applied`]: `contested` is told in the owner's status (its text names the object, the field and who changes it back), and
//! the owner has another pass after [`Contest::look_again`], whatever else it waits for; with [`Outcome::Damped`] the object isn't as wanted meanwhile.
//! `amended` may be told; nothing has to be done about it. Both are there in every pass, also in one that asks for nothing.
//!
//! Four promises: an object that isn't proved ours is not touched; what didn't change costs no request; what others change back each time is not written
//! for ever; no error and no log shows an object's content.

mod amendment;
mod contest;
mod diff;
mod engine;
mod error;
mod fields;
mod hash;
mod immutable;
pub mod kinds;
mod live;
pub mod memory;
mod ownership;
mod path;
mod prune;
mod quantity;
mod read_ahead;
mod rehearsal;
mod request;
mod standing;
#[cfg(test)]
mod testing;
mod wanted;

use std::fmt;
use std::sync::Arc;

pub use contest::{Contest, Rival};
pub use engine::{Applied, Engine, Outcome};
pub use error::{Class, Error};
pub use hash::Hash;
pub use kinds::{Kind, Kinds};
pub(crate) use live::LAST_APPLIED;
pub use live::{Controller, Live};
pub use memory::Memory;
pub use ownership::Claim;
pub use prune::Removal;
pub use read_ahead::ReadAhead;
pub use request::{Failure, Observer, Verb};
pub use standing::Standing;
pub use wanted::{Child, Hold};

/// How this operator marks what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Our field manager for server-side apply: one for all children, never shared with another program.
    pub field_manager: &'static str,
    /// The label with the owner's name.
    pub owner_label: &'static str,
    /// The label with the owner's namespace, on children in other namespaces.
    pub owner_namespace_label: &'static str,
    /// The label with our name, for example `app.kubernetes.io/managed-by`.
    pub managed_by_label: &'static str,
    /// Our name.
    pub managed_by: &'static str,
    /// The annotation that hands over somebody else's object.
    pub adopt: &'static str,
    /// The annotation that says what was sent ([`Kind::is_stamped`]).
    pub applied: &'static str,
    /// The kind of all owners, as in ownerReferences.
    pub owner_kind: &'static str,
    /// The same as it stands in addresses.
    pub owner_plural: &'static str,
}

/// The object for which children are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// For example `example.dev/v1`.
    pub api_version: String,
    /// For example `Example`.
    pub kind: String,
    /// Where it is, and its children unless they say otherwise.
    pub namespace: String,
    /// Its name, and the value of the owner label.
    pub name: String,
    /// Its uid: an owner that is deleted and made again is another owner.
    pub uid: String,
    /// Its generation, from which it follows what is wanted. Nothing is deleted unless the API server still has this one: what a watch shows may be old.
    /// `None`: what is wanted follows from no present generation.
    pub generation: Option<i64>,
}

/// Which object: kind, namespace, name. Ordered by stage of the kind. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// What.
    pub kind: &'static Kind,
    /// Where.
    pub namespace: Arc<str>,
    /// Which.
    pub name: Arc<str>,
}

impl Owner {
    /// Namespace and name.
    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl ObjectRef {
    /// The object `kind` `namespace`/`name`.
    pub fn new(kind: &'static Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.is_cluster_wide {
            true => write!(f, "{} {}", self.kind.kind, self.name),
            false => write!(f, "{} {}/{}", self.kind.kind, self.namespace, self.name),
        }
    }
}
