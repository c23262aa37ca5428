//! Keys of issuers that the manifest names in ConfigMaps: the kubelet shows them to the sidecar, and what changes there needs no restart.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, KeyToPath, Volume, VolumeMount};

use super::pod::mount;
use crate::model::{KEYS_FILE, Resolved};

/// A folder for each issuer, with its name.
pub(super) const FOLDER: &str = "/etc/registry/issuers";

pub(super) fn volumes(registry: &Resolved) -> impl Iterator<Item = Volume> {
    let named = registry.issuers().iter().filter_map(|issuer| Some((&issuer.login.name, issuer.keys.as_ref()?)));
    named.map(|(issuer, (map, key))| Volume {
        name: volume(issuer),
        config_map: Some(ConfigMapVolumeSource {
            name: map.clone(),
            items: Some(vec![KeyToPath { key: key.clone(), path: KEYS_FILE.to_owned(), ..KeyToPath::default() }]),
            // Whose keys are missing has no logins, and nobody else is without.
            optional: Some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    })
}

pub(super) fn mounted(registry: &Resolved) -> Vec<VolumeMount> {
    let named = registry.issuers().iter().filter(|issuer| issuer.keys.is_some()).map(|issuer| &issuer.login.name);
    named.map(|issuer| mount(&volume(issuer), &format!("{FOLDER}/{issuer}"), true)).collect()
}

fn volume(issuer: &str) -> String {
    format!("issuer-{issuer}")
}
