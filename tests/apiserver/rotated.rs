//! Users whose passwords the operator makes: one login takes over from another, and nobody is ever shown one that is not accepted.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace};
use crate::object::Object;
use crate::operator::Operator;
use crate::registry::Registry;
use crate::wait::{PATIENCE, always, eventually};

const MONTH: SignedDuration = SignedDuration::from_hours(720);
const DAY: SignedDuration = SignedDuration::from_hours(24);

fn robot() -> Value {
    json!({"name": "robot", "rotation": {"every": "720h"}})
}

/// A registry with a robot that pods pull as.
fn spec() -> Value {
    json!({"auth": {"users": [robot()]}, "pullSecrets": [{"user": "robot"}]})
}

/// The same with tokens.
fn with_tokens() -> Value {
    let mut spec = spec();
    spec["auth"]["token"] = json!({"rules": [{"users": ["robot"], "repositories": ["**"], "actions": ["pull"]}]});
    spec
}

/// A name and a password.
type Login = (String, String);

/// As what the operator shows to somebody.
fn login(username: &str, password: &str) -> Login {
    (username.to_owned(), password.to_owned())
}

impl Namespace {
    /// An operator that shows a login soon after it is accepted.
    async fn hasty_operator(&self) -> Operator {
        self.operator_with(&["--login-lead", "2s"]).await
    }
}

impl Registry<'_> {
    fn login(&self) -> Object {
        self.child("Secret", "-login-robot")
    }

    async fn shown(&self) -> Login {
        // In one read: it may change between two.
        let live = self.login().get().await;
        let [user, password] = ["username", "password"]
            .map(|key| String::from_utf8(STANDARD.decode(live["data"][key].as_str().unwrap()).unwrap()).unwrap());
        login(&user, &password)
    }

    /// What pods of the namespace pull with; `None` while there is no such Secret.
    async fn pulled_with(&self) -> Option<Login> {
        let live = self.child("Secret", "-pull").find().await?;
        let text = STANDARD.decode(live["data"][".dockerconfigjson"].as_str().unwrap()).unwrap();
        let config: Value = serde_json::from_slice(&text).unwrap();
        let of = config["auths"].as_object().unwrap().values().next().unwrap();
        Some(login(of["username"].as_str().unwrap(), of["password"].as_str().unwrap()))
    }

    async fn accepts(&self, (user, password): &Login) -> bool {
        self.knows(user, password).await
    }

    /// Looks on for as long as the other future takes: what anybody is shown is accepted.
    async fn never_shows_what_is_not_accepted<T>(&self, meanwhile: impl Future<Output = T>) -> T {
        let watch = async {
            loop {
                // What is read later accepts at least what was shown before.
                let shown = self.shown().await;
                assert!(self.accepts(&shown).await, "{} is shown and not accepted", shown.0);
                if let Some(pulled) = self.pulled_with().await {
                    assert!(self.accepts(&pulled).await, "pods pull as {} and are not let in", pulled.0);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = watch => unreachable!(),
            done = meanwhile => done,
        }
    }

    /// Waits until another login than this is shown, in the pull Secret too, and the time of this one counts.
    async fn shows_another_than(&self, former: &Login) -> Login {
        eventually(PATIENCE, "another login is shown", async || {
            let (shown, pulled) = (self.shown().await, self.pulled_with().await);
            let is_counting = !self.login().at("/data/former-since").await.is_null();
            if shown != *former && pulled.as_ref() == Some(&shown) && is_counting { Ok(shown) } else { Err(shown.0) }
        })
        .await
    }

    /// As if a time that is stored had been so much earlier.
    async fn lets_pass(&self, key: &str, long: SignedDuration) {
        let at: Timestamp = self.login().decoded(key).await.parse().unwrap();
        self.login().edit(json!({"stringData": {key: (at - long).to_string()}})).await;
    }

    async fn refuses(&self, login: &Login) {
        eventually(PATIENCE, &format!("{} is refused", login.0), async || {
            if self.accepts(login).await { Err("the table has it".to_owned()) } else { Ok(()) }
        })
        .await;
    }

    /// What the status says of the robot.
    async fn times(&self) -> Value {
        let users = self.object.at("/status/users").await;
        let robot = users.as_array().unwrap().iter().find(|user| user["name"] == "robot").unwrap();
        robot["rotation"].clone()
    }

    async fn asks_for(&self, value: &str) {
        self.login().annotate("privateregistry.dev/rotate", value).await;
    }
}

#[tokio::test]
async fn one_login_takes_over_from_another_and_nobody_is_shown_what_is_not_accepted() {
    let Some(team) = namespace("rotated").await else { return };
    let _operator = team.hasty_operator().await;
    let registry = team.registry("team-a", spec()).await.ready().await;
    let first = registry.shown().await;
    assert_eq!((first.0.as_str(), registry.pulled_with().await.as_ref()), ("robot", Some(&first)));
    assert!(registry.admin().find().await.is_none(), "somebody can log in");
    assert_eq!(registry.login().at("/type").await, "kubernetes.io/basic-auth");
    let since: Timestamp = registry.login().decoded("since").await.parse().unwrap();
    assert_eq!(registry.times().await, json!({"next": (since + MONTH).to_string()}));
    assert_eq!(registry.object.at("/status/userCount").await, 1);
    team.settles().await;

    let second = registry
        .never_shows_what_is_not_accepted(async {
            registry.lets_pass("since", MONTH).await;
            registry.shows_another_than(&first).await
        })
        .await;
    assert_eq!(second.0, "robot.2", "the registry's file has one line for a name");
    assert!(registry.accepts(&first).await, "the former one counts a day longer");
    let former_since: Timestamp = registry.login().decoded("former-since").await.parse().unwrap();
    registry
        .object
        .becomes(PATIENCE, "says how long", |live| {
            live["status"]["users"][0]["rotation"]["formerEndsAt"] == (former_since + DAY).to_string()
        })
        .await;
    assert_eq!(registry.object.at("/status/userCount").await, 1, "one user with two logins");
    let table: Value = serde_json::from_str(&registry.htpasswd().decoded("access.json").await).unwrap();
    assert_eq!(table["secondLines"], json!({"robot.2": "robot"}));
    team.settles().await;
    let events = team.events().await;
    assert_eq!(events.matches("\"reason\":\"LoginSwitched\"").count(), 1, "{events}");

    let third = registry
        .never_shows_what_is_not_accepted(async {
            registry.lets_pass("former-since", DAY).await;
            registry.refuses(&first).await;
            assert_eq!(registry.shown().await, second);
            registry.lets_pass("since", MONTH).await;
            registry.shows_another_than(&second).await
        })
        .await;
    assert_eq!(third.0, "robot");
    assert!(third.1 != first.1 && registry.accepts(&second).await && !registry.accepts(&first).await);

    // Taken out, both logins are out at once.
    registry.apply(json!({})).await.unwrap();
    registry.refuses(&third).await;
    assert!(!registry.accepts(&second).await);
    registry.login().disappears(PATIENCE).await;
    registry.ready().await;
}

#[tokio::test]
async fn with_tokens_the_name_stays_and_the_former_password_keeps_its_hash() {
    let Some(team) = namespace("rotated-tokens").await else { return };
    let _operator = team.hasty_operator().await;
    let registry = team.registry("team-a", with_tokens()).await.ready().await;
    let hash = async |line: &str| {
        let table = registry.htpasswd().decoded("htpasswd").await;
        table.lines().find_map(|found| found.strip_prefix(&format!("{line}:")).map(str::to_owned))
    };
    let (first, first_hash) = (registry.shown().await, hash("robot").await);
    registry.asks_for("1").await;
    let second = registry.shows_another_than(&first).await;
    assert_eq!((second.0.as_str(), first.0.as_str()), ("robot", "robot"));
    eventually(PATIENCE, "the lines have changed places", async || {
        let other = login("robot.2", &first.1);
        if registry.accepts(&second).await && registry.accepts(&other).await { Ok(()) } else { Err(String::new()) }
    })
    .await;
    assert_eq!(hash("robot.2").await, first_hash, "whoever has a token for it keeps that");
    team.settles().await;

    // From tokens to plain logins: what is shown is a line of its own.
    registry.never_shows_what_is_not_accepted(async { registry.apply(spec()).await.unwrap() }).await;
    let registry = registry.ready().await;
    assert_eq!(registry.shown().await, second);
    registry.lets_pass("former-since", DAY).await;
    registry.refuses(&login("robot.2", &first.1)).await;
    registry.asks_for("2").await;
    let third = registry.never_shows_what_is_not_accepted(registry.shows_another_than(&second)).await;
    assert_eq!(third.0, "robot.2");
    // And back: both of its names are let in.
    registry.never_shows_what_is_not_accepted(async { registry.apply(with_tokens()).await.unwrap() }).await;
    let registry = registry.ready().await;
    assert_eq!(registry.shown().await, third);
    registry.lets_pass("former-since", DAY).await;
    registry.refuses(&second).await;
    registry.asks_for("3").await;
    let fourth = registry.never_shows_what_is_not_accepted(registry.shows_another_than(&third)).await;
    assert_eq!(fourth.0, "robot");
}

#[tokio::test]
async fn a_request_is_done_once_and_a_leak_ends_every_login_at_once() {
    let Some(team) = namespace("rotated-leak").await else { return };
    let _operator = team.hasty_operator().await;
    let registry = team.registry("team-a", spec()).await.ready().await;
    let first = registry.shown().await;
    registry.asks_for("1").await;
    let second = registry.shows_another_than(&first).await;
    assert_eq!(registry.login().decoded("handled").await, "1");
    team.settles().await;
    // While the former one counts, the next one waits.
    registry.asks_for("2").await;
    team.settles().await;
    assert_eq!(registry.shown().await, second);
    assert_eq!(registry.login().decoded("handled").await, "1");

    registry.asks_for("now-1").await;
    eventually(PATIENCE, "another login is shown", async || {
        let (shown, pulled) = (registry.shown().await, registry.pulled_with().await);
        if shown != second && pulled == Some(shown.clone()) { Ok(()) } else { Err(shown.0) }
    })
    .await;
    let third = registry.shown().await;
    assert!(registry.accepts(&third).await);
    registry.refuses(&first).await;
    registry.refuses(&second).await;
    let live = registry.login().get().await;
    assert!(live["data"]["former-password"].is_null() && live["data"]["next-password"].is_null());
    assert_eq!(registry.login().decoded("handled").await, "now-1");
    team.settles().await;
    assert_eq!(registry.shown().await, third);
    assert_eq!(registry.login().at("/metadata/annotations/privateregistry.dev~1rotate").await, "now-1");
}

/// Whoever pulls must not be left with a login that has ended.
#[tokio::test]
async fn the_time_of_a_former_login_counts_when_the_pull_secret_shows_its_successor() {
    let Some(team) = namespace("rotated-pull").await else { return };
    let _operator = team.hasty_operator().await;
    let registry = team.registry("team-a", spec()).await.ready().await;
    let first = registry.shown().await;
    registry.child("Secret", "-pull").edit(json!({"immutable": true})).await;
    registry.asks_for("1").await;
    registry.says("UsersReady", "False", "Immutable").await;
    assert_ne!(registry.shown().await, first);
    always(Duration::from_secs(5), "the former login counts", async || {
        assert_eq!(registry.pulled_with().await.as_ref(), Some(&first));
        assert!(registry.login().at("/data/former-since").await.is_null());
        if registry.accepts(&first).await { Ok(()) } else { Err("it is refused".to_owned()) }
    })
    .await;
    registry.child("Secret", "-pull").delete().await;
    registry.shows_another_than(&first).await;
    registry.ready().await;
}

#[tokio::test]
async fn a_table_that_pods_do_not_follow_keeps_the_login_that_is_shown() {
    let Some(team) = namespace("rotated-table").await else { return };
    let _operator = team.hasty_operator().await;
    let registry = team.registry("team-a", spec()).await.ready().await;
    let first = registry.shown().await;
    registry.htpasswd().edit(json!({"immutable": true})).await;
    registry.asks_for("1").await;
    registry.says("UsersReady", "False", "Immutable").await;
    always(Duration::from_secs(5), "the first login is shown and accepted", async || {
        assert_eq!((registry.shown().await, registry.pulled_with().await), (first.clone(), Some(first.clone())));
        if registry.accepts(&first).await { Ok(()) } else { Err("it is refused".to_owned()) }
    })
    .await;
    registry.htpasswd().delete().await;
    registry.htpasswd().appears(PATIENCE).await;
    registry.says("UsersReady", "False", "PodsKeepOldTable").await;
    always(Duration::from_secs(5), "pods that run keep the table that was immutable", async || {
        assert!(registry.login().at("/data/next-password").await.is_null(), "nor is a next login made");
        if registry.shown().await == first { Ok(()) } else { Err("another login is shown".to_owned()) }
    })
    .await;
    let mut stopped = spec();
    stopped["suspend"] = json!(true);
    registry.apply(stopped).await.unwrap();
    registry.has_no_pod().await;
    registry.apply(spec()).await.unwrap();
    registry.shows_another_than(&first).await;
    registry.ready().await;
}

#[tokio::test]
async fn who_takes_the_next_password_out_each_time_makes_nobody_make_another_and_is_told() {
    let Some(team) = namespace("rotated-taken").await else { return };
    // What is made next is not shown for a while.
    let operator = team.operator_with(&["--login-lead", "10m"]).await;
    let registry = team.registry("team-a", spec()).await.ready().await;
    let shown = registry.shown().await;
    registry.asks_for("1").await;
    let has_next = |live: &Value| live["data"]["next-password"].is_string();
    registry.login().becomes(PATIENCE, "has a next password", has_next).await;
    let next = registry.login().decoded("next-password").await;
    let mut repairs = 0;
    for _ in 0..8 {
        registry.login().edit(json!({"data": {"next-password": null}})).await;
        team.settles().await;
        let now = registry.login().get().await;
        if has_next(&now) {
            repairs += 1;
            assert_eq!(registry.login().decoded("next-password").await, next, "another one was made");
        }
    }
    assert!((2..=4).contains(&repairs), "repaired {repairs} times");
    let words = registry.says("Ready", "False", "Contested").await;
    assert!(words.contains("data.next-password") && words.contains("team-a-login-robot"), "{words}");
    assert_eq!(registry.shown().await, shown);
    assert!(registry.accepts(&shown).await);
    assert!(!words.contains(&next) && !operator.log().contains(&next));
    // Whoever asks for another one all the same gets it.
    registry.asks_for("now-1").await;
    eventually(PATIENCE, "another login is shown", async || {
        if registry.shown().await == shown { Err("the former one".to_owned()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_one_login_stops_nobody_else() {
    let Some(team) = namespace("rotated-broken").await else { return };
    let theirs = team.secret("team-a-login-robot", &[("password", "somebody else's")]).await;
    let _operator = team.hasty_operator().await;
    let builds = json!({"name": "builds", "rotation": {"every": "1h", "overlap": "1m"}});
    let both = json!({"auth": {"users": [robot(), builds]}});
    let registry = team.registry("team-a", both.clone()).await;
    let words = registry.says("UsersReady", "False", "NotOurs").await;
    assert!(words.contains("team-a-login-robot"), "{words}");
    let other = registry.child("Secret", "-login-builds");
    registry.lets_in("builds", &other.decoded("password").await).await;
    assert!(!registry.knows("robot", "somebody else's").await);
    assert_eq!(theirs.decoded("password").await, "somebody else's");

    theirs.delete().await;
    let registry = registry.ready().await;
    let shown = registry.shown().await;
    // Garbage: what the table has stays.
    registry.login().edit(json!({"stringData": {"password": "short"}})).await;
    registry.says("UsersReady", "False", "LoginUnreadable").await;
    assert!(registry.accepts(&shown).await);
    registry
        .login()
        .edit(json!({"stringData": {"password": shown.1, "next-password": "short", "since": "yesterday"}}))
        .await;
    // A time that cannot be read does no harm: the next login comes.
    let next = registry.shows_another_than_alone(&shown).await;
    assert!(registry.accepts(&next).await);
    team.settles().await;
    // Somebody puts a password of his own there.
    registry.login().edit(json!({"stringData": {"password": "of my own choice"}})).await;
    registry.lets_in(&next.0, "of my own choice").await;
    // Deleted: another login at once.
    registry.login().delete().await;
    registry.login().appears(PATIENCE).await;
    let fresh = registry.shown().await;
    registry.lets_in(&fresh.0, &fresh.1).await;
    registry.refuses(&login(&next.0, "of my own choice")).await;

    // On its way out: its password holds, and nothing is written to it.
    registry.login().edit(json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    registry.login().delete().await;
    registry.says("UsersReady", "False", "BeingDeleted").await;
    registry.asks_for("1").await;
    always(Duration::from_secs(3), "its password holds", async || {
        if registry.accepts(&fresh).await { Ok(()) } else { Err("it is refused".to_owned()) }
    })
    .await;
    registry.login().edit(json!({"metadata": {"finalizers": null}})).await;
    registry.refuses(&fresh).await;
    registry.ready().await;
}

impl Registry<'_> {
    /// The same where pods pull as somebody else.
    async fn shows_another_than_alone(&self, former: &Login) -> Login {
        eventually(PATIENCE, "another login is shown", async || {
            let shown = self.shown().await;
            if shown != *former { Ok(shown) } else { Err(shown.0) }
        })
        .await
    }
}

#[tokio::test]
async fn from_a_rotation_to_a_password_of_ones_own_and_back() {
    let Some(team) = namespace("rotated-switched").await else { return };
    let _operator = team.hasty_operator().await;
    let registry = team.registry("team-a", spec()).await.ready().await;
    let first = registry.shown().await;
    team.secret("own", &[("password", "one of my own")]).await;
    let own = |secret: &str| {
        let mut spec = spec();
        spec["auth"]["users"] = json!([{"name": "robot", "passwordSecretRef": {"name": secret}}]);
        spec
    };
    registry.apply(own("own")).await.unwrap();
    registry.lets_in("robot", "one of my own").await;
    registry.login().disappears(PATIENCE).await;
    let registry = registry.ready().await;
    assert_eq!(registry.pulled_with().await, Some(login("robot", "one of my own")));
    assert!(!registry.accepts(&first).await);

    registry.apply(spec()).await.unwrap();
    let registry = registry.ready().await;
    let second = registry.shown().await;
    assert!(second.1 != first.1 && registry.accepts(&second).await);
    assert!(!registry.knows("robot", "one of my own").await);

    // Its own Secret, so that the password stays.
    registry.apply(own("team-a-login-robot")).await.unwrap();
    let registry = registry.ready().await;
    team.settles().await;
    assert!(registry.accepts(&second).await && registry.login().find().await.is_some());
    registry.apply(spec()).await.unwrap();
    let registry = registry.ready().await;
    assert_eq!(registry.shown().await, second);

    // A paused registry is left alone.
    registry.object.annotate("privateregistry.dev/paused", "true").await;
    registry.says("Ready", "False", "Paused").await;
    registry.asks_for("1").await;
    always(Duration::from_secs(4), "nothing happens", async || {
        if registry.login().at("/data/next-password").await.is_null() { Ok(()) } else { Err("it began".to_owned()) }
    })
    .await;
    registry.object.annotate("privateregistry.dev/paused", Value::Null).await;
    registry.never_shows_what_is_not_accepted(registry.shows_another_than(&second)).await;
}
