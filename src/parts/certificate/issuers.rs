//! Requests to issuers of cert-manager. Each is a child of its registry, which goes with it; it is there while its answer is waited for.

use jiff::{SignedDuration, Timestamp};
use operator_engine::apply::{Live, Outcome};
use tracing::info;

use super::{Answer, WORDS_AT_MOST};
use crate::desired::{self, kinds};
use crate::parts::{Error, Pass};

/// A request that has failed, or whose answer is of no use, is made again after this, as cert-manager does it with its own.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// What the issuer says to this request.
pub(super) async fn answer(pass: &Pass<'_>, asked: &desired::Object) -> Result<Answer, Error> {
    let found = pass.ctx.engine.read_known_child(&pass.owner, kinds::CERTIFICATE_REQUEST, &asked.name).await?;
    Ok(found.map_or(Answer::Nothing, |live| read(&live, asked)))
}

fn read(live: &Live, asked: &desired::Object) -> Answer {
    let is_asked = asked.body["spec"]
        .as_object()
        .is_some_and(|wanted| wanted.iter().all(|(field, value)| live.value()["spec"].get(field) == Some(value)));
    // It was made for another request, and is replaced.
    if !is_asked || live.is_leaving() {
        return Answer::Nothing;
    }
    let status = &live.value()["status"];
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let condition = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind);
    let words = |kind: &str| {
        let words = condition(kind).and_then(|condition| condition["message"].as_str()).unwrap_or_default();
        words.chars().take(WORDS_AT_MOST).collect::<String>()
    };
    let is_true = |kind: &str| condition(kind).is_some_and(|condition| condition["status"] == "True");
    if is_true("Denied") {
        return Answer::Denied(words("Denied"));
    }
    let bytes = |field: &str| {
        let encoded = status.get(field).cloned()?;
        let bytes = serde_json::from_value::<k8s_openapi::ByteString>(encoded).ok()?.0;
        (!bytes.is_empty()).then_some(bytes)
    };
    let spoke_at = condition("Ready").and_then(|ready| ready["lastTransitionTime"].as_str()?.parse::<Timestamp>().ok());
    let again_at = spoke_at.and_then(|at| at.checked_add(AGAIN_AFTER).ok());
    if is_true("Ready")
        && let Some(chain) = bytes("certificate")
    {
        return Answer::Signed { chain, authority: bytes("ca"), again_at };
    }
    if is_true("InvalidRequest") {
        return Answer::Failed { why: words("InvalidRequest"), again_at };
    }
    if condition("Ready").is_some_and(|ready| ready["reason"] == "Failed") {
        return Answer::Failed { why: words("Ready"), again_at };
    }
    if is_true("Approved") { Answer::Approved(words("Ready")) } else { Answer::Pending }
}

/// Has the request made, or keeps it as it is.
pub(super) async fn ask(pass: &Pass<'_>, asked: desired::Object) -> Result<(), Error> {
    let name = asked.name.clone();
    let applied = pass.apply(asked).await?;
    if matches!(applied.outcome, Outcome::Created | Outcome::Recreated) {
        pass.ctx.requests.was_made(pass.key, pass.now);
        info!(registry = %pass.key, request = name, "asked cert-manager for a certificate");
    }
    Ok(())
}
