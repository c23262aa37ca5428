//! One authority after another, so that no client meets a certificate whose authority it could not know:
//!
//! ```text
//! present one:    signs ────────────────────────────┐ in the bundle ─────────┐ retired
//! its successor:  made ─▶ in the bundle ───grace───▶└─▶ signs ─────grace─────┘
//! ```
//!
//! Pure. How far it has come is read from what is stored: the successor lies beside the present authority until it signs, and [`Since`] says for how long
//! clients could know each of them. So it goes on wherever it was interrupted.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::facts::CertificateFacts;
use super::policy::{self, AuthorityVerdict, Input, Renew, Request};
use super::reading::{AuthorityReading, LeafReading};
use super::{Bundle, after};

/// Since when each authority has been what it is: published, or the one that signs. By fingerprint; only of those whose part has changed lately.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Since(BTreeMap<String, Timestamp>);

impl Since {
    /// Reads what [`Since::render`] wrote. What can't be read is forgotten: clients then get their time again.
    pub fn read(text: Option<&str>) -> Self {
        Self(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
    }

    /// As text; `None` if there is nothing to remember.
    pub fn render(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| serde_json::to_string(&self.0).unwrap_or_default())
    }

    /// Since when this one has been what it is.
    pub fn of(&self, fingerprint: &str) -> Option<Timestamp> {
        self.0.get(fingerprint).copied()
    }
}

/// Whose an authority is, and so whose to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The operator made it, and replaces it when its end is near.
    Ours,
    /// A user put it in the place of ours. It is replaced when a user asks for it.
    Users,
    /// It lies elsewhere, perhaps for many registries. What becomes of it is decided there.
    Shared,
}

/// How far the change to another authority has come.
#[derive(Debug, Clone)]
pub struct Rotation<'a> {
    /// The successor, if one has been made.
    pub next: AuthorityReading,
    /// Whether one that lies elsewhere signed the leaf, so that none of our own may ever have been there.
    pub was_shared: bool,
    /// Whose the present authority is.
    pub whose: Whose,
    /// For how long clients could know each.
    pub since: &'a Since,
    /// How long clients have to learn of an authority before it signs, and how long a former one stays in the bundle.
    pub grace: SignedDuration,
    /// Whether clients that trust what is published accept the leaf, whoever signed it.
    pub is_leaf_trusted: bool,
}

impl Rotation<'_> {
    /// Whether clients could learn of an authority that is to sign before `end`, when what is served has to be replaced.
    fn is_known(&self, authority: &CertificateFacts, end: Timestamp, now: Timestamp) -> bool {
        self.since.of(&authority.fingerprint).is_some_and(|since| now >= signs_from(since, self.grace, end))
    }
}

/// From when on an authority may sign that is published since then: after the grace period, but when half of the time until `end` is over at the latest.
fn signs_from(since: Timestamp, grace: SignedDuration, end: Timestamp) -> Timestamp {
    let half = SignedDuration::from_secs(end.duration_since(since).as_secs().max(0) / 2);
    after(since, grace.min(half))
}

pub(super) fn authority(input: &Input<'_>) -> AuthorityVerdict {
    if input.rotation.whose == Whose::Shared {
        return match &input.authority {
            AuthorityReading::Usable(present) if (present.not_before..present.not_after).contains(&input.now) => {
                AuthorityVerdict::Keep
            }
            AuthorityReading::Usable(_) | AuthorityReading::Refused(_) => AuthorityVerdict::CaRefused,
            AuthorityReading::Missing | AuthorityReading::Unreadable => AuthorityVerdict::CaMissing,
        };
    }
    if input.request == Request::AuthorityNow {
        return AuthorityVerdict::Issue(Renew::Requested);
    }
    let is_asked = input.request == Request::Authority;
    let successor = input.rotation.next.facts().filter(|next| input.now < next.not_after);
    let reason = match &input.authority {
        AuthorityReading::Usable(present) if (present.not_before..present.not_after).contains(&input.now) => {
            return match successor {
                Some(next) if input.rotation.is_known(next, present.not_after, input.now) => AuthorityVerdict::Promote,
                Some(_) => AuthorityVerdict::Keep,
                // The change to the present one is not over yet: that is what was asked for.
                None if is_former_leaf(input) => AuthorityVerdict::Keep,
                None if is_asked => AuthorityVerdict::Prepare(Renew::Requested),
                None if due(input).is_some_and(|due| input.now >= due) => {
                    AuthorityVerdict::Prepare(Renew::DueForRenewal)
                }
                None => AuthorityVerdict::Keep,
            };
        }
        // If it is not yet valid, a clock is wrong, perhaps ours: that is no reason to take the clients' trust away.
        AuthorityReading::Usable(present) if is_ours(input) && input.now >= present.not_after => Renew::Expired,
        AuthorityReading::Usable(_) | AuthorityReading::Refused(_) => {
            return if is_asked { AuthorityVerdict::Issue(Renew::Requested) } else { AuthorityVerdict::CaRefused };
        }
        AuthorityReading::Missing => Renew::Missing,
        AuthorityReading::Unreadable => Renew::Unreadable,
    };
    match () {
        () if successor.is_some() => AuthorityVerdict::Promote,
        () if is_asked => AuthorityVerdict::Issue(Renew::Requested),
        () if reason == Renew::Expired || policy::is_done(input) => AuthorityVerdict::Issue(reason),
        // It is not lost.
        () if reason == Renew::Missing && input.rotation.was_shared => AuthorityVerdict::Issue(reason),
        () => AuthorityVerdict::CaMissing,
    }
}

/// Whether the leaf goes on in spite of this objection, because clients accept it and may not know yet who would sign the next one.
pub(super) fn is_held_back(input: &Input<'_>, objection: Renew) -> bool {
    use Renew::{Expired, KeyMismatch, Missing, NotYetValid, Unreadable};
    let is_urgent = matches!(objection, Missing | Unreadable | KeyMismatch | Expired | NotYetValid);
    let cannot_wait = is_urgent || input.request == Request::Leaf;
    let (Some(present), Some(leaf)) = (input.authority.facts(), input.leaf.facts()) else { return false };
    !cannot_wait && is_former_leaf(input) && !input.rotation.is_known(present, leaf.not_after, input.now)
}

/// When a successor of the present authority is to be made.
pub(super) fn due(input: &Input<'_>) -> Option<Timestamp> {
    let present = input.authority.facts().filter(|_| is_ours(input) && input.rotation.next.facts().is_none())?;
    Some(policy::renew_at(present, input.uid))
}

fn is_ours(input: &Input<'_>) -> bool {
    input.rotation.whose == Whose::Ours
}

/// Whether another than the present authority signed the leaf, one that clients trust.
fn is_former_leaf(input: &Input<'_>) -> bool {
    input.rotation.is_leaf_trusted && matches!(input.leaf, LeafReading::Read { signed_by_authority: Some(false), .. })
}

/// What is to be decided about the published bundle.
#[derive(Debug)]
pub struct Publishing<'a> {
    /// What was published until now, without what has ended.
    pub known: Bundle,
    /// PEM of the present authority.
    pub present: &'a str,
    /// PEM of its successor.
    pub next: Option<&'a str>,
    /// PEM of the leaf that is served from now on.
    pub leaf: &'a str,
    /// Whether it is the first that the present authority signed.
    pub is_first: bool,
    /// Whether no pod serves another one any more.
    pub is_everywhere: bool,
    /// Whether former authorities are to be trusted no longer, whatever that breaks.
    pub at_once: bool,
    /// For how long clients could know each.
    pub since: &'a Since,
    /// How long former authorities stay in the bundle.
    pub grace: SignedDuration,
    /// The present moment.
    pub now: Timestamp,
}

/// The bundle, and what is to be remembered of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// What clients are to trust.
    pub bundle: Bundle,
    /// From now on.
    pub since: Since,
    /// From when on an authority signs that does not sign yet.
    pub signs_from: Option<Timestamp>,
    /// When former authorities leave the bundle, if there are any and if no pod serves what they signed any more.
    pub retires_at: Option<Timestamp>,
}

/// What to publish: the authorities that sign, or will, and former ones until nobody can meet what they signed.
pub fn publish(wanted: Publishing<'_>) -> Publication {
    let ours = |bundle: Bundle| bundle.with(wanted.present).with(wanted.next.unwrap_or_default());
    let without_former = ours(Bundle::default());
    let bundle = if wanted.at_once { without_former.clone() } else { ours(wanted.known) };
    let (present, next) = (facts(wanted.present), wanted.next.and_then(facts));
    let leaf = facts(wanted.leaf);
    let signs = Bundle::read(wanted.present).signing(wanted.leaf).iter().any(|(_, signs)| *signs);
    let has_former = bundle.facts().len() > without_former.facts().len();

    let mut since = Since::default();
    // People read it.
    let whole = Timestamp::from_second(wanted.now.as_second()).unwrap_or(wanted.now);
    let mut note = |authority: &CertificateFacts, is_new: bool| {
        let at = wanted.since.of(&authority.fingerprint).filter(|_| !is_new).unwrap_or(whole);
        since.0.insert(authority.fingerprint.clone(), at);
        at
    };
    // Who signs next has to be known before what it takes over from ends.
    let waiting = match (&present, &next, &leaf) {
        (Some(present), Some(next), _) => Some((next, present.not_after)),
        (Some(present), None, Some(leaf)) if !signs => Some((present, leaf.not_after)),
        _ => None,
    };
    let signs_from = waiting.map(|(authority, end)| signs_from(note(authority, false), wanted.grace, end));
    let Some(present) = present.filter(|_| signs && has_former) else {
        return Publication { bundle, since, signs_from, retires_at: None };
    };
    let retires_at = after(note(&present, wanted.is_first), wanted.grace);
    if wanted.is_everywhere && wanted.now >= retires_at {
        since.0.remove(&present.fingerprint);
        return Publication { bundle: without_former, since, signs_from, retires_at: None };
    }
    Publication { bundle, since, signs_from, retires_at: Some(retires_at) }
}

fn facts(pem: &str) -> Option<CertificateFacts> {
    CertificateFacts::of_pem(pem).ok()
}

#[cfg(test)]
mod tests;
