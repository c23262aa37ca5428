//! Which kinds the cluster has, of those that it may lack. However many scopes want to know, a group is asked for once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Error};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Watched;

/// How often whoever waits for a kind asks.
pub(super) const BETWEEN_LOOKS: Duration = Duration::from_secs(15);

/// The plurals of a group's version, and when they were asked for. None: not yet.
type Look = Arc<Mutex<Option<(Instant, BTreeSet<String>)>>>;

/// What discovery said.
pub(super) struct Presence {
    client: Client,
    looks: Mutex<BTreeMap<String, Look>>,
}

impl Presence {
    pub(super) fn new(client: Client) -> Self {
        Self { client, looks: Mutex::default() }
    }

    /// Whether the cluster has this kind, as far as was heard since the last look.
    pub(super) async fn is_served(&self, watched: &Watched) -> Result<bool, Error> {
        let version = format!("{}/{}", watched.group, watched.version);
        let look = self.looks.lock().await.entry(version.clone()).or_default().clone();
        // Whoever comes while one asks waits for the answer.
        let mut look = look.lock().await;
        if let Some((at, plurals)) = &*look
            && at.elapsed() < BETWEEN_LOOKS
        {
            return Ok(plurals.contains(&watched.plural));
        }
        let plurals = match self.client.list_api_group_resources(&version).await {
            Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
            Err(Error::Api(refusal)) if refusal.code == 404 => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        let is_served = plurals.contains(&watched.plural);
        *look = Some((Instant::now(), plurals));
        Ok(is_served)
    }
}
