//! What a pass tells the user: the status, if it differs, and an event for what flipped.

use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use operator_engine::work::events::{self, Happening, Tone};
use operator_engine::work::queue::{Key, Urgency};
use tracing::{info, warn};

use crate::api::{PrivateRegistry, PrivateRegistryStatus};
use crate::metrics::Metrics;
use crate::parts::{Context, Error};
use crate::status;

/// Writes the status and what flipped.
pub(super) async fn report(
    registry: &PrivateRegistry,
    status: PrivateRegistryStatus,
    ctx: &Context,
) -> Result<(), Error> {
    let key = Key::new(registry.namespace().unwrap_or_default(), registry.name_any());
    note_expiry(&key, &status, &ctx.metrics);
    // The manifest of now is another one, and the answer could not be read.
    if ctx.registries.why_undecodable(&key).is_some() {
        return Ok(());
    }
    let failed = |source| Error::Status { registry: title(registry), source: Box::new(source) };
    let Some(answer) = status::write::write(&ctx.client, registry, &status).await.map_err(failed)? else {
        return Ok(());
    };
    ctx.engine_metrics.status_written();
    let before = registry.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let happenings = events::transitions(before, &status.conditions);
    happenings.iter().for_each(|happening| log(registry, happening));
    ctx.events.publish(&registry.object_ref(&()), &happenings).await;
    // The answer may show a user's change before its own event does.
    if let Some(change) = ctx.registries.learn(answer).filter(|change| change.what.wants_a_pass()) {
        ctx.queue.add(&change.key, Urgency::Manifest);
    }
    Ok(())
}

/// The metric says what the status says, whether that is news or not: a new process knows none yet.
fn note_expiry(key: &Key, status: &PrivateRegistryStatus, metrics: &Metrics) {
    match status.certificate.as_ref().and_then(|served| served.not_after.parse::<Timestamp>().ok()) {
        Some(end) => metrics.set_certificate_not_after(&key.namespace, &key.name, end.as_second()),
        None => metrics.forget_certificate(&key.namespace, &key.name),
    }
}

/// Events go after an hour, and may not be accepted: the log keeps what they say.
fn log(registry: &PrivateRegistry, happening: &Happening) {
    let Happening { tone, reason, action, note } = happening;
    let registry = format!("{}/{}", registry.namespace().unwrap_or_default(), registry.name_any());
    match tone {
        Tone::Normal => info!(registry, condition = action, reason, "{note}"),
        Tone::Warning => warn!(registry, condition = action, reason, "{note}"),
    }
}

fn title(registry: &PrivateRegistry) -> String {
    format!("PrivateRegistry {}/{}", registry.namespace().unwrap_or_default(), registry.name_any())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;
    use crate::api::CertificateStatus;
    use crate::controller::MARKS;
    use crate::metrics::Metrics;
    use crate::model::Settings;
    use crate::parts::context::Recall;
    use crate::parts::workload::Answers;
    use operator_engine::apply::{Engine, Memory};
    use operator_engine::work::followed::{Guarded, Unfollowed};
    use operator_engine::work::queue::Queue;
    use operator_engine::work::references::References;
    use operator_engine::work::rounds::Rounds;
    use operator_engine::work::store::Objects;
    use operator_engine::work::watches::Scope;

    /// A context whose API server knows nothing and counts what it is asked.
    fn context(asked: &Arc<AtomicUsize>) -> Context {
        let asked = asked.clone();
        let service = tower::service_fn(move |_: Request<Body>| {
            asked.fetch_add(1, Ordering::Relaxed);
            let nothing =
                json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": ""});
            let answer = Response::builder().status(404).body(Body::from(nothing.to_string().into_bytes()));
            async move { Ok::<_, Infallible>(answer.unwrap()) }
        });
        let client = Client::new(service, "n");
        let memory = Arc::new(Memory::new(MARKS));
        let (metrics, engine_metrics) = Metrics::new(&crate::PROGRAM);
        Context {
            engine: Engine::new(client.clone(), memory.clone(), MARKS, Arc::new(())),
            memory,
            registries: Arc::new(Objects::default()),
            settings: Settings::default(),
            events: events::Events::new(client.clone(), "operator", "one", engine_metrics.clone()),
            metrics,
            engine_metrics,
            recall: Recall::default(),
            answers: Answers::default(),
            client,
            queue: Queue::default(),
            rounds: Rounds::default(),
            references: References::default(),
        }
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
        let asked = Arc::new(AtomicUsize::new(0));
        let (ctx, registry) = (context(&asked), registry());
        let status = || PrivateRegistryStatus { observed_generation: Some(1), ..PrivateRegistryStatus::default() };
        report(&registry, status(), &ctx).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);

        let metadata = registry.metadata.clone();
        let broken = Unfollowed { error: "unknown variant".to_owned(), metadata, ..Unfollowed::default() };
        ctx.registries.apply(&Scope::All, Event::Apply(Guarded::Unfollowed(Box::new(broken))));
        report(&registry, status(), &ctx).await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    /// What is remembered of it may be passwords.
    #[tokio::test]
    async fn what_nobody_refers_to_any_more_is_forgotten() {
        let ctx = context(&Arc::default());
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
        let ctx = context(&Arc::default());
        let series =
            || ctx.engine_metrics.encode().contains(r#"not_after_timestamp_seconds{namespace="n",name="team-a"} 0"#);
        let served = CertificateStatus { not_after: "1970-01-01T00:00:00Z".to_owned(), ..CertificateStatus::default() };
        let with = PrivateRegistryStatus { certificate: Some(served), ..PrivateRegistryStatus::default() };
        report(&registry(), with, &ctx).await.unwrap();
        assert!(series());
        report(&registry(), PrivateRegistryStatus::default(), &ctx).await.unwrap();
        assert!(!series());
    }
}
