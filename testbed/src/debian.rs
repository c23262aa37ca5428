//! Programs of the distribution that node mode needs and that aren't worth building: the OCI runtime and the packet filter's command.
//! Installs only on Debian, only as root, and only what is missing; everywhere else it says what to install.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// A program and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// The command's name.
    pub name: &'static str,
    /// The Debian package.
    pub package: &'static str,
}

/// What node mode needs. containerd runs containers with runc; kube-proxy and the CNI plugins write rules with nft; ip makes the network.
pub const NODE: &[Program] = &[
    Program { name: "runc", package: "runc" },
    Program { name: "nft", package: "nftables" },
    Program { name: "ip", package: "iproute2" },
    Program { name: "nsenter", package: "util-linux" },
    Program { name: "mount", package: "mount" },
];

/// Who else makes and moves images.
pub const IMAGES: &[Program] = &[
    Program { name: "buildah", package: "buildah" },
    Program { name: "skopeo", package: "skopeo" },
    Program { name: "unshare", package: "util-linux" },
];

/// Makes sure that every program is there. Blocks for some seconds when packages must be installed, and returns the names of those packages.
pub fn ensure(programs: &[Program]) -> Result<Vec<&'static str>> {
    let missing = missing_packages(programs, |name| find(name).is_some());
    if missing.is_empty() {
        return Ok(missing);
    }
    let names = missing.join(" ");
    if !nix::unistd::geteuid().is_root() || !is_debian() {
        bail!("programs are missing; install the packages that bring them (Debian's names: {names})");
    }
    install(&missing).with_context(|| format!("install Debian packages {names}"))?;
    match missing_packages(programs, |name| find(name).is_some()) {
        none if none.is_empty() => Ok(missing),
        still => bail!("installed {names}, and still can't find the programs of {}", still.join(" ")),
    }
}

/// Unpacks a package into a folder without installing it: nothing on the machine changes, and another version may be installed.
pub(crate) fn unpack(package: &str, folder: &Path) -> Result<()> {
    if !is_debian() {
        bail!("this is not Debian");
    }
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let download = || {
        let mut command = Command::new("apt-get");
        command.args(["--quiet", "download", package]).current_dir(folder).output().context("run apt-get")
    };
    if !download()?.status.success() {
        // As below. An ordinary user may not do that, which the second try will say.
        drop(apt_get(&["update"])?);
        succeeded(&download()?)?;
    }
    let files = std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files = files.filter_map(|file| Some(file.ok()?.path()));
    let file = files.find(|file| file.extension().is_some_and(|extension| extension == "deb"));
    let file = file.with_context(|| format!("apt-get downloaded no {package}"))?;
    let mut command = Command::new("dpkg-deb");
    succeeded(&command.arg("--extract").arg(file).arg(folder).output().context("run dpkg-deb")?)
}

/// Where a program is: looked up in PATH and then in the folders for administrators, which an ordinary user's PATH lacks.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn missing_packages(programs: &[Program], is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let packages: BTreeSet<_> =
        programs.iter().filter(|program| !is_there(program.name)).map(|program| program.package).collect();
    packages.into_iter().collect()
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists()
}

fn install(packages: &[&str]) -> Result<()> {
    let arguments = ["install", "--yes", "--no-install-recommends"];
    let first = apt_get(arguments.iter().chain(packages))?;
    if first.status.success() {
        return Ok(());
    }
    // A machine made from a bare image has no package lists yet.
    succeeded(&apt_get(&["update"])?)?;
    succeeded(&apt_get(arguments.iter().chain(packages))?)
}

fn apt_get<'a>(arguments: impl IntoIterator<Item = &'a &'a str>) -> Result<Output> {
    // Another apt-get may be at work: wait for its lock instead of failing.
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=120"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command.output().context("run apt-get")
}

fn succeeded(output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    bail!("{}", complaint.lines().next_back().unwrap_or("it failed and says nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_of_missing_programs_are_asked_for_each_once() {
        let programs = [
            Program { name: "a", package: "one" },
            Program { name: "b", package: "one" },
            Program { name: "c", package: "two" },
        ];
        assert_eq!(missing_packages(&programs, |name| name == "c"), ["one"]);
        assert!(missing_packages(&programs, |_| true).is_empty());
    }

    #[test]
    fn a_program_is_found_by_its_whole_name() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
    }
}
