//! What a registry consists of, concern by concern. A part says what it wants, what it found, what stands in its way and what must stay, and cannot
//! end the pass: whoever needs something of another part gets it as an argument, and decides what its absence means.
//!
//! | part | its children | needs |
//! |---|---|---|
//! | [`retention`] | who outlives the registry | nothing but metadata and `deletionPolicy` |
//! | [`address`] | Service | |
//! | [`storage`] | claim | |
//! | [`certificate`] | CA, certificate, bundle | the Service's addresses |
//! | [`logins`] | admin, table of users, pull Secret | the Service's addresses, for the pull Secret |
//! | [`route`] | Ingress, or HTTPRoute or TLSRoute and BackendTLSPolicy | how the registry speaks: the certificate |
//! | [`elsewhere`] | what is in other namespaces: copies of the bundle and of logins, orders to the agents on nodes | what [`trust`] and [`logins`] say of it |
//! | [`workload`] | configuration, identity, Deployment or Job, disruption budget | certificate, logins, storage |

pub mod address;
pub mod advice;
pub mod certificate;
pub mod context;
pub mod elsewhere;
pub mod error;
pub mod failures;
pub mod kubelets;
pub mod logins;
pub mod retention;
pub mod route;
pub mod storage;
#[cfg(test)]
mod testing;
pub mod trust;
pub mod workload;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use operator_engine::apply::{self, Applied, Claim, Kind, Live, ObjectRef, Outcome, Owner, Verb};
use operator_engine::process::api_error;
use operator_engine::work::backoff::Class;
use operator_engine::work::queue::Key;

pub use context::Context;
pub use error::Error;
pub use failures::Failures;

use crate::api::{PrivateRegistry, PrivateRegistryStatus, reason};
use crate::desired;
use crate::model::{Child, Observed, Resolved};
use crate::status::Problem;

/// One pass over one registry: what every part is given.
pub struct Pass<'a> {
    /// Its name.
    pub key: &'a Key,
    /// The object.
    pub manifest: &'a PrivateRegistry,
    /// What it asks for.
    pub registry: &'a Resolved,
    /// What it refers to.
    pub observed: &'a Observed,
    /// What was reported last.
    pub before: &'a PrivateRegistryStatus,
    /// Whom children belong to.
    pub owner: Owner,
    /// The present moment, the same for all parts.
    pub now: Timestamp,
    /// What all passes share.
    pub ctx: &'a Context,
    /// What went wrong so far.
    pub failures: &'a Failures,
}

/// Children that must stay, whether they were written in this pass or not.
pub type Keep = BTreeSet<(&'static Kind, String)>;

impl Pass<'_> {
    /// Writes one child, if it differs.
    async fn apply(&self, object: desired::Object) -> Result<Applied, Error> {
        self.may_write(object.kind, &object.name)?;
        let applied = self.ctx.engine.apply(&self.owner, &object).await;
        let applied = applied.inspect_err(|error| self.note_if_lacking(error))?;
        self.failures.contested(applied.contested.as_ref());
        Ok(applied)
    }

    /// Whether an administrator lets the operator write this kind.
    fn may_write(&self, kind: &'static Kind, name: &str) -> Result<(), Error> {
        if !kind.is_optional || self.ctx.settings.optional_kinds.contains(kind.kind) {
            return Ok(());
        }
        Err(Error::KindNotAllowed { kind: kind.kind, name: name.to_owned() })
    }

    /// So that it is looked at again when the cluster has the kind.
    fn note_if_lacking(&self, error: &apply::Error) {
        if let apply::Error::NotInstalled { object } = error {
            self.ctx.recall.lacks(object.kind, self.key);
        }
    }

    /// The same as [`Pass::apply`] for a child with random content.
    async fn apply_random(&self, child: Child, object: desired::Object) -> Result<Applied, Error> {
        let applied = self.apply(object).await?;
        if applied.outcome == Outcome::Changed {
            self.ctx.recall.wrote(self.key, child, applied.live.clone(), self.now);
        }
        Ok(applied)
    }

    /// A child with random content, to be kept: as it was written lately, if somebody has changed it since.
    async fn read_random(&self, child: Child) -> Result<Option<Live>, apply::Error> {
        let name = self.registry.name.child(child);
        let found = self.ctx.engine.read_known_child(&self.owner, desired::kinds::SECRET, &name).await?;
        Ok(found.map(|live| self.ctx.recall.as_written(self.key, child, live, self.now)))
    }

    /// What an error means to the user. It is counted, and decides when the registry is looked at again.
    pub fn problem(&self, error: impl Into<Error>) -> Problem {
        let error = error.into();
        let is_outdated = |error: &apply::Error| {
            matches!(
                error,
                apply::Error::Conflict { verb: Verb::Create | Verb::Update, .. } | apply::Error::Outdated { .. }
            )
        };
        if matches!(&error, Error::Apply(inner) if is_outdated(inner)) {
            self.failures.overtaken();
            if self.failures.decides_anew() {
                return Problem::retrying(error.reason(), words(&error));
            }
        }
        let (reason, class) = self.failures.failed(self.key, &error);
        let message = [words(&error)].into_iter().chain(advice::advice(&error)).collect::<Vec<_>>().join("; ");
        match class {
            Class::Transient | Class::Bug => Problem::retrying(reason, message),
            Class::Blocked | Class::InTheWay => Problem::stuck(reason, message),
        }
    }

    /// The error for an object that has a child's name and is somebody else's.
    fn not_ours(&self, kind: &'static Kind, name: &str, claim: Claim) -> apply::Error {
        apply::Error::NotOurs { object: ObjectRef::new(kind, &self.registry.namespace, name), claim }
    }

    /// A child's kind and name, for [`Keep`].
    fn named(&self, kind: &'static Kind, child: Child) -> (&'static Kind, String) {
        (kind, self.registry.name.child(child))
    }
}

/// Whom the children of a registry belong to.
#[must_use]
pub fn owner(registry: &PrivateRegistry) -> Owner {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Owner {
        api_version: "privateregistry.dev/v1alpha1".to_owned(),
        kind: "PrivateRegistry".to_owned(),
        namespace: text(&registry.metadata.namespace),
        name: text(&registry.metadata.name),
        uid: text(&registry.metadata.uid),
        generation: registry.metadata.generation,
    }
}

/// The error and its causes on one line, free of secrets: some of kube's errors quote what they could not read.
#[must_use]
pub fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_of_kube =
            cause.downcast_ref::<kube::Error>().or_else(|| cause.downcast_ref::<Box<kube::Error>>().map(Box::as_ref));
        if let Some(cause) = cause_of_kube {
            return format!("{words}: {}", api_error::explain(cause));
        }
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

/// What is said of a kept object that somebody deleted while something still holds it.
fn being_deleted(what: &str, how: &str) -> Problem {
    Problem::stuck(
        reason::BEING_DELETED,
        format!(
            "{what} is being deleted and lives only as long as something holds it; {how}; until it is gone nothing of the registry is rolled or replaced"
        ),
    )
}

/// To the second: it is stored, and people read it.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// What a panic elsewhere leaves behind its lock is used all the same.
fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
