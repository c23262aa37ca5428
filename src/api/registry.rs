//! The resource itself.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use operator_engine::work::followed::{Followed, unknown_field};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    AuthSpec, ConfigSpec, FrontendSpec, PodSpec, PrivateRegistryStatus, RestartPolicySpec, RouteSpec, ServiceSpec,
    StorageSpec, TlsSpec, TrustSpec, rules,
};

/// A private container registry: encrypted, with logins, on storage that is kept. `spec: {}` is a complete one.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "privateregistry.dev",
    version = "v1alpha1",
    kind = "PrivateRegistry",
    plural = "privateregistries",
    singular = "privateregistry",
    shortname = "preg",
    namespaced,
    status = "PrivateRegistryStatus",
    derive = "PartialEq",
    doc = "A private container registry: encrypted, with logins, on storage that is kept.",
    validation = rules::NAME,
    validation = rules::SIZE_GROWS,
    validation = rules::INPUT_SECRETS_ARE_NO_CHILDREN,
    validation = rules::USERS_SECRETS_ARE_NO_CHILDREN,
    validation = rules::CLAIM_IS_NO_CHILD,
    validation = rules::ROUTE_SHOWS_NO_CHILD,
    validation = rules::ACCOUNTS_PULL_WITH_TOKENS,
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(name = "TLS Expires", type_ = "string", json_path = ".status.certificate.notAfter"),
    printcolumn(name = "Users", type_ = "integer", json_path = ".status.userCount"),
    printcolumn(name = "Storage", type_ = "string", json_path = ".status.storage.capacity"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = 1),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas", priority = 1),
    printcolumn(name = "Restart", type_ = "string", json_path = ".status.restartPolicy", priority = 1),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = rules::IMAGE_TOO_OLD,
    validation = rules::REPLICAS_NEED_SHARED_STORAGE,
    validation = rules::JOBS_RUN_ONE,
    validation = rules::STORAGE_KIND_FIXED,
    validation = rules::STORAGE_CLASS_FIXED,
    validation = rules::ACCESS_MODES_FIXED,
    validation = rules::EXISTING_CLAIM_FIXED,
    validation = rules::COMMON_LABELS,
    validation = rules::PULL_SECRETS_NEED_LOGINS,
    validation = rules::PASSTHROUGH_NEEDS_TLS,
    validation = rules::CLIENT_CERTIFICATES_PASS_THROUGH,
    validation = rules::CLIENT_CERTIFICATES_NEED_THE_FRONT_END
)]
pub struct PrivateRegistrySpec {
    /// Image of the registry, 3.1.1 or newer. Absent: the version that this operator was tested with, by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub image: Option<String>,
    /// Number of pods, default 1. More than one needs storage that they can share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: Option<i32>,
    /// What clients write before the first slash of an image name, beside the Service's own addresses: a DNS name, an IPv4
    /// address or an IPv6 address in brackets, with the port that they use if it is not 443. Each is taken as it stands: it is
    /// covered by the certificate, shown in the status (the first as the address, unless spec.route has a host) and has a login in NAME-pull. Making it lead to
    /// the Service is up to your DNS, nodes and proxies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 259), regex(pattern = rules::HOST_PORT)))]
    #[x_kube(validation = rules::ADDRESSES_ARE_NO_PATHS)]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub addresses: Vec<String>,
    /// The Service in front of the registry. Absent: ClusterIP, port 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSpec>,
    /// How clients outside of the cluster reach the registry by a name, through an Ingress controller or a Gateway. Absent: only by its Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteSpec>,
    /// What stands before the registry in its pod. Absent: nothing, clients talk to the registry itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frontend: Option<FrontendSpec>,
    /// Where images are kept. Absent: a claim of 10Gi of the default StorageClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
    /// Who signs the serving certificate. Absent: the registry's own authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
    /// Who is told which authorities to trust, beside the ConfigMap NAME-ca-bundle. Absent: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustSpec>,
    /// Who may log in. Absent: one generated user `admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,
    /// Logins that pods pull with, each in a Secret of its own in the registry's namespace, and copied to others if they accept it. Absent:
    /// the generated admin's, if there is one, in NAME-pull.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic, validation = rules::PULL_SECRETS_HAVE_NAMES)]
    pub pull_secrets: Vec<PullSecretSpec>,
    /// What happens when the registry's process ends. Absent: it is always restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicySpec>,
    /// `true` stops the registry and keeps everything it has, with any restart policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What happens to the claim, the authority and the admin's password when this object is deleted: Retain (default) keeps
    /// them, and a registry made again under the same name takes them back; Delete removes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Knobs of the registry's configuration. A change restarts the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigSpec>,
    /// More sections of the registry's configuration file, as the registry's documentation has them: catalog, health,
    /// middleware, notifications, policy, proxy, tags, validation. They are merged with what the operator sets. Do not put secrets
    /// here: whoever reads this object reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub extra_config: Option<Map<String, Value>>,
    /// How the registry's pods run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSpec>,
    /// Labels for every object that the operator makes, pods included, for instance those that a policy of the cluster asks for.
    /// Those that the operator sets itself win. A change restarts the registry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub common_labels: BTreeMap<String, String>,
}

/// A login for pods: of a user, or of a ServiceAccount.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_PULLS)]
pub struct PullSecretSpec {
    /// Name of the Secret in the registry's namespace, default NAME-pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: Option<String>,
    /// The user that pods pull as: one of auth.users or usersFrom.secretRef, or the generated admin. Its password must be known, so
    /// a line of an htpasswd file will not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = rules::USER_NAME))]
    pub user: Option<String>,
    /// Instead of a user: pods pull with a token of the ServiceAccount of this name in their own namespace, for instance `default`. It is for this registry
    /// alone, ends after four hours and is renewed before. Needs auth.token.kubernetes with the audience NAME.NAMESPACE.svc; what it may do is a matter of
    /// Roles. In each namespace somebody lets the operator make it: create on serviceaccounts/token, for this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub service_account_name: Option<String>,
    /// Other namespaces whose pods pull so, too. Each gets a Secret NAMESPACE.NAME-pull with the registry's namespace and name,
    /// if it accepts it: its label privateregistry.dev/accept-pull-secrets-from says `Any`, or the registry's namespace. Where several entries
    /// select a namespace, the first counts. Whoever reads Secrets there reads this login. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<PullSecretNamespaces>,
}

/// Which other namespaces get a login.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PullSecretNamespaces {
    /// Which of the namespaces that accept logins, by their labels; `{}` is all of them. Whoever may label a namespace may give it the
    /// login, except by the label kubernetes.io/metadata.name, which Kubernetes sets itself.
    pub selector: LabelSelector,
}

/// What happens to kept children when the registry is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
pub enum DeletionPolicy {
    /// They stay.
    #[default]
    Retain,
    /// They go with the registry.
    Delete,
}

impl Followed for PrivateRegistry {
    /// A definition may be newer than this program. A storage, a signer or a restriction that it does not know must not be read as the default.
    fn unknown(object: &Value) -> Option<String> {
        let field = unknown_field(&super::schema_outline()["properties"]["spec"], object.get("spec")?, "spec")?;
        Some(format!(
            "{field} is not known to version {} of the operator: upgrade it, or remove the field",
            env!("CARGO_PKG_VERSION")
        ))
    }

    /// Images hang on the deletion policy. One that cannot be read keeps them.
    fn salvage(&mut self, object: &Value) -> bool {
        let policy = DeletionPolicy::deserialize(&object["spec"]["deletionPolicy"]).ok();
        std::mem::replace(&mut self.spec.deletion_policy, policy) != policy
    }
}

/// An object whose fields this schema does not know: `model` checks the top-level keys.
fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// As many labels as a rule may look at, with values that Kubernetes takes.
fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": rules::LABEL_VALUE},
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Registries are held as text, and a status is written if it is another one: nothing may be lost or come in on the way.
    #[test]
    fn what_is_held_as_text_is_read_back_as_it_was() {
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "Ready", "message": "as wanted",
            "lastTransitionTime": "2026-11-22T00:00:00Z", "observedGeneration": 3,
        });
        for (spec, status) in [
            (json!({}), json!(null)),
            (json!({"auth": {"none": {}}, "tls": {"none": {}}, "storage": {"emptyDir": {}}}), json!({})),
            (
                json!({
                    "suspend": false, "replicas": 2, "extraConfig": {"catalog": {"maxentries": 10}}, "commonLabels": {"a": "b"},
                    "auth": {"users": [{"name": "ci", "passwordSecretRef": {"name": "s"}}], "usersFrom": []},
                    "pod": {"resources": {"limits": {"memory": "1Gi"}}, "tolerations": [], "affinity": {}},
                }),
                json!({
                    "conditions": [condition], "observedGeneration": 3, "userCount": 0, "users": [], "readyReplicas": 0,
                    "addresses": [], "operator": "system/operator",
                }),
            ),
        ] {
            let metadata =
                json!({"name": "team-a", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 3});
            let object = json!({
                "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "metadata": metadata, "spec": spec, "status": status,
            });
            let read: PrivateRegistry = serde_json::from_value(object).unwrap();
            let again: PrivateRegistry = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
            assert_eq!(again.status, read.status);
            assert_eq!(again.metadata, read.metadata);
            assert_eq!(format!("{:?}", again.spec), format!("{:?}", read.spec));
        }
    }
}
