//! What every pass shares: the client, what is remembered, the settings, the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use operator_engine::apply::{Engine, Kind, Live, Memory, ObjectRef};
use operator_engine::metrics::Metrics as EngineMetrics;
use operator_engine::work::events::Events;
use operator_engine::work::installations::Installations;
use operator_engine::work::queue::{Key, Queue, Urgency};
use operator_engine::work::references::{Reference, References};
use operator_engine::work::rounds::Rounds;
use operator_engine::work::store::Objects;
use operator_engine::work::watches::Scope;
use tokio::time::Instant;

use super::certificate::Requests;
use super::elsewhere::Place;
use super::elsewhere::accepting::Accepting;
use super::kubelets::News;
use super::trust::reports::Reports;
use super::workload::{Answers, Hearings};
use super::{Error, locked};
use crate::api::PrivateRegistry;
use crate::desired::RotatedLogin;
use crate::desired::kinds::KINDS;
use crate::metrics::Metrics;
use crate::model::{self, Child, Settings, labels, routed_hosts, written_addresses};
use crate::observe;
use crate::secret::Sensitive;
use crate::status::PodFacts;

/// Pods in one page of a list.
const PODS_AT_ONCE: u32 = 200;
const CLAIM: &str = "PersistentVolumeClaim";

/// What a registry refers to that wants to know of namespaces, or of what nodes report: no object in particular.
pub(crate) fn any(kind: &'static str) -> Reference {
    (kind, String::new(), String::new())
}

/// What a registry refers to that wants to have a host on nodes.
pub(crate) fn host_of_a_node(host: String) -> Reference {
    (HOST, String::new(), host)
}

/// What a registry refers to that wants clients to come to it by a host, through somebody's proxy.
pub(crate) fn routed_host(host: String) -> Reference {
    (ROUTED, String::new(), host)
}

pub(crate) const NAMESPACE: &str = "Namespace";
pub(crate) const REPORT: &str = "node-report";
const HOST: &str = "node-host";
const ROUTED: &str = "routed-host";

/// Longer than any repair waits while a field is fought over.
const LATELY: SignedDuration = SignedDuration::from_mins(20);

/// Children that are remembered as they were written: those are fought over, not the many that are renewed together.
const WRITTEN_AT_MOST: usize = 64;

/// What every pass shares.
pub struct Context {
    /// The client of passes, behind the fence.
    pub client: Client,
    /// Reads and writes of children.
    pub engine: Engine,
    /// What is known of children and of what manifests refer to.
    pub memory: Arc<Memory>,
    /// The registries as the API server last showed them.
    pub registries: Arc<Objects<PrivateRegistry>>,
    /// The operator's own settings.
    pub settings: Settings,
    /// Publishes Kubernetes events.
    pub events: Events,
    /// What is counted of registries.
    pub metrics: Metrics,
    /// What is counted of passes.
    pub engine_metrics: Arc<EngineMetrics>,
    /// Which registry is looked at next.
    pub queue: Queue,
    /// What passes remember beside children.
    pub recall: Recall,
    /// How registries answered.
    pub(crate) answers: Answers,
    /// What their pods say of logins from elsewhere.
    pub(crate) hearings: Hearings,
    /// Looks at every registry.
    pub(crate) rounds: Rounds,
    /// Requests to signers of the cluster.
    pub requests: Requests,
    /// Which registry refers to what.
    pub references: References,
    /// Which namespaces accept bundles, and which logins.
    pub accepting: Accepting,
    /// What the agents on nodes report.
    pub(crate) reports: Reports,
    /// Which registries another installation of the operator looks after.
    pub installations: Installations,
}

impl Context {
    /// The present moment. Passes ask here and nowhere else.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// The registry's pods, as they are now: from memory while no pod of it changed, else from one list.
    pub(crate) async fn pods(&self, key: &Key) -> Result<Vec<PodFacts>, Error> {
        let now = self.now();
        if let Some(known) = self.recall.pods_of(key) {
            return Ok(known.iter().map(|pod| pod.at(now)).collect());
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let selector = format!("{}={}", labels::REGISTRY, key.name);
        let failed = |source| Error::Pods { registry: key.to_string(), source: Box::new(source) };
        let listed = api.list(&ListParams::default().labels(&selector)).await.map_err(failed)?;
        let facts: Vec<_> = listed.iter().map(PodFacts::of).collect();
        let as_they_are = facts.iter().map(|pod| pod.at(now)).collect();
        self.recall.learn_pods(key, facts);
        Ok(as_they_are)
    }

    /// A pod that may still write to a claim which this registry is about to mount: one of another registry, or, unless the claim is shared, one of its
    /// own that is on its way out. Both its name and its registry's are given. Costs a list, page by page.
    pub(crate) async fn still_mounting(
        &self,
        key: &Key,
        claim: &str,
        is_shared: bool,
    ) -> Result<Option<(String, String)>, Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let ours = format!("{}={}", labels::MANAGED_BY, labels::MANAGER);
        let mut params = ListParams::default().labels(&ours).limit(PODS_AT_ONCE);
        loop {
            let failed = |source| Error::Pods { registry: key.to_string(), source: Box::new(source) };
            let page = api.list(&params).await.map_err(failed)?;
            let found = page.items.iter().find_map(|pod| still_mounts(pod, &key.name, claim, is_shared));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) if found.is_none() => params.continue_token = Some(token),
                _ => return Ok(found),
            }
        }
    }

    /// One round over all registries.
    pub(crate) async fn round(&self, scopes: &[Scope]) {
        self.rounds.run(&self.registries.keys(), scopes, &self.queue, &self.engine).await;
    }

    /// Has those requests removed whose registry went while nobody looked.
    pub(crate) fn find_abandoned_requests(&self) {
        for key in self.requests.owners().iter().filter(|key| !self.registries.contains(key)) {
            self.queue.add(key, Urgency::Upkeep);
        }
    }

    /// Remembers what a registry refers to.
    pub(crate) fn note(&self, key: &Key, registry: &PrivateRegistry) {
        self.refer(key, referred(key, registry));
    }

    /// Who waits for a host that this registry no longer wants may have it now, and who has one that it wants looks whose it is.
    fn refer(&self, key: &Key, now: BTreeSet<Reference>) {
        let is_host = |reference: &Reference| [HOST, ROUTED].contains(&reference.0);
        let before = self.references.of(key);
        let changed: Vec<_> = before.symmetric_difference(&now).filter(|host| is_host(host)).cloned().collect();
        self.forget_unreferred(self.references.refer(key, now));
        for (kind, namespace, name) in changed {
            for rival in self.references.to(kind, &namespace, &name).iter().filter(|rival| *rival != key) {
                self.queue.add(rival, Urgency::Change);
            }
        }
    }

    /// What nobody refers to any more may hold passwords, and nobody will tell us when it goes.
    fn forget_unreferred(&self, dropped: Vec<Reference>) {
        for (kind, namespace, name) in dropped {
            if let Some(kind) = KINDS.named(kind) {
                self.memory.forget(&ObjectRef::new(kind, &namespace, &name));
            }
        }
    }

    /// Takes in the answer to a write of the registry itself. It may show a user's change before its own event does.
    pub(crate) fn learn(&self, answer: PrivateRegistry) {
        if let Some(change) = self.registries.learn(answer).filter(|change| change.what.wants_a_pass()) {
            self.queue.add(&change.key, Urgency::Manifest);
        }
    }

    /// Learns what a new registry refers to.
    pub(crate) fn meet(&self, key: &Key) {
        if let Some(registry) = self.registries.get(key) {
            self.note(key, &registry);
        }
    }

    /// The registries that may want a claim that this one has. All that exist have been met: the watch of registries comes before any pass.
    pub(crate) fn rivals(&self, key: &Key) -> Vec<Arc<PrivateRegistry>> {
        rivals(&self.references, key).iter().filter_map(|rival| self.registries.get(rival)).collect()
    }

    /// Has those looked at that may want a claim of this registry, which is new or gone. Creation times have whole seconds, so who comes second to
    /// a claim may still be the first by name.
    pub(crate) fn tell_rivals(&self, key: &Key) {
        for rival in rivals(&self.references, key).iter().filter(|rival| self.registries.contains(rival)) {
            self.queue.add(rival, Urgency::Change);
        }
    }

    /// Forgets everything about a registry that is gone. Who waits for its claim may have it now.
    pub(crate) fn forget(&self, key: &Key) {
        self.tell_rivals(key);
        self.recall.forget(key);
        self.answers.forget(key);
        self.hearings.forget(key);
        self.installations.forget(key);
        self.memory.forget_owner(&key.namespace, &key.name);
        self.metrics.forget_certificate(&key.namespace, &key.name);
        self.refer(key, BTreeSet::new());
    }
}

/// What passes remember beside children.
#[derive(Default)]
pub struct Recall {
    /// `None` while they are being listed.
    pods: Mutex<BTreeMap<Key, Option<Vec<PodFacts>>>>,
    /// What was written over something else lately, by registry and suffix of the child's name.
    written: Mutex<BTreeMap<(Key, &'static str), Written>>,
    /// Whose status was written just now.
    told: Mutex<BTreeMap<Key, Instant>>,
    /// Of whom there is news for running pods, and since when, while not every kubelet of its pods has been told.
    untold: Mutex<BTreeMap<(Key, News), Instant>>,
    /// Of whom a Job was seen.
    jobs: Mutex<BTreeSet<Key>>,
    /// How many passes in a row were overtaken.
    overtaken: Mutex<BTreeMap<Key, u32>>,
    /// Of whom there may be pods that prove trust on nodes.
    proving: Mutex<BTreeSet<Key>>,
    /// Where the work on a registry's objects in other namespaces goes on, of which one pass could not do all.
    copies: Mutex<BTreeMap<Key, Place>>,
    /// What of them could not be written when its turn was last, and why.
    failing: Mutex<BTreeMap<Key, BTreeMap<Place, String>>>,
    /// Tokens of ServiceAccounts for pull Secrets.
    tokens: Mutex<BTreeMap<Key, BTreeMap<Place, HeldToken>>>,
    /// Whose logins there may be in copies in other namespaces, of registries with users whose passwords take turns.
    users_elsewhere: Mutex<BTreeMap<Key, BTreeSet<String>>>,
    /// Logins of such users as they were written lately.
    logins: Mutex<BTreeMap<(Key, String), WrittenLogin>>,
    /// Who wants an object of a kind that the cluster lacks.
    lacking: Mutex<BTreeSet<(&'static Kind, Key)>>,
    /// For which nodes such a pod was made, and since when it was wanted.
    made: Mutex<BTreeMap<(Key, String), Timestamp>>,
}

/// A token of a ServiceAccount.
#[derive(Clone)]
pub(super) struct HeldToken {
    pub(super) text: Sensitive<String>,
    /// Whether its Secret was seen to be there. If it is gone then, somebody has deleted it.
    pub(super) was_there: bool,
    /// When the cluster was asked for it; `None`: it was there.
    pub(super) asked: Option<Instant>,
}

impl HeldToken {
    /// How soon after one token another is asked for, whatever clocks say: the cluster's may be another than ours.
    pub(super) const AT_THE_EARLIEST: Duration = Duration::from_secs(300);

    /// Whether it was asked for just now.
    pub(super) fn is_new(&self) -> bool {
        self.asked.is_some_and(|at| at.elapsed() < Self::AT_THE_EARLIEST)
    }
}

struct Written {
    live: Live,
    /// When it was written, or its like was missed last.
    at: Timestamp,
}

/// A login as it was to be written, to the object of this uid.
struct WrittenLogin {
    login: RotatedLogin,
    uid: String,
    /// When it was written, or something of it was missed last.
    at: Timestamp,
}

/// After this time a kubelet has come to a changed Secret by itself: its period, and the time for which it keeps Secrets.
pub(super) const KUBELETS_OWN_TIME: Duration = Duration::from_secs(150);

/// How long what becomes known of a registry that comes up is collected.
const TOGETHER: Duration = Duration::from_secs(2);

impl Recall {
    /// Its status was written just now.
    pub fn told(&self, key: &Key) {
        let mut told = locked(&self.told);
        told.retain(|_, at| at.elapsed() < TOGETHER);
        told.insert(key.clone(), Instant::now());
    }

    /// How long to wait, so that it is not told twice within [`TOGETHER`].
    pub fn wait_to_tell(&self, key: &Key) -> Option<Duration> {
        locked(&self.told).get(key).and_then(|at| TOGETHER.checked_sub(at.elapsed())).filter(|wait| !wait.is_zero())
    }

    /// Something has changed, and no kubelet of the registry's pods knows it yet.
    pub(super) fn has_news(&self, key: &Key, news: News) {
        locked(&self.untold).insert((key.clone(), news), Instant::now());
    }

    /// Whether kubelets are still to be told: not all know it, and they do not come to it by themselves before.
    pub(super) fn are_pods_to_be_told(&self, key: &Key, news: News) -> bool {
        let mut untold = locked(&self.untold);
        untold.retain(|_, since| since.elapsed() < KUBELETS_OWN_TIME);
        untold.contains_key(&(key.clone(), news))
    }

    /// All of them have been told.
    pub(super) fn pods_were_told(&self, key: &Key, news: News) {
        locked(&self.untold).remove(&(key.clone(), news));
    }

    /// There may be pods that prove its trust on nodes, or there are none.
    pub(crate) fn proves(&self, key: &Key, may_be: bool) {
        let mut proving = locked(&self.proving);
        if may_be {
            proving.insert(key.clone());
        } else {
            proving.remove(key);
        }
    }

    /// The object at which the work in other namespaces goes on.
    pub(super) fn next_copy(&self, key: &Key) -> Option<Place> {
        locked(&self.copies).get(key).cloned()
    }

    /// The work in other namespaces goes on at this object; `None`: all were tried.
    pub(super) fn goes_on_with_copy(&self, key: &Key, place: Option<Place>) {
        let mut copies = locked(&self.copies);
        match place {
            Some(place) => _ = copies.insert(key.clone(), place),
            None => _ = copies.remove(key),
        }
    }

    /// What of its objects in other namespaces could not be written when its turn was last, and why.
    pub(super) fn failing(&self, key: &Key) -> BTreeMap<Place, String> {
        locked(&self.failing).get(key).cloned().unwrap_or_default()
    }

    /// That is so now.
    pub(super) fn fails(&self, key: &Key, failing: BTreeMap<Place, String>) {
        let mut all = locked(&self.failing);
        if failing.is_empty() { _ = all.remove(key) } else { _ = all.insert(key.clone(), failing) }
    }

    /// The token for a Secret there, unless that was there and is no more.
    pub(super) fn token(&self, key: &Key, place: &Place, is_there: bool) -> Option<HeldToken> {
        let mut tokens = locked(&self.tokens);
        let held = tokens.get_mut(key)?.get_mut(place).filter(|held| is_there || !held.was_there)?;
        held.was_there = is_there;
        Some(held.clone())
    }

    /// It is this one.
    pub(super) fn holds_token(&self, key: &Key, place: Place, held: HeldToken) {
        locked(&self.tokens).entry(key.clone()).or_default().insert(place, held);
    }

    /// No token is wanted in other places than these.
    pub(super) fn holds_tokens_only_in(&self, key: &Key, places: &BTreeSet<Place>) {
        let mut all = locked(&self.tokens);
        if let Some(held) = all.get_mut(key) {
            held.retain(|place, _| places.contains(place));
            if held.is_empty() {
                all.remove(key);
            }
        }
    }

    /// It wants an object of a kind that the cluster lacks.
    pub(super) fn lacks(&self, kind: &'static Kind, key: &Key) {
        locked(&self.lacking).insert((kind, key.clone()));
    }

    /// The cluster may have this kind now: who wants an object of it.
    pub(crate) fn who_lacked(&self, kind: &'static Kind) -> Vec<Key> {
        let mut lacking = locked(&self.lacking);
        let (found, others): (BTreeSet<_>, _) =
            std::mem::take(&mut *lacking).into_iter().partition(|(of, _)| *of == kind);
        *lacking = others;
        found.into_iter().map(|(_, key)| key).collect()
    }

    /// Whether the pod that is wanted since then on this node may be made: once.
    pub(super) fn may_make(&self, key: &Key, node: &str, since: Timestamp) -> bool {
        locked(&self.made).insert((key.clone(), node.to_owned()), since) != Some(since)
    }

    /// Whether there may be pods that prove its trust on nodes.
    pub(super) fn may_be_proving(&self, key: &Key) -> bool {
        locked(&self.proving).contains(key)
    }

    /// There is a Job of it.
    pub(super) fn saw_job(&self, key: &Key) {
        locked(&self.jobs).insert(key.clone());
    }

    /// Whether this process has seen a Job of it, so that it would have seen its end, too.
    pub(super) fn has_seen_job(&self, key: &Key) -> bool {
        locked(&self.jobs).contains(key)
    }

    /// How many passes in a row were overtaken, up to now.
    pub(crate) fn overtaken_in_a_row(&self, key: &Key) -> u32 {
        locked(&self.overtaken).get(key).copied().unwrap_or_default()
    }

    /// So many they are now, in a row.
    pub(crate) fn note_overtaken(&self, key: &Key, in_a_row: u32) {
        let mut overtaken = locked(&self.overtaken);
        match in_a_row {
            0 => _ = overtaken.remove(key),
            _ => _ = overtaken.insert(key.clone(), in_a_row),
        }
    }

    /// What is known of a registry's pods. If it is nothing, they are to be listed and learned.
    fn pods_of(&self, key: &Key) -> Option<Vec<PodFacts>> {
        locked(&self.pods).entry(key.clone()).or_default().clone()
    }

    /// Learns what was listed, unless a pod changed meanwhile: the list may be older than the change.
    fn learn_pods(&self, key: &Key, listed: Vec<PodFacts>) {
        if let Some(known) = locked(&self.pods).get_mut(key) {
            *known = Some(listed);
        }
    }

    /// Remembers a child with random content that was written over another one.
    pub(super) fn wrote(&self, key: &Key, child: Child, live: Live, now: Timestamp) {
        let mut written = locked(&self.written);
        written.retain(|_, known| now.duration_since(known.at) < LATELY);
        if written.len() >= WRITTEN_AT_MOST {
            return;
        }
        written.insert((key.clone(), child.suffix()), Written { live, at: now });
    }

    /// A child as it was written lately, if somebody has changed its content since. Making it anew each time would look as if something else were wanted
    /// each time, and nobody would notice the fight.
    pub(super) fn as_written(&self, key: &Key, child: Child, live: Live, now: Timestamp) -> Live {
        let mut written = locked(&self.written);
        let slot = (key.clone(), child.suffix());
        let Some(known) = written.get_mut(&slot) else { return live };
        if known.live.uid() != live.uid() || now.duration_since(known.at) >= LATELY {
            written.remove(&slot);
            return live;
        }
        if known.live.value()["data"] == live.value()["data"] {
            return live;
        }
        known.at = now;
        known.live.clone()
    }

    /// A user's login was written, or is to be.
    pub(super) fn wrote_login(&self, key: &Key, user: &str, uid: &str, login: &RotatedLogin, now: Timestamp) {
        let mut logins = locked(&self.logins);
        logins.retain(|_, known| now.duration_since(known.at) < LATELY);
        let slot = (key.clone(), user.to_owned());
        if logins.len() < WRITTEN_AT_MOST || logins.contains_key(&slot) {
            logins.insert(slot, WrittenLogin { login: login.clone(), uid: uid.to_owned(), at: now });
        }
    }

    /// A user's login with what somebody has taken out of it since it was written lately. Made anew each time it would be another password each time, and
    /// nobody would notice the fight.
    pub(super) fn login_as_written(
        &self,
        key: &Key,
        user: &str,
        uid: &str,
        live: RotatedLogin,
        now: Timestamp,
    ) -> RotatedLogin {
        let mut logins = locked(&self.logins);
        let slot = (key.clone(), user.to_owned());
        let Some(known) = logins.get_mut(&slot) else { return live };
        if known.uid != uid || now.duration_since(known.at) >= LATELY {
            logins.remove(&slot);
            return live;
        }
        if live.lacks(&known.login) {
            known.at = now;
        }
        live.with_what_is_missing(&known.login)
    }

    /// Whose logins there may be in copies in other namespaces; `None`: nobody knows.
    pub(super) fn users_elsewhere(&self, key: &Key) -> Option<BTreeSet<String>> {
        locked(&self.users_elsewhere).get(key).cloned()
    }

    /// These they are.
    pub(super) fn has_users_elsewhere(&self, key: &Key, users: Option<BTreeSet<String>>) {
        let mut all = locked(&self.users_elsewhere);
        match users {
            Some(users) => _ = all.insert(key.clone(), users),
            None => _ = all.remove(key),
        }
    }

    /// Forgets a registry that is gone.
    fn forget(&self, key: &Key) {
        locked(&self.pods).remove(key);
        locked(&self.users_elsewhere).remove(key);
        locked(&self.logins).retain(|(of, _), _| of != key);
        locked(&self.written).retain(|(of, _), _| of != key);
        locked(&self.untold).retain(|(of, _), _| of != key);
        locked(&self.jobs).remove(key);
        locked(&self.overtaken).remove(key);
        locked(&self.proving).remove(key);
        locked(&self.made).retain(|(of, _), _| of != key);
        locked(&self.copies).remove(key);
        locked(&self.failing).remove(key);
        locked(&self.tokens).remove(key);
        locked(&self.lacking).retain(|(_, of)| of != key);
    }

    /// A pod of this registry changed.
    pub fn pods_changed(&self, key: &Key) {
        locked(&self.pods).remove(key);
    }

    /// Pods may have come and gone unseen: returns the registries of this scope whose pods were known.
    pub fn forget_pods(&self, scope: &Scope) -> Vec<Key> {
        let mut known = locked(&self.pods);
        let (forgotten, kept) =
            std::mem::take(&mut *known).into_iter().partition(|(key, _)| scope.covers(&key.namespace));
        *known = kept;
        BTreeMap::into_keys(forgotten).collect()
    }
}

/// Name of the pod and of its registry, if it may still write to this claim although `registry` is about to mount it.
fn still_mounts(pod: &Pod, registry: &str, claim: &str, is_shared: bool) -> Option<(String, String)> {
    let owner = pod.metadata.labels.as_ref()?.get(labels::REGISTRY)?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    // One of its own that stays was left behind when its Deployment was removed: the next one takes it over.
    let is_in_the_way = owner != registry || !is_shared && pod.metadata.deletion_timestamp.is_some();
    if !is_in_the_way || matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let volumes = pod.spec.as_ref()?.volumes.iter().flatten();
    let mut claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims
        .any(|mounted| mounted.claim_name == claim)
        .then(|| (pod.metadata.name.clone().unwrap_or_default(), owner.clone()))
}

/// The objects that a registry refers to.
fn referred(key: &Key, registry: &PrivateRegistry) -> BTreeSet<Reference> {
    let at = |kind: &'static str, name: String| (kind, key.namespace.to_string(), name);
    let elsewhere = observe::elsewhere(registry).map(|(namespace, name)| ("Secret", namespace, name));
    let secrets = observe::secrets(registry).into_iter().map(|name| at("Secret", name)).chain(elsewhere);
    let trust = registry.spec.trust.as_ref();
    let has_bundles = trust.is_some_and(|trust| trust.namespaces.is_some());
    let namespaces = (has_bundles || model::has_login_copies(registry)).then(|| any(NAMESPACE));
    let nodes = trust.and_then(|trust| trust.nodes.as_ref()).into_iter();
    let nodes = nodes.flat_map(|_| written_addresses(registry).into_iter().map(host_of_a_node).chain([any(REPORT)]));
    let routed = routed_hosts(&registry.spec).iter().cloned().map(routed_host);
    let secrets = secrets.chain(namespaces).chain(nodes).chain(routed);
    secrets.chain(observe::claim(registry).map(|name| at(CLAIM, name.to_owned()))).collect()
}

/// Who may want a claim that `key` has, its own or one that it names: whoever names it, too, and whose own it would be.
fn rivals(references: &References, key: &Key) -> BTreeSet<Key> {
    let data = Child::Data.suffix();
    let own = (CLAIM, key.namespace.to_string(), format!("{}{data}", key.name));
    let claims = references.of(key).into_iter().filter(|(kind, ..)| *kind == CLAIM).chain([own]);
    let wanting = claims.flat_map(|(kind, namespace, claim)| {
        let owner = claim.strip_suffix(data).map(|owner| Key::new(namespace.as_str(), owner));
        references.to(kind, &namespace, &claim).into_iter().chain(owner)
    });
    wanting.filter(|rival| rival != key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_pods_that_is_overtaken_by_a_change_is_not_remembered() {
        let (recall, key) = (Recall::default(), Key::new("n", "team-a"));
        assert_eq!(recall.pods_of(&key), None);
        recall.learn_pods(&key, Vec::new());
        assert_eq!(recall.pods_of(&key), Some(Vec::new()));

        recall.pods_changed(&key);
        assert_eq!(recall.pods_of(&key), None);
        recall.pods_changed(&key);
        recall.learn_pods(&key, Vec::new());
        assert_eq!(recall.pods_of(&key), None, "what was listed may be from before the change");
    }

    #[test]
    fn who_may_still_write_to_a_claim_is_told_from_who_does_not() {
        let pod = |registry: &str, claim: &str, phase: &str, deleted: bool| {
            let deleted = deleted.then_some("2026-11-22T00:00:00Z");
            let pod = serde_json::json!({
                "metadata": {"name": "p", "labels": {"privateregistry.dev/registry": registry}, "deletionTimestamp": deleted},
                "spec": {"containers": [], "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]},
                "status": {"phase": phase},
            });
            [false, true].map(|is_shared| {
                still_mounts(&serde_json::from_value(pod.clone()).unwrap(), "new", "images", is_shared)
            })
        };
        let former = Some(("p".to_owned(), "former".to_owned()));
        let former = || [former.clone(), former.clone()];
        assert_eq!(pod("former", "images", "Running", false), former());
        assert_eq!(pod("former", "images", "Running", true), former());
        assert_eq!(pod("former", "images", "Failed", false), [None, None]);
        assert_eq!(pod("former", "others", "Running", false), [None, None]);
        assert_eq!(pod("new", "images", "Running", false), [None, None], "its own that stays is taken over");
        let leaving = Some(("p".to_owned(), "new".to_owned()));
        assert_eq!(pod("new", "images", "Running", true), [leaving, None], "its own that goes still writes");
    }

    #[test]
    fn random_content_that_others_change_is_taken_as_it_was_written_for_a_while() {
        let (recall, key) = (Recall::default(), Key::new("n", "team-a"));
        let minute = |minute: i64| Timestamp::from_second(60 * minute).unwrap();
        let secret = |uid: &str, leaf: &str| {
            Live::new(
                crate::desired::kinds::SECRET,
                serde_json::json!({"metadata": {"uid": uid}, "data": {"tls.crt": leaf}}),
            )
        };
        let found = |uid: &str, now: i64| {
            let live = recall.as_written(&key, Child::Tls, secret(uid, "theirs"), minute(now));
            live.value()["data"]["tls.crt"].as_str().unwrap().to_owned()
        };
        assert_eq!(found("u", 0), "theirs", "nothing was written");
        recall.wrote(&key, Child::Tls, secret("u", "ours"), minute(0));
        assert_eq!(found("u", 19), "ours");
        assert_eq!(found("u", 38), "ours", "it is still missed");
        assert_eq!(found("u", 58), "theirs", "that was long ago");
        recall.wrote(&key, Child::Tls, secret("u", "ours"), minute(60));
        assert_eq!(found("another", 61), "theirs", "another object");
        assert_eq!(found("u", 61), "theirs", "which has taken its place");
    }

    #[test]
    fn what_is_taken_out_of_a_login_is_missed_for_a_while_and_nothing_is_put_into_another_one() {
        let (recall, key) = (Recall::default(), Key::new("n", "team-a"));
        let minute = |minute: i64| Timestamp::from_second(60 * minute).unwrap();
        let login = |password: &str, next: Option<&str>| RotatedLogin {
            next: next.map(|next| next.to_owned().into()),
            ..RotatedLogin::first("robot", password.to_owned().into(), minute(0))
        };
        let next = |uid: &str, password: &str, now: i64| {
            let found = recall.login_as_written(&key, "robot", uid, login(password, None), minute(now));
            found.next.map(|next| next.expose().clone())
        };
        assert_eq!(next("u", "a", 0), None, "nothing was written");
        recall.wrote_login(&key, "robot", "u", &login("a", Some("b")), minute(0));
        let b = Some("b".to_owned());
        assert_eq!(next("u", "a", 19), b);
        assert_eq!(next("u", "mine", 19), None, "somebody has put another password there");
        assert_eq!(next("u", "a", 38), b, "it is still missed");
        assert_eq!(next("u", "a", 58), None, "that was long ago");
        recall.wrote_login(&key, "robot", "u", &login("a", Some("b")), minute(60));
        assert_eq!(next("another", "a", 61), None, "another object");
    }

    fn registry(spec: &serde_json::Value) -> PrivateRegistry {
        let metadata = serde_json::json!({"name": "team-a", "namespace": "n"});
        serde_json::from_value(serde_json::json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": metadata, "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn who_waits_for_a_claim_is_known_whether_it_names_it_or_owns_it() {
        let (references, foo, bar) = (References::default(), Key::new("n", "foo"), Key::new("n", "bar"));
        let named = serde_json::json!({"storage": {"existingClaim": {"name": "bar-data"}}});
        references.refer(&foo, referred(&foo, &registry(&named)));
        references.refer(&bar, referred(&bar, &registry(&serde_json::json!({}))));
        assert_eq!(rivals(&references, &foo), BTreeSet::from([bar.clone()]));
        assert_eq!(rivals(&references, &bar), BTreeSet::from([foo]));
        assert_eq!(rivals(&references, &Key::new("other", "bar")), BTreeSet::new());
    }
}
