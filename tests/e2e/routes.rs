//! Clients come to a registry by a name on port 443, through a proxy that is configured from the registry's Ingress and from nothing else, as the Ingress
//! controller of the Kubernetes project does it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};
use testbed::image::{Compression, Image, Layer};
use testbed::sandbox::Place;

use crate::client::Person;
use crate::cluster::{Cluster, node, wait};
use crate::place::{no_frontend, program_of_nginx};
use crate::pushing::refuses_strangers;
use crate::registry::Registry;

/// A name that the cluster's DNS leads to the node, where the proxy listens.
const HOST: &str = "gate.routed.svc.cluster.local";

#[tokio::test]
async fn images_go_through_a_proxy_that_only_knows_the_ingress() {
    let Some(cluster) = node("runs a proxy on the node").await else { return };
    if no_frontend().is_some_and(testbed::skip_because) {
        return;
    }
    let route = json!({"ingress": {"hosts": [HOST], "controller": "IngressNginx"}});
    let registry = cluster.registry("routed", "team-a", json!({"route": route})).await.ready().await;
    assert_eq!(registry.status().await.address.as_deref(), Some(HOST));
    leads_to_the_node(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let ingress: Ingress = registry.own().get("team-a").await.unwrap();
    let configuration = as_ingress_nginx_does(&registry, &json!(ingress), folder.path()).await;
    let file = folder.path().join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    let sandbox = cluster.place.node().sandbox();
    let mut command = sandbox.command(Place::Inside, program_of_nginx());
    command.arg("-c").arg(&file).arg("-p").arg(folder.path());
    let proxy = sandbox.start("ingress-controller", command).unwrap();

    let login = registry.secret("team-a-admin").await;
    let admin =
        Person::new(&registry).at(HOST).trusting(&registry.bundle().await).logged_in("admin", &login["password"]);
    wait("the proxy answers", async || {
        proxy.check().map_err(|error| format!("{error:#}"))?;
        match admin.sees("/v2/").await.as_str() {
            "200" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    // As pods of the namespace log in.
    let pull: Value = serde_json::from_str(&registry.secret("team-a-pull").await[".dockerconfigjson"]).unwrap();
    assert!(pull["auths"][HOST].is_object());

    let pushed = admin.pushes("team/app:1", "through the proxy").await;
    assert_eq!(admin.pulls("team/app:1").await, pushed);
    // Larger than a proxy's usual limit.
    let filler = incompressible(8 << 20);
    let layers = vec![Layer::new().file("filler", 0o644, filler)];
    let large = Image { layers, compression: Compression::Gzip, ..Image::default() };
    let digest = admin.tries_to_push("team/large:1", &large).await.unwrap();
    assert_eq!(admin.pulls("team/large:1").await, digest);
    let stranger = Person::new(&registry).at(HOST).trusting(&registry.bundle().await);
    assert_eq!(stranger.sees("/v2/").await, "401");
    // The Service is a way, too.
    refuses_strangers(&registry).await;
    assert_eq!(registry.admin().await.pulls("team/app:1").await, pushed);
    proxy.kill().unwrap();
}

/// So many bytes by xorshift, which gzip makes no smaller.
fn incompressible(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
}

/// A headless Service without pods, whose only endpoint is the node.
async fn leads_to_the_node(cluster: &Cluster) {
    let address = cluster.place.node().sandbox().node_address().unwrap().to_string();
    let ports = json!([{"name": "https", "port": 443}]);
    let service = json!({"metadata": {"name": "gate"}, "spec": {"clusterIP": "None", "ports": ports}});
    cluster.create::<Service>("routed", service).await;
    let slice = json!({
        "metadata": {"name": "gate", "labels": {"kubernetes.io/service-name": "gate"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": ports,
    });
    cluster.create::<EndpointSlice>("routed", slice).await;
}

/// The configuration that an Ingress comes to: for each host its certificate, where requests go, and what the annotations say. What no annotation says is
/// nginx's own default, or the controller's.
async fn as_ingress_nginx_does(registry: &Registry, ingress: &Value, folder: &Path) -> String {
    let annotations: BTreeMap<String, String> =
        serde_json::from_value(ingress["metadata"]["annotations"].clone()).unwrap();
    let says = |name: &str| annotations.get(&format!("nginx.ingress.kubernetes.io/{name}")).map(String::as_str);
    let at = |name: &str| folder.join(name).display().to_string();
    let path = &ingress["spec"]["rules"][0]["http"]["paths"][0];
    assert_eq!((&path["path"], &path["pathType"]), (&json!("/"), &json!("Prefix")));
    let backend = &path["backend"]["service"];
    let service: Service = registry.own().get(backend["name"].as_str().unwrap()).await.unwrap();
    let address = service.spec.unwrap().cluster_ip.unwrap();
    let tls = &ingress["spec"]["tls"][0];
    assert_eq!(tls["hosts"][0], ingress["spec"]["rules"][0]["host"]);
    let secrets = registry.own::<Secret>();
    let write = async |secret: &str, key: &str, name: &str| {
        let data = secrets.get(secret).await.unwrap().data.unwrap();
        fs::write(folder.join(name), &data[key].0).unwrap();
    };
    let shown = tls["secretName"].as_str().unwrap();
    write(shown, "tls.crt", "shown.crt").await;
    write(shown, "tls.key", "shown.key").await;
    let mut verified = String::new();
    if let Some(secret) = says("proxy-ssl-secret") {
        let secret = secret.strip_prefix(&format!("{}/", registry.namespace)).unwrap();
        write(secret, "ca.crt", "trusted.crt").await;
        verified = format!(
            "proxy_ssl_trusted_certificate {}; proxy_ssl_verify {}; proxy_ssl_verify_depth {}; proxy_ssl_name {};",
            at("trusted.crt"),
            says("proxy-ssl-verify").unwrap_or("off"),
            says("proxy-ssl-verify-depth").unwrap_or("1"),
            says("proxy-ssl-name").unwrap_or("$proxy_host"),
        );
    }
    let scheme = says("backend-protocol").unwrap_or("HTTP").to_lowercase();
    format!(
        "daemon off; user root; pid {pid}; error_log stderr; events {{}}
http {{
    access_log off; client_body_temp_path {body}; proxy_temp_path {temp}; fastcgi_temp_path {temp}; uwsgi_temp_path {temp}; scgi_temp_path {temp};
    server {{
        listen 443 ssl; server_name {host};
        ssl_certificate {certificate}; ssl_certificate_key {key};
        client_max_body_size {limit}; proxy_request_buffering {buffered};
        proxy_read_timeout {read}s; proxy_send_timeout {send}s; proxy_http_version 1.1;
        location / {{ proxy_pass {scheme}://{address}:{port}; proxy_set_header Host $host; {verified} }}
    }}
}}
",
        pid = at("pid"),
        body = at("body"),
        temp = at("temp"),
        host = ingress["spec"]["rules"][0]["host"].as_str().unwrap(),
        certificate = at("shown.crt"),
        key = at("shown.key"),
        limit = says("proxy-body-size").unwrap_or("1m"),
        buffered = says("proxy-request-buffering").unwrap_or("on"),
        read = says("proxy-read-timeout").unwrap_or("60"),
        send = says("proxy-send-timeout").unwrap_or("60"),
        port = backend["port"]["number"],
    )
}
