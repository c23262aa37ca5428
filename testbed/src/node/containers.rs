//! From a container's id to its first process, by the control group that the kubelet made for it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The process that is number 1 inside the container. `cgroup_root` as in [`crate::sandbox::Sandbox::cgroup_root`].
pub(super) fn first_process(cgroup_root: &str, container: &str) -> Result<i32> {
    let group = group_of(cgroup_root, container)
        .with_context(|| format!("container {container} has no control group; it isn't running"))?;
    let processes =
        fs::read_to_string(group.join("cgroup.procs")).with_context(|| format!("read {}", group.display()))?;
    let mut ids = processes.lines().filter_map(|line| line.parse().ok());
    ids.find(|id| is_first(*id)).with_context(|| format!("container {container} has no process"))
}

fn group_of(cgroup_root: &str, container: &str) -> Option<PathBuf> {
    let name = cgroup_root.trim_start_matches('/');
    ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .iter()
        .find_map(|hierarchy| find(&Path::new(hierarchy).join(name), container))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    folders.into_iter().find_map(|path| if path.ends_with(name) { Some(path) } else { find(&path, name) })
}

/// A process's last `NSpid` is its number in its own process namespace.
fn is_first(id: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.and_then(|numbers| numbers.split_whitespace().next_back()) == Some("1")
}
