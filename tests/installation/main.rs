//! What a user installs: the charts render what they promise and refuse the rest with words, the operator gets the rights it uses and no others,
//! and every example is a valid manifest. Needs Helm, kubectl and a Lua of Argo CD's kind, no cluster.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

mod chart;
mod examples;
mod nodes;
mod rights;

use std::{
    path::Path,
    process::{Command, Output},
    sync::OnceLock,
};

use serde_json::Value;
use testbed::{Family, Progress, Tools};

const OPERATOR: &str = "charts/private-registry-operator";
const DEFINITION: &str = "charts/private-registry-crds";
const IMAGE: [&str; 2] = ["--set", "image.repository=operator.example/operator"];
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tool(name: &str) -> Command {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        Tools::ensure(&[Family::Helm, Family::Kubectl, Family::Argocd], &Progress::silent()).expect("get the programs")
    });
    let mut command = Command::new(tools.path(name).expect("it was asked for"));
    command.current_dir(root());
    command
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a command prints, which must succeed.
fn printed(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The objects of the release `operator` in the namespace `system`.
fn rendered(chart: &str, values: &[&str]) -> Vec<Value> {
    documents(&printed(tool("helm").args(["template", "operator", chart, "--namespace", "system"]).args(values)))
}

fn operator(values: &[&str]) -> Vec<Value> {
    rendered(OPERATOR, &[&IMAGE, values].concat())
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn texts(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text").to_owned())
}
