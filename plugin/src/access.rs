//! How a command gets at what is in a registry: which way leads there, whose authority is trusted, who logs in.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use operator_engine::process::flag_values;
use private_registry_operator::api::{AddressScope, PrivateRegistry, PrivateRegistryStatus};
use private_registry_operator::credentials::UserName;
use private_registry_operator::model::{Host, HostPort, RegistryName};

use crate::cluster::{self, Place, Registry};
use crate::registry_client::connection::{Door, trusting};
use crate::registry_client::reference::Reference;
use crate::registry_client::{Client, Login};
use crate::shell;

/// Options of every command that talks to a registry.
#[derive(Debug, clap::Args)]
pub(crate) struct Access {
    /// The registry
    #[arg(value_parser = cluster::name)]
    pub(crate) name: RegistryName,
    /// Log in as this user, whose password is asked for, instead of as the generated admin
    #[arg(short, long, value_name = "NAME", value_parser = user)]
    user: Option<UserName>,
    /// Read the password of --user from standard input
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// Go there directly, instead of through the cluster to a pod
    #[arg(long, value_name = "HOST[:PORT]", value_parser = address)]
    pub(crate) address: Option<HostPort>,
    /// The authority that signs there, in PEM, instead of those that the cluster knows
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// Options for a second registry, to which something goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Elsewhere {
    /// The registry where it goes, if it is another one
    #[arg(long, value_name = "[NAMESPACE/]NAME", value_parser = other)]
    to: Option<Other>,
    /// Log in there as this user, whose password is asked for, instead of as the generated admin
    #[arg(long, value_name = "NAME", value_parser = user, requires = "to")]
    to_user: Option<UserName>,
    /// Read the password of --to-user from standard input
    #[arg(long, requires = "to_user", conflicts_with = "password_stdin")]
    to_password_stdin: bool,
    /// Go there directly, instead of through the cluster to a pod
    #[arg(long, value_name = "HOST[:PORT]", value_parser = address, requires = "to")]
    to_address: Option<HostPort>,
    /// The authority that signs there, in PEM, instead of those that the cluster knows
    #[arg(long, value_name = "FILE", requires = "to")]
    to_ca: Option<PathBuf>,
    /// Context of the kubeconfig for the other registry's cluster
    #[arg(long, value_name = "NAME", requires = "to")]
    to_context: Option<String>,
}

/// A registry and one image of it.
#[derive(Debug, clap::Args)]
pub(crate) struct OneImage {
    #[command(flatten)]
    access: Access,
    /// The image, with or without an address of the registry before it; without tag and digest, its tag latest
    #[arg(value_name = "REPOSITORY[:TAG|@DIGEST]")]
    image: String,
}

impl OneImage {
    /// Opens the registry, and says which image of it is meant.
    pub(crate) async fn open(&self) -> Result<(Opened, Reference)> {
        let opened = self.access.open().await?;
        let reference = opened.reference(&self.image)?;
        Ok((opened, reference))
    }
}

/// A registry, in another namespace if one is given.
#[derive(Debug, Clone)]
struct Other {
    namespace: Option<String>,
    name: RegistryName,
}

fn other(text: &str) -> Result<Other, String> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) if namespace != "privateregistry" => (Some(flag_values::name(namespace)?), name),
        _ => (None, text),
    };
    Ok(Other { namespace, name: cluster::name(name)? })
}

/// A registry that can be asked.
pub(crate) struct Opened {
    pub(crate) registry: Registry,
    pub(crate) found: PrivateRegistry,
    pub(crate) login: Option<Login>,
    pub(crate) client: Client<Door>,
}

impl Opened {
    /// What may stand before a repository's name.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let known = self.found.status.clone().unwrap_or_default().addresses;
        known.into_iter().map(|known| known.address).collect()
    }

    /// The image of this registry that somebody means.
    pub(crate) fn reference(&self, text: &str) -> Result<Reference> {
        Reference::parse(text, &self.addresses()).map_err(anyhow::Error::msg)
    }

    /// That there is nothing of this name, and where to look.
    pub(crate) fn has_no(&self, reference: &Reference) -> anyhow::Error {
        let Registry { name, namespace, .. } = &self.registry;
        anyhow!(
            "{} has no {reference}: kubectl registry tags {name} {} --namespace {namespace} shows its tags",
            self.registry.title(),
            reference.repository
        )
    }
}

/// A user's name on the command line.
pub(crate) fn user(text: &str) -> Result<UserName, String> {
    UserName::new(text).map_err(|rule| rule.to_string())
}

/// What stands before the first slash of an image name, on the command line.
pub(crate) fn address(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text).map_err(|rule| rule.to_string())
}

impl Access {
    /// Whether a login was named on the command line.
    pub(crate) fn names_a_user(&self) -> bool {
        self.user.is_some()
    }

    /// Opens the registry, and the one where something goes, if that is another.
    pub(crate) async fn open_both(&self, elsewhere: &Elsewhere) -> Result<(Opened, Option<Opened>)> {
        let opened = self.open().await?;
        let other = match self.elsewhere(elsewhere) {
            Some(access) => Some(access.open().await?),
            None => None,
        };
        Ok((opened, other))
    }

    /// How one gets at the registry where something goes; `None` if it is the same.
    fn elsewhere(&self, elsewhere: &Elsewhere) -> Option<Self> {
        let Other { namespace, name } = elsewhere.to.clone()?;
        let place = self.place.another(namespace, elsewhere.to_context.clone());
        Some(Self {
            name,
            user: elsewhere.to_user.clone(),
            password_stdin: elsewhere.to_password_stdin,
            address: elsewhere.to_address.clone(),
            ca: elsewhere.to_ca.clone(),
            place,
        })
    }

    /// Reads from the cluster what is needed to ask the registry. Nothing is sent to the registry yet.
    pub(crate) async fn open(&self) -> Result<Opened> {
        let registry = self.place.registry(&self.name).await?;
        let found = registry.read().await?;
        let tls = trust(self.ca.as_deref(), &registry, &found).await?;
        let door = match &self.address {
            Some(at) => Door::Address { at: at.clone(), tls },
            None => {
                let (api, pod) = registry.ready_pod().await?;
                let names = names(&registry, &found.status.clone().unwrap_or_default());
                Door::Pod { api: Box::new(api), pod, names, tls }
            }
        };
        let login = self.login(&registry, &found).await?;
        let client = Client::new(door, login.clone());
        Ok(Opened { registry, found, login, client })
    }

    async fn login(&self, registry: &Registry, found: &PrivateRegistry) -> Result<Option<Login>> {
        if let Some(user) = &self.user {
            return given(user, self.password_stdin, &registry.title()).map(Some);
        }
        if found.spec.auth.as_ref().is_some_and(|auth| auth.none.is_some()) {
            return Ok(None);
        }
        match registry.admin().await? {
            Some(login) => Ok(Some(login)),
            None => bail!("{} has no generated admin: give one of its users with --user", registry.title()),
        }
    }
}

/// The login of somebody who was named, whose password is asked for.
pub(crate) fn given(user: &UserName, is_on_stdin: bool, title: &str) -> Result<Login> {
    let password = if is_on_stdin {
        shell::password_from_stdin()?
    } else {
        shell::ask_password(&format!("Password of {user} at {title}:"))?
    };
    Ok(Login { user: user.clone(), password })
}

/// Who may sign a registry's certificate: the authorities in `ca`, or those that the cluster knows. `None` for plain HTTP.
pub(crate) async fn trust(
    ca: Option<&Path>,
    registry: &Registry,
    found: &PrivateRegistry,
) -> Result<Option<std::sync::Arc<rustls::ClientConfig>>> {
    if let Some(file) = ca {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        return trusting(&text, &file.display().to_string()).map(Some);
    }
    let tls = found.spec.tls.clone().unwrap_or_default();
    if tls.none.is_some() {
        return Ok(None);
    }
    let title = registry.title();
    match registry.bundle().await?.filter(|text| !text.is_empty()) {
        Some(text) => {
            let source = format!("ConfigMap {}/{}-ca-bundle", registry.namespace, registry.name);
            trusting(&text, &source).map(Some)
        }
        None if tls.secret.is_some() => bail!(
            "the cluster does not know who signed the certificate of {title}: give the authority with --ca FILE; \
             for one that systems know anyway, that is their own file, such as /etc/ssl/certs/ca-certificates.crt"
        ),
        None => bail!(
            "{title} has no certificate yet: kubectl registry status {} --namespace {} says why",
            registry.name,
            registry.namespace
        ),
    }
}

/// Names by which the certificate of a pod may be checked: of the Service first, which every certificate has that the operator asked for.
/// Other signers leave names out, and a certificate of one's own may have none of the Service's.
pub(crate) fn names(registry: &Registry, status: &PrivateRegistryStatus) -> Vec<HostPort> {
    let service = HostPort::at(Host::Name(format!("{}.{}.svc", registry.name, registry.namespace)), None);
    let known = |scope: AddressScope| {
        let of_scope = status.addresses.iter().filter(move |known| known.scope == scope);
        of_scope.filter_map(|known| HostPort::parse(&known.address).ok())
    };
    let has_it = known(AddressScope::Cluster).any(|name| name.host() == service.host());
    let inside = (!has_it).then_some(service).into_iter().chain(known(AddressScope::Cluster));
    inside.chain(known(AddressScope::External)).chain(known(AddressScope::Node)).collect()
}
