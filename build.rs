//! Puts the commit into the program, for `--version`.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=PRIVATE_REGISTRY_COMMIT");
    // The file is elsewhere in a work tree and absent in an archive; one that is absent would mean a new build each time.
    if let Some(head) = git(&["rev-parse", "--git-path", "HEAD"]).filter(|head| Path::new(head).exists()) {
        println!("cargo:rerun-if-changed={head}");
    }
    let commit = env::var("PRIVATE_REGISTRY_COMMIT").ok().or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo:rustc-env=COMMIT={}", commit.unwrap_or_else(|| "unknown commit".to_owned()));
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
