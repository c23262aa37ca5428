//! What the operator asks of nodes: one ConfigMap for each registry, read and judged. Whoever may write them may be wrong or worse, so nothing
//! here is taken over as it stands: names become checked types, certificates are read and written anew.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt as _};
use serde::{Deserialize, Serialize};

use super::trust_files::{Owner, Runtime};
use crate::model::HostPort;
use crate::pki::Bundle;

/// The label of orders, and its value.
pub const LABEL: (&str, &str) = ("privateregistry.dev/trust", "order");
/// Under which key an order says what is to be done.
pub const KEY: &str = "order.json";
/// How the names of orders begin.
const PREFIX: &str = "trust.";
/// Most orders that are followed; beyond it, those that come later in the alphabet are refused.
pub const MOST_ORDERS: usize = 1000;
/// Longest bundle, in bytes: some fifty authorities.
const LONGEST_BUNDLE: usize = 64 << 10;
/// Longest text beside it.
const LONGEST_TEXT: usize = 32 << 10;
/// Most names of one registry.
const MOST_HOSTS: usize = 64;
/// Longest name of a bundle.
const LONGEST_PRINT: usize = 128;

/// What every node that is meant should trust for one registry.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The operator's name for the bundle, to be given back in reports.
    pub bundle: String,
    /// Who is to be trusted.
    pub authorities: Bundle,
    /// Under which names.
    pub hosts: Vec<Host>,
    /// For which runtimes; `None`: for those that the node has.
    pub runtimes: Option<BTreeSet<Runtime>>,
    nodes: Selector,
}

/// What image names begin with, and where a node connects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// As it stands before the first slash.
    pub host: HostPort,
    /// The same, where nothing has to be mapped.
    pub endpoint: HostPort,
}

/// An order that is not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The operator's name for the bundle, as far as it can be read.
    pub bundle: String,
    /// Why, and what to do.
    pub why: String,
}

/// Orders by their registry.
pub type Orders = BTreeMap<Owner, Result<Order, Refused>>;

/// `order.json`. What is unknown is not ignored: it may be a restriction.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    registry: String,
    bundle: String,
    hosts: Vec<WrittenHost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<LabelSelector>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtimes: Option<BTreeSet<Runtime>>,
}

/// A host as it is ordered, before it is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenHost {
    /// As it stands before the first slash of an image name.
    pub host: String,
    /// Where a node connects.
    pub endpoint: String,
}

/// The selector by which orders are watched.
#[must_use]
pub fn selector() -> String {
    format!("{}={}", LABEL.0, LABEL.1)
}

/// What the order for a registry is called.
#[must_use]
pub fn name(namespace: &str, registry: &str) -> String {
    format!("{PREFIX}{namespace}.{registry}")
}

/// What stands under [`KEY`] of the order for `registry`, namespace and name. No runtimes: those that the node has.
///
/// # Panics
/// Never: an order is always JSON.
#[must_use]
pub fn render(
    registry: &str,
    bundle: &str,
    hosts: &[WrittenHost],
    nodes: Option<&LabelSelector>,
    runtimes: &BTreeSet<Runtime>,
) -> String {
    let written = Written {
        registry: registry.to_owned(),
        bundle: bundle.to_owned(),
        hosts: hosts.to_vec(),
        nodes: nodes.cloned(),
        runtimes: (!runtimes.is_empty()).then(|| runtimes.clone()),
    };
    serde_json::to_string(&written).expect("an order is JSON")
}

/// Whether what stands under [`KEY`] of an order names this host.
#[must_use]
pub fn names(text: &str, host: &str) -> bool {
    serde_json::from_str::<Written>(text).is_ok_and(|written| written.hosts.iter().any(|given| given.host == host))
}

/// The registry that an order of this name is for; `None` if no order can be called so.
#[must_use]
pub fn owner(name: &str) -> Option<Owner> {
    // A namespace has no dots.
    let (namespace, name) = name.strip_prefix(PREFIX)?.split_once('.')?;
    Owner::parse(&format!("{namespace}/{name}"))
}

/// Reads an order.
///
/// # Errors
/// Why it is not followed. No text of it is quoted but names of hosts.
pub fn read(owner: &Owner, data: &BTreeMap<String, String>) -> Result<Order, Refused> {
    let mut bundle = String::new();
    judged(owner, data, &mut bundle).map_err(|why| Refused { bundle, why: format!("the order is not followed: {why}") })
}

fn judged(owner: &Owner, data: &BTreeMap<String, String>, bundle: &mut String) -> Result<Order, String> {
    let text = |key: &str, longest: usize| match data.get(key) {
        None => Err(format!("it has no {key}; the operator writes it anew if it is deleted")),
        Some(text) if text.len() > longest => Err(format!("its {key} has more than {longest} bytes")),
        Some(text) => Ok(text.as_str()),
    };
    let written: Written = serde_json::from_str(text(KEY, LONGEST_TEXT)?).map_err(|error| {
        format!(
            "its order.json is not what this version knows (line {}, column {}); upgrade the chart, so that operator and node agents are of one version",
            error.line(),
            error.column()
        )
    })?;
    if written.bundle.is_empty()
        || written.bundle.len() > LONGEST_PRINT
        || !written.bundle.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
    {
        return Err("its bundle is not named by a fingerprint".to_owned());
    }
    bundle.clone_from(&written.bundle);
    if written.registry != owner.to_string() {
        return Err(format!("its name says {owner}, and its content another registry"));
    }
    let authorities = authorities(text("ca.crt", LONGEST_BUNDLE)?)?;
    if written.hosts.is_empty() || written.hosts.len() > MOST_HOSTS {
        return Err(format!("it names {} hosts, and may name 1 to {MOST_HOSTS}", written.hosts.len()));
    }
    let hosts = written.hosts.iter().map(host).collect::<Result<BTreeSet<_>, _>>()?.into_iter().collect::<Vec<_>>();
    if let Some(twice) = hosts.windows(2).find(|pair| pair[0].host == pair[1].host) {
        return Err(format!("it leads {} to two places", twice[0].host));
    }
    let nodes = Selector::try_from(written.nodes.unwrap_or_default())
        .map_err(|_| "its selector of nodes has an operator that does not exist".to_owned())?;
    let runtimes = written.runtimes.filter(|runtimes| !runtimes.is_empty());
    Ok(Order { bundle: written.bundle, authorities, hosts, runtimes, nodes })
}

fn authorities(text: &str) -> Result<Bundle, String> {
    if text.contains("PRIVATE KEY") {
        return Err(
            "its ca.crt holds a private key, which is now known to all nodes: take it out, and replace that key"
                .to_owned(),
        );
    }
    let authorities = Bundle::read(text);
    if authorities == Bundle::default() {
        return Err("its ca.crt holds no certificate that can be read".to_owned());
    }
    Ok(authorities)
}

fn host(written: &WrittenHost) -> Result<Host, String> {
    let parse = |text: &str| match HostPort::parse(text) {
        // Names of folders are compared letter by letter.
        Ok(host) if !text.bytes().any(|byte| byte.is_ascii_uppercase()) => Ok(host),
        // What is no name is not repeated: it may be anything.
        _ => Err("it names a host that is none".to_owned()),
    };
    Ok(Host { host: parse(&written.host)?, endpoint: parse(&written.endpoint)? })
}

impl Order {
    /// Whether a node with these labels is meant.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.nodes.matches(labels)
    }
}

#[cfg(test)]
pub(super) mod testing {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) const CA: &str = include_str!("../pki/testdata/company-root.crt");
    pub(crate) const OTHER_CA: &str = include_str!("../pki/testdata/rsa-root.crt");

    pub(crate) fn team_a() -> Owner {
        Owner::parse("registries/team-a").unwrap()
    }

    pub(crate) fn data(ca: &str, order: &Value) -> BTreeMap<String, String> {
        BTreeMap::from([("ca.crt".to_owned(), ca.to_owned()), ("order.json".to_owned(), order.to_string())])
    }

    pub(crate) fn written(registry: &str, hosts: &[(&str, &str)]) -> Value {
        let hosts: Vec<_> = hosts.iter().map(|(host, endpoint)| json!({"host": host, "endpoint": endpoint})).collect();
        json!({"registry": registry, "bundle": "ab12", "hosts": hosts})
    }

    pub(crate) fn order(registry: &str, hosts: &[(&str, &str)]) -> Order {
        read(&Owner::parse(registry).unwrap(), &data(CA, &written(registry, hosts))).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::testing::{CA, OTHER_CA, data, team_a, written};
    use super::*;

    const HOSTS: &[(&str, &str)] = &[("team-a.registries.svc:5000", "10.96.0.9:5000")];

    #[test]
    fn an_orders_name_says_for_whom_it_is() {
        assert_eq!(owner("trust.registries.team-a"), Some(team_a()));
        for name in [
            "",
            "trust",
            "trust.registries",
            "trust.registries.",
            "trust..team-a",
            "other.registries.team-a",
            "trust.a.b.c",
            "trust.A.b",
        ] {
            assert_eq!(owner(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_read_is_what_was_ordered() {
        let mut text = written("registries/team-a", HOSTS);
        text["nodes"] = json!({"matchLabels": {"pool": "build"}, "matchExpressions": [{"key": "gone", "operator": "NotIn", "values": ["yes"]}]});
        text["runtimes"] = json!(["containerd", "podman"]);
        let order = read(&team_a(), &data(&format!("{CA}{OTHER_CA}"), &text)).unwrap();

        assert_eq!(order.bundle, "ab12");
        assert_eq!(order.authorities, Bundle::read(&format!("{CA}{OTHER_CA}")));
        assert_eq!(order.hosts[0].host.as_str(), HOSTS[0].0);
        assert_eq!(order.hosts[0].endpoint.as_str(), HOSTS[0].1);
        assert_eq!(order.runtimes, Some(BTreeSet::from([Runtime::Containerd, Runtime::Podman])));
        for (labels, is_meant) in [
            (&[("pool", "build")][..], true),
            (&[("pool", "build"), ("gone", "no")], true),
            (&[("pool", "build"), ("gone", "yes")], false),
            (&[("pool", "web")], false),
            (&[], false),
        ] {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(order.selects(&labels), is_meant, "{labels:?}");
        }
    }

    #[test]
    fn what_is_left_out_or_empty_means_every_node_and_every_runtime() {
        let mut text = written("registries/team-a", HOSTS);
        for (nodes, runtimes) in [(json!(null), json!(null)), (json!({}), json!([])), (json!(null), json!(null))] {
            let order = read(&team_a(), &data(CA, &text)).unwrap();
            assert!(order.selects(&BTreeMap::new()));
            assert_eq!(order.runtimes, None);
            (text["nodes"], text["runtimes"]) = (nodes, runtimes);
        }
    }

    #[test]
    fn nobody_is_trusted_with_the_disk() {
        let good = || written("registries/team-a", HOSTS);
        let with = |key: &str, value: serde_json::Value| {
            let mut text = good();
            text[key] = value;
            data(CA, &text)
        };
        let host = |host: &str| with("hosts", json!([{"host": host, "endpoint": "10.96.0.9:5000"}]));
        let endpoint = |endpoint: &str| with("hosts", json!([{"host": "a.example", "endpoint": endpoint}]));
        let key = include_str!("../pki/testdata/p256.key");
        let many: Vec<_> = (0..65).map(|n| json!({"host": format!("h{n}.example"), "endpoint": "a.example"})).collect();
        let two =
            json!([{"host": "a.example", "endpoint": "b.example"}, {"host": "a.example", "endpoint": "c.example"}]);
        let operator = json!({"matchExpressions": [{"key": "a", "operator": "Near"}]});
        for (data, words) in [
            (BTreeMap::new(), "no order.json"),
            (BTreeMap::from([("order.json".to_owned(), good().to_string())]), "no ca.crt"),
            (data("", &good()), "no certificate"),
            (data("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n", &good()), "no certificate"),
            (data(&format!("{CA}{key}"), &good()), "private key"),
            (data(&CA.repeat(200), &good()), "more than 65536 bytes"),
            (with("note", json!("x".repeat(40_000))), "more than 32768 bytes"),
            (with("registry", json!("registries/team-b")), "another registry"),
            (with("bundle", json!("../../x")), "fingerprint"),
            (with("bundle", json!("")), "fingerprint"),
            (with("denied", json!(true)), "upgrade the chart"),
            (with("runtimes", json!(["crio"])), "upgrade the chart"),
            (
                with("hosts", json!([{"host": "a.example", "endpoint": "b.example", "plain": true}])),
                "upgrade the chart",
            ),
            (with("hosts", json!([])), "0 hosts"),
            (with("hosts", json!(many)), "65 hosts"),
            (with("hosts", two), "two places"),
            (with("nodes", operator), "operator"),
            (host("../../../etc/cron.d"), "none"),
            (host(".."), "none"),
            (host("/etc"), "none"),
            (host(".hidden.example"), "none"),
            (host("a.example\u{0}:5000"), "none"),
            (host("A.example:5000"), "none"),
            (host("[FD00::9]:5000"), "none"),
            (host("a.example:5000\n[host.\"https://evil\"]"), "none"),
            (host(""), "none"),
            (host("docker"), "none"),
            (endpoint("b.example\"]\nskip_verify = true"), "none"),
            (endpoint(""), "none"),
        ] {
            let refused = read(&team_a(), &data).unwrap_err();
            assert!(refused.why.contains(words), "{data:?}: {}", refused.why);
            assert!(!refused.why.contains("evil") && !refused.why.contains("BEGIN"), "{}", refused.why);
        }
    }
}
