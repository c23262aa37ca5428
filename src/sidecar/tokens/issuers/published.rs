//! Asks an issuer for its keys, as OpenID Connect Discovery has it: the address of the keys stands in a document at a known path. Only over TLS, following nobody
//! elsewhere, and with a limit for everything that the issuer says.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use crate::access::jwt::KeySet;

/// How long both answers may take together.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const LARGEST: usize = 512 << 10;

/// The keys that an issuer publishes. `authority`: who signs its certificate, PEM; `None`: a public authority.
///
/// # Errors
/// They cannot be had; why, in words for who looks after the registry.
pub(super) async fn keys(issuer: &str, authority: Option<&str>) -> Result<KeySet, String> {
    let asked = tokio::time::timeout(PATIENCE, ask(issuer, authority)).await;
    asked.unwrap_or_else(|_| Err(format!("{issuer} did not answer within {} s", PATIENCE.as_secs())))
}

async fn ask(issuer: &str, authority: Option<&str>) -> Result<KeySet, String> {
    let tls = tls(authority)?;
    let document = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let found: Value =
        serde_json::from_slice(&get(&tls, &document).await?).map_err(|_| format!("{document} is no JSON"))?;
    if found["issuer"].as_str() != Some(issuer) {
        return Err(format!(
            "{document} is of another issuer than spec.auth.token.issuers[].issuer; write it as it stands there"
        ));
    }
    let address = found["jwks_uri"].as_str().ok_or_else(|| format!("{document} has no jwks_uri"))?;
    KeySet::read(&get(&tls, address).await?).ok_or_else(|| format!("{address} holds no key that can be used"))
}

fn tls(authority: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some(pem) => {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            roots.add_parsable_certificates(all.unwrap_or_default());
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    if roots.is_empty() {
        return Err("certificateAuthority holds no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|error| error.to_string())?;
    Ok(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()))
}

async fn get(tls: &Arc<ClientConfig>, address: &str) -> Result<Bytes, String> {
    let uri: Uri = address.parse().map_err(|_| format!("{address:?} is no address"))?;
    let connector = HttpsConnectorBuilder::new().with_tls_config((**tls).clone()).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let request = Request::get(&uri).header(ACCEPT, "application/json").body(Empty::new());
    let request = request.map_err(|_| format!("{address:?} is no address"))?;
    let answer =
        client.request(request).await.map_err(|error| format!("{address} cannot be reached: {}", causes(&error)))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("{address} answers {}", answer.status().as_u16()));
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    Ok(body.map_err(|_| format!("{address} broke off, or says more than {LARGEST} bytes"))?.to_bytes())
}

/// The last cause says most.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
