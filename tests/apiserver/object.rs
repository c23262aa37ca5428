//! One object in the cluster, and what tests do to it and expect of it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::wait::{always, eventually};

/// How a kind is addressed.
pub fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "PrivateRegistry" => ("privateregistry.dev", "v1alpha1"),
        "Deployment" => ("apps", "v1"),
        "Job" => ("batch", "v1"),
        "PodDisruptionBudget" => ("policy", "v1"),
        "Ingress" => ("networking.k8s.io", "v1"),
        "HTTPRoute" | "TLSRoute" | "BackendTLSPolicy" => ("gateway.networking.k8s.io", "v1"),
        "CertificateRequest" | "Issuer" => ("cert-manager.io", "v1"),
        "CertificateSigningRequest" | "ClusterTrustBundle" => ("certificates.k8s.io", "v1"),
        "Role" | "RoleBinding" | "ClusterRole" | "ClusterRoleBinding" => ("rbac.authorization.k8s.io", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        _ => ("", "v1"),
    };
    let plural = match kind {
        "PrivateRegistry" => "privateregistries".to_owned(),
        "Ingress" => "ingresses".to_owned(),
        "BackendTLSPolicy" => "backendtlspolicies".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
}

/// One object, present or not.
#[derive(Clone)]
pub struct Object {
    pub kind: String,
    pub name: String,
    pub api: Api<DynamicObject>,
}

impl Object {
    pub fn new(client: Client, namespace: &str, kind: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            api: Api::namespaced_with(client, namespace, &resource(kind)),
        }
    }

    fn title(&self) -> String {
        format!("{} {}", self.kind, self.name)
    }

    /// The object, if it is there.
    pub async fn find(&self) -> Option<Value> {
        let found = self.api.get_opt(&self.name).await.unwrap();
        found.map(|object| serde_json::to_value(object).unwrap())
    }

    /// The object. Panics when it isn't there.
    pub async fn get(&self) -> Value {
        self.find().await.unwrap_or_else(|| panic!("{} does not exist", self.title()))
    }

    /// The value at a JSON pointer; null when there is none.
    pub async fn at(&self, pointer: &str) -> Value {
        self.get().await.pointer(pointer).cloned().unwrap_or_default()
    }

    /// Decoded value of a key of a Secret.
    pub async fn decoded(&self, key: &str) -> String {
        let value = self.at(&format!("/data/{key}")).await;
        String::from_utf8(STANDARD.decode(value.as_str().unwrap()).unwrap()).unwrap()
    }

    pub async fn uid(&self) -> String {
        self.at("/metadata/uid").await.as_str().unwrap().to_owned()
    }

    /// Deletes it and returns at once.
    pub async fn delete(&self) {
        self.api
            .delete(&self.name, &DeleteParams::default())
            .await
            .unwrap_or_else(|error| panic!("delete {}: {error}", self.title()));
    }

    /// Somebody changes it: a JSON merge patch.
    pub async fn edit(&self, patch: Value) {
        let parameters = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        let edited = self.api.patch(&self.name, &parameters, &Patch::Merge(patch)).await;
        edited.unwrap_or_else(|error| panic!("edit {}: {error}", self.title()));
    }

    /// Somebody changes it: a JSON patch, which the API server may refuse.
    pub async fn patched(&self, patch: Value) -> kube::Result<Value> {
        let parameters = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
        let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).unwrap());
        let changed = self.api.patch(&self.name, &parameters, &patch).await?;
        Ok(serde_json::to_value(changed).unwrap())
    }

    /// Sets or, with null, removes an annotation.
    pub async fn annotate(&self, key: &str, value: impl Into<Value>) {
        self.edit(json!({"metadata": {"annotations": {key: value.into()}}})).await;
    }

    /// Waits until it is there.
    pub async fn appears(&self, limit: Duration) -> Value {
        eventually(limit, &format!("{} appears", self.title()), async || self.find().await.ok_or("nothing".to_owned()))
            .await
    }

    /// Waits until there is another one of its name.
    pub async fn is_made_again(&self, old_uid: &str, limit: Duration) -> Value {
        eventually(limit, &format!("{} is made again", self.title()), async || {
            let found = self.find().await.ok_or("nothing")?;
            if found["metadata"]["uid"] == old_uid { Err("the old one".to_owned()) } else { Ok(found) }
        })
        .await
    }

    /// Waits until it is gone.
    pub async fn disappears(&self, limit: Duration) {
        let what = format!("{} disappears", self.title());
        eventually(limit, &what, async || self.find().await.map_or(Ok(()), |found| Err(brief(&found)))).await;
    }

    /// Stays the same object for a while, and nobody deletes it.
    pub async fn survives(&self, period: Duration) {
        let uid = self.uid().await;
        always(period, &format!("{} stays", self.title()), async || {
            let now = self.find().await.ok_or("it is gone")?;
            let same = now["metadata"]["uid"] == uid && now["metadata"]["deletionTimestamp"].is_null();
            if same { Ok(()) } else { Err(brief(&now)) }
        })
        .await;
    }

    /// Is deleted, and stays for a while, because something holds it.
    pub async fn survives_deletion(&self, period: Duration) {
        always(period, &format!("{} is held", self.title()), async || {
            let now = self.find().await.ok_or("it is gone")?;
            if now["metadata"]["deletionTimestamp"].is_null() { Err(brief(&now)) } else { Ok(()) }
        })
        .await;
    }

    /// Stays absent for a while.
    pub async fn stays_away(&self, period: Duration) {
        let what = format!("{} stays away", self.title());
        always(period, &what, async || self.find().await.map_or(Ok(()), |found| Err(brief(&found)))).await;
    }

    /// Waits until `expected` holds of it.
    pub async fn becomes(&self, limit: Duration, what: &str, expected: impl Fn(&Value) -> bool) -> Value {
        eventually(limit, &format!("{} {what}", self.title()), async || {
            let found = self.find().await.ok_or("nothing")?;
            if expected(&found) { Ok(found) } else { Err(brief(&found)) }
        })
        .await
    }

    /// Stays the very same version for a while.
    pub async fn stays_untouched(&self, period: Duration) {
        let before = self.at("/metadata/resourceVersion").await;
        always(period, &format!("{} is not touched", self.title()), async || {
            let now = self.find().await.ok_or("it is gone")?;
            if now["metadata"]["resourceVersion"] == before { Ok(()) } else { Err(brief(&now)) }
        })
        .await;
    }
}

/// An object without what nobody wants to read in a failed test.
pub fn brief(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object.to_string()
}
