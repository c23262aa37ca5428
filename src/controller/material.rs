//! Certificate and logins of one registry: what is stored is kept, made again or replaced, and what comes of it is what pods mount.

use jiff::Timestamp;
use operator_engine::apply::{Live, Owner};
use serde_json::Value;
use tracing::info;

use super::certificates::{self, Stored as StoredCertificate};
use super::context::Context;
use super::error::Error;
use super::logins::{self, Stored as StoredLogins};
use super::running;
use crate::desired::kinds;
use crate::desired::{Material, workload};
use crate::model::{Child, Observed, Resolved, labels};
use crate::status::{Certificate, Logins, summary};

/// What the cluster holds of a registry beside its foundation.
pub(super) struct Stored {
    tls: Option<Live>,
    ca: Option<Live>,
    htpasswd: Option<Live>,
    admin: Option<Live>,
    config: Option<Live>,
    /// What runs.
    pub(super) workload: Option<Live>,
}

impl Stored {
    /// Reads it.
    ///
    /// # Errors
    /// When something cannot be read.
    pub(super) async fn read(registry: &Resolved, owner: &Owner, ctx: &Context) -> Result<Self, Error> {
        let secret =
            async |child: Child| ctx.engine.read_known_child(owner, kinds::SECRET, &registry.name.child(child)).await;
        let (workload, _) = running::workload_kinds(registry);
        let tls = secret(Child::Tls).await?;
        // An authority that is missed isn't made again while its leaf is good, so it must really be missing.
        let ca = match &tls {
            Some(_) => ctx.engine.read_child(owner, kinds::SECRET, &registry.name.child(Child::Ca)).await?,
            None => secret(Child::Ca).await?,
        };
        Ok(Self {
            tls,
            ca,
            htpasswd: secret(Child::Htpasswd).await?,
            admin: secret(Child::Admin).await?,
            config: secret(Child::Config).await?,
            workload: ctx.engine.read_known_child(owner, workload, registry.name.as_str()).await?,
        })
    }

    /// Whether there is a generated admin that `material` no longer has, because others can log in.
    pub(super) fn outlives_its_admin(&self, settled: &Settled) -> bool {
        self.admin.is_some() && settled.material.admin.is_none() && !settled.logins.users.is_empty()
    }

    fn certificate(&self) -> StoredCertificate<'_> {
        StoredCertificate { leaf: self.tls.as_ref(), authority: self.ca.as_ref() }
    }

    fn logins(&self) -> StoredLogins<'_> {
        StoredLogins { table: self.htpasswd.as_ref(), admin: self.admin.as_ref(), config: self.config.as_ref() }
    }
}

/// What a pass goes on with.
pub(super) struct Settled {
    /// What is stored and mounted.
    pub(super) material: Material,
    /// What the status says of the certificate.
    pub(super) certificate: Certificate,
    /// What the status says of the users.
    pub(super) logins: Logins,
    /// When time alone can change the certificate.
    pub(super) look_again: Option<Timestamp>,
    /// Hash of what pods are made from.
    pub(super) template: String,
    /// The operator's image that the running pods were made with, if nothing else replaces them.
    pub(super) probe_image: Option<String>,
}

/// Keeps or makes them.
///
/// # Errors
/// When a key, a hash or a password cannot be made.
pub(super) async fn settle(
    registry: &Resolved,
    observed: &Observed,
    service: &Value,
    stored: &Stored,
    now: Timestamp,
) -> Result<Settled, Error> {
    let addresses = summary::image_hosts(registry, service);
    let logins = logins::settle(registry, &stored.logins(), &addresses, now).await?;

    let running = stored.workload.as_ref();
    let probe_image = running.and_then(|live| live.annotation(labels::PROBE_IMAGE)).map(str::to_owned);
    let image = probe_image.as_deref().unwrap_or(&registry.operator_image);
    let template = workload::template_hash(registry, &logins.http_secret, image);
    let rollout_pending = running.is_some_and(|live| live.annotation(labels::TEMPLATE) != Some(template.as_str()));

    let certificate = certificates::settle(registry, &stored.certificate(), observed, service, rollout_pending, now)?;
    if let Some(why) = certificate.issued {
        info!(registry = %format!("{}/{}", registry.namespace, registry.name), %why, "issued a certificate");
    }
    let pods_stay = !rollout_pending && certificate.issued.is_none();
    Ok(Settled {
        material: Material {
            certificate: certificate.serving,
            authority: certificate.authority,
            bundle: certificate.bundle,
            table: logins.table,
            admin: logins.admin,
            pull: logins.pull,
            http_secret: logins.http_secret,
        },
        certificate: certificate.report,
        logins: logins.report,
        look_again: certificate.look_again,
        template,
        probe_image: probe_image.filter(|_| pods_stay),
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;

    use super::*;
    use crate::controller::testing::{resolved, stored_secret};
    use crate::desired::{self, Run};

    /// What lies in the cluster after a pass, with a Deployment of this template.
    fn stored(registry: &Resolved, material: &Material, template: &str) -> Stored {
        let plan = desired::plan(registry, material, &Run::default());
        let secret = |child| stored_secret(registry, &plan, child);
        let workload = json!({"metadata": {"annotations": {labels::TEMPLATE: template}}});
        Stored {
            tls: secret(Child::Tls),
            ca: secret(Child::Ca),
            htpasswd: secret(Child::Htpasswd),
            admin: secret(Child::Admin),
            config: secret(Child::Config),
            workload: Some(Live::new(kinds::DEPLOYMENT, workload)),
        }
    }

    #[tokio::test]
    async fn pods_that_are_replaced_anyway_get_a_new_certificate_after_half_of_its_life() {
        let spec = json!({"auth": {"none": {}}, "tls": {"certificate": {"duration": "100h"}}});
        let registry = resolved(&spec, &json!({}));
        let empty = Stored { tls: None, ca: None, htpasswd: None, admin: None, config: None, workload: None };
        let start = Timestamp::now();
        let service = json!({});
        let settled = async |stored: &Stored, hours: i64| {
            let now = start + SignedDuration::from_hours(hours);
            settle(&registry, &Observed::default(), &service, stored, now).await.unwrap()
        };
        let serial = |settled: &Settled| settled.material.certificate.as_ref().unwrap().checksum.clone();

        let first = settled(&empty, 0).await;
        let (quiet, rollout) =
            (stored(&registry, &first.material, &first.template), stored(&registry, &first.material, "another"));
        assert_eq!(serial(&settled(&quiet, 52).await), serial(&first), "it is not due yet");
        assert_eq!(serial(&settled(&rollout, 40).await), serial(&first), "half of it is not over");
        assert_ne!(serial(&settled(&rollout, 52).await), serial(&first));
    }
}
