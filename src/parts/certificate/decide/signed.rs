//! A certificate that somebody else signs for a key of the operator's: asked for, waited for, checked, and served.

mod words;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use operator_engine::apply::Live;
use serde_json::Value;

use super::{Answer, Asked, Moment, Question, Settled, Stored};
use super::{certificate_status, is_everywhere, is_signed, join, leaf_of, node_port_note, profile, still_asked, text};
use crate::api::CertificateStatus;
use crate::desired;
use crate::model::{Observed, Requested, Resolved, Signer, labels};
use crate::parts::Error;
use crate::pki::bundle::Bundle;
use crate::pki::facts::CertificateFacts;
use crate::pki::import::{self, ImportError};
use crate::pki::policy::{Renew, Request};
use crate::pki::reading::LeafReading;
use crate::pki::request::RequestFacts;
use crate::pki::rotate::{self, Publication, Publishing, Since};
use crate::pki::signing::{self, Verdict};
use crate::pki::{Leaf, LeafProfile, SigningRequest, checksum, issue, policy};
use crate::status::{Certificate, Problem};
use words::{again, former_note, notes, still, title, waiting_for, wish_note};

/// How long the former authority stays in the bundle.
const GRACE: SignedDuration = SignedDuration::from_hours(24);

/// What `NAME-csr` holds.
fn request_of(live: &Live) -> Option<SigningRequest> {
    SigningRequest::stored(live.data(desired::secrets::REQUEST_KEY).as_deref(), live.data("tls.key").as_deref())
}

/// The request that a signer of the cluster may have been asked with, unless it is answered.
pub fn asked_already(
    registry: &Resolved,
    wanted: &Requested,
    leaf: Option<&Live>,
    request: Option<&Live>,
) -> Option<Question> {
    let request = request_of(request?)?;
    let is_answered = leaf.and_then(leaf_of).is_some_and(|leaf| request.is_answered_by(&leaf));
    question(registry, wanted, &request.request_pem).filter(|_| !is_answered)
}

/// How this request is put to a signer of the cluster, if one is asked.
fn question(registry: &Resolved, wanted: &Requested, pem: &str) -> Option<Question> {
    Some(match &wanted.signer {
        Signer::Person => return None,
        Signer::Cluster(signer) => Question::Cluster(Box::new(desired::signing::build(registry, signer, wanted, pem))),
        Signer::Issuer(issuer) => Question::Issuer(desired::certificate_request::build(registry, issuer, wanted, pem)),
    })
}

/// What is asked for, and how it stands.
struct State {
    request: SigningRequest,
    facts: RequestFacts,
    /// Why it was made.
    reason: Option<Renew>,
}

/// What is served from now on.
struct Served {
    leaf: Leaf,
    facts: CertificateFacts,
    /// Why it was issued.
    reason: Option<String>,
    /// What a user may want to know of it.
    notes: Vec<String>,
    /// Whether it is the answer to a request, this one or the one before; else what was served before there was any.
    is_answer: bool,
    /// Whether it came in this pass.
    is_new: bool,
    /// The authorities that came with it.
    authorities: Option<String>,
}

pub(super) fn settle(
    registry: &Resolved,
    wanted: &Requested,
    stored: &Stored<'_>,
    observed: &Observed,
    service: Option<&Value>,
    moment: &Moment<'_>,
) -> Result<Settled, Error> {
    let now = moment.now;
    let trust = trusted(wanted, observed);
    let profile = profile(registry, wanted.duration, wanted.key_algorithm, service, stored.leaf);
    let known = stored.leaf.and_then(|live| text(live, "ca.crt")).or_else(|| stored.published.clone());
    let known = Bundle::read(&known.unwrap_or_default()).without_expired(now);
    let note = |key: &str| stored.leaf.and_then(|live| live.annotation(key)).map(str::to_owned);
    let handled = note(labels::SERVED_REQUEST).or_else(|| moment.handled.map(str::to_owned));
    let wish = Request::of(registry.renew_request.as_deref().filter(|wish| Some(*wish) != handled.as_deref()));
    let signer = wanted.signer.id();
    let signer_before = note(labels::SIGNER);

    let state = match stored.request.and_then(State::read) {
        Some(state) => Some(state),
        // It is lost, but not its key: nobody has to sign again.
        None if signer_before.is_some() => State::again(stored.leaf, &profile),
        None => None,
    };
    let mut served = stored.leaf.and_then(|live| Served::read(live, state.as_ref()));
    let is_answered = is_answered_by(state.as_ref(), served.as_ref());
    let leaf_reading = LeafReading::of(stored.leaf.and_then(leaf_of).as_ref(), None, now);
    let (dns_names, ip_addresses) = registry.written_hosts();
    let written = import::Hosts { dns_names: &dns_names, ip_addresses: &ip_addresses };
    // The answer that is served was given to the request before the one that waits.
    let is_former_answer = !is_answered && signer_before.is_some();
    let former = if is_former_answer { State::again(stored.leaf, &profile) } else { None };
    let is_accepted = match (if is_answered { &state } else { &former }, &mut served) {
        (Some(state), Some(served)) => {
            let trusted = trust.clone().ok().flatten().or_else(|| signing_of(&known, &served.leaf.chain_pem));
            // A name that is missing has a word of its own.
            let hosts = if is_answered { NO_HOSTS } else { written };
            let answer = judge(state, &served.leaf.chain_pem, trusted.as_deref(), hosts, now);
            answer.map(|answer| served.notes = notes(&answer)).is_ok()
        }
        _ => true,
    };
    let verdict = signing::decide(&signing::Input {
        is_answered,
        is_former_answer: former.is_some(),
        is_anothers: signer_before.as_deref().is_some_and(|before| before != signer),
        is_accepted,
        leaf: leaf_reading.clone(),
        request: state.as_ref().map(|state| &state.facts),
        profile: &profile,
        uid: &registry.uid,
        now,
        wish,
        last_reason: state.as_ref().and_then(|state| state.reason),
    });
    let state = carried_out(verdict, state, former, &profile)?;
    let is_new_request = matches!(verdict, Verdict::Ask(_) | Verdict::Widen);
    let question = state.as_ref().and_then(|state| question(registry, wanted, &state.request.request_pem));

    // What came is looked at whether it is waited for or a second one for the same request. What a signer of the cluster gave was for the request before.
    let is_for_another = matches!(verdict, Verdict::Ask(_)) || is_new_request && wanted.signer != Signer::Person;
    let offered = if is_for_another { None } else { offered(registry, stored, observed, question.as_ref()) };
    let mut problem = trust.as_ref().err().cloned();
    if let (Some(state), Some(Offered { place, chain, authority }), Ok(given)) = (&state, offered, &trust) {
        match judge(state, &chain, given.as_deref().or(authority.as_deref()), written, now) {
            Ok(answer) if served.as_ref().is_some_and(|served| served.leaf.chain_pem == answer.chain_pem) => {}
            Ok(answer) => served = Some(Served::of(answer, state)),
            // The last answer lies there until the next one comes.
            Err(_) if is_served_already(stored, &chain) => {}
            Err(error) => {
                let still = still(signing::is_serving(&leaf_reading, now));
                let again = question.as_ref().map(|asked| again(registry, asked, &stored.answer)).unwrap_or_default();
                let message = format!("{place} is not served: {error}{again}{still}");
                problem = problem.or(Some(Problem::stuck(error.reason(), message)));
            }
        }
    }

    let is_waiting = !is_answered_by(state.as_ref(), served.as_ref());
    let answer = if is_new_request { &Answer::Nothing } else { &stored.answer };
    let again_at = answer.again_at().filter(|_| is_waiting);
    let mut said = Vec::new();
    if is_waiting && problem.is_none() {
        let is_serving = signing::is_serving(&leaf_reading, now);
        let asks_at = stored.asks_at.filter(|at| *at > now);
        let (words, refusal) = waiting_for(registry, wanted, question.as_ref(), answer, asks_at);
        match refusal {
            Some(reason) => problem = Some(Problem::stuck(reason, format!("{words}{}", still(is_serving)))),
            None if is_serving => said.push(format!("the next one is asked for: {words}")),
            None => {
                let ended = if served.is_some() { "clients refuse the certificate that is served; " } else { "" };
                problem = Some(Problem::waiting("WaitingForSignature", format!("{ended}{words}")));
            }
        }
    }
    // One whose answer is of no use goes after a while, so that another one can be made.
    let is_over = again_at.is_some_and(|at| at <= now);
    let look_again = if is_over { now.checked_add(SignedDuration::from_secs(1)).ok() } else { again_at };
    let asked = question.filter(|_| is_waiting && !is_over);
    let asked = asked.map(|object| Asked { is_missing: *answer == Answer::Nothing, object });

    // What a user asks for is what waits.
    let is_asked_for = wish == Request::Leaf && matches!(verdict, Verdict::Await | Verdict::Widen | Verdict::Ask(_));
    let handled = if is_asked_for { registry.renew_request.clone() } else { still_asked(registry, handled) };
    let (is_everywhere, brought) = is_everywhere(moment, served.as_ref().map(|served| &served.leaf));
    let is_complete = trust.is_ok();
    let published = publish(stored, served.as_ref(), trust.ok().flatten().as_deref(), known, is_everywhere, now);
    let bundle = Some(published.bundle.render()).filter(|all| !all.is_empty());
    said.extend(served.iter().flat_map(|served| served.notes.clone()));
    said.extend(
        [node_port_note(registry), wish_note(registry), former_note(registry, &published, now)].into_iter().flatten(),
    );
    let answered = served.as_ref().filter(|_| !is_waiting);
    let renew_at = answered.map(|served| policy::renew_at(&served.facts, &registry.uid));
    let moments = [
        match verdict {
            Verdict::Keep { look_again } => Some(look_again),
            Verdict::Await | Verdict::Widen | Verdict::TakeBack | Verdict::Ask(_) => None,
        },
        renew_at,
        served.as_ref().map(|served| served.facts.not_after),
        published.retires_at,
        brought.filter(|_| published.retires_at.is_some()),
        look_again,
    ];
    Ok(Settled {
        look_again: moments.into_iter().flatten().filter(|at| *at > now).min(),
        issued: served.as_ref().filter(|served| served.is_new).and_then(|served| served.reason.as_ref()?.parse().ok()),
        report: Certificate {
            served: served.as_ref().map(|served| CertificateStatus {
                renew_at: renew_at.map(|at| at.to_string()),
                reason: served.reason.clone(),
                ..certificate_status(&served.facts, &published.bundle, Some(&served.leaf))
            }),
            handled_request: handled.clone(),
            problem,
            note: join(said),
        },
        serving: served.map(|served| desired::ServingCertificate {
            checksum: checksum(&served.leaf),
            chain: served.leaf.chain_pem,
            key: served.leaf.key_pem,
            ca: bundle.clone(),
            served_request: handled,
            issued: served.reason,
            authorities_since: published.since.render(),
            shared_authority: None,
            signer: if served.is_new { Some(signer) } else { signer_before },
        }),
        bundle,
        request: state.map(|state| desired::SigningRequest {
            request: state.request.request_pem,
            key: state.request.key_pem,
            reason: state.reason.map(|word| word.to_string()),
        }),
        asked,
        is_complete,
        ..Settled::default()
    })
}

/// The request that is to be stored from now on.
fn carried_out(
    verdict: Verdict,
    state: Option<State>,
    former: Option<State>,
    profile: &LeafProfile,
) -> Result<Option<State>, Error> {
    Ok(match (verdict, state) {
        (Verdict::Keep { .. } | Verdict::Await, state) => state,
        (Verdict::TakeBack, _) => former,
        (Verdict::Widen, Some(old)) => {
            // Now it is for more than it was made for.
            let reason = match old.reason {
                Some(Renew::CaChanged | Renew::ParametersChanged | Renew::Refused) => Some(Renew::SanMissing),
                other => other,
            };
            State::of(issue::request_again(profile, &old.request.key_pem)?, reason)
        }
        (Verdict::Widen, None) => None,
        (Verdict::Ask(why), _) => State::of(issue::request(profile)?, Some(why)),
    })
}

const NO_HOSTS: import::Hosts<'static> = import::Hosts { dns_names: &BTreeSet::new(), ip_addresses: &BTreeSet::new() };

impl State {
    fn read(live: &Live) -> Option<Self> {
        let reason = live.annotation(labels::ISSUED).and_then(|word| word.parse().ok());
        Self::of(request_of(live)?, reason)
    }

    /// For the key of what is served.
    fn again(leaf: Option<&Live>, profile: &LeafProfile) -> Option<Self> {
        let (live, leaf) = leaf.and_then(|live| Some((live, leaf_of(live)?)))?;
        let reason = live.annotation(labels::ISSUED).and_then(|word| word.parse().ok());
        Self::of(issue::request_again(profile, &leaf.key_pem).ok()?, reason)
    }

    fn of(request: SigningRequest, reason: Option<Renew>) -> Option<Self> {
        let facts = request.facts()?;
        Some(Self { request, facts, reason })
    }
}

impl Served {
    /// What is stored.
    fn read(live: &Live, state: Option<&State>) -> Option<Self> {
        let leaf = leaf_of(live)?;
        let facts = CertificateFacts::of_pem(&leaf.chain_pem).ok()?;
        let answered = state.filter(|state| state.request.is_answered_by(&leaf));
        let reason = live.annotation(labels::ISSUED).map(str::to_owned);
        Some(Self {
            reason: reason.or_else(|| answered?.reason.map(|word| word.to_string())),
            is_answer: answered.is_some() || live.annotation(labels::SIGNER).is_some(),
            leaf,
            facts,
            notes: Vec::new(),
            is_new: false,
            authorities: None,
        })
    }

    /// What came.
    fn of(answer: import::Answer, state: &State) -> Self {
        Self {
            notes: notes(&answer),
            leaf: Leaf { chain_pem: answer.chain_pem, key_pem: state.request.key_pem.clone() },
            facts: answer.facts,
            reason: Some(state.reason.unwrap_or(Renew::Missing).to_string()),
            is_answer: true,
            is_new: true,
            authorities: answer.authorities_pem,
        }
    }
}

/// Whether what is served is the answer to the request.
fn is_answered_by(state: Option<&State>, served: Option<&Served>) -> bool {
    state.zip(served).is_some_and(|(state, served)| state.request.is_answered_by(&served.leaf))
}

/// Those that signed the chain.
fn signing_of(bundle: &Bundle, chain: &str) -> Option<String> {
    let all = bundle.each().into_iter().filter(|one| is_signed(one, chain)).map(|one| one.render()).collect::<String>();
    (!all.is_empty()).then_some(all)
}

/// The authorities that clients must trust, if the manifest says where they are.
fn trusted(wanted: &Requested, observed: &Observed) -> Result<Option<String>, Problem> {
    let Some(secret) = &wanted.bundle else { return Ok(None) };
    let field = wanted.signer.field();
    if observed.unread.contains(secret) || observed.oversized.contains(secret) {
        return Err(Problem::waiting("ReadFailed", format!("Secret {secret} could not be read; it is tried again")));
    }
    let Some(Some(content)) = observed.secrets.get(secret) else {
        let message = format!("Secret {secret}, named in {field}.caBundleSecretRef, does not exist; create it");
        return Err(Problem::waiting("WaitingForSecret", message));
    };
    let text = content.data.get("ca.crt").and_then(|value| str::from_utf8(value.expose()).ok()).unwrap_or_default();
    let bundle = Bundle::read(text).render();
    if bundle.is_empty() {
        let error = ImportError::CertificateUnreadable("ca.crt");
        return Err(Problem::stuck(
            error.reason(),
            format!("Secret {secret}, named in {field}.caBundleSecretRef: {error}"),
        ));
    }
    Ok(Some(bundle))
}

/// What lies there as an answer.
struct Offered {
    /// Where.
    place: String,
    /// PEM.
    chain: String,
    /// Whom clients must trust, if that came with it: PEM.
    authority: Option<String>,
}

fn offered(
    registry: &Resolved,
    stored: &Stored<'_>,
    observed: &Observed,
    question: Option<&Question>,
) -> Option<Offered> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if let (Answer::Signed { chain, authority, .. }, Some(question)) = (&stored.answer, question) {
        let place = format!("the certificate of {}", title(question));
        return Some(Offered { place, chain: text(chain), authority: authority.as_deref().map(text) });
    }
    let secret = registry.answer_secret()?;
    let content = observed.secrets.get(&secret)?.as_ref()?;
    // An empty one is none yet.
    let chain = content.data.get("tls.crt").filter(|chain| !chain.expose().trim_ascii().is_empty())?;
    Some(Offered { place: format!("Secret {secret}"), chain: text(chain.expose()), authority: None })
}

fn judge(
    state: &State,
    chain: &str,
    authorities: Option<&str>,
    written: import::Hosts<'_>,
    now: Timestamp,
) -> Result<import::Answer, ImportError> {
    import::check_answer(Some(chain.as_bytes()), &state.facts, authorities.map(str::as_bytes), written, now)
}

/// Whether this is the certificate that is served: the answer to the request before.
fn is_served_already(stored: &Stored<'_>, chain: &str) -> bool {
    let facts = |text: &str| CertificateFacts::of_pem(text).ok();
    let served = stored.leaf.and_then(leaf_of).and_then(|leaf| facts(&leaf.chain_pem));
    // Its place in the chain is not known.
    let given = Bundle::read(chain).facts();
    served.is_some_and(|served| given.iter().any(|given| given.fingerprint == served.fingerprint))
}

/// What to publish: whom the manifest or the chain names, and former ones until nobody can meet what they signed.
fn publish(
    stored: &Stored<'_>,
    served: Option<&Served>,
    given: Option<&str>,
    known: Bundle,
    is_everywhere: bool,
    now: Timestamp,
) -> Publication {
    let since = Since::read(stored.leaf.and_then(|live| live.annotation(labels::AUTHORITIES_SINCE)));
    let chain = served.map(|served| served.leaf.chain_pem.as_str()).unwrap_or_default();
    let with_it = served.and_then(|served| served.authorities.as_deref());
    let present = Bundle::read(&signing_of(&known, chain).unwrap_or_default());
    let present = present.with(given.or(with_it).unwrap_or_default()).without_expired(now);
    let Some(served) = served.filter(|served| served.is_answer) else {
        // Clients learn of the next authorities while the request waits.
        return Publication { bundle: known.with(&present.render()), since, signs_from: None, retires_at: None };
    };
    let former = known.without(&present.render());
    let Some(signs) = present.each().into_iter().find(|one| is_signed(one, chain)) else {
        // Clients know the authority already, from elsewhere.
        let bundle = if is_everywhere { present } else { former.with(&present.render()) };
        return Publication { bundle, since: Since::default(), signs_from: None, retires_at: None };
    };
    let signed_before = stored.leaf.and_then(leaf_of).is_some_and(|leaf| is_signed(&signs, &leaf.chain_pem));
    let published = rotate::publish(Publishing {
        known: former,
        present: &signs.render(),
        next: None,
        leaf: chain,
        is_first: served.is_new && !signed_before,
        is_everywhere,
        at_once: false,
        since: &since,
        grace: GRACE,
        now,
    });
    Publication { bundle: published.bundle.with(&present.render()), ..published }
}

#[cfg(test)]
mod tests;
