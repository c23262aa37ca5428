//! Is the cluster as the operator needs it? Asked at the start and again until it is, with the answer in readiness instead of a crash loop.
//!
//! It only asks what every authenticated user may ask: discovery, the published schema, and "may I?" for each right. It never reads the CRD itself, for
//! which the operator has no right.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream;
use futures::{StreamExt, TryStreamExt};
use http::Request;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, ResourceRule, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
    SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use serde_json::Value;
use tokio::time::{Instant, timeout};

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
/// A look at the definition; single requests have their own limits.
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
}

impl Right {
    fn review(&self, namespace: Option<&str>) -> SelfSubjectAccessReview {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (self.resource.as_str(), None),
        };
        let attributes = ResourceAttributes {
            group: Some(self.group.clone()),
            resource: Some(resource.to_owned()),
            subresource,
            verb: Some(self.verb.clone()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..SelfSubjectAccessReview::default()
        }
    }

    /// Whether one of a namespace's rules grants it, to objects of every name.
    fn is_in(&self, rules: &[ResourceRule]) -> bool {
        let has =
            |list: &Option<Vec<String>>, wanted: &str| list.iter().flatten().any(|one| one == "*" || one == wanted);
        // `*/status` stands for the status of everything.
        let any = self.resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
        rules.iter().any(|rule| {
            rule.verbs.iter().any(|verb| verb == "*" || *verb == self.verb)
                && has(&rule.api_groups, &self.group)
                && (has(&rule.resources, &self.resource) || any.as_deref().is_some_and(|any| has(&rule.resources, any)))
                && rule.resource_names.iter().flatten().next().is_none()
        })
    }
}

impl std::fmt::Display for Right {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(formatter, ".{}", self.group)?;
        }
        Ok(())
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
    /// `openAPIV3Schema` of that version, or its [outline](crate::work::followed::outline).
    pub schema: &'static Value,
}

/// What the operator needs of a cluster.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Its resource.
    pub definition: Definition,
    /// Its rights.
    pub rights: Vec<Right>,
    /// Where it needs them; none: in the whole cluster.
    pub namespaces: Vec<String>,
}

/// What [`Preflight::until_served`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The resource is there.
    Yes,
    /// The process is to stop.
    Stopping,
}

/// Looks until all is well, and keeps the three checks.
#[derive(Clone)]
pub struct Preflight {
    client: Client,
    needs: Needs,
    /// How the definition comes to the cluster.
    advice: &'static str,
    health: Health,
}

impl Preflight {
    /// Sets the checks to waiting; asks nothing yet.
    pub fn new(client: Client, needs: Needs, advice: &'static str, health: Health) -> Self {
        for check in [CLUSTER, DEFINITION, RIGHTS] {
            health.set(check, State::Waiting("not asked yet".to_owned()));
        }
        Self { client, needs, advice, health }
    }

    /// Returns once the resource is served: before that there is nothing to watch.
    pub async fn until_served(&self, stop: &Stop) -> Served {
        match until(stop, || limited(self.look_for_definition())).await {
            Ok(()) => Served::Yes,
            Err(Stopping) => Served::Stopping,
        }
    }

    /// Returns once the served definition is as needed, or at the stop. Meant to run beside the work: an old definition is no reason to do nothing.
    pub async fn until_current(&self, stop: &Stop) {
        let _ = until(stop, || limited(self.look_at_schema())).await;
    }

    /// Returns once all rights are there, or at the stop. Meant to run beside everything else: a missing right stops one thing, and asking for many may
    /// take a while.
    pub async fn until_entitled(&self, stop: &Stop) {
        let places = match self.needs.namespaces.as_slice() {
            [] => vec![None],
            namespaces => namespaces.iter().cloned().map(Some).collect(),
        };
        let missing = Mutex::new(places);
        let _ = until(stop, || self.look_for_rights(&missing)).await;
    }

    fn report(&self, check: &'static str, state: State) -> bool {
        let ok = state.is_ok();
        if self.health.get(check).as_ref() != Some(&state) {
            match &state {
                State::Ok => tracing::info!(check, "as needed"),
                State::Noted(words) => tracing::info!(check, "{words}"),
                State::Waiting(words) | State::Failed(words) => tracing::warn!(check, "{words}"),
            }
            self.health.set(check, state);
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

    /// Asks for the rights in these places, and keeps those where some are missing or could not be asked for: the next look is at them alone.
    async fn look_for_rights(&self, places: &Mutex<Vec<Option<String>>>) -> bool {
        let asked = lock(places).clone();
        let mut answers = stream::iter(asked)
            .map(|place| async move {
                let answer = self.missing_in(place.as_deref()).await;
                (place, answer)
            })
            .buffer_unordered(QUESTIONS_AT_ONCE);
        let (mut missing, mut unasked) = (BTreeSet::new(), None);
        while let Some((place, answer)) = answers.next().await {
            match answer {
                Ok(lacking) if lacking.is_empty() => lock(places).retain(|other| *other != place),
                Ok(lacking) => missing.extend(lacking),
                // The rest would fare alike, one time limit after the other.
                Err(error) => {
                    unasked = Some(explain(&error));
                    break;
                }
            }
        }
        if !missing.is_empty() {
            return self.report(
                RIGHTS,
                State::Failed(format!(
                    "missing: {}; install the chart's roles and bindings for this ServiceAccount",
                    listed(&missing)
                )),
            );
        }
        self.report(RIGHTS, unasked.map_or(State::Ok, |why| State::Waiting(format!("could not be asked for: {why}"))))
    }

    /// The rights that are missing in one place, in words. For a namespace one question is enough, unless an authorizer can't list what it grants.
    async fn missing_in(&self, place: Option<&str>) -> Result<Vec<String>, Error> {
        let mut missing = self.needs.rights.clone();
        if let Some(namespace) = place {
            let rules = self.rules(namespace).await?;
            missing.retain(|right| !right.is_in(&rules.resource_rules));
            if !rules.incomplete {
                return Ok(missing.into_iter().map(|right| format!("{right} in {namespace}")).collect());
            }
        }
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answers = stream::iter(missing)
            .map(|right| {
                let (reviews, review) = (reviews.clone(), right.review(place));
                async move {
                    let answer = reviews.create(&PostParams::default(), &review).await?;
                    Ok::<_, Error>((right, answer.status.is_some_and(|status| status.allowed)))
                }
            })
            .buffer_unordered(QUESTIONS_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let refused = answers.into_iter().filter(|(_, allowed)| !allowed);
        let place = place.map_or_else(|| "all namespaces".to_owned(), str::to_owned);
        Ok(refused.map(|(right, _)| format!("{right} in {place}")).collect())
    }

    async fn rules(&self, namespace: &str) -> Result<SubjectRulesReviewStatus, Error> {
        let reviews: Api<SelfSubjectRulesReview> = Api::all(self.client.clone());
        let question = SelfSubjectRulesReview {
            spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) },
            ..SelfSubjectRulesReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &question).await?;
        Ok(answer.status.unwrap_or(SubjectRulesReviewStatus { incomplete: true, ..Default::default() }))
    }
}

/// The process is to stop.
struct Stopping;

/// Looks until all is well. What takes long is asked seldom.
async fn until<Look: Future<Output = bool>>(stop: &Stop, look: impl Fn() -> Look) -> Result<(), Stopping> {
    loop {
        let started = Instant::now();
        let complete = tokio::select! {
            () = stop.requested() => return Err(Stopping),
            complete = look() => complete,
        };
        if complete {
            return Ok(());
        }
        let pause = BETWEEN_LOOKS.max(started.elapsed() * 10);
        if timeout(pause, stop.requested()).await.is_ok() {
            return Err(Stopping);
        }
    }
}

async fn limited(look: impl Future<Output = bool>) -> bool {
    timeout(LOOK_LIMIT, look).await.unwrap_or(false)
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
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
