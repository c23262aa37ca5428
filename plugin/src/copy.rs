//! `copy`: an image with all that belongs to it comes into another repository, of the same registry or of another.

use anyhow::Result;
use serde::Serialize;

use crate::access::{Access, Elsewhere};
use crate::output::{self, Form};
use crate::registry_client::reference::Reference;
use crate::registry_client::tree;
use crate::transfer::{self, Outcome, Shop};
use crate::{cluster, shell};

/// Options of `copy`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// The image, with or without an address of the registry before it; without tag and digest, its tag latest
    #[arg(value_name = "REPOSITORY[:TAG|@DIGEST]")]
    source: String,
    /// What it is called afterwards; without tag, as before
    #[arg(value_name = "REPOSITORY[:TAG]")]
    target: String,
    /// Only what one platform runs, such as linux/arm64
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    platform: Option<String>,
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// How to print what was done
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    reference: String,
    repository: String,
    digest: String,
    #[serde(flatten)]
    outcome: Outcome,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::transfer(async {
        let (mut opened, other) = options.access.open_both(&options.elsewhere).await?;
        let source = opened.reference(&options.source)?;
        let addresses = other.as_ref().unwrap_or(&opened).addresses();
        let target = Reference::parse_or(&options.target, &addresses, &source.version).map_err(anyhow::Error::msg)?;
        let platform = options.platform.as_deref();
        let tree = tree::pull(&mut opened.client, &source.repository, &source.version, platform).await?;
        let Some(tree) = tree else { return Err(opened.has_no(&source)) };
        let is_same = other.as_ref().is_none_or(|other| other.registry.is(&opened.registry));
        let from = Shop { client: &opened.client, repository: &source.repository };
        let to = Shop { client: &other.as_ref().unwrap_or(&opened).client, repository: &target.repository };
        let outcome = transfer::copy(&from, &to, &tree, &target.version, is_same).await?;
        let done = Done {
            reference: target.to_string(),
            repository: target.repository.to_string(),
            digest: tree.root()?.digest.clone(),
            outcome,
        };
        shell::print(&match options.output {
            Form::Table => {
                let there = other.map_or_else(String::new, |other| format!(" in {}", other.registry.title()));
                format!("{source} is {target}{there}, {}: {}\n", done.digest, outcome.words())
            }
            Form::Name => format!("{}@{}\n", done.repository, done.digest),
            Form::Json => output::json(&done)?,
            Form::Yaml => output::yaml(&done)?,
        });
        Ok(())
    })
}
