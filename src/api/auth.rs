//! Who may log in.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GoDuration, rules};

/// Who may log in. Absent: one generated user `admin`, whose password is in the Secret NAME-admin.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_AUTH, validation = rules::NO_AUTH_ALONE, validation = rules::SECOND_NAMES_ARE_FREE)]
pub struct AuthSpec {
    /// Names and passwords, checked by the registry itself. The default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htpasswd: Option<HtpasswdSpec>,
    /// Names and passwords, and rules for who may do what with which repositories: clients log in once and get tokens. Brings the front end with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenSpec>,
    /// No login: everybody who reaches the registry may push and pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoAuth>,
    /// The user that the operator makes itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminSpec>,
    /// Users, each with a password in a Secret, yours or one that the operator makes and rotates. Changes reach the running registry without a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub users: Vec<UserSpec>,
    /// Secrets that hold many users each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub users_from: Vec<UsersFrom>,
}

/// Names and passwords, checked by the registry itself against a table of bcrypt hashes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HtpasswdSpec {
    /// Work factor of the password hashes, default 5. The registry hashes at every request: each step up doubles the time, 10
    /// allows about 12 requests a second. The passwords lie in Secrets beside the hashes, so a higher cost protects little. Lines
    /// of an htpasswd file keep the cost that they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 12))]
    pub bcrypt_cost: Option<u32>,
}

/// Rules for who may do what. What no rule allows is refused. The generated admin may do everything.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::TEAMS_EXIST, validation = rules::ISSUERS_DIFFER)]
pub struct TokenSpec {
    /// Names for several users together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub teams: Vec<TeamSpec>,
    /// What is allowed, at least one rule. The order does not matter: something is allowed if any rule says so.
    // Required: a tool that applies on the server's side and takes the last rule away would take `token` with it, and open the registry.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub rules: Vec<RuleSpec>,
    /// The cluster's own tokens are logins, too: of ServiceAccounts, and of people. What they may do is a matter of Roles in the registry's namespace, not of
    /// `rules`: verbs pull, push, delete and list on `repositories` of the group privateregistry.dev. An administrator lets the registry ask the cluster:
    /// its ServiceAccount NAME needs the ClusterRole system:auth-delegator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesLogins>,
    /// Who else says who somebody is: pipelines of GitHub or GitLab, another cluster, any OpenID Connect issuer. Its tokens are logins, and its users and groups
    /// can stand in `teams` and `rules`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub issuers: Vec<IssuerSpec>,
}

/// An OpenID Connect issuer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::KEYS_OR_AUTHORITY, validation = rules::ISSUER_NOT_SYSTEM)]
pub struct IssuerSpec {
    /// Its name here. Users and groups are called by it: `NAME:USER`.
    #[schemars(length(min = 1, max = 32), regex(pattern = rules::LABEL))]
    pub name: String,
    /// Its address, exactly as its tokens say it, for instance `https://token.actions.githubusercontent.com`. Its keys are asked for there.
    #[schemars(length(min = 1, max = 512), regex(pattern = rules::ISSUER))]
    pub issuer: String,
    /// Whom a token must be for: the registry, by a name that no other service has.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::AUDIENCE))]
    pub audience: String,
    /// Who somebody is, by what the token says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_mapping: Option<ClaimMapping>,
    /// Its keys, for registries that cannot reach it: a JSON Web Key Set in a ConfigMap of the registry's namespace. Somebody has to keep it up to date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_config_map_ref: Option<JwksConfigMapRef>,
    /// Who signs its certificate, PEM; absent: a public authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16384))]
    pub certificate_authority: Option<String>,
}

/// What a token's claims mean: expressions in CEL about `claims`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClaimMapping {
    /// Gives the user's name, default `claims.sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub user: Option<String>,
    /// Gives a list of groups, for instance `claims.ref == 'refs/heads/main' ? ['release'] : []`. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub groups: Option<String>,
}

/// A key of a ConfigMap in the registry's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JwksConfigMapRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Key in the ConfigMap, default `jwks.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::DATA_KEY))]
    pub key: Option<String>,
}

/// The cluster's tokens as logins.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KubernetesLogins {
    /// Whom a token must be for, best the registry's own name, for instance `company.registries.svc`. With the API server's own audience tokens of people count,
    /// too; such a token opens the cluster to whoever runs the registry.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::AUDIENCE))]
    pub audience: String,
}

/// A team.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TeamSpec {
    /// Its name, which can be part of a repository's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::LABEL))]
    pub name: String,
    /// Names of its users; those whom an issuer knows are called `ISSUER:USER`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512), inner(length(min = 1, max = 288), regex(pattern = rules::USER_OR_GUEST)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub users: Vec<String>,
    /// Groups whose members are in it, too: `ISSUER:GROUP`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 3, max = 288), regex(pattern = rules::GUEST)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Vec<String>,
}

/// One rule: these users may do these things with these repositories.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::RULE_IS_FOR_SOMEBODY, validation = rules::RULE_HAS_REPOSITORIES, validation = rules::ANONYMOUS_ONLY_READS, validation = rules::TEAM_PATTERNS_NEED_TEAMS)]
pub struct RuleSpec {
    /// For these users; `*` is every user of the registry's own. Those whom an issuer knows are called `ISSUER:USER`, and `*` does not stand for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 288), regex(pattern = rules::USER_OR_GUEST)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub users: Vec<String>,
    /// For everybody in these teams; `*` is every team.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub teams: Vec<String>,
    /// `true`: for everybody, without a login too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous: Option<bool>,
    /// With repositories that have such a name: `*` stands for any letters up to the next slash, `**` for any number of whole parts between slashes,
    /// `${user}` for the user's name, `${team}` for the team's. So `${team}/**` is what each team has for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 255), regex(pattern = rules::REPOSITORY_PATTERN)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub repositories: Vec<String>,
    /// What is allowed: pull, push, delete; and catalog, which lists the names of all repositories. Clients that push need pull beside it.
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub actions: Vec<RuleAction>,
}

/// What a rule allows.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Delete.
    Delete,
    /// List the names of all repositories.
    Catalog,
}

/// The user that the operator makes itself. Name and password are in the Secret NAME-admin.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AdminSpec {
    /// Auto (default): it exists while no other user does. Always: it stays beside the others. Never: it is not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerateAdmin>,
    /// Name to log in with, default `admin`: no colon, no blanks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = rules::USER_NAME))]
    pub username: Option<String>,
}

/// One user, whose password lies in a Secret of yours or is made by the operator: exactly one of `passwordSecretRef` and `rotation`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_PASSWORD, validation = rules::ROTATED_NAME)]
pub struct UserSpec {
    /// Name to log in with: no colon, no blanks. With `rotation`: lower-case letters, digits and '-', at most 63, because a Secret is called by it.
    #[schemars(length(min = 1, max = 255), regex(pattern = rules::USER_NAME))]
    pub name: String,
    /// Where the password is, 8 to 72 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret_ref: Option<SecretKeyRef>,
    /// The operator makes the password, and another one again and again. The login is in the Secret NAME-login-USER (`username`, `password`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<UserRotation>,
}

/// How one password takes over from another. The next one is accepted before it is shown, and the former one for a while after that.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::OVERLAP_LEAVES_ROOM)]
pub struct UserRotation {
    /// How long a login is shown, for instance `720h`; at least 1h. An annotation privateregistry.dev/rotate on its Secret asks for the next one earlier.
    #[x_kube(validation = rules::AT_LEAST_AN_HOUR)]
    pub every: GoDuration,
    /// How long the former login counts beside the one that is shown: at least 1m, and 10m less than `every`. Default 24h, or half of `every` if that is
    /// less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::AT_LEAST_A_MINUTE)]
    pub overlap: Option<GoDuration>,
}

/// A key of a Secret in the registry's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Key in the Secret, default `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// A Secret that holds many users: exactly one of its fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_USERS_SOURCE)]
pub struct UsersFrom {
    /// A Secret of which every key is a user's name and every value its password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// A key of a Secret that holds lines of an htpasswd file (`htpasswd -B`), so that users keep the passwords that they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htpasswd_secret_ref: Option<HtpasswdSecretRef>,
}

/// A key of a Secret in the registry's namespace, with lines of an htpasswd file.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HtpasswdSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// Key in the Secret. Absent: `htpasswd`, or `auth`, as ingress controllers call it, if the Secret has no key of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// A Secret in the registry's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
}

/// When the operator makes a user of its own.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
pub enum GenerateAdmin {
    /// While no other user exists.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// No login. Has no fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct NoAuth {}
