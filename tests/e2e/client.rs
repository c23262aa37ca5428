//! Clients of a registry: people with crane and curl on the node, and the kubelet.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Pod;
use private_registry_operator::model::{HostPort, RegistryName};
use private_registry_operator::node::trust_files::{Mark, Owner, Runtime, Trust};
use private_registry_operator::pki::Bundle;
use serde_json::json;
use tempfile::TempDir;
use testbed::image::{self, Compression, Image};

use crate::cluster::{Cluster, brief, has, said, wait, wait_for};
use crate::place::{Line, program};
use crate::registry::Registry;

/// How long a registry that is up may be out of reach: a Service's rules follow its pods, and the cluster's DNS remembers for 5 s. A client that was told the
/// address of a Service that is gone takes 30 s to find out.
const ROUTES: Duration = Duration::from_secs(70);

/// What a client says that did not reach the registry. The last two come out of a forwarded port.
const UNREACHABLE: [&str; 6] =
    ["connection refused", "no such host", "network is unreachable", "i/o timeout", "connection reset", ": EOF"];

/// Somebody at a terminal of the node, with authorities that they trust and a login of their own.
pub(crate) struct Person {
    cluster: Cluster,
    host: String,
    line: Line,
    home: TempDir,
}

impl Person {
    /// Somebody who neither trusts the registry nor has a login.
    pub(crate) fn new(registry: &Registry) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("ca.crt"), "").unwrap();
        let host = registry.cluster.place.name_here(registry.host());
        let line = Line {
            namespace: registry.namespace.clone(),
            service: registry.name.clone(),
            port: registry.port,
            near: host.clone(),
        };
        Self { cluster: registry.cluster.clone(), host, line, home }
    }

    pub(crate) fn trusting(self, authorities: &str) -> Self {
        fs::write(self.home.path().join("ca.crt"), authorities).unwrap();
        self
    }

    pub(crate) fn logged_in(self, user: &str, password: &str) -> Self {
        let login = STANDARD.encode(format!("{user}:{password}"));
        let config = json!({"auths": {self.host.as_str(): {"auth": login}}});
        fs::write(self.home.path().join("config.json"), config.to_string()).unwrap();
        self
    }

    /// The same person at another address of the registry, with no login there yet.
    pub(crate) fn at(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// Where crane looks for the login.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Pushes an image of this content as `name` (`team/app:1`) and gives its digest.
    pub(crate) async fn pushes(&self, name: &str, content: &str) -> String {
        // Stored as published images are: crane expects packed layers when it compares all digests.
        let packed = Compression::Gzip;
        let image = Image { compression: packed, ..image::test_client(&program("pause"), "unused/name:1", content) };
        self.tries_to_push(name, &image).await.unwrap_or_else(|error| panic!("push {}/{name}: {error}", self.host))
    }

    /// Pushes any image.
    pub(crate) async fn tries_to_push(&self, name: &str, image: &Image) -> Result<String, String> {
        let (folder, digest) = self.laid_out(image);
        self.crane(&["push", &folder, &self.reference(name)]).await?;
        Ok(digest)
    }

    /// An image as a folder that crane pushes, and its digest.
    fn laid_out(&self, image: &Image) -> (String, String) {
        let built = image.build().unwrap();
        let folder = self.home.path().join("layout");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        built.write_layout(&folder).unwrap();
        (folder.to_str().unwrap().to_owned(), built.digest().to_owned())
    }

    /// Pulls an image, every layer of it, compares all digests and gives the image's own.
    pub(crate) async fn pulls(&self, name: &str) -> String {
        let pulled = self.tries_to_pull(name).await;
        pulled.unwrap_or_else(|error| panic!("pull {}/{name}: {error}", self.host))
    }

    /// The same, or why not.
    pub(crate) async fn tries_to_pull(&self, name: &str) -> Result<String, String> {
        self.crane(&["validate", "--remote", &self.reference(name)]).await?;
        self.crane(&["digest", &self.reference(name)]).await
    }

    /// Deletes a manifest (`team/app@sha256:…`), or why not.
    pub(crate) async fn tries_to_delete(&self, name: &str) -> Result<(), String> {
        self.crane(&["delete", &self.reference(name)]).await.map(drop)
    }

    /// Whether the login is accepted now: `200`, `401`, …, or what curl says when there is no answer.
    pub(crate) async fn sees(&self, path: &str) -> String {
        self.sees_with(&[], path).await
    }

    /// The same with more options of curl.
    pub(crate) async fn sees_with(&self, options: &[&str], path: &str) -> String {
        let fixed = ["--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code}"];
        let path = self.curl(path);
        let output = self.run("curl", &[&path.each_ref().map(String::as_str)[..], &fixed, options].concat()).await;
        if output.status.success() { String::from_utf8_lossy(&output.stdout).into_owned() } else { said(&output) }
    }

    /// The whole answer to a request, head and body.
    pub(crate) async fn hears(&self, path: &str, more: &[&str]) -> String {
        self.curls(path, &[&["--include", "--max-time", "60"], more].concat()).await
    }

    /// The same without TLS.
    pub(crate) async fn hears_in_clear(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.host);
        wait_for(ROUTES, format!("curl reaches {url}"), async || {
            let output = self.run("curl", &["--silent", "--show-error", "--include", "--max-time", "20", &url]).await;
            if output.status.success() { Ok(said(&output)) } else { Err(said(&output)) }
        })
        .await
    }

    /// What curl says to a path that it can ask for.
    pub(crate) async fn curls(&self, path: &str, more: &[&str]) -> String {
        let output = self.run("curl", &[&self.curl(path).each_ref().map(String::as_str)[..], more].concat()).await;
        assert!(output.status.success(), "curl {path}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a program that must succeed at once.
    pub(crate) async fn once(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.run(program, arguments).await;
        assert!(output.status.success(), "{program} {arguments:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Pushes an image, and is not patient.
    pub(crate) async fn once_pushes(&self, name: &str, image: &Image) {
        let folder = self.laid_out(&Image { compression: Compression::Gzip, ..image.clone() }).0;
        self.once("crane", &["push", &folder, &self.reference(name)]).await;
    }

    /// Pulls an image, every layer of it, and is not patient.
    pub(crate) async fn once_pulls(&self, name: &str) {
        self.once("crane", &["validate", "--remote", &self.reference(name)]).await;
    }

    /// Begins to upload a blob, so slowly that it never ends, and returns when the registry is being sent the first of it.
    pub(crate) async fn holds_an_upload(&self, repository: &str) -> Upload {
        let (blob, trace) = (self.home.path().join("blob"), self.home.path().join("trace"));
        fs::write(&blob, vec![0; 1 << 20]).unwrap();
        let begin = self.curl(&format!("/v2/{repository}/blobs/uploads/"));
        let print_place = ["--data", "", "--output", "/dev/null", "--write-out", "%header{location}"];
        let output = self.run("curl", &[&begin.each_ref().map(String::as_str)[..], &print_place].concat()).await;
        let place = String::from_utf8(output.stdout.clone()).unwrap();
        let place = place.find("/v2/").map_or_else(|| panic!("{}", said(&output)), |path| place[path..].to_owned());
        let (mut command, open) = self.cluster.place.person("curl", &self.line).await;
        command.args(self.curl(&place)).args([
            "--request",
            "PATCH",
            "--limit-rate",
            "1k",
            "--header",
            "Content-Type: application/octet-stream",
            "--data-binary",
        ]);
        command.arg(format!("@{}", blob.display())).arg("--trace-ascii").arg(&trace);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let upload = Upload { curl: command.kill_on_drop(true).spawn().unwrap(), _open: open };
        wait(format!("an upload to {} has begun", self.host), async || {
            let text = fs::read_to_string(&trace).unwrap_or_default();
            if text.contains("=> Send data") { Ok(()) } else { Err(text) }
        })
        .await;
        upload
    }

    /// Name and password at this address, as the header `Authorization: Basic` has them.
    fn login(&self) -> Option<String> {
        let config = fs::read_to_string(self.home.path().join("config.json")).ok()?;
        let config: serde_json::Value = serde_json::from_str(&config).ok()?;
        config["auths"][&self.host]["auth"].as_str().map(str::to_owned)
    }

    /// Arguments of curl: who asks, whom to trust, and for what.
    fn curl(&self, path: &str) -> [String; 7] {
        let header = self.login().map(|login| format!("header = \"Authorization: Basic {login}\"\n"));
        let file = self.home.path().join("curl");
        fs::write(&file, header.unwrap_or_default()).unwrap();
        let (ca, url) = (self.home.path().join("ca.crt"), format!("https://{}{path}", self.host));
        let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
        let fixed = ["--silent", "--show-error", "--config", "--cacert"].map(str::to_owned);
        let [silent, show_error, config, cacert] = fixed;
        [silent, show_error, config, text(file), cacert, text(ca), url]
    }

    pub(crate) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Runs crane. That the registry cannot be reached is tried again for a while; any other refusal is the answer.
    async fn crane(&self, arguments: &[&str]) -> Result<String, String> {
        wait_for(ROUTES, format!("crane {arguments:?} reaches the registry"), async || {
            let output = self.run("crane", arguments).await;
            let text = said(&output);
            if output.status.success() {
                return Ok(Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()));
            }
            if UNREACHABLE.iter().any(|known| text.contains(known)) {
                return Err(text);
            }
            Ok(Err(text))
        })
        .await
    }

    /// Has the OCI's suite ask the registry everything but what is left out, and gives its report, JUnit's XML.
    pub(crate) async fn is_asked_everything(&self, suite: &Path, left_out: &[&str]) -> String {
        let (mut command, _open) = self.cluster.place.person(suite.to_str().unwrap(), &self.line).await;
        let results = self.home.path().join("results");
        let login = String::from_utf8(STANDARD.decode(self.login().unwrap()).unwrap()).unwrap();
        let (user, password) = login.split_once(':').unwrap();
        command.env("OCI_REGISTRY", &self.host).env("OCI_USERNAME", user).env("OCI_PASSWORD", password);
        command.env("SSL_CERT_FILE", self.home.path().join("ca.crt")).env("OCI_RESULTS_DIR", &results);
        command.envs(left_out.iter().map(|what| (what, "false"))).current_dir(self.home.path());
        let output = command.kill_on_drop(true).output();
        let output = tokio::time::timeout(Duration::from_secs(300), output).await.expect("the suite ends").unwrap();
        fs::read_to_string(results.join("junit.xml")).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let (mut command, _open) = self.cluster.place.person(program, &self.line).await;
        command.args(arguments);
        command.env("DOCKER_CONFIG", self.home.path()).env("HOME", self.home.path());
        command.env("SSL_CERT_FILE", self.home.path().join("ca.crt")).env("SSL_CERT_DIR", "/nonexistent");
        let output = command.kill_on_drop(true).output();
        let limit = Duration::from_secs(120);
        tokio::time::timeout(limit, output)
            .await
            .unwrap_or_else(|_| panic!("{program} {arguments:?} takes longer than {limit:?}"))
            .unwrap()
    }
}

/// An upload that goes on until the registry ends it.
pub(crate) struct Upload {
    curl: tokio::process::Child,
    _open: Option<tokio::process::Child>,
}

impl Upload {
    /// Waits until the registry has ended it.
    pub(crate) async fn ends(mut self) {
        let limit = Duration::from_secs(120);
        let ended = tokio::time::timeout(limit, self.curl.wait()).await;
        ended.unwrap_or_else(|_| panic!("an upload goes on for more than {limit:?}")).unwrap();
    }
}

impl Registry {
    /// Tells the node's container runtime which authorities to trust for this registry, under the name that images have.
    pub(crate) async fn trusted_by_the_node(&self, authorities: &str) {
        let folder = self.cluster.place.node().certs_d();
        self.trusted_by(Runtime::Containerd, &folder, &self.host(), authorities);
    }

    /// Writes what a runtime reads that looks for hosts in this folder, as a person does.
    pub(crate) fn trusted_by(&self, runtime: Runtime, folder: &Path, host: &str, authorities: &str) {
        let host = HostPort::parse(host).unwrap();
        let trust = Trust {
            mark: Mark::of_a_person(Owner::new(Some(&self.namespace), RegistryName::parse(&self.name).unwrap())),
            endpoint: host.clone(),
            host,
            authorities: Bundle::read(authorities),
        };
        for file in runtime.files(folder, &trust) {
            fs::create_dir_all(file.path.parent().unwrap()).unwrap();
            fs::write(file.path, file.text).unwrap();
        }
    }

    /// Starts a pod of the registry's namespace whose image the kubelet must pull.
    pub(crate) async fn runs(&self, pod: &str, image: &str, pull_secret: Option<&str>) {
        self.runs_from(pod, &self.host(), image, pull_secret).await;
    }

    /// The same by another name of the registry.
    pub(crate) async fn runs_from(&self, pod: &str, host: &str, image: &str, pull_secret: Option<&str>) {
        let secrets: Vec<_> = pull_secret.into_iter().map(|name| json!({"name": name})).collect();
        let confined = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        let container = json!({"name": "main", "image": format!("{host}/{image}"), "securityContext": confined});
        let spec = json!({"imagePullSecrets": secrets, "terminationGracePeriodSeconds": 1, "containers": [container]});
        self.cluster.create::<Pod>(&self.namespace, json!({"metadata": {"name": pod}, "spec": spec})).await;
    }

    /// Waits until that pod runs.
    pub(crate) async fn started(&self, pod: &str) {
        wait(format!("pod {pod} runs"), async || {
            let found = self.own::<Pod>().get(pod).await.unwrap();
            if has(&found, "Ready") { Ok(()) } else { Err(brief(&[found])) }
        })
        .await;
    }

    /// Waits until the kubelet says why it cannot pull that pod's image.
    pub(crate) async fn is_refused(&self, pod: &str, why: &str) {
        wait(format!("the image of pod {pod} is refused with {why:?}"), async || {
            let found = self.own::<Pod>().get(pod).await.unwrap();
            let state = json!(found.status)["containerStatuses"][0]["state"]["waiting"].to_string();
            assert!(!has(&found, "Ready"), "pod {pod} runs");
            if state.contains(why) { Ok(()) } else { Err(state) }
        })
        .await;
    }
}
