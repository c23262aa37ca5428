//! A certificate that somebody else signs: whether another one is to be asked for, and why, in one word.
//!
//! Pure. How far it has come is read from what is stored: a request whose key is not that of the certificate that is served has not been answered.

use jiff::{SignedDuration, Timestamp};

use super::facts::{CertificateFacts, PublicKeyKind};
use super::policy::{Renew, Request, renew_at};
use super::reading::LeafReading;
use super::request::RequestFacts;
use super::{LeafProfile, after};

/// Between two requests for a name lies this: one that comes and goes must not have somebody asked again and again.
const SAN_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// Everything that the decision rests on.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The certificate that is served, whoever signed it.
    pub leaf: LeafReading,
    /// The request that is stored, if it can be read and has its key.
    pub request: Option<&'a RequestFacts>,
    /// Whether the certificate that is served is the answer to it.
    pub is_answered: bool,
    /// Whether it is the answer to the request before that one.
    pub is_former_answer: bool,
    /// Whether another signer gave the answer that is served than the one who is asked now.
    pub is_anothers: bool,
    /// Whether clients accept that answer, as far as their trust is known here.
    pub is_accepted: bool,
    /// What is to be asked for.
    pub profile: &'a LeafProfile,
    /// The registry's uid; spreads renewals.
    pub uid: &'a str,
    /// The present moment.
    pub now: Timestamp,
    /// What a user asked for.
    pub wish: Request,
    /// Why the stored request was made, if that is known.
    pub last_reason: Option<Renew>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The certificate that is served is the one that is wanted.
    Keep {
        /// When a decision can come out differently with nothing but time passing. Always later than now.
        look_again: Timestamp,
    },
    /// The request waits for its answer.
    Await,
    /// The request that waits must ask for more names. Its key stays, so that an answer on its way still fits.
    Widen,
    /// The request that waits is needed no more: what is served is what is wanted after all.
    TakeBack,
    /// A new request with a new key.
    Ask(Renew),
}

/// Keep what is served, wait, or ask.
pub fn decide(input: &Input<'_>) -> Verdict {
    let Some(request) = input.request else { return Verdict::Ask(without_request(input)) };
    let is_other_key = request.key != PublicKeyKind::Own(input.profile.key_algorithm);
    let is_narrow = !request.covers(&input.profile.dns_names, &input.profile.ip_addresses);
    if !input.is_answered {
        // What a user asks for is what waits already.
        return match () {
            () if is_wanted_after_all(input) => Verdict::TakeBack,
            () if is_other_key => Verdict::Ask(Renew::ParametersChanged),
            () if is_narrow => Verdict::Widen,
            () => Verdict::Await,
        };
    }
    let Some(leaf) = input.leaf.facts() else { return Verdict::Ask(Renew::Unreadable) };
    let pause = (input.last_reason == Some(Renew::SanMissing)).then(|| after(leaf.issued_at(), SAN_PAUSE));
    let renew_at = renew_at(leaf, input.uid);
    match () {
        () if input.now >= leaf.not_after => Verdict::Ask(Renew::Expired),
        () if input.now < leaf.not_before => Verdict::Ask(Renew::NotYetValid),
        () if input.is_anothers => Verdict::Ask(Renew::CaChanged),
        () if is_other_key => Verdict::Ask(Renew::ParametersChanged),
        () if is_narrow && pause.is_none_or(|end| input.now >= end) => Verdict::Ask(Renew::SanMissing),
        () if input.wish == Request::Leaf => Verdict::Ask(Renew::Requested),
        () if input.now >= renew_at => Verdict::Ask(Renew::DueForRenewal),
        () if !input.is_accepted => Verdict::Ask(Renew::Refused),
        () => {
            let moments = [Some(renew_at), Some(leaf.not_after), pause.filter(|_| is_narrow)];
            let next = moments.into_iter().flatten().filter(|at| *at > input.now).min();
            Verdict::Keep { look_again: next.unwrap_or(leaf.not_after) }
        }
    }
}

/// Whether a request was made for a reason that is gone: the manifest was changed, and changed back before anybody signed.
fn is_wanted_after_all(input: &Input<'_>) -> bool {
    let (Some(leaf), profile) = (input.leaf.facts(), input.profile) else { return false };
    let is_gone = match input.last_reason {
        // What a signer left out of the certificate may or may not have been asked for before.
        Some(Renew::SanMissing) => {
            leaf.dns_names.is_superset(&profile.dns_names) && leaf.ip_addresses.is_superset(&profile.ip_addresses)
        }
        Some(Renew::CaChanged | Renew::ParametersChanged | Renew::Refused) => true,
        _ => false,
    };
    let is_good =
        input.is_former_answer && input.is_accepted && !input.is_anothers && is_serving(&input.leaf, input.now);
    let is_as_wanted = leaf.key == PublicKeyKind::Own(profile.key_algorithm) && input.wish != Request::Leaf;
    is_gone && is_good && is_as_wanted && input.now < renew_at(leaf, input.uid)
}

/// Why the first request is made.
fn without_request(input: &Input<'_>) -> Renew {
    match &input.leaf {
        LeafReading::Missing => Renew::Missing,
        LeafReading::Unreadable => Renew::Unreadable,
        LeafReading::Read { key_fits: false, .. } => Renew::KeyMismatch,
        LeafReading::Read { .. } => Renew::CaChanged,
    }
}

/// Whether what is served can go on until the answer is there.
pub fn is_serving(leaf: &LeafReading, now: Timestamp) -> bool {
    let in_time = |facts: &CertificateFacts| (facts.not_before..facts.not_after).contains(&now);
    matches!(leaf, LeafReading::Read { key_fits: true, facts, .. } if in_time(facts))
}

/// When a request may be sent again that is not there any more, although nobody answered it: later each time, up to an hour. Kubernetes
/// removes requests by itself, and so do people.
pub fn ask_again_at(last: Timestamp, times: u32) -> Timestamp {
    const FIRST: SignedDuration = SignedDuration::from_secs(5);
    const LONGEST: SignedDuration = SignedDuration::from_hours(1);
    let pause = FIRST.checked_mul(1 << times.saturating_sub(1).min(16)).unwrap_or(LONGEST).min(LONGEST);
    after(last, pause)
}

#[cfg(test)]
mod tests;
