//! Where it is measured: a control plane with an audit log, a kubelet that makes pods Ready without running them, registries, and one operator.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client, api::ListParams};
use serde_json::Value;
use testbed::{
    ControlPlane, Options, Progress,
    background::Background,
    control_plane::{Entry, Mark},
    fake_kubelet::FakeKubelet,
    provisioner,
    sandbox::Place,
};

use super::{
    objects::{self, Template, registry},
    operator::Operator,
    plain::{self, Written},
    wait::until,
};

/// Namespace of the registries, if they share one.
pub(super) const NAMESPACE: &str = "registries";
/// Name of the registries, if they share that.
const NAME: &str = "registry";
/// How the registries lie in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// Each has a name of its own, in one namespace
    Names,
    /// Each has a namespace of its own, and all have the same name: what platform teams do
    Namespaces,
}
/// Registries and objects written at once.
pub(super) const WORKERS: usize = 8;

/// The user as whom the operator asks.
const USER: &str = "operator";
/// The registry whose children are copied. The name must not occur in them by accident.
const SOURCE: &str = "the-source";
/// Addresses of Services that this machine answers on, so that whoever connects is refused at once as behind a kube-proxy.
const SERVICE_ADDRESSES: &str = "127.96.0.0/16";
/// Not about registries: the election, and the question which rights there are.
const ASIDE: [&str; 2] = ["leases", "selfsubjectaccessreviews"];
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) struct World {
    // Fields end in this order: what uses the control plane before it.
    operator: Option<Operator>,
    _provisioner: Background,
    _kubelet: FakeKubelet,
    plane: ControlPlane,
    kubeconfig: PathBuf,
    program: PathBuf,
    /// Has all rights.
    pub(super) client: Client,
    pub(super) progress: Progress,
    /// How many registries there shall be.
    pub(super) registries: u32,
    shape: Shape,
    made: u32,
    /// Namespaces of registries that are there.
    prepared: u32,
}

impl World {
    /// A cluster with the operator's definition and nothing else in it.
    pub(super) async fn start(program: &Path, registries: u32, shape: Shape, progress: &Progress) -> Result<Self> {
        let step = progress.step("start a control plane");
        let mut options = Options::audited();
        options.apiserver.push(format!("--service-cluster-ip-range={SERVICE_ADDRESSES}"));
        let plane = ControlPlane::start(options).await?;
        let kubelet = FakeKubelet::start(plane.kubeconfig(), "node-1").await?;
        let provisioner = provisioner::start(plane.kubeconfig(), provisioner::Settings::ApiOnly).await?;
        let client = plane.client().await?;
        objects::install_definition(&client).await?;
        objects::namespace(&client, NAMESPACE).await?;
        // The administrators' group: what rights cost the API server is then the same for the operator and for what it is compared with.
        let kubeconfig = plane.kubeconfig_for(USER, Some("system:masters"))?;
        step.done();
        Ok(Self {
            operator: None,
            _provisioner: provisioner,
            _kubelet: kubelet,
            plane,
            kubeconfig,
            program: program.to_owned(),
            client,
            progress: progress.clone(),
            registries,
            shape,
            made: 0,
            prepared: 1,
        })
    }

    /// The operator that runs.
    pub(super) fn operator(&self) -> Result<&Operator> {
        self.operator.as_ref().context("no operator runs")
    }

    /// Starts an operator; returns at once.
    pub(super) fn start_operator(&mut self) -> Result<&Operator> {
        self.start_operator_with(&[])
    }

    /// The same, with these arguments besides.
    pub(super) fn start_operator_with(&mut self, more: &[&str]) -> Result<&Operator> {
        if self.operator.is_some() {
            bail!("an operator runs already");
        }
        let operator = Operator::start(&self.program, self.plane.sandbox(), Place::Host, &self.kubeconfig, more)?;
        Ok(self.operator.insert(operator))
    }

    /// Ends the operator, if one runs.
    pub(super) async fn stop_operator(&mut self) -> Result<()> {
        match self.operator.take() {
            Some(operator) => operator.stop().await,
            None => Ok(()),
        }
    }

    /// Another process in its place, ready and with nothing left to do.
    pub(super) async fn restart_operator(&mut self) -> Result<()> {
        self.stop_operator().await?;
        self.start_operator()?.ready().await?;
        self.confirmed().await?;
        self.settled().await
    }

    /// Waits until each registry has had a pass of the operator that runs. Gives the time that took.
    pub(super) async fn confirmed(&self) -> Result<Duration> {
        self.confirmed_at_least(self.made).await
    }

    /// The same when it looks after so many only.
    pub(super) async fn confirmed_at_least(&self, registries: u32) -> Result<Duration> {
        let operator = self.operator()?;
        let passes = operator.reaches("reconciles_total", "", f64::from(registries)).await?;
        let started = Instant::now();
        until("no registry waits for a pass", Duration::from_millis(10), async || {
            let waiting = operator.metric("queue_depth", "").await?;
            Ok(if waiting == 0.0 { Ok(()) } else { Err(waiting.to_string()) })
        })
        .await?;
        Ok(passes + started.elapsed())
    }

    /// What the operator makes for the smallest manifest. It must run.
    pub(super) async fn template(&mut self) -> Result<Template> {
        objects::apply(&self.client, &registry(NAMESPACE, SOURCE)).await?;
        self.made += 1;
        self.settled().await?;
        let template = Template::read(&self.client, NAMESPACE, SOURCE).await?;
        if template.len() < 5 {
            bail!("only {} children; the operator's last words:\n{}", template.len(), self.operator()?.last_words());
        }
        Ok(template)
    }

    /// Creates as many registries as are missing, with an operator, and waits until everything is as wanted.
    pub(super) async fn populate(&mut self) -> Result<()> {
        if self.operator.is_none() {
            self.start_operator()?.ready().await?;
        }
        let step = self.progress.step(format!("{} registries", self.registries));
        self.create_registries(self.registries.saturating_sub(self.made)).await?;
        self.settled().await?;
        step.done();
        Ok(())
    }

    /// Makes the namespaces of so many registries that are to come.
    pub(super) async fn prepare(&mut self, count: u32) -> Result<()> {
        let all = self.made + count;
        if self.shape == Shape::Namespaces && all > self.prepared {
            let new: Vec<_> =
                (self.prepared..all).map(|number| objects::new_namespace(&self.place(number).0)).collect();
            self.prepared = all;
            self.write(&new, WORKERS).await?;
        }
        Ok(())
    }

    /// Creates registries.
    pub(super) async fn create_registries(&mut self, count: u32) -> Result<()> {
        self.prepare(count).await?;
        let places = (self.made..self.made + count).map(|number| self.place(number));
        let new: Vec<_> = places.map(|(namespace, name)| registry(&namespace, &name)).collect();
        self.made += count;
        self.write(&new, WORKERS).await.map(drop)
    }

    /// Creates objects of any kind, without an operator.
    pub(super) async fn write(&self, objects: &[Value], workers: usize) -> Result<Written> {
        plain::create(self.plane.kubeconfig(), objects, workers).await
    }

    /// How many registries there are.
    pub(super) fn made(&self) -> u32 {
        self.made
    }

    /// The registries, (namespace, name), but for the first one.
    pub(super) fn places(&self) -> impl Iterator<Item = (String, String)> {
        (1..self.made).map(|number| self.place(number))
    }

    /// Where the registry of this number is. The first is the one whose children are copied.
    fn place(&self, number: u32) -> (String, String) {
        match self.shape {
            _ if number == 0 => (NAMESPACE.to_owned(), SOURCE.to_owned()),
            Shape::Names => (NAMESPACE.to_owned(), format!("r-{number:05}")),
            Shape::Namespaces => (format!("team-{number:05}"), NAME.to_owned()),
        }
    }

    /// Waits until everything runs that shall run, in every namespace, and the operator asks nothing more.
    pub(super) async fn settled(&self) -> Result<()> {
        let deployments: Api<Deployment> = Api::all(self.client.clone());
        until("every Deployment is available", LOOK_EVERY, async || {
            let all = deployments.list(&ListParams::default()).await?;
            let is_available = |deployment: &&Deployment| {
                let status = deployment.status.as_ref();
                status
                    .is_some_and(|status| status.available_replicas >= Some(1) && status.unavailable_replicas.is_none())
            };
            let (found, available) = (all.items.len(), all.items.iter().filter(is_available).count());
            Ok(if found == available { Ok(()) } else { Err(format!("{available} of {found}")) })
        })
        .await?;
        until("the operator asks nothing more", Duration::ZERO, async || {
            let mark = self.mark().await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let asked = self.asked_since(mark).await?;
            Ok(if asked.is_empty() { Ok(()) } else { Err(format!("{} requests in a second", asked.len())) })
        })
        .await?;
        Ok(())
    }

    /// A place in the API server's log.
    pub(super) async fn mark(&self) -> Result<Mark> {
        self.plane.audit().await?.mark().await
    }

    /// What operators asked of the API server since then, answered. A watch counts when it begins.
    pub(super) async fn asked_since(&self, mark: Mark) -> Result<Vec<Entry>> {
        let mut asked = self.plane.audit().await?.since(mark).await?;
        asked.retain(|entry| {
            let first = (entry.stage == "ResponseStarted") == (entry.verb == "watch");
            entry.user == USER && first && !ASIDE.contains(&entry.resource.as_str())
        });
        Ok(asked)
    }

    /// Ends it and waits until nothing is left.
    pub(super) fn stop(self) -> Result<()> {
        self.plane.stop()
    }
}
