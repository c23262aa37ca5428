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
    Ok(found.map_or(Answer::Nothing, |live| read(&live, asked, pass.now)))
}

fn read(live: &Live, asked: &desired::Object, now: Timestamp) -> Answer {
    // A policy of the cluster may have changed the rest on its way in, a life that is too long for instance.
    let same = |field: &str| live.value()["spec"].get(field) == asked.body["spec"].get(field);
    let is_asked = same("request") && same("issuerRef");
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
    // The first that is told. A clock that goes ahead must not put it off for ever.
    let told = [
        condition("Ready").map(|ready| &ready["lastTransitionTime"]),
        status.get("failureTime"),
        live.value().pointer("/metadata/creationTimestamp"),
    ];
    let spoke_at = told.into_iter().flatten().find_map(|at| at.as_str()?.parse::<Timestamp>().ok());
    let again_at = spoke_at.unwrap_or(now).min(now).checked_add(AGAIN_AFTER).ok();
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Signer, Tls};
    use crate::parts::testing::resolved;

    fn asked() -> desired::Object {
        let registry = resolved(&json!({"tls": {"certManager": {"issuerRef": {"name": "company"}}}}), &json!({}));
        let Tls::Request(wanted) = &registry.tls else { panic!("{:?}", registry.tls) };
        let Signer::Issuer(issuer) = &wanted.signer else { panic!("{wanted:?}") };
        desired::certificate_request::build(&registry, issuer, wanted, "pem")
    }

    fn answered(asked: &desired::Object, status: &Value) -> Answer {
        let mut live = asked.body.clone();
        live["status"] = status.clone();
        // cert-manager's webhook says who has asked.
        live["spec"]["username"] = json!("system:serviceaccount:operators:operator");
        read(&Live::new(kinds::CERTIFICATE_REQUEST, live), asked, now())
    }

    fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_answer_is_read_from_the_conditions_in_the_order_of_their_weight() {
        let asked = asked();
        let ready = |status: &str, reason: &str| json!({"type": "Ready", "status": status, "reason": reason, "message": "w", "lastTransitionTime": "2026-11-30T10:00:00Z"});
        let yes = |kind: &str| json!({"type": kind, "status": "True", "message": "w"});
        let later: Option<Timestamp> = Some("2026-11-30T11:00:00Z".parse().unwrap());
        let signed = Answer::Signed { chain: b"chain".to_vec(), authority: Some(b"ca".to_vec()), again_at: later };
        let words = || "w".to_owned();
        for (status, answer) in [
            (json!({}), Answer::Pending),
            (json!({"conditions": [ready("False", "Pending")]}), Answer::Pending),
            (json!({"conditions": [yes("Approved")]}), Answer::Approved(String::new())),
            (json!({"conditions": [yes("Approved"), ready("False", "Pending")]}), Answer::Approved(words())),
            (json!({"conditions": [ready("False", "Denied"), yes("Denied")]}), Answer::Denied(words())),
            (
                json!({"conditions": [yes("Approved"), ready("False", "Failed")]}),
                Answer::Failed { why: words(), again_at: later },
            ),
            (
                json!({"conditions": [yes("InvalidRequest"), yes("Approved")]}),
                Answer::Failed { why: words(), again_at: Some("2026-11-30T13:00:00Z".parse().unwrap()) },
            ),
            (
                json!({"certificate": "Y2hhaW4=", "ca": "Y2E=", "conditions": [yes("Approved"), ready("True", "Issued")]}),
                signed,
            ),
            // A certificate without its word is none yet, and neither is a word without its certificate.
            (json!({"certificate": "Y2hhaW4=", "conditions": [yes("Approved")]}), Answer::Approved(String::new())),
            (json!({"conditions": [yes("Approved"), ready("True", "Issued")]}), Answer::Approved(words())),
        ] {
            assert_eq!(answered(&asked, &status), answer, "{status}");
        }
    }

    #[test]
    fn what_was_asked_otherwise_or_is_going_is_no_answer() {
        let asked = asked();
        let signed = json!({"certificate": "Y2hhaW4=", "conditions": [{"type": "Ready", "status": "True"}]});
        let in_an_hour: Timestamp = "2026-11-30T13:00:00Z".parse().unwrap();
        let told = |status: &Value| match answered(&asked, status) {
            Answer::Signed { again_at, authority: None, .. } => again_at,
            other => panic!("{other:?}"),
        };
        assert_eq!(told(&signed), Some(in_an_hour), "nobody says when it was");
        let mut later = signed.clone();
        later["conditions"][0]["lastTransitionTime"] = json!("2099-01-01T00:00:00Z");
        assert_eq!(told(&later), Some(in_an_hour), "no clock puts it off for ever");
        // A policy of the cluster has cut the life.
        let mut amended = asked.body.clone();
        (amended["status"], amended["spec"]["duration"]) = (signed.clone(), json!("1h0m0s"));
        assert!(matches!(read(&Live::new(kinds::CERTIFICATE_REQUEST, amended), &asked, now()), Answer::Signed { .. }));
        for (place, other) in [
            ("/spec/request", json!("b3RoZXI=")),
            ("/spec/issuerRef/name", json!("other")),
            ("/metadata/deletionTimestamp", json!("2026-11-30T10:00:00Z")),
        ] {
            let mut live = asked.body.clone();
            live["status"] = signed.clone();
            live["metadata"]["deletionTimestamp"] = Value::Null;
            *live.pointer_mut(place).unwrap() = other;
            if live["metadata"]["deletionTimestamp"].is_null() {
                live["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
            }
            assert_eq!(read(&Live::new(kinds::CERTIFICATE_REQUEST, live), &asked, now()), Answer::Nothing, "{place}");
        }
    }

    #[test]
    fn words_of_others_have_an_end() {
        let asked = asked();
        let condition = json!({"type": "Denied", "status": "True", "message": "\u{e9}".repeat(10_000)});
        let Answer::Denied(words) = answered(&asked, &json!({"conditions": [condition]})) else { panic!() };
        assert_eq!(words.chars().count(), WORDS_AT_MOST);
    }
}
