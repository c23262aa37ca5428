//! Secrets of a registry, and the ConfigMap with what is public of them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Hold, Material, Object, config, some};
use crate::model::{Child, Resolved, Users, labels};

/// Key of the htpasswd file in its Secret.
pub const HTPASSWD_KEY: &str = "htpasswd";
/// Key of the configuration file in its Secret.
pub const CONFIG_KEY: &str = "config.yml";
/// Key in the same Secret of what signs uploads, so that it can be kept.
pub const HTTP_SECRET_KEY: &str = "http-secret";
/// Key of the bundle in its ConfigMap.
pub const BUNDLE_KEY: &str = "ca.crt";

/// Every Secret that the material fills, and the bundle.
#[must_use]
pub fn build(registry: &Resolved, material: &Material) -> Vec<Object> {
    let mut objects = Vec::new();
    // What runs must find a configuration that fits it when its process starts again.
    if material.is_complete(registry) {
        objects.push(configuration(registry, material));
    }
    if let Some(certificate) = &material.certificate {
        let mut metadata = registry.metadata(Child::Tls);
        let served = certificate.served_request.clone().map(|request| (labels::SERVED_REQUEST.to_owned(), request));
        let issued = certificate.issued.clone().map(|word| (labels::ISSUED.to_owned(), word));
        metadata.annotations = some(served.into_iter().chain(issued).collect());
        let mut data = vec![("tls.crt", certificate.chain.as_str()), ("tls.key", certificate.key.expose())];
        data.extend(certificate.ca.as_deref().map(|ca| ("ca.crt", ca)));
        objects.push(secret(metadata, "kubernetes.io/tls", data, Hold::Disposable));
    }
    if let Some(authority) = &material.authority {
        let data = [("tls.crt", authority.certificate.as_str()), ("tls.key", authority.key.expose())];
        objects.push(secret(registry.kept_metadata(Child::Ca), "kubernetes.io/tls", data, registry.hold()));
    }
    if let Some(bundle) = &material.bundle {
        let map = ConfigMap {
            metadata: registry.metadata(Child::CaBundle),
            data: Some(BTreeMap::from([(BUNDLE_KEY.to_owned(), bundle.clone())])),
            ..ConfigMap::default()
        };
        objects.push(Object::new(&map, Hold::Disposable));
    }
    if let Some(table) = &material.table {
        let mut metadata = registry.metadata(Child::Htpasswd);
        metadata.annotations = Some(BTreeMap::from([(labels::SOURCES.to_owned(), table.sources.clone())]));
        objects.push(secret(metadata, "Opaque", [(HTPASSWD_KEY, table.file.expose().as_str())], Hold::Disposable));
    }
    if let (Some(password), Users::Table { admin, .. }) = (&material.admin, &registry.users) {
        let data = [("username", admin.username.as_str()), ("password", password.expose().as_str())];
        objects.push(secret(registry.kept_metadata(Child::Admin), "kubernetes.io/basic-auth", data, registry.hold()));
    }
    if let Some(pull) = &material.pull {
        let data = [(".dockerconfigjson", pull.expose().as_str())];
        objects.push(secret(registry.metadata(Child::Pull), "kubernetes.io/dockerconfigjson", data, Hold::Disposable));
    }
    objects
}

fn configuration(registry: &Resolved, material: &Material) -> Object {
    let file = config::render(registry, &material.http_secret);
    let data = [(CONFIG_KEY, file.as_str()), (HTTP_SECRET_KEY, material.http_secret.expose())];
    secret(registry.metadata(Child::Config), "Opaque", data, Hold::Disposable)
}

fn secret<'a>(
    metadata: ObjectMeta,
    kind: &str,
    data: impl IntoIterator<Item = (&'a str, &'a str)>,
    hold: Hold,
) -> Object {
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
    Object::new(&Secret { metadata, type_: Some(kind.to_owned()), data: Some(data), ..Secret::default() }, hold)
}
