//! `set-certificate`: what somebody signed on the registry's request is checked as the operator does it, and handed over.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use private_registry_operator::api::PrivateRegistry;
use private_registry_operator::model::{self, Observed, RegistryName, Resolved, Settings};
use private_registry_operator::pki::import::{self, Answer, Hosts};
use private_registry_operator::pki::request::RequestFacts;

use crate::cluster::{self, Place, Registry};
use crate::{csr, shell};

/// More than any chain has.
const LONGEST: u64 = 1 << 20;

/// Options of `set-certificate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// File with the certificate and its chain, PEM; - for standard input
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let chain = read(&options.filename)?;
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let found = registry.read().await?;
        let asked = csr::asks(&registry, &found)?;
        if let Some(signer) = asked.signer_name {
            bail!(
                "{} asks the signer {signer}, whose answer the operator takes itself: leave spec.tls.certificateSigningRequest.signerName out to \
                 bring certificates by hand",
                registry.title()
            );
        }
        let request = csr::present(&registry).await?;
        let authorities = match &asked.ca_bundle_secret_ref {
            Some(secret) => Some(registry.authorities(&secret.name).await?),
            None => None,
        };
        let answer = check(&registry, &found, &request, &chain, authorities.as_deref())?;
        let secret = registry.hand_over(&found, &answer.chain_pem).await?;
        shell::print(&told(&registry, &answer, &secret));
        Ok(())
    })
}

fn read(file: &PathBuf) -> Result<String> {
    let mut text = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().take(LONGEST).read_to_end(&mut text),
        _ => std::fs::File::open(file).and_then(|file| file.take(LONGEST).read_to_end(&mut text)),
    };
    read.with_context(|| format!("read {}", file.display()))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    if text.contains("PRIVATE KEY") {
        bail!(
            "{} holds a private key, which belongs to nobody but its owner; give the certificates alone",
            file.display()
        );
    }
    Ok(text)
}

/// What the operator would say of it.
fn check(
    registry: &Registry,
    found: &PrivateRegistry,
    request: &str,
    chain: &str,
    authorities: Option<&str>,
) -> Result<Answer> {
    let facts = RequestFacts::of_pem(request).with_context(|| {
        format!("read the request of {}: somebody has changed ConfigMap {}-csr", registry.title(), registry.name)
    })?;
    let resolved: Resolved = model::resolve(found, &Observed::default(), &Settings::default())
        .map_err(|blocked| anyhow::Error::msg(blocked.message))?;
    let (dns_names, ip_addresses) = resolved.written_hosts();
    let written = Hosts { dns_names: &dns_names, ip_addresses: &ip_addresses };
    let authorities = authorities.map(str::as_bytes);
    let refused = |error: import::ImportError| {
        let fetch = format!("kubectl registry csr {} --namespace {}", registry.name, registry.namespace);
        anyhow::Error::msg(format!("nothing was stored: {error} ({fetch} prints the present request)"))
    };
    import::check_answer(Some(chain.as_bytes()), &facts, authorities, written, Timestamp::now()).map_err(refused)
}

/// What was stored, and how to see what becomes of it.
fn told(registry: &Registry, answer: &Answer, secret: &str) -> String {
    let (space, name) = (&registry.namespace, &registry.name);
    let mut notes: Vec<_> = answer.notes.iter().map(|note| format!("Note: {note}.\n")).collect();
    if !answer.uncovered.is_empty() {
        let names = cluster::listed(&answer.uncovered);
        notes.push(format!("Note: who signed left out {names}: clients that use these names will refuse it.\n"));
    }
    format!(
        "{}: the certificate until {} is in Secret {secret}.\n{}It is served when this ends:\n  \
         kubectl --namespace {space} wait privateregistry/{name} --for=jsonpath='{{.status.certificate.serial}}'={} --timeout=10m\n",
        registry.title(),
        answer.facts.not_after,
        notes.concat(),
        answer.facts.serial
    )
}
