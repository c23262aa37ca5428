//! Registries and their children as plain objects: how they are addressed, and how the children of one become those of another that no operator
//! takes for its own.

use std::fs;

use anyhow::{Context, Result};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};

use crate::workspace;

/// What an operator's label begins with.
const OURS: &str = "privateregistry.dev/";
/// As long, so that both sides write the same number of bytes.
const THEIRS: &str = "plainregistries.dev/";
const LABEL: &str = "privateregistry.dev/registry";
const MANAGER: &str = "bench";

/// Kinds of children in the order in which one would write them by hand.
const CHILDREN: [(&str, &str, &str); 7] = [
    ("", "ServiceAccount", "serviceaccounts"),
    ("", "Service", "services"),
    ("", "PersistentVolumeClaim", "persistentvolumeclaims"),
    ("", "Secret", "secrets"),
    ("", "ConfigMap", "configmaps"),
    ("apps", "Deployment", "deployments"),
    ("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
];

/// How a kind is addressed.
pub(super) fn resource(kind: &str) -> ApiResource {
    if kind == "PrivateRegistry" {
        let kind = GroupVersionKind::gvk("privateregistry.dev", "v1alpha1", kind);
        return ApiResource::from_gvk_with_plural(&kind, "privateregistries");
    }
    let known = CHILDREN.iter().find(|child| child.1 == kind);
    let (group, kind, plural) = known.copied().unwrap_or(("", kind, ""));
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural)
}

pub(super) fn api(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(kind))
}

/// The smallest manifest.
pub(super) fn registry(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
        "metadata": {"name": name, "namespace": namespace}, "spec": {},
    })
}

/// Installs the operator's definition and waits until it is served.
pub(super) async fn install_definition(client: &Client) -> Result<()> {
    let file = workspace::root().join("crds/privateregistries.privateregistry.dev.yaml");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let definition: CustomResourceDefinition = serde_saphyr::from_str(&text).context("understand the definition")?;
    let definitions = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition).await.context("create the definition")?;
    await_condition(definitions, &definition.name_any(), conditions::is_crd_established()).await?;
    Ok(())
}

/// A namespace that is to be.
pub(super) fn new_namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub(super) async fn namespace(client: &Client, name: &str) -> Result<()> {
    let namespace: Namespace = serde_json::from_value(new_namespace(name))?;
    let created = Api::all(client.clone()).create(&PostParams::default(), &namespace).await;
    created.map(drop).with_context(|| format!("create Namespace {name}"))
}

/// As `kubectl apply --server-side` does.
pub(super) async fn apply(client: &Client, object: &Value) -> Result<DynamicObject> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    let applied = api(client, namespace, kind).patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(object)).await;
    applied.with_context(|| format!("apply {kind} {namespace}/{name}"))
}

/// The children of one registry, from which those of others are made.
pub(super) struct Template {
    namespace: String,
    name: String,
    children: Vec<Value>,
}

impl Template {
    /// What an operator made for a registry.
    pub(super) async fn read(client: &Client, namespace: &str, name: &str) -> Result<Self> {
        let selected = ListParams::default().labels(&format!("{LABEL}={name}"));
        let mut children = Vec::new();
        for (_, kind, _) in CHILDREN {
            let found = api(client, namespace, kind).list(&selected).await.with_context(|| format!("list {kind}"))?;
            for mut child in found {
                child.types = Some(resource(kind))
                    .map(|known| kube::api::TypeMeta { api_version: known.api_version, kind: known.kind });
                children.push(without_the_servers_part(serde_json::to_value(child)?));
            }
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), children })
    }

    /// How many children a registry has.
    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    /// The same objects under another name, for somebody who writes them without an operator.
    pub(super) fn named(&self, namespace: &str, name: &str) -> Result<Vec<Value>> {
        let text = serde_json::to_string(&self.children)?;
        let text = text.replace(OURS, THEIRS).replace(&self.name, name);
        let mut children: Vec<Value> = serde_json::from_str(&text)?;
        for child in &mut children {
            child["metadata"]["namespace"] = json!(namespace);
        }
        debug_assert!(self.namespace != namespace || self.name != name);
        Ok(children)
    }
}

/// What the API server and its controllers added, and what binds the object to its registry.
fn without_the_servers_part(mut object: Value) -> Value {
    const METADATA: [&str; 7] =
        ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences", "finalizers"];
    const SPEC: [&str; 5] = ["clusterIP", "clusterIPs", "volumeName", "ipFamilies", "ipFamilyPolicy"];
    let remove = |part: Option<&mut Value>, fields: &[&str]| {
        if let Some(part) = part.and_then(Value::as_object_mut) {
            part.retain(|field, _| !fields.contains(&field.as_str()));
        }
    };
    remove(object.get_mut("metadata"), &METADATA);
    remove(object.get_mut("spec"), &SPEC);
    remove(Some(&mut object), &["status"]);
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !name.contains("kubernetes.io/"));
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_another_name_and_belongs_to_nobody() {
        let child = json!({
            "kind": "Service",
            "metadata": {
                "name": "source", "namespace": "a", "uid": "1", "resourceVersion": "7", "ownerReferences": [{}],
                "labels": {"privateregistry.dev/registry": "source"},
                "annotations": {"pv.kubernetes.io/bind-completed": "yes", "privateregistry.dev/x": "y"},
            },
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 5000}]},
            "status": {"loadBalancer": {}},
        });
        let template = Template {
            namespace: "a".to_owned(),
            name: "source".to_owned(),
            children: vec![without_the_servers_part(child)],
        };
        let expected = json!({
            "kind": "Service",
            "metadata": {
                "name": "copied", "namespace": "b",
                "labels": {"plainregistries.dev/registry": "copied"},
                "annotations": {"plainregistries.dev/x": "y"},
            },
            "spec": {"ports": [{"port": 5000}]},
        });
        assert_eq!(template.named("b", "copied").unwrap(), [expected]);
        assert_eq!(OURS.len(), THEIRS.len());
    }
}
