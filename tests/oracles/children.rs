//! The children of registries as values that can be compared: between two registries, and of one registry at two times. What differs each time
//! (keys, hashes, addresses, versions) becomes a word that says what is there; that it is there, and how it is made, stays comparable.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::api::ListParams;
use private_registry_operator::desired::kinds::KINDS;
use private_registry_operator::pki::request::RequestFacts;
use regex::{Captures, Regex};
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use crate::cluster::Namespace;

/// Label with the name of the registry that a child belongs to.
const REGISTRY: &str = "privateregistry.dev/registry";

/// Passwords that the tests give to users: a hash says which of them it is of.
pub const PASSWORDS: [&str; 4] = ["correct horse one", "correct horse two", "battery staple", "dragon in a jar"];

/// Children of one registry, by kind and suffix of the name.
pub type Children = BTreeMap<String, Value>;

/// Of each registry in the namespace what it is made of, its own status among it (under `status`).
pub async fn all(team: &Namespace) -> BTreeMap<String, Children> {
    let mut found: BTreeMap<String, Children> = BTreeMap::new();
    for kind in KINDS.iter().filter(|kind| !kind.is_cluster_wide) {
        let listed = match team.object(kind.kind, "").api.list(&ListParams::default().labels(REGISTRY)).await {
            Err(kube::Error::Api(absent)) if kind.is_optional && absent.code == 404 => continue,
            listed => listed.unwrap(),
        };
        for child in listed {
            let mut child = serde_json::to_value(child).unwrap();
            // Lists say it once, for all of them.
            child["kind"] = json!(kind.kind);
            let registry = child["metadata"]["labels"][REGISTRY].as_str().unwrap().to_owned();
            let suffix = child["metadata"]["name"].as_str().unwrap().strip_prefix(&registry).unwrap_or("?").to_owned();
            found.entry(registry).or_default().insert(format!("{}{suffix}", kind.kind), child);
        }
    }
    let registries = team.object("PrivateRegistry", "").api.list(&ListParams::default()).await.unwrap();
    for registry in registries {
        let name = registry.metadata.name.clone().unwrap();
        let live = serde_json::to_value(registry).unwrap();
        let children = found.entry(name).or_default();
        children.insert("status".to_owned(), live["status"].clone());
        children.insert("spec".to_owned(), live["spec"].clone());
    }
    found
}

/// Of one registry.
pub async fn of(team: &Namespace, registry: &str) -> Children {
    all(team).await.remove(registry).unwrap_or_default()
}

/// The parts that two registries of one spec have in common.
pub fn comparable(registry: &str, children: &Children) -> Children {
    let asked = children.get("spec").and_then(|spec| spec["service"]["nodePort"].as_i64());
    let normal = |(title, child): (&String, &Value)| {
        let words = Words { registry, asked };
        let value = match title.as_str() {
            "status" => words.status(child),
            _ => words.child(child),
        };
        (title.clone(), value)
    };
    children.iter().filter(|(title, _)| *title != "spec").map(normal).collect()
}

/// Everything but the status, which may speak of a rollout that goes on.
pub fn without_status(mut children: Children) -> Children {
    children.remove("status");
    children
}

struct Words<'a> {
    registry: &'a str,
    /// The node port that the manifest asks for.
    asked: Option<i64>,
}

impl Words<'_> {
    fn child(&self, child: &Value) -> Value {
        let mut child = child.clone();
        child.as_object_mut().unwrap().remove("status");
        let metadata = child["metadata"].as_object_mut().unwrap();
        for volatile in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "namespace"] {
            metadata.remove(volatile);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            let others = [
                "deployment.kubernetes.io/",
                "pv.kubernetes.io/",
                "volume.kubernetes.io/",
                "volume.beta.kubernetes.io/",
                "batch.kubernetes.io/",
            ];
            annotations.retain(|name, _| !others.iter().any(|other| name.starts_with(other)));
            // Which of several reasons came first is history.
            if let Some(issued) = annotations.get_mut("privateregistry.dev/issued") {
                *issued = json!("ISSUED");
            }
            annotations.remove("privateregistry.dev/served-request");
            if let Some(fingerprint) = annotations.get_mut("privateregistry.dev/succeeds") {
                *fingerprint = json!("FINGERPRINT");
            }
            // How far a change of authorities has come.
            annotations.remove("privateregistry.dev/authorities-since");
            annotations.remove("privateregistry.dev/shared-authority");
            // The stamp of what was sent, uid and random material included.
            annotations.remove("privateregistry.dev/applied");
            if let Some(checksum) = annotations.get_mut("privateregistry.dev/tls-checksum") {
                *checksum = json!("CERTIFICATE");
            }
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
        match child["kind"].as_str().unwrap_or_default() {
            "Secret" => self.secret(&mut child),
            "ConfigMap" => self.texts(&mut child["data"]),
            "Service" => self.ports(&mut child["spec"]),
            "PersistentVolumeClaim" => child["spec"]["volumeName"] = json!("VOLUME"),
            "Deployment" | "Job" => {
                let pod = &mut child["spec"]["template"]["spec"];
                without_empty(&mut pod["securityContext"]);
                for kind in ["containers", "initContainers"] {
                    let containers = pod[kind].as_array_mut().into_iter().flatten();
                    containers.for_each(|container| without_empty(&mut container["securityContext"]));
                }
            }
            _ => {}
        }
        self.reworded(&child)
    }

    /// What a registry says, without times and numbers that differ by nature.
    fn status(&self, status: &Value) -> Value {
        let mut status = status.clone();
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            let condition = condition.as_object_mut().unwrap();
            condition.retain(|name, _| ["type", "status", "reason"].contains(&name.as_str()));
            // Whose host it is depends on which of the registries of these tests is older.
            if condition["reason"] == "HostTaken" {
                (condition["status"], condition["reason"]) = (json!("Unknown"), json!("NotTaken"));
            }
        }
        let users = status["users"].as_array_mut().into_iter().flatten();
        users.filter_map(Value::as_object_mut).for_each(|user| drop(user.remove("changedAt")));
        let Some(fields) = status.as_object_mut() else { return status };
        for volatile in ["observedGeneration", "certificate", "waitingSince", "handledRenewRequest"] {
            fields.remove(volatile);
        }
        self.reworded(&status)
    }

    fn secret(&self, child: &mut Value) {
        for (_, value) in child["data"].as_object_mut().into_iter().flatten() {
            let bytes = STANDARD.decode(value.as_str().unwrap()).unwrap();
            *value = json!(String::from_utf8(bytes).unwrap());
        }
        self.texts(&mut child["data"]);
    }

    fn texts(&self, data: &mut Value) {
        let secret = data["http-secret"].as_str().map(str::to_owned);
        for (key, value) in data.as_object_mut().into_iter().flatten() {
            let text = value.as_str().unwrap().to_owned();
            *value = match key.as_str() {
                "htpasswd" => table(&text),
                "password" | "next-password" | "former-password" | "http-secret" | "refresh.key" => {
                    json!(format!("RANDOM of {}", text.len()))
                }
                "since" | "former-since" => json!("TIME"),
                "jwks.json" => json!(format!("{} keys", text.matches("\"kid\"").count())),
                ".dockerconfigjson" => self.logins(&text),
                _ if text.contains("-----BEGIN") => json!(self.blocks(&text)),
                _ => json!(secret.iter().fold(text, |text, secret| text.replace(secret, "HTTP-SECRET"))),
            };
        }
    }

    /// Addresses and user names; the passwords are random, and beside them.
    fn logins(&self, text: &str) -> Value {
        let config: Value = serde_json::from_str(text).unwrap();
        let auths = config["auths"].as_object().unwrap();
        let login = |(address, login): (&String, &Value)| {
            (
                address.clone(),
                json!({"username": login["username"], "fields": login.as_object().unwrap().keys().collect::<Vec<_>>()}),
            )
        };
        json!({"auths": auths.iter().map(login).collect::<Map<_, _>>()})
    }

    fn ports(&self, spec: &mut Value) {
        spec.as_object_mut().unwrap().remove("healthCheckNodePort");
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            let given = port["nodePort"].as_i64();
            if given.is_some() && given != self.asked {
                port["nodePort"] = json!("GIVEN");
            }
        }
    }

    fn reworded(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.reworded(item)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(name, _)| !name.ends_with("controller-uid"));
                Value::Object(fields.map(|(name, value)| (self.text(name), self.reworded(value))).collect())
            }
            value => value.clone(),
        }
    }

    fn text(&self, text: &str) -> String {
        let text = text.replace(self.registry, "NAME");
        VOLATILE.iter().fold(text, |text, (pattern, word)| match pattern.replace_all(&text, *word) {
            Cow::Borrowed(_) => text,
            Cow::Owned(text) => text,
        })
    }

    /// What the blocks of a PEM text are.
    fn blocks(&self, text: &str) -> Vec<Value> {
        let block = |found: Captures<'_>| {
            let bytes = STANDARD.decode(found[2].split_whitespace().collect::<String>()).unwrap();
            match &found[1] {
                "CERTIFICATE" => self.certificate(&bytes),
                "CERTIFICATE REQUEST" => self.request(&bytes),
                other => json!(format!("{other} of {} bytes", bytes.len())),
            }
        };
        PEM.captures_iter(text).map(block).collect()
    }

    fn request(&self, der: &[u8]) -> Value {
        let text = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        );
        let facts = RequestFacts::of_pem(&text).unwrap();
        let names: std::collections::BTreeSet<_> = facts.dns_names.iter().map(|name| self.text(name)).collect();
        let addresses: Vec<_> = facts.ip_addresses.iter().map(|address| self.text(&address.to_string())).collect();
        json!({"subject": facts.subject, "names": names, "addresses": addresses, "key": facts.key.to_string()})
    }

    fn certificate(&self, der: &[u8]) -> Value {
        let (_, certificate) = X509Certificate::from_der(der).unwrap();
        let validity = certificate.validity();
        let mut names = Vec::new();
        let mut uses = Vec::new();
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(alternative) => {
                    names.extend(alternative.general_names.iter().map(name));
                }
                ParsedExtension::BasicConstraints(constraints) => uses.push(format!("{constraints:?}")),
                ParsedExtension::KeyUsage(usage) => uses.push(usage.to_string()),
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    uses.push(format!("server {} client {}", usage.server_auth, usage.client_auth));
                }
                _ => {}
            }
        }
        // An order that does not depend on the registry's own name.
        let mut names: Vec<_> = names.iter().map(|name| self.text(name)).collect();
        names.sort();
        // Both ends are cut to whole seconds.
        let hours = (validity.not_after.timestamp() - validity.not_before.timestamp() + 30) / 60;
        json!({
            "subject": certificate.subject().to_string(), "issuer": certificate.issuer().to_string(), "minutes": hours, "names": names, "uses": uses,
            "key": certificate.public_key().algorithm.algorithm.to_id_string(), "bits": certificate.public_key().subject_public_key.data.len(),
            "signature": certificate.signature_algorithm.algorithm.to_id_string(),
        })
    }
}

/// What differs each time, and the word for it.
static VOLATILE: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let words = [
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UID"),
        (r"\b[0-9a-f]{64}\b", "HASH"),
        (r"\b127\.96\.[0-9]+\.[0-9]+\b", "CLUSTER-ADDRESS"),
        (r#"("seen":)"[^"]*""#, "${1}SEEN"),
        (r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "TIME"),
    ];
    words.map(|(pattern, word)| (Regex::new(pattern).unwrap(), word)).into()
});

static PEM: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"-----BEGIN ([A-Z ]+)-----([A-Za-z0-9+/=\s]+)-----END").unwrap());

/// An empty section means the same as none.
fn without_empty(fields: &mut Value) {
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|_, value| value.as_object().is_none_or(|inner| !inner.is_empty()));
    }
}

/// Each user with the cost of the hash and the password that it is of.
fn table(text: &str) -> Value {
    let row = |line: &str| {
        let (user, hash) = line.split_once(':').unwrap();
        let of = PASSWORDS.iter().find(|password| bcrypt::verify(password, hash).unwrap());
        json!({"user": user, "hash": hash.get(..7), "of": of.unwrap_or(&"RANDOM")})
    };
    text.lines().map(row).collect()
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        // An address of the cluster sorts among the others by what it is.
        GeneralName::IPAddress([127, 96, _, _]) => "CLUSTER-ADDRESS".to_owned(),
        GeneralName::IPAddress(bytes) => format!("{bytes:?}"),
        other => format!("{other:?}"),
    }
}

/// Where two of them differ, at most so many places, to be read in a failed test.
pub fn differences(left: &Children, right: &Children) -> Vec<String> {
    let mut found = Vec::new();
    let titles: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for title in titles {
        match (left.get(title), right.get(title)) {
            (Some(left), Some(right)) => differ(title, left, right, &mut found),
            (Some(_), None) => found.push(format!("{title}: gone")),
            (None, Some(_)) => found.push(format!("{title}: new")),
            (None, None) => {}
        }
    }
    found
}

fn differ(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for name in names {
                let (left, right) = (left.get(name).unwrap_or(&Value::Null), right.get(name).unwrap_or(&Value::Null));
                differ(&format!("{path}.{name}"), left, right, found);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                differ(&format!("{path}[{index}]"), left, right, found);
            }
        }
        (left, right) if left != right => found.push(format!("{path}: {left} → {right}")),
        _ => {}
    }
}
