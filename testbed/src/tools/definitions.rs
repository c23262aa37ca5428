//! Definitions of kinds that are not Kubernetes' own, out of the Go module that `tools/gatewayapi/go.mod` pins. Go fetches and keeps it.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};

use super::{cache::Cache, toolchain::Go};
use crate::progress::Progress;

const MODULE: &str = "sigs.k8s.io/gateway-api";
const FOLDER: &str = "config/crd/standard";

/// The standard definitions of the Gateway API for these plurals, as YAML. Blocks while they are fetched.
pub fn gateway_definitions(plurals: &[&str], progress: &Progress) -> Result<Vec<String>> {
    let folder = module(progress)?.join(FOLDER);
    let read = |plural: &&str| {
        let file = folder.join(format!("gateway.networking.k8s.io_{plural}.yaml"));
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    plurals.iter().map(read).collect()
}

fn module(progress: &Progress) -> Result<PathBuf> {
    let cache = Cache::of_user()?;
    let toolchain = Go::of_machine()?.toolchain(&cache, progress)?;
    let mut go = toolchain.command(&cache.sources.join("gatewayapi"));
    let output = go.args(["mod", "download", "-json", MODULE]).output().context("run go")?;
    if !output.status.success() {
        let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{MODULE} could not be fetched: {told}{errors}");
    }
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).context("read what go says")?;
    told["Dir"].as_str().map(PathBuf::from).with_context(|| format!("go names no folder of {MODULE}"))
}
