//! How clients outside of the cluster reach a registry by a name, and which addresses follow from that.

use std::collections::BTreeMap;

use super::{Blocked, Child, Host, HostPort, RegistryName};
use crate::api::{
    GatewayMode, GatewayRef, GatewaySpec, IngressController, IngressSpec, PrivateRegistry, PrivateRegistrySpec,
};

/// What leads clients to the registry's Service.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    /// An Ingress controller.
    Ingress(Ingress),
    /// One Gateway or several.
    Gateway(Gateway),
}

/// An Ingress.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingress {
    /// Its class; `None`: the cluster's default.
    pub class: Option<String>,
    /// Host names, at least one, each once.
    pub hosts: Vec<String>,
    /// Whose annotations it gets.
    pub controller: Option<IngressController>,
    /// The user's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The user's own Secret with the certificate that clients see.
    pub secret: Option<String>,
}

/// A route of the Gateway API.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// The Gateways that take it.
    pub parents: Vec<GatewayRef>,
    /// Host names, at least one, each once.
    pub hosts: Vec<String>,
    /// Where TLS ends.
    pub mode: GatewayMode,
}

impl Route {
    /// Host names, at least one, each once.
    #[must_use]
    pub fn hosts(&self) -> &[String] {
        match self {
            Self::Ingress(ingress) => &ingress.hosts,
            Self::Gateway(gateway) => &gateway.hosts,
        }
    }
}

/// What the manifest asks for.
///
/// # Errors
/// It cannot be followed.
pub(super) fn route(registry: &RegistryName, spec: &PrivateRegistrySpec) -> Result<Option<Route>, Blocked> {
    let Some(asked) = &spec.route else { return Ok(None) };
    let asks_clients = spec.tls.as_ref().is_some_and(|tls| tls.client_ca_secret_ref.is_some());
    let mode = asked.gateway.as_ref().and_then(|gateway| gateway.mode).unwrap_or_default();
    if asks_clients && mode != GatewayMode::Passthrough {
        return Err(Blocked::invalid(
            "spec.tls.clientCASecretRef asks for clients' certificates, which do not reach the registry through a proxy that ends TLS; write spec.route.gateway with mode: Passthrough, or remove one of them",
        ));
    }
    match (&asked.ingress, &asked.gateway) {
        (Some(asked), None) => ingress(registry, asked).map(|ingress| Some(Route::Ingress(ingress))),
        (None, Some(asked)) => {
            let has_tls = spec.tls.as_ref().is_none_or(|tls| tls.none.is_none());
            gateway(asked, has_tls).map(|gateway| Some(Route::Gateway(gateway)))
        }
        _ => Err(Blocked::invalid(
            "spec.route needs exactly one of ingress and gateway; write one of them, or leave spec.route out",
        )),
    }
}

fn ingress(registry: &RegistryName, asked: &IngressSpec) -> Result<Ingress, Blocked> {
    let is_ours = |secret: &String| Child::SECRETS.iter().any(|child| registry.child(*child) == *secret);
    if let Some(secret) = asked.tls_secret_name.as_ref().filter(|secret| is_ours(secret)) {
        return Err(Blocked::invalid(format!(
            "spec.route.ingress.tlsSecretName: Secret {secret} is written by the operator for this registry; leave it out to show {registry}-tls, or name one of your own"
        )));
    }
    Ok(Ingress {
        class: asked.class_name.clone(),
        hosts: hosts("spec.route.ingress.hosts", &asked.hosts)?,
        controller: asked.controller,
        annotations: asked.annotations.clone(),
        secret: asked.tls_secret_name.clone(),
    })
}

fn gateway(asked: &GatewaySpec, has_tls: bool) -> Result<Gateway, Blocked> {
    let mode = asked.mode.unwrap_or_default();
    if mode == GatewayMode::Passthrough && !has_tls {
        return Err(Blocked::invalid(
            "spec.route.gateway.mode: Passthrough leaves TLS to the registry, which speaks none with spec.tls.none; write Terminate, or remove spec.tls.none",
        ));
    }
    if asked.parent_refs.is_empty() {
        return Err(Blocked::invalid("spec.route.gateway.parentRefs names no Gateway; name one"));
    }
    let hosts = hosts("spec.route.gateway.hosts", &asked.hosts)?;
    Ok(Gateway { parents: asked.parent_refs.clone(), hosts, mode })
}

fn hosts(field: &str, given: &[String]) -> Result<Vec<String>, Blocked> {
    if given.is_empty() {
        return Err(Blocked::invalid(format!("{field} is empty; name the host that clients use")));
    }
    let mut hosts = Vec::new();
    for host in given {
        if !is_routed(host) {
            return Err(Blocked::invalid(format!(
                "{field}: {host:?} is no host name in lower case with a dot and without a port; correct it"
            )));
        }
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    Ok(hosts)
}

/// Whether a proxy can tell it from other hosts.
fn is_routed(host: &str) -> bool {
    host.contains('.')
        && HostPort::parse(host).is_ok_and(|read| read.port().is_none() && matches!(read.host(), Host::Name(_)))
}

/// The hosts that a manifest wants to be reached by through a proxy, readable or not.
pub fn routed_hosts(spec: &PrivateRegistrySpec) -> &[String] {
    let route = spec.route.as_ref();
    let of_ingress = route.and_then(|route| route.ingress.as_ref()).map(|ingress| ingress.hosts.as_slice());
    let of_gateway = || route.and_then(|route| route.gateway.as_ref()).map(|gateway| gateway.hosts.as_slice());
    of_ingress.or_else(of_gateway).unwrap_or_default()
}

/// The addresses that a manifest names: the hosts of its route first, each at the port that `spec.addresses` gives it or at the usual one, then the rest of
/// `spec.addresses`.
pub fn written_addresses(registry: &PrivateRegistry) -> Vec<String> {
    let given = &registry.spec.addresses;
    let is_of = |address: &str, host: &str| {
        HostPort::parse(address).is_ok_and(|address| *address.host() == Host::Name(host.to_owned()))
    };
    let mut written: Vec<String> = Vec::new();
    let mut add = |address: &String| {
        if !written.contains(address) {
            written.push(address.clone());
        }
    };
    for host in routed_hosts(&registry.spec).iter().filter(|host| is_routed(host)) {
        let mut listed = given.iter().filter(|address| is_of(address, host)).peekable();
        if listed.peek().is_none() {
            add(host);
        }
        listed.for_each(&mut add);
    }
    given.iter().for_each(add);
    written
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn manifest(spec: &Value) -> PrivateRegistry {
        serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": {"name": "team-a"}, "spec": spec,
        }))
        .unwrap()
    }

    fn read(spec: &Value) -> Result<Option<Route>, Blocked> {
        route(&RegistryName::parse("team-a").unwrap(), &manifest(spec).spec)
    }

    fn ingress(fields: &Value) -> Value {
        json!({"route": {"ingress": fields}})
    }

    #[test]
    fn what_no_proxy_could_follow_names_its_field() {
        let parents = json!([{"name": "public"}]);
        let gateway = |fields: Value| json!({"route": {"gateway": fields}});
        let mut passing = gateway(json!({"parentRefs": parents, "hosts": ["a.example"], "mode": "Passthrough"}));
        assert!(read(&passing).is_ok());
        let mut asking = ingress(&json!({"hosts": ["a.example"]}));
        asking["tls"] = json!({"clientCASecretRef": {"name": "company-clients"}});
        passing["tls"] = asking["tls"].clone();
        assert!(read(&passing).is_ok());
        passing["tls"] = json!({"none": {}});
        for (spec, words) in [
            (json!({"route": {}}), "exactly one of ingress and gateway"),
            (ingress(&json!({"hosts": []})), "spec.route.ingress.hosts is empty"),
            (ingress(&json!({"hosts": ["registry"]})), "with a dot"),
            (ingress(&json!({"hosts": ["a.example:8443"]})), "without a port"),
            (ingress(&json!({"hosts": ["192.0.2.1"]})), "no host name"),
            (ingress(&json!({"hosts": ["*.a.example"]})), "no host name"),
            (ingress(&json!({"hosts": ["A.example"]})), "lower case"),
            (
                ingress(&json!({"hosts": ["a.example"], "tlsSecretName": "team-a-ca"})),
                "spec.route.ingress.tlsSecretName",
            ),
            (gateway(json!({"parentRefs": [], "hosts": ["a.example"]})), "parentRefs"),
            (gateway(json!({"parentRefs": parents, "hosts": ["a.example."]})), "spec.route.gateway.hosts"),
            (passing, "spec.route.gateway.mode"),
            (asking, "mode: Passthrough"),
        ] {
            let blocked = read(&spec).unwrap_err();
            assert_eq!((blocked.reason, blocked.waiting), ("InvalidManifest", false));
            assert!(blocked.message.contains(words), "{spec}: {}", blocked.message);
        }
        assert_eq!(read(&json!({})), Ok(None));
    }

    #[test]
    fn hosts_come_first_and_at_the_port_that_is_written() {
        let hosts = json!({"hosts": ["a.example", "b.example", "a.example"]});
        let addresses = |given: Value| {
            let mut spec = ingress(&hosts);
            spec["addresses"] = given;
            written_addresses(&manifest(&spec))
        };
        assert_eq!(addresses(json!([])), ["a.example", "b.example"]);
        assert_eq!(addresses(json!(["c.example", "b.example:8443"])), ["a.example", "b.example:8443", "c.example"]);
        assert_eq!(addresses(json!(["a.example:1", "a.example"])), ["a.example:1", "a.example", "b.example"]);
        // What cannot be read is left to whoever says so.
        assert_eq!(written_addresses(&manifest(&ingress(&json!({"hosts": ["x"]})))), Vec::<String>::new());
    }
}
