//! What the operator is told, and nobody else.

use super::of_cluster::ApiServer;
use super::*;
use crate::access::report::Standing;

const URL: &str = "https://ci.example.com";

fn issuer() -> Value {
    json!({"name": "ci", "url": URL, "audience": "here", "hasFile": true, "user": "claims.sub"})
}

async fn world(server: &Arc<ApiServer>) -> World {
    let world = World::of_cluster(Some(server.client())).await;
    world.shows_keys("1", &SigningKey::generate().unwrap(), &SigningKey::generate().unwrap(), None);
    let cluster = json!({"audience": "here", "namespace": "registries"});
    let access = json!({"service": SERVICE, "policy": rules(), "issuers": [issuer()], "cluster": cluster});
    world.shows_access("1", String::new(), &access);
    world
}

impl World {
    async fn reports(&self, proof: &str) -> Answer {
        self.asks("GET", "/auth/token", &[("host", "r"), ("authorization", proof)], "").await
    }

    async fn told(&self) -> Report {
        let answer = self.reports(&report::question(&[b'r'; 64])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_value(answer.body).unwrap()
    }
}

#[tokio::test]
async fn the_operator_is_told_what_is_missing_and_nobody_else_is() {
    let server = ApiServer::new(&[], &[]);
    let world = world(&server).await;
    for proof in ["Report ", "Report x", &report::question(b"another"), "Basic cjpy", "Bearer x"] {
        let answer = world.reports(proof).await;
        assert!(answer.status == 401 && answer.body.get("issuers").is_none(), "{proof}: {answer:?}");
    }
    assert_eq!(server.asked(), 0, "nor does anybody else make it ask");

    let name = report::name_of(&serde_json::from_value(issuer()).unwrap());
    let told = world.told().await;
    assert_eq!(told.issuers, [(name.clone(), Standing::Pending)].into(), "it is missing for a moment only");
    assert_eq!(told.cluster, Some(Standing::Pending));
    world.shows("issuers/ci", "1", &[("jwks.json", crate::access::jwt::tests::Issuer::new("1").set())]);
    assert_eq!(world.told().await.issuers, [(name, Standing::Good)].into());
}

#[tokio::test]
async fn whether_the_cluster_may_be_asked_is_found_out_without_anybodys_token() {
    let server = ApiServer::new(&[], &[]);
    server.own.lock().unwrap().extend(["tokenreviews", "subjectaccessreviews"]);
    let world = world(&server).await;
    for _ in 0..200 {
        if world.told().await.cluster == Some(Standing::Good) {
            assert_eq!(server.asked(), 2, "and not at each look");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", world.told().await);
}

/// Looks, and lets whoever asks come to the end.
async fn looks(cluster: &Cluster, now: Instant) -> Standing {
    let standing = cluster.standing(now);
    cluster.has_asked().await;
    standing
}

#[tokio::test]
async fn who_may_not_ask_the_cluster_is_told_when_it_lasts_and_well_again_at_the_next_look() {
    let after = |seconds| Duration::from_secs(seconds);
    for (code, own, wanted) in [
        (0, &["tokenreviews"][..], Standing::Forbidden),
        (0, &[], Standing::Forbidden),
        (401, &[], Standing::Unauthorized),
        (500, &[], Standing::Unreachable),
        // Where not even that may be asked, nothing is said.
        (403, &[], Standing::Pending),
    ] {
        let server = ApiServer::new(&[], &[]);
        server.fails.store(code, std::sync::atomic::Ordering::SeqCst);
        server.own.lock().unwrap().extend(own);
        let (cluster, begin) = (Cluster::new(Some(server.client())), Instant::now());
        assert_eq!(looks(&cluster, begin).await, Standing::Pending);
        assert_eq!(looks(&cluster, begin + after(21)).await, Standing::Pending, "for a moment");
        assert_eq!(looks(&cluster, begin + after(42)).await, wanted, "{code} {own:?}");
        server.fails.store(0, std::sync::atomic::Ordering::SeqCst);
        server.own.lock().unwrap().extend(["tokenreviews", "subjectaccessreviews"]);
        looks(&cluster, begin + after(63)).await;
        assert_eq!(looks(&cluster, begin + after(84)).await, Standing::Good);
    }
}
