//! From what one pass found to what a user reads. Pure: the clock is an argument.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::Value;

use super::identities::{self, Heard};
use super::merge::{self, Finding, Truth, merge};
use super::route::Route;
use super::trust::{Reach, Trust};
use super::workload::Workload;
use crate::api::{
    Address, AddressScope, CertificateStatus, PrivateRegistryStatus, StorageStatus, UserStatus, condition, reason,
};
use crate::model::image::Version;
use crate::model::{Blocked, Child, HostPort, Resolved, Storage};

/// How long a missing object is waited for before the registry counts as stalled: Flux fails a whole delivery on `Stalled`.
pub const PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// Users that status lists by name.
const LISTED_USERS: usize = 100;

/// Something that a user must put right, or that will arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One CamelCase word.
    pub reason: String,
    /// Names the object and the next action.
    pub message: String,
    /// How it may end.
    pub outlook: Outlook,
}

/// How something that stands in the way may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outlook {
    /// Only by a change of the user: the registry is stalled at once.
    Stuck,
    /// By itself, when a missing object arrives: stalled after [`PATIENCE`].
    Waiting,
    /// By trying again: never stalled.
    Retrying,
}

impl Problem {
    /// Only a change of the user ends it.
    pub fn stuck(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into(), outlook: Outlook::Stuck }
    }

    /// A missing object may arrive.
    pub fn waiting(reason: &str, message: impl Into<String>) -> Self {
        Self { outlook: Outlook::Waiting, ..Self::stuck(reason, message) }
    }

    /// Trying again may help.
    pub fn retrying(reason: &str, message: impl Into<String>) -> Self {
        Self { outlook: Outlook::Retrying, ..Self::stuck(reason, message) }
    }

    /// What the manifest says and cannot be followed.
    #[must_use]
    pub fn of(blocked: &Blocked) -> Self {
        let outlook = if blocked.waiting { Outlook::Waiting } else { Outlook::Stuck };
        Self { outlook, ..Self::stuck(blocked.reason, blocked.message.clone()) }
    }
}

/// The certificate, as the pass found or made it.
#[derive(Debug, Clone, Default)]
pub struct Certificate {
    /// What is served; `None` without TLS, or while there is none.
    pub served: Option<CertificateStatus>,
    /// The request for renewal that was handled last.
    pub handled_request: Option<String>,
    /// What is wrong with the one that the manifest asks for.
    pub problem: Option<Problem>,
    /// What a user should know about it.
    pub note: Option<String>,
}

/// Who can log in, as the pass found or made it.
#[derive(Debug, Clone, Default)]
pub struct Logins {
    /// Users in the table.
    pub users: Vec<UserStatus>,
    /// What is wrong with others.
    pub problems: Vec<Problem>,
    /// What a user should know about them.
    pub note: Option<String>,
    /// Why running pods were not told of a change.
    pub untold: Option<String>,
}

impl Logins {
    /// What was reported before, when this could not be found out anew.
    #[must_use]
    pub fn as_before(before: &PrivateRegistryStatus, problem: Problem) -> Self {
        Self { users: before.users.clone(), problems: vec![problem], ..Self::default() }
    }
}

/// How the registry answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// As it should.
    Good,
    /// Not as it should.
    Bad(String),
    /// The operator could not reach it.
    Unreachable(String),
    /// Nobody asked, because nothing runs, or it has not answered yet.
    NotAsked,
}

/// How the registry answered when it was asked last, as far as its status tells.
#[must_use]
pub fn answer_of(before: &PrivateRegistryStatus) -> Answer {
    let told = before.condition(condition::AVAILABLE);
    match told.map(|told| (told.reason.as_str(), told.message.clone())) {
        Some((reason::ANSWERING, _)) => Answer::Good,
        Some((reason::NOT_ANSWERING, how)) => Answer::Bad(how),
        Some((reason::UNREACHABLE, why)) => Answer::Unreachable(why),
        _ => Answer::NotAsked,
    }
}

/// Everything that one pass found about a registry that can be built.
#[derive(Debug)]
pub struct Findings<'a> {
    /// The registry.
    pub registry: &'a Resolved,
    /// What keeps children from outliving the registry that are to.
    pub holds: Option<Problem>,
    /// What others change back each time.
    pub contested: Option<Problem>,
    /// The live Service, if there is one.
    pub service: Option<&'a Value>,
    /// What keeps the Service from being as wanted.
    pub address: Option<Problem>,
    /// What leads clients outside of the cluster to it; `None`: the manifest asks for nothing of that.
    pub route: Option<Route>,
    /// The live claim, if there is one.
    pub claim: Option<&'a Value>,
    /// What keeps the claim from being as wanted.
    pub storage: Option<Problem>,
    /// The certificate.
    pub certificate: Certificate,
    /// Who can log in.
    pub logins: Logins,
    /// What its pods say of logins from elsewhere.
    pub heard: Heard,
    /// How far logins have come in other namespaces; `None`: the manifest asks for none.
    pub copies: Option<Reach>,
    /// Who else has been told which authorities to trust.
    pub trust: Trust,
    /// How the Deployment or Job is doing; `None`: it could not be made yet.
    pub workload: Option<Workload>,
    /// Whether it has ended, and is not to be started again although somebody else lets Kubernetes remove it.
    pub has_ended: bool,
    /// Whether its Job is removed when it has ended, so that nothing else tells of it.
    pub is_fleeting: bool,
    /// What keeps it from being as wanted.
    pub running: Option<Problem>,
    /// How the registry answered.
    pub answer: Answer,
}

impl Findings<'_> {
    /// Everything that stands in the way, in the order of the parts.
    fn problems(&self) -> impl Iterator<Item = &Problem> {
        let early = [&self.holds, &self.address, &self.storage, &self.certificate.problem];
        let route = self.route.iter().filter_map(|route| route.problem.as_ref());
        // What others do in their namespaces makes no registry ill; what its own manifest says wrong does.
        let copies = self.copies.iter().filter_map(|reach| reach.fault.as_ref());
        let late = self.running.iter().chain(route).chain(copies).chain(self.trust.faults()).chain(&self.contested);
        early.into_iter().flatten().chain(&self.logins.problems).chain(late)
    }

    /// Whether something may end by itself, so that it is looked again before the usual time.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.problems().any(|problem| problem.outlook == Outlook::Waiting)
    }
}

/// The status that follows.
#[must_use]
pub fn summarise(findings: &Findings<'_>, before: &PrivateRegistryStatus, now: Timestamp) -> PrivateRegistryStatus {
    let registry = findings.registry;
    let certificate = certificate_finding(findings);
    let users = users_finding(findings);
    let storage = storage_finding(findings);
    let available = available_finding(findings.workload.as_ref(), &findings.answer);
    let address = address_finding(findings);
    let verdict = verdict(findings, [&certificate, &users, &storage], &available);
    let waiting_since = verdict.waiting.then(|| waiting_since(before, &verdict.reason, &verdict.message, now));
    let stalled = verdict.stalled || waiting_since.is_some_and(|since| is_too_long(since, now));

    let mut said = vec![
        Finding::new(condition::READY, verdict.ready, &verdict.reason, verdict.message.clone()),
        Finding::new(condition::RECONCILING, verdict.reconciling && !stalled, &verdict.reason, verdict.message.clone()),
        Finding::new(condition::STALLED, stalled, &verdict.reason, verdict.message),
        available,
    ];
    said.extend([address, certificate, users, storage]);
    // Who vouches for others may be away: that makes no registry ill, and keeps nobody else out.
    let told = before.condition(condition::IDENTITIES_READY);
    said.extend(identities::finding(registry, &findings.heard, findings.workload.as_ref(), told));
    said.extend(findings.route.as_ref().map(|route| route.finding.clone()));
    said.extend(findings.copies.as_ref().map(Reach::of_logins));
    said.extend(findings.trust.findings());
    let addresses = addresses(registry, findings.service.unwrap_or(&Value::Null));
    PrivateRegistryStatus {
        observed_generation: Some(registry.generation),
        conditions: merge(&before.conditions, said, registry.generation, now),
        waiting_since: waiting_since.map(Time),
        address: addresses.first().map(|first| first.address.clone()),
        addresses,
        certificate: findings.certificate.served.clone(),
        user_count: Some(i32::try_from(findings.logins.users.len()).unwrap_or(i32::MAX)),
        users: findings.logins.users.iter().take(LISTED_USERS).cloned().collect(),
        pull_secrets: findings.copies.as_ref().map(Reach::copies),
        storage: Some(storage_status(findings, before.storage.as_ref())),
        trust: findings.trust.status(),
        image: Some(registry.image.clone()),
        ready_replicas: Some(findings.workload.as_ref().map_or(0, Workload::ready_pods)),
        restart_policy: Some(registry.restart.to_string()),
        started_generation: findings.is_fleeting.then_some(registry.generation),
        ended_generation: findings.has_ended.then_some(registry.generation),
        handled_renew_request: findings.certificate.handled_request.clone(),
        operator: before.operator.clone(),
        operator_asked: before.operator_asked.clone(),
    }
}

/// The status of a registry that cannot be built from its manifest. What was found before stays: it may still be serving.
#[must_use]
pub fn blocked(
    blocked: &Blocked,
    before: &PrivateRegistryStatus,
    generation: i64,
    now: Timestamp,
) -> PrivateRegistryStatus {
    let since = blocked.waiting.then(|| waiting_since(before, blocked.reason, &blocked.message, now));
    let stalled = since.is_none_or(|since| is_too_long(since, now));
    let status = failed(blocked.reason, &blocked.message, stalled, before, generation, now);
    PrivateRegistryStatus { waiting_since: since.map(Time), ..status }
}

/// The status of a registry that the operator was told to leave alone.
#[must_use]
pub fn paused(before: &PrivateRegistryStatus, generation: i64, now: Timestamp) -> PrivateRegistryStatus {
    let message = "the annotation privateregistry.dev/paused is set: nothing is written until it is removed";
    let mut status = failed(reason::PAUSED, message, false, before, generation, now);
    let quiet = Finding::new(condition::RECONCILING, false, reason::PAUSED, message);
    for condition in merge(&before.conditions, vec![quiet], generation, now) {
        replace(&mut status.conditions, condition);
    }
    status
}

/// The status of a registry that was deleted and still runs, because others hold it.
#[must_use]
pub fn going(
    finalizers: &[&str],
    problem: Option<&Problem>,
    before: &PrivateRegistryStatus,
    generation: i64,
    now: Timestamp,
) -> PrivateRegistryStatus {
    let mut message = format!(
        "the registry was deleted and goes when whoever set the finalizer {} has removed it; until then what runs goes on, and of the manifest only \
         changes of users are followed",
        finalizers.join(", ")
    );
    if let Some(problem) = problem {
        message = format!("{message}; {}", problem.message);
    }
    failed(reason::BEING_DELETED, &message, false, before, generation, now)
}

/// The status of a registry that is not as its manifest says, for this one reason. What was found before stays.
#[must_use]
pub fn failed(
    reason: &str,
    message: &str,
    stalled: bool,
    before: &PrivateRegistryStatus,
    generation: i64,
    now: Timestamp,
) -> PrivateRegistryStatus {
    let said = vec![
        Finding::new(condition::READY, false, reason, message),
        Finding::new(condition::RECONCILING, !stalled, reason, message),
        Finding::new(condition::STALLED, stalled, reason, message),
    ];
    let mut status = before.clone();
    status.observed_generation = Some(generation);
    status.waiting_since = None;
    for condition in merge(&before.conditions, said, generation, now) {
        replace(&mut status.conditions, condition);
    }
    if status.condition(condition::AVAILABLE).is_none() {
        let unknown = Finding::new(condition::AVAILABLE, Truth::Unknown, reason, message);
        status.conditions.extend(merge(&[], vec![unknown], generation, now));
    }
    status
}

/// The same status of a registry of which nothing runs, for this reason.
#[must_use]
pub fn stopped(
    mut status: PrivateRegistryStatus,
    reason: &str,
    generation: i64,
    now: Timestamp,
) -> PrivateRegistryStatus {
    let quiet =
        Finding::new(condition::AVAILABLE, false, reason, "stopped; the rest of the manifest cannot be applied");
    for condition in merge(&status.conditions, vec![quiet], generation, now) {
        replace(&mut status.conditions, condition);
    }
    status.ready_replicas = Some(0);
    status
}

fn replace(conditions: &mut Vec<Condition>, condition: Condition) {
    match conditions.iter_mut().find(|found| found.type_ == condition.type_) {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
}

/// What all of it comes to.
struct Verdict {
    ready: bool,
    reason: String,
    message: String,
    reconciling: bool,
    stalled: bool,
    waiting: bool,
}

fn verdict(findings: &Findings<'_>, parts: [&Finding; 3], available: &Finding) -> Verdict {
    let no = |reason: &str, message: &str, reconciling: bool, stalled: bool, waiting: bool| Verdict {
        ready: false,
        reason: reason.to_owned(),
        message: message.to_owned(),
        reconciling,
        stalled,
        waiting,
    };
    if let Some(problem) = foremost(findings.problems()) {
        let is_stuck = problem.outlook == Outlook::Stuck;
        return no(&problem.reason, &problem.message, !is_stuck, is_stuck, problem.outlook == Outlook::Waiting);
    }
    let storage = parts[2];
    match &findings.workload {
        None | Some(Workload::Former { .. }) => {
            return no(reason::PROGRESSING, "the certificate or the users are not there yet", true, false, false);
        }
        // A pod finds no node without its volume, and some volumes are made only for a pod that has found one.
        Some(Workload::Stuck { reason, message, .. }) if storage.status == Truth::False => {
            return no(reason, &format!("{message}; {}", storage.message), true, false, false);
        }
        Some(Workload::Stuck { reason, message, .. }) => return no(reason, message, true, false, false),
        Some(Workload::Failed { reason, message }) => return no(reason, message, false, true, false),
        Some(Workload::Progressing { .. }) if storage.status == Truth::False => {
            return no(&storage.reason, &storage.message, true, false, false);
        }
        Some(Workload::Progressing { message, .. }) => return no(reason::PROGRESSING, message, true, false, false),
        Some(Workload::Stopped { reason, message }) => {
            return Verdict {
                ready: true,
                reason: (*reason).to_owned(),
                message: message.clone(),
                reconciling: false,
                stalled: false,
                waiting: false,
            };
        }
        Some(Workload::Running { .. }) if findings.answer == Answer::NotAsked => {
            return no(reason::PROGRESSING, "it runs, and is being asked whether it answers", true, false, false);
        }
        Some(Workload::Running { .. }) => {}
    }
    if let Some(part) = parts.into_iter().chain([available]).find(|part| part.status == Truth::False) {
        return no(&part.reason, &part.message, true, false, false);
    }
    let address = addresses(findings.registry, findings.service.unwrap_or(&Value::Null))
        .first()
        .map(|first| first.address.clone());
    Verdict {
        ready: true,
        reason: reason::SETTLED.to_owned(),
        message: ["serving at ".to_owned() + &address.unwrap_or_else(|| "its Service".to_owned())]
            .into_iter()
            .chain(image_note(findings.registry))
            .collect::<Vec<_>>()
            .join("; "),
        reconciling: false,
        stalled: false,
        waiting: false,
    }
}

/// The one of several problems that is told: the first that does not end by itself, else the first.
fn foremost<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Option<&'a Problem> {
    problems.into_iter().min_by_key(|problem| problem.outlook)
}

/// Since when the same missing object has been waited for. The time of a condition does not tell: it stays when only the reason changes.
fn waiting_since(before: &PrivateRegistryStatus, reason: &str, message: &str, now: Timestamp) -> Timestamp {
    let is_same = |told: &Condition| told.type_ == condition::READY && told.reason == reason && told.message == message;
    let since = before.waiting_since.as_ref().filter(|_| before.conditions.iter().any(is_same));
    since.map_or_else(|| merge::whole_seconds(now), |since| since.0)
}

fn is_too_long(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since) >= PATIENCE
}

/// Whether it serves, by what runs and how it answered.
#[must_use]
pub fn is_available(workload: Option<&Workload>, answer: &Answer) -> bool {
    available_finding(workload, answer).status == Truth::True
}

fn available_finding(workload: Option<&Workload>, answer: &Answer) -> Finding {
    let say = |status: Truth, reason: &str, message: &str| Finding::new(condition::AVAILABLE, status, reason, message);
    match (workload, answer) {
        (None, _) => {
            say(Truth::False, reason::NOT_RUNNING, "no pod is started before the certificate and the users are there")
        }
        (Some(Workload::Stopped { reason, message }), _) => say(Truth::False, reason, message),
        (Some(Workload::Failed { reason, message }), _) => say(Truth::False, reason, message),
        (Some(workload), _) if workload.ready_pods() == 0 => say(Truth::False, reason::NOT_RUNNING, "no pod is ready"),
        (_, Answer::Good) => say(Truth::True, reason::ANSWERING, "the registry answered as it should"),
        (_, Answer::Bad(how)) => say(Truth::False, reason::NOT_ANSWERING, how),
        (_, Answer::Unreachable(why)) => say(Truth::Unknown, reason::UNREACHABLE, why),
        (_, Answer::NotAsked) => {
            say(Truth::Unknown, reason::PROGRESSING, "a rollout is going on, or the registry has not answered yet")
        }
    }
}

fn address_finding(findings: &Findings<'_>) -> Finding {
    let say = |ok: bool, reason: &str, message: String| Finding::new(condition::ADDRESS_READY, ok, reason, message);
    match (&findings.address, findings.service) {
        (Some(problem), _) => say(false, &problem.reason, problem.message.clone()),
        (None, Some(_)) => {
            say(true, reason::ASSIGNED, format!("Service {} is as the manifest says", findings.registry.name))
        }
        (None, None) => say(false, reason::PROGRESSING, "the Service is not there yet".to_owned()),
    }
}

fn certificate_finding(findings: &Findings<'_>) -> Finding {
    let say = |ok: bool, reason: &str, message: String| Finding::new(condition::CERTIFICATE_READY, ok, reason, message);
    if !findings.registry.has_tls() {
        return say(
            true,
            reason::SWITCHED_OFF,
            "spec.tls.none: plain HTTP; logins cross the network readable".to_owned(),
        );
    }
    let Certificate { served, problem, note, .. } = &findings.certificate;
    match (problem, served) {
        (Some(problem), _) => say(false, &problem.reason, problem.message.clone()),
        (None, Some(served)) => {
            let mut message = format!("valid until {}", served.not_after);
            if let Some(note) = note {
                message = format!("{message}; {note}");
            }
            say(true, reason::VALID, message)
        }
        (None, None) => say(false, reason::PROGRESSING, "the certificate is not there yet".to_owned()),
    }
}

fn users_finding(findings: &Findings<'_>) -> Finding {
    let say = |ok: bool, reason: &str, message: String| Finding::new(condition::USERS_READY, ok, reason, message);
    if matches!(findings.registry.users, crate::model::Users::Everybody) {
        let message = "spec.auth.none: everybody who reaches the registry may push and pull";
        return say(true, reason::SWITCHED_OFF, message.to_owned());
    }
    let Logins { users, problems, note, untold } = &findings.logins;
    if let Some(first) = foremost(problems) {
        let more = if problems.len() > 1 { format!(" (and {} more)", problems.len() - 1) } else { String::new() };
        return say(false, &first.reason, format!("{}{more}", first.message));
    }
    if users.is_empty() {
        return say(
            false,
            "NoUsers",
            "nobody can log in: name users, or remove spec.auth.admin.generate: Never".to_owned(),
        );
    }
    let count = users.len();
    let noun = if count == 1 { "user" } else { "users" };
    let mut message = match untold {
        None => format!(
            "{count} {noun}; running pods accept a change seconds after it was written: their kubelets are told"
        ),
        Some(why) => format!(
            "{count} {noun}; running pods accept the last change within two minutes, because their kubelets could not be told: {why}"
        ),
    };
    if let Some(note) = note {
        message = format!("{message}; {note}");
    }
    say(true, reason::WRITTEN, message)
}

fn storage_finding(findings: &Findings<'_>) -> Finding {
    let say = |ok: bool, reason: &str, message: String| Finding::new(condition::STORAGE_READY, ok, reason, message);
    if let Storage::EmptyDir { .. } = findings.registry.storage {
        let message = "spec.storage.emptyDir: every image is lost when the pod goes";
        return say(true, reason::EPHEMERAL, message.to_owned());
    }
    let name = claim_name(findings.registry);
    if let Some(problem) = &findings.storage {
        return say(false, &problem.reason, problem.message.clone());
    }
    let Some(claim) = findings.claim else {
        return say(false, reason::PENDING, format!("PersistentVolumeClaim {name} does not exist yet"));
    };
    let text = |pointer: &str| claim.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match text("/status/phase") {
        "Bound" => {}
        "Lost" => {
            return say(
                false,
                "VolumeLost",
                format!("PersistentVolumeClaim {name} has lost its volume; restore it from a backup"),
            );
        }
        _ => {
            return say(
                false,
                reason::PENDING,
                format!("PersistentVolumeClaim {name} waits for a volume; see kubectl describe pvc {name}"),
            );
        }
    }
    let (wanted, have) = (text("/spec/resources/requests/storage"), text("/status/capacity/storage"));
    let value = |text: &str| crate::api::Quantity(text.to_owned()).value().unwrap_or(0.0);
    if value(wanted) > value(have) {
        return say(
            false,
            reason::RESIZING,
            format!("PersistentVolumeClaim {name} is growing from {have} to {wanted}; see kubectl describe pvc {name}"),
        );
    }
    say(true, reason::BOUND, format!("PersistentVolumeClaim {name} holds {have}"))
}

fn storage_status(findings: &Findings<'_>, before: Option<&StorageStatus>) -> StorageStatus {
    if let Storage::EmptyDir { limit } = &findings.registry.storage {
        return StorageStatus { requested: limit.clone(), ..StorageStatus::default() };
    }
    let text = |pointer: &str| findings.claim?.pointer(pointer)?.as_str().map(str::to_owned);
    let claim_name = Some(claim_name(findings.registry));
    // What held the images stays known while it cannot be seen, or something else stands in its place.
    let before = before.filter(|before| before.claim_name == claim_name);
    let held = before
        .and_then(|before| before.volume_name.clone())
        .filter(|_| findings.storage.is_some() || findings.claim.is_none());
    StorageStatus {
        claim_name,
        volume_name: held.or_else(|| text("/spec/volumeName")),
        capacity: text("/status/capacity/storage"),
        requested: text("/spec/resources/requests/storage"),
    }
}

/// Name of the claim that the registry's pods mount.
fn claim_name(registry: &Resolved) -> String {
    match &registry.storage {
        Storage::Existing { name, .. } => name.clone(),
        _ => registry.name.child(Child::Data),
    }
}

/// Every address, the best first: those of the manifest as they are written, load balancers, the Service. Nodes do not resolve names of
/// Services, so those are for pods only. They are never read either: who uses a node port writes the addresses of nodes.
#[must_use]
pub fn addresses(registry: &Resolved, service: &Value) -> Vec<Address> {
    let address = |scope, address| Address { scope, address };
    let list = |pointer: &str| service.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();

    let mut found: Vec<_> =
        registry.addresses.iter().map(|given| address(AddressScope::External, given.to_string())).collect();
    for ingress in list("/status/loadBalancer/ingress") {
        let host = ingress["hostname"].as_str().or_else(|| ingress["ip"].as_str());
        found.extend(host.map(|host| address(AddressScope::External, registry.at_the_services_port(host))));
    }
    for cluster_ip in list("/spec/clusterIPs") {
        let ip = cluster_ip.as_str().filter(|ip| *ip != "None");
        found.extend(ip.map(|ip| address(AddressScope::Node, registry.at_the_services_port(ip))));
    }
    let [_, _, name, long] = registry.service_names();
    found.extend([name, long].map(|name| address(AddressScope::Cluster, registry.at_the_services_port(&name))));
    found
}

/// Everything that an image reference of this registry may begin with: the addresses, and the short names of the Service, which the
/// certificate covers too.
#[must_use]
pub fn image_hosts(registry: &Resolved, service: &Value) -> BTreeSet<String> {
    let found = addresses(registry, service).into_iter().map(|found| found.address);
    let short = registry.service_names().into_iter().map(|name| registry.at_the_services_port(&name));
    // Without dot and port it would be a path of Docker Hub.
    found.chain(short.filter(|host| HostPort::parse(host).is_ok())).collect()
}

/// The same for clients in other namespaces. The Service's short name is another one's there, which must not be shown this login; unless the manifest
/// itself names it as an address.
#[must_use]
pub fn hosts_of_others(registry: &Resolved, service: &Value) -> BTreeSet<String> {
    let short = registry.at_the_services_port(registry.name.as_str());
    let is_given = |host: &String| registry.addresses.iter().any(|given| given.to_string() == *host);
    image_hosts(registry, service).into_iter().filter(|host| *host != short || is_given(host)).collect()
}

/// How an image is marked, in the message of `Ready`, whose name does not tell its version.
const UNVERIFIED: &str = "Unverified";

/// What a user should know about the image.
fn image_note(registry: &Resolved) -> Option<String> {
    let image = &registry.image;
    (registry.image_version == Version::Unverified).then(|| {
        format!("image {image} is {UNVERIFIED}: its name does not tell its version, and 3.1.1 or newer is needed")
    })
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
