//! Tokens of the cluster as logins, where a function answers in the API server's place.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use kube::client::Body;

use super::*;

const AUDIENCE: &str = "team-a.registries.svc";

/// What the API server knows, and how often it was asked.
pub(super) struct ApiServer {
    /// Names by token.
    users: Mutex<BTreeMap<String, String>>,
    /// `name verb repository`.
    rights: Mutex<BTreeSet<String>>,
    /// What the registry itself may create.
    pub(super) own: Mutex<BTreeSet<&'static str>>,
    /// Whoever asks gets this status, if it is not 0.
    pub(super) fails: AtomicU16,
    reviews: AtomicUsize,
}

impl ApiServer {
    pub(super) fn new(users: &[(&str, &str)], rights: &[&str]) -> Arc<Self> {
        let users = users.iter().map(|(token, name)| ((*token).to_owned(), (*name).to_owned())).collect();
        let rights = rights.iter().map(|right| (*right).to_owned()).collect();
        Arc::new(Self {
            users: Mutex::new(users),
            rights: Mutex::new(rights),
            own: Mutex::default(),
            fails: AtomicU16::new(0),
            reviews: AtomicUsize::new(0),
        })
    }

    pub(super) fn client(self: &Arc<Self>) -> Client {
        let server = Arc::clone(self);
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&server);
            async move {
                let (path, body) = (request.uri().path().to_owned(), request.into_body().collect_bytes().await?);
                server.reviews.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                let answer = match server.fails.load(Ordering::SeqCst) {
                    0 => (200, server.answer(&path, serde_json::from_slice(&body).unwrap())),
                    code => (
                        code,
                        json!({"kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "no"}),
                    ),
                };
                let answer = Response::builder().status(answer.0).body(Body::from(answer.1.to_string().into_bytes()));
                Ok::<_, kube::Error>(answer.unwrap())
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, path: &str, mut review: Value) -> Value {
        let spec = review["spec"].clone();
        if path.ends_with("/tokenreviews") {
            assert_eq!(spec["audiences"], json!([AUDIENCE]));
            let known = self.users.lock().unwrap().get(spec["token"].as_str().unwrap()).cloned();
            review["status"] = match known {
                Some(name) => json!({
                    "authenticated": true, "audiences": [AUDIENCE],
                    "user": {"username": name, "uid": "7", "groups": ["system:serviceaccounts"]},
                }),
                None => json!({"authenticated": false, "error": "it is nobody's"}),
            };
        } else if path.ends_with("/selfsubjectaccessreviews") {
            let asked = &spec["resourceAttributes"];
            assert_eq!(asked["verb"], "create");
            let allowed = self.own.lock().unwrap().contains(asked["resource"].as_str().unwrap());
            review["status"] = json!({"allowed": allowed});
        } else {
            assert!(path.ends_with("/subjectaccessreviews"), "{path}");
            assert_eq!((&spec["uid"], &spec["groups"]), (&json!("7"), &json!(["system:serviceaccounts"])));
            let asked = &spec["resourceAttributes"];
            assert_eq!((&asked["namespace"], &asked["group"]), (&json!("registries"), &json!("privateregistry.dev")));
            let right = [&spec["user"], &asked["verb"], &asked["name"]].map(|part| part.as_str().unwrap_or("-"));
            review["status"] = json!({"allowed": self.rights.lock().unwrap().contains(&right.join(" "))});
        }
        review
    }

    pub(super) fn asked(&self) -> usize {
        self.reviews.swap(0, Ordering::SeqCst)
    }
}

/// A token as the cluster gives them, which ends so many seconds from now.
fn token(of: &str, seconds: i64) -> String {
    let end = Timestamp::now().as_second() + seconds;
    let part = |value: Value| BASE64.encode(value.to_string());
    format!("{}.{}.{}", part(json!({"alg": "RS256"})), part(json!({"sub": of, "exp": end})), BASE64.encode("signature"))
}

const BUILDER: &str = "system:serviceaccount:shop:builder";
const RIGHTS: [&str; 4] = [
    "system:serviceaccount:shop:builder pull shop/web",
    "system:serviceaccount:shop:builder push shop/web",
    "system:serviceaccount:shop:builder pull base/os",
    "system:serviceaccount:shop:builder list -",
];

async fn world(server: &Arc<ApiServer>) -> World {
    let world = World::of_cluster(Some(server.client())).await;
    world.shows_keys("1", &SigningKey::generate().unwrap(), &SigningKey::generate().unwrap(), None);
    takes_tokens(&world, "1", true);
    world
}

fn takes_tokens(world: &World, version: &str, takes: bool) {
    let mut access = json!({"service": SERVICE, "policy": rules()});
    if takes {
        access["cluster"] = json!({"audience": AUDIENCE, "namespace": "registries"});
    }
    world.shows_access(version, format!("ann:{}\n", bcrypt::hash("of Ann's", 4).unwrap()), &access);
}

#[tokio::test]
async fn a_token_of_the_cluster_gives_what_its_roles_allow() {
    let brought = token(BUILDER, 3600);
    let server = ApiServer::new(&[(&brought, BUILDER)], &RIGHTS);
    let world = world(&server).await;
    let scopes = format!("service={SERVICE}&scope=repository:shop/web:*&scope=repository:red/app:pull,push");
    // The name says nothing, also if it is a user's.
    for name in ["token", "ann", ""] {
        let answer = world.gets(Some(&format!("{name}:{brought}")), &format!("{scopes}&offline_token=true")).await;
        assert_eq!((answer.status, &answer.body["expires_in"]), (200, &json!(300)), "{answer:?}");
        assert!(answer.body.get("refresh_token").is_none(), "the cluster's token is not made to last longer");
        let said = said(answer.body["token"].as_str().unwrap());
        assert_eq!(said["sub"], BUILDER);
        let actions = json!([{"type": "repository", "name": "shop/web", "actions": ["pull", "push"]}]);
        assert_eq!(said["access"], actions);
    }
    let form = format!(
        "grant_type=password&service={SERVICE}&client_id=c&username=t&password={brought}&scope=repository%3Abase%2Fos%3Apull&access_type=offline"
    );
    let answer = world.posts(&form).await;
    assert!(answer.status == 200 && answer.body.get("refresh_token").is_none(), "{answer:?}");

    let given = world.token(Some(&format!("t:{brought}")), "repository:shop/web:pull,push").await;
    let basic = basic_of(&format!("t:{brought}"));
    for (authorization, method, uri, status) in [
        (&bearer(&given), "PUT", "/v2/shop/web/manifests/1", 200),
        (&bearer(&given), "GET", "/v2/base/os/manifests/1", 401),
        (&basic, "GET", "/v2/base/os/manifests/1", 200),
        (&basic, "PUT", "/v2/base/os/manifests/1", 401),
        (&basic, "GET", "/v2/_catalog", 200),
        (&basic, "GET", "/v2/", 200),
        // Rules are for the table's users.
        (&basic, "GET", "/v2/shared/x/manifests/1", 401),
    ] {
        let answer = world.judges(Some(authorization), method, uri).await;
        assert_eq!(answer.status, status, "{method} {uri}: {answer:?}");
        assert!(status != 200 || answer.head("x-user") == BUILDER, "{answer:?}");
    }
    let mount = "/v2/shop/web/blobs/uploads/?mount=sha256:0&from=base/os";
    assert_eq!(world.judges(Some(&basic), "POST", mount).await.head("x-query"), "?mount=sha256:0&from=base/os");
    let mount = "/v2/shop/web/blobs/uploads/?mount=sha256:0&from=red/app";
    assert_eq!(world.judges(Some(&basic), "POST", mount).await.head("x-query"), "");
}

#[tokio::test]
async fn a_client_with_many_layers_is_asked_about_once() {
    let brought = token(BUILDER, 3600);
    let server = ApiServer::new(&[(&brought, BUILDER)], &RIGHTS);
    let world = world(&server).await;
    let basic = basic_of(&format!("t:{brought}"));
    let layer = || world.judges(Some(&basic), "GET", "/v2/shop/web/blobs/sha256:0");
    for answer in futures::future::join_all((0..20).map(|_| layer())).await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(server.asked(), 2, "once whose token it is, and once for the right");
}

#[tokio::test]
async fn who_comes_and_goes_makes_nobody_ask_twice() {
    let brought = token(BUILDER, 3600);
    let server = ApiServer::new(&[(&brought, BUILDER)], &RIGHTS);
    let cluster = Cluster::new(Some(server.client()));
    let logins = ClusterLogins { audience: AUDIENCE.to_owned(), namespace: "registries".to_owned() };
    let brought = Sensitive::new(brought.into_bytes());
    for _ in 0..5 {
        let impatient = tokio::time::timeout(Duration::from_millis(1), cluster.user(&logins, &brought)).await;
        assert!(impatient.is_err());
    }
    assert_eq!(cluster.user(&logins, &brought).await.unwrap().unwrap().name, BUILDER);
    assert_eq!(server.asked(), 1);
    // What was answered to other questions does not count.
    let elsewhere = ClusterLogins { namespace: "elsewhere".to_owned(), ..logins };
    cluster.user(&elsewhere, &brought).await.unwrap().unwrap();
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn nobody_gets_in_with_a_token_that_the_cluster_refuses() {
    let server = ApiServer::new(&[], &RIGHTS);
    let world = world(&server).await;
    let foreign = token(BUILDER, 3600);
    let answer = world.gets(Some(&format!("ann:{foreign}")), "").await;
    let words = answer.body["errors"][0]["message"].as_str().unwrap();
    assert!(answer.status == 401 && words.contains(AUDIENCE) && words.contains("it is nobody's"), "{answer:?}");
    assert_eq!(world.judges(Some(&basic_of(&format!("ann:{foreign}"))), "GET", "/v2/").await.status, 401);
    assert_eq!(server.asked(), 1, "a wrong token is asked about once");
    // And where such tokens do not count the cluster is not asked at all.
    takes_tokens(&world, "2", false);
    assert_eq!(world.gets(Some(&format!("t:{foreign}")), "").await.status, 401);
    assert_eq!(server.asked(), 0);
    assert_eq!(world.gets(Some("ann:of Ann's"), "").await.status, 200);
}

#[tokio::test]
async fn a_token_ends_with_the_one_that_was_brought_and_with_the_manifest() {
    let brought = token(BUILDER, 40);
    let server = ApiServer::new(&[(&brought, BUILDER)], &RIGHTS);
    let world = world(&server).await;
    let answer = world.gets(Some(&format!("t:{brought}")), "scope=repository:shop/web:pull").await;
    let life = answer.body["expires_in"].as_u64().unwrap();
    assert!((30..=40).contains(&life), "{answer:?}");
    let bearer = bearer(answer.body["token"].as_str().unwrap());
    assert_eq!(world.judges(Some(&bearer), "GET", "/v2/shop/web/manifests/1").await.status, 200);
    takes_tokens(&world, "2", false);
    let answer = world.judges(Some(&bearer), "GET", "/v2/shop/web/manifests/1").await;
    assert!(answer.status == 401 && answer.head("www-authenticate").contains("invalid_token"), "{answer:?}");
}

#[tokio::test]
async fn a_cluster_that_cannot_be_asked_stops_its_tokens_and_nobody_else() {
    let brought = token(BUILDER, 3600);
    let server = ApiServer::new(&[(&brought, BUILDER)], &RIGHTS);
    let world = world(&server).await;
    for (code, words) in [(403, "system:auth-delegator"), (401, "delete the pod"), (500, "answers 500")] {
        server.fails.store(code, Ordering::SeqCst);
        let answer = world.gets(Some(&format!("t:{brought}")), "scope=repository:shop/web:pull").await;
        let said = answer.body["errors"][0]["message"].as_str().unwrap();
        assert!(answer.status == 503 && said.contains(words), "{answer:?}");
        assert_eq!(
            world.judges(Some(&basic_of(&format!("t:{brought}"))), "GET", "/v2/shop/web/tags/list").await.status,
            503
        );
        assert_eq!(world.gets(Some("ann:of Ann's"), "").await.status, 200);
    }
    server.fails.store(0, Ordering::SeqCst);
    assert_eq!(world.gets(Some(&format!("t:{brought}")), "").await.status, 200, "no failure is remembered");
}
