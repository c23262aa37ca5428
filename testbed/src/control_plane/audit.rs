//! What clients asked of the API server, from its own audit log: the proof of how much, or how little, a program reads and writes.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use serde::Deserialize;

/// One answered request. A watch has two: `ResponseStarted`, and `ResponseComplete` when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `ResponseStarted`, `ResponseComplete` or `Panic`.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Who asked.
    pub user: String,
    /// The program that asked, as it calls itself.
    pub user_agent: String,
    /// API group; empty for the core.
    pub group: String,
    /// The kind's plural name (`configmaps`); empty for requests that are not about objects.
    pub resource: String,
    /// `status`, `scale`, …; empty for the object itself.
    pub subresource: String,
    /// Empty for objects without a namespace, and for all namespaces.
    pub namespace: String,
    /// Empty for lists and for objects whose name the server makes.
    pub name: String,
    /// HTTP status.
    pub code: u16,
    /// Path and query.
    pub uri: String,
}

impl Entry {
    /// Whether the request may have changed something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// The audit log of one API server.
#[derive(Clone)]
pub struct Audit {
    log: PathBuf,
    client: Client,
}

static FENCES: AtomicU64 = AtomicU64::new(0);

const FENCE: &str = "testbed-audit-fence";

const PATIENCE: Duration = Duration::from_secs(10);

impl Audit {
    pub(super) fn new(log: PathBuf, client: Client) -> Self {
        Self { log, client }
    }

    /// The end of the log: everything that was answered before this call lies before it.
    pub async fn mark(&self) -> Result<Mark> {
        let end = self.fence().await?;
        Ok(Mark(end))
    }

    /// Everything that was answered after `mark` was made and before this call.
    pub async fn since(&self, mark: Mark) -> Result<Vec<Entry>> {
        let end = self.fence().await?;
        let lines = self.read(mark.0, end)?;
        let entries = lines.lines().map(parse).collect::<Result<Vec<_>>>()?;
        Ok(entries.into_iter().filter(|entry| !entry.name.starts_with(FENCE)).collect())
    }

    /// The server writes a line just after it has answered. So one request more is sent, and when its line is there, those of earlier
    /// requests are too. Gives the position behind that line.
    async fn fence(&self) -> Result<u64> {
        let start = std::fs::metadata(&self.log).map(|metadata| metadata.len()).unwrap_or_default();
        let number = FENCES.fetch_add(1, Ordering::Relaxed);
        let name = format!("{FENCE}-{}-{number}", std::process::id());
        Api::<ConfigMap>::default_namespaced(self.client.clone()).get_opt(&name).await.context("ask the API server")?;
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            let text = self.read(start, u64::MAX)?;
            let fence = text.find(&name).and_then(|at| Some(at + text[at..].find('\n')? + 1));
            if let Some(end) = fence {
                return Ok(start + end as u64);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("{} has no line of {name} after {PATIENCE:?}", self.log.display())
    }

    fn read(&self, from: u64, to: u64) -> Result<String> {
        let context = || format!("read {}", self.log.display());
        let mut file = File::open(&self.log).with_context(context)?;
        file.seek(SeekFrom::Start(from)).with_context(context)?;
        let mut bytes = Vec::new();
        file.take(to.saturating_sub(from)).read_to_end(&mut bytes).with_context(context)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    #[serde(default)]
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

fn parse(line: &str) -> Result<Entry> {
    let event: Event = serde_json::from_str(line).with_context(|| format!("understand the audit line {line}"))?;
    Ok(Entry {
        stage: event.stage,
        verb: event.verb,
        user: event.user.username,
        user_agent: event.user_agent,
        group: event.object_ref.api_group,
        resource: event.object_ref.resource,
        subresource: event.object_ref.subresource,
        namespace: event.object_ref.namespace,
        name: event.object_ref.name,
        code: event.response_status.code,
        uri: event.request_uri,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_did_what_to_which_object() {
        let line = r#"{"kind":"Event","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/configmaps/b?x=1","verb":"patch",
            "user":{"username":"admin","groups":["system:masters"]},"userAgent":"me/1","objectRef":{"resource":"configmaps","namespace":"a",
            "name":"b","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":201}}"#;
        let entry = parse(line).unwrap();
        assert_eq!(
            (entry.verb.as_str(), entry.resource.as_str(), entry.namespace.as_str()),
            ("patch", "configmaps", "a")
        );
        assert_eq!(
            (entry.name.as_str(), entry.user.as_str(), entry.user_agent.as_str(), entry.code),
            ("b", "admin", "me/1", 201)
        );
        assert!(entry.is_write() && entry.group.is_empty());
    }
}
