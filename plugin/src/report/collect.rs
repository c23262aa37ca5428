//! Reads what goes into a report. Nothing is taken out here, so nothing of it is printed or written but by way of `blank`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::{ApiResource, DynamicObject, ListParams, LogParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use private_registry_operator::api::PrivateRegistry;
use private_registry_operator::model::{RegistryName, secrets_of};
use serde_json::{Value, json};

use crate::cluster::{Connected, PAGE, Registry, explained};
use crate::doctor::{self, OPERATOR, USUAL, limited};
use crate::events;

/// Lines of a container's log, from the end.
const MOST_LINES: i64 = 2000;
/// Bytes of it.
const MOST_BYTES: i64 = 1 << 20;
/// Registries of a namespace.
const MOST_REGISTRIES: usize = 50;

/// What was read, with what is secret in it.
#[derive(Default)]
pub(super) struct Collected {
    /// Secrets, to know what is secret.
    pub(super) secrets: Vec<Value>,
    /// Of our own making, by the name of the file.
    pub(super) values: Vec<(String, Value)>,
    /// Of the cluster, by the parts of the file's name.
    pub(super) objects: Vec<(Vec<String>, Value)>,
    pub(super) texts: Vec<(Vec<String>, String)>,
    /// What could not be read, each with the reason.
    pub(super) missing: Vec<String>,
}

impl Collected {
    /// Reads all of it. What goes wrong with a part of it is told in the report.
    ///
    /// # Errors
    /// There is no such registry, or the registries cannot be listed.
    pub(super) async fn of(cluster: &Connected, name: Option<&RegistryName>) -> Result<Self> {
        let registries = match name {
            Some(name) => vec![cluster.registry(name)],
            None => {
                let found = cluster.registries(false).await?.objects;
                let names =
                    found.iter().filter_map(|object| RegistryName::parse(object["metadata"]["name"].as_str()?).ok());
                names.take(MOST_REGISTRIES).map(|name| cluster.registry(&name)).collect()
            }
        };
        let mut collected = Self::default();
        let mut operators = BTreeSet::new();
        for registry in &registries {
            let found = match registry.read().await {
                Ok(found) => found,
                // One of many must not keep the others out of it.
                Err(error) if name.is_none() => {
                    collected.missing.push(format!("{error:#}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            operators.extend(found.status.as_ref().and_then(|status| status.operator.clone()));
            collected.registry(registry, &found).await;
        }
        collected.operators(&cluster.client, &operators).await;
        collected.nodes(&cluster.client).await;
        collected.versions(&cluster.client).await;
        collected.values.push(("doctor.json".to_owned(), doctor::all(cluster, name).await));
        Ok(collected)
    }

    async fn registry(&mut self, registry: &Registry, found: &PrivateRegistry) {
        let folder = [registry.namespace.clone(), registry.name.to_string()];
        let place = |rest: &[&str]| {
            folder.iter().cloned().chain(rest.iter().map(|part| (*part).to_owned())).collect::<Vec<_>>()
        };
        let title = registry.title();
        match serde_json::to_value(found) {
            Ok(mut object) => {
                // The type's own fields are not part of what is decoded.
                (object["apiVersion"], object["kind"]) =
                    (json!("privateregistry.dev/v1alpha1"), json!("PrivateRegistry"));
                self.objects.push((place(&["manifests", "PrivateRegistry.yaml"]), object));
            }
            Err(error) => self.missing.push(format!("{title}: {error}")),
        }
        for kind in events::kinds() {
            match limited(children(registry, &kind)).await {
                Ok(children) => {
                    for (name, object) in children {
                        if kind.kind == "Secret" {
                            self.secrets.push(object.clone());
                        }
                        self.objects.push((place(&["manifests", &format!("{}-{name}.yaml", kind.kind)]), object));
                    }
                }
                Err(why) => self.missing.push(format!("{} of {title}: {why}", kind.plural)),
            }
        }
        self.secrets_of_users(registry, found).await;
        match limited(events::of(registry, found)).await {
            Ok(events) => match serde_json::to_value(&events) {
                Ok(events) => self.objects.push((place(&["events.yaml"]), json!({"kind": "List", "items": events}))),
                Err(error) => self.missing.push(format!("events of {title}: {error}")),
            },
            Err(why) => self.missing.push(format!("events of {title}: {why}")),
        }
        let api: Api<Pod> = Api::namespaced(registry.client.clone(), &registry.namespace);
        self.logs(&api, &events::ours(registry), &place(&["logs"]), &title).await;
    }

    /// Passwords that a manifest refers to are in nothing of ours, and may stand in a log.
    async fn secrets_of_users(&mut self, registry: &Registry, found: &PrivateRegistry) {
        let api: Api<Secret> = Api::namespaced(registry.client.clone(), &registry.namespace);
        for name in secrets_of(found) {
            let read = limited(async { api.get_opt(name).await.map_err(explained) }).await;
            match read.map(|secret| secret.map(serde_json::to_value)) {
                Ok(Some(Ok(secret))) => self.secrets.push(secret),
                Ok(_) => {}
                Err(why) => {
                    self.missing.push(format!("Secret {name}, whose values could therefore not be looked for: {why}"));
                }
            }
        }
    }

    async fn operators(&mut self, client: &Client, named: &BTreeSet<String>) {
        let named: BTreeSet<_> = named.iter().filter_map(|named| named.split_once('/')).collect();
        let named = if named.is_empty() { BTreeSet::from([USUAL]) } else { named };
        for (namespace, name) in named {
            let folder = ["operator".to_owned(), namespace.to_owned()];
            let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = Api::namespaced(client.clone(), namespace);
            match limited(async { deployments.get_opt(name).await.map_err(explained) }).await {
                Ok(Some(found)) => match serde_json::to_value(&found) {
                    Ok(object) => {
                        self.objects.push(([&folder[..], &[format!("Deployment-{name}.yaml")]].concat(), object));
                    }
                    Err(error) => self.missing.push(format!("Deployment {namespace}/{name}: {error}")),
                },
                Ok(None) => self.missing.push(format!("Deployment {namespace}/{name}: there is none")),
                Err(why) => self.missing.push(format!("Deployment {namespace}/{name}: {why}")),
            }
            let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
            let ours = ListParams::default().labels(OPERATOR).limit(PAGE);
            self.logs(&api, &ours, &[&folder[..], &["logs".to_owned()]].concat(), &format!("operator in {namespace}"))
                .await;
        }
    }

    /// The end of what each container has written, and of the one before it that ended.
    async fn logs(&mut self, api: &Api<Pod>, of: &ListParams, folder: &[String], whose: &str) {
        let pods = match limited(async { api.list(of).await.map_err(explained) }).await {
            Ok(pods) => pods.items,
            Err(why) => return self.missing.push(format!("pods of {whose}: {why}")),
        };
        for (pod, container, previous) in pods.iter().flat_map(containers) {
            let parameters = LogParams {
                container: Some(container.clone()),
                previous,
                tail_lines: Some(MOST_LINES),
                limit_bytes: Some(MOST_BYTES),
                timestamps: true,
                ..LogParams::default()
            };
            let name = format!("{pod}-{container}{}.log", if previous { "-previous" } else { "" });
            match limited(async { api.logs(&pod, &parameters).await.map_err(explained) }).await {
                Ok(text) => self.texts.push(([folder, &[name]].concat(), text)),
                Err(why) => self.missing.push(format!("log {name} of {whose}: {why}")),
            }
        }
    }

    /// Versions and runtimes of nodes, and how they are.
    async fn nodes(&mut self, client: &Client) {
        let api: Api<Node> = Api::all(client.clone());
        match limited(async { api.list(&ListParams::default().limit(PAGE)).await.map_err(explained) }).await {
            Ok(listed) => {
                let nodes: Vec<_> = listed.items.iter().map(about).collect();
                self.values.push(("nodes.json".to_owned(), json!(nodes)));
            }
            Err(why) => self.missing.push(format!("nodes: {why}")),
        }
    }

    async fn versions(&mut self, client: &Client) {
        let server = limited(async { client.apiserver_version().await.map_err(explained) }).await;
        let server = match server {
            Ok(version) => json!(version.git_version),
            Err(why) => {
                self.missing.push(format!("version of the API server: {why}"));
                Value::Null
            }
        };
        let own = private_registry_operator::VERSION;
        self.values.push(("versions.json".to_owned(), json!({"kubectlRegistry": own, "apiServer": server})));
    }
}

/// What belongs to a registry of one kind, by name. None where the cluster has no such kind.
async fn children(registry: &Registry, kind: &ApiResource) -> Result<Vec<(String, Value)>> {
    let api: Api<DynamicObject> = Api::namespaced_with(registry.client.clone(), &registry.namespace, kind);
    let listed = match api.list(&events::ours(registry)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
        listed => listed.map_err(explained).context("list them")?,
    };
    let object = |child: DynamicObject| {
        let name = child.metadata.name.clone().unwrap_or_default();
        // A failed conversion would quote the value.
        let mut object = serde_json::to_value(&child).map_err(|_| anyhow!("{name} is not JSON"))?;
        // Lists leave out of which kind their items are, and by that Secrets are known.
        (object["apiVersion"], object["kind"]) = (json!(kind.api_version), json!(kind.kind));
        Ok((name, object))
    };
    listed.items.into_iter().map(object).collect()
}

/// Of each container its pod, its name, and whether it is one that ended before the present one.
fn containers(pod: &Pod) -> Vec<(String, String, bool)> {
    let ObjectMeta { name, .. } = &pod.metadata;
    let (name, status) = (name.clone().unwrap_or_default(), pod.status.clone().unwrap_or_default());
    let all = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
    let mut found = Vec::new();
    for container in all {
        let has_run = container.state.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
        if has_run {
            found.push((name.clone(), container.name.clone(), false));
        }
        if container.restart_count > 0 {
            found.push((name.clone(), container.name, true));
        }
    }
    found
}

fn about(node: &Node) -> Value {
    let status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.into_iter().flatten();
    let conditions: Vec<_> = conditions
        .map(|condition| json!({"type": condition.type_, "status": condition.status, "reason": condition.reason, "message": condition.message}))
        .collect();
    let about = status.node_info.unwrap_or_default();
    json!({
        "name": node.metadata.name, "kubelet": about.kubelet_version, "runtime": about.container_runtime_version,
        "system": about.os_image, "kernel": about.kernel_version, "architecture": about.architecture, "conditions": conditions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_a_container_that_ended_before_is_read_too_and_none_of_one_that_never_ran() {
        let container = |name: &str, restarts: i32, state: Value| json!({"name": name, "image": "", "imageID": "", "ready": true, "restartCount": restarts, "state": state});
        let pod = json!({"metadata": {"name": "a"}, "status": {
            "initContainerStatuses": [container("check", 0, json!({"terminated": {"exitCode": 0}}))],
            "containerStatuses": [
                container("registry", 2, json!({"running": {}})),
                container("frontend", 0, json!({"waiting": {"reason": "ImagePullBackOff"}})),
            ],
        }});
        let found = containers(&serde_json::from_value(pod).unwrap());
        let expected = [("check", false), ("registry", false), ("registry", true)];
        assert_eq!(found, expected.map(|(name, previous)| ("a".to_owned(), name.to_owned(), previous)));
    }
}
