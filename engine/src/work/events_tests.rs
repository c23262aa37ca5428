use std::sync::Arc;

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::client::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::PROGRAM;

/// Conditions from words: `Ready=False/NotOurs Stalled=True/NotOurs`.
fn conditions(text: &str) -> Vec<Condition> {
    text.split_whitespace()
        .map(|word| {
            let (type_, rest) = word.split_once('=').unwrap();
            let (status, reason) = rest.split_once('/').unwrap();
            Condition {
                type_: type_.into(),
                status: status.into(),
                reason: reason.into(),
                message: format!("about {reason}"),
                observed_generation: Some(1),
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            }
        })
        .collect()
}

#[test]
fn only_turns_are_told() {
    let cases = [
        ("a settled registry", "Ready=True/Ready Stalled=False/Ready", "Ready=True/Ready Stalled=False/Ready", ""),
        (
            "a new registry starts",
            "",
            "Ready=False/Progressing Reconciling=True/Progressing Available=False/Starting",
            "",
        ),
        ("it comes further", "Ready=False/WaitingForVolume", "Ready=False/Progressing", ""),
        ("it becomes ready", "Ready=False/Progressing", "Ready=True/Running", "Normal Running"),
        (
            "a new registry that is ready at once",
            "",
            "Ready=True/Running CertificateReady=True/Valid",
            "Normal Running",
        ),
        ("a new registry that is blocked", "", "Ready=False/NotOurs Stalled=True/NotOurs", "Warning NotOurs"),
        (
            "it becomes blocked: one event, and a warning",
            "Ready=True/Running Stalled=False/Running",
            "Ready=False/NotOurs Stalled=True/NotOurs",
            "Warning NotOurs",
        ),
        (
            "it is blocked no more",
            "Ready=False/NotOurs Stalled=True/NotOurs",
            "Ready=True/Running Stalled=False/Running",
            "Normal Running",
        ),
        (
            "blocked for another reason",
            "Ready=False/NotOurs Stalled=True/NotOurs",
            "Ready=False/InvalidCertificate Stalled=True/InvalidCertificate",
            "Warning InvalidCertificate",
        ),
        (
            "a rollout is no reason to worry",
            "Ready=True/Running Reconciling=False/Running",
            "Ready=False/RollingOut Reconciling=True/RollingOut",
            "Normal RollingOut",
        ),
        ("its pods crash", "Ready=True/Running", "Ready=False/CrashLoop", "Warning CrashLoop"),
        (
            "it waits for something else",
            "Ready=False/WaitingForSecret",
            "Ready=False/WaitingForVolume",
            "Normal WaitingForVolume",
        ),
        (
            "it is suspended",
            "Ready=True/Running Available=True/Answers",
            "Ready=True/Suspended Available=False/Suspended",
            "Normal Suspended",
        ),
        (
            "it can't be reached from here",
            "Available=True/Answers",
            "Available=Unknown/Unreachable",
            "Normal Unreachable",
        ),
        (
            "two things at once",
            "CertificateReady=True/Valid UsersReady=True/Valid",
            "CertificateReady=False/Expired UsersReady=False/BrokenUser",
            "Warning Expired, Warning BrokenUser",
        ),
    ];
    for (name, old, new, expected) in cases {
        let told: Vec<_> = transitions(&conditions(old), &conditions(new))
            .iter()
            .map(|happening| format!("{:?} {}", happening.tone, happening.reason))
            .collect();
        assert_eq!(told.join(", "), expected, "{name}");
    }
}

#[test]
fn an_event_names_the_condition_and_carries_its_message() {
    let happenings = transitions(&conditions("UsersReady=True/Valid"), &conditions("UsersReady=False/BrokenUser"));
    let expected = Happening {
        tone: Tone::Warning,
        reason: "BrokenUser".into(),
        action: "UsersReady".into(),
        note: "about BrokenUser".into(),
    };
    assert_eq!(happenings, [expected]);
}

proptest! {
    #[test]
    fn a_state_that_lasts_is_not_told_whatever_its_message(
        words in prop::collection::btree_map("[A-Z][a-z]{1,8}|Ready|Stalled", ("True|False|Unknown", "[A-Z][a-z]{1,8}"), 0..6),
    ) {
        let text: Vec<_> = words.iter().map(|(type_, (status, reason))| format!("{type_}={status}/{reason}")).collect();
        let old = conditions(&text.join(" "));
        let mut new = old.clone();
        for condition in &mut new {
            condition.message = "another text".into();
        }
        prop_assert_eq!(transitions(&old, &new), vec![]);
    }

    #[test]
    fn a_shortened_text_fits_and_is_whole(text in "\\PC{0,80}", longest in 3_usize..100) {
        let short = shortened(&text, longest);
        prop_assert!(short.len() <= longest);
        prop_assert!(short == text || short.ends_with('…'));
    }
}

type Sent = Arc<Mutex<Vec<(Method, Value)>>>;

/// Answers with the codes given (0: never), then with 201; keeps what was sent.
fn client(codes: &[u16]) -> (Client, Sent) {
    let sent = Sent::default();
    let codes = Arc::new(Mutex::new(codes.to_vec()));
    let keep = sent.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (keep, codes) = (keep.clone(), codes.clone());
        async move {
            let method = request.method().clone();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let event: Value = serde_json::from_slice(&body).unwrap();
            keep.lock().unwrap().push((method, event.clone()));
            let code = if codes.lock().unwrap().is_empty() { 201 } else { codes.lock().unwrap().remove(0) };
            if code == 0 {
                std::future::pending::<()>().await;
            }
            let answer = match code {
                201 => event,
                code => {
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                               "reason": if code == 404 { "NotFound" } else { "Forbidden" },
                               "message": "no"})
                }
            };
            let body = Body::from(answer.to_string().into_bytes());
            Ok::<_, kube::Error>(Response::builder().status(code).body(body).unwrap())
        }
    });
    (Client::new(service, "default"), sent)
}

fn about() -> ObjectReference {
    ObjectReference {
        namespace: Some("team".into()),
        name: Some("a".into()),
        uid: Some("u".into()),
        ..ObjectReference::default()
    }
}

fn events(client: Client) -> Events {
    Events::new(client, "private-registry-operator", "pod-0", Metrics::new(&PROGRAM, |_| ()))
}

fn counted(events: &Events, number: u32) -> bool {
    events.metrics.encode().contains(&format!("_events_total {number}\n"))
}

fn happening(note: &str) -> Happening {
    Happening { tone: Tone::Warning, reason: "CrashLoop".into(), action: "Ready".into(), note: note.into() }
}

#[tokio::test]
async fn another_text_is_another_event_and_the_same_text_is_counted() {
    let (client, sent) = client(&[]);
    let events = events(client);
    for note in ["exit code 1", "exit code 1", "exit code 2"] {
        events.publish(&about(), &[happening(note)]).await;
    }
    assert!(counted(&events, 3), "{}", events.metrics.encode());
    let sent = sent.lock().unwrap();
    let told: Vec<_> = sent
        .iter()
        .map(|(method, event)| (method.as_str(), event["note"].as_str().unwrap(), event["series"]["count"].as_i64()))
        .collect();
    assert_eq!(told, [("POST", "exit code 1", None), ("PATCH", "exit code 1", Some(2)), ("POST", "exit code 2", None)]);
    let first = &sent[0].1;
    assert_eq!((first["type"].as_str(), first["reason"].as_str()), (Some("Warning"), Some("CrashLoop")));
    assert_eq!((first["action"].as_str(), first["reportingInstance"].as_str()), (Some("Ready"), Some("pod-0")));
    assert_eq!(
        (first["regarding"]["uid"].as_str(), first["metadata"]["namespace"].as_str()),
        (Some("u"), Some("team"))
    );
}

#[tokio::test]
async fn many_events_do_not_fill_the_memory_and_the_latest_are_still_counted() {
    let (client, sent) = client(&[]);
    let events = events(client);
    for number in 0..3 * MOST {
        events.publish(&about(), &[happening(&format!("exit code {number}"))]).await;
    }
    assert_eq!(events.recorders.lock().unwrap().len(), MOST);
    events.publish(&about(), &[happening(&format!("exit code {}", 3 * MOST - 2))]).await;
    assert_eq!(sent.lock().unwrap().last().unwrap().0, Method::PATCH);
}

#[tokio::test]
async fn an_event_that_expired_is_made_anew() {
    let (client, sent) = client(&[201, 404]);
    let events = events(client);
    for _ in 0..2 {
        events.publish(&about(), &[happening("exit code 1")]).await;
    }
    let methods: Vec<_> = sent.lock().unwrap().iter().map(|(method, _)| method.to_string()).collect();
    assert_eq!(methods, ["POST", "PATCH", "POST"]);
    assert!(counted(&events, 2));
}

#[tokio::test]
async fn a_refused_event_is_dropped_without_a_second_try() {
    let (client, sent) = client(&[403]);
    let events = events(client);
    events.publish(&about(), &[happening("exit code 1")]).await;
    assert_eq!(sent.lock().unwrap().len(), 1);
    assert!(counted(&events, 0));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_costs_three_seconds_at_most() {
    let (client, sent) = client(&[0, 0]);
    let events = events(client);
    let started = Instant::now();
    events.publish(&about(), &[happening("one"), happening("two")]).await;
    assert_eq!(started.elapsed(), PATIENCE);
    assert_eq!(sent.lock().unwrap().len(), 2, "both were tried");
}

#[tokio::test]
async fn long_texts_are_cut_to_what_the_api_takes() {
    let (client, sent) = client(&[]);
    let events = events(client);
    let long = Happening { reason: String::new(), note: "ä".repeat(2000), ..happening("") };
    events.publish(&about(), &[long]).await;
    let event = sent.lock().unwrap()[0].1.clone();
    assert_eq!(event["reason"], "Unknown");
    let note = event["note"].as_str().unwrap();
    assert!(note.len() <= 1024 && note.len() > 1000 && note.ends_with("ä…"), "{} bytes", note.len());
}
