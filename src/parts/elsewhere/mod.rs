//! What a registry has outside of its own namespace: copies of the bundle and of logins where they are accepted, one object for pods of all namespaces,
//! orders to the agents on nodes. Other parts say what is wanted; here it is written, and taken away when it is not wanted any more. Whoever rules another
//! namespace can keep it out, or make every request about it last: so nothing else of the registry hangs on it, and no namespace keeps another waiting.

pub mod accepting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use operator_engine::apply::{Applied, Kind, ObjectRef, Outcome};

use super::address::Address;
use super::advice::advice;
use super::certificate::Certificate;
use super::context::HeldToken;
use super::logins::accounts::AccountSecret;
use super::logins::{self, Logins};
use super::trust;
use super::workload::State;
use super::{Error, Keep, Pass, words};
use crate::access::account::AccountToken;
use crate::api::reason;
use crate::desired::Object;
use crate::status::{self, Problem, Reach};

/// How long one pass writes; what is left has the next one.
const AT_ONCE: Duration = Duration::from_secs(10);
/// How soon the next one comes.
const GO_ON: Duration = Duration::from_millis(1);
/// The same if something failed.
const AFTER_A_FAILURE: Duration = Duration::from_secs(30);

/// Failures of one registry that are remembered until their turn comes again.
const REMEMBERED: usize = 64;

/// What the part gives back.
#[derive(Default)]
pub struct Elsewhere {
    /// What the status says of trust.
    pub trust: status::Trust,
    /// What it says of logins; `None`: the manifest asks for none.
    pub logins: Option<Reach>,
    /// When it is looked at again although nothing has changed.
    pub look_again: Option<Duration>,
    /// What must stay in the registry's own namespace.
    pub keep: Keep,
}

/// An object in another namespace: namespace, kind, name.
pub type Place = (String, &'static Kind, String);

/// What one concern wants.
#[derive(Default)]
pub struct Plan {
    /// What must stay if it is there.
    pub keep: BTreeSet<Place>,
    /// What must be there.
    pub write: Vec<Object>,
    /// The same, with a token each.
    pub(super) tokens: Vec<AccountSecret>,
    /// What is said of it; `None`: the manifest does not ask for it.
    pub reach: Option<Reach>,
    /// When it is looked at again.
    pub look_again: Option<Duration>,
}

/// Brings it to what is wanted. `is_held`: the registry does not go before what it has in other namespaces.
pub async fn settle(
    pass: &Pass<'_>,
    certificate: &Certificate,
    address: &Address,
    running: &State,
    logins: &Logins,
    is_held: bool,
) -> Elsewhere {
    let there = pass.ctx.engine.elsewhere(&pass.owner);
    let mut bundles = trust::namespaces::plan(pass, certificate, &there);
    let mut copies = logins::copies::plan(pass, logins.lent.as_deref(), address, &there);
    let mut cluster = trust::cluster::plan(pass, certificate, &there);
    let mut nodes = trust::nodes::plan(pass, certificate, address, running, &there).await;
    let mut work =
        Work { pass, until: Instant::now() + AT_ONCE, is_unfinished: false, has_failed: false, look_again: None };

    let wanted = [&bundles.keep, &copies.keep, &cluster.keep, &nodes.keep];
    let keep: BTreeSet<_> = wanted.into_iter().flatten().cloned().collect();
    if is_held {
        work.tell_the_cluster(&mut cluster).await;
        // Nodes before the others: they wait for no namespace of somebody else's.
        let refused = work.write_all(&nodes.write).await;
        if let (Some(reach), Some(why)) = (&mut nodes.reach, refused) {
            reach.problem =
                Some(Problem::retrying("NotOrdered", format!("what nodes are told, or have told, is not kept: {why}")));
        }
    }
    work.take_turns(&there, &keep, [&mut bundles, &mut copies], is_held).await;
    let own = |place: &&Place| place.0 == pass.registry.namespace;
    // A namespace that answers late, or not at all, must not have this registry's passes take the place of others'.
    let pause = if work.has_failed { AFTER_A_FAILURE } else { GO_ON };
    let goes_on = work.is_unfinished.then_some(pause);
    Elsewhere {
        keep: nodes.keep.iter().filter(own).map(|(_, kind, name)| (*kind, name.clone())).collect(),
        trust: status::Trust { namespaces: bundles.reach, cluster: cluster.told, nodes: nodes.reach },
        logins: copies.reach,
        look_again: [work.look_again, nodes.look_again, goes_on].into_iter().flatten().min(),
    }
}

/// Those of the objects in other namespaces that have this name: what is kept while it cannot be said what is wanted.
pub fn named(there: &[ObjectRef], name: &str) -> BTreeSet<Place> {
    there.iter().filter(|found| *found.name == *name).map(place_of).collect()
}

fn place_of(found: &ObjectRef) -> Place {
    (found.namespace.to_string(), found.kind, found.name.to_string())
}

fn place_in(object: &Object) -> Place {
    (object.namespace.clone().unwrap_or_default(), object.kind, object.name.clone())
}

/// What is done in another namespace.
enum Task {
    Remove(ObjectRef),
    /// For the plan with this number.
    Write(usize, Object),
    /// The same, with a token that is to be asked for.
    Ask(usize, AccountSecret),
}

impl Task {
    fn place(&self) -> Place {
        match self {
            Self::Remove(found) => place_of(found),
            Self::Write(_, object) => place_in(object),
            Self::Ask(_, secret) => secret.place(),
        }
    }
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
    async fn tell_the_cluster(&mut self, plan: &mut trust::cluster::Plan) {
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

    /// Takes away what is not to be kept and writes the copies, beginning where the last pass stopped: an object about which each request takes long keeps
    /// the others waiting for one turn at most. What may not be written is said to be missing.
    async fn take_turns(
        &mut self,
        there: &[ObjectRef],
        keep: &BTreeSet<Place>,
        mut plans: [&mut Plan; 2],
        may_write: bool,
    ) {
        let unwanted = there.iter().filter(|found| !keep.contains(&place_of(found)));
        let mut tasks: Vec<_> = unwanted.cloned().map(Task::Remove).collect();
        for (number, plan) in plans.iter_mut().enumerate() {
            tasks.extend(std::mem::take(&mut plan.write).into_iter().map(|object| Task::Write(number, object)));
            tasks.extend(std::mem::take(&mut plan.tokens).into_iter().map(|secret| self.with_token(number, secret)));
        }
        tasks.sort_by_key(Task::place);
        let recall = &self.pass.ctx.recall;
        let mut failing = recall.failing(self.pass.key);
        if let Some(from) = recall.next_copy(self.pass.key) {
            let start = tasks.partition_point(|task| task.place() < from);
            tasks.rotate_left(start);
        }
        let (mut done, mut left) = (0, Vec::new());
        for task in &tasks {
            if self.is_over() {
                break;
            }
            done += 1;
            match task {
                Task::Write(number, _) | Task::Ask(number, _) if !may_write && !self.is_at_home(task) => {
                    left.push((*number, task));
                }
                Task::Remove(found) => {
                    if let Err(error) = self.pass.ctx.engine.remove_elsewhere(&self.pass.owner, found).await {
                        self.failed(error);
                    }
                }
                Task::Write(number, _) | Task::Ask(number, _) => {
                    let why = match task {
                        Task::Write(_, object) => self.write(object).await,
                        Task::Ask(_, secret) => self.ask(secret).await,
                        Task::Remove(_) => None,
                    };
                    match &why {
                        Some(why) if failing.len() < REMEMBERED => _ = failing.insert(task.place(), why.clone()),
                        _ => _ = failing.remove(&task.place()),
                    }
                    if let Some(reach) = &mut plans[*number].reach {
                        reach.missing.extend(why.map(|why| (task.place().0, why)));
                    }
                }
            }
        }
        recall.goes_on_with_copy(self.pass.key, tasks.get(done).map(Task::place));
        let places: BTreeSet<_> = tasks.iter().map(Task::place).collect();
        failing.retain(|place, _| places.contains(place));
        recall.holds_tokens_only_in(self.pass.key, &places);
        left.extend(tasks[done..].iter().filter_map(|task| match task {
            Task::Write(number, _) | Task::Ask(number, _) => Some((*number, task)),
            Task::Remove(_) => None,
        }));
        self.tell(plans, &left, &failing);
        recall.fails(self.pass.key, failing);
    }

    /// What is in the registry's own namespace goes with it.
    fn is_at_home(&self, task: &Task) -> bool {
        task.place().0 == self.pass.registry.namespace
    }

    /// Says of each plan what of it is missing. `left`: what was not written in this pass, with the number of its plan. `failing`: what could not be written
    /// when its turn was last, which is told until its turn comes again.
    fn tell(&self, plans: [&mut Plan; 2], left: &[(usize, &Task)], failing: &BTreeMap<Place, String>) {
        let is_as_wanted = |task: &Task| match task {
            Task::Write(_, object) => self.pass.ctx.engine.is_as_wanted(&self.pass.owner, object),
            Task::Ask(..) | Task::Remove(_) => false,
        };
        for (number, plan) in plans.into_iter().enumerate() {
            let Some(reach) = &mut plan.reach else { continue };
            let mut unreached = BTreeSet::new();
            for (_, task) in left.iter().filter(|(of, task)| *of == number && !is_as_wanted(task)) {
                let place = task.place();
                match failing.get(&place) {
                    Some(why) => reach.missing.push((place.0, why.clone())),
                    None => _ = unreached.insert(place.0),
                }
            }
            reach.missing.sort();
            reach.is_unfinished = !unreached.is_empty();
            let failed = reach.missing.iter().map(|(namespace, _)| namespace.clone());
            reach.lacking = unreached.into_iter().chain(failed).collect::<BTreeSet<_>>().len();
        }
    }

    /// The Secret with its token, if that is known and lasts; whoever deleted it wants another one.
    fn with_token(&mut self, number: usize, secret: AccountSecret) -> Task {
        let place = secret.place();
        let is_there = self.pass.ctx.engine.is_known(&ObjectRef::new(place.1, &place.0, &place.2));
        let held = self.pass.ctx.recall.token(self.pass.key, &place, is_there);
        let is_new = held.as_ref().is_some_and(HeldToken::is_new);
        let token = held.and_then(|held| secret.account.token(held.text));
        match token.filter(|token| is_new || !token.is_due(self.pass.now)) {
            Some(token) => {
                self.look_again_at(&token);
                Task::Write(number, secret.object(self.pass, &token))
            }
            None => Task::Ask(number, secret),
        }
    }

    /// Gives the reason why it has no new token.
    async fn ask(&mut self, secret: &AccountSecret) -> Option<String> {
        let (token, asked) = match secret.token(self.pass).await {
            Ok(token) => token,
            Err(error) => {
                let advice = advice(&error).map(|advice| format!("; {advice}")).unwrap_or_default();
                return Some(self.failed(error) + &advice);
            }
        };
        let why = self.write(&secret.object(self.pass, &token)).await;
        self.look_again_at(&token);
        // Whatever keeps it from being written, the next try needs no other one.
        let held = HeldToken { text: token.text, was_there: why.is_none(), asked };
        self.pass.ctx.recall.holds_token(self.pass.key, secret.place(), held);
        why
    }

    fn look_again_at(&mut self, token: &AccountToken) {
        let left = Duration::try_from(token.renew_at.duration_since(self.pass.now)).unwrap_or_default();
        let left = if left.is_zero() { HeldToken::AT_THE_EARLIEST } else { left };
        self.look_again = self.look_again.into_iter().chain([left]).min();
    }

    /// Gives the first reason why something of it is not as wanted.
    async fn write_all(&mut self, objects: &[Object]) -> Option<String> {
        let mut first = None;
        for object in objects {
            if self.is_over() {
                break;
            }
            let why = self.write(object).await;
            first = first.or(why);
        }
        first
    }

    /// Gives the reason why it is not as wanted all the same.
    async fn write(&mut self, object: &Object) -> Option<String> {
        match self.pass.ctx.engine.apply(&self.pass.owner, object).await {
            Ok(applied) => self.wrote(&applied),
            Err(error) => Some(self.failed(error)),
        }
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

    fn failed(&mut self, error: impl Into<Error>) -> String {
        self.has_failed = true;
        let error = error.into();
        if let Error::Apply(error) = &error {
            self.pass.note_if_lacking(error);
        }
        self.pass.failures.failed(self.pass.key, &error);
        words(&error)
    }

    fn is_over(&mut self) -> bool {
        self.is_unfinished |= Instant::now() >= self.until;
        self.is_unfinished
    }
}
