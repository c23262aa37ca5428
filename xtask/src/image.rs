//! `cargo xtask image`: the operator's image without an image builder and without an image registry, as a folder that registries' clients push.

use std::path::PathBuf;

use anyhow::{Context, Result};
use testbed::{
    Progress,
    image::{self, Compression, Image},
};

use crate::units::mebibytes;
use crate::workspace::{self, Workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Optimised: small and fast, but takes minutes to compile
    #[arg(long)]
    release: bool,
    /// Folder for the image, an OCI layout; its content is replaced [default: target/image]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The image's name
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("localhost/private-registry-operator:", env!("CARGO_PKG_VERSION")))]
    reference: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = workspace::operator(arguments.release, &Progress::auto())?;
    let image = image::operator(&program, &arguments.reference)?;
    let built = Image { compression: Compression::Gzip, ..image }.build()?;
    let folder = match &arguments.output {
        Some(folder) => folder.clone(),
        None => Workspace::read()?.target().join("image"),
    };
    // Blobs of an earlier image would stay.
    if folder.join("oci-layout").exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    built.write_layout(&folder)?;
    println!("reference  {}", built.reference());
    println!("digest     {}", built.digest());
    println!("size       {:.1} MiB", mebibytes(built.size_bytes() as u64));
    println!("folder     {}", folder.display());
    println!("\nPush it where your nodes pull from, for instance with\n");
    println!(
        "    crane push {} registry.example.com/private-registry-operator:{}",
        folder.display(),
        env!("CARGO_PKG_VERSION")
    );
    Ok(())
}
