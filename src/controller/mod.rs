//! The loop that keeps registries as their manifests say.
//!
//! [`watches`] put registries on the [`queue`]; workers take them off it and run [`reconcile`] on each, several at once, never
//! two of one registry. [`Operator`] ties the three together and knows nothing of the process around it.

mod advice;
mod answer;
pub mod backoff;
mod certificates;
mod children;
mod context;
mod error;
pub mod events;
mod foundation;
mod intake;
mod logins;
mod material;
pub mod queue;
mod reconcile;
mod report;
mod rounds;
mod running;
pub mod store;
pub mod watches;

use std::sync::Arc;

use kube::Client;
use tracing::warn;

pub use context::Context;
pub use error::Error;
pub use reconcile::{Next, reconcile};

use self::backoff::Class;
use self::events::Events;
use self::intake::Intake;
use self::queue::{End, Finished, Key, Limits, Outcome, Queue, run_workers};
use self::store::{Registries, What};
use self::watches::{Scope, Watches};
use crate::api::PrivateRegistry;
use crate::apply::{Engine, Marks, Memory, Observer};
use crate::metrics::Metrics;
use crate::model::{Settings, labels};

/// How this operator marks its children.
pub const MARKS: Marks = Marks {
    field_manager: labels::MANAGER,
    owner_label: labels::REGISTRY,
    managed_by_label: labels::MANAGED_BY,
    managed_by: labels::MANAGER,
    adopt: "privateregistry.dev/adopt",
    owner_kind: "PrivateRegistry",
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
        client: Client,
        scopes: &[Scope],
        settings: Settings,
        limits: Limits,
        instance: &str,
        metrics: Arc<Metrics>,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let memory = Arc::new(Memory::new(MARKS));
        let ctx = Arc::new(Context {
            engine: Engine::new(client.clone(), memory.clone(), MARKS, observer),
            memory,
            registries: Arc::new(Registries::default()),
            settings,
            events: Events::new(client.clone(), labels::MANAGER, instance),
            metrics,
            recall: context::Recall::default(),
            answers: answer::Answers::default(),
            client: client.clone(),
            queue: Queue::default(),
            rounds: rounds::Rounds::default(),
        });
        let mut watches = Watches::new(client);
        let intake = Arc::new(Intake { ctx: ctx.clone() });
        for scope in scopes {
            for watched in intake::watched() {
                watches.metadata(watched, scope, intake.clone());
            }
            let shared = ctx.clone();
            watches.registries::<PrivateRegistry>(scope, ctx.registries.clone(), move |change| {
                shared.metrics.set_registries(shared.registries.len());
                match change.what {
                    What::StatusOnly => {}
                    What::Undecodable => {
                        let why = shared.registries.undecodable().remove(&change.key).unwrap_or_default();
                        warn!(registry = %change.key, "cannot be decoded, so its manifest is not followed: {why}");
                    }
                    What::Added if !shared.rounds.have_begun() => {}
                    What::Added => {
                        shared.meet(&change.key);
                        shared.queue.add(&change.key);
                    }
                    _ => shared.queue.add(&change.key),
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

    /// The streams, for readiness.
    #[must_use]
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Works until `stop` resolves, then lets running passes end. Waits for the streams first: who acts on half a picture deletes
    /// what is only not seen yet.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        tokio::select! {
            () = &mut stop => return,
            () = self.watches.synced() => {}
        }
        let ctx = self.ctx.clone();
        let handler = move |grant: queue::Grant| {
            let ctx = ctx.clone();
            async move { end(&grant.key, reconcile(&grant.key, &ctx).await, &ctx) }
        };
        let ctx = self.ctx.clone();
        let observe = move |finished: &Finished| {
            ctx.rounds.passed(&finished.grant.key);
            ctx.metrics.reconciled(outcome(finished.outcome), finished.took);
            ctx.metrics.queue_waited(finished.grant.waited);
            ctx.metrics.set_queue_depth(ctx.queue.depth().due);
        };
        let first_round = async {
            self.ctx.rounds.run(&self.ctx, &self.scopes).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = run_workers(&self.ctx.queue, self.limits, stop, handler, observe) => {}
            () = first_round => {}
        }
    }

    /// Trusts nothing that is remembered any more: lists everything anew, and looks at every registry once.
    pub async fn sweep(&self) {
        self.ctx.memory.sweep();
        self.watches.relist();
        self.ctx.rounds.run(&self.ctx, &self.scopes).await;
    }
}

fn end(key: &Key, result: Result<Next, Error>, ctx: &Context) -> End {
    match result {
        Ok(Next::Look(after)) => End::Done { after: Some(after) },
        Ok(Next::Blocked(class)) => End::Failed(class),
        Ok(Next::Gone) => End::Done { after: None },
        Err(error) => {
            ctx.metrics.reconcile_failed(error.reason());
            warn!(registry = %key, reason = error.reason(), "{}", report::words(&error));
            End::Failed(error.class())
        }
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Failed(Class::Blocked | Class::InTheWay) => "blocked",
        Outcome::Failed(_) => "failed",
        Outcome::TimedOut => "timed_out",
        Outcome::Panicked => "panicked",
    }
}
