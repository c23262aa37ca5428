//! What leads to a registry: the API server's forwarding to one of its pods, which works wherever the cluster is reached, or a
//! connection of this machine's own. Encrypted alike, and the certificate is checked alike.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use operator_engine::process::api_error;
use private_registry_operator::desired::pod::PORT;
use private_registry_operator::model::{Host, HostPort};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::shown;

/// How long it may take until the other side is there.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection, whatever it is made of.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How a registry is reached.
pub(crate) trait Way {
    /// What it is called in messages.
    fn place(&self) -> String;
    /// What stands in the header `Host`.
    fn host(&self) -> String;
    /// A new connection.
    fn open(&self) -> impl Future<Output = Result<Box<dyn Stream>>> + Send;
}

/// A way through the cluster, or past it.
#[derive(Clone)]
pub(crate) enum Door {
    /// Through the API server to a pod.
    Pod {
        /// Those of the registry's namespace.
        api: Box<Api<Pod>>,
        /// The pod.
        pod: String,
        /// Names that the certificate may have, the likeliest first. There is one at least.
        names: Vec<HostPort>,
        /// `None` for plain HTTP.
        tls: Option<Arc<ClientConfig>>,
    },
    /// From this machine.
    Address {
        /// Where it is, and what its certificate must be for.
        at: HostPort,
        /// `None` for plain HTTP.
        tls: Option<Arc<ClientConfig>>,
    },
}

impl Door {
    /// The certificates that are shown there, the registry's own first, whoever signed them. Nothing is sent.
    pub(crate) async fn shown(&self) -> Result<Vec<CertificateDer<'static>>> {
        match self {
            Self::Address { at, .. } => {
                let stream = within("connect", dial(at, true)).await?;
                within("speak TLS", shown::chain(stream, server_name(at)?)).await
            }
            Self::Pod { api, pod, names, .. } => {
                let stream = within("forward the connection", forward(api, pod)).await?;
                let name = names.first().context("it has no name")?;
                within("speak TLS", shown::chain(stream, server_name(name)?)).await
            }
        }
    }
}

impl Way for Door {
    fn place(&self) -> String {
        match self {
            Self::Pod { pod, .. } => format!("pod {pod}"),
            Self::Address { at, .. } => at.to_string(),
        }
    }

    fn host(&self) -> String {
        match self {
            Self::Pod { names, .. } => names.first().map_or(String::new(), HostPort::to_string),
            Self::Address { at, .. } => at.to_string(),
        }
    }

    async fn open(&self) -> Result<Box<dyn Stream>> {
        match self {
            Self::Address { at, tls } => {
                let stream = within("connect", dial(at, tls.is_some())).await?;
                let Some(tls) = tls else { return Ok(Box::new(stream)) };
                match encrypted(stream, at, tls).await? {
                    Ok(stream) => Ok(stream),
                    Err(other) => bail!("{other}"),
                }
            }
            Self::Pod { api, pod, names, tls } => {
                let mut refused = "it has no name".to_owned();
                for name in names {
                    let stream = within("forward the connection", forward(api, pod)).await?;
                    let Some(tls) = tls else { return Ok(stream) };
                    match encrypted(stream, name, tls).await? {
                        Ok(stream) => return Ok(stream),
                        Err(other) => refused = other,
                    }
                }
                bail!("its certificate is for none of the registry's addresses: {refused}")
            }
        }
    }
}

async fn within<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| Err(anyhow!("nothing within {} s", PATIENCE.as_secs()))).context(what.to_owned())
}

async fn dial(at: &HostPort, is_encrypted: bool) -> Result<TcpStream> {
    let port = at.port().unwrap_or(if is_encrypted { 443 } else { 80 });
    Ok(match at.host() {
        Host::Name(name) => TcpStream::connect((name.as_str(), port)).await?,
        Host::Ip(ip) => TcpStream::connect((*ip, port)).await?,
    })
}

async fn forward(api: &Api<Pod>, pod: &str) -> Result<Box<dyn Stream>> {
    let port = u16::try_from(PORT).context("the registry's port")?;
    let forwarded = api.portforward(pod, &[port]).await;
    let mut forwarded = forwarded.map_err(|error| anyhow::Error::msg(refusal(&error)))?;
    Ok(Box::new(forwarded.take_stream(port).context("the API server forwards another port")?))
}

/// What stands in the way of a forwarded port.
fn refusal(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "{}; it takes the verbs get and create on pods/portforward. Or go there directly with --address",
            api_error::explain(error)
        ),
        kube::Error::UpgradeConnection(_) => {
            "the API server, or something before it, does not let WebSockets through: go there \
             directly with --address"
                .to_owned()
        }
        other => api_error::explain(other),
    }
}

/// What TLS calls a server.
fn server_name(at: &HostPort) -> Result<ServerName<'static>> {
    match at.host() {
        Host::Name(name) => ServerName::try_from(name.clone()).context("the registry's name"),
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
    }
}

/// The stream encrypted, for a server of this name; or, in words, why its certificate is for another one.
async fn encrypted(
    stream: impl Stream + 'static,
    name: &HostPort,
    tls: &Arc<ClientConfig>,
) -> Result<Result<Box<dyn Stream>, String>> {
    let server = server_name(name)?;
    let shaken = timeout(PATIENCE, TlsConnector::from(Arc::clone(tls)).connect(server, stream)).await;
    let shaken = shaken.map_err(|_| anyhow!("no TLS within {} s", PATIENCE.as_secs()))?;
    match shaken {
        Ok(stream) => Ok(Ok(Box::new(stream))),
        Err(error) => {
            let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match fault {
                Some(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(Err(format!("TLS: {error}"))),
                Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => bail!(
                    "TLS: its certificate is signed by none of the authorities that the registry is known by; somebody may \
                     stand between, or another authority signs there: give that one with --ca"
                ),
                _ => bail!("TLS: {error}"),
            }
        }
    }
}

/// Trust in the authorities of a PEM text, and in nobody else.
pub(crate) fn trusting(authorities: &str, source: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
        let certificate = certificate.map_err(|_| anyhow!("{source} is not the PEM text of certificates"))?;
        roots.add(certificate).map_err(|error| anyhow!("{source} holds what is no authority: {error}"))?;
    }
    if roots.is_empty() {
        bail!("{source} holds no certificate");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("choose versions of TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_needs_certificates() {
        for (text, words) in [
            ("", "the file holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "the file is not the PEM text"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "the file holds what is no authority"),
        ] {
            let error = trusting(text, "the file").unwrap_err().to_string();
            assert!(error.starts_with(words), "{text}: {error}");
        }
    }
}
