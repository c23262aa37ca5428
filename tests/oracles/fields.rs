//! Every field of the definition, set, changed and taken back on a registry of its own, all of them side by side. One manifest means one state of the
//! world: it does not matter by which way a registry came to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::children::{self, Children, comparable, differences, without_status};
use crate::cluster::{Namespace, namespace};
use crate::definition::{self, Leaf};
use crate::known;
use crate::registry::Registry;
use crate::settling::condition;
use crate::values::{self, Walk};

/// How a field may change that a transition rule limits.
enum Change {
    /// Not at all.
    Fixed,
    /// In one direction: from the first value to the second.
    Grows,
}

/// Every field that a transition rule of the definition speaks of, with two manifests between which only it differs.
fn limited() -> Vec<(&'static str, Change, Value, Value)> {
    let claim = |fields: Value| json!({"storage": {"persistentVolumeClaim": fields}});
    vec![
        ("storage.emptyDir", Change::Fixed, json!({}), json!({"storage": {"emptyDir": {}}})),
        (
            "storage.existingClaim",
            Change::Fixed,
            json!({}),
            json!({"storage": {"existingClaim": {"name": "given-three"}}}),
        ),
        (
            "storage.persistentVolumeClaim.storageClassName",
            Change::Fixed,
            claim(json!({"storageClassName": "standard"})),
            claim(json!({"storageClassName": "fixed"})),
        ),
        (
            "storage.persistentVolumeClaim.accessModes",
            Change::Fixed,
            claim(json!({"accessModes": ["ReadWriteOnce"]})),
            claim(json!({"accessModes": ["ReadWriteMany"]})),
        ),
        (
            "storage.existingClaim.name",
            Change::Fixed,
            json!({"storage": {"existingClaim": {"name": "given-one"}}}),
            json!({"storage": {"existingClaim": {"name": "given-two"}}}),
        ),
        (
            "storage.persistentVolumeClaim.size",
            Change::Grows,
            claim(json!({"size": "20Gi"})),
            claim(json!({"size": "30Gi"})),
        ),
    ]
}

/// What keeps what an earlier manifest gave it, by the ending of a path, as a child or as a place in one; and why that is right.
const REMEMBERED: &[(&str, &[&str])] = &[
    // Kept children go with their registry or never.
    ("auth.none", &["Secret-admin"]),
    ("tls.none", &["Secret-ca"]),
    // Clients trust the authority that there is, whatever the next certificates are to be like.
    ("tls.certificate.keyAlgorithm", &["Secret-ca", BUNDLE, AUTHORITIES, "Secret-tls /data/tls.crt/0/signature"]),
    ("tls.privateCA.duration", &["Secret-ca", BUNDLE, AUTHORITIES]),
    // Clients are told of another authority first; the certificate that they trust stays meanwhile, and the own authority is kept.
    ("tls.privateCA.caSecretRef.name", &["Secret-ca", BUNDLE, AUTHORITIES, "Secret-tls /data/tls.crt/0/issuer"]),
    // What clients were told to trust stays in the bundle while it is valid.
    ("tls.secret.name", &[BUNDLE, AUTHORITIES]),
    // A superfluous name goes at the next renewal: it is no reason for one.
    ("addresses[]", &[NAMES]),
    ("route.ingress.hosts[]", &[NAMES]),
    ("route.gateway.hosts[]", &[NAMES]),
    ("tls.certificate.dnsNames[]", &[NAMES]),
    ("tls.certificate.ipAddresses[]", &[NAMES]),
    ("service.type", &[NAMES]),
    ("service.loadBalancerClass", &[NAMES]),
];

const BUNDLE: &str = "ConfigMap-ca-bundle";
const AUTHORITIES: &str = "Secret-tls /data/ca.crt";
const NAMES: &str = "Secret-tls /data/tls.crt/0/names";

/// Fields that nothing shows; and why that is right.
const SILENT: &[&str] = &[
    // There is one value, which Kubernetes fills in where it is absent.
    "fieldRef.apiVersion",
    // The authority that there is stays. CertificateReady's message says so, and messages are not compared.
    "tls.privateCA.duration",
    // The key that the tests give is not encrypted: which form is opened with which passphrase is a test of `pki`.
    "tls.secret.passphraseSecretRef.name",
    "tls.secret.passphraseSecretRef.key",
    // Copies lie in other namespaces, of which the operator of these tests sees none; `apiserver trust::` and `pull_copies::` have their own.
    "pullSecrets[].namespaces.selector.matchExpressions[].key",
    "pullSecrets[].namespaces.selector.matchExpressions[].operator",
    "pullSecrets[].namespaces.selector.matchExpressions[].values[]",
    "pullSecrets[].namespaces.selector.matchLabels",
    "trust.namespaces.selector.matchExpressions[].key",
    "trust.namespaces.selector.matchExpressions[].operator",
    "trust.namespaces.selector.matchExpressions[].values[]",
    "trust.namespaces.selector.matchLabels",
    "trust.namespaces.kinds[]",
    // Without node agents nobody is told; `apiserver nodes::` has its own.
    "trust.nodes.selector.matchExpressions[].key",
    "trust.nodes.selector.matchExpressions[].operator",
    "trust.nodes.selector.matchExpressions[].values[]",
    "trust.nodes.selector.matchLabels",
    "trust.nodes.runtimes[]",
    // They count with time, and times are not compared; apiserver/rotated has its own.
    "auth.users[].rotation.every",
    "auth.users[].rotation.overlap",
    // It counts when one authority takes over from another.
    "tls.privateCA.rotation.gracePeriod",
    // The operator of this test serves one namespace, so nobody can be asked: both are refused. Who serves all is tested in apiserver/signers.
    "tls.certificateSigningRequest.signerName",
    // Likewise; apiserver/rotation has its own.
    "tls.privateCA.caSecretRef.namespace",
    // Nobody of cert-manager answers here. Who does is tested in apiserver/cert_manager.
    "tls.certManager.issuerRef.name",
    "tls.certManager.issuerRef.kind",
    "tls.certManager.issuerRef.group",
];

/// Reasons that say that a manifest was not followed: the values are not valid, so the table of values is wrong, or the operator is.
const NOT_FOLLOWED: &[&str] = &[
    "InvalidManifest",
    "NotOurs",
    "Refused",
    "Immutable",
    "Conflict",
    "ReadFailed",
    "WriteFailed",
    "DeleteFailed",
    "ClaimRefused",
    "WaitingForSecret",
    "WaitingForClaim",
    "WaitingForLoadBalancer",
    "CertificateProfileInvalid",
    "UserNameInvalid",
];

const AT_ONCE: usize = 12;

#[test]
fn every_field_of_the_definition_has_values() {
    let leaves = definition::leaves();
    assert!(leaves.len() > 20, "{leaves:?}");
    let missing = |leaf: &Leaf| values::walks(leaf).err().map(|why| format!("{}: {why}", leaf.path));
    let missing: Vec<_> = leaves.iter().filter_map(missing).collect();
    assert!(missing.is_empty(), "add values for these fields in values.rs:\n{}", missing.join("\n"));
    let unused = values::unused(&leaves);
    assert!(unused.is_empty(), "the definition has no such field any more, take them out of values.rs: {unused:?}");
}

#[test]
fn every_transition_rule_of_the_definition_is_tried() {
    let tried: BTreeSet<_> = limited().iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(tried, definition::limited(), "the table of this file has to name what the rules with oldSelf limit");
}

/// A registry on its way.
struct Walker {
    name: String,
    walk: Walk,
    /// Whether it can go back.
    returns: bool,
}

struct Fields<'a> {
    team: &'a Namespace,
    complaints: Vec<(String, String)>,
}

impl Fields<'_> {
    fn complain(&mut self, case: &str, what: impl Into<String>) {
        self.complaints.push((case.to_owned(), what.into()));
    }

    /// Applies all of them and waits until the operator has followed.
    async fn apply(
        &mut self,
        manifests: impl IntoIterator<Item = (String, String, Value)>,
    ) -> BTreeMap<String, Children> {
        let team = self.team;
        let writes = futures::stream::iter(manifests).map(|(case, name, spec)| async move {
            let own = format!("{name}.{}.svc", team.name);
            let own = serde_json::from_str(&spec.to_string().replace(values::OWN_AUDIENCE, &own)).unwrap();
            let written = Registry::named(team, &name).apply(own).await;
            written.err().map(|error| (case, format!("{spec} is refused: {error}")))
        });
        let refused: Vec<_> = writes.buffer_unordered(AT_ONCE).collect().await;
        self.complaints.extend(refused.into_iter().flatten());
        team.is_settled().await;
        children::all(team).await
    }

    /// Says what is wrong with a registry that should have been brought to a valid manifest.
    fn expect_followed(&mut self, case: &str, spec: &Value, children: &Children) {
        let status = children.get("status").cloned().unwrap_or_default();
        for kind in ["Ready", "CertificateReady", "UsersReady", "StorageReady"] {
            let found = condition(&status, kind);
            let reason = found["reason"].as_str().unwrap_or_default();
            if found["status"] != "True" && (found.is_null() || NOT_FOLLOWED.contains(&reason)) {
                self.complain(case, format!("{spec} is not followed: {kind}: {found}"));
                return;
            }
        }
    }
}

/// What must never be made anew by a change of a field.
fn lasting(children: &Children) -> BTreeMap<String, Value> {
    let lasts = |title: &str| ["ServiceAccount", "Service", "PersistentVolumeClaim-data", "Secret-ca"].contains(&title);
    children
        .iter()
        .filter(|(title, _)| lasts(title))
        .map(|(title, child)| (title.clone(), child["metadata"]["uid"].clone()))
        .collect()
}

fn forget(path: &str, mut children: Children) -> Children {
    let of = REMEMBERED.iter().filter(|(ending, _)| path.ends_with(ending)).flat_map(|(_, titles)| titles.iter());
    for remembered in of {
        match remembered.split_once(' ') {
            Some((title, place)) => {
                if let Some(found) = children.get_mut(title).and_then(|child| child.pointer_mut(place)) {
                    *found = json!("REMEMBERED");
                }
            }
            None => drop(children.remove(*remembered)),
        }
    }
    children
}

#[tokio::test]
async fn every_field_can_be_set_changed_and_taken_back_as_if_nothing_had_been() {
    let Some(team) = namespace("fields").await else { return };
    team.without_pods().await;
    let _operator = team.operator_with(&["--concurrency=16"]).await;
    team.what_fields_refer_to().await;
    let limited = limited();
    let is_fixed = |walk: &Walk| {
        limited.iter().any(|row| matches!(row.1, Change::Fixed) && row.0 == walk.path.trim_end_matches("[]"))
    };
    let grows = |walk: &Walk| limited.iter().any(|row| matches!(row.1, Change::Grows) && row.0 == walk.path);
    let walks =
        definition::leaves().into_iter().flat_map(|leaf| values::walks(&leaf).unwrap()).filter(|walk| !is_fixed(walk));
    let walkers: Vec<_> = walks
        .enumerate()
        .map(|(number, walk)| Walker { name: format!("walk-{number:03}"), returns: !grows(&walk), walk })
        .collect();
    let mut fields = Fields { team: &team, complaints: Vec::new() };
    let started = Instant::now();
    let to = |spec: fn(&Walk) -> &Value| {
        walkers.iter().map(move |walker| (walker.walk.path.clone(), walker.name.clone(), spec(&walker.walk).clone()))
    };
    let mut anew: BTreeMap<String, String> = BTreeMap::new();
    let mut manifests = Vec::new();
    let specs =
        walkers.iter().flat_map(|walker| [(&walker.walk, &walker.walk.second), (&walker.walk, &walker.walk.without)]);
    for (walk, spec) in specs {
        let next = format!("anew-{:03}", anew.len());
        anew.entry(spec.to_string()).or_insert_with_key(|_| {
            manifests.push((walk.path.clone(), next.clone(), spec.clone()));
            next
        });
    }

    let first = fields.apply(to(|walk| &walk.first)).await;
    eprintln!("{:?}: {} registries made", started.elapsed(), walkers.len());
    let second = fields.apply(to(|walk| &walk.second)).await;
    eprintln!("{:?}: every field changed", started.elapsed());
    let returning = walkers.iter().filter(|walker| walker.returns);
    let returning =
        returning.map(|walker| (walker.walk.path.clone(), walker.name.clone(), walker.walk.without.clone()));
    let back = fields.apply(returning).await;
    eprintln!("{:?}: every field taken back", started.elapsed());
    // Made last: what only one can have, a node port for instance, is free again.
    let made = fields.apply(manifests).await;
    eprintln!("{:?}: {} made anew", started.elapsed(), anew.len());

    let none = Children::new();
    for Walker { name, walk, .. } in &walkers {
        let path = walk.path.as_str();
        let get = |all: &BTreeMap<String, Children>| all.get(name).unwrap_or(&none).clone();
        let (first, second, back) = (get(&first), get(&second), get(&back));
        for (spec, children) in [(&walk.first, &first), (&walk.second, &second)] {
            fields.expect_followed(path, spec, children);
        }

        let is_silent = SILENT.iter().any(|ending| path.ends_with(ending));
        if differences(&comparable(name, &first), &comparable(name, &second)).is_empty() != is_silent {
            fields.complain(
                path,
                format!("{} shows neither in a child nor in the status, or does although it is listed so", walk.second),
            );
        }
        let other = &anew[&walk.second.to_string()];
        let wanted = forget(path, without_status(comparable(other, made.get(other).unwrap_or(&none))));
        let found = differences(&wanted, &forget(path, without_status(comparable(name, &second))));
        if !found.is_empty() {
            fields.complain(
                path,
                format!("{} by way of {} is not what it is anew: {}", walk.second, walk.first, found.join("; ")),
            );
        }
        for later in [&second, &back] {
            let (was, is) = (lasting(&first), lasting(later));
            if was.iter().any(|(title, uid)| is.get(title).is_some_and(|now| now != uid)) {
                fields.complain(path, format!("something was made anew that must last: {was:?}, {is:?}"));
            }
        }
    }
    for (case, what) in still_different(&team, &walkers, &anew).await {
        fields.complain(&case, what);
    }
    known::judge("fields", &fields.complaints);
}

/// Registries that went back and are not what they would be if they had never left. Rollouts may take their time.
async fn still_different(
    team: &Namespace,
    walkers: &[Walker],
    anew: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let started = Instant::now();
    let none = Children::new();
    let mut different: Vec<_> =
        walkers.iter().filter(|walker| walker.returns).map(|walker| (walker, String::new())).collect();
    while !different.is_empty() && started.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let all = children::all(team).await;
        let mut known = BTreeMap::new();
        for (walker, what) in &mut different {
            let path = walker.walk.path.as_str();
            let other = &anew[&walker.walk.without.to_string()];
            let wanted = known.entry(other).or_insert_with(|| comparable(other, all.get(other).unwrap_or(&none)));
            let wanted = wanted.clone();
            let is = comparable(&walker.name, all.get(&walker.name).unwrap_or(&none));
            *what = differences(&forget(path, wanted), &forget(path, is)).join("; ");
        }
        different.retain(|(_, what)| !what.is_empty());
    }
    let complain = |(walker, what): (&Walker, String)| {
        let Walk { path, without, second, .. } = &walker.walk;
        (path.clone(), format!("{without} by way of {second} is not what it is anew: {what}"))
    };
    different.into_iter().map(complain).collect()
}

#[tokio::test]
async fn what_cannot_change_is_refused_at_admission_and_shows_what_it_was_made_with() {
    let Some(team) = namespace("fixed-fields").await else { return };
    let _operator = team.operator().await;
    team.what_fields_refer_to().await;
    let mut complaints = Vec::new();
    for (number, (path, change, from, to)) in limited().into_iter().enumerate() {
        let (one, two) = (format!("fixed-{number}-a"), format!("fixed-{number}-b"));
        let (one, two) = (team.registry(&one, from.clone()).await, team.registry(&two, to.clone()).await);
        let mut tries = vec![(&two, &from)];
        if matches!(change, Change::Fixed) {
            tries.push((&one, &to));
        }
        for (registry, spec) in tries {
            match registry.apply(spec.clone()).await {
                Ok(_) => complaints.push((path.to_owned(), format!("{spec} is let through"))),
                Err(kube::Error::Api(status)) if status.code == 422 => {}
                Err(error) => panic!("{path}: {error}"),
            }
        }
    }
    team.is_settled().await;
    let all = children::all(&team).await;
    for (number, (path, _, from, to)) in limited().into_iter().enumerate() {
        let (one, two) = (format!("fixed-{number}-a"), format!("fixed-{number}-b"));
        if differences(&comparable(&one, &all[&one]), &comparable(&two, &all[&two])).is_empty() {
            complaints.push((path.to_owned(), format!("{from} and {to} give the same")));
        }
    }
    known::judge("fixed", &complaints);
}
