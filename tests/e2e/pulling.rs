//! The kubelet pulls.

use serde_json::json;

use crate::cluster::node;
use crate::registry::Registry;

#[tokio::test]
async fn the_kubelet_pulls_with_the_pull_secret_and_says_why_it_cannot() {
    let Some(cluster) = node("makes the node trust a registry").await else { return };
    let registry = cluster.registry("pulling", "team-a", json!({})).await.ready().await;

    serves_the_kubelet(&registry).await;
}

/// What every registry does for the pods of its namespace.
pub(crate) async fn serves_the_kubelet(registry: &Registry) {
    let other = registry.cluster.another(&registry.namespace, "team-b", json!({})).await.ready().await;
    registry.admin().await.pushes("team/app:1", "to be run").await;
    let pull = format!("{}-pull", registry.name);

    registry.runs("without-trust", "team/app:1", Some(&pull)).await;
    registry.is_refused("without-trust", "x509: certificate signed by unknown authority").await;

    registry.trusted_by_the_node(&registry.bundle().await).await;
    registry.runs("without-secret", "team/app:1", None).await;
    registry.runs("with-another-hosts-secret", "team/app:1", Some(&format!("{}-pull", other.name))).await;
    registry.runs("with-a-missing-tag", "team/app:2", Some(&pull)).await;
    registry.is_refused("without-secret", "authorization failed: no basic auth credentials").await;
    registry.is_refused("with-another-hosts-secret", "authorization failed: no basic auth credentials").await;
    registry.is_refused("with-a-missing-tag", "team/app:2: not found").await;

    registry.runs("with-secret", "team/app:1", Some(&pull)).await;
    registry.started("with-secret").await;
}
