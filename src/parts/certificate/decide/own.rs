//! A certificate of the user's own: checked, and copied.

use std::collections::BTreeSet;

use jiff::Timestamp;
use operator_engine::apply::Live;

use super::{Moment, Settled, Stored, certificate_status, join, leaf_of, refused, still_asked, text};
use crate::desired;
use crate::model::{Observed, Resolved, labels};
use crate::pki::bundle::Bundle;
use crate::pki::checksum;
use crate::pki::facts::CertificateFacts;
use crate::pki::import::{self, ImportError};
use crate::status::{Certificate, Problem};

/// Checks the user's certificate and copies it, or keeps serving the last copy that was good.
pub(super) fn settle(
    registry: &Resolved,
    secret: &str,
    passphrase: Option<&(String, String)>,
    stored: &Stored<'_>,
    observed: &Observed,
    moment: &Moment<'_>,
) -> Settled {
    let now = moment.now;
    let handled = still_asked(registry, moment.handled.map(str::to_owned));
    let keep = |reason: &str, message: String, waiting: bool| {
        let still = if is_accepted(stored.leaf, now) { "; the last good one is still served" } else { "" };
        let message = format!("{message}{still}");
        let problem = if waiting { Problem::waiting(reason, message) } else { Problem::stuck(reason, message) };
        refused(registry, stored, moment, problem)
    };
    if observed.unread.contains(secret) {
        return keep("ReadFailed", format!("Secret {secret} could not be read; it is tried again"), true);
    }
    let Some(Some(content)) = observed.secrets.get(secret) else {
        return keep(
            "WaitingForSecret",
            format!("Secret {secret}, named in spec.tls.secret.name, does not exist; create it"),
            true,
        );
    };
    let passphrase = match passphrase.map(|(name, key)| observed_passphrase(observed, name, key)).transpose() {
        Ok(passphrase) => passphrase,
        Err((reason, message)) => return keep(reason, message, true),
    };
    let value = |key: &str| content.data.get(key).map(|value| value.expose().as_slice());
    let material =
        import::Material { chain: value("tls.crt"), key: value("tls.key"), authorities: value("ca.crt"), passphrase };
    // The cluster's own names are not asked of a company's certificate: only those that the user wrote.
    let (dns_names, ip_addresses) = registry.written_hosts();
    let hosts = import::Hosts { dns_names: &dns_names, ip_addresses: &ip_addresses };
    let copy = stored.leaf.filter(|live| live.annotation(labels::ISSUED).is_none()).and_then(leaf_of);
    let copy = copy.and_then(|leaf| CertificateFacts::of_pem(&leaf.chain_pem).ok());
    let checked = match import::check(material, hosts, copy.as_ref(), now) {
        // Nobody loses a name that is served by what clients refuse.
        Err(ImportError::NamesMissing(_)) if !is_accepted(stored.leaf, now) => {
            import::check(material, hosts, None, now)
        }
        checked => checked,
    };
    let imported = match checked {
        Ok(imported) => imported,
        Err(error) => return keep(error.reason(), format!("Secret {secret}: {error}"), false),
    };
    let bundle = Bundle::read(imported.authorities_pem.as_deref().unwrap_or_default());
    let mut notes: Vec<_> = imported.notes.iter().map(ToString::to_string).collect();
    if !imported.uncovered.is_empty() {
        let names = imported.uncovered.iter().cloned().collect::<Vec<_>>().join(", ");
        notes.push(format!(
            "it does not cover {names} of spec.addresses or spec.route: clients that use these names will refuse it"
        ));
    }
    Settled {
        look_again: Some(imported.ends),
        report: Certificate {
            served: Some(certificate_status(&imported.facts, &bundle, Some(&imported.leaf))),
            handled_request: handled.clone(),
            problem: None,
            note: join(notes),
        },
        serving: Some(desired::ServingCertificate {
            checksum: checksum(&imported.leaf),
            chain: imported.leaf.chain_pem,
            key: imported.leaf.key_pem,
            ca: imported.authorities_pem.clone(),
            served_request: None,
            issued: None,
            authorities_since: None,
            shared_authority: None,
            signer: None,
        }),
        bundle: imported.authorities_pem,
        ..Settled::default()
    }
}

/// The passphrase, without the end of a line that an editor leaves behind it; or why there is none.
fn observed_passphrase<'a>(observed: &'a Observed, name: &str, key: &str) -> Result<&'a [u8], (&'static str, String)> {
    const FIELD: &str = "spec.tls.secret.passphraseSecretRef";
    if observed.unread.contains(name) {
        return Err(("ReadFailed", format!("Secret {name} could not be read; it is tried again")));
    }
    let Some(Some(content)) = observed.secrets.get(name) else {
        return Err(("WaitingForSecret", format!("Secret {name}, named in {FIELD}, does not exist; create it")));
    };
    let Some(value) = content.data.get(key) else {
        return Err(("WaitingForSecret", format!("Secret {name}, named in {FIELD}, has no key {key}; add it")));
    };
    let text = value.expose().as_slice();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    Ok(text.strip_suffix(b"\r").unwrap_or(text))
}

/// Whether clients accept what is stored.
fn is_accepted(stored: Option<&Live>, now: Timestamp) -> bool {
    let Some((live, leaf)) = stored.and_then(|live| Some((live, leaf_of(live)?))) else { return false };
    let ca = text(live, "ca.crt");
    let material = import::Material {
        chain: Some(leaf.chain_pem.as_bytes()),
        key: Some(leaf.key_pem.expose().as_bytes()),
        authorities: ca.as_deref().map(str::as_bytes),
        passphrase: None,
    };
    let no_hosts = import::Hosts { dns_names: &BTreeSet::new(), ip_addresses: &BTreeSet::new() };
    import::check(material, no_hosts, None, now).is_ok()
}
