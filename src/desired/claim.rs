//! The claim of the images.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Object, object};
use crate::model::{Child, Resolved, Storage};

/// The claim of the images; nothing for an existing claim, which is not ours, or for a folder.
#[must_use]
pub fn build(registry: &Resolved) -> Option<Object> {
    let Storage::Claim { size, class, modes } = &registry.storage else { return None };
    let claim = PersistentVolumeClaim {
        metadata: registry.kept_metadata(Child::Data),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes.iter().map(ToString::to_string).collect()),
            storage_class_name: class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(size.clone()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    };
    Some(object(&claim, registry.hold()))
}
