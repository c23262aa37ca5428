//! What can go wrong in a pass: a variant per step, one word for condition, event and metric, and whether trying again can help.

use operator_engine::apply;
use operator_engine::work::backoff::Class;

use crate::credentials::generated::NoRandomness;
use crate::pki::issue::IssueError;

/// What went wrong in a pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing an object.
    #[error(transparent)]
    Apply(Box<apply::Error>),
    /// An administrator keeps this kind from the operator.
    #[error(
        "{kind} {name}: the operator may not write {kind} objects; an administrator allows it (--optional-kinds, the chart's optionalKinds)"
    )]
    KindNotAllowed {
        /// The kind.
        kind: &'static str,
        /// The object.
        name: String,
    },
    /// Making a key or a certificate.
    #[error("issue the certificate: {0}")]
    Issue(#[from] IssueError),
    /// Making a password.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// Listing the registry's pods.
    #[error("list the pods of {registry}")]
    Pods {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Reading what node agents report.
    #[error("read what node agents report in namespace {namespace}")]
    Reports {
        /// The agents' namespace.
        namespace: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Proving by a pull that nodes trust a registry.
    #[error("prove on nodes that they trust {registry}")]
    Proof {
        /// The registry, or the pod.
        registry: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Telling a kubelet that a Secret has changed.
    #[error("tell the kubelet of Pod {pod} of the new table of users")]
    Kubelet {
        /// The pod.
        pod: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Asking for the token of a ServiceAccount.
    #[error("ask for a token of ServiceAccount {account}")]
    AccountToken {
        /// Its namespace and name.
        account: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// It is not what was asked for.
    #[error(
        "the cluster gave a token of ServiceAccount {account} that is not for this registry alone, or says no end; something between changes requests for tokens"
    )]
    AccountTokenUnusable {
        /// Its namespace and name.
        account: String,
    },
    /// A request to a signer.
    #[error("{what} CertificateSigningRequest {name}")]
    Request {
        /// What was to be done.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Writing the finalizer.
    #[error("write the finalizer of {registry}")]
    Finalizer {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// Writing the status.
    #[error("write the status of {registry}")]
    Status {
        /// The registry.
        registry: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// A thread for slow work ended early.
    #[error("a worker thread ended early: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

impl From<apply::Error> for Error {
    fn from(error: apply::Error) -> Self {
        Self::Apply(Box::new(error))
    }
}

impl Error {
    /// The one word used for the condition, the event and the metric.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Apply(error) => error.reason(),
            Self::KindNotAllowed { .. } => "KindNotAllowed",
            Self::Issue(error) => error.reason(),
            Self::Random(_) => "NoRandomness",
            Self::Pods { .. } | Self::Reports { .. } | Self::Request { what: "read", .. } => "ReadFailed",
            Self::Proof { .. } | Self::Kubelet { .. } | Self::Finalizer { .. } => "WriteFailed",
            Self::Request { source, .. } if is_refused(source) => "Refused",
            Self::Request { .. } => "WriteFailed",
            Self::AccountToken { .. } | Self::AccountTokenUnusable { .. } => "TokenNotGiven",
            Self::Status { .. } => "StatusWriteFailed",
            Self::Worker(_) => "WorkerFailed",
        }
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Apply(error) => match error.class() {
                apply::Class::Transient => Class::Transient,
                apply::Class::Blocked => Class::Blocked,
                apply::Class::InTheWay => Class::InTheWay,
            },
            // Names and durations come from the manifest.
            Self::Issue(IssueError::Profile { .. }) | Self::KindNotAllowed { .. } => Class::Blocked,
            Self::Request { source, .. } if is_refused(source) => Class::InTheWay,
            Self::AccountToken { source, .. } if is_refused(source) || is_absent(source) => Class::InTheWay,
            Self::AccountTokenUnusable { .. } => Class::InTheWay,
            Self::Pods { .. }
            | Self::Reports { .. }
            | Self::Proof { .. }
            | Self::Request { .. }
            | Self::AccountToken { .. }
            | Self::Kubelet { .. }
            | Self::Finalizer { .. }
            | Self::Status { .. } => Class::Transient,
            Self::Issue(_) | Self::Random(_) | Self::Worker(_) => Class::Bug,
        }
    }
}

/// Whether the API server said no for a reason of its own: a right, a policy, a signer's name.
fn is_refused(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(refusal) if matches!(refusal.code, 400 | 403 | 422))
}

/// Whether the API server said that there is no such object.
fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(refusal) if refusal.code == 404)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_certificate_can_hold_waits_for_the_user() {
        let profile = IssueError::Profile { common_name: "team-a".to_owned(), what: "no DNS name".to_owned() };
        assert_eq!(Error::from(profile).class(), Class::Blocked);
        assert_eq!(Error::from(IssueError::Random).class(), Class::Bug);
    }
}
