//! Certificates that end, and certificates that are wrong.

use k8s_openapi::api::apps::v1::ReplicaSet;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;

use crate::cluster::{Cluster, SHORT_LIVES, brief, cluster, stays};
use crate::registry::{Registry, restarts};

#[tokio::test]
async fn a_certificate_is_renewed_by_itself_and_clients_notice_nothing_but_one_rollout() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry(SHORT_LIVES, "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "kept").await;
    let before = (registry.pod().await, registry.status().await.certificate.unwrap());

    registry.successor_of(&before.0).await;
    let after = registry.is("Settled").await;

    assert_eq!(after.status, "True");
    let served = registry.status().await.certificate.unwrap();
    assert_ne!(served.serial, before.1.serial);
    assert_eq!(served.authorities, before.1.authorities, "the same authority");
    assert_eq!(rollouts(&registry).await, 2, "the first, and one for the new certificate");
    assert_eq!(admin.pulls("team/app:1").await, pushed, "by the same client, who trusts the same authority");
}

#[tokio::test]
async fn a_new_certificate_can_be_asked_for_and_is_made_once() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("requests", "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    let before = (registry.pod().await, registry.status().await.certificate.unwrap());

    registry.annotate("privateregistry.dev/renew", "leaf").await;
    let pod = registry.successor_of(&before.0).await;
    registry.is("Settled").await;

    let served = registry.status().await.certificate.unwrap();
    assert_ne!(served.serial, before.1.serial);
    assert_eq!(admin.sees("/v2/").await, "200");
    stays("one request makes one certificate", async || {
        let now = registry.status().await.certificate.unwrap().serial;
        if now == served.serial && rollouts(&registry).await == 2 { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(registry.pod().await.metadata.uid, pod.metadata.uid);
}

#[tokio::test]
async fn a_certificate_of_ones_own_with_a_wrong_key_is_refused_while_the_old_one_serves() {
    let Some(cluster) = cluster().await else { return };
    cluster.namespace("own").await;
    let company = Company::new();
    let (old, new) = (company.signs("team-a.own.svc"), company.signs("team-a.own.svc"));
    company.hands_out(&cluster, &old.0, &old.1).await;
    let spec = json!({"tls": {"secret": {"name": "own"}}, "addresses": ["team-a.own.svc"]});
    let registry = cluster.another("own", "team-a", spec).await.ready().await;
    let (admin, pod) = (registry.admin().await.trusting(&company.authority), registry.pod().await);
    let serial = registry.status().await.certificate.unwrap().serial;
    assert_eq!(admin.sees("/v2/").await, "200");

    company.hands_out(&cluster, &new.0, &old.1).await;
    let refused = registry.condition("CertificateReady", "KeyMismatch").await;
    assert!(refused.message.contains("Secret own") && refused.message.contains("still served"), "{}", refused.message);
    stays("the old one is served by the same pod", async || {
        let now = registry.pod().await;
        let same = now.metadata.uid == pod.metadata.uid && restarts(&now) == 0 && admin.sees("/v2/").await == "200";
        if same { Ok(()) } else { Err(brief(&[now])) }
    })
    .await;
    assert_eq!(registry.status().await.certificate.unwrap().serial, serial);

    company.hands_out(&cluster, &new.0, &new.1).await;
    registry.successor_of(&pod).await;
    registry.is("Settled").await;
    assert_ne!(registry.status().await.certificate.unwrap().serial, serial);
    assert_eq!(admin.sees("/v2/").await, "200");
}

#[tokio::test]
async fn a_certificate_by_an_intermediate_is_trusted_by_who_knows_the_root_alone() {
    let Some(cluster) = cluster().await else { return };
    cluster.namespace("chain").await;
    let root = Company::new();
    let servers = root.department();
    let (leaf, key) = servers.signs("team-a.chain.svc");
    let content =
        [("tls.crt", format!("{leaf}{}", servers.authority)), ("tls.key", key), ("ca.crt", root.authority.clone())];
    cluster.secret("chain", "own", &content.each_ref().map(|(name, value)| (*name, value.as_str()))).await;

    let spec = json!({"tls": {"secret": {"name": "own"}}, "addresses": ["team-a.chain.svc"]});
    let registry = cluster.another("chain", "team-a", spec).await.ready().await;

    assert_eq!(registry.bundle().await.trim(), root.authority.trim());
    let admin = registry.admin().await.trusting(&root.authority);
    let pushed = admin.pushes("team/app:1", "by an intermediate").await;
    assert_eq!(admin.pulls("team/app:1").await, pushed);
    assert_eq!(registry.condition("Available", "Answering").await.status, "True");
}

/// A company that signs certificates itself.
pub(crate) struct Company {
    pub(crate) authority: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Company {
    pub(crate) fn new() -> Self {
        let (params, key) = Self::named("Company");
        Self { authority: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    /// An intermediate.
    fn department(&self) -> Self {
        let (params, key) = Self::named("Company Servers");
        Self { authority: params.signed_by(&key, &self.issuer).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    fn named(name: &str) -> (CertificateParams, KeyPair) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        (params, KeyPair::generate().unwrap())
    }

    /// Certificate and key.
    pub(crate) fn signs(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = vec![host.to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    async fn hands_out(&self, cluster: &Cluster, certificate: &str, key: &str) {
        let content = [("tls.crt", certificate), ("tls.key", key), ("ca.crt", &self.authority)];
        cluster.secret("own", "own", &content).await;
    }
}

/// How often pods were made from a new template.
async fn rollouts(registry: &Registry) -> usize {
    registry.own::<ReplicaSet>().list(&Default::default()).await.unwrap().items.len()
}
