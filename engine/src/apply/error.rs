//! What went wrong, with which object, and whether trying again can help. Never an object's content.

use super::ObjectRef;
use super::ownership::Claim;
use super::request::{Failure, Verb};

/// Why a child couldn't be brought to what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object exists and isn't ours; it was not touched.
    #[error("{object} exists and {claim}")]
    NotOurs {
        /// Which object.
        object: ObjectRef,
        /// Whose it is.
        claim: Claim,
    },

    /// The difference lies in a field that can't change, and the object holds what can't be made again.
    #[error("{object}: {path} cannot be changed once it is set; set it back to what the object has")]
    Immutable {
        /// Which object.
        object: ObjectRef,
        /// Which field.
        path: String,
    },

    /// Somebody has set `immutable: true` in the object, and what it contains is no longer what is wanted. It was not touched.
    #[error(
        "{object} is marked immutable: true, so {path} cannot be changed; {}",
        if *.is_kept {
            "it holds what cannot be made again, so save it, delete it, and put it back without that mark"
        } else {
            "delete it, and it is made again without that mark"
        }
    )]
    Sealed {
        /// Which object.
        object: ObjectRef,
        /// Which field.
        path: String,
        /// Whether it outlives its owner, because it holds what cannot be made again.
        is_kept: bool,
    },

    /// The API server understood and said no.
    #[error("{verb} {object}: the API server refused it ({code}): {message}")]
    Refused {
        /// What was tried.
        verb: Verb,
        /// With which object.
        object: ObjectRef,
        /// The HTTP status.
        code: u16,
        /// The API server's words; of a Secret only the fields that it objects to.
        message: String,
    },

    /// The cluster does not have objects of this kind.
    #[error("{object}: the cluster does not have {} ({}); install what brings it", object.kind.plural, object.kind.api_version())]
    NotInstalled {
        /// Which object.
        object: ObjectRef,
    },

    /// Somebody changed, deleted or made the object again between our look and our write. The write didn't happen.
    #[error("{verb} {object}: it changed meanwhile")]
    Conflict {
        /// What was tried.
        verb: Verb,
        /// With which object.
        object: ObjectRef,
    },

    /// What follows from an owner that is not as the API server has it now: it changed, or is gone. Nothing was written.
    #[error("{object}: its owner has changed meanwhile")]
    Outdated {
        /// Which object.
        object: ObjectRef,
    },

    /// A read failed.
    #[error("read {object}")]
    Read {
        /// Which object.
        object: ObjectRef,
        /// How.
        source: Failure,
    },

    /// A create or an update failed; it may or may not have happened.
    #[error("{verb} {object}")]
    Write {
        /// What was tried.
        verb: Verb,
        /// With which object.
        object: ObjectRef,
        /// How.
        source: Failure,
    },

    /// A deletion failed; it may or may not have happened.
    #[error("delete {object}")]
    Delete {
        /// Which object.
        object: ObjectRef,
        /// How.
        source: Failure,
    },
}

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again, with a growing delay.
    Transient,
    /// Only a change by the user can help.
    Blocked,
    /// Something else than what the user wants stands in the way: another object, a rule, a port that is taken. No event tells when that ends.
    InTheWay,
}

impl Error {
    /// Which object it is about.
    pub fn object(&self) -> &ObjectRef {
        match self {
            Self::NotOurs { object, .. }
            | Self::Immutable { object, .. }
            | Self::Sealed { object, .. }
            | Self::Refused { object, .. }
            | Self::NotInstalled { object }
            | Self::Conflict { object, .. }
            | Self::Outdated { object }
            | Self::Read { object, .. }
            | Self::Write { object, .. }
            | Self::Delete { object, .. } => object,
        }
    }

    /// The one word used for the condition, the event and the metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotOurs { .. } => "NotOurs",
            Self::Immutable { .. } | Self::Sealed { .. } => "Immutable",
            Self::Refused { .. } => "Refused",
            Self::NotInstalled { .. } => "NotInstalled",
            Self::Conflict { .. } | Self::Outdated { .. } => "Conflict",
            Self::Read { .. } => "ReadFailed",
            Self::Write { .. } => "WriteFailed",
            Self::Delete { .. } => "DeleteFailed",
        }
    }

    /// Whether trying again can help. A refusal for lack of rights or quota ends without a change to the owner, so it is tried again.
    pub fn class(&self) -> Class {
        match self {
            Self::Refused { code: 403, .. } => Class::Transient,
            Self::NotOurs { .. } | Self::Sealed { .. } | Self::Refused { .. } | Self::NotInstalled { .. } => {
                Class::InTheWay
            }
            Self::Immutable { .. } => Class::Blocked,
            Self::Conflict { .. }
            | Self::Outdated { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Delete { .. } => Class::Transient,
        }
    }

    /// The error for a request that failed.
    pub(super) fn failed(verb: Verb, object: ObjectRef, source: Failure) -> Self {
        match (verb, source) {
            (Verb::Read, source) => Self::Read { object, source },
            // Its namespace is there: the owner is in it.
            (Verb::Create, Failure::Api { code: 404, .. }) if object.kind.is_optional => Self::NotInstalled { object },
            (verb, Failure::Api { code: 409, .. }) | (verb @ Verb::Update, Failure::Api { code: 404, .. }) => {
                Self::Conflict { verb, object }
            }
            (verb, Failure::Api { fields, .. }) if fields.iter().any(|field| field == "metadata.uid") => {
                Self::Conflict { verb, object }
            }
            (verb, Failure::Api { code: code @ (400 | 403 | 405 | 413 | 415 | 422), message, .. }) => {
                Self::Refused { verb, object, code, message }
            }
            (Verb::Delete, source) => Self::Delete { object, source },
            (verb, source) => Self::Write { verb, object, source },
        }
    }
}
