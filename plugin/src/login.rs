//! `login`: docker, podman and what is like them know a registry's login afterwards. It is tried first: what the registry refuses is not
//! written.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use http::StatusCode;
use private_registry_operator::api::{AddressScope, PrivateRegistry};

use crate::access::{Access, Opened};
use crate::cluster::{self, Registry};
use crate::docker_config::{DockerConfig, Keeper};
use crate::{shell, status};

/// Bytes of an answer that nobody reads.
const MOST_BYTES: usize = 64 << 10;

/// Options of `login`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// File for logins, as podman has it [default: $DOCKER_CONFIG/config.json, else ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let config = DockerConfig::find(options.authfile.as_deref())?;
        let Opened { registry, found, login, mut client } = options.access.open().await?;
        let title = registry.title();
        let Some(login) = login else {
            bail!("{title} needs no login: its manifest says spec.auth.none");
        };
        let address = match &options.access.address {
            Some(address) => address.to_string(),
            None => address(&registry, &found)?,
        };
        let answer = client.ask("/v2/", "application/json", MOST_BYTES).await.context("try the login")?;
        if answer.status == StatusCode::UNAUTHORIZED {
            let why = if options.access.names_a_user() {
                "the password is wrong, or there is no such user"
            } else {
                "its pods have not been told of the password yet, which takes two minutes at most"
            };
            bail!("{title} refuses {}: {why}. Nothing was written", login.user);
        }
        client.accepted(answer).context("try the login; nothing was written")?;
        let keeper = config.store(&address, &login).await?;
        shell::print(&format!("{title}: {} is logged in at {address}.\n", login.user));
        shell::print(&told(&found, &config, &keeper, &address));
        Ok(())
    })
}

/// What image names begin with.
pub(crate) fn address(registry: &Registry, found: &PrivateRegistry) -> Result<String> {
    let known = found.status.as_ref().and_then(|status| status.address.clone());
    known.with_context(|| {
        format!("{} has no address yet: try again when it is Ready, or give --address", registry.title())
    })
}

/// Where the login is now, and what else is needed to use it.
fn told(found: &PrivateRegistry, config: &DockerConfig, keeper: &Keeper, address: &str) -> String {
    let mut text = match keeper {
        Keeper::File => format!("It is in {}, in clear.\n", config.path().display()),
        Keeper::Helper(helper) => {
            format!("docker-credential-{helper} keeps it, as {} says.\n", config.path().display())
        }
    };
    let known = found.status.as_ref().map(|status| status.addresses.as_slice()).unwrap_or_default();
    let scope = known.iter().find(|known| known.address == address).map(|known| known.scope);
    if let Some(scope @ (AddressScope::Node | AddressScope::Cluster)) = scope {
        let _ = writeln!(
            text,
            "Note: {address} is reached from {} only. spec.addresses, spec.route or a Service of another type give it an address for others.",
            status::from(scope)
        );
    }
    let tls = found.spec.tls.clone().unwrap_or_default();
    let name = found.metadata.name.as_deref().unwrap_or_default();
    if tls.none.is_some() {
        text.push_str("Note: it speaks plain HTTP, which clients must be told to accept.\n");
    } else if tls.secret.is_none() {
        let space = found.metadata.namespace.as_deref().unwrap_or_default();
        let at = if scope.is_none() { format!(" --address {address}") } else { String::new() };
        let _ = writeln!(
            text,
            "Its authority must be trusted here, too: kubectl registry trust {name} --namespace {space}{at}"
        );
    }
    text
}
