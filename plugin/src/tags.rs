//! `tags`: the tags of a repository.

use anyhow::{Result, bail};

use crate::access::{Access, Opened};
use crate::output::{self, Form};
use crate::registry_client::pages;
use crate::registry_client::reference::Repository;
use crate::{cluster, shell};

/// Options of `tags`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// The repository, with or without an address of the registry before it
    repository: String,
    /// How to print them
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let mut opened = options.access.open().await?;
        let repository = Repository::parse(&options.repository, &opened.addresses()).map_err(anyhow::Error::msg)?;
        let Opened { registry, client, .. } = &mut opened;
        let (title, name, space) = (registry.title(), &registry.name, &registry.namespace);
        let Some(tags) = pages::tags(client, repository.as_str()).await? else {
            bail!(
                "{title} has no repository {repository}: kubectl registry repos {name} --namespace {space} shows all"
            );
        };
        if tags.is_empty() && options.output == Form::Table {
            shell::complain(&format!("{title}: repository {repository} has no tag"));
            return Ok(());
        }
        let names = match options.output {
            Form::Name => tags.iter().map(|tag| format!("{repository}:{tag}")).collect(),
            _ => tags,
        };
        shell::print(&output::names("TAG", &names, options.output)?);
        Ok(())
    })
}
