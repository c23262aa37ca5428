//! The registry's certificate: CA, leaf and bundle. What is stored is used only when it is proved the registry's own or handed over, and never written
//! over; the CA is stored before anything that it signed.

mod decide;
mod issuers;
mod requests;

use jiff::Timestamp;
use operator_engine::apply::{Hold, Live, Outcome, Standing};
use tracing::info;

pub use decide::{Answer, Asked, Authority, Question, Rollout, Serves, Settled, Stored};
pub use requests::Requests;
pub(crate) use requests::abandon;

use super::address::Address;
use super::kubelets::{self, News};
use super::{Keep, Pass, being_deleted, whole};
use crate::desired::{self, kinds, secrets};
use crate::model::{Child, Tls};
use crate::pki::bundle::Bundle;
use crate::status::{self, Problem};

/// A condition of a request may say as much as its author likes.
const WORDS_AT_MOST: usize = 256;

/// What the workload needs to know.
pub enum Serving {
    /// Plain HTTP.
    Nothing,
    /// This, and it is stored.
    Certificate(Box<desired::ServingCertificate>),
    /// There is none yet.
    Missing,
}

/// What the part gives back.
pub struct Certificate {
    /// What is served.
    pub serving: Serving,
    /// What the status says.
    pub report: status::Certificate,
    /// What must stay.
    pub keep: Keep,
    /// When time alone changes it.
    pub look_again: Option<Timestamp>,
    /// The bundle that is published; `None`: there is none, or it cannot be said.
    pub bundle: Option<String>,
}

/// Keeps, makes or takes over the certificate.
pub async fn settle(pass: &Pass<'_>, address: &Address, rollout: Rollout) -> Certificate {
    // The CA is never pruned, only let go on purpose.
    let ca = pass.named(kinds::SECRET, Child::Ca);
    let all = [
        ca.clone(),
        pass.named(kinds::SECRET, Child::Tls),
        pass.named(kinds::CONFIG_MAP, Child::CaBundle),
        pass.named(kinds::SECRET, Child::Csr),
        pass.named(kinds::CONFIG_MAP, Child::Csr),
        pass.named(kinds::CERTIFICATE_REQUEST, Child::Csr),
    ];
    if pass.registry.tls == Tls::None {
        let handled = decide::still_asked(pass.registry, pass.before.handled_renew_request.clone());
        let problem = requests::withdraw(pass, None).await.err().map(|error| pass.problem(error));
        let report = status::Certificate { handled_request: handled, problem, ..status::Certificate::default() };
        return Certificate {
            serving: Serving::Nothing,
            report,
            keep: Keep::from([ca]),
            look_again: None,
            bundle: None,
        };
    }
    let leaf = match read_leaf(pass).await {
        Ok(leaf) => leaf,
        Err(problem) => return kept(pass, None, Some(problem), all.into()),
    };
    if let Some(blocked) = &pass.registry.faults.certificate {
        return kept(pass, leaf.as_ref(), Some(Problem::of(blocked)), all.into());
    }
    if leaf.is_none()
        && let Some(wait) = address.awaits_load_balancer(pass.registry, pass.now)
    {
        let name = &pass.registry.name;
        let message = format!(
            "Service {name} waits for the address of its load balancer, up to a minute; see kubectl describe service {name}"
        );
        let waits = kept(pass, None, Some(Problem::retrying("WaitingForLoadBalancer", message)), all.into());
        return Certificate { look_again: pass.now.checked_add(wait).ok(), ..waits };
    }
    let authority = match authority(pass, leaf.is_none()).await {
        Ok(authority) => authority,
        Err(problem) => return kept(pass, leaf.as_ref(), Some(problem), all.into()),
    };
    let published = match published(pass, leaf.as_ref()).await {
        Ok(published) => published,
        Err(problem) => return kept(pass, leaf.as_ref(), Some(problem), all.into()),
    };
    let (request, answer) = match request(pass, leaf.as_ref()).await {
        Ok(found) => found,
        Err(problem) => return kept(pass, leaf.as_ref(), Some(problem), all.into()),
    };
    let asks_at = pass.ctx.requests.next_at(pass.key).map(whole);
    let stored = Stored { leaf: leaf.as_ref(), published, authority, request: request.as_ref(), answer, asks_at };
    let decided = decide::settle(
        pass.registry,
        &stored,
        pass.observed,
        address.service(),
        &decide::Moment { now: pass.now, rollout, handled: pass.before.handled_renew_request.as_deref() },
    );
    match decided {
        Ok(settled) => write(pass, leaf.as_ref(), settled, all.into()).await,
        Err(error) => kept(pass, leaf.as_ref(), Some(pass.problem(error)), all.into()),
    }
}

async fn read_leaf(pass: &Pass<'_>) -> Result<Option<Live>, Problem> {
    pass.read_random(Child::Tls).await.map_err(|error| pass.problem(error))
}

/// The authorities in the published bundle, of a registry whose leaf is gone from its Secret: pods may still serve it. More people may write the bundle
/// than the Secret, so only those are taken that the status names.
async fn published(pass: &Pass<'_>, leaf: Option<&Live>) -> Result<Option<String>, Problem> {
    let before = pass.before.certificate.as_ref().filter(|_| leaf.is_none());
    let Some(before) = before else { return Ok(None) };
    let name = pass.registry.name.child(Child::CaBundle);
    let found = pass.ctx.engine.read_known_child(&pass.owner, kinds::CONFIG_MAP, &name).await;
    let found = found.map_err(|error| pass.problem(error))?;
    let text = found.as_ref().and_then(|live| live.value().pointer("/data/ca.crt")?.as_str());
    let known: Vec<_> = before.authorities.iter().map(|authority| authority.fingerprint.as_str()).collect();
    Ok(text.map(|text| Bundle::read(text).only(&known).render()))
}

/// The stored CA, if the registry signs with one of its own.
async fn authority(pass: &Pass<'_>, is_first: bool) -> Result<Authority, Problem> {
    match &pass.registry.tls {
        Tls::PrivateCa { shared: Some(secret), .. } => {
            let (observed, name) = (pass.observed, &secret.name);
            let (content, is_unread) = match secret.namespace {
                Some(_) => (observed.elsewhere.content.clone(), observed.elsewhere.is_unread),
                None => (
                    observed.secrets.get(name).cloned().flatten(),
                    observed.unread.contains(name) || observed.oversized.contains(name),
                ),
            };
            return Ok(Authority::Shared { secret: secret.clone(), content, is_unread });
        }
        Tls::PrivateCa { shared: None, .. } => {}
        Tls::Request(_) | Tls::Own { .. } | Tls::None | Tls::Unreadable => return Ok(Authority::Absent),
    }
    let name = pass.registry.name.child(Child::Ca);
    let engine = &pass.ctx.engine;
    let standing = match is_first {
        true => engine.known_standing(&pass.owner, kinds::SECRET, &name, Hold::Kept).await,
        // One that is missed is not made again while its leaf is good, so it must really be missing.
        false => engine.standing(&pass.owner, kinds::SECRET, &name, Hold::Kept).await,
    };
    match standing.map_err(|error| pass.problem(error))? {
        Standing::Absent => Ok(Authority::Absent),
        Standing::Ours(live) => Ok(Authority::Stored(live)),
        Standing::Offered(live) => Ok(Authority::Offered(live)),
        Standing::Leaving(_) => Err(being_deleted(
            &format!("Secret {name}"),
            "save the CA with kubectl get secret -o yaml: without it no client trusts the next certificate",
        )),
        Standing::Foreign(claim) => Err(pass.problem(pass.not_ours(kinds::SECRET, &name, claim))),
    }
}

/// The request that is stored, if it matters, and what its signer says.
async fn request(pass: &Pass<'_>, leaf: Option<&Live>) -> Result<(Option<Live>, Answer), Problem> {
    let Tls::Request(wanted) = &pass.registry.tls else { return Ok((None, Answer::Nothing)) };
    let request = pass.read_random(Child::Csr).await.map_err(|error| pass.problem(error))?;
    let answer = match decide::asked_already(pass.registry, wanted, leaf, request.as_ref()) {
        Some(Question::Cluster(asked)) => requests::answer(pass, &asked).await.map_err(|error| pass.problem(error))?,
        Some(Question::Issuer(asked)) => issuers::answer(pass, &asked).await.map_err(|error| pass.problem(error))?,
        None => Answer::Nothing,
    };
    Ok((request, answer))
}

/// What is stored goes on, and nothing of it changes.
fn kept(pass: &Pass<'_>, leaf: Option<&Live>, problem: Option<Problem>, keep: Keep) -> Certificate {
    let (serving, served, look_again) = decide::as_stored(pass.registry, leaf);
    let handled = decide::still_asked(pass.registry, pass.before.handled_renew_request.clone());
    Certificate {
        serving: serving.map_or(Serving::Missing, |certificate| Serving::Certificate(Box::new(certificate))),
        report: status::Certificate { served, handled_request: handled, problem, note: None },
        keep,
        // What is overdue already is looked at again when what stands in its way has changed.
        look_again: look_again.filter(|at| *at > pass.now),
        bundle: None,
    }
}

/// In an order that can be interrupted anywhere: the CA before what it signs, and the bundle before it is noted, and counted on, that clients could know it.
async fn write(pass: &Pass<'_>, leaf: Option<&Live>, mut settled: Settled, keep: Keep) -> Certificate {
    if let Some(authority) = &settled.authority
        && let Err(error) = pass.apply(secrets::authority(pass.registry, authority)).await
    {
        return kept(pass, leaf, Some(pass.problem(error)), keep);
    }
    let mut stays = Keep::from([pass.named(kinds::SECRET, Child::Ca)]);
    // Before anybody is asked: without its key no answer is of any use.
    if let Some(request) = &settled.request {
        stays.extend([pass.named(kinds::SECRET, Child::Csr), pass.named(kinds::CONFIG_MAP, Child::Csr)]);
        let stored = pass.apply_random(Child::Csr, secrets::request(pass.registry, request)).await;
        let shown = match stored {
            Ok(_) => pass.apply(secrets::public_request(pass.registry, &request.request)).await,
            Err(error) => return kept(pass, leaf, Some(pass.problem(error)), keep),
        };
        if let Err(error) = shown {
            settled.report.problem = Some(pass.problem(error));
        }
    }
    if let Some(bundle) = &settled.bundle {
        stays.insert(pass.named(kinds::CONFIG_MAP, Child::CaBundle));
        if let Err(error) = pass.apply(secrets::bundle(pass.registry, bundle)).await {
            let problem = pass.problem(error);
            // A new certificate that clients know is worth being served all the same.
            if let (Some(serving), Some(leaf)) = (&mut settled.serving, leaf) {
                match decide::unpublished(serving, leaf) {
                    Some(known) => *serving = known,
                    None => return kept(pass, Some(leaf), Some(problem), keep),
                }
            }
            settled.report.problem.get_or_insert(problem);
            settled.bundle = None;
        }
    }
    if let Some(serving) = &settled.serving {
        stays.insert(pass.named(kinds::SECRET, Child::Tls));
        match pass.apply_random(Child::Tls, secrets::certificate(pass.registry, serving)).await {
            Ok(applied) if applied.outcome == Outcome::Replacing => {
                return kept(
                    pass,
                    None,
                    Some(Problem::retrying(
                        "BeingDeleted",
                        "the certificate's Secret is being deleted; it is made anew when it is gone",
                    )),
                    keep,
                );
            }
            Ok(applied) => {
                if settled.asked.is_none() && applied.outcome != Outcome::Unchanged {
                    pass.ctx.requests.was_answered(pass.key);
                }
                if let Some(why) = settled.issued {
                    info!(registry = %pass.key, %why, "issued a certificate");
                }
                if pass.registry.frontend.is_some() && kubelets::is_news(pass, applied.outcome) {
                    pass.ctx.recall.has_news(pass.key, News::Certificate);
                }
                let untold = kubelets::tell(pass, News::Certificate, || serving.checksum.clone()).await;
                let words = untold.map(|problem| {
                    format!(
                        "it is served within two minutes, because the kubelets of running pods could not be told: {}",
                        problem.message
                    )
                });
                let notes: Vec<_> = settled.report.note.take().into_iter().chain(words).collect();
                settled.report.note = (!notes.is_empty()).then(|| notes.join("; "));
            }
            Err(error) => return kept(pass, leaf, Some(pass.problem(error)), keep),
        }
    }
    if let Some(Asked { object: Question::Issuer(object), .. }) = &settled.asked {
        stays.insert((object.kind, object.name.clone()));
    }
    match requests::settle(pass, settled.asked.as_ref()).await {
        Ok(look_again) => settled.look_again = settled.look_again.into_iter().chain(look_again).min(),
        Err(error) => settled.report.problem = Some(pass.problem(error)),
    }
    let keep = if settled.report.problem.is_some() && !settled.is_complete { keep } else { stays };
    Certificate {
        serving: settled.serving.map_or(Serving::Missing, |certificate| Serving::Certificate(Box::new(certificate))),
        report: settled.report,
        keep,
        look_again: settled.look_again,
        bundle: settled.bundle,
    }
}
