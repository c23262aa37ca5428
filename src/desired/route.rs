//! What leads clients outside of the cluster to the registry's Service: an Ingress, or a route of the Gateway API with what makes the Gateway speak TLS to
//! the registry.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use serde_json::{Value, json};

use super::{Hold, Object, ServingCertificate, kinds, object, some};
use crate::api::{GatewayMode, IngressController};
use crate::model::route::{self, Gateway, Route};
use crate::model::{Child, Resolved};
use crate::pki::facts::CertificateFacts;
use crate::pki::import::covers;

/// How a proxy speaks to the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Plain HTTP.
    Plain,
    /// TLS.
    Tls {
        /// A name that the registry's certificate covers.
        name: String,
        /// Whether the bundle says whom to trust; otherwise it is an authority that systems know.
        has_bundle: bool,
    },
}

impl Backend {
    /// How it is, for a route to these hosts; `None` while there is no certificate.
    #[must_use]
    pub fn of(registry: &Resolved, hosts: &[String], served: Option<&ServingCertificate>) -> Option<Self> {
        if !registry.has_tls() {
            return Some(Self::Plain);
        }
        let served = served?;
        let [.., own, _] = registry.service_names();
        // One of your own may lack the Service's names. Otherwise they are best: they are in it from the beginning, and a new host is not at once.
        let facts = CertificateFacts::of_pem(&served.chain).ok();
        let is_covered = |host: &&String| facts.as_ref().is_some_and(|facts| covers(&facts.dns_names, host));
        let name = [&own].into_iter().chain(hosts).find(is_covered).unwrap_or(&own).clone();
        Some(Self::Tls { name, has_bundle: served.ca.is_some() })
    }
}

/// The objects of a route, in the order in which they are to be written: no route before what protects it.
#[must_use]
pub fn build(registry: &Resolved, route: &Route, backend: &Backend) -> Vec<Object> {
    match route {
        Route::Ingress(wanted) => vec![ingress(registry, wanted, backend)],
        Route::Gateway(wanted) if wanted.mode == GatewayMode::Passthrough => vec![tls_route(registry, wanted)],
        Route::Gateway(wanted) => {
            let policy = match backend {
                Backend::Plain => None,
                Backend::Tls { name, has_bundle } => Some(backend_tls_policy(registry, name, *has_bundle)),
            };
            policy.into_iter().chain([http_route(registry, wanted)]).collect()
        }
    }
}

fn ingress(registry: &Resolved, wanted: &route::Ingress, backend: &Backend) -> Object {
    let mut annotations = match wanted.controller {
        Some(IngressController::IngressNginx) => ingress_nginx(registry, backend),
        None => BTreeMap::new(),
    };
    annotations.extend(wanted.annotations.clone());
    let mut metadata = registry.metadata(Child::Route);
    metadata.annotations = some(annotations);
    let service = IngressServiceBackend {
        name: registry.name.child(Child::Service),
        port: Some(ServiceBackendPort { number: Some(registry.service.port), ..ServiceBackendPort::default() }),
    };
    let rule = |host: &String| IngressRule {
        host: Some(host.clone()),
        http: Some(HTTPIngressRuleValue {
            paths: vec![HTTPIngressPath {
                path: Some("/".to_owned()),
                path_type: "Prefix".to_owned(),
                backend: IngressBackend { service: Some(service.clone()), ..IngressBackend::default() },
            }],
        }),
    };
    let shown = wanted.secret.clone().or_else(|| registry.has_tls().then(|| registry.name.child(Child::Tls)));
    let ingress = Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: wanted.class.clone(),
            rules: Some(wanted.hosts.iter().map(rule).collect()),
            tls: shown.map(|secret| vec![IngressTLS { hosts: Some(wanted.hosts.clone()), secret_name: Some(secret) }]),
            ..IngressSpec::default()
        }),
        ..Ingress::default()
    };
    object(&ingress, Hold::Disposable)
}

/// As <https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/> has them. A layer is one request, of any size.
fn ingress_nginx(registry: &Resolved, backend: &Backend) -> BTreeMap<String, String> {
    let mut set = vec![
        ("proxy-body-size", "0".to_owned()),
        ("proxy-request-buffering", "off".to_owned()),
        ("proxy-read-timeout", "900".to_owned()),
        ("proxy-send-timeout", "900".to_owned()),
    ];
    if let Backend::Tls { name, has_bundle } = backend {
        set.push(("backend-protocol", "HTTPS".to_owned()));
        // It verifies with the ca.crt of a Secret and nothing else, so without a bundle it cannot.
        if *has_bundle {
            let secret = format!("{}/{}", registry.namespace, registry.name.child(Child::Tls));
            set.extend([
                ("proxy-ssl-secret", secret),
                ("proxy-ssl-verify", "on".to_owned()),
                ("proxy-ssl-verify-depth", "5".to_owned()),
                ("proxy-ssl-name", name.clone()),
            ]);
        }
    }
    set.into_iter().map(|(name, value)| (format!("nginx.ingress.kubernetes.io/{name}"), value)).collect()
}

/// A layer takes as long as the client's line needs, so the Gateway must not end its request.
fn http_route(registry: &Resolved, wanted: &Gateway) -> Object {
    let rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [service(registry)],
        "timeouts": {"request": "0s"},
    });
    of_gateway(registry, kinds::HTTP_ROUTE, &route_spec(wanted, &rule))
}

fn tls_route(registry: &Resolved, wanted: &Gateway) -> Object {
    let rule = json!({"backendRefs": [service(registry)]});
    of_gateway(registry, kinds::TLS_ROUTE, &route_spec(wanted, &rule))
}

fn route_spec(wanted: &Gateway, rule: &Value) -> Value {
    json!({"parentRefs": wanted.parents, "hostnames": wanted.hosts, "rules": [rule]})
}

fn service(registry: &Resolved) -> Value {
    json!({"kind": "Service", "name": registry.name.child(Child::Service), "port": registry.service.port})
}

/// Without it a Gateway would send logins in plain text to a port that speaks TLS.
fn backend_tls_policy(registry: &Resolved, name: &str, has_bundle: bool) -> Object {
    let mut validation = json!({"hostname": name});
    if has_bundle {
        let bundle = registry.name.child(Child::CaBundle);
        validation["caCertificateRefs"] = json!([{"group": "", "kind": "ConfigMap", "name": bundle}]);
    } else {
        validation["wellKnownCACertificates"] = json!("System");
    }
    let service = json!({"group": "", "kind": "Service", "name": registry.name.child(Child::Service)});
    let spec = json!({"targetRefs": [service], "validation": validation});
    of_gateway(registry, kinds::BACKEND_TLS_POLICY, &spec)
}

/// Kinds that are not Kubernetes' own have no types here.
fn of_gateway(registry: &Resolved, kind: &'static operator_engine::apply::Kind, spec: &Value) -> Object {
    let metadata = registry.metadata(Child::Route);
    Object {
        kind,
        namespace: None,
        name: registry.name.child(Child::Route),
        hold: Hold::Disposable,
        body: json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata, "spec": spec}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PrivateRegistry;
    use crate::model::{Observed, Settings, resolve};

    fn registry(tls: &Value) -> Resolved {
        let registry: PrivateRegistry = serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a", "namespace": "registries", "uid": "u"},
            "spec": {"tls": tls, "route": {"ingress": {
                "hosts": ["a.example"], "controller": "IngressNginx",
                "annotations": {"nginx.ingress.kubernetes.io/proxy-read-timeout": "60"},
            }}},
        }))
        .unwrap();
        resolve(&registry, &Observed::default(), &Settings::default()).unwrap()
    }

    fn served(chain: &str, ca: Option<&str>) -> ServingCertificate {
        ServingCertificate {
            chain: chain.to_owned(),
            key: String::new().into(),
            ca: ca.map(str::to_owned),
            checksum: String::new(),
            served_request: None,
            issued: None,
            authorities_since: None,
            shared_authority: None,
            signer: None,
        }
    }

    #[test]
    fn a_proxy_asks_for_a_name_that_the_certificate_covers() {
        let registry = registry(&json!({"secret": {"name": "mine"}}));
        let hosts = ["b.example".to_owned(), "registry.example.com".to_owned()];
        let name = |chain: &str| match Backend::of(&registry, &hosts, Some(&served(chain, None))) {
            Some(Backend::Tls { name, has_bundle: false }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name("none that can be read"), "team-a.registries.svc");
        let chain = include_str!("../pki/testdata/p256.crt");
        let facts = CertificateFacts::of_pem(chain).unwrap();
        let covered = facts.dns_names.iter().find(|name| !name.starts_with('*')).unwrap();
        let hosts = ["b.example".to_owned(), covered.clone()];
        let found = Backend::of(&registry, &hosts, Some(&served(chain, Some(""))));
        assert_eq!(found, Some(Backend::Tls { name: covered.clone(), has_bundle: true }));
        assert_eq!(Backend::of(&registry, &hosts, None), None, "there is none yet");
    }

    #[test]
    fn the_users_annotations_win_and_without_a_bundle_nothing_claims_to_verify() {
        let registry = registry(&json!({}));
        let route = registry.route.clone().unwrap();
        let annotations = |backend: &Backend| {
            let [object] = &build(&registry, &route, backend)[..] else { panic!() };
            object.body["metadata"]["annotations"].clone()
        };
        let tls = |has_bundle| Backend::Tls { name: "team-a.registries.svc".to_owned(), has_bundle };
        let verified = annotations(&tls(true));
        assert_eq!(verified["nginx.ingress.kubernetes.io/proxy-read-timeout"], "60");
        assert_eq!(verified["nginx.ingress.kubernetes.io/proxy-ssl-verify"], "on");
        assert_eq!(verified["nginx.ingress.kubernetes.io/proxy-ssl-secret"], "registries/team-a-tls");
        let unverified = annotations(&tls(false));
        assert_eq!(unverified["nginx.ingress.kubernetes.io/backend-protocol"], "HTTPS");
        assert!(unverified["nginx.ingress.kubernetes.io/proxy-ssl-verify"].is_null());
        assert!(annotations(&Backend::Plain)["nginx.ingress.kubernetes.io/backend-protocol"].is_null());
    }
}
