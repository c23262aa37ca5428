//! Platforms as people name them: `linux/amd64`, `linux/arm/v7`.

/// What containers on this machine run.
pub(crate) fn here() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "linux/amd64".to_owned(),
        "aarch64" => "linux/arm64".to_owned(),
        other => format!("linux/{other}"),
    }
}
