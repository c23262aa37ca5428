//! What there is to know about a kind of object that is written: what it stands on, with which rights, what cannot change, what is remembered. The entries of
//! Kubernetes' own kinds stand here; which of them a program writes is the program's own table ([`Kinds`]), from which its watches, its order of
//! applying and its rights are derived.

use std::fmt;

use kube::core::{ApiResource, DynamicObject, Resource};

/// What stands on what: an object needs none of a later stage. What is no longer wanted goes in the opposite order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What others refer to, and what gets its address or its volume from the cluster.
    Foundation,
    /// What a pod mounts.
    Material,
    /// What runs.
    Workload,
    /// What governs it.
    Policy,
}

/// Whether an object that is no longer wanted is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prune {
    /// As soon as a pass doesn't name it.
    WhenUnwanted,
    /// Never by a pass: it holds what cannot be made again, or its owner has one as long as it lives.
    Never,
}

/// What a deletion waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The object goes at once, its dependents after it.
    Background,
    /// The dependents go first, so that two generations of pods never share a volume.
    Foreground,
}

/// How much of an object stays in memory once it is known to be as wanted. The metadata (without managedFields) always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remember {
    /// Everything, if somebody reads it by name; otherwise only the metadata.
    WhenRead,
    /// These paths.
    Paths(&'static [&'static str]),
}

/// What to do about a change to a field that the API server refuses to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Delete the object and create it again: nothing in it is worth keeping.
    Recreate,
    /// Report it. A field that is merely left out is sent as it is.
    Refuse,
}

/// A field that cannot change in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Immutable {
    /// Where it is, for example `spec.template`; everything below it is meant too.
    pub path: &'static str,
    /// What a change of it leads to.
    pub remedy: Remedy,
}

/// A quantity that may grow and never shrink. A request to grow that has not been fulfilled may be taken back.
pub struct Grows {
    /// Where it is asked for.
    pub path: &'static str,
    /// Where the object says how much it really has.
    pub has: &'static str,
}

/// One kind of object that is written.
pub struct Kind {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version without the group.
    pub version: &'static str,
    /// The name in manifests, for example `Service`. Unique in the table.
    pub kind: &'static str,
    /// The name in URLs and in RBAC rules.
    pub plural: &'static str,
    /// On what it may stand.
    pub stage: Stage,
    /// Whether it is deleted when no longer wanted.
    pub prune: Prune,
    /// What its deletion waits for.
    pub deletion: Deletion,
    /// The rights needed: no more, no less.
    pub verbs: &'static [&'static str],
    /// How much of it is remembered.
    pub remember: Remember,
    /// What cannot change in place.
    pub immutable: &'static [Immutable],
    /// What cannot change once somebody has set `immutable: true` in the object.
    pub sealed: &'static [&'static str],
    /// Whether its whole `spec` may be replaced, with what others added, when merging can't make it as wanted.
    pub is_replaceable: bool,
    /// Quantities that may grow and never shrink.
    pub grows: &'static [Grows],
    /// Whether the API server keeps an object as it is sent, without defaults. Then it is created by POST, which costs the server a sixth less than
    /// an apply. Otherwise the defaults would count as written by us, and look like fields that we no longer send.
    pub is_verbatim: bool,
    /// Whether an annotation ([`super::Marks::applied`]) tells what was sent, so that after a restart what a webhook has changed on its way in is told
    /// from what somebody edited, without a write. For kinds that webhooks like to change, or that can't be put right by a write; not for what is secret,
    /// because it is a hash of the content.
    pub is_stamped: bool,
    /// Whether a cluster may lack it, or an administrator keep it from the program. Then nothing waits for it, and it is looked for by discovery.
    pub is_optional: bool,
    /// Whether objects of it belong to no namespace. Children of such a kind are held as those in other namespaces are: [`super::Child::namespace`].
    pub is_cluster_wide: bool,
}

const ALL_VERBS: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
const NO_DELETE: &[&str] = &["get", "list", "watch", "create", "patch"];

const fn refuse(path: &'static str) -> Immutable {
    Immutable { path, remedy: Remedy::Refuse }
}

const fn recreate(path: &'static str) -> Immutable {
    Immutable { path, remedy: Remedy::Recreate }
}

/// What most kinds have in common, so that each entry below says only what is special about it.
const PLAIN: Kind = Kind {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    stage: Stage::Material,
    prune: Prune::WhenUnwanted,
    deletion: Deletion::Background,
    verbs: ALL_VERBS,
    remember: Remember::Paths(&[]),
    immutable: &[],
    sealed: &[],
    is_replaceable: false,
    grows: &[],
    is_verbatim: false,
    is_stamped: false,
    is_optional: false,
    is_cluster_wide: false,
};

/// The same for a kind that comes with a definition of somebody else's, or that not everybody lets the program write.
pub const OPTIONAL: Kind = Kind { stage: Stage::Policy, is_optional: true, ..PLAIN };

/// The identity of pods. Never pruned: an owner has one as long as it lives, or never had one.
pub const SERVICE_ACCOUNT: &Kind = &Kind {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    stage: Stage::Foundation,
    prune: Prune::Never,
    verbs: NO_DELETE,
    is_verbatim: true,
    ..PLAIN
};

/// Remembered with its addresses, because certificates and status name them. Never pruned: an owner has one as long as it lives, or never had one.
pub const SERVICE: &Kind = &Kind {
    kind: "Service",
    plural: "services",
    stage: Stage::Foundation,
    prune: Prune::Never,
    verbs: NO_DELETE,
    remember: Remember::Paths(&["spec", "status"]),
    immutable: &[refuse("spec.clusterIP"), refuse("spec.clusterIPs")],
    is_replaceable: true,
    ..PLAIN
};

/// Users' data: never pruned, and there is no right to delete one.
pub const PERSISTENT_VOLUME_CLAIM: &Kind = &Kind {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    stage: Stage::Foundation,
    prune: Prune::Never,
    verbs: NO_DELETE,
    remember: Remember::Paths(&["spec", "status"]),
    immutable: &[
        refuse("spec.accessModes"),
        refuse("spec.dataSource"),
        refuse("spec.dataSourceRef"),
        refuse("spec.selector"),
        refuse("spec.storageClassName"),
        refuse("spec.volumeMode"),
        refuse("spec.volumeName"),
    ],
    grows: &[Grows { path: "spec.resources.requests.storage", has: "status.capacity.storage" }],
    is_stamped: true,
    ..PLAIN
};

/// A change of `type` is refused, not repaired by deletion: the content may exist nowhere else.
pub const SECRET: &Kind = &Kind {
    kind: "Secret",
    plural: "secrets",
    remember: Remember::WhenRead,
    immutable: &[refuse("type")],
    sealed: &["data"],
    is_verbatim: true,
    ..PLAIN
};

/// Public material.
pub const CONFIG_MAP: &Kind = &Kind {
    kind: "ConfigMap",
    plural: "configmaps",
    remember: Remember::WhenRead,
    sealed: &["data", "binaryData"],
    is_verbatim: true,
    ..PLAIN
};

/// Remembered with its replicas and status, from which readiness is judged.
pub const DEPLOYMENT: &Kind = &Kind {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    stage: Stage::Workload,
    deletion: Deletion::Foreground,
    remember: Remember::Paths(&["spec.replicas", "status"]),
    immutable: &[recreate("spec.selector")],
    is_replaceable: true,
    is_stamped: true,
    ..PLAIN
};

/// `backoffLimit`, `suspend`, `parallelism` change in place; the pod doesn't.
pub const JOB: &Kind = &Kind {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    stage: Stage::Workload,
    deletion: Deletion::Foreground,
    remember: Remember::Paths(&[
        "spec.backoffLimit",
        "spec.parallelism",
        "spec.suspend",
        "spec.ttlSecondsAfterFinished",
        "status",
    ]),
    immutable: &[
        recreate("spec.completionMode"),
        recreate("spec.completions"),
        recreate("spec.podFailurePolicy"),
        recreate("spec.selector"),
        recreate("spec.template"),
    ],
    is_stamped: true,
    ..PLAIN
};

/// Limits what a drain may take away at once.
pub const POD_DISRUPTION_BUDGET: &Kind = &Kind {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    stage: Stage::Policy,
    is_replaceable: true,
    ..PLAIN
};

/// Remembered with the addresses that its controller reports.
pub const INGRESS: &Kind = &Kind {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    remember: Remember::Paths(&["status"]),
    is_replaceable: true,
    ..OPTIONAL
};

/// Authorities that pods of every namespace can mount, since Kubernetes 1.37. The API server reads what it is sent and sets nothing itself.
pub const CLUSTER_TRUST_BUNDLE: &Kind = &Kind {
    group: "certificates.k8s.io",
    kind: "ClusterTrustBundle",
    plural: "clustertrustbundles",
    immutable: &[refuse("spec.signerName")],
    is_verbatim: true,
    is_cluster_wide: true,
    ..OPTIONAL
};

/// A program's table: every kind that it writes, in the order of their stages.
#[derive(Debug, Clone, Copy)]
pub struct Kinds(pub &'static [&'static Kind]);

impl Kinds {
    /// The entry called `kind`, for example `Service`.
    pub fn named(self, kind: &str) -> Option<&'static Kind> {
        self.iter().find(|entry| entry.kind == kind)
    }

    /// Every entry, in the order of their stages.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = &'static Kind> + Clone {
        self.0.iter().copied()
    }
}

impl Kind {
    /// `v1`, `apps/v1`: what stands in a manifest.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The same for kube's dynamic types.
    pub fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version: self.api_version(),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    /// Where objects of this kind are in one namespace or in all, for example `/api/v1/namespaces/x/services`.
    pub(super) fn url(&self, namespace: Option<&str>) -> String {
        DynamicObject::url_path(&self.api_resource(), namespace.filter(|_| !self.is_cluster_wide))
    }

    /// Whether objects of this kind may be deleted at all.
    pub fn may_be_pruned(&self) -> bool {
        self.prune == Prune::WhenUnwanted && self.is_deletable()
    }

    /// Whether there is a right to delete one.
    pub fn is_deletable(&self) -> bool {
        self.verbs.contains(&"delete")
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Eq for Kind {}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// By stage; by name within a stage.
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.stage, self.kind).cmp(&(other.stage, other.kind))
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::{apps, batch, core, networking, policy};

    use super::super::testing::KINDS;
    use super::*;

    fn assert_is<K: Resource<DynamicType = ()>>(kind: &Kind) {
        assert_eq!(kind.api_resource(), ApiResource::erase::<K>(&()));
    }

    #[test]
    fn the_table_names_the_real_api() {
        assert_is::<core::v1::ServiceAccount>(SERVICE_ACCOUNT);
        assert_is::<core::v1::Service>(SERVICE);
        assert_is::<core::v1::PersistentVolumeClaim>(PERSISTENT_VOLUME_CLAIM);
        assert_is::<core::v1::Secret>(SECRET);
        assert_is::<core::v1::ConfigMap>(CONFIG_MAP);
        assert_is::<apps::v1::Deployment>(DEPLOYMENT);
        assert_is::<batch::v1::Job>(JOB);
        assert_is::<policy::v1::PodDisruptionBudget>(POD_DISRUPTION_BUDGET);
        assert_is::<networking::v1::Ingress>(INGRESS);
    }

    #[test]
    fn names_are_unique_and_the_table_is_in_the_order_of_stages() {
        assert_eq!(KINDS.iter().map(|kind| kind.kind).collect::<BTreeSet<_>>().len(), KINDS.0.len());
        assert!(KINDS.0.is_sorted_by_key(|kind| kind.stage));
        assert_eq!(KINDS.named("Job"), Some(JOB));
        assert_eq!(KINDS.named("Pod"), None);
    }

    #[test]
    fn data_can_be_neither_pruned_nor_deleted() {
        assert_eq!(PERSISTENT_VOLUME_CLAIM.prune, Prune::Never);
        assert!(!PERSISTENT_VOLUME_CLAIM.is_deletable());
    }

    #[test]
    fn nothing_that_may_hold_secrets_or_data_is_ever_recreated() {
        for kind in [SECRET, PERSISTENT_VOLUME_CLAIM] {
            assert!(kind.immutable.iter().all(|field| field.remedy == Remedy::Refuse), "{kind:?}");
        }
    }

    #[test]
    fn what_is_made_again_on_a_difference_is_stamped_and_what_may_be_secret_is_not() {
        for kind in KINDS.iter() {
            let is_recreated = kind.immutable.iter().any(|field| field.remedy == Remedy::Recreate);
            assert!(!is_recreated || kind.is_stamped, "{kind:?}");
        }
        assert!(!SECRET.is_stamped);
    }

    #[test]
    fn what_is_recreated_may_be_deleted() {
        for kind in KINDS.iter().filter(|kind| kind.immutable.iter().any(|field| field.remedy == Remedy::Recreate)) {
            assert!(kind.is_deletable(), "{kind:?}");
        }
    }

    #[test]
    fn urls_follow_the_group() {
        assert_eq!(SERVICE.url(Some("x")), "/api/v1/namespaces/x/services");
        assert_eq!(JOB.url(Some("x")), "/apis/batch/v1/namespaces/x/jobs");
        assert_eq!(SECRET.url(None), "/api/v1/secrets");
        assert_eq!(CLUSTER_TRUST_BUNDLE.url(Some("")), "/apis/certificates.k8s.io/v1/clustertrustbundles");
    }
}
