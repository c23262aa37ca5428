//! A node without a machine: it makes the pods bound to it Ready, or lets them fail as a test demands, by writing their status as a kubelet would.
//! Runs no process, mounts nothing, pulls nothing; what a pod's status says is decided by [`status::of`] alone.

mod status;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::watch;

use crate::background::Background;
use crate::control_plane::client;

/// What becomes of a pod. The restart count of a pod never falls when its behaviour changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs and is Ready at once. What pods do that nothing was said of.
    Ready,
    /// Runs, and becomes Ready when this time has passed since the kubelet first saw it.
    ReadyAfter(Duration),
    /// Runs, and is never Ready.
    NotReady,
    /// The image can't be had: `ImagePullBackOff`.
    PullFails,
    /// No container starts, as where a volume cannot be mounted.
    NeverStarts,
    /// A container ends.
    Ends(End),
    /// Is Ready, and stays when it is deleted.
    HangsOnDelete,
    /// Is Ready, and its containers end with this exit code when it is deleted. That of the others is 0.
    ExitsOnDelete(i32),
}

/// How a container ends. Whether it is started again follows from the pod's restart policy: if so it shows `CrashLoopBackOff`, otherwise the pod is
/// `Succeeded` or `Failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The exit code, 0 to 255.
    pub code: i32,
    /// `Error`, `Completed`, `OOMKilled`, …
    pub reason: String,
    /// What the container wrote last.
    pub message: String,
    /// How often it was started again so far.
    pub restarts: i32,
    /// Name of the container or init container; `None` means the first container.
    pub container: Option<String>,
}

impl Behaviour {
    /// The first container ends with this exit code and was started again so many times.
    pub fn crashes(code: i32, restarts: i32) -> Self {
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self::Ends(End { code, reason: reason.into(), message: String::new(), restarts, container: None })
    }

    /// The first container ends with this exit code, for the first time.
    pub fn exits(code: i32) -> Self {
        Self::crashes(code, 0)
    }

    /// The first container is killed for its memory use and was started again so many times.
    pub fn out_of_memory(restarts: i32) -> Self {
        Self::Ends(End { code: 137, reason: "OOMKilled".into(), message: String::new(), restarts, container: None })
    }

    /// An init container fails with these last words.
    pub fn init_fails(container: &str, code: i32, message: &str) -> Self {
        Self::Ends(End {
            code,
            reason: "Error".into(),
            message: message.into(),
            restarts: 1,
            container: Some(container.into()),
        })
    }
}

/// One registered node. Dropping it stops the work; the Node object stays and goes `NotReady` after 40 s.
#[derive(Debug)]
pub struct FakeKubelet {
    rules: watch::Sender<Vec<Rule>>,
    _work: Background,
}

#[derive(Debug, Clone)]
struct Rule {
    labels: BTreeMap<String, String>,
    behaviour: Behaviour,
}

impl FakeKubelet {
    /// Registers a node of this name, or takes it over, and returns when its status is written. The kubeconfig must be a cluster administrator's.
    pub async fn start(kubeconfig: &Path, node: &str) -> Result<Self> {
        register(&client(kubeconfig).await?, node).await.with_context(|| format!("register node {node}"))?;
        let (rules, seen) = watch::channel(Vec::new());
        let (kubeconfig, node) = (kubeconfig.to_owned(), node.to_owned());
        let work = Background::start("fake-kubelet", move || async move {
            let client = client(&kubeconfig).await?;
            futures::join!(keep_lease(&client, &node), serve_pods(&client, &node, seen));
            Ok(())
        })?;
        Ok(Self { rules, _work: work })
    }

    /// From now on pods with all these labels behave so, those that run too. Of several rules the last one that fits counts.
    pub fn behave<'a>(&self, labels: impl IntoIterator<Item = (&'a str, &'a str)>, behaviour: Behaviour) {
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.rules.send_modify(|rules| {
            rules.retain(|rule| rule.labels != labels);
            rules.push(Rule { labels, behaviour });
        });
    }
}

/// Gives a Service of type LoadBalancer its address (an IP address or a host name), as a cloud would.
pub async fn load_balancer(client: &Client, namespace: &str, service: &str, address: &str) -> Result<()> {
    let kind = if address.parse::<IpAddr>().is_ok() { "ip" } else { "hostname" };
    let status = json!({"status": {"loadBalancer": {"ingress": [{kind: address}]}}});
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    services
        .patch_status(service, &PatchParams::default(), &Patch::Merge(status))
        .await
        .with_context(|| format!("give Service {namespace}/{service} an address"))?;
    Ok(())
}

async fn register(client: &Client, name: &str) -> Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    let parameters = PatchParams::apply("fake-kubelet").force();
    let labels = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    nodes.patch(name, &parameters, &Patch::Apply(node)).await?;
    renew_lease(client, name).await?;

    let now = jiff::Timestamp::now();
    let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now});
    let amounts = json!({"cpu": "1000", "memory": "4Ti", "ephemeral-storage": "4Ti", "pods": "20000"});
    let status = json!({"apiVersion": "v1", "kind": "Node", "status": {
        "capacity": amounts, "allocatable": amounts,
        "addresses": [{"type": "InternalIP", "address": "192.0.2.10"}, {"type": "Hostname", "address": name}],
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"), condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"), condition("Ready", "True", "KubeletReady"),
        ],
    }});
    nodes.patch_status(name, &parameters, &Patch::Apply(status)).await?;
    Ok(())
}

async fn keep_lease(client: &Client, node: &str) {
    let mut tick = tokio::time::interval(Duration::from_secs(10));
    loop {
        tick.tick().await;
        if let Err(error) = renew_lease(client, node).await {
            tracing::debug!("lease of node {node}: {error}");
        }
    }
}

async fn renew_lease(client: &Client, node: &str) -> kube::Result<()> {
    let now = jiff::Timestamp::now();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")},
    });
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
    leases.patch(node, &PatchParams::apply("fake-kubelet").force(), &Patch::Apply(lease)).await.map(drop)
}

struct Pods {
    client: Client,
    rules: watch::Receiver<Vec<Rule>>,
    first_seen: Mutex<BTreeMap<String, Instant>>,
    addresses: AtomicU32,
}

async fn serve_pods(client: &Client, node: &str, rules: watch::Receiver<Vec<Rule>>) {
    let changed =
        futures::stream::unfold(
            rules.clone(),
            |mut rules| async move { rules.changed().await.ok().map(|()| ((), rules)) },
        );
    let ours = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let pods =
        Arc::new(Pods { client: client.clone(), rules, first_seen: Mutex::default(), addresses: AtomicU32::new(1) });
    Controller::new(Api::<Pod>::all(client.clone()), ours)
        .reconcile_all_on(changed)
        .run(|pod, pods| async move { pods.settle(&pod).await }, |_, never: &Infallible, _| match *never {}, pods)
        .for_each(|_| async {})
        .await;
}

impl Pods {
    async fn settle(&self, pod: &Pod) -> Result<Action, Infallible> {
        match self.serve(pod).await {
            Ok(action) => Ok(action),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(Action::await_change())
            }
            Err(error) => {
                tracing::debug!("pod {}: {error}; trying again", pod.name_any());
                Ok(Action::requeue(Duration::from_millis(200)))
            }
        }
    }

    async fn serve(&self, pod: &Pod) -> kube::Result<Action> {
        let behaviour = self.behaviour_of(pod);
        let age = self.age_of(pod);
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let ends = pod.metadata.deletion_timestamp.is_some() && behaviour != Behaviour::HangsOnDelete;
        let code = if let Behaviour::ExitsOnDelete(code) = behaviour { code } else { 0 };
        let wanted =
            if ends { status::stopped(pod, code) } else { status::of(pod, &behaviour, age, || self.next_address()) };
        if let Some(wanted) = wanted {
            api.patch_status(
                &pod.name_any(),
                &PatchParams::default(),
                &Patch::Strategic(json!({"metadata": {"uid": pod.uid()}, "status": wanted})),
            )
            .await?;
        }
        if ends {
            let only_this = Preconditions { uid: pod.uid(), resource_version: None };
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(only_this),
                ..DeleteParams::default()
            };
            api.delete(&pod.name_any(), &now).await?;
            self.first_seen
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .remove(&pod.uid().unwrap_or_default());
        }
        Ok(match behaviour {
            Behaviour::ReadyAfter(delay) if age < delay => Action::requeue(delay - age),
            _ => Action::await_change(),
        })
    }

    fn behaviour_of(&self, pod: &Pod) -> Behaviour {
        let fits = |rule: &&Rule| rule.labels.iter().all(|(name, value)| pod.labels().get(name) == Some(value));
        self.rules.borrow().iter().rev().find(fits).map_or(Behaviour::Ready, |rule| rule.behaviour.clone())
    }

    fn age_of(&self, pod: &Pod) -> Duration {
        let mut first_seen = self.first_seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        first_seen.entry(pod.uid().unwrap_or_default()).or_insert_with(Instant::now).elapsed()
    }

    fn next_address(&self) -> String {
        let [_, b, c, d] = self.addresses.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        format!("10.{}.{c}.{d}", 200_u8.wrapping_add(b))
    }
}
