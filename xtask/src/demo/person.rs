//! Somebody who pushes and pulls with crane. The password is only ever in a file of a folder that nobody else can read and that goes away with the demo.

use std::{
    fs,
    process::Output,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::image::{self, Compression, Image};

use super::place::Place;

/// A Service's rules follow its pods, and the cluster's DNS remembers a refusal for some seconds.
const ROUTES: Duration = Duration::from_secs(30);
/// What a client says that did not reach the registry.
const UNREACHABLE: [&str; 4] = ["connection refused", "connection reset", "no such host", ": EOF"];

const LOGIN: &str = "login";
const NOBODY: &str = "nobody";
const AUTHORITIES: &str = "ca.crt";
const NO_AUTHORITIES: &str = "empty.crt";

pub(super) struct Person<'a> {
    place: &'a Place,
    authorities: String,
    home: TempDir,
}

impl<'a> Person<'a> {
    /// Writes a login and authorities where crane looks for them.
    pub(super) fn new(place: &'a Place, authorities: &str, login: &Secret) -> Result<Self> {
        let data = login.data.clone().unwrap_or_default();
        let text = |key: &str| {
            let bytes = data.get(key).with_context(|| format!("the login has no {key}"))?;
            String::from_utf8(bytes.0.clone()).context("the login is no text")
        };
        let auth = STANDARD.encode(format!("{}:{}", text("username")?, text("password")?));
        let home = tempfile::tempdir().context("make a folder for the login")?;
        let write = |folder: &str, config: Value| {
            fs::create_dir(home.path().join(folder))?;
            fs::write(home.path().join(folder).join("config.json"), config.to_string())
        };
        write(LOGIN, json!({"auths": {place.host(): {"auth": auth}}}))
            .and_then(|()| write(NOBODY, json!({})))
            .and_then(|()| fs::write(home.path().join(AUTHORITIES), authorities))
            .and_then(|()| fs::write(home.path().join(NO_AUTHORITIES), ""))
            .context("write the login")?;
        Ok(Self { place, authorities: authorities.to_owned(), home })
    }

    /// What this person trusts, PEM.
    pub(super) fn authorities(&self) -> &str {
        &self.authorities
    }

    pub(super) fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.place.host())
    }

    /// Pushes an image and gives its digest.
    pub(super) fn push(&self, name: &str) -> Result<String> {
        let program = self.place.tools().path("pause")?;
        // Stored as published images are: crane expects packed layers when it compares all digests.
        let packed = Compression::Gzip;
        let image =
            Image { compression: packed, ..image::test_client(program, "unused/name:1", "hello from the demo") };
        let built = image.build()?;
        let layout = self.home.path().join("layout");
        built.write_layout(&layout)?;
        self.expect(&["push", &layout.display().to_string(), &self.reference(name)])?;
        Ok(built.digest().to_owned())
    }

    /// Pulls every layer of an image, compares all digests, and gives the image's own.
    pub(super) fn pull(&self, name: &str) -> Result<String> {
        self.expect(&["validate", "--remote", &self.reference(name)])?;
        self.expect(&["digest", &self.reference(name)])
    }

    /// What crane says to somebody without a login.
    pub(super) fn refused_without_login(&self, name: &str) -> Result<String> {
        self.refusal(name, NOBODY, AUTHORITIES, "401 Unauthorized")
    }

    /// What crane says to somebody who does not trust the authority.
    pub(super) fn refused_without_authority(&self, name: &str) -> Result<String> {
        self.refusal(name, LOGIN, NO_AUTHORITIES, "x509: certificate signed by unknown authority")
    }

    fn refusal(&self, name: &str, login: &str, authorities: &str, expected: &'static str) -> Result<String> {
        let output = self.crane(&["digest", &self.reference(name)], login, authorities)?;
        let words = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !words.contains(expected) {
            bail!("crane was to be refused with {expected:?}: {words}");
        }
        Ok(expected.to_owned())
    }

    /// Runs crane with login and authorities; it must succeed.
    fn expect(&self, arguments: &[&str]) -> Result<String> {
        let started = Instant::now();
        loop {
            let output = self.crane(arguments, LOGIN, AUTHORITIES)?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            let words = String::from_utf8_lossy(&output.stderr);
            if started.elapsed() > ROUTES || !UNREACHABLE.iter().any(|known| words.contains(known)) {
                bail!("crane {arguments:?}: {words}");
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn crane(&self, arguments: &[&str], login: &str, authorities: &str) -> Result<Output> {
        let home = self.home.path().join(login);
        let mut command = self.place.client("crane")?;
        command.args(arguments).env("DOCKER_CONFIG", &home).env("HOME", &home);
        command.env("SSL_CERT_FILE", self.home.path().join(authorities)).env("SSL_CERT_DIR", "/nonexistent");
        command.output().context("run crane")
    }
}
