//! Every rule that the API server checks at admission, in CEL, each with the words a user gets.
//!
//! A rule that needs another object (a Secret, an existing claim) cannot stand here: it lives in [`crate::model`] and answers
//! with a condition. Rules that compare with the old object sit on the parent, so that removing a field is seen too.

/// Rule and message, in the form that kube's derive takes.
pub type Rule = (&'static str, &'static str);

/// Pattern of a DNS name: labels of up to 63 characters.
pub const DNS_NAME: &str = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";
/// Pattern of a DNS name whose first label may be a wildcard.
pub const DNS_NAME_OR_WILDCARD: &str =
    r"^(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";
/// Pattern of an IP address, coarse; `model` parses it.
pub const IP_ADDRESS: &str = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*)$";

/// Names of registries: see `RegistryName` in the model for the reasons.
pub const NAME: Rule = (
    "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,46}[a-z0-9])?$')",
    "metadata.name must begin with a letter, hold only lower-case letters, digits and '-', end with a letter or digit, and have at most 48 characters: names of Services and other children are made from it",
);
/// The registry's CVEs decide the oldest version.
pub const IMAGE_TOO_OLD: Rule = (
    r"!has(self.image) || !self.image.matches(':v?([0-2](\\.[0-9]+)*|3\\.0(\\.[0-9]+)*|3\\.1\\.0)([-+][^/:@]*)?(@.*)?$')",
    "spec.image is older than 3.1.1, which has known security faults (tags deleted although deletes are off, credentials sent to foreign hosts); use 3.1.1 or newer",
);
/// A volume that only one node can mount serves one pod.
pub const REPLICAS_NEED_SHARED_STORAGE: Rule = (
    "!has(self.replicas) || self.replicas <= 1 || (has(self.storage) && has(self.storage.persistentVolumeClaim) && (has(self.storage.persistentVolumeClaim.claimName) || (has(self.storage.persistentVolumeClaim.accessModes) && self.storage.persistentVolumeClaim.accessModes.exists(m, m == 'ReadWriteMany'))))",
    "spec.replicas greater than 1 needs storage that several pods can share: set spec.storage.persistentVolumeClaim.accessModes to [ReadWriteMany]",
);
/// A Job runs one pod.
pub const JOBS_RUN_ONE: Rule = (
    "!has(self.replicas) || self.replicas == 1 || !has(self.restartPolicy) || !has(self.restartPolicy.type) || !(self.restartPolicy.type in ['OnFailure', 'Never'])",
    "spec.restartPolicy.type OnFailure and Never run exactly one pod: set spec.replicas to 1",
);
/// Data would be left behind.
pub const STORAGE_KIND_FIXED: Rule = (
    "(has(self.storage) && has(self.storage.emptyDir)) == (has(oldSelf.storage) && has(oldSelf.storage.emptyDir))",
    "spec.storage cannot change between persistentVolumeClaim and emptyDir: the images would be left behind; make a new registry and copy them",
);
/// Kubernetes cannot change a claim's class.
pub const STORAGE_CLASS_FIXED: Rule = (
    "(has(self.storage) && has(self.storage.persistentVolumeClaim) && has(self.storage.persistentVolumeClaim.storageClassName) ? self.storage.persistentVolumeClaim.storageClassName : '') == (has(oldSelf.storage) && has(oldSelf.storage.persistentVolumeClaim) && has(oldSelf.storage.persistentVolumeClaim.storageClassName) ? oldSelf.storage.persistentVolumeClaim.storageClassName : '')",
    "spec.storage.persistentVolumeClaim.storageClassName cannot be changed: Kubernetes does not move a volume; make a new registry and copy the images",
);
/// Kubernetes cannot change a claim's access modes.
pub const ACCESS_MODES_FIXED: Rule = (
    "(has(self.storage) && has(self.storage.persistentVolumeClaim) && has(self.storage.persistentVolumeClaim.accessModes) ? self.storage.persistentVolumeClaim.accessModes : ['ReadWriteOnce']) == (has(oldSelf.storage) && has(oldSelf.storage.persistentVolumeClaim) && has(oldSelf.storage.persistentVolumeClaim.accessModes) ? oldSelf.storage.persistentVolumeClaim.accessModes : ['ReadWriteOnce'])",
    "spec.storage.persistentVolumeClaim.accessModes cannot be changed: Kubernetes keeps a claim's modes; make a new registry and copy the images",
);
/// Another claim holds other images.
pub const CLAIM_NAME_FIXED: Rule = (
    "(has(self.storage) && has(self.storage.persistentVolumeClaim) && has(self.storage.persistentVolumeClaim.claimName) ? self.storage.persistentVolumeClaim.claimName : '') == (has(oldSelf.storage) && has(oldSelf.storage.persistentVolumeClaim) && has(oldSelf.storage.persistentVolumeClaim.claimName) ? oldSelf.storage.persistentVolumeClaim.claimName : '')",
    "spec.storage.persistentVolumeClaim.claimName cannot be changed: the other claim holds other images; make a new registry",
);
/// Volumes never shrink.
pub const SIZE_GROWS: Rule = (
    "quantity(has(self.storage) && has(self.storage.persistentVolumeClaim) && has(self.storage.persistentVolumeClaim.size) ? string(self.storage.persistentVolumeClaim.size) : '10Gi').compareTo(quantity(has(oldSelf.storage) && has(oldSelf.storage.persistentVolumeClaim) && has(oldSelf.storage.persistentVolumeClaim.size) ? string(oldSelf.storage.persistentVolumeClaim.size) : '10Gi')) >= 0",
    "spec.storage.persistentVolumeClaim.size can only grow (absent means 10Gi): Kubernetes does not shrink a volume",
);

/// Storage is a union.
pub const ONE_STORAGE: Rule = (
    "has(self.persistentVolumeClaim) != has(self.emptyDir)",
    "spec.storage needs exactly one of persistentVolumeClaim and emptyDir",
);
/// What an existing claim is like was decided when it was made.
pub const EXISTING_CLAIM_ALONE: Rule = (
    "!has(self.claimName) || (!has(self.size) && !has(self.storageClassName) && !has(self.accessModes))",
    "claimName names an existing claim: size, storageClassName and accessModes cannot stand beside it",
);
/// A volume has a size.
pub const POSITIVE: Rule =
    ("quantity(string(self)).isGreaterThan(quantity('0'))", "must be greater than 0, for instance 20Gi");

/// TLS is a union.
pub const ONE_TLS: Rule = (
    "[has(self.selfSigned), has(self.secret), has(self.none)].filter(given, given).size() == 1",
    "spec.tls needs exactly one of selfSigned, secret and none",
);
/// A certificate cannot outlive its authority.
pub const AUTHORITY_OUTLIVES_LEAF: Rule = (
    "!has(self.caDuration) || duration(self.caDuration) >= duration(has(self.duration) ? self.duration : '8760h')",
    "caDuration must be at least as long as duration (absent means 8760h): a certificate cannot outlive its authority",
);
/// The same against the default authority.
pub const LEAF_AT_MOST_DEFAULT_AUTHORITY: Rule = (
    "has(self.caDuration) || !has(self.duration) || duration(self.duration) <= duration('87600h')",
    "duration is longer than the authority's default life of 87600h: set caDuration too",
);
/// Shorter makes no sense and would keep the registry restarting.
pub const AT_LEAST_A_MINUTE: Rule =
    ("duration(self) >= duration('1m')", "must be a duration of at least 1m, for instance 720h");

/// Authentication is a union.
pub const NO_AUTH_ALONE: Rule = (
    "!has(self.none) || ((!has(self.users) || self.users.size() == 0) && (!has(self.usersFrom) || self.usersFrom.size() == 0) && !has(self.generatedAdmin))",
    "spec.auth.none switches logins off: users, usersFrom and generatedAdmin cannot stand beside it",
);

/// A retry limit belongs to one type.
pub const RETRIES_NEED_ON_FAILURE: Rule =
    ("!has(self.maxRetries) || (has(self.type) && self.type == 'OnFailure')", "maxRetries needs type: OnFailure");

/// A node port belongs to two types.
pub const NODE_PORT_NEEDS_TYPE: Rule = (
    "!has(self.nodePort) || (has(self.type) && self.type in ['NodePort', 'LoadBalancer'])",
    "nodePort needs type: NodePort or LoadBalancer",
);
/// A class belongs to one type.
pub const LOAD_BALANCER_CLASS_NEEDS_TYPE: Rule = (
    "!has(self.loadBalancerClass) || (has(self.type) && self.type == 'LoadBalancer')",
    "loadBalancerClass needs type: LoadBalancer",
);
/// Source ranges belong to one type.
pub const SOURCE_RANGES_NEED_TYPE: Rule = (
    "!has(self.loadBalancerSourceRanges) || self.loadBalancerSourceRanges.size() == 0 || (has(self.type) && self.type == 'LoadBalancer')",
    "loadBalancerSourceRanges needs type: LoadBalancer",
);

/// The registry lets environment variables override its file.
pub const NO_REGISTRY_ENV: Rule = (
    "!has(self.env) || self.env.all(variable, !variable.name.startsWith('REGISTRY_'))",
    "env names must not begin with REGISTRY_: they would override the rendered configuration; use spec.config or spec.extraConfig",
);
