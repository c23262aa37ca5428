//! A registry behind its front end: what clients notice of it, and what they do not.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Secret};
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};
use private_registry_operator::pki::CertificateFacts;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testbed::image::{self, Image, Layer};

use crate::certificates::Company;
use crate::client::Person;
use crate::cluster::{Cluster, cluster, node, stays, wait, wait_for};
use crate::place::{no_frontend, program};
use crate::pushing::{refuses_strangers, takes_and_gives_images};
use crate::registry::Registry;

/// How long a renewed certificate may take from the request to clients. A kubelet that is not told needs a minute or two.
const SOON: Duration = Duration::from_secs(15);

/// A registry with a front end; `None`, said aloud, where there can be none.
async fn fronted(cluster: &Cluster, namespace: &str, mut spec: Value) -> Option<Registry> {
    if no_frontend().is_some_and(testbed::skip_because) {
        return None;
    }
    spec["frontend"]["nginx"]["resources"] = json!({"requests": {"cpu": "1m", "memory": "16Mi"}});
    Some(cluster.registry(namespace, "team-a", spec).await.ready().await)
}

/// Restarts of any of its containers.
fn all_restarts(pod: &Pod) -> Value {
    let status = json!(pod.status);
    let of =
        |list: &Value| list.as_array().into_iter().flatten().map(|one| one["restartCount"].clone()).collect::<Vec<_>>();
    json!([of(&status["initContainerStatuses"]), of(&status["containerStatuses"])])
}

#[tokio::test]
async fn images_go_through_a_front_end_and_refusals_are_the_registrys_own() {
    let Some(cluster) = cluster().await else { return };
    let Some(registry) = fronted(&cluster, "fronted", json!({})).await else { return };
    takes_and_gives_images(&registry).await;
    refuses_strangers(&registry).await;
    let admin = registry.admin().await;
    let blob = admin.first_layer("team/app:1").await;

    let answer = admin.hears(&format!("/v2/team/app/blobs/{blob}"), &["--range", "0-9"]).await;
    let sent = answer.to_lowercase();
    assert!(sent.starts_with("http/2 206"), "{answer}");
    for header in [
        "server: nginx".to_owned(),
        format!("docker-content-digest: {blob}"),
        format!("etag: \"{blob}\""),
        "content-type: application/octet-stream".to_owned(),
        "content-length: 10".to_owned(),
        "x-content-type-options: nosniff".to_owned(),
    ] {
        assert_eq!(sent.matches(&header).count(), 1, "{header}: {answer}");
    }

    // What the registry understands in another way than nginx is the registry's.
    let path = format!("/v2/team/app/blobs/{blob}");
    let matches = format!("If-Match: \"{blob}\"");
    for (path, more, code) in [
        (path.clone(), vec!["--header", &matches], "200"),
        (path.clone(), vec!["--header", "If-Unmodified-Since: Mon, 01 Jan 2001 00:00:00 GMT"], "200"),
        (path.clone(), vec!["--header", "Range: items=0-9"], "416"),
        (path.clone(), vec!["--range", "999999999-"], "416"),
        (path.replace("/team/", "//team/"), vec!["--path-as-is"], "301"),
        (path.replace("/team/", "/./team/"), vec!["--path-as-is"], "301"),
        (format!("{path}%0A"), vec![], "404"),
        ("/v2/team/app/manifests/a<b".to_owned(), vec!["--path-as-is"], "404"),
    ] {
        let answer = admin.hears(&path, &more).await;
        assert!(answer.starts_with(&format!("HTTP/2 {code}")), "{path} {more:?}: {answer}");
        for header in ["content-range", "docker-content-digest", "docker-distribution-api-version"] {
            assert!(answer.to_lowercase().matches(&format!("\n{header}:")).count() <= 1, "{header}: {answer}");
        }
    }

    let missing = format!("/v2/team/app/blobs/sha256:{}", "0".repeat(64));
    let elsewhere = format!("/v2/team/other/blobs/{blob}");
    for (path, code) in [
        (missing, "BLOB_UNKNOWN"),
        (elsewhere.clone(), "BLOB_UNKNOWN"),
        ("/v2/team/app/manifests/2".to_owned(), "MANIFEST_UNKNOWN"),
    ] {
        let answer = admin.hears(&path, &[]).await;
        assert!(answer.starts_with("HTTP/2 404") && answer.contains(code), "{path}: {answer}");
    }
    let login = registry.secret("team-a-admin").await;
    let guesser = registry.user("admin", &format!("not {}", login["password"])).await;
    for (person, path) in [
        (registry.stranger().await, format!("/v2/team/app/blobs/{blob}")),
        (registry.stranger().await, "/v2/".to_owned()),
        (guesser, format!("/v2/team/app/blobs/{blob}")),
        (registry.user("admin", "wrong, and guessed").await, "/v2/".to_owned()),
    ] {
        let answer = person.hears(&path, &[]).await;
        assert!(answer.starts_with("HTTP/2 401") && answer.contains("UNAUTHORIZED"), "{path}: {answer}");
        assert_eq!(
            answer.to_lowercase().matches("www-authenticate: basic realm=\"team-a\"").count(),
            1,
            "{path}: {answer}"
        );
    }
    let begun = admin.hears("/v2/team/app/blobs/uploads/", &["--data", ""]).await;
    assert!(begun.to_lowercase().contains("\nlocation: /v2/team/app/blobs/uploads/"), "a relative place: {begun}");
}

#[tokio::test]
async fn the_gate_gives_what_the_registry_would_give_to_whom_it_would_give_it() {
    let Some(cluster) = node("stops a registry's process for a while").await else { return };
    cluster.namespace("fronted-gate").await;
    cluster.secret("fronted-gate", "alice", &[("password", "alice's password")]).await;
    cluster.secret("fronted-gate", "bob", &[("password", "bob's password")]).await;
    let user = |name| json!({"name": name, "passwordSecretRef": {"name": name}});
    let spec = json!({"config": {"allowDeletes": true}, "auth": {"users": [user("alice"), user("bob")]}});
    let Some(registry) = fronted(&cluster, "fronted-gate", spec).await else { return };
    let alice = registry.user("alice", "alice's password").await;
    let bob = registry.user("bob", "bob's password").await;
    let digest = alice.pushes("team/app:1", "gone soon").await;
    let blob = format!("/v2/team/app/blobs/{}", alice.first_layer("team/app:1").await);
    let [tagged, named] = ["1", &digest].map(|reference| format!("/v2/team/app/manifests/{reference}"));
    let accept = ["--header", "Accept: application/vnd.oci.image.manifest.v1+json"];
    // The gate leaves this to the registry.
    let registrys_own = [accept[0], accept[1], "--header", "If-None-Match: \"another\""];

    for path in [&tagged, &named] {
        for how in [&[][..], &["--head"]] {
            let from_the_gate = heads_and_body(&alice.hears(path, &[&accept[..], how].concat()).await);
            let from_the_registry = heads_and_body(&alice.hears(path, &[&registrys_own[..], how].concat()).await);
            assert!(from_the_gate.0.contains(&format!("docker-content-digest: {digest}")), "{from_the_gate:?}");
            assert_eq!(from_the_gate, from_the_registry, "{path} {how:?}");
        }
    }

    // Both have been let in before, so that no password has to be hashed; the registry cannot be asked.
    assert_eq!(bob.sees(&blob).await, "200");
    let pod = registry.kill(SIGSTOP).await.metadata.name.unwrap();
    let seen = futures::join!(
        alice.sees(&blob),
        bob.sees(&blob),
        alice.sees_with(&accept, &tagged),
        bob.sees_with(&accept, &named)
    );
    let waits = alice.sees_with(&["--max-time", "2"], "/v2/").await;
    cluster.place.kill("fronted-gate", &pod, SIGCONT).await;
    assert_eq!(seen, ["200"; 4].map(str::to_owned).into());
    assert!(waits.contains("timed out"), "the registry was not stopped: {waits}");
    wait("the registry goes on", async || match alice.sees("/v2/").await {
        code if code == "200" => Ok(()),
        code => Err(code),
    })
    .await;

    registry.change(json!({"auth": {"users": [user("alice")]}})).await;
    wait("a removed user pulls nothing more", async || {
        let seen = futures::join!(bob.sees(&blob), bob.sees_with(&accept, &tagged));
        if seen == ("401".to_owned(), "401".to_owned()) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let refused = bob.hears(&blob, &[]).await;
    assert_eq!(refused.to_lowercase().matches("www-authenticate: basic realm=\"team-a\"").count(), 1, "{refused}");

    alice.tries_to_delete(&format!("team/app@{digest}")).await.unwrap();
    for path in [&tagged, &named] {
        let answer = alice.hears(path, &accept).await;
        assert!(answer.starts_with("HTTP/2 404") && answer.contains("MANIFEST_UNKNOWN"), "{path}: {answer}");
    }
    assert_eq!(alice.sees_with(&["--request", "DELETE"], &blob).await, "202");
    let answer = alice.hears(&blob, &[]).await;
    assert!(answer.starts_with("HTTP/2 404") && answer.contains("BLOB_UNKNOWN"), "{answer}");
}

/// An answer's heads without the time, in order, and its body.
fn heads_and_body(answer: &str) -> (BTreeSet<String>, String) {
    let (heads, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let heads = heads.to_lowercase().lines().filter(|head| !head.starts_with("date:")).map(str::to_owned).collect();
    (heads, body.to_owned())
}

#[tokio::test]
async fn nothing_but_the_front_end_can_be_reached_of_a_pod() {
    let Some(cluster) = node("tries every port of a pod").await else { return };
    let Some(registry) = fronted(&cluster, "fronted-alone", json!({})).await else { return };
    let address = registry.pod().await.status.unwrap().pod_ip.unwrap();
    let every = format!(
        "for port in {{1..65535}}; do {{ exec 3<>/dev/tcp/{address}/$port; }} 2>/dev/null && echo $port; done; true"
    );
    let mut scan = tokio::process::Command::from(cluster.place.node().command("bash"));
    let output = scan.args(["-c", &every]).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>(), ["5000"]);

    // What listens there is nginx.
    let plain = format!("http://{address}:5000/v2/");
    let mut curl = tokio::process::Command::from(cluster.place.node().command("curl"));
    let output = curl.args(["--silent", "--include", &plain]).output().await.unwrap();
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 308") && answer.contains(&format!("Location: https://{address}:5000/v2/")),
        "{answer}"
    );
}

#[tokio::test]
async fn a_renewed_certificate_is_served_in_seconds_and_no_client_notices() {
    let Some(cluster) = cluster().await else { return };
    let Some(registry) = fronted(&cluster, "fronted-renewed", json!({})).await else { return };
    let admin = registry.admin().await;
    admin.pushes("team/app:1", "kept").await;
    let blob = admin.first_layer("team/app:1").await;
    let before = registry.pod().await;
    let old = admin.sees_certificate().await;
    assert_eq!(old.serial, registry.status().await.certificate.unwrap().serial);

    let done = AtomicBool::new(false);
    // One keeps its connection, for pulling and for pushing; the others open new ones.
    let path = format!("/v2/team/app/blobs/{blob}");
    let pulls = registry.admin().await;
    let pulls = pulls.keeps_asking(&path, "200", &[], 10, 30);
    let pushes = registry.admin().await;
    let pushes = pushes.keeps_asking("/v2/team/app/blobs/uploads/", "202", &["--data", ""], 4, 30);
    let comes_anew = async {
        let (mut rounds, person) = (0, registry.admin().await);
        while !done.load(Relaxed) {
            let image = image::test_client(&program("pause"), "unused/name:1", &format!("round {rounds}"));
            person.once_pushes("team/app:2", &image).await;
            person.once_pulls("team/app:1").await;
            rounds += 1;
        }
        rounds
    };
    let renewal = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        registry.annotate("privateregistry.dev/renew", "leaf").await;
        let asked = Instant::now();
        let new = wait_for(SOON, "clients see the renewed certificate", async || {
            let seen = admin.sees_certificate().await;
            if seen.serial == old.serial { Err(seen.serial) } else { Ok(seen) }
        })
        .await;
        println!("a renewed certificate was served {:?} after it was asked for", asked.elapsed());
        registry.is("Settled").await;
        assert_eq!(registry.status().await.certificate.unwrap().serial, new.serial);
        tokio::time::sleep(Duration::from_secs(3)).await;
        done.store(true, Relaxed);
    };
    let ((), rounds, (), ()) = futures::join!(renewal, comes_anew, pulls, pushes);
    println!("{rounds} pushes and pulls over new connections meanwhile");
    assert!(rounds > 0);
    let after = registry.pod().await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(all_restarts(&after), all_restarts(&before));
    assert_eq!(registry.condition("Available", "Answering").await.status, "True");
}

#[tokio::test]
async fn a_broken_certificate_is_not_served() {
    let Some(cluster) = cluster().await else { return };
    let Some(registry) = fronted(&cluster, "fronted-broken", json!({})).await else { return };
    let admin = registry.admin().await;
    let serial = admin.sees_certificate().await.serial;
    let pod = registry.pod().await.metadata.name.unwrap();
    cluster
        .without_operator(async {
            let broken = json!({"stringData": {"tls.key": "no key"}});
            cluster.patch::<Secret>("fronted-broken", "team-a-tls", broken).await;
            let touch = json!({"metadata": {"annotations": {"example.com/touched": "now"}}});
            cluster.patch::<Pod>("fronted-broken", &pod, touch).await;
            wait("the sidecar has seen it", async || {
                let log = registry.log_of(&pod, "sidecar").await;
                if log.contains("it is not a certificate with a key") { Ok(()) } else { Err(log) }
            })
            .await;
            stays("the old one is served", async || {
                let seen = admin.sees_certificate().await.serial;
                if seen == serial && admin.sees("/v2/").await == "200" { Ok(()) } else { Err(seen) }
            })
            .await;
        })
        .await;
    registry.is("Settled").await;
    assert_eq!(admin.sees("/v2/").await, "200");
}

/// nginx may write nowhere but into 16 MiB of memory.
#[tokio::test]
async fn a_large_layer_passes_in_both_directions_without_a_file() {
    let Some(cluster) = cluster().await else { return };
    let Some(registry) = fronted(&cluster, "fronted-large", json!({})).await else { return };
    let admin = registry.admin().await;
    let filler: Vec<u8> = (0..136_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let large = Image { layers: vec![Layer::new().file("filler", 0o644, filler)], ..Image::default() };

    admin.tries_to_push("team/large:1", &large).await.unwrap();

    let (blob, folder) = (admin.first_layer("team/large:1").await, tempfile::tempdir().unwrap());
    let file = folder.path().join("blob");
    admin.curls(&format!("/v2/team/large/blobs/{blob}"), &["--output", file.to_str().unwrap()]).await;
    let digest = Sha256::digest(std::fs::read(&file).unwrap());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(format!("sha256:{digest}"), blob);
    let pod = registry.pod().await;
    let log = registry.log_of(pod.metadata.name.as_deref().unwrap(), "frontend").await;
    assert!(!log.contains("buffered to a temporary file"), "{log}");
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let patches = lines.iter().filter(|line| line["method"] == "PATCH");
    let patch = patches.max_by_key(|line| line["received"].as_u64()).unwrap_or_else(|| panic!("{log}"));
    assert!(patch["received"].as_u64().unwrap() > 128 << 20 && patch["user"] == "admin", "{patch}");
    let login = registry.secret("team-a-admin").await;
    let secret =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("admin:{}", login["password"]));
    assert!(!log.contains(&secret) && !log.contains("_state") && !log.contains("Basic "), "no login is in the log");
}

#[tokio::test]
async fn a_front_end_neither_keeps_a_job_from_ending_nor_needs_tls() {
    let Some(cluster) = node("kills a registry's process").await else { return };
    let spec = json!({"storage": {"emptyDir": {}}, "restartPolicy": {"type": "OnFailure"}, "tls": {"none": {}}});
    let Some(registry) = fronted(&cluster, "fronted-job", spec).await else { return };
    let person = Person::new(&registry);
    let answer = person.hears_in_clear("/v2/").await;
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("UNAUTHORIZED"), "{answer}");

    registry.kill(SIGTERM).await;

    assert_eq!(registry.is("Completed").await.status, "True");
    let ended: BTreeSet<_> = registry.pods().await.into_iter().map(|pod| pod.status.unwrap().phase.unwrap()).collect();
    assert_eq!(ended, BTreeSet::from(["Succeeded".to_owned()]));
}

impl Person {
    /// The certificate that a new connection is shown.
    async fn sees_certificate(&self) -> CertificateFacts {
        let seen = self.curls("/", &["--output", "/dev/null", "--write-out", "%{certs}"]).await;
        let begin = seen.find("-----BEGIN").unwrap_or_else(|| panic!("curl shows no certificate: {seen}"));
        CertificateFacts::of_pem(&seen[begin..]).unwrap()
    }

    /// Digest of an image's first layer.
    async fn first_layer(&self, image: &str) -> String {
        let manifest: Value =
            serde_json::from_str(&self.once("crane", &["manifest", &self.reference(image)]).await).unwrap();
        manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
    }

    /// Asks for a path so often each second, for so many seconds, over one connection. Each answer must be as wanted.
    async fn keeps_asking(&self, path: &str, wanted: &str, more: &[&str], each_second: u32, seconds: u32) {
        let (often, count) = (format!("{each_second}/s"), each_second * seconds);
        let fixed = ["--output", "/dev/null", "--write-out", "%{http_code} %{num_connects}\n", "--rate", &often];
        let said = self.curls(&format!("{path}?[1-{count}]"), &[&fixed[..], more].concat()).await;
        let answers: Vec<_> = said.lines().filter_map(|line| line.split_once(' ')).collect();
        let strange: Vec<_> = answers.iter().filter(|(code, _)| *code != wanted).collect();
        assert!(
            answers.len() == count as usize && strange.is_empty(),
            "{} of {count} answers, {strange:?}",
            answers.len()
        );
        let connections: u32 = answers.iter().map(|(_, opened)| opened.trim().parse::<u32>().unwrap()).sum();
        assert_eq!(connections, 1, "it had to connect again");
    }
}

#[tokio::test]
async fn who_shows_no_certificate_of_the_companys_is_let_in_with_no_login_and_probes_pass() {
    let Some(cluster) = cluster().await else { return };
    if no_frontend().is_some_and(testbed::skip_because) {
        return;
    }
    let (ours, other) = (Company::new(), Company::new());
    cluster.namespace("certified").await;
    cluster.secret("certified", "clients", &[("ca.crt", &ours.authority)]).await;
    let spec = json!({"frontend": {"nginx": {}}, "tls": {"clientCASecretRef": {"name": "clients"}}});
    let registry = cluster.another("certified", "team-a", spec).await.ready().await;
    assert_eq!(registry.condition("Available", "Answering").await.status, "True");
    let (admin, stranger) = (registry.admin().await, registry.stranger().await);
    let showing = |company: &Company| {
        let folder = tempfile::tempdir().unwrap();
        let pair = company.signs("somebody");
        let [certificate, key] = [("client.crt", pair.0), ("client.key", pair.1)].map(|(name, text)| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        });
        (folder, certificate, key)
    };
    let (_ours, certificate, key) = showing(&ours);
    let (_other, foreign, foreign_key) = showing(&other);

    let with = ["--cert", &certificate, "--key", &key];
    assert_eq!(admin.sees_with(&with, "/v2/_catalog").await, "200");
    assert_eq!(stranger.sees_with(&with, "/v2/_catalog").await, "401", "a certificate is no login");
    assert_eq!(admin.sees("/").await, "200", "as probes ask");
    for path in [
        "/v2/",
        "/v2/_catalog",
        "//",
        "/./v2/_catalog",
        "/-/alive/../../v2/_catalog",
        "/?/v2/_catalog",
        "/-/alive%2f..%2f..%2fv2/",
    ] {
        assert_eq!(admin.sees_with(&["--path-as-is"], path).await, "403", "{path}");
    }
    let refused = admin.sees_with(&["--cert", &foreign, "--key", &foreign_key], "/v2/_catalog").await;
    assert_eq!(refused, "403");
    let answer = admin.hears("/v2/_catalog", &[]).await;
    assert!(answer.contains("DENIED") && answer.contains("client certificate"), "{answer}");

    // Other authorities roll the pods: nobody stays connected with what no longer counts.
    let pod = registry.pod().await;
    cluster.secret("certified", "clients", &[("ca.crt", &other.authority)]).await;
    registry.successor_of(&pod).await;
    registry.is("Settled").await;
    assert_eq!(admin.sees_with(&with, "/v2/_catalog").await, "403");
    let foreign = ["--cert", foreign.as_str(), "--key", &foreign_key];
    assert_eq!(admin.sees_with(&foreign, "/v2/_catalog").await, "200");

    // What cannot be used lets nobody in and nobody out.
    cluster.secret("certified", "clients", &[("ca.crt", "nothing")]).await;
    registry.condition("Ready", "ClientCaUnusable").await;
    assert_eq!(admin.sees_with(&foreign, "/v2/_catalog").await, "200");
    assert_eq!(admin.sees("/v2/_catalog").await, "403");
}
