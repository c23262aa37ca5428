//! The ServiceAccount of the registry's pods. It has no rights, and its token is mounted nowhere but where the cluster's tokens are logins: an
//! administrator gives it the right to ask about them. Else it exists so that policies and image pull secrets can name it.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{Hold, Object, object};
use crate::model::{Child, Resolved};

/// The ServiceAccount of the registry's pods.
#[must_use]
pub fn build(registry: &Resolved) -> Object {
    let account = ServiceAccount {
        metadata: registry.metadata(Child::ServiceAccount),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    object(&account, Hold::Disposable)
}
