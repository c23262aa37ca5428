//! What the rest of a registry stands on, and what gets its address or its volume from the cluster: it is written first.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use operator_engine::apply::{self, Live, Owner};
use serde_json::Value;

use super::children::{children, live};
use super::context::Context;
use super::error::Error;
use crate::api::ServiceType;
use crate::desired;
use crate::desired::kinds;
use crate::model::{self, Child, Resolved};

/// The Service and the claim, as the server has them.
pub(super) struct Foundation {
    service: Option<Live>,
    /// The claim.
    pub(super) claim: Claim,
}

impl Foundation {
    /// Brings them to what is wanted.
    ///
    /// # Errors
    /// When one of them cannot be read or written. That a claim does not grow is no error.
    pub(super) async fn lay(registry: &Resolved, owner: &Owner, ctx: &Context) -> Result<Self, Error> {
        let applied = ctx.engine.apply_all(owner, &children(desired::foundation(registry))).await?;
        let claim = claim(registry, owner, ctx).await?;
        Ok(Self { service: live(&applied, kinds::SERVICE, &registry.name.child(Child::Service)), claim })
    }

    /// The Service; null if the server gave none.
    pub(super) fn service(&self) -> &Value {
        self.service.as_ref().map_or(&Value::Null, Live::value)
    }

    /// A certificate without the load balancer's address would have to be made twice: it is waited for, up to a minute.
    pub(super) fn load_balancer_is_pending(&self, registry: &Resolved, now: Timestamp) -> Option<Duration> {
        const LIMIT: SignedDuration = SignedDuration::from_secs(60);
        if registry.service.kind != ServiceType::LoadBalancer || !registry.has_tls() {
            return None;
        }
        let service = self.service.as_ref()?;
        if service.at("status.loadBalancer.ingress").is_some() {
            return None;
        }
        let created: Timestamp = service.at("metadata.creationTimestamp")?.as_str()?.parse().ok()?;
        let waited = now.duration_since(created);
        (waited < LIMIT).then(|| (LIMIT - waited).unsigned_abs())
    }
}

/// The claim that pods mount.
pub(super) struct Claim {
    /// As the server has it.
    pub(super) live: Option<Live>,
    /// Why it does not grow.
    pub(super) refusal: Option<String>,
}

/// Makes or grows the claim, or looks at one that is not ours. Whether a class allows growth is found out by trying: the refusal is
/// told, and everything else goes on.
async fn claim(registry: &Resolved, owner: &Owner, ctx: &Context) -> Result<Claim, Error> {
    let read = async |name: &str| ctx.engine.read(kinds::PERSISTENT_VOLUME_CLAIM, &registry.namespace, name).await;
    if let model::Storage::Existing { name, .. } = &registry.storage {
        return Ok(Claim { live: read(name).await?, refusal: None });
    }
    let Some(mut wanted) = children(desired::claim::build(registry).into_iter().collect()).pop() else {
        return Ok(Claim { live: None, refusal: None });
    };
    // Kubernetes refuses to grow a claim that has no volume yet: it gets its first volume as it is, and grows then.
    let size = "/spec/resources/requests/storage";
    if let Some(live) = ctx
        .engine
        .read_known_child(owner, kinds::PERSISTENT_VOLUME_CLAIM, &wanted.name)
        .await?
        .filter(|live| live.value().pointer("/status/phase") == Some(&"Pending".into()))
        && let (Some(asked), Some(given)) = (wanted.body.pointer_mut(size), live.value().pointer(size))
    {
        *asked = given.clone();
    }
    match ctx.engine.apply(owner, &wanted).await {
        Ok(applied) => Ok(Claim { live: Some(applied.live), refusal: None }),
        Err(apply::Error::Refused { message, object, .. }) => {
            Ok(Claim { live: read(&object.name).await?, refusal: Some(message) })
        }
        Err(error) => Err(error.into()),
    }
}
