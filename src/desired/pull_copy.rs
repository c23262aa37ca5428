//! A login for pods of other namespaces.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Hold, Object, object};
use crate::model::{Resolved, labels};
use crate::secret::Sensitive;

/// `NAMESPACE.NAME-pull` in another namespace. One, whoever pods pull as there: a name that the registry's author chose could be one that somebody else is
/// about to take.
#[must_use]
pub fn build(registry: &Resolved, namespace: &str, login: &Sensitive<String>) -> Object {
    let metadata = ObjectMeta {
        name: Some(name(&registry.namespace, registry.name.as_str())),
        labels: Some(registry.labels(labels::copied())),
        ..ObjectMeta::default()
    };
    let data = BTreeMap::from([(".dockerconfigjson".to_owned(), ByteString(login.expose().as_bytes().to_vec()))]);
    let type_ = Some("kubernetes.io/dockerconfigjson".to_owned());
    let copy = object(&Secret { metadata, type_, data: Some(data), ..Secret::default() }, Hold::Kept);
    Object { namespace: Some(namespace.to_owned()), ..copy }
}

/// What it is called. Neither part can hold a dot, so no two registries' have one name.
#[must_use]
pub fn name(namespace: &str, registry: &str) -> String {
    format!("{namespace}.{registry}-pull")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Observed, Settings, resolve};

    #[test]
    fn it_says_whose_it_is_and_no_selector_of_pods_fits_it() {
        let registry = serde_json::from_value(json!({
            "apiVersion": "privateregistry.dev/v1alpha1", "kind": "PrivateRegistry", "spec": {"commonLabels": {"cost-center": "4711"}},
            "metadata": {"name": "team-a", "namespace": "registries"},
        }));
        let registry = resolve(&registry.unwrap(), &Observed::default(), &Settings::default()).unwrap();
        let copy = build(&registry, "shop", &"planted".to_owned().into());
        assert_eq!((copy.namespace.as_deref(), copy.name.as_str()), (Some("shop"), "registries.team-a-pull"));
        assert_eq!(
            copy.body["metadata"]["labels"],
            json!({"app.kubernetes.io/part-of": "private-registry", "cost-center": "4711"})
        );
        assert_eq!((&copy.body["type"], copy.hold), (&json!("kubernetes.io/dockerconfigjson"), Hold::Kept));
        assert!(!format!("{copy:?}").contains("planted"));
    }
}
