//! Whether the cluster can be asked whose a token is: the registry's ServiceAccount asks what it may do itself, which everybody may who is known. No token of
//! anybody is needed for that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::lack::Lack;
use crate::access::cluster::REVIEWS;
use crate::access::report::Standing;

/// How long an answer counts, or that there was none.
const PAUSE: Duration = Duration::from_secs(20);
/// How long the API server may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What was found out last.
#[derive(Clone, Default)]
pub(super) struct Rights {
    state: Arc<Mutex<State>>,
    asking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    lack: Lack,
    /// When it was asked last.
    asked: Option<Instant>,
    /// Whether there was an answer ever.
    is_known: bool,
}

impl Rights {
    /// How it is now. The cluster is asked if it is time, and nobody waits for that: the next look finds what came of it. `client` of the cluster, or nothing
    /// while the pod has no access to it.
    pub(super) fn standing(&self, client: impl FnOnce() -> Option<Client>, now: Instant) -> Standing {
        let is_due = self.state(|state| state.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= PAUSE));
        if is_due && let Ok(turn) = Arc::clone(&self.asking).try_lock_owned() {
            let Some(client) = client() else { return Standing::Pending };
            let rights = self.clone();
            drop(tokio::spawn(async move {
                let standing = ask(&client).await;
                rights.state(|state| state.learn(standing, now));
                drop(turn);
            }));
        }
        self.state(|state| if state.is_known { state.lack.told(now) } else { Standing::Pending })
    }

    /// Waits for whoever asks.
    #[cfg(test)]
    pub(super) async fn has_asked(&self) {
        drop(self.asking.lock().await);
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn learn(&mut self, standing: Option<Standing>, now: Instant) {
        self.asked = Some(now);
        if let Some(standing) = standing {
            self.is_known = true;
            self.lack.learn(standing, now);
        }
    }
}

/// `None`: it does not say.
async fn ask(client: &Client) -> Option<Standing> {
    for (group, resource) in REVIEWS {
        match tokio::time::timeout(ANSWER, may(client, group, resource)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return Some(Standing::Forbidden),
            Ok(Err(kube::Error::Api(status))) => match StatusCode::from_u16(status.code) {
                Ok(StatusCode::UNAUTHORIZED) => return Some(Standing::Unauthorized),
                // Where even that is forbidden, only somebody's token will tell.
                Ok(StatusCode::FORBIDDEN) => return None,
                _ => return Some(Standing::Unreachable),
            },
            Ok(Err(_)) | Err(_) => return Some(Standing::Unreachable),
        }
    }
    Some(Standing::Good)
}

async fn may(client: &Client, group: &str, resource: &str) -> kube::Result<bool> {
    let resource_attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        verb: Some("create".to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(resource_attributes),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let question = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &question).await?;
    Ok(answer.status.is_some_and(|SubjectAccessReviewStatus { allowed, denied, .. }| allowed && denied != Some(true)))
}
