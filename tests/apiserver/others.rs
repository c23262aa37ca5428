//! Namespaces of other people, and what a registry has in them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::Namespace;
use crate::object::{Object, resource};
use crate::wait::{PATIENCE, eventually};

/// The other namespaces of a cluster.
pub struct Others<'a> {
    team: &'a Namespace,
    /// What copies are called there.
    copy: &'static str,
}

impl<'a> Others<'a> {
    pub fn new(team: &'a Namespace, copy: &'static str) -> Self {
        Self { team, copy }
    }

    pub async fn namespace(&self, name: &str, labels: Value) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        let namespace: KubeNamespace = serde_json::from_value(namespace).unwrap();
        self.namespaces().create(&PostParams::default(), &namespace).await.unwrap();
    }

    pub async fn label(&self, name: &str, labels: Value) {
        let patch = json!({"metadata": {"labels": labels}});
        self.namespaces().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub fn namespaces(&self) -> Api<KubeNamespace> {
        Api::all(self.team.client.clone())
    }

    /// Somebody makes an object there.
    pub async fn create(&self, namespace: &str, object: Value) {
        let kind = resource(object["kind"].as_str().unwrap());
        let api: Api<DynamicObject> = Api::namespaced_with(self.team.client.clone(), namespace, &kind);
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    pub fn copy_in(&self, namespace: &str, kind: &str) -> Object {
        Object::new(self.team.client.clone(), namespace, kind, self.copy)
    }

    /// Where copies of this kind are.
    pub async fn places(&self, kind: &str) -> BTreeSet<String> {
        let api: Api<DynamicObject> = Api::all_with(self.team.client.clone(), &resource(kind));
        let all = api.list(&ListParams::default()).await.unwrap();
        let copies = all.items.into_iter().filter(|found| found.metadata.name.as_deref() == Some(self.copy));
        copies.filter_map(|found| found.metadata.namespace).collect()
    }

    pub async fn are_exactly(&self, kind: &str, expected: &[&str]) {
        let expected: BTreeSet<_> = expected.iter().map(|name| (*name).to_owned()).collect();
        eventually(PATIENCE, &format!("{kind} copies are in {expected:?}"), async || {
            let places = self.places(kind).await;
            if places == expected { Ok(()) } else { Err(format!("{places:?}")) }
        })
        .await;
    }
}
