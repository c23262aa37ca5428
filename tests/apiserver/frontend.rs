//! A front end serves a renewed certificate while its pods run, and is switched on and off without a trace.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::cluster::namespace;
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually};

const TOLD: &str = "privateregistry.dev/tls-checksum";

fn fronted() -> Value {
    json!({"frontend": {"nginx": {}}})
}

impl Registry<'_> {
    /// Of which certificates the kubelets of its pods were told.
    async fn kubelets_know(&self) -> Vec<String> {
        let ours = ListParams::default().labels(&format!("privateregistry.dev/registry={}", self.name));
        let api: Api<Pod> = Api::namespaced(self.namespace.client.clone(), &self.namespace.name);
        let pods = api.list(&ours).await.unwrap().items;
        pods.into_iter().filter_map(|pod| pod.metadata.annotations?.remove(TOLD)).collect()
    }

    async fn are_told(&self, before: &[String]) -> Vec<String> {
        eventually(PATIENCE, "kubelets are told of the certificate", async || {
            let known = self.kubelets_know().await;
            if known.is_empty() || known == before { Err(format!("{known:?}")) } else { Ok(known) }
        })
        .await
    }
}

#[tokio::test]
async fn a_renewal_behind_a_front_end_is_told_to_kubelets_and_rolls_nothing() {
    let Some(team) = namespace("frontend-renewed").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", fronted()).await.ready().await;
    let generation = registry.deployment().at("/metadata/generation").await;
    let serial = registry.object.at("/status/certificate/serial").await;
    assert_eq!(registry.kubelets_know().await, Vec::<String>::new(), "pods begin with the present one");

    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;
    let first = registry.are_told(&[]).await;
    registry.object.annotate("privateregistry.dev/renew", "leaf-2").await;
    registry.are_told(&first).await;

    registry.says("CertificateReady", "True", "Valid").await;
    let registry = registry.ready().await;
    assert_ne!(registry.object.at("/status/certificate/serial").await, serial);
    assert_eq!(registry.deployment().at("/metadata/generation").await, generation);
    assert_eq!(registry.deployment().at("/metadata/annotations").await[TOLD], Value::Null);
}

#[tokio::test]
async fn kubelets_that_cannot_be_told_of_a_certificate_are_late_and_that_is_said() {
    let Some(team) = namespace("frontend-untold").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", fronted()).await.ready().await;
    let role = team.object("Role", "operator-private-registry-operator");
    let rules = role.at("/rules").await;
    let mut fewer = rules.clone();
    for rule in fewer.as_array_mut().unwrap().iter_mut().filter(|rule| rule["resources"] == json!(["pods"])) {
        rule["verbs"] = json!(["list", "watch"]);
    }
    role.edit(json!({"rules": fewer})).await;

    registry.object.annotate("privateregistry.dev/renew", "leaf-1").await;
    eventually(PATIENCE, "it is told that pods follow later", async || {
        let words = registry.condition("CertificateReady").await["message"].as_str().unwrap_or_default().to_owned();
        if words.contains("within two minutes") { Ok(()) } else { Err(words) }
    })
    .await;
    registry.says("CertificateReady", "True", "Valid").await;

    role.edit(json!({"rules": rules})).await;
    registry.are_told(&[]).await;
    eventually(PATIENCE, "nothing is said of it any more", async || {
        let words = registry.condition("CertificateReady").await["message"].as_str().unwrap_or_default().to_owned();
        if words.contains("within two minutes") { Err(words) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_front_end_comes_and_goes_without_a_trace() {
    let Some(team) = namespace("frontend-switched").await else { return };
    let _operator = team.operator().await;
    let registry = team.registry("team-a", json!({})).await.ready().await;
    let config = registry.child("Secret", "-config");
    let (pods, data) = (registry.deployment().at("/spec/template").await, config.at("/data").await);
    let tls = registry.tls().at("/data").await;

    registry.apply(fronted()).await.unwrap();
    let deployment = registry.deployment();
    let has_nginx = |deployment: &Value| deployment["spec"]["template"]["spec"]["containers"][1]["name"] == "frontend";
    let with = deployment.becomes(PATIENCE, "it has nginx", has_nginx).await;
    let template = &with["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"][TOLD], Value::Null, "a new certificate rolls nothing");
    assert_eq!(template["spec"]["containers"][0]["ports"], Value::Null);
    let registry = registry.ready().await;
    assert_eq!(registry.tls().at("/data").await, tls);

    registry.apply(json!({})).await.unwrap();
    registry
        .deployment()
        .becomes(PATIENCE, "its pods are as before", |deployment| deployment["spec"]["template"] == pods)
        .await;
    assert_eq!(config.at("/data").await, data);
    assert_eq!(registry.tls().at("/data").await, tls);
    registry.ready().await;
}
