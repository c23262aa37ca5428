//! The one place from which requests are sent. Reads, guarded creates, forced updates, guarded deletes: nothing else is possible.
//!
//! `kube::Api` isn't used for them: it hides the status, and logs the whole answer when it can't be read. Time limits, retries, rate and leadership
//! are layers of the client.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use hyper::body::Bytes;
use kube::Client;
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy, ValidationDirective,
};
use kube::client::Body;
use kube::core::{Request, Status};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::kinds::{self, Deletion, Kind};
use super::live::Live;
use super::{ObjectRef, Owner, path};
use crate::process::{api_error, gate};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// GET by name.
    Read,
    /// GET of all that a selector matches.
    List,
    /// POST, or an apply that succeeds only if there is no such object.
    Create,
    /// Apply to one object, known by its uid.
    Update,
    /// Delete one object, known by its uid and resourceVersion.
    Delete,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        })
    }
}

/// Is told of every request, for metrics. `()` ignores them.
pub trait Observer: Send + Sync {
    /// A request for an object of this kind was answered with this HTTP status; 0 if there was no answer.
    fn requested(&self, kind: &'static Kind, verb: Verb, status: u16);
}

impl Observer for () {
    fn requested(&self, _: &'static Kind, _: Verb, _: u16) {}
}

/// Why there is no usable answer. Shows nothing of an object that may be secret.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server answered with an error.
    #[error("{code} {message}")]
    Api {
        /// The HTTP status.
        code: u16,
        /// The API server's words; for a Secret, which they may quote, only its reason and the fields concerned.
        message: String,
        /// The fields that the API server objects to.
        fields: Vec<String>,
    },
    /// There was no answer, or not all of it.
    #[error("no answer from the API server")]
    Transport(#[source] kube::Error),
    /// The request could not be built: a name that is no name.
    #[error("the request could not be built")]
    Build(#[source] kube::core::request::Error),
    /// The answer is no JSON object.
    #[error("the API server's answer could not be read")]
    Unreadable,
}

impl Failure {
    /// Whether the answer was larger than this program takes in.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Transport(error) if gate::is_too_large(error))
    }
}

/// What became of a deletion.
pub(super) enum Deleted {
    /// There is no such object any more.
    Gone,
    /// Something still holds it.
    Leaving(Live),
}

/// A page of this many bytes at most is shared by the texts on it, and stays as long as one of them does. On a larger one there is more than owners of a
/// batch have, by somebody who puts our label on objects of his own; nothing of that is to stay.
const SHARED: usize = 1 << 20;

/// Sends requests as one field manager.
pub(super) struct Requests {
    client: Client,
    manager: &'static str,
    observer: Arc<dyn Observer>,
    /// Whether the API server only checks what it is sent, and stores nothing.
    is_rehearsal: bool,
}

/// No object ever has this version: the first write to an empty store already makes a later one.
///
/// An apply that carries it creates the object (201) or, if one exists, fails with 409 and changes nothing.
const NEVER_A_VERSION: &str = "1";

impl Requests {
    pub(super) fn new(client: Client, manager: &'static str, observer: Arc<dyn Observer>) -> Self {
        Self { client, manager, observer, is_rehearsal: false }
    }

    /// The same, but whatever it writes is a dry run.
    pub(super) fn rehearsing(&self) -> Self {
        Self { client: self.client.clone(), observer: self.observer.clone(), is_rehearsal: true, ..*self }
    }

    /// The object as it is now; `None` if there is none.
    pub(super) async fn read(&self, target: &ObjectRef) -> Result<Option<Live>, Failure> {
        let request = route(target)?.get(&target.name, &Default::default()).map_err(Failure::Build)?;
        let (status, answer) = self.send(target.kind, Verb::Read, request).await?;
        match status {
            404 => Ok(None),
            200 => object(target.kind, answer).map(Some),
            status => Err(refusal(target.kind, status, &answer)),
        }
    }

    /// Uid and generation of an owner as it is now; `None` if there is none.
    pub(super) async fn generation(&self, owner: &Owner, plural: &str) -> Result<Option<(String, i64)>, Failure> {
        let place = format!("/apis/{}/namespaces/{}/{plural}", owner.api_version, owner.namespace);
        let request = Request::new(place).get_metadata(&owner.name, &Default::default()).map_err(Failure::Build)?;
        let (status, answer) = answered(&self.client, request).await.map_err(Failure::Transport)?;
        let answer = parsed(&answer);
        match status {
            404 => Ok(None),
            200 => {
                let uid = answer["metadata"]["uid"].as_str().ok_or(Failure::Unreadable)?;
                Ok(Some((uid.to_owned(), answer["metadata"]["generation"].as_i64().unwrap_or_default())))
            }
            status => Err(refused(status, &answer, true)),
        }
    }

    /// Hands over the objects of one page of a list of those whose labels match, in one namespace or in all. As text, because a tree of JSON takes ten
    /// times the space. Returns where the next page begins; `None`: there is none.
    pub(super) async fn list(
        &self,
        kind: &'static Kind,
        namespace: Option<&str>,
        selector: &str,
        page: Page<'_>,
        mut each: impl FnMut(Listed<'_>),
    ) -> Result<Option<String>, Failure> {
        let mut after = page.after.map(str::to_owned);
        loop {
            let mut params =
                ListParams::default().labels(selector).limit(u32::try_from(page.limit).unwrap_or(u32::MAX));
            params.continue_token.clone_from(&after);
            let request = Request::new(kind.url(namespace)).list(&params).map_err(Failure::Build)?;
            let (status, answer) = self.exchange(kind, Verb::List, request).await?;
            if status == 410 {
                // The state that the list began with is no longer kept. The answer tells how to go on with the present one.
                // <https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks>
                let answer = parsed(&answer);
                let next = answer["metadata"]["continue"].as_str().map(str::to_owned);
                if next.is_some() && next != after {
                    after = next;
                    continue;
                }
            }
            if status != 200 {
                return Err(refusal(kind, status, &parsed(&answer)));
            }
            let list: List<'_> = serde_json::from_slice(&answer).map_err(|_| Failure::Unreadable)?;
            for item in list.items {
                let Item { metadata } = serde_json::from_str(item.get()).map_err(|_| Failure::Unreadable)?;
                let text = item.get().as_bytes();
                let is_shared = answer.len() <= SHARED;
                let text = if is_shared { answer.slice_ref(text) } else { Bytes::copy_from_slice(text) };
                each(Listed { metadata, text });
            }
            return Ok(list.metadata.next.filter(|next| !next.is_empty()));
        }
    }

    /// Creates the object. `None`: there is one already; it was not touched.
    pub(super) async fn create(&self, target: &ObjectRef, mut body: Value) -> Result<Option<Live>, Failure> {
        let (status, answer) = if target.kind.is_verbatim {
            self.post(target, &body).await?
        } else {
            path::put(&mut body, "metadata.resourceVersion", NEVER_A_VERSION.into());
            self.apply(target, Verb::Create, &body, false).await?
        };
        match status {
            201 => object(target.kind, answer).map(Some),
            409 => Ok(None),
            status => Err(refusal(target.kind, status, &answer)),
        }
    }

    /// Makes the object with this uid contain `body`, whoever has set its fields, and drops the fields that we applied before and `body` lacks.
    /// With a version: not if the object has another one.
    pub(super) async fn update(
        &self,
        target: &ObjectRef,
        mut body: Value,
        uid: &str,
        version: Option<&str>,
    ) -> Result<Live, Failure> {
        path::put(&mut body, "metadata.uid", uid.into());
        if let Some(version) = version {
            path::put(&mut body, "metadata.resourceVersion", version.into());
        }
        let (status, answer) = self.apply(target, Verb::Update, &body, true).await?;
        match status {
            200 => object(target.kind, answer),
            status => Err(refusal(target.kind, status, &answer)),
        }
    }

    /// Replaces what is at a path of `live` ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)), or removes it (`None`): not if it has changed meanwhile.
    pub(super) async fn replace(
        &self,
        target: &ObjectRef,
        live: &Live,
        pointer: &str,
        value: Option<&Value>,
    ) -> Result<Live, Failure> {
        let operation = match value {
            Some(value) => json!({"op": "replace", "path": pointer, "value": value}),
            None => json!({"op": "remove", "path": pointer}),
        };
        let guard = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": live.resource_version()});
        let operations = serde_json::from_value(json!([guard, operation])).map_err(|_| Failure::Unreadable)?;
        let params = PatchParams {
            field_manager: Some(self.manager.to_owned()),
            dry_run: self.is_rehearsal,
            ..PatchParams::default()
        };
        let patch = Patch::<()>::Json(operations);
        let request = route(target)?.patch(&target.name, &params, &patch).map_err(Failure::Build)?;
        let (status, answer) = self.send(target.kind, Verb::Update, request).await?;
        match status {
            200 => object(target.kind, answer),
            status => Err(refusal(target.kind, status, &answer)),
        }
    }

    /// Deletes exactly `live`: not if it has changed, not another of the same name.
    pub(super) async fn delete(&self, target: &ObjectRef, live: &Live) -> Result<Deleted, Failure> {
        let params = DeleteParams {
            dry_run: self.is_rehearsal,
            propagation_policy: Some(match target.kind.deletion {
                Deletion::Background => PropagationPolicy::Background,
                Deletion::Foreground => PropagationPolicy::Foreground,
            }),
            preconditions: Some(Preconditions {
                uid: Some(live.uid().to_owned()),
                resource_version: Some(live.resource_version().to_owned()),
            }),
            ..DeleteParams::default()
        };
        let request = route(target)?.delete(&target.name, &params).map_err(Failure::Build)?;
        let (status, answer) = self.send(target.kind, Verb::Delete, request).await?;
        match status {
            404 => Ok(Deleted::Gone),
            200 | 202 if answer["metadata"]["deletionTimestamp"].is_null() => Ok(Deleted::Gone),
            200 | 202 => object(target.kind, answer).map(Deleted::Leaving),
            status => Err(refusal(target.kind, status, &answer)),
        }
    }

    async fn post(&self, target: &ObjectRef, body: &Value) -> Result<(u16, Value), Failure> {
        let params = PostParams { field_manager: Some(self.manager.to_owned()), dry_run: self.is_rehearsal };
        let request = route(target)?.create(&params, body.to_string().into_bytes()).map_err(Failure::Build)?;
        self.send(target.kind, Verb::Create, request).await
    }

    /// Strict validation would have the API server read the body twice, for keys that stand there twice, which no [`Value`] has; of unknown fields
    /// an apply complains in any case.
    async fn apply(&self, target: &ObjectRef, verb: Verb, body: &Value, force: bool) -> Result<(u16, Value), Failure> {
        let params = PatchParams {
            force,
            field_manager: Some(self.manager.to_owned()),
            field_validation: Some(ValidationDirective::Ignore),
            dry_run: self.is_rehearsal,
        };
        let request = route(target)?.patch(&target.name, &params, &Patch::Apply(body)).map_err(Failure::Build)?;
        self.send(target.kind, verb, request).await
    }

    /// The status and, where there is one, the JSON of the answer.
    async fn send(
        &self,
        kind: &'static Kind,
        verb: Verb,
        request: http::Request<Vec<u8>>,
    ) -> Result<(u16, Value), Failure> {
        let (status, answer) = self.exchange(kind, verb, request).await?;
        Ok((status, parsed(&answer)))
    }

    async fn exchange(
        &self,
        kind: &'static Kind,
        verb: Verb,
        request: http::Request<Vec<u8>>,
    ) -> Result<(u16, Bytes), Failure> {
        let answer = answered(&self.client, request).await;
        self.observer.requested(kind, verb, answer.as_ref().map_or(0, |(status, _)| *status));
        answer.map_err(Failure::Transport)
    }
}

async fn answered(client: &Client, request: http::Request<Vec<u8>>) -> Result<(u16, Bytes), kube::Error> {
    let response = client.send(request.map(Body::from)).await?;
    Ok((response.status().as_u16(), response.into_body().collect_bytes().await?))
}

/// A part of a list.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    /// Objects at most.
    pub(super) limit: usize,
    /// Where it begins, as the page before said; `None`: it is the first.
    pub(super) after: Option<&'a str>,
}

/// A list whose items are still text.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// An object of a list.
pub(super) struct Listed<'a> {
    pub(super) metadata: Identity<'a>,
    /// JSON, without `apiVersion` and `kind`.
    pub(super) text: Bytes,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    metadata: Identity<'a>,
}

/// Which state of which object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity<'a> {
    #[serde(borrow)]
    pub(super) namespace: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) uid: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) resource_version: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// `Null` if it is none.
fn parsed(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_default()
}

/// Names come from manifests, too. One that would end the path, or lead elsewhere, is no name.
fn route(target: &ObjectRef) -> Result<Request, Failure> {
    let has_place = target.kind.is_cluster_wide || is_segment(&target.namespace);
    if has_place && is_segment(&target.name) {
        return Ok(Request::new(target.kind.url(Some(&target.namespace))));
    }
    let why = format!("{target} has a name that no object can have");
    Err(Failure::Build(kube::core::request::Error::Validation(why)))
}

/// Whether it is one part of a path, as it stands.
fn is_segment(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    !name.is_empty() && name.bytes().all(is_plain) && name != "." && name != ".."
}

fn object(kind: &'static Kind, answer: Value) -> Result<Live, Failure> {
    if answer["metadata"]["uid"].is_string() { Ok(Live::new(kind, answer)) } else { Err(Failure::Unreadable) }
}

/// Missing rights and quotas are told in full; whoever denies a Secret for what is in it may quote it.
fn refusal(kind: &Kind, code: u16, answer: &Value) -> Failure {
    let is_denial = answer["message"].as_str().is_some_and(|message| message.contains("denied"));
    refused(code, answer, kind != kinds::SECRET || code == 404 || code == 403 && !is_denial)
}

/// `is_quotable`: its words may be repeated.
fn refused(code: u16, answer: &Value, is_quotable: bool) -> Failure {
    let Ok(status) = serde_json::from_value::<Status>(answer.clone()) else {
        return Failure::Api { code, message: "without an explanation".to_owned(), fields: Vec::new() };
    };
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let fields: Vec<String> =
        causes.iter().map(|cause| cause.field.clone()).filter(|field| !field.is_empty()).collect();
    let message = if is_quotable {
        api_error::shortened(&status.message)
    } else {
        api_error::shortened(&format!("{} {}", status.reason, fields.join(", ")))
    };
    Failure::Api { code, message, fields }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(message: &str) -> Value {
        json!({
            "kind": "Status", "status": "Failure", "code": 422, "reason": "Invalid", "message": message,
            "details": {"causes": [{"reason": "FieldValueInvalid", "message": message, "field": "data[tls.key]"}]},
        })
    }

    #[test]
    fn a_refusal_of_a_secret_names_fields_and_quotes_nothing() {
        let failure = refusal(kinds::SECRET, 422, &status("Invalid value: planted"));
        assert_eq!(failure.to_string(), "422 Invalid data[tls.key]");
        assert!(!format!("{failure:?}").contains("planted"));
    }

    #[test]
    fn missing_rights_to_a_secret_are_told_and_a_denial_is_not() {
        let rights =
            json!({"status": "Failure", "reason": "Forbidden", "message": "User x cannot patch resource secrets"});
        assert_eq!(refusal(kinds::SECRET, 403, &rights).to_string(), "403 User x cannot patch resource secrets");
        let denial =
            json!({"status": "Failure", "reason": "Forbidden", "message": "webhook denied the request: planted"});
        assert_eq!(refusal(kinds::SECRET, 403, &denial).to_string(), "403 Forbidden");
    }

    #[test]
    fn a_refusal_of_anything_else_is_passed_on_in_full() {
        let failure = refusal(kinds::SERVICE, 422, &status("port is already allocated"));
        assert_eq!(failure.to_string(), "422 port is already allocated");
    }

    #[test]
    fn a_refusal_is_one_line_of_bounded_length() {
        for kind in [kinds::SERVICE, kinds::SECRET] {
            let words = refusal(kind, 403, &status(&"no\n".repeat(9_000))).to_string();
            assert!(words.chars().count() < 450 && !words.contains('\n'), "{words}");
        }
    }

    #[test]
    fn an_answer_that_is_no_status_is_not_shown() {
        let failure = refusal(kinds::SERVICE, 502, &Value::Null);
        assert_eq!(failure.to_string(), "502 without an explanation");
    }
}
