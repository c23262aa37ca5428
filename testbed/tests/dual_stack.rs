//! A node with both address families: pods, Services, their names, from the node and from pods. Needs root on Linux.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node as NodeObject, Pod, Service};
use kube::{Api, Client};
use serde_json::{Value, json};
use support::{create, has, pod, wait};
use testbed::image::{self, Image, Layer};
use testbed::{Family, Mode, Node, Progress, Tools, node};

const CRANE: &str = "example.test/crane:1";

/// A registry that forgets everything when it ends.
async fn run_registry(client: &Client) {
    let container = json!({"name": "registry", "image": image::REGISTRY, "readinessProbe": {"httpGet": {"path": "/", "port": 5000}, "periodSeconds": 1}});
    create::<Pod>(
        client,
        json!({"metadata": {"name": "registry", "labels": {"app": "registry"}}, "spec": {"containers": [container]}}),
    )
    .await;
}

/// The addresses of a new Service of the registry.
async fn serve(client: &Client, name: &str, families: Value) -> Vec<String> {
    let mut spec = families;
    spec["selector"] = json!({"app": "registry"});
    spec["ports"] = json!([{"port": 5000}]);
    let service = create::<Service>(client, json!({"metadata": {"name": name}, "spec": spec})).await;
    service.spec.unwrap().cluster_ips.unwrap()
}

async fn runs_to_its_end(client: &Client, name: &str, arguments: &[&str]) {
    let container = json!({"name": "main", "image": CRANE, "args": arguments});
    create::<Pod>(client, json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"restartPolicy": "OnFailure", "containers": [container]}})).await;
    let succeeded = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
    pod(client, &format!("app={name}"), "has reached the registry", succeeded).await;
}

#[tokio::test]
async fn a_dual_stack_node_gives_pods_and_services_both_families_and_both_are_reached() {
    if testbed::skip(Mode::Node) {
        return;
    }
    if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
        testbed::skip_because("this machine's kernel has no IPv6");
        return;
    }
    let tools = Tools::ensure(&[Family::Crane], &Progress::auto()).unwrap();
    let crane = Image {
        reference: CRANE.into(),
        layers: vec![Layer::new().file_from("crane", 0o755, tools.path("crane").unwrap())],
        entrypoint: vec!["/crane".into()],
        ..Image::default()
    };
    let node = Node::start(node::Options { dual_stack: true, images: vec![crane], ..node::Options::default() });
    let node = node.await.unwrap();
    let client = node.client().await.unwrap();

    let object = Api::<NodeObject>::all(client.clone()).list(&Default::default()).await.unwrap().items.remove(0);
    let addresses = object.status.unwrap().addresses.unwrap();
    let internal: Vec<_> = addresses.iter().filter(|address| address.type_ == "InternalIP").collect();
    assert_eq!(internal.len(), 2, "{addresses:?}");

    run_registry(&client).await;
    let registry = pod(&client, "app=registry", "is ready", |pod| has(pod, "Ready")).await;
    let ips: Vec<_> = registry.status.unwrap().pod_ips.unwrap().into_iter().map(|ip| ip.ip).collect();
    assert!(ips.len() == 2 && ips[0].starts_with("10.") && ips[1].starts_with("fd00:10:"), "{ips:?}");

    let both = serve(&client, "both", json!({"ipFamilyPolicy": "RequireDualStack"})).await;
    assert!(both[0].starts_with("10.96.") && both[1].starts_with("fd00:10:96::"), "{both:?}");
    let six = serve(&client, "six", json!({"ipFamilies": ["IPv6"]})).await;
    assert!(six.len() == 1 && six[0].starts_with("fd00:10:96::"), "{six:?}");

    for address in [&both[0], &both[1], &six[0]] {
        wait(Duration::from_secs(20), &format!("{address} from the node"), async || {
            let ask =
                format!("exec 3<>/dev/tcp/{address}/5000 && printf 'GET /v2/ HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3");
            let output = node.exec_in_node("timeout", ["2", "bash", "-c", &ask]).await.unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if said.starts_with("HTTP/1.0 200") { Ok(()) } else { Err(format!("{said:?} {output:?}")) }
        })
        .await;
    }
    // By name, and by IPv6 alone: this Service has no other address.
    let catalog = node.exec_in_node("crane", ["catalog", "--insecure", "six.default.svc:5000"]).await.unwrap();
    assert!(catalog.status.success(), "{catalog:?}");
    runs_to_its_end(&client, "asks-six", &["catalog", "--insecure", "six.default.svc:5000"]).await;
    runs_to_its_end(&client, "asks-both", &["catalog", "--insecure", "both.default.svc:5000"]).await;
    node.stop().unwrap();
}
