//! What a person does with a registry from a terminal: `kubectl registry`, and other clients with the login that it left for them.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::cluster::{cluster, node};
use crate::place::{Line, built, free_port, no_frontend};
use crate::registry::Registry;

/// The program, of the state that is tested.
async fn program() -> &'static Path {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT.get_or_init(async || built("kubectl-registry").await).await
}

/// Somebody at a terminal, with a home folder and rights in the cluster.
pub(crate) struct Terminal {
    registry: Registry,
    home: TempDir,
}

pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Terminal {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), home: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn asks(&self, arguments: &[&str]) -> Said {
        self.tells(arguments, "").await
    }

    /// `kubectl registry …` in the registry's namespace, with something on standard input.
    async fn tells(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = Command::new(program().await);
        let mut path = OsString::from(self.home.path());
        path.push(":/usr/bin:/bin");
        command.env_clear().env("HOME", self.home.path()).env("PATH", path).args(arguments);
        command.args(["--namespace", &self.registry.namespace]).arg("--kubeconfig");
        command.arg(self.registry.cluster.place.kubeconfig());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Who refuses a flag reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What it prints when all is well.
    pub(crate) async fn sees(&self, arguments: &[&str]) -> String {
        let said = self.asks(arguments).await;
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{arguments:?}: {}", said.out);
        said.out
    }

    /// The same as JSON.
    pub(crate) async fn reads(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.sees(&[arguments, &["-o", "json"]].concat()).await).unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

#[tokio::test]
async fn what_was_pushed_is_seen_from_a_terminal() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("terminal", "team-a", json!({})).await.ready().await;
    let (admin, terminal) = (registry.admin().await, Terminal::new(&registry));
    assert_eq!(
        terminal.asks(&["repos", "team-a"]).await.err,
        "PrivateRegistry terminal/team-a holds no repository yet\n"
    );

    let first = admin.pushes("team/app:1", "first").await;
    let second = admin.pushes("team/app:2", "second").await;
    admin.pushes("shop/web:1", "other").await;
    let of = |name: &str| admin.reference(name);
    admin
        .once(
            "crane",
            &["index", "append", "-m", &of("team/app:1"), "-m", &of("team/app:2"), "-t", &of("team/app:both")],
        )
        .await;

    assert_eq!(terminal.sees(&["repos", "team-a"]).await, "REPOSITORY\nshop/web\nteam/app\n");
    assert_eq!(
        terminal.sees(&["tags", "team-a", "team/app", "-o", "name"]).await,
        "team/app:1\nteam/app:2\nteam/app:both\n"
    );
    assert_eq!(terminal.reads(&["tags", "team-a", "team/app"]).await, json!(["1", "2", "both"]));

    let image = terminal.reads(&["inspect", "team-a", "team/app:1"]).await;
    assert_eq!((&image["digest"], &image["isIndex"]), (&json!(first), &json!(false)), "{image:#}");
    let manifest: Value = serde_json::from_str(&admin.once("crane", &["manifest", &of("team/app:1")]).await).unwrap();
    let sizes = |layers: &Value| {
        layers.as_array().unwrap().iter().map(|layer| layer["size"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&image["images"][0]["layers"]), sizes(&manifest["layers"]));
    assert_eq!(image["images"][0]["compressedBytes"], sizes(&manifest["layers"]).iter().sum::<u64>());
    let page = terminal.sees(&["inspect", "team-a", &format!("team/app@{first}")]).await;
    assert!(
        page.contains(&format!("\nDigest       {first}\n")) && page.contains("\nPlatform     linux/amd64\n"),
        "{page}"
    );

    // As in an image name.
    let address = registry.status().await.address.unwrap();
    let index = terminal.reads(&["inspect", "team-a", &format!("{address}/team/app:both")]).await;
    let digests: Vec<_> =
        index["images"].as_array().unwrap().iter().map(|image| image["digest"].as_str().unwrap()).collect();
    assert_eq!((index["isIndex"].as_bool(), digests), (Some(true), vec![first.as_str(), second.as_str()]), "{index:#}");
    assert!(terminal.sees(&["inspect", "team-a", "team/app:both"]).await.contains("\nPLATFORM "));

    for (arguments, words) in [
        (&["tags", "team-a", "team/none"][..], "has no repository team/none: kubectl registry repos team-a"),
        (&["inspect", "team-a", "team/app:3"], "has no team/app:3: kubectl registry tags team-a team/app"),
        (&["tags", "team-b", "team/app"], "there is no PrivateRegistry terminal/team-b"),
    ] {
        let said = terminal.asks(arguments).await;
        assert!(said.code == Some(1) && said.out.is_empty() && said.err.contains(words), "{arguments:?}: {}", said.err);
    }
}

#[tokio::test]
async fn one_page_says_how_a_registry_is() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("terminal-status", "team-a", json!({})).await.ready().await;
    let terminal = Terminal::new(&registry);
    let address = registry.status().await.address.unwrap();

    let listed = terminal.sees(&["list"]).await;
    let cells: Vec<_> = listed.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(cells[..4], ["team-a", &address, "True", "Settled"], "{listed}");
    let page = terminal.sees(&["status", "team-a"]).await;
    for words in [
        "terminal-status/team-a: ready (Settled)\n",
        "\nUsers        1\n",
        "admin (generated, Secret team-a-admin)\n",
        "\nEvents\n",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(page.contains(&format!("{address} ")) && !page.contains("Not well"), "{page}");
    assert_eq!(terminal.reads(&["status", "team-a"]).await["address"], address);

    registry.change(json!({"auth": {"users": [{"name": "ci", "passwordSecretRef": {"name": "absent"}}]}})).await;
    registry.is("WaitingForSecret").await;
    let said = terminal.asks(&["status", "team-a"]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    for words in ["Not well\n  Ready is False for ", "UsersReady is False for ", "absent"] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
}

#[tokio::test]
async fn a_login_serves_other_clients_and_a_wrong_one_is_not_written() {
    let Some(cluster) = node("has clients reach the Service by its address").await else { return };
    let registry = cluster.registry("terminal-logins", "team-a", json!({})).await.ready().await;
    let pushed = registry.admin().await.pushes("team/app:1", "first").await;
    let login = registry.secret("team-a-admin").await;
    let address = registry.status().await.address.unwrap();
    let (person, terminal) = (registry.stranger().await.at(&address), Terminal::new(&registry));
    let refused = |answer: Result<String, String>| answer.unwrap_err();
    assert!(refused(person.tries_to_pull("team/app:1").await).contains("UNAUTHORIZED"));

    // Where crane looks, beside what somebody else wrote there.
    let file = person.home().join("config.json");
    let before =
        "{\n\t\"credHelpers\": {\n\t\t\"elsewhere.test\": \"none\"\n\t},\n\t\"HttpHeaders\": {\"a\":  \"b\"}\n}\n";
    fs::write(&file, before).unwrap();
    let into = ["--authfile", file.to_str().unwrap()];
    for (user, password) in [("admin", "wrong, and guessed"), ("nobody", &login["password"])] {
        let said = terminal
            .tells(&[&["login", "team-a", "--user", user, "--password-stdin"][..], &into].concat(), password)
            .await;
        assert!(
            said.code == Some(1)
                && said.err.contains(&format!("refuses {user}"))
                && said.err.contains("Nothing was written"),
            "{}",
            said.err
        );
        assert!(!said.err.contains(password), "{}", said.err);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), before);

    let said = terminal.sees(&[&["login", "team-a"][..], &into].concat()).await;
    assert!(
        said.contains(&format!("admin is logged in at {address}.\n")) && said.contains("from nodes and pods only"),
        "{said}"
    );
    assert!(!said.contains(&login["password"]), "{said}");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().contains("\"HttpHeaders\": {\"a\":  \"b\"}"));
    assert_eq!(person.pulls("team/app:1").await, pushed);

    let other = terminal.file("other.pem");
    fs::write(&other, rcgen::generate_simple_self_signed([address.clone()]).unwrap().cert.pem()).unwrap();
    let said = terminal.asks(&["repos", "team-a", "--ca", other.to_str().unwrap()]).await;
    assert!(said.code == Some(1) && said.err.contains("signed by none of the authorities"), "{}", said.err);

    // Past the API server, by a name that is in the certificate.
    let near = format!("localhost:{}", free_port());
    let line =
        Line { namespace: registry.namespace.clone(), service: "team-a".to_owned(), port: 5000, near: near.clone() };
    let _open = line.open(cluster.place.kubeconfig()).await;
    assert_eq!(terminal.sees(&["repos", "team-a", "--address", &near, "-o", "name"]).await, "team/app\n");
    terminal.sees(&[&["login", "team-a", "--address", &near][..], &into].concat()).await;
    let written: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written["auths"].as_object().unwrap().keys().collect::<Vec<_>>(), [&address, &near]);
    terminal.sees(&[&["logout", "team-a", "--address", &near][..], &into].concat()).await;

    let said = terminal.sees(&[&["logout", "team-a"][..], &into].concat()).await;
    assert!(said.contains(&format!("The login at {address} was taken out of ")), "{said}");
    assert!(refused(person.tries_to_pull("team/app:1").await).contains("UNAUTHORIZED"));
    let said = terminal.sees(&[&["logout", "team-a"][..], &into].concat()).await;
    assert!(said.starts_with(&format!("There is no login at {address}")), "{said}");

    // A program that keeps logins.
    let helper = terminal.file("docker-credential-test");
    let script = "#!/bin/sh\ncase $1 in\nstore) cat > \"$HOME/kept\" ;;\nerase) [ -e \"$HOME/kept\" ] || { echo 'credentials not found in native keychain'; exit 1; }; rm \"$HOME/kept\" ;;\nesac\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let own = terminal.file(".docker/config.json");
    fs::create_dir(own.parent().unwrap()).unwrap();
    fs::write(&own, "{\"credsStore\": \"test\"}").unwrap();
    let said = terminal
        .tells(&["login", "team-a", "--user", "admin", "--password-stdin"], &format!("{}\n", login["password"]))
        .await;
    assert!(said.code == Some(0) && said.out.contains("docker-credential-test keeps it"), "{}{}", said.out, said.err);
    let kept: Value = serde_json::from_str(&fs::read_to_string(terminal.file("kept")).unwrap()).unwrap();
    assert_eq!(kept, json!({"ServerURL": address, "Username": "admin", "Secret": login["password"]}));
    let written: Value = serde_json::from_str(&fs::read_to_string(&own).unwrap()).unwrap();
    assert_eq!(written, json!({"credsStore": "test", "auths": {&address: {}}}));
    assert!(terminal.sees(&["logout", "team-a"]).await.contains("was taken out of docker-credential-test"));
    assert!(!terminal.file("kept").exists());
    assert!(terminal.sees(&["logout", "team-a"]).await.starts_with("There is no login"));
}

#[tokio::test]
async fn registries_without_logins_and_behind_a_front_end_are_reached_alike() {
    let Some(cluster) = cluster().await else { return };
    let open = cluster.registry("terminal-open", "open", json!({"auth": {"none": {}}})).await;
    let plain = cluster.another("terminal-open", "plain", json!({"auth": {"none": {}}, "tls": {"none": {}}})).await;
    let fronted = if no_frontend().is_some_and(testbed::skip_because) {
        None
    } else {
        let nginx = json!({"resources": {"requests": {"cpu": "1m", "memory": "16Mi"}}});
        Some(cluster.another("terminal-open", "fronted", json!({"frontend": {"nginx": nginx}})).await)
    };
    let terminal = Terminal::new(&open);
    let (open, plain) = (open.ready().await, plain.ready().await);

    open.stranger().await.pushes("team/app:1", "open").await;
    assert_eq!(terminal.sees(&["repos", "open", "-o", "name"]).await, "team/app\n");
    let said = terminal.asks(&["login", "open"]).await;
    assert!(said.code == Some(1) && said.err.contains("needs no login"), "{}", said.err);
    assert!(!terminal.file(".docker").exists());
    let said = terminal.asks(&["repos", &plain.name]).await;
    assert!(said.code == Some(0) && said.err.contains("holds no repository yet"), "{}", said.err);

    let Some(fronted) = fronted else { return };
    let fronted = fronted.ready().await;
    let pushed = fronted.admin().await.pushes("team/app:1", "fronted").await;
    assert_eq!(terminal.sees(&["repos", "fronted", "-o", "name"]).await, "team/app\n");
    assert_eq!(
        terminal.sees(&["inspect", "fronted", "team/app:1", "-o", "name"]).await,
        format!("team/app@{pushed}\n")
    );
    let said = terminal.tells(&["login", "fronted", "--user", "admin", "--password-stdin"], "wrong, and guessed").await;
    assert!(said.code == Some(1) && said.err.contains("Nothing was written"), "{}", said.err);
    assert!(!terminal.file(".docker").exists());
    terminal.sees(&["login", "fronted"]).await;
    assert!(terminal.file(".docker/config.json").exists());
}
