//! Who asks, as a login or a token has said.

use std::sync::Arc;

use crate::access::cluster::ClusterUser;
use crate::access::issuer::Guest;
use crate::access::token::{Claims, LIFE};
use crate::credentials::BcryptHash;

/// Who asks.
#[derive(Debug, Clone)]
pub(super) enum Person {
    /// Nobody in particular.
    Nobody,
    /// A user of the table, and the line of it that his password fits, if he came with one.
    User(String, Option<BcryptHash>),
    /// Somebody whom the cluster knows, and when the token that he brought ends, in seconds since 1970.
    OfCluster(Arc<ClusterUser>, Option<u64>),
    /// Somebody whom an issuer knows, and when his token ends.
    Guest(Arc<Guest>, Option<u64>),
}

impl Person {
    /// Whose token it is.
    pub(super) fn of(claims: &Claims) -> Self {
        match (&claims.cluster, &claims.guest) {
            (Some(user), _) => Self::OfCluster(Arc::new(user.clone()), None),
            (None, Some(guest)) => Self::Guest(Arc::new(guest.clone()), None),
            (None, None) if claims.sub.is_empty() => Self::Nobody,
            (None, None) => Self::User(claims.sub.clone(), None),
        }
    }

    /// Empty for nobody in particular.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Nobody => "",
            Self::User(name, _) => name,
            Self::OfCluster(user, _) => &user.name,
            Self::Guest(guest, _) => &guest.name,
        }
    }

    /// Seconds that a token holds which is given now: no longer than what was brought for it.
    pub(super) fn life(&self, now: u64) -> u64 {
        match self {
            Self::OfCluster(_, Some(until)) | Self::Guest(_, Some(until)) => until.saturating_sub(now).clamp(1, LIFE),
            _ => LIFE,
        }
    }
}
