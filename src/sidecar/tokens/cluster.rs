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
use tokio::sync::{MutexGuard, Semaphore};
use tracing::warn;

use super::rights::Rights;
use crate::access::cluster::{ClusterLogins, ClusterUser};
use crate::access::report::Standing;
use crate::access::{Access, Action};
use crate::secret::Sensitive;
use crate::sidecar::recent::{Key, Recent};

/// How long an answer about a token counts.
const KNOWN: Duration = Duration::from_secs(30);
/// How long an answer about a right counts.
const RIGHTS: Duration = Duration::from_secs(10);
/// Answers of each kind that are remembered, twice as many at most.
const ROOM: usize = 2_048;
/// Questions of each kind at once: whoever comes without a login must not keep the API server busy.
const ASKING: usize = 16;
/// Questions that wait for that, together.
const WAITING: usize = 256;
/// Rights that are asked for with one token: a client asks for a few, somebody else for as many as there is room for.
const MOST_RIGHTS: usize = 48;
/// How long a question waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the API server may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The cluster could not be asked; why, in words for who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silent(pub(super) String);

/// Asks, and remembers answers.
pub(super) struct Cluster(Arc<Inner>);

struct Inner {
    client: OnceLock<Client>,
    /// The same question has the same turn, so it is asked once, whoever comes with it. Rights have turns of their own, because only who was let in asks for
    /// them.
    of_tokens: Turns,
    of_rights: Turns,
    /// Questions that are asked, or wait for their turn.
    waiting: Arc<Semaphore>,
    known: Mutex<Known>,
    /// Whether it may be asked.
    own: Rights,
}

type Turns = [tokio::sync::Mutex<()>; ASKING];

struct Known {
    /// The questions were put in these words.
    logins: Option<ClusterLogins>,
    users: Recent<Arc<ClusterUser>>,
    /// Why tokens were refused. Strangers fill it, so it is nobody else's.
    refused: Recent<String>,
    rights: Recent<bool>,
}

impl Known {
    fn of(logins: Option<ClusterLogins>) -> Self {
        let refused = Recent::new(KNOWN, ROOM);
        Self { logins, users: Recent::new(KNOWN, ROOM), refused, rights: Recent::new(RIGHTS, ROOM) }
    }

    fn user(&self, key: &Key) -> Option<Result<Arc<ClusterUser>, String>> {
        let now = Instant::now();
        self.users.find(key, now).map(Ok).or_else(|| self.refused.find(key, now).map(Err))
    }
}

impl Cluster {
    /// The cluster that the pod is in; `client` in its place.
    pub(super) fn new(client: Option<Client>) -> Self {
        Self(Arc::new(Inner {
            client: client.map(OnceLock::from).unwrap_or_default(),
            of_tokens: Turns::default(),
            of_rights: Turns::default(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            known: Mutex::new(Known::of(None)),
            own: Rights::default(),
        }))
    }

    /// Waits for whoever asks what the registry itself may do.
    #[cfg(test)]
    pub(super) async fn has_asked(&self) {
        self.0.own.has_asked().await;
    }

    /// Whether it can be asked now.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        self.0.own.standing(|| self.0.client().ok(), now)
    }

    /// Whose token it is. The inner error: nobody's, and why.
    pub(super) async fn user(
        &self,
        logins: &ClusterLogins,
        token: &Sensitive<Vec<u8>>,
    ) -> Result<Result<Arc<ClusterUser>, String>, Silent> {
        let key = hash(&[b"token", token.expose()]);
        if let Some(user) = self.0.known(logins, |known| known.user(&key)) {
            return Ok(user);
        }
        let (inner, logins, token) = (Arc::clone(&self.0), logins.clone(), token.clone());
        self.through(async move { inner.find_user(&logins, &token, key).await }).await
    }

    /// Those of `wanted` that RBAC allows.
    pub(super) async fn allowed<'a>(
        &self,
        logins: &ClusterLogins,
        user: &Arc<ClusterUser>,
        wanted: &BTreeSet<Access<'a>>,
    ) -> Result<BTreeSet<Access<'a>>, Silent> {
        let who = serde_json::to_vec(&**user).unwrap_or_default();
        let mut allowed = BTreeSet::new();
        for access in wanted.iter().take(MOST_RIGHTS) {
            let (action, name) = match access {
                Access::Repository(name, action) => (*action, *name),
                Access::Catalog => (Action::Catalog, ""),
            };
            let key = hash(&[&who, action.to_string().as_bytes(), name.as_bytes()]);
            let known = self.0.known(logins, |known| known.rights.find(&key, Instant::now()));
            let is_allowed = match known {
                Some(is_allowed) => is_allowed,
                None => {
                    let (inner, logins, user) = (Arc::clone(&self.0), logins.clone(), Arc::clone(user));
                    let question = logins.may(&user, *access);
                    self.through(async move { inner.find_right(&logins, question, key).await }).await?
                }
            };
            if is_allowed {
                allowed.insert(*access);
            }
        }
        Ok(allowed)
    }

    /// Works to the end, also when whoever asked has gone: else each who comes and goes would ask anew, without a turn.
    async fn through<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Silent>> + Send + 'static,
    ) -> Result<T, Silent> {
        let place = Arc::clone(&self.0.waiting).try_acquire_owned().map_err(|_| too_many())?;
        let task = tokio::spawn(async move {
            let _place = place;
            work.await
        });
        task.await.unwrap_or_else(|_| Err(Silent("the question broke off".to_owned())))
    }
}

fn too_many() -> Silent {
    Silent("too many ask at once; try again".to_owned())
}

async fn turn<'a>(turns: &'a Turns, key: &Key) -> Result<MutexGuard<'a, ()>, Silent> {
    let turn = turns[usize::from(key[0]) % ASKING].lock();
    tokio::time::timeout(PATIENCE, turn).await.map_err(|_| too_many())
}

impl Inner {
    async fn find_user(
        &self,
        logins: &ClusterLogins,
        token: &Sensitive<Vec<u8>>,
        key: Key,
    ) -> Result<Result<Arc<ClusterUser>, String>, Silent> {
        let _turn = turn(&self.of_tokens, &key).await?;
        if let Some(user) = self.known(logins, |known| known.user(&key)) {
            return Ok(user);
        }
        let review: TokenReview = self.ask(&logins.who(token), "tokenreviews").await?;
        let user = logins.user(review).map(Arc::new);
        self.known(logins, |known| match &user {
            Ok(user) => known.users.remember(key, Arc::clone(user), Instant::now()),
            Err(why) => known.refused.remember(key, why.clone(), Instant::now()),
        });
        Ok(user)
    }

    async fn find_right(
        &self,
        logins: &ClusterLogins,
        question: SubjectAccessReview,
        key: Key,
    ) -> Result<bool, Silent> {
        let _turn = turn(&self.of_rights, &key).await?;
        if let Some(is_allowed) = self.known(logins, |known| known.rights.find(&key, Instant::now())) {
            return Ok(is_allowed);
        }
        let review = self.ask(&question, "subjectaccessreviews").await?;
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
            Ok(Err(kube::Error::Api(status))) if status.code == StatusCode::UNAUTHORIZED.as_u16() => {
                "the API server does not know this registry's ServiceAccount, as after it was deleted: delete the pod, and its successor is known".to_owned()
            }
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
