//! The examples work as they are, and a tool that applies them again and again finds nothing to do.

use std::path::{Path, PathBuf};

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Namespace, documents, namespace};
use crate::given::{Company, DAY};
use crate::object::resource;
use crate::quiet::look_again;
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually};

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    found.push(folder.join("gitops/registry.yaml"));
    // Here is no cert-manager: `cert_manager` has a test of its own for it.
    found.retain(|path| !path.ends_with("cert-manager.yaml"));
    found.sort();
    found
}

/// Without what an API server or a controller adds by itself.
fn wish(object: &DynamicObject) -> Value {
    let mut object = serde_json::to_value(object).unwrap();
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object
}

impl Namespace {
    async fn apply_as(&self, manager: &str, object: &Value, dry_run: bool) -> DynamicObject {
        let name = object["metadata"]["name"].as_str().unwrap();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.name, &resource(object["kind"].as_str().unwrap()));
        let parameters = PatchParams { dry_run, ..PatchParams::apply(manager) };
        api.patch(name, &parameters, &Patch::Apply(object)).await.unwrap()
    }

    /// What the examples expect of a cluster.
    async fn is_as_the_examples_expect(&self) {
        let class = json!({"metadata": {"name": "shared"}, "provisioner": testbed::provisioner::PROVISIONER, "parameters": {"volume": "local"}});
        let classes: Api<k8s_openapi::api::storage::v1::StorageClass> = Api::all(self.client.clone());
        classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
        self.own_certificate("registry-example-com", &["registry.example.com"]).await;
    }

    /// As a person does with the authority of a company.
    async fn signs_what_is_asked(&self, company: &Company) {
        let secrets = self.names("Secret").await;
        for name in self.names("ConfigMap").await {
            let Some(registry) = name.strip_suffix("-csr") else { continue };
            let answer = format!("{registry}-signed");
            if !secrets.contains(&answer) {
                let request = self.object("ConfigMap", &name).at("/data/tls.csr").await;
                self.secret(&answer, &[("tls.crt", &company.signs(request.as_str().unwrap(), DAY))]).await;
            }
        }
    }

    async fn gives_addresses(&self) {
        for (number, name) in self.names("Service").await.into_iter().enumerate() {
            let service = self.object("Service", &name);
            if service.at("/spec/type").await == "LoadBalancer"
                && service.at("/status/loadBalancer/ingress").await.is_null()
            {
                testbed::fake_kubelet::load_balancer(&self.client, &self.name, &name, &format!("192.0.2.{number}"))
                    .await
                    .unwrap();
            }
        }
    }
}

#[tokio::test]
async fn every_example_settles_and_applying_it_again_changes_nothing() {
    let Some(team) = namespace("examples").await else { return };
    let operator = team.operator().await;
    team.is_as_the_examples_expect().await;
    let company = Company::new();
    let mut applied = Vec::new();
    for file in examples() {
        for mut object in documents(&std::fs::read_to_string(&file).unwrap()) {
            if object["kind"] == "Namespace" {
                continue;
            }
            object["metadata"]["namespace"] = json!(team.name);
            team.apply_as("kubectl", &object, false).await;
            applied.push(object);
        }
    }
    let registries: Vec<_> = applied.iter().filter(|object| object["kind"] == "PrivateRegistry").collect();
    assert!(registries.len() >= 10);
    eventually(PATIENCE, "every example is ready", async || {
        team.gives_addresses().await;
        team.signs_what_is_asked(&company).await;
        for registry in &registries {
            let registry = Registry::named(&team, registry["metadata"]["name"].as_str().unwrap());
            let ready = registry.condition("Ready").await;
            if ready["status"] != "True" {
                return Err(format!("{}: {ready}", registry.name));
            }
        }
        Ok(())
    })
    .await;
    team.settles().await;

    for object in &applied {
        let live = team.object(object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let live = live.api.get(&live.name).await.unwrap();
        let again = team.apply_as("kubectl", object, true).await;
        assert_eq!(wish(&again), wish(&live), "applying the example again would change something");
    }
    let mark = team.mark().await;
    for (round, object) in registries.iter().enumerate() {
        team.apply_as("kubectl", object, false).await;
        look_again(&operator, &Registry::named(&team, object["metadata"]["name"].as_str().unwrap()), round).await;
    }
    team.settles().await;
    assert_eq!(team.written_since(mark).await, []);
}
