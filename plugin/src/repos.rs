//! `repos`: the repositories of a registry.

use anyhow::Result;

use crate::access::{Access, Opened};
use crate::output::{self, Form};
use crate::registry_client::pages;
use crate::{cluster, shell};

/// Options of `repos`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// How to print them
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let Opened { registry, mut client, .. } = options.access.open().await?;
        let repositories = pages::repositories(&mut client).await?;
        if repositories.is_empty() && options.output == Form::Table {
            shell::complain(&format!("{} holds no repository yet", registry.title()));
            return Ok(());
        }
        shell::print(&output::names("REPOSITORY", &repositories, options.output)?);
        Ok(())
    })
}
