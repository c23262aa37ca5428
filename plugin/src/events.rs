//! `events`: what has been said of a registry and of what belongs to it, the last at the end.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use private_registry_operator::api::PrivateRegistry;
use private_registry_operator::desired::kinds::KINDS;
use private_registry_operator::model::{RegistryName, labels};

use crate::cluster::{self, PAGE, Place, Registry, explained};
use crate::output;
use crate::{shell, status};

/// More than a namespace keeps of an hour.
const MOST_EVENTS: usize = 50_000;

/// Options of `events`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The registry
    #[arg(value_parser = cluster::name)]
    name: RegistryName,
    /// Warnings alone
    #[arg(long)]
    warnings: bool,
    /// The events themselves instead of lines
    #[arg(short, long, value_name = "FORM", value_enum)]
    output: Option<status::Form>,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    cluster::wait(async {
        let registry = options.place.registry(&options.name).await?;
        let found = registry.read().await?;
        let mut events = of(&registry, &found).await?;
        events.retain(|event| !options.warnings || is_warning(event));
        match options.output {
            Some(status::Form::Json) => shell::print(&output::json(&events)?),
            Some(status::Form::Yaml) => shell::print(&output::yaml(&events)?),
            None if events.is_empty() => {
                shell::complain(&format!(
                    "nothing is said of {}: the cluster keeps events for an hour or so",
                    registry.title()
                ));
            }
            None => shell::print(&table(&events, Timestamp::now())),
        }
        Ok(())
    })
}

/// What has been said of a registry and of what belongs to it, the last at the end.
pub(crate) async fn of(registry: &Registry, found: &PrivateRegistry) -> Result<Vec<Event>> {
    let mut about = children(registry).await;
    about.extend(found.metadata.uid.clone());
    let mut events = all(registry).await?;
    events.retain(|event| is_about(event, &about, registry));
    events.sort_by_key(status::at);
    Ok(events)
}

/// Uids of what belongs to it. What may not be listed, or is of a kind that the cluster lacks, is left out.
async fn children(registry: &Registry) -> BTreeSet<String> {
    let mut uids = BTreeSet::new();
    for kind in kinds().into_iter().filter(|kind| !["Secret", "ConfigMap"].contains(&kind.kind.as_str())) {
        let api: Api<DynamicObject> = Api::namespaced_with(registry.client.clone(), &registry.namespace, &kind);
        if let Ok(listed) = api.list_metadata(&ours(registry)).await {
            uids.extend(listed.items.into_iter().filter_map(|child| child.metadata.uid));
        }
    }
    uids
}

/// What belongs to a registry, of any kind.
pub(crate) fn ours(registry: &Registry) -> ListParams {
    let labels = labels::selector(&registry.name).into_iter().map(|(key, value)| format!("{key}={value}"));
    ListParams::default().labels(&labels.collect::<Vec<_>>().join(",")).limit(PAGE)
}

/// Kinds of which something may belong to a registry, in its namespace.
pub(crate) fn kinds() -> Vec<ApiResource> {
    let written = KINDS.iter().filter(|kind| !kind.is_cluster_wide);
    let resource = |group: &str, version: &str, kind: &str, plural: &str| ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    let mut kinds: Vec<_> = written.map(|kind| resource(kind.group, kind.version, kind.kind, kind.plural)).collect();
    kinds.push(resource("", "v1", "Pod", "pods"));
    kinds.push(resource("apps", "v1", "ReplicaSet", "replicasets"));
    kinds
}

async fn all(registry: &Registry) -> Result<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(registry.client.clone(), &registry.namespace);
    let mut page = ListParams::default().limit(PAGE);
    let mut events = Vec::new();
    loop {
        let listed = api.list(&page).await.map_err(explained);
        let listed = listed.with_context(|| format!("list the events of namespace {}", registry.namespace))?;
        events.extend(listed.items);
        match listed.metadata.continue_.filter(|more| !more.is_empty() && events.len() < MOST_EVENTS) {
            Some(more) => page = page.continue_token(&more),
            None => return Ok(events),
        }
    }
}

/// Of what is there, and of pods that are gone already: they tell most.
fn is_about(event: &Event, uids: &BTreeSet<String>, registry: &Registry) -> bool {
    let object = &event.involved_object;
    let is_known = object.uid.as_ref().is_some_and(|uid| uids.contains(uid));
    is_known
        || object.kind.as_deref() == Some("Pod")
            && is_pod_of(object.name.as_deref().unwrap_or_default(), &registry.name)
}

/// Whether a Deployment or Job of this name calls its pods so: with one more part, or with two, of which none is another registry's name. Kubernetes makes
/// them of letters and digits without vowels.
fn is_pod_of(pod: &str, registry: &RegistryName) -> bool {
    let rest = pod.strip_prefix(registry.as_str()).and_then(|rest| rest.strip_prefix('-'));
    let is_made_up = |part: &str| {
        (5..=10).contains(&part.len()) && part.bytes().all(|letter| b"bcdfghjklmnpqrstvwxz2456789".contains(&letter))
    };
    rest.is_some_and(|rest| {
        let parts: Vec<_> = rest.split('-').collect();
        parts.len() <= 2 && parts.into_iter().all(is_made_up)
    })
}

fn is_warning(event: &Event) -> bool {
    event.type_.as_deref() == Some("Warning")
}

fn table(events: &[Event], now: Timestamp) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let row = |event: &Event| {
        let object = &event.involved_object;
        let count = event.series.as_ref().and_then(|series| series.count).or(event.count).unwrap_or(1);
        let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
        vec![
            status::at(event).map_or(String::new(), |at| output::age(at, now)),
            text(&event.type_),
            text(&event.reason),
            format!("{}/{}", text(&object.kind), text(&object.name)),
            text(&event.message).replace('\n', " ") + &times,
        ]
    };
    output::table(&["AGE", "TYPE", "REASON", "OBJECT", "MESSAGE"], &events.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_are_gone_are_known_by_their_names_and_not_those_of_another_registry() {
        let registry = RegistryName::parse("team-a").unwrap();
        for pod in ["team-a-7c9f8d6b5d-x2x4z", "team-a-9xk2z"] {
            assert!(is_pod_of(pod, &registry), "{pod}");
        }
        for pod in ["team-a", "team-b-9xk2z", "team-a-backup-7c9f8d6b5d-x2x4z", "team-a-mirror-x2x4z", "team-ab-9xk2z"]
        {
            assert!(!is_pod_of(pod, &registry), "{pod}");
        }
    }

    #[test]
    fn what_was_said_often_is_one_line() {
        let event = json!({
            "metadata": {}, "type": "Warning", "reason": "Unhealthy", "message": "no\nanswer", "count": 3,
            "involvedObject": {"kind": "Pod", "name": "team-a-1"}, "lastTimestamp": "2026-11-30T11:59:00Z",
        });
        let events = [serde_json::from_value(event).unwrap()];
        assert_eq!(
            table(&events, "2026-11-30T12:00:00Z".parse().unwrap()),
            "AGE   TYPE      REASON      OBJECT         MESSAGE\n60s   Warning   Unhealthy   Pod/team-a-1   no answer (3 times)\n"
        );
    }
}
