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
    /// Namespaces in which nothing is granted.
    foreign: Vec<&'static str>,
    /// Some authorizer can't list what it grants: its rules are left out.
    incomplete: bool,
    /// Nobody answers what the operator may do.
    mute: bool,
    asked: usize,
}

/// What the operator of these tests needs.
const RIGHTS_NEEDED: [(&str, &str, &str); 3] =
    [("list", "", "secrets"), ("create", "", "services"), ("patch", "example.dev", "things/status")];

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
                if facts.lock().unwrap().mute && head.uri.path().contains("authorization.k8s.io") {
                    std::future::pending::<()>().await;
                }
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
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews" => {
                let mut review: Value = serde_json::from_slice(body).unwrap();
                let foreign = self.foreign.contains(&review["spec"]["namespace"].as_str().unwrap());
                let granted = RIGHTS_NEEDED.iter().filter(|(verb, _, resource)| {
                    !foreign && !self.incomplete && !self.refused.contains(&format!("{verb} {resource}").as_str())
                });
                let rule = |(verb, group, resource): &(&str, &str, &str)| json!({"verbs": [verb], "apiGroups": [group], "resources": [resource]});
                let rules: Vec<_> = granted.map(rule).collect();
                review["status"] =
                    json!({"incomplete": self.incomplete, "resourceRules": rules, "nonResourceRules": []});
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

fn right((verb, group, resource): (&str, &str, &str)) -> Right {
    Right { group: group.into(), resource: resource.into(), verb: verb.into() }
}

fn preflight(cluster: &Cluster) -> (Preflight, Health) {
    preflight_in(cluster, &[])
}

fn preflight_in(cluster: &Cluster, namespaces: &[String]) -> (Preflight, Health) {
    let health = Health::default();
    let definition = Definition {
        group: "example.dev".into(),
        version: "v1".into(),
        plural: "things".into(),
        kind: "Thing".into(),
        schema: Box::leak(Box::new(schema())),
    };
    let rights = RIGHTS_NEEDED.map(right).to_vec();
    let needs = Needs { definition, rights, namespaces: namespaces.to_vec() };
    (Preflight::new(cluster.client(), needs, PROGRAM.definition_advice, health.clone()), health)
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
        let served = async {
            assert_eq!(preflight.until_served(&stop).await, Served::Yes);
            preflight.until_current(&stop).await;
        };
        tokio::join!(served, preflight.until_entitled(&stop));
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
        text.contains("failed   rights: missing: create services in all namespaces, list secrets in all namespaces, patch things/status.example.dev in all namespaces; install"),
        "{text}"
    );

    cluster.change(|facts| {
        facts.schema = Some(without("/properties/spec/properties/users"));
        facts.refused = vec![];
    });
    seconds(4).await;
    let text = health.readiness().text;
    assert!(text.contains("older than this operator: it lacks spec.users; apply the definition"), "{text}");
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

#[tokio::test(start_paused = true)]
async fn what_is_not_said_about_rights_holds_nothing_up() {
    let cluster = Cluster::default();
    cluster.change(|facts| (facts.mute, facts.resources) = (true, Some(vec!["things"])));
    let (preflight, health) = preflight(&cluster);
    let stop = Stop::default();
    let served = tokio::time::timeout(Duration::from_secs(1), preflight.until_served(&stop)).await;
    assert_eq!(served, Ok(Served::Yes));
    assert!(health.readiness().text.contains("waiting  rights"), "{}", health.readiness().text);
}

#[tokio::test(start_paused = true)]
async fn one_question_a_namespace_tells_all_rights_and_only_where_some_are_missing_it_is_asked_again() {
    let cluster = Cluster::default();
    cluster.change(|facts| facts.foreign = vec!["ns-7"]);
    let namespaces: Vec<String> = (0..500).map(|n| format!("ns-{n}")).collect();
    let (preflight, health) = preflight_in(&cluster, &namespaces);
    let looking = tokio::spawn(async move { preflight.until_entitled(&Stop::default()).await });
    seconds(1).await;
    assert_eq!(cluster.0.lock().unwrap().asked, 500);
    let text = health.readiness().text;
    assert!(
        text.contains("failed   rights: missing: create services in ns-7, list secrets in ns-7, patch things/status.example.dev in ns-7; install"),
        "{text}"
    );

    seconds(3).await;
    assert_eq!(cluster.0.lock().unwrap().asked, 501);
    cluster.change(|facts| facts.foreign = vec![]);
    seconds(3).await;
    assert!(health.readiness().text.contains("ok       rights\n"), "{}", health.readiness().text);
    looking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_a_namespaces_rules_leave_out_is_asked_one_by_one() {
    let cluster = Cluster::default();
    cluster.change(|facts| (facts.incomplete, facts.refused) = (true, vec!["create services"]));
    let (preflight, health) = preflight_in(&cluster, &["team".to_owned()]);
    let looking = tokio::spawn(async move { preflight.until_entitled(&Stop::default()).await });
    seconds(1).await;
    let text = health.readiness().text;
    assert!(text.contains("failed   rights: missing: create services in team; install"), "{text}");
    cluster.change(|facts| facts.refused = vec![]);
    seconds(3).await;
    looking.await.unwrap();
}

#[test]
fn a_rule_grants_what_it_names_and_no_more() {
    let rule = |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]| {
        let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        ResourceRule {
            verbs: list(verbs).unwrap(),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
        }
    };
    let status = right(("patch", "example.dev", "things/status"));
    for (granted, rule) in [
        (true, rule(&["get", "patch"], &["other", "example.dev"], &["things", "things/status"], &[])),
        (true, rule(&["*"], &["*"], &["*"], &[])),
        (true, rule(&["patch"], &["example.dev"], &["*/status"], &[])),
        (false, rule(&["get"], &["example.dev"], &["things/status"], &[])),
        (false, rule(&["patch"], &[""], &["things/status"], &[])),
        (false, rule(&["patch"], &["example.dev"], &["things"], &[])),
        (false, rule(&["patch"], &["example.dev"], &["things/status"], &["only-this"])),
    ] {
        assert_eq!(status.is_in(std::slice::from_ref(&rule)), granted, "{rule:?}");
    }
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
