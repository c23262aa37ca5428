//! What the operator answers.
//!
//! No field changes by itself: a status that is written at every pass would start the next one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of conditions. `True` is good for all but `Reconciling` and `Stalled` (kstatus).
pub mod condition {
    /// The world is as the manifest says.
    pub const READY: &str = "Ready";
    /// Something is still being brought to what the manifest says.
    pub const RECONCILING: &str = "Reconciling";
    /// Only a change by the user can go on from here.
    pub const STALLED: &str = "Stalled";
    /// The registry answers.
    pub const AVAILABLE: &str = "Available";
    /// The Service is as the manifest says.
    pub const ADDRESS_READY: &str = "AddressReady";
    /// The Ingress or the route of a Gateway is as the manifest says, and its controller has taken it.
    pub const ROUTE_READY: &str = "RouteReady";
    /// The certificate that is served is valid and covers the names.
    pub const CERTIFICATE_READY: &str = "CertificateReady";
    /// Every user that the manifest names can log in.
    pub const USERS_READY: &str = "UsersReady";
    /// Whoever logs in by a token of the cluster or of an issuer can be judged.
    pub const IDENTITIES_READY: &str = "IdentitiesReady";
    /// The volume is bound, writable and as large as wanted.
    pub const STORAGE_READY: &str = "StorageReady";
    /// Every namespace that spec.pullSecrets selects, and that accepts it, has its login.
    pub const PULL_SECRETS_COPIED: &str = "PullSecretsCopied";
    /// Every namespace of spec.trust.namespaces has the bundle.
    pub const NAMESPACES_TRUSTED: &str = "NamespacesTrusted";
    /// spec.trust.clusterTrustBundle: pods of every namespace can mount the bundle.
    pub const CLUSTER_TRUSTED: &str = "ClusterTrusted";
    /// Every node of spec.trust.nodes has the bundle.
    pub const NODES_TRUSTED: &str = "NodesTrusted";
}

/// Reasons of conditions and events that do not come from an error: CamelCase, stable, documented in docs/conditions.md.
pub mod reason {
    /// Everything is as the manifest says.
    pub const SETTLED: &str = "Settled";
    /// The Service is as wanted.
    pub const ASSIGNED: &str = "Assigned";
    /// The controller of the Ingress or Gateway has taken the route.
    pub const TAKEN: &str = "Taken";
    /// No controller has said that it takes it.
    pub const NOT_TAKEN: &str = "NotTaken";
    /// The controller of the Gateway refuses it.
    pub const ROUTE_REFUSED: &str = "RouteRefused";
    /// Another registry has the host.
    pub const HOST_TAKEN: &str = "HostTaken";
    /// The workload is coming up or rolling out.
    pub const PROGRESSING: &str = operator_engine::work::events::PROGRESSING;
    /// `spec.suspend` is true.
    pub const SUSPENDED: &str = "Suspended";
    /// A user scaled the Deployment to zero and the restart policy is UnlessStopped.
    pub const STOPPED_BY_USER: &str = "StoppedByUser";
    /// The process ended with 0 and the restart policy says that it stays so.
    pub const COMPLETED: &str = "Completed";
    /// The process failed and the restart policy is Never.
    pub const FAILED: &str = "Failed";
    /// The process failed more often in a row than the restart policy allows.
    pub const MAX_RETRIES_EXCEEDED: &str = "MaxRetriesExceeded";
    /// Somebody deleted it, and it lives only as long as something holds it.
    pub const BEING_DELETED: &str = "BeingDeleted";
    /// The annotation `privateregistry.dev/paused` is set.
    pub const PAUSED: &str = "Paused";
    /// The registry answered as it should.
    pub const ANSWERING: &str = "Answering";
    /// The registry did not answer as it should.
    pub const NOT_ANSWERING: &str = "NotAnswering";
    /// No pod is running, because none is wanted.
    pub const NOT_RUNNING: &str = "NotRunning";
    /// The operator could not reach it, which says nothing about others.
    pub const UNREACHABLE: &str = "Unreachable";
    /// The certificate is valid.
    pub const VALID: &str = "Valid";
    /// TLS or logins are switched off in the manifest.
    pub const SWITCHED_OFF: &str = "SwitchedOff";
    /// The users' table is written, or the logins that are to be copied.
    pub const WRITTEN: &str = "Written";
    /// Some namespaces lack the login that they are to have.
    pub const NOT_ALL_WRITTEN: &str = "NotAllWritten";
    /// Logins from elsewhere can be judged.
    pub const ACCEPTING: &str = "Accepting";
    /// A pod does not say whether they can.
    pub const NOT_TOLD: &str = "NotTold";
    /// An issuer cannot be asked for its keys.
    pub const ISSUER_UNREACHABLE: &str = "IssuerUnreachable";
    /// Nobody who is known has signed an issuer's certificate.
    pub const ISSUER_UNTRUSTED: &str = "IssuerUntrusted";
    /// The keys of an issuer are none.
    pub const ISSUER_KEYS_UNUSABLE: &str = "IssuerKeysUnusable";
    /// The ConfigMap with an issuer's keys is not there.
    pub const ISSUER_KEYS_MISSING: &str = "IssuerKeysMissing";
    /// The registry may not ask the cluster whose a token is.
    pub const CLUSTER_FORBIDS: &str = "ClusterForbids";
    /// The API server cannot be asked.
    pub const CLUSTER_UNREACHABLE: &str = "ClusterUnreachable";
    /// The API server does not know the registry's ServiceAccount.
    pub const ACCOUNT_UNKNOWN: &str = "AccountUnknown";
    /// The volume is bound.
    pub const BOUND: &str = "Bound";
    /// The claim waits for a volume.
    pub const PENDING: &str = "Pending";
    /// The volume is being grown.
    pub const RESIZING: &str = "Resizing";
    /// Data is lost with the pod (emptyDir).
    pub const EPHEMERAL: &str = "Ephemeral";
    /// Everybody who should has the bundle.
    pub const TOLD: &str = "Told";
    /// Some lack the bundle.
    pub const NOT_ALL_TOLD: &str = "NotAllTold";
    /// Event: a user's Secret shows the next login.
    pub const LOGIN_SWITCHED: &str = "LoginSwitched";
    /// Event: another installation of the operator looks after the registry.
    pub const OTHER_OPERATOR: &str = "OtherOperator";
    /// Event: an installation of the operator took the registry over from one that is gone.
    pub const TAKEN_OVER: &str = "TakenOver";
}

/// What the operator found and did.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PrivateRegistryStatus {
    /// Generation of the manifest that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready, Reconciling, Stalled, Available, AddressReady, CertificateReady, UsersReady, IdentitiesReady, StorageReady,
    /// PullSecretsCopied, NamespacesTrusted, NodesTrusted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// Since when an object that the manifest names has been missing; absent while nothing is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// Address to use in image names: the first host of spec.route, else the first of spec.addresses, else the load balancer's address, else the Service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Every address that the certificate covers, and from where each is reachable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<Address>,
    /// The certificate that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateStatus>,
    /// How many users can log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_count: Option<i32>,
    /// The users that can log in; the first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub users: Vec<UserStatus>,
    /// How far the logins of spec.pullSecrets have come in other namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secrets: Option<CopiesStatus>,
    /// The volume that holds the images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// Who has been told which authorities to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustStatus>,
    /// Image that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Pods that are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Restart policy that is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// Generation of the manifest whose Job runs and will be removed by a rule that is not the operator's when it has ended: if it is gone when the operator
    /// comes back, it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_generation: Option<i64>,
    /// Generation of the manifest whose Job has ended and is removed by a rule that is not the operator's: it is not started again before the manifest
    /// changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_generation: Option<i64>,
    /// Value of the annotation privateregistry.dev/renew that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_renew_request: Option<String>,
    /// The installation of the operator that looks after this registry: namespace and name of its Lease. Any other leaves it alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Another installation, which asks whether the one in `operator` is still there; that one takes the question away. If it does
    /// not, the other one puts its own name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_asked: Option<String>,
}

impl PrivateRegistryStatus {
    /// The condition of this type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == kind)
    }

    /// Whether the condition of this type has this status, such as `True`.
    #[must_use]
    pub fn says(&self, kind: &str, status: &str) -> bool {
        self.condition(kind).is_some_and(|condition| condition.status == status)
    }
}

/// One address.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// From where it is reachable.
    pub scope: AddressScope,
    /// Host and port as they stand in an image name.
    pub address: String,
}

/// From where an address is reachable.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressScope {
    /// From outside the cluster.
    External,
    /// From nodes and pods.
    Node,
    /// From pods.
    Cluster,
}

/// The certificate that is served.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Valid from, RFC 3339.
    pub not_before: String,
    /// Valid until, RFC 3339.
    pub not_after: String,
    /// When the operator issues the next one, RFC 3339; absent for your own certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<String>,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Why it was issued, in one word; absent for your own certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The authorities that clients must trust now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub authorities: Vec<AuthorityStatus>,
}

/// An authority that clients must trust.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// SHA-256 of its certificate, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    /// Valid until, RFC 3339.
    pub not_after: String,
    /// Whether it signs now, or will, or did.
    pub stage: AuthorityStage,
}

/// Whether an authority signs.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityStage {
    /// It signs later, when clients could learn of it.
    Next,
    /// It signed the certificate that is served.
    Active,
    /// It signed earlier ones, which clients may still meet.
    Former,
}

/// One user.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UserStatus {
    /// Name that is logged in with.
    pub name: String,
    /// Where the password or the hash comes from.
    pub source: UserSource,
    /// When the password or its cost changed last, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
    /// When the next login is shown, and until when the former one counts; absent without `rotation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<UserRotationStatus>,
}

/// The logins of a user whose password the operator rotates.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UserRotationStatus {
    /// When the next login is shown, RFC 3339, unless somebody asks for it earlier. In the past: as soon as running pods accept it.
    pub next: String,
    /// Until when the former login counts, RFC 3339; absent if there is none, or if not all pull Secrets show the present one yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_ends_at: Option<String>,
}

/// Where a user comes from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UserSource {
    /// By which field of the manifest the user is there.
    pub kind: UserSourceKind,
    /// Name of the Secret.
    pub name: String,
    /// Key in the Secret.
    pub key: String,
}

/// By which field of the manifest a user is there.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserSourceKind {
    /// auth.users.
    Users,
    /// auth.usersFrom.
    UsersFrom,
    /// auth.admin: the operator made it.
    GeneratedAdmin,
}

/// The volume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StorageStatus {
    /// Name of the claim; absent with emptyDir.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_name: Option<String>,
    /// Name of the volume that holds the images, also when it is gone: another one is not served in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_name: Option<String>,
    /// Size of the bound volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub capacity: Option<String>,
    /// Size that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
}

/// How many of the namespaces that should have a login have it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CopiesStatus {
    /// How many should have it.
    pub wanted: i32,
    /// How many have it.
    pub copied: i32,
    /// The first ten that lack it, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub missing: Vec<String>,
}

/// Who has been told which authorities to trust.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TrustStatus {
    /// The namespaces of spec.trust.namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<ReachStatus>,
    /// Name of the ClusterTrustBundle of spec.trust.clusterTrustBundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_trust_bundle: Option<String>,
    /// The nodes of spec.trust.nodes, as far as their agents have reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<ReachStatus>,
}

/// How many of those that should have the bundle have it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReachStatus {
    /// How many should have it.
    pub wanted: i32,
    /// How many have it.
    pub trusting: i32,
    /// The first ten that lack it, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub missing: Vec<String>,
}
