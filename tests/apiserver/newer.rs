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
    /// From now on the labels of pods may be anything.
    async fn installs_a_newer_definition(&self) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = api::crd().metadata.name.unwrap();
        let anything = json!({"x-kubernetes-preserve-unknown-fields": true});
        let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/pod/properties/labels";
        let operations = json!([{"op": "replace", "path": path, "value": anything}]);
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
