//! The node's disk: what is there, and what a plan says is done. Every path is looked at part by part, and no link is followed: what is written
//! stays below the folders that were given. What is written appears whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::containerd::{self, Configuration, Version};
use super::plan::{Content, DRAFT, DRAFT_END, Found, Place, Plan, Removal, Write};
use super::trust_files::{File, Runtime};

/// No file of ours is nearly as long, and no configuration either.
const LONGEST: u64 = 1 << 20;
/// Most things that are looked at in one folder.
const MOST: usize = 20_000;
/// Most files of a configuration.
const MOST_CONFIGURATIONS: usize = 100;

/// The folders of a node that may be looked at and written.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Where the node's root is.
    pub root: PathBuf,
    /// The folder of each runtime, as the node calls it: that of containerd's configuration, `/etc/docker`, `/etc/containers`.
    pub homes: BTreeMap<Runtime, PathBuf>,
}

/// A step that failed, and for whom it was.
pub type Failure = (Option<super::trust_files::Owner>, String);

impl Disk {
    /// Looks at everything. `runtime` is what the node says of its runtime, such as `containerd://2.3.4`.
    ///
    /// What cannot be looked at is a runtime's trouble, and no other's.
    #[must_use]
    pub fn look(&self, runtime: &str) -> Found {
        let mut found = Found::default();
        for (of, home) in &self.homes {
            let mut shelves = self.shelves(*of, home, runtime);
            let present: Vec<_> = shelves.iter().flatten().cloned().collect();
            // What was written before the configuration changed is to be found, too.
            let mut former = vec![home.join("certs.d")];
            if *of == Runtime::Containerd && Path::new(containerd::UNCONFIGURED).starts_with(home) {
                former.push(containerd::UNCONFIGURED.into());
            }
            former.retain(|folder| !present.contains(folder));
            for folder in present.iter().chain(&former) {
                // A list for one name: all of it is ours, not only the hosts.
                let top = if folder.to_string_lossy().contains(':') { home } else { folder };
                match self.hosts(folder) {
                    Ok(hosts) => found.hosts.extend(
                        hosts
                            .into_iter()
                            .map(|(path, content)| (path, Place { runtime: *of, top: top.clone(), content })),
                    ),
                    Err(error) => {
                        let why = told("look into", folder, &error);
                        found.unseen.push(why.clone());
                        if present.contains(folder) {
                            shelves = Err(why);
                        }
                    }
                }
            }
            if uses(*of, runtime) || self.is_installed(home) {
                found.used.insert(*of);
            }
            found.shelves.insert(*of, shelves);
            found.former.insert(*of, former);
        }
        found
    }

    fn shelves(&self, of: Runtime, home: &Path, runtime: &str) -> Result<Vec<PathBuf>, String> {
        match self.place(home) {
            Ok(place) if place.is_dir() => {}
            Ok(_) => {
                return Err(format!(
                    "{} is not there: set the chart's nodeTrust.paths.{of} to where it is on this node",
                    home.display()
                ));
            }
            Err(error) => return Err(told("look at", home, &error)),
        }
        if of != Runtime::Containerd {
            return Ok(vec![home.join("certs.d")]);
        }
        let version = Version::of_node(runtime);
        self.configuration(home, version)?.folders(version, home)
    }

    /// Whether something of the runtime itself lies in its folder.
    fn is_installed(&self, home: &Path) -> bool {
        let entries = self.entries(home).unwrap_or_default();
        entries.iter().any(|name| !name.starts_with("certs.d"))
    }

    /// containerd's configuration, with the files that it takes in.
    fn configuration(&self, home: &Path, version: Option<Version>) -> Result<Configuration, String> {
        let mut pending = vec![home.join("config.toml")];
        let mut done = BTreeSet::new();
        let mut all = Configuration::default();
        while let Some(path) = (!pending.is_empty()).then(|| pending.remove(0)) {
            if done.len() >= MOST_CONFIGURATIONS || !done.insert(path.clone()) {
                continue;
            }
            let shown = path.display();
            let text = match self.read(&path) {
                Ok(Some(text)) => text,
                Ok(None) if done.len() == 1 => return Ok(all),
                Ok(None) => continue,
                Err(error) => return Err(told("read", &path, &error)),
            };
            let one = Configuration::read(&text).map_err(|why| format!("containerd's {shown} {why}: mend it"))?;
            for import in one.imports() {
                pending.extend(self.matching(path.parent().unwrap_or(home), import));
            }
            all = all.then(one, version);
        }
        Ok(all)
    }

    /// The files that an import stands for. What lies outside of the folders that may be looked at is not seen.
    fn matching(&self, folder: &Path, import: &str) -> Vec<PathBuf> {
        let path = folder.join(import);
        let Some((before, after)) = import.split_once('*') else { return vec![path] };
        let Some(parent) = path.parent().filter(|_| !after.contains('/')) else { return Vec::new() };
        let before = before.rsplit('/').next().unwrap_or_default();
        let fits = |name: &String| {
            name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
        };
        let entries = self.entries(parent).unwrap_or_default();
        entries.into_iter().filter(fits).map(|name| parent.join(name)).collect()
    }

    /// What lies in a folder of folders of hosts; nothing, if it is not there.
    fn hosts(&self, folder: &Path) -> io::Result<BTreeMap<PathBuf, Content>> {
        let mut hosts = BTreeMap::new();
        for name in self.entries(folder)? {
            let path = folder.join(&name);
            let content = match fs::symlink_metadata(self.root.join(relative(&path))) {
                Ok(about) if about.is_symlink() => Content::Other("link"),
                Ok(about) if about.is_dir() => self.texts(&path),
                Ok(_) => Content::Other("file"),
                // Gone meanwhile, or a name that is no text.
                Err(_) => continue,
            };
            hosts.insert(path, content);
        }
        Ok(hosts)
    }

    fn texts(&self, folder: &Path) -> Content {
        let Ok(names) = self.entries(folder) else { return Content::Other("folder that may not be looked into") };
        let read = |name: String| {
            let text = self.read(&folder.join(&name)).ok().flatten();
            (name, text)
        };
        Content::Folder(names.into_iter().map(read).collect())
    }

    /// The names in a folder, in order; none, if it is not there.
    fn entries(&self, folder: &Path) -> io::Result<Vec<String>> {
        let listed = match fs::read_dir(self.place(folder)?) {
            Ok(listed) => listed,
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let names = listed.take(MOST).map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// The text of a file; `None` where there is none, or one that is not for us.
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        let place = self.place(path)?;
        match fs::symlink_metadata(&place) {
            // A pipe would be waited for.
            Ok(about) if about.is_file() && about.len() <= LONGEST => {}
            Ok(_) => return Ok(None),
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(String::from_utf8_lossy(&fs::read(&place)?).into_owned()))
    }

    /// The place of a path of the node.
    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let mut place = self.root.clone();
        for part in path.components().filter(|part| *part != Component::RootDir) {
            let Component::Normal(name) = part else {
                return Err(io::Error::other(format!("{} is not a plain path", path.display())));
            };
            place.push(name);
            if place.is_symlink() {
                let shown = place.strip_prefix(&self.root).unwrap_or(&place).display();
                return Err(io::Error::other(format!(
                    "/{shown} is a link, which could lead anywhere: put what it leads to in its place"
                )));
            }
        }
        Ok(place)
    }

    /// Does what a plan says; what fails stops nothing else.
    #[must_use]
    pub fn carry_out(&self, plan: &Plan) -> Vec<Failure> {
        let removed = plan.removals.iter().map(|step| (step.owner.clone(), "clear", &step.folder, self.remove(step)));
        // One after the other: what is written may take the place of what is removed.
        let removed: Vec<_> = removed.collect();
        let written =
            plan.writes.iter().map(|step| (Some(step.owner.clone()), "write", &step.folder, self.write(step)));
        let failed = |(owner, what, folder, done): (_, _, &PathBuf, io::Result<()>)| {
            done.err().map(|error| (owner, told(what, folder, &error)))
        };
        removed.into_iter().chain(written).filter_map(failed).collect()
    }

    fn write(&self, step: &Write) -> io::Result<()> {
        let folder = self.place(&step.folder)?;
        if folder.is_dir() {
            return step.files.iter().try_for_each(|file| put(&folder, file));
        }
        let parent = folder.parent().unwrap_or(&self.root);
        self.make(parent)?;
        let whole = parent.join(draft(&folder));
        discard(&whole)?;
        fs::create_dir(&whole)?;
        let filled = step.files.iter().try_for_each(|file| put(&whole, file));
        // An empty folder that somebody made meanwhile gives way; one with something in it does not.
        let moved = filled.and_then(|()| open_to_all(&whole, 0o755)).and_then(|()| fs::rename(&whole, &folder));
        if moved.is_err() {
            // A full disk has room for this.
            let _ = discard(&whole);
        }
        moved?;
        fs::File::open(parent)?.sync_all()
    }

    /// Makes a folder and those above it, whatever the process's mask hides: runtimes may run as somebody else.
    fn make(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(above) = folder.parent().filter(|above| above.starts_with(&self.root)) {
            self.make(above)?;
        }
        fs::create_dir(folder)?;
        open_to_all(folder, 0o755)
    }

    fn remove(&self, step: &Removal) -> io::Result<()> {
        let folder = self.place(&step.folder)?;
        let Some(top) = &step.top else {
            return step.names.iter().try_for_each(|name| gone(fs::remove_file(folder.join(name))));
        };
        // Out of sight first: an empty folder of a host hides others from podman, and a file without its authority fails every pull.
        let parent = folder.parent().unwrap_or(&self.root).to_owned();
        let aside = if super::plan::is_draft(&step.folder.file_name().unwrap_or_default().to_string_lossy()) {
            folder.clone()
        } else {
            let aside = parent.join(draft(&folder));
            discard(&aside)?;
            gone(fs::rename(&folder, &aside))?;
            aside
        };
        step.names.iter().try_for_each(|name| gone(fs::remove_file(aside.join(name))))?;
        match fs::remove_dir(&aside) {
            // Somebody has put something there meanwhile: it is theirs.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return fs::rename(&aside, &folder),
            removed => gone(removed)?,
        }
        self.remove_empty(&parent, &self.place(top)?)
    }

    /// Removes folders that are empty, from this one up to one that stays.
    fn remove_empty(&self, folder: &Path, top: &Path) -> io::Result<()> {
        let mut folder = folder;
        while folder != top && folder.starts_with(top) {
            match fs::remove_dir(folder) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Ok(()),
                removed => gone(removed)?,
            }
            let Some(above) = folder.parent() else { return Ok(()) };
            folder = above;
        }
        Ok(())
    }
}

/// Whether a kubelet that says this uses this runtime.
fn uses(runtime: Runtime, said: &str) -> bool {
    let name = match runtime {
        Runtime::Containerd => "containerd://",
        Runtime::Docker => "docker://",
        Runtime::Podman => "cri-o://",
    };
    said.starts_with(name)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn draft(path: &Path) -> String {
    format!("{DRAFT}{}{DRAFT_END}", path.file_name().unwrap_or_default().to_string_lossy())
}

/// A file at once, in a folder that exists.
fn put(folder: &Path, file: &File) -> io::Result<()> {
    let place = folder.join(file.path.file_name().unwrap_or_default());
    let whole = folder.join(draft(&place));
    gone(fs::remove_file(&whole))?;
    let written = (|| {
        // New, so that no link is followed.
        let mut open = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&whole)?;
        open.write_all(file.text.as_bytes())?;
        open_to_all(&whole, 0o644)?;
        open.sync_all()?;
        fs::rename(&whole, &place)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&whole);
    }
    written?;
    fs::File::open(folder)?.sync_all()
}

/// Removes a folder of drafts that a process left which was killed.
fn discard(folder: &Path) -> io::Result<()> {
    if folder.is_symlink() {
        return fs::remove_file(folder);
    }
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                fs::remove_file(entry?.path())?;
            }
            fs::remove_dir(folder)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// What is gone already need not be removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn open_to_all(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// What was tried, why it failed, and what to do.
fn told(what: &str, path: &Path, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            "; where a node's folders cannot be written, it learns from its own configuration whom to trust: see kubectl registry trust --print"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; free space on the node",
        ErrorKind::PermissionDenied => "; on nodes with SELinux set the chart's nodeTrust.seLinuxOptions.type to spc_t",
        _ => "",
    };
    // Without the number that the system's text ends with.
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("cannot {what} {}: {text}{advice}", path.display())
}

#[cfg(test)]
mod tests;
