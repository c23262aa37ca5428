//! `kubectl registry` and a real API server.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use private_registry_operator::api::{self, PrivateRegistry, annotation};
use private_registry_operator::pki::issue::issue_authority;
use private_registry_operator::pki::{AuthorityProfile, KeyAlgorithm};
use serde_json::{Value, json};
use testbed::{ControlPlane, Options};
use tokio::sync::OnceCell;

static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

/// A namespace of this name, in the one control plane; `None` where there can be none.
async fn namespace(name: &str) -> Option<Place> {
    if testbed::skip(testbed::Mode::ControlPlane) {
        return None;
    }
    let plane = PLANE.get_or_init(start).await;
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    // A client belongs to the runtime of the test that made it.
    let client = plane.client().await.unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    Some(Place { name: name.to_owned(), client, kubeconfig: plane.kubeconfig().to_owned() })
}

async fn start() -> ControlPlane {
    let plane = ControlPlane::start(Options::default()).await.unwrap();
    let client = plane.client().await.unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &api::crd()).await.unwrap();
    let registries: Api<PrivateRegistry> = Api::all(client);
    for _ in 0..100 {
        if registries.list(&kube::api::ListParams::default()).await.is_ok() {
            return plane;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the definition is not served");
}

struct Place {
    name: String,
    client: Client,
    kubeconfig: PathBuf,
}

impl Place {
    fn registries(&self) -> Api<PrivateRegistry> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    async fn registry(&self, name: &str, spec: Value) {
        let registry = json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": name}, "spec": spec,
        });
        self.registries().create(&PostParams::default(), &serde_json::from_value(registry).unwrap()).await.unwrap();
    }

    async fn status(&self, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.registries().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// What was asked for with the annotation.
    async fn request(&self, name: &str) -> Option<String> {
        self.registries().get(name).await.unwrap().metadata.annotations?.remove(annotation::RENEW)
    }

    /// Runs the program in this namespace: exit code, and what it printed in both places.
    async fn ask(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_kubectl-registry"));
        program.env_clear().args(arguments).args(["--namespace", &self.name, "--kubeconfig"]).arg(&self.kubeconfig);
        let Output { status, stdout, stderr } = program.output().await.unwrap();
        (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
    }
}

fn is_stamped(value: &str, kind: &str) -> bool {
    let stamp = value.strip_prefix(kind).unwrap_or_default();
    stamp.len() == 16 && stamp.parse::<Timestamp>().is_ok()
}

#[tokio::test]
async fn rotate_asks_for_what_was_named_and_says_how_to_follow() {
    let Some(team) = namespace("rotate-asks").await else { return };
    team.registry("team-a", json!({})).await;

    let (code, said) = team.ask(&["rotate", "leaf", "team-a"]).await;
    let value = team.request("team-a").await.unwrap();
    assert!(code == Some(0) && is_stamped(&value, "leaf-"), "{value}: {said}");
    let follow = format!("privateregistry/team-a --for=jsonpath='{{.status.handledRenewRequest}}'={value}");
    assert!(said.contains(&follow), "{said}");

    let (code, said) = team.ask(&["rotate", "ca", "preg/team-a"]).await;
    let second = team.request("team-a").await.unwrap();
    assert!(code == Some(0) && is_stamped(&second, "ca-"), "{second}: {said}");
    assert!(said.contains(&format!("An earlier request, {value}, was not done yet")), "{said}");

    team.status("team-a", json!({"handledRenewRequest": second})).await;
    let (code, said) = team.ask(&["rotate", "ca", "team-a", "--now", "--yes"]).await;
    let third = team.request("team-a").await.unwrap();
    assert!(code == Some(0) && is_stamped(&third, "ca-now-"), "{third}: {said}");
    assert!(!said.contains("An earlier request"), "{said}");
}

#[tokio::test]
async fn what_cuts_clients_off_is_not_done_without_a_yes() {
    let Some(team) = namespace("rotate-cuts-off").await else { return };
    team.registry("team-a", json!({})).await;
    let (code, said) = team.ask(&["rotate", "ca", "team-a", "--now"]).await;
    assert!(code == Some(1) && said.contains("can neither pull nor push") && said.contains("--yes"), "{said}");
    let (code, said) = team.ask(&["rotate", "leaf", "team-a", "--now", "--yes"]).await;
    assert!(code == Some(1) && said.contains("--now is for ca"), "{said}");
    assert_eq!(team.request("team-a").await, None);
}

#[tokio::test]
async fn what_has_nothing_to_rotate_is_refused_with_what_to_do_instead() {
    let Some(team) = namespace("rotate-nothing").await else { return };
    team.registry("own", json!({"tls": {"secret": {"name": "company-tls"}}})).await;
    team.registry("plain", json!({"tls": {"none": {}}})).await;
    for (name, words) in [
        ("own", "put the new one into the Secret company-tls"),
        ("plain", "spec.tls.none"),
        ("other", "kubectl get privateregistries --all-namespaces"),
    ] {
        let (code, said) = team.ask(&["rotate", "leaf", name]).await;
        assert!(code == Some(1) && said.contains(words), "{name}: {said}");
    }
    assert_eq!((team.request("own").await, team.request("plain").await), (None, None));
}

#[tokio::test]
async fn trust_takes_authority_and_addresses_from_the_cluster() {
    let Some(team) = namespace("trust-takes").await else { return };
    team.registry("team-a", json!({})).await;
    let root = tempfile::tempdir().unwrap();
    let place = root.path().to_str().unwrap();
    let trust = async |more: &[&str]| {
        team.ask(&[&["trust", "team-a", "--root", place, "--docker", "--containerd"], more].concat()).await
    };

    let (code, said) = trust(&[]).await;
    assert!(code == Some(1) && said.contains("has no certificate yet"), "{said}");

    let profile = AuthorityProfile {
        common_name: "team-a CA".to_owned(),
        duration: AuthorityProfile::DEFAULT_DURATION,
        key_algorithm: KeyAlgorithm::EcdsaP256,
    };
    let authority = issue_authority(&profile, Timestamp::now()).unwrap();
    let mut bundle = ConfigMap {
        data: Some(BTreeMap::from([("ca.crt".to_owned(), authority.certificate_pem.clone())])),
        ..ConfigMap::default()
    };
    bundle.metadata.name = Some("team-a-ca-bundle".to_owned());
    let maps: Api<ConfigMap> = Api::namespaced(team.client.clone(), &team.name);
    maps.create(&PostParams::default(), &bundle).await.unwrap();
    let (code, said) = trust(&[]).await;
    assert!(code == Some(1) && said.contains("has no address yet"), "{said}");

    let addresses =
        [("External", "registry.example.com"), ("Node", "10.96.0.9:5000"), ("Cluster", "team-a.trust-takes.svc:5000")];
    let addresses = addresses.map(|(scope, address)| json!({"scope": scope, "address": address}));
    team.status("team-a", json!({"addresses": addresses})).await;
    let (code, said) = trust(&["--install", "--yes"]).await;
    assert_eq!(code, Some(0), "{said}");
    let read = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap_or_default();
    for host in ["registry.example.com", "10.96.0.9:5000"] {
        assert!(read(&format!("etc/docker/certs.d/{host}/ca.crt")).ends_with(&authority.certificate_pem), "{said}");
    }
    let mapped = read("etc/containerd/certs.d/team-a.trust-takes.svc:5000/hosts.toml");
    assert!(mapped.contains("[host.\"https://10.96.0.9:5000\"]"), "nodes do not resolve names of Services: {mapped}");
    assert!(!root.path().join("etc/docker/certs.d/team-a.trust-takes.svc:5000").exists(), "Docker could not use it");

    // The registry and its namespace may be gone by now.
    let (code, said) = team.ask(&["trust", "team-a", "--root", place, "--uninstall", "--yes"]).await;
    assert!(code == Some(0) && said.contains("10 files removed."), "{said}");
}
