//! Whether a registry is available is found out by asking it, and asking holds up nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use testbed::fake_kubelet::Behaviour;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::cluster::namespace;
use crate::given::issue;
use crate::registry::Registry;
use crate::wait::{PATIENCE, for_this_machine, timed, within};

/// Something at the registry's address that answers every request with this status line, until it is dropped.
pub struct Answering(JoinHandle<()>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What takes connections with this certificate.
pub fn acceptor(certificate: &str, key: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

impl Registry<'_> {
    /// Where its Service is, which here is an address of this machine.
    async fn address(&self) -> SocketAddr {
        let address = self.service().at("/spec/clusterIP").await;
        SocketAddr::new(address.as_str().unwrap().parse().unwrap(), 5000)
    }

    /// Lets something answer at its address with this certificate.
    async fn answers(&self, certificate: &str, key: &str, status: &'static str) -> Answering {
        let acceptor = acceptor(certificate, key);
        let listener = TcpListener::bind(self.address().await).await.unwrap();
        Answering(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    if stream.read(&mut [0; 1024]).await.unwrap_or(0) == 0 {
                        return;
                    }
                    stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.ok();
                    stream.shutdown().await.ok();
                });
            }
        }))
    }

    /// Lets something answer there with the registry's own certificate.
    pub async fn serving(&self, status: &'static str) -> Answering {
        let (certificate, key) = (self.tls().decoded("tls.crt").await, self.tls().decoded("tls.key").await);
        self.answers(&certificate, &key, status).await
    }
}

#[tokio::test]
async fn available_means_that_it_answered_with_its_certificate_and_asks_for_a_login() {
    let Some(team) = namespace("available").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let words = registry.says("Available", "Unknown", "Unreachable").await;
    assert!(words.contains("127.96."), "{words}");

    let _server = registry.serving("401 Unauthorized").await;
    // Asked again every 15 seconds.
    registry.says_within(within(40), "Available", "True", "Answering").await;
}

#[tokio::test]
async fn a_registry_without_a_login_or_with_another_certificate_is_not_available() {
    let Some(team) = namespace("not-available").await else { return };
    let _operator = team.operator().await;
    let open = team.registry("open", json!({})).await.ready().await;
    let _open = open.serving("200 OK").await;
    let other = team.registry("other", json!({})).await.ready().await;
    let pair = issue(&["other"]);
    let _other = other.answers(&pair.certificate, &pair.key, "401 Unauthorized").await;

    let words = open.says_within(within(40), "Available", "False", "NotAnswering").await;
    assert!(words.contains("200 instead of 401"), "{words}");
    let words = other.says_within(within(40), "Available", "False", "NotAnswering").await;
    assert!(words.contains("certificate"), "{words}");
    open.says("Ready", "False", "NotAnswering").await;
}

#[tokio::test]
async fn what_ran_before_stays_available_and_keeps_what_it_mounts_while_the_manifest_cannot_be_followed() {
    let Some(team) = namespace("former").await else { return };
    let _operator = team.operator().await;
    let open = json!({"auth": {"none": {}}});
    let registry = team.registry("team-a", open.clone()).await;
    registry.tls().appears(PATIENCE).await;
    let _server = registry.serving("200 OK").await;
    registry.says_within(within(40), "Available", "True", "Answering").await;
    let (pods, configuration) = (registry.deployment().at("/spec").await, registry.child("Secret", "-config"));
    let mounted = configuration.at("/data").await;

    registry
        .apply(json!({"auth": {"users": [{"name": "alice", "passwordSecretRef": {"name": "absent"}}]}}))
        .await
        .unwrap();

    registry.says("Ready", "False", "WaitingForSecret").await;
    registry.says("Available", "True", "Answering").await;
    assert_eq!(registry.object.at("/status/readyReplicas").await, 1);
    assert_eq!(registry.deployment().at("/spec").await, pods);
    assert_eq!(configuration.at("/data").await, mounted, "its process may start again");

    team.cluster.pods_of("team-a", Behaviour::NotReady);
    registry.says("Available", "False", "NotRunning").await;
    team.cluster.pods_of("team-a", Behaviour::Ready);
    registry.apply(open).await.unwrap();
    registry.ready().await.says("Available", "True", "Answering").await;
}

#[tokio::test]
async fn a_registry_whose_manifest_cannot_be_followed_is_stopped_all_the_same() {
    let Some(team) = namespace("former-suspended").await else { return };
    let _operator = team.operator().await;
    let users = json!({"users": [{"name": "alice", "passwordSecretRef": {"name": "absent"}}]});
    let registry = team.registry("team-a", json!({"auth": {"none": {}}})).await.ready().await;
    registry.apply(json!({"auth": users})).await.unwrap();
    registry.says("Ready", "False", "WaitingForSecret").await;
    team.settles().await;
    let (_goes_on, claim) = (registry.deployment().uid().await, registry.claim().uid().await);

    registry.apply(json!({"auth": users, "suspend": true})).await.unwrap();

    registry.deployment().disappears(PATIENCE).await;
    registry.apply(json!({"auth": {"none": {}}})).await.unwrap();
    let registry = registry.ready().await;
    assert_eq!(registry.claim().uid().await, claim);
}

#[tokio::test]
async fn a_switch_to_a_certificate_that_is_missing_keeps_the_plain_registry_and_its_logins() {
    let Some(team) = namespace("former-plain").await else { return };
    let _operator = team.operator().await;
    let plain = json!({"tls": {"none": {}}});
    let registry = team.registry("team-a", plain.clone()).await.ready().await;
    team.settles().await;
    let mounted = (registry.child("Secret", "-config").at("/data").await, registry.htpasswd().uid().await);

    registry.apply(json!({"tls": {"secret": {"name": "absent"}}, "auth": {"none": {}}})).await.unwrap();

    registry.says("CertificateReady", "False", "WaitingForSecret").await;
    registry.says("Available", "Unknown", "Unreachable").await;
    team.settles().await;
    assert_eq!((registry.child("Secret", "-config").at("/data").await, registry.htpasswd().uid().await), mounted);
    registry.apply(plain).await.unwrap();
    registry.ready().await;
}

#[tokio::test]
async fn a_registry_that_hangs_holds_up_no_repair() {
    let Some(team) = namespace("hanging").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    // Connections are taken, and nothing is ever said.
    let _hanging = TcpListener::bind(registry.address().await).await.unwrap();
    team.settles().await;

    // One label after the other: the same one each time would be a fight.
    for label in ["name", "instance", "component", "part-of"] {
        let before = registry.service().at(&format!("/metadata/labels/app.kubernetes.io~1{label}")).await;
        registry
            .service()
            .edit(json!({"metadata": {"labels": {format!("app.kubernetes.io/{label}"): "drifted"}}}))
            .await;
        let ((), took) = timed(PATIENCE, "the label is repaired", async || {
            let now = registry.service().at(&format!("/metadata/labels/app.kubernetes.io~1{label}")).await;
            if now == before { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
        // Well below the time after which the operator gives up asking.
        assert!(
            took < for_this_machine(Duration::from_secs(1)).min(Duration::from_secs(2)),
            "repair of {label} took {took:?}"
        );
    }
}
