//! Who else is told which authorities to trust: copies of the bundle in other namespaces, one for pods of all of them, and orders to the agents on nodes. Both follow what is published in
//! the registry's own namespace, never what is only intended; and whoever rules another namespace, or a node, can keep it from being told, so nothing else of
//! the registry hangs on it.

pub mod accepting;
mod cluster;
mod namespaces;
mod nodes;
pub(crate) mod proofs;
pub mod reports;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::api::{Api, ListParams};
use operator_engine::apply::{self, Applied, Kind, ObjectRef, Outcome};
use serde::de::DeserializeOwned;

use super::address::Address;
use super::certificate::Certificate;
use super::workload::State;
use super::{Error, Keep, Pass, words};
use crate::api::reason;
use crate::desired::Object;
use crate::status::{self, Problem, Reach};

/// How long one pass writes; what is left has the next one.
const AT_ONCE: Duration = Duration::from_secs(10);
/// How soon the next one comes.
const GO_ON: Duration = Duration::from_millis(1);
/// The same if something failed.
const AFTER_A_FAILURE: Duration = Duration::from_secs(30);

/// What the part gives back.
#[derive(Default)]
pub struct Trust {
    /// What the status says.
    pub report: status::Trust,
    /// When it is looked at again although nothing has changed.
    pub look_again: Option<Duration>,
    /// What must stay in the registry's own namespace.
    pub keep: Keep,
}

/// An object in another namespace: namespace, kind, name.
type Place = (String, &'static Kind, String);

/// What one way of telling wants.
#[derive(Default)]
struct Plan {
    /// What must stay if it is there.
    keep: BTreeSet<Place>,
    write: Vec<Object>,
    /// What is said of it; `None`: the manifest does not ask for it.
    reach: Option<Reach>,
    look_again: Option<Duration>,
}

/// Brings it to what is wanted. `is_held`: the registry does not go before what it has in other namespaces.
pub async fn settle(
    pass: &Pass<'_>,
    certificate: &Certificate,
    address: &Address,
    running: &State,
    is_held: bool,
) -> Trust {
    let there = pass.ctx.engine.elsewhere(&pass.owner);
    let mut namespaces = namespaces::plan(pass, certificate, &there);
    let mut cluster = cluster::plan(pass, certificate, &there);
    let mut nodes = nodes::plan(pass, certificate, address, running, &there).await;
    let until = Instant::now() + AT_ONCE;
    let mut work = Work { pass, until, is_unfinished: false, has_failed: false, look_again: None };

    let keep: BTreeSet<_> = namespaces.keep.iter().chain(&cluster.keep).chain(&nodes.keep).cloned().collect();
    if is_held {
        work.tell_the_cluster(&mut cluster).await;
        // Nodes first: they wait for no namespace of somebody else's.
        let refused = work.write(&nodes.write).await.into_iter().next();
        if let (Some(reach), Some((_, why))) = (&mut nodes.reach, refused) {
            reach.problem =
                Some(Problem::retrying("NotOrdered", format!("what nodes are told, or have told, is not kept: {why}")));
        }
    }
    work.remove(&there, &keep).await;
    if is_held {
        work.write_in_turn(&mut namespaces).await;
    }
    let own = |place: &&Place| place.0 == pass.registry.namespace;
    // A namespace that answers late, or not at all, must not have this registry's passes take the place of others'.
    let pause = if work.has_failed { AFTER_A_FAILURE } else { GO_ON };
    let goes_on = work.is_unfinished.then_some(pause);
    Trust {
        keep: nodes.keep.iter().filter(own).map(|(_, kind, name)| (*kind, name.clone())).collect(),
        report: status::Trust { namespaces: namespaces.reach, cluster: cluster.told, nodes: nodes.reach },
        look_again: [work.look_again, nodes.look_again, goes_on].into_iter().flatten().min(),
    }
}

/// Hands over every object that a list shows, page by page.
async fn each<K>(api: &Api<K>, mut params: ListParams, mut take: impl FnMut(K)) -> kube::Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    loop {
        let page = api.list(&params).await?;
        page.items.into_iter().for_each(&mut take);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(()),
        }
    }
}

/// Those of the objects in other namespaces that have this name: what is kept while it cannot be said what is wanted.
fn named(there: &[ObjectRef], name: &str) -> BTreeSet<Place> {
    there.iter().filter(|found| *found.name == *name).map(place_of).collect()
}

fn place_of(found: &ObjectRef) -> Place {
    (found.namespace.to_string(), found.kind, found.name.to_string())
}

/// What is said where clients need no bundle.
fn nothing_to_trust(field: &str) -> Problem {
    let why = format!(
        "clients of this registry need no bundle, so nobody is to be told: it has none with plain HTTP, nor with a certificate of your own without ca.crt; remove {field}"
    );
    Problem::stuck("NothingToTrust", why)
}

/// One pass's work: what one place refuses keeps no other one waiting.
struct Work<'a> {
    pass: &'a Pass<'a>,
    until: Instant,
    is_unfinished: bool,
    has_failed: bool,
    look_again: Option<Duration>,
}

impl Work<'_> {
    async fn tell_the_cluster(&mut self, plan: &mut cluster::Plan) {
        let (Some(object), Some(told)) = (&plan.write, &mut plan.told) else { return };
        let why = match self.pass.ctx.engine.apply(&self.pass.owner, object).await {
            Ok(applied) => self.wrote(&applied).map(|why| Problem::retrying(reason::NOT_ALL_TOLD, why)),
            Err(error) => {
                let reason = error.reason();
                Some(Problem::retrying(reason, self.failed(error)))
            }
        };
        told.problem = told.problem.take().or(why);
    }

    async fn remove(&mut self, there: &[ObjectRef], keep: &BTreeSet<Place>) {
        for found in there.iter().filter(|found| !keep.contains(&place_of(found))) {
            if self.is_over() {
                return;
            }
            if let Err(error) = self.pass.ctx.engine.remove_elsewhere(&self.pass.owner, found).await {
                self.failed(error);
            }
        }
    }

    /// Writes copies, beginning where the last pass stopped: a namespace in which each write takes long keeps the others waiting for one turn at most.
    async fn write_in_turn(&mut self, plan: &mut Plan) {
        let Some(reach) = &mut plan.reach else { return };
        let recall = &self.pass.ctx.recall;
        let place = |object: &Object| object.namespace.clone().unwrap_or_default();
        if let Some(from) = recall.next_copy(self.pass.key) {
            let start = plan.write.partition_point(|object| place(object) < from);
            plan.write.rotate_left(start);
        }
        let mut reached = 0;
        for object in &plan.write {
            if self.is_over() {
                break;
            }
            reached += 1;
            reach.missing.extend(self.write(std::slice::from_ref(object)).await);
        }
        recall.goes_on_with_copy(self.pass.key, plan.write.get(reached).map(place));
        let unreached: BTreeSet<_> = plan.write[reached..].iter().map(place).collect();
        let failed: BTreeSet<_> = reach.missing.iter().map(|(namespace, _)| namespace.clone()).collect();
        reach.lacking = unreached.union(&failed).count();
        reach.is_unfinished = self.is_unfinished;
    }

    /// Gives the namespaces in which something is not as wanted, and why.
    async fn write(&mut self, objects: &[Object]) -> Vec<(String, String)> {
        let mut missing = Vec::new();
        for object in objects {
            if self.is_over() {
                break;
            }
            let why = match self.pass.ctx.engine.apply(&self.pass.owner, object).await {
                Ok(applied) => self.wrote(&applied),
                Err(error) => Some(self.failed(error)),
            };
            let namespace = object.namespace.as_ref().unwrap_or(&self.pass.registry.namespace);
            missing.extend(why.map(|why| (namespace.clone(), why)));
        }
        missing
    }

    /// Why it is not as wanted all the same.
    fn wrote(&mut self, applied: &Applied) -> Option<String> {
        if let Some(contest) = &applied.contested {
            self.look_again = self.look_again.into_iter().chain([contest.look_again]).min();
        }
        match applied.outcome {
            Outcome::Damped => Some(applied.contested.as_ref().map(ToString::to_string).unwrap_or_default()),
            Outcome::Replacing => Some("the former one is being deleted".to_owned()),
            Outcome::Unchanged | Outcome::Created | Outcome::Changed | Outcome::Recreated => None,
        }
    }

    fn failed(&mut self, error: apply::Error) -> String {
        self.has_failed = true;
        self.pass.note_if_lacking(&error);
        let error = Error::from(error);
        self.pass.failures.failed(self.pass.key, &error);
        words(&error)
    }

    fn is_over(&mut self) -> bool {
        self.is_unfinished |= Instant::now() >= self.until;
        self.is_unfinished
    }
}
