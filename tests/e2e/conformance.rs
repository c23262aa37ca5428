//! What the OCI's own suite says of a registry, bare and behind its front end: a client must not be able to tell them apart.

use std::collections::BTreeMap;
use std::path::PathBuf;

use regex::Regex;
use serde_json::json;
use testbed::{Family, Progress, Tools};

use crate::cluster::node;
use crate::place::no_frontend;

/// What Distribution does not have, whoever stands before it: sha512, the referrers API and what belongs to it.
const LEFT_OUT: [&str; 5] =
    ["OCI_DATA_SHA512", "OCI_API_REFERRER", "OCI_DATA_SUBJECT", "OCI_DATA_SUBJECT_MISSING", "OCI_DATA_SUBJECT_LIST"];

/// How often a question of this name was answered so.
type Results = BTreeMap<(String, String), usize>;

fn program() -> PathBuf {
    Tools::ensure(&[Family::Conformance], &Progress::auto()).unwrap().path("conformance").unwrap().to_owned()
}

fn read(junit: &str) -> Results {
    let case = Regex::new(r#"<testcase name="([^"]*)" classname="([^"]*)"[^>]* status="([a-z]+)""#).unwrap();
    let mut results = Results::new();
    for found in case.captures_iter(junit) {
        *results.entry((format!("{} {}", &found[2], &found[1]), found[3].to_owned())).or_default() += 1;
    }
    results
}

fn count(results: &Results, status: &str) -> usize {
    results.iter().filter(|((_, of), _)| of == status).map(|(_, count)| count).sum()
}

#[tokio::test]
async fn a_registry_behind_a_front_end_answers_the_ocis_suite_as_it_does_alone() {
    let Some(cluster) = node("runs the OCI's suite beside the registry").await else { return };
    if no_frontend().is_some_and(testbed::skip_because) {
        return;
    }
    cluster.namespace("conforming").await;
    let spec = json!({
        "config": {"allowDeletes": true}, "storage": {"emptyDir": {}},
        "extraConfig": {"validation": {"manifests": {"urls": {"allow": [".*"]}}}},
    });
    let mut front = spec.clone();
    front["frontend"] = json!({"nginx": {"resources": {"requests": {"cpu": "1m", "memory": "16Mi"}}}});
    let mut tokens = front.clone();
    tokens["auth"] = json!({"token": {"rules": [{"users": ["nobody"], "repositories": ["**"], "actions": ["pull"]}]}});
    let bare = cluster.another("conforming", "bare", spec).await;
    let front = cluster.another("conforming", "front", front).await;
    let tokens = cluster.another("conforming", "tokens", tokens).await;

    let mut all = Vec::new();
    for registry in [bare, front, tokens] {
        let registry = registry.ready().await;
        let said = registry.admin().await.is_asked_everything(&program(), &LEFT_OUT).await;
        let results = read(&said);
        let [passed, failed, skipped] = ["passed", "failure", "skipped"].map(|status| count(&results, status));
        println!("{}: {passed} passed, {failed} failed, {skipped} skipped", registry.name);
        let refused: Vec<_> =
            results.keys().filter(|(_, status)| !["passed", "skipped"].contains(&&**status)).collect();
        assert!(passed > 400 && refused.is_empty(), "{refused:#?}");
        all.push(results);
    }
    let only = |one: &Results, other: &Results| -> Vec<_> {
        one.iter().filter(|(name, count)| other.get(name) != Some(count)).map(|(name, _)| name.clone()).collect()
    };
    let [alone, behind, tokens] = &all[..] else { unreachable!() };
    assert_eq!((only(alone, behind), only(behind, alone)), (Vec::new(), Vec::new()));
    // The suite asks for no token of the repository that it mounts from: then a mount is an upload, as the specification allows.
    let mounts = [only(alone, tokens), only(tokens, alone)].concat();
    let others: Vec<_> = mounts.iter().filter(|(name, _)| !name.contains("/mount/")).collect();
    assert!(others.is_empty() && !mounts.is_empty(), "{mounts:#?}");
}
