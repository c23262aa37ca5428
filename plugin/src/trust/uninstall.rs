//! `trust --uninstall`: takes back what was written, by the marks in the files alone. Neither the registry nor its cluster has to be there.

use std::path::Path;

use anyhow::{Context as _, Result};
use private_registry_operator::node::trust_files::{Owner, Runtime, Store};
use strum::IntoEnumIterator as _;

use super::Options;
use super::machine::Machine;
use crate::{cluster, shell};

/// Removes every file that was written for the registry.
pub(super) fn run(options: &Options) -> Result<()> {
    let machine = Machine::at(&options.root)?;
    let named = options.runtimes();
    // What was written is undone wherever it lies, unless somebody says where.
    let runtimes = if named.is_empty() && !options.system { Runtime::iter().collect() } else { named.clone() };
    let with_store = options.system || named.is_empty() && options.address.is_empty();
    let namespace = namespace(options);

    let mut found = Vec::new();
    for runtime in runtimes {
        for folder in machine.folders(runtime)? {
            let written = machine.written_for(&folder, 1)?.into_iter();
            let of_hosts = written.filter(|(path, _)| {
                let host = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
                options.address.is_empty() || options.address.iter().any(|address| Some(address.as_str()) == host)
            });
            found.extend(of_hosts.map(|(path, owner)| (path, owner, None)));
        }
    }
    let stores = [Store::Debian, Store::RedHat].into_iter().filter(|_| with_store);
    for store in stores {
        found.extend(
            machine.written_for(store.folder(), 0)?.into_iter().map(|(path, owner)| (path, owner, Some(store))),
        );
    }
    let of_name = |owner: &Owner| *owner.name() == options.name;
    let is_meant =
        |owner: &Owner| of_name(owner) && (owner.namespace().is_none() || owner.namespace() == namespace.as_deref());
    let (ours, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, owner, _)| is_meant(owner));

    if ours.is_empty() {
        let mut other: Vec<_> = others.iter().map(|(_, owner, _)| owner).filter(|owner| of_name(owner)).collect();
        other.dedup();
        let hint = if other.is_empty() {
            String::new()
        } else {
            format!("; there is something for {}: give its namespace with -n", cluster::listed(other))
        };
        shell::print(&format!(
            "Nothing was written for {} here{hint}.\n",
            Owner::new(namespace.as_deref(), options.name.clone())
        ));
        return Ok(());
    }
    ours.iter().for_each(|(path, _, _)| shell::print(&format!("remove     {}\n", path.display())));
    shell::confirm(&format!("Trust {} no longer on this machine?", options.name), options.yes)?;
    for (path, _, store) in &ours {
        machine.remove(path, store.is_some())?;
    }
    for store in [Store::Debian, Store::RedHat] {
        if ours.iter().any(|(_, _, of)| *of == Some(store)) {
            machine.run(store.removed()).context("the files are gone; run the command again yourself")?;
        }
    }
    shell::print(&format!("{} removed.\n", shell::files(ours.len())));
    Ok(())
}

/// The namespace that is meant. Without a kubeconfig none: files that were written without a cluster are found all the same.
fn namespace(options: &Options) -> Option<String> {
    let of_context = || cluster::wait(options.place.registry(&options.name)).ok().map(|registry| registry.namespace);
    options.place.namespace.clone().or_else(of_context)
}
