//! An API server in a map, for tests of whole passes: it keeps what is written, tells what was asked, and refuses what a test says. Just enough of
//! Kubernetes for one registry: an apply merges, and nobody else writes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use kube::runtime::watcher::Event;
use operator_engine::apply::{Engine, Memory};
use operator_engine::work::events::Events;
use operator_engine::work::followed::Guarded;
use operator_engine::work::installations::Installations;
use operator_engine::work::queue::{Key, Queue};
use operator_engine::work::references::References;
use operator_engine::work::rounds::Rounds;
use operator_engine::work::store::Objects;
use operator_engine::work::watches::{Meta, Scope};
use serde_json::{Value, json};

use super::MARKS;
use crate::desired::kinds;
use crate::metrics::Metrics;
use crate::model::Settings;
use crate::parts::Context;
use crate::parts::certificate::Requests;
use crate::parts::context::Recall;
use crate::parts::elsewhere::accepting::Accepting;
use crate::parts::trust::reports::Reports;
use crate::parts::workload::{Answers, Hearings};

pub(super) const OURS: &str = "ours/o";

/// A context of the installation [`OURS`] with this client.
pub(super) fn context(client: Client) -> Context {
    let memory = Arc::new(Memory::new(MARKS));
    let (metrics, engine_metrics) = Metrics::new(&crate::PROGRAM);
    let installations = Installations::new(Duration::from_secs(60));
    installations.call_ourselves(OURS.to_owned());
    Context {
        engine: Engine::new(client.clone(), memory.clone(), MARKS, Arc::new(())),
        memory,
        registries: Arc::new(Objects::default()),
        settings: Settings::default(),
        events: Events::new(client.clone(), "operator", "one", engine_metrics.clone()),
        metrics,
        engine_metrics,
        recall: Recall::default(),
        answers: Answers::default(),
        hearings: Hearings::default(),
        client,
        queue: Queue::default(),
        rounds: Rounds::default(),
        references: References::default(),
        requests: Requests::default(),
        accepting: Accepting::default(),
        reports: Reports::default(),
        installations,
    }
}

/// The API server.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<Store>>);

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    version: u64,
    is_trying: bool,
    /// Requests about anything but events, in order.
    asked: Vec<String>,
    /// The number of the request that is refused, and with what.
    refuses: Option<(usize, u16)>,
    /// What is refused each time.
    never: Option<(String, u16)>,
    /// The Secret that cannot be read.
    hidden: Option<String>,
    /// In how many seconds tokens of ServiceAccounts end that are given.
    tokens: i64,
}

const REGISTRIES: &str = "/apis/privateregistry.dev/v1alpha1/namespaces/n/privateregistries";
const SECRETS: &str = "/api/v1/namespaces/n/secrets";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const PODS: &str = "/api/v1/namespaces/n/pods";

impl Server {
    pub(super) fn client(&self) -> Client {
        let store = self.0.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let store = store.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = serde_json::from_slice(&body.collect_bytes().await?).unwrap_or_default();
                let (code, answer) = store.lock().unwrap().answer(&head, &body);
                let answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, kube::Error>(answer.unwrap())
            }
        });
        Client::new(service, "n")
    }

    /// The registry `n/team-a` of this spec, made by a user, and seen by the operator.
    pub(super) fn has_registry(&self, spec: &Value, ctx: &Context) {
        let metadata = json!({"name": "team-a", "namespace": "n", "generation": 1});
        let (api_version, kind) = ("privateregistry.dev/v1alpha1", "PrivateRegistry");
        let registry = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec});
        self.put(&format!("{REGISTRIES}/team-a"), registry);
        self.is_seen(ctx);
    }

    /// A user changes the registry.
    pub(super) fn edit_registry(&self, ctx: &Context, change: impl FnOnce(&mut Value)) {
        let path = format!("{REGISTRIES}/team-a");
        let before = self.get(&path).unwrap();
        let mut registry = before.clone();
        change(&mut registry);
        if registry["spec"] != before["spec"] {
            let generation = registry["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
            registry["metadata"]["generation"] = generation.into();
        }
        self.put(&path, registry);
        self.is_seen(ctx);
    }

    /// The watch of registries shows it as it is.
    fn is_seen(&self, ctx: &Context) {
        let registry = self.get(&format!("{REGISTRIES}/team-a")).unwrap();
        let registry = serde_json::from_value(registry).unwrap();
        ctx.registries.apply(&Scope::All, Event::Apply(Guarded::Known(registry)));
    }

    /// A user's Secret, as the watch of Secrets shows it.
    pub(super) fn has_secret(&self, name: &str, data: &Value, ctx: &Context) {
        let secret = json!({"metadata": {"name": name, "namespace": "n"}, "type": "Opaque", "data": data});
        let secret = self.put(&format!("{SECRETS}/{name}"), secret);
        ctx.memory.seen(kinds::SECRET, &serde_json::from_value(secret["metadata"].clone()).unwrap());
    }

    /// A signer of the cluster signs what it was asked, as the watch of requests shows it.
    pub(super) fn signs(&self, ctx: &Context) {
        let state = self.state();
        let asked = state.keys().find(|path| path.starts_with(REQUESTS)).expect("a signer was asked");
        let mut request = self.get(asked).unwrap();
        let pem = STANDARD.decode(request["spec"]["request"].as_str().unwrap()).unwrap();
        let mut company = rcgen::CertificateParams::default();
        company.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let company = rcgen::CertifiedIssuer::self_signed(company, rcgen::KeyPair::generate().unwrap()).unwrap();
        let params = rcgen::CertificateSigningRequestParams::from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
        let chain = params.signed_by(&company).unwrap().pem() + &company.pem();
        request["status"] = json!({"certificate": STANDARD.encode(chain)});
        ctx.requests.seen(&serde_json::from_value::<Meta>(self.put(asked, request)).unwrap());
    }

    /// A pod of the registry that runs.
    pub(super) fn has_pod(&self, name: &str) {
        let labels = json!({"privateregistry.dev/registry": "team-a"});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n", "labels": labels},
            "spec": {"containers": []}, "status": {"phase": "Running"},
        });
        self.put(&format!("{PODS}/{name}"), pod);
    }

    fn put(&self, path: &str, object: Value) -> Value {
        self.0.lock().unwrap().put(path, object)
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// Requests since the last call.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    /// Of the requests to come, the one of this number, from 0, is refused so.
    pub(super) fn refuses(&self, number: usize, code: u16) {
        let mut store = self.0.lock().unwrap();
        store.refuses = Some((store.asked.len() + number, code));
    }

    /// From now on, writes to paths that end so are refused.
    pub(super) fn always_refuses(&self, path: &str, code: u16) {
        self.0.lock().unwrap().never = Some((path.to_owned(), code));
    }

    /// Nothing is refused any more.
    pub(super) fn refuses_nothing(&self) {
        self.0.lock().unwrap().never = None;
    }

    /// The Secret of this name cannot be read.
    pub(super) fn hides(&self, name: &str) {
        self.0.lock().unwrap().hidden = Some(format!("{SECRETS}/{name}"));
    }

    /// Tokens of ServiceAccounts end so many seconds from now, by the operator's clock.
    pub(super) fn gives_tokens_for(&self, seconds: i64) {
        self.0.lock().unwrap().tokens = seconds;
    }

    /// A Secret as it is.
    pub(super) fn secret(&self, name: &str) -> Option<Value> {
        self.get(&format!("{SECRETS}/{name}"))
    }

    /// Somebody changes a Secret, as the watch of Secrets shows it.
    pub(super) fn edit_secret(&self, name: &str, ctx: &Context, change: impl FnOnce(&mut Value)) {
        let mut secret = self.secret(name).unwrap();
        change(&mut secret);
        let secret = self.put(&format!("{SECRETS}/{name}"), secret);
        ctx.memory.seen(kinds::SECRET, &serde_json::from_value(secret["metadata"].clone()).unwrap());
    }

    /// Whether the one that [`Server::refuses`] named was refused.
    pub(super) fn has_refused(&self) -> bool {
        self.0.lock().unwrap().refuses.is_none()
    }

    /// What is there, without what differs from one run to the next.
    pub(super) fn state(&self) -> BTreeMap<String, Value> {
        let store = self.0.lock().unwrap();
        let lasting = |object: &Value| {
            let mut object = object.clone();
            for field in ["uid", "resourceVersion", "ownerReferences", "managedFields"] {
                object["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
            }
            object
        };
        store.objects.iter().map(|(path, object)| (path.clone(), lasting(object))).collect()
    }
}

fn refusal(code: u16) -> (u16, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "refused"}))
}

/// What an apply, or a merge patch, makes of an object.
fn merge(live: &mut Value, patch: &Value) {
    match (live, patch) {
        (Value::Object(live), Value::Object(patch)) => {
            for (name, value) in patch {
                match value {
                    Value::Null => _ = live.remove(name),
                    value => merge(live.entry(name).or_insert(Value::Null), value),
                }
            }
        }
        (live, patch) => *live = patch.clone(),
    }
}

impl Store {
    /// Stores the object, unless it is only tried.
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = format!("uid-{}", self.version).into();
            metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        metadata["resourceVersion"] = (100 + self.version).to_string().into();
        if !self.is_trying {
            self.objects.insert(path.to_owned(), object.clone());
        }
        object
    }

    /// A token of a ServiceAccount.
    fn token(&self, account: &str, request: &Value) -> Value {
        let now = jiff::Timestamp::now().as_second();
        let name = account.rsplit_once('/').unwrap().1;
        let claims = json!({
            "iss": "https://cluster", "aud": request["spec"]["audiences"], "iat": now + self.tokens - 14_400, "exp": now + self.tokens,
            "sub": format!("system:serviceaccount:n:{name}"),
            "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": name, "uid": "u"}},
        });
        let part = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!("{}.{}.{}", part(json!({"alg": "RS256"})), part(claims), part(json!("signature")));
        let end = jiff::Timestamp::from_second(now + self.tokens).unwrap();
        json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": request["spec"],
            "status": {"token": token, "expirationTimestamp": end.to_string()},
        })
    }

    fn answer(&mut self, head: &http::request::Parts, body: &Value) -> (u16, Value) {
        let path = head.uri.path();
        self.is_trying = head.uri.query().is_some_and(|query| query.contains("dryRun=All"));
        if path.starts_with("/apis/events.k8s.io") {
            return (201, body.clone());
        }
        let number = self.asked.len();
        self.asked.push(format!("{} {path}", head.method));
        if let Some((_, code)) = self.refuses.take_if(|(refused, _)| *refused == number) {
            return refusal(code);
        }
        if let Some((_, code)) =
            self.never.as_ref().filter(|(end, _)| head.method != Method::GET && path.ends_with(end))
        {
            return refusal(*code);
        }
        if head.method == Method::GET && self.hidden.as_deref() == Some(path) {
            return refusal(500);
        }
        if let Some(account) = path.strip_suffix("/token") {
            return (201, self.token(account, body));
        }
        let (path, is_status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
        let live = self.objects.get(path).cloned();
        match (&head.method, live) {
            (&Method::GET, None) if path == PODS => {
                let pods: Vec<_> =
                    self.objects.iter().filter(|(path, _)| path.starts_with(PODS)).map(|(_, pod)| pod).collect();
                (200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods}))
            }
            (&Method::GET, Some(live)) => (200, live),
            (&Method::GET | &Method::DELETE, None) => refusal(404),
            (&Method::DELETE, Some(_)) => {
                self.objects.remove(path);
                (200, json!({"kind": "Status", "status": "Success"}))
            }
            (&Method::POST, _) => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&path) { refusal(409) } else { (201, self.put(&path, body.clone())) }
            }
            (&Method::PATCH, Some(mut live)) if body.is_array() => {
                for operation in body.as_array().into_iter().flatten() {
                    let (at, name) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
                    let fields = match live.pointer_mut(at) {
                        Some(Value::Object(fields)) => fields,
                        Some(Value::Array(items)) => {
                            items.remove(name.parse().unwrap());
                            continue;
                        }
                        _ => return refusal(422),
                    };
                    match operation["op"].as_str() {
                        Some("remove") => _ = fields.remove(name),
                        _ if name == "resourceVersion" && fields[name] != operation["value"] => return refusal(409),
                        _ => _ = fields.insert(name.to_owned(), operation["value"].clone()),
                    }
                }
                (200, self.put(path, live))
            }
            (&Method::PATCH, Some(_)) if body.pointer("/metadata/resourceVersion") == Some(&"1".into()) => refusal(409),
            (&Method::PATCH, live) => {
                let code = if live.is_some() { 200 } else { 201 };
                let mut object = live.unwrap_or_default();
                if is_status {
                    // An apply takes away what was applied before, and the question of another operator never was.
                    if head.headers["content-type"] == "application/apply-patch+yaml" {
                        let asked = object["status"]["operatorAsked"].take();
                        object["status"] = if asked.is_null() { json!({}) } else { json!({"operatorAsked": asked}) };
                    }
                    let status = body["status"].clone();
                    merge(&mut object["status"], &status);
                } else {
                    // Keys that are no longer applied go.
                    let applied = head.headers["content-type"] == "application/apply-patch+yaml";
                    if let Some(data) = object.get_mut("data").filter(|_| applied && body["data"].is_object()) {
                        *data = json!({});
                    }
                    merge(&mut object, body);
                }
                (code, self.put(path, object))
            }
            (method, _) => panic!("{method} {path}"),
        }
    }
}

/// The registry of these tests.
pub(super) fn key() -> Key {
    Key::new("n", "team-a")
}
