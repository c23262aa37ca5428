//! A registry, the program, and a folder of somebody who uses both.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use testbed::image::{Compression, Image, Layer};
use testbed::{Family, Mode, Objects, Progress, Registry, Tools};
use tokio::process::Command;

/// How long a command may take on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct Bed {
    pub(crate) registry: Registry,
    /// Where both registries store what they have: in memory, if there is such a place, because folders by the thousand are made and removed.
    storage: TempDir,
    /// Serves the manifests as long as it is there.
    _objects: Objects,
    home: TempDir,
}

pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// The Go programs of these families; `None` where there can be none.
pub(crate) async fn tools(families: &'static [Family]) -> Option<Tools> {
    if testbed::skip(Mode::ControlPlane) {
        return None;
    }
    let found = tokio::task::spawn_blocking(move || Tools::ensure(families, &Progress::auto())).await.unwrap();
    Some(found.unwrap_or_else(|error| panic!("{error:#}")))
}

impl Bed {
    /// With an empty registry, called team-a and team-b; `None` where there can be none.
    pub(crate) async fn new() -> Option<Self> {
        let tools = tools(&[Family::Registry]).await?;
        let memory = Path::new("/dev/shm");
        let storage = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let storage = storage.unwrap();
        let registry = Registry::start(&tools, &storage.path().join("own")).await.unwrap();
        let path =
            |name: &str| format!("/apis/privateregistry.dev/v1alpha1/namespaces/default/privateregistries/{name}");
        let manifest = |name: &str| {
            json!({
                "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"auth": {"none": {}}, "tls": {"none": {}}, "config": {"allowDeletes": true}},
            })
        };
        let objects = ["team-a", "team-b"].map(|name| (path(name), manifest(name)));
        let objects = Objects::serve(BTreeMap::from(objects)).await.unwrap();
        let home = tempfile::tempdir().unwrap();
        objects.write_kubeconfig(&home.path().join("kubeconfig")).unwrap();
        std::fs::create_dir(home.path().join("tmp")).unwrap();
        Some(Self { registry, storage, _objects: objects, home })
    }

    /// Another registry for the same person.
    pub(crate) async fn another(&self) -> Registry {
        let tools = tools(&[Family::Registry]).await.unwrap();
        Registry::start(&tools, &self.storage.path().join("other")).await.unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The same as text.
    pub(crate) fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    /// The program with its arguments, which go to `at`.
    pub(crate) fn command(&self, at: SocketAddr, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-registry"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", self.file("tmp")).args(arguments);
        command.args(["--address", &at.to_string(), "--kubeconfig"]).arg(self.file("kubeconfig"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub(crate) async fn asks_at(&self, at: SocketAddr, arguments: &[&str]) -> Said {
        said(self.command(at, arguments)).await
    }

    pub(crate) async fn asks(&self, arguments: &[&str]) -> Said {
        self.asks_at(self.registry.address(), arguments).await
    }

    /// What it prints when all is well.
    pub(crate) async fn sees(&self, arguments: &[&str]) -> String {
        let said = self.asks(arguments).await;
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{arguments:?}: {}", said.out);
        said.out
    }

    /// The same as JSON.
    pub(crate) async fn reads(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.sees(&[arguments, &["-o", "json"]].concat()).await).unwrap()
    }

    /// The digest under a name.
    pub(crate) async fn digest(&self, image: &str) -> String {
        self.reads(&["inspect", "team-a", image]).await["digest"].as_str().unwrap().to_owned()
    }

    /// Puts an image there, and gives its digest.
    pub(crate) async fn pushes(&self, name: &str, layers: Vec<Layer>) -> String {
        let image = Image { reference: name.to_owned(), layers, compression: Compression::None, ..Image::default() };
        let built = image.build().unwrap();
        let folder = tempfile::tempdir_in(self.home.path()).unwrap();
        built.write_layout(folder.path()).unwrap();
        self.sees(&["load", "team-a", name, "-i", folder.path().to_str().unwrap()]).await;
        built.digest().to_owned()
    }

    /// The digest of the largest layer.
    pub(crate) async fn largest_layer(&self, image: &str) -> (String, u64) {
        let layers = self.reads(&["layers", "team-a", image]).await;
        let layers = layers["layers"].as_array().unwrap().clone();
        let largest = layers.iter().max_by_key(|layer| layer["size"].as_u64()).unwrap();
        (largest["digest"].as_str().unwrap().to_owned(), largest["size"].as_u64().unwrap())
    }

    /// What is in a folder, without what is in folders there.
    pub(crate) fn listed(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.file(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// What a program said, which has to end.
pub(crate) async fn said(mut command: Command) -> Said {
    let shown = format!("{:?}", command.as_std());
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    Said::of(&output.unwrap_or_else(|_| panic!("{shown} takes longer than {LIMIT:?}")).unwrap())
}

/// Runs somebody else's program, which must succeed.
pub(crate) async fn runs(program: &Path, arguments: &[impl AsRef<OsStr>], environment: &[(&str, &Path)]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let said = said(command).await;
    assert_eq!(said.code, Some(0), "{shown}: {}{}", said.out, said.err);
    said.out
}

/// Bytes that do not repeat.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hexadecimal: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hexadecimal}")
}
