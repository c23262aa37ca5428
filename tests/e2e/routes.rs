//! Clients come to a registry by a name, through a proxy that is configured from the registry's Ingress, or from its route of a Gateway, and from nothing
//! else: as the Ingress controller of the Kubernetes project does it, and as the Gateway API asks of its implementations.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};
use testbed::image::{Compression, Image, Layer};
use testbed::sandbox::{Place, Process};

use crate::client::Person;
use crate::cluster::{Cluster, node, wait, words};
use crate::place::{no_frontend, program_of_nginx};
use crate::pushing::refuses_strangers;
use crate::registry::Registry;

#[tokio::test]
async fn images_go_through_a_proxy_that_only_knows_the_ingress() {
    let Some(cluster) = cluster_with_a_proxy().await else { return };
    let host = "gate.routed.svc.cluster.local";
    let route = json!({"ingress": {"hosts": [host], "controller": "IngressNginx"}});
    let registry = cluster.registry("routed", "team-a", json!({"route": route})).await.ready().await;
    assert_eq!(registry.status().await.address.as_deref(), Some(host));
    leads_to_the_node(&cluster, "routed", 443).await;
    let folder = tempfile::tempdir().unwrap();
    let ingress: Ingress = registry.own().get("team-a").await.unwrap();
    let proxy = Proxy::of_ingress(&registry, &json!(ingress), folder.path()).await.starts(&cluster, folder.path());

    takes_and_gives_images_at(&registry, host, &registry.bundle().await, &proxy).await;
    // As pods of the namespace log in.
    let pull: Value = serde_json::from_str(&registry.secret("team-a-pull").await[".dockerconfigjson"]).unwrap();
    assert!(pull["auths"][host].is_object());
    // The Service is a way, too.
    refuses_strangers(&registry).await;
    registry.admin().await.pulls("team/app:1").await;
    proxy.kill().unwrap();
}

#[tokio::test]
async fn images_go_through_a_proxy_that_only_knows_the_route_of_its_gateway() {
    let Some(cluster) = cluster_with_a_proxy().await else { return };
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let read =
        || testbed::tools::gateway_definitions(&["httproutes", "backendtlspolicies"], &testbed::Progress::auto());
    for text in tokio::task::spawn_blocking(read).await.unwrap().unwrap() {
        definitions.create(&PostParams::default(), &serde_saphyr::from_str(&text).unwrap()).await.unwrap();
    }
    // Not at the usual port: the manifest says so, and clients do.
    let (name, host) = ("gate.gated.svc.cluster.local", "gate.gated.svc.cluster.local:8443");
    let route = json!({"gateway": {"hosts": [name], "parentRefs": [{"name": "public"}]}});
    let registry =
        cluster.registry("gated", "team-a", json!({"route": route, "addresses": [host]})).await.ready().await;
    assert_eq!(registry.status().await.address.as_deref(), Some(host));
    leads_to_the_node(&cluster, "gated", 8443).await;
    let folder = tempfile::tempdir().unwrap();
    // The Gateway's own certificate.
    let shown = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    fs::write(folder.path().join("shown.crt"), shown.cert.pem()).unwrap();
    fs::write(folder.path().join("shown.key"), shown.signing_key.serialize_pem()).unwrap();
    let [route, policy] = ["HTTPRoute", "BackendTLSPolicy"].map(|kind| of_gateway_api(&cluster, kind));
    let (route, policy) = (route.get("team-a").await.unwrap(), policy.get("team-a").await.unwrap());
    let proxy = Proxy::of_route(&registry, &json!(route), &json!(policy), folder.path()).await;
    let proxy = proxy.starts(&cluster, folder.path());

    takes_and_gives_images_at(&registry, host, &shown.cert.pem(), &proxy).await;
    proxy.kill().unwrap();
}

/// What every registry does for its owner, at this address, whose certificate has this authority.
async fn takes_and_gives_images_at(registry: &Registry, host: &str, authority: &str, proxy: &Process) {
    let login = registry.secret("team-a-admin").await;
    let admin = Person::new(registry).at(host).trusting(authority).logged_in("admin", &login["password"]);
    wait("the proxy answers", async || {
        proxy.check().map_err(|error| format!("{error:#}"))?;
        match admin.sees("/v2/").await.as_str() {
            "200" => Ok(()),
            other => Err(format!("{other}; {}", proxy.last_words(5))),
        }
    })
    .await;
    let pushed = admin.pushes("team/app:1", "through the proxy").await;
    assert_eq!(admin.pulls("team/app:1").await, pushed);
    // Larger than a proxy's usual limit.
    let layers = vec![Layer::new().file("filler", 0o644, incompressible(8 << 20))];
    let large = Image { layers, compression: Compression::Gzip, ..Image::default() };
    let digest = admin.tries_to_push("team/large:1", &large).await.unwrap();
    assert_eq!(admin.pulls("team/large:1").await, digest);
    let stranger = Person::new(registry).at(host).trusting(authority);
    assert_eq!(stranger.sees("/v2/").await, "401");
}

async fn cluster_with_a_proxy() -> Option<Cluster> {
    let cluster = node("runs a proxy on the node").await?;
    if no_frontend().is_some_and(testbed::skip_because) { None } else { Some(cluster) }
}

fn of_gateway_api(cluster: &Cluster, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind);
    let plural = if kind.kind == "HTTPRoute" { "httproutes" } else { "backendtlspolicies" };
    Api::namespaced_with(cluster.client.clone(), "gated", &ApiResource::from_gvk_with_plural(&kind, plural))
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

/// A headless Service without pods, whose only endpoint is the node: the cluster's DNS leads its name there.
async fn leads_to_the_node(cluster: &Cluster, namespace: &str, port: u16) {
    let address = cluster.place.node().sandbox().node_address().unwrap().to_string();
    let ports = json!([{"name": "https", "port": port}]);
    let service = json!({"metadata": {"name": "gate"}, "spec": {"clusterIP": "None", "ports": ports}});
    cluster.create::<Service>(namespace, service).await;
    let slice = json!({
        "metadata": {"name": "gate", "labels": {"kubernetes.io/service-name": "gate"}},
        "addressType": "IPv4", "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": ports,
    });
    cluster.create::<EndpointSlice>(namespace, slice).await;
}

/// What a proxy is told: the rest is nginx's own default. Its certificate is in `shown.crt`, its key in `shown.key`, whom it trusts in `trusted.crt`.
struct Proxy {
    host: String,
    port: u16,
    /// Scheme, address and port.
    backend: String,
    /// For requests.
    limits: String,
    /// For the connection to the backend.
    verification: String,
}

impl Proxy {
    /// For the first host, its certificate, where requests go, and what the annotations say or leave to the controller's defaults.
    async fn of_ingress(registry: &Registry, ingress: &Value, folder: &Path) -> Self {
        let annotations: BTreeMap<String, String> =
            serde_json::from_value(ingress["metadata"]["annotations"].clone()).unwrap();
        let says = |name: &str| annotations.get(&format!("nginx.ingress.kubernetes.io/{name}")).map(String::as_str);
        let path = &ingress["spec"]["rules"][0]["http"]["paths"][0];
        assert_eq!((&path["path"], &path["pathType"]), (&json!("/"), &json!("Prefix")));
        let service = &path["backend"]["service"];
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
        let mut verification = String::new();
        if let Some(secret) = says("proxy-ssl-secret") {
            write(secret.strip_prefix(&format!("{}/", registry.namespace)).unwrap(), "ca.crt", "trusted.crt").await;
            verification = format!(
                "proxy_ssl_verify {}; proxy_ssl_verify_depth {}; proxy_ssl_name {};",
                says("proxy-ssl-verify").unwrap_or("off"),
                says("proxy-ssl-verify-depth").unwrap_or("1"),
                says("proxy-ssl-name").unwrap_or("$proxy_host"),
            );
        }
        let scheme = says("backend-protocol").unwrap_or("HTTP").to_lowercase();
        Self {
            host: tls["hosts"][0].as_str().unwrap().to_owned(),
            port: 443,
            backend: backend(registry, &scheme, &service["name"], &service["port"]["number"]).await,
            limits: format!(
                "client_max_body_size {}; proxy_request_buffering {}; proxy_read_timeout {}s; proxy_send_timeout {}s;",
                says("proxy-body-size").unwrap_or("1m"),
                says("proxy-request-buffering").unwrap_or("on"),
                says("proxy-read-timeout").unwrap_or("60"),
                says("proxy-send-timeout").unwrap_or("60"),
            ),
            verification,
        }
    }

    /// The same for a route and the policy of its Service. An implementation limits no body unless somebody tells it to.
    async fn of_route(registry: &Registry, route: &Value, policy: &Value, folder: &Path) -> Self {
        let rule = &route["spec"]["rules"][0];
        assert_eq!(rule["matches"][0]["path"], json!({"type": "PathPrefix", "value": "/"}));
        assert_eq!(rule["timeouts"]["request"], "0s");
        let (service, policy) = (&rule["backendRefs"][0], &policy["spec"]);
        assert_eq!(
            (&policy["targetRefs"][0]["kind"], &policy["targetRefs"][0]["name"]),
            (&json!("Service"), &service["name"])
        );
        let bundle = policy["validation"]["caCertificateRefs"][0]["name"].as_str().unwrap();
        let bundle = registry.own::<ConfigMap>().get(bundle).await.unwrap();
        fs::write(folder.join("trusted.crt"), &bundle.data.unwrap()["ca.crt"]).unwrap();
        let name = policy["validation"]["hostname"].as_str().unwrap();
        Self {
            host: route["spec"]["hostnames"][0].as_str().unwrap().to_owned(),
            port: 8443,
            backend: backend(registry, "https", &service["name"], &service["port"]).await,
            limits: "client_max_body_size 0; proxy_request_buffering off;".to_owned(),
            verification: format!("proxy_ssl_verify on; proxy_ssl_name {name}; proxy_ssl_server_name on;"),
        }
    }

    /// nginx with this configuration, in the node's network.
    fn starts(&self, cluster: &Cluster, folder: &Path) -> Process {
        let Self { host, port, backend, limits, verification } = self;
        let at = |name: &str| folder.join(name).display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {}; ", at(kind)))
            .collect();
        let trusted = if verification.is_empty() {
            String::new()
        } else {
            format!("proxy_ssl_trusted_certificate {};", at("trusted.crt"))
        };
        let configuration = format!(
            "daemon off; user root; pid {pid}; error_log stderr; events {{}}
http {{
    access_log off; {temporary}
    server {{
        listen {port} ssl; server_name {host}; ssl_certificate {certificate}; ssl_certificate_key {key};
        {limits}
        location / {{ proxy_pass {backend}; proxy_http_version 1.1; proxy_set_header Host $http_host; {trusted} {verification} }}
    }}
}}
",
            pid = at("pid"),
            certificate = at("shown.crt"),
            key = at("shown.key"),
        );
        fs::write(folder.join("nginx.conf"), configuration).unwrap();
        let sandbox = cluster.place.node().sandbox();
        let mut command = sandbox.command(Place::Inside, program_of_nginx());
        command.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(folder);
        sandbox.start(&format!("proxy-{port}"), command).unwrap()
    }
}

async fn backend(registry: &Registry, scheme: &str, service: &Value, port: &Value) -> String {
    let service = wait("the Service has an address", async || {
        registry.own::<Service>().get(service.as_str().unwrap_or_default()).await.map_err(words)
    })
    .await;
    format!("{scheme}://{}:{port}", service.spec.unwrap().cluster_ip.unwrap())
}
