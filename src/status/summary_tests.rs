//! What a user reads in each state.

use serde_json::json;

use super::*;
use crate::api::{UserSource, UserSourceKind};
use crate::model::{Observed, Settings, resolve};

fn registry(spec: &Value) -> Resolved {
    let registry = serde_json::from_value(json!({
        "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
        "metadata": {"name": "team-a", "namespace": "registries", "generation": 7}, "spec": spec,
    }));
    resolve(&registry.unwrap(), &Observed::default(), &Settings::default()).unwrap()
}

fn service() -> Value {
    json!({"spec": {"clusterIPs": ["10.0.0.7"]}})
}

fn claim(wanted: &str, have: &str) -> Value {
    json!({"spec": {"resources": {"requests": {"storage": wanted}}}, "status": {"phase": "Bound", "capacity": {"storage": have}}})
}

/// A registry in which all is well.
#[derive(Clone)]
struct Case {
    registry: Resolved,
    service: Value,
    claim: Option<Value>,
    address: Option<Problem>,
    route: Option<Route>,
    refusal: Option<String>,
    running: Option<Problem>,
    certificate: Certificate,
    logins: Logins,
    copies: Option<Reach>,
    workload: Option<Workload>,
    answer: Answer,
}

impl Case {
    fn of(spec: &Value) -> Self {
        let source = UserSource {
            kind: UserSourceKind::GeneratedAdmin,
            name: "team-a-admin".to_owned(),
            key: "password".to_owned(),
        };
        let user = UserStatus { name: "admin".to_owned(), source, changed_at: None, rotation: None };
        Self {
            registry: registry(spec),
            service: service(),
            claim: Some(claim("10Gi", "10Gi")),
            address: None,
            route: None,
            refusal: None,
            running: None,
            certificate: Certificate {
                served: Some(CertificateStatus { not_after: "2030-01-01T00:00:00Z".to_owned(), ..Default::default() }),
                ..Certificate::default()
            },
            logins: Logins { users: vec![user], ..Logins::default() },
            copies: None,
            workload: Some(Workload::Running { ready: 1 }),
            answer: Answer::Good,
        }
    }

    fn status(&self, before: &PrivateRegistryStatus, now: Timestamp) -> PrivateRegistryStatus {
        let findings = Findings {
            registry: &self.registry,
            holds: None,
            contested: None,
            service: Some(&self.service),
            address: self.address.clone(),
            route: self.route.clone(),
            claim: self.claim.as_ref(),
            storage: self.refusal.clone().map(|why| Problem::stuck("ClaimRefused", why)),
            certificate: self.certificate.clone(),
            logins: self.logins.clone(),
            heard: Heard::Nothing,
            copies: self.copies.clone(),
            trust: Trust::default(),
            workload: self.workload.clone(),
            has_ended: false,
            is_fleeting: false,
            running: self.running.clone(),
            answer: self.answer.clone(),
        };
        summarise(&findings, before, now)
    }

    /// Ready, Reconciling, Stalled, and the reason of Ready.
    fn verdict(&self) -> (String, String, String, String) {
        let status = self.status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
        verdict_of(&status)
    }
}

fn verdict_of(status: &PrivateRegistryStatus) -> (String, String, String, String) {
    let say = |kind: &str| condition_of(status, kind).status.clone();
    (say("Ready"), say("Reconciling"), say("Stalled"), condition_of(status, "Ready").reason.clone())
}

fn condition_of<'a>(status: &'a PrivateRegistryStatus, kind: &str) -> &'a Condition {
    status.conditions.iter().find(|condition| condition.type_ == kind).unwrap()
}

fn said(ready: &str, reconciling: &str, stalled: &str, reason: &str) -> (String, String, String, String) {
    (ready.to_owned(), reconciling.to_owned(), stalled.to_owned(), reason.to_owned())
}

fn waiting() -> Problem {
    Problem::waiting("WaitingForSecret", "Secret x does not exist; create it")
}

#[test]
fn each_state_has_its_verdict() {
    let case = Case::of;
    let healthy = || case(&json!({}));
    assert_eq!(healthy().verdict(), said("True", "False", "False", "Settled"));

    let progressing = Case { workload: Some(Workload::Progressing { message: String::new(), ready: 0 }), ..healthy() };
    assert_eq!(progressing.verdict(), said("False", "True", "False", "Progressing"));

    let stuck = Workload::Stuck { reason: "ImageNotPulled".to_owned(), message: String::new(), ready: 0 };
    assert_eq!(Case { workload: Some(stuck), ..healthy() }.verdict(), said("False", "True", "False", "ImageNotPulled"));

    let homeless = Workload::Stuck { reason: "Unschedulable".to_owned(), message: "no node".to_owned(), ready: 0 };
    let homeless = Case { workload: Some(homeless), claim: Some(json!({"status": {"phase": "Pending"}})), ..healthy() };
    let told = homeless.status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
    let message = &condition_of(&told, "Ready").message;
    assert!(message.starts_with("no node; ") && message.contains("kubectl describe pvc team-a-data"), "{message}");

    let suspended = Workload::Stopped { reason: "Suspended", message: String::new() };
    let suspended = Case { workload: Some(suspended), answer: Answer::NotAsked, ..healthy() };
    assert_eq!(suspended.verdict(), said("True", "False", "False", "Suspended"));

    let failed = Workload::Failed { reason: "MaxRetriesExceeded", message: String::new() };
    assert_eq!(
        Case { workload: Some(failed), ..healthy() }.verdict(),
        said("False", "False", "True", "MaxRetriesExceeded")
    );

    let silent = Case { answer: Answer::Bad("500".to_owned()), ..healthy() };
    assert_eq!(silent.verdict(), said("False", "True", "False", "NotAnswering"));

    // Whether the operator can reach it says nothing about others.
    let apart = Case { answer: Answer::Unreachable(String::new()), ..healthy() };
    assert_eq!(apart.verdict(), said("True", "False", "False", "Settled"));

    let growing = Case { claim: Some(claim("20Gi", "10Gi")), ..healthy() };
    assert_eq!(growing.verdict(), said("False", "True", "False", "Resizing"));

    let refused = Case { refusal: Some("no expansion".to_owned()), ..healthy() };
    assert_eq!(refused.verdict(), said("False", "False", "True", "ClaimRefused"));

    let lonely = Case { logins: Logins { problems: vec![waiting()], ..Logins::default() }, ..healthy() };
    assert_eq!(lonely.verdict(), said("False", "True", "False", "WaitingForSecret"));

    let broken = Problem::stuck("PasswordTooLong", "");
    let logins = Logins { problems: vec![waiting(), broken], ..Logins::default() };
    assert_eq!(Case { logins, ..healthy() }.verdict(), said("False", "False", "True", "PasswordTooLong"));
}

#[test]
fn a_fault_of_one_part_is_told_by_its_own_condition_and_the_others_say_how_they_are() {
    let refused = Problem::stuck("Refused", "node port 30000 is taken");
    let case = Case { address: Some(refused), ..Case::of(&json!({})) };
    assert_eq!(case.verdict(), said("False", "False", "True", "Refused"));
    let told = case.status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
    let say = |kind: &str| condition_of(&told, kind).status.clone();
    assert_eq!(say("AddressReady"), "False");
    for other in ["Available", "CertificateReady", "UsersReady", "StorageReady"] {
        assert_eq!(say(other), "True", "{other}");
    }

    // What is being tried again never counts as stalled, and hides nothing that is.
    let unread = Problem::retrying("ReadFailed", "timeout");
    let case = Case { running: Some(unread.clone()), ..Case::of(&json!({})) };
    assert_eq!(case.verdict(), said("False", "True", "False", "ReadFailed"));
    let both = Case { address: Some(unread), running: Some(Problem::stuck("InvalidManifest", "")), ..case };
    assert_eq!(both.verdict(), said("False", "False", "True", "InvalidManifest"));
}

#[test]
fn a_route_that_is_refused_is_tried_again_and_one_that_nobody_takes_keeps_nothing_back() {
    let refused = Route::failed(Problem::retrying("RouteRefused", "no listener"));
    let case = Case { route: Some(refused), ..Case::of(&json!({})) };
    assert_eq!(case.verdict(), said("False", "True", "False", "RouteRefused"));
    let told = case.status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
    assert_eq!(condition_of(&told, "RouteReady").status, "False");
    assert_eq!(condition_of(&told, "Available").status, "True");

    let open = Route::said(Truth::Unknown, "NotTaken", "nobody yet");
    let case = Case { route: Some(open), ..Case::of(&json!({})) };
    assert_eq!(case.verdict(), said("True", "False", "False", "Settled"));
    let told = case.status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
    assert_eq!(condition_of(&told, "RouteReady").status, "Unknown");
    let none = Case::of(&json!({})).status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
    assert!(none.conditions.iter().all(|condition| condition.type_ != "RouteReady"));
}

#[test]
fn of_several_problems_the_first_is_told_and_what_waits_comes_last() {
    let of = |reason: &str| Problem::stuck(reason, reason);
    let told = |problems: Vec<Problem>| {
        let case = Case { logins: Logins { problems, ..Logins::default() }, ..Case::of(&json!({})) };
        let status = case.status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
        ["Ready", "Stalled", "UsersReady"].map(|kind| condition_of(&status, kind).reason.clone())
    };
    assert_eq!(told(vec![of("PasswordEmpty"), of("PasswordTooLong")]), ["PasswordEmpty"; 3]);
    assert_eq!(told(vec![waiting(), of("PasswordEmpty"), of("PasswordTooLong")]), ["PasswordEmpty"; 3]);
    let other = Problem { reason: "WaitingForAnother".to_owned(), ..waiting() };
    assert_eq!(told(vec![waiting(), other]), ["WaitingForSecret"; 3]);
}

#[test]
fn an_image_that_does_not_tell_its_version_is_marked() {
    let message = |image: &str| {
        let status =
            Case::of(&json!({"image": image})).status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(verdict_of(&status), said("True", "False", "False", "Settled"));
        condition_of(&status, "Ready").message.clone()
    };
    for image in ["mirror.example.com/registry:stable", "registry@sha256:00"] {
        assert!(message(image).contains(&format!("image {image} is Unverified")), "{}", message(image));
    }
    assert!(!message("registry:3.1.1").contains("Unverified"));
}

#[test]
fn what_ran_before_is_available_as_long_as_it_answers_although_what_is_wanted_cannot_be_made() {
    let before = Case::of(&json!({})).status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
    let mut case = Case::of(&json!({}));
    case.certificate = Certificate { problem: Some(waiting()), ..Certificate::default() };
    for (ready, answer, available) in [
        (1, answer_of(&before), ("True", "Answering")),
        (0, answer_of(&before), ("False", "NotRunning")),
        (1, answer_of(&PrivateRegistryStatus::default()), ("Unknown", "Progressing")),
    ] {
        let case = Case { workload: Some(Workload::Former { ready }), answer, ..case.clone() };
        let status = case.status(&before, Timestamp::UNIX_EPOCH);
        assert_eq!(verdict_of(&status), said("False", "True", "False", "WaitingForSecret"));
        let told = condition_of(&status, "Available");
        assert_eq!((told.status.as_str(), told.reason.as_str()), available);
        assert_eq!(status.ready_replicas, Some(ready));
    }
    for bad in [Answer::Bad("500".to_owned()), Answer::Unreachable("no way".to_owned())] {
        case.workload = Some(Workload::Running { ready: 1 });
        case.answer = bad.clone();
        assert_eq!(answer_of(&case.status(&before, Timestamp::UNIX_EPOCH)), bad);
    }
}

#[test]
fn a_missing_object_stalls_only_after_five_minutes() {
    let case = Case { logins: Logins { problems: vec![waiting()], ..Logins::default() }, ..Case::of(&json!({})) };
    let at = |minutes: i64| Timestamp::from_second(minutes * 60).unwrap();
    let first = case.status(&PrivateRegistryStatus::default(), at(0));
    assert_eq!(verdict_of(&case.status(&first, at(4))), said("False", "True", "False", "WaitingForSecret"));
    assert_eq!(verdict_of(&case.status(&first, at(5))), said("False", "False", "True", "WaitingForSecret"));
}

#[test]
fn the_wait_begins_with_the_missing_object_whatever_was_wrong_before() {
    let at = |minutes: i64| Timestamp::from_second(minutes * 60).unwrap();
    let healthy = Case::of(&json!({}));
    let crashing = Workload::Stuck { reason: "CrashLooping".to_owned(), message: String::new(), ready: 0 };
    let crashing = Case { workload: Some(crashing), ..healthy.clone() };
    let lonely = |message: &str| {
        let problem = Problem { message: message.to_owned(), ..waiting() };
        Case { logins: Logins { problems: vec![problem], ..Logins::default() }, ..healthy.clone() }
    };
    let missing = Blocked { reason: "WaitingForClaim", message: "create it".to_owned(), waiting: true };
    let looked = |status: &PrivateRegistryStatus, minutes| lonely("create x").status(status, at(minutes));
    let stalled = |status: &PrivateRegistryStatus| condition_of(status, "Stalled").status == "True";

    let crashed = crashing.status(&PrivateRegistryStatus::default(), at(0));
    let long_ago = blocked(&missing, &PrivateRegistryStatus::default(), 7, at(0));
    for before in [crashed, blocked(&missing, &long_ago, 7, at(6))] {
        let first = looked(&before, 7);
        let second = looked(&first, 11);
        assert!(!stalled(&first) && !stalled(&second), "{second:#?}");
        assert_eq!(second, first, "a quiet pass writes nothing");
        let third = looked(&second, 12);
        assert!(stalled(&third));
        assert!(!stalled(&lonely("create y").status(&third, at(13))), "another object is another wait");
        assert_eq!(healthy.status(&third, at(13)).waiting_since, None);
        assert_eq!(failed("ReadFailed", "", false, &third, 7, at(13)).waiting_since, None);
        assert!(!stalled(&blocked(&missing, &third, 7, at(13))));
    }
    assert!(stalled(&blocked(&missing, &long_ago, 7, at(5))));
    assert!(!stalled(&blocked(&missing, &long_ago, 7, at(4))));
}

#[test]
fn the_same_findings_give_the_same_status() {
    // A status that changes by itself would be written, and start a pass, for ever.
    let case = Case::of(&json!({}));
    let at = |second| Timestamp::from_second(second).unwrap();
    let first = case.status(&PrivateRegistryStatus::default(), at(1));
    assert_eq!(case.status(&first, at(1000)), first);
}

#[test]
fn a_paused_registry_keeps_what_was_known_of_it() {
    let case = Case::of(&json!({}));
    let settled = case.status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
    let paused = paused(&settled, 8, Timestamp::UNIX_EPOCH);
    assert_eq!(verdict_of(&paused), said("False", "False", "False", "Paused"));
    assert_eq!(paused.certificate, settled.certificate);
    assert_eq!(paused.observed_generation, Some(8));
    assert_eq!(condition_of(&paused, "Available"), condition_of(&settled, "Available"));
}

#[test]
fn the_first_address_is_the_one_that_reaches_furthest() {
    let addresses = |spec: Value, service: Value| {
        let found = super::addresses(&registry(&spec), &service);
        found.into_iter().map(|found| found.address).collect::<Vec<_>>()
    };
    let names = ["team-a.registries.svc:5000", "team-a.registries.svc.cluster.local:5000"];
    assert_eq!(addresses(json!({}), service()), ["10.0.0.7:5000", names[0], names[1]]);
    let balanced =
        json!({"spec": {"clusterIPs": ["10.0.0.7"]}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}});
    let spec = json!({"addresses": ["registry.example.com"], "service": {"type": "LoadBalancer", "port": 443}});
    let found = addresses(spec, balanced);
    assert_eq!(found[..3], ["registry.example.com", "192.0.2.1", "10.0.0.7"]);
    assert_eq!(addresses(json!({}), json!({"spec": {"clusterIPs": ["fd00::7"]}}))[0], "[fd00::7]:5000");
}

#[test]
fn what_the_manifest_writes_is_taken_as_it_stands() {
    let service =
        json!({"spec": {"clusterIPs": ["10.0.0.7", "fd00::7"], "ports": [{"port": 5000, "nodePort": 30500}]}});
    let given = ["registry.example.com", "192.0.2.10:30500", "[2001:DB8::1]:5000"];
    for (tls, cluster) in [(json!({}), "10.0.0.7:5000"), (json!({"none": {}}), "10.0.0.7:5000")] {
        let registry = registry(&json!({"addresses": given, "tls": tls, "service": {"type": "NodePort"}}));
        let found = super::addresses(&registry, &service);
        let texts: Vec<_> = found.iter().map(|found| found.address.as_str()).collect();
        assert_eq!(texts[..3], given);
        assert_eq!(texts[3..5], [cluster, "[fd00::7]:5000"]);
        let scopes: Vec<_> = found.iter().map(|found| found.scope).take(5).collect();
        use AddressScope::{External, Node};
        assert_eq!(scopes, [External, External, External, Node, Node]);
        // An Ingress on 443 stands before the first one: whoever pulls from it looks for a login without a port.
        assert!(image_hosts(&registry, &service).contains("registry.example.com"));
        assert!(!image_hosts(&registry, &service).contains("registry.example.com:5000"));
    }
}

#[test]
fn logins_are_for_every_name_that_an_image_may_begin_with() {
    let hosts = |port: u16| image_hosts(&registry(&json!({"service": {"port": port}})), &service());
    let short = ["team-a:5000", "team-a.registries:5000", "team-a.registries.svc:5000"];
    assert!(short.iter().all(|host| hosts(5000).contains(*host)), "{:?}", hosts(5000));
    assert!(hosts(443).contains("team-a.registries"), "{:?}", hosts(443));
    assert!(!hosts(443).contains("team-a"), "team-a/app is a path of Docker Hub");
}

#[test]
fn ephemeral_storage_and_open_doors_are_said_aloud() {
    let mut case = Case::of(&json!({"storage": {"emptyDir": {}}, "tls": {"none": {}}, "auth": {"none": {}}}));
    case.claim = None;
    let status = case.status(&PrivateRegistryStatus::default(), Timestamp::UNIX_EPOCH);
    assert_eq!(condition_of(&status, "StorageReady").reason, "Ephemeral");
    assert_eq!(condition_of(&status, "CertificateReady").reason, "SwitchedOff");
    assert_eq!(condition_of(&status, "UsersReady").reason, "SwitchedOff");
    assert_eq!(condition_of(&status, "Ready").status, "True");
}

#[test]
fn what_others_keep_out_of_their_namespaces_makes_no_registry_ill_and_what_its_manifest_says_wrong_does() {
    let mut case = Case::of(&json!({}));
    let missing = vec![("shop".to_owned(), "is not ours".to_owned())];
    case.copies = Some(Reach { wanted: 2, lacking: 1, missing, ..Reach::default() });
    let status = case.status(&PrivateRegistryStatus::default(), "2026-01-01T00:00:00Z".parse().unwrap());
    assert!(status.says(condition::READY, "True") && status.says(condition::PULL_SECRETS_COPIED, "False"));
    assert_eq!(status.pull_secrets.map(|copies| (copies.wanted, copies.copied)), Some((2, 1)));

    let fault = Some(Problem::stuck("InvalidManifest", "spec.pullSecrets[].namespaces.selector: no"));
    case.copies = Some(Reach { fault, ..Reach::default() });
    assert_eq!(case.verdict().3, "InvalidManifest");
    case.copies = None;
    let status = case.status(&PrivateRegistryStatus::default(), "2026-01-01T00:00:00Z".parse().unwrap());
    assert!(status.condition(condition::PULL_SECRETS_COPIED).is_none() && status.pull_secrets.is_none());
}

#[test]
fn a_login_for_other_namespaces_names_no_host_that_is_another_one_there() {
    let hosts = |spec: Value| hosts_of_others(&registry(&spec), &service());
    let own = "team-a:5000".to_owned();
    let short = json!({"addresses": ["registry.example.com"]});
    assert!(image_hosts(&registry(&short), &service()).contains(&own));
    let others = hosts(short);
    assert!(!others.contains(&own), "{others:?}");
    for host in ["registry.example.com", "10.0.0.7:5000", "team-a.registries:5000", "team-a.registries.svc:5000"] {
        assert!(others.contains(host), "{host}: {others:?}");
    }
    assert!(
        hosts(json!({"addresses": ["team-a:5000"]})).contains(&own),
        "the manifest itself says that it is one everywhere"
    );
}
