//! `run`: the operator itself. Ties the loop to the process around it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use operator_engine::apply::{Kind, Observer, Verb};
use operator_engine::metrics::Metrics as EngineMetrics;
use operator_engine::process;
use operator_engine::process::health::State;
use operator_engine::process::life::{Process, WorkError};
use operator_engine::process::preflight::{Definition, Needs, Right};
use operator_engine::work::backoff;
use operator_engine::work::queue::{Key, Limits};
use operator_engine::work::watches::{Phase, Scope, StreamState};

use crate::PROGRAM;
use crate::api;
use crate::controller::Operator;
use crate::desired::kinds;
use crate::metrics::Metrics;
use crate::model::settings::{LONGEST_LOGIN_LEAD, ShortCertificates};
use crate::model::{HostRule, NodeAgents, Settings};

/// Latch of readiness: the streams of changes.
const WATCHES: &str = "watches";
/// Latch of readiness: the registries themselves.
const REGISTRIES: &str = "registries";
/// Latch of readiness: other installations of the operator.
const OTHERS: &str = "other operators";
/// Heartbeat of liveness: the loop.
const LOOP: &str = "loop";
/// Heartbeat of liveness: the passes.
const PASSES: &str = "passes";
/// How many registries are named at most.
const NAMED: usize = 10;
const TICK: Duration = Duration::from_secs(1);
const STUCK: Duration = Duration::from_secs(60);
/// Ten times what one pass may take.
const NO_PASS: Duration = Duration::from_secs(5 * 60);

/// Options of `run`.
#[derive(Debug, clap::Args)]
pub struct RunOptions {
    /// Watch registries in this namespace only; can be given more than once. Absent: all namespaces.
    #[arg(long = "watch-namespace", env = "WATCH_NAMESPACE", value_delimiter = ',', value_name = "NAMESPACE", value_parser = process::flag_values::name)]
    watch_namespaces: Vec<String>,
    /// Image of registries whose manifest names none.
    #[arg(long, env = "REGISTRY_IMAGE", value_name = "IMAGE", default_value_t = Settings::default().registry_image, value_parser = NonEmptyStringValueParser::new())]
    registry_image: String,
    /// Image of nginx, for registries with spec.frontend.nginx: one that runs as another user than root and ends on SIGQUIT, as nginx's own does.
    #[arg(long, env = "FRONTEND_IMAGE", value_name = "IMAGE", default_value_t = Settings::default().frontend_image, value_parser = NonEmptyStringValueParser::new())]
    frontend_image: String,
    /// The operator's own image: registries' pods probe their volume with it before they start, and run the front end's sidecar.
    #[arg(long, env = "OPERATOR_IMAGE", value_name = "IMAGE", default_value_t = Settings::default().operator_image, value_parser = NonEmptyStringValueParser::new())]
    operator_image: String,
    /// DNS domain of the cluster.
    #[arg(long, env = "CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = "cluster.local", value_parser = process::flag_values::name)]
    cluster_domain: String,
    /// Kinds of objects that registries may ask for beside those that every one has. One that the cluster lacks is looked for until it comes.
    #[arg(long, env = "OPTIONAL_KINDS", value_delimiter = ',', value_name = "KIND", default_values_t = kinds::optional().map(str::to_owned), value_parser = optional_kind)]
    optional_kinds: Vec<String>,
    /// Namespace of the node agents. Absent: there are none.
    #[arg(long, env = "NODE_AGENT_NAMESPACE", value_name = "NAMESPACE", value_parser = process::flag_values::name)]
    node_agent_namespace: Option<String>,
    /// A host of spec.addresses or spec.route that registries of a namespace may have on nodes, with its port if it has one; `*` is any namespace, and `*.` before a host any
    /// name one label longer. Can be given more than once.
    #[arg(long = "node-trust-host", env = "NODE_TRUST_HOSTS", value_delimiter = ',', value_name = "NAMESPACE=HOST", value_parser = HostRule::parse)]
    node_trust_hosts: Vec<HostRule>,
    /// Namespace of the pods that prove trust on nodes. Nothing in it may be mounted: Pod Security restricted is enough for them.
    #[arg(long, env = "NODE_PROOF_NAMESPACE", value_name = "NAMESPACE", default_value = "private-registry-proofs", value_parser = process::flag_values::name)]
    node_proof_namespace: String,
    /// Prove on each node by a pull that it trusts a registry.
    #[arg(long, env = "PROVE_NODE_TRUST")]
    prove_node_trust: bool,
    /// How many registries are worked on at once.
    #[arg(long, env = "CONCURRENCY", value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How long another installation of the operator, whose registries this one finds, may leave the question unanswered whether it is still there, before
    /// this one takes them over
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = process::flag_values::duration)]
    takeover_wait: Duration,
    /// About how often everything is listed and compared anew, in case a change was never heard of.
    #[arg(long, env = "SWEEP_EVERY", value_name = "DURATION", default_value = "6h", value_parser = process::flag_values::duration)]
    sweep_every: Duration,
    /// How long the next login of a user with `rotation` counts before it is shown in Secrets, at most 10m: longer than the kubelets of this cluster take to
    /// show pods a Secret that changed
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = login_lead)]
    login_lead: Duration,
    /// For tests of renewal: registries of this namespace get serving certificates that live this long, and authorities that live so long, whatever their
    /// manifests say.
    #[arg(long, value_name = "NAMESPACE=DURATION[/DURATION]", value_parser = short_certificates)]
    short_certificates_for_tests: Option<ShortCertificates>,
    #[command(flatten)]
    process: process::Settings,
}

/// An empty one is none, so that all can be left out.
fn optional_kind(text: &str) -> Result<String, String> {
    let known: Vec<_> = kinds::optional().collect();
    if text.is_empty() || known.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("must be one of {}", known.join(", ")))
    }
}

fn login_lead(text: &str) -> Result<Duration, String> {
    let lead = process::flag_values::duration(text)?;
    if lead <= LONGEST_LOGIN_LEAD { Ok(lead) } else { Err("must be at most 10m".to_owned()) }
}

fn short_certificates(text: &str) -> Result<ShortCertificates, String> {
    let (namespace, lives) =
        text.split_once('=').ok_or("must be NAMESPACE=DURATION, for instance renewals=3m or renewals=2m/10m")?;
    let (certificate, authority) = lives.split_once('/').map_or((lives, None), |(leaf, ca)| (leaf, Some(ca)));
    Ok(ShortCertificates {
        namespace: process::flag_values::name(namespace)?,
        certificate: process::flag_values::duration(certificate)?,
        authority: authority.map(process::flag_values::duration).transpose()?,
    })
}

/// Runs until it is told to stop. Exit codes: see [`operator_engine::process`].
pub(super) fn run(options: RunOptions) -> ExitCode {
    let scopes = Scope::of(&options.watch_namespaces);
    let namespaces = scopes.iter().filter_map(Scope::namespace).map(str::to_owned).collect();
    let optional_kinds = options.optional_kinds.into_iter().filter(|kind| !kind.is_empty()).collect();
    let needs = Needs { definition: definition(), rights: rights(&scopes, &optional_kinds), namespaces };
    // Where they look for orders is known when the lease is.
    let agents = options.node_agent_namespace.filter(|_| scopes.contains(&Scope::All));
    let hosts = options.node_trust_hosts;
    let (proofs, is_proved) = (options.node_proof_namespace, options.prove_node_trust);
    let node_agents = agents.map(|namespace| NodeAgents { namespace, orders: String::new(), hosts, proofs, is_proved });
    let settings = Settings {
        node_agents,
        registry_image: options.registry_image,
        frontend_image: options.frontend_image,
        operator_image: options.operator_image,
        cluster_domain: options.cluster_domain,
        sees_namespaces: scopes.contains(&Scope::All),
        optional_kinds,
        takeover_wait: options.takeover_wait,
        login_lead: options.login_lead,
        short_certificates: options.short_certificates_for_tests,
    };
    let limits = Limits { concurrency: usize::from(options.concurrency), ..Limits::default() };
    let (metrics, engine_metrics) = Metrics::new(&PROGRAM);
    let sweep = options.sweep_every;
    let work = move |process: Process| async move { work(process, &scopes, settings, limits, sweep, metrics).await };
    match process::run(&options.process, needs, engine_metrics, work) {
        Ok(exit) => exit.into(),
        Err(error) => {
            super::complain(&format!("private-registry-operator: {error}"));
            ExitCode::from(2)
        }
    }
}

async fn work(
    process: Process,
    scopes: &[Scope],
    settings: Settings,
    limits: Limits,
    sweep_every: Duration,
    registries: Metrics,
) -> Result<(), WorkError> {
    let (own_namespace, _) = process
        .lease
        .place()
        .split_once('/')
        .map(|(space, name)| (space.to_owned(), name.to_owned()))
        .unwrap_or_default();
    let node_agents = settings.node_agents.map(|agents| NodeAgents { orders: own_namespace, ..agents });
    let settings = Settings { node_agents, ..settings };
    let instance = std::env::var("POD_NAME").unwrap_or_else(|_| "private-registry-operator".to_owned());
    let counted = Arc::new(Counted(process.metrics.clone()));
    let metrics = (registries, process.metrics.clone());
    let operator = Operator::start(&process.clients.work, scopes, settings, limits, &instance, metrics, counted);

    let heartbeat = process.health.heartbeat(LOOP, STUCK);
    let passing = process.health.heartbeat(PASSES, NO_PASS);
    let look = async {
        loop {
            heartbeat.tick();
            passing.alive_at(operator.queue().well_until());
            process.metrics.set_queue_depth(operator.queue().depth().due);
            tell(&operator.watches().states(), &process);
            process.health.set(REGISTRIES, decoded(&operator.undecodable()));
            process.health.set(OTHERS, left(&operator.left_to_others()));
            tokio::time::sleep(TICK).await;
        }
    };
    // Readiness is told when the last list is there, and not with the next look.
    let synced = async {
        operator.watches().synced().await;
        tell(&operator.watches().states(), &process);
        std::future::pending::<()>().await;
    };
    let sweep = async {
        process.leadership.acquired().await;
        for round in 0.. {
            tokio::time::sleep(backoff::sweep(sweep_every, &instance, round)).await;
            operator.sweep().await;
        }
    };
    let passes = async {
        process.leadership.acquired().await;
        operator.run(process.lease.place(), process.stop.requested()).await;
    };
    tokio::select! {
        () = look => {}
        () = synced => {}
        () = sweep => {}
        () = passes => {}
        // A standby has nothing to bring to an end.
        () = standby(&process) => {}
    }
    Ok(())
}

async fn standby(process: &Process) {
    process.stop.requested().await;
    if process.leadership.leads() {
        std::future::pending::<()>().await;
    }
}

/// Streams that fail are named with the reason: a missing right looks like nothing at all from outside.
fn tell(states: &[StreamState], process: &Process) {
    for (kind, silence) in silences(states) {
        process.metrics.watch_delivered(kind, silence);
    }
    let name = |state: &StreamState| format!("{} {}", state.watched.resource(), state.scope);
    let failing: Vec<_> = states
        .iter()
        .filter_map(|state| match &state.phase {
            Phase::Failing(reason) => Some(format!("{}: {reason}", name(state))),
            _ => None,
        })
        .collect();
    let waiting: Vec<_> = states.iter().filter(|state| !state.synced).map(name).collect();
    let state = match (failing.is_empty(), waiting.is_empty()) {
        (false, _) => State::Failed(failing.join("; ")),
        (true, false) => State::Waiting(format!("listing {}", waiting.join(", "))),
        (true, true) => State::Ok,
    };
    process.health.set(WATCHES, state);
}

/// For how long each kind's streams have delivered nothing: one that is dead must not hide behind another namespace's.
fn silences(states: &[StreamState]) -> BTreeMap<&'static str, Duration> {
    let mut silences = BTreeMap::new();
    for state in states {
        let longest: &mut Duration = silences.entry(PROGRAM.kind_of(&state.watched.plural)).or_default();
        *longest = state.heard.max(*longest);
    }
    silences
}

/// One manifest that this version does not understand keeps nobody from working for the others, but somebody should know.
fn decoded(undecodable: &[String]) -> State {
    if undecodable.is_empty() {
        return State::Ok;
    }
    State::Noted(format!("{} cannot be decoded, see the log: {}", undecodable.len(), undecodable.join(", ")))
}

/// Two operators for one namespace is for an administrator to mend; until then the one that came second does what is left to it.
fn left(left: &BTreeMap<String, Vec<Key>>) -> State {
    let others: Vec<_> = left
        .iter()
        .map(|(operator, registries)| {
            let names: Vec<_> = registries.iter().take(NAMED).map(Key::to_string).collect();
            let more =
                registries.len().checked_sub(NAMED + 1).map_or(String::new(), |more| format!(" and {} more", more + 1));
            format!("{operator} looks after {}{more}", names.join(", "))
        })
        .collect();
    if others.is_empty() { State::Ok } else { State::Noted(format!("left alone: {}", others.join("; "))) }
}

/// What this program knows of its resource: an older definition in the cluster drops fields without a word.
fn definition() -> Definition {
    Definition {
        group: api::GROUP.to_owned(),
        version: "v1alpha1".to_owned(),
        plural: "privateregistries".to_owned(),
        kind: "PrivateRegistry".to_owned(),
        schema: api::schema_outline(),
    }
}

/// Every right that passes use, derived from the table of kinds.
fn rights(scopes: &[Scope], optional: &BTreeSet<String>) -> Vec<Right> {
    let fixed = [
        (api::GROUP, "privateregistries", &["get", "list", "watch", "patch"][..]),
        (api::GROUP, "privateregistries/status", &["patch"]),
        (api::GROUP, "privateregistries/finalizers", &["update"]),
        ("", "pods", &["list", "watch", "patch"]),
        ("events.k8s.io", "events", &["create", "patch"]),
    ];
    let children =
        kinds::written(optional, scopes.contains(&Scope::All)).map(|kind| (kind.group, kind.plural, kind.verbs));
    let right = |group: &str, resource: &str, verb: &str| Right {
        group: group.to_owned(),
        resource: resource.to_owned(),
        verb: verb.to_owned(),
    };
    // What belongs to no namespace.
    let of_the_cluster = [
        ("", "namespaces", &["list", "watch"][..]),
        ("certificates.k8s.io", "certificatesigningrequests", &["get", "list", "watch", "create", "delete"]),
    ];
    let of_the_cluster = of_the_cluster.into_iter().filter(|_| scopes.contains(&Scope::All));
    let all = fixed.into_iter().chain(children).chain(of_the_cluster);
    all.flat_map(|(group, resource, verbs)| verbs.iter().map(move |verb| right(group, resource, verb))).collect()
}

/// Counts writes of children.
struct Counted(Arc<EngineMetrics>);

impl Observer for Counted {
    fn requested(&self, kind: &'static Kind, verb: Verb, status: u16) {
        let done = match verb {
            Verb::Read | Verb::List => return,
            Verb::Create => "created",
            Verb::Update => "updated",
            Verb::Delete => "deleted",
        };
        let outcome = match status {
            200..=299 => done,
            0 => "unanswered",
            _ => "refused",
        };
        self.0.wrote(kind.kind, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PrivateRegistry;
    use crate::desired::kinds::KINDS;
    use operator_engine::work::watches::Watched;

    #[test]
    fn of_a_kind_in_several_namespaces_the_longest_silence_counts() {
        let state = |namespace: &str, seconds| StreamState {
            watched: Arc::new(Watched::kind_of::<PrivateRegistry>()),
            scope: Scope::Namespace(namespace.to_owned()),
            phase: Phase::Ok,
            since: Duration::ZERO,
            heard: Duration::from_secs(seconds),
            synced: true,
        };
        let silences = silences(&[state("a", 3), state("b", 700), state("c", 5)]);
        assert_eq!(silences, BTreeMap::from([("PrivateRegistry", Duration::from_secs(700))]));
    }

    #[test]
    fn registries_that_cannot_be_decoded_are_named_and_stop_nothing() {
        assert_eq!(decoded(&[]), State::Ok);
        let noted = decoded(&["team/a".to_owned(), "team/b".to_owned()]);
        assert!(noted.is_ok());
        assert_eq!(noted, State::Noted("2 cannot be decoded, see the log: team/a, team/b".to_owned()));
    }

    #[test]
    fn registries_that_are_left_to_another_operator_are_named_with_it() {
        assert_eq!(left(&BTreeMap::new()), State::Ok);
        let some = |count: u8| (1..=count).map(|number| Key::new("team", number.to_string())).collect();
        let noted = |registries| left(&BTreeMap::from([("system/a".to_owned(), registries)]));
        let words = "left alone: system/a looks after team/1, team/2";
        assert_eq!(noted(some(2)), State::Noted(words.to_owned()));
        let State::Noted(words) = noted(some(12)) else { panic!("it is ready") };
        assert!(words.ends_with("team/10 and 2 more"), "{words}");
    }

    #[test]
    fn requests_about_every_child_are_counted_under_its_kind() {
        for kind in KINDS.iter() {
            assert_eq!(PROGRAM.kind_of(kind.plural), kind.kind);
        }
    }
}
