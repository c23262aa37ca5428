//! The token server and the judge, asked over their socket as nginx asks them.

mod of_cluster;
mod of_issuers;
mod of_reports;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::super::gate::{Gate, Options};
use super::super::users::{ACCESS, TABLE};
use super::*;
use crate::access::keys::SigningKey;
use crate::access::token::VerifyingKey;

const SERVICE: &str = "registries/team-a";

/// Folders as a kubelet shows them, and a gate that looks at them.
struct World(tempfile::TempDir);

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    heads: String,
    body: Value,
}

impl Answer {
    fn head(&self, name: &str) -> &str {
        let lines = self.heads.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

impl World {
    async fn new() -> Self {
        Self::of_cluster(None).await
    }

    async fn of_cluster(client: Option<Client>) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let folder = |name: &str| world.0.path().join(name);
        let options = Options {
            data: None,
            logins: Some(folder("users")),
            tokens: Some(folder("keys")),
            issuers: Some(folder("issuers")),
        };
        let (gate, socket) = (Gate::of_cluster(&options, client).unwrap(), folder("gate.sock"));
        tokio::spawn(async move { gate.serve(&socket).await });
        while UnixStream::connect(folder("gate.sock")).await.is_err() {
            tokio::task::yield_now().await;
        }
        world
    }

    /// With keys, users and rules.
    async fn settled() -> Self {
        let world = Self::new().await;
        world.shows_keys("1", &SigningKey::generate().unwrap(), &SigningKey::generate().unwrap(), None);
        world.shows_users("1", &[("ann", "of Ann's"), ("ben", "of Ben's"), ("root", "of root's")], &rules());
        world
    }

    fn shows(&self, folder: &str, version: &str, files: &[(&str, String)]) {
        let folder: PathBuf = self.0.path().join(folder);
        fs::create_dir_all(folder.join(version)).unwrap();
        for (name, text) in files {
            fs::write(folder.join(version).join(name), text).unwrap();
        }
        symlink(version, folder.join("..next")).unwrap();
        fs::rename(folder.join("..next"), folder.join("..data")).unwrap();
    }

    fn shows_users(&self, version: &str, users: &[(&str, &str)], policy: &Value) {
        let line = |(name, password): &(&str, &str)| format!("{name}:{}\n", bcrypt::hash(password, 4).unwrap());
        let table: String = users.iter().map(line).collect();
        self.shows_access(version, table, &json!({"service": SERVICE, "policy": policy}));
    }

    fn shows_access(&self, version: &str, table: String, access: &Value) {
        self.shows("users", version, &[(TABLE, table), (ACCESS, access.to_string())]);
    }

    fn shows_keys(&self, version: &str, signing: &SigningKey, next: &SigningKey, former: Option<&VerifyingKey>) {
        let pem = |key: &SigningKey| key.pem().expose().clone();
        let former = former.map_or_else(String::new, |key| key.to_jwk().to_string());
        let files = [
            ("signing.key", pem(signing)),
            ("next.key", pem(next)),
            ("former.jwk", former),
            ("refresh.key", "r".repeat(64)),
        ];
        self.shows("keys", version, &files);
    }

    async fn asks(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = UnixStream::connect(self.0.path().join("gate.sock")).await.unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n{length}{headers}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (heads, body) = answer.split_once("\r\n\r\n").unwrap();
        let body = serde_json::from_str(body).unwrap_or_default();
        Answer { status: heads[9..12].parse().unwrap(), heads: heads.to_owned(), body }
    }

    /// Asks for a token by GET.
    async fn gets(&self, login: Option<&str>, query: &str) -> Answer {
        let login = login.map(basic_of);
        let mut headers = vec![("host", "r.example.com:5000"), ("x-client", "192.0.2.1")];
        headers.extend(login.as_deref().map(|login| ("authorization", login)));
        self.asks("GET", &format!("{SERVER}?{query}"), &headers, "").await
    }

    async fn posts(&self, form: &str) -> Answer {
        self.asks("POST", SERVER, &[("host", "r"), ("x-client", "192.0.2.1")], form).await
    }

    /// A token for these scopes.
    async fn token(&self, login: Option<&str>, scope: &str) -> String {
        let answer = self.gets(login, &format!("service={SERVICE}&scope={scope}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["token"].as_str().unwrap().to_owned()
    }

    /// Asks whether a request may pass.
    async fn judges(&self, authorization: Option<&str>, method: &str, uri: &str) -> Answer {
        let mut headers = vec![
            ("host", "gate"),
            ("x-forwarded-host", "r.example.com:5000"),
            ("x-forwarded-proto", "https"),
            ("x-client", "192.0.2.1"),
            ("x-original-method", method),
            ("x-original-uri", uri),
        ];
        headers.extend(authorization.map(|text| ("authorization", text)));
        self.asks("GET", JUDGE, &headers, "").await
    }
}

fn basic_of(login: &str) -> String {
    format!("Basic {}", STANDARD.encode(login))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn rules() -> Value {
    json!({
        "administrators": ["root"],
        "teams": {"red": ["ann"]},
        "rules": [
            {"teams": ["red"], "repositories": ["red/**"], "actions": ["pull", "push"]},
            {"users": ["*"], "repositories": ["shared/**"], "actions": ["pull"]},
            {"anonymous": true, "repositories": ["public/**"], "actions": ["pull"]},
        ],
    })
}

/// What a token says, unchecked.
fn said(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn a_login_gets_a_token_for_what_the_rules_allow() {
    let world = World::settled().await;
    let scope = "repository:red/app:pull,push&scope=repository:blue/app:pull&scope=repository:shared/x:pull,push";
    let answer = world.gets(Some("ann:of Ann's"), &format!("service={SERVICE}&scope={scope}&account=someone")).await;
    assert_eq!((answer.status, &answer.body["expires_in"]), (200, &json!(300)), "{answer:?}");
    assert_eq!(answer.body["token"], answer.body["access_token"]);
    assert_eq!(answer.head("cache-control"), "no-store");
    assert!(answer.body.get("refresh_token").is_none());
    let said = said(answer.body["token"].as_str().unwrap());
    assert_eq!([&said["sub"], &said["aud"], &said["iss"]], ["ann", SERVICE, SERVICE]);
    assert_eq!(
        said["access"],
        json!([
            {"type": "repository", "name": "red/app", "actions": ["pull", "push"]},
            {"type": "repository", "name": "shared/x", "actions": ["pull"]},
        ])
    );
    let form = format!(
        "grant_type=password&service={SERVICE}&client_id=c&username=ben&password=of+Ben%27s&scope=repository%3Ashared%2Fx%3Apull"
    );
    assert_eq!(world.posts(&form).await.status, 200);
    assert_eq!(
        self::said(&world.token(None, "repository:public/x:pull,push").await)["access"][0]["actions"],
        json!(["pull"])
    );
}

#[tokio::test]
async fn who_has_no_login_that_is_right_gets_none() {
    let world = World::settled().await;
    for login in ["ann:of Ben's", "zoe:of Ann's", "ann:", ":", "ann"] {
        let answer = world.gets(Some(login), "").await;
        assert_eq!(
            (answer.status, answer.head("www-authenticate")),
            (401, "Basic realm=\"registries/team-a\""),
            "{login}"
        );
        assert_eq!(answer.body["errors"][0]["code"], "UNAUTHORIZED");
    }
    assert_eq!(world.gets(None, "service=other").await.status, 400);
    for form in ["", "grant_type=password&username=ann", "grant_type=refresh_token&refresh_token=prtr_x.y"] {
        assert_eq!(world.posts(form).await.status, 401, "{form}");
    }
    assert_eq!(world.posts(&"a".repeat(LARGEST + 1)).await.status, 413);
    assert_eq!(world.asks("PUT", SERVER, &[("host", "r")], "").await.status, 405);
    world.shows_users("2", &[("ann", "of Ann's")], &json!({"rules": []}));
    assert_eq!(world.gets(None, "").await.status, 401, "there is nothing for nobody in particular");
}

#[tokio::test]
async fn a_refresh_token_ends_with_its_password() {
    let world = World::settled().await;
    let answer = world.gets(Some("ann:of Ann's"), "offline_token=true").await;
    let refresh = answer.body["refresh_token"].as_str().unwrap().to_owned();
    let form =
        format!("grant_type=refresh_token&service={SERVICE}&refresh_token={refresh}&scope=repository:red/a:pull");
    let answer = world.posts(&form).await;
    assert_eq!((answer.status, &said(answer.body["token"].as_str().unwrap())["sub"]), (200, &json!("ann")));
    let again = world.posts(&format!("{form}&access_type=offline")).await;
    assert!(again.body["refresh_token"].is_null(), "none is made from another: {again:?}");
    let as_access = world.judges(Some(&bearer(&refresh)), "GET", "/v2/").await;
    assert_eq!(as_access.status, 401, "it is no token for the registry");
    world.shows_users("2", &[("ann", "another of Ann's")], &rules());
    assert_eq!(world.posts(&form).await.status, 401);
    world.shows_users("3", &[], &rules());
    assert_eq!(world.posts(&form).await.status, 401);
}

#[tokio::test]
async fn a_request_passes_that_token_and_rules_allow() {
    let world = World::settled().await;
    let token = bearer(&world.token(Some("ann:of Ann's"), "repository:red/app:pull,push").await);
    let answer = world.judges(Some(&token), "PUT", "/v2/red/app/manifests/1").await;
    assert_eq!((answer.status, answer.head("x-authorization"), answer.head("x-user")), (200, token.as_str(), "ann"));
    let challenge = |scope: &str, error: &str| {
        let scope = if scope.is_empty() { String::new() } else { format!(",scope=\"{scope}\"") };
        let error = if error.is_empty() { String::new() } else { format!(",error=\"{error}\"") };
        format!("Bearer realm=\"https://r.example.com:5000/auth/token\",service=\"{SERVICE}\"{scope}{error}")
    };
    let other = bearer(&world.token(Some("ben:of Ben's"), "repository:shared/app:pull").await);
    for (login, method, uri, scope, error) in [
        (None, "GET", "/v2/", "", ""),
        (None, "GET", "/v2/red/app/manifests/1", "repository:red/app:pull", ""),
        (Some(token.as_str()), "GET", "/v2/red/other/tags/list", "repository:red/other:pull", "insufficient_scope"),
        (Some(&token), "DELETE", "/v2/red/app/manifests/1", "repository:red/app:delete", "insufficient_scope"),
        (Some(&token), "GET", "/v2/_catalog", "registry:catalog:*", "insufficient_scope"),
        (Some(&other), "PUT", "/v2/shared/app/manifests/1", "repository:shared/app:pull,push", "insufficient_scope"),
        (Some("Bearer x.y.z"), "GET", "/v2/red/app/tags/list", "repository:red/app:pull", "invalid_token"),
        (Some(&basic_of("ann:wrong")), "GET", "/v2/", "", ""),
        (Some("Digest x"), "GET", "/v2/", "", ""),
    ] {
        let answer = world.judges(login, method, uri).await;
        let found = (answer.status, answer.head("www-authenticate"));
        assert_eq!(found, (401, challenge(scope, error).as_str()), "{login:?} {method} {uri}");
        let is_named = error == "insufficient_scope" || login.is_some_and(|login| login.starts_with("Basic"));
        assert_eq!(!answer.head("x-user").is_empty(), is_named, "{login:?} {uri}");
    }
    assert_eq!(world.judges(Some(&token), "GET", "/v2/").await.status, 200);
}

#[tokio::test]
async fn who_is_taken_out_of_users_or_rules_is_out_with_the_next_request() {
    let world = World::settled().await;
    let token = bearer(&world.token(Some("ann:of Ann's"), "repository:red/app:pull").await);
    let pulls = || world.judges(Some(&token), "GET", "/v2/red/app/tags/list");
    assert_eq!(pulls().await.status, 200);
    let less = json!({"teams": {"red": []}, "rules": rules()["rules"]});
    let users = [("ann", "of Ann's"), ("ben", "of Ben's")];
    for (version, users, policy) in [
        ("2", &users[..], &less),
        ("3", &users[1..], &rules()),
        // With the same password again it is another line, and so another login.
        ("4", &users[..], &rules()),
    ] {
        world.shows_users(version, users, policy);
        assert_eq!(pulls().await.status, 401, "{version}");
    }
    world.shows("users", "5", &[(TABLE, "cut off".to_owned())]);
    assert_eq!(pulls().await.status, 503, "nothing passes that cannot be judged");
}

#[tokio::test]
async fn a_password_passes_where_a_token_would_and_the_registry_gets_a_token() {
    let world = World::settled().await;
    let ann = basic_of("ann:of Ann's");
    let answer = world.judges(Some(&ann), "PUT", "/v2/red/app/manifests/1").await;
    assert_eq!(answer.status, 200);
    let told = answer.head("x-authorization").strip_prefix("Bearer ").unwrap();
    assert_eq!(said(told)["access"], json!([{"type": "repository", "name": "red/app", "actions": ["pull", "push"]}]));
    for (method, uri) in
        [("GET", "/v2/blue/app/tags/list"), ("DELETE", "/v2/red/app/manifests/1"), ("GET", "/v2/_catalog")]
    {
        assert_eq!(world.judges(Some(&ann), method, uri).await.status, 401, "{method} {uri}");
    }
    let root = basic_of("root:of root's");
    assert_eq!(world.judges(Some(&root), "GET", "/v2/_catalog").await.status, 200);
}

#[tokio::test]
async fn nothing_is_pulled_past_the_rules() {
    let world = World::settled().await;
    let token = bearer(&world.token(Some("ann:of Ann's"), "repository:red/app:pull").await);
    let digest = format!("sha256:{}", "ab".repeat(32));
    for (path, status) in [
        // Without a volume everything that may be pulled is the registry's.
        (format!("/v2/red/app/blobs/{digest}"), 403),
        (format!("/v2/blue/app/blobs/{digest}"), 401),
        ("/v2/blue/app/manifests/1".to_owned(), 401),
        // Who reads the volume would understand it, and the rules do not.
        ("/v2/a._b/manifests/1".to_owned(), 403),
    ] {
        let answer = world.asks("GET", &path, &[("host", "r"), ("authorization", &token)], "").await;
        let user = if status == 401 { "ann" } else { "" };
        assert_eq!((answer.status, answer.head("x-user")), (status, user), "{path}");
    }
}

#[tokio::test]
async fn a_mount_is_made_where_token_and_rules_allow_it_and_is_an_upload_elsewhere() {
    let world = World::settled().await;
    let narrow = bearer(&world.token(Some("ann:of Ann's"), "repository:red/app:pull,push").await);
    let wide =
        bearer(&world.token(Some("ann:of Ann's"), "repository:red/app:pull,push+repository:shared/x:pull").await);
    let ann = basic_of("ann:of Ann's");
    let uploads = |query: &str| format!("/v2/red/app/blobs/uploads/{query}");
    let mount = "?mount=sha256:0&from=shared/x";
    for (login, query, passed) in [
        (&wide, "", ""),
        (&wide, "?digest=sha256:0", "?digest=sha256:0"),
        (&wide, mount, mount),
        (&ann, mount, mount),
        (&narrow, mount, ""),
        (&ann, "?mount=sha256:0&from=blue/x&a=b", "?a=b"),
        (&wide, "?mount=sha256:0&from=blue/x", ""),
        (&wide, "?mount=sha256:0&from=..%2Fblue", ""),
        (&wide, "?mount=sha256:0", ""),
    ] {
        let answer = world.judges(Some(login), "POST", &uploads(query)).await;
        assert_eq!((answer.status, answer.head("x-query")), (200, passed), "{query}");
        let told = answer.head("x-authorization");
        if login != &ann {
            assert_eq!(told, login, "the registry gets the client's own");
        } else if passed == mount {
            let also = json!({"type": "repository", "name": "shared/x", "actions": ["pull"]});
            assert_eq!(said(told.strip_prefix("Bearer ").unwrap())["access"][1], also);
        }
    }
    // What has been taken from the rules is taken from mounts.
    let less = json!({"teams": {"red": ["ann"]}, "rules": [rules()["rules"][0]]});
    let known = fs::read_to_string(world.0.path().join("users/1").join(TABLE)).unwrap();
    let access = json!({"service": SERVICE, "policy": less}).to_string();
    world.shows("users", "2", &[(TABLE, known), (ACCESS, access)]);
    assert_eq!(world.judges(Some(&wide), "POST", &uploads(mount)).await.head("x-query"), "");
}

#[tokio::test]
async fn a_path_is_judged_as_the_registry_reads_it_and_one_that_is_unclear_goes_on_without_its_login() {
    let world = World::settled().await;
    let token = bearer(&world.token(Some("ann:of Ann's"), "repository:red/app:pull").await);
    for (uri, status, is_told) in [
        ("/v2/red/app/tags/list", 200, true),
        ("/v2/red/ap%70/tags/list", 200, true),
        ("/v2/red%2fapp/tags/list", 200, true),
        ("/v2/red/app/manifests/sha256%3A00", 200, true),
        ("/v2/blu%65/app/tags/list", 401, false),
        ("/v2/%5fcatalog", 401, false),
        ("/v2/red/app/tag%73/list/", 200, false),
        ("/v2//red/app/tags/list", 200, false),
        ("/v2/red/../blue/tags/list", 200, false),
        ("/v2/red/app/%ff/tags/list", 200, false),
        ("/v2/red/app/tags/list?\u{e9}", 200, false),
    ] {
        let answer = world.judges(Some(&token), "GET", uri).await;
        let told = (answer.status, !answer.head("x-authorization").is_empty());
        assert_eq!(told, (status, is_told), "{uri}: {answer:?}");
    }
    let without = world.asks("GET", JUDGE, &[("host", "gate"), ("authorization", &token)], "").await;
    assert_eq!((without.status, without.head("x-authorization")), (200, ""), "nginx did not say what it is about");
}

#[tokio::test]
async fn keys_are_exchanged_without_a_token_refused() {
    let world = World::settled().await;
    let [a, b, c, d] = [(); 4].map(|()| SigningKey::generate().unwrap());
    world.shows_keys("2", &a, &b, None);
    let by_a = bearer(&world.token(Some("ann:of Ann's"), "repository:red/app:pull").await);
    world.shows_keys("3", &b, &c, Some(&a.public()));
    let by_b = bearer(&world.token(Some("ann:of Ann's"), "repository:red/app:pull").await);
    let path = "/v2/red/app/tags/list";
    for token in [&by_a, &by_b] {
        assert_eq!(world.judges(Some(token), "GET", path).await.status, 200);
    }
    world.shows_keys("4", &c, &d, Some(&b.public()));
    assert_eq!(world.judges(Some(&by_b), "GET", path).await.status, 200);
    assert_eq!(world.judges(Some(&by_a), "GET", path).await.status, 401, "although it was checked a moment ago");
    world.shows("keys", "5", &[("signing.key", "no key".to_owned())]);
    assert_eq!(world.judges(Some(&by_b), "GET", path).await.status, 503);
    assert_eq!(world.gets(Some("ann:of Ann's"), "").await.status, 503);
}

#[tokio::test]
async fn who_guesses_is_slowed_and_who_knows_is_not() {
    let world = World::settled().await;
    assert_eq!(world.gets(Some("ann:of Ann's"), "").await.status, 200);
    for number in 0..5 {
        assert_eq!(world.gets(Some(&format!("ann:guess {number}")), "").await.status, 401);
    }
    let answer = world.gets(Some("ann:guess 5"), "").await;
    assert_eq!((answer.status, answer.head("retry-after").is_empty()), (429, false), "{answer:?}");
    assert_eq!(world.judges(Some(&basic_of("ann:guess 5")), "GET", "/v2/").await.status, 403, "nginx's word for it");
    assert_eq!(world.gets(Some("ann:guess 1"), "").await.status, 401, "an old password is no guess");
    assert_eq!(world.gets(Some("ann:of Ann's"), "").await.status, 200, "it is remembered");
    assert_eq!(world.gets(Some("ben:of Ben's"), "").await.status, 200);
    let logins: Vec<_> = (0..20).map(|_| world.gets(Some("root:of root's"), "")).collect();
    let statuses: Vec<_> = futures::future::join_all(logins).await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200; 20], "many at once with one password");
}

#[tokio::test]
async fn before_anything_is_shown_nothing_passes() {
    let world = World::new().await;
    assert_eq!(world.gets(Some("ann:of Ann's"), "").await.status, 503);
    assert_eq!(world.judges(Some(&basic_of("ann:of Ann's")), "GET", "/v2/").await.status, 503);
    assert_eq!(world.judges(None, "GET", "/v2/").await.status, 401);
}

#[tokio::test]
async fn a_host_that_could_not_be_one_is_not_repeated() {
    let world = World::settled().await;
    let headers =
        [("host", "gate"), ("x-forwarded-host", "a\",x=\""), ("x-original-uri", "/v2/"), ("x-original-method", "GET")];
    let answer = world.asks("GET", JUDGE, &headers, "").await;
    assert!(answer.head("www-authenticate").starts_with("Bearer realm=\"/auth/token\",service="), "{answer:?}");
}

#[tokio::test]
async fn both_passwords_of_a_user_give_the_same_and_each_token_ends_with_its_own() {
    let world = World::new().await;
    world.shows_keys("1", &SigningKey::generate().unwrap(), &SigningKey::generate().unwrap(), None);
    let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
    let [one, two, of_ben] = ["the first", "the second", "of Ben's"].map(hash);
    let shows = |version: &str, lines: &[(&str, &str)]| {
        let table = lines.iter().map(|(name, hash)| format!("{name}:{hash}\n")).collect();
        let access = json!({"service": SERVICE, "policy": rules(), "secondLines": {"ann.2": "ann"}});
        world.shows_access(version, table, &access);
    };
    let pulls = async |token: &str| world.judges(Some(&bearer(token)), "GET", "/v2/red/app/tags/list").await.status;
    let gets = async |login: &str| {
        let query = format!("service={SERVICE}&scope=repository:red/app:pull&offline_token=true");
        let answer = world.gets(Some(login), &query).await;
        assert_eq!(answer.status, 200, "{login}: {answer:?}");
        let text = |name: &str| answer.body[name].as_str().unwrap().to_owned();
        assert_eq!(said(&text("token"))["sub"], "ann", "{login}");
        (text("token"), text("refresh_token"))
    };
    let refreshes = async |token: &str| {
        let form =
            format!("grant_type=refresh_token&service={SERVICE}&refresh_token={token}&scope=repository:red/app:pull");
        world.posts(&form).await.status
    };
    shows("1", &[("ann", &one), ("ann.2", &two), ("ben", &of_ben)]);
    let (first, refresh_first) = gets("ann:the first").await;
    let (second, refresh_second) = gets("ann:the second").await;
    gets("ann.2:the first").await;
    gets("ann.2:the second").await;
    assert_eq!([pulls(&first).await, pulls(&second).await], [200, 200]);
    let basic = basic_of("ann.2:the first");
    assert_eq!(world.judges(Some(&basic), "GET", "/v2/red/app/tags/list").await.status, 200);
    assert_eq!(world.gets(Some("ann:of Ben's"), &format!("service={SERVICE}")).await.status, 401);
    assert_eq!(world.gets(Some("ann.2:of Ben's"), &format!("service={SERVICE}")).await.status, 401);

    // They change places, and nobody's token ends.
    shows("2", &[("ann", &two), ("ann.2", &one), ("ben", &of_ben)]);
    assert_eq!([pulls(&first).await, pulls(&second).await], [200, 200]);
    assert_eq!([refreshes(&refresh_first).await, refreshes(&refresh_second).await], [200, 200]);
    // The former one ends.
    shows("3", &[("ann", &two), ("ben", &of_ben)]);
    assert_eq!([pulls(&first).await, pulls(&second).await], [401, 200]);
    assert_eq!([refreshes(&refresh_first).await, refreshes(&refresh_second).await], [401, 200]);
    for login in ["ann:the first", "ann.2:the first", "ann.2:the second"] {
        let status = world.gets(Some(login), &format!("service={SERVICE}")).await.status;
        assert_eq!(status, if login.ends_with("second") { 200 } else { 401 }, "{login}");
    }
    // The whole user.
    shows("4", &[("ben", &of_ben)]);
    assert_eq!([pulls(&second).await, refreshes(&refresh_second).await], [401, 401]);
}
