//! Tokens of an issuer as logins.

use super::*;
use crate::access::jwt::tests::Issuer as Maker;

const URL: &str = "https://ci.example.com";

fn issuer(more: &Value) -> Value {
    let mut issuer = json!({
        "name": "ci", "url": URL, "audience": "team-a.registries.svc", "hasFile": true,
        "user": "claims.repository", "groups": "[claims.repository_owner]",
    });
    issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    issuer
}

fn rules() -> Value {
    json!({
        "groups": {"red": ["ci:acme"]},
        "rules": [
            {"teams": ["*"], "repositories": ["${team}/**"], "actions": ["pull", "push"]},
            {"users": ["*"], "repositories": ["shared/**"], "actions": ["pull"]},
            {"users": ["ci:acme/web"], "repositories": ["web"], "actions": ["pull", "push"]},
        ],
    })
}

async fn world(maker: &Maker) -> World {
    let world = World::new().await;
    world.shows_keys("1", &SigningKey::generate().unwrap(), &SigningKey::generate().unwrap(), None);
    trusts(&world, "1", &[issuer(&json!({}))]);
    world.shows("issuers/ci", "1", &[("jwks.json", maker.set())]);
    world
}

fn trusts(world: &World, version: &str, issuers: &[Value]) {
    let table = format!("ann:{}\n", bcrypt::hash("of Ann's", 4).unwrap());
    world.shows_access(version, table, &json!({"service": SERVICE, "policy": rules(), "issuers": issuers}));
}

fn claims(seconds: i64) -> Value {
    let end = Timestamp::now().as_second() + seconds;
    json!({"iss": URL, "aud": "team-a.registries.svc", "exp": end, "repository": "acme/web", "repository_owner": "acme"})
}

#[tokio::test]
async fn a_pipeline_logs_in_with_its_token_and_has_what_rules_say_of_it() {
    let maker = Maker::new("1");
    let world = world(&maker).await;
    let brought = maker.signs(&claims(3600));
    let scopes = "scope=repository:red/app:*&scope=repository:web:push&scope=repository:shared/x:pull";
    let answer = world.gets(Some(&format!("any:{brought}")), &format!("{scopes}&offline_token=true")).await;
    assert!(answer.status == 200 && answer.body.get("refresh_token").is_none(), "{answer:?}");
    let given = answer.body["token"].as_str().unwrap().to_owned();
    let said = said(&given);
    assert_eq!(said["sub"], "ci:acme/web");
    let granted = json!([
        {"type": "repository", "name": "red/app", "actions": ["pull", "push"]},
        {"type": "repository", "name": "web", "actions": ["push"]},
    ]);
    assert_eq!(said["access"], granted, "nothing that `*` has");
    let basic = basic_of(&format!("any:{brought}"));
    for (authorization, method, uri, status) in [
        (bearer(&given), "PUT", "/v2/red/app/manifests/1", 200),
        (basic.clone(), "GET", "/v2/web/tags/list", 200),
        (basic, "GET", "/v2/shared/x/tags/list", 401),
        (bearer(&given), "DELETE", "/v2/red/app/manifests/1", 401),
    ] {
        assert_eq!(world.judges(Some(&authorization), method, uri).await.status, status, "{method} {uri}");
    }
    let short = world.gets(Some(&format!("any:{}", maker.signs(&claims(40)))), "").await;
    assert!(short.body["expires_in"].as_u64().unwrap() <= 40, "{short:?}");
}

#[tokio::test]
async fn what_the_manifest_no_longer_says_ends_its_tokens() {
    let maker = Maker::new("1");
    let world = world(&maker).await;
    let login = format!("any:{}", maker.signs(&claims(3600)));
    for (number, changed) in [
        vec![],
        vec![issuer(&json!({"name": "other"}))],
        vec![issuer(&json!({"audience": "elsewhere"}))],
        vec![issuer(&json!({"groups": "[]"}))],
    ]
    .into_iter()
    .enumerate()
    {
        trusts(&world, &format!("{number}a"), &[issuer(&json!({}))]);
        let given = bearer(&world.token(Some(&login), "repository:red/app:pull").await);
        assert_eq!(world.judges(Some(&given), "GET", "/v2/red/app/tags/list").await.status, 200);
        trusts(&world, &format!("{number}b"), &changed);
        let answer = world.judges(Some(&given), "GET", "/v2/red/app/tags/list").await;
        assert!(
            answer.status == 401 && answer.head("www-authenticate").contains("invalid_token"),
            "{changed:?} {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_token_that_does_not_count_lets_nobody_in_and_says_why() {
    let (maker, thief) = (Maker::new("1"), Maker::new("1"));
    let world = world(&maker).await;
    let mut foreign = claims(3600);
    foreign["aud"] = json!("https://github.com/acme");
    let mut stranger = claims(3600);
    stranger["iss"] = json!("https://elsewhere.example.com");
    let mut nameless = claims(3600);
    nameless.as_object_mut().unwrap().remove("repository");
    for (token, why) in [
        (thief.signs(&claims(3600)), "signature"),
        (maker.signs(&stranger), "does not know"),
        (maker.signs(&foreign), "team-a.registries.svc"),
        (maker.signs(&claims(-3600)), "expired"),
        (maker.signs(&nameless), "claimMapping.user"),
    ] {
        let answer = world.gets(Some(&format!("ann:{token}")), "").await;
        let words = answer.body["errors"][0]["message"].as_str().unwrap();
        assert!(answer.status == 401 && words.contains(why) && !words.contains("acme"), "{answer:?}");
    }
}

#[tokio::test]
async fn keys_are_exchanged_without_a_restart_and_missing_ones_stop_nobody_else() {
    let (maker, next) = (Maker::new("1"), Maker::new("2"));
    let world = world(&maker).await;
    let login = |maker: &Maker| format!("any:{}", maker.signs(&claims(3600)));
    assert_eq!(world.gets(Some(&login(&next)), "").await.status, 401);
    world.shows("issuers/ci", "2", &[("jwks.json", next.set())]);
    assert_eq!(world.gets(Some(&login(&next)), "").await.status, 200);
    assert_eq!(world.gets(Some(&login(&maker)), "").await.status, 401);
    for files in [vec![("jwks.json", "no keys".to_owned())], vec![]] {
        world.shows("issuers/ci", &format!("without {}", files.len()), &files);
        let answer = world.gets(Some(&login(&next)), "").await;
        assert!(
            answer.status == 503 && answer.body.to_string().contains("the keys of issuer ci are not there"),
            "{answer:?}"
        );
        assert_eq!(world.gets(Some("ann:of Ann's"), "").await.status, 200);
    }
}
