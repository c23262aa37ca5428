//! `csr`: the request for a certificate, to have it signed by a CA that somebody else runs.

use anyhow::{Result, bail};
use private_registry_operator::api::{CertificateSigningRequestTls, PrivateRegistry};
use private_registry_operator::model::RegistryName;

use crate::cluster::{self, Place, Registry};
use crate::shell;

/// Options of `csr`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let found = registry.read().await?;
        asks(&registry, &found)?;
        shell::print(&present(&registry).await?);
        Ok(())
    })
}

/// What its manifest says of requests, if it asks anybody.
pub(crate) fn asks(registry: &Registry, found: &PrivateRegistry) -> Result<CertificateSigningRequestTls> {
    if found.metadata.deletion_timestamp.is_some() {
        bail!("{} is being deleted", registry.title());
    }
    let tls = found.spec.tls.clone().unwrap_or_default();
    if let Some(asked) = tls.cert_manager {
        bail!(
            "{} asks cert-manager for its certificate, whose answer the operator takes itself: while issuer {} has not answered, kubectl --namespace {} \
             describe certificaterequest {}-csr shows the request",
            registry.title(),
            asked.issuer_ref.name,
            registry.namespace,
            registry.name
        )
    }
    let Some(asked) = tls.certificate_signing_request else {
        bail!(
            "{} asks nobody for a certificate: its manifest needs spec.tls.certificateSigningRequest: {{}}",
            registry.title()
        )
    };
    Ok(asked)
}

/// The request that there is now.
pub(crate) async fn present(registry: &Registry) -> Result<String> {
    match registry.request().await? {
        Some(request) if !request.is_empty() => Ok(request),
        _ => bail!(
            "{} has no request yet: its condition CertificateReady says what is waited for (kubectl --namespace {} get privateregistry {} -o yaml)",
            registry.title(),
            registry.namespace,
            registry.name
        ),
    }
}
