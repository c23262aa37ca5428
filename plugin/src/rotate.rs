//! `rotate`: asks the operator for a new serving certificate, or for a new authority.

use anyhow::{Result, bail};
use clap::ValueEnum;
use jiff::Timestamp;
use private_registry_operator::api::{PrivateRegistry, TlsSpec, annotation};
use private_registry_operator::model::{Issuer, RegistryName};

use crate::cluster::{self, Place, Registry};
use crate::shell;

/// Options of `rotate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What is to be new
    what: What,
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// With ca: the new one signs at once, and the present one is trusted no longer
    #[arg(long)]
    now: bool,
    /// Ask no questions
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The authority: published first, so that clients can learn of it, signing later
    Ca,
    /// The serving certificate; what clients trust stays
    Leaf,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.now && options.what == What::Leaf {
        bail!("--now is for ca: a new serving certificate comes at once anyway");
    }
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let found = registry.read().await?;
        refuse(&registry, &found, options.what)?;
        if options.now {
            let consequence = format!(
                "{}: every client that trusts the present authority, nodes too, can neither pull nor push from now on, until it has the \
                 new one (kubectl registry trust). Go on?",
                registry.title()
            );
            shell::confirm(&consequence, options.yes)?;
        }
        let value = request(options.what, options.now, Timestamp::now());
        registry.annotate(annotation::RENEW, &value).await?;
        shell::print(&told(&registry, &found, options, &value));
        Ok(())
    })
}

/// What stands in the way for good.
fn refuse(registry: &Registry, found: &PrivateRegistry, what: What) -> Result<()> {
    if found.metadata.deletion_timestamp.is_some() {
        bail!("{} is being deleted", registry.title());
    }
    let tls = found.spec.tls.clone().unwrap_or_default();
    if let Some(secret) = tls.secret {
        bail!(
            "{} serves a certificate of your own: put the new one into the Secret {}; it is taken at once",
            registry.title(),
            secret.name
        );
    }
    if (tls.certificate_signing_request.is_some() || tls.cert_manager.is_some()) && what == What::Ca {
        bail!(
            "{} has its certificate signed by somebody else, who decides about the authority: rotate leaf asks for another certificate",
            registry.title()
        );
    }
    if tls.none.is_some() {
        bail!("{} has no certificate: its manifest says spec.tls.none", registry.title());
    }
    Ok(())
}

/// A value that no request had before.
fn request(what: What, now: bool, at: Timestamp) -> String {
    let kind = match (what, now) {
        (What::Leaf, _) => "leaf",
        (What::Ca, false) => "ca",
        (What::Ca, true) => "ca-now",
    };
    format!("{kind}-{}", at.strftime("%Y%m%dT%H%M%SZ"))
}

/// Who does what after the request is made, if somebody else signs.
fn signing(registry: &Registry, tls: &TlsSpec) -> Option<String> {
    let (space, name) = (&registry.namespace, &registry.name);
    if let Some(asked) = &tls.cert_manager {
        let issuer = &asked.issuer_ref;
        let kind = issuer.kind.as_deref().unwrap_or(Issuer::KIND);
        return Some(format!("Then {kind} {} signs it; what is served goes on meanwhile.\n", issuer.name));
    }
    Some(match &tls.certificate_signing_request.as_ref()?.signer_name {
        Some(signer) => {
            format!("Then somebody has to approve it, and {signer} to sign it; what is served goes on meanwhile.\n")
        }
        None => format!(
            "Then have it signed: kubectl registry csr {name} --namespace {space}. What is served goes on until kubectl registry set-certificate.\n"
        ),
    })
}

/// What was asked for, and how to see what becomes of it.
fn told(registry: &Registry, found: &PrivateRegistry, options: &Options, value: &str) -> String {
    let (space, name) = (&registry.namespace, &registry.name);
    let trust = format!("kubectl registry trust {name} --namespace {space}");
    let asked_for = found.spec.tls.as_ref().and_then(|tls| signing(registry, tls));
    let (asked, done, then) = match (options.what, options.now, asked_for) {
        (What::Leaf, _, Some(signing)) => ("a new serving certificate", "The request for it is made", signing),
        (What::Leaf, _, None) => ("a new serving certificate", "It is issued", String::new()),
        (What::Ca, false, _) => (
            "a new authority",
            "It is published, beside the present one,",
            format!("Then let clients and nodes trust it ({trust}): it signs when its grace period is over.\n"),
        ),
        (What::Ca, true, _) => (
            "a new authority in place of the present one",
            "It signs",
            format!("Clients and nodes need it from then on: {trust}\n"),
        ),
    };
    let annotations = found.metadata.annotations.clone().unwrap_or_default();
    let paused = annotations.get(annotation::PAUSED).is_some_and(|paused| paused == "true");
    let paused = if paused {
        "The registry is paused: this waits until the annotation privateregistry.dev/paused is gone.\n"
    } else {
        ""
    };
    let handled = found.status.as_ref().and_then(|status| status.handled_renew_request.as_ref());
    let replaced = annotations.get(annotation::RENEW).filter(|earlier| Some(*earlier) != handled);
    let replaced = replaced.map_or(String::new(), |earlier| {
        format!("An earlier request, {earlier}, was not done yet; this one takes its place.\n")
    });
    format!(
        "{}: asked for {asked} ({value}).\n{paused}{replaced}\
         {done} when this ends:\n  \
         kubectl --namespace {space} wait privateregistry/{name} --for=jsonpath='{{.status.handledRenewRequest}}'={value} --timeout=10m\n\
         {then}How it stands:\n  \
         kubectl --namespace {space} get privateregistry {name} --output jsonpath='{{.status.conditions[?(@.type==\"CertificateReady\")].message}}'\n",
        registry.title()
    )
}

#[cfg(test)]
mod tests {
    use private_registry_operator::pki::policy::Request;

    use super::*;

    #[test]
    fn each_request_is_one_that_the_operator_understands_and_that_nobody_made_before() {
        let at: Timestamp = "2026-11-29T11:00:00.5Z".parse().unwrap();
        for (what, now, value, meant) in [
            (What::Leaf, false, "leaf-20261129T110000Z", Request::Leaf),
            (What::Ca, false, "ca-20261129T110000Z", Request::Authority),
            (What::Ca, true, "ca-now-20261129T110000Z", Request::AuthorityNow),
        ] {
            assert_eq!(request(what, now, at), value);
            assert_eq!(Request::of(Some(value)), meant);
        }
    }
}
