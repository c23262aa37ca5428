//! Which files make a container runtime, or a whole Linux machine, trust a registry. Only says what should be there: it is for others to
//! look at what is, and to write.
//!
//! The first line of every file says for which registry it was written. Readers pass over it: it is a comment in TOML, and outside of
//! the sections of PEM (RFC 7468). So a file is known as ours wherever it lies, also after its registry is gone, and one of somebody
//! else is never taken for it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::containerd::{self, Configuration};
use crate::api::GROUP;
use crate::model::{HostPort, RegistryName};
use crate::pki::Bundle;

/// The registry that files are for: namespace and name, or a name alone where nobody knows of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    namespace: Option<String>,
    name: RegistryName,
}

/// Who overwrites and removes a file. Nobody else does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// Whoever runs `kubectl registry trust`.
    Person,
    /// The node agent that follows the orders in this namespace.
    Agent(String),
}

/// The first line of a file: for whom it was written, and who keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// For which registry.
    pub owner: Owner,
    /// By whom.
    pub keeper: Keeper,
}

/// What is to be trusted, and under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// For which registry, and who writes it down.
    pub mark: Mark,
    /// What image names begin with.
    pub host: HostPort,
    /// Where the registry is reached. Another one than `host` where that is a Service's name, which nodes do not resolve.
    pub endpoint: HostPort,
    /// Who signs its certificate.
    pub authorities: Bundle,
}

/// A file as it should be, readable by everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where, from the root of the file system.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// What pulls images. Each looks for a folder that is named after the host, at every pull.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display, strum::EnumIter, Serialize, Deserialize,
)]
#[strum(serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Docker's daemon.
    Docker,
    /// containerd, and with it most kubelets.
    Containerd,
    /// podman, buildah, skopeo and CRI-O.
    Podman,
}

/// Where a system keeps the authorities that all its programs trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumIter)]
pub enum Store {
    /// Debian, Ubuntu, Alpine.
    Debian,
    /// Fedora, RHEL and their kin.
    RedHat,
}

/// What names the node agent, up to the namespace of its orders.
const AGENT: &str = "the node agent of ";
/// What becomes of a marked file.
const KEEPS: &str = "overwrites and removes this file";

impl Owner {
    /// A registry.
    #[must_use]
    pub fn new(namespace: Option<&str>, name: RegistryName) -> Self {
        Self { namespace: namespace.map(str::to_owned), name }
    }

    /// As it is displayed; `None` if the text is no registry's.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/').map_or((None, text), |(space, name)| (Some(space), name));
        let name = RegistryName::parse(name).ok()?;
        namespace.is_none_or(is_namespace).then(|| Self::new(namespace, name))
    }

    /// For whom a file was written, from its first line; `None` if it is not one of ours.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        Mark::of(text).map(|mark| mark.owner)
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &RegistryName {
        &self.name
    }

    /// What its own files in folders of everybody are called.
    #[must_use]
    pub fn file_stem(&self) -> String {
        format!("private-registry.{}", self.to_string().replace('/', "."))
    }
}

fn is_namespace(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

impl Mark {
    /// Of `kubectl registry trust`.
    #[must_use]
    pub fn of_a_person(owner: Owner) -> Self {
        Self { owner, keeper: Keeper::Person }
    }

    /// From a file's first line; `None` if the file is not one of ours.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(&format!("# {GROUP}/trust for "))?;
        let (owner, keeper) = rest.lines().next()?.split_once(';')?;
        let agent = keeper.trim().strip_prefix(AGENT).and_then(|rest| rest.split(' ').next());
        let keeper =
            agent.filter(|space| is_namespace(space)).map_or(Keeper::Person, |space| Keeper::Agent(space.to_owned()));
        Some(Self { owner: Owner::parse(owner)?, keeper })
    }

    fn line(&self) -> String {
        let keeper = match &self.keeper {
            Keeper::Person => "kubectl registry trust".to_owned(),
            Keeper::Agent(namespace) => format!("{AGENT}{namespace}"),
        };
        format!("# {GROUP}/trust for {}; {keeper} {KEEPS}\n", self.owner)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl File {
    /// What is below the line that says for whom it is.
    #[must_use]
    pub fn content(&self) -> &str {
        self.text.split_once('\n').map_or("", |(_, content)| content)
    }
}

impl Runtime {
    /// Where it looks for folders of hosts. `containerd` is the text of `/etc/containerd/config.toml`, if there is one.
    #[must_use]
    pub fn folders(self, containerd: Option<&str>) -> Vec<PathBuf> {
        match self {
            Self::Docker => vec!["/etc/docker/certs.d".into()],
            Self::Podman => vec!["/etc/containers/certs.d".into()],
            // An older version reads neither before it is told to; a newer one, one of the two.
            Self::Containerd => {
                let config = containerd.and_then(|text| Configuration::read(text).ok());
                let named = config.as_ref().and_then(Configuration::config_path);
                containerd::places(named.unwrap_or(containerd::UNCONFIGURED))
            }
        }
    }

    /// Its files for one host, in the order in which they can be written one by one.
    #[must_use]
    pub fn files(self, folder: &Path, trust: &Trust) -> Vec<File> {
        let Trust { mark, host, endpoint, authorities } = trust;
        let folder = folder.join(host.as_str());
        // Docker takes no other ending for an authority. containerd reads this, too, where there is no hosts.toml; with one, a version
        // before 2.0 would say of each tag that is missing that the authority is unknown.
        let mut files = vec![File { path: folder.join("ca.crt"), text: mark.line() + &authorities.render() }];
        if self == Self::Containerd && host != endpoint {
            // Before 2.0 an authority outside of a host's section is passed over.
            let text = format!("server = \"https://{host}\"\n\n[host.\"https://{endpoint}\"]\n  ca = \"ca.crt\"\n");
            files.push(File { path: folder.join("hosts.toml"), text: mark.line() + &text });
        }
        files
    }

    /// A folder that this runtime prefers to that of [`files`](Self::files), if it exists.
    #[must_use]
    pub fn preferred(self, folder: &Path, host: &HostPort) -> Option<PathBuf> {
        // For systems whose file names have no colon.
        let (name, port) = host.as_str().rsplit_once(':')?;
        (self == Self::Containerd && host.port().is_some()).then(|| folder.join(format!("{name}_{port}_")))
    }
}

impl Store {
    /// The folder for authorities that were added.
    #[must_use]
    pub fn folder(self) -> &'static Path {
        Path::new(match self {
            Self::Debian => "/usr/local/share/ca-certificates",
            Self::RedHat => "/etc/pki/ca-trust/source/anchors",
        })
    }

    /// A file for each authority: Debian's command passes over those that hold several.
    #[must_use]
    pub fn files(self, owner: &Owner, authorities: &Bundle) -> Vec<File> {
        let named = authorities
            .each()
            .into_iter()
            .flat_map(|one| one.facts().into_iter().map(move |facts| (facts, one.clone())));
        named
            .map(|(facts, one)| {
                // Debian links all files into one folder, by these names.
                let print: String = facts.fingerprint.chars().filter(char::is_ascii_hexdigit).take(8).collect();
                let name = format!("{}.{}.crt", owner.file_stem(), print.to_lowercase());
                let mark = Mark::of_a_person(owner.clone());
                File { path: self.folder().join(name), text: mark.line() + &one.render() }
            })
            .collect()
    }

    /// The command that makes programs see what was added.
    #[must_use]
    pub fn added(self) -> &'static [&'static str] {
        match self {
            Self::Debian => &["/usr/sbin/update-ca-certificates"],
            Self::RedHat => &["/usr/bin/update-ca-trust"],
        }
    }

    /// The command that makes programs see that something is gone.
    #[must_use]
    pub fn removed(self) -> &'static [&'static str] {
        match self {
            // Without it, links to what is gone stay.
            Self::Debian => &["/usr/sbin/update-ca-certificates", "--fresh"],
            Self::RedHat => self.added(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use strum::IntoEnumIterator as _;

    use super::*;

    const ROOTS: &str =
        concat!(include_str!("../pki/testdata/company-root.crt"), include_str!("../pki/testdata/rsa-root.crt"));

    fn trust(host: &str, endpoint: &str) -> Trust {
        let host_port = |text| HostPort::parse(text).unwrap();
        Trust {
            mark: Mark::of_a_person(owner()),
            host: host_port(host),
            endpoint: host_port(endpoint),
            authorities: Bundle::read(ROOTS),
        }
    }

    fn owner() -> Owner {
        Owner::new(Some("registries"), RegistryName::parse("team-a").unwrap())
    }

    #[test]
    fn each_runtime_gets_what_it_reads_under_the_name_that_images_have() {
        for (runtime, host, endpoint, expected) in [
            (
                Runtime::Docker,
                "a.example:5000",
                "a.example:5000",
                vec![("/etc/docker/certs.d/a.example:5000/ca.crt", "")],
            ),
            (Runtime::Podman, "a.example", "a.example", vec![("/etc/containers/certs.d/a.example/ca.crt", "")]),
            (
                Runtime::Containerd,
                "[fd00::9]:5000",
                "[fd00::9]:5000",
                vec![("/etc/containerd/certs.d/[fd00::9]:5000/ca.crt", "")],
            ),
            (
                Runtime::Containerd,
                "team-a.registries.svc:5000",
                "10.96.0.9:5000",
                vec![
                    ("/etc/containerd/certs.d/team-a.registries.svc:5000/ca.crt", ""),
                    (
                        "/etc/containerd/certs.d/team-a.registries.svc:5000/hosts.toml",
                        "server = \"https://team-a.registries.svc:5000\"\n\n[host.\"https://10.96.0.9:5000\"]\n  ca = \"ca.crt\"\n",
                    ),
                ],
            ),
        ] {
            let folder = runtime.folders(None).remove(0);
            let files = runtime.files(&folder, &trust(host, endpoint));
            let paths: Vec<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
            assert_eq!(paths, expected.iter().map(|(path, _)| *path).collect::<Vec<_>>());
            for (file, (_, text)) in files.iter().zip(expected) {
                assert_eq!(Owner::of(&file.text), Some(owner()));
                assert!(text.is_empty() || file.content() == text, "{}", file.text);
            }
            assert_eq!(Bundle::read(&files[0].text), Bundle::read(ROOTS), "the mark is no part of it");
        }
    }

    #[test]
    fn containerd_is_met_where_its_configuration_says_and_at_both_places_if_that_says_nothing() {
        let at = |config| {
            Runtime::Containerd.folders(config).into_iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        let unconfigured = [containerd::DOCUMENTED, containerd::UNCONFIGURED];
        assert_eq!(at(None), unconfigured);
        let registry = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n";
        for (config, expected) in [
            ("version = 3\n", &unconfigured[..]),
            (&format!("{registry}config_path = '/etc/cri/hosts'\n"), &["/etc/cri/hosts"]),
            (&format!("{registry}config_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n"), &unconfigured),
            (&format!("{registry}# config_path = '/elsewhere'\n"), &unconfigured),
            ("config_path = \"", &unconfigured),
        ] {
            assert_eq!(at(Some(config)), expected, "{config}");
        }
    }

    #[test]
    fn containerd_prefers_a_folder_without_a_colon() {
        let preferred = |runtime: Runtime, host| runtime.preferred(Path::new("/c"), &HostPort::parse(host).unwrap());
        assert_eq!(preferred(Runtime::Containerd, "[fd00::9]:5000"), Some("/c/[fd00::9]_5000_".into()));
        assert_eq!(preferred(Runtime::Containerd, "[fd00::9]"), None);
        assert_eq!(preferred(Runtime::Docker, "a.example:5000"), None);
    }

    #[test]
    fn a_system_gets_a_file_for_each_authority() {
        for store in Store::iter() {
            let files = store.files(&owner(), &Bundle::read(ROOTS));
            let names: BTreeSet<_> = files.iter().map(|file| &file.path).collect();
            assert_eq!((files.len(), names.len()), (2, 2), "{names:?}");
            for file in &files {
                assert_eq!(file.text.matches("BEGIN CERTIFICATE").count(), 1);
                assert_eq!(Owner::of(&file.text), Some(owner()));
                let name = file.path.file_name().unwrap().to_str().unwrap();
                assert!(name.starts_with("private-registry.registries.team-a.") && name.ends_with(".crt"), "{name}");
            }
        }
    }

    #[test]
    fn files_of_others_are_nobodys() {
        for text in [
            "",
            "\n",
            "-----BEGIN CERTIFICATE-----\n",
            "# privateregistry.dev/trust for",
            "# privateregistry.dev/trust for ../x; y\n",
        ] {
            assert_eq!(Owner::of(text), None, "{text}");
        }
        let later = format!("\n{}", Mark::of_a_person(owner()).line());
        assert_eq!(Owner::of(&later), None, "only the first line counts");
    }

    proptest! {
        #[test]
        fn for_whom_a_file_was_written_can_be_read_from_it(
            namespace in prop::option::of("[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?"), name in "[a-z]([-a-z0-9]{0,20}[a-z0-9])?",
            agent in prop::option::of("[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?"),
        ) {
            let owner = Owner::new(namespace.as_deref(), RegistryName::parse(&name).unwrap());
            let mark = Mark { owner: owner.clone(), keeper: agent.map_or(Keeper::Person, Keeper::Agent) };
            prop_assert_eq!(Mark::of(&mark.line()), Some(mark));
        }
    }
}
