//! How long somebody's change to a child lives: from the answer to that change until the repair is seen through a watch. After each repair, one read and
//! one write of the same kind of object tell what the API server alone costs at that moment.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
    time::timeout,
};

use super::{
    objects::{api, apply, resource},
    samples::{Samples, milliseconds},
    table::Row,
    wait::PATIENCE,
    world::World,
};

/// Beside one read and one write.
const GOAL: Duration = Duration::from_millis(50);
const REPAIRS: usize = 200;

/// What somebody does to a child. Nothing that makes pods start or certificates change: how long those take is not the operator's doing.
const CHANGES: [Change; 5] = [
    Change { kind: "ConfigMap", suffix: "-ca-bundle", patch: None },
    Change { kind: "ConfigMap", suffix: "-ca-bundle", patch: Some(|| json!({"data": {"ca.crt": "nobody"}})) },
    Change { kind: "Secret", suffix: "-pull", patch: None },
    Change {
        kind: "Service",
        suffix: "",
        patch: Some(|| json!({"spec": {"selector": {"app.kubernetes.io/name": "nobody"}}})),
    },
    Change {
        kind: "Deployment",
        suffix: "",
        patch: Some(|| json!({"metadata": {"labels": {"app.kubernetes.io/name": "nobody"}}})),
    },
];

struct Change {
    kind: &'static str,
    suffix: &'static str,
    /// `None`: it is deleted.
    patch: Option<fn() -> Value>,
}

pub(super) async fn measure(world: &mut World) -> Result<[Row; 1]> {
    let step = world.progress.step(format!("drift: {REPAIRS} repairs"));
    let mut watches = Watches::start(world);
    let mut repairs: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let (mut reads, mut writes, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    let places: Vec<_> = world.places().collect();
    for (number, (namespace, name)) in places.iter().cycle().take(REPAIRS).enumerate() {
        let change = &CHANGES[number % CHANGES.len()];
        let took = repair(world, &mut watches, change, (namespace, &format!("{name}{}", change.suffix))).await?;
        let word = if change.patch.is_some() { "edited" } else { "deleted" };
        repairs.entry(format!("{} {word}", change.kind)).or_default().push(took);
        let (read, write) = read_and_write(world, number).await?;
        reads.push(read);
        writes.push(write);
        pairs.push(read + write);
    }
    step.done();

    let samples: Samples = repairs.values().flatten().copied().collect();
    let (reads, writes): (Samples, Samples) = (reads.into_iter().collect(), writes.into_iter().collect());
    let pairs: Samples = pairs.into_iter().collect();
    let (p50, p99) = (samples.median(), samples.percentile(99));
    let goal = GOAL + pairs.percentile(99);
    let each = repairs.into_iter().map(|(what, took)| {
        let took: Samples = took.into_iter().collect();
        (what, json!({"p50": milliseconds(took.median()), "worst": milliseconds(took.percentile(100))}))
    });
    Ok([Row {
        name: "drift",
        what: format!("{} children deleted or edited until repaired, p50 and p99", samples.len()),
        result: format!("{:.0} and {:.0} ms", milliseconds(p50), milliseconds(p99)),
        goal: format!("p99 ≤ {:.0} ms: {} + p99 of a read and a write", milliseconds(goal), GOAL.as_millis()),
        is_met: Some(p99 <= goal),
        values: json!({
            "p50": milliseconds(p50),
            "p99": milliseconds(p99),
            "read": {"p50": milliseconds(reads.median()), "p99": milliseconds(reads.percentile(99))},
            "write": {"p50": milliseconds(writes.median()), "p99": milliseconds(writes.percentile(99))},
            "each": each.collect::<BTreeMap<_, _>>(),
        }),
    }])
}

/// Changes a child and waits for its repair.
async fn repair(
    world: &World,
    watches: &mut Watches,
    change: &Change,
    (namespace, name): (&str, &str),
) -> Result<Duration> {
    let children = api(&world.client, namespace, change.kind);
    let before = children.get(name).await?;
    watches.forget(change.kind);
    let answered = match change.patch {
        None => {
            children.delete(name, &DeleteParams::default()).await?;
            Instant::now()
        }
        Some(patch) => {
            let changed = children.patch(name, &PatchParams::default(), &Patch::Merge(patch())).await?;
            if wanted(&changed) == wanted(&before) {
                bail!("the change to {} {name} changes nothing", change.kind);
            }
            Instant::now()
        }
    };
    let seen = watches.until(change.kind, |object| {
        let is_another = object.metadata.uid != before.metadata.uid;
        let is_later = object.metadata.resource_version != before.metadata.resource_version;
        object.metadata.name.as_deref() == Some(name)
            && object.metadata.namespace.as_deref() == Some(namespace)
            && is_another == change.patch.is_none()
            && is_later
            && wanted(object) == wanted(&before)
    });
    let seen = seen.await.with_context(|| format!("{} {name} is repaired", change.kind))?;
    Ok(seen.saturating_duration_since(answered))
}

/// The part that the changes are made to.
fn wanted(object: &DynamicObject) -> (Option<&BTreeMap<String, String>>, [Option<&Value>; 2]) {
    (object.metadata.labels.as_ref(), ["/data", "/spec/selector"].map(|at| object.data.pointer(at)))
}

/// What a repair can't do without, beside itself: one answer, and one write that changes something.
async fn read_and_write(world: &World, number: usize) -> Result<(Duration, Duration)> {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "somebodys", "namespace": "default"},
        "data": {"number": number.to_string(), "text": "x".repeat(1000)},
    });
    let started = Instant::now();
    api(&world.client, "default", "ConfigMap").get_opt("somebodys").await?;
    let read = started.elapsed();
    apply(&world.client, &object).await?;
    Ok((read, started.elapsed() - read))
}

type Seen = (Instant, DynamicObject);

/// A stream for each kind, with the time of each event.
struct Watches {
    kinds: BTreeMap<&'static str, UnboundedReceiver<Seen>>,
    _tasks: JoinSet<()>,
}

impl Watches {
    fn start(world: &World) -> Self {
        let mut tasks = JoinSet::new();
        let mut kinds = BTreeMap::new();
        for Change { kind, .. } in &CHANGES {
            kinds.entry(*kind).or_insert_with(|| {
                let (send, receive) = unbounded_channel();
                let api: Api<DynamicObject> = Api::all_with(world.client.clone(), &resource(kind));
                tasks.spawn(async move {
                    let mut objects =
                        watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
                    while let Ok(Some(object)) = objects.try_next().await {
                        if send.send((Instant::now(), object)).is_err() {
                            return;
                        }
                    }
                });
                receive
            });
        }
        Self { kinds, _tasks: tasks }
    }

    /// What came so far is of no interest.
    fn forget(&mut self, kind: &str) {
        if let Some(events) = self.kinds.get_mut(kind) {
            while events.try_recv().is_ok() {}
        }
    }

    /// When an object was first seen to be like this.
    async fn until(&mut self, kind: &str, is_it: impl Fn(&DynamicObject) -> bool) -> Result<Instant> {
        let events = self.kinds.get_mut(kind).context("this kind is not watched")?;
        let found = timeout(PATIENCE, async {
            loop {
                let (seen, object) = events.recv().await?;
                if is_it(&object) {
                    return Some(seen);
                }
            }
        });
        found.await.with_context(|| format!("nothing after {PATIENCE:?}"))?.context("the watch ended")
    }
}
