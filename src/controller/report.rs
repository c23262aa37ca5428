//! What a pass tells the user: the status, if it differs, and an event for what flipped.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use operator_engine::work::events::{self, Happening, Tone};
use operator_engine::work::queue::{Key, Urgency};
use tracing::{info, warn};

use crate::api::{PrivateRegistry, PrivateRegistryStatus, condition};
use crate::metrics::Metrics;
use crate::parts::{Context, Error, Failures};
use crate::status;
use crate::status::write::Written;

/// Writes the status and what flipped.
pub(super) async fn report(
    registry: &PrivateRegistry,
    status: PrivateRegistryStatus,
    failures: &Failures,
    ctx: &Context,
) -> Result<(), Error> {
    let key = Key::new(registry.namespace().unwrap_or_default(), registry.name_any());
    note_expiry(&key, &status, &ctx.metrics);
    // The manifest of now is another one, and the answer could not be read.
    if ctx.registries.why_undecodable(&key).is_some() {
        return Ok(());
    }
    let own = ctx.installations.own();
    let status = PrivateRegistryStatus { operator: own.map(str::to_owned), ..status };
    // A quiet pass ends here.
    if registry.status.as_ref() == Some(&status) {
        return Ok(());
    }
    if let Some(wait) = registry.status.as_ref().and_then(|before| wait_to_tell(&key, before, &status, ctx)) {
        ctx.queue.add_after(&key, Urgency::Upkeep, wait);
        return Ok(());
    }
    let live = ctx.registries.get(&key);
    let live = live.as_deref().unwrap_or(registry);
    let name = live.status.as_ref().and_then(|status| status.operator.as_deref());
    // Whoever writes its name first has the registry: it goes to the very version that has none.
    let expected = if name.is_none() { live.metadata.resource_version.as_deref() } else { None };
    let written = if name.is_some() && name != own {
        Written::Overtaken
    } else {
        let failed = |source| Error::Status { registry: title(registry), source: Box::new(source) };
        status::write::write(&ctx.client, registry, &status, expected).await.map_err(failed)?
    };
    let answer = match written {
        Written::Nothing => return Ok(()),
        Written::Overtaken => {
            failures.overtaken();
            return Ok(());
        }
        Written::Registry(answer) => *answer,
    };
    ctx.engine_metrics.status_written();
    ctx.recall.told(&key);
    let before = registry.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let happenings = events::transitions(before, &status.conditions);
    happenings.iter().for_each(|happening| log(registry, happening));
    ctx.events.publish(&registry.object_ref(&()), &happenings).await;
    ctx.learn(answer);
    Ok(())
}

/// While a registry comes up, much becomes known within a second or two: it is told together. What it comes to, and what is wrong, is told at once.
fn wait_to_tell(
    key: &Key,
    before: &PrivateRegistryStatus,
    now: &PrivateRegistryStatus,
    ctx: &Context,
) -> Option<Duration> {
    let comes_up = |status: &PrivateRegistryStatus| {
        status.says(condition::READY, "False")
            && status.says(condition::RECONCILING, "True")
            && status.says(condition::STALLED, "False")
    };
    let lasting = |status: &PrivateRegistryStatus| PrivateRegistryStatus {
        conditions: Vec::new(),
        ready_replicas: None,
        storage: None,
        ..status.clone()
    };
    if !comes_up(before) || !comes_up(now) || lasting(before) != lasting(now) {
        return None;
    }
    ctx.recall.wait_to_tell(key)
}

/// The metric says what the status says, whether that is news or not: a new process knows none yet.
fn note_expiry(key: &Key, status: &PrivateRegistryStatus, metrics: &Metrics) {
    match status.certificate.as_ref().and_then(|served| served.not_after.parse::<Timestamp>().ok()) {
        Some(end) => metrics.set_certificate_not_after(&key.namespace, &key.name, end.as_second()),
        None => metrics.forget_certificate(&key.namespace, &key.name),
    }
}

/// Events go after an hour, and may not be accepted: the log keeps what they say.
pub(super) fn log(registry: &PrivateRegistry, happening: &Happening) {
    let Happening { tone, reason, action, note } = happening;
    let registry = format!("{}/{}", registry.namespace().unwrap_or_default(), registry.name_any());
    match tone {
        Tone::Normal => info!(registry, condition = action, reason, "{note}"),
        Tone::Warning => warn!(registry, condition = action, reason, "{note}"),
    }
}

pub(super) fn title(registry: &PrivateRegistry) -> String {
    format!("PrivateRegistry {}/{}", registry.namespace().unwrap_or_default(), registry.name_any())
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use kube::runtime::watcher::Event;
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::api::CertificateStatus;
    use crate::controller::testing::{OURS, context};
    use operator_engine::work::followed::{Guarded, Unfollowed};
    use operator_engine::work::watches::Scope;

    /// A context whose API server gives this answer and keeps what it is asked.
    fn context_of(code: u16, asked: &Arc<Mutex<Vec<Value>>>) -> Context {
        let asked = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let asked = asked.clone();
            async move {
                let body = request.into_body().collect_bytes().await?;
                asked.lock().unwrap().push(serde_json::from_slice(&body).unwrap_or_default());
                let reason = if code == 409 { "Conflict" } else { "NotFound" };
                let answer =
                    json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": ""});
                let answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, kube::Error>(answer.unwrap())
            }
        });
        context(Client::new(service, "n"))
    }

    fn registry() -> PrivateRegistry {
        serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "spec": {},
            "metadata": {"name": "team-a", "namespace": "n", "uid": "u", "resourceVersion": "1"},
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn nothing_is_written_to_a_registry_that_cannot_be_decoded() {
        let asked = Arc::default();
        let (ctx, registry) = (context_of(404, &asked), registry());
        let status = || PrivateRegistryStatus { observed_generation: Some(1), ..PrivateRegistryStatus::default() };
        report(&registry, status(), &Failures::default(), &ctx).await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 1);

        let metadata = registry.metadata.clone();
        let broken = Unfollowed { error: "unknown variant".to_owned(), metadata, ..Unfollowed::default() };
        ctx.registries.apply(&Scope::All, Event::Apply(Guarded::Unfollowed(Box::new(broken))));
        report(&registry, status(), &Failures::default(), &ctx).await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    /// Of two operators that find a registry without a name one must fail.
    #[tokio::test(start_paused = true)]
    async fn the_first_name_goes_to_the_version_that_has_none_and_no_status_to_a_registry_of_another_operator() {
        for (name, version, writes) in
            [(None, json!("1"), 1), (Some(OURS), Value::Null, 1), (Some("theirs/o"), Value::Null, 0)]
        {
            let asked = Arc::default();
            let ctx = context_of(409, &asked);
            let mut live = registry();
            live.status =
                Some(PrivateRegistryStatus { operator: name.map(str::to_owned), ..PrivateRegistryStatus::default() });
            ctx.registries.apply(&Scope::All, Event::Apply(Guarded::Known(live)));

            let status = PrivateRegistryStatus { observed_generation: Some(1), ..PrivateRegistryStatus::default() };
            let failures = Failures::default();
            report(&registry(), status, &failures, &ctx).await.unwrap();
            let asked = asked.lock().unwrap();
            assert_eq!(asked.len(), writes, "{name:?}");
            for body in asked.iter() {
                assert_eq!(
                    (&body["metadata"]["resourceVersion"], &body["status"]["operator"]),
                    (&version, &json!(OURS))
                );
            }
            // What was refused is tried again, whatever it was refused for.
            assert!(failures.decides_anew(), "{name:?}");
        }
    }

    /// What is remembered of it may be passwords.
    #[tokio::test]
    async fn what_nobody_refers_to_any_more_is_forgotten() {
        let ctx = context_of(404, &Arc::default());
        let key = Key::new("n", "team-a");
        let referring = |spec: serde_json::Value| {
            let mut registry = serde_json::to_value(registry()).unwrap();
            registry["spec"] = spec;
            serde_json::from_value::<PrivateRegistry>(registry).unwrap()
        };
        let one = referring(json!({"auth": {"usersFrom": [{"secretRef": {"name": "logins"}}]}}));
        for last in [true, false] {
            ctx.note(&key, &one);
            ctx.engine.read(crate::desired::kinds::SECRET, "n", "logins").await.unwrap();
            assert_eq!(ctx.memory.len(), 1);
            if last {
                ctx.note(&key, &referring(json!({})));
            } else {
                ctx.forget(&key);
            }
            assert!(ctx.memory.is_empty());
        }
    }

    #[tokio::test]
    async fn the_metric_of_a_certificates_end_goes_with_it() {
        let ctx = context_of(404, &Arc::default());
        let series =
            || ctx.engine_metrics.encode().contains(r#"not_after_timestamp_seconds{namespace="n",name="team-a"} 0"#);
        let served = CertificateStatus { not_after: "1970-01-01T00:00:00Z".to_owned(), ..CertificateStatus::default() };
        let with = PrivateRegistryStatus { certificate: Some(served), ..PrivateRegistryStatus::default() };
        report(&registry(), with, &Failures::default(), &ctx).await.unwrap();
        assert!(series());
        report(&registry(), PrivateRegistryStatus::default(), &Failures::default(), &ctx).await.unwrap();
        assert!(!series());
    }
}
