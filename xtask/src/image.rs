//! `cargo xtask image`: the operator's image without an image builder and without an image registry: a folder that registries' clients push, and
//! the same as an archive that container runtimes import.

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
    /// File for the same image as an archive, for runtimes and for kind, k3d, docker and podman [default: target/image.tar]
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// The image's name
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("localhost/private-registry-operator:", env!("CARGO_PKG_VERSION")))]
    reference: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let program = workspace::operator(arguments.release, &Progress::auto())?;
    let image = image::operator(&program, &arguments.reference)?;
    let built = Image { compression: Compression::Gzip, ..image }.build()?;
    let target = Workspace::read()?.target().to_owned();
    let folder = arguments.output.clone().unwrap_or_else(|| target.join("image"));
    let archive = arguments.archive.clone().unwrap_or_else(|| target.join("image.tar"));
    // Blobs of an earlier image would stay.
    if folder.join("oci-layout").exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    built.write_layout(&folder)?;
    built.write_archive(&archive)?;
    println!("reference  {}", built.reference());
    println!("digest     {}", built.digest());
    println!("size       {:.1} MiB", mebibytes(built.size_bytes() as u64));
    println!("folder     {}", folder.display());
    println!("archive    {}", archive.display());
    println!("\nPush it where your nodes pull from, for instance with\n");
    println!(
        "    crane push {} registry.example.com/private-registry-operator:{}",
        folder.display(),
        env!("CARGO_PKG_VERSION")
    );
    println!("\nor give it to the nodes yourself, and install with the image's own name:\n");
    println!("    kind load image-archive {}", archive.display());
    println!("    k3d image import {}", archive.display());
    println!("    ctr --namespace k8s.io images import {}      # on each node", archive.display());
    let (repository, tag) = built.reference().rsplit_once(':').context("the image's name has no tag")?;
    println!("\n    helm … --set image.repository={repository} --set image.tag={tag} --set image.pullPolicy=Never");
    Ok(())
}
