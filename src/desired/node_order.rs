//! What the agents on nodes are to write: an order for one registry, in the operator's own namespace. [`crate::node::orders`] reads it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::secrets::BUNDLE_KEY;
use super::{Hold, Object, object};
use crate::api::NodeRuntime;
use crate::model::{HostPort, Resolved, TrustedNodes, labels};
use crate::node::orders::{self, WrittenHost};
use crate::node::trust_files::Runtime;

/// Under which names nodes are to trust a registry.
#[derive(Debug, Default)]
pub struct Hosts {
    /// Those that it may have, and where nodes reach them.
    pub given: Vec<WrittenHost>,
    /// The first of those that it does not have.
    pub refused: Option<Refused>,
}

/// A host that a registry does not have on nodes.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// No administrator allows it.
    NotAllowed(String),
    /// Another registry has it.
    Taken(String),
}

/// The names that end in `svc`, which nobody else can have, and the Service's addresses; of `spec.addresses` those that the administrator allows. A short name
/// such as `team-a.registries` might be a host of somebody else's.
#[must_use]
pub fn hosts(
    registry: &Resolved,
    service: &Value,
    allows: impl Fn(&HostPort) -> bool,
    taken: &BTreeSet<String>,
) -> Hosts {
    let ips = service.pointer("/spec/clusterIPs").and_then(Value::as_array).into_iter().flatten();
    let ips: Vec<_> = ips.filter_map(Value::as_str).filter(|ip| *ip != "None").collect();
    let ips: Vec<_> = ips.into_iter().map(|ip| registry.at_the_services_port(ip)).collect();
    let at = |host: String, endpoint: &str| WrittenHost { host, endpoint: endpoint.to_owned() };
    let mut hosts = Hosts::default();
    if let Some(first) = ips.first() {
        let [_, _, name, long] = registry.service_names();
        hosts.given.extend([name, long].map(|name| at(registry.at_the_services_port(&name), first)));
    }
    hosts.given.extend(ips.iter().map(|ip| at(ip.clone(), ip)));
    for host in &registry.addresses {
        let text = host.to_string();
        if hosts.given.iter().any(|given| given.host == text) {
            continue;
        }
        match (taken.contains(&text), allows(host)) {
            (true, _) => _ = hosts.refused.get_or_insert(Refused::Taken(text)),
            (false, false) => _ = hosts.refused.get_or_insert(Refused::NotAllowed(text)),
            (false, true) => hosts.given.push(at(text.clone(), &text)),
        }
    }
    hosts
}

/// `trust.NAMESPACE.NAME`.
#[must_use]
pub fn name(registry: &Resolved) -> String {
    orders::name(&registry.namespace, registry.name.as_str())
}

/// The order, in the operator's namespace `home`, and its name, which comes back in reports: another bundle, host or selector has another one.
#[must_use]
pub fn build(
    registry: &Resolved,
    home: &str,
    bundle: &str,
    hosts: &[WrittenHost],
    nodes: &TrustedNodes,
) -> (Object, String) {
    let owner = format!("{}/{}", registry.namespace, registry.name);
    let runtimes = nodes.runtimes.iter().map(|runtime| match runtime {
        NodeRuntime::Containerd => Runtime::Containerd,
        NodeRuntime::Docker => Runtime::Docker,
        NodeRuntime::Podman => Runtime::Podman,
    });
    let (selector, runtimes) = (nodes.selector.as_ref(), runtimes.collect());
    let ordered = orders::render(&owner, bundle, hosts, selector, &runtimes);
    let print = Sha256::digest(ordered).iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let text = orders::render(&owner, &print, hosts, selector, &runtimes);
    let mut labels = labels::copied();
    let (label, value) = orders::LABEL;
    labels.insert(label.to_owned(), value.to_owned());
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(registry)),
            labels: Some(registry.labels(labels)),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(BUNDLE_KEY.to_owned(), bundle.to_owned()), (orders::KEY.to_owned(), text)])),
        ..ConfigMap::default()
    };
    if home == registry.namespace {
        return (object(&map, Hold::Disposable), print);
    }
    (Object { namespace: Some(home.to_owned()), ..object(&map, Hold::Kept) }, print)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::PrivateRegistry;
    use crate::model::{Observed, Settings, resolve};
    use crate::node::trust_files::Owner;

    fn registry(spec: &Value) -> Resolved {
        let registry: PrivateRegistry = serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a", "namespace": "registries", "uid": "u"}, "spec": spec,
        }))
        .unwrap();
        resolve(&registry, &Observed::default(), &Settings::default()).unwrap()
    }

    fn pairs(hosts: &Hosts) -> Vec<(&str, &str)> {
        hosts.given.iter().map(|host| (host.host.as_str(), host.endpoint.as_str())).collect()
    }

    #[test]
    fn nodes_get_the_names_that_nobody_else_can_have_and_of_others_what_is_allowed() {
        let addresses = json!({"addresses": ["registry.example.com", "other.example.com", "10.0.0.7:5000"]});
        let service = json!({"spec": {"clusterIPs": ["10.0.0.7", "fd00::7"]}});
        let allows = |host: &HostPort| host.as_str() == "registry.example.com";
        let found = hosts(&registry(&addresses), &service, allows, &BTreeSet::new());
        assert_eq!(
            pairs(&found),
            [
                ("team-a.registries.svc:5000", "10.0.0.7:5000"),
                ("team-a.registries.svc.cluster.local:5000", "10.0.0.7:5000"),
                ("10.0.0.7:5000", "10.0.0.7:5000"),
                ("[fd00::7]:5000", "[fd00::7]:5000"),
                ("registry.example.com", "registry.example.com"),
            ]
        );
        assert_eq!(found.refused, Some(Refused::NotAllowed("other.example.com".to_owned())));

        let taken = BTreeSet::from(["registry.example.com".to_owned()]);
        let found = hosts(&registry(&addresses), &service, allows, &taken);
        assert_eq!(found.refused, Some(Refused::Taken("registry.example.com".to_owned())));
        assert!(!found.given.iter().any(|given| given.host.contains("example")));
    }

    #[test]
    fn an_agent_reads_what_is_ordered() {
        let spec = json!({"trust": {"nodes": {"selector": {"matchLabels": {"pool": "build"}}, "runtimes": ["Podman", "Containerd"]}}});
        let registry = registry(&spec);
        let bundle = include_str!("../pki/testdata/company-root.crt");
        let service = json!({"spec": {"clusterIPs": ["10.0.0.7"]}});
        let found = hosts(&registry, &service, |_| false, &BTreeSet::new());
        let (order, print) = build(&registry, "system", bundle, &found.given, registry.trusted_nodes.as_ref().unwrap());
        assert_eq!((order.namespace.as_deref(), order.name.as_str()), (Some("system"), "trust.registries.team-a"));
        let data = serde_json::from_value(order.body["data"].clone()).unwrap();
        let owner = Owner::parse("registries/team-a").unwrap();
        assert_eq!(orders::owner(&order.name), Some(owner.clone()));
        let read = orders::read(&owner, &data).unwrap();
        assert_eq!(read.bundle, print);
        assert_eq!(read.hosts.len(), 3);
        assert!(read.selects(&BTreeMap::from([("pool".to_owned(), "build".to_owned())])));
        assert!(!read.selects(&BTreeMap::new()));
        assert_eq!(read.runtimes.unwrap().len(), 2);
        assert_eq!(order.body["metadata"]["labels"]["privateregistry.dev/trust"], "order");

        let (_, of_fewer) =
            build(&registry, "system", bundle, &found.given[..1], registry.trusted_nodes.as_ref().unwrap());
        assert_ne!(of_fewer, print, "a report about other hosts says nothing of these");
        let (own, _) = build(&registry, "registries", bundle, &found.given, registry.trusted_nodes.as_ref().unwrap());
        assert_eq!((own.namespace, own.hold), (None, Hold::Disposable));
    }
}
