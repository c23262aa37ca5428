//! `users rotate`: a new random password.

use anyhow::Result;
use private_registry_operator::credentials::{UserName, generated};
use private_registry_operator::model::RegistryName;

use super::{passwd, user_name};
use crate::change::Patience;
use crate::cluster::{self, Registry};

/// Options of `users rotate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// The user
    #[arg(value_parser = user_name)]
    user: UserName,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    place: cluster::Place,
}

pub(super) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let password = |_: &Registry| Ok(generated::admin_password()?);
        passwd::renew(&registry, &options.user, password, &options.patience).await
    })
}
