//! etcd, API server, controller manager and scheduler in a sandbox: a Kubernetes in which everything works except running a container.
//! The same code serves a bare control plane on 127.0.0.1 and, inside a node's network, the node's.

mod audit;
mod flags;
mod kubeconfig;
mod ports;
mod server;

use std::{
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    Family, Progress, Tools,
    pki::Pki,
    sandbox::{Kind, Place, Process, Sandbox},
};
pub use audit::{Audit, Entry, Mark};
use flags::local;
use kubeconfig::Credential;
use ports::Ports;
use server::{ApiServer, LOOK_EVERY, START_LIMIT};

/// A TCP port of 127.0.0.1 that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    ports::free().map(|[port]| port)
}

const AUDIT_POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

/// What a control plane is to be like.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keep a log of every request, see [`ControlPlane::audit`].
    pub audit: bool,
    /// Services may have addresses of both families, IPv4 first.
    pub dual_stack: bool,
    /// More flags for the API server.
    pub apiserver: Vec<String>,
    /// More flags for the controller manager.
    pub controller_manager: Vec<String>,
    /// More flags for the scheduler.
    pub scheduler: Vec<String>,
}

impl Options {
    /// With a log of every request.
    pub fn audited() -> Self {
        Self { audit: true, ..Self::default() }
    }
}

/// A running control plane. Ends when it is dropped, as its [`Sandbox`] does.
#[derive(Debug)]
pub struct ControlPlane {
    sandbox: Arc<Sandbox>,
    pki: Pki,
    kubeconfig: PathBuf,
    /// The API server's port inside the sandbox.
    port: u16,
    apiserver: ApiServer,
    controllers: Vec<Process>,
    has_audit: bool,
}

impl ControlPlane {
    /// Starts one in a sandbox of its own, and waits until it is usable. Builds the programs first if that hasn't been done yet.
    pub async fn start(options: Options) -> Result<Self> {
        let (tools, sandbox) = tokio::task::spawn_blocking(|| {
            let tools = Tools::ensure(Family::CONTROL_PLANE, &Progress::auto())?;
            anyhow::Ok((tools, Sandbox::create(Kind::ControlPlane)?))
        })
        .await??;
        let plane = Self::start_in(Arc::new(sandbox), &tools, options).await?;
        plane.usable().await?;
        Ok(plane)
    }

    /// Starts one in a sandbox that may have other things in it. Returns when the API server is ready; see [`ControlPlane::usable`].
    pub async fn start_in(sandbox: Arc<Sandbox>, tools: &Tools, options: Options) -> Result<Self> {
        let pki = Pki::create(&sandbox.dir().join("pki"), sandbox.node_address())?;
        let etcd = server::start_etcd(&sandbox, tools.path("etcd")?).await?;
        let extra = extra_flags(&sandbox, &options)?;
        let kubeconfig = sandbox.dir().join("kubeconfig");
        let admin = pki.read("admin")?;
        let (port, apiserver) = ports::on_free_ports(&sandbox, async |Ports { apiserver: port, .. }| {
            let args = [flags::apiserver(&pki, etcd, port, sandbox.node_address()), extra.clone()].concat();
            let server = ApiServer::spawn(&sandbox, tools.path("kube-apiserver")?.to_owned(), port, args)?;
            kubeconfig::write(
                &kubeconfig,
                &local("https", server.port()),
                &pki.ca(),
                &Credential::Certificate(&admin),
            )?;
            server.ready(&client(&kubeconfig).await?).await?;
            Ok((port, server))
        })
        .await?;
        let mut plane =
            Self { sandbox, pki, kubeconfig, port, apiserver, controllers: Vec::new(), has_audit: options.audit };
        plane.start_controllers(tools, options)?;
        Ok(plane)
    }

    fn start_controllers(&mut self, tools: &Tools, options: Options) -> Result<()> {
        let manager = flags::controller_manager(&self.pki, &self.inside_kubeconfig("controller-manager")?);
        let scheduler = flags::scheduler(&self.inside_kubeconfig("scheduler")?);
        for (name, args) in [
            ("kube-controller-manager", [manager, options.controller_manager].concat()),
            ("kube-scheduler", [scheduler, options.scheduler].concat()),
        ] {
            self.controllers.push(self.sandbox.spawn(
                name,
                Place::Inside,
                tools.path(name)?,
                &args,
                &flags::ENVIRONMENT,
            )?);
        }
        Ok(())
    }

    /// Waits until pods can be created: the controllers are at work, and the first namespace has its service account.
    pub async fn usable(&self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
        let started = Instant::now();
        while accounts.get_opt("default").await.ok().flatten().is_none() {
            self.controllers.iter().try_for_each(Process::check)?;
            if started.elapsed() > START_LIMIT {
                bail!("the namespace default has no service account after {START_LIMIT:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// A client with all rights, for the calling runtime.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig).await
    }

    /// The administrator's kubeconfig, for use on this machine outside of the sandbox.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig for a user with no rights but those that are given to this name or this group.
    pub fn kubeconfig_for(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let signed = self.pki.user(user, group)?;
        self.write_user(user, &Credential::Certificate(&signed))
    }

    /// A kubeconfig that shows a token: a service account's, an old one, a wrong one. `name` is only the file's.
    pub fn kubeconfig_with_token(&self, name: &str, token: &str) -> Result<PathBuf> {
        self.write_user(name, &Credential::Token(token))
    }

    /// A kubeconfig for programs inside the sandbox, with the certificate of that name (see [`Pki::pair`]).
    pub fn inside_kubeconfig(&self, certificate: &str) -> Result<PathBuf> {
        let path = self.sandbox.dir().join(format!("{certificate}.kubeconfig"));
        let signed = self.pki.read(certificate)?;
        kubeconfig::write(&path, &self.inside_server(), &self.pki.ca(), &Credential::Certificate(&signed))
    }

    /// The API server's address inside the sandbox.
    pub fn inside_server(&self) -> String {
        local("https", self.port)
    }

    /// The certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Where it runs.
    pub fn sandbox(&self) -> &Arc<Sandbox> {
        &self.sandbox
    }

    /// The log of requests. Fails when [`Options::audit`] wasn't set.
    pub async fn audit(&self) -> Result<Audit> {
        if !self.has_audit {
            bail!("this control plane was started without an audit log");
        }
        Ok(Audit::new(audit_log(&self.sandbox), self.client().await?))
    }

    /// Kills the API server. Its clients are refused until [`ControlPlane::restart_apiserver`].
    pub fn kill_apiserver(&self) -> Result<()> {
        self.apiserver.process().kill()
    }

    /// Starts the API server again after it was killed, with the same address and the same data, and waits until it is ready.
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.apiserver.respawn()?;
        self.apiserver.ready(&self.client().await?).await
    }

    /// Freezes the API server: it takes connections and answers nothing.
    pub fn pause_apiserver(&self) -> Result<()> {
        self.apiserver.pause()
    }

    /// Lets a frozen API server go on.
    pub fn resume_apiserver(&self) -> Result<()> {
        self.apiserver.resume()
    }

    /// Ends it and waits until nothing is left.
    pub fn stop(self) -> Result<()> {
        self.sandbox.stop()
    }

    /// Makes [`ControlPlane::kubeconfig`] work without this process. `forwarder` as in [`Sandbox::forward_detached`]; it is started
    /// only where the sandbox has a network of its own.
    pub fn outlive(&self, forwarder: &Path, args: &[&str]) -> Result<()> {
        if self.sandbox.holder().is_some() {
            let [port] = ports::free()?;
            let process = self.sandbox.forward_detached(forwarder, args, port, self.port)?;
            until_listening(&process, port)?;
            let admin = Credential::Certificate(&self.pki.read("admin")?);
            kubeconfig::write(&self.kubeconfig, &local("https", port), &self.pki.ca(), &admin)?;
        }
        self.sandbox.detach()
    }

    fn write_user(&self, name: &str, credential: &Credential<'_>) -> Result<PathBuf> {
        let folder = self.sandbox.dir().join("users");
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let path = folder.join(format!("{}.kubeconfig", name.replace([':', '/'], "_")));
        kubeconfig::write(&path, &local("https", self.apiserver.port()), &self.pki.ca(), credential)
    }
}

/// A client for a kubeconfig file, for the calling runtime.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    // Fails when a provider was chosen already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let config = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    Client::try_from(config.with_context(|| format!("understand {}", kubeconfig.display()))?).context("make a client")
}

fn until_listening(process: &Process, port: u16) -> Result<()> {
    let started = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        process.check()?;
        if started.elapsed() > START_LIMIT {
            bail!("{} does not listen after {START_LIMIT:?}", process.name());
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn extra_flags(sandbox: &Sandbox, options: &Options) -> Result<Vec<String>> {
    let mut flags = Vec::new();
    if options.audit {
        let policy = sandbox.dir().join("audit-policy.yaml");
        std::fs::write(&policy, AUDIT_POLICY).context("write the audit policy")?;
        flags.extend(flags::audit(&policy, &audit_log(sandbox)));
    }
    if options.dual_stack {
        flags.extend(flags::dual_stack());
    }
    flags.extend_from_slice(&options.apiserver);
    Ok(flags)
}

fn audit_log(sandbox: &Sandbox) -> PathBuf {
    sandbox.dir().join("audit.log")
}
