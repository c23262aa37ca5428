//! The charts: an upgrade, and an install that may only look at the namespaces it was given.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, OPERATOR, SYSTEM, cluster, stays};

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
    registry.change(json!({"auth": {"bcryptCost": 6}})).await;
    registry.is("Settled").await;
    assert_eq!(registry.pod().await.metadata.uid, pod.metadata.uid);
    assert_eq!(registry.deployment().await.metadata.generation, deployment.metadata.generation);
    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_install_for_one_namespace_does_the_same_with_roles_only() {
    if testbed::skip(testbed::Mode::Node) {
        return;
    }
    let cluster = Cluster::beside_the_shared_one().await;
    cluster.namespace("served").await;
    cluster.install(&["watch.namespaces={served}"]).await;

    let release = ListParams::default().labels(&format!("app.kubernetes.io/instance={OPERATOR}"));
    let roles = Api::<ClusterRole>::all(cluster.client.clone()).list(&release).await.unwrap();
    let bindings = Api::<ClusterRoleBinding>::all(cluster.client.clone()).list(&release).await.unwrap();
    assert_eq!((roles.items.len(), bindings.items.len()), (0, 0), "the release holds no right over the whole cluster");
    assert!(may_read_secrets(&cluster, "served").await);
    assert!(!may_read_secrets(&cluster, "not-served").await);

    let unserved = cluster.registry("not-served", "team-a", json!({})).await;
    let registry = cluster.another("served", "team-a", json!({})).await.ready().await;
    crate::pushing::takes_and_gives_images(&registry).await;
    crate::pushing::refuses_strangers(&registry).await;
    crate::pulling::serves_the_kubelet(&registry).await;
    crate::keeping::survives(&registry).await;
    stays("the operator does not look at other namespaces", async || match unserved.api().get("team-a").await {
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
