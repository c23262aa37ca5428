//! Whom to trust, and under which names: from the cluster, or as the command line says.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use private_registry_operator::api::{Address, AddressScope, PrivateRegistry};
use private_registry_operator::model::HostPort;
use private_registry_operator::node::trust_files::{Mark, Owner, Trust};
use private_registry_operator::pki::Bundle;

use crate::cluster::Registry;

/// A registry, as somebody who pulls from it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) owner: Owner,
    pub(super) authorities: Bundle,
    pub(super) names: Vec<Name>,
}

/// What image names begin with, and where that is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) host: HostPort,
    /// Another one than the host where nodes do not resolve that.
    pub(super) endpoint: HostPort,
}

impl Name {
    fn plain(host: HostPort) -> Self {
        Self { endpoint: host.clone(), host }
    }

    /// Whether the host itself can be reached.
    pub(super) fn is_plain(&self) -> bool {
        self.host == self.endpoint
    }
}

impl Subject {
    /// As the cluster says; `hosts`, if there are any, take the place of the addresses that it knows.
    pub(super) async fn in_cluster(registry: &Registry, hosts: &[HostPort]) -> Result<Self> {
        let found = registry.read().await?;
        let Some(text) = registry.bundle().await? else { bail!("{}", no_bundle(registry, &found)) };
        let status = found.status.unwrap_or_default();
        let names = match hosts {
            [] => names(&status.addresses),
            hosts => hosts.iter().cloned().map(Name::plain).collect(),
        };
        if names.is_empty() {
            bail!("{} has no address yet: try again when it is Ready, or give --address", registry.title());
        }
        let owner = Owner::new(Some(&registry.namespace), registry.name.clone());
        let source = format!("the ConfigMap {}-ca-bundle of {}", registry.name, registry.title());
        Ok(Self { owner, authorities: authorities(&text, &source)?, names })
    }

    /// Without a cluster.
    pub(super) fn given(owner: Owner, file: &Path, hosts: &[HostPort]) -> Result<Self> {
        if hosts.is_empty() {
            bail!("say with --address for which hosts {} is to be trusted", file.display());
        }
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let names = hosts.iter().cloned().map(Name::plain).collect();
        Ok(Self { owner, authorities: authorities(&text, &file.display().to_string())?, names })
    }

    /// One for each name.
    pub(super) fn trusts(&self) -> impl Iterator<Item = Trust> {
        self.names.iter().map(|Name { host, endpoint }| Trust {
            mark: Mark::of_a_person(self.owner.clone()),
            host: host.clone(),
            endpoint: endpoint.clone(),
            authorities: self.authorities.clone(),
        })
    }

    /// What to compare with what the registry's owner says, a line for each authority.
    pub(super) fn authorities_told(&self) -> String {
        let line = |facts: private_registry_operator::pki::CertificateFacts| {
            format!(
                "authority  {}, until {}, SHA-256 {}\n",
                facts.subject,
                facts.not_after.strftime("%Y-%m-%d"),
                facts.fingerprint
            )
        };
        self.authorities.facts().into_iter().map(line).collect()
    }
}

/// The addresses that this machine could reach. Names of Services lead to the Service's address: nodes do not resolve them.
fn names(addresses: &[Address]) -> Vec<Name> {
    let read = |scope: &[AddressScope]| {
        let of_scope = addresses.iter().filter(|address| scope.contains(&address.scope));
        of_scope.filter_map(|address| HostPort::parse(&address.address).ok()).collect::<Vec<_>>()
    };
    let service = read(&[AddressScope::Node]).into_iter().next();
    let mapped = read(&[AddressScope::Cluster]).into_iter();
    let mapped = mapped.filter_map(|host| Some(Name { host, endpoint: service.clone()? }));
    read(&[AddressScope::External, AddressScope::Node]).into_iter().map(Name::plain).chain(mapped).collect()
}

fn authorities(text: &str, source: &str) -> Result<Bundle> {
    let bundle = Bundle::read(text).without_expired(Timestamp::now());
    if bundle.facts().is_empty() {
        bail!("{source} holds no certificate that is still valid");
    }
    if let Some(leaf) = bundle.facts().into_iter().find(|facts| !facts.is_authority) {
        bail!("{source} holds {}, which is no authority: give the certificate that signed it", leaf.subject);
    }
    Ok(bundle)
}

fn no_bundle(registry: &Registry, found: &PrivateRegistry) -> String {
    let tls = found.spec.tls.clone().unwrap_or_default();
    let title = registry.title();
    if tls.none.is_some() {
        format!("{title} serves plain HTTP (spec.tls.none): there is nothing to trust")
    } else if let Some(secret) = tls.secret {
        format!(
            "{title} serves a certificate of your own, and the Secret {} has no ca.crt: give the authority with --ca FILE, or nothing \
             if systems know it anyway",
            secret.name
        )
    } else {
        format!("{title} has no certificate yet: try again when it is Ready")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_lead_to_an_address_that_nodes_reach() {
        let address = |scope, address: &str| Address { scope, address: address.to_owned() };
        let host = |text| HostPort::parse(text).unwrap();
        let external = address(AddressScope::External, "registry.example.com");
        let service = address(AddressScope::Node, "10.96.0.9:5000");
        let inside = address(AddressScope::Cluster, "a.b.svc:5000");
        let found = names(&[external.clone(), service, inside.clone()]);
        let mapped = Name { host: host("a.b.svc:5000"), endpoint: host("10.96.0.9:5000") };
        assert_eq!(found, [Name::plain(host("registry.example.com")), Name::plain(host("10.96.0.9:5000")), mapped]);
        assert_eq!(names(&[external, inside]).len(), 1, "a headless Service has no address to lead to");
    }

    #[test]
    fn what_is_no_address_becomes_no_path() {
        let address = Address { scope: AddressScope::External, address: "../../etc".to_owned() };
        assert_eq!(names(&[address]), []);
    }
}
