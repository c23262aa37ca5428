//! The charts: an upgrade, and the rights of an install for all namespaces or for those that it was given.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, OPERATOR, SYSTEM, UNSERVED, cluster, has_roles_only, stays};

#[tokio::test]
async fn a_chart_upgrade_replaces_the_operator_and_no_pod_of_a_registry() {
    let Some(cluster) = cluster().await else { return };
    let registry = cluster.registry("upgrades", "team-a", json!({})).await.ready().await;
    let admin = registry.admin().await;
    let pushed = admin.pushes("team/app:1", "kept").await;
    let (pod, deployment) = (registry.pod().await, registry.deployment().await);
    let operator = cluster.operator_pods().await;

    cluster.upgrade(&["concurrency=4", "podAnnotations.example=changed"]).await;

    let now = cluster.operator_pods().await;
    assert_ne!(now[0].metadata.name, operator[0].metadata.name, "another operator");
    registry.change(json!({"auth": {"htpasswd": {"bcryptCost": 6}}})).await;
    registry.is("Settled").await;
    assert_eq!(registry.pod().await.metadata.uid, pod.metadata.uid);
    assert_eq!(registry.deployment().await.metadata.generation, deployment.metadata.generation);
    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

#[tokio::test]
async fn the_install_holds_the_rights_that_its_values_say_and_no_others() {
    let Some(cluster) = cluster().await else { return };
    let release = ListParams::default()
        .labels(&format!("app.kubernetes.io/instance={OPERATOR},app.kubernetes.io/name={OPERATOR}"));
    let roles = Api::<ClusterRole>::all(cluster.client.clone()).list(&release).await.unwrap().items;
    let bindings = Api::<ClusterRoleBinding>::all(cluster.client.clone()).list(&release).await.unwrap().items;
    let served = cluster.registry("served", "team-a", json!({})).await.ready().await;
    let elsewhere = cluster.registry(UNSERVED, "team-a", json!({})).await;

    assert!(may_read_secrets(&cluster, &served.namespace).await);
    if !has_roles_only() {
        assert!(may_read_secrets(&cluster, UNSERVED).await);
        elsewhere.ready().await;
        return;
    }
    assert_eq!((roles.len(), bindings.len()), (0, 0), "the release holds no right over the whole cluster");
    assert!(!may_read_secrets(&cluster, UNSERVED).await);
    stays("the operator does not look at other namespaces", async || match elsewhere.api().get("team-a").await {
        Ok(object) if object.status.is_none() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

async fn may_read_secrets(cluster: &Cluster, namespace: &str) -> bool {
    let user = format!("system:serviceaccount:{SYSTEM}:{OPERATOR}");
    let question = json!({"metadata": {}, "spec": {"user": user, "resourceAttributes": {"namespace": namespace, "verb": "get", "resource": "secrets"}}});
    let question: SubjectAccessReview = serde_json::from_value(question).unwrap();
    let answer = Api::all(cluster.client.clone()).create(&PostParams::default(), &question).await.unwrap();
    answer.status.unwrap().allowed
}
