//! Who signs the certificates that clients must show. What cannot be read is no reason to let everybody in: then what runs goes on as it is.

use super::{Blocked, Observed};
use crate::api::PrivateRegistrySpec;
use crate::pki::bundle::Bundle;
use crate::pki::facts::CertificateFacts;

const FIELD: &str = "spec.tls.clientCASecretRef";

/// The authorities, PEM; `None`: clients need no certificate.
pub(super) fn authorities(spec: &PrivateRegistrySpec, observed: &Observed) -> Result<Option<String>, Blocked> {
    let Some(wanted) = spec.tls.as_ref().and_then(|tls| tls.client_ca_secret_ref.as_ref()) else { return Ok(None) };
    if spec.frontend.as_ref().is_none_or(|frontend| frontend.nginx.is_none()) {
        return Err(Blocked::invalid(format!("{FIELD} needs the front end: add spec.frontend.nginx: {{}}")));
    }
    let secret = &wanted.name;
    let waiting = |reason, message| Blocked { reason, message, waiting: true };
    if observed.unread.contains(secret) || observed.oversized.contains(secret) {
        return Err(waiting("ReadFailed", format!("Secret {secret} could not be read; it is tried again")));
    }
    let Some(Some(content)) = observed.secrets.get(secret) else {
        return Err(waiting(
            "WaitingForSecret",
            format!("Secret {secret}, named in {FIELD}, does not exist; create it"),
        ));
    };
    let unusable = |why: String| Blocked {
        reason: "ClientCaUnusable",
        message: format!("Secret {secret}, named in {FIELD}: {why}"),
        waiting: false,
    };
    let text = content.data.get("ca.crt").and_then(|value| str::from_utf8(value.expose()).ok());
    let bundle = text.and_then(Bundle::read_all).ok_or_else(|| {
        unusable("key ca.crt must hold certificates of authorities in PEM form, and nothing broken".to_owned())
    })?;
    let facts = bundle.facts();
    if let Some(other) = facts.iter().find(|facts| !facts.is_authority) {
        return Err(unusable(format!("{} is no authority; put the one there that signed it", other.subject)));
    }
    if let Some(below) = facts.iter().find(|below| !stands_on_one(below, &facts)) {
        let (subject, issuer) = (&below.subject, &below.issuer);
        return Err(unusable(format!("{subject} is signed by {issuer}, which is not there; add it to ca.crt")));
    }
    Ok(Some(bundle.render()))
}

/// nginx follows a chain to its root and takes no authority in between for one.
fn stands_on_one(below: &CertificateFacts, all: &[CertificateFacts]) -> bool {
    all.iter().any(|above| above.subject == below.issuer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::model::SecretContent;
    use crate::secret::Sensitive;

    const ROOT: &str = include_str!("../pki/testdata/rsa-root.crt");
    const OTHER: &str = include_str!("../pki/testdata/company-root.crt");
    const LEAF: &str = include_str!("../pki/testdata/rsa-leaf.crt");

    fn spec(frontend: bool) -> PrivateRegistrySpec {
        let mut spec = json!({"tls": {"clientCASecretRef": {"name": "clients"}}});
        if frontend {
            spec["frontend"] = json!({"nginx": {}});
        }
        serde_json::from_value(spec).unwrap()
    }

    fn holding(text: &str) -> Observed {
        let content = SecretContent {
            uid: "uid".to_owned(),
            kind: "Opaque".to_owned(),
            resource_version: "1".to_owned(),
            data: BTreeMap::from([("ca.crt".to_owned(), Sensitive::new(text.as_bytes().to_vec()))]),
        };
        Observed { secrets: BTreeMap::from([("clients".to_owned(), Some(content))]), ..Observed::default() }
    }

    #[test]
    fn authorities_are_taken_as_they_are_and_nothing_else_with_them() {
        assert_eq!(authorities(&PrivateRegistrySpec::default(), &Observed::default()), Ok(None));
        let found = authorities(&spec(true), &holding(&format!("who signs for us\n{ROOT}{OTHER}"))).unwrap().unwrap();
        assert_eq!(Bundle::read(&found).facts().len(), 2);
        assert!(!found.contains("who signs"), "{found}");
    }

    #[test]
    fn what_cannot_be_used_is_named_and_lets_nobody_in() {
        let broken = ROOT.replace("MII", "M!!");
        for (observed, reason, words) in [
            (
                Observed::default(),
                "WaitingForSecret",
                "Secret clients, named in spec.tls.clientCASecretRef, does not exist",
            ),
            (Observed { unread: ["clients".to_owned()].into(), ..Observed::default() }, "ReadFailed", "tried again"),
            (holding(""), "ClientCaUnusable", "key ca.crt must hold"),
            (holding(&format!("{OTHER}{broken}")), "ClientCaUnusable", "nothing broken"),
            (holding(LEAF), "ClientCaUnusable", "is no authority"),
        ] {
            let blocked = authorities(&spec(true), &observed).unwrap_err();
            assert_eq!(blocked.reason, reason);
            assert!(blocked.message.contains(words), "{}", blocked.message);
        }
        assert!(authorities(&spec(false), &holding(ROOT)).unwrap_err().message.contains("spec.frontend.nginx"));
    }
}
