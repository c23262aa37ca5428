//! Images in a file or a folder: the layout of the OCI, as a folder or packed as a tar archive, with Docker's own table beside it, so that `docker load` reads it,
//! too. What is read was made by somebody else: names lead to nothing but entries of the archive itself.

pub(crate) mod docker;
mod out;
mod reader;
mod writer;

use serde::{Deserialize, Serialize};

pub(crate) use self::out::Out;
pub(crate) use self::reader::{Archive, Content};
pub(crate) use self::writer::Writer;

/// The OCI's table of contents.
pub(crate) const INDEX: &str = "index.json";
/// Docker's table of contents.
pub(crate) const DOCKER_MANIFEST: &str = "manifest.json";
/// The file by which a layout of the OCI is known.
pub(crate) const LAYOUT: &str = "oci-layout";
/// What stands in it.
pub(crate) const LAYOUT_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// How containerd and Docker call an image.
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";
/// How everybody else does: a tag, or what somebody wanted.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An entry of Docker's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Vec<String>,
}

/// Where a blob is in a layout. Its digest has been checked.
pub(crate) fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}
