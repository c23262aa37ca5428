//! The process that runs on each node: when something was ordered, and every minute besides, it looks at the disk, puts right what is not as
//! ordered, and reports. What fails is tried again with a growing delay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use operator_engine::process::api_error::explain;
use operator_engine::process::health::{Health, State as Latch};
use operator_engine::process::shutdown::Stop;
use operator_engine::work::backoff::{self, Class};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::disk::{Disk, Failure};
use super::orders::Orders;
use super::plan::{self, Plan};
use super::report::{self, Entry, State};
use super::trust_files::Owner;

/// Latches of readiness.
const NODE: &str = "node";
const REPORT: &str = "report";
const CLEAN_UP: &str = "clean-up";
/// Heartbeat of liveness.
const LOOP: &str = "loop";
/// A look at the disk and three requests take seconds. A disk that hangs for so long is not mended by waiting.
const STUCK: Duration = Duration::from_secs(5 * 60);
/// How often the node's labels and the report are looked at although nothing was heard.
const READ_AGAIN: Duration = Duration::from_secs(5 * 60);
/// Several orders mostly change at once; and all nodes hear of one in the same moment.
const PAUSE: Duration = Duration::from_millis(100);
const SPREAD: u64 = 1000;

/// What a node agent is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its node.
    pub node: String,
    /// The namespace of the report.
    pub namespace: String,
    /// The namespace of the orders.
    pub orders: String,
    /// What may be written.
    pub disk: Disk,
    /// Take away all that was written, instead of following orders.
    pub clean_up: bool,
    /// How often the disk is looked at although nothing was ordered.
    pub look_every: Duration,
}

struct Agent {
    options: Arc<Options>,
    client: Client,
    health: Health,
    node: Option<Node>,
    node_read: Option<Instant>,
    reported: Option<(BTreeMap<String, String>, Instant)>,
    told: Vec<String>,
}

/// Works until it is told to stop; a look that was begun is ended.
pub async fn run(options: Options, client: Client, health: Health, stop: Stop) {
    let (known, orders) = watch::channel(None);
    let options = Arc::new(options);
    health.set(NODE, Latch::Waiting("not read yet".to_owned()));
    health.set(REPORT, Latch::Waiting("not written yet".to_owned()));
    if options.clean_up {
        health.set(CLEAN_UP, Latch::Waiting("not begun".to_owned()));
    }
    let agent = Agent {
        options: Arc::clone(&options),
        client: client.clone(),
        health: health.clone(),
        node: None,
        node_read: None,
        reported: None,
        told: Vec::new(),
    };
    tokio::select! {
        () = super::watch::follow(client, &options.orders, &health, &known) => {}
        () = agent.work(orders, &stop) => {}
    }
}

impl Agent {
    async fn work(mut self, mut orders: watch::Receiver<Option<Orders>>, stop: &Stop) {
        let beat = self.health.heartbeat(LOOP, STUCK + self.options.look_every);
        let mut failures = 0;
        loop {
            let known = orders.borrow_and_update().clone().map(super::watch::limited);
            let done = tokio::select! {
                done = self.pass(known) => done,
                // What is being written on the disk is ended by its own thread.
                () = stop.requested() => return,
            };
            beat.tick();
            failures = if done { 0 } else { failures + 1 };
            let every = self.options.look_every;
            let wait = if done {
                every
            } else {
                backoff::after_failure(Class::Transient, failures, &self.options.node).min(every)
            };
            tokio::select! {
                () = stop.requested() => return,
                () = sleep(wait) => {}
                changed = orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.node_read = None;
                    sleep(pause(&self.options.node)).await;
                }
            }
        }
    }

    /// One look. Whether all that was tried succeeded.
    async fn pass(&mut self, orders: Option<Orders>) -> bool {
        let is_read = self.read_node().await;
        // Taking everything away needs neither node nor orders; anything else does.
        let is_known = self.node.is_some() && orders.is_some();
        let Some(node) = self.node.clone().or_else(|| self.options.clean_up.then(Node::default)) else { return false };
        let Some(orders) = orders.or_else(|| self.options.clean_up.then(Orders::new)) else { return is_read };
        let options = Arc::clone(&self.options);
        let of = node.clone();
        let looked = tokio::task::spawn_blocking(move || look(&options, &of, &orders)).await;
        let Ok(Looked { plan, failures }) = looked else {
            warn!("looking at the disk failed unexpectedly; it is tried again");
            return false;
        };
        self.tell(&plan, &failures);
        let entries = entries(plan, &failures);
        let is_reported = !is_known || self.report(&node, &report::data(&entries)).await;
        let refused = entries.values().filter(|entry| entry.state == State::Refused).count();
        debug!(orders = entries.len(), refused, failures = failures.len(), "looked at the disk");
        is_read && is_reported && failures.is_empty()
    }

    /// Says what was done, and what failed: once, and not at each look.
    fn tell(&mut self, plan: &Plan, failures: &[Failure]) {
        let failed = |owner: Option<&Owner>| failures.iter().any(|(of, _)| of.as_ref() == owner);
        for step in plan.removals.iter().filter(|step| !failed(step.owner.as_ref())) {
            info!(folder = %step.folder.display(), registry = step.owner.as_ref().map(Owner::to_string), "removed what is not ordered");
        }
        for step in plan.writes.iter().filter(|step| !failed(Some(&step.owner))) {
            info!(folder = %step.folder.display(), registry = %step.owner, "wrote what is ordered");
        }
        let words: Vec<_> = failures.iter().map(|(_, why)| why.clone()).collect();
        for why in words.iter().filter(|why| !self.told.contains(why)) {
            warn!("{why}");
        }
        if self.options.clean_up {
            let state = match &words[..] {
                [] => Latch::Noted("nothing of ours is left on this node".to_owned()),
                words => Latch::Failed(plan::told(words)),
            };
            self.health.set(CLEAN_UP, state);
        }
        self.told = words;
    }

    async fn read_node(&mut self) -> bool {
        if self.node_read.is_some_and(|read| read.elapsed() < READ_AGAIN) {
            return true;
        }
        match Api::<Node>::all(self.client.clone()).get(&self.options.node).await {
            Ok(node) => {
                self.node = Some(node);
                self.node_read = Some(Instant::now());
                self.health.set(NODE, Latch::Ok);
                true
            }
            Err(error) => {
                let words = format!("read Node {}: {}", self.options.node, explain(&error));
                warn!("{words}");
                // What was read before still counts.
                if self.node.is_none() {
                    self.health.set(NODE, Latch::Failed(words));
                }
                false
            }
        }
    }

    async fn report(&mut self, node: &Node, data: &BTreeMap<String, String>) -> bool {
        let is_same = |(reported, at): &(BTreeMap<_, _>, Instant)| reported == data && at.elapsed() < READ_AGAIN;
        if self.reported.as_ref().is_some_and(is_same) {
            return true;
        }
        let maps = Api::namespaced(self.client.clone(), &self.options.namespace);
        match write_report(&maps, node, &self.options, data).await {
            Ok(()) => {
                self.reported = Some((data.clone(), Instant::now()));
                self.health.set(REPORT, Latch::Ok);
                true
            }
            Err(error) => {
                let name = report::name(&self.options.node);
                let words = format!("report in ConfigMap {}/{name}: {}", self.options.namespace, explain(&error));
                warn!("{words}");
                self.reported = None;
                self.health.set(REPORT, Latch::Failed(words));
                false
            }
        }
    }
}

struct Looked {
    plan: Plan,
    failures: Vec<Failure>,
}

/// Looks at the disk, and puts right what is not as ordered.
fn look(options: &Options, node: &Node, orders: &Orders) -> Looked {
    let runtime = node
        .status
        .as_ref()
        .and_then(|status| status.node_info.as_ref())
        .map(|info| info.container_runtime_version.as_str());
    let found = options.disk.look(runtime.unwrap_or_default());
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let plan = match options.clean_up {
        true => plan::clean_up(orders, &found, &options.orders),
        false => plan::plan(orders, &labels, &found, &options.orders),
    };
    let mut failures = options.disk.carry_out(&plan);
    if options.clean_up {
        // What cannot be looked at may hold something of ours.
        failures.extend(found.unseen.iter().map(|why| (None, why.clone())));
    }
    Looked { plan, failures }
}

/// What was planned, and what came of it.
fn entries(plan: Plan, failures: &[Failure]) -> BTreeMap<Owner, Entry> {
    let mut entries = plan.entries;
    for (owner, entry) in &mut entries {
        let mut troubles: Vec<_> =
            failures.iter().filter(|(of, _)| of.as_ref() == Some(owner)).map(|(_, why)| why.clone()).collect();
        if troubles.is_empty() {
            continue;
        }
        if entry.state == State::Refused {
            troubles.insert(0, entry.message.clone());
        }
        *entry = Entry::new(&entry.bundle, State::Refused, &plan::told(&troubles));
    }
    entries
}

async fn write_report(
    maps: &Api<ConfigMap>,
    node: &Node,
    options: &Options,
    data: &BTreeMap<String, String>,
) -> kube::Result<()> {
    let name = report::name(&options.node);
    let object = report::object(node, &options.namespace, data);
    let Some(found) = maps.get_opt(&name).await? else {
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        maps.create(&PostParams::default(), &object).await?;
        return Ok(());
    };
    if is_written(&found, &object) {
        return Ok(());
    }
    let mut patch = json!({"metadata": {"labels": object["metadata"]["labels"], "ownerReferences": object["metadata"]["ownerReferences"]}, "data": data, "binaryData": null});
    // What somebody added, or what was said of registries that are gone.
    for key in found.data.iter().flat_map(BTreeMap::keys).filter(|key| !data.contains_key(*key)) {
        patch["data"][key] = Value::Null;
    }
    maps.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// Whether an object is as it should be, as far as it is ours to say.
fn is_written(found: &ConfigMap, wanted: &Value) -> bool {
    let found = json!(found);
    let labels = wanted["metadata"]["labels"].as_object();
    let has = |key: &String, value: &Value| found["metadata"]["labels"][key] == *value;
    let data = |object: &Value| object.get("data").cloned().unwrap_or_else(|| json!({}));
    labels.into_iter().flatten().all(|(key, value)| has(key, value))
        && found["metadata"]["ownerReferences"] == wanted["metadata"]["ownerReferences"]
        && data(&found) == data(wanted)
        && found["binaryData"].is_null()
}

/// How long a node waits before it follows a change: each another time, so that not all of them ask at once.
fn pause(node: &str) -> Duration {
    let digest = Sha256::digest(node.as_bytes());
    PAUSE + Duration::from_millis(u64::from(u16::from_be_bytes([digest[0], digest[1]])) % SPREAD)
}
