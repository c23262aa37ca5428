//! Secret material that was kept or made before the plan: the builders only put it into objects.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::model::{Resolved, Users};
use crate::secret::Sensitive;

/// Secret material of one registry.
#[derive(Debug, Clone)]
pub struct Material {
    /// What the registry serves; `None` without TLS, or while there is none yet.
    pub certificate: Option<ServingCertificate>,
    /// The registry's own authority; `None` when somebody else signs.
    pub authority: Option<Authority>,
    /// What somebody else is asked to sign; `None` when nobody is asked.
    pub request: Option<SigningRequest>,
    /// PEM of every authority that clients must trust now; `None` when their systems know it, or without TLS.
    pub bundle: Option<String>,
    /// Who may log in; `None` without logins, or while there is nobody yet.
    pub table: Option<Table>,
    /// Keys that sign tokens; `None` without tokens, or while there are none yet.
    pub tokens: Option<TokenKeys>,
    /// The generated admin.
    pub admin: Option<AdminLogin>,
    /// Logins of users whose passwords the operator makes, by the user.
    pub logins: BTreeMap<String, RotatedLogin>,
    /// Login for pods of the registry's namespace, as `.dockerconfigjson`.
    pub pull: Option<Sensitive<String>>,
    /// Key with which the registry signs the state of uploads.
    pub http_secret: Sensitive<String>,
}

/// What the registry serves.
#[derive(Debug, Clone)]
pub struct ServingCertificate {
    /// PEM, leaf first.
    pub chain: String,
    /// PEM.
    pub key: Sensitive<String>,
    /// Authority to keep beside it, PEM.
    pub ca: Option<String>,
    /// SHA-256 over chain and key.
    pub checksum: String,
    /// The request for renewal that was served last.
    pub served_request: Option<String>,
    /// Why it was issued; `None` for a certificate that is not ours.
    pub issued: Option<String>,
    /// Since when authorities have been what they are, while one takes over from another.
    pub authorities_since: Option<String>,
    /// Name of the Secret with the authority that signed it, where that is not the registry's own.
    pub shared_authority: Option<String>,
    /// Who signed it on request.
    pub signer: Option<String>,
}

/// The registry's own authority.
#[derive(Debug, Clone)]
pub struct Authority {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: Sensitive<String>,
    /// Certificate and key, PEM, of the one that is to sign next.
    pub next: Option<(String, Sensitive<String>)>,
    /// Fingerprint of the authority that it is to succeed.
    pub succeeds: Option<String>,
    /// Type of its Secret, which Kubernetes never changes: one that somebody made may be another than ours.
    pub kind: String,
}

impl Authority {
    /// Type of the Secret that we make.
    pub const KIND: &str = "kubernetes.io/tls";
}

/// What somebody else is asked to sign.
#[derive(Debug, Clone)]
pub struct SigningRequest {
    /// PEM.
    pub request: String,
    /// PEM.
    pub key: Sensitive<String>,
    /// Why it was made.
    pub reason: Option<String>,
}

/// The generated admin.
#[derive(Debug, Clone)]
pub struct AdminLogin {
    /// The password.
    pub password: Sensitive<String>,
    /// Type of its Secret, which Kubernetes never changes: one that somebody made may be another than ours.
    pub kind: String,
}

impl AdminLogin {
    /// Type of the Secret that we make.
    pub const KIND: &str = "kubernetes.io/basic-auth";
}

/// The logins of a user whose password the operator makes: the one that is shown, the one that is to follow, and the one that was shown before.
#[derive(Debug, Clone)]
pub struct RotatedLogin {
    /// The name to log in with.
    pub username: String,
    /// The password.
    pub password: Sensitive<String>,
    /// Since when it has been shown; `None` if that cannot be read.
    pub since: Option<Timestamp>,
    /// The password that is to follow.
    pub next: Option<Sensitive<String>>,
    /// The password that was shown before.
    pub former: Option<FormerPassword>,
    /// What was asked for last by the annotation, and done.
    pub handled: Option<String>,
    /// Type of the Secret: see [`AdminLogin::kind`].
    pub kind: String,
}

impl RotatedLogin {
    /// Whether something is missing of what was `written`, for want of which another login would be made: the next password, or what was asked for and done.
    /// With another password it is another login.
    #[must_use]
    pub fn lacks(&self, written: &Self) -> bool {
        let lacks =
            self.next.is_none() && written.next.is_some() || self.handled.is_none() && written.handled.is_some();
        lacks && self.password.expose() == written.password.expose()
    }

    /// The same with what is missing.
    #[must_use]
    pub fn with_what_is_missing(self, written: &Self) -> Self {
        if !self.lacks(written) {
            return self;
        }
        Self {
            next: self.next.or_else(|| written.next.clone()),
            handled: self.handled.or_else(|| written.handled.clone()),
            ..self
        }
    }

    /// The one that a user begins with.
    #[must_use]
    pub fn first(user: &str, password: Sensitive<String>, since: Timestamp) -> Self {
        Self {
            username: user.to_owned(),
            password,
            since: Some(since),
            next: None,
            former: None,
            handled: None,
            kind: AdminLogin::KIND.to_owned(),
        }
    }
}

/// A password that was shown before, and counts for a while.
#[derive(Debug, Clone)]
pub struct FormerPassword {
    /// The password.
    pub password: Sensitive<String>,
    /// Since when every pull Secret has shown its successor; `None`: not all do yet.
    pub since: Option<Timestamp>,
}

/// Who may log in.
#[derive(Debug, Clone)]
pub struct Table {
    /// The htpasswd file.
    pub file: Sensitive<String>,
    /// Where each hash came from: JSON, no secret in it.
    pub sources: String,
    /// Who of them may do what, as the sidecar reads it: JSON. Without tokens everybody everything: a pod with tokens that is still to be replaced reads it,
    /// and would keep its users for ever if it were missing.
    pub access: String,
}

/// Keys that sign tokens.
#[derive(Debug, Clone)]
pub struct TokenKeys {
    /// The one that signs, PEM.
    pub signing: Sensitive<String>,
    /// The one that is to sign next, PEM.
    pub next: Sensitive<String>,
    /// What checks tokens of the one that signed before: a JSON Web Key.
    pub former: Option<String>,
    /// What seals refresh tokens: 32 bytes in base64.
    pub refresh: Sensitive<String>,
    /// Since when the first one signs.
    pub since: Timestamp,
    /// What checks tokens of all of them: a JSON Web Key Set.
    pub public: String,
}

impl Material {
    /// Nothing but the key that signs uploads.
    #[must_use]
    pub fn without_secrets(http_secret: Sensitive<String>) -> Self {
        Self {
            certificate: None,
            authority: None,
            request: None,
            bundle: None,
            table: None,
            tokens: None,
            admin: None,
            logins: BTreeMap::new(),
            pull: None,
            http_secret,
        }
    }

    /// Whether a registry with this material would come up as its manifest says.
    #[must_use]
    pub fn is_complete(&self, registry: &Resolved) -> bool {
        let encrypted = !registry.has_tls() || self.certificate.is_some();
        let guarded = matches!(registry.users, Users::Everybody) || self.table.is_some();
        let signs = registry.policy().is_none() || self.tokens.is_some();
        encrypted && guarded && signs
    }
}
