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
use crate::access::report::Standing;

/// How long both answers may take together.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const LARGEST: usize = 512 << 10;

/// Why keys cannot be had.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// In one word, for the operator.
    pub(super) standing: Standing,
    /// For who looks after the registry.
    pub(super) why: String,
}

fn failure(standing: Standing, why: impl Into<String>) -> Failure {
    Failure { standing, why: why.into() }
}

/// The keys that an issuer publishes. `authority`: who signs its certificate, PEM; `None`: a public authority.
///
/// # Errors
/// They cannot be had.
pub(super) async fn keys(issuer: &str, authority: Option<&str>) -> Result<KeySet, Failure> {
    let asked = tokio::time::timeout(PATIENCE, ask(issuer, authority)).await;
    let late = || format!("{issuer} did not answer within {} s", PATIENCE.as_secs());
    asked.unwrap_or_else(|_| Err(failure(Standing::Unreachable, late())))
}

async fn ask(issuer: &str, authority: Option<&str>) -> Result<KeySet, Failure> {
    let unusable = |why: String| failure(Standing::Unusable, why);
    let tls = tls(authority).map_err(|why| failure(Standing::Untrusted, why))?;
    let document = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let found: Value =
        serde_json::from_slice(&get(&tls, &document).await?).map_err(|_| unusable(format!("{document} is no JSON")))?;
    if found["issuer"].as_str() != Some(issuer) {
        return Err(unusable(format!(
            "{document} is of another issuer than spec.auth.token.issuers[].issuer; write it as it stands there"
        )));
    }
    let address = found["jwks_uri"].as_str().ok_or_else(|| unusable(format!("{document} has no jwks_uri")))?;
    KeySet::read(&get(&tls, address).await?).ok_or_else(|| unusable(format!("{address} holds no key that can be used")))
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

async fn get(tls: &Arc<ClientConfig>, address: &str) -> Result<Bytes, Failure> {
    let unusable = |why: String| failure(Standing::Unusable, why);
    let uri: Uri = address.parse().map_err(|_| unusable(format!("{address:?} is no address")))?;
    let connector = HttpsConnectorBuilder::new().with_tls_config((**tls).clone()).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(connector);
    let request = Request::get(&uri).header(ACCEPT, "application/json").body(Empty::new());
    let request = request.map_err(|_| unusable(format!("{address:?} is no address")))?;
    let answer = client.request(request).await.map_err(|error| {
        let standing = if is_about_trust(&error) { Standing::Untrusted } else { Standing::Unreachable };
        failure(standing, format!("{address} cannot be reached: {}", causes(&error)))
    })?;
    let status = answer.status();
    if status != StatusCode::OK {
        // What fails now may not fail in a minute.
        let standing = if status.is_server_error() { Standing::Unreachable } else { Standing::Unusable };
        return Err(failure(standing, format!("{address} answers {}", status.as_u16())));
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    Ok(body.map_err(|_| unusable(format!("{address} broke off, or says more than {LARGEST} bytes")))?.to_bytes())
}

/// Whether there was somebody whose certificate does not count.
fn is_about_trust(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // What such an error holds is not its source, but has one.
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    false
}

/// The last cause says most.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
