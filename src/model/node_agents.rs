//! What the operator knows of the agents on nodes, and which hosts an administrator lets registries have there: who has a host on a node decides whom its
//! container runtime believes.

use super::HostPort;

/// The agents on nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAgents {
    /// Where they run, and report.
    pub namespace: String,
    /// Where they look for orders: the operator's own namespace.
    pub orders: String,
    /// Which hosts of `spec.addresses` and `spec.route` registries may have on nodes.
    pub hosts: Vec<HostRule>,
    /// Where the pods are that prove trust by a pull on each node.
    pub proofs: String,
    /// Whether it is proved.
    pub is_proved: bool,
}

impl NodeAgents {
    /// Whether a registry of this namespace may have this host.
    #[must_use]
    pub fn allow(&self, namespace: &str, host: &HostPort) -> bool {
        self.hosts.iter().any(|rule| rule.allows(namespace, host))
    }
}

/// Which host the registries of a namespace may have on nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    /// The namespace; `None`: any.
    namespace: Option<String>,
    /// A host with its port, if it has one; with `*.` before it every name that is one label longer.
    host: String,
}

impl HostRule {
    /// Reads `NAMESPACE=HOST`; `*` is any namespace.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (namespace, host) =
            text.split_once('=').ok_or("must be NAMESPACE=HOST, for instance registries=registry.example.com:5000")?;
        let bare = host.strip_prefix("*.").unwrap_or(host);
        HostPort::parse(bare).map_err(|rule| format!("{bare:?} {rule}"))?;
        Ok(Self { namespace: (namespace != "*").then(|| namespace.to_owned()), host: host.to_owned() })
    }

    fn allows(&self, namespace: &str, host: &HostPort) -> bool {
        let fits = match self.host.strip_prefix('*') {
            Some(end) => {
                let label = host.as_str().strip_suffix(end);
                label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }
            None => host.as_str() == self.host,
        };
        fits && self.namespace.as_deref().is_none_or(|own| own == namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_the_hosts_that_it_was_given_and_no_others() {
        let allows = |rule: &str, namespace: &str, host: &str| {
            HostRule::parse(rule).unwrap().allows(namespace, &HostPort::parse(host).unwrap())
        };
        for (rule, namespace, host, expected) in [
            ("r=registry.example.com", "r", "registry.example.com", true),
            ("r=registry.example.com", "s", "registry.example.com", false),
            ("r=registry.example.com", "r", "registry.example.com:5000", false),
            ("r=registry.example.com:5000", "r", "registry.example.com:5000", true),
            ("*=registry.example.com", "any", "registry.example.com", true),
            ("r=*.example.com:5000", "r", "a.example.com:5000", true),
            ("r=*.example.com:5000", "r", "a.b.example.com:5000", false),
            ("r=*.example.com:5000", "r", "example.com:5000", false),
            ("r=*.example.com", "r", "badexample.com", false),
            ("r=192.0.2.7:5000", "r", "192.0.2.7:5000", true),
        ] {
            assert_eq!(allows(rule, namespace, host), expected, "{rule} {namespace} {host}");
        }
        for wrong in ["registry.example.com", "r=", "r=*", "r=*.", "r=a b", "r=a/b", "r=docker"] {
            assert!(HostRule::parse(wrong).is_err(), "{wrong}");
        }
    }
}
