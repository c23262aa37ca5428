//! Where the testbed keeps things: built programs (kept for ever, shared by all checkouts) and running instances (gone when they stop).

use std::{env, path::PathBuf};

use anyhow::{Context, Result, bail};

const PROJECT: &str = "private-registry-operator";

/// A unix socket's path must stay below 108 bytes, and programs append their own names to an instance's folder.
const LONGEST_RUN_DIR: usize = 64;

/// These are replaced by empty ones inside a node, so nothing that a node's processes share with us may lie under them.
const PRIVATE_TO_NODES: [&str; 3] = ["/run", "/var/lib", "/var/log"];

/// The folder that holds built programs: `$XDG_CACHE_HOME/private-registry-operator/tools`.
pub fn tools() -> Result<PathBuf> {
    Ok(base("XDG_CACHE_HOME", ".cache")?.join("tools"))
}

/// A second, read-only folder of built programs, from `TESTBED_CACHE`. It has the layout of [`tools`].
pub fn shared_tools() -> Option<PathBuf> {
    env::var_os("TESTBED_CACHE").filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder of running instances: `$XDG_STATE_HOME/private-registry-operator/run`. Fails when nodes could not work from there.
pub fn run() -> Result<PathBuf> {
    let run = base("XDG_STATE_HOME", ".local/state")?.join("run");
    if run.as_os_str().len() > LONGEST_RUN_DIR {
        bail!("{} is too long for the unix sockets below it; set XDG_STATE_HOME to a shorter folder", run.display());
    }
    match PRIVATE_TO_NODES.iter().find(|private| run.starts_with(private)) {
        Some(private) => bail!("instances can't be kept under {private}; set XDG_STATE_HOME to another folder"),
        None => Ok(run),
    }
}

fn base(variable: &str, default: &str) -> Result<PathBuf> {
    if let Some(folder) = env::var_os(variable).map(PathBuf::from).filter(|folder| folder.is_absolute()) {
        return Ok(folder.join(PROJECT));
    }
    let home = env::var_os("HOME").with_context(|| format!("neither {variable} nor HOME is set"))?;
    Ok(PathBuf::from(home).join(default).join(PROJECT))
}
