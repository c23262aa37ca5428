//! Registries beside each other, beside foreign objects, and under other names, ports and types of Service.

use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{cluster, node, stays, wait};
use crate::registry::Registry;

#[tokio::test]
async fn two_registries_of_a_namespace_share_nothing() {
    let Some(cluster) = cluster().await else { return };
    let one = cluster.registry("shared", "team-a", json!({})).await;
    let two = cluster.another("shared", "team-b", json!({})).await.ready().await;
    one.is("Settled").await;
    let (in_one, in_two) = (one.admin().await, two.admin().await);

    let first = in_one.pushes("team/app:1", "of one").await;
    let second = in_two.pushes("team/app:1", "of two").await;
    assert_ne!(first, second);
    assert_eq!((in_one.pulls("team/app:1").await, in_two.pulls("team/app:1").await), (first, second.clone()));
    let login = one.secret("team-a-admin").await;
    assert_eq!(two.user("admin", &login["password"]).await.sees("/v2/").await, "401");

    one.delete().await;
    assert_eq!(two.is("Settled").await.status, "True");
    assert_eq!(in_two.pulls("team/app:1").await, second);
}

#[tokio::test]
async fn a_name_of_48_characters_works_like_any_other() {
    let Some(cluster) = cluster().await else { return };
    let name = format!("{:x<48}", "a-very-long-name");
    assert_eq!(name.len(), 48);
    let registry = cluster.registry("long", &name, json!({})).await.ready().await;

    crate::pushing::takes_and_gives_images(&registry).await;
}

#[tokio::test]
async fn a_foreign_service_of_the_same_name_is_not_touched() {
    let Some(cluster) = cluster().await else { return };
    cluster.namespace("foreign").await;
    let spec = json!({"selector": {"app": "something-else"}, "ports": [{"port": 80}]});
    let foreign: Service = cluster.create("foreign", json!({"metadata": {"name": "team-a"}, "spec": spec})).await;

    let registry = cluster.another("foreign", "team-a", json!({})).await;
    let refused = registry.is("NotOurs").await;
    assert!(refused.message.contains("Service") && refused.message.contains("team-a"), "{}", refused.message);
    assert_eq!(registry.condition("Stalled", "NotOurs").await.status, "True");
    stays("the Service is as it was", async || {
        let now = registry.own::<Service>().get("team-a").await.unwrap();
        if now == foreign { Ok(()) } else { Err(json!(now).to_string()) }
    })
    .await;

    registry.own::<Service>().delete("team-a", &DeleteParams::default()).await.unwrap();
    registry.annotate("example.com/look", "again").await;
    registry.is("Settled").await;
}

#[tokio::test]
async fn the_type_of_the_service_can_be_changed_both_ways() {
    let Some(cluster) = node("calls the node by its address").await else { return };
    let address = cluster.place.node().sandbox().node_address().unwrap();
    let own = json!({"certificate": {"ipAddresses": [address]}});
    let registry = cluster.registry("types", "team-a", json!({"tls": own})).await.ready().await;
    let (admin, before) = (registry.admin().await, service(&registry).await);
    let pushed = admin.pushes("team/app:1", "kept").await;

    registry.change(json!({"service": {"type": "NodePort"}})).await;
    let port = wait("the Service has a node port", async || {
        let now = service(&registry).await;
        now["spec"]["ports"][0]["nodePort"].as_i64().ok_or_else(|| now["spec"].to_string())
    })
    .await;
    registry.is("Settled").await;
    let login = registry.secret("team-a-admin").await;
    let outside = registry.stranger().await.at(&format!("{address}:{port}")).logged_in("admin", &login["password"]);
    assert_eq!(outside.pulls("team/app:1").await, pushed, "at the node's address");

    registry.change(json!({"service": {"type": "ClusterIP"}})).await;
    wait("the Service has no node port", async || {
        let now = service(&registry).await;
        if now["spec"]["ports"][0]["nodePort"].is_null() { Ok(()) } else { Err(now["spec"].to_string()) }
    })
    .await;
    registry.is("Settled").await;
    let now = service(&registry).await;
    assert_eq!(now["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(now["spec"]["clusterIP"], before["spec"]["clusterIP"]);
    assert_eq!(admin.pulls("team/app:1").await, pushed);
}

#[tokio::test]
async fn on_port_443_image_names_need_no_port() {
    let Some(cluster) = node("makes the node trust a registry").await else { return };
    let registry = cluster.registry("standard", "team-a", json!({"service": {"port": 443}})).await.ready().await;
    let registry = Registry { port: 443, ..registry };
    assert_eq!(registry.host(), "team-a.standard.svc");
    let admin = registry.admin().await;

    let pushed = admin.pushes("team/app:1", "without a port").await;

    assert_eq!(admin.pulls("team/app:1").await, pushed);
    registry.trusted_by_the_node(&registry.bundle().await).await;
    registry.runs("puller", "team/app:1", Some("team-a-pull")).await;
    registry.started("puller").await;
}

#[tokio::test]
async fn a_load_balancers_address_is_waited_for_and_is_in_the_first_certificate() {
    let Some(cluster) = node("acts as a load balancer").await else { return };
    // Nobody balances here: an address of the node's own stands for one.
    let address = cluster.place.node().sandbox().node_address().unwrap().to_string();
    let registry = cluster.registry("balanced", "team-a", json!({"service": {"type": "LoadBalancer"}})).await;
    registry.is("WaitingForLoadBalancer").await;

    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    let patch = Patch::Merge(&status);
    registry.own::<Service>().patch_status("team-a", &PatchParams::default(), &patch).await.unwrap();
    registry.is("Settled").await;

    assert_eq!(registry.status().await.address, Some(format!("{address}:5000")));
    let pushed = registry.admin().await.pushes("team/app:1", "balanced").await;
    let login = registry.secret("team-a-admin").await;
    let port = service(&registry).await["spec"]["ports"][0]["nodePort"].to_string();
    let outside = registry.stranger().await.at(&format!("{address}:{port}")).logged_in("admin", &login["password"]);
    assert_eq!(outside.pulls("team/app:1").await, pushed);
}

async fn service(registry: &Registry) -> Value {
    json!(registry.own::<Service>().get(&registry.name).await.unwrap())
}
