//! `status`: what there is to know of one registry, on a page. Everything on it is what the operator and the API server say; nothing is
//! judged a second time.

use std::fmt::Write as _;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use private_registry_operator::api::condition::{READY, RECONCILING, STALLED};
use private_registry_operator::api::{
    AddressScope, AuthorityStage, CertificateStatus, PrivateRegistry, PrivateRegistrySpec, PrivateRegistryStatus,
    UserSourceKind, UserStatus,
};
use private_registry_operator::model::{Issuer, RegistryName};

use crate::cluster::{self, Place};
use crate::output;
use crate::shell;

/// Events on the page.
const MOST_EVENTS: usize = 8;
/// Users on the page.
const MOST_USERS: usize = 20;

/// Options of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// The object's own status instead of the page
    #[arg(short, long, value_name = "FORM", value_enum)]
    output: Option<Form>,
    #[command(flatten)]
    place: Place,
}

/// What programs read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// Whether it is as its manifest says; with `-o`, whether there is anything to print.
pub(crate) fn run(options: &Options) -> Result<bool> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let found = registry.read().await?;
        let status = found.status.clone().unwrap_or_default();
        match options.output {
            Some(Form::Json) => shell::print(&output::json(&status)?),
            Some(Form::Yaml) => shell::print(&output::yaml(&status)?),
            None => {
                let events = registry.events(&found).await.map_err(|error| format!("{error:#}"));
                shell::print(&page(&found, &events, Timestamp::now()));
                return Ok(status.says(READY, "True"));
            }
        }
        Ok(true)
    })
}

/// The page.
fn page(found: &PrivateRegistry, events: &Result<Vec<Event>, String>, now: Timestamp) -> String {
    let status = found.status.clone().unwrap_or_default();
    let mut text = format!("PrivateRegistry {}: {}\n\n", title(found), summary(found, &status));
    let facts = [
        ("Addresses", addresses(&status)),
        ("Certificate", certificate(&found.spec, status.certificate.as_ref(), now)),
        ("Users", users(&found.spec, &status)),
        ("Storage", vec![storage(&found.spec, &status)]),
        ("Runs", vec![runs(&found.spec, &status)]),
        ("Trust", trust(&status)),
    ];
    for (name, lines) in facts {
        for (number, line) in lines.iter().enumerate() {
            let name = if number == 0 { name } else { "" };
            let _ = writeln!(text, "{name:<12} {line}");
        }
    }
    let troubles: Vec<_> = status.conditions.iter().filter(|condition| !is_well(condition)).collect();
    // Three of them say the same, and one of the others often says it in the same words.
    let told = |index: usize| troubles[..index].iter().any(|earlier| earlier.message == troubles[index].message);
    if !troubles.is_empty() {
        text.push_str("\nNot well\n");
    }
    for (index, condition) in troubles.iter().enumerate() {
        let age = output::age(condition.last_transition_time.0, now);
        let _ = writeln!(text, "  {} is {} for {age}: {}", condition.type_, condition.status, condition.reason);
        if !told(index) && !condition.message.is_empty() {
            let _ = writeln!(text, "    {}", condition.message.replace('\n', "\n    "));
        }
    }
    text.push_str(&told_events(found, events, now));
    text
}

fn title(found: &PrivateRegistry) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", text(&found.metadata.namespace), text(&found.metadata.name))
}

/// One word, with the reason behind it.
fn summary(found: &PrivateRegistry, status: &PrivateRegistryStatus) -> String {
    if found.metadata.deletion_timestamp.is_some() {
        return "is being deleted".to_owned();
    }
    let Some(ready) = status.condition(READY) else {
        return "no operator has looked at it yet: is one installed that serves its namespace?".to_owned();
    };
    let word = match ready.status.as_str() {
        "True" => "ready",
        _ if status.says(STALLED, "True") => "not ready, and waits for you",
        _ => "not ready yet",
    };
    let is_behind = found.metadata.generation.is_some_and(|now| status.observed_generation.is_some_and(|at| at < now));
    let behind = if is_behind { "; the operator has not looked at its last change yet" } else { "" };
    format!("{word} ({}){behind}", ready.reason)
}

fn is_well(condition: &Condition) -> bool {
    let good = if [RECONCILING, STALLED].contains(&condition.type_.as_str()) { "False" } else { "True" };
    condition.status == good
}

fn addresses(status: &PrivateRegistryStatus) -> Vec<String> {
    if status.addresses.is_empty() {
        return vec!["none yet".to_owned()];
    }
    let width = status.addresses.iter().map(|known| known.address.chars().count()).max().unwrap_or(0);
    let line = |known: &private_registry_operator::api::Address| {
        let best = if status.address.as_ref() == Some(&known.address) { ", for image names" } else { "" };
        format!("{:width$}  from {}{best}", known.address, from(known.scope))
    };
    status.addresses.iter().map(line).collect()
}

/// From where an address of this scope is reached.
pub(crate) fn from(scope: AddressScope) -> &'static str {
    match scope {
        AddressScope::External => "outside",
        AddressScope::Node => "nodes and pods",
        AddressScope::Cluster => "pods",
    }
}

fn certificate(spec: &PrivateRegistrySpec, served: Option<&CertificateStatus>, now: Timestamp) -> Vec<String> {
    let signer = signer(spec);
    let Some(served) = served else { return vec![signer] };
    let when = |text: &str| match text.parse::<Timestamp>() {
        Ok(at) if at >= now => format!("{} (in {})", at.strftime("%Y-%m-%d"), output::age(now, at)),
        Ok(at) => format!("{} (over for {})", at.strftime("%Y-%m-%d"), output::age(at, now)),
        Err(_) => text.to_owned(),
    };
    let renewal = match &served.renew_at {
        Some(at) => format!(", renewed at {}", when(at)),
        None => ", not renewed by the operator".to_owned(),
    };
    let authorities = served.authorities.iter().map(|authority| {
        let stage = match authority.stage {
            AuthorityStage::Next => "signs later",
            AuthorityStage::Active => "signs",
            AuthorityStage::Former => "has signed",
        };
        format!("authority SHA-256 {}, until {}, {stage}", authority.fingerprint, when(&authority.not_after))
    });
    [format!("until {}{renewal}", when(&served.not_after)), signer].into_iter().chain(authorities).collect()
}

/// Who signs the certificate.
fn signer(spec: &PrivateRegistrySpec) -> String {
    let tls = spec.tls.clone().unwrap_or_default();
    if tls.none.is_some() {
        return "none: plain HTTP (spec.tls.none)".to_owned();
    }
    if let Some(own) = tls.secret {
        return format!("your own, from Secret {}", own.name);
    }
    if let Some(asked) = tls.cert_manager {
        let issuer = asked.issuer_ref;
        return format!("signed by {} {}", issuer.kind.as_deref().unwrap_or(Issuer::KIND), issuer.name);
    }
    if let Some(asked) = tls.certificate_signing_request {
        return match asked.signer_name {
            Some(signer) => format!("signed by {signer}"),
            None => "signed by whom kubectl registry csr is given to".to_owned(),
        };
    }
    match tls.private_ca.and_then(|private| private.ca_secret_ref) {
        Some(shared) => {
            let space = shared.namespace.map_or(String::new(), |space| format!("{space}/"));
            format!("signed by the authority in Secret {space}{}", shared.name)
        }
        None => "signed by the registry's own authority".to_owned(),
    }
}

fn users(spec: &PrivateRegistrySpec, status: &PrivateRegistryStatus) -> Vec<String> {
    if spec.auth.as_ref().is_some_and(|auth| auth.none.is_some()) {
        return vec!["everybody, without a login (spec.auth.none)".to_owned()];
    }
    let count = status.user_count.map_or_else(|| "not known yet".to_owned(), |count| count.to_string());
    let user = |user: &UserStatus| {
        let source = match user.source.kind {
            UserSourceKind::GeneratedAdmin => format!("generated, Secret {}", user.source.name),
            UserSourceKind::Users | UserSourceKind::UsersFrom => format!("Secret {}", user.source.name),
        };
        let rotation = user.rotation.as_ref().map_or(String::new(), |rotation| {
            let former = rotation.former_ends_at.as_ref().map(|at| format!(", the former one counts until {at}"));
            format!("; the next login comes {}{}", rotation.next, former.unwrap_or_default())
        });
        format!("{} ({source}{rotation})", user.name)
    };
    let shown = status.users.iter().take(MOST_USERS).map(user);
    let all = usize::try_from(status.user_count.unwrap_or(0)).unwrap_or(0).max(status.users.len());
    let more = (all > MOST_USERS).then(|| format!("and {} more", all - MOST_USERS.min(status.users.len())));
    let lent = status.pull_secrets.iter().flat_map(|copies| {
        let count = format!("pods of {} of {} other namespaces have their login", copies.copied, copies.wanted);
        [count].into_iter().chain(copies.missing.iter().map(|missing| format!("not {missing}")))
    });
    [count].into_iter().chain(shown).chain(more).chain(lent).collect()
}

fn storage(spec: &PrivateRegistrySpec, status: &PrivateRegistryStatus) -> String {
    let known = status.storage.clone().unwrap_or_default();
    let given = spec.storage.clone().unwrap_or_default();
    if given.empty_dir.is_some() {
        let limit = known.requested.map_or(String::new(), |limit| format!(", {limit} at most"));
        return format!("emptyDir{limit}: images go with the pod");
    }
    let Some(claim) = known.claim_name else { return "none yet".to_owned() };
    let size = match (known.capacity, known.requested) {
        (Some(has), Some(wants)) if has != wants => format!("{has}, {wants} wanted"),
        (Some(has), _) => has,
        (None, Some(wants)) => format!("no volume yet, {wants} wanted"),
        (None, None) => "no volume yet".to_owned(),
    };
    let volume = known.volume_name.map_or(String::new(), |name| format!(", volume {name}"));
    format!("claim {claim}, {size}{volume}")
}

fn runs(spec: &PrivateRegistrySpec, status: &PrivateRegistryStatus) -> String {
    let ready = status.ready_replicas.unwrap_or(0);
    let wanted = spec.replicas.unwrap_or(1);
    let image = status.image.clone().unwrap_or_else(|| "no image yet".to_owned());
    let policy = status.restart_policy.as_ref().map_or(String::new(), |policy| format!(", restart policy {policy}"));
    let front = if spec.frontend.is_some() { ", behind its front end" } else { "" };
    format!("{ready} of {wanted} pods ready, {image}{policy}{front}")
}

fn trust(status: &PrivateRegistryStatus) -> Vec<String> {
    let trust = status.trust.clone().unwrap_or_default();
    let mut lines = Vec::new();
    for (what, reach) in [("namespaces", trust.namespaces), ("nodes", trust.nodes)] {
        let Some(reach) = reach else { continue };
        lines.push(format!("{} of {} {what}", reach.trusting, reach.wanted));
        lines.extend(reach.missing.iter().map(|missing| format!("not {missing}")));
    }
    lines.extend(trust.cluster_trust_bundle.map(|name| format!("ClusterTrustBundle {name}")));
    lines
}

/// The last ones, the newest first.
fn told_events(found: &PrivateRegistry, events: &Result<Vec<Event>, String>, now: Timestamp) -> String {
    let mut events = match events {
        Ok(events) => events.iter().map(|event| (at(event), event)).collect::<Vec<_>>(),
        Err(why) => return format!("\nEvents\n  not known: {why}\n"),
    };
    if events.is_empty() {
        return String::new();
    }
    events.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let row = |(at, event): &(Option<Timestamp>, &Event)| {
        let age = at.map_or(String::new(), |at| output::age(at, now));
        let message = text(&event.message).replace('\n', " ");
        vec![age, text(&event.type_), text(&event.reason), message]
    };
    let rows: Vec<_> = events.iter().take(MOST_EVENTS).map(row).collect();
    let lines = output::table(&["AGE", "TYPE", "REASON", "MESSAGE"], &rows);
    let more = if events.len() > MOST_EVENTS {
        let (space, name) = (text(&found.metadata.namespace), text(&found.metadata.name));
        format!(
            "  kubectl --namespace {space} events --for privateregistry/{name} shows {} more\n",
            events.len() - MOST_EVENTS
        )
    } else {
        String::new()
    };
    format!("\nEvents\n{}{more}", lines.lines().map(|line| format!("  {line}\n")).collect::<String>())
}

/// When an event was seen last.
pub(crate) fn at(event: &Event) -> Option<Timestamp> {
    let time = |time: &Time| time.0;
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(time);
    series.or(last).or(event.event_time.as_ref().map(|time| time.0)).or(event
        .metadata
        .creation_timestamp
        .as_ref()
        .map(time))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    fn registry(spec: &Value, status: &Value) -> PrivateRegistry {
        serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a", "namespace": "shop", "generation": 2}, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-11-30T11:00:00Z"})
    }

    fn event(at: &str, reason: &str) -> Event {
        serde_json::from_value(json!({
            "metadata": {}, "involvedObject": {}, "type": "Normal", "reason": reason, "message": "two\nlines", "lastTimestamp": at,
        }))
        .unwrap()
    }

    #[test]
    fn a_registry_that_is_well_is_told_on_a_page() {
        let status = json!({
            "observedGeneration": 2, "address": "registry.example.com", "userCount": 2, "image": "registry:3.1.2", "readyReplicas": 1,
            "restartPolicy": "Always",
            "conditions": [condition("Ready", "True", "Settled", "as wanted"), condition("Stalled", "False", "Settled", "")],
            "addresses": [
                {"scope": "External", "address": "registry.example.com"}, {"scope": "Node", "address": "10.96.0.9:5000"},
            ],
            "certificate": {
                "notBefore": "2026-11-29T12:00:00Z", "notAfter": "2027-11-29T12:00:00Z", "renewAt": "2027-07-01T00:00:00Z", "serial": "1",
                "authorities": [{"fingerprint": "AB:CD", "notAfter": "2036-11-29T12:00:00Z", "stage": "Active"}],
            },
            "users": [
                {"name": "admin", "source": {"kind": "GeneratedAdmin", "name": "team-a-admin", "key": "password"}},
                {"name": "ci", "source": {"kind": "Users", "name": "robots", "key": "ci"}},
            ],
            "storage": {"claimName": "team-a-data", "volumeName": "pv-1", "capacity": "20Gi", "requested": "20Gi"},
            "trust": {"nodes": {"wanted": 3, "trusting": 2, "missing": ["node-3: no agent"]}},
        });
        let events = Ok(vec![event("2026-11-30T10:00:00Z", "Older"), event("2026-11-30T11:59:00Z", "Newer")]);
        assert_eq!(
            page(&registry(&json!({}), &status), &events, now()),
            "PrivateRegistry shop/team-a: ready (Settled)\n\
             \n\
             Addresses    registry.example.com  from outside, for image names\n\
             \x20            10.96.0.9:5000        from nodes and pods\n\
             Certificate  until 2027-11-29 (in 364d), renewed at 2027-07-01 (in 212d)\n\
             \x20            signed by the registry's own authority\n\
             \x20            authority SHA-256 AB:CD, until 2036-11-29 (in 10y2d), signs\n\
             Users        2\n\
             \x20            admin (generated, Secret team-a-admin)\n\
             \x20            ci (Secret robots)\n\
             Storage      claim team-a-data, 20Gi, volume pv-1\n\
             Runs         1 of 1 pods ready, registry:3.1.2, restart policy Always\n\
             Trust        2 of 3 nodes\n\
             \x20            not node-3: no agent\n\
             \n\
             Events\n\
             \x20 AGE    TYPE     REASON   MESSAGE\n\
             \x20 60s    Normal   Newer    two lines\n\
             \x20 120m   Normal   Older    two lines\n"
        );
    }

    #[test]
    fn what_is_not_well_is_told_once_with_what_to_do() {
        let words = "Secret shop/ci does not exist: create it";
        let status = json!({
            "observedGeneration": 1,
            "conditions": [
                condition("Ready", "False", "WaitingForSecret", words), condition("Reconciling", "True", "WaitingForSecret", words),
                condition("Stalled", "True", "WaitingForSecret", words), condition("Available", "Unknown", "Unreachable", "cannot be reached"),
                condition("StorageReady", "True", "Bound", "bound"),
            ],
        });
        let text = page(&registry(&json!({}), &status), &Err("list the events: no right".to_owned()), now());
        let first = "PrivateRegistry shop/team-a: not ready, and waits for you (WaitingForSecret); the operator has not looked at its last change yet\n";
        assert!(text.starts_with(first), "{text}");
        assert_eq!(text.matches(words).count(), 1, "{text}");
        assert!(text.contains("\nNot well\n  Ready is False for 60m: WaitingForSecret\n    Secret shop/ci"), "{text}");
        assert!(text.contains("  Available is Unknown for 60m: Unreachable\n    cannot be reached\n"), "{text}");
        assert!(!text.contains("StorageReady"), "{text}");
        assert!(text.ends_with("\nEvents\n  not known: list the events: no right\n"), "{text}");
    }

    #[test]
    fn a_registry_that_nobody_looked_at_has_a_page_too() {
        let text = page(&registry(&json!({}), &Value::Null), &Ok(Vec::new()), now());
        for words in ["no operator has looked at it yet", "none yet", "not known yet", "0 of 1 pods ready"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn who_signs_is_told_for_every_signer() {
        for (tls, words) in [
            (json!({}), "the registry's own authority"),
            (
                json!({"privateCA": {"caSecretRef": {"name": "root", "namespace": "ca"}}}),
                "the authority in Secret ca/root",
            ),
            (json!({"secret": {"name": "mine"}}), "your own, from Secret mine"),
            (json!({"certManager": {"issuerRef": {"name": "company"}}}), "signed by Issuer company"),
            (json!({"certificateSigningRequest": {"signerName": "example.com/x"}}), "signed by example.com/x"),
            (json!({"certificateSigningRequest": {}}), "kubectl registry csr"),
            (json!({"none": {}}), "plain HTTP"),
        ] {
            let said = signer(&registry(&json!({"tls": tls}), &Value::Null).spec);
            assert!(said.contains(words), "{tls}: {said}");
        }
    }

    #[test]
    fn logins_and_storage_are_told_as_the_manifest_has_them() {
        let open = registry(&json!({"auth": {"none": {}}, "storage": {"emptyDir": {}}}), &Value::Null);
        assert_eq!(
            users(&open.spec, &PrivateRegistryStatus::default()),
            ["everybody, without a login (spec.auth.none)"]
        );
        assert_eq!(storage(&open.spec, &PrivateRegistryStatus::default()), "emptyDir: images go with the pod");
        let source = json!({"kind": "UsersFrom", "name": "many", "key": "x"});
        let many: Vec<_> = (0..100).map(|number| json!({"name": format!("u{number}"), "source": source})).collect();
        let crowded = registry(&json!({}), &json!({"userCount": 300, "users": many}));
        let lines = users(&crowded.spec, crowded.status.as_ref().unwrap());
        assert_eq!((lines.len(), lines[0].as_str(), lines[21].as_str()), (22, "300", "and 280 more"));
        let lent = json!({"userCount": 0, "pullSecrets": {"wanted": 2, "copied": 1, "missing": ["shop: is not ours"]}});
        let lent = registry(&json!({}), &lent);
        let lines = users(&lent.spec, lent.status.as_ref().unwrap());
        assert_eq!(lines, ["0", "pods of 1 of 2 other namespaces have their login", "not shop: is not ours"]);
        let growing = json!({"storage": {"claimName": "c", "capacity": "10Gi", "requested": "20Gi"}});
        let growing = registry(&json!({}), &growing);
        assert_eq!(storage(&growing.spec, growing.status.as_ref().unwrap()), "claim c, 10Gi, 20Gi wanted");
    }
}
