//! From what a user wrote and what it refers to, to a registry in which nothing is open, or to the reason why not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use serde_json::{Map, Value};

use super::client_authorities;
use super::image::{self, Version};
use super::resolved::{
    Fault, Faults, Frontend, Issuer, LoginCopy, Named, Protocol, PullAs, PullSecret, Pulls, Requested, Resolved,
    Service, Shared, Signer, Storage, Tls, TrustedNamespaces, TrustedNodes,
};
use super::route::{route, written_addresses};
use super::users::users;
use super::{Child, HostPort, Observed, RegistryName, Settings, labels};
use crate::api::{
    AccessMode, BundleKind, DEFAULT_SIZE, GoDuration, IssuerRef, NginxSpec, PrivateRegistry, PrivateRegistrySpec,
    PullSecretNamespaces, PullSecretSpec, Rotation, ServiceSpec, StorageSpec, TlsSpec, TrustSpec, annotation,
};

/// Values that `extraConfig` may hold, far more than the registry knows: each is copied, merged and rendered in every pass.
const EXTRA_VALUES: usize = 2_000;

/// Sections of the registry's configuration that `extraConfig` may hold. The others belong to the operator, or do not exist:
/// the registry ignores a section that it does not know without a word.
pub const EXTRA_SECTIONS: [&str; 8] =
    ["catalog", "health", "middleware", "notifications", "policy", "proxy", "tags", "validation"];

const OWNED_SECTIONS: [&str; 5] = ["version", "log", "storage", "auth", "http"];
const YEAR: Duration = Duration::from_secs(8760 * 3600);
/// How long clients have to learn of the next authority, unless the manifest says otherwise.
const GRACE: Duration = Duration::from_secs(24 * 3600);
/// Shorter, a certificate would be renewed more often than pods should restart.
const SHORTEST_LIFE: Duration = Duration::from_secs(3600);

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
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { reason: "InvalidManifest", message: message.into(), waiting: false }
    }
}

/// Turns a manifest and what it refers to into a registry in which nothing is open.
///
/// # Errors
/// What stands in the way of everything. What concerns one part only is named in [`Resolved::faults`], and what concerns one user in
/// [`Resolved::users`]: it does not stand in the way of the rest.
pub fn resolve(registry: &PrivateRegistry, observed: &Observed, settings: &Settings) -> Result<Resolved, Blocked> {
    let spec = &registry.spec;
    let metadata = &registry.metadata;
    let given_name = metadata.name.as_deref().unwrap_or_default();
    let name = RegistryName::parse(given_name).map_err(|rule| {
        Blocked::invalid(format!("metadata.name {given_name:?} {rule}; recreate the registry under another name"))
    })?;
    let image = spec.image.clone().unwrap_or_else(|| settings.registry_image.clone());
    let image_version = image::version(&image);
    let mut faults = Faults::default();
    if image_version == Version::TooOld {
        faults.workload = Some(Blocked::invalid(format!(
            "spec.image {image:?} is older than 3.1.1, which has known security faults; use 3.1.1 or newer"
        )));
    }
    inputs(&name, registry)?;
    let storage = storage(&name, spec.storage.as_ref(), observed, &mut faults.storage);
    let replicas = spec.replicas.unwrap_or(1).max(1);
    if replicas > 1 && !storage.is_shared() && faults.storage.is_none() {
        faults.workload = Some(Blocked::invalid(
            "spec.replicas is greater than 1, but the storage can be mounted by one node only; use a claim with ReadWriteMany",
        ));
    }
    let extra_config = extra_config(spec.extra_config.as_ref()).unwrap_or_else(|blocked| {
        faults.workload = Some(blocked);
        Map::new()
    });
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let tls = tls(registry, &namespace, settings).unwrap_or_else(|blocked| {
        faults.certificate = Some(blocked);
        Tls::Unreadable
    });
    let (pull_secrets, pull_faults) = pull_secrets(&name, registry);
    let login_copies = login_copies(registry).unwrap_or_else(|blocked| {
        faults.login_copies = Some(blocked);
        Vec::new()
    });
    let addresses = addresses(&written_addresses(registry), &mut faults.address);
    let route = route(&name, spec).unwrap_or_else(|blocked| {
        faults.route = Some(blocked);
        None
    });
    let common_labels = common_labels(&spec.common_labels, &mut faults.workload);
    let restart = spec.restart_policy.clone().unwrap_or_default();
    let trusted_namespaces = trusted_namespaces(spec.trust.as_ref()).unwrap_or_else(|blocked| {
        faults.trusted_namespaces = Some(blocked);
        None
    });
    let trusted_nodes = trusted_nodes(spec.trust.as_ref()).unwrap_or_else(|blocked| {
        faults.trusted_nodes = Some(blocked);
        None
    });
    let frontend = frontend(spec, &extra_config, settings);
    let client_authorities = client_authorities::authorities(spec, observed).unwrap_or_else(|blocked| {
        faults.workload.get_or_insert(blocked);
        None
    });

    Ok(Resolved {
        name,
        namespace,
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        image,
        image_version,
        operator_image: settings.operator_image.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        replicas,
        addresses,
        service: service(spec.service.as_ref()),
        route,
        frontend,
        storage,
        tls,
        protocol: protocol(spec.tls.as_ref(), client_authorities),
        trusted_namespaces,
        is_trusted_by_the_cluster: spec.trust.as_ref().is_some_and(|trust| trust.cluster_trust_bundle.is_some()),
        trusted_nodes,
        users: users(spec.auth.as_ref(), observed),
        pull_secrets,
        pull_faults,
        login_copies,
        restart: restart.kind.unwrap_or_default(),
        max_retries: restart.max_retries,
        suspend: spec.suspend.unwrap_or(false),
        retain: spec.deletion_policy.unwrap_or_default() == crate::api::DeletionPolicy::Retain,
        config: spec.config.clone().unwrap_or_default(),
        extra_config,
        pod: spec.pod.clone().unwrap_or_default(),
        common_labels,
        renew_request: metadata.annotations.as_ref().and_then(|all| all.get(annotation::RENEW)).cloned(),
        faults,
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
        ip_family_policy: spec.ip_family_policy.unwrap_or_default(),
        external_traffic_policy: spec.external_traffic_policy,
    }
}

/// Tokens are given and looked at in it.
fn frontend(spec: &PrivateRegistrySpec, extra: &Map<String, Value>, settings: &Settings) -> Option<Frontend> {
    let has_tokens = spec.auth.as_ref().is_some_and(|auth| auth.token.is_some());
    let nginx = spec.frontend.as_ref().and_then(|frontend| frontend.nginx.clone());
    let nginx = nginx.or_else(|| has_tokens.then(NginxSpec::default))?;
    let pulls = match pulls(extra) {
        // It knows tokens only, and clients may come with a password.
        Pulls::AskingRegistry if has_tokens => Pulls::Registry,
        pulls => pulls,
    };
    Some(Frontend { image: settings.frontend_image.clone(), resources: nginx.resources, pulls })
}

fn pulls(extra: &Map<String, Value>) -> Pulls {
    let has = |section: &str| extra.contains_key(section);
    match () {
        // A cache of another registry asks that one for what it has not, and a middleware may keep or send blobs in a way of its own.
        () if has("proxy") || has("middleware") => Pulls::Registry,
        // It tells of the pulls that it hears of, and refuses all while a check of the user's own fails.
        () if has("notifications") || checks_more(extra) => Pulls::AskingRegistry,
        () => Pulls::AskingGate,
    }
}

/// Whether the registry looks at more than its storage to say whether it is well.
fn checks_more(extra: &Map<String, Value>) -> bool {
    let checks = extra.get("health").and_then(Value::as_object);
    checks.is_some_and(|checks| checks.keys().any(|check| check != "storagedriver"))
}

fn trusted_namespaces(spec: Option<&TrustSpec>) -> Result<Option<TrustedNamespaces>, Blocked> {
    let Some(asked) = spec.and_then(|trust| trust.namespaces.as_ref()) else { return Ok(None) };
    let selector = selector("spec.trust.namespaces.selector", asked.selector.as_ref())?;
    let kinds = if asked.kinds.is_empty() { vec![BundleKind::ConfigMap] } else { asked.kinds.clone() };
    Ok(Some(TrustedNamespaces { selector, kinds: kinds.into_iter().collect() }))
}

fn trusted_nodes(spec: Option<&TrustSpec>) -> Result<Option<TrustedNodes>, Blocked> {
    let Some(asked) = spec.and_then(|trust| trust.nodes.as_ref()) else { return Ok(None) };
    selector("spec.trust.nodes.selector", asked.selector.as_ref())?;
    Ok(Some(TrustedNodes { selector: asked.selector.clone(), runtimes: asked.runtimes.iter().copied().collect() }))
}

fn selector(field: &str, given: Option<&LabelSelector>) -> Result<Selector, Blocked> {
    Selector::try_from(given.cloned().unwrap_or_default()).map_err(|error| {
        Blocked::invalid(format!(
            "{field}: {error}; write matchLabels, or matchExpressions with In, NotIn, Exists or DoesNotExist"
        ))
    })
}

/// Those that can be read; the first other one is the fault.
fn addresses(given: &[String], fault: &mut Option<Blocked>) -> Vec<HostPort> {
    let read = |text: &String| match HostPort::parse(text) {
        Ok(address) => Some(address),
        Err(rule) => {
            fault.get_or_insert_with(|| Blocked::invalid(format!("spec.addresses: {text:?} {rule}; correct it")));
            None
        }
    };
    given.iter().filter_map(read).collect()
}

/// Those that Kubernetes takes; the first other one is the fault.
fn common_labels(given: &BTreeMap<String, String>, fault: &mut Option<Blocked>) -> BTreeMap<String, String> {
    if let Some(key) = given.keys().find(|key| !labels::is_key(key)) {
        *fault = Some(Blocked::invalid(format!(
            "spec.commonLabels: {key:?} is no key of a label; write for instance cost-center or example.com/team"
        )));
    }
    let legal = given.iter().filter(|(key, _)| labels::is_key(key));
    legal.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn storage(
    registry: &RegistryName,
    spec: Option<&StorageSpec>,
    observed: &Observed,
    fault: &mut Option<Blocked>,
) -> Storage {
    let spec = spec.cloned().unwrap_or_default();
    if let Some(folder) = spec.empty_dir {
        return Storage::EmptyDir { limit: folder.size_limit.map(|limit| limit.0) };
    }
    let existing = spec.existing_claim.map(|claim| claim.name);
    if let Some(holder) = &observed.claim_holder {
        let name = existing.clone().unwrap_or_else(|| registry.child(Child::Data));
        *fault = Some(Blocked {
            reason: "ClaimShared",
            message: format!(
                "PersistentVolumeClaim {name} is used by PrivateRegistry {holder}, which was there first: two registries on one volume would destroy each other's images; recreate this registry with another claim or under another name"
            ),
            waiting: false,
        });
    }
    let Some(name) = existing else {
        let claim = spec.persistent_volume_claim.unwrap_or_default();
        let mut modes = claim.access_modes;
        modes.sort();
        return Storage::Claim {
            size: claim.size.map_or_else(|| DEFAULT_SIZE.to_owned(), |size| size.0),
            class: claim.storage_class_name,
            modes: if modes.is_empty() { vec![AccessMode::ReadWriteOnce] } else { modes },
        };
    };
    if observed.claim.is_none() && fault.is_none() {
        if observed.unread.contains(&name) {
            *fault = Some(Blocked {
                reason: "ReadFailed",
                message: format!("PersistentVolumeClaim {name} could not be read; it is tried again"),
                waiting: true,
            });
            return Storage::Existing { shared: false, name };
        }
        *fault = Some(Blocked {
            reason: "WaitingForClaim",
            message: format!(
                "PersistentVolumeClaim {name}, named in spec.storage.existingClaim.name, does not exist; create it"
            ),
            waiting: true,
        });
    }
    let modes = observed.claim.iter().flat_map(|claim| &claim.modes);
    Storage::Existing { shared: modes.into_iter().any(|mode| mode == "ReadWriteMany"), name }
}

/// Those that can be written, and what is wrong with the others.
fn pull_secrets(registry: &RegistryName, manifest: &PrivateRegistry) -> (Vec<PullSecret>, Vec<Fault>) {
    let ours = Child::SECRETS.into_iter().filter(|child| *child != Child::Pull).map(|child| registry.child(child));
    let ours = ours.chain(logins(registry, manifest));
    let taken: BTreeSet<_> = ours.chain(secrets_of(manifest).cloned()).chain(answer_of(manifest)).collect();
    let (mut found, mut faults) = (Vec::<PullSecret>::new(), Vec::new());
    for pull in &manifest.spec.pull_secrets {
        let name = pull.name.clone().unwrap_or_else(|| registry.child(Child::Pull));
        if taken.contains(&name) || found.iter().any(|other| other.name == name) {
            faults.push(Fault {
                reason: "InvalidManifest",
                message: format!(
                    "spec.pullSecrets: Secret {name} is something else of this registry already; choose another name"
                ),
            });
        } else {
            found.extend(pull_as(pull).map(|whom| PullSecret { name, whom }));
        }
    }
    (found, faults)
}

/// Admission sees to it that there is one.
fn pull_as(entry: &PullSecretSpec) -> Option<PullAs> {
    let user = entry.user.clone().map(PullAs::User);
    user.or_else(|| entry.service_account_name.clone().map(PullAs::ServiceAccount))
}

/// Whether a manifest wants logins in other namespaces.
#[must_use]
pub fn has_login_copies(manifest: &PrivateRegistry) -> bool {
    manifest.spec.pull_secrets.iter().any(|entry| entry.namespaces.is_some())
}

/// Logins for pods of other namespaces. What is wrong with the name of a Secret at home is no matter there.
fn login_copies(manifest: &PrivateRegistry) -> Result<Vec<LoginCopy>, Blocked> {
    let entries = manifest.spec.pull_secrets.iter();
    let asked = entries.filter_map(|entry| Some((pull_as(entry)?, entry.namespaces.as_ref()?)));
    let copy = |(whom, asked): (PullAs, &PullSecretNamespaces)| {
        let selector = selector("spec.pullSecrets[].namespaces.selector", Some(&asked.selector))?;
        Ok(LoginCopy { selector, whom })
    };
    asked.map(copy).collect()
}

/// Names of the Secrets of its own namespace that a manifest refers to, those first that are small. Some may stand there twice.
pub fn secrets_of(registry: &PrivateRegistry) -> impl Iterator<Item = &String> {
    let spec = &registry.spec;
    let auth = spec.auth.as_ref();
    let users =
        auth.into_iter().flat_map(|auth| &auth.users).filter_map(|user| Some(&user.password_secret_ref.as_ref()?.name));
    let tables = auth.into_iter().flat_map(|auth| &auth.users_from).flat_map(|from| {
        let passwords = from.secret_ref.as_ref().map(|secret| &secret.name);
        passwords.into_iter().chain(from.htpasswd_secret_ref.as_ref().map(|secret| &secret.name))
    });
    let own = spec.tls.as_ref().and_then(|tls| tls.secret.as_ref());
    let certificate =
        own.into_iter().flat_map(|own| [Some(&own.name), own.passphrase_secret_ref.as_ref().map(|key| &key.name)]);
    let authority = authority_of(registry).filter(|(place, _)| place.is_none()).map(|(_, name)| name);
    let bundle = spec.tls.as_ref().and_then(|tls| {
        let request = tls.certificate_signing_request.as_ref().map(|request| &request.ca_bundle_secret_ref);
        request.or(tls.cert_manager.as_ref().map(|issuer| &issuer.ca_bundle_secret_ref))?.as_ref()
    });
    let clients = spec.tls.as_ref().and_then(|tls| tls.client_ca_secret_ref.as_ref());
    let public = bundle.into_iter().chain(clients).map(|secret| &secret.name);
    certificate.flatten().chain(authority).chain(public).chain(users).chain(tables)
}

/// Name of the Secret whose authority signs, and its namespace if that is another one: the registry's own need not be named, but may be.
#[must_use]
pub fn authority_of(registry: &PrivateRegistry) -> Option<(Option<&String>, &String)> {
    let secret = registry.spec.tls.as_ref()?.private_ca.as_ref()?.ca_secret_ref.as_ref()?;
    let home = registry.metadata.namespace.as_ref();
    Some((secret.namespace.as_ref().filter(|place| Some(*place) != home), &secret.name))
}

/// Name of the Secret in which a person leaves what was signed for a registry of this name. It is no child: people write it.
#[must_use]
pub fn answer_secret(registry: &str) -> String {
    format!("{registry}-signed")
}

/// The same, if this registry reads it.
#[must_use]
pub fn answer_of(registry: &PrivateRegistry) -> Option<String> {
    let request = registry.spec.tls.as_ref()?.certificate_signing_request.as_ref()?;
    request.signer_name.is_none().then(|| answer_secret(registry.metadata.name.as_deref().unwrap_or_default()))
}

/// A registry cannot read what it writes: the Secret would be refused as somebody else's, or taken away as no longer wanted.
fn inputs(name: &RegistryName, registry: &PrivateRegistry) -> Result<(), Blocked> {
    let own: BTreeSet<_> =
        Child::SECRETS.iter().map(|child| name.child(*child)).chain(logins(name, registry)).collect();
    if let Some(name) = secrets_of(registry).find(|name| own.contains(*name)) {
        return Err(Blocked::invalid(format!(
            "Secret {name} is written by the operator for this registry and cannot be read by it; store your own under another name"
        )));
    }
    Ok(())
}

/// Secrets with the logins of users whose passwords the operator makes itself.
fn logins(name: &RegistryName, registry: &PrivateRegistry) -> impl Iterator<Item = String> {
    let users = registry.spec.auth.iter().flat_map(|auth| &auth.users).filter(|user| user.rotation.is_some());
    users.map(move |user| name.login(&user.name))
}

fn protocol(spec: Option<&TlsSpec>, client_authorities: Option<String>) -> Protocol {
    spec.map_or_else(Protocol::default, |tls| Protocol {
        minimum_version: tls.minimum_version.unwrap_or_default(),
        cipher_suites: tls.cipher_suites.iter().copied().collect(),
        client_authorities,
    })
}

fn tls(registry: &PrivateRegistry, namespace: &str, settings: &Settings) -> Result<Tls, Blocked> {
    let spec = registry.spec.tls.clone().unwrap_or_default();
    if spec.none.is_some() {
        return Ok(Tls::None);
    }
    if let Some(own) = spec.secret {
        let passphrase = own
            .passphrase_secret_ref
            .map(|passphrase| (passphrase.name, passphrase.key.unwrap_or_else(|| "password".to_owned())));
        return Ok(Tls::Own { secret: own.name, passphrase });
    }
    let wanted = spec.certificate.unwrap_or_default();
    let authority = spec.private_ca.unwrap_or_default();
    let ip_addresses = wanted
        .ip_addresses
        .iter()
        .map(|text| {
            text.parse().map_err(|_| {
                Blocked::invalid(format!("spec.tls.certificate.ipAddresses: {text:?} is no IP address; correct it"))
            })
        })
        .collect::<Result<_, _>>()?;
    let short = settings.short_certificates.as_ref().filter(|short| short.namespace == namespace);
    let duration = certificate_duration("spec.tls.certificate.duration", wanted.duration.as_ref(), YEAR)?;
    let ca_duration = certificate_duration("spec.tls.privateCA.duration", authority.duration.as_ref(), YEAR * 10)?;
    let asked = match (spec.certificate_signing_request, spec.cert_manager) {
        (Some(request), _) => Some((signer(request.signer_name, settings)?, request.ca_bundle_secret_ref)),
        (None, Some(asked)) => Some((issuer(asked.issuer_ref), asked.ca_bundle_secret_ref)),
        (None, None) => None,
    };
    if let Some((signer, bundle)) = asked {
        return Ok(Tls::Request(Requested {
            signer,
            bundle: bundle.map(|secret| secret.name),
            duration: short.map_or(duration, |short| short.certificate),
            key_algorithm: wanted.key_algorithm.unwrap_or_default(),
            dns_names: wanted.dns_names.into_iter().collect(),
            ip_addresses,
        }));
    }
    Ok(Tls::PrivateCa {
        duration: short.map_or(duration, |short| short.certificate),
        ca_duration: short.and_then(|short| short.authority).unwrap_or(ca_duration),
        grace: grace(authority.rotation.as_ref())?,
        shared: authority_of(registry).map(|(place, name)| shared(place, name, namespace, settings)).transpose()?,
        key_algorithm: wanted.key_algorithm.unwrap_or_default(),
        named: Named { duration: authority.duration.is_some(), key_algorithm: wanted.key_algorithm.is_some() },
        dns_names: wanted.dns_names.into_iter().collect(),
        ip_addresses,
    })
}

/// Whose authority signs, if it is not the registry's own.
fn shared(place: Option<&String>, name: &str, namespace: &str, settings: &Settings) -> Result<Shared, Blocked> {
    let found = Shared { namespace: place.cloned(), name: name.to_owned() };
    if found.namespace.is_none() || settings.sees_namespaces {
        return Ok(found);
    }
    Err(Blocked {
        reason: "NeedsClusterScope",
        message: format!(
            "spec.tls.privateCA.caSecretRef: this operator watches single namespaces and may not read Secret {found}: put the Secret into \
             namespace {namespace}, or have an operator installed that serves all namespaces"
        ),
        waiting: false,
    })
}

fn signer(name: Option<String>, settings: &Settings) -> Result<Signer, Blocked> {
    match name {
        None => Ok(Signer::Person),
        Some(name) if settings.sees_namespaces => Ok(Signer::Cluster(name)),
        Some(name) => Err(Blocked {
            reason: "SignerUnavailable",
            message: format!(
                "spec.tls.certificateSigningRequest.signerName: nobody can ask {name} here, because requests to signers belong to no namespace \
                 and this operator may only use what belongs to its own; leave signerName out and use kubectl registry csr, or have an operator \
                 installed that serves all namespaces"
            ),
            waiting: false,
        }),
    }
}

fn issuer(given: IssuerRef) -> Signer {
    Signer::Issuer(Issuer {
        name: given.name,
        kind: given.kind.unwrap_or_else(|| Issuer::KIND.to_owned()),
        group: given.group.unwrap_or_else(|| Issuer::GROUP.to_owned()),
    })
}

fn grace(rotation: Option<&Rotation>) -> Result<Duration, Blocked> {
    let Some(text) = rotation.and_then(|rotation| rotation.grace_period.as_ref()) else { return Ok(GRACE) };
    text.seconds().map(Duration::from_secs).ok_or_else(|| {
        Blocked::invalid(format!(
            "spec.tls.privateCA.rotation.gracePeriod: {:?} is no duration; write for instance 24h",
            text.0
        ))
    })
}

fn certificate_duration(field: &str, given: Option<&GoDuration>, default: Duration) -> Result<Duration, Blocked> {
    let Some(text) = given else { return Ok(default) };
    match text.seconds().map(Duration::from_secs) {
        Some(duration) if duration >= SHORTEST_LIFE => Ok(duration),
        Some(_) => Err(Blocked::invalid(format!("{field}: {:?} is shorter than 1h; write for instance 720h", text.0))),
        None => Err(Blocked::invalid(format!("{field}: {:?} is no duration; write for instance 720h", text.0))),
    }
}

fn extra_config(given: Option<&Map<String, Value>>) -> Result<Map<String, Value>, Blocked> {
    let Some(given) = given else { return Ok(serde_json::Map::new()) };
    if given.values().map(values).sum::<usize>() > EXTRA_VALUES {
        return Err(Blocked::invalid(format!(
            "spec.extraConfig has more than {EXTRA_VALUES} values; leave out what is not needed"
        )));
    }
    if let Some(section) = given.keys().find(|section| !EXTRA_SECTIONS.contains(&section.as_str())) {
        let why = if OWNED_SECTIONS.contains(&section.as_str()) {
            "is rendered by the operator; use the fields of spec instead"
        } else if section == "redis" {
            "has no effect: the registry runs without a cache of blob descriptors, which would be stale after garbage is collected"
        } else {
            "is no section of the registry's configuration, which would ignore it without a word"
        };
        return Err(Blocked::invalid(format!(
            "spec.extraConfig: {section:?} {why}; allowed are {}",
            EXTRA_SECTIONS.join(", ")
        )));
    }
    Ok(given.clone())
}

/// How many there are in it, itself too.
fn values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(values).sum::<usize>(),
        Value::Object(fields) => fields.values().map(values).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::settings::ShortCertificates;
    use crate::model::{ObservedClaim, Users};

    /// The registry, or the first thing that cannot be followed.
    fn resolved(spec: &serde_json::Value, observed: &Observed) -> Result<Resolved, Blocked> {
        let resolved = part_by_part(spec, observed)?;
        resolved.faults.all().next().cloned().map_or(Ok(resolved.clone()), Err)
    }

    fn part_by_part(spec: &serde_json::Value, observed: &Observed) -> Result<Resolved, Blocked> {
        let registry = serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry",
            "metadata": {"name": "team-a", "namespace": "registries", "uid": "u", "generation": 3},
            "spec": spec,
        }));
        resolve(&registry.unwrap(), observed, &Settings::default())
    }

    #[test]
    fn the_gate_is_asked_unless_the_registry_must_hear_of_pulls_or_answer_them() {
        for (extra, who) in [
            (json!({}), Pulls::AskingGate),
            (json!({"catalog": {"maxentries": 10}}), Pulls::AskingGate),
            (json!({"health": {"storagedriver": {"interval": "5s"}}}), Pulls::AskingGate),
            (json!({"health": {"file": [{"file": "/tmp/down"}]}}), Pulls::AskingRegistry),
            (json!({"notifications": {}}), Pulls::AskingRegistry),
            (json!({"proxy": {}}), Pulls::Registry),
            (json!({"middleware": {}, "notifications": {}}), Pulls::Registry),
        ] {
            assert_eq!(pulls(extra.as_object().unwrap()), who, "{extra}");
        }
    }

    #[test]
    fn admission_and_the_model_have_the_same_default_size() {
        let schema = crate::api::schema();
        let rules = schema["x-kubernetes-validations"].as_array().unwrap();
        let size = rules.iter().find(|rule| rule["message"].as_str().unwrap().contains("does not shrink")).unwrap();
        let default = format!(": '{DEFAULT_SIZE}')");
        assert_eq!(size["rule"].as_str().unwrap().matches(&default).count(), 3, "{size}");
        assert!(size["message"].as_str().unwrap().contains(&format!("absent means {DEFAULT_SIZE}")), "{size}");
    }

    #[test]
    fn an_authority_of_its_own_namespace_is_one_of_its_secrets_whether_the_namespace_is_named_or_not() {
        let signed_by = |authority: serde_json::Value| {
            let users = json!([{"name": "cluster", "passwordSecretRef": {"name": "password"}}]);
            let spec = json!({
                "tls": {"privateCA": {"caSecretRef": authority}}, "auth": {"users": users},
                "pullSecrets": [{"name": "company", "user": "cluster"}],
            });
            part_by_part(&spec, &Observed::default())
        };
        for authority in [json!({"name": "company"}), json!({"name": "company", "namespace": "registries"})] {
            let faults = signed_by(authority.clone()).unwrap().pull_faults;
            assert_eq!(faults.len(), 1, "{authority}: what a person keeps there would be written over");
        }
        for authority in [json!({"name": "team-a-tls"}), json!({"name": "team-a-tls", "namespace": "registries"})] {
            let blocked = signed_by(authority).unwrap_err();
            assert!(blocked.message.contains("Secret team-a-tls is written by the operator"), "{}", blocked.message);
        }
        let elsewhere = signed_by(json!({"name": "company", "namespace": "security"})).unwrap();
        assert!(elsewhere.pull_faults.is_empty());
    }

    #[test]
    fn a_login_is_copied_by_the_first_entry_that_selects_whatever_its_secret_is_called_at_home() {
        let to = |labels: serde_json::Value| json!({"selector": {"matchLabels": labels}});
        let spec = json!({"pullSecrets": [
            {"user": "home"},
            {"name": "team-a-tls", "user": "builds", "namespaces": to(json!({"tier": "build"}))},
            {"name": "others", "user": "deploy", "namespaces": {"selector": {}}},
        ]});
        let registry = part_by_part(&spec, &Observed::default()).unwrap();
        let found = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            registry.login_copies.iter().find(|copy| copy.selects(&labels)).map(|copy| copy.whom.clone())
        };
        let user = |name: &str| Some(PullAs::User(name.to_owned()));
        assert_eq!(found(&[("tier", "build")]), user("builds"));
        assert_eq!(found(&[("tier", "app")]), user("deploy"));
        assert_eq!(registry.pull_faults.len(), 1);
        let wrong = json!({"matchExpressions": [{"key": "tier", "operator": "Like"}]});
        let wrong = json!({"pullSecrets": [{"user": "a", "namespaces": {"selector": wrong}}]});
        let registry = part_by_part(&wrong, &Observed::default()).unwrap();
        let words = registry.faults.login_copies.unwrap().message;
        assert!(words.contains("spec.pullSecrets[].namespaces.selector"), "{words}");
        assert!(registry.login_copies.is_empty() && registry.pull_secrets.len() == 1, "the login at home is no worse");
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
        assert!(matches!(registry.tls, Tls::PrivateCa { duration, ca_duration, .. } if ca_duration == duration * 10));
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
            (json!({"extraConfig": {"catalog": vec![1; 2_000]}}), "InvalidManifest", false, "more than 2000 values"),
            (json!({"extraConfig": {"redis": {}}}), "InvalidManifest", false, "without a cache"),
            (json!({"tls": {"certificate": {"ipAddresses": ["1.2.3.444"]}}}), "InvalidManifest", false, "ipAddresses"),
            (json!({"tls": {"certificate": {"duration": "59m"}}}), "InvalidManifest", false, "shorter than 1h"),
            (
                json!({"tls": {"privateCA": {"duration": "1m"}}}),
                "InvalidManifest",
                false,
                "spec.tls.privateCA.duration",
            ),
            (json!({"commonLabels": {"a b": "c"}}), "InvalidManifest", false, "spec.commonLabels"),
            (json!({"addresses": ["300.1.2.3"]}), "InvalidManifest", false, "spec.addresses"),
            (json!({"tls": {"secret": {"name": "team-a-tls"}}}), "InvalidManifest", false, "another name"),
            (
                json!({"auth": {"users": [{"name": "ci", "passwordSecretRef": {"name": "team-a-admin"}}]}}),
                "InvalidManifest",
                false,
                "Secret team-a-admin",
            ),
            (
                json!({"auth": {"usersFrom": [{"htpasswdSecretRef": {"name": "team-a-htpasswd"}}]}}),
                "InvalidManifest",
                false,
                "Secret team-a-htpasswd",
            ),
            (
                json!({"storage": {"existingClaim": {"name": "mine"}}}),
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
            [(json!({"storage": {"existingClaim": {"name": "mine"}}}), "mine"), (json!({}), "team-a-data")]
        {
            let blocked = resolved(&spec, &observed).unwrap_err();
            assert_eq!((blocked.reason, blocked.waiting), ("ClaimShared", false));
            assert!(blocked.message.contains("team-b") && blocked.message.contains(claim), "{blocked:?}");
        }
    }

    #[test]
    fn an_existing_claim_that_nodes_share_allows_replicas() {
        let spec = json!({"replicas": 3, "storage": {"existingClaim": {"name": "mine"}}});
        let claim = |mode: &str| Observed {
            claim: Some(ObservedClaim { modes: vec![mode.to_owned()] }),
            ..Observed::default()
        };
        assert!(resolved(&spec, &claim("ReadWriteMany")).is_ok());
        assert!(resolved(&spec, &claim("ReadWriteOnce")).is_err());
    }

    #[test]
    fn short_certificates_are_for_one_namespace_of_tests() {
        let life = |namespace: &str| {
            let settings = Settings {
                short_certificates: Some(ShortCertificates {
                    namespace: namespace.to_owned(),
                    certificate: Duration::from_secs(120),
                    authority: None,
                }),
                ..Settings::default()
            };
            let registry = serde_json::from_value(json!({
                "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "spec": {},
                "metadata": {"name": "team-a", "namespace": "registries"},
            }));
            match resolve(&registry.unwrap(), &Observed::default(), &settings).unwrap().tls {
                Tls::PrivateCa { duration, .. } => duration,
                _ => panic!(),
            }
        };
        assert_eq!(life("registries"), Duration::from_secs(120));
        assert_eq!(life("others"), YEAR);
    }

    #[test]
    fn the_order_of_access_modes_means_nothing() {
        let modes = |modes: serde_json::Value| {
            let spec = json!({"storage": {"persistentVolumeClaim": {"accessModes": modes}}});
            resolved(&spec, &Observed::default()).unwrap().storage
        };
        assert_eq!(modes(json!(["ReadWriteMany", "ReadWriteOnce"])), modes(json!(["ReadWriteOnce", "ReadWriteMany"])));
    }
}
