//! Asks the cluster whose token somebody has brought, and what its RBAC lets him do. Each answer counts for seconds, so that a client with ten layers asks once,
//! and a right that is taken ends soon.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::MutexGuard;
use tracing::warn;

use crate::access::cluster::{ClusterLogins, ClusterUser};
use crate::access::{Access, Action};
use crate::secret::Sensitive;
use crate::sidecar::recent::{Key, Recent};

/// How long an answer about a token counts.
const KNOWN: Duration = Duration::from_secs(30);
/// How long an answer about a right counts.
const RIGHTS: Duration = Duration::from_secs(10);
/// Answers of each kind that are remembered, twice as many at most.
const ROOM: usize = 2_048;
/// Questions at once: whoever comes without a login must not keep the API server busy.
const ASKING: usize = 16;
/// How long a question waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the API server may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The cluster could not be asked; why, in words for who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silent(pub(super) String);

/// Asks, and remembers answers.
pub(super) struct Cluster {
    client: OnceLock<Client>,
    /// The same question has the same turn, so it is asked once, whoever comes with it.
    turns: [tokio::sync::Mutex<()>; ASKING],
    known: Mutex<Known>,
}

struct Known {
    /// The questions were put in these words.
    logins: Option<ClusterLogins>,
    users: Recent<Result<Arc<ClusterUser>, String>>,
    rights: Recent<bool>,
}

impl Known {
    fn of(logins: Option<ClusterLogins>) -> Self {
        Self { logins, users: Recent::new(KNOWN, ROOM), rights: Recent::new(RIGHTS, ROOM) }
    }
}

impl Cluster {
    /// The cluster that the pod is in; `client` in its place.
    pub(super) fn new(client: Option<Client>) -> Self {
        let client = client.map(OnceLock::from).unwrap_or_default();
        Self { client, turns: Default::default(), known: Mutex::new(Known::of(None)) }
    }

    /// Whose token it is. The inner error: nobody's, and why.
    pub(super) async fn user(
        &self,
        logins: &ClusterLogins,
        token: &Sensitive<Vec<u8>>,
    ) -> Result<Result<Arc<ClusterUser>, String>, Silent> {
        let key = hash(&[b"token", token.expose()]);
        let known = || self.known(logins, |known| known.users.find(&key, Instant::now()));
        if let Some(user) = known() {
            return Ok(user);
        }
        let _turn = self.turn(&key).await?;
        if let Some(user) = known() {
            return Ok(user);
        }
        let review: TokenReview = self.ask(&logins.who(token), "tokenreviews").await?;
        let user = logins.user(review).map(Arc::new);
        self.known(logins, |known| known.users.remember(key, user.clone(), Instant::now()));
        Ok(user)
    }

    /// Those of `wanted` that RBAC allows.
    pub(super) async fn allowed<'a>(
        &self,
        logins: &ClusterLogins,
        user: &ClusterUser,
        wanted: &BTreeSet<Access<'a>>,
    ) -> Result<BTreeSet<Access<'a>>, Silent> {
        let who = serde_json::to_vec(user).unwrap_or_default();
        let mut allowed = BTreeSet::new();
        for access in wanted {
            if self.is_allowed(logins, user, &who, *access).await? {
                allowed.insert(*access);
            }
        }
        Ok(allowed)
    }

    async fn is_allowed(
        &self,
        logins: &ClusterLogins,
        user: &ClusterUser,
        who: &[u8],
        access: Access<'_>,
    ) -> Result<bool, Silent> {
        let (action, name) = match access {
            Access::Repository(name, action) => (action, name),
            Access::Catalog => (Action::Catalog, ""),
        };
        let key = hash(&[who, action.to_string().as_bytes(), name.as_bytes()]);
        let known = || self.known(logins, |known| known.rights.find(&key, Instant::now()));
        if let Some(is_allowed) = known() {
            return Ok(is_allowed);
        }
        let _turn = self.turn(&key).await?;
        if let Some(is_allowed) = known() {
            return Ok(is_allowed);
        }
        let review: SubjectAccessReview = self.ask(&logins.may(user, access), "subjectaccessreviews").await?;
        let is_allowed = review.status.is_some_and(|status| status.allowed && status.denied != Some(true));
        self.known(logins, |known| known.rights.remember(key, is_allowed, Instant::now()));
        Ok(is_allowed)
    }

    /// Works with what is remembered. Answers to other questions do not count.
    fn known<T>(&self, logins: &ClusterLogins, work: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.logins.as_ref() != Some(logins) {
            *known = Known::of(Some(logins.clone()));
        }
        work(&mut known)
    }

    async fn turn(&self, key: &Key) -> Result<MutexGuard<'_, ()>, Silent> {
        let turn = self.turns[usize::from(key[0]) % ASKING].lock();
        let turn = tokio::time::timeout(PATIENCE, turn).await;
        turn.map_err(|_| Silent("too many ask at once; try again".to_owned()))
    }

    async fn ask<K>(&self, question: &K, resource: &str) -> Result<K, Silent>
    where
        K: kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
    {
        let api = Api::<K>::all(self.client()?);
        let parameters = PostParams::default();
        let why = match tokio::time::timeout(ANSWER, api.create(&parameters, question)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::FORBIDDEN.as_u16() => format!(
                "this registry's ServiceAccount may not create {resource}: an administrator has to bind it to ClusterRole system:auth-delegator"
            ),
            Ok(Err(kube::Error::Api(status))) => format!("the API server answers {} to {resource}", status.code),
            Ok(Err(_)) => "the API server cannot be reached from the registry's pod".to_owned(),
            Err(_) => format!("the API server did not answer within {} s", ANSWER.as_secs()),
        };
        warn!(why, "the cluster's tokens cannot be judged");
        Err(Silent(why))
    }

    fn client(&self) -> Result<Client, Silent> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let made = Config::incluster().map_err(|error| error.to_string());
        let made = made.and_then(|config| Client::try_from(config).map_err(|error| error.to_string()));
        match made {
            Ok(client) => Ok(self.client.get_or_init(|| client).clone()),
            Err(error) => {
                warn!(error, "the pod has no access to the API server");
                Err(Silent(
                    "the pod has no access to the API server yet; it is replaced when the operator can".to_owned(),
                ))
            }
        }
    }
}

/// Parts are told apart by their lengths.
fn hash(parts: &[&[u8]]) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
