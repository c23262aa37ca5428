//! The cluster that the demo is shown on: a node of our own, or somebody's cluster of which we have only a kubeconfig. Says how each is reached
//! and mistreated; what is shown is decided elsewhere.

use std::{
    cell::RefCell,
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use testbed::{
    Node, Tools,
    image::Image,
    node::{self, Signal},
};

use super::{NAMESPACE, REGISTRY, SYSTEM};
use crate::workspace;

/// How long a forwarded port may take to open.
const FORWARDED: Duration = Duration::from_secs(20);

pub(super) struct Place {
    tools: Tools,
    cluster: Cluster,
}

enum Cluster {
    Node(Box<Node>),
    Given { kubeconfig: PathBuf, port: u16, forward: RefCell<Option<Forward>> },
}

impl Place {
    /// Starts a node that has an image.
    pub(super) async fn start(tools: Tools, image: Image) -> Result<Self> {
        let options = node::Options { images: vec![image], ..node::Options::default() };
        Ok(Self { tools, cluster: Cluster::Node(Box::new(Node::start(options).await?)) })
    }

    /// A cluster that exists.
    pub(super) fn given(tools: Tools, kubeconfig: PathBuf) -> Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = free.context("find a free port")?.port();
        Ok(Self { tools, cluster: Cluster::Given { kubeconfig, port, forward: RefCell::default() } })
    }

    pub(super) fn is_ours(&self) -> bool {
        matches!(self.cluster, Cluster::Node(_))
    }

    pub(super) fn tools(&self) -> &Tools {
        &self.tools
    }

    pub(super) fn kubeconfig(&self) -> &Path {
        match &self.cluster {
            Cluster::Node(node) => node.kubeconfig(),
            Cluster::Given { kubeconfig, .. } => kubeconfig,
        }
    }

    /// The registry's name for clients here: inside the node it is the same for a person, the kubelet and the certificate.
    pub(super) fn host(&self) -> String {
        match &self.cluster {
            Cluster::Node(_) => format!("{REGISTRY}.{NAMESPACE}.svc:5000"),
            Cluster::Given { port, .. } => format!("localhost:{port}"),
        }
    }

    /// A client of the registry, where that name leads to it.
    pub(super) fn client(&self, program: &str) -> Result<Command> {
        match &self.cluster {
            Cluster::Node(node) => Ok(node.command(program)),
            Cluster::Given { port, forward, .. } => {
                if !forward.borrow_mut().as_mut().is_some_and(Forward::is_open) {
                    *forward.borrow_mut() = Some(self.forward(*port)?);
                }
                Ok(Command::new(self.tools.path(program)?))
            }
        }
    }

    fn forward(&self, port: u16) -> Result<Forward> {
        let mut command = self.with_kubeconfig("kubectl")?;
        command.args([
            "--namespace",
            NAMESPACE,
            "port-forward",
            &format!("service/{REGISTRY}"),
            &format!("{port}:5000"),
        ]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut forward = Forward { child: child.context("run kubectl port-forward")?, port };
        let started = Instant::now();
        while !forward.is_open() {
            if started.elapsed() > FORWARDED || forward.child.try_wait()?.is_some() {
                bail!("kubectl port-forward does not reach the Service {NAMESPACE}/{REGISTRY}");
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(forward)
    }

    /// Makes the node's container runtime trust the registry. Gives the file that says so; without one of our own nodes there is nothing to write.
    pub(super) fn trust(&self, authorities: &str) -> Result<PathBuf> {
        let Cluster::Node(node) = &self.cluster else { bail!("these nodes are not ours") };
        let host = self.host();
        let folder = node.certs_d().join(&host);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let (ca, hosts) = (folder.join("ca.crt"), folder.join("hosts.toml"));
        fs::write(&ca, authorities).with_context(|| format!("write {}", ca.display()))?;
        let text = format!(
            "server = \"https://{host}\"\n\n[host.\"https://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{}\"\n",
            ca.display()
        );
        fs::write(&hosts, text).with_context(|| format!("write {}", hosts.display()))?;
        Ok(hosts)
    }

    /// The process on a node of our own; elsewhere the pod, which is as near as one gets from outside.
    pub(super) async fn kill(&self, pod: &Pod) -> Result<()> {
        match &self.cluster {
            Cluster::Node(node) => node.kill_container_process(NAMESPACE, &pod.name_any(), Signal::SIGKILL).await,
            Cluster::Given { forward, .. } => {
                drop(forward.borrow_mut().take());
                self.kubectl(["--namespace", NAMESPACE, "delete", "pod", &pod.name_any(), "--now"]).map(drop)
            }
        }
    }

    /// Installs or upgrades a chart and waits until what it brings is ready.
    pub(super) fn helm(&self, chart: &str, values: &[String]) -> Result<()> {
        let home = tempfile::tempdir().context("make a folder for Helm")?;
        let mut command = self.with_kubeconfig("helm")?;
        command.args(["upgrade", "--install", chart]).arg(Path::new("charts").join(chart));
        command.args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "3m"]);
        command.args(values.iter().flat_map(|value| ["--set", value]));
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, home.path());
        }
        printed(command).map(drop)
    }

    pub(super) fn kubectl<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = self.with_kubeconfig("kubectl")?;
        command.args(arguments);
        printed(command)
    }

    fn with_kubeconfig(&self, program: &str) -> Result<Command> {
        let mut command = workspace::command(self.tools.path(program)?);
        command.arg("--kubeconfig").arg(self.kubeconfig());
        Ok(command)
    }

    /// From now on the cluster goes on without us. Gives the programs and the kubeconfig, for going on by hand.
    pub(super) fn leave(self) -> Result<(Tools, PathBuf)> {
        let kubeconfig = self.kubeconfig().to_owned();
        if let Cluster::Node(node) = self.cluster {
            super::mark(workspace::root(), node.sandbox().dir())?;
            let own = std::env::current_exe().context("find this program")?;
            node.outlive(&own, &["cluster", "forward"], &["cluster", "provision"])?;
        }
        Ok((self.tools, kubeconfig))
    }
}

/// A running `kubectl port-forward`.
struct Forward {
    child: Child,
    port: u16,
}

impl Forward {
    fn is_open(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None)) && TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// Runs a program and gives what it printed.
fn printed(mut command: Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        bail!("{name} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
