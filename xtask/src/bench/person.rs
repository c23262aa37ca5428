//! Somebody who pulls from a registry of the bench and pushes to it, with curl on the node.

use std::{fs, path::PathBuf, process::Output};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::{Client, api::DynamicObject};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use testbed::{Node, sandbox::Place};

use super::{objects::api, world::NAMESPACE};

pub(super) const REPOSITORY: &str = "team/app";
/// Seconds that a request may take.
const LIMIT: &str = "60";
/// Seconds for connecting. Where rules of a Service change at that moment, packets are dropped: a client that waits long measures its own patience.
const CONNECTED: &str = "1";

/// Somebody who pulls and pushes with curl. The login is in a file.
pub(super) struct Person<'a> {
    node: &'a Node,
    client: &'a Client,
    name: &'a str,
    pub(super) address: String,
    /// The header of its login: a password, or a token that was taken for it.
    pub(super) authorization: Option<String>,
    /// The header with the password.
    pub(super) by_password: Option<String>,
    home: TempDir,
}

impl<'a> Person<'a> {
    pub(super) async fn new(node: &'a Node, client: &'a Client, name: &'a str) -> Result<Self> {
        let home = tempfile::tempdir().context("make a folder")?;
        let service = api(client, NAMESPACE, "Service").get(name).await?;
        let address = service.data["spec"]["clusterIP"].as_str().context("the Service has no address")?;
        let login = api(client, NAMESPACE, "Secret").get_opt(&format!("{name}-admin")).await?;
        let login = login.map(|login| name_and_password(&login)).transpose()?;
        let user = login.as_ref().map(|login| format!("user = \"{login}\"\n"));
        fs::write(home.path().join("login"), user.unwrap_or_default()).context("write the login")?;
        let authorization = login.map(|login| format!("Basic {}", STANDARD.encode(login)));
        let (address, by_password) = (format!("https://{address}:5000"), authorization.clone());
        let person = Self { node, client, name, address, authorization, by_password, home };
        person.learn().await?;
        Ok(person)
    }

    /// Exchanges the password for a token, which holds for five minutes.
    pub(super) async fn takes_token(&mut self) -> Result<()> {
        let (password, answer) = (self.file("password"), self.file("answer"));
        if !password.exists() {
            fs::copy(self.file("login"), &password).context("keep the password")?;
        }
        fs::copy(&password, self.file("login")).context("take the password")?;
        let path = self.token_path();
        let more = ["--output", &answer.display().to_string()];
        self.asks(&path, "200", "", &more).await?.map_err(|why| anyhow::anyhow!("ask for a token: {why}"))?;
        let answer: Value = serde_json::from_slice(&fs::read(answer)?).context("read the token")?;
        let header = format!("Bearer {}", answer["token"].as_str().context("there is no token in the answer")?);
        fs::write(self.file("login"), format!("header = \"Authorization: {header}\"\n"))?;
        self.authorization = Some(header);
        Ok(())
    }

    /// Where a token is asked for.
    pub(super) fn token_path(&self) -> String {
        format!("/auth/token?service={NAMESPACE}/{}&scope=repository:{REPOSITORY}:pull,push", self.name)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Trusts whom the bundle names now.
    pub(super) async fn learn(&self) -> Result<()> {
        let bundle = api(self.client, NAMESPACE, "ConfigMap").get(&format!("{}-ca-bundle", self.name)).await?;
        let text = bundle.data["data"]["ca.crt"].as_str().context("the bundle is empty")?;
        fs::write(self.file("new"), text).and_then(|()| fs::rename(self.file("new"), self.file("ca.crt")))?;
        Ok(())
    }

    pub(super) async fn curl(&self, path: &str, more: &[&str]) -> Result<Output> {
        let mut command = self.node.sandbox().command(Place::Inside, "curl");
        command.args(["--silent", "--show-error", "--max-time", LIMIT, "--connect-timeout", CONNECTED]).args(more);
        // curl takes the first of two.
        if !more.contains(&"--output") {
            command.args(["--output", "/dev/null"]);
        }
        command.arg("--config").arg(self.file("login")).arg("--cacert").arg(self.file("ca.crt"));
        command.arg(format!("{}{path}", self.address));
        tokio::task::spawn_blocking(move || command.output()).await?.context("run curl")
    }

    /// One request over a new connection, and what curl says of it.
    pub(super) async fn asks(
        &self,
        path: &str,
        wanted: &str,
        say: &str,
        more: &[&str],
    ) -> Result<Result<String, String>> {
        let write = format!("%{{http_code}} {say}");
        let output = self.curl(path, &[&["--write-out", &write], more].concat()).await?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
        Ok(match said.split_once(' ') {
            Some((code, rest)) if code == wanted => Ok(rest.trim().to_owned()),
            _ => Err(format!("{path}: {said} {error}")),
        })
    }

    /// Its digest.
    pub(super) async fn push(&self, content: &[u8]) -> Result<Result<String, String>> {
        let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(self.file("content"), content).context("write what is pushed")?;
        let begin = format!("/v2/{REPOSITORY}/blobs/uploads/");
        let place = match self.asks(&begin, "202", "%header{location}", &["--data", ""]).await? {
            Ok(place) => place,
            Err(why) => return Ok(Err(why)),
        };
        let content = format!("@{}", self.file("content").display());
        let more =
            ["--request", "PUT", "--header", "Content-Type: application/octet-stream", "--data-binary", &content];
        let put = self.asks(&format!("{place}&digest=sha256:{digest}"), "201", "", &more).await?;
        Ok(put.map(|_| format!("sha256:{digest}")))
    }
}

fn name_and_password(login: &DynamicObject) -> Result<String> {
    let text = |key: &str| -> Result<String> {
        let encoded = login.data["data"][key].as_str().with_context(|| format!("the login has no {key}"))?;
        Ok(String::from_utf8(STANDARD.decode(encoded)?)?)
    };
    Ok(format!("{}:{}", text("username")?, text("password")?))
}
