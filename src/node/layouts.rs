//! Which files make a container runtime, or a whole Linux machine, trust a registry. Only says what should be there: it is for others to
//! look at what is, and to write.
//!
//! The first line of every file says for which registry it was written. Readers pass over it: it is a comment in TOML, and outside of
//! the sections of PEM (RFC 7468). So a file is known as ours wherever it lies, also after its registry is gone, and one of somebody
//! else is never taken for it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::api::GROUP;
use crate::model::{HostPort, RegistryName};
use crate::pki::Bundle;

/// The registry that files are for: namespace and name, or a name alone where nobody knows of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    namespace: Option<String>,
    name: RegistryName,
}

/// What is to be trusted, and under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// For which registry.
    pub owner: Owner,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display, strum::EnumIter)]
#[strum(serialize_all = "lowercase")]
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

/// The folder that containerd is documented to read.
const CONTAINERD: &str = "/etc/containerd/certs.d";
/// What containerd from 2.2 on reads without configuration: its default is a list, which it takes for one name
/// (<https://github.com/containerd/containerd/issues/12808>).
const CONTAINERD_UNCONFIGURED: &str = "/etc/containerd/certs.d:/etc/docker/certs.d";

impl Owner {
    /// A registry.
    #[must_use]
    pub fn new(namespace: Option<&str>, name: RegistryName) -> Self {
        Self { namespace: namespace.map(str::to_owned), name }
    }

    /// For whom a file was written, from its first line; `None` if it is not one of ours.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(&format!("# {GROUP}/trust for "))?;
        let (owner, _) = rest.split_once(';')?;
        let (namespace, name) = owner.split_once('/').map_or((None, owner), |(space, name)| (Some(space), name));
        Some(Self::new(namespace, RegistryName::parse(name).ok()?))
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

    fn mark(&self) -> String {
        format!("# {GROUP}/trust for {self}; kubectl registry trust overwrites and removes this file\n")
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
            Self::Containerd => match containerd.and_then(config_path) {
                Some(folder) if !folder.contains(':') => vec![folder.into()],
                Some(list) => vec![CONTAINERD.into(), list.into()],
                None => vec![CONTAINERD.into(), CONTAINERD_UNCONFIGURED.into()],
            },
        }
    }

    /// Its files for one host, in the order in which they can be written one by one.
    #[must_use]
    pub fn files(self, folder: &Path, trust: &Trust) -> Vec<File> {
        let Trust { owner, host, endpoint, authorities } = trust;
        let folder = folder.join(host.as_str());
        // Docker takes no other ending for an authority.
        let mut files = vec![File { path: folder.join("ca.crt"), text: owner.mark() + &authorities.render() }];
        if self == Self::Containerd {
            // Before 2.0 an authority outside of a host's section is passed over.
            let text = format!("server = \"https://{host}\"\n\n[host.\"https://{endpoint}\"]\n  ca = \"ca.crt\"\n");
            files.push(File { path: folder.join("hosts.toml"), text: owner.mark() + &text });
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
                File { path: self.folder().join(name), text: owner.mark() + &one.render() }
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

/// The value of `config_path`, if containerd's configuration sets one.
fn config_path(text: &str) -> Option<&str> {
    let values = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim();
        let quote = value.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
        (key.trim() == "config_path").then(|| value[1..].split(quote).next()).flatten()
    });
    values.filter(|value| !value.is_empty()).last()
}
