//! `logout`: takes a registry's logins out of where docker, podman and what is like them keep them.

use std::path::PathBuf;

use anyhow::Result;
use private_registry_operator::model::{HostPort, RegistryName};

use crate::access::address;
use crate::cluster::{self, Place};
use crate::docker_config::{DockerConfig, Keeper};
use crate::{login, shell};

/// Options of `logout`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// Only the login at this address; the cluster is not asked, so the registry may be gone
    #[arg(long, value_name = "HOST[:PORT]", value_parser = address)]
    address: Option<HostPort>,
    /// File of the logins, as podman has it [default: $DOCKER_CONFIG/config.json, else ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let config = DockerConfig::find(options.authfile.as_deref())?;
        let addresses = match &options.address {
            Some(address) => vec![address.to_string()],
            None => {
                let registry = options.place.registry(&options.name).await?;
                let found = registry.read().await?;
                let best = login::address(&registry, &found)?;
                let known = found.status.unwrap_or_default().addresses.into_iter().map(|known| known.address);
                [best.clone()].into_iter().chain(known.filter(|known| *known != best)).collect()
            }
        };
        let erased = config.erase(&addresses).await?;
        for (address, keeper) in &erased {
            let keeper = match keeper {
                Keeper::File => config.path().display().to_string(),
                Keeper::Helper(helper) => format!("docker-credential-{helper}"),
            };
            shell::print(&format!("The login at {address} was taken out of {keeper}.\n"));
        }
        if erased.is_empty() {
            let places = cluster::listed(&addresses);
            shell::print(&format!("There is no login at {places} in {}.\n", config.path().display()));
        }
        Ok(())
    })
}
