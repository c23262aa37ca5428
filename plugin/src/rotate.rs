//! `rotate`: asks the operator for a new serving certificate, or for a new authority.

use anyhow::{Result, bail};
use clap::ValueEnum;
use jiff::Timestamp;
use private_registry_operator::api::{PrivateRegistry, annotation};
use private_registry_operator::model::RegistryName;

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
    /// With ca: sign with the new authority at once, before clients have it
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
    /// The authority, and then the serving certificate
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
        refuse(&registry, &found)?;
        if options.now {
            let consequence = format!(
                "{}: whoever trusts the present authority alone can neither pull nor push from now on, until they have the new one \
                 (kubectl registry trust, nodes too). Go on?",
                registry.title()
            );
            shell::confirm(&consequence, options.yes)?;
        }
        let value = request(options.what, options.now, Timestamp::now());
        registry.annotate(annotation::RENEW, &value).await?;
        shell::print(&told(&registry, &found, options.what, &value));
        Ok(())
    })
}

/// What stands in the way for good.
fn refuse(registry: &Registry, found: &PrivateRegistry) -> Result<()> {
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

/// What was asked for, and how to see what becomes of it.
fn told(registry: &Registry, found: &PrivateRegistry, what: What, value: &str) -> String {
    let (space, name) = (&registry.namespace, &registry.name);
    let what = match what {
        What::Ca => "a new authority, and a serving certificate from it",
        What::Leaf => "a new serving certificate",
    };
    let annotations = found.metadata.annotations.clone().unwrap_or_default();
    let paused = annotations.get(annotation::PAUSED).is_some_and(|paused| paused == "true");
    let paused =
        if paused { "It is paused: this waits until the annotation privateregistry.dev/paused is gone.\n" } else { "" };
    let handled = found.status.as_ref().and_then(|status| status.handled_renew_request.as_ref());
    let replaced = annotations.get(annotation::RENEW).filter(|earlier| Some(*earlier) != handled);
    let replaced = replaced.map_or(String::new(), |earlier| {
        format!("An earlier request, {earlier}, was not done yet; this one takes its place.\n")
    });
    format!(
        "{}: asked for {what} ({value}).\n{paused}{replaced}\
         It is done when this ends:\n  \
         kubectl --namespace {space} wait privateregistry/{name} --for=jsonpath='{{.status.handledRenewRequest}}'={value} --timeout=10m\n\
         If it does not, this says why:\n  \
         kubectl --namespace {space} get privateregistry {name} --output jsonpath='{{.status.conditions[?(@.type==\"CertificateReady\")].message}}'\n",
        registry.title()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_a_value_that_the_operator_understands_and_that_no_other_had() {
        let at: Timestamp = "2026-11-29T11:00:00.5Z".parse().unwrap();
        assert_eq!(request(What::Leaf, false, at), "leaf-20261129T110000Z");
        assert_eq!(request(What::Ca, false, at), "ca-20261129T110000Z");
        assert_eq!(request(What::Ca, true, at), "ca-now-20261129T110000Z");
    }
}
