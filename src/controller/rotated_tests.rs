//! Users whose passwords take turns, in whole passes: what is wrong with one, or what somebody takes away each time, and what it does to others.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use operator_engine::work::queue::Urgency;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::end;
use super::reconcile::{Next, reconcile};
use super::testing::{Server, context, key};
use crate::parts::Context;

/// As long as a pass may be waited for that something here brings about.
const SOON: Duration = Duration::from_secs(45);

fn spec(more: &Value) -> Value {
    let robot = |name: &str| json!({"name": name, "rotation": {"every": "720h", "overlap": "24h"}});
    let alice = json!({"name": "alice", "passwordSecretRef": {"name": "alice"}});
    let mut spec = json!({
        "storage": {"emptyDir": {}}, "deletionPolicy": "Delete",
        "auth": {"users": [robot("one"), robot("two"), alice]},
        "pullSecrets": [{"name": "pull-one", "user": "one"}, {"name": "pull-two", "user": "two"}],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// A server and a context with a registry that is as wanted.
async fn settled() -> (Server, Context) {
    let server = Server::default();
    let mut ctx = context(server.client());
    ctx.settings.login_lead = Duration::ZERO;
    server.has_secret("alice", &json!({"password": STANDARD.encode("of Alice's")}), &ctx);
    server.has_registry(&spec(&json!({})), &ctx);
    works(&ctx).await;
    (server, ctx)
}

/// Works as the operator does, until no pass is due soon.
async fn works(ctx: &Context) {
    ctx.queue.add(&key(), Urgency::Manifest);
    let mut last = String::new();
    for _ in 0..200 {
        let Ok(permit) = timeout(SOON, ctx.queue.next()).await else { return };
        let result = reconcile(permit.key(), ctx).await;
        last = format!("{result:?}");
        if let Ok(Next::Failed(_, due)) = &result {
            ctx.queue.add_after(permit.key(), Urgency::Upkeep, *due);
        }
        let end = end(permit.key(), result, &ctx.engine_metrics);
        permit.end(end);
    }
    panic!("it never comes to rest: {last}");
}

/// What a Secret holds under this key.
fn text(server: &Server, secret: &str, key: &str) -> Option<String> {
    let secret = server.secret(secret)?;
    let text = STANDARD.decode(secret["data"][key].as_str()?).unwrap();
    Some(String::from_utf8(text).unwrap())
}

/// Names of lines in the table, with their hashes.
fn lines(server: &Server) -> Vec<String> {
    text(server, "team-a-htpasswd", "htpasswd").unwrap().lines().map(str::to_owned).collect()
}

fn has_line(server: &Server, name: &str) -> bool {
    lines(server).iter().any(|line| line.starts_with(&format!("{name}:")))
}

fn asks(server: &Server, ctx: &Context, user: &str, value: &str) {
    server.edit_secret(&format!("team-a-login-{user}"), ctx, |secret| {
        secret["metadata"]["annotations"]["privateregistry.dev/rotate"] = value.into();
    });
}

fn counts(server: &Server, user: &str) -> bool {
    text(server, &format!("team-a-login-{user}"), "former-since").is_some()
}

fn told(ctx: &Context, condition: &str) -> (String, String) {
    let status = ctx.registries.get(&key()).unwrap().status.clone().unwrap();
    let told = status.condition(condition).unwrap();
    (told.reason.clone(), told.message.clone())
}

#[tokio::test(start_paused = true)]
async fn a_pull_secret_that_is_refused_keeps_the_former_login_of_its_user_alone() {
    let (server, ctx) = settled().await;
    server.always_refuses("/secrets/pull-one", 403);
    asks(&server, &ctx, "one", "1");
    asks(&server, &ctx, "two", "1");
    works(&ctx).await;
    assert_eq!((counts(&server, "one"), counts(&server, "two")), (false, true));
    server.refuses_nothing();
    works(&ctx).await;
    assert!(counts(&server, "one"));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_keeps_no_other_users_former_login_and_its_own_lines_stay() {
    for hidden in ["team-a-login-two", "alice"] {
        let (server, ctx) = settled().await;
        let former = text(&server, "team-a-login-one", "password");
        asks(&server, &ctx, "one", hidden);
        server.hides(hidden);
        let before = lines(&server);
        server.edit_secret(hidden, &ctx, |secret| secret["metadata"]["labels"]["touched"] = "1".into());
        works(&ctx).await;
        assert!(text(&server, "team-a-login-one", "former-password") == former, "{hidden}: it has taken turns");
        assert!(counts(&server, "one"), "{hidden}");
        let whose = hidden.trim_start_matches("team-a-login-");
        let kept = |lines: Vec<String>| lines.into_iter().filter(|line| line.starts_with(whose)).collect::<Vec<_>>();
        assert_eq!(kept(lines(&server)), kept(before), "{hidden}");
        assert!(has_line(&server, whose) && has_line(&server, "one") && has_line(&server, "one.2"), "{hidden}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_secret_that_cannot_be_read_keeps_both_lines_of_its_user_in_the_table() {
    let (server, ctx) = settled().await;
    asks(&server, &ctx, "one", "1");
    works(&ctx).await;
    assert!(counts(&server, "one") && has_line(&server, "one") && has_line(&server, "one.2"));
    let before = lines(&server);
    server.hides("team-a-login-one");
    server.edit_secret("team-a-login-one", &ctx, |secret| secret["metadata"]["labels"]["touched"] = "1".into());
    // Something else changes the table meanwhile.
    server.has_secret("alice", &json!({"password": STANDARD.encode("another of Alice's")}), &ctx);
    works(&ctx).await;
    let of_one = |lines: &[String]| lines.iter().filter(|line| line.starts_with("one")).cloned().collect::<Vec<_>>();
    assert_ne!(lines(&server), before);
    assert_eq!(of_one(&lines(&server)), of_one(&before));
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_key_out_of_a_login_each_time_makes_nobody_make_another_password_and_is_told() {
    for (user, asked, taken) in [("one", "1", "next-password"), ("one", "now-1", "handled")] {
        let (server, ctx) = settled().await;
        // What is made next is not shown for a while.
        let ctx = Context {
            settings: crate::model::Settings { login_lead: Duration::from_secs(3600), ..ctx.settings.clone() },
            ..ctx
        };
        let secret = format!("team-a-login-{user}");
        asks(&server, &ctx, user, asked);
        works(&ctx).await;
        let passwords = || ["password", "next-password"].map(|key| text(&server, &secret, key));
        let made = passwords();
        assert!(text(&server, &secret, taken).is_some());
        let mut repairs = 0;
        for _ in 0..12 {
            server.edit_secret(&secret, &ctx, |secret| {
                secret["data"].as_object_mut().unwrap().remove(taken);
            });
            works(&ctx).await;
            if text(&server, &secret, taken).is_some() {
                repairs += 1;
                assert!(passwords() == made, "another password was made");
            }
        }
        assert!((3..8).contains(&repairs), "{taken}: repaired {repairs} times");
        let (reason, words) = told(&ctx, "Ready");
        assert_eq!(reason, "Contested", "{words}");
        assert!(words.contains(taken) && words.contains(&secret), "{words}");
        assert!(made.iter().flatten().all(|password| !words.contains(password.as_str())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_selector_of_namespaces_keeps_the_former_login_that_copies_there_may_show_and_no_other() {
    let (server, ctx) = settled().await;
    let copied = |selector: &Value| {
        let copies = json!({"name": "pull-one", "user": "one", "namespaces": {"selector": selector}});
        spec(&json!({"pullSecrets": [copies, {"name": "pull-two", "user": "two"}]}))
    };
    let good = json!({"matchLabels": {"tier": "build"}});
    server.edit_registry(&ctx, |registry| registry["spec"] = copied(&good));
    works(&ctx).await;
    let wrong = json!({"matchExpressions": [{"key": "tier", "operator": "Like"}]});
    server.edit_registry(&ctx, |registry| registry["spec"] = copied(&wrong));
    works(&ctx).await;
    let former = text(&server, "team-a-login-one", "password");
    asks(&server, &ctx, "one", "1");
    asks(&server, &ctx, "two", "1");
    works(&ctx).await;
    assert_eq!(text(&server, "team-a-login-one", "former-password"), former, "it has taken turns");
    assert_eq!((counts(&server, "one"), counts(&server, "two")), (false, true));
    assert_eq!(told(&ctx, "PullSecretsCopied").0, "InvalidManifest");

    server.edit_registry(&ctx, |registry| registry["spec"] = copied(&good));
    works(&ctx).await;
    assert!(counts(&server, "one"));
}

/// What the cluster says of a token's life may be long over by the operator's clock, or far ahead.
#[tokio::test(start_paused = true)]
async fn clocks_that_differ_ask_for_a_token_once_in_a_while_and_not_without_end() {
    for seconds in [-3_600, 36_000] {
        let server = Server::default();
        let ctx = context(server.client());
        server.gives_tokens_for(seconds);
        let rules = json!([{"users": ["*"], "repositories": ["**"], "actions": ["pull"]}]);
        let auth = json!({"token": {"kubernetes": {"audience": "team-a.n.svc"}, "rules": rules}});
        let pull = json!([{"serviceAccountName": "default"}]);
        server.has_registry(&json!({"storage": {"emptyDir": {}}, "auth": auth, "pullSecrets": pull}), &ctx);
        let tokens = || server.asked().iter().filter(|request| request.ends_with("/token")).count();
        works(&ctx).await;
        assert_eq!(tokens(), 1, "{seconds}");
        for _ in 0..4 {
            works(&ctx).await;
        }
        assert_eq!(tokens(), 0, "{seconds}: it is a new one");
        for _ in 0..40 {
            works(&ctx).await;
        }
        let more = tokens();
        assert!((1..=8).contains(&more), "{seconds}: {more} in half an hour");
    }
}
