//! Programs that keep logins, such as `docker-credential-desktop`: a word as argument, the rest on standard input.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use private_registry_operator::secret::Sensitive;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::registry_client::Login;

/// How long one may take: it may ask a person to open a key ring.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of its words is repeated.
const LONGEST_WORDS: usize = 400;
/// What all of them say of a login that they do not have.
const NOT_FOUND: &str = "credentials not found";

/// Has it keep a login.
pub(super) async fn store(helper: &str, address: &str, login: &Login) -> Result<()> {
    let password = login.password.expose();
    let told = json!({"ServerURL": address, "Username": login.user.as_str(), "Secret": password});
    let told = Sensitive::new(told.to_string());
    let output = run(helper, "store", told.expose()).await?;
    if !output.status.success() {
        let words = words(&output).replace(password.as_str(), "[redacted]");
        bail!("docker-credential-{helper} does not keep the login of {address}: {words}");
    }
    Ok(())
}

/// Has it forget a login. Whether it had one.
pub(super) async fn erase(helper: &str, address: &str) -> Result<bool> {
    let output = run(helper, "erase", address).await?;
    let words = words(&output);
    match output.status.success() {
        true => Ok(true),
        false if words.contains(NOT_FOUND) => Ok(false),
        false => bail!("docker-credential-{helper} does not forget the login of {address}: {words}"),
    }
}

async fn run(helper: &str, verb: &str, input: &str) -> Result<Output> {
    let program = format!("docker-credential-{helper}");
    let work = async {
        let mut command = Command::new(&program);
        command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input.as_bytes()).await {
                // It did not want to hear all of it; its exit code says whether that is well.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                written => written?,
            }
        }
        child.wait_with_output().await
    };
    let done = tokio::time::timeout(PATIENCE, work).await;
    let done = done.map_err(|_| anyhow!("{program} {verb} takes longer than {} s", PATIENCE.as_secs()))?;
    done.with_context(|| format!("run {program} {verb}, which the configuration names as the keeper of logins"))
}

/// The last line that it said: helpers say on standard output what is wrong.
fn words(output: &Output) -> String {
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).trim().to_owned());
    let said = said.iter().find(|text| !text.is_empty()).map_or("it says nothing", |text| text.as_str());
    said.lines().last().unwrap_or_default().chars().take(LONGEST_WORDS).collect()
}
