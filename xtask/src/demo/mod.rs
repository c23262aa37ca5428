//! `cargo xtask demo`: the product from nothing, as a user would meet it: a real Kubernetes, Helm, one manifest, an image pushed over TLS
//! with a login and pulled by a kubelet, a killed process that comes back with its data. Every step prints what it shows.

mod shop;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use testbed::node::{self, Signal};
use testbed::{Family, Mode, Node, Progress, Tools, image};

use crate::workspace::{self, Workspace};
use shop::Shop;

const OPERATOR: &str = "private-registry-operator";
const SYSTEM: &str = "private-registry-system";
const REPOSITORY: &str = "demo.local/private-registry-operator";
const NAMESPACE: &str = "registries";
const REGISTRY: &str = "team-a";
const HOST: &str = "team-a.registries.svc:5000";
const IMAGE: &str = "shop/hello:1";
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Stop what the demo left running
    #[arg(long)]
    down: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.down {
        return crate::cluster::down(None);
    }
    if let Some(reason) = testbed::missing(Mode::Node) {
        bail!(reason);
    }
    let progress = Progress::auto();
    let families: Vec<_> = Family::NODE.iter().copied().chain([Family::Helm, Family::Kubectl]).collect();
    let tools = Tools::ensure(&families, &progress)?;
    let operator = build(&progress)?;
    let started = Instant::now();
    crate::cluster::runtime()?.block_on(show(&tools, &operator, &progress))?;
    println!("\nAll of this took {:.0} s after everything was built.", started.elapsed().as_secs_f64());
    Ok(())
}

/// The operator's program, as `cargo build` makes it.
fn build(progress: &Progress) -> Result<PathBuf> {
    let step = progress.step("build the operator");
    let status = workspace::cargo().args(["build", "--quiet", "--locked", "--workspace", "--bins"]).status()?;
    if !status.success() {
        bail!("cargo build failed; what it said is above");
    }
    step.done();
    Ok(Workspace::read()?.target().join("debug").join(OPERATOR))
}

async fn show(tools: &Tools, operator: &Path, progress: &Progress) -> Result<()> {
    let step = progress.step("start Kubernetes: control plane, containerd, kubelet, kube-proxy, DNS");
    let images = vec![image::operator(operator, &format!("{REPOSITORY}:demo"))?];
    let node = Node::start(node::Options { images, ..node::Options::default() }).await?;
    let client = node.client().await?;
    step.done();

    let step = progress.step("helm install both charts");
    helm(tools, &node, "private-registry-crds", &[])?;
    let values = [
        format!("image.repository={REPOSITORY}"),
        "image.tag=demo".to_owned(),
        // Built here from the registry's own module: the published image's digest would not fit.
        format!("registry.image={}", image::REGISTRY),
    ];
    helm(tools, &node, OPERATOR, &values)?;
    step.done();

    let step = progress.step("kubectl apply -f deploy/examples/quickstart.yaml");
    let manifest = workspace::root().join("deploy/examples/quickstart.yaml");
    kubectl(tools, &node, &["apply", "--filename", &manifest.display().to_string()])?;
    let address = ready(&client, &step).await?;
    step.done();
    println!("  serving at {address}");

    let login: Secret = get(&client, "team-a-admin").await?;
    let bundle: ConfigMap = get(&client, "team-a-ca-bundle").await?;
    let authorities = bundle.data.unwrap_or_default().remove("ca.crt").context("the bundle has a ca.crt")?;
    let shop = Shop::open(&node, HOST, &authorities, &login)?;

    let step =
        progress.step(format!("push an image with two layers to {HOST}/{IMAGE}, over TLS, with the generated login"));
    let digest = shop.push(tools, IMAGE)?;
    step.done();
    println!("  {digest}");
    println!("  without login:  {}", shop.refused_without_login(IMAGE)?);
    println!("  without the CA: {}", shop.refused_without_authority(IMAGE)?);

    let step = progress.step("let a kubelet pull it, with the Secret team-a-pull");
    let file = trust(&node, &authorities)?;
    println!("  the node's container runtime trusts the registry by {}", file.display());
    pod(&client).await?;
    wait("the pod runs", async || running(&client, "hello").await).await?;
    step.done();

    let step = progress.step("kill the registry's process");
    let pod = registry_pod(&client).await?;
    node.kill_container_process(NAMESPACE, &pod.name_any(), Signal::SIGKILL).await?;
    wait("the process is back", async || restarted(&client).await).await?;
    step.done();
    let again = shop.digest(IMAGE)?;
    if again != digest {
        bail!("{HOST}/{IMAGE} was {digest} and is {again} after the restart");
    }
    println!("  back, with the image: {again}");

    let kubeconfig = node.kubeconfig().to_owned();
    let own = std::env::current_exe().context("find this program")?;
    node.outlive(&own, &["cluster", "forward"], &["cluster", "provision"])?;
    farewell(tools, &kubeconfig)
}

fn farewell(tools: &Tools, kubeconfig: &Path) -> Result<()> {
    let kubectl = tools.path("kubectl")?;
    println!("\nThe cluster goes on. What you could do now:\n");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  alias kubectl={}", kubectl.display());
    println!("  kubectl --namespace {NAMESPACE} get privateregistry --output wide");
    println!("  kubectl --namespace {NAMESPACE} describe privateregistry {REGISTRY}");
    println!("  kubectl explain privateregistry.spec\n");
    println!("Stop it:\n\n  cargo xtask demo --down");
    Ok(())
}

fn helm(tools: &Tools, node: &Node, chart: &str, values: &[String]) -> Result<()> {
    let home = node.sandbox().dir().join("helm");
    let mut command = Command::new(tools.path("helm")?);
    command.args(["upgrade", "--install", chart]).arg(workspace::root().join("charts").join(chart));
    command.args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "3m"]);
    command.args(values.iter().flat_map(|value| ["--set", value]));
    command.arg("--kubeconfig").arg(node.kubeconfig());
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, &home);
    }
    succeed(command).map(drop)
}

fn kubectl(tools: &Tools, node: &Node, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(tools.path("kubectl")?);
    command.arg("--kubeconfig").arg(node.kubeconfig()).args(arguments);
    succeed(command)
}

/// Runs a program and gives what it printed.
fn succeed(mut command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        bail!("{name} failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn get<K>(client: &Client, name: &str) -> Result<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    Api::namespaced(client.clone(), NAMESPACE).get(name).await.with_context(|| format!("read {name}"))
}

/// Waits until the registry is ready, and shows what it says of itself meanwhile.
async fn ready(client: &Client, step: &testbed::progress::Step) -> Result<String> {
    let kind = ApiResource {
        group: "privateregistry.dev".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "privateregistry.dev/v1alpha1".to_owned(),
        kind: "PrivateRegistry".to_owned(),
        plural: "privateregistries".to_owned(),
    };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &kind);
    wait("the registry is ready", async || {
        let registry = api.get(REGISTRY).await?;
        let status = &registry.data["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or(Value::Null);
        let words = ready["message"].as_str().unwrap_or("not looked at yet").to_owned();
        step.note(&words);
        Ok(if ready["status"] == "True" {
            Ok(status["address"].as_str().unwrap_or_default().to_owned())
        } else {
            Err(words)
        })
    })
    .await
}

/// What a user, or a node agent, writes once on each node.
fn trust(node: &Node, authorities: &str) -> Result<PathBuf> {
    let folder = node.certs_d().join(HOST);
    std::fs::create_dir_all(&folder)?;
    let (ca, hosts) = (folder.join("ca.crt"), folder.join("hosts.toml"));
    std::fs::write(&ca, authorities)?;
    let ca = ca.display();
    let text = format!("server = \"https://{HOST}\"\nca = \"{ca}\"\n\n[host.\"https://{HOST}\"]\n  ca = \"{ca}\"\n");
    std::fs::write(&hosts, text)?;
    Ok(hosts)
}

async fn pod(client: &Client) -> Result<()> {
    let pod: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hello"},
        "spec": {
            "imagePullSecrets": [{"name": "team-a-pull"}],
            "containers": [{"name": "hello", "image": format!("{HOST}/{IMAGE}")}],
        },
    }))?;
    Api::namespaced(client.clone(), NAMESPACE).create(&PostParams::default(), &pod).await.context("create the pod")?;
    Ok(())
}

async fn running(client: &Client, name: &str) -> Result<Result<(), String>> {
    let pod: Pod = get(client, name).await?;
    Ok(if is_ready(&pod) { Ok(()) } else { Err(json!(pod.status)["containerStatuses"].to_string()) })
}

async fn registry_pod(client: &Client) -> Result<Pod> {
    let chosen = ListParams::default().labels("privateregistry.dev/registry=team-a");
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    pods.list(&chosen).await?.items.pop().context("the registry has no pod")
}

async fn restarted(client: &Client) -> Result<Result<(), String>> {
    let pod = registry_pod(client).await?;
    let restarts = json!(pod.status)["containerStatuses"][0]["restartCount"].as_i64().unwrap_or_default();
    Ok(if restarts > 0 && is_ready(&pod) { Ok(()) } else { Err(format!("{restarts} restarts")) })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Waits for something, with a limit, and says what was seen last when it runs out.
async fn wait<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Result<T, String>>) -> Result<T> {
    let started = Instant::now();
    loop {
        match look().await? {
            Ok(found) => return Ok(found),
            Err(seen) if started.elapsed() > PATIENCE => bail!("{what}: not after {PATIENCE:?}; last seen: {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
