//! What the loop and the process count, with help texts. A program adds its own to the same page.
//!
//! Labels are words that the program knows (`&'static str`), so no input can make the number of series grow.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use crate::Program;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Word = &'static str;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByOutcome {
    outcome: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    reason: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByVerb {
    verb: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByRequest {
    verb: Word,
    kind: Word,
    code: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByWrite {
    kind: Word,
    outcome: Word,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByKind {
    kind: Word,
}

/// The metrics of one process. Made once, shared by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    program: Program,
    registry: Registry,
    reconciles: Family<ByOutcome, Counter>,
    reconcile_duration: Histogram,
    reconcile_errors: Family<ByReason, Counter>,
    queue_depth: Gauge,
    queue_wait: Histogram,
    panics: Counter,
    api_requests: Family<ByRequest, Counter>,
    api_request_duration: Family<ByVerb, Histogram>,
    writes: Family<ByWrite, Counter>,
    status_writes: Counter,
    events: Counter,
    leader: Gauge,
    watch_age: Family<ByKind, Gauge<f64, AtomicU64>>,
    watch_seen: Mutex<BTreeMap<Word, Instant>>,
}

/// From 1 ms to 16 s in steps of two: one API call to a whole pass.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

impl Metrics {
    /// All metrics at zero, those that `extend` registers too. The program's version and commit become the labels of `…_build_info`.
    pub fn new(program: &Program, extend: impl FnOnce(&mut Registry)) -> Arc<Self> {
        let mut metrics = Self {
            program: *program,
            registry: Registry::with_prefix(program.target),
            reconciles: Family::default(),
            reconcile_duration: seconds(),
            reconcile_errors: Family::default(),
            queue_depth: Gauge::default(),
            queue_wait: seconds(),
            panics: Counter::default(),
            api_requests: Family::default(),
            api_request_duration: Family::new_with_constructor(seconds),
            writes: Family::default(),
            status_writes: Counter::default(),
            events: Counter::default(),
            leader: Gauge::default(),
            watch_age: Family::default(),
            watch_seen: Mutex::default(),
        };
        metrics.register(program);
        extend(&mut metrics.registry);
        Arc::new(metrics)
    }

    /// Whose metrics they are.
    pub fn program(&self) -> &Program {
        &self.program
    }

    fn register(&mut self, program: &Program) {
        let registry = &mut self.registry;
        registry.register(
            "build",
            "What is running",
            Info::new([("version", program.version), ("commit", program.commit)]),
        );
        registry.register("reconciles", "Passes over one object, by how they ended", self.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one pass over one object",
            Unit::Seconds,
            self.reconcile_duration.clone(),
        );
        registry.register("reconcile_errors", "Passes that failed, by reason", self.reconcile_errors.clone());
        registry.register("queue_depth", "Objects that wait for a pass", self.queue_depth.clone());
        registry.register_with_unit(
            "queue_wait",
            "Time from an object being due to the start of its pass",
            Unit::Seconds,
            self.queue_wait.clone(),
        );
        registry.register("panics", "Panics; each one is a bug", self.panics.clone());
        registry.register(
            "api_requests",
            "Requests to the API server, by verb, kind and status",
            self.api_requests.clone(),
        );
        registry.register_with_unit(
            "api_request_duration",
            "Time from a request to the headers of its answer, by verb",
            Unit::Seconds,
            self.api_request_duration.clone(),
        );
        registry.register("writes", "Children written, by kind and by what became of them", self.writes.clone());
        registry.register("status_writes", "Writes of an object's status", self.status_writes.clone());
        registry.register("events", "Kubernetes events published", self.events.clone());
        registry.register("leader", "1 if this process holds the lease, else 0", self.leader.clone());
        registry.register_with_unit(
            "last_watch_event_age",
            "Time since the watches on a kind last delivered anything, by kind",
            Unit::Seconds,
            self.watch_age.clone(),
        );
    }

    /// A pass ended. `outcome` is one of the controller's words.
    pub fn reconciled(&self, outcome: Word, took: Duration) {
        self.reconciles.get_or_create(&ByOutcome { outcome }).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// A pass failed; `reason` is the error's one word.
    pub fn reconcile_failed(&self, reason: Word) {
        self.reconcile_errors.get_or_create(&ByReason { reason }).inc();
    }

    /// How many objects wait for a pass now.
    pub fn set_queue_depth(&self, depth: usize) {
        self.queue_depth.set(clamp(depth));
    }

    /// An object waited this long for its pass to start.
    pub fn queue_waited(&self, waited: Duration) {
        self.queue_wait.observe(waited.as_secs_f64());
    }

    /// A panic happened. The panic hook calls this, so whoever catches a panic must not count it again.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// A request was sent (each try counts). `took` runs to the headers of the answer.
    pub fn api_request(&self, verb: Word, kind: Word, code: Word, took: Duration) {
        self.api_requests.get_or_create(&ByRequest { verb, kind, code }).inc();
        self.api_request_duration.get_or_create(&ByVerb { verb }).observe(took.as_secs_f64());
    }

    /// A child was written, or refused; `outcome` is one of the apply engine's words.
    pub fn wrote(&self, kind: Word, outcome: Word) {
        self.writes.get_or_create(&ByWrite { kind, outcome }).inc();
    }

    /// An object's status was written.
    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    /// A Kubernetes event was published.
    pub fn event_published(&self) {
        self.events.inc();
    }

    /// Whether this process holds the lease.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// The watches on `kind` delivered something so long ago: an event, a bookmark, a page of a list. The age grows by itself.
    pub fn watch_delivered(&self, kind: Word, ago: Duration) {
        if let Some(seen) = Instant::now().checked_sub(ago) {
            self.watch_seen.lock().unwrap_or_else(PoisonError::into_inner).insert(kind, seen);
        }
    }

    /// All metrics as OpenMetrics text; see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        for (kind, seen) in &*self.watch_seen.lock().unwrap_or_else(PoisonError::into_inner) {
            self.watch_age.get_or_create(&ByKind { kind }).set(seen.elapsed().as_secs_f64());
        }
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

fn clamp(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::PROGRAM;

    fn metrics() -> Arc<Metrics> {
        Metrics::new(&PROGRAM, |_| ())
    }

    fn has(metrics: &Metrics, line: &str) -> bool {
        metrics.encode().lines().any(|l| l == line)
    }

    #[test]
    fn counters_count_and_carry_their_labels() {
        let metrics = metrics();
        metrics.reconciled("settled", Duration::from_millis(3));
        metrics.reconciled("settled", Duration::from_millis(3));
        metrics.wrote("Service", "created");
        metrics.status_written();
        metrics.set_leader(true);
        assert!(has(&metrics, r#"test_operator_reconciles_total{outcome="settled"} 2"#));
        assert!(has(&metrics, r#"test_operator_writes_total{kind="Service",outcome="created"} 1"#));
        assert!(has(&metrics, "test_operator_status_writes_total 1"));
        assert!(has(&metrics, "test_operator_leader 1"));
        assert!(has(&metrics, r#"test_operator_build_info{version="0.0.0",commit="abc"} 1"#));
    }

    #[test]
    fn a_program_adds_its_own_under_the_same_prefix() {
        let own = Counter::<u64>::default();
        let metrics = Metrics::new(&PROGRAM, |registry| registry.register("things", "Things", own.clone()));
        own.inc();
        assert!(has(&metrics, "test_operator_things_total 1"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_age_of_a_watch_is_taken_when_asked() {
        let metrics = metrics();
        tokio::time::advance(Duration::from_secs(7)).await;
        metrics.watch_delivered("Secret", Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert!(has(&metrics, r#"test_operator_last_watch_event_age_seconds{kind="Secret"} 10.0"#));
        metrics.watch_delivered("Secret", Duration::ZERO);
        assert!(has(&metrics, r#"test_operator_last_watch_event_age_seconds{kind="Secret"} 0.0"#));
    }
}
