//! From what a user wrote and what it refers to, to a registry in which nothing is open, or to the reason why not.

use std::time::Duration;

use super::image::{self, Version};
use super::resolved::{Resolved, Service, Storage, Tls, Users};
use super::{Child, Observed, RegistryName, SecretContent, Settings};
use crate::api::{AccessMode, AuthSpec, GoDuration, PrivateRegistry, ServiceSpec, StorageSpec, TlsSpec, annotation};
use crate::credentials::{Source, SourceKind, Wanted};

/// Sections of the registry's configuration that `extraConfig` may hold. The others belong to the operator, or do not exist:
/// the registry ignores a section that it does not know without a word.
pub const EXTRA_SECTIONS: [&str; 9] =
    ["catalog", "health", "middleware", "notifications", "policy", "proxy", "redis", "tags", "validation"];

const OWNED_SECTIONS: [&str; 5] = ["version", "log", "storage", "auth", "http"];
const DEFAULT_SIZE: &str = "10Gi";
const YEAR: Duration = Duration::from_secs(8760 * 3600);

/// Why a registry cannot be built from its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// One CamelCase word, documented in docs/conditions.md.
    pub reason: &'static str,
    /// Names the field or object and the next action.
    pub message: String,
    /// Whether it may end by itself, when a missing object arrives.
    pub waiting: bool,
}

impl Blocked {
    fn invalid(message: impl Into<String>) -> Self {
        Self { reason: "InvalidManifest", message: message.into(), waiting: false }
    }
}

/// Turns a manifest and what it refers to into a registry in which nothing is open.
///
/// # Errors
/// The first thing that stands in the way. What concerns one user, or only the certificate, does not stand in the way of the
/// rest: it comes as a condition of its own.
pub fn resolve(registry: &PrivateRegistry, observed: &Observed, settings: &Settings) -> Result<Resolved, Blocked> {
    let spec = &registry.spec;
    let metadata = &registry.metadata;
    let given_name = metadata.name.as_deref().unwrap_or_default();
    let name = RegistryName::parse(given_name).map_err(|rule| {
        Blocked::invalid(format!("metadata.name {given_name:?} {rule}; make the registry again under another name"))
    })?;
    let image = spec.image.clone().unwrap_or_else(|| settings.registry_image.clone());
    let image_version = image::version(&image);
    if image_version == Version::TooOld {
        return Err(Blocked::invalid(format!(
            "spec.image {image:?} is older than 3.1.1, which has known security faults; use 3.1.1 or newer"
        )));
    }
    let storage = storage(&name, spec.storage.as_ref(), observed)?;
    let replicas = spec.replicas.unwrap_or(1).max(1);
    if replicas > 1 && !storage.is_shared() {
        return Err(Blocked::invalid(
            "spec.replicas is greater than 1, but the storage can be mounted by one node only; use a claim with ReadWriteMany",
        ));
    }
    let restart = spec.restart_policy.clone().unwrap_or_default();

    Ok(Resolved {
        name,
        namespace: metadata.namespace.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        image,
        image_version,
        operator_image: settings.operator_image.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        replicas,
        hostnames: spec.hostnames.clone(),
        service: service(spec.service.as_ref()),
        storage,
        tls: tls(spec.tls.as_ref())?,
        users: users(spec.auth.as_ref(), observed),
        restart: restart.kind.unwrap_or_default(),
        max_retries: restart.max_retries,
        suspend: spec.suspend.unwrap_or(false),
        retain: spec.deletion_policy.unwrap_or_default() == crate::api::DeletionPolicy::Retain,
        config: spec.config.clone().unwrap_or_default(),
        extra_config: extra_config(spec.extra_config.as_ref())?,
        pod: spec.pod.clone().unwrap_or_default(),
        renew_request: metadata.annotations.as_ref().and_then(|all| all.get(annotation::RENEW)).cloned(),
    })
}

fn service(spec: Option<&ServiceSpec>) -> Service {
    let spec = spec.cloned().unwrap_or_default();
    Service {
        kind: spec.kind.unwrap_or_default(),
        port: spec.port.unwrap_or(5000),
        node_port: spec.node_port,
        annotations: spec.annotations,
        load_balancer_class: spec.load_balancer_class,
        source_ranges: spec.load_balancer_source_ranges,
    }
}

fn storage(registry: &RegistryName, spec: Option<&StorageSpec>, observed: &Observed) -> Result<Storage, Blocked> {
    let spec = spec.cloned().unwrap_or_default();
    if let Some(folder) = spec.empty_dir {
        return Ok(Storage::EmptyDir { limit: folder.size_limit.map(|limit| limit.0) });
    }
    let claim = spec.persistent_volume_claim.unwrap_or_default();
    if let Some(holder) = &observed.claim_holder {
        let name = claim.claim_name.unwrap_or_else(|| registry.child(Child::Data));
        return Err(Blocked {
            reason: "ClaimShared",
            message: format!(
                "PersistentVolumeClaim {name} is used by PrivateRegistry {holder}, which was there first: two registries on one volume would destroy each other's images; make this registry again with another claim or under another name"
            ),
            waiting: false,
        });
    }
    let Some(name) = claim.claim_name else {
        return Ok(Storage::Claim {
            size: claim.size.map_or_else(|| DEFAULT_SIZE.to_owned(), |size| size.0),
            class: claim.storage_class_name,
            modes: if claim.access_modes.is_empty() { vec![AccessMode::ReadWriteOnce] } else { claim.access_modes },
        });
    };
    match &observed.claim {
        Some(claim) => Ok(Storage::Existing { shared: claim.modes.iter().any(|mode| mode == "ReadWriteMany"), name }),
        None => Err(Blocked {
            reason: "WaitingForClaim",
            message: format!(
                "PersistentVolumeClaim {name}, named in spec.storage.persistentVolumeClaim.claimName, does not exist; create it"
            ),
            waiting: true,
        }),
    }
}

fn tls(spec: Option<&TlsSpec>) -> Result<Tls, Blocked> {
    let spec = spec.cloned().unwrap_or_default();
    if spec.none.is_some() {
        return Ok(Tls::None);
    }
    if let Some(own) = spec.secret {
        return Ok(Tls::Own { secret: own.name });
    }
    let own = spec.self_signed.unwrap_or_default();
    let ip_addresses = own
        .ip_addresses
        .iter()
        .map(|text| {
            text.parse().map_err(|_| {
                Blocked::invalid(format!("spec.tls.selfSigned.ipAddresses: {text:?} is no IP address; correct it"))
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Tls::SelfSigned {
        duration: duration("spec.tls.selfSigned.duration", own.duration.as_ref(), YEAR)?,
        ca_duration: duration("spec.tls.selfSigned.caDuration", own.ca_duration.as_ref(), YEAR * 10)?,
        key_algorithm: own.key_algorithm.unwrap_or_default(),
        dns_names: own.dns_names.into_iter().collect(),
        ip_addresses,
    })
}

fn duration(field: &str, given: Option<&GoDuration>, default: Duration) -> Result<Duration, Blocked> {
    match given {
        None => Ok(default),
        Some(text) => text
            .seconds()
            .map(Duration::from_secs)
            .ok_or_else(|| Blocked::invalid(format!("{field}: {:?} is no duration; write for instance 720h", text.0))),
    }
}

fn users(spec: Option<&AuthSpec>, observed: &Observed) -> Users {
    let spec = spec.cloned().unwrap_or_default();
    if spec.none.is_some() {
        return Users::Everybody;
    }
    let mut candidates = Vec::new();
    let mut missing = Vec::new();
    let mut look_up = |secret: &str| match observed.secrets.get(secret) {
        Some(Some(content)) => Some(content),
        _ => {
            missing.push(format!("Secret {secret} does not exist; create it"));
            None
        }
    };
    let mut absent_keys = Vec::new();
    for user in spec.users {
        let reference = &user.password_secret_ref;
        let key = reference.key.as_deref().unwrap_or("password");
        let Some(content) = look_up(&reference.name) else { continue };
        match content.data.get(key) {
            Some(password) => candidates.push(Wanted {
                name: user.name,
                source: source(SourceKind::Users, &reference.name, key, content),
                password: password.clone(),
            }),
            None => {
                absent_keys.push(format!("Secret {} has no key {key} for user {}; add it", reference.name, user.name));
            }
        }
    }
    for from in spec.users_from {
        let Some(content) = look_up(&from.secret_ref.name) else { continue };
        for (user, password) in &content.data {
            candidates.push(Wanted {
                name: user.clone(),
                source: source(SourceKind::UsersFrom, &from.secret_ref.name, user, content),
                password: password.clone(),
            });
        }
    }
    missing.append(&mut absent_keys);
    Users::Table {
        candidates,
        missing,
        generated: spec.generated_admin.unwrap_or_default(),
        cost: spec.bcrypt_cost.unwrap_or(5),
    }
}

fn source(kind: SourceKind, secret: &str, key: &str, content: &SecretContent) -> Source {
    Source {
        kind,
        secret: secret.to_owned(),
        key: key.to_owned(),
        uid: content.uid.clone(),
        version: content.resource_version.clone(),
    }
}

fn extra_config(
    given: Option<&serde_json::Map<String, serde_json::Value>>,
) -> Result<serde_json::Map<String, serde_json::Value>, Blocked> {
    let given = given.cloned().unwrap_or_default();
    if let Some(section) = given.keys().find(|section| !EXTRA_SECTIONS.contains(&section.as_str())) {
        let why = if OWNED_SECTIONS.contains(&section.as_str()) {
            "is rendered by the operator; use the fields of spec instead"
        } else {
            "is no section of the registry's configuration, which would ignore it without a word"
        };
        return Err(Blocked::invalid(format!(
            "spec.extraConfig: {section:?} {why}; allowed are {}",
            EXTRA_SECTIONS.join(", ")
        )));
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{ObservedClaim, SecretContent};

    fn resolved(spec: &serde_json::Value, observed: &Observed) -> Result<Resolved, Blocked> {
        let registry = serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a", "namespace": "registries", "uid": "u", "generation": 3},
            "spec": spec,
        }));
        resolve(&registry.unwrap(), observed, &Settings::default())
    }

    fn secret(data: &[(&str, &str)]) -> SecretContent {
        SecretContent {
            uid: "uid".to_owned(),
            resource_version: "1".to_owned(),
            data: data.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec().into())).collect(),
        }
    }

    #[test]
    fn an_empty_spec_is_a_complete_registry() {
        let registry = resolved(&json!({}), &Observed::default()).unwrap();
        assert_eq!(registry.image, Settings::default().registry_image);
        assert_eq!(
            (registry.replicas, registry.service.port, registry.retain, registry.suspend),
            (1, 5000, true, false)
        );
        assert!(matches!(registry.storage, Storage::Claim { ref size, .. } if size == "10Gi"));
        assert!(matches!(registry.tls, Tls::SelfSigned { duration, ca_duration, .. } if ca_duration == duration * 10));
        assert!(matches!(registry.users, Users::Table { cost: 5, ref candidates, .. } if candidates.is_empty()));
    }

    #[test]
    fn what_cannot_be_built_names_the_field_and_what_to_do() {
        let absent = Observed::default();
        for (spec, reason, waiting, words) in [
            (json!({"image": "registry:2.8.3"}), "InvalidManifest", false, "3.1.1 or newer"),
            (json!({"replicas": 2}), "InvalidManifest", false, "ReadWriteMany"),
            (json!({"extraConfig": {"storage": {}}}), "InvalidManifest", false, "rendered by the operator"),
            (json!({"extraConfig": {"htp": {}}}), "InvalidManifest", false, "no section"),
            (json!({"tls": {"selfSigned": {"ipAddresses": ["1.2.3.444"]}}}), "InvalidManifest", false, "ipAddresses"),
            (
                json!({"storage": {"persistentVolumeClaim": {"claimName": "mine"}}}),
                "WaitingForClaim",
                true,
                "PersistentVolumeClaim mine",
            ),
        ] {
            let blocked = resolved(&spec, &absent).unwrap_err();
            assert_eq!((blocked.reason, blocked.waiting), (reason, waiting), "{blocked:?}");
            assert!(blocked.message.contains(words), "{blocked:?}");
        }
    }

    #[test]
    fn a_claim_that_another_registry_has_is_refused() {
        let observed = Observed {
            claim: Some(ObservedClaim { modes: vec!["ReadWriteMany".to_owned()] }),
            claim_holder: Some("team-b".to_owned()),
            ..Observed::default()
        };
        for (spec, claim) in
            [(json!({"storage": {"persistentVolumeClaim": {"claimName": "mine"}}}), "mine"), (json!({}), "team-a-data")]
        {
            let blocked = resolved(&spec, &observed).unwrap_err();
            assert_eq!((blocked.reason, blocked.waiting), ("ClaimShared", false));
            assert!(blocked.message.contains("team-b") && blocked.message.contains(claim), "{blocked:?}");
        }
    }

    #[test]
    fn an_existing_claim_that_nodes_share_allows_replicas() {
        let spec = json!({"replicas": 3, "storage": {"persistentVolumeClaim": {"claimName": "mine"}}});
        let claim = |mode: &str| Observed {
            claim: Some(ObservedClaim { modes: vec![mode.to_owned()] }),
            ..Observed::default()
        };
        assert!(resolved(&spec, &claim("ReadWriteMany")).is_ok());
        assert!(resolved(&spec, &claim("ReadWriteOnce")).is_err());
    }

    #[test]
    fn a_missing_password_stops_one_user_and_nobody_else() {
        let mut observed = Observed::default();
        observed.secrets.insert("ann".to_owned(), Some(secret(&[("password", "correct horse")])));
        observed.secrets.insert("bob".to_owned(), Some(secret(&[("passwort", "x")])));
        observed.secrets.insert("eve".to_owned(), None);
        observed
            .secrets
            .insert("team".to_owned(), Some(secret(&[("carl", "one two three"), ("dora", "four five six")])));
        let user = |name: &str| json!({"name": name, "passwordSecretRef": {"name": name}});
        let spec = json!({"auth": {"users": [user("ann"), user("bob"), user("eve")], "usersFrom": [{"secretRef": {"name": "team"}}]}});

        let Users::Table { candidates, missing, .. } = resolved(&spec, &observed).unwrap().users else { panic!() };

        let names: Vec<_> = candidates.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["ann", "carl", "dora"]);
        assert_eq!(
            missing,
            ["Secret eve does not exist; create it", "Secret bob has no key password for user bob; add it"]
        );
    }
}
