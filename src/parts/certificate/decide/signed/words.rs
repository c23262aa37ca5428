//! What is said of a request and of its answer: who has to do what next.

use jiff::Timestamp;

use super::super::{Answer, Question};
use crate::api;
use crate::model::{Child, Requested, Resolved, Signer};
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

/// Kind and name of the object by which a signer is asked.
pub(super) fn title(question: &Question) -> String {
    let kind = match question {
        Question::Cluster(_) => "CertificateSigningRequest",
        Question::Issuer(_) => "CertificateRequest",
    };
    format!("{kind} {}", question.name())
}

pub(super) fn again(registry: &Resolved, question: &Question, answer: &Answer) -> String {
    let (name, namespace) = (question.name(), &registry.namespace);
    let by_itself = answer.again_at().map(|at| format!("; it is made again at {at}")).unwrap_or_default();
    let delete = match question {
        Question::Cluster(_) => format!("kubectl delete csr {name}"),
        Question::Issuer(_) => format!("kubectl delete certificaterequest {name} -n {namespace}"),
    };
    format!("{by_itself}; for a new try: {delete}")
}

pub(super) fn still(is_serving: bool) -> &'static str {
    if is_serving { "; the last good one is still served" } else { "" }
}

/// What is waited for and who has to do what; the reason, if it was refused.
pub(super) fn waiting_for(
    registry: &Resolved,
    wanted: &Requested,
    question: Option<&Question>,
    answer: &Answer,
    asks_at: Option<Timestamp>,
) -> (String, Option<&'static str>) {
    let (name, namespace) = (&registry.name, &registry.namespace);
    let (signer, approval, where_to_look) = match (&wanted.signer, question) {
        (Signer::Cluster(signer), Some(question)) => (
            signer.clone(),
            format!("kubectl certificate approve {}; then {signer} signs it", question.name()),
            "see whether that signer runs".to_owned(),
        ),
        (Signer::Issuer(issuer), Some(question)) => {
            let look = format!("see kubectl describe certificaterequest {} -n {namespace}", question.name());
            let approval = format!(
                "cert-manager gives it by itself where it runs and no policy decides; then {issuer} signs it; {look}"
            );
            (issuer.to_string(), approval, look)
        }
        (Signer::Person, _) | (_, None) => {
            let words = format!(
                "a request waits to be signed: kubectl registry csr {name} -n {namespace} prints it, and \
                 kubectl registry set-certificate {name} -n {namespace} -f chain.pem brings what was signed"
            );
            return (words, None);
        }
    };
    let (object, again) = question.map(|asked| (title(asked), again(registry, asked, answer))).unwrap_or_default();
    let because = |why: &str| if why.is_empty() { String::new() } else { format!(" ({why})") };
    if let (Answer::Nothing, Some(at)) = (answer, asks_at) {
        return (format!("{object} is not there any more and is made again at {at}"), None);
    }
    match answer {
        Answer::Nothing | Answer::Pending => (format!("{object} waits for approval: {approval}"), None),
        Answer::Approved(why) => {
            (format!("{object} is approved and waits for {signer} to sign it{}: {where_to_look}", because(why)), None)
        }
        Answer::Signed { .. } => (format!("{object} is signed, but not as it must be{again}"), None),
        Answer::Denied(why) => (format!("{object} was denied{}{again}", because(why)), Some("RequestDenied")),
        Answer::Failed { why, .. } => {
            (format!("{object} could not be signed by {signer}{}{again}", because(why)), Some("RequestFailed"))
        }
        Answer::Foreign => (format!("{object} asks for something else than this registry{again}"), Some("NotOurs")),
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
