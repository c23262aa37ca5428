//! Where the tests run: on a node of their own, whose inside is at hand, or, when somebody asks for it, on a cluster of which there is only a
//! kubeconfig. How each is reached is decided here; what is tested is not.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, fs};

use nix::sys::signal::Signal;
use serde_json::json;
use testbed::{Family, Node, Progress, Tools, image, node};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use crate::cluster::{NEWER_REGISTRY, wait_for, words};

/// Path of a kubeconfig: the tests then run on that cluster. `cargo xtask test --kubeconfig` sets it. Not `KUBECONFIG`, which names whatever
/// cluster somebody happens to work with.
const KUBECONFIG: &str = "E2E_KUBECONFIG";
/// Values for the operator's chart there, one `KEY=VALUE` a line.
const VALUES: &str = "E2E_VALUES";

const REPOSITORY: &str = "operator.test/private-registry-operator";
const TAG: &str = "dev";

/// A cluster, reached.
pub(crate) enum Place {
    Own(Box<Node>),
    Given(PathBuf),
}

/// Whether somebody named a cluster.
pub(crate) fn is_given() -> bool {
    env::var_os(KUBECONFIG).is_some()
}

impl Place {
    /// The cluster that was named, or a new node with the images that tests need.
    pub(crate) async fn find() -> anyhow::Result<Self> {
        if let Some(kubeconfig) = env::var_os(KUBECONFIG) {
            return Ok(Self::Given(fs::canonicalize(kubeconfig)?));
        }
        Self::own(node::Options::default()).await
    }

    /// A new node, with the images that tests need.
    pub(crate) async fn own(options: node::Options) -> anyhow::Result<Self> {
        let registry = image::registry(&program("registry"));
        let newer = image::Image { reference: NEWER_REGISTRY.to_owned(), ..registry };
        let nginx = nginx().map(|program| image::nginx(&program)).transpose()?;
        let operator = Path::new(env!("CARGO_BIN_EXE_private-registry-operator"));
        let operator = image::operator(operator, &format!("{REPOSITORY}:{TAG}"))?;
        let images = [newer, operator].into_iter().chain(nginx).collect();
        let credential_provider = Some(credential_provider().await);
        let node = Node::start(node::Options { images, credential_provider, ..options }).await?;
        Ok(Self::Own(Box::new(node)))
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        match self {
            Self::Own(node) => node.kubeconfig(),
            Self::Given(kubeconfig) => kubeconfig,
        }
    }

    pub(crate) async fn client(&self) -> kube::Client {
        testbed::control_plane::client(self.kubeconfig()).await.unwrap()
    }

    /// What the operator's chart must be told of images, and of the node.
    pub(crate) fn values(&self) -> Vec<String> {
        match self {
            Self::Own(node) => vec![
                "nodeTrust.enabled=true".to_owned(),
                format!("nodeTrust.paths.containerd={}", node.runtime_home().display()),
                format!("image.repository={REPOSITORY}"),
                format!("image.tag={TAG}"),
                format!("registry.image={}", image::REGISTRY),
                format!("frontend.image={}", image::FRONTEND),
            ],
            Self::Given(_) => env::var(VALUES).unwrap_or_default().lines().map(str::to_owned).collect(),
        }
    }

    /// The node. A test that needs its inside asks for [`crate::cluster::node`] and never sees another cluster.
    pub(crate) fn node(&self) -> &Node {
        match self {
            Self::Own(node) => node,
            Self::Given(_) => panic!("nobody can look into the nodes of a cluster of which there is only a kubeconfig"),
        }
    }

    /// Sends a signal to the process of a pod.
    pub(crate) async fn kill(&self, namespace: &str, pod: &str, signal: Signal) {
        self.node().kill_container_process(namespace, pod, signal).await.unwrap();
    }

    /// The name under which clients here may call a Service that the cluster knows by `host`.
    pub(crate) fn name_here(&self, host: String) -> String {
        match self {
            Self::Own(_) => host,
            Self::Given(_) => format!("localhost:{}", free_port()),
        }
    }

    /// A client of such a Service, and what must live as long as the client runs.
    pub(crate) async fn person(&self, program: &str, line: &Line) -> (Command, Option<Child>) {
        match self {
            Self::Own(node) => (node.command(program).into(), None),
            Self::Given(kubeconfig) => {
                let program = if program == "crane" { self::program(program) } else { program.into() };
                (Command::new(program), Some(line.open(kubeconfig).await))
            }
        }
    }
}

/// A way to a Service, for clients outside of the cluster.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) port: u16,
    /// `localhost:PORT`
    pub(crate) near: String,
}

impl Line {
    /// Opened anew for each client: it leads to one pod, and ends with it.
    pub(crate) async fn open(&self, kubeconfig: &Path) -> Child {
        let near = self.near.rsplit(':').next().unwrap_or_default();
        wait_for(Duration::from_secs(60), format!("kubectl port-forward to {}", self.service), async || {
            let mut command = Command::new(program("kubectl"));
            command.arg("--kubeconfig").arg(kubeconfig).args(["--namespace", &self.namespace, "port-forward"]);
            command.args([format!("service/{}", self.service), format!("{near}:{}", self.port)]).kill_on_drop(true);
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut child = child.map_err(words)?;
            while child.try_wait().map_err(words)?.is_none() {
                if TcpStream::connect(&self.near).await.is_ok() {
                    return Ok(child);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err("it ended".to_owned())
        })
        .await
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A program of this workspace, of the state that is tested. It belongs to another package than these tests, which cargo does not build for them.
pub(crate) async fn built(program: &str) -> PathBuf {
    // …/target/debug/deps/e2e-…
    let own = std::env::current_exe().unwrap();
    let profile = own.ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--bin", program, "--target-dir"]).arg(profile.parent().unwrap());
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(other) => _ = cargo.args(["--profile", other]),
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().await.unwrap();
    assert!(status.success(), "{program} cannot be built");
    profile.join(program)
}

/// What logs the kubelet of our own nodes in, in one namespace, as an administrator would set it up. Alone in a folder, because the kubelet runs what it finds
/// there.
async fn credential_provider() -> node::CredentialProvider {
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let install = async || {
        let name = "private-registry-credential-provider";
        let program = built(name).await;
        let folder = program.with_file_name("credential-providers");
        fs::create_dir_all(&folder).unwrap();
        // By rename: a kubelet of another run may be running the old one.
        let next = folder.join(format!(".{}", std::process::id()));
        fs::copy(&program, &next).unwrap();
        fs::rename(&next, folder.join(name)).unwrap();
        folder.join(name)
    };
    let program = PROGRAM.get_or_init(install).await.clone();
    let audience = json!({"serviceAccountTokenAudience": "team-a.identities.svc", "cacheType": "Token", "requireServiceAccount": true});
    let settings = json!({"matchImages": ["team-a.identities.svc:5000"], "defaultCacheDuration": "1m", "tokenAttributes": audience});
    node::CredentialProvider { program, settings }
}

/// nginx for nodes of our own; `None` where it cannot be had.
fn nginx() -> Option<PathBuf> {
    let tools = Tools::ensure(&[Family::Nginx], &Progress::auto()).ok()?;
    tools.path("nginx").ok().map(Path::to_owned)
}

/// The same where it is known to be there.
pub(crate) fn program_of_nginx() -> PathBuf {
    nginx().expect("no_frontend was asked")
}

/// Why registries cannot have a front end here.
pub(crate) fn no_frontend() -> Option<&'static str> {
    static HAS_NGINX: LazyLock<bool> = LazyLock::new(|| is_given() || nginx().is_some());
    (!*HAS_NGINX).then_some("nginx can be had on Debian only")
}

/// A program of the testbed: clients, and for a node of our own what its images are made of.
pub(crate) fn program(name: &str) -> PathBuf {
    let own: &[_] = if is_given() { &[] } else { &[Family::Registry] };
    let families = [&[Family::Helm, Family::Kubectl, Family::Crane, Family::Pause], own].concat();
    Tools::ensure(&families, &Progress::auto()).unwrap().path(name).unwrap().to_owned()
}
