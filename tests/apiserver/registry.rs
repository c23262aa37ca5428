//! One registry and its children.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use serde_json::{Value, json};

use crate::cluster::Namespace;
use crate::object::Object;
use crate::wait::{PATIENCE, eventually};

/// One registry.
pub struct Registry<'a> {
    pub namespace: &'a Namespace,
    pub name: String,
    /// The `PrivateRegistry` itself.
    pub object: Object,
}

impl<'a> Registry<'a> {
    pub fn named(namespace: &'a Namespace, name: &str) -> Self {
        Self { namespace, name: name.to_owned(), object: namespace.object("PrivateRegistry", name) }
    }

    /// What `kubectl apply --server-side` does with a manifest of this spec.
    pub async fn apply(&self, spec: Value) -> kube::Result<DynamicObject> {
        let manifest = json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": self.name, "namespace": self.namespace.name}, "spec": spec,
        });
        self.namespace.apply(&manifest).await
    }

    /// Waits until the operator says that everything is as the manifest says.
    pub async fn ready(self) -> Self {
        self.says("Ready", "True", "").await;
        self
    }

    /// Waits until a condition has this status and, unless empty, this reason, for the manifest as it is now. Gives its message.
    pub async fn says(&self, condition: &str, status: &str, reason: &str) -> String {
        self.says_within(PATIENCE, condition, status, reason).await
    }

    /// As [`Registry::says`], with a limit.
    pub async fn says_within(&self, limit: Duration, condition: &str, status: &str, reason: &str) -> String {
        let what = format!("PrivateRegistry {} says {condition}={status}/{reason}", self.name);
        eventually(limit, &what, async || {
            let live = self.object.find().await.ok_or("nothing")?;
            let conditions = live.pointer("/status/conditions").cloned().unwrap_or_default();
            let found = conditions.as_array().into_iter().flatten().find(|found| found["type"] == condition);
            let found = found.ok_or_else(|| conditions.to_string())?;
            let current = found["observedGeneration"] == live["metadata"]["generation"];
            let fits = found["status"] == status && (reason.is_empty() || found["reason"] == reason);
            if current && fits {
                Ok(found["message"].as_str().unwrap().to_owned())
            } else {
                Err(conditions.to_string())
            }
        })
        .await
    }

    /// A condition as it is now.
    pub async fn condition(&self, kind: &str) -> Value {
        let conditions = self.object.at("/status/conditions").await;
        conditions.as_array().into_iter().flatten().find(|found| found["type"] == kind).cloned().unwrap_or_default()
    }

    /// Deletes the registry and waits until it is gone.
    pub async fn delete(&self) {
        self.object.delete().await;
        self.object.disappears(PATIENCE).await;
    }

    /// The child of this kind and suffix.
    pub fn child(&self, kind: &str, suffix: &str) -> Object {
        self.namespace.object(kind, &format!("{}{suffix}", self.name))
    }

    pub fn service(&self) -> Object {
        self.child("Service", "")
    }

    pub fn deployment(&self) -> Object {
        self.child("Deployment", "")
    }

    pub fn claim(&self) -> Object {
        self.child("PersistentVolumeClaim", "-data")
    }

    pub fn ca(&self) -> Object {
        self.child("Secret", "-ca")
    }

    pub fn tls(&self) -> Object {
        self.child("Secret", "-tls")
    }

    pub fn admin(&self) -> Object {
        self.child("Secret", "-admin")
    }

    pub fn htpasswd(&self) -> Object {
        self.child("Secret", "-htpasswd")
    }

    pub fn bundle(&self) -> Object {
        self.child("ConfigMap", "-ca-bundle")
    }

    /// Every child that exists, by its label, in the order of kinds.
    pub async fn children(&self) -> Vec<Object> {
        let ours = ListParams::default().labels(&format!("privateregistry.dev/registry={}", self.name));
        let mut found = Vec::new();
        for kind in private_registry_operator::desired::kinds::KINDS.iter().filter(|kind| !kind.is_cluster_wide) {
            let listed = match self.namespace.object(kind.kind, "").api.list(&ours).await {
                Err(kube::Error::Api(absent)) if kind.is_optional && absent.code == 404 => continue,
                listed => listed.unwrap(),
            };
            found.extend(listed.iter().map(|child| self.namespace.object(kind.kind, &child.name_any())));
        }
        found
    }

    /// Waits until the table of users lets this one in.
    pub async fn lets_in(&self, user: &str, password: &str) {
        eventually(PATIENCE, &format!("{user} is let in"), async || {
            if self.knows(user, password).await { Ok(()) } else { Err("no such user, or another password".to_owned()) }
        })
        .await;
    }

    /// Whether the table of users has this user with this password.
    pub async fn knows(&self, user: &str, password: &str) -> bool {
        if self.htpasswd().find().await.is_none() {
            return false;
        }
        let table = self.htpasswd().decoded("htpasswd").await;
        let hash = table.lines().find_map(|line| line.strip_prefix(&format!("{user}:")));
        hash.is_some_and(|hash| bcrypt::verify(password, hash).unwrap())
    }

    /// Somebody deletes its pods.
    pub async fn deletes_its_pods(&self) {
        let ours = ListParams::default().labels(&format!("privateregistry.dev/registry={}", self.name));
        let pods = self.namespace.object("Pod", "").api;
        pods.delete_collection(&DeleteParams::default(), &ours).await.unwrap();
    }

    /// Waits until none of its pods is left.
    pub async fn has_no_pod(&self) {
        let ours = ListParams::default().labels(&format!("privateregistry.dev/registry={}", self.name));
        eventually(PATIENCE, "no pod is left", async || {
            let pods = self.namespace.object("Pod", "").api.list(&ours).await.unwrap();
            if pods.items.is_empty() { Ok(()) } else { Err(format!("{} pods", pods.items.len())) }
        })
        .await;
    }
}
