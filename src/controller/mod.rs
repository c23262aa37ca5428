//! The loop that keeps registries as their manifests say.
//!
//! Watches put registries on the queue; workers take them off it and run [`reconcile`] on each, several at once, never
//! two of one registry. [`Operator`] ties the three together and knows nothing of the process around it.

mod installation;
mod intake;
mod reconcile;
#[cfg(test)]
mod refusals_tests;
mod report;
#[cfg(test)]
mod rotated_tests;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Client;
use operator_engine::metrics::Metrics as EngineMetrics;
use operator_engine::work::backoff::Class;
use operator_engine::work::events::Events;
use operator_engine::work::installations::Installations;
use operator_engine::work::queue::{self, End, Finished, Key, Limits, Outcome, Queue, Urgency, run_workers};
use operator_engine::work::references::References;
use operator_engine::work::rounds::Rounds;
use operator_engine::work::store::{Objects, What};
use operator_engine::work::watches::{Scope, Watches};
use tracing::{debug, error, warn};

pub use reconcile::{Next, reconcile};

use self::intake::Intake;
use crate::api::PrivateRegistry;
use crate::metrics::Metrics;
use crate::model::{Settings, labels};
use crate::parts::certificate::Requests;
use crate::parts::context::Recall;
use crate::parts::elsewhere::accepting::Accepting;
use crate::parts::trust::reports::Reports;
use crate::parts::workload::{Answers, Hearings};
use crate::parts::{self, Context, Error};
use operator_engine::apply::{Engine, Marks, Memory, Observer};

/// How this operator marks its children.
pub const MARKS: Marks = Marks {
    field_manager: labels::MANAGER,
    owner_label: labels::REGISTRY,
    owner_namespace_label: labels::REGISTRY_NAMESPACE,
    managed_by_label: labels::MANAGED_BY,
    managed_by: labels::MANAGER,
    adopt: "privateregistry.dev/adopt",
    applied: "privateregistry.dev/applied",
    owner_kind: "PrivateRegistry",
    owner_plural: "privateregistries",
};

/// The loop, ready to run.
pub struct Operator {
    ctx: Arc<Context>,
    watches: Watches,
    scopes: Vec<Scope>,
    limits: Limits,
}

impl Operator {
    /// Starts the streams; nothing is written before [`Operator::run`].
    #[must_use]
    pub fn start(
        client: &Client,
        scopes: &[Scope],
        settings: Settings,
        limits: Limits,
        instance: &str,
        metrics: (Metrics, Arc<EngineMetrics>),
        observer: Arc<dyn Observer>,
    ) -> Self {
        let memory = Arc::new(Memory::new(MARKS));
        let ctx = Arc::new(Context {
            engine: Engine::new(client.clone(), memory.clone(), MARKS, observer),
            memory,
            registries: Arc::new(Objects::default()),
            events: Events::new(client.clone(), labels::MANAGER, instance, metrics.1.clone()),
            metrics: metrics.0,
            engine_metrics: metrics.1,
            recall: Recall::default(),
            answers: Answers::default(),
            hearings: Hearings::default(),
            client: client.clone(),
            queue: Queue::default(),
            rounds: Rounds::default(),
            references: References::default(),
            requests: Requests::default(),
            accepting: Accepting::default(),
            reports: Reports::default(),
            installations: Installations::new(settings.takeover_wait),
            settings,
        });
        let mut watches = Watches::new(client.clone());
        let intake = Arc::new(Intake::new(ctx.clone()));
        for scope in scopes {
            for watched in intake::watched(scope, &ctx.settings.optional_kinds) {
                watches.metadata(watched, scope, intake.clone());
            }
            let shared = ctx.clone();
            watches.objects::<PrivateRegistry>(scope, ctx.registries.clone(), move |change| {
                shared.metrics.set_registries(shared.registries.len());
                match change.what {
                    What::StatusOnly if shared.rounds.is_open(&change.key.namespace) => {
                        let registry = shared.registries.get(&change.key);
                        if registry.is_some_and(|live| shared.installations.concerns(&installation::shown(&live))) {
                            shared.queue.add(&change.key, Urgency::Manifest);
                        }
                    }
                    What::StatusOnly => {}
                    What::Undecodable => {
                        let why = shared.registries.why_undecodable(&change.key).unwrap_or_default();
                        warn!(registry = %change.key, "cannot be decoded, so its manifest is not followed: {why}");
                    }
                    What::Added => {
                        shared.meet(&change.key);
                        if shared.rounds.is_open(&change.key.namespace) {
                            shared.tell_rivals(&change.key);
                            shared.queue.add(&change.key, Urgency::Manifest);
                        }
                    }
                    // No pass comes that would forget it, on a standby for as long as it is one.
                    What::Removed if !shared.rounds.is_open(&change.key.namespace) => shared.forget(&change.key),
                    _ if !shared.rounds.is_open(&change.key.namespace) => {}
                    _ => shared.queue.add(&change.key, Urgency::Manifest),
                }
            });
        }
        Self { ctx, watches, scopes: scopes.to_vec(), limits }
    }

    /// Names of the registries that cannot be decoded.
    #[must_use]
    pub fn undecodable(&self) -> Vec<String> {
        self.ctx.registries.undecodable().keys().map(Key::to_string).collect()
    }

    /// Which registries are left to other installations, by the names of these.
    #[must_use]
    pub fn left_to_others(&self) -> BTreeMap<String, Vec<Key>> {
        self.ctx.installations.left()
    }

    /// The streams, for readiness.
    #[must_use]
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Which registries wait for a pass, for liveness and metrics.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.ctx.queue
    }

    /// Works until `stop` resolves, then lets running passes end. In each scope, waits for its streams first: who acts on half a picture deletes
    /// what is only not seen yet. A scope that can't be listed keeps no other one waiting.
    ///
    /// `installation`: our name among the installations of this operator, the same for all copies and after each restart.
    pub async fn run(&self, installation: String, stop: impl Future<Output = ()>) {
        self.ctx.installations.call_ourselves(installation);
        let ctx = self.ctx.clone();
        let handler = move |grant: queue::Grant| {
            let ctx = ctx.clone();
            async move {
                let result = reconcile(&grant.key, &ctx).await;
                // The earlier of this and the backoff counts.
                if let Ok(Next::Failed(_, due)) = &result {
                    ctx.queue.add_after(&grant.key, Urgency::Upkeep, *due);
                }
                end(&grant.key, result, &ctx.engine_metrics)
            }
        };
        let ctx = self.ctx.clone();
        let observe = move |finished: &Finished| {
            let key = &finished.grant.key;
            ctx.memory.pass_is_over(&key.namespace, &key.name);
            ctx.rounds.passed(key);
            ctx.engine_metrics.reconciled(outcome(finished.outcome), finished.took);
            ctx.engine_metrics.queue_waited(finished.grant.waited);
        };
        let first_round = async {
            let known = async |scope: Scope| self.watches.scope_synced(&scope).await;
            let keys = || self.ctx.registries.keys();
            self.ctx.rounds.first(&self.scopes, known, keys, &self.ctx.queue, &self.ctx.engine).await;
            self.ctx.find_abandoned_requests();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = run_workers(&self.ctx.queue, self.limits, stop, handler, observe) => {}
            () = first_round => {}
        }
    }

    /// Trusts nothing that is remembered any more: lists everything anew, and looks once at every registry of which passes may run.
    pub async fn sweep(&self) {
        self.ctx.memory.sweep();
        self.watches.relist();
        self.ctx.round(&self.ctx.rounds.open_scopes()).await;
        self.ctx.find_abandoned_requests();
    }
}

fn end(key: &Key, result: Result<Next, Error>, metrics: &EngineMetrics) -> End {
    match result {
        Ok(Next::Look(after)) => End::Done { after: Some(after) },
        Ok(Next::Failed(class, _)) => End::Failed(class),
        Ok(Next::Gone) => End::Done { after: None },
        Err(error) => {
            let (reason, class, words) = (error.reason(), error.class(), parts::words(&error));
            metrics.reconcile_failed(reason);
            match class {
                Class::Bug => error!(registry = %key, reason, "{words}"),
                Class::Transient => warn!(registry = %key, reason, "{words}"),
                // Logged when it became the state of the registry, which may last.
                Class::Blocked | Class::InTheWay => debug!(registry = %key, reason, "{words}"),
            }
            End::Failed(class)
        }
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Failed(Class::Blocked | Class::InTheWay) => "blocked",
        Outcome::Failed(Class::Transient) => "failed",
        Outcome::Failed(Class::Bug) => "bug",
        Outcome::TimedOut => "timed_out",
        Outcome::Panicked => "panicked",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use operator_engine::apply::{Claim, ObjectRef};

    use crate::credentials::generated::NoRandomness;
    use crate::desired::kinds;

    fn errors() -> [Error; 3] {
        let object = ObjectRef::new(kinds::SECRET, "team", "a-tls");
        let source = Box::new(kube::Error::LinesCodecMaxLineLengthExceeded);
        [
            operator_engine::apply::Error::NotOurs { object, claim: Claim::Unmarked { adopt: MARKS.adopt } }.into(),
            Error::Pods { registry: "team/a".to_owned(), source },
            NoRandomness.into(),
        ]
    }

    #[test]
    fn every_error_is_counted_under_its_word_and_a_bug_is_an_outcome_of_its_own() {
        let metrics = Metrics::new(&crate::PROGRAM).1;
        let expected = [("NotOurs", "blocked"), ("ReadFailed", "failed"), ("NoRandomness", "bug")];
        for (error, (reason, word)) in errors().into_iter().zip(expected) {
            let End::Failed(class) = end(&Key::new("team", "a"), Err(error), &metrics) else { panic!("{reason}") };
            assert_eq!(outcome(Outcome::Failed(class)), word);
            let line = format!("private_registry_operator_reconcile_errors_total{{reason=\"{reason}\"}} 1");
            assert!(metrics.encode().contains(&line), "{line}");
        }
    }

    #[test]
    fn only_a_bug_is_logged_as_an_error_and_what_lasts_is_not_logged_at_each_pass() {
        let (mut log, writer) = std::io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::new(writer)).finish();
        let metrics = Metrics::new(&crate::PROGRAM).1;
        tracing::subscriber::with_default(subscriber, || {
            errors().into_iter().for_each(|error| {
                end(&Key::new("team", "a"), Err(error), &metrics);
            });
        });
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        let levels: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(levels, ["WARN", "ERROR"], "{text}");
    }
}
