//! A definition that is newer than the operator: it lets in what this operator cannot decode.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use private_registry_operator::api;
use serde_json::{Value, json};

use crate::cluster::{Namespace, namespace_of_its_own_cluster};
use crate::registry::Registry;
use crate::wait::{PATIENCE, eventually, within};

impl Namespace {
    /// From now on the labels of pods may be anything, and images may lie in an object store.
    async fn installs_a_newer_definition(&self) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = api::crd().metadata.name.unwrap();
        let anything = json!({"x-kubernetes-preserve-unknown-fields": true});
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/pod/properties/labels";
        let storage = path.replace("pod/properties/labels", "storage");
        let one = "has(self.s3) != (has(self.persistentVolumeClaim) || has(self.existingClaim) || has(self.emptyDir))";
        let operations = json!([
            {"op": "replace", "path": path, "value": anything},
            {"op": "add", "path": format!("{storage}/properties/s3"), "value": {"type": "object", "properties": {"bucket": {"type": "string"}}}},
            {"op": "replace", "path": format!("{storage}/x-kubernetes-validations"), "value": [{"rule": one}]},
        ]);
        let patch = Patch::<Value>::Json(serde_json::from_value(operations).unwrap());
        definitions.patch(&name, &PatchParams::default(), &patch).await.unwrap();
    }
}

/// The label of the pods that only the manifest gives.
async fn follows(registry: &Registry<'_>, tier: &str) {
    let label = |live: &Value| live.pointer("/spec/template/metadata/labels/tier") == Some(&json!(tier));
    registry.deployment().becomes(PATIENCE, &format!("has the tier {tier}"), label).await;
}

fn tier(tier: &str) -> Value {
    json!({"pod": {"labels": {"tier": tier}}})
}

#[tokio::test]
async fn a_registry_that_cannot_be_decoded_keeps_what_it_has_and_the_others_go_on() {
    let Some(team) = namespace_of_its_own_cluster("newer").await else { return };
    let operator = team.operator().await;
    let newer = team.registry("newer", tier("one")).await.ready().await;
    let other = team.registry("other", tier("one")).await.ready().await;

    team.installs_a_newer_definition().await;
    eventually(PATIENCE, "the newer definition is served", async || {
        newer.apply(json!({"pod": {"labels": 7}})).await.map_err(|error| error.to_string())
    })
    .await;

    let words = operator.readiness_says("cannot be decoded").await;
    assert!(words.contains("newer/newer"), "{words}");
    assert!(operator.log().contains("its manifest is not followed"), "{}", operator.log());
    let uid = newer.deployment().uid().await;
    newer.deployment().delete().await;
    newer.deployment().is_made_again(&uid, within(5)).await;
    follows(&newer, "one").await;
    other.apply(tier("two")).await.unwrap();
    follows(&other, "two").await;

    // An operator that never could decode it knows nothing of it, and so takes nothing away.
    operator.stop().await;
    let operator = team.operator().await;
    operator.readiness_says("newer/newer").await;
    other.apply(tier("three")).await.unwrap();
    follows(&other, "three").await;
    assert!(!newer.children().await.is_empty());
    follows(&newer, "one").await;

    newer.apply(tier("two")).await.unwrap();
    follows(&newer, "two").await;
    newer.ready().await;
    eventually(PATIENCE, "readiness says nothing of it any more", async || {
        let words = operator.ready().await;
        if words.contains("cannot be decoded") { Err(words) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn what_this_version_does_not_know_is_not_taken_for_absent_and_retain_holds_all_the_same() {
    let Some(team) = namespace_of_its_own_cluster("unknown").await else { return };
    let operator = team.operator().await;
    let running =
        team.registry("running", json!({"deletionPolicy": "Delete", "storage": {"emptyDir": {}}})).await.ready().await;
    team.installs_a_newer_definition().await;
    let elsewhere = json!({"storage": {"s3": {"bucket": "images"}}, "replicas": 1});
    // A watch that was begun before the definition changed shows objects without the new field.
    operator.stop().await;
    let operator = team.operator().await;
    let fresh = Registry::named(&team, "fresh");
    eventually(PATIENCE, "the newer definition is served", async || {
        fresh.apply(elsewhere.clone()).await.map_err(|error| error.to_string())
    })
    .await;

    operator.readiness_says("unknown/fresh").await;
    assert!(operator.log().contains("spec.storage.s3 is not known to version"), "{}", operator.log());
    team.settles().await;
    assert!(fresh.children().await.is_empty(), "nothing is made from a manifest that is not understood");

    // What ran goes on, and the switch to Retain counts although the rest of the manifest is not understood.
    running.object.edit(json!({"spec": {"deletionPolicy": "Retain", "pod": {"labels": 7}}})).await;
    operator.readiness_says("unknown/running").await;
    running
        .ca()
        .becomes(PATIENCE, "outlives its owner", |live| {
            live["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
    running.object.delete().await;
    running.object.disappears(PATIENCE).await;
    running.deployment().disappears(crate::wait::GARBAGE).await;
    running.ca().survives(within(1)).await;
}
