//! CRI-O beside the runtime of a node, as one more that pulls images: no kubelet asks it for pods. Where it looks for whom to trust is its own
//! affair, and nothing here tells it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::Node;
use crate::{Family, Progress, Tools};

/// In the node, of which `/run` is its own.
const SOCKET: &str = "/run/crio/crio.sock";

/// A running CRI-O, as a client of registries. Ends with its node.
#[derive(Debug)]
pub struct Crio<'a> {
    node: &'a Node,
    puller: PathBuf,
}

impl<'a> Crio<'a> {
    pub(super) async fn start(node: &'a Node) -> Result<Self> {
        let tools = tokio::task::spawn_blocking(|| Tools::ensure(&[Family::Crio], &Progress::auto())).await??;
        let folder = node.sandbox().dir().join("crio");
        std::fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        write("crio.conf", &configuration(&folder, node.tools.path("containerd-shim-runc-v2")?))?;

        let mut command = node.command(tools.path("crio")?);
        // Without a folder for more of it: the machine may have a CRI-O of its own.
        command.arg("--config").arg(folder.join("crio.conf")).args(["--config-dir", ""]);
        let process = node.sandbox().start("crio", command)?;
        process.listens(&node.file(SOCKET)).await?;
        Ok(Self { node, puller: tools.path("cri-pull")?.to_owned() })
    }

    /// Pulls an image with this login (`{"username": …, "password": …}`), and gives its name by digest; or what CRI-O says.
    pub async fn pull(&self, image: &str, login: &Value) -> Result<Result<String, String>> {
        let mut command = self.node.command(&self.puller);
        command.args([SOCKET, image]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut pulling = tokio::process::Command::from(command).spawn().context("run cri-pull")?;
        let mut input = pulling.stdin.take().context("cri-pull's input")?;
        input.write_all(login.to_string().as_bytes()).await.context("hand over the login")?;
        drop(input);
        let output = pulling.wait_with_output().await.context("wait for cri-pull")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
    }
}

/// What would be made outside of the node, or be in the way of its own runtime, is switched off or led elsewhere. The default runtime is one of the
/// type that needs no conmon: none is ever run.
fn configuration(folder: &Path, shim: &Path) -> String {
    let (folder, shim) = (folder.display(), shim.display());
    format!(
        r#"[crio.api]
listen = "{SOCKET}"
[crio.image]
signature_policy = "{folder}/policy.json"
[crio.network]
plugin_dirs = ["{folder}/cni"]
[crio.nri]
enable_nri = false
[crio.runtime]
cgroup_manager = "cgroupfs"
disable_hostport_mapping = true
hooks_dir = []
pinns_path = "{shim}"
[crio.runtime.runtimes.crun]
runtime_path = "{shim}"
runtime_type = "vm"
"#
    )
}
