//! Who may log in.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Who may log in. Absent: one generated user `admin`, whose password is in the Secret NAME-admin.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::NO_AUTH_ALONE)]
pub struct AuthSpec {
    /// Users, each with a password in a Secret. Changes reach the running registry without a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_string()]))]
    pub users: Vec<UserSpec>,
    /// Secrets that hold many users each: every key is a user name, its value the password.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub users_from: Vec<UsersFrom>,
    /// Auto (default): a user `admin` exists while no other does. Always: it stays beside the others. Never: it is not made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_admin: Option<GeneratedAdmin>,
    /// Work factor of the password hashes, default 5. The registry hashes at every request: each step up doubles the time, 10
    /// allows about 12 requests a second. The passwords lie in Secrets beside the hashes, so a higher cost protects little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 12))]
    pub bcrypt_cost: Option<u32>,
    /// No login: everybody who reaches the registry may push and pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<NoAuth>,
}

/// One user.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UserSpec {
    /// Name to log in with: no colon, no blanks.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^:#\s\x00-\x1f\x7f][^:\s\x00-\x1f\x7f]*$"))]
    pub name: String,
    /// Where the password is, 8 to 72 bytes.
    pub password_secret_ref: SecretKeyRef,
}

/// A key of a Secret in the registry's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret, default `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// A Secret that holds many users.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct UsersFrom {
    /// The Secret, in the registry's namespace.
    pub secret_ref: SecretRef,
}

/// A Secret in the registry's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// When the operator makes a user `admin` with a password of its own.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
pub enum GeneratedAdmin {
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
