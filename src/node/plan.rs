//! From what is ordered and what lies on the disk: what is to be written and removed, and what stands in the way. Decides only.
//!
//! A host's folder belongs to whoever came first. Files without our mark are never touched, nor are folders that hold nothing of ours, nor files
//! that another node agent keeps. An order that cannot be followed keeps what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::orders::{Order, Orders};
use super::report::{Entry, State};
use super::trust_files::{File, Keeper, Mark, Owner, Runtime, Trust};
use crate::pki::Bundle;

/// How what is not finished is called: whatever has this name is ours, and nobody's certificate.
pub const DRAFT: &str = ".private-registry-agent.";
/// How such names end, so that no runtime takes one for a certificate.
pub const DRAFT_END: &str = ".draft";

/// A node as it is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Where each runtime whose files may be written looks for hosts, or why it cannot be served.
    pub shelves: BTreeMap<Runtime, Result<Vec<PathBuf>, String>>,
    /// Where a runtime may have looked before its configuration was changed, and looks until it is restarted.
    pub former: BTreeMap<Runtime, Vec<PathBuf>>,
    /// The runtimes that the node seems to have.
    pub used: BTreeSet<Runtime>,
    /// What lies where folders of hosts lie.
    pub hosts: BTreeMap<PathBuf, Place>,
    /// Folders that could not be looked into, and why.
    pub unseen: Vec<String>,
}

/// What has a host's name, or some other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whose it would be.
    pub runtime: Runtime,
    /// Up to which folder above it goes away with the last host.
    pub top: PathBuf,
    /// What is there.
    pub content: Content,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A folder: texts of files by name; `None` for what is none, or too long to be ours.
    Folder(BTreeMap<String, Option<String>>),
    /// Something else: what it is.
    Other(&'static str),
}

impl Found {
    /// In which folders of hosts this agent has written something, and for which registries.
    fn held(&self, me: &str) -> BTreeSet<(PathBuf, Owner)> {
        let mut held = BTreeSet::new();
        for (path, place) in &self.hosts {
            let Content::Folder(texts) = &place.content else { continue };
            let marks = texts.values().flatten().filter_map(|text| Mark::of(text));
            let ours = marks.filter(|mark| mark.keeper == Keeper::Agent(me.to_owned()));
            held.extend(ours.filter_map(|mark| Some((path.parent()?.to_owned(), mark.owner))));
        }
        held
    }
}

/// What is to be done, in this order, and what is to be said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What goes.
    pub removals: Vec<Removal>,
    /// What is written.
    pub writes: Vec<Write>,
    /// Of each order, if all of it can be done.
    pub entries: BTreeMap<Owner, Entry>,
}

/// Files of one folder that go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// For whom they were; `None`: drafts.
    pub owner: Option<Owner>,
    /// The host's folder.
    pub folder: PathBuf,
    /// Their names. containerd's own file goes before what it refers to.
    pub names: Vec<String>,
    /// Up to which folder above goes with it if nothing else is left; `None`: the folder stays.
    pub top: Option<PathBuf>,
}

/// Files of one folder that are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// For whom.
    pub owner: Owner,
    /// The host's folder.
    pub folder: PathBuf,
    /// All of the files, if the folder is not there yet; otherwise those that differ.
    pub files: Vec<File>,
}

/// What one order wants of one folder.
struct Wanted {
    runtime: Runtime,
    files: Vec<File>,
    /// What the runtime would look at instead.
    preferred: Option<PathBuf>,
}

/// What becomes of each order, before the disk is looked at.
#[derive(Default)]
struct Wishes {
    wanted: BTreeMap<PathBuf, BTreeMap<Owner, Wanted>>,
    /// What each has of a runtime stays as it is.
    kept: BTreeSet<(Owner, Runtime)>,
    troubles: BTreeMap<Owner, Vec<String>>,
    unselected: BTreeSet<Owner>,
}

/// Makes the plan of the node agent whose orders lie in the namespace `me`, for a node with these labels.
#[must_use]
pub fn plan(orders: &Orders, labels: &BTreeMap<String, String>, found: &Found, me: &str) -> Plan {
    let mut wishes = wishes(orders, labels, found, me);
    let (mut plan, left) = removals(&wishes, found, me);
    for (folder, candidates) in &wishes.wanted {
        let mut claimed: Option<&Owner> = None;
        for (owner, wanted) in candidates {
            if let Some(other) = claimed.filter(|other| *other != owner) {
                wishes.troubles.entry(owner.clone()).or_default().push(taken(folder, other));
                continue;
            }
            match missing(folder, owner, wanted, &left) {
                Ok(files) => {
                    claimed = Some(owner);
                    if !files.is_empty() {
                        plan.writes.push(Write { owner: owner.clone(), folder: folder.clone(), files });
                    }
                }
                Err(why) => wishes.troubles.entry(owner.clone()).or_default().push(why),
            }
        }
    }
    // What another host's files take the place of must not go away under them.
    let written: BTreeSet<_> = plan.writes.iter().map(|write| write.folder.clone()).collect();
    for removal in plan.removals.iter_mut().filter(|removal| written.contains(&removal.folder)) {
        removal.top = None;
    }
    plan.entries = orders.iter().map(|(owner, order)| (owner.clone(), entry(owner, order, &wishes))).collect();
    plan
}

/// The plan of a node agent that takes away all that it has written.
#[must_use]
pub fn clean_up(orders: &Orders, found: &Found, me: &str) -> Plan {
    let (mut plan, _) = removals(&Wishes::default(), found, me);
    let bundle = |order: &Result<Order, _>| match order {
        Ok(order) => order.bundle.clone(),
        Err(super::orders::Refused { bundle, .. }) => bundle.clone(),
    };
    let said = "nothing is written on nodes: the chart's nodeTrust.cleanUp is set";
    let entry = |order| Entry::new(&bundle(order), State::NotSelected, said);
    plan.entries = orders.iter().map(|(owner, order)| (owner.clone(), entry(order))).collect();
    plan
}

fn wishes(orders: &Orders, labels: &BTreeMap<String, String>, found: &Found, me: &str) -> Wishes {
    let mut wishes = Wishes::default();
    let held = found.held(me);
    for (owner, order) in orders {
        let order = match order {
            Ok(order) if order.selects(labels) => order,
            Ok(_) => {
                wishes.unselected.insert(owner.clone());
                continue;
            }
            Err(refused) => {
                wishes.kept.extend(found.shelves.keys().map(|runtime| (owner.clone(), *runtime)));
                wishes.troubles.entry(owner.clone()).or_default().push(refused.why.clone());
                continue;
            }
        };
        let runtimes = order.runtimes.as_ref().unwrap_or(&found.used);
        let (mut wanted, mut troubles) = (0, Vec::new());
        for runtime in runtimes {
            match found.shelves.get(runtime) {
                None => troubles.push(format!(
                    "the node agent may not write files of {runtime}: set the chart's nodeTrust.paths.{runtime}, or leave {runtime} out of spec.trust.nodes.runtimes"
                )),
                Some(Err(why)) => {
                    wishes.kept.insert((owner.clone(), *runtime));
                    troubles.push(why.clone());
                }
                Some(Ok(folders)) => {
                    wanted += wishes.of_runtime(owner, order, *runtime, folders, me);
                    // What was written there is looked after for as long as the order is.
                    let former = found.former.get(runtime).into_iter().flatten();
                    let former: Vec<_> = former.filter(|folder| held.contains(&((*folder).clone(), owner.clone()))).cloned().collect();
                    wishes.of_runtime(owner, order, *runtime, &former, me);
                }
            }
        }
        if wanted == 0 && troubles.is_empty() {
            troubles.push(nothing(runtimes));
        }
        if !troubles.is_empty() {
            wishes.troubles.entry(owner.clone()).or_default().extend(troubles);
        }
    }
    wishes
}

impl Wishes {
    /// What one runtime needs, and how many folders that are.
    fn of_runtime(&mut self, owner: &Owner, order: &Order, runtime: Runtime, folders: &[PathBuf], me: &str) -> usize {
        let mut count = 0;
        // Only containerd can be led to another address than the image's name says.
        let hosts = order.hosts.iter().filter(|host| runtime == Runtime::Containerd || host.host == host.endpoint);
        for (folder, host) in folders.iter().flat_map(|folder| hosts.clone().map(move |host| (folder, host))) {
            let trust = Trust {
                mark: Mark { owner: owner.clone(), keeper: Keeper::Agent(me.to_owned()) },
                host: host.host.clone(),
                endpoint: host.endpoint.clone(),
                authorities: order.authorities.clone(),
            };
            let wanted = Wanted {
                runtime,
                files: runtime.files(folder, &trust),
                preferred: runtime.preferred(folder, &host.host),
            };
            self.wanted.entry(folder.join(host.host.as_str())).or_default().insert(owner.clone(), wanted);
            count += 1;
        }
        count
    }

    fn keep(&self, owner: &Owner, folder: &Path, name: &str, place: &Place) -> bool {
        let wanted = self.wanted.get(folder).and_then(|candidates| candidates.get(owner));
        let is_wanted = wanted.is_some_and(|wanted| {
            wanted.runtime == place.runtime && wanted.files.iter().any(|file| file.path == folder.join(name))
        });
        is_wanted || self.kept.contains(&(owner.clone(), place.runtime))
    }
}

fn nothing(runtimes: &BTreeSet<Runtime>) -> String {
    if runtimes.is_empty() {
        return "none of the runtimes whose files the node agent may write is on this node: set the chart's nodeTrust.paths for the one that is".to_owned();
    }
    let named: Vec<_> = runtimes.iter().map(ToString::to_string).collect();
    format!(
        "{} cannot be led to another address than an image's name says, and nodes do not resolve names of Services: give the registry one that they \
         resolve in spec.addresses",
        named.join(" and ")
    )
}

/// What of ours goes, and what is in each folder then.
fn removals<'a>(wishes: &Wishes, found: &'a Found, me: &str) -> (Plan, BTreeMap<&'a Path, Left<'a>>) {
    let mut plan = Plan::default();
    let mut left: BTreeMap<&Path, Left<'_>> = BTreeMap::new();
    for (folder, place) in &found.hosts {
        let Content::Folder(files) = &place.content else {
            left.insert(folder, Left::Other(place.content.kind()));
            continue;
        };
        if is_draft(name(folder)) {
            let ours =
                |name: &str, text: &Option<String>| is_draft(name) || text.as_deref().and_then(Mark::of).is_some();
            let names = files.iter().filter(|(name, text)| ours(name, text)).map(|(name, _)| name.clone()).collect();
            plan.removals.push(Removal { owner: None, folder: folder.clone(), names, top: Some(place.top.clone()) });
            continue;
        }
        let mut stays = BTreeMap::new();
        let mut goes: BTreeMap<Option<Owner>, Vec<String>> = BTreeMap::new();
        for (name, text) in files {
            let mark = text.as_deref().and_then(Mark::of);
            match mark {
                _ if is_draft(name) => goes.entry(None).or_default().push(name.clone()),
                Some(mark)
                    if mark.keeper == Keeper::Agent(me.to_owned())
                        && !wishes.keep(&mark.owner, folder, name, place) =>
                {
                    goes.entry(Some(mark.owner)).or_default().push(name.clone());
                }
                mark => drop(stays.insert(name.as_str(), (mark, text.as_deref()))),
            }
        }
        let is_empty = stays.is_empty() && !files.is_empty();
        for (owner, mut names) in goes {
            names.sort_by(|one, other| other.cmp(one));
            let top = is_empty.then(|| place.top.clone());
            plan.removals.push(Removal { owner, folder: folder.clone(), names, top });
        }
        if !is_empty {
            left.insert(folder, Left::Folder(stays));
        }
    }
    (plan, left)
}

/// What stays of a place.
enum Left<'a> {
    Folder(BTreeMap<&'a str, (Option<Mark>, Option<&'a str>)>),
    Other(&'static str),
}

impl Content {
    fn kind(&self) -> &'static str {
        match self {
            Self::Folder(_) => "folder",
            Self::Other(kind) => kind,
        }
    }
}

/// The files that have to be written.
fn missing(
    folder: &Path,
    owner: &Owner,
    wanted: &Wanted,
    left: &BTreeMap<&Path, Left<'_>>,
) -> Result<Vec<File>, String> {
    if let Some(other) = wanted.preferred.as_ref().filter(|other| left.contains_key(other.as_path())) {
        return Err(format!(
            "{} is there, and {} reads that one instead: move it away",
            other.display(),
            wanted.runtime
        ));
    }
    let files = match left.get(folder) {
        None => return Ok(wanted.files.clone()),
        Some(Left::Other(kind)) => return Err(format!("{} is a {kind}: move it away", folder.display())),
        Some(Left::Folder(files)) => files,
    };
    let at = |file: &File| files.get(name(&file.path));
    let of_owner = |mark: &&Mark| mark.owner == *owner;
    let marks = || files.values().filter_map(|(mark, _)| mark.as_ref());
    if let Some(other) = marks().find(|mark| !of_owner(mark)) {
        return Err(taken(folder, &other.owner));
    }
    let foreign = |file: &File| at(file).is_some_and(|(mark, _)| mark.is_none());
    let says_the_same =
        |file: &File| at(file).and_then(|(_, text)| *text).is_some_and(|text| says_the_same(text, file.content()));
    if marks().next().is_none() && !files.is_empty() && wanted.files.iter().all(says_the_same) {
        // Somebody else's, and enough.
        return Ok(Vec::new());
    }
    let first = files.keys().next().filter(|_| marks().next().is_none());
    if let Some(file) = wanted.files.iter().find(|file| foreign(file) && !says_the_same(file)) {
        return Err(not_ours(&file.path));
    }
    if let Some(file) = first {
        return Err(not_ours(&folder.join(file)));
    }
    let differs =
        |file: &&File| at(file).is_none_or(|(mark, text)| mark.is_some() && *text != Some(file.text.as_str()));
    Ok(wanted.files.iter().filter(differs).cloned().collect())
}

fn not_ours(path: &Path) -> String {
    format!(
        "{} was not written by the node agent, or has lost its first line: move it away, or let it trust the same authorities",
        path.display()
    )
}

fn taken(folder: &Path, other: &Owner) -> String {
    format!(
        "{} is for the registry {other}, and whoever comes first has a host: take the host out of one of the two, or, if {other} is of another \
         installation or was trusted by hand, remove the folder",
        folder.display()
    )
}

/// Whether a text of somebody else gives the same trust.
fn says_the_same(theirs: &str, ours: &str) -> bool {
    let authorities = Bundle::read(theirs);
    theirs.trim() == ours.trim() || authorities == Bundle::read(ours) && authorities != Bundle::default()
}

fn entry(owner: &Owner, order: &Result<Order, super::orders::Refused>, wishes: &Wishes) -> Entry {
    let bundle = match order {
        Ok(order) => &order.bundle,
        Err(refused) => &refused.bundle,
    };
    match wishes.troubles.get(owner) {
        Some(troubles) => Entry::new(bundle, State::Refused, &told(troubles)),
        None if wishes.unselected.contains(owner) => Entry::new(bundle, State::NotSelected, ""),
        None => Entry::new(bundle, State::Written, ""),
    }
}

/// The first of them, which mostly is the reason of the others, and how many there are besides.
#[must_use]
pub fn told(troubles: &[String]) -> String {
    match troubles {
        [] => String::new(),
        [only] => only.clone(),
        [first, others @ ..] => format!("{first} (and {} more)", others.len()),
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// Whether this is the name of something that was not finished.
#[must_use]
pub fn is_draft(name: &str) -> bool {
    name.starts_with(DRAFT) && name.ends_with(DRAFT_END)
}

#[cfg(test)]
mod tests;
