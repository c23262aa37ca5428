//! Whole lives of a process in paused time: signals, a lost lease, work that ends or hangs.

use std::sync::Mutex;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::leader::lease::StoreError;
use super::super::leader::{LeaderSettings, Record};
use super::super::preflight::{Definition, Needs};
use super::*;
use crate::testing::PROGRAM;

const SECOND: Duration = Duration::from_secs(1);

/// One lease in memory; `broken` makes every call fail.
#[derive(Clone, Default)]
struct Lease(Arc<Mutex<LeaseState>>);

#[derive(Default)]
struct LeaseState {
    record: Option<Record>,
    version: u64,
    broken: bool,
}

impl Lease {
    fn holder(&self) -> String {
        self.0.lock().unwrap().record.as_ref().map(|record| record.holder.clone()).unwrap_or_default()
    }

    fn with<T>(&self, call: impl FnOnce(&mut LeaseState) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.0.lock().unwrap();
        if state.broken { Err(StoreError::Failed("broken".into())) } else { call(&mut state) }
    }
}

impl LeaseState {
    fn put(&mut self, record: &Record) -> u64 {
        self.record = Some(record.clone());
        self.version += 1;
        self.version
    }
}

impl LeaseStore for Lease {
    type Version = u64;
    async fn read(&self) -> Result<Option<(Record, u64)>, StoreError> {
        self.with(|state| Ok(state.record.clone().map(|record| (record, state.version))))
    }
    async fn create(&self, record: &Record) -> Result<u64, StoreError> {
        self.with(|state| Ok(state.put(record)))
    }
    async fn replace(&self, record: &Record, version: &u64) -> Result<u64, StoreError> {
        self.with(|state| if state.version == *version { Ok(state.put(record)) } else { Err(StoreError::Conflict) })
    }
}

struct Sent(mpsc::UnboundedReceiver<&'static str>);

impl SignalSource for Sent {
    async fn next(&mut self) -> &'static str {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// A cluster that serves the resource (or not yet) and grants every right.
fn cluster(served: bool) -> Client {
    Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let (code, answer) = match request.uri().path() {
                "/apis/example.dev/v1" if served => (
                    200,
                    json!({"groupVersion": "example.dev/v1", "resources":
                        [{"name": "things", "singularName": "", "namespaced": true, "kind": "Thing", "verbs": []}]}),
                ),
                _ => (404, json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"})),
            };
            let response = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap();
            std::future::ready(Ok::<_, kube::Error>(response))
        }),
        "default",
    )
}

struct Started {
    lease: Lease,
    fence: Fence,
    health: Health,
    signals: mpsc::UnboundedSender<&'static str>,
    exit: tokio::task::JoinHandle<Exit>,
}

fn start<W, F>(served: bool, work: W) -> Started
where
    W: FnOnce(Process) -> F + Send + 'static,
    F: Future<Output = Result<(), WorkError>> + Send + 'static,
{
    let (lease, fence, health) = (Lease::default(), Fence::shut(), Health::default());
    let metrics = Metrics::new(&PROGRAM, |_| ());
    let (announcer, leadership) = Announcer::new(health.clone(), Arc::clone(&metrics));
    let timing = LeaderSettings::default().timing().unwrap();
    let client = cluster(served);
    let definition = Definition {
        group: "example.dev".into(),
        version: "v1".into(),
        plural: "things".into(),
        kind: "Thing".into(),
        schema: Box::leak(Box::new(json!({}))),
    };
    let preflight = Preflight::new(
        client.clone(),
        Needs { definition, rights: Vec::new(), namespaces: Vec::new() },
        PROGRAM.definition_advice,
        health.clone(),
    );
    let election = Election::on(lease.clone(), timing, fence.clone(), announcer);
    let clients = Clients { work: client.clone(), lease: client, server: String::new(), namespace: String::new() };
    let place = KubeLease::new(clients.lease.clone(), "ns", "operator");
    let process = Process { clients, health: health.clone(), metrics, stop: Stop::default(), leadership, lease: place };
    let (signals, received) = mpsc::unbounded_channel();
    let guard = fence.clone();
    let exit =
        tokio::spawn(async move { supervise(process, preflight, election, guard, &mut Sent(received), work).await });
    Started { lease, fence, health, signals, exit }
}

/// Work that leads, works until it is to stop, and then needs `drain` to end.
async fn diligent(process: Process, drain: Duration) -> Result<(), WorkError> {
    process.leadership.acquired().await;
    process.stop.requested().await;
    sleep(drain).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_stop_drains_then_gives_the_lease_back() {
    let started = start(true, |process| diligent(process, 5 * SECOND));
    sleep(SECOND).await;
    assert!(started.fence.allows());
    assert!(!started.lease.holder().is_empty());

    started.signals.send("SIGTERM").unwrap();
    sleep(4 * SECOND).await;
    assert!(started.fence.allows(), "work that drains may still write");
    assert_eq!(started.health.readiness().text, "stopping\n");
    assert_eq!(started.exit.await.unwrap(), Exit::Stopped);
    assert!(!started.fence.allows());
    assert_eq!(started.lease.holder(), "");
}

#[tokio::test(start_paused = true)]
async fn renewals_go_on_while_work_drains() {
    let started = start(true, |process| diligent(process, 14 * SECOND));
    sleep(SECOND).await;
    started.signals.send("SIGTERM").unwrap();
    sleep(13 * SECOND).await;
    assert!(started.fence.allows());
    assert_eq!(started.exit.await.unwrap(), Exit::Stopped);
}

#[tokio::test(start_paused = true)]
async fn work_that_hangs_is_cut_off_within_twenty_seconds_and_the_lease_runs_out() {
    let started = start(true, |process| diligent(process, 3_600 * SECOND));
    sleep(SECOND).await;
    let asked = Instant::now();
    started.signals.send("SIGTERM").unwrap();
    assert_eq!(started.exit.await.unwrap(), Exit::CutOff);
    assert!(asked.elapsed() < 20 * SECOND, "{:?}", asked.elapsed());
    assert!(!started.fence.allows());
    assert_ne!(started.lease.holder(), "", "a write may still be on the wire");
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_it_at_once() {
    let started = start(true, |process| diligent(process, 3_600 * SECOND));
    sleep(SECOND).await;
    started.signals.send("SIGINT").unwrap();
    sleep(SECOND).await;
    let asked = Instant::now();
    started.signals.send("SIGINT").unwrap();
    assert_eq!(started.exit.await.unwrap(), Exit::CutOff);
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_process_without_draining() {
    let started = start(true, |process| diligent(process, 3_600 * SECOND));
    sleep(SECOND).await;
    started.lease.0.lock().unwrap().broken = true;
    assert_eq!(started.exit.await.unwrap(), Exit::LeaseLost);
    assert!(!started.fence.allows());
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_fails_or_panics_ends_the_process() {
    let endings: [fn(u8) -> Result<(), WorkError>; 3] = [|_| Ok(()), |_| Err("no".into()), |_| panic!("a bug")];
    for ending in endings {
        let started = start(true, move |process: Process| async move {
            process.leadership.acquired().await;
            ending(0)
        });
        assert_eq!(started.exit.await.unwrap(), Exit::Failed);
        assert!(!started.fence.allows());
    }
}

#[tokio::test(start_paused = true)]
async fn work_begins_when_the_resource_is_served_not_before() {
    let started = start(false, |_| async { panic!("nothing to watch yet") });
    sleep(600 * SECOND).await;
    assert!(!started.exit.is_finished());
    assert!(started.health.readiness().text.contains("CRD things.example.dev is not installed"));
    assert!(started.health.liveness().ok, "a restart would not help");
    started.signals.send("SIGTERM").unwrap();
    assert_eq!(started.exit.await.unwrap(), Exit::Stopped);
    assert_eq!(started.lease.holder(), "");
}

#[tokio::test(start_paused = true)]
async fn a_standby_waits_warm_and_ready_and_leaves_the_lease_alone() {
    let started = start(true, |process| async move {
        process.health.set("watch Thing", State::Ok);
        tokio::select! {
            () = process.leadership.acquired() => panic!("it must not lead"),
            () = process.stop.requested() => Ok(()),
        }
    });
    // Somebody else holds and renews.
    let lease = started.lease.clone();
    tokio::spawn(async move {
        for turn in 0.. {
            let record = Record {
                holder: "other".into(),
                duration: 15 * SECOND,
                acquired: None,
                renewed: None,
                transitions: turn,
            };
            lease.0.lock().unwrap().put(&record);
            sleep(2 * SECOND).await;
        }
    });
    sleep(60 * SECOND).await;
    let readiness = started.health.readiness();
    assert!(readiness.text.contains("ok       leader election: standby; other leads\n"), "{}", readiness.text);
    started.signals.send("SIGTERM").unwrap();
    assert_eq!(started.exit.await.unwrap(), Exit::Stopped);
    assert_eq!(started.lease.holder(), "other");
}

#[test]
fn exit_codes_are_as_documented() {
    let code = |exit| format!("{:?}", ExitCode::from(exit));
    for (exit, number) in [(Exit::Stopped, 0), (Exit::Failed, 1), (Exit::LeaseLost, 3), (Exit::CutOff, 4)] {
        assert_eq!(code(exit), format!("{:?}", ExitCode::from(number)));
    }
}
