//! What the sidecar asks the API server with: a token of the registry's ServiceAccount, as the kubelet shows it. It is mounted nowhere else.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector,
    ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use super::pod::mount;

const VOLUME: &str = "cluster-access";
/// Where every client of the API server looks for it.
const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The authority of the API server, which the cluster puts into each namespace.
const AUTHORITY: &str = "kube-root-ca.crt";

/// The same as the kubelet would mount by itself.
pub(super) fn volume() -> Volume {
    let token = ServiceAccountTokenProjection { path: "token".to_owned(), ..ServiceAccountTokenProjection::default() };
    let item = KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), ..KeyToPath::default() };
    let authority =
        ConfigMapProjection { name: AUTHORITY.to_owned(), items: Some(vec![item]), ..ConfigMapProjection::default() };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            field_path: "metadata.namespace".to_owned(),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let namespace = DownwardAPIProjection { items: Some(vec![namespace]) };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
        VolumeProjection { downward_api: Some(namespace), ..VolumeProjection::default() },
    ];
    Volume {
        name: VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), ..ProjectedVolumeSource::default() }),
        ..Volume::default()
    }
}

/// Shows it to a container.
pub(super) fn mounted() -> VolumeMount {
    mount(VOLUME, FOLDER, true)
}
