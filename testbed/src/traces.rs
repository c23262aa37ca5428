//! What a cluster could leave on the machine, so that a test can prove that it left nothing: files in the system's folders, mounts, control
//! groups, network namespaces and devices, kernel settings. Reads only.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Folders that the programs of a node write to when nothing keeps them from it.
const FILES: [&str; 3] = ["/run", "/var/lib", "/var/log"];

const SETTINGS: [&str; 4] = ["/proc/sys/kernel", "/proc/sys/vm", "/proc/sys/net", "/proc/sys/fs"];

/// Settings that the kernel changes by itself.
const RESTLESS: [&str; 2] = ["ns_last_pid", "random"];

/// The traces at one moment, as lines of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Looks at the whole machine. What belongs to instances other than `id` is left out, so that others can run beside a test.
    pub fn of_machine(id: &str) -> Self {
        let mut found = BTreeSet::new();
        for folder in FILES {
            walk(Path::new(folder), &mut |path| found.extend([format!("file {}", path.display())]));
        }
        walk(Path::new("/sys/fs/cgroup"), &mut |path| {
            if path.is_dir() {
                found.insert(format!("control group {}", path.display()));
            }
        });
        for folder in SETTINGS {
            walk(Path::new(folder), &mut |path| found.extend(setting(path)));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        found.extend(mounts.lines().map(|mount| format!("mount {mount}")));
        found.extend(entries(Path::new("/sys/class/net")).iter().map(|device| format!("device {}", device.display())));
        found.extend(entries(Path::new("/proc")).iter().filter_map(|process| network_of(process, id)));
        found.retain(|trace| !is_of_another(trace, id));
        Self(found)
    }

    /// What the instance `id` has left since `before` was taken. Looks again for up to `patience` while there is something, because the
    /// kernel takes a moment, and other programs on the machine come and go.
    pub fn left(id: &str, before: &Self, patience: Duration) -> Vec<String> {
        let started = Instant::now();
        loop {
            let left = Self::of_machine(id).difference(before);
            if left.is_empty() || started.elapsed() > patience {
                return left;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is here and was not there before (`+`), and what was there before and is not here (`-`).
    pub fn difference(&self, before: &Self) -> Vec<String> {
        let more = self.0.difference(&before.0).map(|trace| format!("+ {trace}"));
        let less = before.0.difference(&self.0).map(|trace| format!("- {trace}"));
        more.chain(less).collect()
    }
}

/// Files come and go by themselves on every machine; folders that can't be read are nobody's business here.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for path in entries(folder) {
        visit(&path);
        if path.is_dir() && !path.is_symlink() {
            walk(&path, visit);
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn setting(path: &Path) -> Option<String> {
    let is_restless = path.iter().any(|part| RESTLESS.iter().any(|restless| part == *restless));
    let mode = path.metadata().ok().filter(fs::Metadata::is_file)?.permissions().mode();
    if is_restless || mode & 0o600 != 0o600 {
        return None;
    }
    let value = fs::read_to_string(path).ok()?;
    Some(format!("setting {} = {}", path.display(), value.trim()))
}

/// The network namespace of a process, without the process.
fn network_of(process: &Path, id: &str) -> Option<String> {
    process.file_name()?.to_str()?.parse::<u32>().ok()?;
    let groups = fs::read_to_string(process.join("cgroup")).ok()?;
    if is_of_another(&groups, id) {
        return None;
    }
    let namespace = fs::metadata(process.join("ns/net")).ok()?;
    Some(format!("network namespace {}", namespace.ino()))
}

/// Whether the text names an instance, and it is not this one.
fn is_of_another(text: &str, id: &str) -> bool {
    let named = ["/preg-", "private-registry-operator/run/"].iter().find_map(|mark| text.split(mark).nth(1));
    named.is_some_and(|rest| !rest.starts_with(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_another_instance_is_left_out() {
        for (trace, expected) in [
            ("control group /sys/fs/cgroup/pids/preg-aaaaaa/host", false),
            ("control group /sys/fs/cgroup/pids/preg-bbbbbb", true),
            ("mount overlay /home/somebody/.local/state/private-registry-operator/run/bbbbbb/x overlay rw 0 0", true),
            ("file /run/netns", false),
        ] {
            assert_eq!(is_of_another(trace, "aaaaaa"), expected, "{trace}");
        }
    }
}
