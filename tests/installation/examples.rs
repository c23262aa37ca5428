//! What is ready to be applied: examples, overlays, and how Argo CD judges a registry.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use kubectl_registry::check;
use serde_json::{Value, json};

use crate::{documents, of_kind, printed, root, texts, tool};

/// Every YAML file below a folder.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(manifests(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_example_is_a_valid_manifest() {
    let mut registries = 0;
    for path in manifests(&root().join("deploy/examples")) {
        let objects = documents(&fs::read_to_string(&path).unwrap());
        assert!(!objects.is_empty(), "{}", path.display());
        let own = of_kind(&objects, "PrivateRegistry").count();
        registries += own;
        if own > 0 {
            let checked = check::check(std::slice::from_ref(&path));
            assert_eq!((checked.registries, checked.faults), (own, Vec::new()), "{}", path.display());
        }
    }
    assert!(registries > 8, "only {registries} examples were found");
}

#[test]
fn an_overlay_changes_the_image_everywhere() {
    for folder in ["deploy/cluster", "deploy/namespaced"] {
        let text = printed(tool("kubectl").args(["kustomize", folder]));
        assert!(!text.contains("image: private-registry-operator:"), "{folder}");
        let objects = documents(&text);
        let deployment = of_kind(&objects, "Deployment").next().expect("a Deployment");
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let image = container["image"].as_str().unwrap();
        assert!(image.starts_with("registry.example.com/"), "{image}");
        assert!(
            texts(&container["args"]).any(|argument| argument == format!("--operator-image={image}")),
            "{container}"
        );
    }
}

#[test]
fn the_gitops_example_is_a_whole_that_kustomize_can_build() {
    let objects = documents(&printed(tool("kubectl").args(["kustomize", "deploy/examples/gitops"])));
    let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Namespace", "PrivateRegistry"]);
    assert_eq!(objects[1]["metadata"]["namespace"], objects[0]["metadata"]["name"]);
}

/// What Argo CD would show for an object: status and message.
fn health(object: &Value) -> (String, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    serde_json::to_writer(&file, object).unwrap();
    let mut judge = tool("argocd-health");
    let answer = printed(judge.arg("deploy/argocd/health.lua").stdin(File::open(file.path()).unwrap()));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let text = |field: &str| answer[field].as_str().unwrap_or_else(|| panic!("no {field}: {answer}")).to_owned();
    (text("status"), text("message"))
}

#[test]
fn argo_cd_is_told_how_to_judge_a_registry() {
    let of = |metadata: Value, status: Value| health(&json!({"metadata": metadata, "spec": {}, "status": status})).0;
    let plain = || json!({"name": "team-a", "generation": 2});
    // As the operator sets them: all three with the reason of the first thing that stands in the way.
    let judged = |ready: &str, reconciling: &str, stalled: &str, reason: &str| {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": reason, "message": format!("{reason} said")});
        let conditions =
            [condition("Ready", ready), condition("Reconciling", reconciling), condition("Stalled", stalled)];
        json!({"observedGeneration": 2, "conditions": conditions})
    };

    assert_eq!(health(&json!({"metadata": plain(), "spec": {}})).0, "Progressing", "nobody has looked at it");
    assert_eq!(
        of(json!({"generation": 3}), judged("True", "False", "False", "Settled")),
        "Progressing",
        "an older version"
    );
    let paused = json!({"generation": 2, "annotations": {"privateregistry.dev/paused": "true"}});
    assert_eq!(of(paused, judged("True", "False", "False", "Settled")), "Suspended");
    for (status, expected) in [
        (judged("True", "False", "False", "Settled"), "Healthy"),
        (judged("False", "True", "False", "Progressing"), "Progressing"),
        (judged("Unknown", "False", "False", "Progressing"), "Progressing"),
        (judged("False", "False", "True", "Immutable"), "Degraded"),
        (judged("False", "True", "True", "WaitingForSecret"), "Degraded"),
        (judged("False", "False", "False", "Failed"), "Degraded"),
        (judged("True", "False", "False", "Suspended"), "Suspended"),
        (judged("True", "False", "False", "StoppedByUser"), "Suspended"),
        (judged("True", "False", "False", "Completed"), "Suspended"),
    ] {
        let (judgement, message) = health(&json!({"metadata": plain(), "status": status}));
        assert_eq!(judgement, expected, "{status}");
        assert!(message.ends_with(" said"), "{message}");
    }
}
