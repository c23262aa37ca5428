//! Kubeconfig files: self-contained, so that they can be copied anywhere on this machine.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::pki::Signed;

/// What a user shows.
pub(super) enum Credential<'a> {
    Certificate(&'a Signed),
    Token(&'a str),
}

/// Writes a kubeconfig with one cluster, one user, one context, all called `testbed`. The file is readable by its owner only.
pub(super) fn write(path: &Path, server: &str, ca: &Path, credential: &Credential<'_>) -> Result<PathBuf> {
    let ca = fs::read(ca).with_context(|| format!("read {}", ca.display()))?;
    let user = match credential {
        Credential::Certificate(signed) => json!({
            "client-certificate-data": STANDARD.encode(&signed.certificate), "client-key-data": STANDARD.encode(&signed.key),
        }),
        Credential::Token(token) => json!({ "token": token }),
    };
    let text = serde_saphyr::to_string(&document(server, &ca, &user)).context("write a kubeconfig as YAML")?;
    // Whoever reads the file meanwhile must see the old one or the new one.
    let unfinished = path.with_extension("unfinished");
    let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path.to_owned())
}

fn document(server: &str, ca: &[u8], user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(ca)}}],
        "users": [{"name": "testbed", "user": user}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "testbed", "namespace": "default"}}],
    })
}
