//! Two installations of the operator for one namespace: who came first has it, the other one says so and takes over only when the first is gone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::control_plane::{Entry, Mark};

use crate::cluster::{Namespace, namespace};
use crate::operator::{LEASE, Operator};
use crate::registry::Registry;
use crate::wait::{PATIENCE, always, eventually, within};

const SECOND: &str = "second";
const FIRSTS_IMAGE: &str = "registry.example.test/first:3.1.2";
const SECONDS_IMAGE: &str = "registry.example.test/second:3.1.2";
/// How long the second one waits for an answer.
const WAIT: Duration = Duration::from_secs(10);

impl Namespace {
    async fn first(&self, more: &[&str]) -> Operator {
        let image = format!("--registry-image={FIRSTS_IMAGE}");
        self.operator_with(&[&[image.as_str()], more].concat()).await
    }

    /// An account with the rights to a Lease of its own, too.
    async fn account_of_the_second(&self) -> std::path::PathBuf {
        self.second_account(SECOND).await;
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "lease-of-the-second"},
            "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [SECOND], "verbs": ["get", "update"]}],
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "lease-of-the-second"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lease-of-the-second"},
            "subjects": [{"kind": "ServiceAccount", "name": SECOND}],
        });
        self.create(role).await;
        self.create(binding).await;
        self.credentials_of(SECOND, 3600).await
    }

    async fn second(&self, credentials: &std::path::Path) -> Operator {
        let (image, wait) =
            (format!("--registry-image={SECONDS_IMAGE}"), format!("--takeover-wait={}s", WAIT.as_secs()));
        let operator = self.installation_as(SECOND, credentials, &[&image, &wait], &[]);
        operator.ready().await;
        operator
    }

    /// What the second one wrote since `mark`.
    async fn written_by_the_second_since(&self, mark: Mark) -> Vec<Entry> {
        let user = format!("system:serviceaccount:{}:{SECOND}", self.name);
        let all = self.cluster.plane.audit().await.unwrap().since(mark).await.unwrap();
        let aside = ["leases", "selfsubjectaccessreviews", "selfsubjectrulesreviews"];
        all.into_iter()
            .filter(|entry| entry.user == user && entry.is_write() && !aside.contains(&entry.resource.as_str()))
            .collect()
    }

    async fn count_of_events(&self, reason: &str) -> usize {
        let events: Value = serde_json::from_str(&self.events().await).unwrap();
        events.as_array().unwrap().iter().filter(|event| event["reason"] == reason).count()
    }
}

impl Registry<'_> {
    async fn is_looked_after_by(&self, lease: &str, limit: Duration) {
        let name = format!("{}/{lease}", self.namespace.name);
        self.object
            .becomes(limit, &format!("is looked after by {name}"), |live| live["status"]["operator"] == name)
            .await;
    }

    async fn runs(&self, image: &str) {
        let runs = |live: &Value| live["spec"]["template"]["spec"]["containers"][0]["image"] == image;
        self.deployment().becomes(PATIENCE, &format!("runs {image}"), runs).await;
    }
}

#[tokio::test]
async fn who_came_first_keeps_its_registries_and_the_second_writes_nothing_but_questions() {
    let Some(team) = namespace("two-operators").await else { return };
    let _first = team.first(&[]).await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    registry.is_looked_after_by(LEASE, PATIENCE).await;
    team.settles().await;

    let credentials = team.account_of_the_second().await;
    let mark = team.mark().await;
    let second = team.second(&credentials).await;
    let readiness = second.readiness_says(&format!("{0}/{LEASE} looks after {0}/team-a", team.name)).await;
    assert!(!readiness.contains("failed"), "{readiness}");
    eventually(PATIENCE, "an event tells", async || match team.count_of_events("OtherOperator").await {
        1 => Ok(()),
        count => Err(format!("{count} events")),
    })
    .await;

    // Another registry, and repairs: all of it is the first one's.
    let another = team.registry("team-b", json!({})).await.ready().await;
    another.is_looked_after_by(LEASE, PATIENCE).await;
    let service = registry.service().uid().await;
    registry.service().delete().await;
    registry.service().is_made_again(&service, PATIENCE).await;
    registry.apply(json!({"config": {"logLevel": "debug"}})).await.unwrap();
    let registry = registry.ready().await;
    for registry in [&registry, &another] {
        registry.runs(FIRSTS_IMAGE).await;
    }

    // Long enough for several questions.
    always(2 * WAIT, "nobody else writes", async || {
        let written = team.written_by_the_second_since(mark).await;
        let is_aside = |entry: &Entry| entry.resource == "events" || entry.subresource == "status";
        if written.iter().all(is_aside) { Ok(()) } else { Err(format!("{written:#?}")) }
    })
    .await;
    let written = team.written_by_the_second_since(mark).await;
    let questions = written.iter().filter(|entry| entry.subresource == "status").count();
    assert!((1..=6).contains(&questions), "asked {questions} times");
    registry.is_looked_after_by(LEASE, PATIENCE).await;
    assert_eq!(team.count_of_events("OtherOperator").await, 1);
}

#[tokio::test]
async fn when_the_first_is_gone_the_second_takes_over_and_keeps_what_it_took() {
    let Some(team) = namespace("operator-moves").await else { return };
    let first = team.first(&[]).await;
    let registries = [team.registry("team-a", json!({})).await, team.registry("team-b", json!({})).await];
    let mut ready = Vec::new();
    for registry in registries {
        ready.push(registry.ready().await);
    }
    let credentials = team.account_of_the_second().await;
    let second = team.second(&credentials).await;
    second.readiness_says("looks after").await;

    assert!(first.stop().await.success());
    let stopped = Instant::now();
    for registry in &ready {
        registry.is_looked_after_by(SECOND, within(60)).await;
    }
    eprintln!("the takeover took {:?}", stopped.elapsed());
    for registry in &ready {
        registry.runs(SECONDS_IMAGE).await;
    }
    assert!(team.count_of_events("TakenOver").await > 0);
    second.readiness_says("ok       other operators\n").await;

    // It comes back, and came second.
    let first = team.first(&["--takeover-wait=10s"]).await;
    first.readiness_says(&format!("{}/{SECOND} looks after", team.name)).await;
    for registry in ready {
        registry.deployment().survives(within(1)).await;
        registry.runs(SECONDS_IMAGE).await;
        registry.ready().await.is_looked_after_by(SECOND, within(1)).await;
    }
}

#[tokio::test]
async fn when_a_leader_dies_its_own_standby_goes_on_and_no_other_installation_takes_anything() {
    let Some(team) = namespace("leader-dies").await else { return };
    let (leader, _standby) = (team.first(&[]).await, team.first(&[]).await);
    let registry = team.registry("team-a", json!({})).await.ready().await;
    registry.is_looked_after_by(LEASE, PATIENCE).await;
    let credentials = team.account_of_the_second().await;
    let image = format!("--registry-image={SECONDS_IMAGE}");
    // As long as an installation is given by default.
    let second = team.installation_as(SECOND, &credentials, &[&image, "--takeover-wait=60s"], &[]);
    second.ready().await;
    second.readiness_says("looks after").await;

    let mark = team.mark().await;
    leader.kill();
    let service = registry.service().uid().await;
    registry.service().delete().await;

    registry.service().is_made_again(&service, within(40)).await;
    always(within(20), "the second one writes nothing", async || {
        let written = team.written_by_the_second_since(mark).await;
        let is_aside = |entry: &Entry| entry.resource == "events" || entry.subresource == "status";
        if written.iter().all(is_aside) { Ok(()) } else { Err(format!("{written:#?}")) }
    })
    .await;
    registry.is_looked_after_by(LEASE, within(1)).await;
    registry.runs(FIRSTS_IMAGE).await;
}

impl Namespace {
    /// The rights of the chart in this namespace for an account of another one.
    async fn admits(&self, home: &Namespace) {
        for mut object in self.cluster.chart(&self.name, &[&format!("watch.namespaces={{{}}}", self.name)]) {
            let (kind, name) =
                (object["kind"].as_str().unwrap_or_default().to_owned(), object["metadata"]["name"].clone());
            if !["Role", "RoleBinding"].contains(&kind.as_str()) {
                continue;
            }
            let renamed = format!("{}-{}", name.as_str().unwrap(), home.name);
            object["metadata"]["name"] = json!(renamed);
            if kind == "RoleBinding" {
                object["roleRef"]["name"] =
                    json!(format!("{}-{}", object["roleRef"]["name"].as_str().unwrap(), home.name));
                object["subjects"][0]["namespace"] = json!(home.name);
            }
            self.create(object).await;
        }
    }
}

#[tokio::test]
async fn of_two_whose_namespaces_overlap_each_serves_its_own_and_one_what_both_watch() {
    let Some(x) = namespace("overlap-x").await else { return };
    let (y, z) = (x.cluster.namespace("overlap-y").await, x.cluster.namespace("overlap-z").await);
    let folder = || json!({"storage": {"emptyDir": {}}});
    y.admits(&x).await;
    y.admits(&z).await;
    let wait = format!("--takeover-wait={}s", WAIT.as_secs());
    let images = [FIRSTS_IMAGE, SECONDS_IMAGE].map(|image| format!("--registry-image={image}"));
    let more = ["--watch-namespace", &y.name, &wait];
    let first = x.operator_with(&[&[images[0].as_str()], &more[..]].concat()).await;
    let in_x = x.registry("in-x", folder()).await.ready().await;
    let in_y = y.registry("in-y", folder()).await.ready().await;
    let second = z.operator_with(&[&[images[1].as_str()], &more[..]].concat()).await;
    let in_z = z.registry("in-z", folder()).await.ready().await;
    second.readiness_says(&format!("{}/{LEASE} looks after {}/in-y", x.name, y.name)).await;

    let repaired = async |registry: &Registry<'_>| {
        let name = "app.kubernetes.io/name";
        registry.service().edit(json!({"metadata": {"labels": {name: "drifted"}}})).await;
        let is_back = |live: &Value| live["metadata"]["labels"][name] == "private-registry";
        registry.service().becomes(PATIENCE, "is repaired", is_back).await;
    };
    let owner = async |registry: &Registry<'_>| registry.object.at("/status/operator").await;
    for registry in [&in_x, &in_y, &in_z] {
        repaired(registry).await;
    }
    let generation = in_y.deployment().at("/metadata/generation").await;
    always(WAIT, "nobody fights", async || {
        let now = (owner(&in_y).await, in_y.deployment().at("/metadata/generation").await);
        if now == (json!(format!("{}/{LEASE}", x.name)), generation.clone()) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    in_x.runs(FIRSTS_IMAGE).await;
    in_y.runs(FIRSTS_IMAGE).await;
    in_z.runs(SECONDS_IMAGE).await;

    // What both watch goes to the other one, and nothing else does.
    assert!(first.stop().await.success());
    let theirs = format!("{}/{LEASE}", z.name);
    in_y.object.becomes(within(60), "is taken over", |live| live["status"]["operator"] == theirs).await;
    for registry in [&in_y, &in_z] {
        repaired(registry).await;
        registry.runs(SECONDS_IMAGE).await;
    }
    assert_eq!(owner(&in_x).await, format!("{}/{LEASE}", x.name));
    in_x.runs(FIRSTS_IMAGE).await;
}

/// Whoever pulls must notice nothing: what runs, and what it mounts, is as it was.
#[tokio::test]
async fn a_takeover_by_an_installation_of_the_same_settings_writes_no_child() {
    let Some(team) = namespace("quiet-takeover").await else { return };
    let image = format!("--registry-image={SECONDS_IMAGE}");
    let first = team.operator_with(&[&image]).await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let credentials = team.account_of_the_second().await;
    let second = team.second(&credentials).await;
    second.readiness_says("looks after").await;
    team.settles().await;
    let before = registry.deployment().at("/metadata/generation").await;

    let mark = team.mark().await;
    assert!(first.stop().await.success());
    registry.is_looked_after_by(SECOND, within(60)).await;
    second.readiness_says("ok       other operators\n").await;
    always(Duration::from_secs(3), "no child is written", async || {
        let written = team.written_by_the_second_since(mark).await;
        let is_aside = |entry: &Entry| entry.resource == "events" || entry.subresource == "status";
        if written.iter().all(is_aside) { Ok(()) } else { Err(format!("{written:#?}")) }
    })
    .await;
    assert_eq!(registry.deployment().at("/metadata/generation").await, before);
    registry.ready().await;
}

#[tokio::test]
async fn of_two_that_meet_a_new_registry_at_once_one_gets_it() {
    let Some(team) = namespace("operators-at-once").await else { return };
    let _first = team.first(&["--takeover-wait=10s"]).await;
    let credentials = team.account_of_the_second().await;
    let _second = team.second(&credentials).await;
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        team.registry(name, json!({"storage": {"emptyDir": {}}})).await;
    }
    for name in names {
        let registry = Registry::named(&team, name).ready().await;
        let operator = registry.object.at("/status/operator").await;
        let image = if operator == format!("{}/{LEASE}", team.name) { FIRSTS_IMAGE } else { SECONDS_IMAGE };
        registry.runs(image).await;
        let settled = registry.deployment().get().await;
        always(Duration::from_secs(2), "nobody changes it any more", async || {
            let now = registry.deployment().get().await;
            let is_same = now["metadata"]["generation"] == settled["metadata"]["generation"];
            if is_same { Ok(()) } else { Err(format!("{} instead of {}", now["spec"], settled["spec"])) }
        })
        .await;
        assert_eq!(registry.object.at("/status/operator").await, operator);
    }
}
