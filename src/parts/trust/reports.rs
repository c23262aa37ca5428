//! What node agents report, as it was last read: one object for each node, of which what is about a registry is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ListParams};
use operator_engine::work::queue::Key;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::each;
use crate::node::report::{self, Entry, State};

/// Reports in one page.
const PAGE: u32 = 100;
/// How often they are read at most: many nodes report within a moment.
pub const TOGETHER: Duration = Duration::from_secs(2);
/// Nodes of a registry that are named at most.
const NAMED: usize = 10;

/// All reports.
#[derive(Default)]
pub struct Reports {
    read: Mutex<Read>,
    /// Whether something has changed since.
    is_stale: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct Read {
    at: Option<Instant>,
    nodes: usize,
    of: BTreeMap<Key, Tally>,
}

/// What all nodes say of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Nodes that have reported anything.
    pub nodes: usize,
    /// Nodes that trust a bundle, by the bundle.
    pub written: BTreeMap<String, BTreeSet<String>>,
    /// How many are not meant, by what they were asked.
    pub not_meant: BTreeMap<String, usize>,
    /// The first of those that do not, and why.
    pub refused: Vec<(String, String)>,
    /// How many these are.
    pub refused_count: usize,
}

impl Reports {
    /// A report has changed.
    pub fn changed(&self) {
        self.is_stale.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// What is said of a registry. If there is news that is to be read a little later, the time until then, too.
    ///
    /// # Errors
    /// The reports could not be read.
    pub async fn of(
        &self,
        registry: &Key,
        client: &Client,
        namespace: &str,
    ) -> Result<(Tally, Option<Duration>), kube::Error> {
        let mut read = self.read.lock().await;
        let wait = read.at.and_then(|at| TOGETHER.checked_sub(at.elapsed())).filter(|wait| !wait.is_zero());
        let is_stale = self.is_stale.load(std::sync::atomic::Ordering::Relaxed);
        if read.at.is_none() || (is_stale && wait.is_none()) {
            self.is_stale.store(false, std::sync::atomic::Ordering::Relaxed);
            let all = list(client, namespace).await.inspect_err(|_| self.changed())?;
            *read = Read { at: Some(Instant::now()), ..all };
        }
        let is_stale = self.is_stale.load(std::sync::atomic::Ordering::Relaxed);
        let mut tally = read.of.get(registry).cloned().unwrap_or_default();
        tally.nodes = read.nodes;
        Ok((tally, wait.filter(|_| is_stale)))
    }
}

async fn list(client: &Client, namespace: &str) -> Result<Read, kube::Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let mut all = Read::default();
    each(&api, ListParams::default().labels(&report::selector()).limit(PAGE), |found| all.take_in(&found)).await?;
    Ok(all)
}

impl Read {
    fn take_in(&mut self, found: &ConfigMap) {
        let Some(node) = found.metadata.name.as_deref().and_then(report::node) else { return };
        self.nodes += 1;
        for (registry, text) in found.data.iter().flatten() {
            // Whoever rules a node may have it say anything. What cannot be read is not said.
            let (Some((namespace, name)), Ok(entry)) = (registry.split_once('.'), serde_json::from_str::<Entry>(text))
            else {
                continue;
            };
            self.of.entry(Key::new(namespace, name)).or_default().count(node, &entry);
        }
    }
}

impl Tally {
    fn count(&mut self, node: &str, entry: &Entry) {
        match entry.state {
            // It says why it does not.
            State::NotSelected if !entry.message.is_empty() => self.lacks(node, entry),
            State::NotSelected => *self.not_meant.entry(entry.bundle.clone()).or_default() += 1,
            State::Written => {
                self.written.entry(entry.bundle.clone()).or_default().insert(node.to_owned());
            }
            State::Refused => self.lacks(node, entry),
        }
    }

    fn lacks(&mut self, node: &str, entry: &Entry) {
        self.refused_count += 1;
        if self.refused.len() < NAMED {
            let entry = Entry::new("", entry.state, &entry.message);
            self.refused.push((node.to_owned(), entry.message.replace(|c: char| c.is_control(), " ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(node: &str, data: &serde_json::Value) -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": format!("node.{node}")}, "data": data})).unwrap()
    }

    #[test]
    fn nodes_are_counted_by_what_they_trust_and_the_first_are_named() {
        let mut all = Read::default();
        let entry = |bundle: &str, state: &str, message: &str| {
            json!({"bundle": bundle, "state": state, "message": message}).to_string()
        };
        for number in 0..20 {
            all.take_in(&report(&format!("n{number:02}"), &json!({"r.team-a": entry("new", "Written", "")})));
        }
        all.take_in(&report("old", &json!({"r.team-a": entry("former", "Written", "")})));
        all.take_in(&report("bad", &json!({"r.team-a": entry("new", "Refused", "no\nconfig_path"), "r.team-b": "{"})));
        all.take_in(&report("off", &json!({"r.team-a": entry("new", "NotSelected", "")})));
        let stranger = ConfigMap { metadata: Default::default(), ..report("x", &json!({})) };
        all.take_in(&stranger);

        assert_eq!(all.nodes, 23);
        assert_eq!(all.of.len(), 1);
        let tally = &all.of[&Key::new("r", "team-a")];
        assert_eq!(tally.written["new"].len(), 20);
        assert_eq!(tally.written["former"], BTreeSet::from(["old".to_owned()]));
        assert_eq!(tally.refused, [("bad".to_owned(), "no config_path".to_owned())]);
        assert_eq!(tally.refused_count, 1);
        assert_eq!(tally.not_meant["new"], 1);
    }
}
