//! `users passwd`: another password, where the manifest says that it is.

use anyhow::{Result, bail};
use private_registry_operator::api::PrivateRegistry;
use private_registry_operator::credentials::{Password, UserName};
use private_registry_operator::model::RegistryName;
use private_registry_operator::secret::Sensitive;

use super::{By, Given, counts, find, how_to_read, known, sharing, user_name, write};
use crate::change::Patience;
use crate::cluster::{self, Registry};
use crate::shell;

/// Options of `users passwd`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// The user
    #[arg(value_parser = user_name)]
    user: UserName,
    #[command(flatten)]
    given: Given,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    place: cluster::Place,
}

pub(super) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let password = |registry: &Registry| options.given.password(&options.user, registry);
        renew(&registry, &options.user, password, &options.patience).await
    })
}

/// Writes a new password, and waits for it. It is asked for only when it is known where it goes.
pub(super) async fn renew(
    registry: &Registry,
    user: &UserName,
    password: impl FnOnce(&Registry) -> Result<Sensitive<String>>,
    patience: &Patience,
) -> Result<()> {
    let found = registry.read().await?;
    let place = find(registry, &found, user).await?;
    if place.by == By::Lines {
        bail!(
            "of {user} only a hash is known, in Secret {}, key {}: write another line there (htpasswd -nB {user})",
            place.secret,
            place.key
        );
    }
    if place.by == By::Rotation {
        bail!(
            "the operator makes the password of {user}: kubectl registry users rotate {} {user} --namespace {} asks for another one",
            registry.name,
            registry.namespace
        );
    }
    let others = sharing(&found, user, &place);
    let password = password(registry)?;
    if !write(registry, &place, &password).await? {
        shell::print(&format!("{}: that is the password of {user} already.\n", registry.title()));
        return Ok(());
    }
    shell::print(&format!(
        "{}: the new password of {user} is written.\n{}",
        registry.title(),
        how_to_read(registry, &place)
    ));
    if !others.is_empty() {
        shell::complain(&format!(
            "Note: it is that of {}, too: they have the same key of the same Secret.",
            cluster::listed(&others)
        ));
    }
    let generation = found.metadata.generation.unwrap_or_default();
    let before = known(&found, user).and_then(|known| known.changed_at.as_deref());
    let done = format!("{user} can log in with the new password, and not with the former one");
    let password = Password::new(password.expose().as_bytes())?;
    let look =
        async |found: &PrivateRegistry| counts(registry, found, user, (&place, &password), (before, generation)).await;
    patience.until(registry, &done, look).await
}
