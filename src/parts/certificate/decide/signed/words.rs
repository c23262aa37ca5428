//! What is said of a request and of its answer: who has to do what next.

use jiff::Timestamp;

use super::super::{Answer, Asked};
use crate::api;
use crate::model::{Child, Requested, Resolved};
use crate::pki::import;
use crate::pki::policy::Request;
use crate::pki::rotate::Publication;

pub(super) fn notes(answer: &import::Answer) -> Vec<String> {
    let mut notes: Vec<_> = answer.notes.iter().map(ToString::to_string).collect();
    if !answer.uncovered.is_empty() {
        let names = answer.uncovered.iter().cloned().collect::<Vec<_>>().join(", ");
        notes.push(format!("the signer left out {names}: clients that use these names will refuse it"));
    }
    notes
}

pub(super) fn again(object: &str) -> String {
    format!("; for a new try: kubectl delete csr {object}")
}

pub(super) fn still(is_serving: bool) -> &'static str {
    if is_serving { "; the last good one is still served" } else { "" }
}

/// What is waited for and who has to do what; the reason, if it was refused.
pub(super) fn waiting_for(
    registry: &Resolved,
    wanted: &Requested,
    asked: Option<&Asked>,
    answer: &Answer,
    asks_at: Option<Timestamp>,
) -> (String, Option<&'static str>) {
    let (name, namespace) = (&registry.name, &registry.namespace);
    let (Some(signer), Some(Asked { name: object, .. })) = (&wanted.signer, asked) else {
        let words = format!(
            "a request waits to be signed: kubectl registry csr {name} -n {namespace} prints it, and \
             kubectl registry set-certificate {name} -n {namespace} -f chain.pem brings what was signed"
        );
        return (words, None);
    };
    let again = again(object);
    let because = |why: &str| if why.is_empty() { String::new() } else { format!(" ({why})") };
    if let (Answer::Nothing, Some(at)) = (answer, asks_at) {
        return (format!("CertificateSigningRequest {object} is not there any more and is made again at {at}"), None);
    }
    match answer {
        Answer::Nothing | Answer::Pending => (
            format!(
                "CertificateSigningRequest {object} waits for approval: kubectl certificate approve {object}; then {signer} signs it"
            ),
            None,
        ),
        Answer::Approved => (
            format!(
                "CertificateSigningRequest {object} is approved and waits for {signer} to sign it: see whether that signer runs"
            ),
            None,
        ),
        Answer::Signed(_) => {
            (format!("CertificateSigningRequest {object} is signed, but not as it must be{again}"), None)
        }
        Answer::Denied(why) => {
            (format!("CertificateSigningRequest {object} was denied{}{again}", because(why)), Some("RequestDenied"))
        }
        Answer::Failed(why) => (
            format!("CertificateSigningRequest {object} could not be signed by {signer}{}{again}", because(why)),
            Some("RequestFailed"),
        ),
        Answer::Foreign => (
            format!("CertificateSigningRequest {object} asks for something else than this registry{again}"),
            Some("NotOurs"),
        ),
    }
}

pub(super) fn former_note(registry: &Resolved, published: &Publication, now: Timestamp) -> Option<String> {
    let (at, bundle) = (published.retires_at?, registry.name.child(Child::CaBundle));
    Some(match at > now {
        true => format!("the former CA stays in ConfigMap {bundle} until {at}"),
        false => format!("the former CA stays in ConfigMap {bundle} until no pod serves its certificate"),
    })
}

pub(super) fn wish_note(registry: &Resolved) -> Option<String> {
    let wish = registry.renew_request.as_deref()?;
    let field = api::annotation::RENEW;
    match Request::of(Some(wish)) {
        Request::Leaf => None,
        Request::Authority | Request::AuthorityNow => Some(format!(
            "the annotation {field}={wish} asks for another CA, but that is decided by who signs; write leaf for another certificate"
        )),
        Request::None => Some(format!("the annotation {field}={wish} asks for nothing; write leaf")),
    }
}
