use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};

use super::*;
use crate::metrics::Metrics;
use crate::process::gate::Gate;
use crate::testing::PROGRAM;
use crate::work::queue::Key;
use crate::work::store::What;

const OURS: &str = "app.kubernetes.io/managed-by=private-registry-operator";

fn deployments() -> Watched {
    let kind = Watched { group: "apps".into(), version: "v1".into(), kind: "Deployment".into(), ..secrets() };
    Watched { plural: "deployments".into(), ..kind }.selected_by(OURS)
}

fn secrets() -> Watched {
    Watched {
        group: String::new(),
        version: "v1".into(),
        kind: "Secret".into(),
        plural: "secrets".into(),
        selector: None,
        is_optional: false,
    }
}

/// An API server made of one map: path of a collection to its objects, or to the status that it answers with.
#[derive(Default)]
struct Server {
    collections: Mutex<BTreeMap<String, Collection>>,
    requests: Mutex<Vec<String>>,
    /// What discovery says of the group of Deployments.
    serves: Mutex<Vec<&'static str>>,
    /// Nothing listens there.
    away: AtomicBool,
}

#[derive(Default)]
struct Collection {
    objects: BTreeMap<String, Value>,
    version: u64,
    refusal: Option<u16>,
    refused_watches: Option<u16>,
    refused_next_pages: Option<u16>,
    silent: bool,
    watches: Vec<UnboundedSender<String>>,
}

impl Server {
    fn client(self: &Arc<Self>) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                if server.away.load(Ordering::Relaxed) {
                    return Err(kube::Error::Service(
                        std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into(),
                    ));
                }
                Ok::<_, kube::Error>(server.answer(&request))
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, request: &Request<Body>) -> Response<StreamBody<Frames>> {
        let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let accept =
            request.headers().get("accept").map(|value| value.to_str().unwrap()).unwrap_or_default().to_owned();
        self.requests.lock().unwrap().push(format!("{path}?{query} {accept}"));
        let parameter = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        let (sender, receiver) = unbounded_channel();
        if path == "/apis/apps/v1" {
            let one = |plural: &&str| json!({"name": plural, "singularName": "", "namespaced": true, "kind": "", "verbs": []});
            let resources: Vec<_> = self.serves.lock().unwrap().iter().map(one).collect();
            sender.send(json!({"groupVersion": "apps/v1", "resources": resources}).to_string()).unwrap();
            return Response::new(StreamBody::new(frames(receiver)));
        }
        let refusal = {
            let mut collections = self.collections.lock().unwrap();
            let collection =
                collections.entry(path).or_insert_with(|| Collection { refusal: Some(404), ..Default::default() });
            let watch = parameter("watch").is_some();
            let refusal = collection
                .refusal
                .or(collection.refused_watches.filter(|_| watch))
                .or(collection.refused_next_pages.filter(|_| parameter("continue").is_some()));
            if refusal.is_none() && watch {
                collection.watches.push(sender);
            } else if refusal.is_none() && collection.silent {
                // Keeps the connection, sends nothing.
                collection.watches.push(sender);
            } else if refusal.is_none() {
                let from: usize = parameter("continue").map_or(0, |token| token.parse().unwrap());
                let limit: usize = parameter("limit").unwrap().parse().unwrap();
                let page: Vec<_> = collection.objects.values().skip(from).take(limit).cloned().collect();
                let more = from + page.len() < collection.objects.len();
                let next = more.then(|| (from + page.len()).to_string());
                let list = json!({
                    "apiVersion": "v1", "kind": "List", "items": page,
                    "metadata": {"resourceVersion": collection.version.to_string(), "continue": next},
                });
                sender.send(list.to_string()).unwrap();
            }
            refusal
        };
        let body = match refusal {
            Some(code) => {
                let (sender, receiver) = unbounded_channel();
                sender.send(status(code).to_string()).unwrap();
                receiver
            }
            None => receiver,
        };
        Response::builder().status(refusal.unwrap_or(200)).body(StreamBody::new(frames(body))).unwrap()
    }

    fn at<T>(&self, path: &str, change: impl FnOnce(&mut Collection) -> T) -> T {
        change(self.collections.lock().unwrap().entry(path.to_owned()).or_default())
    }

    fn put(&self, path: &str, namespace: &str, name: &str, labels: &Value) {
        self.put_object(path, json!({"metadata": {"namespace": namespace, "name": name, "labels": labels}}));
    }

    fn put_object(&self, path: &str, mut object: Value) {
        self.at(path, |collection| {
            collection.version += 1;
            object["metadata"]["resourceVersion"] = json!(collection.version.to_string());
            let key = format!("{}/{}", object["metadata"]["namespace"], object["metadata"]["name"]);
            let what = if collection.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
            collection.say(&json!({"type": what, "object": object}));
            collection.objects.insert(key, object);
        });
    }

    fn requests_to(&self, path: &str) -> Vec<String> {
        self.requests.lock().unwrap().iter().filter(|request| request.starts_with(path)).cloned().collect()
    }
}

impl Collection {
    fn say(&mut self, event: &Value) {
        self.watches.retain(|watch| watch.send(format!("{event}\n")).is_ok());
    }

    /// Removes an object whose deletion nobody is told of.
    fn lose(&mut self, name: &str) -> Value {
        self.version += 1;
        let key = self.objects.keys().find(|key| key.ends_with(&format!("/\"{name}\""))).unwrap().clone();
        self.objects.remove(&key).unwrap()
    }
}

fn status(code: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": "Because", "message": "no"})
}

type Frames = futures::stream::BoxStream<'static, Result<Frame<Bytes>, std::convert::Infallible>>;

fn frames(receiver: UnboundedReceiver<String>) -> Frames {
    use futures::StreamExt;
    futures::stream::unfold(receiver, |mut receiver| async move {
        let text = receiver.recv().await?;
        Some((Ok(Frame::data(Bytes::from(text))), receiver))
    })
    .boxed()
}

/// Writes down what it is told.
#[derive(Default)]
struct Notes {
    lines: Mutex<Vec<String>>,
    /// What the running list of a kind has shown of ours.
    listed: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl Notes {
    fn write(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    fn count(&self, line: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|known| *known == line).count()
    }

    fn last_relist(&self, plural: &str) -> Option<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().rev().find(|line| line.starts_with(&format!("{plural} relisted"))).cloned()
    }
}

impl Sink for Notes {
    fn relist_started(&self, watched: &Watched, _: &Scope) {
        self.listed.lock().unwrap().remove(&watched.plural);
        self.write(format!("{} relist started", watched.plural));
    }

    fn seen(&self, watched: &Watched, _: &Scope, meta: &Meta) {
        assert_ne!(meta.name(), "poison", "this one makes the sink panic");
        let name = format!("{}/{}", meta.namespace(), meta.name());
        self.write(format!("{} seen {name}", watched.plural));
        let is_ours = meta.label("app.kubernetes.io/managed-by") == Some("private-registry-operator");
        if is_ours || meta.name() == "referenced" {
            self.listed.lock().unwrap().entry(watched.plural.clone()).or_default().insert(name);
        }
    }

    fn gone(&self, watched: &Watched, _: &Scope, meta: &Meta) {
        self.write(format!("{} gone {}/{}", watched.plural, meta.namespace(), meta.name()));
    }

    fn relisted(&self, watched: &Watched, _: &Scope) {
        let names = self.listed.lock().unwrap().remove(&watched.plural).unwrap_or_default();
        self.write(format!("{} relisted {}", watched.plural, names.into_iter().collect::<Vec<_>>().join(" ")));
    }
}

struct Bench {
    server: Arc<Server>,
    notes: Arc<Notes>,
    watches: Watches,
}

const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";
const SECRETS: &str = "/api/v1/secrets";
const GROUP: &str = "/apis/apps/v1?";
const CONFIG_MAPS: &str = "/api/v1/configmaps";

impl Bench {
    fn new() -> Self {
        let server = Arc::new(Server::default());
        server.at(DEPLOYMENTS, |_| ());
        server.at(SECRETS, |_| ());
        Self { watches: Watches::new(server.client()), server, notes: Arc::default() }
    }

    fn watch(&mut self, watched: Watched) {
        self.watches.metadata(watched, &Scope::All, self.notes.clone());
    }

    fn phase(&self, plural: &str) -> Phase {
        self.watches.states().into_iter().find(|state| state.watched.plural == plural).unwrap().phase
    }

    /// Waits for a note, in virtual time.
    async fn notes(&self, line: &str) {
        self.until(line, || self.notes.count(line) > 0).await;
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let started = Instant::now();
        while !condition() {
            let seen = || (self.notes.lines.lock().unwrap().clone(), self.watches.states());
            assert!(started.elapsed() < Duration::from_secs(600), "no {what}; seen: {:#?}", seen());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn synced(&self) {
        tokio::time::timeout(Duration::from_secs(600), self.watches.synced()).await.expect("never synced");
    }
}

fn ours() -> Value {
    json!({"app.kubernetes.io/managed-by": "private-registry-operator"})
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_and_what_happens_later_reaches_the_sink() {
    let mut bench = Bench::new();
    bench.server.put(DEPLOYMENTS, "team", "a", &ours());
    bench.watch(deployments());
    bench.synced().await;
    assert_eq!(
        bench.notes.lines.lock().unwrap()[..],
        ["deployments relist started", "deployments seen team/a", "deployments relisted team/a"]
    );
    bench.server.put(DEPLOYMENTS, "team", "b", &ours());
    bench.notes("deployments seen team/b").await;
    bench.server.at(DEPLOYMENTS, |collection| {
        let object = collection.lose("b");
        collection.say(&json!({"type": "DELETED", "object": object}));
    });
    bench.notes("deployments gone team/b").await;
    assert_eq!(bench.phase("deployments"), Phase::Ok);
}

#[tokio::test(start_paused = true)]
async fn only_metadata_and_only_what_the_selector_matches_is_asked_for() {
    let mut bench = Bench::new();
    bench.watch(deployments());
    bench.synced().await;
    bench.until("watch", || bench.server.requests_to(DEPLOYMENTS).len() == 2).await;
    for request in bench.server.requests_to(DEPLOYMENTS) {
        assert!(request.contains("as=PartialObjectMetadata"), "{request}");
        assert!(
            request.contains("labelSelector=app.kubernetes.io%2Fmanaged-by%3Dprivate-registry-operator"),
            "{request}"
        );
        assert!(request.contains("limit=100") || request.contains("allowWatchBookmarks=true"), "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_namespace_is_watched_in_that_namespace() {
    let mut bench = Bench::new();
    bench.server.put("/api/v1/namespaces/team/secrets", "team", "referenced", &json!({}));
    bench.watches.metadata(secrets(), &Scope::Namespace("team".into()), bench.notes.clone());
    bench.notes("secrets relisted team/referenced").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_while_the_history_was_lost_is_missing_in_the_next_list() {
    let mut bench = Bench::new();
    for name in ["a", "b"] {
        bench.server.put(DEPLOYMENTS, "team", name, &ours());
    }
    bench.watch(deployments());
    bench.notes("deployments relisted team/a team/b").await;
    bench.until("watch", || bench.server.at(DEPLOYMENTS, |c| !c.watches.is_empty())).await;
    bench.server.at(DEPLOYMENTS, |collection| {
        collection.lose("b");
        collection.say(&json!({"type": "ERROR", "object": status(410)}));
    });
    bench.notes("deployments relisted team/a").await;
    assert_eq!(bench.notes.count("deployments gone team/b"), 0, "no event comes for it");
    assert_eq!(bench.phase("deployments"), Phase::Ok);
}

#[tokio::test(start_paused = true)]
async fn what_a_list_that_broke_off_had_shown_does_not_count() {
    let mut bench = Bench::new();
    for n in 0..101 {
        bench.server.put(DEPLOYMENTS, "team", &format!("d{n:03}"), &ours());
    }
    bench.server.at(DEPLOYMENTS, |collection| collection.refused_next_pages = Some(500));
    bench.watch(deployments());
    bench.until("failure", || matches!(bench.phase("deployments"), Phase::Failing(_))).await;
    assert_eq!(bench.notes.last_relist("deployments"), None);
    bench.server.at(DEPLOYMENTS, |collection| {
        collection.refused_next_pages = None;
        collection.lose("d000");
    });
    bench.synced().await;
    let relist = bench.notes.last_relist("deployments").unwrap();
    assert!(!relist.contains("d000") && relist.contains("d001") && relist.contains("d100"), "{relist}");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_lists_every_kind_again_without_a_pause() {
    let mut bench = Bench::new();
    bench.server.put(DEPLOYMENTS, "team", "a", &ours());
    bench.watch(deployments());
    bench.watch(secrets());
    bench.notes("deployments relisted team/a").await;
    bench.synced().await;
    bench.server.at(DEPLOYMENTS, |collection| collection.lose("a"));
    let started = Instant::now();
    bench.watches.relist();
    bench.notes("deployments relisted ").await;
    bench.until("second list of secrets", || bench.notes.count("secrets relisted ") == 2).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    sleep(Duration::from_secs(100)).await;
    assert_eq!(bench.notes.count("secrets relist started"), 2, "once each");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_our_version_as_http_status_leads_to_a_list_too() {
    let mut bench = Bench::new();
    bench.server.put(DEPLOYMENTS, "team", "a", &ours());
    bench.server.at(DEPLOYMENTS, |collection| collection.refused_watches = Some(410));
    bench.watch(deployments());
    bench.until("second list", || bench.notes.count("deployments relisted team/a") >= 2).await;

    let (lists, started) = (bench.notes.count("deployments relist started"), Instant::now());
    sleep(Duration::from_secs(300)).await;
    let more = bench.notes.count("deployments relist started") - lists;
    assert!(more <= 30, "{more} lists in {:?}", started.elapsed());

    bench.server.at(DEPLOYMENTS, |collection| collection.refused_watches = None);
    bench.until("watch", || bench.server.at(DEPLOYMENTS, |c| !c.watches.is_empty())).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_harms_only_its_own_stream_and_is_named() {
    let mut bench = Bench::new();
    bench.server.at(SECRETS, |collection| collection.refusal = Some(403));
    bench.watch(secrets());
    bench.watch(deployments());
    bench.until("refusal", || matches!(bench.phase("secrets"), Phase::Failing(_))).await;
    let Phase::Failing(reason) = bench.phase("secrets") else { unreachable!() };
    assert_eq!(
        reason,
        "403 forbidden: the operator has no right to list secrets in all namespaces; its service account needs list and watch"
    );

    sleep(Duration::from_secs(100)).await;
    let started = Instant::now();
    bench.server.put(DEPLOYMENTS, "team", "a", &ours());
    bench.notes("deployments seen team/a").await;
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());

    assert!(
        tokio::time::timeout(Duration::from_secs(60), bench.watches.synced()).await.is_err(),
        "not everything is known"
    );
    bench.server.at(SECRETS, |collection| collection.refusal = None);
    bench.synced().await;
    assert_eq!(bench.phase("secrets"), Phase::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_may_list_but_not_watch_fails_and_recovers_without_an_event() {
    let mut bench = Bench::new();
    bench.server.at(SECRETS, |collection| collection.refused_watches = Some(403));
    bench.watch(secrets());
    let failing = |bench: &Bench| match bench.phase("secrets") {
        Phase::Failing(reason) => reason.contains("no right to watch secrets"),
        _ => false,
    };
    bench.until("refusal", || failing(&bench)).await;
    bench.server.at(SECRETS, |collection| collection.refused_watches = None);
    bench.until("recovery", || bench.phase("secrets") == Phase::Ok).await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_the_cluster_does_not_have_holds_nobody_up() {
    let mut bench = Bench::new();
    bench.server.at(DEPLOYMENTS, |collection| collection.refusal = Some(404));
    bench.watch(deployments());
    bench.synced().await;
    assert_eq!(bench.phase("deployments"), Phase::Absent);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(bench.notes.count("deployments relisted "), 1, "reported once");

    bench.server.put(DEPLOYMENTS, "team", "a", &ours());
    bench.server.at(DEPLOYMENTS, |collection| collection.refusal = None);
    bench.notes("deployments relisted team/a").await;
    assert_eq!(bench.phase("deployments"), Phase::Ok);
}

fn optional(watched: Watched) -> Watched {
    Watched { is_optional: true, ..watched }
}

#[tokio::test(start_paused = true)]
async fn an_optional_kind_is_looked_for_once_for_all_scopes_and_followed_when_it_comes() {
    let mut bench = Bench::new();
    let scopes: Vec<_> = (0..50).map(|number| Scope::Namespace(format!("team-{number}"))).collect();
    for scope in &scopes {
        bench.watches.metadata(optional(deployments()), scope, bench.notes.clone());
    }
    bench.synced().await;
    assert_eq!(bench.phase("deployments"), Phase::Absent);
    sleep(Duration::from_secs(150)).await;
    let looks = bench.server.requests_to(GROUP).len();
    assert!((8..=12).contains(&looks), "{looks} looks");
    assert_eq!(bench.server.requests_to(GROUP).len(), bench.server.requests.lock().unwrap().len(), "nothing is listed");

    bench.server.put("/apis/apps/v1/namespaces/team-7/deployments", "team-7", "a", &ours());
    *bench.server.serves.lock().unwrap() = vec!["deployments"];
    bench.notes("deployments relisted team-7/a").await;
}

#[tokio::test(start_paused = true)]
async fn an_optional_kind_that_may_not_be_listed_is_told_and_holds_nobody_up() {
    let mut bench = Bench::new();
    *bench.server.serves.lock().unwrap() = vec!["deployments"];
    bench.server.at(DEPLOYMENTS, |collection| collection.refusal = Some(403));
    bench.watch(optional(deployments()));
    bench.synced().await;
    let Phase::Failing(reason) = bench.phase("deployments") else { panic!("{:?}", bench.watches) };
    assert!(reason.contains("no right to list deployments.apps"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn without_our_own_kind_nothing_is_synced_and_the_reason_says_so() {
    let mut bench = Bench::new();
    bench.server.at(CONFIG_MAPS, |collection| collection.refusal = Some(404));
    bench.watches.objects(&Scope::All, Arc::new(Objects::<ConfigMap>::default()), |_| ());
    bench.until("failure", || matches!(bench.phase("configmaps"), Phase::Failing(_))).await;
    let Phase::Failing(reason) = bench.phase("configmaps") else { unreachable!() };
    assert_eq!(reason, "the API server does not know configmaps/v1: is its CRD installed?");
    assert!(tokio::time::timeout(Duration::from_secs(100), bench.watches.synced()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_foreign_secrets_are_listed_in_pages() {
    let mut bench = Bench::new();
    for n in 0..10_000 {
        bench.server.put(SECRETS, "foreign", &format!("s{n:05}"), &json!({}));
    }
    bench.server.put(SECRETS, "team", "a-tls", &ours());
    bench.server.put(SECRETS, "team", "referenced", &json!({}));
    bench.watch(secrets());
    bench.synced().await;
    assert_eq!(bench.notes.last_relist("secrets").as_deref(), Some("secrets relisted team/a-tls team/referenced"));
    let lists = bench.server.requests_to(SECRETS).iter().filter(|request| request.contains("limit=100")).count();
    assert_eq!(lists, 101, "pages of 100");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_somebody_made_huge_comes_in_smaller_pages() {
    let server = Arc::new(Server::default());
    for n in 0..120 {
        let annotations = json!({"note": "x".repeat(250 << 10)});
        let metadata = json!({"namespace": "foreign", "name": format!("s{n:03}"), "annotations": annotations});
        server.put_object(SECRETS, json!({"metadata": metadata}));
    }
    server.put(SECRETS, "team", "referenced", &json!({}));
    let metrics = Metrics::new(&PROGRAM, |_| ());
    let gate = Gate { fence: None, header_limit: Duration::from_secs(10), concurrency: 16, metrics };
    let mut bench =
        Bench { watches: Watches::new(gate.guard(server.client())), server: server.clone(), notes: Arc::default() };
    bench.watch(secrets());
    bench.synced().await;
    assert_eq!(bench.notes.last_relist("secrets").as_deref(), Some("secrets relisted team/referenced"));
    let lists = server.requests_to(SECRETS).into_iter().filter(|request| request.contains("limit="));
    let lists: Vec<_> = lists.map(|request| request.split_once(' ').unwrap().0.to_owned()).collect();
    assert_eq!(lists.len(), 1 + 5, "{lists:#?}");
    assert!(lists[1].contains("limit=25"), "{lists:#?}");
}

/// One scope that can't be listed must not keep the others waiting.
#[tokio::test(start_paused = true)]
async fn a_scope_is_synced_whatever_becomes_of_the_others() {
    let mut bench = Bench::new();
    let (a, b) = (Scope::Namespace("a".into()), Scope::Namespace("b".into()));
    bench.server.at("/api/v1/namespaces/a/secrets", |_| ());
    bench.server.at("/api/v1/namespaces/b/secrets", |collection| collection.refusal = Some(403));
    for scope in [&a, &b] {
        bench.watches.metadata(secrets(), scope, bench.notes.clone());
    }
    tokio::time::timeout(Duration::from_secs(1), bench.watches.scope_synced(&a)).await.expect("a is listed");
    assert!(tokio::time::timeout(Duration::from_secs(60), bench.watches.scope_synced(&b)).await.is_err());
    bench.server.at("/api/v1/namespaces/b/secrets", |collection| collection.refusal = None);
    tokio::time::timeout(Duration::from_secs(60), bench.watches.scope_synced(&b)).await.expect("b is listed");
}

/// After a restored backup versions are lower than the one that the watch would go on from: nothing would come for hours.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_was_away_is_listed_again() {
    let mut bench = Bench::new();
    bench.server.put(DEPLOYMENTS, "team", "a", &ours());
    bench.watch(deployments());
    bench.synced().await;
    bench.until("watch", || bench.server.at(DEPLOYMENTS, |c| !c.watches.is_empty())).await;

    bench.server.away.store(true, Ordering::Relaxed);
    bench.server.at(DEPLOYMENTS, |collection| collection.watches.clear());
    bench.until("failure", || matches!(bench.phase("deployments"), Phase::Failing(_))).await;
    bench.server.at(DEPLOYMENTS, |collection| {
        collection.lose("a");
        collection.version = 0;
    });
    bench.server.away.store(false, Ordering::Relaxed);
    bench.notes("deployments relisted ").await;
    assert_eq!(bench.phase("deployments"), Phase::Ok);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_show_that_a_quiet_stream_is_alive_and_silence_ends_the_connection() {
    let mut bench = Bench::new();
    bench.watch(deployments());
    bench.synced().await;
    bench.until("watch", || bench.server.at(DEPLOYMENTS, |c| !c.watches.is_empty())).await;
    let heard = |bench: &Bench| bench.watches.states()[0].heard;

    sleep(Duration::from_secs(60)).await;
    assert!(heard(&bench) >= Duration::from_secs(60));
    let bookmark = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"resourceVersion": "7"}});
    bench.server.at(DEPLOYMENTS, |collection| collection.say(&json!({"type": "BOOKMARK", "object": bookmark})));
    sleep(Duration::from_secs(1)).await;
    assert!(heard(&bench) < Duration::from_secs(2));

    sleep(Duration::from_secs(206)).await;
    bench.until("new connection", || bench.server.requests_to(DEPLOYMENTS).len() == 3).await;
    assert!(bench.server.requests_to(DEPLOYMENTS)[2].contains("resourceVersion=7"), "goes on from the bookmark");
    assert!(heard(&bench) < Duration::from_secs(5), "a watch that begins anew is heard");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_refused_again_and_again_is_not_heard_and_one_that_is_listed_is() {
    let mut bench = Bench::new();
    bench.server.at(DEPLOYMENTS, |collection| collection.refusal = Some(403));
    bench.watch(deployments());
    let heard = |bench: &Bench| bench.watches.states()[0].heard;
    sleep(Duration::from_secs(300)).await;
    assert!(bench.server.requests_to(DEPLOYMENTS).len() > 5, "{:?}", bench.server.requests_to(DEPLOYMENTS));
    assert!(heard(&bench) >= Duration::from_secs(300));
    bench.server.at(DEPLOYMENTS, |collection| collection.refusal = None);
    bench.synced().await;
    assert!(heard(&bench) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_never_comes_is_given_up_and_asked_for_again() {
    let mut bench = Bench::new();
    bench.server.at(DEPLOYMENTS, |collection| collection.silent = true);
    bench.watch(deployments());
    bench.until("failure", || matches!(bench.phase("deployments"), Phase::Failing(_))).await;
    bench.server.at(DEPLOYMENTS, |collection| collection.silent = false);
    bench.synced().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_costs_a_new_list_and_no_other_stream() {
    let mut bench = Bench::new();
    bench.watch(deployments());
    bench.watch(secrets());
    bench.synced().await;
    bench.server.put(DEPLOYMENTS, "team", "poison", &ours());
    bench.until("failure", || matches!(bench.phase("deployments"), Phase::Failing(_))).await;
    bench.server.put(SECRETS, "team", "referenced", &json!({}));
    bench.notes("secrets seen team/referenced").await;
    bench.server.at(DEPLOYMENTS, |collection| collection.lose("poison"));
    bench.server.put(DEPLOYMENTS, "team", "a", &ours());
    bench.until("recovery", || bench.phase("deployments") == Phase::Ok).await;
    assert_eq!(bench.notes.last_relist("deployments").as_deref(), Some("deployments relisted team/a"));
}

#[tokio::test(start_paused = true)]
async fn registries_reach_their_store_and_one_that_cannot_be_decoded_hides_no_other() {
    let mut bench = Bench::new();
    let uid = |name: &str| json!({"namespace": "team", "name": name, "uid": name, "generation": 1});
    bench.server.put_object(CONFIG_MAPS, json!({"metadata": uid("a"), "data": {"k": "v"}}));
    bench.server.put_object(CONFIG_MAPS, json!({"metadata": uid("broken"), "data": "not a map"}));
    let (store, changes) = (Arc::new(Objects::<ConfigMap>::default()), Arc::new(Mutex::new(Vec::new())));
    bench.watches.objects(&Scope::All, store.clone(), {
        let changes = changes.clone();
        move |change: Change| changes.lock().unwrap().push((change.key.to_string(), change.what))
    });
    bench.synced().await;
    let take = || std::mem::take(&mut *changes.lock().unwrap());
    assert_eq!(take(), [("team/a".into(), What::Added), ("team/broken".into(), What::Undecodable)]);
    assert_eq!(store.keys(), [Key::new("team", "a")]);
    assert!(store.undecodable()[&Key::new("team", "broken")].contains("not a map"), "{:?}", store.undecodable());

    bench.until("watch", || bench.server.at(CONFIG_MAPS, |c| !c.watches.is_empty())).await;
    bench.server.put_object(CONFIG_MAPS, json!({"metadata": uid("broken"), "data": {}}));
    bench.until("repair", || store.len() == 2).await;
    assert_eq!(take(), [("team/broken".into(), What::Added)]);
    bench.server.at(CONFIG_MAPS, |collection| {
        collection.lose("a");
        collection.say(&json!({"type": "ERROR", "object": status(410)}));
    });
    bench.until("removal", || store.len() == 1).await;
    assert_eq!(take(), [("team/a".into(), What::Removed)]);
}

#[test]
fn scopes_are_distinct_and_none_means_all() {
    assert_eq!(Scope::of(&[]), [Scope::All]);
    let two = ["b".to_owned(), "a".to_owned(), "b".to_owned()];
    assert_eq!(Scope::of(&two), [Scope::Namespace("a".into()), Scope::Namespace("b".into())]);
}
