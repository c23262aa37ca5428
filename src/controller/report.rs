//! What a pass tells the user: the status, if it differs, and an event for what flipped.

use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use tracing::{info, warn};

use super::context::Context;
use super::error::Error;
use super::events::{self, Happening, Tone};
use crate::api::{PrivateRegistry, PrivateRegistryStatus};
use crate::metrics::Metrics;
use crate::runtime::api_error;
use crate::status;

/// Writes the status and what flipped.
pub(super) async fn report(
    registry: &PrivateRegistry,
    status: PrivateRegistryStatus,
    ctx: &Context,
) -> Result<(), Error> {
    note_expiry(registry, &status, &ctx.metrics);
    let failed = |source| Error::Status { registry: title(registry), source: Box::new(source) };
    let Some(answer) = status::write::write(&ctx.client, registry, &status).await.map_err(failed)? else {
        return Ok(());
    };
    ctx.metrics.status_written();
    let before = registry.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let happenings = events::transitions(before, &status.conditions);
    happenings.iter().for_each(|happening| log(registry, happening));
    ctx.events.publish(&registry.object_ref(&()), &happenings).await;
    // The answer may show a user's change before its own event does.
    if let Some(change) = ctx.registries.learn(answer).filter(|change| change.what.wants_a_pass()) {
        ctx.queue.add(&change.key);
    }
    Ok(())
}

/// The metric says what the status says, whether that is news or not: a new process knows none yet.
fn note_expiry(registry: &PrivateRegistry, status: &PrivateRegistryStatus, metrics: &Metrics) {
    let (namespace, name) = (registry.namespace().unwrap_or_default(), registry.name_any());
    match status.certificate.as_ref().and_then(|served| served.not_after.parse::<Timestamp>().ok()) {
        Some(end) => metrics.set_certificate_not_after(&namespace, &name, end.as_second()),
        None => metrics.forget_certificate(&namespace, &name),
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

/// The error and its causes on one line, free of secrets: some of kube's errors quote what they could not read.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_of_kube =
            cause.downcast_ref::<kube::Error>().or_else(|| cause.downcast_ref::<Box<kube::Error>>().map(Box::as_ref));
        if let Some(cause) = cause_of_kube {
            return format!("{words}: {}", api_error::explain(cause));
        }
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

fn title(registry: &PrivateRegistry) -> String {
    format!("PrivateRegistry {}/{}", registry.namespace().unwrap_or_default(), registry.name_any())
}
