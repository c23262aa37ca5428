//! Every rule that the API server checks at admission, in CEL, each with the words a user gets.
//!
//! A rule that needs another object (a Secret, an existing claim) cannot stand here: it lives in [`crate::model`] and answers
//! with a condition. Rules that compare with the old object sit on the parent, so that removing a field is seen too.

/// Rule and message, in the form that kube's derive takes.
pub type Rule = (&'static str, &'static str);

/// Pattern of what stands before the first slash of an image name, coarse; `model` parses it.
pub const HOST_PORT: &str = r"^(\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\]|[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*)(:[1-9][0-9]{0,4})?$";
/// Pattern of a label's value.
pub const LABEL_VALUE: &str = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$";
/// Pattern of a user's name: no colon, no blanks, and nothing that an htpasswd file takes for a comment.
pub const USER_NAME: &str = r"^[^:#\s\x00-\x1f\x7f][^:\s\x00-\x1f\x7f]*$";
/// Pattern of a user or group of an issuer: the issuer's name, a colon, and no blanks.
pub const GUEST: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?:[^\s\x00-\x1f\x7f]+$";
/// Pattern of a user's name, with an issuer's name before a colon or without.
pub const USER_OR_GUEST: &str =
    r"^([^:#\s\x00-\x1f\x7f][^:\s\x00-\x1f\x7f]*|[a-z0-9]([-a-z0-9]*[a-z0-9])?:[^\s\x00-\x1f\x7f]+)$";
/// Pattern of a key of a ConfigMap.
pub const DATA_KEY: &str = r"^(\.?[-_a-zA-Z0-9]+)(\.?[-_a-zA-Z0-9])*$";
/// Pattern of an issuer's address, coarse.
pub const ISSUER: &str = r"^https://[^\s?#]+$";
/// Pattern of whom a token is for: visible letters.
pub const AUDIENCE: &str = r"^[\x21-\x7e]+$";
/// Pattern of an object's name.
pub const OBJECT_NAME: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Pattern of a DNS name whose first label may be a wildcard.
pub const DNS_NAME_OR_WILDCARD: &str =
    r"^(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$";
/// Pattern of a host name that a proxy tells from others: with a dot, or clients read it as a path of Docker Hub; never an address, which ends with a number.
pub const ROUTED_HOST: &str = r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$";
/// Pattern of a name of one label, such as a namespace's.
pub const LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Pattern of a signer's name: a domain, a slash, and a path.
pub const SIGNER_NAME: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// Pattern of a pattern for repositories' names: parts between slashes, of letters, stars, `${user}` and `${team}`; `model` looks closer.
pub const REPOSITORY_PATTERN: &str =
    r"^([a-z0-9._*-]|\$\{user\}|\$\{team\})+(/([a-z0-9._*-]|\$\{user\}|\$\{team\})+)*$";
/// Pattern of a kind's name.
pub const KIND_NAME: &str = r"^[A-Z][A-Za-z0-9]*$";
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
    "!has(self.replicas) || self.replicas <= 1 || (has(self.storage) && (has(self.storage.existingClaim) || (has(self.storage.persistentVolumeClaim) && has(self.storage.persistentVolumeClaim.accessModes) && self.storage.persistentVolumeClaim.accessModes.exists(m, m == 'ReadWriteMany'))))",
    "spec.replicas greater than 1 needs storage that several pods can share: set spec.storage.persistentVolumeClaim.accessModes to [ReadWriteMany]",
);
/// A Job runs one pod.
pub const JOBS_RUN_ONE: Rule = (
    "!has(self.replicas) || self.replicas == 1 || !has(self.restartPolicy) || !has(self.restartPolicy.type) || !(self.restartPolicy.type in ['OnFailure', 'Never'])",
    "spec.restartPolicy.type OnFailure and Never run exactly one pod: set spec.replicas to 1",
);
/// Data would be left behind.
pub const STORAGE_KIND_FIXED: Rule = (
    "(has(self.storage) && has(self.storage.emptyDir)) == (has(oldSelf.storage) && has(oldSelf.storage.emptyDir)) && (has(self.storage) && has(self.storage.existingClaim)) == (has(oldSelf.storage) && has(oldSelf.storage.existingClaim))",
    "spec.storage cannot change between persistentVolumeClaim, existingClaim and emptyDir: the images would be left behind; create a new registry and copy them",
);
/// Kubernetes cannot change a claim's class.
pub const STORAGE_CLASS_FIXED: Rule = (
    "(has(self.storage) && has(self.storage.persistentVolumeClaim) && has(self.storage.persistentVolumeClaim.storageClassName) ? [self.storage.persistentVolumeClaim.storageClassName] : []) == (has(oldSelf.storage) && has(oldSelf.storage.persistentVolumeClaim) && has(oldSelf.storage.persistentVolumeClaim.storageClassName) ? [oldSelf.storage.persistentVolumeClaim.storageClassName] : [])",
    "spec.storage.persistentVolumeClaim.storageClassName cannot be changed (absent is the default class, \"\" is no class): Kubernetes does not move a volume; create a new registry and copy the images",
);
/// Kubernetes cannot change a claim's access modes. Their order means nothing.
pub const ACCESS_MODES_FIXED: Rule = (
    "['ReadWriteOnce', 'ReadWriteOncePod', 'ReadWriteMany'].all(mode, (has(self.storage) && has(self.storage.persistentVolumeClaim) && has(self.storage.persistentVolumeClaim.accessModes) && self.storage.persistentVolumeClaim.accessModes.size() > 0 ? self.storage.persistentVolumeClaim.accessModes.exists(m, m == mode) : mode == 'ReadWriteOnce') == (has(oldSelf.storage) && has(oldSelf.storage.persistentVolumeClaim) && has(oldSelf.storage.persistentVolumeClaim.accessModes) && oldSelf.storage.persistentVolumeClaim.accessModes.size() > 0 ? oldSelf.storage.persistentVolumeClaim.accessModes.exists(m, m == mode) : mode == 'ReadWriteOnce'))",
    "spec.storage.persistentVolumeClaim.accessModes cannot be changed: Kubernetes keeps a claim's modes; create a new registry and copy the images",
);
/// Another claim holds other images.
pub const EXISTING_CLAIM_FIXED: Rule = (
    "!has(self.storage) || !has(self.storage.existingClaim) || !has(oldSelf.storage) || !has(oldSelf.storage.existingClaim) || self.storage.existingClaim.name == oldSelf.storage.existingClaim.name",
    "spec.storage.existingClaim.name cannot be changed: the other claim holds other images; create a new registry",
);
/// Volumes never shrink, but growing one may fail, and can then be taken back.
pub const SIZE_GROWS: Rule = (
    "quantity(has(self.spec.storage) && has(self.spec.storage.persistentVolumeClaim) && has(self.spec.storage.persistentVolumeClaim.size) ? string(self.spec.storage.persistentVolumeClaim.size) : '10Gi').compareTo(quantity(has(oldSelf.spec.storage) && has(oldSelf.spec.storage.persistentVolumeClaim) && has(oldSelf.spec.storage.persistentVolumeClaim.size) ? string(oldSelf.spec.storage.persistentVolumeClaim.size) : '10Gi')) >= 0 || (has(self.status) && has(self.status.storage) && has(self.status.storage.capacity) && isQuantity(self.status.storage.capacity) && quantity(has(self.spec.storage) && has(self.spec.storage.persistentVolumeClaim) && has(self.spec.storage.persistentVolumeClaim.size) ? string(self.spec.storage.persistentVolumeClaim.size) : '10Gi').compareTo(quantity(self.status.storage.capacity)) >= 0)",
    "spec.storage.persistentVolumeClaim.size (absent means 10Gi) cannot be smaller than the volume, whose size is in status.storage.capacity: Kubernetes does not shrink a volume",
);

/// Storage is a union.
pub const ONE_STORAGE: Rule = (
    "[has(self.persistentVolumeClaim), has(self.existingClaim), has(self.emptyDir)].filter(given, given).size() == 1",
    "spec.storage needs exactly one of persistentVolumeClaim, existingClaim and emptyDir",
);
/// A volume has a size.
pub const POSITIVE: Rule =
    ("quantity(string(self)).isGreaterThan(quantity('0'))", "must be greater than 0, for instance 20Gi");

/// The front end is a union.
pub const ONE_FRONTEND: Rule =
    ("has(self.nginx)", "spec.frontend needs nginx: write nginx: {}, or leave spec.frontend out");

/// A route is a union.
pub const ONE_ROUTE: Rule = (
    "[has(self.ingress), has(self.gateway)].filter(given, given).size() == 1",
    "spec.route needs exactly one of ingress and gateway: write one of them, or leave spec.route out",
);
/// The Gateway API takes no route with one parent twice; a Gateway stands there more than once only with the names of different listeners.
pub const PARENTS_DIFFER: Rule = (
    "self.all(one, self.filter(other, other.name == one.name && (has(other.__namespace__) ? other.__namespace__ : '') == (has(one.__namespace__) ? one.__namespace__ : '')).size() == 1 || (has(one.sectionName) && self.filter(other, other.name == one.name && (has(other.__namespace__) ? other.__namespace__ : '') == (has(one.__namespace__) ? one.__namespace__ : '') && has(other.sectionName) && other.sectionName == one.sectionName).size() == 1))",
    "spec.route.gateway.parentRefs: a Gateway that stands there more than once needs another sectionName each time",
);
/// There is nothing to pass through.
pub const PASSTHROUGH_NEEDS_TLS: Rule = (
    "!has(self.route) || !has(self.route.gateway) || !has(self.route.gateway.mode) || self.route.gateway.mode != 'Passthrough' || !has(self.tls) || !has(self.tls.none)",
    "spec.route.gateway.mode: Passthrough leaves TLS to the registry, which speaks none with spec.tls.none: write Terminate, or remove spec.tls.none",
);
/// Who ends TLS keeps what clients show.
pub const CLIENT_CERTIFICATES_PASS_THROUGH: Rule = (
    "!has(self.tls) || !has(self.tls.clientCASecretRef) || !has(self.route) || (has(self.route.gateway) && has(self.route.gateway.mode) && self.route.gateway.mode == 'Passthrough')",
    "spec.tls.clientCASecretRef asks for clients' certificates, which do not reach the registry through a proxy that ends TLS: write spec.route.gateway with mode: Passthrough, or remove one of them",
);

/// TLS is a union.
pub const ONE_SIGNER: Rule = (
    "[has(self.privateCA), has(self.secret), has(self.certManager), has(self.certificateSigningRequest), has(self.none)].filter(given, given).size() <= 1",
    "spec.tls takes at most one of privateCA, secret, certManager, certificateSigningRequest and none",
);
/// Nobody signs what somebody else has signed.
pub const CERTIFICATE_NEEDS_A_SIGNER: Rule = (
    "!has(self.certificate) || (!has(self.secret) && !has(self.none))",
    "spec.tls.certificate describes a certificate that the operator has signed, and cannot be combined with secret or none: remove one of them",
);
/// Kubernetes signs for kubelets and its own clients with these, and for servers of nobody else.
pub const SIGNER_IS_OF_NO_NODE: Rule = (
    "!self.startsWith('kubernetes.io/')",
    "spec.tls.certificateSigningRequest.signerName: the signers of Kubernetes itself sign for nodes and its own clients only; name a signer that is installed in the cluster for servers",
);
/// A certificate cannot outlive its authority.
pub const AUTHORITY_OUTLIVES_CERTIFICATE: Rule = (
    "has(self.certManager) || has(self.certificateSigningRequest) || duration(has(self.privateCA) && has(self.privateCA.duration) ? self.privateCA.duration : '87600h') >= duration(has(self.certificate) && has(self.certificate.duration) ? self.certificate.duration : '8760h')",
    "spec.tls.privateCA.duration (absent means 87600h) must be at least as long as spec.tls.certificate.duration (absent means 8760h): a certificate cannot outlive its authority",
);
/// A shorter one would be renewed more often than pods should restart.
pub const AT_LEAST_AN_HOUR: Rule =
    ("duration(self) >= duration('1h')", "must be a duration of at least 1h, for instance 720h");
/// Of two of them nobody could say which counts.
pub const ONE_PASSWORD: Rule = (
    "has(self.passwordSecretRef) != has(self.rotation)",
    "a user needs exactly one of passwordSecretRef (a password of yours) and rotation (the operator makes it)",
);
/// Its login's Secret is called by it.
pub const ROTATED_NAME: Rule = (
    "!has(self.rotation) || self.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
    "the name of a user with rotation may hold only lower-case letters, digits and '-', at most 63, and neither begin nor end with '-': the Secret with the login is called by it",
);
/// Of three logins at once two would have one name.
pub const OVERLAP_LEAVES_ROOM: Rule = (
    "!has(self.overlap) || duration(self.overlap) + duration('10m') <= duration(self.every)",
    "overlap must be at least 10m shorter than every: the former login ends before the next one begins",
);
/// In the registry's file one line is one name, so a second login needs a second one. To compare each user with each other one would cost more than a rule
/// may.
pub const SECOND_NAMES_ARE_FREE: Rule = (
    "!has(self.users) || !self.users.exists(user, has(user.rotation)) || (self.users.all(user, !user.name.endsWith('.2')) && (!has(self.admin) || !has(self.admin.username) || !self.admin.username.endsWith('.2')))",
    "a user with rotation logs in as NAME and as NAME.2 in turn: beside one, no user's name may end with '.2', nor the generated admin's",
);
/// It lives as long as it was made for.
pub const LIFE_OF_A_SHARED_AUTHORITY: Rule = (
    "!has(self.caSecretRef) || !has(self.duration)",
    "spec.tls.privateCA.duration is the life of an authority that the operator makes, and cannot be combined with caSecretRef: remove one of them",
);
/// Plain HTTP has neither.
pub const VERSION_NEEDS_TLS: Rule = (
    "!has(self.none) || (!has(self.minimumVersion) && !has(self.cipherSuites) && !has(self.clientCASecretRef))",
    "spec.tls.minimumVersion, cipherSuites and clientCASecretRef say how TLS is spoken, and cannot be combined with none: remove them",
);
/// A kubelet has no certificate for its probes, and the registry itself would ask for one at every path.
pub const CLIENT_CERTIFICATES_NEED_THE_FRONT_END: Rule = (
    "!has(self.tls) || !has(self.tls.clientCASecretRef) || (has(self.frontend) && has(self.frontend.nginx)) || (has(self.auth) && has(self.auth.token))",
    "spec.tls.clientCASecretRef needs the front end, which lets probes pass: add spec.frontend.nginx: {}",
);
/// Whoever chooses and is not asked would believe to have chosen.
pub const CIPHERS_ARE_OF_TLS_1_2: Rule = (
    "!has(self.cipherSuites) || !has(self.minimumVersion) || self.minimumVersion == 'VersionTLS12'",
    "spec.tls.cipherSuites are those of TLS 1.2: with minimumVersion VersionTLS13 they are never used, so remove one of the two",
);
/// Go does not begin to serve without it.
pub const CIPHERS_INCLUDE_THAT_OF_HTTP_2: Rule = (
    "!has(self.cipherSuites) || self.cipherSuites.exists(suite, suite.endsWith('_WITH_AES_128_GCM_SHA256'))",
    "spec.tls.cipherSuites needs a suite with AES_128_GCM_SHA256, which HTTP/2 asks for",
);
/// Shorter makes no sense.
pub const AT_LEAST_A_MINUTE: Rule =
    ("duration(self) >= duration('1m')", "must be a duration of at least 1m, for instance 720h");

/// Authentication is a union.
pub const ONE_AUTH: Rule = (
    "[has(self.htpasswd), has(self.token), has(self.none)].filter(given, given).size() <= 1",
    "spec.auth takes at most one of htpasswd, token and none",
);
/// A typing error would leave a team without its rights.
pub const TEAMS_EXIST: Rule = (
    "self.rules.all(rule, !has(rule.teams) || rule.teams.all(team, team == '*' || (has(self.teams) && self.teams.exists(known, known.name == team))))",
    "spec.auth.token.rules names a team that is not among spec.auth.token.teams: add it there, or correct its name",
);
/// The first of two would always be meant.
pub const ISSUERS_DIFFER: Rule = (
    "!has(self.issuers) || self.issuers.all(one, self.issuers.exists_one(other, other.issuer == one.issuer))",
    "two of spec.auth.token.issuers have the same issuer: which one a token is of could not be told",
);
/// The cluster calls its own users so.
pub const ISSUER_NOT_SYSTEM: Rule =
    ("self.name != 'system'", "an issuer cannot be called system: users of the cluster are called system:… themselves");
/// Whose keys lie in a ConfigMap is not asked.
pub const KEYS_OR_AUTHORITY: Rule = (
    "!has(self.jwksConfigMapRef) || !has(self.certificateAuthority)",
    "an issuer with jwksConfigMapRef is not asked for its keys: leave certificateAuthority out",
);
/// A rule for nobody is a slip.
pub const RULE_IS_FOR_SOMEBODY: Rule = (
    "(has(self.users) && self.users.size() > 0) || (has(self.teams) && self.teams.size() > 0) || (has(self.anonymous) && self.anonymous)",
    "a rule needs users, teams or anonymous: true, so that it is for somebody",
);
/// A rule about nothing is a slip, and so are repositories that do not count.
pub const RULE_HAS_REPOSITORIES: Rule = (
    "(has(self.repositories) && self.repositories.size() > 0) == self.actions.exists(action, action != 'catalog')",
    "a rule needs repositories for pull, push and delete, and has none if it allows nothing but catalog, which is about all of them",
);
/// Whoever writes is somebody.
pub const ANONYMOUS_ONLY_READS: Rule = (
    "!has(self.anonymous) || !self.anonymous || self.actions.all(action, action in ['pull', 'catalog'])",
    "a rule with anonymous: true may allow pull and catalog only: whoever pushes or deletes has to log in",
);
/// It would stand for nothing.
pub const TEAM_PATTERNS_NEED_TEAMS: Rule = (
    "!has(self.repositories) || !self.repositories.exists(pattern, pattern.contains('${team}')) || (has(self.teams) && self.teams.size() > 0)",
    "a rule with ${team} in its repositories needs teams; teams: ['*'] is every team",
);
/// Who lets everybody in has no users.
pub const NO_AUTH_ALONE: Rule = (
    "!has(self.none) || ((!has(self.users) || self.users.size() == 0) && (!has(self.usersFrom) || self.usersFrom.size() == 0) && !has(self.admin))",
    "spec.auth.none switches logins off and cannot be combined with users, usersFrom or admin",
);
/// Passwords and hashes are read differently.
pub const ONE_USERS_SOURCE: Rule = (
    "has(self.secretRef) != has(self.htpasswdSecretRef)",
    "an entry of usersFrom needs exactly one of secretRef and htpasswdSecretRef",
);
/// Two of one name would be one Secret.
pub const PULL_SECRETS_HAVE_NAMES: Rule = (
    "self.all(one, self.filter(other, (has(one.name) ? one.name : '') == (has(other.name) ? other.name : '')).size() == 1)",
    "each of spec.pullSecrets needs a name of its own; only one of them may be without, and is NAME-pull",
);
/// A login is of one.
pub const ONE_PULLS: Rule = (
    "has(self.user) != has(self.serviceAccountName)",
    "an entry of spec.pullSecrets needs exactly one of user and serviceAccountName",
);
/// Only where the cluster's tokens are logins; and a token that could be for somebody else is never made.
pub const ACCOUNTS_PULL_WITH_TOKENS: Rule = (
    "!has(self.spec.pullSecrets) || self.spec.pullSecrets.all(pull, !has(pull.serviceAccountName)) || (has(self.spec.auth) && has(self.spec.auth.token) && has(self.spec.auth.token.kubernetes) && self.spec.auth.token.kubernetes.audience.startsWith(self.metadata.name + '.') && self.spec.auth.token.kubernetes.audience.endsWith('.svc'))",
    "spec.pullSecrets[].serviceAccountName needs spec.auth.token.kubernetes, with NAME.NAMESPACE.svc as its audience: the registry's own name and namespace",
);
/// Without logins there is none to hand out.
pub const PULL_SECRETS_NEED_LOGINS: Rule = (
    "!has(self.pullSecrets) || self.pullSecrets.size() == 0 || !has(self.auth) || !has(self.auth.none)",
    "spec.pullSecrets holds a login and cannot be combined with spec.auth.none",
);

/// Image names whose first part has neither dot nor port are read as paths of Docker Hub.
pub const ADDRESSES_ARE_NO_PATHS: Rule = (
    "self.all(address, address == 'localhost' || address.contains('.') || address.contains(':'))",
    "each of spec.addresses needs a dot or a port: clients read registry/app as a path of Docker Hub, but registry:5000/app and registry.example.com/app as an address",
);
/// Keys of a map have no bounds of their own, and a pattern for them would cost more than the API server allows; `model` looks closer.
pub const COMMON_LABELS: Rule = (
    "!has(self.commonLabels) || self.commonLabels.all(key, key.size() <= 317)",
    "spec.commonLabels: a key has at most 317 characters: a prefix of 253, a slash and a name of 63",
);

/// What the operator writes cannot be what it reads: it would refuse the object as not its own, or take it away.
pub const INPUT_SECRETS_ARE_NO_CHILDREN: Rule = (
    "!has(self.spec.tls) || ['-tls', '-ca', '-csr', '-htpasswd', '-admin', '-pull', '-config', '-token'].map(suffix, self.metadata.name + suffix).all(child, (!has(self.spec.tls.secret) || (self.spec.tls.secret.name != child && (!has(self.spec.tls.secret.passphraseSecretRef) || self.spec.tls.secret.passphraseSecretRef.name != child))) && (!has(self.spec.tls.privateCA) || !has(self.spec.tls.privateCA.caSecretRef) || has(self.spec.tls.privateCA.caSecretRef.namespace) || self.spec.tls.privateCA.caSecretRef.name != child) && (!has(self.spec.tls.certificateSigningRequest) || !has(self.spec.tls.certificateSigningRequest.caBundleSecretRef) || self.spec.tls.certificateSigningRequest.caBundleSecretRef.name != child) && (!has(self.spec.tls.certManager) || !has(self.spec.tls.certManager.caBundleSecretRef) || self.spec.tls.certManager.caBundleSecretRef.name != child) && (!has(self.spec.tls.clientCASecretRef) || self.spec.tls.clientCASecretRef.name != child))",
    "spec.tls names a Secret that the operator writes for this registry itself (NAME-tls, -ca, -csr, -htpasswd, -admin, -pull, -config, -token): store your own under another name",
);
/// The same for users.
pub const USERS_SECRETS_ARE_NO_CHILDREN: Rule = (
    "!has(self.spec.auth) || ['-tls', '-ca', '-csr', '-htpasswd', '-admin', '-pull', '-config', '-token'].map(suffix, self.metadata.name + suffix).all(child, (!has(self.spec.auth.users) || self.spec.auth.users.all(user, !has(user.passwordSecretRef) || user.passwordSecretRef.name != child)) && (!has(self.spec.auth.usersFrom) || self.spec.auth.usersFrom.all(from, (!has(from.secretRef) || from.secretRef.name != child) && (!has(from.htpasswdSecretRef) || from.htpasswdSecretRef.name != child))))",
    "spec.auth refers to a Secret that the operator writes for this registry itself (NAME-tls, -ca, -csr, -htpasswd, -admin, -pull, -config, -token): store users' passwords in one of another name; auth.admin keeps the generated user",
);
/// The same for the volume.
pub const CLAIM_IS_NO_CHILD: Rule = (
    "!has(self.spec.storage) || !has(self.spec.storage.existingClaim) || self.spec.storage.existingClaim.name != self.metadata.name + '-data'",
    "spec.storage.existingClaim.name is the claim that the operator makes for this registry itself: write persistentVolumeClaim instead",
);

/// What a controller shows is public, and the operator's Secrets are not; NAME-tls it shows by itself.
pub const ROUTE_SHOWS_NO_CHILD: Rule = (
    "!has(self.spec.route) || !has(self.spec.route.ingress) || !has(self.spec.route.ingress.tlsSecretName) || !(['-tls', '-ca', '-csr', '-htpasswd', '-admin', '-pull', '-config', '-token'].map(suffix, self.metadata.name + suffix).exists(child, child == self.spec.route.ingress.tlsSecretName))",
    "spec.route.ingress.tlsSecretName names a Secret that the operator writes for this registry itself (NAME-tls, -ca, -csr, -htpasswd, -admin, -pull, -config, -token): leave it out to show NAME-tls, or name one of your own",
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

/// External traffic belongs to two types.
pub const TRAFFIC_POLICY_NEEDS_TYPE: Rule = (
    "!has(self.externalTrafficPolicy) || (has(self.type) && self.type in ['NodePort', 'LoadBalancer'])",
    "externalTrafficPolicy needs type: NodePort or LoadBalancer",
);

/// The registry lets environment variables override its file.
pub const NO_REGISTRY_ENV: Rule = (
    "!has(self.env) || self.env.all(variable, !variable.name.startsWith('REGISTRY_') || (variable.name in ['REGISTRY_PROXY_USERNAME', 'REGISTRY_PROXY_PASSWORD'] && has(variable.valueFrom) && has(variable.valueFrom.secretKeyRef)))",
    "env names must not begin with REGISTRY_: they would override the rendered configuration; use spec.config or spec.extraConfig. Only REGISTRY_PROXY_USERNAME and REGISTRY_PROXY_PASSWORD are allowed, with valueFrom.secretKeyRef",
);
