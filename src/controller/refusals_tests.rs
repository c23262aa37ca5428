//! Whatever a pass asks of the API server may be refused. None of it is left until the next sweep: the pass is made again soon, and in the end all is as
//! if nothing had been refused. Request by request, so that a new one is tried like the others.

use std::time::Duration;

use base64::Engine as _;
use operator_engine::work::queue::Urgency;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::end;
use super::reconcile::{Next, reconcile};
use super::testing::{Server, context, key};
use crate::parts::Context;

/// By when what was refused must be made good. Whoever is not as wanted has a pass every ten minutes, give or take two, whatever happened.
const PATIENCE: Duration = Duration::from_secs(7 * 60);

fn password(text: &str) -> Value {
    base64::engine::general_purpose::STANDARD.encode(text).into()
}

fn spec(users: bool) -> Value {
    let alice = json!([{"name": "alice", "passwordSecretRef": {"name": "alice"}}]);
    let auth = if users { json!({"users": alice}) } else { json!({}) };
    json!({"storage": {"emptyDir": {}}, "deletionPolicy": "Delete", "auth": auth})
}

fn rotating() -> Value {
    let mut spec = spec(false);
    spec["tls"] = json!({"privateCA": {"rotation": {"gracePeriod": "0s"}}});
    spec
}

/// What is there before, and what then happens.
struct Case {
    name: &'static str,
    before: fn(&Server, &Context),
    happens: fn(&Server, &Context),
}

fn asking() -> Value {
    let mut spec = spec(false);
    spec["tls"] = json!({"certificateSigningRequest": {"signerName": "example.com/registries"}});
    spec
}

const CASES: [Case; 10] = [
    Case { name: "it is new", before: |_, _| {}, happens: |server, ctx| server.has_registry(&spec(false), ctx) },
    Case {
        name: "a password changes",
        before: |server, ctx| {
            server.has_secret("alice", &json!({"password": password("before-1")}), ctx);
            server.has_registry(&spec(true), ctx);
            server.has_pod("one");
            server.has_pod("two");
        },
        happens: |server, ctx| {
            server.has_secret("alice", &json!({"password": password("afterwards")}), ctx);
            ctx.recall.pods_changed(&key());
        },
    },
    Case {
        name: "the generated admin ends",
        before: |server, ctx| server.has_registry(&spec(false), ctx),
        happens: |server, ctx| {
            server.has_secret("alice", &json!({"password": password("before-1")}), ctx);
            server.edit_registry(ctx, |registry| registry["spec"] = spec(true));
        },
    },
    Case {
        name: "what runs becomes a Job",
        before: |server, ctx| server.has_registry(&spec(false), ctx),
        happens: |server, ctx| {
            server.edit_registry(ctx, |registry| registry["spec"]["restartPolicy"] = json!({"type": "Never"}));
        },
    },
    Case {
        name: "another authority takes over",
        before: |server, ctx| server.has_registry(&rotating(), ctx),
        happens: |server, ctx| {
            server.edit_registry(ctx, |registry| {
                registry["metadata"]["annotations"]["privateregistry.dev/renew"] = "ca".into();
            });
        },
    },
    Case {
        name: "somebody else is to sign",
        before: |server, ctx| server.has_registry(&spec(false), ctx),
        happens: |server, ctx| server.edit_registry(ctx, |registry| registry["spec"] = asking()),
    },
    Case {
        name: "somebody else has signed",
        before: |server, ctx| server.has_registry(&asking(), ctx),
        happens: |server, ctx| server.signs(ctx),
    },
    Case {
        name: "nobody else is to sign any more",
        before: |server, ctx| server.has_registry(&asking(), ctx),
        happens: |server, ctx| {
            // The watch has shown the request, but nobody waits for its answer.
            server.signs(ctx);
            server.edit_registry(ctx, |registry| registry["spec"] = spec(false));
        },
    },
    Case {
        name: "another operator asks",
        before: |server, ctx| server.has_registry(&spec(false), ctx),
        happens: |server, ctx| {
            server.edit_registry(ctx, |registry| registry["status"]["operatorAsked"] = "system/theirs".into());
        },
    },
    Case {
        name: "it is suspended with a manifest that cannot be followed",
        before: |server, ctx| server.has_registry(&spec(false), ctx),
        happens: |server, ctx| {
            server.edit_registry(ctx, |registry| {
                registry["spec"] = json!({"suspend": true, "tls": {"secret": {"name": "team-a-tls"}}});
            });
        },
    },
];

/// Works as the operator does, until no pass is due for so long. Nobody else gives a reason for one.
async fn works(ctx: &Context) {
    for _ in 0..100 {
        let Ok(permit) = timeout(PATIENCE, ctx.queue.next()).await else { return };
        let result = reconcile(permit.key(), ctx).await;
        if let Ok(Next::Failed(_, due)) = &result {
            ctx.queue.add_after(permit.key(), Urgency::Upkeep, *due);
        }
        let end = end(permit.key(), result, &ctx.engine_metrics);
        permit.end(end);
    }
    panic!("it never comes to rest");
}

/// A server and a context in which the case has happened, before the pass that follows.
async fn after(case: &Case) -> (Server, Context) {
    let server = Server::default();
    let ctx = context(server.client());
    (case.before)(&server, &ctx);
    ctx.queue.add(&key(), Urgency::Manifest);
    // Who waits for somebody is looked at every five minutes, and never comes to rest.
    let _ = timeout(Duration::from_secs(4 * 60), works(&ctx)).await;
    (case.happens)(&server, &ctx);
    ctx.queue.add(&key(), Urgency::Manifest);
    server.asked();
    (server, ctx)
}

/// Objects as they are compared: what is random, salted or a time differs from one run to the next.
fn comparable(server: &Server) -> Vec<String> {
    let mut state = server.state();
    for (path, object) in &mut state {
        if path.contains("/secrets/team-a") || path.contains("/configmaps/") {
            object["data"] = Value::Null;
        }
        object["status"]["certificate"] = Value::Null;
        object["spec"]["request"] = Value::Null;
        object["metadata"]["annotations"]["privateregistry.dev/applied"] = Value::Null;
    }
    let varying =
        regex::Regex::new("[0-9a-f]{64}|team-a[.][0-9a-f]{20}|(?:[0-9A-F]{2}:){31}[0-9A-F]{2}|[0-9]{4}-[0-9T:.-]+Z")
            .unwrap();
    state.iter().map(|(path, object)| varying.replace_all(&format!("{path} {object}"), "-").into_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn whatever_is_refused_is_tried_again_soon_and_the_end_is_as_if_nothing_had_been() {
    let (mut refused, mut missed, mut complaints) = (0, 0, Vec::new());
    for case in &CASES {
        let (server, ctx) = after(case).await;
        works(&ctx).await;
        let (asked, wanted) = (server.asked(), comparable(&server));
        for (number, request) in asked.iter().enumerate() {
            for code in [403, 409, 500] {
                let (server, ctx) = after(case).await;
                server.refuses(number, code);
                works(&ctx).await;
                // Passwords are hashed aside, and a busy machine comes to the end with another number of requests now and then.
                if !server.has_refused() {
                    missed += 1;
                    continue;
                }
                let found = comparable(&server);
                let differs: Vec<_> = found.iter().filter(|object| !wanted.contains(object)).collect();
                if found != wanted {
                    complaints.push(format!("{}: {code} to {request}: {differs:#?}", case.name));
                }
                refused += 1;
            }
        }
    }
    assert!(missed * 20 <= refused, "{missed} of {refused} were not reached");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(refused > 60, "only {refused} requests were refused");
}

/// A webhook may call its refusal a conflict, too.
#[tokio::test(start_paused = true)]
async fn what_is_a_conflict_each_time_is_told_and_tried_less_and_less_often() {
    let server = Server::default();
    let ctx = context(server.client());
    server.has_registry(&spec(false), &ctx);
    server.always_refuses("/services/team-a", 409);
    ctx.queue.add(&key(), Urgency::Manifest);
    timeout(PATIENCE, works(&ctx)).await.unwrap_err();
    let tries = server
        .asked()
        .iter()
        .filter(|request| request.starts_with("PATCH") && request.ends_with("/services/team-a"))
        .count();
    assert!((12..25).contains(&tries), "tried {tries} times");
    let status = ctx.registries.get(&key()).unwrap().status.clone().unwrap();
    let told = status.condition("AddressReady").unwrap();
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "Conflict"), "{}", told.message);
}
