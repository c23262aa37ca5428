//! What users bring along: certificates of their own, and claims.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa, KeyPair,
};
use serde_json::{Value, json};

use crate::cluster::Namespace;
use crate::object::Object;
use crate::wait::PATIENCE;

/// A certificate with its chain, its key and its authority, PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
    pub authority: String,
}

/// Issues a certificate for these names, signed by an authority of its own.
pub fn issue(names: &[&str]) -> Pair {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    Pair { certificate: leaf.pem(), key: key.serialize_pem(), authority: authority.pem() }
}

/// The data of a Secret with a CA of somebody's own, changed like this.
pub fn company_ca(change: impl FnOnce(&mut CertificateParams)) -> Value {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "Company CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    json!({"tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(key.serialize_pem())})
}

/// An authority that somebody else runs.
pub struct Company(pub CertifiedIssuer<'static, KeyPair>);

impl Company {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Company");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn root(&self) -> String {
        self.0.pem().replace('\r', "")
    }

    /// Signs what is asked for, from now for so long, and gives the root with it.
    pub fn signs(&self, request: &str, life: SignedDuration) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        let date = |at: Timestamp| time::OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap();
        request.params.not_before = date(Timestamp::now() - SignedDuration::from_mins(5));
        request.params.not_after = date(Timestamp::now() + life);
        request.signed_by(&self.0).unwrap().pem() + &self.root()
    }
}

pub const DAY: SignedDuration = SignedDuration::from_hours(24);

impl Namespace {
    /// A Secret with a certificate of the user's own.
    pub async fn own_certificate(&self, secret: &str, names: &[&str]) -> Pair {
        let pair = issue(names);
        self.secret(secret, &[("tls.crt", &pair.certificate), ("tls.key", &pair.key), ("ca.crt", &pair.authority)])
            .await;
        pair
    }

    /// A claim that somebody made, bound.
    pub async fn claim(&self, name: &str, mode: &str) -> Object {
        let spec = json!({"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}});
        let claim =
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec});
        let claim = self.create(claim).await;
        claim.becomes(PATIENCE, "is bound", |claim| claim["status"]["phase"] == "Bound").await;
        claim
    }
}
