//! A whole Kubernetes on this machine: the control plane, a container runtime, a kubelet, kube-proxy, cluster DNS and storage, in network and
//! mounts of their own. Pods really run here, and nothing outside changes. Knows nothing of registries but the image that it has at hand.

mod containerd;
mod containers;
mod crio;
mod services;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
pub use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::background::Background;
use crate::control_plane::{self, Audit, ControlPlane};
use crate::image::{self, Image};
use crate::sandbox::{Kind, Place, Sandbox};
use crate::{Family, Progress, Tools, debian, provisioner};
use containerd::Containerd;
pub use crio::Crio;
use services::Services;

const START_LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a node is to be like.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Images to have at hand beside pause and registry.
    pub images: Vec<Image>,
    /// Keep a log of every API request, see [`Node::audit`].
    pub audit: bool,
    /// Run Debian's older containerd, as on a machine that can't build ours.
    pub debian_containerd: bool,
    /// Where the runtime looks for registries to trust.
    pub trust: Trust,
    /// Node, pods and Services have addresses of both families, IPv4 first. Needs a kernel with IPv6.
    pub dual_stack: bool,
    /// The kubelet comes to changed Secrets as rarely as one with default settings: every minute or so, unless something happens to the pod.
    pub default_sync: bool,
    /// A program that gives the kubelet logins to pull with.
    pub credential_provider: Option<CredentialProvider>,
}

/// A program that gives the kubelet logins to pull with.
#[derive(Debug, Clone)]
pub struct CredentialProvider {
    /// The program. Its file's name is the provider's.
    pub program: PathBuf,
    /// The rest of its entry in a `CredentialProviderConfig`.
    pub settings: Value,
}

/// Where the node's runtime looks for registries to trust.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trust {
    /// In one folder that the configuration names: [`Node::certs_d`].
    #[default]
    Configured,
    /// Where containerd looks when its configuration says nothing about it; [`Node::certs_d`] is then the folder that its documentation names. A
    /// containerd 2.2 or newer looks elsewhere: it takes a list of two folders for one name.
    Unconfigured,
}

/// A running node with its control plane. Ends when it is dropped, or when this process ends in whatever way, unless [`Node::outlive`] was called.
#[derive(Debug)]
pub struct Node {
    // Fields end in this order: what uses the cluster before the cluster.
    _provisioner: Background,
    settings: provisioner::Settings,
    containerd: Containerd,
    plane: ControlPlane,
    tools: Tools,
}

impl Node {
    /// Starts a node and waits until pods can run, Services and their names can be reached, and claims get volumes. Needs root on Linux. Builds the
    /// programs and installs the packages that are missing. At most two nodes run at once: a third waits for its turn.
    pub async fn start(options: Options) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a node needs root on Linux");
        }
        if options.dual_stack && !Path::new("/proc/sys/net/ipv6").exists() {
            bail!("this machine's kernel has no IPv6");
        }
        let (tools, sandbox) = tokio::task::spawn_blocking(move || {
            debian::ensure(debian::NODE)?;
            let tools = Tools::ensure(&families(options.debian_containerd), &Progress::auto())?;
            anyhow::Ok((tools, Arc::new(Sandbox::create(Kind::Node)?)))
        })
        .await??;
        Self::start_in(&sandbox, tools, options).await
    }

    async fn start_in(sandbox: &Arc<Sandbox>, tools: Tools, options: Options) -> Result<Self> {
        let Options { audit, dual_stack, trust, images, default_sync, credential_provider, .. } = options;
        let settings = control_plane::Options { audit, dual_stack, ..control_plane::Options::default() };
        let control_plane = ControlPlane::start_in(sandbox.clone(), &tools, settings);
        let runtime = start_containerd(sandbox, &tools, images, trust, dual_stack);
        // The control plane may take longer than the images or the other way round; what needs only one of them must not wait for the other.
        let with_services = async {
            let plane = control_plane.await?;
            let wanted = services::Wanted { dual_stack, default_sync, credential_provider };
            let services = Services::start(&plane, &tools, &Containerd::socket_in(sandbox), &wanted)?;
            let settings = provisioner_settings(sandbox)?;
            let (provisioner, ..) = tokio::try_join!(
                provisioner::start(plane.kubeconfig(), settings.clone()),
                plane.usable(),
                services.node_ready(&plane),
                services.reachable(sandbox)
            )?;
            anyhow::Ok((plane, settings, provisioner))
        };
        let (containerd, (plane, settings, provisioner)) = tokio::try_join!(runtime, with_services)?;
        Ok(Self { _provisioner: provisioner, settings, containerd, plane, tools })
    }

    /// A client with all rights, for the calling runtime.
    pub async fn client(&self) -> Result<Client> {
        self.plane.client().await
    }

    /// The administrator's kubeconfig, for use on this machine outside of the node.
    pub fn kubeconfig(&self) -> &Path {
        self.plane.kubeconfig()
    }

    /// The control plane: kubeconfigs for other users, killing the API server, and the like.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The log of API requests. Fails when [`Options::audit`] wasn't set.
    pub async fn audit(&self) -> Result<Audit> {
        self.plane.audit().await
    }

    /// Where the node's programs run, and their logs.
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        self.plane.sandbox()
    }

    /// The node's folder of trusted registries, one folder `HOST:PORT` with a `hosts.toml` each. Read again at each pull. See [`Trust`].
    pub fn certs_d(&self) -> PathBuf {
        self.containerd.certs_d().unwrap_or_else(|| self.file("/etc/containerd/certs.d"))
    }

    /// The folder in which [`Node::certs_d`] lies, as the node's pods call it.
    pub fn runtime_home(&self) -> PathBuf {
        let configured = self.containerd.certs_d();
        configured.and_then(|folder| folder.parent().map(Path::to_owned)).unwrap_or_else(|| "/etc/containerd".into())
    }

    /// A file or folder of the node, by its absolute path in there, as this process reaches it. What is written to the node's `/etc` stays in the
    /// node.
    pub fn file(&self, path: &str) -> PathBuf {
        let holder = self.sandbox().holder().map_or_else(|| "self".to_owned(), |holder| holder.to_string());
        PathBuf::from(format!("/proc/{holder}/root{path}"))
    }

    /// A command that will run in the node's network and mounts, where cluster names such as `NAME.NS.svc` can be looked up. The testbed's programs
    /// (`crane`, `ctr`, …) are on its PATH; paths in arguments must be absolute.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.sandbox().command(Place::Inside, program);
        command.env("PATH", search_path(&self.tools));
        command
    }

    /// Runs a program as [`Node::command`] does and waits for it. A program that fails is not an error: look at the status.
    pub async fn exec_in_node<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Output> {
        let mut command = self.command(program);
        command.args(arguments);
        tokio::process::Command::from(command).output().await.with_context(|| format!("run {program} in the node"))
    }

    /// Gives the node an image, under its own name.
    pub async fn import(&self, image: Image) -> Result<()> {
        let built = tokio::task::spawn_blocking(move || image.build()).await??;
        self.containerd.import(self.sandbox(), built).await
    }

    /// Gives the node an image from an archive, as [`crate::image::Built::write_archive`] makes it.
    pub async fn import_archive(&self, archive: &Path) -> Result<()> {
        self.containerd.import_archive(self.sandbox(), archive).await
    }

    /// Starts CRI-O beside the node's own runtime. Builds it if it is missing.
    pub async fn crio(&self) -> Result<Crio<'_>> {
        Crio::start(self).await
    }

    /// Sends a signal to the first process of a pod's first container, as if it had died by itself or been killed by the kernel.
    pub async fn kill_container_process(&self, namespace: &str, pod: &str, signal: Signal) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.client().await?, namespace);
        let object = pods.get(pod).await.with_context(|| format!("get Pod {namespace}/{pod}"))?;
        let name = object.spec.and_then(|spec| Some(spec.containers.into_iter().next()?.name));
        let mut statuses = object.status.and_then(|status| status.container_statuses).into_iter().flatten();
        let first = statuses.find(|status| Some(&status.name) == name.as_ref());
        let id = first
            .and_then(|container| container.container_id)
            .with_context(|| format!("Pod {namespace}/{pod} has no container yet"))?;
        let id = id.rsplit('/').next().unwrap_or_default();
        let process = containers::first_process(&self.sandbox().cgroup_root(), id)?;
        nix::sys::signal::kill(Pid::from_raw(process), signal)
            .with_context(|| format!("send {signal} to process {process} of Pod {namespace}/{pod}"))
    }

    /// From now on the node goes on without this process, until `cluster down`. `program` is started twice inside the instance: with `forward` and
    /// what [`Sandbox::forward_detached`] says, and with `provision` and two paths, a kubeconfig and a file of settings, for which it must call
    /// [`provisioner::serve`].
    pub fn outlive(self, program: &Path, forward: &[&str], provision: &[&str]) -> Result<()> {
        let Self { _provisioner: provisioner, settings, plane, .. } = self;
        drop(provisioner);
        let file = plane.sandbox().dir().join("provisioner.json");
        std::fs::write(&file, serde_json::to_vec(&settings)?).with_context(|| format!("write {}", file.display()))?;
        let mut command = plane.sandbox().command(Place::Inside, program);
        command.args(provision).arg(plane.inside_kubeconfig("admin")?).arg(file);
        plane.sandbox().start("provisioner", command)?;
        plane.outlive(program, forward)
    }

    /// Ends the node and waits until nothing of it is left.
    pub fn stop(self) -> Result<()> {
        let Self { _provisioner: provisioner, plane, .. } = self;
        drop(provisioner);
        plane.stop()
    }
}

fn families(debian_containerd: bool) -> Vec<Family> {
    let chosen = |family: &Family| match family {
        Family::Containerd if debian_containerd => Family::DebianContainerd,
        other => *other,
    };
    Family::NODE.iter().map(chosen).collect()
}

async fn start_containerd(
    sandbox: &Sandbox,
    tools: &Tools,
    more: Vec<Image>,
    trust: Trust,
    dual_stack: bool,
) -> Result<Containerd> {
    let programs = containerd::Programs {
        containerd: tools.path("containerd")?.to_owned(),
        ctr: tools.path("ctr")?.to_owned(),
        runc: debian::find("runc").context("runc is missing")?,
        cni: tools.folder(Family::Cni)?.to_owned(),
    };
    let containerd = Containerd::start(sandbox, &programs, trust, &services::pod_cidrs(sandbox, dual_stack)?)?;
    let mut images = vec![image::pause(tools.path("pause")?), image::registry(tools.path("registry")?)];
    images.extend(more);
    let build = |image: Image| async { tokio::task::spawn_blocking(move || image.build()).await? };
    let (built, ()) =
        tokio::try_join!(futures::future::try_join_all(images.into_iter().map(build)), containerd.listens())?;
    futures::future::try_join_all(built.into_iter().map(|image| containerd.import(sandbox, image))).await?;
    Ok(containerd)
}

fn provisioner_settings(sandbox: &Sandbox) -> Result<provisioner::Settings> {
    let holder = sandbox.holder().context("a node has namespaces of its own")?;
    Ok(provisioner::Settings::Kubelet {
        folder: sandbox.dir().join("volumes"),
        node: crate::pki::NODE_NAME.to_owned(),
        mounts_of: holder,
    })
}

/// The testbed's programs before the system's. CNI plugins are no commands, and one has the name of one.
fn search_path(tools: &Tools) -> String {
    let own =
        tools.folders().filter(|(family, _)| *family != Family::Cni).map(|(_, folder)| folder.display().to_string());
    let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    own.chain([system]).collect::<Vec<_>>().join(":")
}
