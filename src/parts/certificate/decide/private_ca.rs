//! A certificate that an authority of the registry's own signs, and the change from one authority to the next.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Authority, Moment, Settled, Stored};
use super::{
    algorithm, certificate_status, is_everywhere, is_signed, join, leaf_of, node_port_note, profile, refused, signed,
    still_asked, text,
};
use crate::api::{self, CertificateStatus};
use crate::desired;
use crate::model::{Child, Resolved, Tls, labels};
use crate::parts::Error;
use crate::pki::acceptance::{Flaw, Refusal};
use crate::pki::bundle::Bundle;
use crate::pki::facts::{CertificateFacts, PublicKeyKind};
use crate::pki::policy::{self, AuthorityVerdict, LeafVerdict, Request};
use crate::pki::reading::{AuthorityReading, LeafReading};
use crate::pki::rotate::{self, Publication, Publishing, Rotation, Since, Whose};
use crate::pki::{self, AuthorityProfile, checksum, issue};
use crate::status::{Certificate, Problem};

/// What `NAME-ca` holds.
#[derive(Default)]
struct Authorities {
    present: Option<pki::Authority>,
    /// The one that is to sign next.
    next: Option<pki::Authority>,
    /// One that was to sign next, but its predecessor was replaced by somebody: PEM.
    orphan: Option<String>,
}

impl Authorities {
    fn stored(authority: &Authority) -> Self {
        let pair = |certificate, key| {
            pki::Authority::stored(authority.data(certificate).as_deref(), authority.data(key).as_deref())
        };
        let (present, next) = (pair("tls.crt", "tls.key"), pair("next.crt", "next.key"));
        // Whoever puts another authority in the place of the present one does not want the successor that was made for that one.
        let is_successor =
            authority.annotation(labels::SUCCEEDS).map(str::to_owned) == present.as_ref().and_then(fingerprint);
        if is_successor || authority.is_shared() || present.is_none() {
            return Self { present, next, orphan: None };
        }
        Self { present, next: None, orphan: next.map(|next| next.certificate_pem) }
    }

    /// Nobody else gives an authority the name that ours have.
    fn whose(&self, authority: &Authority, our_name: &str) -> Whose {
        let subject = self.present.as_ref().and_then(facts_of).map(|facts| facts.subject);
        match authority {
            Authority::Shared { .. } => Whose::Shared,
            _ if subject == Some(format!("CN={our_name}")) => Whose::Ours,
            _ => Whose::Users,
        }
    }

    /// As the Secret is to hold them; `None` if there is none.
    fn wanted(self, kind: &str) -> Option<desired::Authority> {
        let present = self.present?;
        Some(desired::Authority {
            succeeds: self.next.as_ref().and(fingerprint(&present)),
            certificate: present.certificate_pem,
            key: present.key_pem,
            next: self.next.map(|next| (next.certificate_pem, next.key_pem)),
            kind: kind.to_owned(),
        })
    }
}

fn facts_of(authority: &pki::Authority) -> Option<CertificateFacts> {
    CertificateFacts::of_pem(&authority.certificate_pem).ok()
}

fn fingerprint(authority: &pki::Authority) -> Option<String> {
    facts_of(authority).map(|facts| facts.fingerprint)
}

pub(super) fn settle(
    registry: &Resolved,
    stored: &Stored<'_>,
    service: Option<&Value>,
    moment: &Moment<'_>,
) -> Result<Settled, Error> {
    let now = moment.now;
    let Tls::PrivateCa { duration, ca_duration, key_algorithm, grace, .. } = &registry.tls else {
        return Ok(Settled::default());
    };
    let profile = profile(registry, *duration, *key_algorithm, service, stored.leaf);
    let authority_profile = AuthorityProfile {
        // X.509 allows 64 characters, a registry's name has up to 48.
        common_name: format!("{} registry CA", registry.name),
        duration: signed(*ca_duration),
        key_algorithm: profile.key_algorithm,
    };
    let mut authorities = Authorities::stored(&stored.authority);
    // What was handed over or kept is used as it is, or not at all: nothing is written over it.
    let is_taken = matches!(stored.authority, Authority::Offered(_)) || stored.leaf.is_none();
    let authority_reading = AuthorityReading::of(authorities.present.as_ref(), &profile);
    if is_taken && stored.authority.is_there() {
        let refusal = authority_reading.refusal(now);
        if refusal.is_some() || authority_reading.facts().is_none() {
            return Ok(not_issued(registry, stored, moment, refusal.as_ref()));
        }
    }
    let last_reason = stored.leaf.and_then(|live| live.annotation(labels::ISSUED)).and_then(|word| word.parse().ok());
    let mut leaf = stored.leaf.and_then(leaf_of);
    let mut leaf_reading = LeafReading::of(leaf.as_ref(), authorities.present.as_ref(), now);
    // A copy of a company's certificate is no leaf of ours, whatever it says.
    if last_reason.is_none() && !matches!(leaf_reading, LeafReading::Read { signed_by_authority: Some(true), .. }) {
        (leaf, leaf_reading) = (None, LeafReading::Missing);
    }
    let shared_before = stored.leaf.and_then(|live| live.annotation(labels::SHARED_AUTHORITY)).map(str::to_owned);
    let signer_before = stored.leaf.and_then(|live| live.annotation(labels::SIGNER)).map(str::to_owned);
    // What clients trusted until now.
    let known = stored.leaf.and_then(|live| text(live, "ca.crt")).or_else(|| stored.published.clone());
    let known = Bundle::read(&known.unwrap_or_default()).without_expired(now);
    let known = known.without(authorities.orphan.as_deref().unwrap_or_default());
    let since = Since::read(stored.leaf.and_then(|live| live.annotation(labels::AUTHORITIES_SINCE)));
    // The status remembers it too: a request that was served is not served again because its Secret was deleted.
    let served =
        stored.leaf.and_then(|live| live.annotation(labels::SERVED_REQUEST)).or(moment.handled).map(str::to_owned);
    let request = Request::of(registry.renew_request.as_deref().filter(|wanted| Some(*wanted) != served.as_deref()));
    let next_reading = AuthorityReading::of(authorities.next.as_ref(), &profile);
    let grace = signed(*grace);
    let input = policy::Input {
        leaf: leaf_reading,
        authority: authority_reading.clone(),
        rotation: Rotation {
            next: next_reading,
            was_shared: shared_before.is_some() || signer_before.is_some(),
            whose: authorities.whose(&stored.authority, &authority_profile.common_name),
            since: &since,
            grace,
            is_leaf_trusted: leaf.as_ref().is_some_and(|leaf| is_signed(&known, &leaf.chain_pem)),
        },
        profile: &profile,
        uid: &registry.uid,
        now,
        rollout_pending: moment.rollout.is_pending,
        request,
        last_reason,
    };
    let decision = policy::decide(&input);

    let mut problem = None;
    match decision.authority {
        AuthorityVerdict::Keep => {}
        AuthorityVerdict::Issue(_) => {
            authorities.present = Some(issue::issue_authority(&authority_profile, now)?);
            authorities.next = None;
        }
        AuthorityVerdict::Prepare(_) => authorities.next = Some(issue::issue_authority(&authority_profile, now)?),
        AuthorityVerdict::Promote => authorities.present = authorities.next.take(),
        AuthorityVerdict::CaMissing => problem = Some(authority_missing(registry, &stored.authority)),
        AuthorityVerdict::CaRefused => {
            problem = Some(unusable(registry, stored, authority_reading.refusal(now).as_ref()));
        }
    }
    let (issued, look_again) = match decision.leaf {
        LeafVerdict::Keep { look_again } => (None, Some(look_again)),
        LeafVerdict::Issue(why) => {
            if let Some(authority) = &authorities.present {
                let new = issue::issue_leaf(authority, &profile, now)?;
                // What clients refuse is not worth what is served.
                if let Some(refusal) = LeafReading::of(Some(&new), Some(authority), now).refusal() {
                    return Ok(not_issued(registry, stored, moment, Some(refusal)));
                }
                leaf = Some(new);
            }
            (Some(why), None)
        }
    };

    // A wish that could not be fulfilled stays one. One that is taken back is forgotten, so that it can be uttered again.
    let is_served = match request {
        Request::Authority => problem.is_none() && !stored.authority.is_shared(),
        Request::None | Request::Leaf | Request::AuthorityNow => issued.is_some(),
    };
    let served_request = if is_served { registry.renew_request.clone() } else { still_asked(registry, served) };

    let (is_everywhere, brought) = is_everywhere(moment, leaf.as_ref());
    let sound = authorities.present.as_ref().filter(|_| problem.is_none());
    let published = match sound {
        Some(present) => rotate::publish(Publishing {
            known,
            present: &present.certificate_pem,
            next: authorities.next.as_ref().map(|next| next.certificate_pem.as_str()),
            leaf: leaf.as_ref().map(|leaf| leaf.chain_pem.as_str()).unwrap_or_default(),
            is_first: issued.is_some() && !is_stored_by(present, stored),
            is_everywhere,
            at_once: request == Request::AuthorityNow && !stored.authority.is_shared(),
            since: &since,
            grace,
            now,
        }),
        None => Publication { bundle: known, since, signs_from: None, retires_at: None },
    };
    let notes = [
        node_port_note(registry),
        request_note(registry),
        sound
            .filter(|_| authorities.next.is_none() && !stored.authority.is_shared())
            .and_then(|present| manifest_note(registry, present)),
        successor_note(registry, &published, &stored.authority, authorities.next.is_some()),
        retirement_note(registry, &published, now),
    ];
    let bundle = published.bundle.render();
    let facts = leaf.as_ref().and_then(|leaf| CertificateFacts::of_pem(&leaf.chain_pem).ok());
    let renew_at = facts.as_ref().map(|facts| policy::renew_at(facts, &registry.uid));
    let reason = issued.or(last_reason).map(|word| word.to_string());
    let is_sound = problem.is_none();
    Ok(Settled {
        report: Certificate {
            served: facts.map(|facts| CertificateStatus {
                renew_at: renew_at.map(|at| at.to_string()),
                reason: reason.clone(),
                ..certificate_status(&facts, &published.bundle, leaf.as_ref())
            }),
            handled_request: served_request.clone(),
            problem,
            note: join(notes.into_iter().flatten()),
        },
        serving: leaf.map(|leaf| desired::ServingCertificate {
            checksum: checksum(&leaf),
            chain: leaf.chain_pem,
            key: leaf.key_pem,
            ca: Some(bundle.clone()),
            served_request,
            issued: reason,
            authorities_since: published.since.render(),
            shared_authority: match &stored.authority {
                _ if issued.is_none() => shared_before,
                Authority::Shared { secret, .. } => Some(secret.to_string()),
                Authority::Absent | Authority::Stored(_) | Authority::Offered(_) => None,
            },
            signer: signer_before.filter(|_| issued.is_none()),
        }),
        // What cannot be used is not written, least of all over itself.
        authority: authorities.wanted(stored.authority.kind()).filter(|_| is_sound && !stored.authority.is_shared()),
        bundle: Some(bundle),
        // What should have been retired waits for the pods, not for the clock.
        look_again: [
            look_again.or(renew_at),
            published.signs_from,
            published.retires_at.filter(|at| *at > now),
            brought.filter(|at| *at > now && published.retires_at.is_some()),
        ]
        .into_iter()
        .flatten()
        .min(),
        issued,
        ..Settled::default()
    })
}

/// Whether this authority signed the leaf that is stored.
fn is_stored_by(authority: &pki::Authority, stored: &Stored<'_>) -> bool {
    let leaf = stored.leaf.and_then(leaf_of);
    leaf.is_some_and(|leaf| is_signed(&Bundle::read(&authority.certificate_pem), &leaf.chain_pem))
}

/// The CA cannot sign what clients accept: what is stored goes on being served. `why`: what clients object to; `None`: there is no CA to read.
fn not_issued(registry: &Resolved, stored: &Stored<'_>, moment: &Moment<'_>, why: Option<&Refusal>) -> Settled {
    let settled = refused(registry, stored, moment, unusable(registry, stored, why));
    let begins = why.and_then(|why| match why.flaw {
        Flaw::NotYetValid(at) => Some(at),
        _ => None,
    });
    Settled { look_again: settled.look_again.into_iter().chain(begins).min(), ..settled }
}

fn unusable(registry: &Resolved, stored: &Stored<'_>, why: Option<&Refusal>) -> Problem {
    let why = why.map_or_else(
        || "a certificate and its key are needed there, under tls.crt and tls.key".to_owned(),
        ToString::to_string,
    );
    let next = match (stored.leaf, &stored.authority) {
        (_, Authority::Shared { .. }) => "put a CA there that clients accept; a certificate that is served stays",
        (Some(_), Authority::Stored(_)) => {
            "the certificate that is served stays. Put a CA there that clients accept, or annotate the registry with \
             privateregistry.dev/renew=ca for a new one"
        }
        _ => "put a CA there that clients accept, or delete the Secret for a new one",
    };
    let ca = stored.authority.name(registry);
    Problem::stuck(
        "CaUnusable",
        format!("Secret {ca} holds no CA that can be used, and is not written over: {why}; {next}"),
    )
}

fn authority_missing(registry: &Resolved, authority: &Authority) -> Problem {
    const FIELD: &str = "spec.tls.privateCA.caSecretRef";
    match authority {
        Authority::Shared { secret: name, is_unread: true, .. } => {
            return Problem::waiting("ReadFailed", format!("Secret {name} could not be read; it is tried again"));
        }
        Authority::Shared { secret: name, content: None, .. } if name.namespace.is_some() => {
            let namespace = &registry.namespace;
            return Problem::waiting(
                "WaitingForSecret",
                format!(
                    "Secret {name}, named in {FIELD}, does not exist, or does not sign for registries of namespace {namespace}: who looks after it \
                     annotates it with {}={namespace}",
                    labels::SIGNS_FOR
                ),
            );
        }
        Authority::Shared { secret: name, content: None, .. } => {
            return Problem::waiting(
                "WaitingForSecret",
                format!("Secret {name}, named in {FIELD}, does not exist; create it"),
            );
        }
        Authority::Shared { secret: name, .. } => {
            return Problem::stuck(
                "CaUnusable",
                format!(
                    "Secret {name}, named in {FIELD}, holds no CA with its key; put both there, under tls.crt and tls.key"
                ),
            );
        }
        Authority::Absent | Authority::Stored(_) | Authority::Offered(_) => {}
    }
    Problem::stuck(
        "CaMissing",
        format!(
            "Secret {} is missing or unreadable: the certificate is still served, but no new one can be signed; restore the Secret \
             from a backup, or annotate the registry with privateregistry.dev/renew=ca and hand the new bundle to clients",
            registry.name.child(Child::Ca)
        ),
    )
}

pub(super) fn request_note(registry: &Resolved) -> Option<String> {
    let asked = registry.renew_request.as_deref()?;
    if let Tls::PrivateCa { shared: Some(secret), .. } = &registry.tls
        && matches!(Request::of(Some(asked)), Request::Authority | Request::AuthorityNow)
    {
        return Some(format!(
            "the annotation {}={asked} asks for another CA, but the present one lies in Secret {secret}: replace it there",
            api::annotation::RENEW
        ));
    }
    (Request::of(Some(asked)) == Request::None).then(|| {
        format!("the annotation {}={asked} asks for nothing; write leaf, ca or ca-now", api::annotation::RENEW)
    })
}

fn successor_note(
    registry: &Resolved,
    published: &Publication,
    authority: &Authority,
    has_next: bool,
) -> Option<String> {
    let at = published.signs_from?;
    let bundle = registry.name.child(Child::CaBundle);
    if has_next && let Authority::Shared { secret: name, .. } = authority {
        return Some(format!("the CA that is to follow in Secret {name} is in ConfigMap {bundle} already"));
    }
    Some(format!(
        "another CA is in ConfigMap {bundle} and signs from {at} on: let clients trust that bundle by then; \
         spec.tls.privateCA.rotation.gracePeriod says how long they have"
    ))
}

fn retirement_note(registry: &Resolved, published: &Publication, now: Timestamp) -> Option<String> {
    let bundle = registry.name.child(Child::CaBundle);
    let is_own = matches!(&registry.tls, Tls::PrivateCa { shared: None, .. });
    if is_own && Request::of(registry.renew_request.as_deref()) == Request::AuthorityNow {
        return Some(format!(
            "the former CA is trusted no longer, as was asked: clients need ConfigMap {bundle} again"
        ));
    }
    let at = published.retires_at?;
    Some(match at > now {
        true => format!("the former CA stays in ConfigMap {bundle} until {at}"),
        false => format!("the former CA stays in ConfigMap {bundle} until no pod serves its certificate"),
    })
}

/// What the manifest says of the authority counts for the next one: clients trust the one that there is.
fn manifest_note(registry: &Resolved, authority: &pki::Authority) -> Option<String> {
    let authority = facts_of(authority)?;
    let Tls::PrivateCa { ca_duration, key_algorithm, named, .. } = &registry.tls else { return None };
    let life = authority.life().saturating_sub(signed(*ca_duration)).abs();
    let is_other_life = named.duration && life > SignedDuration::from_mins(1);
    let wanted = PublicKeyKind::Own(algorithm(*key_algorithm));
    let is_other_key = named.key_algorithm && authority.key != wanted;
    let fields: Vec<_> = [
        is_other_life.then_some("spec.tls.privateCA.duration"),
        is_other_key.then_some("spec.tls.certificate.keyAlgorithm"),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!fields.is_empty()).then(|| {
        format!(
            "the CA, {} until {}, stays as it is: {} counts for the next one, which the annotation {}=ca asks for",
            authority.key,
            authority.not_after,
            fields.join(" and "),
            api::annotation::RENEW
        )
    })
}
