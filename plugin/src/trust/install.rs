//! `trust` and `trust --install`: what should be there, what is, and what is done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use private_registry_operator::node::trust_files::{File, Runtime, Store};

use super::machine::{Machine, State};
use super::subject::Subject;
use super::{Options, runtime_files};
use crate::shell;

/// A file that should be there, and what is.
struct Step {
    file: File,
    state: State,
    /// Whether it lies in a folder of everybody, and not in one of its own.
    is_shared: bool,
}

/// Says what there is to do, and does it if that is wanted. Whether nothing is in the way.
pub(super) fn run(options: &Options, subject: &Subject) -> Result<bool> {
    let machine = Machine::at(&options.root)?;
    let runtimes = options.runtimes_here(&machine)?;
    let store = options.system.then(|| machine.store()).transpose()?;
    let steps = steps(&machine, &runtimes, store, subject)?;
    shell::print(&subject.authorities_told());
    steps.iter().for_each(|step| shell::print(&format!("{step}\n")));
    notes(&machine, &runtimes, store, &steps, subject)?
        .iter()
        .for_each(|note| shell::print(&format!("note: {note}\n")));

    let obsolete = obsolete(&machine, &steps, subject)?;
    obsolete.iter().for_each(|path| shell::print(&format!("remove     {}\n", path.display())));

    let is_clean = !steps.iter().any(|step| matches!(step.state, State::Foreign(_)));
    let groups = groups(&steps);
    if !options.install {
        shell::print(if groups.is_empty() && obsolete.is_empty() {
            "Nothing is to be done.\n"
        } else {
            "Nothing was done; --install does it.\n"
        });
        return Ok(is_clean);
    }
    if !(groups.is_empty() && obsolete.is_empty()) {
        let everywhere =
            if store.is_some() { ", for every program and every host that the authority signs" } else { "" };
        shell::confirm(&format!("Trust {} on this machine{everywhere}?", subject.owner), options.yes)?;
    }
    for files in &groups {
        machine.write(files)?;
    }
    obsolete.iter().try_for_each(|path| machine.remove(path, false))?;
    // Also if nothing was written: the command may have failed the last time.
    if let Some(store) = store {
        machine.run(store.added())?;
    }
    let count: usize = groups.iter().map(Vec::len).sum();
    shell::print(&format!("{} written.\n", shell::files(count)));
    Ok(is_clean)
}

/// Each file that should be there, and whether it is.
pub(super) fn state(machine: &Machine, runtimes: &[Runtime], subject: &Subject) -> Result<Vec<(PathBuf, bool)>> {
    let steps = steps(machine, runtimes, None, subject)?;
    let is_good = |state: &State| matches!(state, State::Current | State::Equal);
    Ok(steps.into_iter().map(|step| (step.file.path, is_good(&step.state))).collect())
}

fn steps(machine: &Machine, runtimes: &[Runtime], store: Option<Store>, subject: &Subject) -> Result<Vec<Step>> {
    let mut files = Vec::new();
    for runtime in runtimes {
        let folders = machine.folders(*runtime)?;
        files.extend(runtime_files(*runtime, &folders, subject).into_iter().map(|file| (file, false)));
    }
    if let Some(store) = store {
        files.extend(store.files(&subject.owner, &subject.authorities).into_iter().map(|file| (file, true)));
    }
    let look = |(file, is_shared): (File, bool)| {
        let state = machine.look(&file, &subject.owner, is_shared)?;
        Ok(Step { file, state, is_shared })
    };
    files.into_iter().map(look).collect()
}

/// Files of ours beside those that are wanted. containerd would heed a `hosts.toml` that nobody wants any more.
fn obsolete(machine: &Machine, steps: &[Step], subject: &Subject) -> Result<Vec<PathBuf>> {
    let wanted: BTreeSet<_> = steps.iter().map(|step| step.file.path.as_path()).collect();
    let own = steps.iter().filter(|step| !step.is_shared).filter_map(|step| step.file.path.parent());
    let mut found = Vec::new();
    for folder in own.collect::<BTreeSet<_>>() {
        let written = machine.written_for(folder, 0)?.into_iter();
        let ours = written.filter(|(path, owner)| *owner == subject.owner && !wanted.contains(path.as_path()));
        found.extend(ours.map(|(path, _)| path));
    }
    Ok(found)
}

impl Step {
    fn is_due(&self) -> bool {
        matches!(self.state, State::Absent | State::Outdated)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.file.path.display();
        match &self.state {
            State::Absent => write!(f, "write      {path}"),
            State::Outdated => write!(f, "update     {path}"),
            State::Current => write!(f, "keep       {path}"),
            State::Equal => write!(f, "keep       {path} (somebody else's, and says the same)"),
            State::Foreign(whose) => write!(f, "refuse     {path}: {whose}"),
        }
    }
}

/// What is to be written, folder by folder.
fn groups(steps: &[Step]) -> Vec<Vec<&File>> {
    let mut folders: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for step in steps.iter().filter(|step| step.is_due()) {
        folders.entry(step.file.path.parent()).or_default().push(&step.file);
    }
    folders.into_values().collect()
}

/// What a person should know who relies on the files.
fn notes(
    machine: &Machine,
    runtimes: &[Runtime],
    store: Option<Store>,
    steps: &[Step],
    subject: &Subject,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    // Another cluster may have a registry of this name, so it is not removed without being asked.
    for (path, owner) in store.map(|store| machine.written_for(store.folder(), 0)).transpose()?.unwrap_or_default() {
        if owner == subject.owner && !steps.iter().any(|step| step.file.path == path) {
            notes.push(format!(
                "{} is of an authority that is no longer the registry's; --uninstall removes it",
                path.display()
            ));
        }
    }
    for runtime in runtimes {
        let folders = machine.folders(*runtime)?;
        for (folder, name) in folders.iter().flat_map(|folder| subject.names.iter().map(move |name| (folder, name))) {
            if let Some(other) = runtime
                .preferred(folder, &name.host)
                .filter(|other| machine.place(other).is_ok_and(|place| place.exists()))
            {
                notes.push(format!("{} exists, and {runtime} reads that one instead", other.display()));
            }
        }
        if *runtime == Runtime::Containerd && folders.len() > 1 {
            notes.push(
                "containerd before 2.2 reads neither folder until its config_path names one: docs/clients.md says how"
                    .to_owned(),
            );
        }
    }
    Ok(notes)
}
