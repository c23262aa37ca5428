//! What `spec.config` and `spec.extraConfig` say, the registry does: it ignores a key that it doesn't know without a word.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::cluster::cluster;
use crate::registry::Registry;

/// What the registry's process has written so far.
async fn log(registry: &Registry) -> String {
    let pod = registry.pod().await.metadata.name.unwrap();
    registry.own::<Pod>().logs(&pod, &Default::default()).await.unwrap()
}

#[tokio::test]
async fn what_a_registry_allows_is_as_its_configuration_says() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("configured", "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "first").await;
    let refusal = admin.tries_to_delete(&format!("team/app@{pushed}")).await.unwrap_err();
    assert!(refusal.contains("UNSUPPORTED") || refusal.contains("405"), "{refusal}");
    assert_eq!(admin.sees("/v2/_catalog?n=3").await, "200");
    assert!(log(&registry).await.contains("\"GET /v2/_catalog?n=3 HTTP"), "requests are logged");

    let config = json!({"readOnly": true, "accessLog": false});
    registry.change(json!({"config": config, "extraConfig": {"catalog": {"maxentries": 2}}})).await;
    registry.is("Settled").await;
    let refusal = admin.tries_to_push("team/app:2", &Default::default()).await.unwrap_err();
    assert!(refusal.contains("UNSUPPORTED") || refusal.contains("405"), "{refusal}");
    assert_eq!(admin.pulls("team/app:1").await, pushed, "pulling goes on");
    assert_eq!(admin.sees("/v2/_catalog?n=3").await, "400", "more than the catalog's limit");
    assert!(!log(&registry).await.contains("\"GET /v2/_catalog"), "requests are no longer logged");

    assert_eq!(admin.sees_with(&["--tls-max", "1.2"], "/v2/").await, "200");
    registry
        .change(json!({"config": {"allowDeletes": true, "readOnly": false}, "tls": {"minimumVersion": "VersionTLS13"}}))
        .await;
    registry.is("Settled").await;
    assert_eq!(admin.sees("/v2/").await, "200");
    let refusal = admin.sees_with(&["--tls-max", "1.2"], "/v2/").await;
    assert!(refusal.contains("protocol version"), "an older version of TLS: {refusal}");
    admin.tries_to_delete(&format!("team/app@{pushed}")).await.unwrap();
    let missing = admin.tries_to_pull("team/app:1").await.unwrap_err();
    assert!(missing.contains("MANIFEST_UNKNOWN") || missing.contains("404"), "{missing}");
    admin.pushes("team/app:2", "second").await;
}
