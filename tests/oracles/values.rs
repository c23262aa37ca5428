//! Two or more valid values for every field of the definition: made from its type, enum, bounds and pattern, and from a small table where such a value
//! cannot be valid by itself. The tables name endings of paths, so that one row serves a type of Kubernetes wherever it is embedded.

use regex::Regex;
use serde_json::{Value, json};

use crate::definition::Leaf;

/// One walk over one field: three manifests, between which only it differs.
#[derive(Debug, Clone)]
pub struct Walk {
    /// The field.
    pub path: String,
    /// With one value of the field; without it, if there is only one valid value.
    pub first: Value,
    /// With another.
    pub second: Value,
    /// Without the field, or an empty one if what is around it cannot be without it.
    pub without: Value,
}

/// Values that follow from no schema. The last name or names of a path, and the values.
fn table() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        // Members of unions without fields of their own: being there is all that they can be.
        ("auth.none", vec![json!({})]),
        ("tls.none", vec![json!({})]),
        ("trust.clusterTrustBundle", vec![json!({})]),
        // Objects that `objects` makes.
        ("passwordSecretRef.name", vec![json!("login-one"), json!("login-two")]),
        ("passwordSecretRef.key", vec![json!("password"), json!("other")]),
        ("usersFrom[].secretRef.name", vec![json!("many-one"), json!("many-two")]),
        (
            "tls.cipherSuites[]",
            vec![json!("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"), json!("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")],
        ),
        ("rotation.overlap", vec![json!("1h"), json!("2h")]),
        ("rotation.gracePeriod", vec![json!("1h"), json!("2h")]),
        ("caSecretRef.namespace", vec![json!("elsewhere"), json!("nowhere")]),
        ("caSecretRef.name", vec![json!("ca-one"), json!("ca-two")]),
        ("clientCASecretRef.name", vec![json!("trust-one"), json!("trust-two")]),
        ("caBundleSecretRef.name", vec![json!("trust-one"), json!("trust-two")]),
        ("certificateSigningRequest.signerName", vec![json!("example.com/one"), json!("example.com/two")]),
        ("issuerRef.name", vec![json!("company"), json!("other")]),
        ("issuerRef.kind", vec![json!("Issuer"), json!("ClusterIssuer")]),
        ("issuerRef.group", vec![json!("cert-manager.io"), json!("issuers.example.com")]),
        ("passphraseSecretRef.name", vec![json!("login-one"), json!("login-two")]),
        ("passphraseSecretRef.key", vec![json!("password"), json!("other")]),
        ("tls.secret.name", vec![json!("own-one"), json!("own-two")]),
        ("htpasswdSecretRef.name", vec![json!("lines-one"), json!("lines-two")]),
        ("htpasswdSecretRef.key", vec![json!("htpasswd"), json!("other")]),
        ("token.teams[].name", vec![json!("red"), json!("blue")]),
        ("token.teams[].users[]", vec![json!("alice"), json!("bob")]),
        ("token.rules[].users[]", vec![json!("alice"), json!("bob")]),
        ("token.rules[].teams[]", vec![json!("red"), json!("blue")]),
        ("token.rules[].repositories[]", vec![json!("one/**"), json!("two/*")]),
        // The catalog is about no repository.
        ("token.rules[].actions[]", vec![json!("push"), json!("delete")]),
        ("kubernetes.audience", vec![json!("one.example.com"), json!("two.example.com")]),
        ("issuers[].name", vec![json!("ci"), json!("other")]),
        ("issuers[].issuer", vec![json!("https://one.example.com"), json!("https://two.example.com")]),
        ("issuers[].audience", vec![json!("one.example.com"), json!("two.example.com")]),
        ("issuers[].certificateAuthority", vec![json!("one"), json!("two")]),
        ("claimMapping.user", vec![json!("claims.email"), json!("claims.repository")]),
        ("claimMapping.groups", vec![json!("claims.teams"), json!("[claims.owner]")]),
        ("jwksConfigMapRef.name", vec![json!("keys-one"), json!("keys-two")]),
        ("jwksConfigMapRef.key", vec![json!("one"), json!("two")]),
        ("token.teams[].groups[]", vec![json!("ci:one"), json!("ci:two")]),
        ("pullSecrets[].user", vec![json!("alice"), json!("bob")]),
        ("pullSecrets[].name", vec![json!("pull-one"), json!("pull-two")]),
        ("storage.existingClaim.name", vec![json!("given-one"), json!("given-two")]),
        ("storage.persistentVolumeClaim.storageClassName", vec![json!("standard"), json!("fixed")]),
        ("pod.priorityClassName", vec![json!("system-cluster-critical"), json!("system-node-critical")]),
        // What only the registry or Kubernetes knows.
        ("image", vec![json!("registry.example.test/registry:3.1.1"), json!("registry.example.test/registry:3.1.2")]),
        (
            "extraConfig",
            vec![
                json!({"notifications": {"events": {"includereferences": true}}}),
                json!({"notifications": {"events": {"includereferences": false}}}),
            ],
        ),
        // Of the part of the range that is never given at random.
        ("service.nodePort", vec![json!(30_010), json!(30_011)]),
        // The third needs a cluster with two families.
        ("service.ipFamilyPolicy", vec![json!("SingleStack"), json!("PreferDualStack")]),
        // `Unmasked` needs a user namespace.
        ("procMount", vec![json!("Default")]),
        // Kubernetes keeps it until the type changes.
        ("service.loadBalancerClass", vec![json!("example.com/balancer")]),
        ("matchExpressions[].operator", vec![json!("In"), json!("NotIn")]),
        ("matchFields[].key", vec![json!("metadata.name")]),
        ("matchFields[].operator", vec![json!("In"), json!("NotIn")]),
        ("tolerations[].operator", vec![json!("Equal"), json!("Exists")]),
        ("tolerations[].effect", vec![json!("NoSchedule"), json!("NoExecute")]),
        ("whenUnsatisfiable", vec![json!("DoNotSchedule"), json!("ScheduleAnyway")]),
        ("nodeAffinityPolicy", vec![json!("Honor"), json!("Ignore")]),
        ("nodeTaintsPolicy", vec![json!("Honor"), json!("Ignore")]),
        ("fieldRef.apiVersion", vec![json!("v1")]),
        ("fileKeyRef.volumeName", vec![json!("data")]),
        ("fieldRef.fieldPath", vec![json!("metadata.name"), json!("metadata.namespace")]),
        ("resourceFieldRef.containerName", vec![json!("registry"), json!("check-volume")]),
        ("resourceFieldRef.resource", vec![json!("limits.cpu"), json!("requests.cpu")]),
        ("resourceFieldRef.divisor", vec![json!("1m"), json!("1")]),
        ("fsGroupChangePolicy", vec![json!("OnRootMismatch"), json!("Always")]),
        ("supplementalGroupsPolicy", vec![json!("Merge"), json!("Strict")]),
        ("seLinuxChangePolicy", vec![json!("MountOption"), json!("Recursive")]),
        ("seccompProfile.type", vec![json!("RuntimeDefault"), json!("Unconfined")]),
        ("appArmorProfile.type", vec![json!("RuntimeDefault"), json!("Unconfined")]),
        ("sysctls[].name", vec![json!("kernel.shm_rmid_forced"), json!("net.ipv4.tcp_syncookies")]),
        // `true` needs a pod on the host's network.
        ("windowsOptions.hostProcess", vec![json!(false)]),
    ]
}

/// What an item of a list must have beside the field: ending of the list's path, or of the field's, and the item.
fn items() -> Vec<(&'static str, Value)> {
    let expression = json!({"key": "zone", "operator": "In", "values": ["a"]});
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}});
    vec![
        ("auth.users", json!({"name": "alice", "passwordSecretRef": {"name": "login-one"}})),
        ("token.teams", json!({"name": "green", "users": ["alice"]})),
        ("token.rules", json!({"teams": ["*"], "repositories": ["**"], "actions": ["pull"]})),
        ("token.issuers", json!({"name": "ci", "issuer": "https://ci.example.com", "audience": "here"})),
        ("pullSecrets", json!({"user": "alice"})),
        ("pullSecrets[].serviceAccountName", json!({})),
        ("pod.env", json!({"name": "ORACLE"})),
        ("pod.imagePullSecrets", json!({"name": "login-one"})),
        ("pod.tolerations", json!({"key": "one", "operator": "Equal", "effect": "NoExecute"})),
        (
            "pod.topologySpreadConstraints",
            json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}),
        ),
        ("sysctls", json!({"name": "kernel.shm_rmid_forced", "value": "0"})),
        ("matchExpressions", expression.clone()),
        ("matchFields", json!({"key": "metadata.name", "operator": "In", "values": ["node-1"]})),
        ("nodeSelectorTerms", json!({"matchExpressions": [expression]})),
        (
            "nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution",
            json!({"weight": 1, "preference": {"matchExpressions": [expression]}}),
        ),
        ("preferredDuringSchedulingIgnoredDuringExecution", json!({"weight": 1, "podAffinityTerm": term})),
        ("requiredDuringSchedulingIgnoredDuringExecution", term),
    ]
}

/// What must stand beside the field, in the object that holds it.
fn neighbours() -> Vec<(&'static str, Value)> {
    vec![
        ("restartPolicy.maxRetries", json!({"type": "OnFailure"})),
        ("service.nodePort", json!({"type": "NodePort"})),
        ("service.loadBalancerClass", json!({"type": "LoadBalancer"})),
        ("service.loadBalancerSourceRanges[]", json!({"type": "LoadBalancer"})),
        ("replicas", json!({"storage": {"persistentVolumeClaim": {"accessModes": ["ReadWriteMany"]}}})),
        ("localhostProfile", json!({"type": "Localhost"})),
        ("containerSecurityContext.privileged", json!({"allowPrivilegeEscalation": true})),
        ("htpasswdSecretRef.key", json!({"name": "lines-one"})),
        ("jwksConfigMapRef.key", json!({"name": "keys-one"})),
        ("caSecretRef.namespace", json!({"name": "ca-one"})),
        ("passphraseSecretRef.key", json!({"name": "login-one"})),
        ("service.externalTrafficPolicy", json!({"type": "NodePort"})),
        ("configMapKeyRef.key", json!({"name": "settings"})),
        ("configMapKeyRef.name", json!({"key": "one"})),
        ("configMapKeyRef.optional", json!({"name": "settings", "key": "one"})),
        ("secretKeyRef.key", json!({"name": "login-one"})),
        ("secretKeyRef.name", json!({"key": "password"})),
        ("secretKeyRef.optional", json!({"name": "login-one", "key": "password"})),
        ("fieldRef.apiVersion", json!({"fieldPath": "metadata.name"})),
        ("resourceFieldRef.containerName", json!({"resource": "limits.cpu"})),
        ("resourceFieldRef.divisor", json!({"resource": "limits.cpu"})),
        ("fileKeyRef.key", json!({"volumeName": "data", "path": "settings"})),
        ("fileKeyRef.path", json!({"volumeName": "data", "key": "ONE"})),
        ("fileKeyRef.volumeName", json!({"path": "settings", "key": "ONE"})),
        ("fileKeyRef.optional", json!({"volumeName": "data", "path": "settings", "key": "ONE"})),
    ]
}

/// What stands for the name that the Service of the registry has: each walk has a registry of its own.
pub const OWN_AUDIENCE: &str = "the-registry-itself.svc";

/// The rest of the manifest, with the field and without it. Hundreds of volumes would prove nothing about a label.
fn ground(path: &str) -> Value {
    if path == "replicas" || path.starts_with("storage.") {
        return json!({});
    }
    let mut ground = json!({"storage": {"emptyDir": {}}});
    let user = |name: &str| json!({"name": name, "passwordSecretRef": {"name": "login-one"}});
    match path {
        path if path.starts_with("auth.users[].rotation") => {
            ground["auth"] = json!({"users": [{"name": "robot", "rotation": {"every": "24h"}}]});
        }
        // Without another user every value but Never means the same.
        "auth.admin.generate" => ground["auth"] = json!({"users": [user("alice")]}),
        path if path.starts_with("auth.token.rules") => {
            let teams = json!([{"name": "red", "users": ["alice"]}, {"name": "blue", "users": ["bob"]}]);
            let rule = json!({"teams": ["*"], "repositories": ["**"], "actions": ["pull"]});
            ground["auth"] = json!({"token": {"teams": teams, "rules": [rule]}});
        }
        path if path.starts_with("auth.token") => {
            let rule = json!({"users": ["*"], "repositories": ["**"], "actions": ["pull"]});
            ground["auth"] = json!({"token": {"rules": [rule]}});
        }
        "pullSecrets[].serviceAccountName" => {
            let rule = json!({"users": ["*"], "repositories": ["**"], "actions": ["pull"]});
            ground["auth"] = json!({"token": {"rules": [rule], "kubernetes": {"audience": OWN_AUDIENCE}}});
        }
        path if path.starts_with("pullSecrets[]") => ground["auth"] = json!({"users": [user("alice"), user("bob")]}),
        path if path.starts_with("tls.secret.passphraseSecretRef") => {
            ground["tls"] = json!({"secret": {"name": "own-one"}});
        }
        path if path.starts_with("route.ingress.") => {
            ground["route"] = json!({"ingress": {"hosts": ["three.example.com"]}});
        }
        path if path.starts_with("route.gateway.") => {
            let parents = json!([{"name": "gateway-three", "namespace": "infra"}]);
            ground["route"] = json!({"gateway": {"hosts": ["three.example.com"], "parentRefs": parents}});
        }
        path if path.starts_with("tls.certManager") && path != "tls.certManager.issuerRef.name" => {
            ground["tls"] = json!({"certManager": {"issuerRef": {"name": "company"}}});
        }
        path if path.starts_with("tls.clientCASecretRef") => ground["frontend"] = json!({"nginx": {}}),
        // A certificate cannot outlive its authority.
        "tls.privateCA.duration" => ground["tls"] = json!({"certificate": {"duration": "24h"}}),
        _ => {}
    }
    ground
}

/// Fields that what is around them cannot be without, although the definition does not say so.
const STAYS: &[&str] = &[
    // A login is of one or the other.
    "pullSecrets[].user",
    "pullSecrets[].serviceAccountName",
    "auth.none",
    "tls.none",
    "token.rules[].teams[]",
    "token.rules[].repositories[]",
    // With one the operator of these tests signs nothing, without it the Secret of its own namespace signs, and what is served stays.
    "caSecretRef.namespace",
    "values[]",
    "localhostProfile",
    "tolerations[].key",
    "imagePullSecrets[].name",
    "configMapKeyRef.name",
    "secretKeyRef.name",
    "windowsOptions.hostProcess",
    "service.loadBalancerClass",
    // Without it the Service would keep the one that it has.
    "service.nodePort",
];

fn ends<'a, T>(rows: &'a [(&'static str, T)], path: &str) -> Option<&'a T> {
    let fits = |ending: &str| path == ending || path.ends_with(&format!(".{ending}"));
    let longest = rows.iter().filter(|(ending, _)| fits(ending)).max_by_key(|(ending, _)| ending.len());
    longest.map(|(_, row)| row)
}

/// Rows of the tables that no field of the definition uses any more.
pub fn unused(leaves: &[Leaf]) -> Vec<&'static str> {
    let fits = |ending: &str, path: &str| path == ending || path.ends_with(&format!(".{ending}"));
    let lists = |leaf: &Leaf| -> Vec<String> {
        let lists = leaf.path.match_indices("[]").map(|(end, _)| leaf.path[..end].to_owned());
        lists.chain([leaf.path.clone()]).collect()
    };
    let of_leaves = table().into_iter().map(|row| row.0).chain(neighbours().into_iter().map(|row| row.0));
    let mut unused: Vec<_> = of_leaves
        .chain(STAYS.iter().copied())
        .filter(|ending| !leaves.iter().any(|leaf| fits(ending, &leaf.path)))
        .collect();
    let items = items().into_iter().map(|row| row.0);
    unused.extend(items.filter(|ending| !leaves.iter().flat_map(lists).any(|list| fits(ending, &list))));
    unused
}

/// Valid values of a field, at least one.
///
/// # Errors
/// Why there are none: what must be added to the table.
pub fn values(leaf: &Leaf) -> Result<Vec<Value>, String> {
    if let Some(values) = ends(&table(), &leaf.path) {
        return Ok(values.clone());
    }
    let schema = &leaf.schema;
    if let Some(values) = schema["enum"].as_array() {
        return Ok(values.iter().filter(|value| !value.is_null()).cloned().collect());
    }
    let pattern = schema["pattern"].as_str();
    match schema["type"].as_str() {
        Some("boolean") => Ok(vec![json!(true), json!(false)]),
        Some("integer") => whole_numbers(schema),
        Some("object") if schema["additionalProperties"]["type"] == "string" => {
            Ok(vec![json!({"example.com/oracle": "one"}), json!({"example.com/oracle": "two"})])
        }
        Some("object") if schema["additionalProperties"]["x-kubernetes-int-or-string"] == true => {
            Ok(vec![json!({"memory": "128Mi"}), json!({"memory": "256Mi"})])
        }
        Some("string") | None => texts(leaf, pattern),
        other => Err(format!("no values are known for type {other:?}")),
    }
}

fn whole_numbers(schema: &Value) -> Result<Vec<Value>, String> {
    let low = schema["minimum"].as_f64().map_or(1, |bound| bound as i64);
    let high = schema["maximum"].as_f64().map_or(i64::MAX, |bound| bound as i64);
    if low < high {
        Ok(vec![json!(low), json!(low + 1)])
    } else {
        Err(format!("nothing lies between {low} and {high}"))
    }
}

/// Kinds of text that a pattern may ask for; the first that fits counts.
const TEXTS: [[&str; 2]; 7] = [
    ["one.example.com", "two.example.com"],
    ["192.0.2.1", "192.0.2.2"],
    ["198.51.100.0/24", "203.0.113.0/24"],
    ["20Gi", "30Gi"],
    ["48h", "72h"],
    ["one", "two"],
    ["https://one.example.com", "https://two.example.com"],
];

fn texts(leaf: &Leaf, pattern: Option<&str>) -> Result<Vec<Value>, String> {
    let schema = &leaf.schema;
    let Some(pattern) = pattern else {
        if schema["type"] != "string" {
            return Err("neither type nor pattern".to_owned());
        }
        return Ok(vec![json!("one"), json!("two")]);
    };
    let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
    let longest = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
    let fits = |text: &str| pattern.is_match(text) && text.len() as u64 <= longest;
    let kind = TEXTS.iter().find(|kind| kind.iter().all(|text| fits(text)));
    let kind = kind.ok_or_else(|| format!("no known text fits the pattern {pattern}"))?;
    Ok(kind.iter().map(|text| json!(text)).collect())
}

/// The walks over a field: one for each two values that follow one another.
///
/// # Errors
/// As [`values`].
pub fn walks(leaf: &Leaf) -> Result<Vec<Walk>, String> {
    let values = values(leaf)?;
    let with = |value: Option<&Value>| manifest(&leaf.path, value);
    let stays = leaf.required || ends(&STAYS.iter().map(|path| (*path, ())).collect::<Vec<_>>(), &leaf.path).is_some();
    let without = if stays { ground(&leaf.path) } else { with(None) };
    let walk = |first: Value, second: &Value| Walk {
        path: leaf.path.clone(),
        first,
        second: with(Some(second)),
        without: without.clone(),
    };
    match values.as_slice() {
        [] => Err("the table has no value".to_owned()),
        [only] => Ok(vec![walk(without.clone(), only)]),
        several => Ok(several.windows(2).map(|pair| walk(with(Some(&pair[0])), &pair[1])).collect()),
    }
}

/// A manifest with this field, and with what must stand around it.
pub fn manifest(path: &str, value: Option<&Value>) -> Value {
    let mut spec = ground(path);
    fill(&mut spec, "", path, path, value);
    spec
}

/// Fills `rest` of the way into `here`. `done`: the way so far.
fn fill(here: &mut Value, done: &str, rest: &str, path: &str, value: Option<&Value>) {
    let (step, after) = rest.split_once('.').map_or((rest, None), |(step, after)| (step, Some(after)));
    let (name, is_list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
    let way = if done.is_empty() { name.to_owned() } else { format!("{done}.{name}") };
    let Some(after) = after else {
        merge(here, ends(&neighbours(), path).unwrap_or(&json!({})));
        match value {
            Some(value) if is_list => here[name] = json!([value]),
            Some(value) => here[name] = value.clone(),
            None => drop(here.as_object_mut().map(|fields| fields.remove(name))),
        }
        return;
    };
    if is_list {
        if !here[name].is_array() {
            let items = items();
            let item = ends(&items, path).or_else(|| ends(&items, &way));
            here[name] = json!([item.cloned().unwrap_or(json!({}))]);
        }
        fill(&mut here[name][0], &format!("{way}[]"), after, path, value);
    } else {
        if !here[name].is_object() {
            here[name] = json!({});
        }
        fill(&mut here[name], &way, after, path, value);
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
