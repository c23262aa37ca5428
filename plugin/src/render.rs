//! `render`: every child of a manifest, without a cluster. Secret material and what only a cluster knows become placeholders, so
//! that the output is the same every time.

use std::path::PathBuf;

use jiff::Timestamp;
use private_registry_operator::api::GenerateAdmin;
use private_registry_operator::desired::{
    self, AdminLogin, Authority, Material, RotatedLogin, Run, ServingCertificate, SigningRequest, Table, TokenKeys,
};
use private_registry_operator::model::{Resolved, Tls, Users};
use serde_json::{Value, json};

use crate::manifests::{self, Manifests};
use crate::{check, shell};

pub(crate) const PLACEHOLDER: &str = "PLACEHOLDER: made by the operator";

/// Options of `render`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    manifests: Manifests,
}

/// What manifests are made into.
#[derive(Debug)]
pub struct Rendered {
    /// The children of every valid registry, as YAML documents.
    pub yaml: String,
    /// A line for everything that is wrong, files that cannot be read first.
    pub faults: Vec<String>,
}

/// Prints the children of every valid registry; what is wrong with the others goes to standard error. Whether nothing is.
pub(crate) fn run(options: &Options) -> bool {
    let rendered = render(&options.manifests.files);
    rendered.faults.iter().for_each(|fault| shell::complain(fault));
    shell::print(&rendered.yaml);
    rendered.faults.is_empty()
}

/// Renders every registry of files, folders and (as `-`) standard input.
#[must_use]
pub fn render(paths: &[PathBuf]) -> Rendered {
    let manifests::Found { registries, unreadable: mut faults } = manifests::find(paths);
    let mut text = String::new();
    for document in &registries {
        match check::resolve(document) {
            Ok(resolved) => text.push_str(&yaml(&resolved)),
            Err(found) => faults.extend(found.iter().map(|fault| document.fault(fault))),
        }
    }
    Rendered { yaml: text, faults }
}

fn yaml(registry: &Resolved) -> String {
    let run = Run::default();
    let mut objects = desired::foundation(registry);
    objects.extend(desired::claim::build(registry));
    objects.extend(desired::plan(registry, &placeholders(registry), &run));
    objects
        .into_iter()
        .map(|mut object| {
            if !registry.namespace.is_empty() {
                object.body["metadata"]["namespace"] = json!(registry.namespace);
            }
            if object.kind == desired::kinds::SECRET {
                // As text: whoever reads this wants to read the registry's configuration too.
                let data = object.body["data"].as_object().cloned().unwrap_or_default();
                let text = data.into_iter().map(|(key, value)| (key, Value::String(decoded(&value)))).collect();
                object.body.as_object_mut().map(|fields| fields.remove("data"));
                object.body["stringData"] = Value::Object(text);
            }
            format!("---\n{}", serde_saphyr::to_string(&object.body).expect("an object is YAML"))
        })
        .collect()
}

fn decoded(value: &Value) -> String {
    use base64::Engine as _;
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn placeholders(registry: &Resolved) -> Material {
    let text = || PLACEHOLDER.to_owned();
    let has_logins = !matches!(registry.users, Users::Everybody);
    let own_authority = matches!(registry.tls, Tls::PrivateCa { .. });
    Material {
        certificate: registry.has_tls().then(|| ServingCertificate {
            chain: text(),
            key: text().into(),
            ca: own_authority.then(text),
            checksum: text(),
            served_request: None,
            issued: None,
            authorities_since: None,
            shared_authority: None,
            signer: None,
        }),
        authority: own_authority.then(|| Authority {
            certificate: text(),
            key: text().into(),
            kind: Authority::KIND.to_owned(),
            next: None,
            succeeds: None,
        }),
        request: match &registry.tls {
            Tls::Request(_) => Some(SigningRequest { request: text(), key: text().into(), reason: None }),
            _ => None,
        },
        bundle: own_authority.then(text),
        table: has_logins.then(|| Table { file: text().into(), sources: "{}".to_owned(), access: text() }),
        tokens: registry.policy().map(|_| TokenKeys {
            signing: text().into(),
            next: text().into(),
            former: None,
            refresh: text().into(),
            since: Timestamp::UNIX_EPOCH,
            public: text(),
        }),
        admin: has_admin(&registry.users)
            .then(|| AdminLogin { password: text().into(), kind: AdminLogin::KIND.to_owned() }),
        logins: registry
            .rotated_users()
            .iter()
            .map(|user| (user.name.clone(), RotatedLogin::first(&user.name, text().into(), Timestamp::UNIX_EPOCH)))
            .collect(),
        pull: (has_admin(&registry.users) || !registry.pull_secrets.is_empty()).then(|| text().into()),
        http_secret: text().into(),
    }
}

/// Whether the operator would make a user of its own, if every user of the manifest can log in.
fn has_admin(users: &Users) -> bool {
    match users {
        Users::Everybody => false,
        Users::Table { candidates, rotated, missing, admin, .. } => match admin.generate {
            GenerateAdmin::Always => true,
            GenerateAdmin::Never => false,
            GenerateAdmin::Auto => candidates.is_empty() && rotated.is_empty() && missing.is_empty(),
        },
    }
}
