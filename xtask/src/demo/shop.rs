//! Somebody at a terminal of the node who pushes and pulls with crane. The password is only ever in a file.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use testbed::image::{self, Compression, Image};
use testbed::{Node, Tools};

/// A Service's rules follow its pods, and the cluster's DNS remembers a refusal for some seconds.
const ROUTES: Duration = Duration::from_secs(30);

pub(super) struct Shop<'a> {
    node: &'a Node,
    host: &'a str,
    folder: std::path::PathBuf,
}

impl<'a> Shop<'a> {
    /// Writes the login and the authorities where crane looks for them.
    pub(super) fn open(node: &'a Node, host: &'a str, authorities: &str, login: &Secret) -> Result<Self> {
        let data = login.data.clone().unwrap_or_default();
        let text = |key: &str| {
            let bytes = data.get(key).with_context(|| format!("the login has a {key}"))?;
            String::from_utf8(bytes.0.clone()).context("the login is text")
        };
        let auth = STANDARD.encode(format!("{}:{}", text("username")?, text("password")?));
        let folder = node.sandbox().dir().join("shop");
        for (name, content) in [("login", json!({"auths": {host: {"auth": auth}}})), ("nobody", json!({}))] {
            std::fs::create_dir_all(folder.join(name))?;
            std::fs::write(folder.join(name).join("config.json"), content.to_string())?;
        }
        std::fs::write(folder.join("ca.crt"), authorities)?;
        std::fs::write(folder.join("empty.crt"), "")?;
        Ok(Self { node, host, folder })
    }

    /// Pushes an image and gives its digest.
    pub(super) fn push(&self, tools: &Tools, name: &str) -> Result<String> {
        let program = tools.path("pause")?;
        let image = Image {
            compression: Compression::Gzip,
            ..image::test_client(program, "unused/name:1", "hello from the demo")
        };
        let built = image.build()?;
        let layout = self.folder.join("layout");
        built.write_layout(&layout)?;
        let reference = self.reference(name);
        self.expect(&["push", &layout.display().to_string(), &reference], "login", "ca.crt")?;
        Ok(built.digest().to_owned())
    }

    pub(super) fn digest(&self, name: &str) -> Result<String> {
        self.expect(&["digest", &self.reference(name)], "login", "ca.crt")
    }

    /// What crane says to somebody without a login.
    pub(super) fn refused_without_login(&self, name: &str) -> Result<String> {
        self.refusal(name, "nobody", "ca.crt", "401")
    }

    /// What crane says to somebody who does not trust the authority.
    pub(super) fn refused_without_authority(&self, name: &str) -> Result<String> {
        self.refusal(name, "login", "empty.crt", "x509")
    }

    fn refusal(&self, name: &str, login: &str, authorities: &str, expected: &str) -> Result<String> {
        let output = self.crane(&["digest", &self.reference(name)], login, authorities)?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = words.lines().find(|line| line.contains(expected));
        match line {
            Some(_) if output.status.success() => bail!("crane was let in: {words}"),
            Some(line) => Ok(line.rsplit(": ").next().unwrap_or(line).trim().to_owned()),
            None => bail!("crane did not say {expected}: {words}"),
        }
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    fn expect(&self, arguments: &[&str], login: &str, authorities: &str) -> Result<String> {
        let started = Instant::now();
        loop {
            let output = self.crane(arguments, login, authorities)?;
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            let unreachable = ["connection refused", "no such host"].iter().any(|known| words.contains(known));
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            if !unreachable || started.elapsed() > ROUTES {
                bail!("crane {arguments:?}: {words}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn crane(&self, arguments: &[&str], login: &str, authorities: &str) -> Result<Output> {
        let home: &Path = &self.folder.join(login);
        let mut command = self.node.command("crane");
        command.args(arguments).env("DOCKER_CONFIG", home).env("HOME", home);
        command.env("SSL_CERT_FILE", self.folder.join(authorities)).env("SSL_CERT_DIR", "/nonexistent");
        command.output().context("run crane")
    }
}
