//! The container runtime of a node: its configuration, its start, and images handed to it. Everything that it keeps lies in the instance's folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Trust;
use crate::image::{Built, PAUSE};
use crate::sandbox::{Place, Process, Sandbox};

const NAMESPACE: &str = "k8s.io";

/// Where containerd's programs are.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) containerd: PathBuf,
    pub(super) ctr: PathBuf,
    pub(super) runc: PathBuf,
    /// The folder that holds exactly the CNI plugins.
    pub(super) cni: PathBuf,
}

/// A running containerd.
#[derive(Debug, Clone)]
pub(super) struct Containerd {
    ctr: PathBuf,
    folder: PathBuf,
    trust: Trust,
    process: Process,
}

impl Containerd {
    /// Starts it. It is not listening yet: see [`Self::listens`].
    pub(super) fn start(sandbox: &Sandbox, programs: &Programs, trust: Trust, pod_cidrs: &[String]) -> Result<Self> {
        let folder = folder(sandbox);
        let cni = folder.join("cni");
        for path in [&cni, &certs_d(&folder)] {
            std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        }
        write(&cni.join("10-bridge.conflist"), &network(&folder, pod_cidrs))?;
        write(&folder.join("config.toml"), &configuration(&folder, programs, trust)?)?;

        let mut command = sandbox.command(Place::Inside, &programs.containerd);
        command.arg("--config").arg(folder.join("config.toml")).env("PATH", search_path(&programs.containerd));
        let process = sandbox.start("containerd", command)?;
        Ok(Self { ctr: programs.ctr.clone(), folder, trust, process })
    }

    /// Waits until it takes connections.
    pub(super) async fn listens(&self) -> Result<()> {
        self.process.listens(&self.socket()).await
    }

    /// Where it listens, or will.
    pub(super) fn socket_in(sandbox: &Sandbox) -> PathBuf {
        folder(sandbox).join("containerd.sock")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    /// The folder that the configuration names, if it does.
    pub(super) fn certs_d(&self) -> Option<PathBuf> {
        (self.trust == Trust::Configured).then(|| certs_d(&self.folder))
    }

    /// Imports an archive under exactly the name that it carries.
    pub(super) async fn import_archive(&self, sandbox: &Sandbox, archive: &Path) -> Result<()> {
        let input = std::fs::File::open(archive).with_context(|| format!("open {}", archive.display()))?;
        let output = self.ctr_import(sandbox, input.into()).await?;
        succeeded(&output).with_context(|| format!("import {}", archive.display()))
    }

    /// Imports an image without writing its archive to the disk.
    pub(super) async fn import(&self, sandbox: &Sandbox, image: Built) -> Result<()> {
        let name = image.reference().to_owned();
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        let written = tokio::task::spawn_blocking(move || image.archive_into(writer));
        let output = self.ctr_import(sandbox, reader.into()).await?;
        succeeded(&output).with_context(|| format!("import {name}"))?;
        written.await?.with_context(|| format!("hand over {name}"))
    }

    async fn ctr_import(&self, sandbox: &Sandbox, archive: Stdio) -> Result<std::process::Output> {
        let mut command = sandbox.command(Place::Inside, &self.ctr);
        command
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", NAMESPACE, "images", "import", "-"])
            .stdin(archive);
        tokio::process::Command::from(command).output().await.context("run ctr")
    }
}

fn folder(sandbox: &Sandbox) -> PathBuf {
    sandbox.dir().join("containerd")
}

fn succeeded(output: &std::process::Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    bail!("ctr: {}", String::from_utf8_lossy(&output.stderr).trim())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn certs_d(folder: &Path) -> PathBuf {
    folder.join("certs.d")
}

/// containerd finds its shim by PATH: the shim beside it must come before another version's.
fn search_path(containerd: &Path) -> String {
    let own = containerd.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// The first number of what `containerd --version` says, for example `containerd github.com/containerd/containerd/v2 2.3.4+unknown`.
fn major_version(containerd: &Path) -> Result<u32> {
    let output = Command::new(containerd).arg("--version").output();
    let output = output.with_context(|| format!("run {}", containerd.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let number = said.split_whitespace().nth(2).and_then(|version| version.split('.').next()?.parse().ok());
    number.with_context(|| format!("{} does not say its version: {said:?}", containerd.display()))
}

fn configuration(folder: &Path, programs: &Programs, trust: Trust) -> Result<String> {
    let config_path = match trust {
        Trust::Configured => format!("config_path = \"{}\"", certs_d(folder).display()),
        Trust::Unconfigured => String::new(),
    };
    let (format, plugins) = match major_version(&programs.containerd)? {
        ..2 => (2, plugins_of_version_1(folder, programs, &config_path)),
        _ => (3, plugins_of_version_2(folder, programs, &config_path)),
    };
    let folder = folder.display();
    Ok(format!(
        r#"version = {format}
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins.'io.containerd.internal.v1.opt']
  path = "{folder}/opt"
{plugins}"#
    ))
}

/// `restrict_oom_score_adj` because a machine may forbid to lower a process's score, and every pod asks for that.
fn plugins_of_version_2(folder: &Path, programs: &Programs, config_path: &str) -> String {
    let (folder, cni, runc) = (folder.display(), programs.cni.display(), programs.runc.display());
    format!(
        r#"[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE}"
  [plugins.'io.containerd.cri.v1.images'.registry]
    {config_path}
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{cni}"]
    conf_dir = "{folder}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "{runc}"
      SystemdCgroup = false
[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
"#
    )
}

/// The same under its older names.
fn plugins_of_version_1(folder: &Path, programs: &Programs, config_path: &str) -> String {
    let (folder, cni, runc) = (folder.display(), programs.cni.display(), programs.runc.display());
    format!(
        r#"[plugins.'io.containerd.grpc.v1.cri']
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins.'io.containerd.grpc.v1.cri'.registry]
    {config_path}
  [plugins.'io.containerd.grpc.v1.cri'.cni]
    bin_dir = "{cni}"
    conf_dir = "{folder}/cni"
  [plugins.'io.containerd.grpc.v1.cri'.containerd]
    snapshotter = "overlayfs"
    [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]
        BinaryName = "{runc}"
        SystemdCgroup = false
"#
    )
}

/// Rules by nftables, so that iptables isn't needed.
fn network(folder: &Path, pod_cidrs: &[String]) -> String {
    let ranges: Vec<_> = pod_cidrs.iter().map(|cidr| serde_json::json!([{"subnet": cidr}])).collect();
    let anywhere = |cidr: &String| serde_json::json!({"dst": if cidr.contains(':') { "::/0" } else { "0.0.0.0/0" }});
    let routes: Vec<_> = pod_cidrs.iter().map(anywhere).collect();
    serde_json::json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "hairpinMode": true,
                "ipam": {"type": "host-local", "dataDir": folder.join("ipam"), "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true, "backend": "nftables"},
        ],
    })
    .to_string()
}
