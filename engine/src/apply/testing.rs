//! An API server in memory, for tests: get, post, apply with field managers and uid, delete with preconditions. It can be told to do something of its own just
//! before a request, which is how races are made.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use kube::core::ObjectMeta;
use serde_json::{Map, Value, json};

use super::kinds::{
    CONFIG_MAP, DEPLOYMENT, JOB, Kind, Kinds, PERSISTENT_VOLUME_CLAIM, POD_DISRUPTION_BUDGET, SECRET, SERVICE,
    SERVICE_ACCOUNT,
};
use super::memory::{Memory, Notice};
use super::wanted::{Child, Hold};
use super::{Applied, Engine, Error, ObjectRef, Owner, path};
use crate::metrics::Metrics;
use crate::process::gate::Gate;
use crate::testing::PROGRAM;

pub(super) use crate::testing::MARKS;

pub(super) const KINDS: Kinds = Kinds(&[
    SERVICE_ACCOUNT,
    SERVICE,
    PERSISTENT_VOLUME_CLAIM,
    SECRET,
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    POD_DISRUPTION_BUDGET,
]);

pub(super) fn owner() -> Owner {
    Owner {
        api_version: "test.dev/v1".into(),
        kind: "Thing".into(),
        namespace: "registries".into(),
        name: "team-a".into(),
        uid: "uid-a".into(),
        generation: None,
    }
}

/// Whose child a notice says it is.
pub(super) fn team_a() -> Option<(String, String)> {
    Some(("registries".to_owned(), "team-a".to_owned()))
}

pub(super) fn child(kind: &'static Kind, name: &str, hold: Hold, body: Value) -> Child {
    Child { kind, namespace: None, name: name.into(), hold, body }
}

pub(super) fn config(text: &str) -> Child {
    child(CONFIG_MAP, "team-a-ca", Hold::Disposable, json!({"data": {"ca.crt": text}}))
}

pub(super) fn secret(hold: Hold) -> Child {
    child(SECRET, "team-a-ca", hold, json!({"type": "Opaque", "data": {"tls.key": "cGxhbnRlZA=="}}))
}

pub(super) fn service() -> Child {
    let ports = json!([{"name": "registry", "port": 5000, "targetPort": 5000}]);
    child(SERVICE, "team-a", Hold::Disposable, json!({"spec": {"type": "ClusterIP", "ports": ports}}))
}

pub(super) fn deployment(image: &str) -> Child {
    let template = json!({"spec": {"containers": [{"name": "registry", "image": image}]}});
    child(DEPLOYMENT, "team-a", Hold::Disposable, json!({"spec": {"replicas": 1, "template": template}}))
}

pub(super) fn job(image: &str) -> Child {
    let template = json!({"spec": {"containers": [{"name": "registry", "image": image}]}});
    child(JOB, "team-a", Hold::Disposable, json!({"spec": {"backoffLimit": 1, "template": template}}))
}

impl Engine {
    /// Applies children one after the other, in the order of their kinds. The results are in the order of `children`.
    pub(super) async fn apply_all(&self, owner: &Owner, children: &[Child]) -> Result<Vec<Applied>, Error> {
        let mut order: Vec<usize> = (0..children.len()).collect();
        order.sort_by_key(|&index| children[index].kind);
        let mut applied: Vec<_> = children.iter().map(|_| None).collect();
        for index in order {
            applied[index] = Some(self.apply(owner, &children[index]).await?);
        }
        Ok(applied.into_iter().flatten().collect())
    }
}

type Interruption = Box<dyn FnOnce(&mut Store) + Send>;

/// Changes an object on its way in, before it is stored; managedFields say nothing of it. The second argument tells whether the object is new.
type Admission = Box<dyn Fn(&mut Value, bool) + Send>;

/// A server and the engine that talks to it.
pub(super) struct Cluster {
    store: Arc<Mutex<Store>>,
    pub(super) memory: Arc<Memory>,
    pub(super) engine: Engine,
}

#[derive(Default)]
pub(super) struct Store {
    objects: BTreeMap<String, Value>,
    /// What each manager applied last: (url, manager) to body.
    applied: BTreeMap<(String, String), Value>,
    /// What each manager posted, until its entry is turned into one of an apply.
    posted: BTreeMap<(String, String), Value>,
    counter: u64,
    requests: Vec<String>,
    interruptions: Vec<Interruption>,
    admission: Option<Admission>,
    fail_with: Option<u16>,
    lose_answer: bool,
    /// How often the history was thrown away.
    compacted: u64,
    /// Objects in answers to lists.
    listed: usize,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let store = Arc::new(Mutex::new(Store { counter: 100, ..Store::default() }));
        let (memory, engine) = operator(&store);
        Self { store, memory, engine }
    }

    /// The operator starts again: nothing is remembered, and the watches list every object.
    pub(super) fn restart_operator(&mut self) {
        (self.memory, self.engine) = operator(&self.store);
        for kind in KINDS.iter() {
            self.memory.relist_started(kind, None);
            for object in self.store.lock().unwrap().objects.values().filter(|object| object["kind"] == kind.kind) {
                self.memory.seen(kind, &metadata(object));
            }
            assert!(self.memory.relisted(kind, None).is_empty());
        }
    }

    /// The requests since the last call, for example `create Secret/a 201`.
    pub(super) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.store.lock().unwrap().requests)
    }

    pub(super) fn get(&self, kind: &Kind, name: &str) -> Option<Value> {
        self.store.lock().unwrap().objects.get(&url(kind, name)).cloned()
    }

    /// Somebody makes an object.
    pub(super) fn put(&self, kind: &Kind, name: &str, object: Value) {
        self.store.lock().unwrap().put(kind, name, object);
    }

    /// The owner is now as if its manifest had been changed so often.
    pub(super) fn owner_has(&self, uid: &str, generation: i64) {
        let url = format!("/apis/test.dev/v1/namespaces/registries/things/{}", owner().name);
        let owner = json!({"metadata": {"uid": uid, "generation": generation}});
        self.store.lock().unwrap().objects.insert(url, owner);
    }

    /// Somebody changes an object, and the watch tells.
    pub(super) fn edit(&self, kind: &'static Kind, name: &str, change: impl FnOnce(&mut Value)) -> Notice {
        self.store.lock().unwrap().edit(kind, name, change);
        self.tell(kind, name)
    }

    /// A manager writes a field, or takes it away, and the watch tells.
    pub(super) fn edit_as(&self, manager: &str, kind: &'static Kind, name: &str, at: &str, value: Option<Value>) {
        self.edit(kind, name, |object| {
            let fields = at.rsplit('.').fold(json!({}), |below, field| json!({format!("f:{field}"): below}));
            let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            let time = format!("2026-01-01T00:{:02}:{:02}Z", version / 60 % 60, version % 60);
            let entry = json!({"manager": manager, "operation": "Update", "time": time, "fieldsV1": fields});
            let entries = object["metadata"]["managedFields"].as_array_mut().unwrap();
            entries.retain(|entry| entry["manager"] != manager);
            match value {
                Some(value) => {
                    entries.push(entry);
                    set(object, at, value);
                }
                None => {
                    let (parent, field) = at.rsplit_once('.').unwrap();
                    let pointer = format!("/{}", parent.replace('.', "/"));
                    object.pointer_mut(&pointer).unwrap().as_object_mut().unwrap().remove(field);
                }
            }
        });
    }

    /// A field is changed while somebody writes something else: nobody becomes its manager. The watch tells.
    pub(super) fn amend(&self, kind: &'static Kind, name: &str, at: &str, value: Value) {
        let mut store = self.store.lock().unwrap();
        let version = store.next().to_string();
        let object = store.objects.get_mut(&url(kind, name)).unwrap();
        set(object, at, value);
        object["metadata"]["resourceVersion"] = json!(version);
        drop(store);
        self.tell(kind, name);
    }

    /// From now on, everything that is written goes through `admission`.
    pub(super) fn admit(&self, admission: impl Fn(&mut Value, bool) + Send + 'static) {
        self.store.lock().unwrap().admission = Some(Box::new(admission));
    }

    /// The watch tells of an object as it is now.
    pub(super) fn tell(&self, kind: &'static Kind, name: &str) -> Notice {
        self.memory.seen(kind, &metadata(&self.get(kind, name).unwrap()))
    }

    /// Somebody deletes an object, and the watch tells.
    pub(super) fn delete(&self, kind: &'static Kind, name: &str) -> Notice {
        let object = self.store.lock().unwrap().objects.remove(&url(kind, name)).unwrap();
        self.memory.gone(kind, &metadata(&object))
    }

    /// Does something to the store just before the nth request from now (0: the next).
    pub(super) fn interrupt(&self, nth: usize, action: impl FnOnce(&mut Store) + Send + 'static) {
        let mut store = self.store.lock().unwrap();
        store.interruptions.resize_with(nth, || Box::new(|_| {}));
        store.interruptions.push(Box::new(action));
    }

    pub(super) fn fail_next(&self, status: u16) {
        self.store.lock().unwrap().fail_with = Some(status);
    }

    pub(super) fn lose_next_answer(&self) {
        self.store.lock().unwrap().lose_answer = true;
    }

    /// The server throws its history away.
    pub(super) fn compact(&self) {
        self.store.lock().unwrap().compacted += 1;
    }

    /// Objects that lists have shown since the last call.
    pub(super) fn listed(&self) -> usize {
        std::mem::take(&mut self.store.lock().unwrap().listed)
    }

    /// From now on requests pass through the gate, as they do in the process.
    pub(super) fn guard(&mut self) {
        let gate = Gate {
            fence: None,
            header_limit: Duration::from_secs(10),
            concurrency: 16,
            metrics: Metrics::new(&PROGRAM, |_| ()),
        };
        let client = gate.guard(client(&self.store));
        self.engine = Engine::new(client, self.memory.clone(), MARKS, Arc::new(()));
    }
}

fn operator(store: &Arc<Mutex<Store>>) -> (Arc<Memory>, Engine) {
    let memory = Arc::new(Memory::new(MARKS));
    (memory.clone(), Engine::new(client(store), memory, MARKS, Arc::new(())))
}

fn client(store: &Arc<Mutex<Store>>) -> Client {
    let store = store.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let store = store.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await.unwrap();
            let (status, answer) = store.lock().unwrap().handle(&parts, &body);
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

/// Where an object is: `namespace/name`, or a name in the owner's namespace.
fn url(kind: &Kind, name: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap_or(("registries", name));
    format!("{}/{name}", kind.url(Some(namespace)))
}

fn metadata(object: &Value) -> ObjectMeta {
    serde_json::from_value(object["metadata"].clone()).unwrap()
}

fn failure(status: u16, message: &str) -> (u16, Value) {
    (status, json!({"kind": "Status", "status": "Failure", "code": status, "message": message, "reason": "X"}))
}

impl Store {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    pub(super) fn put(&mut self, kind: &Kind, name: &str, mut object: Value) {
        let (version, uid) = (self.next(), self.next());
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(kind.kind);
        for (field, value) in [
            ("name", json!(name)),
            ("namespace", json!("registries")),
            ("uid", json!(format!("uid-{uid}"))),
            ("resourceVersion", json!(version.to_string())),
        ] {
            object["metadata"][field] = value;
        }
        object["metadata"]["managedFields"] = json!([]);
        self.objects.insert(url(kind, name), object);
    }

    pub(super) fn edit(&mut self, kind: &Kind, name: &str, change: impl FnOnce(&mut Value)) {
        let version = self.next().to_string();
        let object = self.objects.get_mut(&url(kind, name)).unwrap();
        let before = object.clone();
        change(object);
        let after = object.clone();
        // Whoever changes a field takes it from those who had it.
        for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
            if before["metadata"]["managedFields"].as_array().is_some_and(|entries| entries.contains(entry)) {
                disown(entry, &before, &after);
            }
        }
        object["metadata"]["resourceVersion"] = json!(version);
    }

    pub(super) fn remove(&mut self, kind: &Kind, name: &str) {
        self.objects.remove(&url(kind, name)).unwrap();
    }

    fn handle(&mut self, parts: &http::request::Parts, body: &[u8]) -> (u16, Value) {
        if !self.interruptions.is_empty() {
            self.interruptions.remove(0)(self);
        }
        let mut url = parts.uri.path().to_owned();
        let query: BTreeMap<_, _> =
            parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let (verb, (status, answer)) = match (self.fail_with.take(), &parts.method) {
            (Some(status), _) => ("fail", failure(status, "denied: planted")),
            (None, &Method::GET) if query.contains_key("labelSelector") => ("list", self.list(&url, &query)),
            (None, &Method::GET) => ("read", self.read(&url)),
            (None, &Method::DELETE) => ("delete", self.delete(&url, &body)),
            (None, &Method::PATCH) if parts.headers[http::header::CONTENT_TYPE] == "application/json-patch+json" => {
                ("replace", self.patch(&url, query["fieldManager"], &body))
            }
            (None, &Method::POST) => {
                url = format!("{url}/{}", body["metadata"]["name"].as_str().unwrap());
                ("create", self.post(&url, query["fieldManager"], body))
            }
            (None, &Method::PATCH) => {
                let verb = if query.contains_key("force") { "update" } else { "create" };
                (verb, self.apply(&url, query["fieldManager"], verb == "update", body))
            }
            other => panic!("unexpected {other:?}"),
        };
        let kind = KINDS.iter().find(|kind| format!("{url}/").contains(&format!("/{}/", kind.plural)));
        let kind = kind.map_or(MARKS.owner_kind, |kind| kind.kind);
        self.requests.push(format!("{verb} {kind}/{} {status}", url.rsplit('/').next().unwrap()));
        if std::mem::take(&mut self.lose_answer) { failure(504, "timeout") } else { (status, answer) }
    }

    fn read(&self, url: &str) -> (u16, Value) {
        self.objects.get(url).map_or_else(|| failure(404, "not found"), |object| (200, object.clone()))
    }

    /// A page of the kind: one namespace is all there is, and every object has an owner.
    fn list(&mut self, url: &str, query: &BTreeMap<&str, &str>) -> (u16, Value) {
        let plural = format!("/{}/", url.rsplit('/').next().unwrap());
        let limit = query["limit"].parse().unwrap();
        // Where it begins, and what the store was like when the list began.
        let begin = query.get("continue").map(|token| token.split_once('.').unwrap());
        if let Some((after, _)) = begin.filter(|(_, state)| *state != self.compacted.to_string()) {
            let (status, mut answer) = failure(410, "the provided continue parameter is too old");
            answer["metadata"]["continue"] = json!(format!("{after}.{}", self.compacted));
            return (status, answer);
        }
        let after: usize = begin.map_or(0, |(after, _)| after.parse().unwrap());
        let all: Vec<_> = self.objects.iter().filter(|(url, _)| url.contains(&plural)).collect();
        let items: Vec<_> = all.iter().skip(after).take(limit).map(|(_, object)| (*object).clone()).collect();
        let end = after + items.len();
        let next = (end < all.len()).then(|| format!("{end}.{}", self.compacted));
        self.listed += items.len();
        (200, json!({"kind": "List", "metadata": {"continue": next}, "items": items}))
    }

    fn delete(&mut self, url: &str, options: &Value) -> (u16, Value) {
        let version = self.next().to_string();
        let Some(object) = self.objects.get_mut(url) else { return failure(404, "not found") };
        let wanted = &options["preconditions"];
        let is = |field: &str| wanted[field] == object["metadata"][field];
        if !is("uid") || !is("resourceVersion") {
            return failure(409, "precondition");
        }
        if options["propagationPolicy"] == "Foreground" {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            object["metadata"]["resourceVersion"] = json!(version);
            return (200, object.clone());
        }
        self.objects.remove(url);
        (200, json!({"kind": "Status", "status": "Success"}))
    }

    fn patch(&mut self, url: &str, manager: &str, operations: &Value) -> (u16, Value) {
        let version = self.next().to_string();
        let Some(object) = self.objects.get_mut(url) else { return failure(404, "not found") };
        for operation in operations.as_array().unwrap() {
            let pointer = operation["path"].as_str().unwrap();
            match (pointer, operation["op"].as_str().unwrap()) {
                ("/metadata/resourceVersion", _) if operation["value"] != object["metadata"]["resourceVersion"] => {
                    return failure(409, "the object has been modified");
                }
                (_, "remove") => {
                    let (list, index) = pointer.rsplit_once('/').unwrap();
                    object.pointer_mut(list).unwrap().as_array_mut().unwrap().remove(index.parse().unwrap());
                }
                _ => *object.pointer_mut(pointer).unwrap() = operation["value"].clone(),
            }
        }
        object["metadata"]["resourceVersion"] = json!(version);
        let (key, pointer) = ((url.to_owned(), manager.to_owned()), operations[1]["path"].as_str().unwrap());
        if pointer.ends_with("/operation") {
            let posted = self.posted.remove(&key).unwrap();
            self.applied.insert(key, posted);
        } else if pointer == "/spec" {
            let entry = json!({"manager": manager, "operation": "Update", "fieldsV1": {"f:spec": {}}});
            object["metadata"]["managedFields"].as_array_mut().unwrap().push(entry);
        }
        (200, object.clone())
    }

    fn post(&mut self, url: &str, manager: &str, body: Value) -> (u16, Value) {
        if self.objects.contains_key(url) {
            return failure(409, "already exists");
        }
        let (version, uid) = (self.next().to_string(), format!("uid-{}", self.next()));
        let mut object = body.clone();
        object["metadata"]["resourceVersion"] = json!(version);
        object["metadata"]["uid"] = json!(uid);
        object["metadata"]["managedFields"] =
            json!([{"manager": manager, "operation": "Update", "fieldsV1": sent_fields(&body)}]);
        if let Some(admission) = &self.admission {
            admission(&mut object, true);
        }
        self.objects.insert(url.to_owned(), object.clone());
        self.posted.insert((url.to_owned(), manager.to_owned()), body);
        (201, object)
    }

    fn apply(&mut self, url: &str, manager: &str, force: bool, mut body: Value) -> (u16, Value) {
        let guard = body["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let uid = body["metadata"].as_object_mut().unwrap().remove("uid");
        let existing = self.objects.get(url).cloned();
        match &existing {
            Some(object) if guard.as_ref().is_some_and(|guard| *guard != object["metadata"]["resourceVersion"]) => {
                return failure(409, "the object has been modified");
            }
            Some(object) if uid.as_ref().is_some_and(|uid| *uid != object["metadata"]["uid"]) => {
                let (status, mut answer) = failure(422, "field is immutable");
                answer["details"] = json!({"causes": [{"field": "metadata.uid"}]});
                return (status, answer);
            }
            None if uid.is_some() => return failure(409, "uid mismatch"),
            _ => {}
        }
        assert!(existing.is_none() || force, "a create may only reach an object with the guard");

        let is_new = existing.is_none();
        let before = existing.unwrap_or_else(|| json!({"metadata": {"uid": format!("uid-{}", self.counter)}}));
        let mut object = before.clone();
        let key = (url.to_owned(), manager.to_owned());
        if let Some(previous) = self.applied.insert(key, body.clone())
            && !is_new
        {
            take_back(&mut object, &previous, &body);
        }
        merge(&mut object, &body);
        let ports = object["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
        if ports.iter().enumerate().any(|(i, port)| ports[..i].iter().any(|other| other["name"] == port["name"])) {
            return failure(422, "duplicate port");
        }
        let mut managers = before["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        managers.retain(|entry| entry["manager"] != manager || entry["operation"] != "Apply");
        managers.push(json!({"manager": manager, "operation": "Apply", "fieldsV1": sent_fields(&body)}));
        managers
            .iter_mut()
            .filter(|entry| entry["manager"] != manager)
            .for_each(|entry| disown(entry, &before, &object));
        object["metadata"]["managedFields"] = json!(managers);
        if let Some(admission) = &self.admission {
            admission(&mut object, is_new);
        }
        let changes = |pointer: &str| !is_new && object.pointer(pointer) != before.pointer(pointer);
        if url.contains("/jobs/") && changes("/spec/template") || before["immutable"] == true && changes("/data") {
            return failure(422, "field is immutable");
        }

        if is_new || object != before {
            object["metadata"]["resourceVersion"] = json!(self.next().to_string());
        }
        self.objects.insert(url.to_owned(), object.clone());
        (if is_new { 201 } else { 200 }, object)
    }
}

const KEYS: [&str; 4] = ["port", "mountPath", "uid", "name"];

fn key_of(item: &Value) -> Option<(&'static str, Value)> {
    KEYS.iter().find_map(|key| item.get(key).map(|value| (*key, value.clone())))
}

fn merge(object: &mut Value, body: &Value) {
    match (&mut *object, body) {
        (Value::Object(object), Value::Object(body)) => {
            for (name, value) in body {
                merge(object.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(items), Value::Array(wanted)) if wanted.iter().all(|item| key_of(item).is_some()) => {
            for item in wanted {
                match items.iter_mut().find(|other| key_of(other) == key_of(item)) {
                    Some(found) => merge(found, item),
                    None => items.push(item.clone()),
                }
            }
        }
        (object, body) => *object = body.clone(),
    }
}

fn take_back(object: &mut Value, previous: &Value, body: &Value) {
    match (object, previous) {
        (Value::Object(object), Value::Object(previous)) => {
            for (name, value) in previous {
                match body.get(name) {
                    None => _ = object.remove(name),
                    Some(body) => {
                        if let Some(object) = object.get_mut(name) {
                            take_back(object, value, body);
                        }
                    }
                }
            }
        }
        (Value::Array(items), Value::Array(previous)) => {
            let wants = |item: &Value| body.as_array().unwrap().iter().any(|other| key_of(other) == key_of(item));
            items.retain(|item| wants(item) || !previous.iter().any(|other| key_of(other) == key_of(item)));
        }
        _ => {}
    }
}

/// Takes what has changed out of an entry of managedFields.
fn disown(entry: &mut Value, before: &Value, after: &Value) {
    if let Some(fields) = entry["fieldsV1"].as_object_mut() {
        keep_unchanged(fields, before, after);
    }
}

fn keep_unchanged(fields: &mut Map<String, Value>, before: &Value, after: &Value) {
    fields.retain(|key, below| {
        let step = |node: &Value| match key.split_at(2) {
            ("f:", name) => node.get(name).cloned(),
            (_, keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap();
                let is_it = |item: &&Value| keys.iter().all(|(key, value)| item.get(key) == Some(value));
                node.as_array().and_then(|items| items.iter().find(is_it)).cloned()
            }
        };
        match (step(before), step(after), below.as_object_mut()) {
            (_, None, _) => false,
            (Some(before), Some(after), Some(below)) if !below.is_empty() => {
                keep_unchanged(below, &before, &after);
                !below.is_empty()
            }
            (before, after, _) => before == after,
        }
    });
}

fn sent_fields(body: &Value) -> Value {
    let mut fields = body.clone();
    fields.as_object_mut().unwrap().retain(|field, _| field != "apiVersion" && field != "kind");
    fields["metadata"].as_object_mut().unwrap().retain(|field, _| field != "name" && field != "namespace");
    field_set(&fields)
}

fn field_set(body: &Value) -> Value {
    match body {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (format!("f:{name}"), field_set(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => {
            let keyed = items.iter().filter_map(|item| {
                let (key, value) = key_of(item)?;
                Some((format!("k:{}", json!({key: value})), field_set(item)))
            });
            keyed.collect::<Map<_, _>>().into()
        }
        _ => json!({}),
    }
}

/// For assertions on what an object is called.
pub(super) fn reference(kind: &'static Kind, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "registries", name)
}

/// For edits: puts a value at a path.
pub(super) fn set(object: &mut Value, at: &str, value: Value) {
    path::put(object, at, value);
}
