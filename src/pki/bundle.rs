//! The public file of authorities that clients must trust now: the present one, and earlier ones that are still valid.
//! `Bundle::read(stored).with(present authority).without_expired(now)` is what to publish.
//! Only ever certificates: whatever else a text holds, such as a key, is left behind.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;

use super::facts::{self, CertificateFacts};
use super::pem;

/// Certificates in a stable order, each once.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Bundle(Vec<CertificateDer<'static>>);

impl Bundle {
    /// Reads every certificate of a text, in order. A text without one, or a broken one, is an empty bundle: what can't be
    /// read must not stop a new authority from being published.
    ///
    /// Read it from the registry's TLS Secret, not from the public ConfigMap: more people may write that, and what is read
    /// here is published again. Where it must be the ConfigMap, [`Bundle::only`] takes what is known from elsewhere.
    pub fn read(text: &str) -> Self {
        let mut bundle = Self::default();
        for certificate in pem::certificates(text.as_bytes()).unwrap_or_default() {
            if facts::parse(&certificate).is_ok() && !bundle.0.contains(&certificate) {
                bundle.0.push(certificate);
            }
        }
        bundle
    }

    /// The same, but all of it or nothing: `None` if anything is broken, or if there is no certificate.
    pub fn read_all(text: &str) -> Option<Self> {
        let found = pem::certificates(text.as_bytes())?;
        found.iter().all(|certificate| facts::parse(certificate).is_ok()).then(|| Self::read(text))
    }

    /// The text, empty for an empty bundle.
    pub fn render(&self) -> String {
        pem::render(&self.0)
    }

    /// With the certificates of `text` in it: new ones in front, known ones where they are.
    pub fn with(self, text: &str) -> Self {
        let mut bundle = Self::read(text);
        bundle.0.retain(|certificate| !self.0.contains(certificate));
        bundle.0.extend(self.0);
        bundle
    }

    /// Without the certificates of `text`.
    pub fn without(mut self, text: &str) -> Self {
        let unwanted = Self::read(text);
        self.0.retain(|certificate| !unwanted.0.contains(certificate));
        self
    }

    /// Those with one of these fingerprints ([`CertificateFacts::fingerprint`]).
    pub fn only(mut self, fingerprints: &[&str]) -> Self {
        self.0.retain(|certificate| {
            let facts = facts::parse(certificate).map(|parsed| CertificateFacts::of(&parsed));
            facts.is_ok_and(|facts| fingerprints.contains(&facts.fingerprint.as_str()))
        });
        self
    }

    /// Without those whose time is over.
    pub fn without_expired(mut self, now: Timestamp) -> Self {
        self.0.retain(|certificate| {
            facts::parse(certificate).is_ok_and(|parsed| now < CertificateFacts::of(&parsed).not_after)
        });
        self
    }

    /// What each certificate says, in order, and whether it is at the end of this chain: whether it signed its last certificate, or is
    /// that certificate.
    pub fn signing(&self, chain: &str) -> Vec<(CertificateFacts, bool)> {
        let chain = pem::certificates(chain.as_bytes()).unwrap_or_default();
        let chain: Vec<_> = chain.iter().filter_map(|link| facts::parse(link).ok()).collect();
        let authorities = self.0.iter().filter_map(|certificate| facts::parse(certificate).ok());
        authorities
            .map(|authority| {
                let signs = chain.iter().any(|link| {
                    link.as_raw() == authority.as_raw()
                        || link.issuer().as_raw() == authority.subject().as_raw()
                            && link.verify_signature(Some(authority.public_key())).is_ok()
                });
                (CertificateFacts::of(&authority), signs)
            })
            .collect()
    }

    /// Each certificate by itself, in order.
    pub fn each(&self) -> Vec<Self> {
        self.0.iter().map(|certificate| Self(vec![certificate.clone()])).collect()
    }

    /// What each certificate says, in order.
    pub fn facts(&self) -> Vec<CertificateFacts> {
        let parsed = self.0.iter().filter_map(|certificate| facts::parse(certificate).ok());
        parsed.map(|certificate| CertificateFacts::of(&certificate)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::pki::AuthorityProfile;
    use crate::pki::issue::issue_authority;
    use crate::pki::testing::{DAY, authority_profile, handshake, now, pair};

    /// Authorities whose lives are 1, 2, 3, … days.
    static AUTHORITIES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let authority = |days| {
            let profile = AuthorityProfile { duration: DAY * days, ..authority_profile() };
            issue_authority(&profile, now()).unwrap().certificate_pem
        };
        (1..=5).map(authority).collect()
    });

    fn bundle(places: &[usize]) -> Bundle {
        Bundle::read(&places.iter().map(|place| AUTHORITIES[*place].as_str()).collect::<String>())
    }

    #[test]
    fn the_authority_that_signs_is_told_from_former_ones() {
        let ((old, old_leaf), (new, new_leaf)) = (pair(), pair());
        let bundle = Bundle::read(&old.certificate_pem).with(&new.certificate_pem);
        let signing = |chain: &str| bundle.signing(chain).into_iter().map(|(_, signs)| signs).collect::<Vec<_>>();
        assert_eq!(signing(&new_leaf.chain_pem), [true, false]);
        assert_eq!(signing(&old_leaf.chain_pem), [false, true]);
        assert_eq!(signing(""), [false, false]);
    }

    #[test]
    fn while_an_authority_is_replaced_clients_accept_the_old_leaf_and_the_new_one() {
        let ((old, old_leaf), (new, new_leaf)) = (pair(), pair());
        let published = Bundle::read(&old.certificate_pem).with(&new.certificate_pem).without_expired(now()).render();

        for leaf in [old_leaf, new_leaf] {
            handshake(&leaf, &published, "team-a", now()).unwrap();
        }
    }

    #[test]
    fn a_new_authority_comes_first_and_a_known_one_stays_where_it_is() {
        assert_eq!(bundle(&[1, 2]).with(&AUTHORITIES[0]), bundle(&[0, 1, 2]));
        assert_eq!(bundle(&[1, 2]).with(&AUTHORITIES[2]), bundle(&[1, 2]));
        assert_eq!(Bundle::default().with(&AUTHORITIES[0]), bundle(&[0]));
        assert_eq!(bundle(&[1]).with("rubbish"), bundle(&[1]));
    }

    #[test]
    fn an_authority_stays_until_the_second_of_its_end() {
        let ends = bundle(&[0]).facts()[0].not_after;
        let second = jiff::SignedDuration::from_secs(1);

        assert_eq!(bundle(&[1, 0, 2]).without_expired(ends - second), bundle(&[1, 0, 2]));
        assert_eq!(bundle(&[1, 0, 2]).without_expired(ends), bundle(&[1, 2]));
    }

    #[test]
    fn nothing_but_certificates_is_ever_published() {
        let key = include_str!("testdata/p256.key");
        let text = format!("words\n{}{key}{}", AUTHORITIES[0], AUTHORITIES[1]);

        assert_eq!(Bundle::read(&text).render(), format!("{}{}", AUTHORITIES[0], AUTHORITIES[1]));
        for unreadable in ["", "words", key, "-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"] {
            assert_eq!(Bundle::read(unreadable).render(), "", "{unreadable}");
        }
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_back(places in prop::collection::vec(0usize..5, 0..10)) {
            let bundle = bundle(&places);
            prop_assert_eq!(Bundle::read(&bundle.render()), bundle);
        }

        #[test]
        fn each_certificate_is_there_once_in_the_order_of_its_first_mention(
            places in prop::collection::vec(0usize..5, 0..10),
        ) {
            let mut first = Vec::new();
            places.iter().for_each(|place| if !first.contains(place) { first.push(*place) });

            let expected: String = first.iter().map(|place| AUTHORITIES[*place].as_str()).collect();
            prop_assert_eq!(bundle(&places).render(), expected);
        }
    }
}
