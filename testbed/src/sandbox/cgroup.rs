//! Control groups: the kernel's own list of every process that belongs to an instance, pods' processes included.
//! Nothing is limited here; the kubelet does that below the same folders.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Uid;

/// One folder per mounted hierarchy (version 1) or the only one (version 2). The same name in each, as the kubelet wants it.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    folders: Vec<PathBuf>,
    host: PathBuf,
}

impl Cgroups {
    /// The folders that an instance has, or would have; `None` where this user can't have any.
    pub(super) fn of(id: &str) -> Option<Self> {
        if !Uid::effective().is_root() {
            return None;
        }
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let hierarchies: Vec<(PathBuf, bool)> = mounts.lines().filter_map(hierarchy).collect();
        let folders: Vec<_> = hierarchies.iter().map(|(path, _)| path.join(name(id))).collect();
        let tracking = hierarchies.iter().position(|(_, tracks)| *tracks)?;
        Some(Self { host: folders[tracking].join("host"), folders })
    }

    /// Makes the folders. Where the kernel shows them read-only (a container), an instance has to live without.
    pub(super) fn create(&self) -> Result<()> {
        for folder in self.folders.iter().chain([&self.host]) {
            fs::create_dir_all(folder).with_context(|| format!("make control group {}", folder.display()))?;
        }
        Ok(())
    }

    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The file that takes the id of a process which is to join.
    pub(super) fn procs(&self) -> PathBuf {
        self.host.join("cgroup.procs")
    }
}

/// The name of an instance's group in every hierarchy.
pub(super) fn name(id: &str) -> String {
    format!("preg-{id}")
}

/// A mounted hierarchy, and whether it is the one that lists our processes. With version 1 any would do; `pids` has no settings
/// that a new group must be given before a process may join (as `cpuset` has).
fn hierarchy(mount: &str) -> Option<(PathBuf, bool)> {
    let mut fields = mount.split(' ');
    let (_, path, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    match kind {
        "cgroup" => Some((path.into(), options.split(',').any(|option| option == "pids"))),
        "cgroup2" => Some((path.into(), path == "/sys/fs/cgroup")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_listed_by_the_pids_hierarchy_or_by_the_unified_one() {
        let cases = [
            ("cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0", Some(("/sys/fs/cgroup/pids", true))),
            ("cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0", Some(("/sys/fs/cgroup/cpuset", false))),
            ("cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0", Some(("/sys/fs/cgroup/unified", false))),
            ("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0", Some(("/sys/fs/cgroup", true))),
            ("tmpfs /sys/fs/cgroup tmpfs rw 0 0", None),
        ];
        for (line, expected) in cases {
            assert_eq!(hierarchy(line), expected.map(|(path, tracks)| (PathBuf::from(path), tracks)), "{line}");
        }
    }
}
