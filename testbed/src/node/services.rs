//! What makes a control plane a node, apart from the container runtime: kubelet, kube-proxy and the cluster's DNS. Configuration as text, and starts;
//! each returns at once.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::{Value, json};

use super::{CredentialProvider, LOOK_EVERY, START_LIMIT};
use crate::control_plane::ControlPlane;
use crate::pki::NODE_NAME;
use crate::sandbox::{Place, Process, Sandbox};
use crate::{Tools, http};

/// The domain of the cluster's Services.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Ports on 127.0.0.1 of the node where kube-proxy and CoreDNS say whether they are ready.
const PROXY_HEALTH: u16 = 10256;
/// The Service of the API server: the first of the Services' network.
const API_SERVICE: &str = "10.96.0.1";
const DNS_HEALTH: u16 = 8181;

/// The addresses of a node's pods: the third number tells nodes apart, as their own addresses' last one does.
pub(super) fn pod_cidrs(sandbox: &Sandbox, dual_stack: bool) -> Result<Vec<String>> {
    let number = 243 + address(sandbox)?.octets()[3];
    let second = dual_stack.then(|| format!("fd00:10:{number}::/112"));
    Ok([format!("10.{number}.0.0/24")].into_iter().chain(second).collect())
}

/// The node's addresses, with commas between them.
fn addresses(sandbox: &Sandbox, dual_stack: bool) -> Result<String> {
    let second = sandbox.node_address6().filter(|_| dual_stack).map(|second| format!(",{second}"));
    Ok(format!("{}{}", address(sandbox)?, second.unwrap_or_default()))
}

fn address(sandbox: &Sandbox) -> Result<Ipv4Addr> {
    sandbox.node_address().context("a node has an address")
}

/// How the programs are to be.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) dual_stack: bool,
    pub(super) default_sync: bool,
    pub(super) credential_provider: Option<CredentialProvider>,
}

/// The running programs.
#[derive(Debug)]
pub(super) struct Services {
    kubelet: Process,
    proxy: Process,
    dns: Process,
}

impl Services {
    /// Starts all three. The kubelet waits for the container runtime by itself.
    pub(super) fn start(plane: &ControlPlane, tools: &Tools, runtime: &Path, wanted: &Wanted) -> Result<Self> {
        let Wanted { dual_stack, default_sync, ref credential_provider } = *wanted;
        let sandbox = plane.sandbox();
        let root = sandbox.dir().join("kubelet");
        std::fs::create_dir_all(&root).with_context(|| format!("make {}", root.display()))?;
        let start = |name: &str, arguments: Vec<String>| {
            let mut command = sandbox.command(Place::Inside, tools.path(name)?);
            command.args(arguments);
            sandbox.start(name, command)
        };

        let configuration =
            write(sandbox, "kubelet.yaml", &kubelet_configuration(plane, runtime, default_sync)?.to_string())?;
        let mut flags = vec![
            flag("config", &configuration),
            flag("kubeconfig", &plane.inside_kubeconfig("node")?),
            format!("--hostname-override={NODE_NAME}"),
            format!("--node-ip={}", addresses(sandbox, dual_stack)?),
            flag("root-dir", &root),
            flag("cert-dir", &root.join("pki")),
        ];
        if let Some(provider) = credential_provider {
            flags.extend(provider_flags(sandbox, provider)?);
        }
        let kubelet = start("kubelet", flags)?;
        let configuration = write(sandbox, "kube-proxy.yaml", &proxy_configuration(plane, dual_stack)?.to_string())?;
        let proxy = start("kube-proxy", vec![flag("config", &configuration)])?;
        let configuration = write(sandbox, "Corefile", &corefile(plane)?)?;
        let dns = start("coredns", vec!["-conf".into(), configuration.display().to_string()])?;
        Ok(Self { kubelet, proxy, dns })
    }

    /// Waits until Services can be reached by their addresses and names.
    pub(super) async fn reachable(&self, sandbox: &Sandbox) -> Result<()> {
        tokio::try_join!(
            healthy(sandbox, &self.proxy, PROXY_HEALTH, "/healthz"),
            healthy(sandbox, &self.dns, DNS_HEALTH, "/ready")
        )?;
        self.routed(sandbox).await
    }

    /// The proxy calls itself healthy before it has written its first rules: only a connection proves that they are there.
    async fn routed(&self, sandbox: &Sandbox) -> Result<()> {
        let started = Instant::now();
        loop {
            let mut connect = sandbox.command(Place::Inside, "timeout");
            connect.args(["1", "bash", "-c", &format!("exec 3<>/dev/tcp/{API_SERVICE}/443")]);
            if tokio::process::Command::from(connect).output().await.context("connect to a Service")?.status.success() {
                return Ok(());
            }
            self.proxy.check()?;
            if started.elapsed() > START_LIMIT {
                bail!(
                    "no Service is reached after {START_LIMIT:?}; the proxy's last words:\n{}",
                    self.proxy.last_words(15)
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the scheduler may send pods.
    pub(super) async fn node_ready(&self, plane: &ControlPlane) -> Result<()> {
        let nodes = Api::<Node>::all(plane.client().await?);
        let started = Instant::now();
        loop {
            let node = nodes.get_opt(NODE_NAME).await.ok().flatten();
            let conditions = node.and_then(|node| node.status?.conditions).unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
            if ready.is_some_and(|ready| ready.status == "True") {
                return Ok(());
            }
            self.kubelet.check()?;
            if started.elapsed() > START_LIMIT {
                let why = ready.map_or("it did not register", |ready| ready.message.as_deref().unwrap_or_default());
                bail!("the node is not ready after {START_LIMIT:?}: {why}; see {}", self.kubelet.log().display());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn healthy(sandbox: &Sandbox, process: &Process, port: u16, path: &str) -> Result<()> {
    let reach = sandbox.reach(port)?;
    let started = Instant::now();
    let address = (Ipv4Addr::LOCALHOST, reach.port()).into();
    while !matches!(http::get(address, path).await, Ok((200, _))) {
        process.check()?;
        if started.elapsed() > START_LIMIT {
            bail!("{} is not ready after {START_LIMIT:?}; its last words:\n{}", process.name(), process.last_words(15));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn write(sandbox: &Sandbox, name: &str, text: &str) -> Result<PathBuf> {
    let path = sandbox.dir().join(name);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Beside what a kubelet always needs: control groups of version 1 are accepted; nothing asks for rights that a machine may withhold (lower
/// out-of-memory scores, more open files); our only copies of images are never collected; changed Secrets and crashed containers are looked
/// at after seconds, so that tests needn't wait for minutes.
fn kubelet_configuration(plane: &ControlPlane, runtime: &Path, default_sync: bool) -> Result<Value> {
    let sandbox = plane.sandbox();
    let (address, serving) = (address(sandbox)?, plane.pki().pair("kubelet-server"));
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": plane.pki().ca()}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": serving.certificate, "tlsPrivateKeyFile": serving.key,
        "address": address, "healthzBindAddress": "127.0.0.1", "readOnlyPort": 0,
        "containerRuntimeEndpoint": format!("unix://{}", runtime.display()),
        "cgroupDriver": "cgroupfs", "cgroupRoot": sandbox.cgroup_root(), "failCgroupV1": false,
        "clusterDomain": CLUSTER_DOMAIN, "clusterDNS": [address],
        "oomScoreAdj": 0, "maxOpenFiles": 20000, "failSwapOn": false, "protectKernelDefaults": false, "seccompDefault": true,
        "systemReserved": reserved_memory(),
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99, "serializeImagePulls": false,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "nodeStatusUpdateFrequency": "2s", "syncFrequency": if default_sync { "1m" } else { "5s" }, "crashLoopBackOff": {"maxContainerRestartPeriod": "2s"},
        "podLogsDir": sandbox.dir().join("pods"), "volumePluginDir": sandbox.dir().join("kubelet/volumeplugins"),
        "logging": {"verbosity": 2},
    }))
}

/// The kubelet looks for a file with the provider's name in one folder.
fn provider_flags(sandbox: &Sandbox, provider: &CredentialProvider) -> Result<[String; 2]> {
    let folder = provider.program.parent().context("the credential provider is in a folder")?;
    let name =
        provider.program.file_name().and_then(|name| name.to_str()).context("the credential provider has a name")?;
    let version = "credentialprovider.kubelet.k8s.io/v1";
    let mut entry = json!({"name": name, "apiVersion": version});
    for (key, value) in provider.settings.as_object().into_iter().flatten() {
        entry[key] = value.clone();
    }
    let configuration =
        json!({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [entry]});
    let configuration = write(sandbox, "credential-providers.yaml", &configuration.to_string())?;
    Ok([flag("image-credential-provider-config", &configuration), flag("image-credential-provider-bin-dir", folder)])
}

/// Pods get a third of the machine, so that two nodes and what runs beside them fit.
fn reserved_memory() -> Value {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total_kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    total_kib.map_or_else(|| json!({}), |total| json!({"memory": format!("{}Ki", total / 3 * 2)}))
}

/// The short `minSyncPeriod` because a Service refuses connections until the rules are written. The zeros because a network namespace can't set
/// connection tracking, and kube-proxy would end over it.
fn proxy_configuration(plane: &ControlPlane, dual_stack: bool) -> Result<Value> {
    Ok(json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "mode": "nftables", "nftables": {"minSyncPeriod": "10ms", "syncPeriod": "30s"},
        "clientConnection": {"kubeconfig": plane.inside_kubeconfig("proxy")?},
        "clusterCIDR": pod_cidrs(plane.sandbox(), dual_stack)?.join(","), "hostnameOverride": NODE_NAME,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0, "nodePortAddresses": [],
        "healthzBindAddress": format!("127.0.0.1:{PROXY_HEALTH}"), "metricsBindAddress": "127.0.0.1:10249",
    }))
}

fn corefile(plane: &ControlPlane) -> Result<String> {
    let admin = plane.pki().pair("admin");
    Ok(format!(
        ".:53 {{
  bind {address}
  errors
  ready 127.0.0.1:{DNS_HEALTH}
  kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
    endpoint {server}
    tls {certificate} {key} {ca}
  }}
  cache 5
}}
",
        address = address(plane.sandbox())?,
        server = plane.inside_server(),
        certificate = admin.certificate.display(),
        key = admin.key.display(),
        ca = plane.pki().ca().display(),
    ))
}
