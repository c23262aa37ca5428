//! Whose registry it is: the first thing of every pass. Another installation of the operator may look after it, and two would undo each other's work for
//! ever. Whose turn it is says [`operator_engine::work::installations`]; here is what is written and told of it.

use std::sync::Arc;
use std::time::Duration;

use kube::Resource as _;
use operator_engine::work::events::{Happening, Tone};
use operator_engine::work::installations::{Shown, Turn};
use operator_engine::work::queue::{Key, Urgency};
use serde_json::{Value, json};

use super::reconcile::SOON;
use super::report::{log, title};
use crate::api::{PrivateRegistry, condition, reason};
use crate::parts::{Context, Error, Failures};
use crate::status;

/// Whose registry it is.
pub(super) enum Whose {
    /// Ours, as it is now.
    Ours(Arc<PrivateRegistry>),
    /// Another installation's, or not known yet: nothing is written, and it is looked at again after this time.
    Anothers(Duration),
}

/// What the registry shows of who looks after it.
pub(super) fn shown(registry: &PrivateRegistry) -> Shown<'_> {
    let Some(status) = &registry.status else { return Shown::default() };
    Shown {
        operator: status.operator.as_deref(),
        asked: status.operator_asked.as_deref(),
        is_behind: status.observed_generation != registry.metadata.generation,
    }
}

/// Finds out whose registry it is: asks, answers, or takes it over if that is due.
///
/// # Errors
/// The API server refused the write, which says nothing of whose registry it is.
pub(super) async fn settle(
    key: &Key,
    registry: Arc<PrivateRegistry>,
    failures: &Failures,
    ctx: &Context,
) -> Result<Whose, Error> {
    let shown = shown(&registry);
    let (operator, own) = (shown.operator.unwrap_or_default(), ctx.installations.own());
    match ctx.installations.turn(key, &shown) {
        Turn::Work { answer: false } => Ok(Whose::Ours(registry)),
        Turn::Work { answer: true } => {
            // Nothing else of the registry waits for it. But who gets no answer for long takes the registry over.
            match change(&registry, &json!({"operatorAsked": null}), false, ctx).await {
                Ok(true) => {}
                Ok(false) => failures.overtaken(),
                Err(error) => _ = failures.failed(key, &error),
            }
            Ok(Whose::Ours(ctx.registries.get(key).unwrap_or(registry)))
        }
        Turn::Ask => {
            if change(&registry, &json!({"operatorAsked": own}), true, ctx).await? {
                ctx.installations.asked(key, operator);
            } else {
                failures.overtaken();
            }
            Ok(Whose::Anothers(SOON))
        }
        Turn::Leave { after, is_news } => {
            if is_news {
                let own = own.unwrap_or_default();
                let note = format!(
                    "the operator {operator} looks after the registries of this namespace that have its name in status.operator, and it lives; {own} leaves them \
                     alone. Let only one of the two watch this namespace"
                );
                tell(&registry, Tone::Warning, reason::OTHER_OPERATOR, note, ctx).await;
            }
            Ok(Whose::Anothers(after))
        }
        Turn::Take { others } => {
            if !change(&registry, &json!({"operator": own, "operatorAsked": null}), true, ctx).await? {
                failures.overtaken();
                return Ok(Whose::Anothers(SOON));
            }
            let note =
                format!("the operator {operator} does not answer; {} looks after it now", own.unwrap_or_default());
            tell(&registry, Tone::Normal, reason::TAKEN_OVER, note, ctx).await;
            others.iter().for_each(|other| ctx.queue.add(other, Urgency::Upkeep));
            Ok(Whose::Ours(ctx.registries.get(key).unwrap_or(registry)))
        }
    }
}

/// Returns whether it was written: not if the registry is gone, or, where that counts, not of this version any more.
async fn change(
    registry: &PrivateRegistry,
    fields: &Value,
    is_this_version: bool,
    ctx: &Context,
) -> Result<bool, Error> {
    match status::write::change(&ctx.client, registry, fields, is_this_version).await {
        Ok(answer) => {
            ctx.engine_metrics.status_written();
            ctx.learn(answer);
            Ok(true)
        }
        Err(kube::Error::Api(refusal)) if refusal.is_not_found() || refusal.is_conflict() => Ok(false),
        Err(source) => Err(Error::Status { registry: title(registry), source: Box::new(source) }),
    }
}

async fn tell(registry: &PrivateRegistry, tone: Tone, reason: &str, note: String, ctx: &Context) {
    let happening = Happening { tone, reason: reason.to_owned(), action: condition::READY.to_owned(), note };
    log(registry, &happening);
    ctx.events.publish(&registry.object_ref(&()), &[happening]).await;
}
