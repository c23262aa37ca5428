//! Secrets of a registry, and the ConfigMap with what is public of them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    AdminLogin, Authority, Hold, Material, Object, RotatedLogin, ServingCertificate, SigningRequest, Table, TokenKeys,
    config, nginx, object,
};
use crate::model::{Child, Resolved, labels};
use crate::secret::Sensitive;

/// Key of the htpasswd file in its Secret.
pub const HTPASSWD_KEY: &str = "htpasswd";
/// Key in the same Secret of where each hash came from. Not mounted.
pub const SOURCES_KEY: &str = "sources";
/// Key in the same Secret of who may do what, for the sidecar of a registry whose clients get tokens.
pub const ACCESS_KEY: &str = "access.json";
/// Key of the configuration file in its Secret.
pub const CONFIG_KEY: &str = "config.yml";
/// Key in the same Secret of the front end's configuration, if there is one.
pub const NGINX_KEY: &str = "nginx.conf";
/// Key in the same Secret of the authorities that sign clients' certificates, if clients must show one.
pub const CLIENT_CA_KEY: &str = "client-ca.crt";
/// Key in the same Secret of what checks tokens, if clients get them.
pub const JWKS_KEY: &str = "jwks.json";
/// Key in the same Secret of what signs uploads, so that it can be kept.
pub const HTTP_SECRET_KEY: &str = "http-secret";
/// Keys of the Secret with what signs tokens: what signs, what signs next, what checks the former one's, what seals refresh tokens, and since when the first
/// signs.
pub const TOKEN_KEYS: [&str; 5] = ["signing.key", "next.key", "former.jwk", "refresh.key", "since"];
/// Keys of the Secret with the login of a user whose password the operator makes: the login that is shown; since when; the password that is to follow; the
/// one before, and since when its time counts; the request that was handled last.
pub const LOGIN_KEYS: [&str; 7] =
    ["username", "password", "since", "next-password", "former-password", "former-since", "handled"];
/// Key of a request in its Secret and in its ConfigMap.
pub const REQUEST_KEY: &str = "tls.csr";
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
    objects.extend(material.certificate.as_ref().map(|made| certificate(registry, made)));
    objects.extend(material.authority.as_ref().map(|made| authority(registry, made)));
    objects.extend(
        material.request.iter().flat_map(|made| [request(registry, made), public_request(registry, &made.request)]),
    );
    objects.extend(material.bundle.as_ref().map(|made| bundle(registry, made)));
    objects.extend(material.table.as_ref().map(|made| table(registry, made)));
    objects.extend(material.tokens.as_ref().map(|made| tokens(registry, made)));
    objects.extend(material.admin.as_ref().map(|made| admin(registry, made)));
    objects.extend(material.logins.iter().map(|(user, made)| login(registry, user, made)));
    if let Some(made) = &material.pull {
        let default = || registry.name.child(Child::Pull);
        let named: Vec<_> = registry.pull_secrets.iter().map(|secret| secret.name.clone()).collect();
        let names = if named.is_empty() { vec![default()] } else { named };
        objects.extend(names.iter().map(|name| pull(registry, name, made)));
    }
    objects
}

/// `NAME-tls`: what is served.
#[must_use]
pub fn certificate(registry: &Resolved, certificate: &ServingCertificate) -> Object {
    let mut metadata = registry.metadata(Child::Tls);
    annotate(&mut metadata, labels::SERVED_REQUEST, certificate.served_request.as_ref());
    annotate(&mut metadata, labels::ISSUED, certificate.issued.as_ref());
    annotate(&mut metadata, labels::AUTHORITIES_SINCE, certificate.authorities_since.as_ref());
    annotate(&mut metadata, labels::SHARED_AUTHORITY, certificate.shared_authority.as_ref());
    annotate(&mut metadata, labels::SIGNER, certificate.signer.as_ref());
    let mut data = vec![("tls.crt", certificate.chain.as_str()), ("tls.key", certificate.key.expose())];
    data.extend(certificate.ca.as_deref().map(|ca| ("ca.crt", ca)));
    secret(metadata, "kubernetes.io/tls", data, Hold::Disposable)
}

fn annotate(metadata: &mut ObjectMeta, key: &str, value: Option<&String>) {
    if let Some(value) = value {
        metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.clone());
    }
}

/// `NAME-ca`: the authority and its key, and those of its successor while there is one.
#[must_use]
pub fn authority(registry: &Resolved, authority: &Authority) -> Object {
    let present = [("tls.crt", authority.certificate.as_str()), ("tls.key", authority.key.expose())];
    let next = authority
        .next
        .iter()
        .flat_map(|(certificate, key)| [("next.crt", certificate.as_str()), ("next.key", key.expose())]);
    let mut metadata = registry.kept_metadata(Child::Ca);
    annotate(&mut metadata, labels::SUCCEEDS, authority.succeeds.as_ref());
    secret(metadata, &authority.kind, present.into_iter().chain(next), registry.hold())
}

/// `NAME-csr`: what somebody is asked to sign, and its key.
#[must_use]
pub fn request(registry: &Resolved, request: &SigningRequest) -> Object {
    let mut metadata = registry.metadata(Child::Csr);
    annotate(&mut metadata, labels::ISSUED, request.reason.as_ref());
    let data = [(REQUEST_KEY, request.request.as_str()), ("tls.key", request.key.expose())];
    secret(metadata, "Opaque", data, Hold::Disposable)
}

/// `NAME-csr`, the ConfigMap: the request without its key, for whoever has it signed.
#[must_use]
pub fn public_request(registry: &Resolved, request: &str) -> Object {
    config_map(registry, Child::Csr, REQUEST_KEY, request)
}

/// `NAME-ca-bundle`: what clients must trust.
#[must_use]
pub fn bundle(registry: &Resolved, bundle: &str) -> Object {
    config_map(registry, Child::CaBundle, BUNDLE_KEY, bundle)
}

fn config_map(registry: &Resolved, child: Child, key: &str, value: &str) -> Object {
    let map = ConfigMap {
        metadata: registry.metadata(child),
        data: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    };
    object(&map, Hold::Disposable)
}

/// `NAME-htpasswd`: who may log in and do what, and where each hash came from. One Secret, so that whoever is in it has the rights that were meant.
#[must_use]
pub fn table(registry: &Resolved, table: &Table) -> Object {
    let (file, access) = (table.file.expose().as_str(), table.access.as_str());
    let data = [(HTPASSWD_KEY, file), (SOURCES_KEY, &table.sources), (ACCESS_KEY, access)];
    secret(registry.metadata(Child::Htpasswd), "Opaque", data, Hold::Disposable)
}

/// `NAME-token`: what signs tokens.
#[must_use]
pub fn tokens(registry: &Resolved, keys: &TokenKeys) -> Object {
    let [signing, next, former, refresh, since] = TOKEN_KEYS;
    let at = keys.since.to_string();
    let data = [
        (signing, keys.signing.expose().as_str()),
        (next, keys.next.expose()),
        (refresh, keys.refresh.expose()),
        (since, &at),
        // Pods mount each by its name, and do not start while one is missing.
        (former, keys.former.as_deref().unwrap_or_default()),
    ];
    secret(registry.metadata(Child::Token), "Opaque", data, Hold::Disposable)
}

/// `NAME-admin`: the generated user.
#[must_use]
pub fn admin(registry: &Resolved, admin: &AdminLogin) -> Object {
    let data = [("username", registry.admin_name()), ("password", admin.password.expose().as_str())];
    secret(registry.kept_metadata(Child::Admin), &admin.kind, data, registry.hold())
}

/// `NAME-login-USER`: the login of a user whose password the operator makes, and all that is to be known to make the next.
#[must_use]
pub fn login(registry: &Resolved, user: &str, login: &RotatedLogin) -> Object {
    let [username, password, since, next, former, former_since, handled] = LOGIN_KEYS;
    let [at, former_at] =
        [login.since, login.former.as_ref().and_then(|former| former.since)].map(|at| at.map(|at| at.to_string()));
    let data = [
        (username, Some(login.username.as_str())),
        (password, Some(login.password.expose())),
        (since, at.as_deref()),
        (next, login.next.as_ref().map(|next| next.expose().as_str())),
        (former, login.former.as_ref().map(|former| former.password.expose().as_str())),
        (former_since, former_at.as_deref()),
        (handled, login.handled.as_deref()),
    ];
    let data = data.into_iter().filter_map(|(key, value)| Some((key, value?)));
    let metadata = ObjectMeta { name: Some(registry.name.login(user)), ..registry.metadata(Child::Pull) };
    secret(metadata, &login.kind, data, Hold::Disposable)
}

/// `NAME-pull`, or as the manifest calls it: a login for pods of the namespace.
#[must_use]
pub fn pull(registry: &Resolved, name: &str, login: &Sensitive<String>) -> Object {
    let data = [(".dockerconfigjson", login.expose().as_str())];
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..registry.metadata(Child::Pull) };
    secret(metadata, "kubernetes.io/dockerconfigjson", data, Hold::Disposable)
}

/// `NAME-config`: the registry's configuration, its front end's, and the key that signs uploads.
#[must_use]
pub fn configuration(registry: &Resolved, material: &Material) -> Object {
    let file = config::render(registry, &material.http_secret);
    let front = nginx::render(registry);
    let data = [(CONFIG_KEY, file.as_str()), (HTTP_SECRET_KEY, material.http_secret.expose())];
    let clients = registry.protocol.client_authorities.as_deref().map(|authorities| (CLIENT_CA_KEY, authorities));
    let checks = material.tokens.as_ref().map(|keys| (JWKS_KEY, keys.public.as_str()));
    let data = data.into_iter().chain(front.as_deref().map(|front| (NGINX_KEY, front))).chain(clients).chain(checks);
    secret(registry.metadata(Child::Config), "Opaque", data, Hold::Disposable)
}

fn secret<'a>(
    metadata: ObjectMeta,
    kind: &str,
    data: impl IntoIterator<Item = (&'a str, &'a str)>,
    hold: Hold,
) -> Object {
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
    object(&Secret { metadata, type_: Some(kind.to_owned()), data: Some(data), ..Secret::default() }, hold)
}
