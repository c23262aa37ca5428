//! Every word by which the operator tells what is going on stands in `docs/conditions.md`, and no other does. Reads the source as text, so that
//! no word can be left out of a list: one that looks like a reason is documented, or named here as something else.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

/// Where words for conditions and events come from.
const SPEAKERS: [&str; 10] = [
    "engine/src/apply/error.rs",
    "engine/src/work/events.rs",
    "src/api/status.rs",
    "src/controller",
    "src/parts",
    "src/credentials",
    "src/model",
    "src/observe.rs",
    "src/pki",
    "src/status",
];

/// CamelCase texts there that no condition has as its reason: what Kubernetes says of pods, claims and Jobs, and names of kinds
/// and types.
const OF_KUBERNETES: [&str; 35] = [
    "Accepted",
    "Any",
    "Approved",
    "Block",
    "CertificateRequest",
    "CertificateSigningRequest",
    "Complete",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "Denied",
    "DisruptionTarget",
    "ErrImageNeverPull",
    "ErrImagePull",
    "Events",
    "FailureTarget",
    "ImagePullBackOff",
    "InvalidImageName",
    "Namespace",
    "InvalidRequest",
    "Issuer",
    "Lost",
    "None",
    "OOMKilled",
    "PersistentVolumeClaim",
    "Pod",
    "PodScheduled",
    "PrivateRegistry",
    "ReadWriteMany",
    "ReplicaFailure",
    "ResolvedRefs",
    "RunContainerError",
    "Running",
    "Secret",
    "Succeeded",
];

/// Words of manifests and statuses that the page must use to explain itself.
const OF_MANIFESTS: [&str; 6] = ["False", "Never", "OnFailure", "True", "Unknown", "UnlessStopped"];

#[test]
fn every_word_of_the_code_is_documented() {
    let documented = documented();
    let said = said().into_iter().filter(|(word, _)| !OF_KUBERNETES.contains(&word.as_str()));
    let missing: Vec<_> = said.filter(|(word, _)| !documented.contains(word)).collect();
    assert!(
        missing.is_empty(),
        "not in docs/conditions.md; if it is no reason, name it in OF_KUBERNETES of this test: {missing:#?}"
    );
}

#[test]
fn every_documented_word_is_said_by_the_code() {
    let said: BTreeSet<_> = said().into_iter().map(|(word, _)| word).collect();
    let known = |word: &String| said.contains(word) || OF_MANIFESTS.contains(&word.as_str());
    let stale: Vec<_> = documented().into_iter().filter(|word| !known(word)).collect();
    assert!(stale.is_empty(), "docs/conditions.md has words that the code does not say: {stale:?}");
}

#[test]
fn exceptions_are_needed() {
    let (said, documented) = (said(), documented());
    for word in OF_KUBERNETES {
        let needed = said.iter().any(|(known, _)| known == word) && !documented.contains(word);
        assert!(needed, "{word} is no exception");
    }
    for word in OF_MANIFESTS {
        assert!(documented.contains(word), "{word} is no exception");
    }
}

/// Words in the page's marks of code.
fn documented() -> BTreeSet<String> {
    let page = fs::read_to_string(root().join("docs/conditions.md")).unwrap();
    captures("`([A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*)`", &page).collect()
}

/// Words with the file that says them: whole texts in CamelCase, and the variants that say why a certificate is issued.
fn said() -> BTreeSet<(String, PathBuf)> {
    let source = root();
    let mut files = Vec::new();
    SPEAKERS.iter().for_each(|speaker| collect(&source.join(speaker), &mut files));
    let mut said = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let file = file.strip_prefix(source).unwrap().to_owned();
        let mut words: Vec<_> = captures("\"([A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*)\"", &code).collect();
        if file.ends_with("pki/policy.rs") {
            let variants = captures(r"pub enum Renew \{([^}]*)\}", &code).next().unwrap();
            words.extend(captures("([A-Za-z]+),", &variants));
        }
        said.extend(words.into_iter().map(|word| (word, file.clone())));
    }
    assert!(said.len() > 60, "the source was not understood: {said:?}");
    said
}

fn captures<'a>(pattern: &str, text: &'a str) -> impl Iterator<Item = String> + use<'a> {
    let found: Vec<_> = Regex::new(pattern).unwrap().captures_iter(text).map(|found| found[1].to_owned()).collect();
    found.into_iter()
}

/// The Rust files of a file or folder, those with tests alone left out.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
        return;
    }
    let name = path.file_name().unwrap().to_str().unwrap();
    if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "testing.rs" {
        files.push(path.to_owned());
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
