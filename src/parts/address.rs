//! Where clients find the registry: its Service. What it cannot become leaves what it is: the certificate and the pull Secret go on with the addresses
//! that are there.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use operator_engine::apply::Live;
use serde_json::Value;

use super::Pass;
use crate::api::ServiceType;
use crate::desired::{kinds, service};
use crate::model::{Child, Resolved};
use crate::status::Problem;

/// How long a certificate waits for the address of a load balancer.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// The Service, as the server has it.
pub struct Address {
    service: Option<Live>,
    /// What keeps it from being as wanted.
    pub problem: Option<Problem>,
}

/// Brings the Service to what is wanted.
pub async fn settle(pass: &Pass<'_>) -> Address {
    match pass.apply(service::build(pass.registry)).await {
        Ok(applied) => Address { service: Some(applied.live), problem: None },
        // What is somebody else's is not even remembered: whether it was handed over, the next pass asks.
        Err(error) if error.reason() == "NotOurs" => Address { service: None, problem: Some(pass.problem(error)) },
        Err(error) => {
            let problem = Some(pass.problem(error));
            let name = pass.registry.name.child(Child::Service);
            let live = pass.ctx.engine.read_child(&pass.owner, kinds::SERVICE, &name).await;
            Address { service: live.ok().flatten(), problem }
        }
    }
}

impl Address {
    /// The Service; `None` while there is none of ours.
    #[must_use]
    pub fn service(&self) -> Option<&Value> {
        self.service.as_ref().map(Live::value)
    }

    /// For how much longer a first certificate waits for the load balancer: one without its address would have to be made twice.
    #[must_use]
    pub fn awaits_load_balancer(&self, registry: &Resolved, now: Timestamp) -> Option<Duration> {
        if registry.service.kind != ServiceType::LoadBalancer || !registry.has_tls() {
            return None;
        }
        let service = self.service.as_ref()?;
        if service.at("status.loadBalancer.ingress").is_some() {
            return None;
        }
        let created: Timestamp = service.at("metadata.creationTimestamp")?.as_str()?.parse().ok()?;
        let waited = now.duration_since(created);
        (waited < PATIENCE).then(|| (PATIENCE - waited).unsigned_abs())
    }
}
