//! The registry's configuration file, rendered from a typed struct: the registry ignores keys that it does not know, so a typing
//! error would go unnoticed (`tls.cert` for `tls.certificate` gives a registry without TLS).
//!
//! Reference: <https://distribution.github.io/distribution/about/configuration/>.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::secrets::JWKS_KEY;
use super::{frontend, merge, nginx, pod};
use crate::api::{GoDuration, TlsVersion};
use crate::model::{Resolved, Users};
use crate::secret::Sensitive;

/// Seconds that running requests get after the registry was told to stop. Without it uploads are cut.
pub const DRAIN_SECONDS: i64 = 20;

#[derive(Serialize)]
struct Configuration<'a> {
    version: &'static str,
    log: Log,
    storage: Storage,
    http: Http<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Auth<'a>>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Serialize)]
struct Log {
    level: String,
    accesslog: AccessLog,
}

#[derive(Serialize)]
struct AccessLog {
    disabled: bool,
}

#[derive(Serialize)]
struct Storage {
    filesystem: Filesystem,
    delete: Switch,
    maintenance: Maintenance,
}

#[derive(Serialize)]
struct Filesystem {
    rootdirectory: &'static str,
}

#[derive(Serialize)]
struct Switch {
    enabled: bool,
}

#[derive(Serialize)]
struct Maintenance {
    uploadpurging: UploadPurging,
    readonly: Switch,
}

/// All four keys must be there: with `enabled` alone the registry panics.
#[derive(Serialize)]
struct UploadPurging {
    enabled: bool,
    age: String,
    interval: String,
    dryrun: bool,
}

#[derive(Serialize)]
struct Http<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    net: Option<&'static str>,
    addr: String,
    secret: &'a str,
    relativeurls: bool,
    draintimeout: String,
    headers: BTreeMap<&'static str, [&'static str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    debug: Debug,
}

#[derive(Serialize)]
struct Tls {
    certificate: String,
    key: String,
    minimumtls: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ciphersuites: Vec<&'static str>,
}

#[derive(Serialize)]
struct Debug {
    addr: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Auth<'a> {
    Htpasswd(Htpasswd<'a>),
    Token(Token),
}

/// Where clients get tokens, and which of them count.
#[derive(Serialize)]
struct Token {
    realm: String,
    autoredirect: bool,
    autoredirectpath: &'static str,
    service: String,
    issuer: String,
    jwks: String,
    signingalgorithms: [&'static str; 1],
}

#[derive(Serialize)]
struct Htpasswd<'a> {
    realm: &'a str,
    path: String,
}

/// The file's text, YAML.
#[must_use]
pub fn render(registry: &Resolved, http_secret: &Sensitive<String>) -> String {
    let knobs = &registry.config;
    let purging = knobs.upload_purging.clone().unwrap_or_default();
    let text = |given: Option<GoDuration>, default: &str| given.map_or_else(|| default.to_owned(), |given| given.0);
    let configuration = Configuration {
        version: "0.1",
        log: Log {
            level: knobs.log_level.unwrap_or_default().to_string(),
            // The front end sees every request, the registry only some of them.
            accesslog: AccessLog { disabled: registry.frontend.is_some() || !knobs.access_log.unwrap_or(true) },
        },
        // No descriptor cache: another process that collects garbage, or another replica, would leave it stale.
        storage: Storage {
            filesystem: Filesystem { rootdirectory: pod::DATA },
            // A cache of another registry takes out what has become old by deleting it. Its clients cannot delete all the same.
            delete: Switch {
                enabled: knobs.allow_deletes.unwrap_or(false) || registry.extra_config.contains_key("proxy"),
            },
            maintenance: Maintenance {
                uploadpurging: UploadPurging {
                    enabled: purging.enabled.unwrap_or(true),
                    age: text(purging.age, "168h"),
                    interval: text(purging.interval, "24h"),
                    dryrun: false,
                },
                readonly: Switch { enabled: knobs.read_only.unwrap_or(false) },
            },
        },
        http: Http {
            net: registry.frontend.as_ref().map(|_| "unix"),
            addr: match registry.frontend {
                Some(_) => frontend::SOCKET.to_owned(),
                None => format!(":{}", pod::PORT),
            },
            secret: http_secret.expose(),
            // Upload locations without host and port survive every port mapping and proxy.
            relativeurls: true,
            draintimeout: format!("{DRAIN_SECONDS}s"),
            headers: BTreeMap::from([("X-Content-Type-Options", ["nosniff"])]),
            tls: (registry.has_tls() && registry.frontend.is_none()).then(|| Tls {
                certificate: format!("{}/tls.crt", pod::TLS),
                key: format!("{}/tls.key", pod::TLS),
                minimumtls: match registry.protocol.minimum_version {
                    TlsVersion::VersionTLS12 => "tls1.2",
                    TlsVersion::VersionTLS13 => "tls1.3",
                },
                ciphersuites: registry.protocol.cipher_suites.iter().map(|suite| (*suite).into()).collect(),
            }),
            // Profiles and the whole configuration can be read there: not from outside the pod.
            debug: Debug { addr: "127.0.0.1:5001" },
        },
        auth: match &registry.users {
            Users::Everybody => None,
            Users::Table { policy: None, .. } => Some(Auth::Htpasswd(Htpasswd {
                realm: registry.name.as_str(),
                path: format!("{}/htpasswd", pod::AUTH),
            })),
            Users::Table { policy: Some(_), .. } => Some(Auth::Token(Token {
                // Where it redirects by itself, to the address that the client has used, this is not looked at; but it must be there.
                realm: nginx::TOKENS.to_owned(),
                autoredirect: true,
                autoredirectpath: nginx::TOKENS,
                service: registry.token_service(),
                issuer: registry.token_service(),
                jwks: format!("{}/{JWKS_KEY}", pod::CONFIG),
                signingalgorithms: ["ES256"],
            })),
        },
        more: sections(registry),
    };
    serde_saphyr::to_string(&configuration).expect("a configuration is YAML")
}

/// Sections that the operator sets by default, and over them, field by field, what the user wrote.
fn sections(registry: &Resolved) -> Map<String, Value> {
    let mut sections = Value::Object(Map::from_iter([
        ("health".to_owned(), json!({"storagedriver": {"enabled": true, "interval": "10s", "threshold": 3}})),
        // Without a descriptor cache the registry refuses BuildKit's cache indexes, whose entries are layers, unless told not to
        // look each entry up. Image manifests with missing layers are refused all the same.
        ("validation".to_owned(), json!({"manifests": {"indexes": {"platforms": "none"}}})),
    ]));
    merge::over(&mut sections, &Value::Object(registry.extra_config.clone()));
    match sections {
        Value::Object(sections) => sections,
        _ => Map::new(),
    }
}
