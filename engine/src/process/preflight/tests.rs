//! A cluster of canned answers that changes while the preflight looks.

use std::sync::{Arc, Mutex};

use http::Response;
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::testing::PROGRAM;

/// What the API server would say.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Facts>>);

#[derive(Default)]
struct Facts {
    down: bool,
    resources: Option<Vec<&'static str>>,
    schema: Option<Value>,
    refused: Vec<&'static str>,
    asked: usize,
}

impl Cluster {
    fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.0.lock().unwrap());
    }

    fn client(&self) -> Client {
        let facts = Arc::clone(&self.0);
        let service = tower::service_fn(move |request: Request<Body>| {
            let facts = Arc::clone(&facts);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let mut facts = facts.lock().unwrap();
                facts.asked += 1;
                if facts.down {
                    return Err(Error::Service(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))));
                }
                let (code, answer) = facts.answer(head.uri.path(), &body);
                Ok::<_, Error>(
                    Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap(),
                )
            }
        });
        Client::new(service, "default")
    }
}

impl Facts {
    fn answer(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let not_found = (
            404,
            json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "not found"}),
        );
        match path {
            "/apis/example.dev/v1" => self.resources.as_ref().map_or(not_found, |resources| {
                let one =
                    |name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "Thing", "verbs": []});
                let resources: Vec<_> = resources.iter().map(one).collect();
                (200, json!({"kind": "APIResourceList", "groupVersion": "example.dev/v1", "resources": resources}))
            }),
            "/openapi/v3/apis/example.dev/v1" => self.schema.as_ref().map_or(not_found, |schema| {
                let mut schema = schema.clone();
                schema["x-kubernetes-group-version-kind"] =
                    json!([{"group": "example.dev", "kind": "Thing", "version": "v1"}]);
                (200, json!({"components": {"schemas": {"dev.example.v1.Thing": schema, "meta.v1.Status": {}}}}))
            }),
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
                let mut review: Value = serde_json::from_slice(body).unwrap();
                let asked = &review["spec"]["resourceAttributes"];
                let right = format!("{} {}", asked["verb"].as_str().unwrap(), asked["resource"].as_str().unwrap());
                let right = asked["subresource"].as_str().map_or_else(|| right.clone(), |sub| format!("{right}/{sub}"));
                review["status"] = json!({"allowed": !self.refused.contains(&right.as_str())});
                (201, review)
            }
            other => panic!("asked for {other}"),
        }
    }
}

fn schema() -> Value {
    json!({"properties": {
        "apiVersion": {}, "kind": {}, "metadata": {"properties": {"name": {}}},
        "spec": {"properties": {
            "size": {"type": "string"},
            "type": {"enum": ["A", "B"]},
            "users": {"items": {"properties": {"name": {}, "team": {}}}},
        }},
    }})
}

fn without(path: &str) -> Value {
    let mut schema = schema();
    let (parent, field) = path.rsplit_once('/').unwrap();
    schema.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field).unwrap();
    schema
}

fn right(verb: &str, resource: &str, namespace: Option<&str>) -> Right {
    Right {
        group: String::new(),
        resource: resource.into(),
        verb: verb.into(),
        namespace: namespace.map(str::to_owned),
    }
}

fn preflight(cluster: &Cluster) -> (Preflight, Health) {
    let health = Health::default();
    let definition = Definition {
        group: "example.dev".into(),
        version: "v1".into(),
        plural: "things".into(),
        kind: "Thing".into(),
        schema: schema(),
    };
    let rights = vec![
        right("list", "secrets", None),
        right("create", "services", Some("team")),
        Right { group: "example.dev".into(), ..right("patch", "things/status", None) },
    ];
    (Preflight::new(cluster.client(), Needs { definition, rights }, PROGRAM.definition_advice, health.clone()), health)
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn readiness_names_what_is_missing_until_it_is_there() {
    let cluster = Cluster::default();
    cluster.change(|facts| facts.down = true);
    let (preflight, health) = preflight(&cluster);
    let stop = Stop::default();
    let run = tokio::spawn(async move {
        assert_eq!(preflight.until_served(&stop).await, Served::Yes);
        preflight.until_complete(&stop).await;
    });

    seconds(4).await;
    let text = health.readiness().text;
    assert!(text.contains("failed   cluster: can't be reached: connection refused\n"), "{text}");

    cluster.change(|facts| {
        facts.down = false;
        facts.refused = vec!["list secrets", "create services", "patch things/status"];
    });
    seconds(4).await;
    let text = health.readiness().text;
    assert!(text.contains("ok       cluster\n"), "{text}");
    assert!(
        text.contains(
            "failed   resource definition: CRD things.example.dev is not installed or does not serve v1: apply the definition"
        ),
        "{text}"
    );

    cluster.change(|facts| facts.resources = Some(vec!["others"]));
    seconds(4).await;
    assert!(health.readiness().text.contains("is not installed"), "{}", health.readiness().text);

    cluster.change(|facts| facts.resources = Some(vec!["things", "things/status"]));
    seconds(4).await;
    let text = health.readiness().text;
    assert!(text.contains("waiting  resource definition: its schema is not published yet\n"), "{text}");
    assert!(
        text.contains("failed   rights: missing: create services in team, list secrets in all namespaces, patch things/status.example.dev in all namespaces; install"),
        "{text}"
    );

    cluster.change(|facts| {
        facts.schema = Some(without("/properties/spec/properties/users"));
        facts.refused = vec![];
    });
    seconds(4).await;
    let text = health.readiness().text;
    assert!(text.contains("older than this operator: it lacks spec.users; kubectl apply"), "{text}");
    assert!(text.contains("ok       rights\n") && !health.readiness().ok, "{text}");

    cluster.change(|facts| facts.schema = Some(schema()));
    seconds(4).await;
    assert!(health.readiness().ok, "{}", health.readiness().text);
    run.await.unwrap();
    let asked = cluster.0.lock().unwrap().asked;
    seconds(600).await;
    assert_eq!(cluster.0.lock().unwrap().asked, asked, "once all is well nothing more is asked");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_looking_at_once() {
    let cluster = Cluster::default();
    let (preflight, _) = preflight(&cluster);
    let stop = Stop::default();
    let looking = tokio::spawn({
        let stop = stop.clone();
        async move { preflight.until_served(&stop).await }
    });
    seconds(1).await;
    stop.request();
    let asked = tokio::time::Instant::now();
    assert_eq!(looking.await.unwrap(), Served::Stopping);
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[test]
fn an_older_schema_is_told_by_the_fields_and_values_it_lacks() {
    assert_eq!(older(&schema(), &schema()), None);
    let missing = |served: &Value| older(&schema(), served).map(|missing| missing.into_iter().collect::<Vec<_>>());
    assert_eq!(missing(&without("/properties/spec/properties/size")), Some(vec!["spec.size".to_owned()]));
    assert_eq!(
        missing(&without("/properties/spec/properties/users/items/properties/team")),
        Some(vec!["spec.users.team".to_owned()])
    );
    let mut fewer_values = schema();
    fewer_values["properties"]["spec"]["properties"]["type"]["enum"] = json!(["A"]);
    assert_eq!(missing(&fewer_values), Some(vec!["spec.type=B".to_owned()]));
}

#[test]
fn a_newer_schema_is_fine() {
    let mut newer = schema();
    newer["properties"]["spec"]["properties"]["more"] = json!({"type": "string"});
    newer["properties"]["spec"]["properties"]["type"]["enum"] = json!(["A", "B", "C"]);
    assert_eq!(older(&schema(), &newer), None);
}

#[test]
fn a_long_list_is_cut() {
    let missing: BTreeSet<String> = (0..9).map(|n| format!("right-{n}")).collect();
    assert!(listed(&missing).ends_with("right-5 and 3 more"), "{}", listed(&missing));
}
