//! Where docker, podman and what is like them keep their logins. The file is somebody else's: what is not a login of ours stays as it is,
//! letter by letter, in its place; a new version appears whole or not at all, and nobody else can read it.

mod file;
mod helper;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use self::file::Config;
use crate::registry_client::Login;

/// The file of one person.
pub(crate) struct DockerConfig {
    path: PathBuf,
}

/// Where a login was put or taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// The file itself, which has the password in clear.
    File,
    /// A program of this name.
    Helper(String),
}

impl DockerConfig {
    /// The file that was named, or else docker's own.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self> {
        if let Some(path) = named {
            return Ok(Self { path: path.to_owned() });
        }
        let folder = match std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()) {
            Some(folder) => PathBuf::from(folder),
            None => {
                let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
                let home = home.context("there is no home folder: say with --authfile where logins are kept")?;
                home.join(".docker")
            }
        };
        Ok(Self { path: folder.join("config.json") })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a login under this address.
    pub(crate) async fn store(&self, address: &str, login: &Login) -> Result<Keeper> {
        let mut config = self.read()?;
        let helper = config.helper(address)?;
        match &helper {
            // The address stands in the file without a login, as docker leaves it there.
            Some(helper) => {
                helper::store(helper, address, login).await?;
                config.note(address);
            }
            None => config.put(address, login),
        }
        file::write(&self.path, config.text().expose())?;
        Ok(helper.map_or(Keeper::File, Keeper::Helper))
    }

    /// Takes the logins under these addresses out, the likeliest first, and gives those that there were.
    pub(crate) async fn erase(&self, addresses: &[String]) -> Result<Vec<(String, Keeper)>> {
        let mut config = self.read()?;
        let mut erased = Vec::new();
        let mut is_changed = false;
        for (number, address) in addresses.iter().enumerate() {
            let was_there = config.remove(address);
            is_changed |= was_there;
            // Some say that they forgot what they never had: of the other addresses, only those are asked for that the file has.
            let helper = config.helper(address)?.filter(|_| was_there || number == 0);
            match helper {
                Some(helper) if helper::erase(&helper, address).await? || was_there => {
                    erased.push((address.clone(), Keeper::Helper(helper)));
                }
                None if was_there => erased.push((address.clone(), Keeper::File)),
                Some(_) | None => {}
            }
        }
        if is_changed {
            file::write(&self.path, config.text().expose())?;
        }
        Ok(erased)
    }

    fn read(&self) -> Result<Config> {
        let text = file::read(&self.path)?;
        Config::parse(text.expose()).with_context(|| format!("{}: nothing was changed", self.path.display()))
    }
}
