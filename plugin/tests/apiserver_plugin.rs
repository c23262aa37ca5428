//! `kubectl registry` and a real API server.
#![allow(clippy::unwrap_used, reason = "tests end where something is not as expected")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use private_registry_operator::api::{self, PrivateRegistry, annotation};
use private_registry_operator::pki::issue::{issue_authority, request};
use private_registry_operator::pki::{AuthorityProfile, KeyAlgorithm, LeafProfile};
use serde_json::{Value, json};
use testbed::{ControlPlane, Options};
use tokio::io::AsyncWriteExt as _;
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
        self.tell("", arguments).await
    }

    /// The same with something on its standard input.
    async fn tell(&self, input: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_kubectl-registry"));
        program.env_clear().args(arguments).args(["--namespace", &self.name, "--kubeconfig"]).arg(&self.kubeconfig);
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut program = program.spawn().unwrap();
        // Whoever asks for nothing may have ended by now.
        let _ = program.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let Output { status, stdout, stderr } = program.wait_with_output().await.unwrap();
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
    team.registry("signed", json!({"tls": {"certificateSigningRequest": {}}})).await;
    let (code, said) = team.ask(&["rotate", "ca", "signed"]).await;
    assert!(code == Some(1) && said.contains("who decides about the authority"), "{said}");
    let (code, said) = team.ask(&["rotate", "leaf", "signed"]).await;
    assert!(code == Some(0) && said.contains("The request for it is made when this ends"), "{said}");
    assert!(said.contains("kubectl registry csr signed"), "{said}");
    team.registry(
        "issued",
        json!({"tls": {"certManager": {"issuerRef": {"name": "company", "kind": "ClusterIssuer"}}}}),
    )
    .await;
    let (code, said) = team.ask(&["rotate", "ca", "issued"]).await;
    assert!(code == Some(1) && said.contains("who decides about the authority"), "{said}");
    let (code, said) = team.ask(&["rotate", "leaf", "issued"]).await;
    assert!(code == Some(0) && said.contains("Then ClusterIssuer company signs it"), "{said}");
    for (name, words) in [
        ("own", "put the new one into the Secret company-tls"),
        ("plain", "spec.tls.none"),
        ("other", "kubectl registry list --all-namespaces"),
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

/// A company's CA, as OpenSSL makes and uses it, in a folder of its own.
struct Company(tempfile::TempDir);

impl Company {
    /// `None`: there is no OpenSSL here, and the test has been named as skipped.
    fn new() -> Option<Self> {
        if let Err(error) = std::process::Command::new("openssl").arg("version").output() {
            testbed::skip_because(&format!("openssl cannot be started: {error}"));
            return None;
        }
        let company = Self(tempfile::tempdir().unwrap());
        for (name, subject) in [("root", "/CN=Company Root"), ("stranger", "/CN=Stranger")] {
            company.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout {name}.key -out {name}.crt -subj"
            ), &[subject]);
        }
        // An intermediate, as companies have it.
        company.openssl(
            "req -new -newkey rsa:2048 -nodes -keyout servers.key -out servers.csr -subj",
            &["/CN=Company Servers"],
        );
        std::fs::write(
            company.path("servers.ext"),
            "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\n",
        )
        .unwrap();
        company.openssl(
            "x509 -req -in servers.csr -CA root.crt -CAkey root.key -days 1825 -extfile servers.ext -out servers.crt",
            &[],
        );
        Some(company)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs OpenSSL in the folder; the last arguments may hold blanks.
    fn openssl(&self, words: &str, more: &[&str]) {
        let mut command = std::process::Command::new("openssl");
        let output = command.current_dir(self.0.path()).args(words.split(' ')).args(more).output().unwrap();
        assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// A file with these files, one after the other.
    fn joined(&self, name: &str, parts: &[&str]) -> String {
        std::fs::write(self.path(name), parts.iter().map(|part| self.read(part)).collect::<String>()).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Signs `team-a.csr` so.
    fn signs(&self, out: &str, how: &str) -> String {
        self.openssl(&format!("x509 -req -in team-a.csr -CA servers.crt -CAkey servers.key -out {out} {how}"), &[]);
        self.path(out).to_str().unwrap().to_owned()
    }
}

impl Place {
    /// What the operator would have asked for.
    async fn asks(&self, registry: &str) -> String {
        let profile = LeafProfile {
            common_name: registry.to_owned(),
            dns_names: [registry.to_owned(), "registry.example.com".to_owned()].into(),
            ip_addresses: ["192.0.2.10".parse().unwrap()].into(),
            duration: LeafProfile::DEFAULT_DURATION,
            key_algorithm: KeyAlgorithm::EcdsaP256,
        };
        let pem = request(&profile).unwrap().request_pem;
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("{registry}-csr")}, "data": {"tls.csr": pem},
        });
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.name);
        let name = format!("{registry}-csr");
        maps.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&map)).await.unwrap();
        pem
    }

    async fn answer(&self, registry: &str) -> Option<Secret> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.name);
        secrets.get_opt(&format!("{registry}-signed")).await.unwrap()
    }
}

#[tokio::test]
async fn what_a_company_signed_with_openssl_is_checked_and_handed_over_and_what_is_wrong_is_not() {
    let Some(company) = Company::new() else { return };
    let Some(team) = namespace("set-certificate").await else { return };
    let by_hand =
        json!({"addresses": ["registry.example.com", "192.0.2.10:5000"], "tls": {"certificateSigningRequest": {}}});
    team.registry("team-a", by_hand).await;
    let (code, said) = team.ask(&["csr", "team-a"]).await;
    assert!(code == Some(1) && said.contains("has no request yet"), "{said}");

    let asked = team.asks("team-a").await;
    let (code, said) = team.ask(&["csr", "team-a"]).await;
    assert_eq!((code, &said), (Some(0), &asked));
    std::fs::write(company.path("team-a.csr"), &asked).unwrap();
    company.openssl("req -in team-a.csr -noout -verify", &[]);

    let good = "-days 90 -copy_extensions copyall";
    company.signs("good.crt", good);
    company.signs("nameless.crt", "-days 90");
    company.signs("ended.crt", "-days 0 -copy_extensions copyall");
    std::fs::write(company.path("narrow.ext"), "subjectAltName=DNS:registry.example.com\n").unwrap();
    company.signs("narrow.crt", "-days 90 -extfile narrow.ext");
    std::fs::write(company.path("rubbish"), "not a certificate\n").unwrap();
    // A request of the same registry that was there before this one.
    let present = asked.clone();
    team.asks("team-a").await;
    let before = company.joined("before.pem", &["good.crt", "servers.crt", "root.crt"]);
    let (code, said) = team.ask(&["set-certificate", "team-a", "-f", &before]).await;
    assert!(
        code == Some(1) && said.contains("nothing was stored") && said.contains("answers an older request"),
        "{said}"
    );
    let map = json!({"data": {"tls.csr": present}});
    let maps: Api<ConfigMap> = Api::namespaced(team.client.clone(), &team.name);
    maps.patch("team-a-csr", &PatchParams::default(), &Patch::Merge(map)).await.unwrap();

    for (file, parts, words) in [
        ("nameless.pem", &["nameless.crt", "servers.crt", "root.crt"][..], "has only a common name"),
        ("ended.pem", &["ended.crt", "servers.crt", "root.crt"], "expired at"),
        ("narrow.pem", &["narrow.crt", "servers.crt", "root.crt"], "does not cover 192.0.2.10"),
        ("rubbish.pem", &["rubbish"], "no readable certificate"),
        ("foreign.pem", &["root.crt"], "answers no request of this registry"),
        ("leaking.pem", &["good.crt", "servers.key"], "holds a private key"),
    ] {
        let (code, said) = team.ask(&["set-certificate", "team-a", "-f", &company.joined(file, parts)]).await;
        assert!(code == Some(1) && said.contains(words), "{file}: {said}");
        assert!(team.answer("team-a").await.is_none(), "{file}");
    }
    let (code, said) = team.ask(&["set-certificate", "team-a", "-f", "/no/such/file"]).await;
    assert!(code == Some(1) && said.contains("read /no/such/file"), "{said}");

    // In any order: it is put right.
    let chain = company.joined("chain.pem", &["root.crt", "servers.crt", "good.crt"]);
    let (code, said) = team.ask(&["set-certificate", "team-a", "-f", &chain]).await;
    assert!(code == Some(0) && said.contains("were put in order") && said.contains("Secret team-a-signed"), "{said}");
    let stored = team.answer("team-a").await.unwrap();
    let text = |secret: &Secret| String::from_utf8(secret.data.clone().unwrap().remove("tls.crt").unwrap().0).unwrap();
    assert_eq!(text(&stored), ["good.crt", "servers.crt", "root.crt"].map(|part| company.read(part)).concat());
    assert_eq!(stored.data.as_ref().unwrap().len(), 1, "the certificate, and nothing else");
    let owner = &stored.metadata.owner_references.as_ref().unwrap()[0];
    assert!(owner.name == "team-a" && owner.controller.is_none(), "it goes with the registry: {owner:?}");

    // A second one that is wrong does not take the good one away; a second good one takes its place.
    let (code, _) = team.ask(&["set-certificate", "team-a", "-f", &company.joined("again.pem", &["ended.crt"])]).await;
    assert_eq!((code, text(&team.answer("team-a").await.unwrap())), (Some(1), text(&stored)));
    company.signs("better.crt", "-days 100 -copy_extensions copyall");
    let better = company.joined("better.pem", &["better.crt", "servers.crt"]);
    let (code, said) = team.ask(&["set-certificate", "team-a", "-f", &better]).await;
    assert!(code == Some(0) && said.contains("clients must already trust CN=Company Root"), "{said}");
    assert_ne!(text(&team.answer("team-a").await.unwrap()), text(&stored));
}

#[tokio::test]
async fn authorities_that_the_manifest_names_decide_and_who_asks_nobody_is_told() {
    let Some(company) = Company::new() else { return };
    let Some(team) = namespace("set-certificate-trust").await else { return };
    let spec = json!({"tls": {"certificateSigningRequest": {"caBundleSecretRef": {"name": "company"}}}});
    team.registry("team-a", spec).await;
    std::fs::write(company.path("team-a.csr"), team.asks("team-a").await).unwrap();
    company.signs("good.crt", "-days 90 -copy_extensions copyall");
    let chain = company.joined("chain.pem", &["good.crt", "servers.crt"]);
    let set = async || team.ask(&["set-certificate", "team-a", "-f", &chain]).await;
    let (code, said) = set().await;
    assert!(code == Some(1) && said.contains("there is no Secret set-certificate-trust/company"), "{said}");
    let secrets: Api<Secret> = Api::namespaced(team.client.clone(), &team.name);
    for (authority, taken) in [("stranger.crt", false), ("root.crt", true)] {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "company"}, "stringData": {"ca.crt": company.read(authority)},
        });
        secrets.patch("company", &PatchParams::apply("test").force(), &Patch::Apply(&secret)).await.unwrap();
        let (code, said) = set().await;
        assert_eq!(code == Some(0), taken, "{authority}: {said}");
        assert!(taken || said.contains("which ca.crt does not hold"), "{said}");
        assert_eq!(team.answer("team-a").await.is_some(), taken);
    }

    team.registry("private", json!({})).await;
    team.registry("by-issuer", json!({"tls": {"certManager": {"issuerRef": {"name": "company"}}}})).await;
    team.registry("by-signer", json!({"tls": {"certificateSigningRequest": {"signerName": "example.com/x"}}})).await;
    for (name, words) in [
        ("private", "asks nobody for a certificate"),
        ("by-signer", "whose answer the operator takes itself"),
        ("by-issuer", "describe certificaterequest by-issuer-csr"),
        ("other", "there is no PrivateRegistry"),
    ] {
        let (code, said) = team.ask(&["set-certificate", name, "-f", &chain]).await;
        assert!(code == Some(1) && said.contains(words), "{name}: {said}");
        assert!(team.answer(name).await.is_none());
    }
}

#[tokio::test]
async fn registries_are_listed_whatever_is_known_of_them() {
    let Some(team) = namespace("list-one").await else { return };
    let Some(other) = namespace("list-other").await else { return };
    let (code, said) = team.ask(&["list"]).await;
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "there is no PrivateRegistry in namespace list-one: -A shows those of all namespaces\n")
    );

    team.registry("team-a", json!({})).await;
    other.registry("team-b", json!({})).await;
    let ready = json!({"type": "Ready", "status": "True", "reason": "Settled", "message": "", "lastTransitionTime": "2026-11-30T12:00:00Z"});
    team.status("team-a", json!({"address": "registry.example.com", "image": "registry:3.1.2", "conditions": [ready]}))
        .await;
    let (_, said) = team.ask(&["list"]).await;
    let lines: Vec<Vec<_>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "ADDRESS", "READY", "REASON", "VERSION", "AGE"]);
    assert_eq!(lines[1][..5], ["team-a", "registry.example.com", "True", "Settled", "3.1.2"], "{said}");
    assert_eq!(lines.len(), 2, "{said}");

    // `ask` names a namespace, which excludes all.
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_kubectl-registry"));
    program.env_clear().args(["list", "-A", "-o", "json", "--kubeconfig"]).arg(&team.kubeconfig);
    let listed: Value = serde_json::from_slice(&program.output().await.unwrap().stdout).unwrap();
    let items = listed["items"].as_array().unwrap();
    for (space, name) in [("list-one", "team-a"), ("list-other", "team-b")] {
        let is_it = |item: &Value| item["metadata"]["namespace"] == space && item["metadata"]["name"] == name;
        let found = items.iter().find(|item| is_it(item)).unwrap_or_else(|| panic!("{name}: {listed:#}"));
        assert!(found["kind"] == "PrivateRegistry" && found["metadata"]["managedFields"].is_null(), "{found:#}");
    }
    assert_eq!(team.ask(&["list", "-o", "name"]).await.1, "privateregistry.privateregistry.dev/team-a\n");
}

#[tokio::test]
async fn a_registry_that_does_not_run_has_a_page_and_takes_no_login() {
    let Some(team) = namespace("status-idle").await else { return };
    team.registry("team-a", json!({})).await;
    let (code, said) = team.ask(&["status", "team-a"]).await;
    assert!(code == Some(1) && said.contains("no operator has looked at it yet"), "{said}");
    let (code, said) = team.ask(&["status", "team-a", "-o", "yaml"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "{}\n"));

    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.json");
    let login = async || team.ask(&["login", "team-a", "--authfile", file.to_str().unwrap()]).await;
    let (code, said) = login().await;
    assert!(code == Some(1) && said.contains("has no certificate yet"), "{said}");
    let profile = AuthorityProfile {
        common_name: "team-a CA".to_owned(),
        duration: AuthorityProfile::DEFAULT_DURATION,
        key_algorithm: KeyAlgorithm::EcdsaP256,
    };
    let authority = issue_authority(&profile, Timestamp::now()).unwrap().certificate_pem;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "team-a-ca-bundle"}, "data": {"ca.crt": authority}});
    let maps: Api<ConfigMap> = Api::namespaced(team.client.clone(), &team.name);
    maps.patch("team-a-ca-bundle", &PatchParams::apply("test").force(), &Patch::Apply(&map)).await.unwrap();
    let (code, said) = login().await;
    assert!(code == Some(1) && said.contains("no pod of PrivateRegistry status-idle/team-a is ready"), "{said}");
    // Nobody listens there.
    let (code, said) = team.ask(&["repos", "team-a", "--address", "127.0.0.1:1"]).await;
    assert!(code == Some(1) && said.contains("has no generated admin"), "{said}");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "team-a-admin"},
        "stringData": {"username": "admin", "password": "planted-password"},
    });
    let secrets: Api<Secret> = Api::namespaced(team.client.clone(), &team.name);
    secrets.patch("team-a-admin", &PatchParams::apply("test").force(), &Patch::Apply(&secret)).await.unwrap();
    let (code, said) = team.ask(&["repos", "team-a", "--address", "127.0.0.1:1"]).await;
    assert!(code == Some(1) && said.contains("ask 127.0.0.1:1 for /v2/_catalog?n=1000: connect: "), "{said}");
    assert!(!said.contains("planted") && !file.exists(), "{said}");
}

#[tokio::test]
async fn what_a_user_is_added_with_is_kept_only_if_the_manifest_takes_it() {
    let Some(team) = namespace("users-add").await else { return };
    let spec = json!({"auth": {"users": [{"name": "eve", "passwordSecretRef": {"name": "eve"}}]}});
    team.registry("team-a", spec).await;
    let secrets: Api<Secret> = Api::namespaced(team.client.clone(), &team.name);
    let users = async || team.registries().get("team-a").await.unwrap().spec.auth.unwrap().users;

    // The operator's own; too short; with an argument that every process sees.
    let (code, said) = team.ask(&["users", "add", "team-a", "ann", "--generate", "--secret", "team-a-tls"]).await;
    assert!(code == Some(1) && said.contains("spec.auth refers to a Secret that the operator writes"), "{said}");
    assert!(secrets.get_opt("team-a-tls").await.unwrap().is_none(), "nobody needs it");
    let (code, said) = team.tell("short", &["users", "add", "team-a", "ann", "--password-stdin"]).await;
    assert!(code == Some(1) && said.contains("shorter than 8 bytes"), "{said}");
    let (code, _) = team.ask(&["users", "add", "team-a", "ann", "--password", "planted-password"]).await;
    assert_eq!(code, Some(2));
    assert_eq!(users().await.len(), 1);

    let add = ["users", "add", "team-a", "ann", "--password-stdin", "--no-wait"];
    let (code, said) = team.tell("planted-password\n", &add).await;
    assert!(code == Some(0) && !said.contains("planted"), "{said}");
    assert!(said.contains("get secret team-a-user-ann --output jsonpath='{.data.password}'"), "{said}");
    let made = secrets.get("team-a-user-ann").await.unwrap().data.unwrap();
    assert_eq!((made["username"].0.as_slice(), made["password"].0.as_slice()), (&b"ann"[..], &b"planted-password"[..]));
    let names: Vec<_> = users().await.into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["eve", "ann"]);
    let (code, said) = team.tell("planted-password", &["users", "passwd", "team-a", "ann", "--password-stdin"]).await;
    assert!(code == Some(0) && said.contains("that is the password of ann already"), "{said}");
    let (code, said) = team.tell("planted-password", &["users", "passwd", "team-a", "eve", "--password-stdin"]).await;
    assert!(code == Some(1) && said.contains("there is no Secret users-add/eve"), "{said}");

    // Nobody says that it is in force: the command ends, and says what it knows.
    let (code, said) = team.ask(&["users", "rotate", "team-a", "ann", "--timeout", "1s"]).await;
    assert!(code == Some(1) && said.contains("it is written, and not in force after 1 s"), "{said}");
    assert!(said.contains("the operator has not looked at the change yet"), "{said}");
}

#[tokio::test]
async fn who_has_a_rotation_is_asked_for_and_never_written() {
    let Some(team) = namespace("users-rotation").await else { return };
    let robot = json!({"name": "robot", "rotation": {"every": "720h"}});
    team.registry("team-a", json!({"auth": {"users": [robot]}})).await;
    let secrets: Api<Secret> = Api::namespaced(team.client.clone(), &team.name);
    let rotate = ["users", "rotate", "team-a", "robot"];
    let (code, said) = team.ask(&rotate).await;
    assert!(code == Some(1) && said.contains("there is no Secret users-rotation/team-a-login-robot yet"), "{said}");

    let secret = json!({
        "metadata": {"name": "team-a-login-robot"},
        "stringData": {"username": "robot", "password": "planted-password", "former-password": "planted-former"},
    });
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let asked = async || {
        let live = secrets.get("team-a-login-robot").await.unwrap();
        live.metadata.annotations.unwrap_or_default().get(annotation::ROTATE).cloned()
    };
    let (code, said) = team.ask(&rotate).await;
    assert!(
        code == Some(1) && said.contains("the former login of robot counts until") && said.contains("--now"),
        "{said}"
    );
    assert_eq!(asked().await, None);
    let (code, said) = team.ask(&[&rotate[..], &["--now"]].concat()).await;
    assert!(code == Some(1) && asked().await.is_none(), "nobody has said yes: {said}");
    let (code, said) = team.ask(&[&rotate[..], &["--now", "--yes", "--no-wait"]].concat()).await;
    assert!(code == Some(0) && !said.contains("planted"), "{said}");
    assert!(said.contains("get secret team-a-login-robot --output jsonpath='{.data.password}'"), "{said}");
    assert!(asked().await.unwrap().starts_with("now-"));
    let (code, said) = team.ask(&[&rotate[..], &["--now", "--yes", "--timeout", "1s"]].concat()).await;
    assert!(code == Some(1) && said.contains("not in force after 1 s: the operator has not followed yet"), "{said}");

    let (code, said) = team.tell("planted-password", &["users", "passwd", "team-a", "robot", "--password-stdin"]).await;
    assert!(code == Some(1) && said.contains("kubectl registry users rotate team-a robot"), "{said}");
    let (code, said) = team.ask(&["users", "remove", "team-a", "robot", "--yes", "--no-wait"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(team.registries().get("team-a").await.unwrap().spec.auth.unwrap().users.is_empty());
    assert!(secrets.get_opt("team-a-login-robot").await.unwrap().is_some(), "the operator takes it away");
}

#[tokio::test]
async fn events_are_those_of_the_registry_and_of_what_belongs_to_it() {
    let Some(team) = namespace("events-of").await else { return };
    team.registry("team-a", json!({})).await;
    let (code, said) = team.ask(&["events", "team-a"]).await;
    assert!(code == Some(0) && said.contains("nothing is said of"), "{said}");
    let uid = team.registries().get("team-a").await.unwrap().metadata.uid.unwrap();
    let events: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(team.client.clone(), &team.name);
    for (name, kind, object, uid, words) in [
        ("one", "PrivateRegistry", "team-a", uid.as_str(), "of the registry"),
        ("two", "Pod", "team-a-7c9f8d6b5d-x2x4z", "gone", "of a pod that is gone"),
        ("three", "Pod", "team-a-mirror-7c9f8d6b5d-x2x4z", "gone", "of another registry"),
    ] {
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "type": "Warning", "reason": "Test", "message": words,
            "involvedObject": {"kind": kind, "name": object, "namespace": team.name, "uid": uid},
        });
        events.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
    }
    let (code, said) = team.ask(&["events", "team-a", "--warnings"]).await;
    assert!(code == Some(0) && said.contains("of the registry") && said.contains("of a pod that is gone"), "{said}");
    assert!(!said.contains("of another registry"), "{said}");
    let (code, said) = team.ask(&["events", "team-a", "-o", "json"]).await;
    let listed: Vec<Value> = serde_json::from_str(&said).unwrap();
    assert_eq!((code, listed.len()), (Some(0), 2));
    let (code, said) = team.ask(&["logs", "team-a"]).await;
    assert!(code == Some(1) && said.contains("has no pod"), "{said}");
}
