//! Keep or renew, and why, in one word.
//!
//! Pure: the clock is in the input, jitter comes from the registry's uid. Reads no text and makes no certificate; what is
//! stored was read by `reading`, what is decided here is done by `issue`.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::facts::{CertificateFacts, PublicKeyKind};
use super::reading::{AuthorityReading, LeafReading};
use super::rotate::{self, Rotation};
use super::{LeafProfile, after};

/// Why a certificate must be issued again. The first check that objects decides.
///
/// The word is what a user reads in events and what is kept on the Secret as the reason of its last issue.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr, strum::Display, strum::EnumString,
)]
pub enum Renew {
    /// There is none.
    Missing,
    /// What is stored is no certificate with a key.
    Unreadable,
    /// The key belongs to another certificate.
    KeyMismatch,
    /// A name or an address that clients use is not in it.
    SanMissing,
    /// Its time is over.
    Expired,
    /// Its time has not begun: the clock was ahead when it was issued.
    NotYetValid,
    /// Two thirds of its life are over, or half of it and pods are replaced anyway.
    DueForRenewal,
    /// Another authority signed it than the present one.
    CaChanged,
    /// The present authority signed it, but clients refuse it.
    Refused,
    /// Kind of key or duration are not what the manifest asks for.
    ParametersChanged,
    /// A user asked for it.
    Requested,
}

/// What a user asked for with the annotation `privateregistry.dev/renew`.
///
/// It stays asked for until the caller notes that it was done; the policy keeps no memory of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Nothing.
    #[default]
    None,
    /// `leaf`: a new serving certificate.
    Leaf,
    /// `ca`: a new authority, and a serving certificate from it when clients could learn of it.
    Authority,
    /// `ca-now`: a new authority and a serving certificate from it, at once; the former authority is trusted no longer.
    AuthorityNow,
}

impl Request {
    /// Reads the annotation: the word, or the word with a dash and anything behind it, which tells one request from the next. An unknown value asks for
    /// nothing.
    pub fn of(annotation: Option<&str>) -> Self {
        let Some(text) = annotation else { return Self::None };
        let is = |word: &str| text.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        match () {
            () if is("ca-now") => Self::AuthorityNow,
            () if is("ca") => Self::Authority,
            () if is("leaf") => Self::Leaf,
            () => Self::None,
        }
    }
}

/// Everything that the decision rests on.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    /// The stored serving certificate, if the operator issued it. The copy of a user's own certificate counts as missing:
    /// kept for lack of an authority, it would stand in the way of the first one.
    pub leaf: LeafReading,
    /// The stored authority.
    pub authority: AuthorityReading,
    /// How far the change to another authority has come.
    pub rotation: Rotation<'a>,
    /// What the serving certificate must be.
    pub profile: &'a LeafProfile,
    /// The registry's uid; spreads renewals, so that registries made together are not renewed together.
    pub uid: &'a str,
    /// The present moment.
    pub now: Timestamp,
    /// Pods are about to be replaced for another reason, so that a renewal now saves a rollout later.
    pub rollout_pending: bool,
    /// What a user asked for.
    pub request: Request,
    /// Why the stored leaf was issued, if that is known.
    pub last_reason: Option<Renew>,
}

/// What to do about the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityVerdict {
    /// It stays.
    Keep,
    /// A new one is needed in its place; the old certificate stays in the bundle, unless it is to be trusted no longer.
    Issue(Renew),
    /// A new one is to be made and published beside it, which signs later.
    Prepare(Renew),
    /// The one that was published beside it signs from now on.
    Promote,
    /// It is missing or can't be used, but the leaf still serves: a new one now would take the clients' trust away
    /// without need. Ends when a user restores it or asks for a new one (`privateregistry.dev/renew: ca`), or when the leaf
    /// needs one.
    CaMissing,
    /// Clients refuse what it signs. It was put there by a user, so it is not written over, whatever becomes of the leaf. Ends when a user
    /// puts another one there or asks for a new one (`privateregistry.dev/renew: ca`).
    CaRefused,
}

/// What to do about the serving certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafVerdict {
    /// It stays.
    Keep {
        /// When a decision can come out differently with nothing but time passing. Always later than now.
        look_again: Timestamp,
    },
    /// A new one is needed, after the authority's verdict has been carried out.
    Issue(Renew),
}

/// The decision over both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// To be carried out first.
    pub authority: AuthorityVerdict,
    /// To be carried out with the authority that stands then.
    pub leaf: LeafVerdict,
}

/// A name that comes and goes must not renew again and again: between two renewals for a name lies this.
const SAN_PAUSE: SignedDuration = SignedDuration::from_mins(5);

/// Dates in a certificate are whole seconds.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

type Check = fn(&Input<'_>) -> Option<Renew>;
const CHECKS: &[Check] = &[
    present,
    readable,
    key_fits,
    names_covered,
    not_expired,
    begun,
    not_due,
    signed_by_authority,
    accepted,
    parameters_unchanged,
    not_requested,
];

/// Keep or renew, authority and leaf together. Doing what it says and asking again at the same moment gives keep for both,
/// whatever the durations are, from a minute up (as long as the caller notes a request as done).
pub fn decide(input: &Input<'_>) -> Decision {
    let authority = rotate::authority(input);
    let objection = objection(input);
    let issued = match authority {
        AuthorityVerdict::Promote => Some(objection.unwrap_or(Renew::CaChanged)),
        AuthorityVerdict::Issue(_) if input.request == Request::AuthorityNow => Some(Renew::Requested),
        AuthorityVerdict::Issue(_) => objection.filter(|_| is_done(input)),
        AuthorityVerdict::Keep | AuthorityVerdict::Prepare(_) => {
            objection.filter(|reason| !rotate::is_held_back(input, *reason))
        }
        AuthorityVerdict::CaMissing | AuthorityVerdict::CaRefused => None,
    };
    let leaf = issued.map_or_else(|| LeafVerdict::Keep { look_again: look_again(input) }, LeafVerdict::Issue);
    Decision { authority, leaf }
}

/// What speaks against the leaf.
fn objection(input: &Input<'_>) -> Option<Renew> {
    CHECKS.iter().find_map(|check| check(input))
}

/// Whether the leaf can't go on serving, so that it is worth another authority.
pub(super) fn is_done(input: &Input<'_>) -> bool {
    CHECKS.iter().filter_map(|check| check(input)).any(ends_service)
}

/// When a leaf of our own is renewed if nothing else happens: at two thirds of its life, earlier by up to a tenth of it,
/// always the same for one uid, in whole seconds.
pub fn renew_at(leaf: &CertificateFacts, uid: &str) -> Timestamp {
    let life = i128::from(leaf.life().as_secs());
    let jitter = life / 10 * i128::from(spread(uid)) / i128::from(u32::MAX);
    let seconds = i64::try_from(life * 2 / 3 - jitter).unwrap_or(i64::MAX);
    after(leaf.issued_at(), SignedDuration::from_secs(seconds))
}

/// Whether a leaf with this flaw can't go on serving, so that it is worth a new authority. A missing name, other
/// parameters or a wish are not: they would cost every client its trust.
fn ends_service(reason: Renew) -> bool {
    use Renew::{DueForRenewal, Expired, KeyMismatch, Missing, NotYetValid, Unreadable};
    matches!(reason, Missing | Unreadable | KeyMismatch | Expired | NotYetValid | DueForRenewal)
}

fn present(input: &Input<'_>) -> Option<Renew> {
    (input.leaf == LeafReading::Missing).then_some(Renew::Missing)
}

fn readable(input: &Input<'_>) -> Option<Renew> {
    (input.leaf == LeafReading::Unreadable).then_some(Renew::Unreadable)
}

fn key_fits(input: &Input<'_>) -> Option<Renew> {
    matches!(input.leaf, LeafReading::Read { key_fits: false, .. }).then_some(Renew::KeyMismatch)
}

fn names_covered(input: &Input<'_>) -> Option<Renew> {
    let leaf = input.leaf.facts()?;
    let paused = input.now < san_pause_ends(input).unwrap_or(Timestamp::MIN);
    (names_missing(leaf, input.profile) && !paused).then_some(Renew::SanMissing)
}

fn not_expired(input: &Input<'_>) -> Option<Renew> {
    (input.now >= input.leaf.facts()?.not_after).then_some(Renew::Expired)
}

fn begun(input: &Input<'_>) -> Option<Renew> {
    (input.now < input.leaf.facts()?.not_before).then_some(Renew::NotYetValid)
}

fn not_due(input: &Input<'_>) -> Option<Renew> {
    let leaf = input.leaf.facts()?;
    // A leaf cut to its authority's end can't be made to last longer; renewing it would be in vain, ever more often.
    let gains_time = end_if_issued(input, input.now) > leaf.not_after;
    // Without an authority a rollout is no reason: see `ends_service`.
    let can_sign = input.authority.facts().is_some();
    let on_occasion = input.rollout_pending && can_sign && input.now >= half_life(leaf);
    (gains_time && (on_occasion || input.now >= renew_at(leaf, input.uid))).then_some(Renew::DueForRenewal)
}

fn signed_by_authority(input: &Input<'_>) -> Option<Renew> {
    matches!(input.leaf, LeafReading::Read { signed_by_authority: Some(false), .. }).then_some(Renew::CaChanged)
}

fn accepted(input: &Input<'_>) -> Option<Renew> {
    input.leaf.refusal().map(|_| Renew::Refused)
}

fn parameters_unchanged(input: &Input<'_>) -> Option<Renew> {
    let leaf = input.leaf.facts()?;
    let other_key = leaf.key != PublicKeyKind::Own(input.profile.key_algorithm);
    let difference = leaf.not_after.duration_since(end_if_issued(input, leaf.issued_at())).abs();
    (other_key || difference > TOLERANCE).then_some(Renew::ParametersChanged)
}

fn not_requested(input: &Input<'_>) -> Option<Renew> {
    (input.request == Request::Leaf).then_some(Renew::Requested)
}

fn names_missing(leaf: &CertificateFacts, profile: &LeafProfile) -> bool {
    !leaf.dns_names.is_superset(&profile.dns_names) || !leaf.ip_addresses.is_superset(&profile.ip_addresses)
}

fn san_pause_ends(input: &Input<'_>) -> Option<Timestamp> {
    let leaf = input.leaf.facts()?;
    (input.last_reason == Some(Renew::SanMissing)).then(|| after(leaf.issued_at(), SAN_PAUSE))
}

/// The end of a leaf issued at `moment`: its duration, cut to the authority's end.
fn end_if_issued(input: &Input<'_>, moment: Timestamp) -> Timestamp {
    let end = after(moment, input.profile.duration);
    input.authority.facts().map_or(end, |authority| end.min(authority.not_after))
}

fn half_life(leaf: &CertificateFacts) -> Timestamp {
    after(leaf.issued_at(), SignedDuration::from_secs(leaf.life().as_secs() / 2))
}

fn look_again(input: &Input<'_>) -> Timestamp {
    let leaf = input.leaf.facts();
    let moments = [
        rotate::due(input),
        leaf.map(|leaf| renew_at(leaf, input.uid)),
        leaf.filter(|_| input.rollout_pending).map(half_life),
        leaf.filter(|leaf| names_missing(leaf, input.profile)).and_then(|_| san_pause_ends(input)),
        leaf.map(|leaf| leaf.not_after),
        input.authority.facts().map(|authority| authority.not_before),
        input.authority.facts().map(|authority| authority.not_after),
    ];
    let next = moments.into_iter().flatten().filter(|moment| *moment > input.now).min();
    next.unwrap_or_else(|| after(input.now, SAN_PAUSE))
}

/// A number for a uid, evenly spread, the same for ever.
fn spread(uid: &str) -> u32 {
    let digest = Sha256::digest(uid.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

#[cfg(test)]
pub(super) mod tests;
