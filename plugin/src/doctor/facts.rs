//! What is found out before anything is judged: plain values. Nothing here asks or decides.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use private_registry_operator::api::{AddressScope, PrivateRegistry, PrivateRegistryStatus};
use private_registry_operator::model::HostPort;
use rustls::pki_types::CertificateDer;

use super::check::Found;
use crate::registry_client::reference::Reference;

/// What is so for every registry of a cluster.
pub(super) struct Cluster {
    /// Version of this program.
    pub(super) own_version: String,
    pub(super) server: Found<Server>,
    /// Whether there is a definition of registries in the version that this program knows.
    pub(super) is_defined: Found<bool>,
    pub(super) operators: Found<Vec<Operator>>,
    /// By whom registries say that they are looked after.
    pub(super) named: Vec<String>,
}

/// An API server.
pub(super) struct Server {
    pub(super) version: String,
    pub(super) skew: Option<SignedDuration>,
}

/// An installation of the operator.
pub(super) struct Operator {
    /// Of its Deployment.
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) ready: i32,
    pub(super) wanted: i32,
}

/// One registry, and the way from here, from pods and from nodes to one of its images. What was not asked, because something before it went wrong or there is
/// no such thing, is `None`.
pub(super) struct Facts {
    pub(super) now: Timestamp,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) registry: Found<PrivateRegistry>,
    /// The image that is followed.
    pub(super) image: Option<Image>,
    /// As whom; nobody where no login is needed.
    pub(super) user: Found<Option<String>>,
    pub(super) here: Here,
    /// The authorities that the cluster publishes.
    pub(super) bundle: Found<Option<String>>,
    /// The certificates that are shown, the registry's own first.
    pub(super) chain: Option<Found<Vec<CertificateDer<'static>>>>,
    /// A pod that is ready.
    pub(super) pod: Found<String>,
    /// Pods behind the Service that are ready.
    pub(super) endpoints: Found<usize>,
    /// What is answered to a login.
    pub(super) answer: Option<Found<Answered>>,
    pub(super) has: Option<Found<Has>>,
    /// Hosts of the logins in `NAME-pull`; `None` if there is no such Secret.
    pub(super) pull_secret: Found<Option<Vec<String>>>,
    /// Which questions about tokens of the cluster the registry's ServiceAccount may not ask, if such tokens are logins.
    pub(super) unasked_reviews: Option<Found<Vec<&'static str>>>,
    pub(super) space: Option<Found<Space>>,
    pub(super) node: Option<Found<Node>>,
    pub(super) pulls: Found<Vec<Pull>>,
}

/// This machine.
#[derive(Default)]
pub(super) struct Here {
    /// What the registry's name leads to.
    pub(super) resolved: Option<Found<Vec<IpAddr>>>,
    /// Whether something takes connections there.
    pub(super) reached: Option<Found<()>>,
    /// The files that make its runtimes trust the registry.
    pub(super) files: Option<Found<Vec<TrustFile>>>,
    /// The authorities that every program here trusts, in PEM.
    pub(super) authorities: String,
}

/// A file that makes a runtime trust a registry.
pub(super) struct TrustFile {
    pub(super) path: String,
    pub(super) is_there: bool,
}

/// What a registry says to a request.
#[derive(Clone)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// For how long it wants not to be asked.
    pub(super) retry_after: Option<String>,
    pub(super) skew: Option<SignedDuration>,
    /// Its own words for an error.
    pub(super) words: String,
}

/// What a registry has under a name.
pub(super) enum Has {
    Image {
        digest: String,
        /// `linux/amd64`; none where only the image's configuration says it.
        platforms: Vec<String>,
    },
    /// No such tag or digest; tags of the repository, if there is such a repository.
    Nothing(Option<Vec<String>>),
    Refused(Answered),
}

/// Of a volume, in bytes.
pub(super) struct Space {
    pub(super) available: u64,
    pub(super) capacity: u64,
}

/// A node.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) is_ready: bool,
    /// What its kubelet says, if it is not ready.
    pub(super) message: String,
    /// `linux/amd64`.
    pub(super) platform: String,
    /// `containerd://2.3.4`.
    pub(super) runtime: String,
}

/// A pull that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pull {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) node: String,
    /// The kubelet's own words.
    pub(super) message: String,
    /// Whether the pod is gone, or has its image now.
    pub(super) is_over: bool,
}

/// An image as somebody calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) given: String,
    /// What stands before the first slash, if that is a host.
    pub(super) host: Option<String>,
    /// The rest; in words, what is wrong with it.
    pub(super) reference: Result<Reference, String>,
}

impl Image {
    /// Reads a name as clients do: what has a dot or a port before the first slash is a host.
    pub(super) fn parse(text: &str) -> Self {
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (host, rest) = match text.split_once('/') {
            Some((host, rest)) if is_host(host) => (Some(host.to_owned()), rest),
            _ => (None, text),
        };
        Self { given: text.to_owned(), host, reference: Reference::parse(rest, &[]) }
    }
}

impl Facts {
    pub(super) fn status(&self) -> PrivateRegistryStatus {
        self.registry.as_ref().ok().and_then(|registry| registry.status.clone()).unwrap_or_default()
    }

    pub(super) fn is_plain(&self) -> bool {
        self.registry.as_ref().is_ok_and(|registry| registry.spec.tls.as_ref().is_some_and(|tls| tls.none.is_some()))
    }

    /// The address that is followed, and from where it is reached.
    pub(super) fn address(&self) -> Option<(HostPort, AddressScope)> {
        followed(&self.status(), self.image.as_ref())
    }

    /// Flags that name the registry.
    pub(super) fn named(&self) -> String {
        format!("{} --namespace {}", self.name, self.namespace)
    }
}

/// The image's own address if the registry has that, else the one that image names should begin with.
pub(super) fn followed(status: &PrivateRegistryStatus, image: Option<&Image>) -> Option<(HostPort, AddressScope)> {
    let known = |address: &str| status.addresses.iter().find(|known| known.address == address);
    let of_image = image.and_then(|image| known(image.host.as_deref()?));
    let found = of_image.or_else(|| known(status.address.as_deref()?))?;
    Some((HostPort::parse(&found.address).ok()?, found.scope))
}

#[cfg(test)]
pub(super) mod testing {
    //! A registry of which everything is well, to break one thing at a time.

    use serde_json::{Value, json};

    use super::*;

    pub(in crate::doctor) fn now() -> Timestamp {
        "2026-11-30T12:00:00Z".parse().unwrap()
    }

    pub(in crate::doctor) fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-11-30T11:00:00Z"})
    }

    pub(in crate::doctor) fn registry(spec: &Value, status: &Value) -> PrivateRegistry {
        let mut whole = json!({
            "observedGeneration": 1, "address": "registry.example.com:5000", "conditions": [
                condition("Ready", "True", "Settled", ""), condition("Stalled", "False", "Settled", ""),
                condition("Available", "True", "Answering", ""), condition("StorageReady", "True", "Bound", "bound"),
            ],
            "addresses": [
                {"scope": "External", "address": "registry.example.com:5000"}, {"scope": "Node", "address": "10.96.0.9:5000"},
                {"scope": "Cluster", "address": "team-a.registries.svc:5000"},
            ],
        });
        for (key, value) in status.as_object().into_iter().flatten() {
            whole[key] = value.clone();
        }
        serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a", "namespace": "registries", "generation": 1}, "spec": spec, "status": whole,
        }))
        .unwrap()
    }

    pub(in crate::doctor) fn answered(status: u16) -> Answered {
        Answered { status, retry_after: None, skew: Some(SignedDuration::ZERO), words: String::new() }
    }

    pub(in crate::doctor) fn facts() -> Facts {
        Facts {
            now: now(),
            namespace: "registries".to_owned(),
            name: "team-a".to_owned(),
            registry: Ok(registry(&json!({}), &json!({}))),
            image: Some(Image::parse("registry.example.com:5000/team/app:1")),
            user: Ok(Some("admin".to_owned())),
            here: Here {
                resolved: Some(Ok(vec![IpAddr::from([192, 0, 2, 1])])),
                reached: Some(Ok(())),
                files: Some(Ok(vec![TrustFile { path: "/etc/docker/certs.d/a/ca.crt".to_owned(), is_there: true }])),
                authorities: String::new(),
            },
            bundle: Ok(Some(String::new())),
            chain: None,
            pod: Ok("team-a-1".to_owned()),
            endpoints: Ok(1),
            answer: Some(Ok(answered(200))),
            has: Some(Ok(Has::Image { digest: "sha256:1".to_owned(), platforms: vec!["linux/amd64".to_owned()] })),
            pull_secret: Ok(Some(vec!["registry.example.com:5000".to_owned()])),
            unasked_reviews: None,
            space: Some(Ok(Space { available: 50 << 30, capacity: 100 << 30 })),
            node: Some(Ok(Node {
                name: "node-1".to_owned(),
                is_ready: true,
                message: String::new(),
                platform: "linux/amd64".to_owned(),
                runtime: "containerd://2.3.4".to_owned(),
            })),
            pulls: Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_an_image_is_what_clients_take_for_one() {
        for (text, host, rest) in [
            ("app", None, Some("app:latest")),
            ("team/app:1", None, Some("team/app:1")),
            ("registry.example.com/app:1", Some("registry.example.com"), Some("app:1")),
            ("localhost/app", Some("localhost"), Some("app:latest")),
            ("team-a:5000/team/app:1", Some("team-a:5000"), Some("team/app:1")),
            ("[2001:db8::1]:5000/app:1", Some("[2001:db8::1]:5000"), Some("app:1")),
            ("registry.example.com/App", Some("registry.example.com"), None),
        ] {
            let image = Image::parse(text);
            assert_eq!(image.host.as_deref(), host, "{text}");
            assert_eq!(image.reference.ok().map(|rest| rest.to_string()).as_deref(), rest, "{text}");
        }
    }

    #[test]
    fn the_image_says_which_of_the_addresses_is_followed() {
        let facts = testing::facts();
        let followed = |image: &str| followed(&facts.status(), Some(&Image::parse(image))).unwrap();
        assert_eq!(followed("10.96.0.9:5000/app").1, AddressScope::Node);
        for image in ["app", "elsewhere.example.com/app", "registry.example.com:5000/app"] {
            let (address, scope) = followed(image);
            assert_eq!((address.as_str(), scope), ("registry.example.com:5000", AddressScope::External), "{image}");
        }
    }
}
