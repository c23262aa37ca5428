//! Is the cluster as the operator needs it? Asked at the start and again until it is, with the answer in readiness instead of a crash loop.
//!
//! It only asks what every authenticated user may ask: discovery, the published schema, and "may I?" for each right. It never reads the CRD itself, for
//! which the operator has no right.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use http::Request;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use serde_json::Value;

use super::api_error::explain;
use super::health::{Health, State};
use super::shutdown::Stop;

/// Latch: the API server answers.
pub const CLUSTER: &str = "cluster";
/// Latch: our resource is served, and not by an older definition.
pub const DEFINITION: &str = "resource definition";
/// Latch: the operator has all its rights.
pub const RIGHTS: &str = "rights";

const BETWEEN_LOOKS: Duration = Duration::from_secs(3);
/// A whole look; single requests have their own limits.
const LOOK_LIMIT: Duration = Duration::from_secs(30);
const QUESTIONS_AT_ONCE: usize = 8;
/// More than this many missing things are only counted.
const LISTED: usize = 6;

/// One right that the operator needs, in the words of RBAC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural, with a subresource after a slash if there is one.
    pub resource: String,
    /// Such as `list`.
    pub verb: String,
    /// Where; `None` for the whole cluster.
    pub namespace: Option<String>,
}

impl Right {
    fn review(&self) -> SelfSubjectAccessReview {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (self.resource.as_str(), None),
        };
        let attributes = ResourceAttributes {
            group: Some(self.group.clone()),
            resource: Some(resource.to_owned()),
            subresource,
            verb: Some(self.verb.clone()),
            namespace: self.namespace.clone(),
            ..ResourceAttributes::default()
        };
        SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..SelfSubjectAccessReview::default()
        }
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(formatter, ".{}", self.group)?;
        }
        match &self.namespace {
            Some(namespace) => write!(formatter, " in {namespace}"),
            None => write!(formatter, " in all namespaces"),
        }
    }
}

/// The custom resource as this program knows it.
#[derive(Clone, Debug)]
pub struct Definition {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Lower-case plural.
    pub plural: String,
    /// Kind.
    pub kind: String,
    /// `openAPIV3Schema` of that version.
    pub schema: Value,
}

/// What the operator needs of a cluster.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Its resource.
    pub definition: Definition,
    /// Its rights.
    pub rights: Vec<Right>,
}

/// What [`Preflight::until_served`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The resource is there.
    Yes,
    /// The process is to stop.
    Stopping,
}

/// Looks until all is well, and keeps the three latches.
#[derive(Clone)]
pub struct Preflight {
    client: Client,
    needs: Needs,
    /// How the definition comes to the cluster.
    advice: &'static str,
    health: Health,
}

impl Preflight {
    /// Sets the latches to waiting; asks nothing yet.
    pub fn new(client: Client, needs: Needs, advice: &'static str, health: Health) -> Self {
        for latch in [CLUSTER, DEFINITION, RIGHTS] {
            health.set(latch, State::Waiting("not asked yet".to_owned()));
        }
        Self { client, needs, advice, health }
    }

    /// Returns once the resource is served: before that there is nothing to watch.
    pub async fn until_served(&self, stop: &Stop) -> Served {
        loop {
            let look = async { tokio::join!(self.look_for_definition(), self.look_for_rights()) };
            let looked = tokio::select! {
                () = stop.requested() => return Served::Stopping,
                looked = tokio::time::timeout(LOOK_LIMIT, look) => looked,
            };
            if matches!(looked, Ok((true, _))) {
                return Served::Yes;
            }
            if paused(stop).await.is_err() {
                return Served::Stopping;
            }
        }
    }

    /// Returns once everything is as needed, or at the stop. Meant to run beside the work: a missing right stops one thing, not everything.
    pub async fn until_complete(&self, stop: &Stop) {
        loop {
            let look = async { tokio::join!(self.look_at_schema(), self.look_for_rights()) };
            let complete = tokio::select! {
                () = stop.requested() => return,
                looked = tokio::time::timeout(LOOK_LIMIT, look) => matches!(looked, Ok((true, true))),
            };
            if complete || paused(stop).await.is_err() {
                return;
            }
        }
    }

    fn report(&self, latch: &'static str, state: State) -> bool {
        let ok = state.is_ok();
        if self.health.get(latch).as_ref() != Some(&state) {
            match &state {
                State::Ok => tracing::info!(latch, "as needed"),
                State::Noted(words) => tracing::info!(latch, "{words}"),
                State::Waiting(words) | State::Failed(words) => tracing::warn!(latch, "{words}"),
            }
            self.health.set(latch, state);
        }
        ok
    }

    async fn look_for_definition(&self) -> bool {
        let Definition { group, version, plural, .. } = &self.needs.definition;
        let missing = || {
            State::Failed(format!("CRD {plural}.{group} is not installed or does not serve {version}: {}", self.advice))
        };
        match self.client.list_api_group_resources(&format!("{group}/{version}")).await {
            Ok(list) => {
                self.report(CLUSTER, State::Ok);
                let there = list.resources.iter().any(|resource| &resource.name == plural);
                if there {
                    self.health.set(DEFINITION, State::Waiting("its schema is looked at".to_owned()));
                } else {
                    self.report(DEFINITION, missing());
                }
                there
            }
            Err(Error::Api(status)) if status.code == 404 => {
                self.report(CLUSTER, State::Ok);
                self.report(DEFINITION, missing())
            }
            Err(error) => {
                self.report(CLUSTER, State::Failed(explain(&error)));
                false
            }
        }
    }

    /// Whether the served schema knows every field and value that we do. One that can't be seen is not held against the cluster.
    async fn look_at_schema(&self) -> bool {
        let Definition { group, version, plural, kind, schema } = &self.needs.definition;
        let served = self.published(group, version).await;
        let state = match served {
            Ok(document) => match schema_of(&document, kind) {
                Some(served) => older(schema, served).map_or(State::Ok, |missing| {
                    State::Failed(format!(
                        "CRD {plural}.{group} is older than this operator: it lacks {}; {}",
                        listed(&missing),
                        self.advice
                    ))
                }),
                // The document follows the CRD by a second or so.
                None => State::Waiting("its schema is not published yet".to_owned()),
            },
            Err(Error::Api(status)) if status.code == 403 => {
                State::Noted("served; its schema may not be read, so its age is unknown".to_owned())
            }
            Err(Error::Api(status)) if status.code == 404 => {
                State::Waiting("its schema is not published yet".to_owned())
            }
            Err(error) => State::Waiting(format!("its schema can't be read: {}", explain(&error))),
        };
        self.report(DEFINITION, state)
    }

    async fn published(&self, group: &str, version: &str) -> Result<Value, Error> {
        let request = Request::get(format!("/openapi/v3/apis/{group}/{version}"))
            .header(http::header::ACCEPT, "application/json");
        self.client.request(request.body(Vec::new()).map_err(Error::HttpError)?).await
    }

    async fn look_for_rights(&self) -> bool {
        if self.health.get(RIGHTS) == Some(State::Ok) {
            return true;
        }
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answers = stream::iter(self.needs.rights.clone())
            .map(|right| {
                let reviews = reviews.clone();
                async move {
                    let answer = reviews.create(&PostParams::default(), &right.review()).await?;
                    Ok::<_, Error>((right, answer.status.is_some_and(|status| status.allowed)))
                }
            })
            .buffer_unordered(QUESTIONS_AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        let mut missing = BTreeSet::new();
        for answer in answers {
            match answer {
                Ok((_, true)) => {}
                Ok((right, false)) => {
                    missing.insert(right.to_string());
                }
                Err(error) => {
                    return self.report(RIGHTS, State::Waiting(format!("could not be asked for: {}", explain(&error))));
                }
            }
        }
        if missing.is_empty() {
            return self.report(RIGHTS, State::Ok);
        }
        self.report(
            RIGHTS,
            State::Failed(format!(
                "missing: {}; install the chart's roles and bindings for this ServiceAccount",
                listed(&missing)
            )),
        )
    }
}

/// Waits for the next look; an error says that the process is to stop.
async fn paused(stop: &Stop) -> Result<(), ()> {
    match tokio::time::timeout(BETWEEN_LOOKS, stop.requested()).await {
        Ok(()) => Err(()),
        Err(_) => Ok(()),
    }
}

fn listed(missing: &BTreeSet<String>) -> String {
    let mut words = missing.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if missing.len() > LISTED {
        words.push_str(&format!(" and {} more", missing.len() - LISTED));
    }
    words
}

fn schema_of<'a>(document: &'a Value, kind: &str) -> Option<&'a Value> {
    let is_ours = |schema: &&Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| kinds.iter().any(|named| named["kind"] == kind))
    };
    document["components"]["schemas"].as_object()?.values().find(is_ours)
}

/// What of `ours` the served schema does not know; `None` if it knows all.
fn older(ours: &Value, served: &Value) -> Option<BTreeSet<String>> {
    let mut missing = BTreeSet::new();
    lacks(ours, served, "", &mut missing);
    (!missing.is_empty()).then_some(missing)
}

fn lacks(ours: &Value, served: &Value, path: &str, missing: &mut BTreeSet<String>) {
    for (name, schema) in ours["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        // The server publishes these as its own types.
        if matches!(path.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        match served["properties"].get(name) {
            Some(served) => lacks(schema, served, &path, missing),
            None => {
                missing.insert(path);
            }
        }
    }
    for inner in ["items", "additionalProperties"] {
        if ours[inner].is_object() {
            lacks(&ours[inner], &served[inner], path, missing);
        }
    }
    let known = served["enum"].as_array();
    for value in ours["enum"].as_array().into_iter().flatten() {
        if known.is_some_and(|known| !known.contains(value)) {
            missing.insert(format!("{path}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned)));
        }
    }
}

#[cfg(test)]
mod tests;
